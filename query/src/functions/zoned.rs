//! `to_timestamp` and its kin, so that a column of text answers in the zone they promise.
//!
//! DataFusion 55 gives arrays made from text no zone, though the type it declares has one.

use std::sync::Arc;

use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

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
        state.register_udf(Arc::new(ScalarUDF::from(Zoned { inner })))?;
    }
    Ok(())
}

/// A function whose answers get the zone of its declared type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Zoned {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for Zoned {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> DataFusionResult<DataType> {
        self.inner.return_type(arguments)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> DataFusionResult<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let declared = args.return_field.data_type().clone();
        // Past the outer function, which checks the type in debug builds.
        let value = self.inner.inner().invoke_with_args(args)?;
        match value {
            ColumnarValue::Array(array) if *array.data_type() != declared => {
                Ok(ColumnarValue::Array(cast(&array, &declared)?))
            }
            other => Ok(other),
        }
    }
}
