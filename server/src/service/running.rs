//! The statements that run: listed for their tenant, and cancelled by id.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use everwhen_storage::{SystemTime, Tenant};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::Services;
use crate::code::Code;
use crate::failure::{Answered, Failure};

/// Bytes of a statement's text that are kept to be shown.
const SHOWN_BYTES: usize = 4 << 10;

/// The statements under way. Cheap to clone.
#[derive(Clone, Default)]
pub struct Running(Arc<Mutex<BTreeMap<String, Arc<Entry>>>>);

struct Entry {
    tenant: Tenant,
    sql: String,
    at: SystemTime,
    since: Instant,
    rows: AtomicU64,
    cancel: CancellationToken,
}

/// A statement under way, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningStatement {
    pub id: String,
    pub tenant: Tenant,
    /// When it began.
    pub started: SystemTime,
    pub elapsed: Duration,
    /// Its text, cut where it is long.
    pub sql: String,
    /// Rows that it has answered so far.
    pub rows: u64,
}

/// A statement's place in the list. Dropping it takes the statement off.
pub struct Listed {
    running: Running,
    id: String,
    entry: Arc<Entry>,
}

impl Running {
    /// Lists a statement that begins now.
    pub fn begin(&self, services: &Services, tenant: &Tenant, sql: &str) -> Listed {
        let entry = Arc::new(Entry {
            tenant: tenant.clone(),
            sql: shown(sql),
            at: SystemTime::from_micros(services.store.clock().now_micros()),
            since: services.monotonic(),
            rows: AtomicU64::new(0),
            cancel: CancellationToken::new(),
        });
        let id = uuid::Uuid::new_v4().simple().to_string();
        self.0.lock().insert(id.clone(), Arc::clone(&entry));
        Listed { running: self.clone(), id, entry }
    }

    /// Returns a tenant's statements, the oldest first.
    pub fn list(&self, now: Instant, tenant: &Tenant) -> Vec<RunningStatement> {
        let entries = self.0.lock();
        let own = entries.iter().filter(|(_, entry)| entry.tenant == *tenant);
        let mut list: Vec<_> = own
            .map(|(id, entry)| RunningStatement {
                id: id.clone(),
                tenant: entry.tenant.clone(),
                started: entry.at,
                elapsed: now.saturating_duration_since(entry.since),
                sql: entry.sql.clone(),
                rows: entry.rows.load(Ordering::Relaxed),
            })
            .collect();
        list.sort_by(|a, b| b.elapsed.cmp(&a.elapsed).then_with(|| a.id.cmp(&b.id)));
        list
    }

    /// Cancels a tenant's statement; it answers 57014.
    ///
    /// # Errors
    /// `not_found` where no such statement of the tenant's runs, or no longer.
    pub fn cancel(&self, tenant: &Tenant, id: &str) -> Answered<()> {
        match self.0.lock().get(id).filter(|entry| entry.tenant == *tenant) {
            Some(entry) => {
                entry.cancel.cancel();
                Ok(())
            }
            None => Err(Failure::new(Code::NotFound, "no such statement runs")),
        }
    }
}

impl Listed {
    /// Returns the statement's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns what tells the statement to end.
    pub fn cancelled(&self) -> CancellationToken {
        self.entry.cancel.clone()
    }

    /// Returns a counter of the rows answered, for whoever reads them.
    pub fn counter(&self) -> RowCounter {
        RowCounter(Arc::clone(&self.entry))
    }
}

/// Counts a statement's rows.
pub struct RowCounter(Arc<Entry>);

impl RowCounter {
    /// Adds rows that were answered.
    pub fn add(&self, rows: u64) {
        self.0.rows.fetch_add(rows, Ordering::Relaxed);
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.running.0.lock().remove(&self.id);
    }
}

/// Returns a text's beginning, whole characters of it.
fn shown(sql: &str) -> String {
    let end = (0..=SHOWN_BYTES.min(sql.len())).rev().find(|at| sql.is_char_boundary(*at));
    let head = &sql[..end.unwrap_or(0)];
    if head.len() == sql.len() { sql.to_owned() } else { format!("{head}…") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(shown("SELECT 'ü'"), "SELECT 'ü'");
        let long = "ü".repeat(SHOWN_BYTES);
        let cut = shown(&long);
        assert!(cut.ends_with('…') && cut.len() <= SHOWN_BYTES + 3, "{}", cut.len());
        let odd = format!("x{long}");
        assert!(shown(&odd).ends_with("ü…"));
    }
}
