//! Tables under `everwhen.`: what the server knows of itself, in rows made when they are asked for.
//!
//! Transactions, tables, columns, tenants, dead letters, erasures and the audit are here; other parts of the server add theirs
//! as [`SystemTable`]s. None has a history, so none takes a time clause.

mod audit;
mod dead_letters;
mod definitions;
mod erasures;
mod tenants;
mod transactions;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use everwhen_storage::{ColumnType, Definitions, Store, TableId, Tenant, Value};
use parking_lot::RwLock;

use crate::columns::{ColumnBuilder, field_of};
use crate::error::Result;

/// A table that is computed when it is read.
pub trait SystemTable: Send + Sync {
    /// Returns the name after `everwhen.`.
    fn name(&self) -> &str;

    /// Returns the columns; always the same.
    fn schema(&self) -> SchemaRef;

    /// Returns the rows that a tenant may see. Blocking: may read disk.
    ///
    /// # Errors
    /// Where the rows cannot be read; the statement fails with it.
    fn rows(&self, tenant: &Tenant) -> Result<RecordBatch>;
}

/// The system tables by name.
#[derive(Clone, Default)]
pub struct SystemTables(Arc<RwLock<BTreeMap<String, Arc<dyn SystemTable>>>>);

impl SystemTables {
    /// Returns those that need the store alone.
    pub fn of(store: &Store) -> Self {
        let tables = Self::default();
        tables.add(Arc::new(transactions::Transactions(store.clone())));
        tables.add(Arc::new(definitions::Tables(store.clone())));
        tables.add(Arc::new(definitions::Columns(store.clone())));
        tables.add(Arc::new(definitions::Views(store.clone())));
        tables.add(Arc::new(definitions::Indexes(store.clone())));
        tables.add(Arc::new(tenants::Tenants(store.clone())));
        tables.add(Arc::new(dead_letters::DeadLetters(store.clone())));
        tables.add(Arc::new(erasures::Erasures(store.clone())));
        tables.add(Arc::new(audit::Audit(store.clone())));
        tables
    }

    /// Adds one, in place of another of its name.
    pub fn add(&self, table: Arc<dyn SystemTable>) {
        self.0.write().insert(table.name().to_owned(), table);
    }

    /// Returns all, by name.
    pub fn all(&self) -> Vec<Arc<dyn SystemTable>> {
        self.0.read().values().cloned().collect()
    }

    /// Returns one by its name after `everwhen.`.
    pub fn get(&self, name: &str) -> Option<Arc<dyn SystemTable>> {
        self.0.read().get(name).cloned()
    }

    /// Returns their names after `everwhen.` and their columns.
    pub fn list(&self) -> Vec<(String, SchemaRef)> {
        self.0.read().iter().map(|(name, table)| (name.clone(), table.schema())).collect()
    }
}

/// The columns of a system table, in order.
pub(crate) type Declared = [(&'static str, ColumnType)];

pub(crate) fn schema_of(columns: &Declared) -> SchemaRef {
    let fields: Vec<_> = columns.iter().map(|(name, kind)| field_of(name, kind)).collect();
    Arc::new(Schema::new(fields))
}

pub(crate) fn batch_of(columns: &Declared, rows: &[Vec<Value>]) -> Result<RecordBatch> {
    let mut builders: Vec<_> =
        columns.iter().map(|(_, kind)| ColumnBuilder::new(kind, rows.len())).collect();
    for row in rows {
        builders.iter_mut().zip(row).for_each(|(builder, value)| builder.append(value));
    }
    let arrays = builders.into_iter().map(ColumnBuilder::finish).collect();
    Ok(RecordBatch::try_new(schema_of(columns), arrays)?)
}

/// Returns for how long a table keeps superseded belief.
fn retention_text(definitions: &Definitions, table: TableId) -> String {
    match definitions.retention.get(&table.0) {
        Some(micros) => format!("{} seconds", micros / 1_000_000),
        None => "forever".to_owned(),
    }
}

fn text(value: impl Into<String>) -> Value {
    Value::Text(value.into())
}

fn int<T: TryInto<i64>>(value: T) -> Value {
    value.try_into().map_or(Value::Null, Value::Int)
}
