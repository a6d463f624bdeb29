//! `CONSTANT_INTERVAL(period)`: marks a GROUP BY as one over the intervals in which the same rows are
//! valid. [`crate::period_aggregate`] puts an operator in its place; the function itself never runs.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::plan_err;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use super::{answer, coerced_period};
use crate::columns::period_type;
use crate::error::{Error, Result, SqlState};

pub(super) fn register(state: &mut SessionState) -> Result<()> {
    let signature = Signature::user_defined(Volatility::Immutable);
    state.register_udf(Arc::new(ScalarUDF::from(ConstantInterval { signature })))?;
    Ok(())
}

/// True for the marker.
pub(crate) fn is_constant_interval(function: &ScalarUDF) -> bool {
    function.inner().downcast_ref::<ConstantInterval>().is_some()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ConstantInterval {
    signature: Signature,
}

impl ScalarUDFImpl for ConstantInterval {
    fn name(&self) -> &str {
        "constant_interval"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(period_type().data_type())
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs<'_>) -> DataFusionResult<FieldRef> {
        Ok(answer(self.name()))
    }

    fn coerce_types(&self, given: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        match given {
            [one] => Ok(vec![coerced_period("CONSTANT_INTERVAL", one)?]),
            _ => plan_err!("CONSTANT_INTERVAL takes one period"),
        }
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let message = "CONSTANT_INTERVAL stands in GROUP BY, on its own";
        Err(Error::new(SqlState::GroupingError, message).into())
    }
}
