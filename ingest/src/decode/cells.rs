//! One column under construction, and one parsed value on its way into it.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder,
    Int64Builder, StringBuilder, Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
};
use everwhen_storage::ColumnType;

/// A parsed value, borrowing from its record where it can.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell<'a> {
    /// The record has no such field.
    Absent,
    /// The field was sent and is NULL.
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Decimal(i128),
    /// Text, JSON text, and UUIDs in their one form.
    Text(Cow<'a, str>),
    Bytes(Vec<u8>),
    Date(i32),
    Time(i64),
    Timestamp(i64),
}

/// Builds one Arrow column of a [`ColumnType`].
pub enum CellColumn {
    Bool(BooleanBuilder),
    Int(Int64Builder),
    Float(Float64Builder),
    Decimal(Decimal128Builder),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl CellColumn {
    /// Starts a column.
    pub fn new(kind: &ColumnType, capacity: usize) -> Self {
        match kind {
            ColumnType::Bool => Self::Bool(BooleanBuilder::with_capacity(capacity)),
            ColumnType::Int64 => Self::Int(Int64Builder::with_capacity(capacity)),
            ColumnType::Float64 => Self::Float(Float64Builder::with_capacity(capacity)),
            ColumnType::Decimal => Self::Decimal(
                Decimal128Builder::with_capacity(capacity).with_data_type(kind.data_type()),
            ),
            // Lists and structs cannot be declared in a stream; they stand as JSON text.
            ColumnType::Text
            | ColumnType::Uuid
            | ColumnType::Json
            | ColumnType::List(_)
            | ColumnType::Struct(_) => {
                Self::Text(StringBuilder::with_capacity(capacity, capacity * 16))
            }
            ColumnType::Bytes => Self::Bytes(BinaryBuilder::with_capacity(capacity, capacity * 16)),
            ColumnType::Date => Self::Date(Date32Builder::with_capacity(capacity)),
            ColumnType::Time => Self::Time(Time64MicrosecondBuilder::with_capacity(capacity)),
            ColumnType::Timestamp => Self::Timestamp(
                TimestampMicrosecondBuilder::with_capacity(capacity)
                    .with_data_type(kind.data_type()),
            ),
        }
    }

    /// Adds a value; anything that is not of the column's type adds NULL.
    pub fn append(&mut self, cell: &Cell<'_>) {
        match (self, cell) {
            (Self::Bool(column), Cell::Bool(value)) => column.append_value(*value),
            (Self::Int(column), Cell::Int(value)) => column.append_value(*value),
            (Self::Float(column), Cell::Float(value)) => column.append_value(*value),
            (Self::Decimal(column), Cell::Decimal(value)) => column.append_value(*value),
            (Self::Text(column), Cell::Text(value)) => column.append_value(value),
            (Self::Bytes(column), Cell::Bytes(value)) => column.append_value(value),
            (Self::Date(column), Cell::Date(value)) => column.append_value(*value),
            (Self::Time(column), Cell::Time(value)) => column.append_value(*value),
            (Self::Timestamp(column), Cell::Timestamp(value)) => column.append_value(*value),
            (column, _) => column.append_null(),
        }
    }

    fn append_null(&mut self) {
        match self {
            Self::Bool(column) => column.append_null(),
            Self::Int(column) => column.append_null(),
            Self::Float(column) => column.append_null(),
            Self::Decimal(column) => column.append_null(),
            Self::Text(column) => column.append_null(),
            Self::Bytes(column) => column.append_null(),
            Self::Date(column) => column.append_null(),
            Self::Time(column) => column.append_null(),
            Self::Timestamp(column) => column.append_null(),
        }
    }

    /// Ends the column.
    pub fn finish(self) -> ArrayRef {
        match self {
            Self::Bool(mut column) => Arc::new(column.finish()),
            Self::Int(mut column) => Arc::new(column.finish()),
            Self::Float(mut column) => Arc::new(column.finish()),
            Self::Decimal(mut column) => Arc::new(column.finish()),
            Self::Text(mut column) => Arc::new(column.finish()),
            Self::Bytes(mut column) => Arc::new(column.finish()),
            Self::Date(mut column) => Arc::new(column.finish()),
            Self::Time(mut column) => Arc::new(column.finish()),
            Self::Timestamp(mut column) => Arc::new(column.finish()),
        }
    }
}
