//! `to_timestamp` and its kin, so that a column of text answers in the zone they promise.
//!
//! DataFusion 55 gives arrays made from text no zone, though the type it declares has one.

use std::sync::Arc;

use arrow::compute::cast;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl};

use super::wrapped::{Wrapped, Wrapping};
use crate::error::Result;

const NAMES: [&str; 5] = [
    "to_timestamp",
    "to_timestamp_seconds",
    "to_timestamp_millis",
    "to_timestamp_micros",
    "to_timestamp_nanos",
];

pub(super) fn register(state: &mut SessionState) -> Result<()> {
    for name in NAMES {
        let inner = state.udf(name)?;
        state.register_udf(Arc::new(ScalarUDF::from(Wrapped { inner, how: Zoned })))?;
    }
    Ok(())
}

/// Gives answers the zone of their declared type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Zoned;

impl Wrapping for Zoned {
    fn call(
        &self,
        inner: &dyn ScalarUDFImpl,
        args: ScalarFunctionArgs,
    ) -> DataFusionResult<ColumnarValue> {
        let declared = args.return_field.data_type().clone();
        match inner.invoke_with_args(args)? {
            ColumnarValue::Array(array) if *array.data_type() != declared => {
                Ok(ColumnarValue::Array(cast(&array, &declared)?))
            }
            other => Ok(other),
        }
    }
}
