//! Posted events: the same mappings as a topic's records, answered when all are durable.

use everwhen_storage::{Tenant, TxId, ValidTime};

use crate::apply::TenantRule;
use crate::batch::{Record, Records};
use crate::commit::Committer;
use crate::error::Result;

/// One event as a client posts it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EmitEvent {
    pub key: Option<Vec<u8>>,
    /// The document in the stream's format.
    pub value: Vec<u8>,
    /// The event's own time; the server's clock where `None`.
    pub timestamp: Option<ValidTime>,
    pub headers: Vec<(String, Vec<u8>)>,
}

/// What became of posted events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmitAnswer {
    /// The last transaction that the events made; where they made none, the store's last.
    pub tx: TxId,
    /// Events that were not rejected.
    pub accepted: usize,
    /// Place in the request and reason; each is a dead letter too.
    pub rejected: Vec<(usize, String)>,
}

/// Puts events through a stream's mappings and waits until they are durable. Blocks.
///
/// # Errors
/// As [`Committer::write`], and [`crate::Error::NoMapping`].
pub fn emit(
    committer: &Committer,
    tenant: &Tenant,
    now: ValidTime,
    events: &[EmitEvent],
) -> Result<EmitAnswer> {
    let plan = committer.plan()?;
    if plan.is_idle() {
        return Err(committer.no_mapping());
    }
    let mut records = Records::default();
    for event in events {
        let headers = (!event.headers.is_empty()).then(|| headers(&event.headers));
        let record = Record {
            key: event.key.as_deref(),
            value: Some(&event.value),
            headers: headers.as_deref(),
            timestamp: Some(event.timestamp.unwrap_or(now).micros()),
            place: None,
            size: event.value.len(),
            truncated: false,
        };
        records.push(&record, plan.record_bytes_max);
    }
    let bound = *tenant != Tenant::default();
    let settled = committer.write(&records, TenantRule { tenant, bound })?;
    Ok(EmitAnswer {
        tx: settled.last_applied.unwrap_or(settled.last_tx),
        accepted: events.len() - settled.rejected.len(),
        rejected: settled.rejected,
    })
}

fn headers(headers: &[(String, Vec<u8>)]) -> Vec<u8> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned().into();
    let object: serde_json::Map<String, serde_json::Value> =
        headers.iter().map(|(name, value)| (name.clone(), text(value))).collect();
    serde_json::Value::Object(object).to_string().into_bytes()
}
