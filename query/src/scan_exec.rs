//! The one way from stored versions to record batches: a scan as DataFusion's leaf.
//!
//! The basis, the tenant and the store come from the [`StatementContext`] of the session that runs
//! the plan. Reading happens on a blocking thread that hands batches over a bounded channel and
//! stops when nobody takes them any more.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::Statistics;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet,
};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::{
    RecordBatchReceiverStreamBuilder, RecordBatchStreamAdapter,
};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties,
    SendableRecordBatchStream, coop,
};
use everwhen_storage::{Assertion, Keys, RowKey, Scan, ScanCounts, ValidBound, View};
use futures::TryStreamExt as _;

use crate::error::{Error, Result};
use crate::indexes::Lookup;
use crate::overlay;
use crate::session::StatementContext;
use crate::table::{SystemClause, TemporalTable};
use crate::versions::VersionColumns;

/// Rows of a batch at most.
const BATCH_ROWS: usize = 8_192;
/// One in so many keys is guessed to be in a range of them.
const RANGE_SHARE: usize = 4;
/// Batches that wait for their taker at most.
const BATCHES_AHEAD: usize = 2;

/// Reads one table reference.
#[derive(Debug, Clone)]
pub struct ScanExec {
    table: Arc<TemporalTable>,
    projection: Option<Vec<usize>>,
    keys: Keys,
    lookup: Option<Lookup>,
    limit: Option<usize>,
    /// About how many keys the table has.
    size: Option<u64>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ScanExec {
    /// Builds a scan of the given columns, of these keys alone, up to `limit` rows. They come in the
    /// order of their keys where `ordered` says that nothing else is read beside the stored rows.
    pub fn new(
        table: Arc<TemporalTable>,
        projection: Option<Vec<usize>>,
        keys: Keys,
        limit: Option<usize>,
        ordered: bool,
    ) -> Result<Self> {
        let schema = table.projected_schema(projection.as_deref())?;
        let order = match ordered {
            true => table.key_order(projection.as_deref()),
            false => Vec::new(),
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new_with_orderings(schema, [order]),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        let (properties, metrics) = (Arc::new(properties), ExecutionPlanMetricsSet::new());
        let (lookup, size) = (None, None);
        Ok(Self { table, projection, keys, lookup, limit, size, properties, metrics })
    }

    /// Finds the keys by an index, as long as it is there.
    #[must_use]
    pub fn with_lookup(self, lookup: Option<Lookup>) -> Self {
        Self { lookup, ..self }
    }

    /// Says about how many keys the table has, so that joins hold the smaller side.
    #[must_use]
    pub fn with_size(self, size: Option<u64>) -> Self {
        Self { size, ..self }
    }

    /// Returns about how many rows there will be: of the keys that are read, one version each.
    fn rows_about(&self) -> Option<usize> {
        let size = usize::try_from(self.size?).unwrap_or(usize::MAX);
        // Indexes come and go; what they lead to is no fewer rows for the plan.
        let rows = match &self.keys {
            Keys::Among(keys) => size.min(keys.len()),
            Keys::Within(_) => size / RANGE_SHARE,
            Keys::All => size,
        };
        Some(rows.max(1).min(self.limit.unwrap_or(usize::MAX)))
    }

    /// Reads everything, on this thread, and hands it over batch by batch until `out` answers false.
    ///
    /// # Errors
    /// Whatever reading reports.
    pub(crate) fn run(
        &self,
        ctx: &StatementContext,
        out: &mut dyn FnMut(RecordBatch) -> bool,
    ) -> Result<()> {
        let (tx, system) = self.table.system_bound(ctx)?;
        let mut scan = Scan {
            table: &self.table.def,
            tenant: Some(&ctx.tenant),
            keys: self.keys.clone(),
            valid: self.table.valid_bound(ctx.basis.now),
            system,
            columns: None,
            whole: self.table.shows_valid_time(self.projection.as_deref()),
        };
        let mut failure = None;
        ctx.read(tx, |view| {
            if let Some(lookup) = &self.lookup
                && let Some(keys) = lookup.keys(view, &ctx.store.definitions(), &ctx.tenant)?
            {
                scan.keys = Keys::Among(keys);
            }
            let mut sending = Sending {
                scan: self,
                view,
                ctx,
                out,
                left: self.limit.unwrap_or(usize::MAX),
                columns: None,
            };
            failure = sending.all(&scan).err();
            Ok(())
        })?;
        failure.map_or(Ok(()), Err)
    }

    /// Counts what was looked at, for EXPLAIN ANALYZE.
    fn note(&self, counts: &ScanCounts) {
        for (name, count) in [
            ("keys_read", counts.keys),
            ("versions_read", counts.versions),
            ("versions_skipped", counts.versions.saturating_sub(counts.shown)),
        ] {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            MetricBuilder::new(&self.metrics).counter(name, 0).add(count);
        }
    }

    /// Returns the pending assertions that this read must see: those of its own transaction, where
    /// it reads the latest belief.
    fn pending<'a>(
        &self,
        ctx: &'a StatementContext,
    ) -> Option<&'a BTreeMap<RowKey, Vec<Assertion>>> {
        match self.table.system {
            SystemClause::Basis => ctx.pending().keys(self.table.def.id),
            _ => None,
        }
    }
}

/// A scan on its way out.
struct Sending<'a, 'db> {
    scan: &'a ScanExec,
    view: &'a View<'db>,
    ctx: &'a StatementContext,
    out: &'a mut dyn FnMut(RecordBatch) -> bool,
    /// Rows that may still be sent.
    left: usize,
    /// The rows of the next batch.
    columns: Option<VersionColumns<'a>>,
}

impl Sending<'_, '_> {
    fn all(&mut self, scan: &Scan<'_>) -> Result<()> {
        let pending = self.scan.pending(self.ctx);
        let mut failure = None;
        let mut open = self.left > 0;
        if !open {
            return Ok(());
        }
        let counts = self.view.scan_borrowed(scan, &mut |version| {
            if pending.is_some_and(|written| written.contains_key(&version.key())) {
                return Ok(true);
            }
            open = self.take(|columns| columns.push(version)).unwrap_or_else(|error| {
                failure = Some(error);
                false
            });
            Ok(open)
        })?;
        self.scan.note(&counts);
        if let Some(error) = failure {
            return Err(error);
        }
        if let (Some(pending), true) = (pending, open) {
            self.written(scan, pending)?;
        }
        self.send()?;
        Ok(())
    }

    /// Takes one version; false where no more are wanted.
    fn take(&mut self, push: impl FnOnce(&mut VersionColumns<'_>) -> Result<()>) -> Result<bool> {
        let columns = match &mut self.columns {
            Some(columns) => columns,
            none => {
                let capacity = self.left.min(BATCH_ROWS);
                let projection = self.scan.projection.as_deref();
                none.insert(VersionColumns::new(&self.scan.table, projection, capacity)?)
            }
        };
        push(columns)?;
        self.left -= 1;
        if columns.len() < BATCH_ROWS && self.left > 0 {
            return Ok(true);
        }
        Ok(self.send()? && self.left > 0)
    }

    /// Takes the versions of keys that earlier statements of the transaction wrote.
    fn written(
        &mut self,
        scan: &Scan<'_>,
        pending: &BTreeMap<RowKey, Vec<Assertion>>,
    ) -> Result<()> {
        for (key, assertions) in pending {
            let asked = match &scan.keys {
                Keys::All => true,
                Keys::Among(keys) => keys.contains(key),
                Keys::Within(range) => range.contains(key),
            };
            if !asked {
                continue;
            }
            let before = self.view.collect(&Scan {
                keys: Keys::Among(vec![key.clone()]),
                valid: ValidBound::ALL,
                ..scan.clone()
            })?;
            let (tenant, basis) = (&self.ctx.tenant, self.ctx.basis);
            for version in overlay::applied(tenant, key, before, assertions, basis) {
                if overlay::in_bound(&version, scan.valid)
                    && !self.take(|columns| columns.push_owned(&version))?
                {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Sends what has gathered; false where nobody takes it.
    fn send(&mut self) -> Result<bool> {
        let Some(columns) = self.columns.take() else { return Ok(true) };
        let basis = self.ctx.basis;
        let known = HashMap::from([(overlay::pending_tx(basis), basis.now.micros())]);
        let known = if self.scan.pending(self.ctx).is_some() { known } else { HashMap::new() };
        let batch = columns.finish(self.view, known)?;
        Ok((self.out)(batch))
    }
}

impl DisplayAs for ScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScanExec: table={}, valid={:?}", self.table.def.name, self.table.valid)?;
        write!(f, ", system={:?}", self.table.system)?;
        match &self.keys {
            Keys::All => {}
            Keys::Among(keys) => write!(f, ", keys={}", keys.len())?,
            Keys::Within(_) => write!(f, ", keys=range")?,
        }
        if let Some(lookup) = &self.lookup {
            write!(f, ", index={}", lookup.name)?;
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

    fn statistics_from_inputs(
        &self,
        _inputs: &[Arc<Statistics>],
        _args: &StatisticsArgs,
    ) -> DataFusionResult<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema());
        if let Some(rows) = self.rows_about() {
            statistics.num_rows = Precision::Inexact(rows);
        }
        Ok(Arc::new(statistics))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> DataFusionResult<SendableRecordBatchStream> {
        let Some(ctx) = context.session_config().get_extension::<StatementContext>() else {
            let message = "a table was read outside a statement".to_owned();
            return Err(DataFusionError::Internal(message));
        };
        Ok(self.rows(ctx, partition))
    }
}

impl ScanExec {
    /// Starts the scan in a statement's context.
    pub(crate) fn rows(
        &self,
        ctx: Arc<StatementContext>,
        partition: usize,
    ) -> SendableRecordBatchStream {
        let scan = self.clone();
        let output = BaselineMetrics::new(&self.metrics, partition);
        let mut stream = RecordBatchReceiverStreamBuilder::new(self.schema(), BATCHES_AHEAD);
        let out = stream.tx();
        stream.spawn_blocking(move || {
            let mut send = |batch| out.blocking_send(Ok(batch)).is_ok();
            let outcome = catch_unwind(AssertUnwindSafe(|| scan.run(&ctx, &mut send)));
            match outcome {
                Ok(outcome) => outcome.map_err(|error| DataFusionError::External(error.into())),
                Err(_) => {
                    let error = Error::internal("reading a table failed in an unforeseen way");
                    Err(DataFusionError::External(error.into()))
                }
            }
        });
        let rows = stream.build().inspect_ok(move |batch| output.record_output(batch.num_rows()));
        let rows = RecordBatchStreamAdapter::new(self.schema(), rows);
        coop::make_cooperative(Box::pin(rows))
    }
}
