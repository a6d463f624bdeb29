//! The operator: what it asks of its input, and how it shows itself.
//!
//! Its input is sorted by keys and by where periods begin, which DataFusion arranges: with a sort
//! that can spill, below it a repartition by keys where there are several partitions.

use std::fmt;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use datafusion::common::internal_err;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{
    EquivalenceProperties, LexRequirement, OrderingRequirements, PhysicalSortRequirement,
};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties,
    Partitioning, PhysicalExpr, PlanProperties, SendableRecordBatchStream,
};

use super::{Call, listed, stream};

type Expr = Arc<dyn PhysicalExpr>;

/// What is aggregated, by places in the input.
#[derive(Debug, Clone)]
pub struct Aggregation {
    pub keys: Vec<usize>,
    pub from: usize,
    pub to: usize,
    pub arguments: Vec<usize>,
    pub calls: Vec<Call>,
    /// Place of the interval among the keys in what is put out.
    pub period_at: usize,
    /// The period as the query has it.
    pub period: String,
    pub schema: SchemaRef,
}

/// Aggregates rows over the constant intervals of their groups.
#[derive(Debug, Clone)]
pub struct PeriodAggregateExec {
    aggregation: Arc<Aggregation>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl PeriodAggregateExec {
    /// Builds the operator over an input with its columns.
    pub fn new(aggregation: Aggregation, input: Arc<dyn ExecutionPlan>) -> Self {
        Self::over(Arc::new(aggregation), input)
    }

    fn over(aggregation: Arc<Aggregation>, input: Arc<dyn ExecutionPlan>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&aggregation.schema)),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        let metrics = ExecutionPlanMetricsSet::new();
        Self { aggregation, input, properties: Arc::new(properties), metrics }
    }

    fn column(&self, at: usize) -> Expr {
        Arc::new(Column::new(self.input.schema().field(at).name(), at))
    }

    fn columns(&self, places: &[usize]) -> Vec<Expr> {
        places.iter().map(|at| self.column(*at)).collect()
    }

    fn with_input(&self, inputs: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let Ok([input]) = <[Arc<dyn ExecutionPlan>; 1]>::try_from(inputs) else {
            return internal_err!("an aggregate has one input");
        };
        Ok(Arc::new(Self::over(Arc::clone(&self.aggregation), input)))
    }
}

impl DisplayAs for PeriodAggregateExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Aggregation { keys, period, calls, .. } = self.aggregation.as_ref();
        let (keys, calls) = (listed(&self.columns(keys)), listed(calls));
        write!(f, "PeriodAggregateExec: keys=[{keys}], period={period}, aggregates=[{calls}]")
    }
}

impl ExecutionPlan for PeriodAggregateExec {
    fn name(&self) -> &str {
        "PeriodAggregateExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        match self.aggregation.keys.as_slice() {
            [] => vec![Distribution::SinglePartition],
            keys => vec![Distribution::KeyPartitioned(self.columns(keys))],
        }
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        let options = Some(SortOptions { descending: false, nulls_first: true });
        let places = self.aggregation.keys.iter().chain([&self.aggregation.from]);
        let order = places.map(|at| PhysicalSortRequirement::new(self.column(*at), options));
        vec![LexRequirement::new(order).map(OrderingRequirements::new)]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _each: &mut dyn FnMut(&Expr) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        // It reads columns as they are.
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.with_input(children)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let running = stream::Running::new(
            Arc::clone(&self.aggregation),
            input,
            &self.metrics,
            partition,
            &context,
        )?;
        Ok(running.rows())
    }
}
