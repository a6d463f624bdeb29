//! Computed columns to values: one cast a column, one cheap read a row.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array,
    Float64Array, Int64Array, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampNanosecondType,
};
use everwhen_storage::{ColumnType, Value};
use serde::de::IgnoredAny;

use crate::decode::cells::{Cell, CellColumn};
use crate::decode::text;

/// A column of one [`ColumnType`], ready to be read row by row.
#[derive(Debug, Clone)]
pub enum ValueColumn {
    Bool(BooleanArray),
    Int(Int64Array),
    Float(Float64Array),
    Decimal(Decimal128Array),
    Text(StringArray),
    Json(StringArray),
    Bytes(BinaryArray),
    Date(Date32Array),
    Time(Time64MicrosecondArray),
    Timestamp(TimestampMicrosecondArray),
}

impl ValueColumn {
    /// Casts a computed column to a type, strictly. `checked` says that it is of the type already,
    /// so that JSON text need not be parsed again.
    ///
    /// # Errors
    /// Where a value does not fit; which one is not said, callers that must know halve the rows.
    pub fn cast(array: &ArrayRef, kind: &ColumnType, checked: bool) -> Result<Self, String> {
        let cast = cast_strictly(array, kind, checked)?;
        Ok(match kind {
            ColumnType::Bool => Self::Bool(cast.as_boolean().clone()),
            ColumnType::Int64 => Self::Int(cast.as_primitive::<Int64Type>().clone()),
            ColumnType::Float64 => Self::Float(cast.as_primitive::<Float64Type>().clone()),
            ColumnType::Decimal => Self::Decimal(cast.as_primitive::<Decimal128Type>().clone()),
            ColumnType::Text => Self::Text(cast.as_string::<i32>().clone()),
            ColumnType::Json => Self::Json(cast.as_string::<i32>().clone()),
            ColumnType::Bytes => Self::Bytes(cast.as_binary::<i32>().clone()),
            ColumnType::Date => Self::Date(cast.as_primitive::<Date32Type>().clone()),
            ColumnType::Time => Self::Time(cast.as_primitive::<Time64MicrosecondType>().clone()),
            ColumnType::Timestamp => {
                Self::Timestamp(cast.as_primitive::<TimestampMicrosecondType>().clone())
            }
            ColumnType::List(_) | ColumnType::Struct(_) => {
                return Err(format!("{kind} in a mapping"));
            }
        })
    }

    /// Returns a row's value.
    pub fn value(&self, row: usize) -> Value {
        if self.array().is_null(row) {
            return Value::Null;
        }
        match self {
            Self::Bool(array) => Value::Bool(array.value(row)),
            Self::Int(array) => Value::Int(array.value(row)),
            Self::Float(array) => Value::Float(array.value(row)),
            Self::Decimal(array) => Value::Decimal(array.value(row)),
            Self::Text(array) => Value::Text(array.value(row).to_owned()),
            Self::Json(array) => Value::Json(array.value(row).to_owned()),
            Self::Bytes(array) => Value::Bytes(array.value(row).to_vec()),
            Self::Date(array) => Value::Date(array.value(row)),
            Self::Time(array) => Value::Time(array.value(row)),
            Self::Timestamp(array) => Value::Timestamp(array.value(row)),
        }
    }

    /// Returns the text of a row of a text column; nothing for NULL.
    pub fn text(&self, row: usize) -> Option<&str> {
        match self {
            Self::Text(array) if array.is_valid(row) => Some(array.value(row)),
            _ => None,
        }
    }

    /// Returns the number of a row of an integer or timestamp column; nothing for NULL.
    pub fn int(&self, row: usize) -> Option<i64> {
        match self {
            Self::Int(array) if array.is_valid(row) => Some(array.value(row)),
            Self::Timestamp(array) if array.is_valid(row) => Some(array.value(row)),
            _ => None,
        }
    }

    fn array(&self) -> &dyn Array {
        match self {
            Self::Bool(array) => array,
            Self::Int(array) => array,
            Self::Float(array) => array,
            Self::Decimal(array) => array,
            Self::Text(array) | Self::Json(array) => array,
            Self::Bytes(array) => array,
            Self::Date(array) => array,
            Self::Time(array) => array,
            Self::Timestamp(array) => array,
        }
    }
}

fn cast_strictly(array: &ArrayRef, kind: &ColumnType, checked: bool) -> Result<ArrayRef, String> {
    let from = array.data_type();
    let is_text = matches!(from, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let parsed = matches!(
        kind,
        ColumnType::Timestamp | ColumnType::Date | ColumnType::Time | ColumnType::Decimal
    );
    if is_text && parsed {
        return parse_text(array, kind);
    }
    if is_text && *kind == ColumnType::Json && !checked {
        return check_json(array);
    }
    let to = kind.data_type();
    if *from == to {
        return Ok(Arc::clone(array));
    }
    if let DataType::Timestamp(TimeUnit::Nanosecond, _) = from {
        let instants = array.as_primitive::<TimestampNanosecondType>();
        if instants.iter().flatten().any(|nanos| nanos % 1_000 != 0) {
            return Err("an instant is finer than a microsecond".to_owned());
        }
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, &to, &options).map_err(|error| error.to_string())
}

fn strings(array: &ArrayRef) -> Result<StringArray, String> {
    let text = cast(array, &DataType::Utf8).map_err(|error| error.to_string())?;
    Ok(text.as_string::<i32>().clone())
}

fn parse_text(array: &ArrayRef, kind: &ColumnType) -> Result<ArrayRef, String> {
    let mut column = CellColumn::new(kind, array.len());
    for value in &strings(array)? {
        let cell = match (value, kind) {
            (None, _) => Cell::Null,
            (Some(value), ColumnType::Date) => Cell::Date(text::date(value)?),
            (Some(value), ColumnType::Time) => Cell::Time(text::time(value)?),
            (Some(value), ColumnType::Decimal) => Cell::Decimal(text::decimal(value)?),
            (Some(value), _) => Cell::Timestamp(text::instant(value)?),
        };
        column.append(&cell);
    }
    Ok(column.finish())
}

fn check_json(array: &ArrayRef) -> Result<ArrayRef, String> {
    let texts = strings(array)?;
    for text in texts.iter().flatten() {
        serde_json::from_str::<IgnoredAny>(text).map_err(|error| format!("no JSON: {error}"))?;
    }
    Ok(Arc::new(texts))
}
