//! The one writer: takes batches in order, gives out tx ids and system times, commits, answers.
//!
//! ```text
//! queue -> all that waits -> fold by key -> one write batch, one sync -> publish -> answer
//! ```
//!
//! Batches that wait together share a commit; one that changes definitions commits alone. Where the
//! disk is full a group is refused as a whole and the next one tried; any other failed write is the
//! end of writing: what the log holds is then not known, so every later call errs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant as Monotonic};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use rocksdb::WriteBatch;
use tokio::sync::oneshot;

use crate::batch::{Batch, Committed, DeadLetter};
use crate::clock::Clock;
use crate::engine::Engine;
use crate::erase::Erased;
use crate::erase::purge::Doomed;
use crate::error::{Error, Result};
use crate::failpoint;
use crate::journal::{JournalEntry, SourceOffsets, Unjournaled};
use crate::load::Job;
use crate::meta;
use crate::metrics::Recorder;
use crate::schema::Tenant;
use crate::sizes::Sizes;
use crate::skew::Skew;
use crate::source::SourcePlace;
use crate::state::State;
use crate::store::Turn;
use crate::time::{SystemTime, ValidTime};
use crate::tx::{Basis, TxId};

use group::{Around, Group};
use tables::{Tables, check_definitions};

mod change;
mod erase;
mod group;
mod key_state;
mod load;
mod resolve;
#[cfg(test)]
mod scale;
mod sorted;
pub(crate) mod tables;

/// Batches that may wait before callers do.
pub(crate) const QUEUE_BATCHES_MAX: usize = 256;
/// How often a full disk is looked at while nobody writes.
const ROOM_INTERVAL: Duration = Duration::from_millis(500);
/// Transactions after which no more batches join a commit.
const GROUP_TXS_MAX: usize = 50_000;

/// Where the answer to a batch goes, and since when it is awaited.
pub(crate) struct Answer {
    to: oneshot::Sender<Result<Committed>>,
    since: Monotonic,
}

impl Answer {
    /// Makes a place for an answer and its other end.
    pub(crate) fn channel(clock: &dyn Clock) -> (Self, oneshot::Receiver<Result<Committed>>) {
        let (to, answered) = oneshot::channel();
        (Self { to, since: clock.monotonic() }, answered)
    }

    /// Answers; whoever asked may have gone.
    fn send(self, answer: Result<Committed>) {
        let _ = self.to.send(answer);
    }
}

/// When the log is synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syncing {
    /// Before a group is answered.
    EveryCommit,
    /// So long after the first write that is not synced; answers do not wait for it.
    Every(Duration),
    /// At the end, and when the operating system does.
    Never,
}

/// What the writer is asked.
pub(crate) enum Request {
    Write(Batch, Answer),
    Turn(oneshot::Sender<Result<Turn>>),
    /// Delete the erased past of some keys.
    Purge(Vec<Doomed>, Sender<Result<()>>),
    Replay(Box<Replay>, Answer),
    Load(Box<Job>, Answer),
    Stop,
}

/// A batch that was committed before, elsewhere.
pub(crate) struct Replay {
    /// What it must come to; nothing for what followed the last entry: source offsets and dead
    /// letters alone.
    pub(crate) entry: Option<JournalEntry>,
    /// With its dead letters as they were numbered and dated.
    pub(crate) batch: Batch,
}

/// What the times of a commit are taken from.
#[derive(Clone, Copy)]
enum Base<'a> {
    Clock,
    /// A turn was promised this.
    Promised(SystemTime),
    Replayed(Option<&'a JournalEntry>),
}

/// What batches of a group hand on to those after them.
struct Running {
    unjournaled: Unjournaled,
    dead_letter: u64,
    /// Next offsets that the group moved.
    sources: SourceOffsets,
}

/// The writer's own state; lives on its thread.
pub(crate) struct Writer {
    engine: Arc<Engine>,
    state: Arc<State>,
    requests: Receiver<Request>,
    syncing: Syncing,
    /// When the log is to be synced, where something in it is not.
    sync_due: Option<Monotonic>,
    recorder: Arc<Recorder>,
    skew: Skew,
    tables: Arc<Tables>,
    sources: SourceOffsets,
    /// All of them at first: what the last entry said is not known.
    unjournaled: Unjournaled,
    tenants: BTreeSet<Tenant>,
    erased: Erased,
    sizes: Sizes,
    last_tx: TxId,
    last_time: SystemTime,
    last_dead_letter: u64,
}

impl Writer {
    /// Takes up where the store stands.
    pub(crate) fn new(
        engine: Arc<Engine>,
        state: Arc<State>,
        requests: Receiver<Request>,
        syncing: Syncing,
        recorder: Arc<Recorder>,
    ) -> Result<Self> {
        let (last_tx, last_time) = state.latest();
        let sources = meta::sources(&engine)?;
        Ok(Self {
            tables: Arc::new(Tables::new(&state.definitions())),
            unjournaled: sources.iter().map(|(of, place)| (of.clone(), *place)).collect(),
            sources,
            tenants: meta::tenants(&engine)?,
            erased: Erased::load(&engine)?,
            sizes: Sizes::default(),
            last_dead_letter: meta::last_dead_letter(&engine)?,
            engine,
            state,
            requests,
            syncing,
            sync_due: None,
            recorder,
            skew: Skew::default(),
            last_tx,
            last_time,
        })
    }

    /// Serves requests until it is told to stop or nobody can ask any more.
    pub(crate) fn run(mut self) {
        let mut next = self.receive();
        while let Some(request) = next.take() {
            match request {
                Request::Write(batch, answer) => {
                    let (group, after) = self.collect(batch, answer);
                    self.commit(group, Base::Clock);
                    next = after;
                }
                Request::Turn(grant) => self.turn(grant),
                Request::Purge(doomed, answer) => {
                    let _ = answer.send(self.purge(&doomed));
                }
                Request::Replay(replay, answer) => {
                    let Replay { entry, batch } = *replay;
                    self.commit(vec![(batch, answer)], Base::Replayed(entry.as_ref()));
                }
                Request::Load(job, answer) => {
                    answer.send(self.load(*job));
                }
                Request::Stop => break,
            }
            if next.is_none() {
                next = self.receive();
            }
        }
        if let Err(error) = self.rest() {
            tracing::error!(%error, "the store did not close in order");
        }
    }

    /// Waits for a request; meanwhile syncs the log when that is due, and tries now and then whether
    /// a full disk has room again. Nothing once nobody can ask.
    fn receive(&mut self) -> Option<Request> {
        loop {
            let now = self.state.clock().monotonic();
            let is_full = self.engine.keeper().is_full();
            // A log that the disk refused is not synced: what it lacks is flushed from memory.
            let due = match self.sync_due {
                _ if is_full => now.checked_add(ROOM_INTERVAL)?,
                Some(due) => due,
                None => return self.requests.recv().ok(),
            };
            if due > now {
                match self.requests.recv_deadline(due) {
                    Ok(request) => return Some(request),
                    Err(RecvTimeoutError::Disconnected) => return None,
                    Err(RecvTimeoutError::Timeout) => {}
                }
            }
            if is_full {
                self.look_for_room();
                continue;
            }
            self.sync_due = None;
            match self.engine.flush() {
                Ok(()) => self.recorder.synced(),
                Err(error) => tracing::error!(%error, "the log was not synced"),
            }
        }
    }

    /// Writes something small: where that succeeds, writes are taken again.
    fn look_for_room(&self) {
        let mut writes = WriteBatch::default();
        meta::put_now_floor(&self.engine, &mut writes, self.state.now());
        if let Err(error) = self.engine.write(writes, true) {
            tracing::debug!(%error, "there is no room yet");
        }
    }

    /// Keeps what is only in memory.
    fn rest(&self) -> Result<()> {
        if self.engine.keeper().check().is_err() {
            return Ok(());
        }
        let mut writes = WriteBatch::default();
        meta::put_now_floor(&self.engine, &mut writes, self.state.now());
        self.engine.write_into_reserve(writes, true)?;
        self.engine.flush()
    }

    /// Takes what waits behind a batch, up to a turn or a change of definitions; answers with the
    /// request that could not join.
    fn collect(&self, batch: Batch, answer: Answer) -> (Vec<(Batch, Answer)>, Option<Request>) {
        let mut txs = batch.txs.len();
        let mut alone = batch.stands_alone();
        let mut group = vec![(batch, answer)];
        while !alone && txs < GROUP_TXS_MAX {
            match self.requests.try_recv() {
                Ok(Request::Write(batch, answer)) if !batch.stands_alone() => {
                    txs += batch.txs.len();
                    group.push((batch, answer));
                }
                Ok(other) => return (group, Some(other)),
                Err(_) => alone = true,
            }
        }
        (group, None)
    }

    fn purge(&self, doomed: &[Doomed]) -> Result<()> {
        self.engine.keeper().check()?;
        let mut writes = WriteBatch::default();
        for doomed in doomed {
            erase::purge(&self.engine, &self.tables, doomed, &mut writes)?;
        }
        self.engine.write(writes, false)
    }

    fn next_time(&self) -> SystemTime {
        let clock = SystemTime::from_micros(self.state.clock().now_micros());
        if self.last_tx == TxId::ZERO { clock } else { clock.max(self.last_time.saturating_add(1)) }
    }

    fn turn(&mut self, grant: oneshot::Sender<Result<Turn>>) {
        if let Err(error) = self.engine.keeper().check() {
            let _ = grant.send(Err(error));
            return;
        }
        let promised = self.next_time();
        let now = ValidTime::from_micros(promised.micros());
        let (commit, used) = crossbeam_channel::bounded(1);
        let basis = Basis { tx: self.last_tx, now };
        let clock = Arc::clone(self.state.clock());
        if grant.send(Ok(Turn::new(basis, self.state.definitions(), clock, commit))).is_err() {
            return;
        }
        // An error says that the turn was dropped unused.
        if let Ok(used) = used.recv() {
            self.commit(vec![used], Base::Promised(promised));
        }
    }

    /// Checks, folds and commits a group, and answers each of its batches.
    fn commit(&mut self, group: Vec<(Batch, Answer)>, base: Base<'_>) {
        failpoint::pass("writer.taken");
        self.look_at_the_clock(&group);
        let group = self.checked(group, base);
        if group.is_empty() {
            return;
        }
        let (batches, answers): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        match self.fold_and_write(&batches, base) {
            Ok(committed) => {
                failpoint::pass("writer.published");
                for (answer, committed) in answers.into_iter().zip(committed) {
                    answer.send(Ok(committed));
                }
            }
            Err(error) => {
                // Keys that are not there were counted.
                self.sizes.forget();
                if !matches!(error, Error::DiskFull { .. }) {
                    tracing::error!(%error, batches = batches.len(), "a commit failed");
                }
                for answer in answers {
                    answer.send(Err(again(&error)));
                }
            }
        }
        failpoint::pass("writer.answered");
    }

    /// Enters how long a group has waited and what the clock has done meanwhile.
    fn look_at_the_clock(&mut self, group: &[(Batch, Answer)]) {
        let clock = self.state.clock();
        self.skew.look(&**clock, self.last_time, &self.recorder);
        let now = clock.monotonic();
        for (_, answer) in group {
            self.recorder.waited(now.saturating_duration_since(answer.since));
        }
    }

    /// Answers the batches that must be refused and returns the others.
    fn checked(&mut self, group: Vec<(Batch, Answer)>, base: Base<'_>) -> Vec<(Batch, Answer)> {
        let mut good = Vec::with_capacity(group.len());
        for (batch, answer) in group {
            let checked = self.first_time(&batch, base).and_then(|at| self.check(&batch, at));
            match checked {
                Ok(()) => good.push((batch, answer)),
                Err(error) => answer.send(Err(error)),
            }
        }
        good
    }

    /// Returns the system time of a batch's first transaction, or one before where others of its
    /// group come first.
    fn first_time(&self, batch: &Batch, base: Base<'_>) -> Result<SystemTime> {
        match (base, batch.system_time) {
            (Base::Promised(promised), _) => Ok(promised),
            (Base::Replayed(entry), _) => self.check_replay(entry),
            (Base::Clock, None) => Ok(self.next_time()),
            (Base::Clock, Some(given)) => {
                let clock = SystemTime::from_micros(self.state.clock().now_micros());
                import_time(given, (self.last_tx, self.last_time), clock)
            }
        }
    }

    fn check_replay(&self, entry: Option<&JournalEntry>) -> Result<SystemTime> {
        let Some(entry) = entry else { return Ok(self.next_time()) };
        let follows = self.last_tx == TxId::ZERO || self.last_time < entry.system_time;
        if entry.first_tx != self.last_tx.plus(1) || !follows {
            return Err(Error::Refused {
                reason: format!(
                    "transaction {} at {} does not follow transaction {} at {}",
                    entry.first_tx, entry.system_time, self.last_tx, self.last_time
                ),
            });
        }
        Ok(entry.system_time)
    }

    /// Refuses records that were read before their stream began anew.
    fn check_sources(&self, batch: &Batch) -> Result<()> {
        for source in &batch.sources {
            let of = (source.stream.clone(), source.topic.clone(), source.partition);
            let generation = self.sources.get(&of).map_or(0, |place| place.log.generation);
            if source.log.generation < generation {
                let reason = format!("stream \"{}\" has begun anew since", source.stream);
                return Err(Error::Refused { reason });
            }
        }
        Ok(())
    }

    fn check(&self, batch: &Batch, system_time: SystemTime) -> Result<()> {
        self.engine.keeper().check()?;
        self.check_sources(batch)?;
        if batch.definitions.is_empty() {
            return self.tables.check(batch, system_time);
        }
        let definitions = self.state.definitions();
        check_definitions(&definitions, &batch.definitions)?;
        let next = definitions.with(&batch.definitions, self.last_tx.plus(1));
        Tables::new(&next).check(batch, system_time)
    }

    fn fold_and_write(&mut self, batches: &[Batch], base: Base<'_>) -> Result<Vec<Committed>> {
        let engine = Arc::clone(&self.engine);
        let definitions = self.next_definitions(batches);
        let tables = match &definitions {
            Some((_, definitions)) => Arc::new(Tables::new(definitions)),
            None => Arc::clone(&self.tables),
        };
        self.erased.prepare(batches);
        self.sizes.bound();
        let last = (self.last_tx, self.last_time);
        let (tenants, erased, sizes) = (&self.tenants, &self.erased, &self.sizes);
        let mut group = Group::new(&engine, &tables, tenants, erased, sizes, last);
        group.preload(batches.iter())?;
        let mut running = Running {
            unjournaled: self.unjournaled.clone(),
            dead_letter: self.last_dead_letter,
            sources: SourceOffsets::new(),
        };
        let mut committed = Vec::with_capacity(batches.len());
        for batch in batches {
            committed.push(self.fold_one(&mut group, batch, base, &mut running)?);
        }
        group.finish();
        failpoint::pass("writer.folded");
        let (last_tx, last_time) = (group.last_tx, group.last_time);
        let tenants = std::mem::take(&mut group.new_tenants);
        let writes = std::mem::take(&mut group.writes);
        let erased = std::mem::take(&mut group.newly_erased);
        drop(group);

        self.state.announce(last_tx);
        failpoint::pass("writer.before_commit");
        self.write(writes, batches.len(), last_tx)?;
        self.sources.extend(running.sources);
        self.unjournaled = running.unjournaled;
        self.last_dead_letter = running.dead_letter;
        self.erased.extend(erased);
        self.tenants.extend(tenants.iter().cloned());
        (self.last_tx, self.last_time) = (last_tx, last_time);
        self.tables = tables;
        self.state.publish(last_tx, last_time, definitions, tenants);
        Ok(committed)
    }

    /// Folds one batch of a group, with all that becomes durable with it.
    fn fold_one(
        &self,
        group: &mut Group<'_>,
        batch: &Batch,
        base: Base<'_>,
        running: &mut Running,
    ) -> Result<Committed> {
        let first = match (base, batch.system_time) {
            (Base::Promised(promised), _) => promised,
            (Base::Replayed(Some(entry)), _) => entry.system_time,
            (_, Some(_)) => self.first_time(batch, base)?,
            _ => {
                let clock = SystemTime::from_micros(self.state.clock().now_micros());
                match group.last_tx {
                    TxId::ZERO => clock,
                    _ => clock.max(group.last_time.saturating_add(1)),
                }
            }
        };
        for source in &batch.sources {
            meta::put_source(&self.engine, &mut group.writes, source);
            let of = (source.stream.clone(), source.topic.clone(), source.partition);
            let place = SourcePlace { next_offset: source.next_offset, log: source.log };
            running.unjournaled.insert(of.clone(), place);
            running.sources.insert(of, place);
        }
        let letters = numbered(&batch.dead_letters, &mut running.dead_letter, base);
        let around = Around {
            base: first,
            sources: &self.sources,
            unjournaled: &mut running.unjournaled,
            last_dead_letter: running.dead_letter,
            replayed: if let Base::Replayed(entry) = base { entry } else { None },
        };
        let outcomes = group.fold(batch, around)?;
        if !batch.definitions.is_empty() {
            // It is alone in its group.
            let tx = self.last_tx.plus(1);
            meta::put_definitions(&self.engine, &mut group.writes, tx, &batch.definitions)?;
        }
        for mut letter in letters {
            if !matches!(base, Base::Replayed(_)) {
                letter.at = first.max(group.last_time).micros();
            }
            meta::put_dead_letter(&self.engine, &mut group.writes, letter)?;
        }
        let (last_tx, system_time) = (group.last_tx, group.last_time);
        Ok(Committed { outcomes, last_tx, system_time })
    }

    /// Hands a group to the engine, syncs it where that is due, and enters how long it took.
    fn write(&mut self, writes: WriteBatch, batches: usize, last_tx: TxId) -> Result<()> {
        let began = self.state.clock().monotonic();
        self.engine.write(writes, self.syncing == Syncing::EveryCommit)?;
        failpoint::pass("writer.after_commit");
        let ended = self.state.clock().monotonic();
        let transactions = last_tx.get() - self.last_tx.get();
        let took = ended.saturating_duration_since(began);
        self.recorder.committed(batches, transactions, took);
        match self.syncing {
            Syncing::EveryCommit => self.recorder.synced(),
            Syncing::Every(interval) => {
                self.sync_due = self.sync_due.or_else(|| ended.checked_add(interval));
            }
            Syncing::Never => {}
        }
        Ok(())
    }

    /// Returns the definitions after the group, if it changes them, with their transaction.
    fn next_definitions(
        &self,
        batches: &[Batch],
    ) -> Option<(TxId, Arc<crate::definitions::Definitions>)> {
        let batch = batches.iter().find(|batch| !batch.definitions.is_empty())?;
        let tx = self.last_tx.plus(1);
        Some((tx, Arc::new(self.state.definitions().with(&batch.definitions, tx))))
    }
}

/// Returns dead letters with their numbers, which follow `last`. Replayed ones have theirs, and may
/// be there already: a segment of the journal ends with letters that the next one begins with.
fn numbered(letters: &[DeadLetter], last: &mut u64, base: Base<'_>) -> Vec<DeadLetter> {
    let is_replay = matches!(base, Base::Replayed(_));
    let mut numbered = Vec::with_capacity(letters.len());
    for letter in letters {
        let id = if is_replay { letter.id } else { *last + 1 };
        if id > *last {
            numbered.push(DeadLetter { id, ..letter.clone() });
            *last = id;
        }
    }
    numbered
}

/// Returns the system time of the next transaction where one is given for it, after the last one's.
///
/// # Errors
/// [`Error::Refused`] for one before the last transaction's or later than the clock.
fn import_time(
    given: SystemTime,
    (last_tx, last): (TxId, SystemTime),
    clock: SystemTime,
) -> Result<SystemTime> {
    if given > clock {
        let reason = format!("system time {given} is later than the clock, which says {clock}");
        return Err(Error::Refused { reason });
    }
    if last_tx == TxId::ZERO || given > last {
        return Ok(given);
    }
    if given == last {
        return Ok(last.saturating_add(1));
    }
    let reason = format!("system time {given} lies before that of transaction {last_tx}, {last}");
    Err(Error::Refused { reason })
}

/// Returns an error once more, for each batch of a group that shares it.
fn again(error: &Error) -> Error {
    match error {
        Error::Engine { source } => Error::Engine { source: source.clone() },
        Error::Corrupt { what, why } => Error::Corrupt { what, why: why.clone() },
        Error::DiskFull { why } => Error::DiskFull { why: why.clone() },
        Error::Failed { why } => Error::Failed { why: why.clone() },
        other => Error::Refused { reason: other.to_string() },
    }
}

/// Has the writer delete the erased past of some keys, and waits.
pub(crate) fn ask_purge(requests: &Sender<Request>, doomed: Vec<Doomed>) -> Result<()> {
    let (answer, answered) = crossbeam_channel::bounded(1);
    send(requests, Request::Purge(doomed, answer))?;
    answered.recv()?
}

/// Sends a request, waiting while the queue is full.
pub(crate) fn send(requests: &Sender<Request>, request: Request) -> Result<()> {
    requests.send(request).map_err(|_| Error::Closed)
}
