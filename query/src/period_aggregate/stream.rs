//! The operator under way: batches of sorted rows in, batches of intervals out.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{concat, interleave, partition, take};
use arrow::datatypes::TimestampMicrosecondType;
use datafusion::common::internal_err;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt, stream};

use super::exec::Aggregation;
use super::states::{State, state};
use super::sweep::{self, Script, Sweep};
use crate::functions::periods::column_of;
use crate::interrupt::Interrupt;
use crate::session::StatementContext;

/// Intervals of a batch.
const ROWS: usize = 8_192;

/// A partition of the operator under way.
pub struct Running {
    aggregation: Arc<Aggregation>,
    input: SendableRecordBatchStream,
    phase: Phase,
    sweep: Sweep,
    script: Script,
    states: Vec<Box<dyn State>>,
    /// The keys, of one row, of the group that began in an earlier batch.
    carried: Vec<ArrayRef>,
    found: Found,
    reservation: MemoryReservation,
    metrics: BaselineMetrics,
    interrupt: Interrupt,
}

/// How far it is.
#[expect(clippy::large_enum_variant, reason = "there is one of it")]
enum Phase {
    /// Another batch is wanted.
    Reading,
    /// A batch is gone through.
    Within(Current),
    /// There are no more; the last group is closed.
    Closing,
    Done,
}

/// A batch of the input.
struct Current {
    keys: Vec<ArrayRef>,
    rows: sweep::Rows,
}

/// Intervals that were not handed on yet.
#[derive(Default)]
struct Found {
    from: Vec<i64>,
    to: Vec<i64>,
    /// Of each key, the parts of its column.
    keys: Vec<Vec<ArrayRef>>,
}

impl Running {
    /// Begins with an input.
    ///
    /// # Errors
    /// Where an aggregate has no form over its argument.
    pub fn new(
        aggregation: Arc<Aggregation>,
        input: SendableRecordBatchStream,
        metrics: &ExecutionPlanMetricsSet,
        partition: usize,
        context: &TaskContext,
    ) -> Result<Self> {
        let fields = input.schema();
        let outputs = aggregation.schema.fields().iter().skip(aggregation.keys.len() + 1);
        let states = aggregation.calls.iter().zip(outputs).map(|(call, output)| {
            let argument = call.argument.map(|at| fields.field(aggregation.arguments[at]));
            let kind = argument.map(|field| field.data_type());
            state(call.function, kind, output.data_type())
        });
        let statement = context.session_config().get_extension::<StatementContext>();
        let consumer = MemoryConsumer::new(format!("PeriodAggregateExec[{partition}]"));
        Ok(Self {
            states: states.collect::<Result<_>>()?,
            found: Found::of(aggregation.keys.len()),
            aggregation,
            input,
            phase: Phase::Reading,
            sweep: Sweep::default(),
            script: Script::default(),
            carried: Vec::new(),
            reservation: consumer.register(context.memory_pool()),
            metrics: BaselineMetrics::new(metrics, partition),
            interrupt: statement.map(|ctx| ctx.interrupt.clone()).unwrap_or_default(),
        })
    }

    /// Returns the intervals.
    pub fn rows(self) -> SendableRecordBatchStream {
        let schema = Arc::clone(&self.aggregation.schema);
        let rows = stream::try_unfold(self, |mut running| async {
            let batch = running.next().await?;
            Ok(batch.map(|batch| {
                running.metrics.record_output(batch.num_rows());
                (batch, running)
            }))
        });
        Box::pin(cooperative(RecordBatchStreamAdapter::new(schema, rows.boxed())))
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            self.interrupt.check()?;
            if self.found.len() >= ROWS {
                return self.batch().map(Some);
            }
            match self.phase {
                Phase::Reading => match self.input.try_next().await? {
                    Some(batch) => self.begin(&batch)?,
                    None => self.phase = Phase::Closing,
                },
                Phase::Within(_) | Phase::Closing => self.step()?,
                Phase::Done if self.found.len() > 0 => return self.batch().map(Some),
                Phase::Done => return Ok(None),
            }
        }
    }

    fn begin(&mut self, batch: &RecordBatch) -> Result<()> {
        let _timer = self.metrics.elapsed_compute().timer();
        let columns = |places: &[usize]| -> Vec<ArrayRef> {
            places.iter().map(|at| Arc::clone(batch.column(*at))).collect()
        };
        let bound =
            |at: usize| batch.column(at).as_primitive_opt::<TimestampMicrosecondType>().cloned();
        let Aggregation { keys, arguments, from, to, .. } = self.aggregation.as_ref();
        let (keys, arguments) = (columns(keys), columns(arguments));
        for (call, state) in self.aggregation.calls.iter().zip(&mut self.states) {
            if let Some(at) = call.argument {
                state.begin(&arguments[at])?;
            }
        }
        let (Some(from), Some(to)) = (bound(*from), bound(*to)) else {
            return internal_err!("a bound is no instant");
        };
        let starts = starts(&keys, &self.carried)?;
        self.phase = Phase::Within(Current { keys, rows: sweep::Rows { from, to, starts } });
        Ok(())
    }

    /// Sweeps on as far as there is room, and lets every aggregate follow.
    fn step(&mut self) -> Result<()> {
        let _timer = self.metrics.elapsed_compute().timer();
        let room = ROWS - self.found.len();
        let (is_through, current) = match &self.phase {
            Phase::Within(current) => {
                (self.sweep.advance(&current.rows, room, &mut self.script), Some(current))
            }
            _ => (self.sweep.drain(room, &mut self.script), None),
        };
        for state in &mut self.states {
            state.replay(&self.script.steps)?;
        }
        let keys = current.map_or(&[][..], |current| &current.keys);
        self.found.add(&self.script, keys, &self.carried)?;
        self.script.clear();
        self.reservation.try_resize(self.bytes())?;
        if !is_through {
            return Ok(());
        }
        let began = self.sweep.begin();
        let phase = match current {
            None => Phase::Done,
            Some(current) => {
                if let Some(row) = began {
                    let row = UInt32Array::from_iter_values(u32::try_from(row).ok());
                    let keys = current.keys.iter().map(|key| take(key, &row, None));
                    self.carried = keys.collect::<std::result::Result<_, _>>()?;
                }
                Phase::Reading
            }
        };
        self.phase = phase;
        Ok(())
    }

    fn batch(&mut self) -> Result<RecordBatch> {
        let _timer = self.metrics.elapsed_compute().timer();
        let found = std::mem::replace(&mut self.found, Found::of(self.aggregation.keys.len()));
        let rows = found.len();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.aggregation.schema.fields().len());
        for mut parts in found.keys {
            columns.push(match parts.len() {
                1 => parts.swap_remove(0),
                _ => concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>())?,
            });
        }
        let period = column_of(found.from, found.to);
        columns.insert(self.aggregation.period_at, Arc::new(period));
        for state in &mut self.states {
            columns.push(state.finish()?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::clone(&self.aggregation.schema);
        Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
    }

    fn bytes(&self) -> usize {
        let states: usize = self.states.iter().map(|state| state.bytes()).sum();
        self.sweep.bytes() + states
    }
}

impl Found {
    fn of(keys: usize) -> Self {
        Self { keys: vec![Vec::new(); keys], ..Self::default() }
    }

    fn len(&self) -> usize {
        self.from.len()
    }

    /// Takes over the intervals of a script, with the keys of their groups.
    fn add(&mut self, script: &Script, keys: &[ArrayRef], carried: &[ArrayRef]) -> Result<()> {
        self.from.extend_from_slice(&script.from);
        self.to.extend_from_slice(&script.to);
        if script.groups.is_empty() {
            return Ok(());
        }
        // Groups come in order: those that began before the batch are the first.
        let before = script.groups.partition_point(|group| *group == 0);
        for (at, parts) in self.keys.iter_mut().enumerate() {
            parts.push(if before == script.groups.len() {
                let rows = UInt32Array::from(vec![0; before]);
                take(&carried[at], &rows, None)?
            } else if before == 0 {
                let rows = UInt32Array::from_iter_values(script.groups.iter().map(|one| one - 1));
                take(&keys[at], &rows, None)?
            } else {
                let places = script.groups.iter().map(|group| match group.checked_sub(1) {
                    None => (0, 0),
                    Some(row) => (1, row as usize),
                });
                interleave(&[&carried[at], &keys[at]], &places.collect::<Vec<_>>())?
            });
        }
        Ok(())
    }
}

/// Returns the rows that begin a group, of rows sorted by keys.
fn starts(keys: &[ArrayRef], carried: &[ArrayRef]) -> Result<Vec<u32>> {
    if keys.first().is_none_or(|key| key.is_empty()) {
        return Ok(Vec::new());
    }
    let mut starts = Vec::new();
    for group in partition(keys)?.ranges() {
        starts.push(u32::try_from(group.start).unwrap_or(u32::MAX));
    }
    if !carried.is_empty() {
        let pairs = keys
            .iter()
            .zip(carried)
            .map(|(key, carried)| concat(&[carried.as_ref(), key.slice(0, 1).as_ref()]));
        let pairs = pairs.collect::<std::result::Result<Vec<_>, _>>()?;
        if partition(&pairs)?.len() == 1 {
            starts.remove(0);
        }
    }
    Ok(starts)
}
