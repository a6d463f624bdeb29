//! The only place that builds DataFusion sessions: functions, types, limits and the tables of one
//! statement. No session outlives its statement but those of the catalogs, and nothing is
//! registered anywhere else but the functions of these.

use std::fmt;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList,
    MemorySchemaProvider, SchemaProvider, TableProvider,
};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{
    FairSpillPool, GreedyMemoryPool, MemoryPool, TrackConsumersPool,
};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::sqlparser::ast;
use datafusion_pg_catalog::pg_catalog::context::PgCatalogContextProvider;
use datafusion_pg_catalog::pg_catalog::setup_pg_catalog;
use everwhen_storage::{Basis, ColumnType, Hold, Store, Tenant, TxId, View};

use crate::columns::{field_of, timestamp_type};
use crate::error::Result;
use crate::functions::periods::PeriodsInOrder;
use crate::functions::{
    self, BoundedConcatenation, CheckedArithmetic, FloatsInOrder, IntervalsByLength, UuidsOfOneForm,
};
use crate::in_order::InOrder;
use crate::interrupt::Interrupt;
use crate::microseconds::BoundsInMicroseconds;
use crate::overlay::Pending;
use crate::period_aggregate::{ConstantIntervals, Planner};
use crate::period_join::PeriodJoins;
use crate::spill::{Files, Room};

/// The catalog of every session.
const CATALOG: &str = "everwhen_catalog";
/// The schema that holds a statement's table references.
pub const REFERENCES: &str = "public";
/// The schema of the system tables.
pub const SYSTEM_SCHEMA: &str = "everwhen";

/// What every sort reserves, however small, so that it can merge what it puts on disk: little, as
/// statements with a sort are many and few of them spill.
const SORT_RESERVES_BYTES: usize = 1 << 20;
/// Rows of a batch between operators.
const BATCH_ROWS: usize = 8_192;
/// The largest consumers named in an error about memory.
const CONSUMERS_NAMED: usize = 3;

/// What a running statement reads from, at and for. Scans find it in the session's extensions.
#[derive(Clone)]
pub struct StatementContext {
    pub store: Store,
    pub basis: Basis,
    pub tenant: Tenant,
    pending: Pending,
    runtime: Arc<RuntimeEnv>,
    unerased: bool,
    /// Whether anybody still waits for the statement.
    pub(crate) interrupt: Interrupt,
    /// What the statement reads at is not swept while it runs.
    _hold: Arc<Hold>,
}

impl StatementContext {
    /// Builds a context without a memory budget.
    pub fn new(store: Store, basis: Basis, tenant: Tenant) -> Self {
        let (pending, runtime) = (Pending::default(), Arc::clone(&UNBOUNDED));
        let hold = Arc::new(store.hold(basis.tx));
        let interrupt = Interrupt::default();
        Self { store, basis, tenant, pending, runtime, unerased: false, interrupt, _hold: hold }
    }

    /// Shows what was erased as it was, until it is purged: see [`Store::read_unerased`].
    #[must_use]
    pub fn with_unerased(self) -> Self {
        Self { unerased: true, ..self }
    }

    /// Reads the store at a transaction, up to the basis'.
    pub(crate) fn read<T>(
        &self,
        tx: TxId,
        read: impl FnOnce(&View<'_>) -> everwhen_storage::Result<T>,
    ) -> everwhen_storage::Result<T> {
        if self.unerased { self.store.read_unerased(tx, read) } else { self.store.read(tx, read) }
    }

    /// Shares a runtime, and so its memory budget, with other statements.
    #[must_use]
    pub fn with_runtime(self, runtime: Arc<RuntimeEnv>) -> Self {
        Self { runtime, ..self }
    }

    /// Lets the statement's work be stopped from outside.
    #[must_use]
    pub(crate) fn with_interrupt(self, interrupt: Interrupt) -> Self {
        Self { interrupt, ..self }
    }

    /// Lets statements of a transaction see what earlier ones of it wrote.
    #[must_use]
    pub(crate) fn with_pending(self, pending: Pending) -> Self {
        Self { pending, ..self }
    }

    /// Returns what earlier statements of the same transaction wrote.
    pub(crate) const fn pending(&self) -> &Pending {
        &self.pending
    }
}

impl fmt::Debug for StatementContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:?}", self.tenant, self.basis)
    }
}

/// A table under the name that a statement's tree has for it.
pub type NamedTable = (String, Arc<dyn TableProvider>);

/// Builds the runtime that statements share: one memory budget, and room on disk for what sorts and
/// aggregates hold beyond it.
///
/// Where there is such room each of them gets an equal share of the memory that the others do not
/// need, so that none waits for one that could do without. Where there is none, whoever comes first.
///
/// # Errors
/// XX000 where the runtime cannot be built.
pub(crate) fn runtime(memory_bytes_max: usize, room: Option<Arc<Room>>) -> Result<Arc<RuntimeEnv>> {
    let named = std::num::NonZeroUsize::new(CONSUMERS_NAMED).unwrap_or(std::num::NonZeroUsize::MIN);
    let (pool, mode): (Arc<dyn MemoryPool>, _) = match room {
        Some(room) => {
            let pool = TrackConsumersPool::new(FairSpillPool::new(memory_bytes_max), named);
            (Arc::new(pool), DiskManagerMode::Custom(Arc::new(Files(room))))
        }
        None => {
            let pool = TrackConsumersPool::new(GreedyMemoryPool::new(memory_bytes_max), named);
            (Arc::new(pool), DiskManagerMode::Disabled)
        }
    };
    Ok(RuntimeEnvBuilder::new()
        .with_memory_pool(pool)
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(mode))
        .build_arc()?)
}

/// Builds a session without tables, for a statement or a planned query at a basis.
///
/// # Errors
/// XX000 where functions cannot be registered.
pub fn session_state(ctx: &StatementContext) -> Result<SessionState> {
    session_with(ctx, Vec::new(), Vec::new())
}

/// Builds the session of one statement: its table references and the system tables it names.
///
/// # Errors
/// XX000 where something cannot be registered.
pub fn session_with(
    ctx: &StatementContext,
    references: Vec<NamedTable>,
    system_tables: Vec<NamedTable>,
) -> Result<SessionState> {
    let base = BASE.clone();
    let config = base.config().clone().with_extension(Arc::new(ctx.clone()));
    let mut state = SessionStateBuilder::new_from_existing(base)
        .with_config(config)
        .with_runtime_env(Arc::clone(&ctx.runtime))
        .with_catalog_list(catalogs(references, system_tables)?)
        .build();
    functions::register_clock(&mut state, Some(ctx.basis.now))?;
    Ok(state)
}

/// Builds a session that plans without a basis: `now()` stays a call.
///
/// # Errors
/// XX000 where something cannot be registered.
pub fn planning_session(references: Vec<NamedTable>) -> Result<SessionState> {
    let base = BASE.clone();
    let mut state = SessionStateBuilder::new_from_existing(base)
        .with_catalog_list(catalogs(references, Vec::new())?)
        .build();
    functions::register_clock(&mut state, None)?;
    Ok(state)
}

/// Builds a session over tables that no store keeps, for measuring and testing operators: the
/// functions and rules of a statement's session, in so many partitions, within a runtime's memory.
///
/// # Errors
/// XX000 where something cannot be registered.
pub fn session_over(
    tables: Vec<NamedTable>,
    partitions: usize,
    runtime: Arc<RuntimeEnv>,
) -> Result<SessionContext> {
    let base = BASE.clone();
    let config = base.config().clone().with_target_partitions(partitions);
    let mut state = SessionStateBuilder::new_from_existing(base)
        .with_config(config)
        .with_runtime_env(runtime)
        .with_catalog_list(catalogs(tables, Vec::new())?)
        .build();
    functions::register_clock(&mut state, None)?;
    Ok(SessionContext::new_with_state(state))
}

fn catalogs(
    references: Vec<NamedTable>,
    system_tables: Vec<NamedTable>,
) -> Result<Arc<dyn CatalogProviderList>> {
    let catalog = MemoryCatalogProvider::new();
    for (name, tables) in [(REFERENCES, references), (SYSTEM_SCHEMA, system_tables)] {
        let schema = MemorySchemaProvider::new();
        for (name, table) in tables {
            schema.register_table(name, table)?;
        }
        catalog.register_schema(name, Arc::new(schema))?;
    }
    let list = MemoryCatalogProviderList::new();
    list.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
    Ok(Arc::new(list))
}

/// The runtime of statements that have no budget.
static UNBOUNDED: LazyLock<Arc<RuntimeEnv>> = LazyLock::new(Arc::default);

/// Everything that is the same in all sessions.
static BASE: LazyLock<SessionState> = LazyLock::new(base_state);

fn base_state() -> SessionState {
    // One partition: the order of rows is then the same in every run, and statements that touch
    // few rows, the usual ones, pay no exchange between threads.
    let mut config = SessionConfig::new()
        .with_target_partitions(1)
        .with_batch_size(BATCH_ROWS)
        .with_information_schema(false)
        .with_create_default_catalog_and_schema(false)
        .with_default_catalog_and_schema(CATALOG, REFERENCES);
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.execution.time_zone = Some("UTC".to_owned());
    options.execution.sort_spill_reservation_bytes = SORT_RESERVES_BYTES;
    let mut state = SessionStateBuilder::new_with_default_features()
        .with_config(config)
        .with_type_planner(Arc::new(Types))
        .with_analyzer_rule(Arc::new(BoundsInMicroseconds))
        .with_analyzer_rule(Arc::new(UuidsOfOneForm))
        .with_analyzer_rule(Arc::new(IntervalsByLength))
        .with_analyzer_rule(Arc::new(BoundedConcatenation))
        .with_analyzer_rule(Arc::new(CheckedArithmetic))
        .with_analyzer_rule(Arc::new(ConstantIntervals))
        .with_analyzer_rule(Arc::new(PeriodsInOrder))
        .with_analyzer_rule(Arc::new(FloatsInOrder))
        .with_query_planner(Arc::new(Planner))
        .with_physical_optimizer_rules(physical_rules())
        .build();
    if let Err(error) = functions::register(&mut state) {
        tracing::error!(%error, "functions are missing");
    }
    state
}

/// Returns DataFusion's rules for physical plans with ours where they belong: joins of periods once the
/// sides of joins are settled and before orders are, the order of partitions when all else is done.
fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    let settled = rules.iter().position(|rule| rule.name() == "join_selection");
    rules.insert(settled.map_or(0, |at| at + 1), Arc::new(PeriodJoins));
    rules.push(Arc::new(InOrder));
    rules
}

/// Builds a session for queries of Postgres' own catalogs over tables without rows: the only kind
/// that is kept, as object ids are given out in it.
///
/// # Errors
/// XX000 where something cannot be registered.
pub fn catalog_session(
    database: &str,
    tables: Vec<NamedTable>,
    system_tables: Vec<NamedTable>,
    runtime: Arc<RuntimeEnv>,
) -> Result<SessionContext> {
    let mut config = SessionConfig::new()
        .with_target_partitions(1)
        .with_information_schema(false)
        .with_create_default_catalog_and_schema(false)
        .with_default_catalog_and_schema(database, REFERENCES);
    config.options_mut().sql_parser.map_string_types_to_utf8view = false;
    let catalog = MemoryCatalogProvider::new();
    for (name, tables) in [(REFERENCES, tables), (SYSTEM_SCHEMA, system_tables)] {
        let schema = MemorySchemaProvider::new();
        for (name, table) in tables {
            schema.register_table(name, table)?;
        }
        catalog.register_schema(name, Arc::new(schema))?;
    }
    let session = SessionContext::new_with_config_rt(config, runtime);
    session.register_catalog(database, Arc::new(catalog));
    setup_pg_catalog(&session, database, NoRoles).map_err(|error| *error)?;
    Ok(session)
}

/// Nobody has to prove who they are, so there are no roles to show.
#[derive(Debug, Clone)]
struct NoRoles;

impl PgCatalogContextProvider for NoRoles {}

/// SQL type names that mean something else here than in DataFusion: microseconds and UTC, and
/// numbers of 64 bits whatever they are called, as in declarations.
#[derive(Debug)]
struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, sql: &ast::DataType) -> DataFusionResult<Option<FieldRef>> {
        let plain = |data_type| Some(Arc::new(Field::new("", data_type, true)));
        Ok(match sql {
            ast::DataType::Timestamp(..) | ast::DataType::Datetime(_) => plain(timestamp_type()),
            ast::DataType::Time(..) => plain(ColumnType::Time.data_type()),
            ast::DataType::JSON | ast::DataType::JSONB => {
                Some(Arc::new(field_of("", &ColumnType::Json)))
            }
            ast::DataType::Uuid => Some(Arc::new(field_of("", &ColumnType::Uuid))),
            ast::DataType::SmallInt(_)
            | ast::DataType::Int2(_)
            | ast::DataType::Int(_)
            | ast::DataType::Int4(_)
            | ast::DataType::Integer(_)
            | ast::DataType::Int32
            | ast::DataType::Int64 => plain(DataType::Int64),
            ast::DataType::Float(_)
            | ast::DataType::Float4
            | ast::DataType::Real
            | ast::DataType::Float32
            | ast::DataType::Float64 => plain(DataType::Float64),
            ast::DataType::Decimal(ast::ExactNumberInfo::None)
            | ast::DataType::Numeric(ast::ExactNumberInfo::None) => {
                plain(ColumnType::Decimal.data_type())
            }
            _ => None,
        })
    }
}
