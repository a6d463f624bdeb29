//! `sum` of integers: exact, and an error (22003) where what it comes to does not fit, where the engine's
//! own wraps. It is added up as decimals of 38 digits, which no sum of 64-bit integers exceeds.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array};
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature,
};

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

/// The engine's `sum` but over integers.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ExactSum {
    inner: Arc<AggregateUDF>,
}

fn is_whole(args: &AccumulatorArgs<'_>) -> bool {
    args.return_type() == &DataType::Int64
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
        if !is_whole(&args) {
            return self.inner.accumulator(args);
        }
        let of_distinct = args.is_distinct;
        let args = if of_distinct { args } else { wide(args) };
        Ok(Box::new(WholeSum { inner: self.inner.accumulator(args)?, of_distinct }))
    }

    fn create_sliding_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> DataFusionResult<Box<dyn Accumulator>> {
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
        if !is_whole(&args) {
            return self.inner.create_groups_accumulator(args);
        }
        Ok(Box::new(WidenedGroups(self.inner.create_groups_accumulator(wide(args))?)))
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

/// A sum for each group.
struct WidenedGroups(Box<dyn GroupsAccumulator>);

impl GroupsAccumulator for WidenedGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> DataFusionResult<()> {
        self.0.update_batch(&widened(values)?, group_indices, opt_filter, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> DataFusionResult<ArrayRef> {
        let sums = self.0.evaluate(emit_to)?;
        let narrow: Int64Array = sums.as_primitive::<Decimal128Type>().try_unary(whole)?;
        Ok(Arc::new(narrow))
    }

    fn state(&mut self, emit_to: EmitTo) -> DataFusionResult<Vec<ArrayRef>> {
        self.0.state(emit_to)
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> DataFusionResult<()> {
        self.0.merge_batch(values, group_indices, total_num_groups)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> DataFusionResult<Vec<ArrayRef>> {
        self.0.convert_to_state(&widened(values)?, opt_filter)
    }

    fn size(&self) -> usize {
        self.0.size()
    }
}
