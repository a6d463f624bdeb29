//! The loop from raw records to the store: one batch is decoded while the one before commits.
//!
//! ```text
//! source thread --(1 batch)--> decode, map --> writer (1 batch in flight) --> status
//! ```
//!
//! The next batch is handed to the writer only once the one before is durable, so a partition's
//! stored offset never runs ahead of a batch that failed. Both hand-overs are bounded, which is
//! what holds the source back.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use everwhen_query::QUERY_STACK_BYTES;
use everwhen_storage::{SourceAdvance, SourceLog, Tenant};

use crate::apply::TenantRule;
use crate::batch::Records;
use crate::commit::{Committer, Flight};
use crate::error::{Error, Result};
use crate::plan::Prepared;
use crate::status::Board;

/// What a source hands over.
#[derive(Debug, Default)]
pub struct Work {
    pub records: Records,
    /// Offsets that partitions have reached without a record, behind all of `records`: markers of
    /// transactions and records compacted away use offsets up.
    pub reached: Vec<(i32, i64)>,
}

/// Runs until the source ends or something has to be waited out.
///
/// # Errors
/// [`Error::NoMapping`] once nothing reads the stream, [`Error::Statement`] where a mapping no
/// longer fits its table, [`Error::Storage`]. The batch at hand is not durable then.
pub fn run(committer: &Committer, source: &Receiver<Work>, board: &Board) -> Result<()> {
    let tenant = Tenant::default();
    let tenants = TenantRule { tenant: &tenant, bound: false };
    let mut flying: Option<Flying> = None;
    loop {
        // With a batch in flight the source is not waited for: landing comes first then.
        let work = if flying.is_some() { source.try_recv().ok() } else { source.recv().ok() };
        let ready = work.map(|work| prepare(committer, work, tenants));
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

fn prepare(committer: &Committer, work: Work, tenants: TenantRule<'_>) -> Result<(Prepared, Work)> {
    let plan = committer.plan()?;
    if plan.is_idle() {
        return Err(committer.no_mapping());
    }
    let mut prepared = plan.prepare(&work.records, tenants)?;
    let topic = plan.stream.kafka.as_ref().map(|kafka| kafka.topic.as_str());
    advance(&mut prepared.batch.sources, committer.stream(), topic, &work.reached);
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
    reached: &[(i32, i64)],
) {
    let Some(topic) = topic else { return };
    for (partition, offset) in reached {
        match sources.iter_mut().find(|source| source.partition == *partition) {
            Some(source) => source.next_offset = source.next_offset.max(*offset),
            None => sources.push(SourceAdvance {
                stream: stream.to_owned(),
                topic: topic.to_owned(),
                partition: *partition,
                next_offset: *offset,
                log: SourceLog::default(),
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
