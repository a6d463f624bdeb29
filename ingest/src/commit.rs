//! Prepared records into the store, under the definitions in force, whatever one of them does.

use std::sync::Arc;

use everwhen_storage::{Committed, Definitions, Error as StorageError, Store, TxId, TxOutcome};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::apply::TenantRule;
use crate::batch::Records;
use crate::error::{Error, Result};
use crate::metrics::{Counters, Tally};
use crate::plan::{Prepared, StreamPlan};

/// Commits records of one stream.
pub struct Committer {
    store: Store,
    stream: String,
    record_bytes_max: usize,
    counters: Arc<Counters>,
    plan: Mutex<Option<(Arc<Definitions>, Arc<StreamPlan>)>>,
}

/// A batch on its way: the writer has it, its answer is awaited.
pub struct Flight {
    prepared: Prepared,
    answer: oneshot::Receiver<everwhen_storage::Result<Committed>>,
}

/// What became of a batch that is durable.
#[derive(Debug, Default)]
pub struct Settled {
    /// The last transaction that the records made, if they made any.
    pub last_applied: Option<TxId>,
    /// The last transaction of the store then.
    pub last_tx: TxId,
    /// Records turned away, with the reason.
    pub rejected: Vec<(usize, String)>,
}

impl Committer {
    /// Builds the committer of a stream; `record_bytes_max` holds where the stream has no own.
    pub fn new(
        store: Store,
        stream: &str,
        record_bytes_max: usize,
        counters: Arc<Counters>,
    ) -> Self {
        let plan = Mutex::new(None);
        Self { store, stream: stream.to_owned(), record_bytes_max, counters, plan }
    }

    /// Returns the stream as defined now, compiled.
    ///
    /// # Errors
    /// [`Error::UnknownStream`], and what a mapping answers that no longer fits its table.
    pub fn plan(&self) -> Result<Arc<StreamPlan>> {
        let definitions = self.store.definitions();
        let mut cached = self.plan.lock();
        if let Some((of, plan)) = &*cached
            && Arc::ptr_eq(of, &definitions)
        {
            return Ok(Arc::clone(plan));
        }
        let plan =
            Arc::new(StreamPlan::compile(&definitions, &self.stream, self.record_bytes_max)?);
        *cached = Some((definitions, Arc::clone(&plan)));
        Ok(plan)
    }

    /// Hands a prepared batch to the writer. Blocks while the writer's queue is full.
    ///
    /// # Errors
    /// [`Error::Storage`] where the store is closing.
    pub fn submit(&self, mut prepared: Prepared) -> Result<Flight> {
        let batch = std::mem::take(&mut prepared.batch);
        let answer = self.store.submit(batch)?;
        Ok(Flight { prepared, answer })
    }

    /// Waits until a batch is durable; blocks. One that the writer refuses, because definitions
    /// have changed or a record is at odds with them, is prepared again, in parts if need be.
    ///
    /// # Errors
    /// [`Error::Storage`] where the store fails: nothing of the batch is durable then.
    pub fn land(
        &self,
        flight: Flight,
        records: &Records,
        tenants: TenantRule<'_>,
    ) -> Result<Settled> {
        match flight.answer.blocking_recv().unwrap_or(Err(StorageError::Closed)) {
            Ok(committed) => Ok(self.settled(flight.prepared, &committed)),
            Err(StorageError::Refused { reason }) => {
                tracing::info!(stream = self.stream, reason, "batch refused, prepared again");
                self.write(records, tenants)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Prepares records under the definitions in force and commits them; blocks. Records that the
    /// writer refuses are found by halving and become dead letters.
    ///
    /// # Errors
    /// As [`Self::land`] and [`Self::plan`].
    pub fn write(&self, records: &Records, tenants: TenantRule<'_>) -> Result<Settled> {
        let plan = self.plan()?;
        let flight = self.submit(plan.prepare(records, tenants)?)?;
        let reason = match flight.answer.blocking_recv().unwrap_or(Err(StorageError::Closed)) {
            Ok(committed) => return Ok(self.settled(flight.prepared, &committed)),
            Err(StorageError::Refused { reason }) => reason,
            Err(error) => return Err(error.into()),
        };
        if records.len() > 1 {
            let half = records.len() / 2;
            let mut first = self.write(&records.part(0..half), tenants)?;
            let second = self.write(&records.part(half..records.len()), tenants)?;
            let moved = second.rejected.into_iter().map(|(index, why)| (index + half, why));
            first.rejected.extend(moved);
            let last_applied = second.last_applied.or(first.last_applied);
            return Ok(Settled { last_applied, last_tx: second.last_tx, ..first });
        }
        let flight = self.submit(plan.refuse(records, tenants, &reason))?;
        let committed = flight.answer.blocking_recv().unwrap_or(Err(StorageError::Closed))?;
        Ok(self.settled(flight.prepared, &committed))
    }

    fn settled(&self, prepared: Prepared, committed: &Committed) -> Settled {
        let mut tally = Tally { ..prepared.tally };
        let mut last_applied = None;
        for outcome in &committed.outcomes {
            match outcome {
                TxOutcome::Applied(tx) => {
                    tally.applied += 1;
                    last_applied = Some(*tx);
                }
                TxOutcome::Duplicate => tally.duplicates += 1,
                TxOutcome::Stale => tally.stale += 1,
                TxOutcome::Erased => tally.erased += 1,
            }
        }
        self.counters.add(&tally);
        Settled { last_applied, last_tx: committed.last_tx, rejected: prepared.rejected }
    }

    /// Returns the stream's name.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Returns an error that says that nothing reads the stream.
    pub fn no_mapping(&self) -> Error {
        Error::NoMapping { stream: self.stream.clone() }
    }
}
