//! Tables, columns, keys and tenants; column types and their one mapping to Arrow.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::value::Value;

/// Identifies a table for ever; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TableId(pub u32);

/// Identifies a column within its table; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ColumnId(pub u32);

impl ColumnId {
    /// Stands in an index for the start of a version's valid period. No column of a table has it.
    pub const VALID_FROM: Self = Self(u32::MAX);
}

/// Identifies a look-up index; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IndexId(pub u32);

/// The name of a client organisation whose data is kept apart: `[a-z0-9_-]{1,63}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(Arc<str>);

impl Tenant {
    /// Checks a name.
    ///
    /// # Errors
    /// [`Error::BadTenant`] where it is no `[a-z0-9_-]{1,63}`.
    pub fn new(name: &str) -> Result<Self> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        if name.is_empty() || name.len() > 63 || !name.bytes().all(legal) {
            return Err(Error::BadTenant { name: name.to_owned() });
        }
        Ok(Self(name.into()))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Tenant {
    /// The tenant of those who use no tenancy.
    fn default() -> Self {
        Self("default".into())
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The type of a column.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    Bool,
    Int64,
    Float64,
    /// decimal(38, 9).
    Decimal,
    Text,
    /// Shown as its text of 36 characters in lower case.
    Uuid,
    Bytes,
    Date,
    Time,
    Timestamp,
    Json,
    List(Box<ColumnType>),
    Struct(Vec<(String, ColumnType)>),
}

impl ColumnType {
    /// True for types whose values can stand in a key or an index: their bytes keep their order.
    pub const fn may_be_key(&self) -> bool {
        matches!(
            self,
            Self::Text
                | Self::Int64
                | Self::Uuid
                | Self::Timestamp
                | Self::Date
                | Self::Bool
                | Self::Bytes
        )
    }

    /// Returns the Arrow type: microseconds everywhere, UTC instants, JSON and UUIDs as text.
    pub fn data_type(&self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int64 => DataType::Int64,
            Self::Float64 => DataType::Float64,
            Self::Decimal => DataType::Decimal128(38, 9),
            Self::Text | Self::Uuid | Self::Json => DataType::Utf8,
            Self::Bytes => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::List(item) => {
                DataType::List(Arc::new(Field::new("item", item.data_type(), true)))
            }
            Self::Struct(fields) => DataType::Struct(
                fields
                    .iter()
                    .map(|(name, kind)| Field::new(name, kind.data_type(), true))
                    .collect::<Fields>(),
            ),
        }
    }

    /// True where a column of this type may become one of another: every value stored under this
    /// one can be read as one of the other, with nothing lost (whole numbers beyond 2^53 become the
    /// nearest float).
    pub fn widens_to(&self, to: &Self) -> bool {
        match (self, to) {
            _ if self == to => true,
            (Self::Int64, Self::Float64 | Self::Decimal) | (Self::Date, Self::Timestamp) => true,
            (Self::List(from), Self::List(to)) => from.widens_to(to),
            // Stored structs do not hold the names of their fields.
            (from, Self::Json) => !from.has_struct(),
            (Self::List(_) | Self::Struct(_), _) => false,
            (_, to) => *to == Self::Text,
        }
    }

    fn has_struct(&self) -> bool {
        match self {
            Self::Struct(_) => true,
            Self::List(item) => item.has_struct(),
            _ => false,
        }
    }

    /// True where `value` is NULL or of this type.
    pub fn admits(&self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Null)
            | (Self::Bool, Value::Bool(_))
            | (Self::Int64, Value::Int(_))
            | (Self::Float64, Value::Float(_))
            | (Self::Decimal, Value::Decimal(_))
            | (Self::Text, Value::Text(_))
            | (Self::Uuid, Value::Uuid(_))
            | (Self::Bytes, Value::Bytes(_))
            | (Self::Date, Value::Date(_))
            | (Self::Time, Value::Time(_))
            | (Self::Timestamp, Value::Timestamp(_))
            | (Self::Json, Value::Json(_)) => true,
            (Self::List(item), Value::List(values)) => values.iter().all(|v| item.admits(v)),
            (Self::Struct(fields), Value::Struct(values)) => {
                fields.len() == values.len()
                    && fields.iter().zip(values).all(|((_, kind), v)| kind.admits(v))
            }
            _ => false,
        }
    }
}

impl fmt::Display for ColumnType {
    /// Writes the contract's type name: `int64`, `decimal(38,9)`, `list<text>`, ...
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::Int64 => f.write_str("int64"),
            Self::Float64 => f.write_str("float64"),
            Self::Decimal => f.write_str("decimal(38,9)"),
            Self::Text => f.write_str("text"),
            Self::Uuid => f.write_str("uuid"),
            Self::Bytes => f.write_str("bytes"),
            Self::Date => f.write_str("date"),
            Self::Time => f.write_str("time"),
            Self::Timestamp => f.write_str("timestamptz"),
            Self::Json => f.write_str("json"),
            Self::List(item) => write!(f, "list<{item}>"),
            Self::Struct(fields) => {
                f.write_str("struct<")?;
                for (i, (name, kind)) in fields.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    write!(f, "{comma}{name}: {kind}")?;
                }
                f.write_str(">")
            }
        }
    }
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColumnDef {
    pub id: ColumnId,
    pub name: String,
    pub kind: ColumnType,
    pub nullable: bool,
}

impl ColumnDef {
    /// Makes a column that takes NULL.
    #[must_use]
    pub fn new(id: u32, name: impl Into<String>, kind: ColumnType) -> Self {
        Self { id: ColumnId(id), name: name.into(), kind, nullable: true }
    }
}

/// Which assertion wins where two cover the same instant of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precedence {
    /// Later-recorded wins over its whole period (tables made by SQL).
    Recorded,
    /// Later-effective wins: (valid_from, order, tx, place in the tx) (tables fed by a stream).
    Effective,
}

impl Precedence {
    /// Returns the word for it in SQL.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Effective => "effective",
        }
    }
}

/// A table's declaration. Values are checked against it before they are written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableDef {
    pub id: TableId,
    pub name: String,
    pub precedence: Precedence,
    /// The key's columns, in key order; they also stand in `columns`. `_id` where none declared.
    pub key: Vec<ColumnId>,
    pub columns: Vec<ColumnDef>,
    /// False for a table that appeared on first write: its columns widen.
    pub declared: bool,
}

impl TableDef {
    /// Returns the column of that name.
    pub fn column(&self, name: &str) -> Option<&ColumnDef> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Returns the column with that id.
    pub fn column_by_id(&self, id: ColumnId) -> Option<&ColumnDef> {
        self.columns.iter().find(|column| column.id == id)
    }

    /// True for a column of the key.
    pub fn is_key(&self, id: ColumnId) -> bool {
        self.key.contains(&id)
    }

    /// Returns the columns in the order of `*`: key, declared order, others by name.
    pub fn star(&self) -> Vec<&ColumnDef> {
        let key = self.key.iter().filter_map(|id| self.column_by_id(*id));
        let mut rest: Vec<_> = self.columns.iter().filter(|c| !self.is_key(c.id)).collect();
        if !self.declared {
            rest.sort_by(|a, b| a.name.cmp(&b.name));
        }
        key.chain(rest).collect()
    }
}

/// A key's order-preserving bytes: what names a row within its tenant and table.
///
/// Built with [`RowKey::encode`] and taken apart with [`RowKey::decode`]; the order of the bytes is
/// the order of the values (integers by number, text by its UTF-8 bytes), column by column.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey(pub(crate) Vec<u8>);

impl RowKey {
    /// Takes bytes that were those of a key.
    pub const fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_widen_only_where_nothing_is_lost() {
        use ColumnType::{Bool, Bytes, Date, Decimal, Float64, Int64, Json, List, Struct, Text};
        let list = |item| List(Box::new(item));
        let a_struct = || Struct(vec![("a".to_owned(), Int64)]);
        for (from, to) in [
            (Int64, Float64),
            (Int64, Decimal),
            (Date, ColumnType::Timestamp),
            (Bool, Text),
            (Bytes, Json),
            (Text, Json),
            (Json, Text),
            (list(Int64), list(Float64)),
            (list(Text), Json),
        ] {
            assert!(from.widens_to(&to), "{from} to {to}");
        }
        for (from, to) in [
            (Float64, Int64),
            (Float64, Decimal),
            (Decimal, Float64),
            (Text, Int64),
            (Bool, Int64),
            (Int64, Date),
            (list(Float64), list(Int64)),
            (list(Text), Text),
            (a_struct(), Json),
            (list(a_struct()), Json),
            (a_struct(), Text),
        ] {
            assert!(!from.widens_to(&to), "{from} to {to}");
        }
    }
}
