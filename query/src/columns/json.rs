//! The contract's JSON forms of values, both ways.
//!
//! Timestamps RFC 3339 UTC with `Z` and 0, 3 or 6 fraction digits, dates and times ISO 8601,
//! decimals text, bytes base64, NaN and the infinities text, int64 a number with all its digits.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Decimal128Type};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use everwhen_storage::{ColumnType, Value};
use serde_json::Value as Json;

use super::{cast_column, text, value_at};
use crate::error::{Error, Result, SqlState};

/// Returns one value of a column in its JSON form; NULL where the column is of no stored type.
pub fn json_of(array: &dyn Array, row: usize, kind: &ColumnType) -> Json {
    if array.is_null(row) {
        return Json::Null;
    }
    if let Some(json) = json_fast(array, row, kind) {
        return json;
    }
    let one = arrow::array::make_array(array.slice(row, 1).to_data());
    let value = cast_column(&one, kind).and_then(|column| json_nested(&column, 0, kind));
    value.unwrap_or(Json::Null)
}

/// Answers for the types that need no copy of the value.
fn json_fast(array: &dyn Array, row: usize, kind: &ColumnType) -> Option<Json> {
    Some(match (kind, array.data_type()) {
        (ColumnType::Text | ColumnType::Uuid, DataType::Utf8) => {
            array.as_string::<i32>().value(row).into()
        }
        (ColumnType::Json, DataType::Utf8) => json_text(array.as_string::<i32>().value(row)),
        (ColumnType::Text, DataType::Utf8View) => array.as_string_view().value(row).into(),
        (ColumnType::Decimal, DataType::Decimal128(precision, scale)) => {
            let units = array.as_primitive::<Decimal128Type>().value(row);
            let scale = usize::try_from(*scale).ok()?;
            let stored = *precision == 38 && scale == text::stored_decimal_scale();
            match stored {
                true => text::decimal_text(units, scale).into(),
                false => text::decimal_text_exact(units, scale).into(),
            }
        }
        (ColumnType::List(_) | ColumnType::Struct(_), _) => return None,
        (_, data_type) if *data_type == kind.data_type() => {
            json_of_value(&value_at(array, row, kind).ok()?)
        }
        _ => return None,
    })
}

fn json_nested(array: &dyn Array, row: usize, kind: &ColumnType) -> Result<Json> {
    Ok(named(&value_at(array, row, kind)?, kind))
}

/// Returns a value's JSON form, with the field names of its type.
pub fn named(value: &Value, kind: &ColumnType) -> Json {
    match (value, kind) {
        (Value::List(values), ColumnType::List(item)) => {
            values.iter().map(|value| named(value, item)).collect()
        }
        (Value::Struct(values), ColumnType::Struct(fields)) => {
            let members = fields.iter().zip(values);
            Json::Object(members.map(|((name, kind), v)| (name.clone(), named(v, kind))).collect())
        }
        _ => json_of_value(value),
    }
}

/// Returns a value's JSON form; a struct, whose names its type holds, is an array of its values.
pub fn json_of_value(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Float(value) if value.is_finite() => (*value).into(),
        Value::Float(value) => text::float_text(*value).into(),
        Value::Text(text) => text.as_str().into(),
        Value::Json(text) => json_text(text),
        Value::Bytes(bytes) => BASE64.encode(bytes).into(),
        Value::Uuid(_)
        | Value::Decimal(_)
        | Value::Date(_)
        | Value::Time(_)
        | Value::Timestamp(_) => text::text_of(value).into(),
        Value::List(values) | Value::Struct(values) => values.iter().map(json_of_value).collect(),
    }
}

fn json_text(text: &str) -> Json {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

/// Reads a value of a type from its JSON form. Strict: no number in a text, no text in a number.
///
/// # Errors
/// 42804 for JSON of another type, 22P02, 22003 or 22008 for a value that the type does not have.
pub fn json_to_value(json: &Json, kind: &ColumnType) -> Result<Value> {
    let mismatch = || {
        let shown: String = json.to_string().chars().take(60).collect();
        Error::new(SqlState::DatatypeMismatch, format!("{shown} is no value of type {kind}"))
    };
    Ok(match (kind, json) {
        (ColumnType::Json, Json::Null) | (_, Json::Null) => Value::Null,
        (ColumnType::Json, json) => Value::Json(json.to_string()),
        (ColumnType::Bool, Json::Bool(value)) => Value::Bool(*value),
        (ColumnType::Int64, Json::Number(number)) => {
            Value::Int(number.as_i64().ok_or_else(mismatch)?)
        }
        (ColumnType::Float64, Json::Number(number)) => {
            Value::Float(number.as_f64().ok_or_else(mismatch)?)
        }
        (ColumnType::Float64, Json::String(text)) => match text.as_str() {
            "NaN" | "Infinity" | "-Infinity" => text::parse_value(text, kind)?,
            _ => return Err(mismatch()),
        },
        (ColumnType::Decimal, Json::Number(number)) => {
            text::parse_value(&number.to_string(), kind)?
        }
        (ColumnType::Text, Json::String(text)) => Value::Text(text.clone()),
        (ColumnType::Bytes, Json::String(text)) => {
            Value::Bytes(BASE64.decode(text).map_err(|_| mismatch())?)
        }
        (
            ColumnType::Uuid
            | ColumnType::Decimal
            | ColumnType::Date
            | ColumnType::Time
            | ColumnType::Timestamp,
            Json::String(text),
        ) => text::parse_value(text, kind)?,
        (ColumnType::List(item), Json::Array(items)) => {
            Value::List(items.iter().map(|json| json_to_value(json, item)).collect::<Result<_>>()?)
        }
        (ColumnType::Struct(fields), Json::Object(members)) => {
            if members.keys().any(|name| fields.iter().all(|(field, _)| field != name)) {
                return Err(mismatch());
            }
            let values = fields.iter().map(|(name, kind)| {
                members.get(name).map_or(Ok(Value::Null), |json| json_to_value(json, kind))
            });
            Value::Struct(values.collect::<Result<_>>()?)
        }
        _ => return Err(mismatch()),
    })
}

/// Returns the type that fits a JSON value best; nothing for null. Objects and arrays are JSON.
pub fn kind_of_json(json: &Json) -> Option<ColumnType> {
    match json {
        Json::Null => None,
        Json::Bool(_) => Some(ColumnType::Bool),
        Json::Number(number) if number.is_i64() => Some(ColumnType::Int64),
        Json::Number(_) => Some(ColumnType::Float64),
        Json::String(_) => Some(ColumnType::Text),
        Json::Array(_) | Json::Object(_) => Some(ColumnType::Json),
    }
}

/// Returns the JSON of every row of a column.
pub fn json_column(array: &Arc<dyn Array>, kind: &ColumnType) -> Vec<Json> {
    (0..array.len()).map(|row| json_of(array, row, kind)).collect()
}
