//! Sums and averages.

use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, Float64Array, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal128Type, DecimalType, Float64Type, Int64Type,
};
use datafusion::error::Result;

use super::tournament::Tournament;
use super::{Following, Found, Slots, Values, column, value, values};
use crate::error::{Error, SqlState};
use crate::functions::sums::{too_wide, whole, within};

/// The sum of decimals or durations. What does not fit its type is an error (22003) where it is put out;
/// before that it may go past its ends and come back when rows go.
#[derive(Debug)]
pub struct Sum<T: ArrowPrimitiveType> {
    output: DataType,
    slots: Slots<T::Native>,
    sum: T::Native,
    /// How often it went past the upper end of the type's values, less how often past the lower.
    wraps: i64,
    open: usize,
    found: Found<T::Native>,
}

impl<T: ArrowPrimitiveType> Sum<T> {
    /// Builds the state of a sum that is put out as a type.
    pub fn new(output: DataType) -> Self {
        let (slots, found, sum) = (Slots::default(), Found::default(), T::Native::ZERO);
        Self { output, slots, sum, wraps: 0, open: 0, found }
    }

    fn fits(&self) -> Result<()> {
        if self.wraps == 0 { Ok(()) } else { Err(too_wide(&self.output).into()) }
    }
}

impl<T: ArrowPrimitiveType> Following for Sum<T> {
    type Column = Values<T>;

    fn column(&self, argument: &ArrayRef) -> Result<Self::Column> {
        values(argument)
    }

    fn open(&mut self, column: &Self::Column, row: usize, slot: usize) {
        let value = value(column, row);
        if let Some(value) = value {
            if self.sum.add_checked(value).is_err() {
                self.wraps += if value.is_lt(T::Native::ZERO) { -1 } else { 1 };
            }
            self.sum = self.sum.add_wrapping(value);
            self.open += 1;
        }
        self.slots.put(slot, value);
    }

    fn close(&mut self, slot: usize) {
        if let Some(value) = self.slots.take(slot) {
            if self.sum.sub_checked(value).is_err() {
                self.wraps -= if value.is_lt(T::Native::ZERO) { -1 } else { 1 };
            }
            self.sum = self.sum.sub_wrapping(value);
            self.open -= 1;
        }
    }

    fn clear(&mut self) {
        (self.sum, self.wraps, self.open) = (T::Native::ZERO, 0, 0);
    }

    fn emit(&mut self) -> Result<()> {
        self.fits()?;
        self.found.push((self.open > 0).then_some(self.sum));
        Ok(())
    }

    fn take(&mut self) -> Result<ArrayRef> {
        let sums = column::<T>(std::mem::take(&mut self.found), self.output.clone());
        within(&sums)?;
        Ok(sums)
    }

    fn size(&self) -> usize {
        self.slots.bytes() + self.found.bytes()
    }
}

/// What is made of a sum of integers.
pub trait OfWhole: Send + Default {
    /// The type that is put out.
    type Output: ArrowPrimitiveType;

    /// Returns the value of a sum over some rows, at least one.
    fn of(sum: i128, open: i128) -> Result<<Self::Output as ArrowPrimitiveType>::Native>;
}

/// The sum itself, as long as it fits.
#[derive(Debug, Default)]
pub struct WholeSum;

impl OfWhole for WholeSum {
    type Output = Int64Type;

    fn of(sum: i128, _open: i128) -> Result<i64> {
        Ok(whole(sum)?)
    }
}

/// The average.
#[derive(Debug, Default)]
pub struct WholeMean;

impl OfWhole for WholeMean {
    type Output = Float64Type;

    fn of(sum: i128, open: i128) -> Result<f64> {
        Ok(float(sum) / float(open))
    }
}

/// The sum or average of integers: exact up to the division.
#[derive(Debug)]
pub struct Wholes<K: OfWhole> {
    slots: Slots<i64>,
    sum: i128,
    open: i128,
    found: Found<<K::Output as ArrowPrimitiveType>::Native>,
}

impl<K: OfWhole> Default for Wholes<K> {
    fn default() -> Self {
        Self { slots: Slots::default(), sum: 0, open: 0, found: Found::default() }
    }
}

impl<K: OfWhole> Following for Wholes<K> {
    type Column = Values<Int64Type>;

    fn column(&self, argument: &ArrayRef) -> Result<Self::Column> {
        values(&cast(argument, &DataType::Int64)?)
    }

    fn open(&mut self, column: &Self::Column, row: usize, slot: usize) {
        let value = value(column, row);
        if let Some(value) = value {
            self.sum += i128::from(value);
            self.open += 1;
        }
        self.slots.put(slot, value);
    }

    fn close(&mut self, slot: usize) {
        if let Some(value) = self.slots.take(slot) {
            self.sum -= i128::from(value);
            self.open -= 1;
        }
    }

    fn clear(&mut self) {
        (self.sum, self.open) = (0, 0);
    }

    fn emit(&mut self) -> Result<()> {
        let made = if self.open > 0 { Some(K::of(self.sum, self.open)?) } else { None };
        self.found.push(made);
        Ok(())
    }

    fn take(&mut self) -> Result<ArrayRef> {
        Ok(column::<K::Output>(std::mem::take(&mut self.found), K::Output::DATA_TYPE))
    }

    fn size(&self) -> usize {
        self.slots.bytes() + self.found.bytes()
    }
}

#[expect(clippy::cast_precision_loss, reason = "an average is a float")]
const fn float(whole: i128) -> f64 {
    whole as f64
}

/// The average of decimals, with more digits after the point than they have.
#[derive(Debug)]
pub struct DecimalMean {
    sum: Sum<Decimal128Type>,
    precision: u8,
    scale: i8,
    /// What a sum is multiplied by to have the scale.
    factor: i128,
}

impl DecimalMean {
    /// Builds the state of an average of decimals of one scale that is put out in another.
    pub fn new(from: i8, precision: u8, scale: i8) -> Self {
        let more = u32::try_from(scale - from).unwrap_or(0);
        let sum = Sum::new(DataType::Decimal128(precision, scale));
        Self { sum, precision, scale, factor: 10_i128.pow(more) }
    }

    fn mean(&self) -> Result<i128> {
        self.sum.fits()?;
        let open = i128::try_from(self.sum.open).unwrap_or(i128::MAX);
        let mean = self.sum.sum.checked_mul(self.factor).map(|scaled| scaled / open);
        let fits =
            |mean| Decimal128Type::validate_decimal_precision(mean, self.precision, self.scale);
        mean.filter(|mean| fits(*mean).is_ok()).ok_or_else(|| {
            let message = "an average of decimals does not fit its type";
            Error::new(SqlState::NumericOutOfRange, message).into()
        })
    }
}

impl Following for DecimalMean {
    type Column = Values<Decimal128Type>;

    fn column(&self, argument: &ArrayRef) -> Result<Self::Column> {
        values(argument)
    }

    fn open(&mut self, column: &Self::Column, row: usize, slot: usize) {
        self.sum.open(column, row, slot);
    }

    fn close(&mut self, slot: usize) {
        self.sum.close(slot);
    }

    fn clear(&mut self) {
        self.sum.clear();
    }

    fn emit(&mut self) -> Result<()> {
        let mean = if self.sum.open > 0 { Some(self.mean()?) } else { None };
        self.sum.found.push(mean);
        Ok(())
    }

    fn take(&mut self) -> Result<ArrayRef> {
        self.sum.take()
    }

    fn size(&self) -> usize {
        self.sum.size()
    }
}

/// What is made of a sum of floats.
pub trait OfFloats: Send + Default {
    /// Returns the value of a sum over some rows, at least one.
    fn of(sum: f64, open: usize) -> f64;
}

/// The sum itself.
#[derive(Debug, Default)]
pub struct FloatSum;

impl OfFloats for FloatSum {
    fn of(sum: f64, _open: usize) -> f64 {
        sum
    }
}

/// The average.
#[derive(Debug, Default)]
pub struct FloatMean;

impl OfFloats for FloatMean {
    #[expect(clippy::cast_precision_loss, reason = "rows are far fewer than 2^53")]
    fn of(sum: f64, open: usize) -> f64 {
        sum / open as f64
    }
}

/// The sum or average of floats: a tournament in which the winner is the sum.
#[derive(Debug, Default)]
pub struct Floats<K> {
    tree: Tournament<f64>,
    found: Found<f64>,
    kind: PhantomData<K>,
}

impl<K: OfFloats> Following for Floats<K> {
    type Column = Values<Float64Type>;

    fn column(&self, argument: &ArrayRef) -> Result<Self::Column> {
        values(argument)
    }

    fn open(&mut self, column: &Self::Column, row: usize, slot: usize) {
        if let Some(value) = value(column, row) {
            self.tree.put(slot, value, |one, other| one + other);
        }
    }

    fn close(&mut self, slot: usize) {
        self.tree.remove(slot, |one, other| one + other);
    }

    fn clear(&mut self) {
        self.tree.clear();
    }

    fn emit(&mut self) -> Result<()> {
        self.found.push(self.tree.winner().map(|sum| K::of(sum, self.tree.count())));
        Ok(())
    }

    fn take(&mut self) -> Result<ArrayRef> {
        let Found { values, present } = std::mem::take(&mut self.found);
        let nulls = if present.iter().all(|one| *one) { None } else { Some(present.into()) };
        let sums: Float64Array = PrimitiveArray::new(values.into(), nulls);
        Ok(Arc::new(sums) as Arc<dyn Array>)
    }

    fn size(&self) -> usize {
        self.tree.bytes() + self.found.bytes()
    }
}
