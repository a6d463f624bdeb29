//! What an operator must know of a projection beyond its cursor: keys that are held, a sink that
//! nobody offers, tenants that are not covered.

use std::time::Instant;

use everwhen_storage::{Store, SystemTime, TxId};

use super::projection::{Projection, ProjectionStatus};
use super::workers::Workers;

impl Projection {
    /// Completes a status.
    pub fn complete(
        &self,
        status: &mut ProjectionStatus,
        store: &Store,
        workers: &Workers,
        now: Instant,
    ) {
        let (refused, refused_since) = self.refusals.extent();
        status.held_keys += u64::try_from(refused).unwrap_or(u64::MAX);
        let first_tx = self.held().values().map(|held| held.tx).min();
        let found_at = first_tx.and_then(|tx| store.system_time(TxId::new(tx)).ok());
        let refused_since = refused_since.map(SystemTime::from_micros);
        status.held_since = found_at.into_iter().chain(refused_since).min();
        if status.state == "live" && status.held_keys > 0 {
            "incomplete".clone_into(&mut status.state);
        }
        let undelivered = matches!(status.state.as_str(), "loading" | "delivering");
        if undelivered
            && status.worker.is_none()
            && let Some(missing) = workers.missing(&self.body, now)
        {
            "waiting".clone_into(&mut status.state);
            status.error.get_or_insert(missing);
        }
        status.uncovered_tenants = self.count_uncovered(store);
    }

    /// Counts the tenants with rows in the tables of the query that it does not cover.
    pub fn count_uncovered(&self, store: &Store) -> u64 {
        let tables = || {
            let program = self.program(store, &store.definitions())?;
            Ok(program.tables.values().map(|table| table.as_ref().clone()).collect())
        };
        match self.uncovered.count(store, &self.name, &self.body, tables) {
            Ok(count) => u64::try_from(count).unwrap_or(u64::MAX),
            Err(error) => {
                tracing::debug!(projection = %self.name, %error, "tenants cannot be counted");
                0
            }
        }
    }

    /// Returns what whoever made the projection is to be warned of.
    pub fn warnings(&self, store: &Store) -> Vec<String> {
        match self.count_uncovered(store) {
            0 => Vec::new(),
            count => {
                let tenants = if count == 1 { "tenant has" } else { "tenants have" };
                vec![format!(
                    "{count} other {tenants} rows in the tables of projection \"{}\" that it does \
                     not cover: write WITH (tenants = 'all') or name them to cover them",
                    self.name
                )]
            }
        }
    }
}
