//! Column values and the rows that hold them.

use std::borrow::Cow;

use uuid::Uuid;

use crate::schema::ColumnId;

/// One column's value. `Null` never stands inside a stored row: an absent column reads as NULL.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Unscaled decimal(38, 9): the number times 10^9.
    Decimal(i128),
    Text(String),
    Uuid(Uuid),
    Bytes(Vec<u8>),
    /// Days since the Unix epoch.
    Date(i32),
    /// Microseconds since midnight.
    Time(i64),
    /// Microseconds since the Unix epoch, UTC.
    Timestamp(i64),
    /// JSON text, as it was sent.
    Json(String),
    List(Vec<Value>),
    /// Fields in the order of their type.
    Struct(Vec<Value>),
}

impl Value {
    /// True for NULL.
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Returns the value without a copy.
    pub fn borrowed(&self) -> ValueRef<'_> {
        match self {
            Self::Null => ValueRef::Null,
            Self::Bool(value) => ValueRef::Bool(*value),
            Self::Int(value) => ValueRef::Int(*value),
            Self::Float(value) => ValueRef::Float(*value),
            Self::Decimal(value) => ValueRef::Decimal(*value),
            Self::Text(text) => ValueRef::Text(text),
            Self::Uuid(value) => ValueRef::Uuid(*value),
            Self::Bytes(bytes) => ValueRef::Bytes(bytes),
            Self::Date(value) => ValueRef::Date(*value),
            Self::Time(value) => ValueRef::Time(*value),
            Self::Timestamp(value) => ValueRef::Timestamp(*value),
            Self::Json(text) => ValueRef::Json(text),
            Self::List(_) | Self::Struct(_) => ValueRef::Nested(Cow::Borrowed(self)),
        }
    }
}

/// A [`Value`] where it lies: text and bytes are not copied.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueRef<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Decimal(i128),
    Text(&'a str),
    Uuid(Uuid),
    Bytes(&'a [u8]),
    Date(i32),
    Time(i64),
    Timestamp(i64),
    Json(&'a str),
    /// A list or struct.
    Nested(Cow<'a, Value>),
}

impl ValueRef<'_> {
    /// Returns the value itself.
    pub fn into_value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Int(value) => Value::Int(value),
            Self::Float(value) => Value::Float(value),
            Self::Decimal(value) => Value::Decimal(value),
            Self::Text(text) => Value::Text(text.to_owned()),
            Self::Uuid(value) => Value::Uuid(value),
            Self::Bytes(bytes) => Value::Bytes(bytes.to_vec()),
            Self::Date(value) => Value::Date(value),
            Self::Time(value) => Value::Time(value),
            Self::Timestamp(value) => Value::Timestamp(value),
            Self::Json(text) => Value::Json(text.to_owned()),
            Self::Nested(value) => value.into_owned(),
        }
    }
}

/// A document: values by column, in column order, without NULLs.
///
/// In an assertion's fields a `Null` may stand: the field was sent and was NULL.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Row {
    fields: Vec<(ColumnId, Value)>,
}

impl Row {
    /// Builds a row from fields in any order; of two for one column the later wins.
    pub fn new(fields: impl IntoIterator<Item = (ColumnId, Value)>) -> Self {
        let mut row = Self::default();
        for (column, value) in fields {
            row.set(column, value);
        }
        row
    }

    /// Wraps fields that are in column order, each column once.
    pub(crate) fn from_sorted(fields: Vec<(ColumnId, Value)>) -> Self {
        debug_assert!(fields.windows(2).all(|pair| pair[0].0 < pair[1].0));
        Self { fields }
    }

    /// Returns the fields in column order.
    pub fn fields(&self) -> &[(ColumnId, Value)] {
        &self.fields
    }

    /// Returns a column's value; `None` where absent.
    pub fn get(&self, column: ColumnId) -> Option<&Value> {
        self.fields.binary_search_by_key(&column, |(id, _)| *id).ok().map(|at| &self.fields[at].1)
    }

    /// Sets a column, keeping the order.
    pub fn set(&mut self, column: ColumnId, value: Value) {
        match self.fields.binary_search_by_key(&column, |(id, _)| *id) {
            Ok(at) => self.fields[at].1 = value,
            Err(at) => self.fields.insert(at, (column, value)),
        }
    }

    /// Removes a column.
    pub fn unset(&mut self, column: ColumnId) {
        if let Ok(at) = self.fields.binary_search_by_key(&column, |(id, _)| *id) {
            self.fields.remove(at);
        }
    }

    /// Returns the row without its NULL fields: what is stored of a put.
    pub fn without_nulls(mut self) -> Self {
        self.fields.retain(|(_, value)| !value.is_null());
        self
    }
}
