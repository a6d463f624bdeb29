//! From the logical node to the operator; a session's planner knows it by this.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::Column;
use datafusion::error::Result;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};

use super::exec::{Aggregation, PeriodAggregateExec};
use super::node::PeriodAggregate;

/// DataFusion's planner, and beyond it the operators of ours that have a logical node.
#[derive(Debug)]
pub struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(PeriodAggregates)])
            .create_physical_plan(plan, session)
            .await
    }
}

struct PeriodAggregates;

#[async_trait]
impl ExtensionPlanner for PeriodAggregates {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        _session: &dyn Session,
        _planning_ctx: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<PeriodAggregate>() else { return Ok(None) };
        let ([logical], [input]) = (logical_inputs, physical_inputs) else { return Ok(None) };
        let place = |column: &Column| logical.schema().index_of_column(column);
        let places = |columns: &[Column]| columns.iter().map(place).collect::<Result<Vec<_>>>();
        let aggregation = Aggregation {
            keys: places(&node.keys)?,
            from: place(&node.from)?,
            to: place(&node.to)?,
            arguments: places(&node.arguments)?,
            calls: node.calls.clone(),
            period_at: node.period_at,
            period: node.period.clone(),
            schema: Arc::new(node.schema.as_arrow().clone()),
        };
        Ok(Some(Arc::new(PeriodAggregateExec::new(aggregation, Arc::clone(input)))))
    }
}
