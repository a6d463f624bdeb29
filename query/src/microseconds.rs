//! Raw bounds are compared in microseconds, whatever the other side counts in.
//!
//! DataFusion compares two timestamps in the finer of their units; the open ends, the least and
//! the greatest microsecond, have no form in nanoseconds. So the other side is brought to
//! microseconds instead. Bounds are whole microseconds: rounding an instant down to one changes
//! no answer of `from <= x AND x < to`.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;

use crate::columns::timestamp_type;

/// Runs after DataFusion has made the types of comparisons equal.
#[derive(Debug)]
pub struct BoundsInMicroseconds;

impl AnalyzerRule for BoundsInMicroseconds {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|node| {
            node.map_expressions(|expr| expr.transform_up(|expr| Ok(comparison(expr))))
        })?;
        Ok(plan.data)
    }

    fn name(&self) -> &'static str {
        "bounds_in_microseconds"
    }
}

fn comparison(expr: Expr) -> Transformed<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else {
        return Transformed::no(expr);
    };
    let ordered = matches!(op, Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq);
    let (left, right, changed) = match (ordered, raw_bound(&left), raw_bound(&right)) {
        (true, Some(bound), None) => (bound, in_microseconds(*right), true),
        (true, None, Some(bound)) => (in_microseconds(*left), bound, true),
        (true, Some(left), Some(right)) => (left, right, true),
        _ => (*left, *right, false),
    };
    let expr = Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) });
    if changed { Transformed::yes(expr) } else { Transformed::no(expr) }
}

/// Returns the raw bound that was brought to nanoseconds.
fn raw_bound(expr: &Expr) -> Option<Expr> {
    let Expr::Cast(cast) = expr else { return None };
    let Expr::Column(column) = cast.expr.as_ref() else { return None };
    let raw = ["__valid_from", "__valid_to", "__system_from", "__system_to"];
    let nanoseconds =
        matches!(cast.field.data_type(), DataType::Timestamp(TimeUnit::Nanosecond, _));
    (nanoseconds && raw.contains(&column.name.as_str())).then(|| cast.expr.as_ref().clone())
}

fn in_microseconds(expr: Expr) -> Expr {
    Expr::Cast(Cast::new(Box::new(expr), timestamp_type()))
}
