//! What the server does, in domain types: every front end decodes, calls one of these, encodes.
//!
//! Knows no protocol. `query` runs statements, `lane` has the threads for them, `running` lists and cancels them, `append` takes rows in bulk, `write` turns their answers about commits,
//! `define` makes streams, mappings and projections, `events` posts records, `entity` reads one
//! key, `project` serves delivery, `snapshot` takes snapshots, `admin` says how things
//! stand, `store_metrics` how the store does.

pub mod admin;
pub mod append;
pub mod define;
pub mod entity;
pub mod events;
pub mod lane;
pub mod project;
pub mod query;
pub mod running;
pub mod snapshot;
pub mod store_metrics;
pub mod system_tables;
pub mod tables;
pub mod write;

use std::sync::Arc;
use std::time::Instant;

use everwhen_ingest::Ingest;
use everwhen_projector::compute::Projections;
use everwhen_query::Engine;
use everwhen_storage::time::Instant as TimePoint;
use everwhen_storage::{Store, Tenant};

use crate::code::Code;
use crate::failure::{Answered, Failure};
use crate::health::Health;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::shipping::ShippingStatus;

/// The parts of a running server that services use.
pub struct Services {
    pub store: Store,
    pub engine: Arc<Engine>,
    pub ingest: Arc<Ingest>,
    pub projections: Arc<Projections>,
    pub health: Health,
    pub metrics: Metrics,
    pub limits: Limits,
    pub running: running::Running,
    /// Held while a definition is planned and committed.
    pub defining: tokio::sync::Mutex<()>,
    /// Held while a snapshot is taken.
    pub snapshotting: Arc<tokio::sync::Mutex<()>>,
    /// Directories and buckets that any client may have snapshots taken into.
    pub snapshot_targets: Vec<String>,
    /// How far the journal is shipped.
    pub shipping: ShippingStatus,
    /// Where statements and events are worked on.
    pub lanes: lane::Lanes,
    /// When the server started.
    pub started: Instant,
    /// True under a manual clock.
    pub test_clock: bool,
}

impl Services {
    /// Returns how long ago a reading of the clock was taken.
    pub fn since(&self, then: Instant) -> std::time::Duration {
        self.store.clock().monotonic().saturating_duration_since(then)
    }

    /// Takes a reading to measure from.
    pub fn monotonic(&self) -> Instant {
        self.store.clock().monotonic()
    }
}

/// Checks a tenant's name; none means `default`.
///
/// # Errors
/// `invalid_value` for a name of another form.
pub fn tenant_of(name: Option<&str>) -> Answered<Tenant> {
    match name {
        None | Some("") => Ok(Tenant::default()),
        Some(name) => Ok(Tenant::new(name)?),
    }
}

/// Parses an instant, naming where it stood.
///
/// # Errors
/// `invalid_instant`.
pub fn instant_of<A>(place: &dyn std::fmt::Display, text: &str) -> Answered<TimePoint<A>> {
    TimePoint::parse(text)
        .map_err(|error| Failure::new(Code::InvalidInstant, format!("\"{place}\": {error}")))
}

/// Runs blocking work off the async threads.
///
/// # Errors
/// What the work answers; `internal_error` where it panicked.
pub async fn blocking<T, F>(work: F) -> Answered<T>
where
    T: Send + 'static,
    F: FnOnce() -> Answered<T> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer,
        Err(error) => Err(Failure::internal(&error)),
    }
}
