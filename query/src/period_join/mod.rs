//! Joins over periods: as-of joins and joins of overlapping periods, with or without an equality of keys.
//!
//! One side is held in memory and indexed by key and period ([`index`]); each row of the other looks up the
//! rows whose period it meets. So a key with many versions costs a search per row rather than a look at
//! every version. [`rule`] puts the operator where a join's condition ([`condition`]) has the two
//! comparisons, however the query was written; where it has more, all of it is checked on what was found.

pub mod condition;
pub mod index;
mod rule;

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions,
    UInt32Array, UInt32Builder,
};
use arrow::compute::{cast, concat_batches, filter, take};
use arrow::datatypes::{DataType, Int64Type, UInt32Type};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{JoinSide, JoinType, internal_err};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::joins::utils::{JoinFilter, build_join_schema};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet,
};
use datafusion::physical_plan::projection::{
    EmbeddedProjection, ProjectionExec, try_embed_projection,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, Partitioning, PhysicalExpr,
    PlanProperties, SendableRecordBatchStream,
};
use futures::{Stream, StreamExt, TryStreamExt, stream};

use self::condition::{Bounds, Overlap};
use self::index::{Entry, Index, Last};
use crate::interrupt::Interrupt;

pub use rule::PeriodJoins;

type Expr = Arc<dyn PhysicalExpr>;

/// Pairs of rows that are looked at together.
const PAIRS: usize = 8_192;

/// A join as it was planned.
#[derive(Debug, Clone)]
pub struct Joined {
    pub left: Arc<dyn ExecutionPlan>,
    pub right: Arc<dyn ExecutionPlan>,
    pub on: Vec<(Expr, Expr)>,
    pub filter: JoinFilter,
    /// Inner, or the outer join that keeps the side which is not indexed.
    pub join_type: JoinType,
    /// Columns of both sides, left first, that are handed on.
    pub projection: Option<Vec<usize>>,
}

/// Joins two inputs on equalities and on periods that have an instant in common.
#[derive(Debug, Clone)]
pub struct PeriodJoinExec {
    joined: Joined,
    overlap: Overlap,
    /// The side that is held in memory.
    indexed: JoinSide,
    interrupt: Interrupt,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl PeriodJoinExec {
    /// Builds the operator.
    ///
    /// # Errors
    /// Where the columns that are handed on are none of the inputs'.
    pub fn new(joined: Joined, overlap: Overlap, indexed: JoinSide) -> DataFusionResult<Self> {
        let (schema, _) =
            build_join_schema(&joined.left.schema(), &joined.right.schema(), &joined.join_type);
        let schema = match &joined.projection {
            Some(places) => schema.project(places)?,
            None => schema,
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::new(schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let metrics = ExecutionPlanMetricsSet::new();
        let (properties, interrupt) = (Arc::new(properties), Interrupt::default());
        Ok(Self { joined, overlap, indexed, interrupt, properties, metrics })
    }

    /// Lets the work be stopped from outside.
    #[must_use]
    pub fn with_interrupt(&self, interrupt: Interrupt) -> Self {
        Self { interrupt, ..self.clone() }
    }

    /// Returns the same join of other inputs.
    fn over(
        &self,
        inputs: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let Ok([left, right]) = <[Arc<dyn ExecutionPlan>; 2]>::try_from(inputs) else {
            return internal_err!("a join has two inputs");
        };
        let joined = Joined { left, right, ..self.joined.clone() };
        let join = Self::new(joined, self.overlap.clone(), self.indexed)?;
        Ok(Arc::new(join.with_interrupt(self.interrupt.clone())))
    }

    /// Returns what is known of the side that is indexed, and of the other.
    fn sides(&self) -> (Side<'_>, Side<'_>) {
        let Joined { left, right, on, .. } = &self.joined;
        let left = Side {
            plan: left,
            keys: on.iter().map(|(key, _)| Arc::clone(key)).collect(),
            bounds: &self.overlap.left,
        };
        let right = Side {
            plan: right,
            keys: on.iter().map(|(_, key)| Arc::clone(key)).collect(),
            bounds: &self.overlap.right,
        };
        if self.indexed == JoinSide::Left { (left, right) } else { (right, left) }
    }

    /// Reads the side that is indexed.
    async fn build(&self, context: Arc<TaskContext>) -> DataFusionResult<Held> {
        let (side, _) = self.sides();
        let reservation = MemoryConsumer::new("PeriodJoinExec").register(context.memory_pool());
        let schema = side.plan.schema();
        let mut rows = side.plan.execute(0, context)?;
        let mut batches = Vec::new();
        while let Some(batch) = rows.try_next().await? {
            reservation.try_grow(batch.get_array_memory_size())?;
            batches.push(batch);
        }
        let rows = concat_batches(&schema, &batches)?;
        drop(batches);
        let (from, to) = side.bounds_of(&rows)?;
        let mut entries = Vec::with_capacity(rows.num_rows());
        for (row, number) in (0..rows.num_rows()).zip(0_u32..) {
            if from.is_valid(row) && to.is_valid(row) {
                entries.push(Entry { from: from.value(row), to: to.value(row), row: number });
            }
        }
        let index = Index::build(&side.keys_of(&rows)?, entries)?;
        reservation.try_grow(index.bytes())?;
        Ok(Held { rows, index, _reservation: reservation })
    }
}

/// One side of the join.
struct Side<'a> {
    plan: &'a Arc<dyn ExecutionPlan>,
    keys: Vec<Expr>,
    bounds: &'a Bounds,
}

impl Side<'_> {
    fn keys_of(&self, rows: &RecordBatch) -> DataFusionResult<Vec<ArrayRef>> {
        self.keys.iter().map(|key| key.evaluate(rows)?.into_array(rows.num_rows())).collect()
    }

    fn bounds_of(&self, rows: &RecordBatch) -> DataFusionResult<(Int64Array, Int64Array)> {
        let numbers = |expr: &Expr| -> DataFusionResult<Int64Array> {
            let bound = expr.evaluate(rows)?.into_array(rows.num_rows())?;
            let numbers = cast(&bound, &DataType::Int64)?;
            Ok(numbers.as_primitive::<Int64Type>().clone())
        };
        Ok((numbers(&self.bounds.from)?, numbers(&self.bounds.to)?))
    }
}

/// The indexed side, in memory.
struct Held {
    rows: RecordBatch,
    index: Index,
    _reservation: MemoryReservation,
}

/// A side's rows, and the places that are taken of them.
type Taken<'a> = (&'a RecordBatch, &'a UInt32Array);

/// The join under way.
struct Probing {
    join: PeriodJoinExec,
    held: Held,
    input: SendableRecordBatchStream,
    current: Option<Current>,
    metrics: BaselineMetrics,
    pairs: Count,
}

/// A batch of the side that looks up, and how far it is.
struct Current {
    rows: RecordBatch,
    keys: Vec<ArrayRef>,
    lookup: Option<arrow::row::Rows>,
    from: Int64Array,
    to: Int64Array,
    next: usize,
    last: Last,
    /// Rows that found a partner, where those without one are kept.
    matched: Vec<bool>,
}

impl Probing {
    /// Reads the indexed side and begins with the other.
    async fn start(
        join: PeriodJoinExec,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> DataFusionResult<Self> {
        let held = join.build(Arc::clone(&context)).await?;
        let input = join.sides().1.plan.execute(0, context)?;
        let metrics = BaselineMetrics::new(&join.metrics, partition);
        let pairs = MetricBuilder::new(&join.metrics).counter("pairs", partition);
        Ok(Self { join, held, input, current: None, metrics, pairs })
    }

    /// Returns the joined rows.
    fn rows(self) -> impl Stream<Item = DataFusionResult<RecordBatch>> {
        stream::try_unfold(self, |mut probing| async {
            let batch = probing.next().await?;
            Ok(batch.map(|batch| {
                probing.metrics.record_output(batch.num_rows());
                (batch, probing)
            }))
        })
    }

    /// Returns the next batch of joined rows.
    async fn next(&mut self) -> DataFusionResult<Option<RecordBatch>> {
        loop {
            if self.current.is_none() {
                let Some(rows) = self.input.try_next().await? else { return Ok(None) };
                self.current = Some(self.begin(rows)?);
            }
            let Some(mut current) = self.current.take() else { continue };
            if current.next < current.rows.num_rows() {
                let joined = self.look_up(&mut current)?;
                self.current = Some(current);
                // An empty one is handed on too, so that others get their turn.
                return Ok(Some(joined));
            }
            if self.join.joined.join_type != JoinType::Inner {
                let alone = self.unmatched(&current)?;
                if alone.num_rows() > 0 {
                    return Ok(Some(alone));
                }
            }
        }
    }

    fn begin(&self, rows: RecordBatch) -> DataFusionResult<Current> {
        let (_, side) = self.join.sides();
        let keys = side.keys_of(&rows)?;
        let lookup = self.held.index.probe(&keys)?;
        let (from, to) = side.bounds_of(&rows)?;
        let matched = vec![false; rows.num_rows()];
        Ok(Current { rows, keys, lookup, from, to, next: 0, last: Last::default(), matched })
    }

    /// Looks up some rows of the current batch.
    fn look_up(&self, current: &mut Current) -> DataFusionResult<RecordBatch> {
        let _timer = self.metrics.elapsed_compute().timer();
        self.join.interrupt.check()?;
        let strict = self.join.overlap.strict(self.join.indexed);
        let (mut held, mut looking) = (Vec::new(), UInt32Builder::new());
        while current.next < current.rows.num_rows() && held.len() < PAIRS {
            let row = current.next;
            current.next += 1;
            if current.from.is_null(row) || current.to.is_null(row) {
                continue;
            }
            let before = held.len();
            let bounds = (current.from.value(row), current.to.value(row));
            let columns = (current.keys.as_slice(), current.lookup.as_ref());
            self.held.index.matching(columns, row, bounds, strict, &mut current.last, &mut held);
            let number = u32::try_from(row).unwrap_or(u32::MAX);
            looking.append_value_n(number, held.len() - before);
        }
        self.pairs.add(held.len());
        self.checked(current, UInt32Array::from(held), looking.finish())
    }

    /// Keeps the pairs that meet the whole condition, and joins their rows.
    fn checked(
        &self,
        current: &mut Current,
        mut held: UInt32Array,
        mut looking: UInt32Array,
    ) -> DataFusionResult<RecordBatch> {
        if !self.join.overlap.is_all {
            let meets = self.meeting(current, &held, &looking)?;
            if meets.true_count() < meets.len() {
                let kept = |rows: &UInt32Array| -> DataFusionResult<UInt32Array> {
                    Ok(filter(rows, &meets)?.as_primitive::<UInt32Type>().clone())
                };
                (held, looking) = (kept(&held)?, kept(&looking)?);
            }
        }
        if self.join.joined.join_type != JoinType::Inner {
            for row in looking.values() {
                current.matched[*row as usize] = true;
            }
        }
        self.joined(current, &held, &looking)
    }

    /// Returns the rows of both sides, left first, each with the places that are taken of it.
    fn left_and_right<'a>(
        &'a self,
        current: &'a Current,
        held: &'a UInt32Array,
        looking: &'a UInt32Array,
    ) -> [Taken<'a>; 2] {
        match self.join.indexed {
            JoinSide::Left => [(&self.held.rows, held), (&current.rows, looking)],
            _ => [(&current.rows, looking), (&self.held.rows, held)],
        }
    }

    /// Returns which pairs meet the whole condition.
    fn meeting(
        &self,
        current: &Current,
        held: &UInt32Array,
        looking: &UInt32Array,
    ) -> DataFusionResult<BooleanArray> {
        let [left, right] = self.left_and_right(current, held, looking);
        let filter = &self.join.joined.filter;
        let mut columns = Vec::with_capacity(filter.column_indices().len());
        for place in filter.column_indices() {
            let (rows, taken) = if place.side == JoinSide::Left { left } else { right };
            columns.push(take(rows.column(place.index), taken, None)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(held.len()));
        let between =
            RecordBatch::try_new_with_options(Arc::clone(filter.schema()), columns, &options)?;
        let meets = filter.expression().evaluate(&between)?.into_array(held.len())?;
        match meets.as_boolean_opt() {
            Some(meets) => Ok(whole(meets)),
            None => internal_err!("the condition of a join is no condition"),
        }
    }

    /// Returns the rows of the current batch that found no partner, with NULLs in its place.
    fn unmatched(&self, current: &Current) -> DataFusionResult<RecordBatch> {
        let alone = current.matched.iter().zip(0_u32..).filter(|(matched, _)| !**matched);
        let alone: UInt32Array = alone.map(|(_, row)| row).collect();
        let nothing: UInt32Array = std::iter::repeat_n(None, alone.len()).collect();
        self.joined(current, &nothing, &alone)
    }

    /// Returns the columns that are handed on, of the rows at these places of both sides.
    fn joined(
        &self,
        current: &Current,
        held: &UInt32Array,
        looking: &UInt32Array,
    ) -> DataFusionResult<RecordBatch> {
        let [left, right] = self.left_and_right(current, held, looking);
        let of_left = left.0.num_columns();
        let column = |at: usize| {
            let ((rows, taken), at) = if at < of_left { (left, at) } else { (right, at - of_left) };
            take(rows.column(at), taken, None)
        };
        let columns = match &self.join.joined.projection {
            Some(places) => places.iter().map(|at| column(*at)).collect::<Result<_, _>>()?,
            None => (0..of_left + right.0.num_columns()).map(column).collect::<Result<_, _>>()?,
        };
        let options = RecordBatchOptions::new().with_row_count(Some(looking.len()));
        Ok(RecordBatch::try_new_with_options(self.join.schema(), columns, &options)?)
    }
}

/// Returns a condition in which NULL is false.
fn whole(condition: &BooleanArray) -> BooleanArray {
    match condition.nulls() {
        None => condition.clone(),
        Some(nulls) => BooleanArray::new(condition.values() & nulls.inner(), None),
    }
}

impl DisplayAs for PeriodJoinExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on: Vec<_> =
            self.joined.on.iter().map(|(left, right)| format!("{left} = {right}")).collect();
        write!(f, "PeriodJoinExec: join_type={:?}", self.joined.join_type)?;
        write!(f, ", on=[{}]", on.join(", "))?;
        write!(f, ", filter={}", self.joined.filter.expression())?;
        write!(f, ", indexed={:?}", self.indexed)
    }
}

impl EmbeddedProjection for PeriodJoinExec {
    /// Hands on some of the columns that are handed on now.
    fn with_projection(&self, projection: Option<Vec<usize>>) -> DataFusionResult<Self> {
        let projection = match (&self.joined.projection, projection) {
            (Some(now), Some(places)) => Some(places.iter().map(|at| now[*at]).collect()),
            (now, places) => places.or_else(|| now.clone()),
        };
        let joined = Joined { projection, ..self.joined.clone() };
        let join = Self::new(joined, self.overlap.clone(), self.indexed)?;
        Ok(join.with_interrupt(self.interrupt.clone()))
    }
}

impl ExecutionPlan for PeriodJoinExec {
    fn name(&self) -> &str {
        "PeriodJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition; 2]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.joined.left, &self.joined.right]
    }

    fn apply_expressions(
        &self,
        each: &mut dyn FnMut(&Expr) -> DataFusionResult<TreeNodeRecursion>,
    ) -> DataFusionResult<TreeNodeRecursion> {
        let on = self.joined.on.iter().flat_map(|(left, right)| [left, right]);
        for expr in on.chain([self.joined.filter.expression()]) {
            if each(expr)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        self.over(children)
    }

    fn try_swapping_with_projection(
        &self,
        projection: &ProjectionExec,
    ) -> DataFusionResult<Option<Arc<dyn ExecutionPlan>>> {
        try_embed_projection(projection, self)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> DataFusionResult<SendableRecordBatchStream> {
        let join = self.clone();
        let schema = self.schema();
        let rows = stream::once(Probing::start(join, partition, context)).map_ok(Probing::rows);
        let rows = rows.try_flatten().boxed();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}
