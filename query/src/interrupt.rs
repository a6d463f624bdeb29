//! Stopping work that nobody waits for any more, also where an operator computes for long between
//! two batches.
//!
//! DataFusion gives way to others where leaves hand over batches. A join can make thousands of batches
//! of one, or look at billions of pairs for none: so its output gives way too, and its condition is
//! checked against the statement's [`Interrupt`] every time that it is evaluated.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder,
};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};

use crate::error::{Error, SqlState};
use crate::functions::bounded_projection;
use crate::period_join::PeriodJoinExec;
use crate::session::StatementContext;

/// Whether a statement's work is still wanted.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    stopped: Arc<AtomicBool>,
    /// What stops it, too.
    outer: Option<Arc<Interrupt>>,
}

impl Interrupt {
    /// Returns one that stops with this one, but not the other way round.
    pub(crate) fn inner(&self) -> Self {
        Self { stopped: Arc::default(), outer: Some(Arc::new(self.clone())) }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
            || self.outer.as_ref().is_some_and(|outer| outer.is_stopped())
    }

    /// Returns a guard that stops the work when it is dropped.
    pub fn on_drop(&self) -> InterruptOnDrop {
        InterruptOnDrop(self.clone())
    }

    /// Fails once the work is not wanted any more.
    ///
    /// # Errors
    /// 57014.
    pub fn check(&self) -> Result<(), Error> {
        if self.is_stopped() {
            return Err(Error::new(SqlState::QueryCanceled, "the statement was cancelled"));
        }
        Ok(())
    }
}

/// Stops a statement's work when it goes.
#[derive(Debug)]
pub struct InterruptOnDrop(Interrupt);

impl Drop for InterruptOnDrop {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Relaxed);
    }
}

/// Makes a plan stop soon after its statement is interrupted.
///
/// # Errors
/// XX000 where an operator cannot be rebuilt.
pub fn interruptible(
    plan: Arc<dyn ExecutionPlan>,
    task: &TaskContext,
) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
    let Some(ctx) = task.session_config().get_extension::<StatementContext>() else {
        return Ok(plan);
    };
    let guarded = plan.transform_up(|node| {
        Ok(match guarded(&node, &ctx.interrupt)? {
            None => match bounded_projection(&node)? {
                None => Transformed::no(node),
                Some(projection) => Transformed::yes(projection),
            },
            Some(join) => Transformed::yes(Arc::new(CooperativeExec::new(join)) as _),
        })
    })?;
    Ok(guarded.data)
}

/// Returns a join that looks whether it is interrupted; nothing for what is no join.
fn guarded(
    node: &Arc<dyn ExecutionPlan>,
    interrupt: &Interrupt,
) -> DataFusionResult<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        let Some(filter) = join.filter() else { return Ok(Some(Arc::clone(node))) };
        return join.builder().with_filter(Some(checked(filter, interrupt))).build_exec().map(Some);
    }
    if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        let Some(filter) = join.filter() else { return Ok(Some(Arc::clone(node))) };
        let (left, right) = (Arc::clone(join.left()), Arc::clone(join.right()));
        let rebuilt = NestedLoopJoinExecBuilder::new(left, right, *join.join_type())
            .with_filter(Some(checked(filter, interrupt)))
            .with_projection_ref(join.projection().clone())
            .build()?;
        return Ok(Some(Arc::new(rebuilt)));
    }
    if let Some(join) = node.downcast_ref::<PeriodJoinExec>() {
        return Ok(Some(Arc::new(join.with_interrupt(interrupt.clone()))));
    }
    Ok(node.downcast_ref::<CrossJoinExec>().map(|_| Arc::clone(node)))
}

fn checked(filter: &JoinFilter, interrupt: &Interrupt) -> JoinFilter {
    let inner = Arc::clone(filter.expression());
    let expression = Arc::new(Checked { inner, interrupt: interrupt.clone() });
    JoinFilter::new(expression, filter.column_indices().to_vec(), Arc::clone(filter.schema()))
}

/// An expression that fails once the statement is interrupted.
#[derive(Debug)]
struct Checked {
    inner: Arc<dyn PhysicalExpr>,
    interrupt: Interrupt,
}

impl PartialEq for Checked {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Eq for Checked {}

impl Hash for Checked {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PhysicalExpr for Checked {
    fn data_type(&self, input_schema: &Schema) -> DataFusionResult<DataType> {
        self.inner.data_type(input_schema)
    }

    fn nullable(&self, input_schema: &Schema) -> DataFusionResult<bool> {
        self.inner.nullable(input_schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> DataFusionResult<ColumnarValue> {
        self.interrupt.check()?;
        self.inner.evaluate(batch)
    }

    fn return_field(&self, input_schema: &Schema) -> DataFusionResult<FieldRef> {
        self.inner.return_field(input_schema)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> DataFusionResult<Arc<dyn PhysicalExpr>> {
        let inner = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.inner));
        Ok(Arc::new(Self { inner, interrupt: self.interrupt.clone() }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}
