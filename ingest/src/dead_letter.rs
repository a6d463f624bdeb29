//! Records that cannot be processed, and why.

use everwhen_storage::{DeadLetter, Tenant};

use crate::batch::{KEPT_BYTES_MAX, Record};

/// Why a record was turned away, for people to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub reason: String,
    /// The tenant that the record named, where that much was understood.
    pub tenant: Option<Tenant>,
}

impl Rejection {
    /// Builds the rejection of a record whose tenant is not known.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), tenant: None }
    }

    /// Builds the rejection of a record that is larger than allowed.
    pub fn oversize(size: usize, bytes_max: usize) -> Self {
        Self::new(format!("record has {size} bytes, more than record_bytes_max = {bytes_max}"))
    }
}

/// Where a record came from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub stream: &'a str,
    /// `None` for posted events.
    pub topic: Option<&'a str>,
    /// The tenant of records that name none.
    pub tenant: &'a Tenant,
}

/// Builds the dead letter of a rejected record.
pub fn dead_letter(source: Source<'_>, record: &Record<'_>, rejection: &Rejection) -> DeadLetter {
    let value = record.value.unwrap_or_default();
    DeadLetter {
        id: 0,
        tenant: rejection.tenant.as_ref().unwrap_or(source.tenant).as_str().to_owned(),
        stream: source.stream.to_owned(),
        topic: source.topic.map(str::to_owned),
        partition: record.place.map(|(partition, _)| partition),
        offset: record.place.map(|(_, offset)| offset),
        reason: rejection.reason.clone(),
        value: value[..value.len().min(KEPT_BYTES_MAX)].to_vec(),
        size: u64::try_from(record.size).unwrap_or(u64::MAX),
        at: 0,
    }
}
