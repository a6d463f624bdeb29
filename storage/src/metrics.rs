//! Figures about the open store, for whoever shows them: plain numbers, no text forms.

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::standing::Standing;

/// Upper bounds of durations, in seconds.
pub const SECONDS: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// Upper bounds of counts.
pub const COUNTS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// How often values fell below each of some bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// Upper bounds, inclusive, ascending.
    pub bounds: &'static [f64],
    /// Values within each bound and above the one before; the last are those beyond all bounds.
    pub counts: Vec<u64>,
    pub sum: f64,
}

impl Distribution {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    fn enter(&mut self, value: f64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        self.counts[place] += 1;
        self.sum += value;
    }

    /// Returns how many values were entered.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// What the writer has done since the store was opened.
#[derive(Debug, Clone, PartialEq)]
pub struct WriterMetrics {
    /// Requests that wait in the queue now, and how many it holds.
    pub queue_depth: usize,
    pub queue_depth_max: usize,
    /// Callers that wait because the queue is full.
    pub callers_held: usize,
    pub transactions: u64,
    /// Times that the log was synced, with a group or by itself.
    pub log_syncs: u64,
    /// From the call to the writer's taking up, in seconds.
    pub wait_seconds: Distribution,
    /// Writing and syncing a group, in seconds.
    pub commit_seconds: Distribution,
    /// Batches that shared one write and one sync.
    pub group_batches: Distribution,
    /// How far system time is ahead of the clock: more than some microseconds after the clock
    /// went back.
    pub clock_behind: Duration,
    /// Times the clock moved by seconds more or less than time passed.
    pub clock_jumps: u64,
}

/// What the engine says of one column family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FamilyMetrics {
    pub name: &'static str,
    pub level0_files: u64,
    pub memtable_bytes: u64,
    pub sst_bytes: u64,
    pub pending_compaction_bytes: u64,
    /// An estimate.
    pub keys: u64,
}

/// What the engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineMetrics {
    /// Writes are stopped, or slowed down to this many bytes a second (0: they are not).
    pub write_stopped: bool,
    pub delayed_write_bytes_per_second: u64,
    pub running_flushes: u64,
    pub running_compactions: u64,
    pub background_errors: u64,
    pub wal_bytes: u64,
    pub memtable_bytes: u64,
    pub memtable_bytes_max: u64,
    pub cache_bytes: u64,
    pub cache_bytes_max: u64,
    /// Room on the disk; `None` where the system does not say.
    pub disk_free_bytes: Option<u64>,
    pub families: Vec<FamilyMetrics>,
}

/// All figures about the store.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreMetrics {
    pub standing: Standing,
    pub writer: WriterMetrics,
    pub engine: EngineMetrics,
}

/// Where the writer and its callers enter what they see.
pub(crate) struct Recorder {
    held: AtomicUsize,
    transactions: AtomicU64,
    log_syncs: AtomicU64,
    clock_behind_micros: AtomicI64,
    clock_jumps: AtomicU64,
    distributions: Mutex<Distributions>,
}

struct Distributions {
    wait: Distribution,
    commit: Distribution,
    group: Distribution,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            held: AtomicUsize::new(0),
            transactions: AtomicU64::new(0),
            log_syncs: AtomicU64::new(0),
            clock_behind_micros: AtomicI64::new(0),
            clock_jumps: AtomicU64::new(0),
            distributions: Mutex::new(Distributions {
                wait: Distribution::new(&SECONDS),
                commit: Distribution::new(&SECONDS),
                group: Distribution::new(&COUNTS),
            }),
        }
    }
}

impl Recorder {
    /// Counts a caller as held back while `wait` runs.
    pub(crate) fn while_held<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.held.fetch_add(1, Ordering::SeqCst);
        let waited = wait();
        self.held.fetch_sub(1, Ordering::SeqCst);
        waited
    }

    /// Enters how long a batch waited.
    pub(crate) fn waited(&self, time: Duration) {
        self.distributions.lock().wait.enter(time.as_secs_f64());
    }

    /// Enters a group that is durable.
    pub(crate) fn committed(&self, batches: usize, transactions: u64, time: Duration) {
        self.transactions.fetch_add(transactions, Ordering::SeqCst);
        let mut distributions = self.distributions.lock();
        distributions.commit.enter(time.as_secs_f64());
        distributions.group.enter(f64::from(u32::try_from(batches).unwrap_or(u32::MAX)));
    }

    /// Counts a sync of the log.
    pub(crate) fn synced(&self) {
        self.log_syncs.fetch_add(1, Ordering::SeqCst);
    }

    /// Enters how far system time is ahead of the clock.
    pub(crate) fn behind(&self, micros: i64) {
        self.clock_behind_micros.store(micros, Ordering::SeqCst);
    }

    /// Counts a jump of the clock.
    pub(crate) fn jumped(&self) {
        self.clock_jumps.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns the figures, with those of the queue.
    pub(crate) fn read(&self, queue_depth: usize, queue_depth_max: usize) -> WriterMetrics {
        let distributions = self.distributions.lock();
        let behind = self.clock_behind_micros.load(Ordering::SeqCst);
        WriterMetrics {
            queue_depth,
            queue_depth_max,
            callers_held: self.held.load(Ordering::SeqCst),
            transactions: self.transactions.load(Ordering::SeqCst),
            log_syncs: self.log_syncs.load(Ordering::SeqCst),
            wait_seconds: distributions.wait.clone(),
            commit_seconds: distributions.commit.clone(),
            group_batches: distributions.group.clone(),
            clock_behind: Duration::from_micros(u64::try_from(behind).unwrap_or(0)),
            clock_jumps: self.clock_jumps.load(Ordering::SeqCst),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_at_the_first_bound_that_holds_it() {
        let recorder = Recorder::default();
        for batches in [1, 2, 3, 1_000] {
            recorder.committed(batches, 5, Duration::from_millis(3));
        }
        let figures = recorder.read(3, 256);
        assert_eq!(figures.group_batches.counts, [1, 1, 1, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!((figures.transactions, figures.commit_seconds.count()), (20, 4));
        assert_eq!(figures.commit_seconds.counts[3], 4);
        assert!((figures.group_batches.sum - 1_006.0).abs() < f64::EPSILON);
    }

    #[test]
    fn held_callers_are_counted_while_they_wait() {
        let recorder = Recorder::default();
        let during = recorder.while_held(|| recorder.read(0, 1).callers_held);
        assert_eq!((during, recorder.read(0, 1).callers_held), (1, 0));
    }
}
