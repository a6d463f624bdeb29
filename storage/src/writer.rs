//! The one writer: takes batches in order, gives out tx ids and system times, commits, answers.
//!
//! ```text
//! queue -> all that waits -> fold by key -> one write batch, one sync -> publish -> answer
//! ```
//!
//! Batches that wait together share a commit; one that changes definitions commits alone. A failed
//! write is the end of writing: what the log holds is then not known, so every later call errs.

use std::collections::BTreeSet;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use rocksdb::WriteBatch;
use tokio::sync::oneshot;

use crate::batch::{Batch, Committed, DeadLetter};
use crate::engine::Engine;
use crate::erase::Erased;
use crate::erase::purge::Doomed;
use crate::error::{Error, Result};
use crate::failpoint;
use crate::journal::SourceOffsets;
use crate::meta;
use crate::schema::Tenant;
use crate::state::State;
use crate::store::Turn;
use crate::time::{SystemTime, ValidTime};
use crate::tx::{Basis, TxId};

use group::Group;
use tables::{Tables, check_definitions};

mod change;
mod erase;
mod group;
mod key_state;
mod resolve;
mod sorted;
pub(crate) mod tables;

/// Batches that may wait before callers do.
pub(crate) const QUEUE_BATCHES_MAX: usize = 256;
/// Transactions after which no more batches join a commit.
const GROUP_TXS_MAX: usize = 50_000;

/// Where the answer to a batch goes.
pub(crate) type Answer = oneshot::Sender<Result<Committed>>;

/// What the writer is asked.
pub(crate) enum Request {
    Write(Batch, Answer),
    Turn(oneshot::Sender<Result<Turn>>),
    /// Delete the erased past of some keys.
    Purge(Vec<Doomed>, Sender<Result<()>>),
    Stop,
}

/// The writer's own state; lives on its thread.
pub(crate) struct Writer {
    engine: Arc<Engine>,
    state: Arc<State>,
    requests: Receiver<Request>,
    sync: bool,
    tables: Arc<Tables>,
    sources: SourceOffsets,
    tenants: BTreeSet<Tenant>,
    erased: Erased,
    last_tx: TxId,
    last_time: SystemTime,
    last_dead_letter: u64,
    /// Why nothing can be written any more.
    failed: Option<rocksdb::Error>,
}

impl Writer {
    /// Takes up where the store stands.
    pub(crate) fn new(
        engine: Arc<Engine>,
        state: Arc<State>,
        requests: Receiver<Request>,
        sync: bool,
    ) -> Result<Self> {
        let (last_tx, last_time) = state.latest();
        Ok(Self {
            tables: Arc::new(Tables::new(&state.definitions())),
            sources: meta::sources(&engine)?,
            tenants: meta::tenants(&engine)?,
            erased: Erased::load(&engine)?,
            last_dead_letter: meta::last_dead_letter(&engine)?,
            engine,
            state,
            requests,
            sync,
            last_tx,
            last_time,
            failed: None,
        })
    }

    /// Serves requests until it is told to stop or nobody can ask any more.
    pub(crate) fn run(mut self) {
        let mut next = self.requests.recv().ok();
        while let Some(request) = next.take() {
            match request {
                Request::Write(batch, answer) => {
                    let (group, after) = self.collect(batch, answer);
                    self.commit(group, None);
                    next = after;
                }
                Request::Turn(grant) => self.turn(grant),
                Request::Purge(doomed, answer) => {
                    let _ = answer.send(self.purge(&doomed));
                }
                Request::Stop => break,
            }
            if next.is_none() {
                next = self.requests.recv().ok();
            }
        }
        if let Err(error) = self.rest() {
            tracing::error!(%error, "the store did not close in order");
        }
    }

    /// Keeps what is only in memory.
    fn rest(&self) -> Result<()> {
        if self.failed.is_some() {
            return Ok(());
        }
        let mut writes = WriteBatch::default();
        meta::put_now_floor(&self.engine, &mut writes, self.state.now());
        self.engine.write(writes, true)?;
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
        if let Some(source) = &self.failed {
            return Err(Error::Engine { source: source.clone() });
        }
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
        if let Some(source) = &self.failed {
            let _ = grant.send(Err(Error::Engine { source: source.clone() }));
            return;
        }
        let promised = self.next_time();
        let now = ValidTime::from_micros(promised.micros());
        let (commit, used) = crossbeam_channel::bounded(1);
        let basis = Basis { tx: self.last_tx, now };
        if grant.send(Ok(Turn::new(basis, self.state.definitions(), commit))).is_err() {
            return;
        }
        // An error says that the turn was dropped unused.
        if let Ok(used) = used.recv() {
            self.commit(vec![used], Some(promised));
        }
    }

    /// Checks, folds and commits a group, and answers each of its batches.
    fn commit(&mut self, group: Vec<(Batch, Answer)>, promised: Option<SystemTime>) {
        failpoint::pass("writer.taken");
        let group = self.checked(group, promised.unwrap_or_else(|| self.next_time()));
        if group.is_empty() {
            return;
        }
        let (batches, answers): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        match self.fold_and_write(&batches, promised) {
            Ok(committed) => {
                failpoint::pass("writer.published");
                for (answer, committed) in answers.into_iter().zip(committed) {
                    let _ = answer.send(Ok(committed));
                }
            }
            Err(error) => {
                tracing::error!(%error, batches = batches.len(), "a commit failed");
                for answer in answers {
                    let _ = answer.send(Err(again(&error)));
                }
            }
        }
        failpoint::pass("writer.answered");
    }

    /// Answers the batches that must be refused and returns the others.
    fn checked(
        &mut self,
        group: Vec<(Batch, Answer)>,
        system_time: SystemTime,
    ) -> Vec<(Batch, Answer)> {
        let mut good = Vec::with_capacity(group.len());
        for (batch, answer) in group {
            match self.check(&batch, system_time) {
                Ok(()) => good.push((batch, answer)),
                Err(error) => {
                    let _ = answer.send(Err(error));
                }
            }
        }
        good
    }

    fn check(&self, batch: &Batch, system_time: SystemTime) -> Result<()> {
        if let Some(source) = &self.failed {
            return Err(Error::Engine { source: source.clone() });
        }
        if batch.definitions.is_empty() {
            return self.tables.check(batch, system_time);
        }
        let definitions = self.state.definitions();
        check_definitions(&definitions, &batch.definitions)?;
        let next = definitions.with(&batch.definitions, self.last_tx.plus(1));
        Tables::new(&next).check(batch, system_time)
    }

    fn fold_and_write(
        &mut self,
        batches: &[Batch],
        promised: Option<SystemTime>,
    ) -> Result<Vec<Committed>> {
        let engine = Arc::clone(&self.engine);
        let definitions = self.next_definitions(batches);
        let tables = match &definitions {
            Some((_, definitions)) => Arc::new(Tables::new(definitions)),
            None => Arc::clone(&self.tables),
        };
        self.erased.prepare(batches);
        let last = (self.last_tx, self.last_time);
        let mut group = Group::new(&engine, &tables, &self.tenants, &self.erased, last);
        group.preload(batches.iter())?;
        let mut committed = Vec::with_capacity(batches.len());
        let mut sources = Vec::new();
        let mut dead_letter = self.last_dead_letter;
        for batch in batches {
            let base = promised.unwrap_or_else(|| {
                let clock = SystemTime::from_micros(self.state.clock().now_micros());
                match group.last_tx {
                    TxId::ZERO => clock,
                    _ => clock.max(group.last_time.saturating_add(1)),
                }
            });
            let outcomes = group.fold(batch, base, &self.sources)?;
            if let Some((tx, _)) = &definitions {
                meta::put_definitions(&engine, &mut group.writes, *tx, &batch.definitions)?;
            }
            for source in &batch.sources {
                meta::put_source(&engine, &mut group.writes, source);
                sources.push(source);
            }
            put_dead_letters(&mut group, batch, base, &mut dead_letter)?;
            let (last_tx, system_time) = (group.last_tx, group.last_time);
            committed.push(Committed { outcomes, last_tx, system_time });
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
        if let Err(error) = engine.write(writes, self.sync) {
            if let Error::Engine { source } = &error {
                self.failed = Some(source.clone());
            }
            return Err(error);
        }
        failpoint::pass("writer.after_commit");

        for source in sources {
            let of = (source.stream.clone(), source.topic.clone(), source.partition);
            self.sources.insert(of, source.next_offset);
        }
        self.last_dead_letter = dead_letter;
        self.erased.extend(erased);
        self.tenants.extend(tenants.iter().cloned());
        (self.last_tx, self.last_time) = (last_tx, last_time);
        self.tables = tables;
        self.state.publish(last_tx, last_time, definitions, tenants);
        Ok(committed)
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

/// Adds a batch's dead letters, with ids after `last`.
fn put_dead_letters(
    group: &mut Group<'_>,
    batch: &Batch,
    base: SystemTime,
    last: &mut u64,
) -> Result<()> {
    for letter in &batch.dead_letters {
        *last += 1;
        let at = base.max(group.last_time).micros();
        let letter = DeadLetter { id: *last, at, ..letter.clone() };
        meta::put_dead_letter(group.engine, &mut group.writes, letter)?;
    }
    Ok(())
}

/// Returns an error once more, for each batch of a group that shares it.
fn again(error: &Error) -> Error {
    match error {
        Error::Engine { source } => Error::Engine { source: source.clone() },
        Error::Corrupt { what, why } => Error::Corrupt { what, why: why.clone() },
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
