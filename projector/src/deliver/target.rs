//! What a lease says about the sink's table, checked.

use everwhen_proto::v1::Lease;

use super::error::{Error, Result};
use super::kind::Kind;

/// Name of the column with the generation that wrote a row.
pub const GENERATION: &str = "_generation";
/// Name of the column with the transaction a row follows from.
pub const TX: &str = "_tx";
/// Name of the column with the number of the change that wrote a row.
pub const CHANGE: &str = "_change";
/// The columns that the sink adds to a query's.
pub const METADATA: [&str; 3] = [GENERATION, TX, CHANGE];

/// A column of the query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name, as the query gives it.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// Whether it may be NULL.
    pub nullable: bool,
}

/// A projection's table in a sink, under one lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The projection's name.
    pub projection: String,
    /// The fencing token: a higher one wins.
    pub lease: u64,
    /// The generation the lease was given for.
    pub generation: u64,
    /// The table's name.
    pub table: String,
    /// The query's columns in their order.
    pub columns: Vec<Column>,
    /// Places of the key columns in `columns`, in key order; never empty.
    pub key: Vec<usize>,
    /// Rows carry [`METADATA`].
    pub metadata: bool,
    /// The identity of the database's data directory.
    pub incarnation: String,
    /// The last change the server knows to be durable in the sink.
    pub acked_change: u64,
}

impl Target {
    /// Reads a lease.
    ///
    /// # Errors
    /// [`Error::Config`] for unknown types, a key that is no column, or no key at all.
    pub fn from_lease(lease: &Lease) -> Result<Self> {
        let wrong = |detail: String| Error::Config {
            what: format!("projection \"{}\"", lease.projection),
            detail,
        };
        let mut columns = Vec::with_capacity(lease.columns.len());
        for column in &lease.columns {
            if lease.metadata && METADATA.contains(&column.name.as_str()) {
                continue;
            }
            let kind = Kind::parse(&column.r#type)?;
            columns.push(Column { name: column.name.clone(), kind, nullable: column.nullable });
        }
        let mut key = Vec::with_capacity(lease.key.len());
        for name in &lease.key {
            let place = columns.iter().position(|column| &column.name == name);
            key.push(place.ok_or_else(|| wrong(format!("key column \"{name}\" is missing")))?);
        }
        if key.is_empty() {
            return Err(wrong("it has no key".into()));
        }
        Ok(Self {
            projection: lease.projection.clone(),
            lease: lease.lease,
            generation: lease.generation,
            table: lease.table.clone(),
            columns,
            key,
            metadata: lease.metadata,
            incarnation: lease.incarnation.clone(),
            acked_change: lease.acked_change,
        })
    }

    /// The key columns in key order.
    pub fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.key.iter().filter_map(|&place| self.columns.get(place))
    }

    /// Names of the columns that are no key.
    pub fn value_columns(&self) -> impl Iterator<Item = &Column> {
        let of_key = |place: &usize| self.key.contains(place);
        self.columns
            .iter()
            .enumerate()
            .filter(move |(place, _)| !of_key(place))
            .map(|(_, column)| column)
    }
}
