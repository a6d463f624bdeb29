//! Statements in, answers out: what a request's text asks for, at which basis, within which limits.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use datafusion::common::runtime::SpawnedTask;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::LogicalPlanBuilder;
use everwhen_storage::{Basis, Definitions, Store, SystemTime, Tenant, TxId, ValidTime};

use crate::answer::{RowsAnswer, at_hand, start, unmarked};
use crate::basis::{basis_token, parse_basis, reach};
use crate::catalog::{self, Catalogs, Names};
use crate::constants::Constants;
use crate::describe::{Described, describe};
use crate::diagnose::{Diagnose, diagnose};
use crate::dialect::{ParseLimits, ParsedQuery, ParsedStatement, Positions, Settings, Show, parse};
use crate::error::{Error, Result, SqlState};
use crate::interrupt::Interrupt;
use crate::key_read::may_read_one_key;
use crate::page::{self, Page};
use crate::params::Params;
use crate::read::{Defaults, Planned, Reading};
use crate::session::{StatementContext, runtime};
use crate::short;
use crate::spill::{Room, Spilling};
use crate::statements::DefinitionStatement;
use crate::system_tables::{SystemTable, SystemTables};
use crate::transaction::{self, Work};
use crate::views::TemporaryViews;
use crate::write::{self, Writing};

/// The stack that threads need which plan and run queries: the expressions of a statement within the
/// limits may be deep, and some of DataFusion's passes over them recurse.
pub const QUERY_STACK_BYTES: usize = 64 << 20;

/// The limits of an engine.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Memory of all running statements together.
    pub memory_bytes_max: usize,
    /// Where sorts and aggregates go on beyond it; without, they are refused (53200).
    pub spilling: Option<Spilling>,
    /// What a statement's text may cost.
    pub parse: ParseLimits,
    /// How long a statement may run where its request does not say.
    pub timeout: Duration,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            memory_bytes_max: 1 << 30,
            spilling: None,
            parse: ParseLimits::default(),
            timeout: Duration::from_secs(300),
        }
    }
}

/// A request: a text of statements and what it is to be read at.
#[derive(Debug, Clone)]
pub struct Request {
    pub sql: String,
    pub params: Params,
    /// Writes that follow in the same transaction, each with its own parameters.
    pub then: Vec<(String, Params)>,
    pub tenant: Tenant,
    /// Valid time of tables without a clause of their own, instead of now.
    pub valid_time: Option<ValidTime>,
    /// System time of tables without a clause of their own, instead of the basis.
    pub system_time: Option<SystemTime>,
    /// A token of an earlier answer, to read at its place.
    pub basis: Option<String>,
    /// The system time that writes get, after all others and not after the clock.
    pub import_time: Option<SystemTime>,
    /// Rows of the answer at most.
    pub limit: Option<u64>,
    /// The part of a query's rows that is asked for; cut after the limit.
    pub page: Option<Page>,
    pub timeout: Option<Duration>,
    /// Those of the session that asks; nothing where there is no session.
    pub temporary_views: Option<TemporaryViews>,
    /// Stops the work. Whoever waits keeps a guard of it where no query can hold the thread: a task
    /// that is aborted is dropped by the threads that it ran on, once one of them is free.
    pub interrupt: Interrupt,
}

impl Request {
    /// Builds a request of nothing but a text, for the default tenant.
    pub fn new(sql: impl Into<String>) -> Self {
        Self {
            sql: sql.into(),
            params: Params::None,
            then: Vec::new(),
            tenant: Tenant::default(),
            valid_time: None,
            system_time: None,
            basis: None,
            import_time: None,
            limit: None,
            page: None,
            timeout: None,
            temporary_views: None,
            interrupt: Interrupt::default(),
        }
    }

    /// Returns definitions as the session sees them.
    pub(crate) fn seen(&self, definitions: &Arc<Definitions>) -> Arc<Definitions> {
        match &self.temporary_views {
            None => Arc::clone(definitions),
            Some(views) => views.over(definitions),
        }
    }
}

/// What a request answers.
pub enum Outcome {
    Rows(RowsAnswer),
    Written(WriteAnswer),
    /// A definition that other parts of the server own: not done yet.
    Define(DefinitionStatement),
}

/// The answer to a write or to a definition of a table.
#[derive(Debug, Clone)]
pub struct WriteAnswer {
    pub tx: TxId,
    pub system_time: SystemTime,
    /// Reads the write's own effects, with now = its system time.
    pub basis: String,
    /// The rows written, each key once a statement.
    pub rows: u64,
    /// The same of each statement; empty for a definition and where nothing was written.
    pub statement_rows: Vec<u64>,
    /// What RETURNING asked for.
    pub returning: Option<Vec<RecordBatch>>,
}

/// Runs statements against a store.
pub struct Engine(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) store: Store,
    options: EngineOptions,
    pub(crate) runtime: Arc<RuntimeEnv>,
    /// What the runtime has on disk.
    room: Option<Arc<Room>>,
    pub(crate) system_tables: SystemTables,
    pub(crate) catalogs: Catalogs,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("options", &self.0.options).finish_non_exhaustive()
    }
}

impl Engine {
    /// Builds an engine over a store.
    pub fn new(store: Store, options: EngineOptions) -> Arc<Self> {
        let room = options.spilling.clone().map(Room::new);
        let runtime = runtime(options.memory_bytes_max, room.clone()).unwrap_or_else(|error| {
            tracing::error!(%error, "statements run without a memory budget");
            Arc::new(RuntimeEnv::default())
        });
        let system_tables = SystemTables::of(&store);
        Arc::new(Self(Arc::new(Inner {
            store,
            options,
            runtime,
            room,
            system_tables,
            catalogs: Catalogs::default(),
        })))
    }

    /// Adds a table under `everwhen.`.
    pub fn add_system_table(&self, table: Arc<dyn SystemTable>) {
        self.0.system_tables.add(table);
    }

    /// True for a request that is short by its form, whatever is stored: a row looked up by its whole
    /// key at an instant, or literal rows written. Such a one can run apart from all others.
    pub fn is_short(&self, request: &Request) -> bool {
        let (definitions, limits) = (self.0.store.definitions(), &self.0.options.parse);
        let is_one = request.then.is_empty() && request.page.is_none();
        // A view may stand under a table's name.
        let is_stored = request.temporary_views.as_ref().is_none_or(TemporaryViews::is_empty);
        is_one && is_stored && short::is_short(&request.sql, &definitions, limits)
    }

    /// Runs a request. Planning and running happen in a task of their own, so that neither a panic
    /// nor a caller that goes away leaves anything behind.
    ///
    /// # Errors
    /// Whatever the statement deserves; 57014 past its time limit.
    pub async fn execute(&self, request: Request) -> Result<Outcome> {
        let inner = Arc::clone(&self.0);
        let limit = request.timeout.unwrap_or(inner.options.timeout);
        // The same request can be run again.
        let request = Request { interrupt: request.interrupt.inner(), ..request };
        let guard = request.interrupt.on_drop();
        Ok(match in_task(limit, async move { inner.run(request).await }).await? {
            Outcome::Rows(rows) => Outcome::Rows(rows.held_by(guard)),
            other => other,
        })
    }

    /// Tells what a statement takes and answers, without running it. Types in
    /// [`Params::Typed`] are taken as declared; the values are not looked at.
    ///
    /// # Errors
    /// Whatever is wrong with the statement at the request's basis; 42601 for several statements.
    pub async fn describe(&self, request: Request) -> Result<Described> {
        let inner = Arc::clone(&self.0);
        let limit = request.timeout.unwrap_or(inner.options.timeout);
        in_task(limit, async move {
            let positions = Positions::new(&request.sql);
            let mut statements = parse(&request.sql, &inner.options.parse)?;
            let statement = match (statements.pop(), statements.pop()) {
                (Some(statement), None) => statement,
                (None, _) => return Err(Error::syntax("the request holds no statement")),
                _ => return Err(Error::syntax("only one statement can be described at a time")),
            };
            let described = describe(&inner, &request, statement).await;
            described.map_err(|error| diagnose(error, &positions))
        })
        .await
    }

    /// Puts the rows of batches of one schema into a table, as one transaction: as an INSERT of
    /// them would. A table that does not exist appears, keyed by `_id`.
    ///
    /// # Errors
    /// Whatever such an INSERT would be refused with; nothing is written then.
    pub async fn append(
        &self,
        tenant: Tenant,
        table: String,
        batches: Vec<RecordBatch>,
    ) -> Result<WriteAnswer> {
        let inner = Arc::clone(&self.0);
        let task = SpawnedTask::spawn(async move {
            inner.writing(&tenant, Interrupt::default()).append(&table, &batches).await
        });
        let done = task.join().await;
        done.unwrap_or_else(|_| Err(Error::internal("the rows failed in an unforeseen way")))
    }

    /// Returns the bytes of memory and of disk that running statements hold.
    pub fn held_bytes(&self) -> (usize, u64) {
        let room = self.0.room.as_ref();
        (self.0.runtime.memory_pool.reserved(), room.map_or(0, |room| room.used_bytes()))
    }

    /// Returns the names, after `everwhen.`, and columns of the system tables.
    pub fn system_tables(&self) -> Vec<(String, SchemaRef)> {
        self.0.system_tables.list()
    }

    /// Runs a query of the catalogs that Postgres keeps of itself.
    ///
    /// # Errors
    /// Whatever the query deserves; 0A000 for another statement, 57014 past its time limit.
    pub async fn catalog(&self, request: Request, names: Names) -> Result<RowsAnswer> {
        let inner = Arc::clone(&self.0);
        let limit = request.timeout.unwrap_or(inner.options.timeout);
        let request = Request { interrupt: request.interrupt.inner(), ..request };
        let guard = request.interrupt.on_drop();
        let run = async move { catalog::run(&inner, &request, &names).await };
        Ok(in_task(limit, run).await?.held_by(guard))
    }

    /// Returns the physical plan of a query as text, as EXPLAIN shows it.
    ///
    /// # Errors
    /// Whatever planning the query reports.
    pub async fn explain(&self, request: Request) -> Result<String> {
        let mut statements = parse(&request.sql, &self.0.options.parse)?;
        let Some(ParsedStatement::Query(mut query)) = statements.pop() else {
            return Err(Error::unsupported("only queries have a plan"));
        };
        request.params.bind_query(&mut query)?;
        let (planned, _) = self.0.plan(&request, &query).await?;
        let physical = planned.state.create_physical_plan(&planned.plan).await?;
        Ok(crate::answer::plan_text(physical.as_ref()))
    }
}

/// Runs work in a task of its own, within a time limit.
async fn in_task<T: Send + 'static>(
    limit: Duration,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match tokio::time::timeout(limit, SpawnedTask::spawn(work).join()).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(Error::internal("the statement failed in an unforeseen way")),
        Err(_) => {
            let message = "the statement ran past its time limit";
            Err(Error::new(SqlState::QueryCanceled, message))
        }
    }
}

impl Inner {
    async fn run(&self, request: Request) -> Result<Outcome> {
        let positions = Positions::new(&request.sql);
        let run = async {
            let mut statements = self.bound(&request.sql, &request.params)?;
            for (sql, params) in &request.then {
                let more = self.bound(sql, params);
                statements.extend(more.map_err(|error| diagnose(error, &Positions::new(sql)))?);
            }
            match transaction::of(statements)? {
                Work::Writes { writes, system_time } => {
                    let import_time = request.import_time.or(system_time);
                    let request = Request { import_time, ..request.clone() };
                    self.write(&request, writes).await
                }
                Work::One(statement) => self.run_one(&request, *statement).await,
            }
        };
        run.await.map_err(|error: Error| diagnose(error, &positions))
    }

    /// Parses a text of statements and binds its parameters.
    fn bound(&self, sql: &str, params: &Params) -> Result<Vec<ParsedStatement>> {
        let mut statements = parse(sql, &self.options.parse)?;
        for statement in &mut statements {
            params.bind_statement(statement)?;
        }
        Ok(statements)
    }

    async fn run_one(&self, request: &Request, statement: ParsedStatement) -> Result<Outcome> {
        match statement {
            ParsedStatement::Query(query) => self.query(request, &query).await,
            ParsedStatement::Explain { analyze, verbose, query } => {
                let (Planned { state, plan }, basis) = self.plan(request, &query).await?;
                let positions = query.clauses.positions();
                let plan = LogicalPlanBuilder::from(plan)
                    .explain(verbose, analyze)
                    .and_then(LogicalPlanBuilder::build)
                    .diagnosed(positions)?;
                let planned = Planned { state, plan };
                let rows = start(planned, positions.clone(), self.token(basis)).await?;
                Ok(Outcome::Rows(unmarked(rows)))
            }
            ParsedStatement::Show(show) => self.show(request, show).await,
            ParsedStatement::Define(definition) => {
                refuse_reading_options(request)?;
                Ok(Outcome::Define(definition))
            }
            ParsedStatement::CreateTable(create) => {
                refuse_reading_options(request)?;
                write::create_table(&self.store, &create).await.map(Outcome::Written)
            }
            ParsedStatement::DropTable(drop) => {
                refuse_reading_options(request)?;
                write::drop_table(&self.store, &drop).await.map(Outcome::Written)
            }
            ParsedStatement::CreateView(create) if create.temporary => {
                refuse_reading_options(request)?;
                write::create_temporary_view(
                    &self.store,
                    &self.system_tables,
                    request.temporary_views.as_ref(),
                    &create,
                )
                .await
                .map(Outcome::Written)
            }
            ParsedStatement::CreateView(create) => {
                refuse_reading_options(request)?;
                write::create_view(&self.store, &self.system_tables, &create)
                    .await
                    .map(Outcome::Written)
            }
            ParsedStatement::DropView(drop) => {
                refuse_reading_options(request)?;
                let views = request.temporary_views.as_ref();
                write::drop_view(&self.store, views, &drop).await.map(Outcome::Written)
            }
            ParsedStatement::SetRetention(set) => {
                refuse_reading_options(request)?;
                write::set_retention(&self.store, &set).await.map(Outcome::Written)
            }
            _ => Err(Error::internal("a statement was taken for another kind")),
        }
    }

    async fn query(&self, request: &Request, query: &ParsedQuery) -> Result<Outcome> {
        if let Some(rows) = self.key_read(request, query).await? {
            return Ok(Outcome::Rows(rows));
        }
        let (Planned { state, plan }, basis) = self.plan(request, query).await?;
        let positions = query.clauses.positions().clone();
        let plan = match request.limit.and_then(|limit| usize::try_from(limit).ok()) {
            None => plan,
            Some(limit) => LogicalPlanBuilder::from(plan)
                .limit(0, Some(limit))
                .and_then(LogicalPlanBuilder::build)
                .diagnosed(&positions)?,
        };
        let plan = match request.page {
            None => plan,
            Some(page) => page::cut(plan, page)?,
        };
        let rows = start(Planned { state, plan }, positions, self.token(basis)).await?;
        Ok(Outcome::Rows(rows))
    }

    /// Plans a query at the request's basis.
    pub(crate) async fn plan(
        &self,
        request: &Request,
        query: &ParsedQuery,
    ) -> Result<(Planned, Basis)> {
        if catalog::is_asked(&query.query) {
            if let Some(clause) = query.clauses.list.first() {
                return Err(Error::unsupported("the catalogs have no versions").at(clause.position));
            }
            self.check_tenant(&request.tenant)?;
            let names = Names { database: request.tenant.to_string(), user: "everwhen".to_owned() };
            return catalog::plan(self, request, &query.query.to_string(), &names).await;
        }
        let basis = self.basis_of_query(request, &query.clauses.settings).await?;
        let (ctx, definitions) = self.seen_at(request, basis)?;
        Ok((self.reading(request, &ctx, &definitions).plan(query).await?, basis))
    }

    /// Reads one key without a plan, where a request asks for no more.
    async fn key_read(&self, request: &Request, query: &ParsedQuery) -> Result<Option<RowsAnswer>> {
        let is_whole = request.limit.is_none() && request.page.is_none();
        if !is_whole || !may_read_one_key(&query.query) || catalog::is_asked(&query.query) {
            return Ok(None);
        }
        let basis = self.basis_of_query(request, &query.clauses.settings).await?;
        let (ctx, definitions) = self.seen_at(request, basis)?;
        let read = self.reading(request, &ctx, &definitions).key_read(query)?;
        read.map(|read| read.start(ctx, self.token(basis))).transpose()
    }

    /// Returns what a request's queries read in at a basis: their context and the definitions.
    fn seen_at(
        &self,
        request: &Request,
        basis: Basis,
    ) -> Result<(StatementContext, Arc<Definitions>)> {
        self.check_tenant(&request.tenant)?;
        let interrupt = request.interrupt.clone();
        let ctx = self.context(basis, &request.tenant).with_interrupt(interrupt);
        Ok((ctx, request.seen(&self.store.definitions_at(basis.tx))))
    }

    fn reading<'a>(
        &'a self,
        request: &Request,
        ctx: &'a StatementContext,
        definitions: &'a Definitions,
    ) -> Reading<'a> {
        Reading {
            ctx,
            definitions,
            defaults: Defaults { valid_time: request.valid_time, system_time: request.system_time },
            system_tables: &self.system_tables,
        }
    }

    /// Returns what a query is read at: its own SETTING comes before the request.
    async fn basis_of_query(&self, request: &Request, settings: &Settings) -> Result<Basis> {
        let basis = match &settings.snapshot_token {
            Some(token) => self.basis_at(token).await?,
            None => self.basis_of(request).await?,
        };
        let Some(clock_time) = &settings.clock_time else { return Ok(basis) };
        let ctx = self.context(basis, &request.tenant);
        let now = Constants::at(&ctx).instant(clock_time)?.ok_or_else(|| {
            Error::new(SqlState::NullNotAllowed, "CLOCK_TIME is an instant, not NULL")
                .at(clock_time.position)
        })?;
        Ok(Basis { now, ..basis })
    }

    pub(crate) async fn basis_of(&self, request: &Request) -> Result<Basis> {
        match &request.basis {
            Some(token) => self.basis_at(token).await,
            None => Ok(self.store.latest()),
        }
    }

    async fn basis_at(&self, token: &str) -> Result<Basis> {
        let basis = parse_basis(&self.store, token)?;
        reach(&self.store, basis).await?;
        Ok(basis)
    }

    /// A tenant is made by its first write; the default one is always there.
    pub(crate) fn check_tenant(&self, tenant: &Tenant) -> Result<()> {
        if *tenant == Tenant::default() || self.store.tenants().contains(tenant) {
            return Ok(());
        }
        let message = format!("tenant \"{tenant}\" does not exist");
        Err(Error::new(SqlState::UnknownTenant, message))
    }

    pub(crate) fn context(&self, basis: Basis, tenant: &Tenant) -> StatementContext {
        StatementContext::new(self.store.clone(), basis, tenant.clone())
            .with_runtime(Arc::clone(&self.runtime))
    }

    fn token(&self, basis: Basis) -> String {
        basis_token(&self.store, basis)
    }

    async fn show(&self, request: &Request, show: Show) -> Result<Outcome> {
        let basis = self.basis_of(request).await?;
        let definitions = self.store.definitions_at(basis.tx);
        let named = |kind| definitions.all(kind).map(|one| one.name.clone()).collect();
        use everwhen_storage::DefinitionKind as Kind;
        let values: Vec<String> = match show {
            Show::SnapshotToken => vec![self.token(basis)],
            Show::ClockTime => vec![basis.now.to_string()],
            Show::Tables => definitions.tables.keys().cloned().collect(),
            Show::Streams => named(Kind::Stream),
            Show::Mappings => named(Kind::Mapping),
            Show::Projections => named(Kind::Projection),
            Show::Views => named(Kind::View),
            Show::Indexes => named(Kind::Index),
        };
        let column: ArrayRef = Arc::new(StringArray::from(values));
        let batch = RecordBatch::try_from_iter([(show.column(), column)])?;
        at_hand(&batch, self.token(basis)).map(Outcome::Rows)
    }

    fn writing<'a>(&'a self, tenant: &'a Tenant, interrupt: Interrupt) -> Writing<'a> {
        Writing {
            temporary: TemporaryViews::default(),
            store: &self.store,
            runtime: &self.runtime,
            tenant,
            system_tables: &self.system_tables,
            import_time: None,
            interrupt,
        }
    }

    async fn write(&self, request: &Request, statements: Vec<ParsedStatement>) -> Result<Outcome> {
        refuse_reading_options(request)?;
        let writing = self.writing(&request.tenant, request.interrupt.clone());
        let temporary = request.temporary_views.clone().unwrap_or_default();
        let writing = Writing { import_time: request.import_time, temporary, ..writing };
        writing.run(statements).await.map(Outcome::Written)
    }
}

/// A request that writes is done at the writer's own basis.
fn refuse_reading_options(request: &Request) -> Result<()> {
    let given = [
        ("valid_time", request.valid_time.is_some()),
        ("system_time", request.system_time.is_some()),
        ("basis", request.basis.is_some()),
        ("page_size", request.page.is_some()),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((name, _)) => {
            let message = format!("a request that writes takes no {name}");
            Err(Error::unsupported(message).with_hint(
                "name the period in the statement: _valid_from and _valid_to, or FOR PORTION OF",
            ))
        }
    }
}
