//! The rows of a query as they leave: cast to the contract's types, in a task of their own.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::runtime::SpawnedTask;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use everwhen_storage::ColumnType;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use tokio::sync::mpsc;

use crate::columns::{cast_column, field_of, field_type};
use crate::diagnose::Diagnose;
use crate::dialect::Positions;
use crate::error::{Error, Result};
use crate::interrupt::{InterruptOnDrop, interruptible};
use crate::read::Planned;
use crate::rewrite::{shown_name, without_marks};

/// Batches that wait for their taker at most.
const BATCHES_AHEAD: usize = 2;

/// A query's rows, under way.
pub struct RowsAnswer {
    /// The columns of every batch; JSON and periods are marked in their metadata.
    pub schema: SchemaRef,
    /// Names and types, in the order of the schema.
    pub columns: Vec<(String, ColumnType)>,
    /// The rows. Dropping it ends the query.
    pub stream: BoxStream<'static, Result<RecordBatch>>,
    /// The token to read again at.
    pub basis: String,
}

impl RowsAnswer {
    /// Stops the query's work when the rows are dropped.
    #[must_use]
    pub(crate) fn held_by(mut self, guard: InterruptOnDrop) -> Self {
        let held = self.stream.map(move |batch| {
            let _held = &guard;
            batch
        });
        self.stream = held.boxed();
        self
    }
}

/// How a query's columns leave.
#[derive(Debug, Clone)]
pub struct Shape {
    pub schema: SchemaRef,
    pub columns: Vec<(String, ColumnType)>,
}

impl Shape {
    /// Derives the outgoing columns of a query's own.
    ///
    /// # Errors
    /// 0A000 for a column of a type that has no form outside.
    pub fn of(fields: &Schema) -> Result<Self> {
        let mut columns = Vec::with_capacity(fields.fields().len());
        let mut shown = Vec::with_capacity(fields.fields().len());
        for field in fields.fields() {
            let Some(kind) = field_type(field) else {
                let message =
                    format!("column \"{}\" is of type {}", field.name(), field.data_type());
                return Err(Error::unsupported(message).with_hint("cast it to another type"));
            };
            let name = shown_name(field.name());
            shown.push(outgoing(field, &kind).with_name(name));
            columns.push((name.to_owned(), kind));
        }
        Ok(Self { schema: Arc::new(Schema::new(shown)), columns })
    }

    /// Casts a batch of the query to what leaves.
    ///
    /// # Errors
    /// Where a value does not fit.
    pub fn cast(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
        for ((field, array), (_, kind)) in
            self.schema.fields().iter().zip(batch.columns()).zip(&self.columns)
        {
            arrays.push(match array.data_type() == field.data_type() {
                true => Arc::clone(array),
                false => cast_column(array, kind)?,
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)?)
    }
}

/// Decimals keep their own precision and scale; everything else has the type's one form.
fn outgoing(field: &Field, kind: &ColumnType) -> Field {
    if matches!(field.data_type(), DataType::Decimal128(..))
        || *field.data_type() == kind.data_type()
    {
        return field.clone().with_nullable(true);
    }
    field_of(field.name(), kind)
}

/// Starts a planned query.
///
/// # Errors
/// Whatever its physical planning reports.
pub async fn start(planned: Planned, positions: Positions, basis: String) -> Result<RowsAnswer> {
    let Planned { state, plan } = planned;
    let (physical, task) = (state.create_physical_plan(&plan).await, state.task_ctx());
    let physical = physical.and_then(|plan| interruptible(plan, &task)).diagnosed(&positions)?;
    let shape = Shape::of(&physical.schema())?;
    let rows = execute_stream(physical, task).diagnosed(&positions)?;
    let outgoing = shape.clone();
    let (out, taken) = mpsc::channel(BATCHES_AHEAD);
    let task = SpawnedTask::spawn(async move {
        let mut rows = rows;
        while let Some(batch) = rows.next().await {
            let batch = batch.diagnosed(&positions).and_then(|batch| outgoing.cast(&batch));
            let last = batch.is_err();
            if out.send(batch).await.is_err() || last {
                return;
            }
        }
    });
    Ok(RowsAnswer {
        schema: shape.schema,
        columns: shape.columns,
        stream: join(taken, task),
        basis,
    })
}

/// Hands on what the task sends; where the task fails in an unforeseen way, an error comes last.
fn join(
    taken: mpsc::Receiver<Result<RecordBatch>>,
    task: SpawnedTask<()>,
) -> BoxStream<'static, Result<RecordBatch>> {
    stream::unfold((taken, Some(task)), |(mut taken, mut task)| async move {
        if let Some(batch) = taken.recv().await {
            return Some((batch, (taken, task)));
        }
        match task.take()?.join().await {
            Ok(()) => None,
            Err(_) => {
                let error = Error::internal("the query failed in an unforeseen way");
                Some((Err(error), (taken, None)))
            }
        }
    })
    .boxed()
}

/// Answers with rows that are at hand.
///
/// # Errors
/// As [`Shape::of`] and [`Shape::cast`].
pub fn at_hand(batch: &RecordBatch, basis: String) -> Result<RowsAnswer> {
    let shape = Shape::of(&batch.schema())?;
    let batch = shape.cast(batch)?;
    let stream = stream::iter([Ok(batch)]).boxed();
    Ok(RowsAnswer { schema: shape.schema, columns: shape.columns, stream, basis })
}

/// Returns rows of texts about a plan with the columns' names as they are outside.
pub fn unmarked(answer: RowsAnswer) -> RowsAnswer {
    let text = |column: &ArrayRef| -> ArrayRef {
        match column.as_string_opt::<i32>() {
            Some(texts) => {
                let texts = texts.iter().map(|text| text.map(without_marks));
                Arc::new(texts.collect::<StringArray>())
            }
            None => Arc::clone(column),
        }
    };
    let rows = answer.stream.map(move |batch| {
        let batch = batch?;
        let columns = batch.columns().iter().map(text).collect();
        Ok(RecordBatch::try_new(batch.schema(), columns)?)
    });
    RowsAnswer { stream: rows.boxed(), ..answer }
}

/// Shows a physical plan's text, for tests and EXPLAIN.
pub fn plan_text(plan: &dyn ExecutionPlan) -> String {
    without_marks(&datafusion::physical_plan::displayable(plan).indent(false).to_string())
}
