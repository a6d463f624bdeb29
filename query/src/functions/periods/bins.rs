//! `RANGE_BINS(stride, period[, origin])`: the bins of equal width that a period runs through, each with
//! its share of the period, for averages that are weighted by time.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Float64Builder, ListArray, NullBufferBuilder, StructArray,
    TimestampMicrosecondBuilder,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, IntervalMonthDayNanoType, IntervalUnit};
use datafusion::common::plan_err;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::{BEGIN, Bounds, END, Instants, Periods, coerced_instant, coerced_period};
use crate::columns::text::MICROS_PER_DAY;
use crate::columns::timestamp_type;
use crate::error::{Error, Result, SqlState};

/// Bins of one period at most.
const BINS_MAX: i64 = 1_000_000;

pub(super) fn register(state: &mut SessionState) -> Result<()> {
    let signature = Signature::user_defined(Volatility::Immutable);
    state.register_udf(Arc::new(ScalarUDF::from(RangeBins { signature })))?;
    Ok(())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct RangeBins {
    signature: Signature,
}

fn bin_fields() -> Fields {
    Fields::from(vec![
        Field::new("_from", timestamp_type(), true),
        Field::new("_to", timestamp_type(), true),
        Field::new("_weight", DataType::Float64, true),
    ])
}

fn bin_item() -> Arc<Field> {
    Arc::new(Field::new_list_field(DataType::Struct(bin_fields()), true))
}

impl ScalarUDFImpl for RangeBins {
    fn name(&self) -> &str {
        "range_bins"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::List(bin_item()))
    }

    fn coerce_types(&self, given: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        let (stride, period, origin) = match given {
            [stride, period] => (stride, period, None),
            [stride, period, origin] => (stride, period, Some(origin)),
            _ => return plan_err!("RANGE_BINS takes a stride, a period and perhaps an origin"),
        };
        if !matches!(stride, DataType::Interval(_) | DataType::Duration(_) | DataType::Null) {
            return plan_err!("RANGE_BINS takes an interval first, not a value of type {stride}");
        }
        let mut coerced = vec![
            DataType::Interval(IntervalUnit::MonthDayNano),
            coerced_period("RANGE_BINS", period)?,
        ];
        if let Some(origin) = origin {
            coerced.push(coerced_instant("RANGE_BINS", origin)?);
        }
        Ok(coerced)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = args.number_rows;
        let strides = args.args[0].to_array(rows)?;
        let strides = strides.as_primitive::<IntervalMonthDayNanoType>();
        let periods = Periods::of(&args.args[1].to_array(rows)?)?;
        let origins = match args.args.get(2) {
            None => None,
            Some(origin) => Some(Instants::of(&origin.to_array(rows)?)?),
        };
        let mut bins = Bins::default();
        for row in 0..rows {
            let origin = origins.as_ref().map_or(Some(0), |origins| origins.get(row));
            let stride = (!arrow::array::Array::is_null(strides, row)).then(|| strides.value(row));
            let (Some(stride), Some(period), Some(origin)) = (stride, periods.get(row), origin)
            else {
                bins.end_row(false);
                continue;
            };
            let micros = micros_of(stride.months, stride.days, stride.nanoseconds)?;
            bins.add(micros, period, origin)?;
            bins.end_row(true);
        }
        Ok(ColumnarValue::Array(bins.finish()))
    }
}

/// Returns the length of a stride in microseconds.
fn micros_of(months: i32, days: i32, nanos: i64) -> Result<i64> {
    let refuse = |message: &str| Err(Error::new(SqlState::InvalidParameter, message));
    if months != 0 {
        return refuse("a stride of RANGE_BINS has no months: they differ in length");
    }
    if nanos % 1_000 != 0 {
        return refuse("a stride of RANGE_BINS counts whole microseconds");
    }
    match i64::from(days).checked_mul(MICROS_PER_DAY).and_then(|d| d.checked_add(nanos / 1_000)) {
        Some(micros) if micros > 0 => Ok(micros),
        _ => refuse("a stride of RANGE_BINS is longer than nothing"),
    }
}

/// The lists of bins of a column, in the making.
#[derive(Default)]
struct Bins {
    from: Vec<i64>,
    to: Vec<i64>,
    weight: Vec<f64>,
    ends: Vec<usize>,
    present: Vec<bool>,
}

impl Bins {
    fn add(&mut self, stride: i64, (from, to): Bounds, origin: i64) -> Result<()> {
        let refuse = |state, message: String| Err(Error::new(state, message));
        if from == BEGIN || to == END {
            let message = "RANGE_BINS takes a period with two ends";
            return refuse(SqlState::InvalidParameter, message.to_owned());
        }
        // Wide enough for any two instants.
        let wide = |at: i64| i128::from(at);
        let (stride, length) = (wide(stride), wide(to) - wide(from));
        let first = (wide(from) - wide(origin)).div_euclid(stride);
        let last = (wide(to) - 1 - wide(origin)).div_euclid(stride);
        if last - first >= wide(BINS_MAX) {
            let message = format!("a period runs through more than {BINS_MAX} bins");
            return refuse(SqlState::LimitExceeded, message);
        }
        for bin in first..=last {
            let (start, end) = (wide(origin) + bin * stride, wide(origin) + (bin + 1) * stride);
            let within = end.min(wide(to)) - start.max(wide(from));
            self.from.push(i64::try_from(start).unwrap_or(BEGIN));
            self.to.push(i64::try_from(end).unwrap_or(END));
            self.weight.push(ratio(within, length));
        }
        Ok(())
    }

    fn end_row(&mut self, is_present: bool) {
        self.ends.push(self.from.len());
        self.present.push(is_present);
    }

    fn finish(self) -> ArrayRef {
        let instants = |values: Vec<i64>| -> ArrayRef {
            let mut column = TimestampMicrosecondBuilder::with_capacity(values.len())
                .with_data_type(timestamp_type());
            column.append_slice(&values);
            Arc::new(column.finish())
        };
        let mut weights = Float64Builder::with_capacity(self.weight.len());
        weights.append_slice(&self.weight);
        let columns = vec![instants(self.from), instants(self.to), Arc::new(weights.finish()) as _];
        let bins = StructArray::new(bin_fields(), columns, None);
        let starts = std::iter::once(&0).chain(&self.ends);
        let lengths = self.ends.iter().zip(starts).map(|(end, start)| end - start);
        let offsets = OffsetBuffer::from_lengths(lengths);
        let mut present = NullBufferBuilder::new(self.present.len());
        self.present.iter().for_each(|present_| present.append(*present_));
        Arc::new(ListArray::new(bin_item(), offsets, Arc::new(bins), present.finish()))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
fn ratio(part: i128, whole: i128) -> f64 {
    part as f64 / whole as f64
}
