//! Periods: half-open `[from, to)` over instants in microseconds, as a struct of two instants in which
//! NULL is an open end. Their constructor and bounds, the relations between two of them, bins and
//! coalescing.

mod bins;
mod coalesce;
mod constant;
mod order;
mod parts;
mod planner;
mod relations;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, NullBufferBuilder, PrimitiveArray, StructArray,
    TimestampMicrosecondArray, TimestampMicrosecondBuilder,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimestampMicrosecondType};
use datafusion::common::plan_datafusion_err;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use everwhen_storage::{ColumnType, ValidTime};

use crate::columns::{cast_column, period_field, period_type, timestamp_type};
use crate::error::{Error, Result, SqlState};

pub(crate) use constant::is_constant_interval;
pub(crate) use order::PeriodsInOrder;
pub(crate) use parts::{End, raw as raw_bound};
pub(crate) use relations::Relation;

pub(super) fn register(state: &mut SessionState) -> Result<()> {
    parts::register(state)?;
    relations::register(state)?;
    bins::register(state)?;
    coalesce::register(state)?;
    constant::register(state)?;
    state.register_expr_planner(Arc::new(planner::PeriodOperators))?;
    Ok(())
}

/// The bounds of one period in microseconds; open ends are the ends of time.
type Bounds = (i64, i64);

/// The bound at an open beginning, and at an open end.
pub(crate) const BEGIN: i64 = ValidTime::BEGIN.micros();
pub(crate) const END: i64 = ValidTime::END.micros();

/// True for the type of a period.
pub(crate) fn is_period(data_type: &DataType) -> bool {
    let DataType::Struct(fields) = data_type else { return false };
    let is_instant = |field: &FieldRef, name: &str| {
        field.name() == name && matches!(field.data_type(), DataType::Timestamp(..))
    };
    matches!(&fields[..], [from, to] if is_instant(from, "from") && is_instant(to, "to"))
}

/// Returns the type that an argument which must be a period is brought to.
fn coerced_period(function: &str, given: &DataType) -> DataFusionResult<DataType> {
    if is_period(given) || *given == DataType::Null {
        return Ok(period_type().data_type());
    }
    Err(plan_datafusion_err!("{function} takes periods, not a value of type {given}"))
}

/// Returns the type that an argument which must be an instant is brought to; text becomes one by our
/// own rules when it is read.
fn coerced_instant(function: &str, given: &DataType) -> DataFusionResult<DataType> {
    match given {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Ok(DataType::Utf8),
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 | DataType::Null => {
            Ok(timestamp_type())
        }
        _ => Err(plan_datafusion_err!("{function} takes instants, not a value of type {given}")),
    }
}

/// A column of instants.
struct Instants(PrimitiveArray<TimestampMicrosecondType>);

impl Instants {
    fn of(array: &ArrayRef) -> DataFusionResult<Self> {
        let instants = cast_column(array, &ColumnType::Timestamp)?;
        Ok(Self(instants.as_primitive::<TimestampMicrosecondType>().clone()))
    }

    fn get(&self, row: usize) -> Option<i64> {
        self.0.is_valid(row).then(|| self.0.value(row))
    }
}

/// A column of periods.
struct Periods {
    whole: StructArray,
    from: Instants,
    to: Instants,
}

impl Periods {
    fn of(array: &ArrayRef) -> DataFusionResult<Self> {
        let whole = cast_column(array, &period_type())?.as_struct().clone();
        let (from, to) = (Instants::of(whole.column(0))?, Instants::of(whole.column(1))?);
        Ok(Self { whole, from, to })
    }

    /// Returns the bounds at one end; open ends are those of time, and NULL is no period.
    fn bounds(&self, end: End) -> TimestampMicrosecondArray {
        let (instants, open) = match end {
            End::Lower => (&self.from.0, BEGIN),
            End::Upper => (&self.to.0, END),
        };
        let values = match instants.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => instants.values().clone(),
            Some(nulls) => instants
                .values()
                .iter()
                .zip(nulls)
                .map(|(bound, present)| if present { *bound } else { open })
                .collect(),
        };
        let bounds = TimestampMicrosecondArray::new(values, self.whole.nulls().cloned());
        bounds.with_data_type(timestamp_type())
    }

    fn get(&self, row: usize) -> Option<Bounds> {
        self.whole
            .is_valid(row)
            .then(|| (self.from.get(row).unwrap_or(BEGIN), self.to.get(row).unwrap_or(END)))
    }
}

/// Builds a column of periods from their bounds.
pub(crate) fn column_of(from: Vec<i64>, to: Vec<i64>) -> StructArray {
    let instants = |bounds: Vec<i64>, open: i64| -> ArrayRef {
        let nulls = bounds
            .contains(&open)
            .then(|| NullBuffer::from_iter(bounds.iter().map(|bound| *bound != open)));
        let column = TimestampMicrosecondArray::new(bounds.into(), nulls);
        Arc::new(column.with_data_type(timestamp_type()))
    };
    StructArray::new(fields(), vec![instants(from, BEGIN), instants(to, END)], None)
}

/// Builds a column of periods.
struct PeriodsBuilder {
    from: TimestampMicrosecondBuilder,
    to: TimestampMicrosecondBuilder,
    present: NullBufferBuilder,
}

impl PeriodsBuilder {
    fn with_capacity(rows: usize) -> Self {
        let instants =
            || TimestampMicrosecondBuilder::with_capacity(rows).with_data_type(timestamp_type());
        Self { from: instants(), to: instants(), present: NullBufferBuilder::new(rows) }
    }

    fn push(&mut self, period: Option<Bounds>) {
        let (from, to) = period.unwrap_or((BEGIN, END));
        self.from.append_option((from != BEGIN).then_some(from));
        self.to.append_option((to != END).then_some(to));
        self.present.append(period.is_some());
    }

    fn finish(mut self) -> StructArray {
        let instants: Vec<ArrayRef> =
            vec![Arc::new(self.from.finish()), Arc::new(self.to.finish())];
        StructArray::new(fields(), instants, self.present.finish())
    }
}

fn fields() -> Fields {
    match period_type().data_type() {
        DataType::Struct(fields) => fields,
        _ => Fields::empty(),
    }
}

/// Returns the field of a function's answer that is a period.
fn answer(name: &str) -> FieldRef {
    Arc::new(period_field(name))
}

/// Returns the field of an item of a list of periods.
fn item() -> FieldRef {
    Arc::new(Field::new_list_field(period_type().data_type(), true))
}

/// Checks that a period holds an instant.
///
/// # Errors
/// 22023 for one that holds none.
fn checked(from: i64, to: i64) -> Result<Bounds> {
    if from < to {
        return Ok((from, to));
    }
    let (from, to) = (ValidTime::from_micros(from), ValidTime::from_micros(to));
    let message = format!("the period is empty: {from} is not before {to}");
    Err(Error::new(SqlState::InvalidParameter, message))
}
