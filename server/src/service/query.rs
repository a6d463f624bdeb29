//! Statements: run on the threads of their lane, at most so many at once, answered as a stream of batches.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use everwhen_query::{
    Described, Error as QueryError, Interrupt, InterruptOnDrop, Names, Outcome, Page, Params,
    Request, RowsAnswer, TemporaryViews,
};
use everwhen_storage::{ColumnType, SystemTime, ValidTime};
use futures::{Stream, StreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::lane::Lane;
use super::running::Listed;
use super::write::Written;
use super::{Services, define, tenant_of};
use crate::code::Code;
use crate::failure::{Answered, Failure};

/// A statement and what it is to be read at.
#[derive(Debug, Clone)]
pub struct Statement {
    pub sql: String,
    pub params: Params,
    /// Writes that follow in the same transaction, each with its own parameters.
    pub then: Vec<(String, Params)>,
    pub tenant: Option<String>,
    pub valid_time: Option<ValidTime>,
    pub system_time: Option<SystemTime>,
    pub basis: Option<String>,
    /// The system time that writes get.
    pub import_time: Option<SystemTime>,
    pub limit: Option<u64>,
    /// The part of a query's rows that is asked for.
    pub page: Option<Page>,
    pub timeout: Option<Duration>,
    /// Those of the session that asks.
    pub temporary_views: Option<TemporaryViews>,
}

impl Statement {
    /// Builds a statement with nothing but its text.
    pub fn new(sql: impl Into<String>) -> Self {
        Self {
            sql: sql.into(),
            params: Params::None,
            then: Vec::new(),
            tenant: None,
            valid_time: None,
            system_time: None,
            basis: None,
            import_time: None,
            limit: None,
            page: None,
            timeout: None,
            temporary_views: None,
        }
    }
}

/// What a statement answers.
pub enum Answer {
    Rows(Rows),
    Written(Written),
}

/// The rows of a query. Dropping it cancels the query.
pub struct Rows {
    pub columns: Vec<(String, ColumnType)>,
    pub schema: SchemaRef,
    /// The token to read again at.
    pub basis: String,
    batches: mpsc::Receiver<Answered<RecordBatch>>,
    listed: Option<Listed>,
    _cancel: Option<CancelOnDrop>,
    _place: Option<OwnedSemaphorePermit>,
    _stop: Option<InterruptOnDrop>,
}

impl Stream for Rows {
    type Item = Answered<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.batches.poll_recv(cx)
    }
}

impl Rows {
    /// Returns the id that the query is listed under while it runs.
    pub fn id(&self) -> Option<&str> {
        self.listed.as_ref().map(Listed::id)
    }

    /// Collects all rows. For callers that bound their number themselves.
    ///
    /// # Errors
    /// The first failure of the query.
    pub async fn collect(mut self) -> Answered<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next().await {
            batches.push(batch?);
        }
        Ok(batches)
    }
}

/// Ends a task when dropped.
struct CancelOnDrop(AbortHandle);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Batches that are computed ahead of a slow reader.
const BATCHES_AHEAD: usize = 2;

/// Runs a statement.
///
/// # Errors
/// Whatever the statement deserves; `cancelled` past its time limit, also while rows are read.
pub async fn run(services: &Services, statement: Statement) -> Answered<Answer> {
    let started = services.monotonic();
    let answer = run_uncounted(services, statement).await;
    let (kind, outcome) = match &answer {
        Ok(Answer::Rows(_)) => ("query", "ok"),
        Ok(Answer::Written(_)) => ("write", "ok"),
        Err(failure) => ("any", failure.code.entry().name),
    };
    let labels = [("kind", kind), ("outcome", outcome)];
    services.metrics.add("everwhen_statements_total", &labels, 1);
    let took = services.since(started);
    services.metrics.observe("everwhen_statement_seconds", &labels[..1], took);
    answer
}

async fn run_uncounted(services: &Services, statement: Statement) -> Answered<Answer> {
    let (begun, request) = Begun::new(services, statement).await?;
    let engine = Arc::clone(&services.engine);
    match begun.wait(async move { engine.execute(request).await }).await? {
        Outcome::Rows(rows) => Ok(Answer::Rows(begun.forward(services, rows))),
        Outcome::Written(written) => Ok(Answer::Written(written.into())),
        Outcome::Define(definition) => define::run(services, definition).await,
    }
}

/// Tells what a statement takes and answers, without running it.
///
/// # Errors
/// Whatever is wrong with the statement; `cancelled` past its time limit.
pub async fn describe(services: &Services, statement: Statement) -> Answered<Described> {
    let request = request_of(services, statement)?;
    let lane = lane_of(services, &request);
    let _place = lane.place().await?;
    let engine = Arc::clone(&services.engine);
    let describing = lane.spawn(async move { engine.describe(request).await });
    let _cancel = CancelOnDrop(describing.abort_handle());
    match describing.await {
        Ok(described) => Ok(described?),
        Err(error) => Err(Failure::internal(&error)),
    }
}

/// Runs a query of the catalogs that Postgres keeps of itself.
///
/// # Errors
/// Whatever the query deserves; `cancelled` past its time limit.
pub async fn catalog(services: &Services, statement: Statement, names: Names) -> Answered<Rows> {
    let (begun, request) = Begun::new(services, statement).await?;
    let engine = Arc::clone(&services.engine);
    let rows = begun.wait(async move { engine.catalog(request, names).await }).await?;
    Ok(begun.forward(services, rows))
}

fn request_of(services: &Services, statement: Statement) -> Answered<Request> {
    services.limits.check_sql(&statement.sql)?;
    for (sql, _) in &statement.then {
        services.limits.check_sql(sql)?;
    }
    Ok(Request {
        sql: statement.sql,
        params: statement.params,
        then: statement.then,
        tenant: tenant_of(statement.tenant.as_deref())?,
        valid_time: statement.valid_time,
        system_time: statement.system_time,
        basis: statement.basis,
        import_time: statement.import_time,
        limit: statement.limit,
        page: statement.page,
        timeout: statement.timeout.or(services.limits.statement_timeout),
        temporary_views: statement.temporary_views,
        interrupt: Interrupt::default(),
    })
}

/// Returns the threads for a statement.
fn lane_of<'a>(services: &'a Services, request: &Request) -> &'a Lane {
    match services.engine.is_short(request) {
        true => &services.lanes.short,
        false => &services.lanes.queries,
    }
}

/// A statement that has a place among those that run.
struct Begun {
    lane: Lane,
    listed: Listed,
    end: End,
    place: OwnedSemaphorePermit,
    stop: InterruptOnDrop,
}

impl Begun {
    /// Lists a statement and waits for a place; answers with its request, too.
    async fn new(services: &Services, statement: Statement) -> Answered<(Self, Request)> {
        let request = request_of(services, statement)?;
        let stop = request.interrupt.on_drop();
        let listed = services.running.begin(services, &request.tenant, &request.sql);
        let deadline = request.timeout.and_then(|t| tokio::time::Instant::now().checked_add(t));
        let end = End { deadline, cancelled: listed.cancelled() };
        let lane = lane_of(services, &request).clone();
        let place = end.bound(lane.place()).await??;
        Ok((Self { lane, listed, end, place, stop }, request))
    }

    /// Has work done on the statement's threads, but not past its end.
    async fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, QueryError>> + Send + 'static,
    ) -> Answered<T> {
        let running = self.lane.spawn(work);
        let _cancel = CancelOnDrop(running.abort_handle());
        match self.end.bound(running).await? {
            Ok(done) => Ok(done?),
            Err(error) => Err(Failure::internal(&error)),
        }
    }

    /// Moves rows from the query's threads to whoever reads them, a few batches ahead. Not on those
    /// threads itself: they may be held when the statement has to end.
    fn forward(self, services: &Services, rows: RowsAnswer) -> Rows {
        let Self { listed, end, place, stop, .. } = self;
        let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
        let RowsAnswer { schema, columns, mut stream, basis } = rows;
        let metrics = services.metrics.clone();
        let counter = listed.counter();
        let task = tokio::spawn(async move {
            loop {
                // A reader that is slow holds nothing of a statement that has to end.
                let next = async {
                    let room = sender.reserve().await;
                    (room, stream.next().await)
                };
                let (room, item) = match end.bound(next).await {
                    Ok((Ok(_), None) | (Err(_), _)) => return,
                    Ok((Ok(room), Some(item))) => (room, item.map_err(Failure::from)),
                    Err(ended) => {
                        drop(stream);
                        // The reader may have gone.
                        let _ = sender.send(Err(ended)).await;
                        return;
                    }
                };
                let last = item.is_err();
                if let Ok(batch) = &item {
                    let count = u64::try_from(batch.num_rows()).unwrap_or(u64::MAX);
                    metrics.add("everwhen_rows_total", &[], count);
                    counter.add(count);
                }
                room.send(item);
                if last {
                    return;
                }
            }
        });
        Rows {
            columns,
            schema,
            basis,
            batches,
            listed: Some(listed),
            _cancel: Some(CancelOnDrop(task.abort_handle())),
            _place: Some(place),
            _stop: Some(stop),
        }
    }
}

/// When a statement has to end, whatever it is at.
struct End {
    deadline: Option<tokio::time::Instant>,
    cancelled: CancellationToken,
}

impl End {
    /// Waits for a part of the statement's work, but not past its end.
    async fn bound<T>(&self, work: impl Future<Output = T>) -> Answered<T> {
        let in_time = async {
            match self.deadline {
                None => Ok(work.await),
                Some(at) => tokio::time::timeout_at(at, work).await.map_err(|_| timed_out()),
            }
        };
        tokio::select! {
            biased;
            () = self.cancelled.cancelled() => {
                Err(Failure::new(Code::Cancelled, "the statement was cancelled"))
            }
            done = in_time => done,
        }
    }
}

fn timed_out() -> Failure {
    Failure::new(Code::Cancelled, "the statement ran past its time limit")
        .with_hint("give a longer timeout_ms")
}

/// Builds an answer of rows that are at hand.
pub fn rows_at_hand(
    columns: Vec<(String, ColumnType)>,
    batch: RecordBatch,
    basis: String,
) -> Answer {
    let (sender, batches) = mpsc::channel(1);
    let schema = batch.schema();
    // There is room for it, and a reader.
    let _ = sender.try_send(Ok(batch));
    Answer::Rows(Rows {
        columns,
        schema,
        basis,
        batches,
        listed: None,
        _cancel: None,
        _place: None,
        _stop: None,
    })
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        use everwhen_storage::Error as Storage;
        if let QueryError::Storage(error @ (Storage::Closed | Storage::DiskFull { .. })) = error {
            return error.into();
        }
        let mut failure = Self::of_sqlstate(error.sqlstate(), error.to_string());
        failure.position = error.position();
        failure.hint = error.hint().map(str::to_owned);
        failure
    }
}
