//! A function behind something that looks at its calls: the same name, types and documentation.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

/// What is done at a call.
pub(super) trait Wrapping: Debug + PartialEq + Eq + Hash + Send + Sync + 'static {
    /// Calls the function. Past `ScalarUDF` itself, which checks the type in debug builds.
    fn call(
        &self,
        inner: &dyn ScalarUDFImpl,
        args: ScalarFunctionArgs,
    ) -> DataFusionResult<ColumnarValue>;
}

/// See the module.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Wrapped<W> {
    pub inner: Arc<ScalarUDF>,
    pub how: W,
}

impl<W: Wrapping> ScalarUDFImpl for Wrapped<W> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
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

    fn coerce_types(&self, given: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        self.inner.coerce_types(given)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        self.how.call(self.inner.inner().as_ref(), args)
    }
}
