//! `sum` of integers and decimals: exact, and an error (22003) where what it comes to does not fit, where
//! the engine's own wraps. Integers are added up as decimals of 38 digits, which no sum of 64-bit integers
//! exceeds; decimals with a look at each step, so that one is refused too where a part of it does not fit.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array};
use arrow::datatypes::{DataType, Decimal128Type, DecimalType, Field, FieldRef, Int64Type, i256};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature,
};

use datafusion_functions_aggregate_common::aggregate::groups_accumulator::prim_op::PrimitiveGroupsAccumulator;

use crate::error::{Error, Result, SqlState};

/// What integers are added up as.
const WIDE: DataType = DataType::Decimal128(38, 0);

/// Puts the exact sum in the place of the engine's.
pub(super) fn register(state: &mut SessionState) -> Result<()> {
    let inner = state.udaf("sum")?;
    state.register_udaf(Arc::new(AggregateUDF::from(ExactSum { inner })))?;
    Ok(())
}

/// Returns an integer, or the error that it is none of 64 bits.
///
/// # Errors
/// 22003.
pub(crate) fn whole(sum: i128) -> Result<i64> {
    i64::try_from(sum).map_err(|_| {
        let message = format!("sum is {sum}, which does not fit int64");
        let advice = "sum a float or decimal: sum(CAST(.. AS DECIMAL))";
        Error::new(SqlState::NumericOutOfRange, message).with_hint(advice)
    })
}

/// Returns the error of a sum that its type cannot hold.
pub(crate) fn too_wide(output: &DataType) -> Error {
    let digits = match output {
        DataType::Decimal128(precision, scale) => {
            format!("decimal({precision},{scale})")
        }
        other => other.to_string(),
    };
    let advice = "sum a float: sum(CAST(.. AS FLOAT))";
    Error::new(SqlState::NumericOutOfRange, format!("sum does not fit {digits}")).with_hint(advice)
}

/// Refuses decimals that have more digits than their type.
///
/// # Errors
/// 22003.
pub(crate) fn within(sums: &ArrayRef) -> DataFusionResult<()> {
    let (Some(decimals), DataType::Decimal128(precision, _)) =
        (sums.as_primitive_opt::<Decimal128Type>(), sums.data_type())
    else {
        return Ok(());
    };
    let checked = decimals.validate_decimal_precision(*precision);
    checked.map_err(|_| too_wide(sums.data_type()).into())
}

/// The engine's `sum` but over integers and wide decimals.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ExactSum {
    inner: Arc<AggregateUDF>,
}

fn is_whole(args: &AccumulatorArgs<'_>) -> bool {
    args.return_type() == &DataType::Int64
}

/// True for decimals that few rows may lead out of: fewer digits leave room for 10^10 rows.
fn is_wide(args: &AccumulatorArgs<'_>) -> bool {
    matches!(args.return_type(), DataType::Decimal128(38, _))
}

/// Returns the arguments of the same sum over wide decimals.
fn wide(args: AccumulatorArgs<'_>) -> AccumulatorArgs<'_> {
    let field = args.return_field.as_ref().clone().with_data_type(WIDE);
    AccumulatorArgs { return_field: Arc::new(field), ..args }
}

impl AggregateUDFImpl for ExactSum {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> DataFusionResult<DataType> {
        self.inner.return_type(arguments)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> DataFusionResult<Box<dyn Accumulator>> {
        let of_distinct = args.is_distinct;
        if is_wide(&args) {
            let output = args.return_type().clone();
            let kept = if of_distinct { Some(self.inner.accumulator(args)?) } else { None };
            return Ok(Box::new(DecimalSum { kept, sum: None, output }));
        }
        if !is_whole(&args) {
            return self.inner.accumulator(args);
        }
        let args = if of_distinct { args } else { wide(args) };
        Ok(Box::new(WholeSum { inner: self.inner.accumulator(args)?, of_distinct }))
    }

    fn create_sliding_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> DataFusionResult<Box<dyn Accumulator>> {
        if is_wide(&args) && !args.is_distinct {
            let output = args.return_type().clone();
            return Ok(Box::new(SlidingDecimals { rows: 0, sum: i256::ZERO, output }));
        }
        if !is_whole(&args) || args.is_distinct {
            return self.inner.create_sliding_accumulator(args);
        }
        let inner = self.inner.create_sliding_accumulator(wide(args))?;
        Ok(Box::new(WholeSum { inner, of_distinct: false }))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> DataFusionResult<Vec<FieldRef>> {
        if args.return_type() != &DataType::Int64 || args.is_distinct {
            return self.inner.state_fields(args);
        }
        Ok(vec![Arc::new(Field::new(format_state_name(args.name, "sum"), WIDE, true))])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> DataFusionResult<Box<dyn GroupsAccumulator>> {
        if is_wide(&args) {
            let sums =
                PrimitiveGroupsAccumulator::<Decimal128Type, _>::new(args.return_type(), add);
            return Ok(Box::new(Groups {
                inner: Box::new(sums),
                taken: |values| Ok([Arc::new(decimals(values)?.clone())]),
                put_out: |sums| within(&sums).map(|()| sums),
            }));
        }
        if !is_whole(&args) {
            return self.inner.create_groups_accumulator(args);
        }
        let inner = self.inner.create_groups_accumulator(wide(args))?;
        Ok(Box::new(Groups { inner, taken: widened, put_out: narrowed }))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// Returns a column of integers as wide decimals.
fn widened(values: &[ArrayRef]) -> DataFusionResult<[ArrayRef; 1]> {
    let Some(whole) = values.first().and_then(|column| column.as_primitive_opt::<Int64Type>())
    else {
        return datafusion::common::internal_err!("a sum's argument is no column of integers");
    };
    let wide: Decimal128Array = whole.unary::<_, Decimal128Type>(i128::from);
    Ok([Arc::new(wide.with_precision_and_scale(38, 0)?)])
}

/// One sum.
#[derive(Debug)]
struct WholeSum {
    inner: Box<dyn Accumulator>,
    /// Each value counts once: the engine's keeps them, and they are added up here.
    of_distinct: bool,
}

impl WholeSum {
    fn distinct(&mut self) -> DataFusionResult<Option<i128>> {
        let mut sum = None;
        for state in self.inner.state()? {
            let ScalarValue::List(kept) = state else {
                return datafusion::common::internal_err!("distinct values are kept as {state:?}");
            };
            for value in kept.values().as_primitive::<Int64Type>().iter().flatten() {
                sum = Some(sum.unwrap_or(0) + i128::from(value));
            }
        }
        Ok(sum)
    }

    fn all(&mut self) -> DataFusionResult<Option<i128>> {
        match self.inner.evaluate()? {
            ScalarValue::Decimal128(sum, ..) => Ok(sum),
            other => datafusion::common::internal_err!("a sum of integers is {other:?}"),
        }
    }
}

impl Accumulator for WholeSum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DataFusionResult<()> {
        if self.of_distinct {
            return self.inner.update_batch(values);
        }
        self.inner.update_batch(&widened(values)?)
    }

    fn evaluate(&mut self) -> DataFusionResult<ScalarValue> {
        let sum = if self.of_distinct { self.distinct()? } else { self.all()? };
        Ok(ScalarValue::Int64(sum.map(whole).transpose()?))
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn state(&mut self) -> DataFusionResult<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DataFusionResult<()> {
        self.inner.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DataFusionResult<()> {
        self.inner.retract_batch(&widened(values)?)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }
}

/// A sum for each group, of what the values are taken as, put out as what the sums come to.
struct Groups {
    inner: Box<dyn GroupsAccumulator>,
    taken: fn(&[ArrayRef]) -> DataFusionResult<[ArrayRef; 1]>,
    put_out: fn(ArrayRef) -> DataFusionResult<ArrayRef>,
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> DataFusionResult<()> {
        let values = (self.taken)(values)?;
        self.inner.update_batch(&values, group_indices, opt_filter, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> DataFusionResult<ArrayRef> {
        (self.put_out)(self.inner.evaluate(emit_to)?)
    }

    fn state(&mut self, emit_to: EmitTo) -> DataFusionResult<Vec<ArrayRef>> {
        self.inner.state(emit_to)
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> DataFusionResult<()> {
        self.inner.merge_batch(values, group_indices, total_num_groups)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> DataFusionResult<Vec<ArrayRef>> {
        self.inner.convert_to_state(&(self.taken)(values)?, opt_filter)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}

/// Returns sums of integers as integers.
fn narrowed(sums: ArrayRef) -> DataFusionResult<ArrayRef> {
    let narrow: Int64Array = sums.as_primitive::<Decimal128Type>().try_unary(whole)?;
    Ok(Arc::new(narrow))
}

/// What stands for a sum that was too wide: no decimal of 38 digits is as large.
const TOO_WIDE: i128 = i128::MAX;

/// Adds to a sum; one that is too wide stays so.
fn add(sum: &mut i128, value: i128) {
    *sum = match (*sum, value) {
        (TOO_WIDE, _) | (_, TOO_WIDE) => TOO_WIDE,
        (sum, value) => sum.checked_add(value).unwrap_or(TOO_WIDE),
    };
}

fn decimals(values: &[ArrayRef]) -> DataFusionResult<&Decimal128Array> {
    let column = values.first().and_then(|column| column.as_primitive_opt::<Decimal128Type>());
    match column {
        Some(column) => Ok(column),
        None => datafusion::common::internal_err!("a sum's argument is no column of decimals"),
    }
}

/// Returns a sum as it is put out.
fn fitting(sum: Option<i128>, output: &DataType) -> DataFusionResult<ScalarValue> {
    let DataType::Decimal128(precision, scale) = *output else {
        return datafusion::common::internal_err!("a sum of decimals is {output}");
    };
    let fits = |sum| Decimal128Type::validate_decimal_precision(sum, precision, scale).is_ok();
    match sum.is_none_or(fits) {
        true => Ok(ScalarValue::Decimal128(sum, precision, scale)),
        false => Err(too_wide(output).into()),
    }
}

/// One sum of decimals.
#[derive(Debug)]
struct DecimalSum {
    /// Each value counts once: the engine's sum keeps them, and they are added up here.
    kept: Option<Box<dyn Accumulator>>,
    sum: Option<i128>,
    output: DataType,
}

impl DecimalSum {
    fn add(&mut self, values: &Decimal128Array) {
        for value in values.iter().flatten() {
            add(self.sum.get_or_insert(0), value);
        }
    }
}

impl Accumulator for DecimalSum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DataFusionResult<()> {
        match &mut self.kept {
            Some(kept) => kept.update_batch(values),
            None => {
                self.add(decimals(values)?);
                Ok(())
            }
        }
    }

    fn evaluate(&mut self) -> DataFusionResult<ScalarValue> {
        let Some(kept) = &mut self.kept else { return fitting(self.sum, &self.output) };
        // In whatever order they are kept.
        let mut all = SlidingDecimals { rows: 0, sum: i256::ZERO, output: self.output.clone() };
        for state in kept.state()? {
            let ScalarValue::List(kept) = state else {
                return datafusion::common::internal_err!("distinct values are {state:?}");
            };
            all.update_batch(&[Arc::clone(kept.values())])?;
        }
        SlidingDecimals::evaluate(&all)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.kept.as_ref().map_or(0, |kept| kept.size())
    }

    fn state(&mut self) -> DataFusionResult<Vec<ScalarValue>> {
        match (&mut self.kept, &self.output) {
            (Some(kept), _) => kept.state(),
            (None, DataType::Decimal128(precision, scale)) => {
                Ok(vec![ScalarValue::Decimal128(self.sum, *precision, *scale)])
            }
            (None, other) => datafusion::common::internal_err!("a sum of decimals is {other}"),
        }
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DataFusionResult<()> {
        match &mut self.kept {
            Some(kept) => kept.merge_batch(states),
            None => {
                self.add(decimals(states)?);
                Ok(())
            }
        }
    }
}

/// The sum over a window's frame: rows come and go.
#[derive(Debug)]
struct SlidingDecimals {
    rows: usize,
    /// Wide enough for any number of rows.
    sum: i256,
    output: DataType,
}

impl SlidingDecimals {
    fn evaluate(&self) -> DataFusionResult<ScalarValue> {
        let sum = match self.sum.to_i128() {
            Some(sum) => sum,
            None => return Err(too_wide(&self.output).into()),
        };
        fitting((self.rows > 0).then_some(sum), &self.output)
    }
}

impl Accumulator for SlidingDecimals {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DataFusionResult<()> {
        for value in decimals(values)?.iter().flatten() {
            self.sum = self.sum.wrapping_add(i256::from_i128(value));
            self.rows += 1;
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DataFusionResult<()> {
        for value in decimals(values)?.iter().flatten() {
            self.sum = self.sum.wrapping_sub(i256::from_i128(value));
            self.rows = self.rows.saturating_sub(1);
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> DataFusionResult<ScalarValue> {
        Self::evaluate(self)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> DataFusionResult<Vec<ScalarValue>> {
        Ok(vec![Self::evaluate(self)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DataFusionResult<()> {
        self.update_batch(states)
    }
}
