//! `min` and `max` of floats by groups: NaN is greater than every number, and infinities count. The
//! engine's own begin with the largest finite number, and take a NaN by where it stands among the rows.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Float64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF,
    SetMonotonicity, Signature, StatisticsArgs,
};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::prim_op::PrimitiveGroupsAccumulator;

use super::floats::canonical;
use crate::error::Result;

/// Puts the extremes of floats in the place of the engine's.
pub(super) fn register(state: &mut SessionState) -> Result<()> {
    for (name, wins, least) in [("min", Ordering::Less, false), ("max", Ordering::Greater, true)] {
        let inner = state.udaf(name)?;
        let extreme = Extreme { inner, wins, starts_least: least };
        state.register_udaf(Arc::new(AggregateUDF::from(extreme)))?;
    }
    Ok(())
}

/// The engine's function but over floats by groups.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Extreme {
    inner: Arc<AggregateUDF>,
    /// How a value compares with the one so far where it takes its place.
    wins: Ordering,
    starts_least: bool,
}

impl AggregateUDFImpl for Extreme {
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
        self.inner.accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> DataFusionResult<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> DataFusionResult<Box<dyn GroupsAccumulator>> {
        if args.return_type() != &DataType::Float64 {
            return self.inner.create_groups_accumulator(args);
        }
        let wins = self.wins;
        let start = if self.starts_least { f64::NEG_INFINITY } else { f64::NAN };
        let extreme = move |so_far: &mut f64, value: f64| {
            let value = canonical(value);
            if value.total_cmp(so_far) == wins {
                *so_far = value;
            }
        };
        let extremes =
            PrimitiveGroupsAccumulator::<Float64Type, _>::new(args.return_type(), extreme);
        Ok(Box::new(extremes.with_starting_value(start)))
    }

    fn create_sliding_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> DataFusionResult<Box<dyn Accumulator>> {
        self.inner.create_sliding_accumulator(args)
    }

    fn is_descending(&self) -> Option<bool> {
        self.inner.is_descending()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }

    fn coerce_types(&self, given: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        self.inner.coerce_types(given)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn value_from_stats(&self, statistics: &StatisticsArgs<'_>) -> Option<ScalarValue> {
        self.inner.value_from_stats(statistics)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn set_monotonicity(&self, kind: &DataType) -> SetMonotonicity {
        self.inner.inner().set_monotonicity(kind)
    }
}
