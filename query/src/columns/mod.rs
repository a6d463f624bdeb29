//! The one mapping between stored values, Arrow columns and the contract's JSON forms.
//!
//! [`builder`] goes from values to columns, this file from columns to values, [`json`] between
//! either and JSON, [`text`] holds the text forms. Nothing here knows tables or statements.

pub mod builder;
pub mod json;
pub mod text;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder, UnionArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float64Type, Int64Type, Time64MicrosecondType,
    TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::ScalarValue;
use datafusion_functions_json::{JsonUnionEncoder, JsonUnionValue};
use everwhen_storage::{ColumnType, ValidTime, Value};

use crate::error::{Error, Result, SqlState};

pub use builder::ColumnBuilder;
pub use json::{json_of, json_to_value, kind_of_json};
pub use text::{parse_decimal, text_of};

/// The key of a field's extension type in its metadata.
pub const EXTENSION_NAME: &str = "ARROW:extension:name";
/// The extension type of JSON text.
pub const JSON_EXTENSION: &str = "arrow.json";
/// The extension type of UUIDs as text (`arrow.uuid` is one of bytes).
pub const UUID_EXTENSION: &str = "everwhen.uuid";
/// The extension type of a period: a struct of two instants, NULL at an open end.
pub const PERIOD_EXTENSION: &str = "everwhen.period";

/// Returns the stored type nearest to an Arrow type; nothing for types that have none.
pub fn column_type(data_type: &DataType) -> Option<ColumnType> {
    Some(match data_type {
        DataType::Boolean => ColumnType::Bool,
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64 => ColumnType::Int64,
        DataType::Float16 | DataType::Float32 | DataType::Float64 => ColumnType::Float64,
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => ColumnType::Decimal,
        DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Null
        | DataType::Interval(_)
        | DataType::Duration(_) => ColumnType::Text,
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => ColumnType::Bytes,
        DataType::Date32 | DataType::Date64 => ColumnType::Date,
        DataType::Time32(_) | DataType::Time64(_) => ColumnType::Time,
        DataType::Timestamp(..) => ColumnType::Timestamp,
        DataType::Union(..) => ColumnType::Json,
        DataType::Dictionary(_, values) => column_type(values)?,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::FixedSizeList(item, _) => ColumnType::List(Box::new(field_type(item)?)),
        DataType::Struct(fields) => ColumnType::Struct(
            fields
                .iter()
                .map(|field| Some((field.name().clone(), field_type(field)?)))
                .collect::<Option<_>>()?,
        ),
        _ => return None,
    })
}

/// Returns the stored type nearest to a field's: as [`column_type`], JSON or UUID where marked.
pub fn field_type(field: &Field) -> Option<ColumnType> {
    if is_extension(field, JSON_EXTENSION) {
        return Some(ColumnType::Json);
    }
    if is_extension(field, UUID_EXTENSION) {
        return Some(ColumnType::Uuid);
    }
    column_type(field.data_type())
}

/// True where a field is marked with an extension type.
pub fn is_extension(field: &Field, extension: &str) -> bool {
    field.metadata().get(EXTENSION_NAME).is_some_and(|name| name == extension)
}

/// Builds the field of a column: nullable, and marked where it is JSON or a UUID.
pub fn field_of(name: &str, kind: &ColumnType) -> Field {
    let field = Field::new(name, kind.data_type(), true);
    match kind {
        ColumnType::Json => marked(field, JSON_EXTENSION),
        ColumnType::Uuid => marked(field, UUID_EXTENSION),
        _ => field,
    }
}

/// Builds the field of a period column.
pub fn period_field(name: &str) -> Field {
    marked(Field::new(name, period_type().data_type(), true), PERIOD_EXTENSION)
}

/// Returns the type of a period: a struct of `from` and `to`.
pub fn period_type() -> ColumnType {
    ColumnType::Struct(vec![
        ("from".to_owned(), ColumnType::Timestamp),
        ("to".to_owned(), ColumnType::Timestamp),
    ])
}

fn marked(field: Field, extension: &str) -> Field {
    field.with_metadata(HashMap::from([(EXTENSION_NAME.to_owned(), extension.to_owned())]))
}

/// Returns the contract's name of a field's type: `int64`, `decimal(10,2)`, `period`, ...
pub fn type_name(field: &Field) -> String {
    if is_extension(field, PERIOD_EXTENSION) {
        return "period".to_owned();
    }
    match field.data_type() {
        DataType::Decimal128(precision, scale) => format!("decimal({precision},{scale})"),
        _ => field_type(field).map_or_else(|| "text".to_owned(), |kind| kind.to_string()),
    }
}

/// Casts a column to a stored type's Arrow form. Text becomes an instant by RFC 3339.
///
/// # Errors
/// 22P02, 22003 or 22008 where a value does not fit, 42804 where the types have no cast.
pub fn cast_column(array: &ArrayRef, kind: &ColumnType) -> Result<ArrayRef> {
    let to = kind.data_type();
    let from = array.data_type();
    if *from == to {
        return Ok(Arc::clone(array));
    }
    match (from, kind) {
        (DataType::Null, _) => return Ok(new_null_array(&to, array.len())),
        (DataType::Union(..), ColumnType::Json | ColumnType::Text) => {
            return json_union_column(array, *kind == ColumnType::Json);
        }
        (DataType::Union(..), _) => return cast_column(&json_union_column(array, false)?, kind),
        (DataType::Dictionary(_, values), _) => {
            return cast_column(&cast(array, values)?, kind);
        }
        (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View, _) if parses(kind) => {
            return parse_column(&cast(array, &DataType::Utf8)?, kind);
        }
        (_, ColumnType::Text | ColumnType::Json) if needs_text_form(from) => {
            return text_column(array, kind);
        }
        _ => {}
    }
    cast(array, &to)
}

/// True where text becomes this type by our own rules rather than Arrow's laxer ones.
fn parses(kind: &ColumnType) -> bool {
    matches!(
        kind,
        ColumnType::Timestamp
            | ColumnType::Date
            | ColumnType::Decimal
            | ColumnType::List(_)
            | ColumnType::Struct(_)
    )
}

/// True where a value's text is ours rather than Arrow's.
fn needs_text_form(from: &DataType) -> bool {
    matches!(
        from,
        DataType::Timestamp(..)
            | DataType::Decimal128(..)
            | DataType::Time64(_)
            | DataType::Time32(_)
            | DataType::Float64
            | DataType::Float32
            | DataType::List(_)
            | DataType::LargeList(_)
            | DataType::FixedSizeList(..)
            | DataType::Struct(_)
    )
}

fn cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let from = array.data_type();
    if !arrow::compute::can_cast_types(from, to) {
        let message = format!("a value of type {from} cannot become {to}");
        return Err(Error::new(SqlState::DatatypeMismatch, message));
    }
    Ok(cast_with_options(array, to, &options)?)
}

fn parse_column(texts: &ArrayRef, kind: &ColumnType) -> Result<ArrayRef> {
    let texts = texts.as_string::<i32>();
    let mut column = ColumnBuilder::new(kind, texts.len());
    for text in texts {
        match text {
            None => column.append(&Value::Null),
            Some(text) => column.append(&text::parse_value(text, kind)?),
        }
    }
    Ok(column.finish())
}

fn text_column(array: &ArrayRef, kind: &ColumnType) -> Result<ArrayRef> {
    let from = column_type(array.data_type()).unwrap_or(ColumnType::Text);
    let array = if matches!(array.data_type(), DataType::Decimal128(..)) {
        Arc::clone(array)
    } else {
        cast_column(array, &from)?
    };
    let mut column = StringBuilder::with_capacity(array.len(), array.len() * 16);
    for row in 0..array.len() {
        if array.is_null(row) {
            column.append_null();
            continue;
        }
        let json = json_of(&array, row, &from);
        match (json, kind) {
            (serde_json::Value::String(text), ColumnType::Text) => column.append_value(text),
            (json, _) => column.append_value(json.to_string()),
        }
    }
    Ok(Arc::new(column.finish()))
}

/// Turns the union that JSON operators answer into JSON text, or into the plain text of scalars.
fn json_union_column(array: &ArrayRef, as_json: bool) -> Result<ArrayRef> {
    let union = array.as_any().downcast_ref::<UnionArray>().cloned();
    let Some(encoder) = union.and_then(JsonUnionEncoder::from_union) else {
        let message = format!("a value of type {} cannot become text", array.data_type());
        return Err(Error::new(SqlState::DatatypeMismatch, message));
    };
    let mut column = StringBuilder::with_capacity(encoder.len(), encoder.len() * 16);
    for row in 0..encoder.len() {
        match encoder.get_value(row) {
            JsonUnionValue::JsonNull => column.append_null(),
            JsonUnionValue::Bool(value) => column.append_value(value.to_string()),
            JsonUnionValue::Int(value) => column.append_value(value.to_string()),
            JsonUnionValue::Float(value) => column.append_value(text::float_text(value)),
            JsonUnionValue::Str(text) if as_json => {
                column.append_value(serde_json::Value::from(text).to_string());
            }
            JsonUnionValue::Str(text)
            | JsonUnionValue::Array(text)
            | JsonUnionValue::Object(text) => column.append_value(text),
        }
    }
    Ok(Arc::new(column.finish()))
}

/// Returns one value of a column that [`cast_column`] brought to `kind`.
///
/// # Errors
/// XX000 where the array is not of the type's Arrow form, 22P02 for a text that is no UUID.
pub fn value_at(array: &dyn Array, row: usize, kind: &ColumnType) -> Result<Value> {
    if array.is_null(row) || *array.data_type() == DataType::Null {
        return Ok(Value::Null);
    }
    let foreign = || {
        let message = format!("a column of type {} was read as {kind}", array.data_type());
        Error::internal(message)
    };
    let value = match kind {
        ColumnType::Bool => array.as_boolean_opt().map(|a| Value::Bool(a.value(row))),
        ColumnType::Int64 => {
            array.as_primitive_opt::<Int64Type>().map(|a| Value::Int(a.value(row)))
        }
        ColumnType::Float64 => {
            array.as_primitive_opt::<Float64Type>().map(|a| Value::Float(a.value(row)))
        }
        ColumnType::Decimal => array
            .as_primitive_opt::<Decimal128Type>()
            .filter(|_| *array.data_type() == ColumnType::Decimal.data_type())
            .map(|a| Value::Decimal(a.value(row))),
        ColumnType::Text => {
            array.as_string_opt::<i32>().map(|a| Value::Text(a.value(row).to_owned()))
        }
        ColumnType::Uuid => match array.as_string_opt::<i32>() {
            Some(texts) => Some(text::parse_value(texts.value(row), kind)?),
            None => None,
        },
        ColumnType::Json => {
            array.as_string_opt::<i32>().map(|a| Value::Json(a.value(row).to_owned()))
        }
        ColumnType::Bytes => {
            array.as_binary_opt::<i32>().map(|a| Value::Bytes(a.value(row).to_vec()))
        }
        ColumnType::Date => {
            array.as_primitive_opt::<Date32Type>().map(|a| Value::Date(a.value(row)))
        }
        ColumnType::Time => {
            array.as_primitive_opt::<Time64MicrosecondType>().map(|a| Value::Time(a.value(row)))
        }
        ColumnType::Timestamp => array
            .as_primitive_opt::<TimestampMicrosecondType>()
            .map(|a| Value::Timestamp(a.value(row))),
        ColumnType::List(item) => match array.as_list_opt::<i32>() {
            Some(list) => {
                let values = list.value(row);
                let items = (0..values.len()).map(|at| value_at(&values, at, item));
                Some(Value::List(items.collect::<Result<_>>()?))
            }
            None => None,
        },
        ColumnType::Struct(fields) => match array.as_struct_opt() {
            Some(columns) if columns.num_columns() == fields.len() => {
                let values = fields.iter().zip(columns.columns());
                let values = values.map(|((_, kind), column)| value_at(column, row, kind));
                Some(Value::Struct(values.collect::<Result<_>>()?))
            }
            _ => None,
        },
    };
    value.ok_or_else(foreign)
}

/// Returns the scalar of a value.
///
/// # Errors
/// XX000 where the value is not of that type.
pub fn scalar_of(value: &Value, kind: &ColumnType) -> Result<ScalarValue> {
    let mut column = ColumnBuilder::new(kind, 1);
    column.append(value);
    Ok(ScalarValue::try_from_array(&column.finish(), 0)?)
}

/// Returns a scalar as a value of a type, cast where needed.
///
/// # Errors
/// As [`cast_column`].
pub fn value_of_scalar(scalar: &ScalarValue, kind: &ColumnType) -> Result<Value> {
    if scalar.is_null() {
        return Ok(Value::Null);
    }
    let column = cast_column(&scalar.to_array()?, kind)?;
    value_at(&column, 0, kind)
}

/// Returns an instant's scalar: microseconds, UTC.
pub fn timestamp_scalar(at: ValidTime) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(Some(at.micros()), Some("UTC".into()))
}

/// Returns the Arrow type of instants.
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Reads a stored value as a column's type: as it is, or widened where the column was widened
/// after the row was written. NULL where there is no widening.
pub fn widen(value: &Value, kind: &ColumnType) -> Value {
    if kind.admits(value) {
        return value.clone();
    }
    match (kind, value) {
        #[expect(clippy::cast_precision_loss, reason = "int columns widen to the nearest float")]
        (ColumnType::Float64, Value::Int(int)) => Value::Float(*int as f64),
        (ColumnType::Float64, Value::Decimal(units)) => {
            text::decimal_text(*units, 9).parse().map_or(Value::Null, Value::Float)
        }
        (ColumnType::Decimal, Value::Int(int)) => {
            Value::Decimal(i128::from(*int) * text::DECIMAL_ONE)
        }
        (ColumnType::Decimal, Value::Float(float)) => {
            text::parse_decimal(&text::float_text(*float)).map_or(Value::Null, Value::Decimal)
        }
        (ColumnType::Timestamp, Value::Date(days)) => {
            Value::Timestamp(i64::from(*days) * text::MICROS_PER_DAY)
        }
        (ColumnType::Text, value) => Value::Text(text_of(value)),
        (ColumnType::Json, value) => Value::Json(json::json_of_value(value).to_string()),
        (ColumnType::List(item), Value::List(values)) => {
            Value::List(values.iter().map(|value| widen(value, item)).collect())
        }
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests;
