//! Definitions in force: tables, indexes, and what other crates keep here by name.
//!
//! Storage reads tables and indexes; streams, mappings, projections and views are opaque JSON to it.
//! A definition is changed by a transaction and every version is kept, so a statement can use
//! the definitions in force at its basis.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::schema::{ColumnId, ColumnType, IndexId, TableDef, TableId};
use crate::tx::TxId;

/// What a definition defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefinitionKind {
    Stream,
    Mapping,
    Projection,
    View,
    Index,
}

impl DefinitionKind {
    /// Returns the word for it in messages.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Mapping => "mapping",
            Self::Projection => "projection",
            Self::View => "view",
            Self::Index => "index",
        }
    }
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
    /// [`ColumnId::VALID_FROM`] stands for the start of a version's valid period.
    pub columns: Vec<ColumnId>,
    /// False until the rows that were there before have been entered.
    pub ready: bool,
}

impl IndexDef {
    /// True where the start of versions is among what leads to keys.
    pub fn has_valid_from(&self) -> bool {
        self.columns.contains(&ColumnId::VALID_FROM)
    }
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
    /// Drops an index; its id is not given again.
    DropIndex(IndexId),
    /// Makes or replaces a stream, mapping, projection or view, or the name of an index.
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
    /// Of each table that there ever was: the lowest column id never used, and the types that its
    /// columns had before the present ones, under which rows may still be stored. Follows from the
    /// changes, so it is not stored.
    pub column_history: BTreeMap<TableId, ColumnHistory>,
}

/// What the columns of a table have been.
#[derive(Debug, Clone, Default)]
pub struct ColumnHistory {
    next: u32,
    former: BTreeMap<ColumnId, BTreeSet<ColumnType>>,
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

    /// Returns the lowest column id that a table has never used, for a column to be added: that of
    /// a dropped one still stands in stored rows.
    pub fn next_column(&self, table: TableId) -> ColumnId {
        ColumnId(self.column_history.get(&table).map_or(0, |history| history.next))
    }

    /// Returns the types that a column had before the present one, in no particular order.
    pub fn former_types(
        &self,
        table: TableId,
        column: ColumnId,
    ) -> impl Iterator<Item = &ColumnType> {
        let history =
            self.column_history.get(&table).and_then(|history| history.former.get(&column));
        history.into_iter().flatten()
    }

    /// Notes the columns of a table that takes the place of `before`.
    fn note_columns(&mut self, table: &TableDef, before: Option<&TableDef>) {
        let history = self.column_history.entry(table.id).or_default();
        for column in &table.columns {
            history.next = history.next.max(column.id.0.saturating_add(1));
            if let Some(was) = before.and_then(|before| before.column_by_id(column.id))
                && was.kind != column.kind
            {
                history.former.entry(column.id).or_default().insert(was.kind.clone());
            }
        }
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
                    let before = next.tables.get(&table.name).cloned();
                    next.note_columns(table, before.as_deref());
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
                DefinitionChange::DropIndex(id) => {
                    next.indexes.remove(&id.0);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{ColumnDef, Precedence};

    fn table(columns: &[(u32, ColumnType)]) -> DefinitionChange {
        let column = |(id, kind): &(u32, ColumnType)| ColumnDef {
            id: ColumnId(*id),
            name: format!("c{id}"),
            kind: kind.clone(),
            nullable: true,
        };
        DefinitionChange::Table(TableDef {
            id: TableId(0),
            name: "t".to_owned(),
            precedence: Precedence::Recorded,
            key: vec![ColumnId(0)],
            columns: columns.iter().map(column).collect(),
            declared: true,
        })
    }

    #[test]
    fn the_id_of_a_dropped_column_is_not_given_again() {
        use ColumnType::{Int64, Text};
        let made = Definitions::default()
            .with(&[table(&[(0, Text), (1, Int64), (2, Int64)])], TxId::new(1))
            .with(&[table(&[(0, Text), (1, Int64)])], TxId::new(2));
        assert_eq!(made.next_column(TableId(0)), ColumnId(3));
        assert_eq!(made.next_column(TableId(9)), ColumnId(0));
        let dropped = made.with(&[DefinitionChange::DropTable("t".to_owned())], TxId::new(3));
        assert_eq!((dropped.next_table, dropped.next_column(TableId(0))), (1, ColumnId(3)));
    }

    #[test]
    fn the_types_a_column_had_are_known() {
        use ColumnType::{Float64, Int64, Text};
        let made = Definitions::default()
            .with(&[table(&[(0, Text), (1, Int64)])], TxId::new(1))
            .with(&[table(&[(0, Text), (1, Float64)])], TxId::new(2))
            .with(&[table(&[(0, Text), (1, Float64)])], TxId::new(3));
        let former = |id| made.former_types(TableId(0), ColumnId(id)).collect::<Vec<_>>();
        assert_eq!(former(1), [&Int64]);
        assert!(former(0).is_empty());
    }
}
