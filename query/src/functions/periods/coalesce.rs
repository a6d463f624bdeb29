//! `COALESCE_PERIODS(period)`: an aggregate that joins periods which overlap or meet, as a list in
//! order of time: the normal form of a set of periods.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::DataType;
use datafusion::common::{ScalarValue, plan_err};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
};

use super::{Bounds, Periods, PeriodsBuilder, coerced_period, item};
use crate::error::Result;

/// Periods that are gathered before they are coalesced for the first time.
const GATHERED: usize = 1_024;

pub(super) fn register(state: &mut SessionState) -> Result<()> {
    let signature = Signature::user_defined(Volatility::Immutable);
    state.register_udaf(Arc::new(AggregateUDF::from(CoalescePeriods { signature })))?;
    Ok(())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CoalescePeriods {
    signature: Signature,
}

impl AggregateUDFImpl for CoalescePeriods {
    fn name(&self) -> &str {
        "coalesce_periods"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::List(item()))
    }

    fn coerce_types(&self, given: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        match given {
            [one] => Ok(vec![coerced_period("COALESCE_PERIODS", one)?]),
            _ => plan_err!("COALESCE_PERIODS takes one period"),
        }
    }

    fn accumulator(&self, _args: AccumulatorArgs<'_>) -> DataFusionResult<Box<dyn Accumulator>> {
        Ok(Box::new(Gathering { periods: Vec::new(), coalesce_at: GATHERED }))
    }
}

#[derive(Debug)]
struct Gathering {
    periods: Vec<Bounds>,
    /// Grows to twice of what coalescing left, so that the work stays proportional to the input.
    coalesce_at: usize,
}

impl Gathering {
    fn add(&mut self, array: &ArrayRef) -> DataFusionResult<()> {
        let periods = Periods::of(array)?;
        self.periods.extend((0..array.len()).filter_map(|row| periods.get(row)));
        if self.periods.len() >= self.coalesce_at {
            coalesce(&mut self.periods);
            self.coalesce_at = GATHERED.max(self.periods.len() * 2);
        }
        Ok(())
    }

    fn list(&mut self) -> ListArray {
        coalesce(&mut self.periods);
        let mut made = PeriodsBuilder::with_capacity(self.periods.len());
        self.periods.iter().for_each(|period| made.push(Some(*period)));
        let offsets = OffsetBuffer::from_lengths([self.periods.len()]);
        ListArray::new(item(), offsets, Arc::new(made.finish()), None)
    }
}

/// Brings periods in order, and joins those that overlap or meet.
pub(super) fn coalesce(periods: &mut Vec<Bounds>) {
    periods.sort_unstable();
    periods.dedup_by(|later, earlier| {
        let joins = later.0 <= earlier.1;
        if joins {
            earlier.1 = earlier.1.max(later.1);
        }
        joins
    });
}

impl Accumulator for Gathering {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DataFusionResult<()> {
        values.iter().try_for_each(|array| self.add(array))
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DataFusionResult<()> {
        for lists in states {
            let lists = lists.as_list::<i32>();
            (0..lists.len())
                .filter(|row| lists.is_valid(*row))
                .try_for_each(|row| self.add(&lists.value(row)))?;
        }
        Ok(())
    }

    fn state(&mut self) -> DataFusionResult<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::List(Arc::new(self.list()))])
    }

    fn evaluate(&mut self) -> DataFusionResult<ScalarValue> {
        Ok(ScalarValue::List(Arc::new(self.list())))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.periods.capacity() * size_of::<Bounds>()
    }
}
