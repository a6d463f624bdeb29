//! The open store: one writer, many readers.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use crate::batch::{Batch, Committed, DeadLetter};
use crate::clock::Clock;
use crate::definitions::{Definitions, IndexDef};
use crate::error::Result;
use crate::schema::{IndexId, Tenant};
use crate::time::SystemTime;
use crate::tx::{Basis, TxId};
use crate::view::View;

/// How to open a store.
#[derive(Clone)]
pub struct Options {
    /// The data directory; made where it does not exist.
    pub path: PathBuf,
    pub clock: Arc<dyn Clock>,
    /// Sync the log at every commit. Off only for tests and bulk work.
    pub sync: bool,
    /// RocksDB block cache.
    pub block_cache_bytes: usize,
}

/// The store. Cheap to clone; closes when the last clone goes or at [`Store::close`].
#[derive(Clone)]
pub struct Store {}

/// The writer's exclusive turn: nothing else commits until it is used or dropped.
pub struct Turn {}

impl Store {
    /// Opens or makes the store at a path.
    ///
    /// # Errors
    /// [`crate::Error::InUse`] where another process holds it, [`crate::Error::Format`] where it
    /// is of another format.
    pub fn open(_options: Options) -> Result<Self> {
        unimplemented!()
    }

    /// Stops the writer after the work it holds, flushes and closes. Later calls answer `Closed`.
    pub fn close(&self) -> Result<()> {
        unimplemented!()
    }

    /// Returns the data directory's incarnation id, renewed by restore.
    pub fn incarnation(&self) -> String {
        unimplemented!()
    }

    /// Returns the clock the store was opened with.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        unimplemented!()
    }

    /// Hands a batch to the writer; the receiver answers when it is durable.
    ///
    /// Batches are committed in the order of these calls; several waiting ones share one sync.
    /// Blocks while the writer's queue is full (bounded): call it off the async threads or use
    /// [`Store::write`].
    pub fn submit(&self, _batch: Batch) -> Result<oneshot::Receiver<Result<Committed>>> {
        unimplemented!()
    }

    /// Hands a batch to the writer and waits, without blocking an async thread.
    pub async fn write(&self, _batch: Batch) -> Result<Committed> {
        unimplemented!()
    }

    /// Waits for the writer's turn: to read, decide and write with nothing in between.
    pub async fn turn(&self) -> Result<Turn> {
        unimplemented!()
    }

    /// Returns the latest committed basis: the last tx, and `now` = max(clock, its system time),
    /// which never goes back, over restarts too.
    pub fn latest(&self) -> Basis {
        unimplemented!()
    }

    /// Returns a receiver that wakes on every commit.
    pub fn watch_tx(&self) -> watch::Receiver<TxId> {
        unimplemented!()
    }

    /// Runs `read` over a consistent view of everything up to `tx`. Blocking: reads disk.
    ///
    /// # Errors
    /// [`crate::Error::Unreached`] where `tx` is later than the store.
    pub fn read<T>(&self, _tx: TxId, _read: impl FnOnce(&View<'_>) -> Result<T>) -> Result<T> {
        unimplemented!()
    }

    /// Returns the definitions in force now.
    pub fn definitions(&self) -> Arc<Definitions> {
        unimplemented!()
    }

    /// Returns the definitions in force at a tx.
    pub fn definitions_at(&self, _tx: TxId) -> Arc<Definitions> {
        unimplemented!()
    }

    /// Returns the tenants that have been written to, in order.
    pub fn tenants(&self) -> Vec<Tenant> {
        unimplemented!()
    }

    /// Returns the last transaction whose system time is at or before `at` (`TxId::ZERO` if none).
    pub fn tx_at(&self, _at: SystemTime) -> Result<TxId> {
        unimplemented!()
    }

    /// Returns the system time of a committed transaction.
    pub fn system_time(&self, _tx: TxId) -> Result<SystemTime> {
        unimplemented!()
    }

    /// Returns journal entries of transactions `from..=to`, one a batch, in order.
    pub fn journal(&self, _from: TxId, _to: TxId) -> Result<Vec<JournalEntry>> {
        unimplemented!()
    }

    /// Returns the next offset to read of each partition of a stream: (topic, partition, offset).
    pub fn source_offsets(&self, _stream: &str) -> Result<Vec<(String, i32, i64)>> {
        unimplemented!()
    }

    /// Returns dead letters with ids above `after`, in order, at most `limit`.
    pub fn dead_letters(&self, _after: u64, _limit: usize) -> Result<Vec<DeadLetter>> {
        unimplemented!()
    }

    /// Adds an index over columns of a table and enters all rows that are there; returns its id
    /// once it is ready. An equal one is returned as it is. Blocking.
    pub fn ensure_index(&self, _index: IndexDef) -> Result<IndexId> {
        unimplemented!()
    }

    /// Reads one entry of the `cursors` family (the projector's durable state).
    pub fn cursor(&self, _key: &[u8]) -> Result<Option<Vec<u8>>> {
        unimplemented!()
    }

    /// Reads the entries of the `cursors` family under a prefix, in key order, at most `limit`.
    pub fn cursors(&self, _prefix: &[u8], _limit: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        unimplemented!()
    }

    /// Writes entries of the `cursors` family in one atomic write, synced where `sync` says;
    /// `None` deletes.
    pub fn put_cursors(&self, _entries: &[(Vec<u8>, Option<Vec<u8>>)], _sync: bool) -> Result<()> {
        unimplemented!()
    }
}

/// One batch of the journal: consecutive transactions with one base of system time.
#[derive(Debug, Clone)]
pub struct JournalEntry {
    pub first_tx: TxId,
    pub count: u64,
    /// System time of `first_tx`; each later transaction of the batch is 1 us later.
    pub system_time: SystemTime,
    pub origin: crate::batch::Origin,
    /// Source positions by transaction, where they came from a source.
    pub positions: Vec<(TxId, crate::batch::SourcePosition)>,
}

impl Turn {
    /// Returns the basis to read at: the last tx, with now = the system time the turn's tx will get.
    pub fn basis(&self) -> Basis {
        unimplemented!()
    }

    /// Returns the definitions in force.
    pub fn definitions(&self) -> Arc<Definitions> {
        unimplemented!()
    }

    /// Commits with the promised system time and ends the turn. At most one of `batch.txs`.
    pub async fn commit(self, _batch: Batch) -> Result<Committed> {
        unimplemented!()
    }
}
