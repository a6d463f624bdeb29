//! Whether a planned query runs at all, whatever the rows: asked before something rests on it.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::SchemaRef;
use datafusion::catalog::MemTable;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ScalarValue};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_plan::collect;
use datafusion::sql::sqlparser::tokenizer::Location;

use crate::diagnose::{Diagnose, shown};
use crate::dialect::Positions;
use crate::error::{Error, Result, SqlState};
use crate::functions;
use crate::plan::Continuous;
use crate::session::{StatementContext, session_state};
use crate::table::TemporalTable;

/// Shows that a query runs: plans its run over the store, and runs it over tables of no row and of
/// one whose columns are NULL. Reads nothing of the store. What only some values make fail, such as a
/// division by zero, is none of its business.
///
/// # Errors
/// 0A000 for a query that cannot run, with the expression and its place where they are known.
pub async fn prove(query: &Continuous, ctx: &StatementContext) -> Result<()> {
    let state = session_state(ctx)?;
    let plan = functions::pin(query.plan.clone(), ctx.basis.now)?;
    let planned = state.create_physical_plan(&plan).await.diagnosed(&query.positions);
    judged(planned.map(drop), query)?;
    for rows in [0, 1] {
        let plan = over_stand_ins(plan.clone(), rows)?;
        judged(run(&state, &plan, &query.positions).await, query)?;
    }
    Ok(())
}

async fn run(state: &SessionState, plan: &LogicalPlan, positions: &Positions) -> Result<()> {
    let physical = state.create_physical_plan(plan).await.diagnosed(positions)?;
    collect(physical, state.task_ctx()).await.diagnosed(positions)?;
    Ok(())
}

fn judged(done: Result<()>, query: &Continuous) -> Result<()> {
    match done {
        Err(error) if !error.is_of_values() => Err(refused(query, &error)),
        _ => Ok(()),
    }
}

fn refused(query: &Continuous, error: &Error) -> Error {
    if let Some((expr, column)) = correlated(&query.plan) {
        let message = format!(
            "a sub-query with \"{}\" depends on column \"{}\" of the outer query in a form that \
             cannot be kept up to date",
            shown(&expr.to_string()),
            shown(&column.name)
        );
        let columns = expr.column_refs();
        let mut spans = std::iter::once(&column).chain(columns).map(|column| column.spans.first());
        let start = spans.find_map(|span| span.map(|span| span.start));
        let place = start.and_then(|start| {
            query.positions.character(Location { line: start.line, column: start.column })
        });
        return Error::unsupported(message).at(place).with_hint(
            "relate the sub-query to the outer query by equality of columns, or join its table \
             and group the result",
        );
    }
    let hint = error.hint().unwrap_or("write it with other functions or types").to_owned();
    Error::new(SqlState::FeatureNotSupported, format!("a projection cannot run the query: {error}"))
        .at(error.position())
        .with_hint(hint)
}

/// Finds a condition or expression that reads a column of a query around it, and that column.
fn correlated(plan: &LogicalPlan) -> Option<(Expr, Column)> {
    let mut found = None;
    let walked = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            for part in split_conjunction(expr) {
                // A sub-query lists the columns that it reads bare.
                let is_bare = matches!(part, Expr::OuterReferenceColumn(..));
                if found.is_none() && !is_bare {
                    let column = outer_column(part)?;
                    found = column.map(|column| (part.clone(), column));
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })
    });
    walked.ok()?;
    let (expr, column) = found?;
    let plain = expr.transform_up(|part| {
        Ok(match part {
            Expr::OuterReferenceColumn(_, column) => Transformed::yes(Expr::Column(column)),
            other => Transformed::no(other),
        })
    });
    Some((plain.ok()?.data, column))
}

fn outer_column(expr: &Expr) -> DataFusionResult<Option<Column>> {
    let mut found = None;
    expr.apply(|part| {
        if let Expr::OuterReferenceColumn(_, column) = part {
            found = Some(column.clone());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Puts tables of so many rows in the place of the store's.
fn over_stand_ins(plan: LogicalPlan, rows: usize) -> Result<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(mut scan) = node else { return Ok(Transformed::no(node)) };
        if source_as_provider(&scan.source)?.is::<TemporalTable>() {
            let schema = scan.source.schema();
            let batch = unknown(&schema, rows)?;
            let table = MemTable::try_new(schema, vec![vec![batch]])?;
            scan.source = provider_as_source(Arc::new(table));
        }
        Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
    })?;
    Ok(plan.data)
}

/// Returns rows of NULLs, where a column allows it.
fn unknown(schema: &SchemaRef, rows: usize) -> DataFusionResult<RecordBatch> {
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        columns.push(match field.is_nullable() {
            true => new_null_array(field.data_type(), rows),
            false => ScalarValue::new_default(field.data_type())?.to_array_of_size(rows)?,
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}
