//! Projections as delivery and operators see them.

use std::sync::Arc;
use std::time::Duration;

use everwhen_projector::Error as ProjectorError;
use everwhen_projector::compute::{Acked, Chunk, LeaseGrant, ProjectionStatus, RefusedRow};
use serde_json::{Value, json};

use super::admin::approximate;
use super::{Services, blocking};
use crate::failure::{Answered, Failure};
use crate::metrics::{Gauge, render_gauge};

/// Longest wait of one call for the next chunk.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Returns how far each projection is. Blocking.
pub fn list(services: &Services) -> Vec<ProjectionStatus> {
    services.projections.status()
}

/// Returns what `everwhen.projections` shows, as JSON objects. Blocking.
pub fn list_json(services: &Services) -> Vec<Value> {
    let row = |p: ProjectionStatus| {
        json!({
            "projection": p.projection,
            "generation": p.generation,
            "state": p.state,
            "delivered_tx": p.delivered_tx,
            "delivered_now": p.delivered_now.map(|now| now.to_string()),
            "latest_tx": p.latest_tx,
            "pending_keys": p.pending_keys,
            "held_keys": p.held_keys,
            "held_since": p.held_since.map(|since| since.to_string()),
            "uncovered_tenants": p.uncovered_tenants,
            "error": p.error,
            "verified_through": p.verified_through,
            "worker": p.worker,
        })
    };
    list(services).into_iter().map(row).collect()
}

/// Gives a worker leases on the projections of its sinks that nobody holds.
///
/// # Errors
/// Where the store cannot be read or written.
pub async fn lease(
    services: &Arc<Services>,
    worker: String,
    sinks: Vec<String>,
) -> Answered<Vec<LeaseGrant>> {
    refuse_when_stopping(services)?;
    let services = Arc::clone(services);
    blocking(move || Ok(services.projections.lease(&worker, &sinks)?)).await
}

/// Waits for a projection's next chunk and renews the lease; nothing where none comes in time.
///
/// # Errors
/// `wrong_state` where the lease is lost: lease again. `unavailable` while the server stops.
pub async fn next(
    services: &Services,
    projection: &str,
    lease: u64,
    wait: Duration,
) -> Answered<Option<Chunk>> {
    refuse_when_stopping(services)?;
    let waiting = services.projections.next(projection, lease, wait.min(WAIT_MAX));
    tokio::select! {
        chunk = waiting => Ok(chunk?),
        () = services.health.stopping().cancelled() => Err(Failure::stopping()),
    }
}

/// Takes note that a sink has everything up to a change but the rows that it refused.
///
/// # Errors
/// `wrong_state` where the lease is lost.
pub async fn ack(
    services: &Arc<Services>,
    projection: String,
    lease: u64,
    acked: Acked,
) -> Answered<()> {
    let services = Arc::clone(services);
    blocking(move || Ok(services.projections.ack_rows(&projection, lease, &acked)?)).await
}

/// What a worker says of a sink that refuses.
pub struct Refusal {
    pub projection: String,
    pub lease: u64,
    pub error: String,
    /// The sink lacks rows that were acknowledged: all of them are wanted again.
    pub reload: bool,
    /// Rows of the chunk under way that the sink refuses because of their values.
    pub rows: Vec<RefusedRow>,
}

/// Takes note that a sink refuses.
///
/// # Errors
/// `wrong_state` where the lease is lost.
pub async fn fail(services: &Arc<Services>, refusal: Refusal) -> Answered<()> {
    let services = Arc::clone(services);
    blocking(move || {
        let Refusal { projection, lease, error, reload, rows } = refusal;
        if !rows.is_empty() {
            return Ok(services.projections.refuse_rows(&projection, lease, &rows)?);
        }
        Ok(services.projections.fail(&projection, lease, &error, reload)?)
    })
    .await
}

/// Takes back all leases of a worker.
pub fn release(services: &Services, worker: &str) {
    services.projections.release(worker);
}

/// Renders the gauges of projections. Blocking.
pub fn gauges(services: &Services, page: &mut String) {
    let projections = list(services);
    let of = |value: &dyn Fn(&ProjectionStatus) -> f64| -> Vec<Gauge> {
        let line = |p: &ProjectionStatus| (vec![("projection", p.projection.clone())], value(p));
        projections.iter().map(line).collect()
    };
    let delivered = of(&|p| approximate(p.delivered_tx));
    render_gauge(page, "everwhen_projection_delivered_tx", &delivered);
    let behind = of(&|p| approximate(p.latest_tx.saturating_sub(p.delivered_tx)));
    render_gauge(page, "everwhen_projection_lag_tx", &behind);
    let pending = of(&|p| approximate(p.pending_keys));
    render_gauge(page, "everwhen_projection_pending_keys", &pending);
    let held = of(&|p| approximate(p.held_keys));
    render_gauge(page, "everwhen_projection_held_keys", &held);
    let now = services.store.clock().now_micros();
    let held_seconds = of(&|p| {
        let micros = p.held_since.map_or(0, |since| now.saturating_sub(since.micros()));
        approximate(u64::try_from(micros / 1_000_000).unwrap_or(0))
    });
    render_gauge(page, "everwhen_projection_held_seconds", &held_seconds);
    let uncovered = of(&|p| approximate(p.uncovered_tenants));
    render_gauge(page, "everwhen_projection_uncovered_tenants", &uncovered);
    let failing = of(&|p| if p.error.is_some() { 1.0 } else { 0.0 });
    render_gauge(page, "everwhen_projection_failing", &failing);
    let (used, most) = services.projections.memory_bytes();
    let bytes = |bytes: usize| approximate(u64::try_from(bytes).unwrap_or(u64::MAX));
    render_gauge(page, "everwhen_projection_memory_bytes", &[(Vec::new(), bytes(used))]);
    render_gauge(page, "everwhen_projection_memory_peak_bytes", &[(Vec::new(), bytes(most))]);
}

fn refuse_when_stopping(services: &Services) -> Answered<()> {
    if services.health.stopping().is_cancelled() { Err(Failure::stopping()) } else { Ok(()) }
}

impl From<ProjectorError> for Failure {
    fn from(error: ProjectorError) -> Self {
        match error {
            ProjectorError::Query(error) => error.into(),
            ProjectorError::Storage(error) => error.into(),
            other => {
                let mut failure = Self::of_sqlstate(other.sqlstate(), other.to_string());
                failure.position = other.position();
                failure.hint = other.hint().map(str::to_owned);
                failure
            }
        }
    }
}
