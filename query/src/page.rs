//! A part of a query's rows, so ordered that the parts of one query at one basis make up the whole.

use arrow::datatypes::DataType;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Sort, SortExpr};

use crate::error::{Error, Result, SqlState};
use crate::rewrite::shown_name;

/// Which rows of a query are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Rows before the page.
    pub offset: u64,
    /// Rows of the page at most.
    pub rows: u64,
}

/// Cuts a page out of a query: its own order first, then every column, so that rows which tie are
/// equal and it does not matter which of them comes first.
///
/// # Errors
/// 0A000 for a column that has no order, 22023 for a page beyond what can be counted.
pub fn cut(plan: LogicalPlan, page: Page) -> Result<LogicalPlan> {
    let out_of_range = || Error::new(SqlState::InvalidParameter, "the page is out of range");
    let number = |rows: u64| usize::try_from(rows).map_err(|_| out_of_range());
    let (offset, rows) = (number(page.offset)?, number(page.rows)?);
    // The planner counts in int64.
    let end = page.offset.checked_add(page.rows).ok_or_else(out_of_range)?;
    i64::try_from(end).map_err(|_| out_of_range())?;
    let ordered = ordered(plan)?;
    Ok(LogicalPlanBuilder::from(ordered).limit(offset, Some(rows))?.build()?)
}

/// Returns a plan whose rows come in one order alone.
fn ordered(plan: LogicalPlan) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Sort(Sort { mut expr, input, fetch }) => {
            expr.extend(every_column(&input)?);
            Ok(LogicalPlan::Sort(Sort { expr, input, fetch }))
        }
        // The rows that a limit leaves depend on the order below it.
        LogicalPlan::Limit(ref limit) => over(&plan, ordered(limit.input.as_ref().clone())?),
        // ORDER BY of what is not selected: the sort stands under the projection.
        LogicalPlan::Projection(ref projection)
            if matches!(projection.input.as_ref(), LogicalPlan::Sort(_)) =>
        {
            over(&plan, ordered(projection.input.as_ref().clone())?)
        }
        other => {
            let by = every_column(&other)?;
            Ok(LogicalPlanBuilder::from(other).sort(by)?.build()?)
        }
    }
}

/// Returns the same operator over another input of the same columns.
fn over(plan: &LogicalPlan, input: LogicalPlan) -> Result<LogicalPlan> {
    Ok(plan.with_new_exprs(plan.expressions(), vec![input])?)
}

fn every_column(plan: &LogicalPlan) -> Result<Vec<SortExpr>> {
    let schema = plan.schema();
    schema
        .iter()
        .map(|(relation, field)| {
            if matches!(field.data_type(), DataType::Union(..) | DataType::Map(..)) {
                let message = format!(
                    "pages need an order, and column \"{}\" has none",
                    shown_name(field.name())
                );
                return Err(Error::unsupported(message).with_hint("cast it to text"));
            }
            Ok(Expr::from((relation, field)).sort(true, false))
        })
        .collect()
}
