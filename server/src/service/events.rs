//! Events posted by clients, through the mappings of their stream.

use std::sync::Arc;

use everwhen_ingest::{EmitEvent, Error as IngestError};
use everwhen_query::basis_token;
use everwhen_storage::{Basis, TxId, ValidTime};

use super::{Services, tenant_of};
use crate::failure::{Answered, Failure};

/// What became of a request's events.
#[derive(Debug, Clone)]
pub struct Emitted {
    /// The last transaction, of those that the events made if they made any.
    pub tx: TxId,
    pub accepted: u64,
    /// Index in the request and reason; each is a dead letter too.
    pub rejected: Vec<(usize, String)>,
    pub basis: String,
}

/// Sends events through a stream's mappings; answers when all are durable.
///
/// # Errors
/// `undefined_object` for a stream that does not exist; retryable codes where the server is busy.
pub async fn emit(
    services: &Services,
    stream: &str,
    tenant: Option<&str>,
    events: Vec<EmitEvent>,
) -> Answered<Emitted> {
    let tenant = tenant_of(tenant)?;
    let ingest = Arc::clone(&services.ingest);
    let name = stream.to_owned();
    // Apart from the threads that serve connections, and not given up when the client is.
    let emitting = async move { ingest.emit(&name, &tenant, events).await };
    let answer = match services.lanes.events.spawn(emitting).await {
        Ok(answer) => answer?,
        Err(error) => return Err(Failure::internal(&error)),
    };
    let count = |fate: &str, n: u64| {
        let labels = [("stream", stream), ("fate", fate)];
        services.metrics.add("everwhen_events_total", &labels, n);
    };
    let accepted = u64::try_from(answer.accepted).unwrap_or(u64::MAX);
    count("accepted", accepted);
    count("rejected", u64::try_from(answer.rejected.len()).unwrap_or(u64::MAX));
    let basis = basis_of(services, answer.tx).await?;
    Ok(Emitted { tx: answer.tx, accepted, rejected: answer.rejected, basis })
}

/// Returns the token that reads the effects of a transaction with now = its system time.
async fn basis_of(services: &Services, tx: TxId) -> Answered<String> {
    let store = services.store.clone();
    super::blocking(move || {
        let now = if tx == TxId::ZERO {
            store.latest().now
        } else {
            ValidTime::from_micros(store.system_time(tx)?.micros())
        };
        Ok(basis_token(&store, Basis { tx, now }))
    })
    .await
}

impl From<IngestError> for Failure {
    fn from(error: IngestError) -> Self {
        let mut failure = Self::of_sqlstate(error.sqlstate(), error.to_string());
        failure.position = error.position();
        failure.hint = error.hint().map(str::to_owned);
        failure
    }
}
