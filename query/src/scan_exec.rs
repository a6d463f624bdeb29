//! The one way from stored versions to record batches: a scan as DataFusion's leaf.
//!
//! The basis, the tenant and the store come from the [`StatementContext`] of the session that runs
//! the plan. Reading happens on a blocking thread that hands batches over a bounded channel and
//! stops when nobody takes them any more.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties,
    ReplaceChildrenOptions, SendableRecordBatchStream, coop,
};
use everwhen_storage::{ColumnId, Keys, RowKey, Scan, Version, View};
use tokio::sync::mpsc::Sender;

use crate::error::{Error, Result};
use crate::session::StatementContext;
use crate::table::{TemporalTable, versions_to_batch};

/// Rows of a batch at most.
const BATCH_ROWS: usize = 8_192;
/// Batches that wait for their taker at most.
const BATCHES_AHEAD: usize = 2;

/// Reads one table reference.
#[derive(Debug, Clone)]
pub struct ScanExec {
    table: Arc<TemporalTable>,
    projection: Option<Vec<usize>>,
    keys: Option<Vec<RowKey>>,
    limit: Option<usize>,
    properties: Arc<PlanProperties>,
}

impl ScanExec {
    /// Builds a scan of the given columns, of these keys alone where given, up to `limit` rows.
    pub fn new(
        table: Arc<TemporalTable>,
        projection: Option<Vec<usize>>,
        keys: Option<Vec<RowKey>>,
        limit: Option<usize>,
    ) -> Result<Self> {
        let schema = table.projected_schema(projection.as_deref())?;
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Ok(Self { table, projection, keys, limit, properties: Arc::new(properties) })
    }

    /// Reads everything and hands it over batch by batch, until the receiver goes away.
    fn run(&self, ctx: &StatementContext, out: &Sender<DataFusionResult<RecordBatch>>) -> Result<()> {
        let (tx, system) = self.table.system_bound(ctx)?;
        let columns: Vec<ColumnId> = self.table.stored_columns(self.projection.as_deref());
        let scan = Scan {
            table: &self.table.def,
            tenant: Some(&ctx.tenant),
            keys: self.keys.clone().map_or(Keys::All, Keys::Among),
            valid: self.table.valid_bound(ctx.basis.now),
            system,
            columns: Some(&columns),
        };
        let mut failure = None;
        ctx.store.read(tx, |view| {
            failure = self.read(view, &scan, out).err();
            Ok(())
        })?;
        failure.map_or(Ok(()), Err)
    }

    fn read(
        &self,
        view: &View<'_>,
        scan: &Scan<'_>,
        out: &Sender<DataFusionResult<RecordBatch>>,
    ) -> Result<()> {
        let mut left = self.limit.unwrap_or(usize::MAX);
        let mut versions: Vec<Version> = Vec::new();
        let mut failure = None;
        if left == 0 {
            return Ok(());
        }
        view.scan(scan, &mut |version| {
            versions.push(version);
            left -= 1;
            if versions.len() < BATCH_ROWS && left > 0 {
                return Ok(true);
            }
            match self.send(view, &mut versions, out) {
                Ok(taken) => Ok(taken && left > 0),
                Err(error) => {
                    failure = Some(error);
                    Ok(false)
                }
            }
        })?;
        if let Some(error) = failure {
            return Err(error);
        }
        self.send(view, &mut versions, out)?;
        Ok(())
    }

    /// Sends what has gathered; false where nobody takes it.
    fn send(
        &self,
        view: &View<'_>,
        versions: &mut Vec<Version>,
        out: &Sender<DataFusionResult<RecordBatch>>,
    ) -> Result<bool> {
        if versions.is_empty() {
            return Ok(!out.is_closed());
        }
        let batch = versions_to_batch(view, &self.table, self.projection.as_deref(), versions)?;
        versions.clear();
        Ok(out.blocking_send(Ok(batch)).is_ok())
    }
}

impl DisplayAs for ScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScanExec: table={}, valid={:?}", self.table.def.name, self.table.valid)?;
        write!(f, ", system={:?}", self.table.system)?;
        if let Some(keys) = &self.keys {
            write!(f, ", keys={}", keys.len())?;
        }
        if let Some(limit) = self.limit {
            write!(f, ", limit={limit}")?;
        }
        Ok(())
    }
}

impl ExecutionPlan for ScanExec {
    fn name(&self) -> &str {
        "ScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _each: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>,
    ) -> DataFusionResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        Some(Arc::new(Self { limit, ..self.clone() }))
    }

    fn fetch(&self) -> Option<usize> {
        self.limit
    }

    fn execute(
        &self,
        _partition: usize,
        context: Arc<TaskContext>,
    ) -> DataFusionResult<SendableRecordBatchStream> {
        let Some(ctx) = context.session_config().get_extension::<StatementContext>() else {
            let message = "a table was read outside a statement".to_owned();
            return Err(DataFusionError::Internal(message));
        };
        let scan = self.clone();
        let mut stream = RecordBatchReceiverStreamBuilder::new(self.schema(), BATCHES_AHEAD);
        let out = stream.tx();
        stream.spawn_blocking(move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| scan.run(&ctx, &out)));
            match outcome {
                Ok(outcome) => outcome.map_err(|error| DataFusionError::External(error.into())),
                Err(_) => {
                    let error = Error::internal("reading a table failed in an unforeseen way");
                    Err(DataFusionError::External(error.into()))
                }
            }
        });
        Ok(coop::make_cooperative(stream.build()))
    }
}
