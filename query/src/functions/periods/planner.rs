//! Operators between periods: `*` and those that Postgres has for ranges.

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, ScalarUDF};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::is_period;
use super::parts::intersection;
use super::relations::{Relation, function};

/// Turns operators whose operands are periods into calls.
#[derive(Debug)]
pub(super) struct PeriodOperators;

impl ExprPlanner for PeriodOperators {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> DataFusionResult<PlannerResult<RawBinaryExpr>> {
        let Some((function, is_swapped)) = called(&expr.op) else {
            return Ok(PlannerResult::Original(expr));
        };
        let whole = |side: &Expr| side.get_type(schema).is_ok_and(|kind| is_period(&kind));
        // An instant may stand within a period.
        let is_ours = match (expr.op == BinaryOperator::Multiply, is_swapped) {
            (true, _) => whole(&expr.left) && whole(&expr.right),
            (false, false) => whole(&expr.left),
            (false, true) => whole(&expr.right),
        };
        if !is_ours {
            return Ok(PlannerResult::Original(expr));
        }
        let RawBinaryExpr { left, right, .. } = expr;
        let args = if is_swapped { vec![right, left] } else { vec![left, right] };
        let call = ScalarFunction::new_udf(Arc::new(function), args);
        Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
    }
}

/// Returns the function of an operator, and whether its operands change places.
fn called(op: &BinaryOperator) -> Option<(ScalarUDF, bool)> {
    Some(match op {
        BinaryOperator::Multiply => (intersection(), false),
        BinaryOperator::PGOverlap => (function(Relation::Overlaps), false),
        BinaryOperator::AtArrow => (function(Relation::Contains), false),
        BinaryOperator::ArrowAt => (function(Relation::Contains), true),
        BinaryOperator::PGBitwiseShiftLeft => (function(Relation::Precedes), false),
        BinaryOperator::PGBitwiseShiftRight => (function(Relation::Succeeds), false),
        _ => return None,
    })
}
