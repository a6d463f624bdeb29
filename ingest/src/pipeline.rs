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
use std::sync::mpsc::{Receiver, TryRecvError};

use everwhen_storage::{SourceAdvance, Tenant};

use crate::apply::TenantRule;
use crate::batch::Records;
use crate::commit::{Committer, Flight};
use crate::error::{Error, Result};
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
    let mut flying: Option<(Flight, Work, Vec<SourceAdvance>)> = None;
    let tenant = Tenant::default();
    let tenants = TenantRule { tenant: &tenant, bound: false };
    loop {
        let work = if flying.is_some() {
            source.try_recv()
        } else {
            source.recv().map_err(|_| TryRecvError::Disconnected)
        };
        let next = match work {
            Ok(work) => {
                let plan = committer.plan();
                Some((plan, work))
            }
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) if flying.is_some() => None,
            Err(TryRecvError::Disconnected) => return Ok(()),
        };
        // Prepared before the landing of the batch before, which is what overlaps.
        let prepared = match next {
            None => None,
            Some((plan, work)) => Some(plan.and_then(|plan| {
                if plan.is_idle() {
                    return Err(committer.no_mapping());
                }
                let mut prepared = plan.prepare(&work.records, tenants)?;
                let topic = plan.stream.kafka.as_ref().map(|kafka| kafka.topic.as_str());
                advance(&mut prepared.batch.sources, committer.stream(), topic, &work.reached);
                Ok((prepared, work))
            })),
        };
        if let Some((flight, work, sources)) = flying.take() {
            committer.land(flight, &work.records, tenants)?;
            for source in sources {
                board.reached(source.partition, source.next_offset);
            }
        }
        if let Some(prepared) = prepared {
            let (prepared, work) = prepared?;
            let sources = prepared.batch.sources.clone();
            flying = Some((committer.submit(prepared)?, work, sources));
        }
    }
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
        .spawn(move || run(&committer, &source, &board))
}

/// Returns the result of the loop's thread.
pub fn join(thread: std::thread::JoinHandle<Result<()>>) -> Result<()> {
    thread.join().unwrap_or_else(|_| {
        Err(Error::Statement(everwhen_query::Error::internal("the ingest loop failed")))
    })
}
