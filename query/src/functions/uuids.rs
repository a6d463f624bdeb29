//! UUIDs, which are text of one form in Arrow: casts to them check it and write it in lower case, and what
//! they are compared with is brought to the same form, so that equal ones are equal texts.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ExprSchema, ScalarValue};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{InList, ScalarFunction};
use datafusion::logical_expr::{
    Between, BinaryExpr, ColumnarValue, Expr, LogicalPlan, Operator, ReturnFieldArgs,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use everwhen_storage::{ColumnType, Value};

use super::rules::map_expressions;
use crate::columns::text::parse_value;
use crate::columns::{ColumnBuilder, UUID_EXTENSION, cast_column, field_of, is_extension, text_of};

/// Runs after DataFusion has made the types of both sides equal.
#[derive(Debug)]
pub struct UuidsOfOneForm;

impl AnalyzerRule for UuidsOfOneForm {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        map_expressions(plan, uuids_of_one_form)
    }

    fn name(&self) -> &'static str {
        "uuids_of_one_form"
    }
}

/// Brings the UUIDs of an expression to their one form, as the rule does with those of a plan.
pub(crate) fn uuids_of_one_form(
    expr: Expr,
    schema: &DFSchema,
) -> DataFusionResult<Transformed<Expr>> {
    expr.transform_up(|expr| of_one_form(expr, schema))
}

fn of_one_form(expr: Expr, schema: &DFSchema) -> DataFusionResult<Transformed<Expr>> {
    Ok(match expr {
        Expr::Cast(cast) if is_extension(&cast.field, UUID_EXTENSION) => {
            Transformed::yes(to_uuid(*cast.expr, true))
        }
        Expr::TryCast(cast) if is_extension(&cast.field, UUID_EXTENSION) => {
            Transformed::yes(to_uuid(*cast.expr, false))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => {
            let (left, right) = match (is_uuid(&left, schema), is_uuid(&right, schema)) {
                (true, false) => (left, Box::new(literal_to_uuid(*right)?)),
                (false, true) => (Box::new(literal_to_uuid(*left)?), right),
                _ => (left, right),
            };
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        Expr::InList(InList { expr, list, negated }) if is_uuid(&expr, schema) => {
            let list = list.into_iter().map(literal_to_uuid).collect::<DataFusionResult<_>>()?;
            Transformed::yes(Expr::InList(InList { expr, list, negated }))
        }
        Expr::Between(Between { expr, negated, low, high }) if is_uuid(&expr, schema) => {
            let (low, high) = (Box::new(literal_to_uuid(*low)?), Box::new(literal_to_uuid(*high)?));
            Transformed::yes(Expr::Between(Between { expr, negated, low, high }))
        }
        other => Transformed::no(other),
    })
}

const fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// True for a column of UUIDs and for what was made one.
fn is_uuid(expr: &Expr, schema: &DFSchema) -> bool {
    match expr {
        Expr::Column(column) => {
            schema.field_from_column(column).is_ok_and(|field| is_extension(field, UUID_EXTENSION))
        }
        Expr::ScalarFunction(call) => call.func.inner().is::<ToUuid>(),
        Expr::Alias(alias) => is_uuid(&alias.expr, schema),
        _ => false,
    }
}

/// Brings a text to the form of UUIDs; other expressions stay.
fn literal_to_uuid(expr: Expr) -> DataFusionResult<Expr> {
    let Expr::Literal(ScalarValue::Utf8(Some(text)), metadata) = &expr else { return Ok(expr) };
    let text = text_of(&parse_value(text, &ColumnType::Uuid)?);
    Ok(Expr::Literal(ScalarValue::Utf8(Some(text)), metadata.clone()))
}

fn to_uuid(expr: Expr, strict: bool) -> Expr {
    let function = ToUuid { strict, signature: Signature::any(1, Volatility::Immutable) };
    let func = Arc::new(ScalarUDF::from(function));
    Expr::ScalarFunction(ScalarFunction { func, args: vec![expr] })
}

/// Checks texts and writes them in one form.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ToUuid {
    /// A text that is none is an error, not NULL.
    strict: bool,
    signature: Signature,
}

impl ScalarUDFImpl for ToUuid {
    fn name(&self) -> &str {
        if self.strict { "to_uuid" } else { "try_to_uuid" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DataFusionResult<DataType> {
        Ok(ColumnType::Uuid.data_type())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs<'_>) -> DataFusionResult<FieldRef> {
        Ok(Arc::new(field_of(self.name(), &ColumnType::Uuid)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let is_scalar = matches!(args.args.as_slice(), [ColumnarValue::Scalar(_)]);
        let rows = if is_scalar { 1 } else { args.number_rows };
        let mut column = ColumnBuilder::new(&ColumnType::Uuid, rows);
        for array in ColumnarValue::values_to_arrays(&args.args)? {
            let texts = cast_column(&array, &ColumnType::Text)?;
            for text in arrow::array::AsArray::as_string::<i32>(&texts) {
                let value = match text {
                    None => Value::Null,
                    Some(text) => match parse_value(text, &ColumnType::Uuid) {
                        Err(error) if self.strict => return Err(error.into()),
                        parsed => parsed.unwrap_or(Value::Null),
                    },
                };
                column.append(&value);
            }
        }
        let array = column.finish();
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?),
            false => ColumnarValue::Array(array),
        })
    }
}
