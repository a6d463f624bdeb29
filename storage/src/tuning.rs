//! What an operator may set about the engine, with defaults for a small server.

use std::time::Duration;

/// Settings beside [`crate::Options`]; the defaults are right for most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuning {
    /// Where [`crate::Options::sync`] is off: how often the log is synced while something was
    /// written; `None` leaves it to the operating system.
    pub sync_interval: Option<Duration>,
    /// Memory of all memtables together: beyond it the oldest are flushed.
    pub memtable_bytes_max: usize,
    /// Threads for flushes and compactions; 0 for as many as there are cores, at least 4.
    pub background_jobs: usize,
    /// What flushes and compactions may write in a second; 0 for no limit.
    pub background_bytes_per_second: u64,
    /// Room on the disk that is left free, besides what the memtables would take: writes are
    /// refused before it is used up. 0 waits for the disk to refuse.
    pub disk_reserve_bytes: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            sync_interval: None,
            memtable_bytes_max: 512 << 20,
            background_jobs: 0,
            background_bytes_per_second: 0,
            disk_reserve_bytes: 64 << 20,
        }
    }
}
