//! Each aggregate's value over the rows that are open in a sweep.
//!
//! Integers, decimals and counts are added and taken away again, exactly. Sums of floats, the least
//! and the greatest come from a [`tournament`] over the slots of open rows: what a row leaves behind is
//! computed anew along one path, so no error of rounding stays.

mod counts;
mod extremes;
mod sums;
mod tournament;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, DurationMicrosecondType,
    DurationNanosecondType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType, UInt64Type,
};
use datafusion::error::Result;

use self::counts::{Counted, Rows, Rule};
use self::extremes::{Extreme, ExtremeRow, Want};
use self::sums::{DecimalMean, FloatMean, FloatSum, Floats, Sum, WholeMean, WholeSum, Wholes};
use super::Function;
use super::sweep::Step;
use crate::error::Error;

/// An aggregate that follows a sweep.
pub trait State: Send {
    /// Takes the argument of the next batch of the input.
    ///
    /// # Errors
    /// Where it has another type than was planned.
    fn begin(&mut self, argument: &ArrayRef) -> Result<()>;

    /// Goes through steps over the present batch.
    ///
    /// # Errors
    /// Where a value does not fit.
    fn replay(&mut self, steps: &[Step]) -> Result<()>;

    /// Returns the values of the intervals that ended since it was last asked.
    ///
    /// # Errors
    /// Where the column cannot be built.
    fn finish(&mut self) -> Result<ArrayRef>;

    /// Returns about how many bytes it takes.
    fn bytes(&self) -> usize;
}

/// An aggregate's reaction to each step.
trait Following: Send {
    /// What it reads of the argument.
    type Column: Send;

    fn column(&self, argument: &ArrayRef) -> Result<Self::Column>;
    fn open(&mut self, column: &Self::Column, row: usize, slot: usize);
    fn close(&mut self, slot: usize);
    fn clear(&mut self);
    fn emit(&mut self) -> Result<()>;
    fn take(&mut self) -> Result<ArrayRef>;
    fn size(&self) -> usize;
}

/// An aggregate with its argument in the present batch.
struct Follower<F: Following> {
    aggregate: F,
    column: Option<F::Column>,
}

impl<F: Following> State for Follower<F> {
    fn begin(&mut self, argument: &ArrayRef) -> Result<()> {
        self.column = Some(self.aggregate.column(argument)?);
        Ok(())
    }

    fn replay(&mut self, steps: &[Step]) -> Result<()> {
        for step in steps {
            match *step {
                Step::Open { row, slot } => {
                    if let Some(column) = &self.column {
                        self.aggregate.open(column, row as usize, slot as usize);
                    }
                }
                Step::Close { slot } => self.aggregate.close(slot as usize),
                Step::Clear => self.aggregate.clear(),
                Step::Emit => self.aggregate.emit()?,
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        self.aggregate.take()
    }

    fn bytes(&self) -> usize {
        self.aggregate.size()
    }
}

/// Returns the state of an aggregate that reads an argument.
#[expect(clippy::unnecessary_wraps, reason = "it stands where there may be no form")]
fn following<F: Following + 'static>(aggregate: F) -> Option<Box<dyn State>> {
    Some(Box::new(Follower { aggregate, column: None }))
}

/// Builds the state of an aggregate over arguments of a type.
///
/// # Errors
/// 0A000 where it has no form over such.
pub fn state(
    function: Function,
    argument: Option<&DataType>,
    output: &DataType,
) -> Result<Box<dyn State>> {
    let built = match (function, argument) {
        (Function::Count, None) => Some(Box::new(Rows::default()) as _),
        (Function::Count, Some(_)) => following(Counted::new(Rule::Count)),
        (Function::BoolAnd, Some(DataType::Boolean)) => following(Counted::new(Rule::And)),
        (Function::BoolOr, Some(DataType::Boolean)) => following(Counted::new(Rule::Or)),
        (Function::Sum, Some(kind)) => sum(kind, output),
        (Function::Avg, Some(kind)) => mean(kind, output),
        (Function::Min, Some(kind)) => extreme(Want::Least, kind),
        (Function::Max, Some(kind)) => extreme(Want::Greatest, kind),
        _ => None,
    };
    built.ok_or_else(|| {
        let of = argument.map_or_else(String::new, |kind| format!(" of type {kind}"));
        let name = format!("{function:?}").to_lowercase();
        Error::unsupported(format!("{name}{of} has no form over constant intervals")).into()
    })
}

fn sum(kind: &DataType, output: &DataType) -> Option<Box<dyn State>> {
    fn of<T: ArrowPrimitiveType>(output: &DataType) -> Option<Box<dyn State>> {
        following(Sum::<T>::new(output.clone()))
    }
    match kind {
        DataType::Int64 => following(Wholes::<WholeSum>::default()),
        DataType::UInt64 => of::<UInt64Type>(output),
        DataType::Decimal128(..) => of::<Decimal128Type>(output),
        DataType::Duration(TimeUnit::Microsecond) => of::<DurationMicrosecondType>(output),
        DataType::Duration(TimeUnit::Nanosecond) => of::<DurationNanosecondType>(output),
        DataType::Float64 => following(Floats::<FloatSum>::default()),
        _ => None,
    }
}

fn mean(kind: &DataType, output: &DataType) -> Option<Box<dyn State>> {
    match (kind, output) {
        (DataType::Float64, DataType::Float64) => following(Floats::<FloatMean>::default()),
        (whole, DataType::Float64) if whole.is_signed_integer() => {
            following(Wholes::<WholeMean>::default())
        }
        (DataType::Decimal128(_, scale), DataType::Decimal128(precision, to)) => {
            following(DecimalMean::new(*scale, *precision, *to))
        }
        _ => None,
    }
}

fn extreme(want: Want, kind: &DataType) -> Option<Box<dyn State>> {
    fn of<T: ArrowPrimitiveType>(want: Want, kind: &DataType) -> Option<Box<dyn State>> {
        following(Extreme::<T>::new(want, kind.clone()))
    }
    match kind {
        DataType::Int64 => of::<Int64Type>(want, kind),
        DataType::Float64 => of::<Float64Type>(want, kind),
        DataType::Decimal128(..) => of::<Decimal128Type>(want, kind),
        DataType::Date32 => of::<Date32Type>(want, kind),
        DataType::Timestamp(TimeUnit::Microsecond, _) => of::<TimestampMicrosecondType>(want, kind),
        other => ExtremeRow::new(want, other).and_then(following),
    }
}

/// A primitive argument of a batch.
type Values<T> = (PrimitiveArray<T>, Option<NullBuffer>);

/// Reads an argument as values of a type.
fn values<T: ArrowPrimitiveType>(argument: &ArrayRef) -> Result<Values<T>> {
    let Some(typed) = argument.as_primitive_opt::<T>() else {
        return datafusion::common::internal_err!("an argument has another type than was planned");
    };
    Ok((typed.clone(), typed.nulls().cloned()))
}

/// Returns a row's value unless that is NULL.
fn value<T: ArrowPrimitiveType>((array, nulls): &Values<T>, row: usize) -> Option<T::Native> {
    let present = nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
    present.then(|| array.values()[row])
}

/// Builds a column of a type from values, of which some may be missing.
fn column<T: ArrowPrimitiveType>(found: Found<T::Native>, kind: DataType) -> ArrayRef {
    let Found { values, present } = found;
    let nulls = if present.iter().all(|one| *one) { None } else { Some(present.into()) };
    Arc::new(PrimitiveArray::<T>::new(values.into(), nulls).with_data_type(kind))
}

/// The values of intervals that ended.
#[derive(Debug)]
struct Found<V> {
    values: Vec<V>,
    present: Vec<bool>,
}

impl<V> Default for Found<V> {
    fn default() -> Self {
        Self { values: Vec::new(), present: Vec::new() }
    }
}

impl<V: Copy + Default> Found<V> {
    fn push(&mut self, value: Option<V>) {
        self.values.push(value.unwrap_or_default());
        self.present.push(value.is_some());
    }

    fn bytes(&self) -> usize {
        self.values.capacity() * size_of::<V>() + self.present.capacity()
    }
}

/// The value in each slot; none where its row has NULL.
#[derive(Debug)]
struct Slots<V>(Vec<Option<V>>);

impl<V> Default for Slots<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<V: Copy> Slots<V> {
    fn put(&mut self, slot: usize, value: Option<V>) {
        if slot >= self.0.len() {
            self.0.resize(slot + 1, None);
        }
        self.0[slot] = value;
    }

    fn take(&mut self, slot: usize) -> Option<V> {
        self.0.get_mut(slot).and_then(Option::take)
    }

    fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<Option<V>>()
    }
}

#[cfg(test)]
mod tests;
