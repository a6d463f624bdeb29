//! Declared indexes: names for look-up indexes of the store, and the one that serves a condition.
//!
//! An index is a [`Definition`] whose body names the table and its columns by id. What it leads to
//! is a superset at every basis, so it only narrows what is read.

use datafusion::logical_expr::Expr;
use everwhen_storage::{
    ColumnId, Definition, DefinitionKind, Definitions, IndexId, RowKey, TableDef, TableId, Tenant,
    TxId, Value, View,
};
use serde_json::{Value as Json, json};

use crate::bounds::tuples_of;

/// Combinations of values that are looked up at most.
const TUPLES_MAX: usize = 256;

/// An index as it was declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    pub name: String,
    pub table: TableId,
    pub columns: Vec<ColumnId>,
}

impl Index {
    /// Returns the index of a name.
    pub fn named(definitions: &Definitions, name: &str) -> Option<Self> {
        definitions.get(DefinitionKind::Index, name).and_then(|definition| Self::of(definition))
    }

    /// Reads a definition; nothing of one that is damaged.
    pub fn of(definition: &Definition) -> Option<Self> {
        let number = |value: &Json| value.as_u64().and_then(|number| u32::try_from(number).ok());
        let columns = definition.body.get("columns")?.as_array()?;
        Some(Self {
            name: definition.name.clone(),
            table: TableId(number(definition.body.get("table")?)?),
            columns: columns.iter().map(|id| number(id).map(ColumnId)).collect::<Option<_>>()?,
        })
    }

    /// Returns its definition.
    pub fn definition(&self) -> Definition {
        let columns: Vec<u32> = self.columns.iter().map(|column| column.0).collect();
        Definition {
            kind: DefinitionKind::Index,
            name: self.name.clone(),
            body: json!({"table": self.table.0, "columns": columns}),
            tx: TxId::ZERO,
        }
    }

    /// Returns all indexes of a table.
    pub fn over(definitions: &Definitions, table: TableId) -> impl Iterator<Item = Self> {
        definitions
            .all(DefinitionKind::Index)
            .filter_map(|definition| Self::of(definition))
            .filter(move |index| index.table == table)
    }
}

/// What to look up in an index to find the keys that can satisfy a condition.
#[derive(Debug, Clone)]
pub struct Lookup {
    pub name: String,
    pub index: IndexId,
    /// The values of the index's columns.
    pub tuples: Vec<Vec<Value>>,
}

impl Lookup {
    /// Chooses the declared index with most columns, all of which the filters bind by equality or IN.
    pub fn choose(definitions: &Definitions, table: &TableDef, filters: &[Expr]) -> Option<Self> {
        let mut usable: Vec<Index> = Index::over(definitions, table.id).collect();
        usable.sort_by_key(|index| std::cmp::Reverse(index.columns.len()));
        usable.into_iter().find_map(|index| {
            // An index has values as they were stored: an older type would not be found.
            let had_others =
                |id: &ColumnId| definitions.former_types(table.id, *id).next().is_some();
            if index.columns.iter().any(had_others) {
                return None;
            }
            let tuples = tuples_of(table, &index.columns, filters, TUPLES_MAX)?;
            let stored = definitions.index_on(table.id, &index.columns)?;
            Some(Self { name: index.name, index: stored.id, tuples })
        })
    }

    /// Returns the keys that have or had a version with the values, in order. `None` where the index
    /// is there no more, which `definitions` says, those in force after the view was opened.
    ///
    /// # Errors
    /// Of the store.
    pub fn keys(
        &self,
        view: &View<'_>,
        definitions: &Definitions,
        tenant: &Tenant,
    ) -> everwhen_storage::Result<Option<Vec<RowKey>>> {
        if !definitions.indexes.get(&self.index.0).is_some_and(|index| index.ready) {
            return Ok(None);
        }
        let mut keys = Vec::new();
        for values in &self.tuples {
            let found = view.lookup(self.index, values, Some(tenant))?;
            keys.extend(found.into_iter().map(|(_, key)| key));
        }
        keys.sort_unstable();
        keys.dedup();
        Ok(Some(keys))
    }
}
