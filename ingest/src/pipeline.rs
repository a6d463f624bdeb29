//! The loop from raw records to the store: one batch is decoded while the one before commits.
//!
//! ```text
//! source thread --(1 batch)--> decode, map --> writer (1 batch in flight) --> status
//! ```
//!
//! The next batch is handed to the writer only once the one before is durable, so a partition's
//! stored offset never runs ahead of a batch that failed. Both hand-overs are bounded, which is
//! what holds the source back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use everwhen_query::QUERY_STACK_BYTES;
use everwhen_storage::{LastRecord, SourceAdvance, SourceLog, Tenant};

use crate::apply::TenantRule;
use crate::batch::{ReadFrom, Records};
use crate::commit::{Committer, Flight};
use crate::error::{Error, Result};
use crate::plan::Prepared;
use crate::status::Board;

/// What a source hands over.
#[derive(Debug)]
pub struct Work {
    pub records: Records,
    /// Offsets that partitions have reached without a record, behind all of `records`: markers of
    /// transactions and records compacted away use offsets up.
    pub reached: Vec<Reached>,
}

impl Work {
    /// Begins work of a topic.
    pub fn of(origin: &Arc<ReadFrom>) -> Self {
        Self { records: Records::from_topic(Arc::clone(origin)), reached: Vec::new() }
    }
}

/// An offset that a partition has reached.
#[derive(Debug, Clone, Copy)]
pub struct Reached {
    pub partition: i32,
    pub next_offset: i64,
    /// What its log is known by, with the last record that was read before this source began.
    pub log: SourceLog,
}

/// Runs until the source ends or something has to be waited out.
///
/// # Errors
/// [`Error::NoMapping`] once nothing reads the stream, [`Error::Statement`] where a mapping no
/// longer fits its table, [`Error::Moved`], [`Error::Storage`]. The batch at hand is not durable
/// then.
pub fn run(committer: &Committer, source: &Receiver<Work>, board: &Board) -> Result<()> {
    let tenant = Tenant::default();
    let tenants = TenantRule { tenant: &tenant, bound: false };
    let mut flying: Option<Flying> = None;
    let mut lasts = Lasts::new();
    loop {
        // With a batch in flight the source is not waited for: landing comes first then.
        let work = if flying.is_some() { source.try_recv().ok() } else { source.recv().ok() };
        let ready = work.map(|work| prepare(committer, work, tenants, &mut lasts));
        match (flying.take(), &ready) {
            (Some(flight), _) => land(committer, flight, tenants, board)?,
            (None, None) => return Ok(()),
            (None, Some(_)) => {}
        }
        if let Some(ready) = ready {
            let (prepared, work) = ready?;
            let sources = prepared.batch.sources.clone();
            flying = Some(Flying { flight: committer.submit(prepared)?, work, sources });
        }
    }
}

/// A batch that the writer has, with what it was made of.
struct Flying {
    flight: Flight,
    work: Work,
    sources: Vec<SourceAdvance>,
}

/// The last record of each partition that was prepared.
type Lasts = BTreeMap<i32, LastRecord>;

fn prepare(
    committer: &Committer,
    work: Work,
    tenants: TenantRule<'_>,
    lasts: &mut Lasts,
) -> Result<(Prepared, Work)> {
    let plan = committer.plan()?;
    if plan.is_idle() {
        return Err(committer.no_mapping());
    }
    let mut prepared = plan.prepare(&work.records, tenants)?;
    let topic = plan.stream.kafka.as_ref().map(|kafka| kafka.topic.as_str());
    let sources = &mut prepared.batch.sources;
    lasts.extend(sources.iter().filter_map(|source| Some((source.partition, source.log.last?))));
    let reached = work.reached.iter().map(|reached| {
        let last = lasts.get(&reached.partition).copied().or(reached.log.last);
        Reached { log: SourceLog { last, ..reached.log }, ..*reached }
    });
    advance(sources, committer.stream(), topic, reached);
    Ok((prepared, work))
}

fn land(
    committer: &Committer,
    flying: Flying,
    tenants: TenantRule<'_>,
    board: &Board,
) -> Result<()> {
    committer.land(flying.flight, &flying.work.records, tenants)?;
    for source in flying.sources {
        board.reached(source.partition, source.next_offset);
    }
    Ok(())
}

fn advance(
    sources: &mut Vec<SourceAdvance>,
    stream: &str,
    topic: Option<&str>,
    reached: impl Iterator<Item = Reached>,
) {
    let Some(topic) = topic else { return };
    for reached in reached {
        let Reached { partition, next_offset, log } = reached;
        match sources.iter_mut().find(|source| source.partition == partition) {
            Some(source) => source.next_offset = source.next_offset.max(next_offset),
            None => sources.push(SourceAdvance {
                stream: stream.to_owned(),
                topic: topic.to_owned(),
                partition,
                next_offset,
                log,
            }),
        }
    }
}

/// Runs the loop on a thread of its own.
///
/// # Errors
/// Where the system has no thread left.
pub fn spawn(
    committer: Arc<Committer>,
    source: Receiver<Work>,
    board: Arc<Board>,
) -> std::io::Result<std::thread::JoinHandle<Result<()>>> {
    std::thread::Builder::new()
        .name(format!("ingest-{}", committer.stream()))
        // Expressions of mappings may be deep.
        .stack_size(QUERY_STACK_BYTES)
        .spawn(move || run(&committer, &source, &board))
}

/// Returns the result of the loop's thread.
pub fn join(thread: std::thread::JoinHandle<Result<()>>) -> Result<()> {
    thread.join().unwrap_or_else(|_| {
        Err(Error::Statement(everwhen_query::Error::internal("the ingest loop failed")))
    })
}
