//! Rows in bulk: taken batch by batch, and put into a table in transactions of a bounded size.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, RecordBatch};
use everwhen_storage::Tenant;
use tokio::sync::OwnedSemaphorePermit;

use super::Services;
use super::running::Listed;
use super::write::Written;
use crate::code::Code;
use crate::failure::{Answered, Failure};

/// Rows of a transaction at most.
const ROWS_MAX: usize = 10_000;
/// Bytes of Arrow of a transaction, about.
const BYTES_MAX: usize = 8 << 20;

/// A load of rows under way. Dropping it leaves what was committed.
pub struct Append {
    tenant: Tenant,
    table: String,
    pending: Vec<RecordBatch>,
    pending_rows: usize,
    pending_bytes: usize,
    /// Rows that are durable.
    rows: u64,
    last: Option<Written>,
    listed: Listed,
    _place: OwnedSemaphorePermit,
}

impl Append {
    /// Begins a load; it has one of the places for statements, and is listed among them.
    ///
    /// # Errors
    /// [`Code::Busy`] where no place comes free in time.
    pub async fn begin(services: &Services, tenant: Tenant, table: String) -> Answered<Self> {
        let listed = services.running.begin(services, &tenant, &format!("load into {table}"));
        let place = services.lanes.queries.place().await?;
        Ok(Self {
            tenant,
            table,
            pending: Vec::new(),
            pending_rows: 0,
            pending_bytes: 0,
            rows: 0,
            last: None,
            listed,
            _place: place,
        })
    }

    /// Takes a batch, and commits where enough has come together.
    ///
    /// # Errors
    /// What is wrong with the rows, and `cancelled`; says how many are durable already.
    pub async fn push(&mut self, services: &Services, batch: RecordBatch) -> Answered<()> {
        let mut rest = batch;
        while rest.num_rows() > 0 {
            let now = rest.num_rows().min(ROWS_MAX - self.pending_rows);
            let part = rest.slice(0, now);
            rest = rest.slice(now, rest.num_rows() - now);
            self.pending_rows += now;
            // Slices share their buffers: only these rows count.
            let bytes = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or(0);
            self.pending_bytes += part.columns().iter().map(bytes).sum::<usize>();
            self.pending.push(part);
            if self.pending_rows >= ROWS_MAX || self.pending_bytes >= BYTES_MAX {
                self.commit(services).await?;
            }
        }
        Ok(())
    }

    /// Commits what is left, and returns how many rows were put and where they are.
    ///
    /// # Errors
    /// As [`Append::push`].
    pub async fn finish(mut self, services: &Services) -> Answered<(u64, Option<Written>)> {
        self.commit(services).await?;
        Ok((self.rows, self.last))
    }

    async fn commit(&mut self, services: &Services) -> Answered<()> {
        if self.pending_rows == 0 {
            return Ok(());
        }
        if self.listed.cancelled().is_cancelled() {
            return Err(self.cancelled());
        }
        let batches = std::mem::take(&mut self.pending);
        let count = u64::try_from(self.pending_rows).unwrap_or(u64::MAX);
        (self.pending_rows, self.pending_bytes) = (0, 0);
        let (engine, tenant) = (Arc::clone(&services.engine), self.tenant.clone());
        let table = self.table.clone();
        let writing = async move { engine.append(tenant, table, batches).await };
        let written = match services.lanes.queries.spawn(writing).await {
            Ok(Ok(written)) => written,
            Ok(Err(error)) => return Err(self.partly(error.into())),
            Err(error) => return Err(self.partly(Failure::internal(&error))),
        };
        self.rows += count;
        self.listed.counter().add(count);
        self.last = Some(written.into());
        Ok(())
    }

    /// Waits for more rows from their sender, or for the end of the load by cancellation.
    ///
    /// # Errors
    /// `cancelled`.
    pub async fn or_cancelled<T>(&self, more: impl Future<Output = T>) -> Answered<T> {
        let cancelled = self.listed.cancelled();
        tokio::select! {
            biased;
            () = cancelled.cancelled() => Err(self.cancelled()),
            more = more => Ok(more),
        }
    }

    fn cancelled(&self) -> Failure {
        self.partly(Failure::new(Code::Cancelled, "the load was cancelled"))
    }

    /// Says what was committed before a failure.
    fn partly(&self, failure: Failure) -> Failure {
        match self.rows {
            0 => failure,
            rows => {
                failure.with_hint(format!("the first {rows} rows are in; send the others again"))
            }
        }
    }
}
