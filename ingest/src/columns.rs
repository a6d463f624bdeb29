//! Computed columns to values: one cast a column, one cheap read a row.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array,
    Float64Array, Int64Array, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampNanosecondType,
};
use everwhen_query::columns::cast_column;
use everwhen_storage::{ColumnType, Value};
use serde::de::IgnoredAny;

use crate::decode;

/// A column of one [`ColumnType`], ready to be read row by row.
#[derive(Debug, Clone)]
pub enum ValueColumn {
    Bool(BooleanArray),
    Int(Int64Array),
    Float(Float64Array),
    Decimal(Decimal128Array),
    Text(StringArray),
    /// All of them read as UUIDs.
    Uuid(StringArray),
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
            ColumnType::Uuid => Self::Uuid(cast.as_string::<i32>().clone()),
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
            Self::Uuid(array) => array.value(row).parse().map_or(Value::Null, Value::Uuid),
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
            Self::Text(array) | Self::Uuid(array) | Self::Json(array) => array,
            Self::Bytes(array) => array,
            Self::Date(array) => array,
            Self::Time(array) => array,
            Self::Timestamp(array) => array,
        }
    }
}

fn cast_strictly(array: &ArrayRef, kind: &ColumnType, checked: bool) -> Result<ArrayRef, String> {
    if let DataType::Timestamp(TimeUnit::Nanosecond, _) = array.data_type() {
        let instants = array.as_primitive::<TimestampNanosecondType>();
        if instants.iter().flatten().any(|nanos| nanos % 1_000 != 0) {
            return Err("an instant is finer than a microsecond".to_owned());
        }
    }
    let cast = cast_column(array, kind).map_err(|error| error.to_string())?;
    if *kind == ColumnType::Json && !checked {
        for text in cast.as_string::<i32>().iter().flatten() {
            let parsed = serde_json::from_str::<IgnoredAny>(text);
            parsed.map_err(|error| format!("no JSON: {error}"))?;
        }
    }
    // What an expression makes of one may be marked as one still.
    if *kind == ColumnType::Uuid {
        for text in cast.as_string::<i32>().iter().flatten() {
            decode::text::uuid(text)?;
        }
    }
    Ok(cast)
}
