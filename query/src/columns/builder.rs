//! Values to Arrow columns.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBufferBuilder, BooleanBuilder, Date32Builder,
    Decimal128Builder, Float64Builder, Int64Builder, ListArray, StringBuilder, StructArray,
    Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field};
use everwhen_storage::{ColumnType, Value};

use super::widen;

/// Builds the Arrow column of a stored type from its values.
#[derive(Debug)]
pub struct ColumnBuilder {
    kind: ColumnType,
    parts: Parts,
}

#[derive(Debug)]
enum Parts {
    Bool(BooleanBuilder),
    Int(Int64Builder),
    Float(Float64Builder),
    Decimal(Decimal128Builder),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    List { lengths: Vec<usize>, present: BooleanBufferBuilder, items: Box<ColumnBuilder> },
    Struct { present: BooleanBufferBuilder, fields: Vec<ColumnBuilder> },
}

impl ColumnBuilder {
    /// Starts a column with room for `capacity` values.
    pub fn new(kind: &ColumnType, capacity: usize) -> Self {
        let parts = match kind {
            ColumnType::Bool => Parts::Bool(BooleanBuilder::with_capacity(capacity)),
            ColumnType::Int64 => Parts::Int(Int64Builder::with_capacity(capacity)),
            ColumnType::Float64 => Parts::Float(Float64Builder::with_capacity(capacity)),
            ColumnType::Decimal => Parts::Decimal(
                Decimal128Builder::with_capacity(capacity).with_data_type(kind.data_type()),
            ),
            ColumnType::Text | ColumnType::Json => {
                Parts::Text(StringBuilder::with_capacity(capacity, capacity * 16))
            }
            ColumnType::Bytes => {
                Parts::Bytes(BinaryBuilder::with_capacity(capacity, capacity * 16))
            }
            ColumnType::Date => Parts::Date(Date32Builder::with_capacity(capacity)),
            ColumnType::Time => Parts::Time(Time64MicrosecondBuilder::with_capacity(capacity)),
            ColumnType::Timestamp => Parts::Timestamp(
                TimestampMicrosecondBuilder::with_capacity(capacity)
                    .with_data_type(kind.data_type()),
            ),
            ColumnType::List(item) => Parts::List {
                lengths: Vec::with_capacity(capacity),
                present: BooleanBufferBuilder::new(capacity),
                items: Box::new(Self::new(item, capacity)),
            },
            ColumnType::Struct(fields) => Parts::Struct {
                present: BooleanBufferBuilder::new(capacity),
                fields: fields.iter().map(|(_, kind)| Self::new(kind, capacity)).collect(),
            },
        };
        Self { kind: kind.clone(), parts }
    }

    /// Adds a value, widened where the column is wider ([`widen`]); what cannot be is NULL.
    pub fn append(&mut self, value: &Value) {
        if !self.append_exact(value) {
            let widened = widen(value, &self.kind);
            let widened = if self.kind.admits(&widened) { widened } else { Value::Null };
            self.append_exact(&widened);
        }
    }

    /// Adds NULL.
    pub fn append_null(&mut self) {
        self.append_exact(&Value::Null);
    }

    /// Returns false, and adds nothing, for a value of another type.
    fn append_exact(&mut self, value: &Value) -> bool {
        match (&mut self.parts, value) {
            (Parts::Bool(column), Value::Bool(value)) => column.append_value(*value),
            (Parts::Bool(column), Value::Null) => column.append_null(),
            (Parts::Int(column), Value::Int(value)) => column.append_value(*value),
            (Parts::Int(column), Value::Null) => column.append_null(),
            (Parts::Float(column), Value::Float(value)) => column.append_value(*value),
            (Parts::Float(column), Value::Null) => column.append_null(),
            (Parts::Decimal(column), Value::Decimal(value)) => column.append_value(*value),
            (Parts::Decimal(column), Value::Null) => column.append_null(),
            (Parts::Text(column), Value::Text(text)) if self.kind == ColumnType::Text => {
                column.append_value(text);
            }
            (Parts::Text(column), Value::Json(text)) if self.kind == ColumnType::Json => {
                column.append_value(text);
            }
            (Parts::Text(column), Value::Null) => column.append_null(),
            (Parts::Bytes(column), Value::Bytes(value)) => column.append_value(value),
            (Parts::Bytes(column), Value::Null) => column.append_null(),
            (Parts::Date(column), Value::Date(value)) => column.append_value(*value),
            (Parts::Date(column), Value::Null) => column.append_null(),
            (Parts::Time(column), Value::Time(value)) => column.append_value(*value),
            (Parts::Time(column), Value::Null) => column.append_null(),
            (Parts::Timestamp(column), Value::Timestamp(value)) => column.append_value(*value),
            (Parts::Timestamp(column), Value::Null) => column.append_null(),
            (Parts::List { lengths, present, items }, Value::List(values)) => {
                values.iter().for_each(|value| items.append(value));
                lengths.push(values.len());
                present.append(true);
            }
            (Parts::List { lengths, present, .. }, Value::Null) => {
                lengths.push(0);
                present.append(false);
            }
            (Parts::Struct { present, fields }, Value::Struct(values))
                if values.len() == fields.len() =>
            {
                fields.iter_mut().zip(values).for_each(|(field, value)| field.append(value));
                present.append(true);
            }
            (Parts::Struct { present, fields }, Value::Null) => {
                fields.iter_mut().for_each(Self::append_null);
                present.append(false);
            }
            _ => return false,
        }
        true
    }

    /// Ends the column.
    pub fn finish(self) -> ArrayRef {
        match self.parts {
            Parts::Bool(mut column) => Arc::new(column.finish()),
            Parts::Int(mut column) => Arc::new(column.finish()),
            Parts::Float(mut column) => Arc::new(column.finish()),
            Parts::Decimal(mut column) => Arc::new(column.finish()),
            Parts::Text(mut column) => Arc::new(column.finish()),
            Parts::Bytes(mut column) => Arc::new(column.finish()),
            Parts::Date(mut column) => Arc::new(column.finish()),
            Parts::Time(mut column) => Arc::new(column.finish()),
            Parts::Timestamp(mut column) => Arc::new(column.finish()),
            Parts::List { lengths, mut present, items } => {
                let field = Arc::new(Field::new("item", items.kind.data_type(), true));
                let offsets = OffsetBuffer::from_lengths(lengths);
                let nulls = NullBuffer::new(present.finish());
                Arc::new(ListArray::new(field, offsets, items.finish(), Some(nulls)))
            }
            Parts::Struct { mut present, fields } => {
                let nulls = NullBuffer::new(present.finish());
                let columns = fields.into_iter().map(Self::finish).collect();
                match self.kind.data_type() {
                    DataType::Struct(fields) => {
                        Arc::new(StructArray::new(fields, columns, Some(nulls)))
                    }
                    other => arrow::array::new_null_array(&other, nulls.len()),
                }
            }
        }
    }
}
