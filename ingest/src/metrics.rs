//! Counters of one stream since the server started.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one stream; every record counts in `records` and in exactly one of `applied`,
/// `duplicates`, `stale`, `erased`, `unmatched`, `dead_letters` and `passed`.
#[derive(Debug, Default)]
pub struct Counters {
    records: AtomicU64,
    bytes: AtomicU64,
    batches: AtomicU64,
    applied: AtomicU64,
    duplicates: AtomicU64,
    stale: AtomicU64,
    erased: AtomicU64,
    unmatched: AtomicU64,
    dead_letters: AtomicU64,
    passed: AtomicU64,
    restarts: AtomicU64,
}

/// The values of [`Counters`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamMetrics {
    /// Records taken from the source.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Batches committed.
    pub batches: u64,
    /// Records that became a transaction.
    pub applied: u64,
    /// Records whose event id already said the same.
    pub duplicates: u64,
    /// Records whose order was below that of their event id.
    pub stale: u64,
    /// Records about erased keys alone, of what held before they were erased.
    pub erased: u64,
    /// Records that no mapping's WHERE let through.
    pub unmatched: u64,
    /// Records that became dead letters.
    pub dead_letters: u64,
    /// Records below the stored offset, dropped.
    pub passed: u64,
    /// Source clients made anew after they failed or stalled.
    pub restarts: u64,
}

/// What a batch adds to the counters once it is durable.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    pub records: usize,
    pub bytes: u64,
    pub applied: usize,
    pub duplicates: usize,
    pub stale: usize,
    pub erased: usize,
    pub unmatched: usize,
    pub dead_letters: usize,
    pub passed: usize,
}

impl Counters {
    /// Adds a durable batch.
    pub fn add(&self, tally: &Tally) {
        let add = |counter: &AtomicU64, n: usize| {
            counter.fetch_add(u64::try_from(n).unwrap_or(u64::MAX), Ordering::Relaxed);
        };
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(tally.bytes, Ordering::Relaxed);
        add(&self.records, tally.records);
        add(&self.applied, tally.applied);
        add(&self.duplicates, tally.duplicates);
        add(&self.stale, tally.stale);
        add(&self.erased, tally.erased);
        add(&self.unmatched, tally.unmatched);
        add(&self.dead_letters, tally.dead_letters);
        add(&self.passed, tally.passed);
    }

    /// Counts a source client made anew.
    pub fn restarted(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the values now.
    pub fn read(&self) -> StreamMetrics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StreamMetrics {
            records: read(&self.records),
            bytes: read(&self.bytes),
            batches: read(&self.batches),
            applied: read(&self.applied),
            duplicates: read(&self.duplicates),
            stale: read(&self.stale),
            erased: read(&self.erased),
            unmatched: read(&self.unmatched),
            dead_letters: read(&self.dead_letters),
            passed: read(&self.passed),
            restarts: read(&self.restarts),
        }
    }
}
