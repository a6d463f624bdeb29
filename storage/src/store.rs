//! The open store: one writer, many readers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, TrySendError};
use parking_lot::{Mutex, RwLock};
use rocksdb::WriteBatch;
use tokio::sync::{oneshot, watch};

use crate::batch::{Batch, Committed, DeadLetter, SourceAdvance};
use crate::clock::Clock;
use crate::definitions::{DefinitionChange, Definitions, IndexDef};
use crate::engine::Engine;
use crate::erase::purge::{self, Eraser};
use crate::erase::{EraseProgress, Erasure, ledger};
use crate::error::{Error, Result};
use crate::failpoint;
use crate::families::Family;
use crate::load::{Job, Load, LoadRows};
use crate::metrics::{Recorder, StoreMetrics};
use crate::retention::{self, Hold, Needed, Swept};
use crate::schema::{IndexId, TableId, Tenant};
use crate::standing::Standing;
use crate::state::State;
use crate::time::SystemTime;
use crate::tuning::Tuning;
use crate::tx::{Basis, TxId};
use crate::view::View;
use crate::writer::{self, Answer, Replay, Request, Syncing, Writer};
use crate::{index_fill, journal, load, meta, sizes, tidy};

pub use crate::journal::segment::{SegmentEnd, SegmentHead, SegmentPart, SegmentReader};
pub use crate::journal::ship::{segment_name, segments};
pub use crate::journal::{JournalEntry, ReplayDetail};

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
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    state: Arc<State>,
    recorder: Arc<Recorder>,
    standing: watch::Receiver<Standing>,
    incarnation: String,
    /// Gone once the store is closed; a read that is under way keeps its own.
    engine: RwLock<Option<Arc<Engine>>>,
    requests: Sender<Request>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// One index is added at a time.
    indexing: Mutex<()>,
    /// Erasures are carried on one call at a time.
    eraser: Mutex<Eraser>,
    /// History is swept one call at a time.
    sweeping: Mutex<()>,
}

/// The writer's exclusive turn: nothing else commits until it is used or dropped.
pub struct Turn {
    basis: Basis,
    definitions: Arc<Definitions>,
    clock: Arc<dyn Clock>,
    commit: Sender<(Batch, Answer)>,
}

impl Store {
    /// Opens or makes the store at a path.
    ///
    /// # Errors
    /// [`crate::Error::InUse`] where another process holds it, [`crate::Error::Format`] where it
    /// is of another format.
    pub fn open(options: Options) -> Result<Self> {
        let engine = Engine::open(&options.path, options.block_cache_bytes)?;
        Self::over(engine, options, &Tuning::default())
    }

    /// As [`Store::open`], with settings of one's own about the engine.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_tuned(options: Options, tuning: &Tuning) -> Result<Self> {
        let engine = Engine::open_tuned(&options.path, options.block_cache_bytes, tuning)?;
        Self::over(engine, options, tuning)
    }

    fn over(engine: Engine, options: Options, tuning: &Tuning) -> Result<Self> {
        let engine = Arc::new(engine);
        load::recover(&engine)?;
        let last = journal::last(&engine)?;
        let latest = last.map_or((TxId::ZERO, SystemTime::BEGIN), |entry| {
            (entry.last_tx(), entry.system_time_of(entry.last_tx()))
        });
        let state = Arc::new(State::new(
            options.clock,
            latest,
            meta::now_floor(&engine)?,
            meta::definitions(&engine)?,
            meta::tenants(&engine)?,
            retention::horizons(&engine)?,
        ));
        let (requests, waiting) = crossbeam_channel::bounded(writer::QUEUE_BATCHES_MAX);
        let syncing = match (options.sync, tuning.sync_interval) {
            (true, _) => Syncing::EveryCommit,
            (false, Some(interval)) => Syncing::Every(interval),
            (false, None) => Syncing::Never,
        };
        let recorder = Arc::<Recorder>::default();
        let (engine_of, state_of) = (Arc::clone(&engine), Arc::clone(&state));
        let writer = Writer::new(engine_of, state_of, waiting, syncing, Arc::clone(&recorder))?;
        failpoint::pass("store.opened");
        let thread = std::thread::Builder::new()
            .name("everwhen-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| Error::Io { path: "writer thread".to_owned(), source })?;
        let incarnation = engine.incarnation().to_owned();
        let shared = Shared {
            state,
            recorder,
            standing: engine.keeper().watch(),
            incarnation,
            engine: RwLock::new(Some(engine)),
            requests,
            writer: Mutex::new(Some(thread)),
            indexing: Mutex::new(()),
            eraser: Mutex::default(),
            sweeping: Mutex::new(()),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Stops the writer after the work it holds, flushes and closes. Later calls answer `Closed`.
    pub fn close(&self) -> Result<()> {
        self.shared.close()
    }

    /// Returns the data directory's incarnation id, renewed by restore.
    pub fn incarnation(&self) -> String {
        self.shared.incarnation.clone()
    }

    /// Returns the clock the store was opened with.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        self.shared.state.clock()
    }

    pub(crate) fn engine(&self) -> Result<Arc<Engine>> {
        self.shared.engine.read().clone().ok_or(Error::Closed)
    }

    /// Hands a batch to the writer; the receiver answers when it is durable.
    ///
    /// Batches are committed in the order of these calls; several waiting ones share one sync.
    /// Blocks while the writer's queue is full (bounded): call it off the async threads or use
    /// [`Store::write`].
    pub fn submit(&self, batch: Batch) -> Result<oneshot::Receiver<Result<Committed>>> {
        let (answer, answered) = Answer::channel(&**self.clock());
        self.send(Request::Write(batch, answer))?;
        Ok(answered)
    }

    /// Hands a batch to the writer and waits, without blocking an async thread.
    pub async fn write(&self, batch: Batch) -> Result<Committed> {
        let (answer, answered) = Answer::channel(&**self.clock());
        self.ask(Request::Write(batch, answer)).await?;
        answered.await.map_err(|_| Error::Closed)?
    }

    /// Waits for the writer's turn: to read, decide and write with nothing in between.
    pub async fn turn(&self) -> Result<Turn> {
        let (grant, granted) = oneshot::channel();
        self.ask(Request::Turn(grant)).await?;
        granted.await.map_err(|_| Error::Closed)?
    }

    async fn ask(&self, request: Request) -> Result<()> {
        match self.shared.requests.try_send(request) {
            Ok(()) => Ok(()),
            Err(TrySendError::Disconnected(_)) => Err(Error::Closed),
            Err(TrySendError::Full(request)) => {
                let store = self.clone();
                let sent = tokio::task::spawn_blocking(move || store.send(request));
                sent.await.map_err(|_| Error::Closed)?
            }
        }
    }

    /// Sends a request, waiting while the queue is full.
    fn send(&self, request: Request) -> Result<()> {
        let Shared { requests, recorder, .. } = &*self.shared;
        match requests.try_send(request) {
            Ok(()) => Ok(()),
            Err(TrySendError::Disconnected(_)) => Err(Error::Closed),
            Err(TrySendError::Full(request)) => {
                recorder.while_held(|| writer::send(requests, request))
            }
        }
    }

    /// Returns whether writes are taken.
    pub fn standing(&self) -> Standing {
        self.shared.standing.borrow().clone()
    }

    /// Returns a receiver that tells when writes are no longer taken, and when they are again.
    ///
    /// After [`Standing::Failed`] the store must be closed and opened anew, best in a new process.
    pub fn watch_standing(&self) -> watch::Receiver<Standing> {
        self.shared.standing.clone()
    }

    /// Returns figures about the store. Blocking: asks the engine and reads a directory.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn metrics(&self) -> Result<StoreMetrics> {
        let Shared { requests, recorder, .. } = &*self.shared;
        let engine = self.engine()?.metrics();
        let writer = recorder.read(requests.len(), writer::QUEUE_BATCHES_MAX);
        Ok(StoreMetrics { standing: self.standing(), writer, engine })
    }

    /// Returns the latest committed basis: the last tx, and `now` = max(clock, its system time),
    /// which never goes back, over restarts too.
    pub fn latest(&self) -> Basis {
        self.shared.state.basis()
    }

    /// Returns a receiver that wakes on every commit.
    pub fn watch_tx(&self) -> watch::Receiver<TxId> {
        self.shared.state.watch()
    }

    /// Runs `read` over a consistent view of everything up to `tx`. Blocking: reads disk.
    ///
    /// # Errors
    /// [`crate::Error::Unreached`] where `tx` is later than the store.
    pub fn read<T>(&self, tx: TxId, read: impl FnOnce(&View<'_>) -> Result<T>) -> Result<T> {
        self.view(tx, false, read)
    }

    /// As [`Store::read`], but what was erased shows as it was before, until it is purged: for
    /// working out what an erasure takes from the rows of a projection, and for nothing else.
    pub fn read_unerased<T>(
        &self,
        tx: TxId,
        read: impl FnOnce(&View<'_>) -> Result<T>,
    ) -> Result<T> {
        self.view(tx, true, read)
    }

    fn view<T>(
        &self,
        tx: TxId,
        unerased: bool,
        read: impl FnOnce(&View<'_>) -> Result<T>,
    ) -> Result<T> {
        let engine = self.engine()?;
        let latest = self.shared.state.latest().0;
        if tx > latest {
            return Err(Error::Unreached { asked: tx.get(), latest: latest.get() });
        }
        read(&View::open(&engine, &self.shared.state, tx, unerased))
    }

    /// Keeps belief as of a transaction from being swept for as long as the guard lives. A table
    /// whose horizon lies past it already answers [`Error::Forgotten`] all the same.
    pub fn hold(&self, tx: TxId) -> Hold {
        Hold::new(&self.shared.state, tx)
    }

    /// Returns the oldest transaction that a table can be read at.
    pub fn horizon(&self, table: TableId) -> TxId {
        self.shared.state.horizons().get(&table).copied().unwrap_or(TxId::ZERO)
    }

    /// Deletes belief that tables no longer keep, in parts. Blocking.
    ///
    /// Crash: at any point what was deleted lies before the table's horizon.
    pub fn sweep(&self, needed: Needed) -> Result<Swept> {
        let _one_at_a_time = self.shared.sweeping.lock();
        retention::sweep(&*self.engine()?, &self.shared.state, needed)
    }

    /// Merges the files of what is small, so that reads look into fewer of them; answers how much
    /// there was to merge. Blocking.
    pub fn tidy(&self) -> Result<usize> {
        Ok(tidy::merge_small(&*self.engine()?))
    }

    /// Returns every key that was erased, in order of transactions.
    pub fn erasures(&self) -> Result<Vec<Erasure>> {
        ledger::all(&*self.engine()?)
    }

    /// Returns the erasures whose bytes are not gone yet, in order of transactions.
    pub fn erasures_under_way(&self) -> Result<Vec<Erasure>> {
        ledger::shown_under_way(&*self.engine()?)
    }

    /// Carries erasures up to transaction `passed` on, which every projection must have passed, as
    /// far as nothing must be waited for. Blocking: rewrites files.
    ///
    /// Crash: at any point the next call goes on from there.
    pub fn advance_erasures(&self, passed: TxId) -> Result<EraseProgress> {
        let mut eraser = self.shared.eraser.lock();
        let engine = self.engine()?;
        let (state, requests) = (&*self.shared.state, &self.shared.requests);
        eraser.advance(&purge::Tools { engine: &engine, state, requests }, passed)
    }

    /// Returns the key of the keyed hashes of erasures, where there were any.
    pub(crate) fn erase_secret(&self) -> Result<Option<[u8; 16]>> {
        Ok(crate::erase::Erased::load(&*self.engine()?)?.secret().copied())
    }

    /// Returns the definitions in force now.
    pub fn definitions(&self) -> Arc<Definitions> {
        self.shared.state.definitions()
    }

    /// Returns the definitions in force at a tx.
    pub fn definitions_at(&self, tx: TxId) -> Arc<Definitions> {
        self.shared.state.definitions_at(tx)
    }

    /// Returns every version of the definitions there ever was, in order.
    pub fn definitions_history(&self) -> Vec<Arc<Definitions>> {
        self.shared.state.definitions_history()
    }

    /// Returns the tenants that have been written to, in order.
    pub fn tenants(&self) -> Vec<Tenant> {
        self.shared.state.tenants()
    }

    /// Returns about how many keys a tenant had written to in a table at a transaction, which is told the same for ever;
    /// nothing where they were not counted: in tables that an earlier version wrote to.
    pub fn keys_at(&self, table: TableId, tenant: &Tenant, tx: TxId) -> Result<Option<u64>> {
        sizes::keys_at(&*self.engine()?, table, tenant, tx)
    }

    /// Returns the last transaction whose system time is at or before `at` (`TxId::ZERO` if none).
    pub fn tx_at(&self, at: SystemTime) -> Result<TxId> {
        let engine = self.engine()?;
        self.shared.state.tx_at(at, |latest| journal::tx_at(&engine, at, latest))
    }

    /// Returns the system time of a committed transaction; the start of time for `TxId::ZERO`.
    ///
    /// # Errors
    /// [`crate::Error::Unreached`] where `tx` is later than the store.
    pub fn system_time(&self, tx: TxId) -> Result<SystemTime> {
        journal::system_time(&*self.engine()?, tx, self.shared.state.latest().0)
    }

    /// Returns journal entries of transactions `from..=to`, one a batch, in order.
    pub fn journal(&self, from: TxId, to: TxId) -> Result<Vec<JournalEntry>> {
        journal::entries(&*self.engine()?, from, to)
    }

    /// Loads a history into a table that never had a row: each row is a transaction of its own, with
    /// its own system time, and all of it appears at once or not at all, whatever happens.
    ///
    /// The result is that of the same rows written one after the other with
    /// [`Batch::system_time`] and [`crate::Origin::Import`]. Takes the writer's turn: no other write
    /// commits meanwhile. Memory: what the load allows for sorting, and the history of one key.
    /// Blocking, for as long as it takes.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] where the table is not empty, a row breaks the contract of a
    /// [`Batch`], or system times go back or beyond the clock (with the row's number, from 1); the
    /// error of the rows themselves. Nothing is loaded then.
    pub fn bulk_load(&self, load: Load, rows: LoadRows) -> Result<Committed> {
        let (answer, answered) = Answer::channel(&**self.clock());
        writer::send(&self.shared.requests, Request::Load(Box::new(Job { load, rows }), answer))?;
        answered.blocking_recv().map_err(|_| Error::Closed)?
    }

    /// Writes the journal after a transaction, which must be the last of its batch (`TxId::ZERO`
    /// for all of it), as one segment; `path` names its place in errors. Blocking.
    ///
    /// # Errors
    /// [`crate::Error::Unreached`]; [`crate::Error::Refused`] in the middle of a batch.
    pub fn export_journal(
        &self,
        after: TxId,
        path: &str,
        out: &mut dyn std::io::Write,
    ) -> Result<SegmentEnd> {
        journal::segment::write(&*self.engine()?, after, path, out)
    }

    /// Adds to a directory of journal segments what it lacks, as one more file; answers with it,
    /// or with nothing where there was nothing to add. Durable when it answers. Blocking; one call
    /// at a time for a directory.
    ///
    /// # Errors
    /// [`crate::Error::Segment`] where the directory is of another history.
    pub fn ship_journal(&self, directory: &Path) -> Result<Option<PathBuf>> {
        journal::ship::ship(&*self.engine()?, directory)
    }

    /// Commits a batch of the journal again, under the same transactions and times. Blocking.
    ///
    /// `batch` is what the entry's records, or the operations in it, come to, with the definitions
    /// that the journal names and the dead letters that were durable with it. Without an entry it
    /// is what followed the last one: source offsets and dead letters alone.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] where the entry does not follow the last transaction, or the batch
    /// comes out otherwise; nothing is written then.
    pub fn replay(&self, entry: Option<JournalEntry>, mut batch: Batch) -> Result<Committed> {
        crate::erase::journal::name_keys(&*self.engine()?, &mut batch)?;
        for change in &batch.definitions {
            if let DefinitionChange::Index(index) = change
                && index.ready
            {
                let engine = self.engine()?;
                index_fill::fill(&engine, &self.definitions(), &self.tenants(), index)?;
            }
        }
        let (answer, answered) = Answer::channel(&**self.clock());
        let replay = Box::new(Replay { entry, batch });
        writer::send(&self.shared.requests, Request::Replay(replay, answer))?;
        answered.blocking_recv().map_err(|_| Error::Closed)?
    }

    /// Returns the next offset to read of each partition of a stream: (topic, partition, offset).
    pub fn source_offsets(&self, stream: &str) -> Result<Vec<(String, i32, i64)>> {
        let sources = meta::sources(&*self.engine()?)?;
        let of_stream = sources.into_iter().filter(|((of, ..), _)| of == stream);
        let mut offsets: Vec<_> = of_stream
            .map(|((_, topic, partition), at)| (topic, partition, at.next_offset))
            .collect();
        offsets.sort_unstable();
        Ok(offsets)
    }

    /// Returns where each partition of a stream stands, in order of topic and partition.
    pub fn sources(&self, stream: &str) -> Result<Vec<SourceAdvance>> {
        let sources = meta::sources(&*self.engine()?)?;
        let of_stream = sources.into_iter().filter(|((of, ..), _)| of == stream);
        Ok(journal::advances(&of_stream.collect()))
    }

    /// Returns dead letters with ids above `after`, in order, at most `limit`.
    pub fn dead_letters(&self, after: u64, limit: usize) -> Result<Vec<DeadLetter>> {
        meta::dead_letters(&*self.engine()?, after, limit)
    }

    /// Adds an index over columns of a table and enters all rows that are there; returns its id
    /// once it is ready. An equal one is returned as it is; the id of `index` is ignored.
    /// Blocking, also on the writer: not within a [`Turn`].
    pub fn ensure_index(&self, index: IndexDef) -> Result<IndexId> {
        let _one_at_a_time = self.shared.indexing.lock();
        let definitions = self.definitions();
        let known = definitions
            .indexes
            .values()
            .find(|known| known.table == index.table && known.columns == index.columns);
        let mut entry = match known {
            Some(known) if known.ready => return Ok(known.id),
            Some(known) => IndexDef::clone(known),
            None => {
                let id = IndexId(definitions.next_index);
                let entry = IndexDef { id, ready: false, ..index };
                self.define(DefinitionChange::Index(entry.clone()))?;
                entry
            }
        };
        // The writer enters all that comes from here on, so what was there before is the rest.
        index_fill::fill(&*self.engine()?, &self.definitions(), &self.tenants(), &entry)?;
        failpoint::pass("index.filled");
        entry.ready = true;
        self.define(DefinitionChange::Index(entry.clone()))?;
        Ok(entry.id)
    }

    /// Drops an index and deletes its entries. Whoever found it in the definitions must look again
    /// once it has a view: entries that are gone are found in no definitions either.
    /// Blocking, as [`Store::ensure_index`].
    pub fn drop_index(&self, id: IndexId) -> Result<()> {
        let _one_at_a_time = self.shared.indexing.lock();
        if !self.definitions().indexes.contains_key(&id.0) {
            return Ok(());
        }
        self.define(DefinitionChange::DropIndex(id))?;
        index_fill::empty(&*self.engine()?, id)
    }

    fn define(&self, change: DefinitionChange) -> Result<()> {
        let batch = Batch { definitions: vec![change], ..Batch::default() };
        let answered = self.submit(batch)?;
        answered.blocking_recv().map_err(|_| Error::Closed)??;
        Ok(())
    }

    /// Reads one entry of the `cursors` family (the projector's durable state).
    pub fn cursor(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.engine()?.get(Family::Cursors, key)
    }

    /// Reads the entries of the `cursors` family under a prefix, in key order, at most `limit`.
    pub fn cursors(&self, prefix: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut found = Vec::new();
        if limit > 0 {
            self.engine()?.each_from(Family::Cursors, prefix, prefix, |key, value| {
                found.push((key.to_vec(), value.to_vec()));
                Ok(found.len() < limit)
            })?;
        }
        Ok(found)
    }

    /// Writes entries of the `cursors` family in one atomic write, synced where `sync` says;
    /// `None` deletes.
    pub fn put_cursors(&self, entries: &[(Vec<u8>, Option<Vec<u8>>)], sync: bool) -> Result<()> {
        let engine = self.engine()?;
        let family = engine.family(Family::Cursors);
        let mut writes = WriteBatch::default();
        for (key, value) in entries {
            match value {
                Some(value) => writes.put_cf(family, key, value),
                None => writes.delete_cf(family, key),
            }
        }
        failpoint::pass("cursors.before_write");
        engine.write(writes, sync)?;
        failpoint::pass("cursors.written");
        Ok(())
    }
}

impl Shared {
    fn close(&self) -> Result<()> {
        if let Some(writer) = self.writer.lock().take() {
            let stopped = writer::send(&self.requests, Request::Stop);
            if writer.join().is_err() {
                tracing::error!("the writer ended by a panic");
            }
            failpoint::pass("store.closing");
            self.engine.write().take();
            stopped?;
        }
        Ok(())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "the store did not close in order");
        }
    }
}

impl Turn {
    pub(crate) const fn new(
        basis: Basis,
        definitions: Arc<Definitions>,
        clock: Arc<dyn Clock>,
        commit: Sender<(Batch, Answer)>,
    ) -> Self {
        Self { basis, definitions, clock, commit }
    }

    /// Returns the basis to read at: the last tx, with now = the system time the turn's tx will get.
    pub fn basis(&self) -> Basis {
        self.basis
    }

    /// Returns the definitions in force.
    pub fn definitions(&self) -> Arc<Definitions> {
        Arc::clone(&self.definitions)
    }

    /// Commits with the promised system time and ends the turn. At most one of `batch.txs`.
    pub async fn commit(self, batch: Batch) -> Result<Committed> {
        let (answer, answered) = Answer::channel(&*self.clock);
        self.commit.send((batch, answer)).map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)?
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
