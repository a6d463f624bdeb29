//! The contract's types and those of Postgres, by object id.

use arrow::datatypes::Field;
use everwhen_query::columns::{PERIOD_EXTENSION, is_extension};
use everwhen_storage::ColumnType;

pub const BOOL: u32 = 16;
pub const BYTEA: u32 = 17;
pub const INT8: u32 = 20;
pub const INT2: u32 = 21;
pub const INT4: u32 = 23;
pub const TEXT: u32 = 25;
pub const OID: u32 = 26;
pub const JSON: u32 = 114;
pub const FLOAT4: u32 = 700;
pub const FLOAT8: u32 = 701;
pub const DATE: u32 = 1082;
pub const TIME: u32 = 1083;
pub const TIMESTAMP: u32 = 1114;
pub const TIMESTAMPTZ: u32 = 1184;
pub const NUMERIC: u32 = 1700;
pub const UUID: u32 = 2950;
pub const JSONB: u32 = 3802;
pub const TSTZRANGE: u32 = 3910;

/// Types of one word, their arrays, and what they are here.
const SCALARS: &[(u32, u32, ColumnType)] = &[
    (BOOL, 1000, ColumnType::Bool),
    (BYTEA, 1001, ColumnType::Bytes),
    (INT8, 1016, ColumnType::Int64),
    (TEXT, 1009, ColumnType::Text),
    (UUID, 2951, ColumnType::Uuid),
    (JSON, 199, ColumnType::Json),
    (FLOAT8, 1022, ColumnType::Float64),
    (DATE, 1182, ColumnType::Date),
    (TIME, 1183, ColumnType::Time),
    (TIMESTAMPTZ, 1185, ColumnType::Timestamp),
    (NUMERIC, 1231, ColumnType::Decimal),
    // The first of a kind is what its columns are described as; these are taken of parameters.
    (INT2, 1005, ColumnType::Int64),
    (INT4, 1007, ColumnType::Int64),
    (OID, 1028, ColumnType::Int64),
    (FLOAT4, 1021, ColumnType::Float64),
    (1043, 1015, ColumnType::Text),
    (1042, 1014, ColumnType::Text),
    (19, 1003, ColumnType::Text),
    (18, 1002, ColumnType::Text),
    (TIMESTAMP, 1115, ColumnType::Timestamp),
    (JSONB, 3807, ColumnType::Json),
];

/// Returns the type that a parameter of an object id has; nothing where it is to be found out.
pub fn kind_of(oid: u32) -> Option<ColumnType> {
    if let Some((_, _, kind)) = SCALARS.iter().find(|(scalar, _, _)| *scalar == oid) {
        return Some(kind.clone());
    }
    let list = SCALARS.iter().find(|(_, list, _)| *list == oid);
    list.map(|(_, _, kind)| ColumnType::List(Box::new(kind.clone())))
}

/// Returns the object id of a type: structs, and lists of lists or structs, are JSON.
pub fn oid_of(kind: &ColumnType) -> u32 {
    match kind {
        ColumnType::List(item) => list_of(item).unwrap_or(JSON),
        ColumnType::Struct(_) => JSON,
        kind => scalar(kind).map_or(TEXT, |(oid, _)| oid),
    }
}

/// Returns the object id of a column.
pub fn oid_of_field(field: &Field, kind: &ColumnType) -> u32 {
    if is_extension(field, PERIOD_EXTENSION) { TSTZRANGE } else { oid_of(kind) }
}

/// Returns the object id of the items of a list; nothing for lists that are JSON.
pub fn item_of(item: &ColumnType) -> Option<u32> {
    scalar(item).map(|(oid, _)| oid)
}

fn list_of(item: &ColumnType) -> Option<u32> {
    scalar(item).map(|(_, list)| list)
}

fn scalar(kind: &ColumnType) -> Option<(u32, u32)> {
    let found = SCALARS.iter().find(|(_, _, known)| known == kind);
    found.map(|(oid, list, _)| (*oid, *list))
}

/// Returns the bytes of a type's values; -1 where they differ.
pub const fn size_of(oid: u32) -> i16 {
    match oid {
        BOOL => 1,
        INT2 => 2,
        INT4 | FLOAT4 | DATE | OID => 4,
        INT8 | FLOAT8 | TIME | TIMESTAMP | TIMESTAMPTZ => 8,
        UUID => 16,
        _ => -1,
    }
}
