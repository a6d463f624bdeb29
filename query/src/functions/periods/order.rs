//! `ORDER BY period`: by where it begins, then by where it ends; an open beginning comes before all
//! others, and an open end after all.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{ExprSchemable, LogicalPlan, SortExpr};
use datafusion::optimizer::AnalyzerRule;

use super::is_period;
use super::parts::{End, raw};

/// Sorts by the bounds of periods as they are compared: their open ends are NULL, which stands at
/// one end of every order.
#[derive(Debug)]
pub(crate) struct PeriodsInOrder;

impl AnalyzerRule for PeriodsInOrder {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|node| {
            let LogicalPlan::Sort(mut sort) = node else { return Ok(Transformed::no(node)) };
            let mut by = Vec::with_capacity(sort.expr.len());
            for one in &sort.expr {
                let SortExpr { expr, asc, nulls_first } = one;
                if is_period(&expr.get_type(sort.input.schema())?) {
                    let ends = [End::Lower, End::Upper];
                    by.extend(ends.map(|end| raw(end, expr).sort(*asc, *nulls_first)));
                } else {
                    by.push(one.clone());
                }
            }
            let changed = by.len() != sort.expr.len();
            sort.expr = by;
            let sort = LogicalPlan::Sort(sort);
            Ok(if changed { Transformed::yes(sort) } else { Transformed::no(sort) })
        })?;
        Ok(plan.data)
    }

    fn name(&self) -> &'static str {
        "periods_in_order"
    }
}
