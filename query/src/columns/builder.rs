//! Values to Arrow columns.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBufferBuilder, BooleanBuilder, Date32Builder,
    Decimal128Builder, Float64Builder, Int64Builder, ListArray, StringBuilder, StructArray,
    Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field};
use everwhen_storage::{ColumnType, Uuid, Value, ValueRef};

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
            ColumnType::Text | ColumnType::Uuid | ColumnType::Json => {
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
        self.append_ref(value.borrowed());
    }

    /// As [`ColumnBuilder::append`].
    pub fn append_ref(&mut self, value: ValueRef<'_>) {
        if let Some(other) = self.append_exact(value) {
            let widened = widen(&other.into_value(), &self.kind);
            let widened = if self.kind.admits(&widened) { widened } else { Value::Null };
            self.append_exact(widened.borrowed());
        }
    }

    /// Adds NULL.
    pub fn append_null(&mut self) {
        self.append_exact(ValueRef::Null);
    }

    /// Returns a value of another type, and adds nothing then.
    fn append_exact<'a>(&mut self, value: ValueRef<'a>) -> Option<ValueRef<'a>> {
        match (&mut self.parts, value) {
            (Parts::Bool(column), ValueRef::Bool(value)) => column.append_value(value),
            (Parts::Bool(column), ValueRef::Null) => column.append_null(),
            (Parts::Int(column), ValueRef::Int(value)) => column.append_value(value),
            (Parts::Int(column), ValueRef::Null) => column.append_null(),
            (Parts::Float(column), ValueRef::Float(value)) => column.append_value(value),
            (Parts::Float(column), ValueRef::Null) => column.append_null(),
            (Parts::Decimal(column), ValueRef::Decimal(value)) => column.append_value(value),
            (Parts::Decimal(column), ValueRef::Null) => column.append_null(),
            (Parts::Text(column), ValueRef::Text(text)) if self.kind == ColumnType::Text => {
                column.append_value(text);
            }
            (Parts::Text(column), ValueRef::Uuid(value)) if self.kind == ColumnType::Uuid => {
                let mut text = Uuid::encode_buffer();
                column.append_value(value.hyphenated().encode_lower(&mut text));
            }
            (Parts::Text(column), ValueRef::Json(text)) if self.kind == ColumnType::Json => {
                column.append_value(text);
            }
            (Parts::Text(column), ValueRef::Null) => column.append_null(),
            (Parts::Bytes(column), ValueRef::Bytes(value)) => column.append_value(value),
            (Parts::Bytes(column), ValueRef::Null) => column.append_null(),
            (Parts::Date(column), ValueRef::Date(value)) => column.append_value(value),
            (Parts::Date(column), ValueRef::Null) => column.append_null(),
            (Parts::Time(column), ValueRef::Time(value)) => column.append_value(value),
            (Parts::Time(column), ValueRef::Null) => column.append_null(),
            (Parts::Timestamp(column), ValueRef::Timestamp(value)) => column.append_value(value),
            (Parts::Timestamp(column), ValueRef::Null) => column.append_null(),
            (Parts::List { lengths, present, .. }, ValueRef::Null) => {
                lengths.push(0);
                present.append(false);
            }
            (Parts::Struct { present, fields }, ValueRef::Null) => {
                fields.iter_mut().for_each(Self::append_null);
                present.append(false);
            }
            (parts, ValueRef::Nested(value)) => {
                return (!parts.append_nested(&value)).then_some(ValueRef::Nested(value));
            }
            (_, value) => return Some(value),
        }
        None
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

impl Parts {
    /// Returns false, and adds nothing, for what is neither a list for a column of lists nor a struct
    /// for one of such structs.
    fn append_nested(&mut self, value: &Value) -> bool {
        match (self, value) {
            (Self::List { lengths, present, items }, Value::List(values)) => {
                values.iter().for_each(|value| items.append(value));
                lengths.push(values.len());
                present.append(true);
            }
            (Self::Struct { present, fields }, Value::Struct(values))
                if values.len() == fields.len() =>
            {
                fields.iter_mut().zip(values).for_each(|(field, value)| field.append(value));
                present.append(true);
            }
            _ => return false,
        }
        true
    }
}
