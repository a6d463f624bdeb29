//! From a parsed query to DataFusion's plan over temporal tables, at a basis.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::Column;
use datafusion::datasource::empty::EmptyTable;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, cast};
use datafusion::sql::parser::Statement as DataFusionStatement;
use datafusion::sql::sqlparser::ast::{Query, Statement};
use everwhen_storage::{ColumnType, Definitions, Period, SystemTime, ValidTime};

use crate::constants::{Constants, is_now};
use crate::diagnose::Diagnose;
use crate::dialect::{BoundExpr, ParsedQuery, Positions};
use crate::error::{Error, Result, SqlState};
use crate::rewrite::{BoundSpec, ExposedColumn, RewriteInput, Rewritten, TableRef, rewrite};
use crate::session::{NamedTable, StatementContext, session_with};
use crate::system_tables::SystemTables;
use crate::table::{SystemClause, TableColumn, TemporalTable, ValidClause};

/// What a request says about time where a query does not.
#[derive(Debug, Clone, Copy, Default)]
pub struct Defaults {
    pub valid_time: Option<ValidTime>,
    pub system_time: Option<SystemTime>,
}

/// What queries of one statement are planned with.
pub struct Reading<'a> {
    pub ctx: &'a StatementContext,
    pub definitions: &'a Definitions,
    pub defaults: Defaults,
    pub system_tables: &'a SystemTables,
}

/// A query ready to run.
pub struct Planned {
    pub state: SessionState,
    pub plan: LogicalPlan,
}

impl Reading<'_> {
    /// Plans a query whose parameters are bound.
    ///
    /// # Errors
    /// Whatever is wrong with the query, with its SQLSTATE and place.
    pub async fn plan(&self, parsed: &ParsedQuery) -> Result<Planned> {
        let Rewritten { query, tables, system_tables } = self.rewrite(parsed)?;
        let references = self.references(tables)?;
        let system_tables = self.system_rows(&system_tables).await?;
        let state = session_with(self.ctx, references, system_tables)?;
        let plan = plan_query(&state, query, parsed.clauses.positions()).await?;
        Ok(Planned { state, plan })
    }

    /// Returns the columns of a query, of which nothing is read.
    ///
    /// # Errors
    /// As [`Reading::plan`].
    pub async fn schema(&self, parsed: &ParsedQuery) -> Result<SchemaRef> {
        let Rewritten { query, tables, system_tables } = self.rewrite(parsed)?;
        let references = self.references(tables)?;
        let empty = |full: &String| -> Option<NamedTable> {
            let table = self.system_table(full)?;
            Some((table.name().to_owned(), Arc::new(EmptyTable::new(table.schema()))))
        };
        let system_tables = system_tables.iter().filter_map(empty).collect();
        let state = session_with(self.ctx, references, system_tables)?;
        let plan = plan_query(&state, query, parsed.clauses.positions()).await?;
        Ok(Arc::clone(plan.schema().inner()))
    }

    fn references(&self, tables: Vec<TableRef>) -> Result<Vec<NamedTable>> {
        let constants = Constants::at(self.ctx);
        let mut references: Vec<NamedTable> = Vec::with_capacity(tables.len());
        for table in tables {
            let name = table.unique_name.clone();
            let provider = temporal_table(&constants, table, self.defaults)?;
            references.push((name, Arc::new(provider)));
        }
        Ok(references)
    }

    pub(crate) fn rewrite(&self, parsed: &ParsedQuery) -> Result<Rewritten> {
        let is_system_table = |name: &str| self.system_table(name).is_some();
        let definitions = self.definitions;
        rewrite(parsed, &RewriteInput { definitions, is_system_table: &is_system_table })
    }

    fn system_table(&self, full: &str) -> Option<Arc<dyn crate::system_tables::SystemTable>> {
        self.system_tables.get(full.strip_prefix("everwhen.")?)
    }

    async fn system_rows(&self, names: &[String]) -> Result<Vec<NamedTable>> {
        let mut tables: Vec<NamedTable> = Vec::new();
        for full in names {
            let Some(table) = self.system_table(full) else {
                return Err(Error::unknown_table(full));
            };
            let name = table.name().to_owned();
            if tables.iter().any(|(known, _)| *known == name) {
                continue;
            }
            let tenant = self.ctx.tenant.clone();
            let read = tokio::task::spawn_blocking(move || {
                table.rows(&tenant).map(|rows| (table.schema(), rows))
            });
            let (schema, rows) =
                read.await.map_err(|_| Error::internal(format!("reading {full} failed")))??;
            let provider: Arc<dyn TableProvider> =
                Arc::new(MemTable::try_new(schema, vec![vec![rows]])?);
            tables.push((name, provider));
        }
        Ok(tables)
    }
}

/// Plans a rewritten query in a session that has its tables.
pub async fn plan_query(
    state: &SessionState,
    query: Box<Query>,
    positions: &Positions,
) -> Result<LogicalPlan> {
    let statement = DataFusionStatement::Statement(Box::new(Statement::Query(query)));
    let plan = state.statement_to_plan(statement).await.diagnosed(positions)?;
    rounded(plan).diagnosed(positions)
}

/// Rounds the decimals that a query puts out to the digits that columns have, those of tables and of
/// sinks: quotients, products and averages have more inside of it. Ties go away from zero.
fn rounded(plan: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    let stored = ColumnType::Decimal.data_type();
    let has_more = |kind: &DataType| match (kind, &stored) {
        (
            DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale),
            DataType::Decimal128(_, most),
        ) => scale > most,
        _ => false,
    };
    if !plan.schema().fields().iter().any(|field| has_more(field.data_type())) {
        return Ok(plan);
    }
    let columns = plan.schema().iter().map(|(qualifier, field)| {
        let column = Expr::Column(Column::from((qualifier, field)));
        match has_more(field.data_type()) {
            true => cast(column, stored.clone()).alias_qualified(qualifier.cloned(), field.name()),
            false => column,
        }
    });
    let columns = columns.collect();
    Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(plan))?))
}

/// Builds the table of a reference: its bounds come down to instants here.
///
/// # Errors
/// 22004, 22008, 22023, 42804 or 0A000 for the bounds.
pub fn temporal_table(
    constants: &Constants<'_>,
    table: TableRef,
    defaults: Defaults,
) -> Result<TemporalTable> {
    let mut cut = None;
    let valid = match &table.valid {
        BoundSpec::Default => defaults.valid_time.map_or(ValidClause::Now, ValidClause::AsOf),
        BoundSpec::AsOf(at) if is_now(&at.expr) => ValidClause::Now,
        BoundSpec::AsOf(at) => ValidClause::AsOf(at_instant(constants, at)?),
        BoundSpec::All | BoundSpec::Correlated => ValidClause::Overlapping(Period::ALL),
        BoundSpec::FromTo(from, to) | BoundSpec::Between(from, to) => {
            let (from, to) = window(constants, &table.valid, from, to)?;
            ValidClause::Overlapping(Period::new(from, to)?)
        }
        BoundSpec::Only(from, to) => {
            let (from, to) = window(constants, &table.valid, from, to)?;
            let period = Period::new(from, to)?;
            cut = Some(period);
            ValidClause::Overlapping(period)
        }
    };
    let system = match &table.system {
        BoundSpec::Default => defaults.system_time.map_or(SystemClause::Basis, SystemClause::AsOf),
        BoundSpec::AsOf(at) if is_now(&at.expr) => SystemClause::Basis,
        BoundSpec::AsOf(at) => {
            SystemClause::AsOf(SystemTime::from_micros(at_instant(constants, at)?.micros()))
        }
        BoundSpec::All | BoundSpec::Correlated => SystemClause::All,
        BoundSpec::FromTo(from, to) | BoundSpec::Between(from, to) | BoundSpec::Only(from, to) => {
            let (from, to) = window(constants, &table.system, from, to)?;
            SystemClause::Between(
                SystemTime::from_micros(from.micros()),
                SystemTime::from_micros(to.micros()),
            )
        }
    };
    let columns = table.columns.into_iter().map(column).collect();
    Ok(TemporalTable::new(table.def, valid, system, columns)?.cut_to(cut))
}

fn at_instant(constants: &Constants<'_>, at: &BoundExpr) -> Result<ValidTime> {
    constants.instant(at)?.ok_or_else(|| {
        Error::new(SqlState::NullNotAllowed, "AS OF NULL is no instant").at(at.position)
    })
}

/// Returns the half-open window of a clause.
fn window(
    constants: &Constants<'_>,
    spec: &BoundSpec,
    from: &BoundExpr,
    to: &BoundExpr,
) -> Result<(ValidTime, ValidTime)> {
    let start = constants.instant(from)?.unwrap_or(ValidTime::BEGIN);
    let end = constants.instant(to)?.unwrap_or(ValidTime::END);
    if let BoundSpec::Between(..) = spec {
        if start > end {
            let message = format!("the bounds of BETWEEN are inverted: {start} is after {end}");
            return Err(Error::new(SqlState::InvalidParameter, message).at(from.position));
        }
        return Ok((start, end.saturating_add(1)));
    }
    if start >= end {
        let message = format!("the period is empty: {start} is not before {end}");
        return Err(Error::new(SqlState::InvalidParameter, message).at(from.position));
    }
    Ok((start, end))
}

const fn column(exposed: ExposedColumn) -> TableColumn {
    match exposed {
        ExposedColumn::Stored(id) => TableColumn::Stored(id),
        ExposedColumn::ValidFrom => TableColumn::ValidFrom,
        ExposedColumn::ValidTo => TableColumn::ValidTo,
        ExposedColumn::SystemFrom => TableColumn::SystemFrom,
        ExposedColumn::SystemTo => TableColumn::SystemTo,
        ExposedColumn::Tx => TableColumn::Tx,
        ExposedColumn::ValidPeriod => TableColumn::ValidPeriod,
        ExposedColumn::SystemPeriod => TableColumn::SystemPeriod,
        ExposedColumn::RawValidFrom => TableColumn::RawFrom,
        ExposedColumn::RawValidTo => TableColumn::RawTo,
        ExposedColumn::RawSystemFrom => TableColumn::RawSystemFrom,
        ExposedColumn::RawSystemTo => TableColumn::RawSystemTo,
    }
}
