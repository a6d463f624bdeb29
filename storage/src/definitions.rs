//! Definitions in force: tables, indexes, and what other crates keep here by name.
//!
//! Storage reads tables and indexes; streams, mappings and projections are opaque JSON to it.
//! A definition is changed by a transaction and every version is kept, so a statement can use
//! the definitions in force at its basis.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::schema::{ColumnId, IndexId, TableDef, TableId};
use crate::tx::TxId;

/// What a definition defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefinitionKind {
    Stream,
    Mapping,
    Projection,
}

/// A definition owned by another crate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    pub kind: DefinitionKind,
    pub name: String,
    /// The owner's own form.
    pub body: serde_json::Value,
    /// The transaction that made this version; filled in by the writer.
    pub tx: TxId,
}

/// A look-up index over columns of a table: a superset, verified on read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IndexDef {
    pub id: IndexId,
    pub table: TableId,
    /// Columns whose values lead to keys, in order. No key columns needed: the key is its own index.
    pub columns: Vec<ColumnId>,
    /// False until the rows that were there before have been entered.
    pub ready: bool,
}

/// One change of the definitions, made by a transaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum DefinitionChange {
    /// Makes or replaces a table (same id: columns added or changed).
    Table(TableDef),
    /// Drops a table by name.
    DropTable(String),
    /// Makes or replaces an index.
    Index(IndexDef),
    /// Makes or replaces a stream, mapping or projection.
    Put(Definition),
    /// Drops one by kind and name.
    Drop(DefinitionKind, String),
    /// Says for how many microseconds a table keeps superseded belief; `None` for ever.
    Retention { table: TableId, micros: Option<i64> },
}

/// All definitions in force after one transaction. Cheap to share, never changed in place.
#[derive(Debug, Clone, Default)]
pub struct Definitions {
    /// The transaction that made this version; before the first it is `TxId::ZERO`.
    pub tx: TxId,
    /// Tables by name.
    pub tables: BTreeMap<String, Arc<TableDef>>,
    pub indexes: BTreeMap<u32, Arc<IndexDef>>,
    /// By kind and name.
    pub others: BTreeMap<DefinitionKind, BTreeMap<String, Arc<Definition>>>,
    /// By table id, for how many microseconds superseded belief is kept; without one for ever.
    pub retention: BTreeMap<u32, i64>,
    /// The lowest ids never used.
    pub next_table: u32,
    pub next_index: u32,
}

impl Definitions {
    /// Returns the table of that name.
    pub fn table(&self, name: &str) -> Option<&Arc<TableDef>> {
        self.tables.get(name)
    }

    /// Returns the table with that id.
    pub fn table_by_id(&self, id: TableId) -> Option<&Arc<TableDef>> {
        self.tables.values().find(|table| table.id == id)
    }

    /// Returns one definition.
    pub fn get(&self, kind: DefinitionKind, name: &str) -> Option<&Arc<Definition>> {
        self.others.get(&kind)?.get(name)
    }

    /// Returns all definitions of a kind, by name.
    pub fn all(&self, kind: DefinitionKind) -> impl Iterator<Item = &Arc<Definition>> {
        self.others.get(&kind).into_iter().flat_map(BTreeMap::values)
    }

    /// Returns the ready index over exactly these columns of a table.
    pub fn index_on(&self, table: TableId, columns: &[ColumnId]) -> Option<&Arc<IndexDef>> {
        self.indexes
            .values()
            .find(|index| index.ready && index.table == table && index.columns == columns)
    }

    /// Returns the definitions after `changes`, made by transaction `tx`.
    pub fn with(&self, changes: &[DefinitionChange], tx: TxId) -> Self {
        let mut next = Self { tx, ..self.clone() };
        for change in changes {
            match change {
                DefinitionChange::Table(table) => {
                    next.next_table = next.next_table.max(table.id.0 + 1);
                    next.tables.insert(table.name.clone(), Arc::new(table.clone()));
                }
                DefinitionChange::DropTable(name) => {
                    if let Some(gone) = next.tables.remove(name) {
                        next.indexes.retain(|_, index| index.table != gone.id);
                        next.retention.remove(&gone.id.0);
                    }
                }
                DefinitionChange::Index(index) => {
                    next.next_index = next.next_index.max(index.id.0 + 1);
                    next.indexes.insert(index.id.0, Arc::new(index.clone()));
                }
                DefinitionChange::Put(definition) => {
                    let stamped = Definition { tx, ..definition.clone() };
                    next.others
                        .entry(definition.kind)
                        .or_default()
                        .insert(definition.name.clone(), Arc::new(stamped));
                }
                DefinitionChange::Drop(kind, name) => {
                    if let Some(of_kind) = next.others.get_mut(kind) {
                        of_kind.remove(name);
                    }
                }
                DefinitionChange::Retention { table, micros: Some(micros) } => {
                    next.retention.insert(table.0, *micros);
                }
                DefinitionChange::Retention { table, micros: None } => {
                    next.retention.remove(&table.0);
                }
            }
        }
        next
    }
}
