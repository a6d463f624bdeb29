//! Puts [`PeriodJoinExec`] in the place of joins whose condition is one over periods.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{JoinSide, JoinType, NullEquality};
use datafusion::error::Result as DataFusionResult;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use super::condition::Overlap;
use super::{Joined, PeriodJoinExec};

/// The rule. It comes last: the operator keeps no order that earlier rules could rest on, so joins
/// that have one stay as they are.
#[derive(Debug)]
pub struct PeriodJoins;

impl PhysicalOptimizerRule for PeriodJoins {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let replaced = plan.transform_up(|node| {
            Ok(match period_join(&node)? {
                Some(join) => Transformed::yes(Arc::new(join) as Arc<dyn ExecutionPlan>),
                None => Transformed::no(node),
            })
        })?;
        Ok(replaced.data)
    }

    fn name(&self) -> &str {
        "period_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn period_join(node: &Arc<dyn ExecutionPlan>) -> DataFusionResult<Option<PeriodJoinExec>> {
    if node.properties().output_ordering().is_some() {
        return Ok(None);
    }
    let joined = if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        let plain =
            join.null_equality() == NullEquality::NullEqualsNothing && join.fetch().is_none();
        join.filter().filter(|_| plain).map(|filter| Joined {
            left: Arc::clone(join.left()),
            right: Arc::clone(join.right()),
            on: join.on().to_vec(),
            filter: filter.clone(),
            join_type: *join.join_type(),
            projection: join.projection.as_deref().map(<[usize]>::to_vec),
        })
    } else if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        join.filter().map(|filter| Joined {
            left: Arc::clone(join.left()),
            right: Arc::clone(join.right()),
            on: Vec::new(),
            filter: filter.clone(),
            join_type: *join.join_type(),
            projection: join.projection().as_deref().map(<[usize]>::to_vec),
        })
    } else {
        None
    };
    let Some(mut joined) = joined else { return Ok(None) };
    let (left, right) = (joined.left.schema(), joined.right.schema());
    let Some(overlap) = Overlap::of(&joined.filter, &left, &right)? else { return Ok(None) };
    let indexed = match joined.join_type {
        // Versions are indexed rather than the instants that look for them.
        JoinType::Inner if overlap.left.is_instant() => JoinSide::Right,
        JoinType::Inner | JoinType::Right => JoinSide::Left,
        JoinType::Left => JoinSide::Right,
        _ => return Ok(None),
    };
    joined.left = in_one_partition(joined.left);
    joined.right = in_one_partition(joined.right);
    PeriodJoinExec::new(joined, overlap, indexed).map(Some)
}

/// Brings partitions together, such as those of UNION ALL: the rules that would come to it have been.
fn in_one_partition(input: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    match input.output_partitioning().partition_count() {
        1 => input,
        _ => Arc::new(CoalescePartitionsExec::new(input)),
    }
}
