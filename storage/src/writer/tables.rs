//! The tables as the writer needs them, and the check of what it is handed.

use std::collections::HashMap;
use std::sync::Arc;

use crate::assertion::{AssertedFrom, Assertion, Op};
use crate::batch::{Batch, Origin, Write, WriteKind};
use crate::definitions::{DefinitionChange, Definitions, IndexDef};
use crate::error::{Error, Result};
use crate::key;
use crate::row::{Document, DocumentView};
use crate::schema::{ColumnId, ColumnType, Precedence, RowKey, TableDef, TableId};
use crate::time::{SystemTime, ValidTime};
use crate::value::Value;

/// One table, with what a write looks up in it.
pub(crate) struct Table {
    def: Arc<TableDef>,
    pub(crate) precedence: Precedence,
    key_kinds: Vec<ColumnType>,
    /// Types of the columns that are not of the key, by id.
    kinds: HashMap<ColumnId, ColumnType>,
    required: Vec<ColumnId>,
    indexes: Vec<Arc<IndexDef>>,
}

/// The tables in force.
#[derive(Default)]
pub(crate) struct Tables(HashMap<TableId, Arc<Table>>);

fn refused(reason: impl Into<String>) -> Error {
    Error::Refused { reason: reason.into() }
}

impl Table {
    fn new(def: &Arc<TableDef>, definitions: &Definitions) -> Self {
        let others = || def.columns.iter().filter(|column| !def.is_key(column.id));
        let key = def.key.iter().filter_map(|id| def.column_by_id(*id));
        let indexes = definitions.indexes.values().filter(|index| index.table == def.id);
        Self {
            precedence: def.precedence,
            key_kinds: key.map(|column| column.kind.clone()).collect(),
            kinds: others().map(|column| (column.id, column.kind.clone())).collect(),
            required: others().filter(|c| !c.nullable).map(|column| column.id).collect(),
            indexes: indexes.cloned().collect(),
            def: Arc::clone(def),
        }
    }

    /// Calls `each` with the start of every index key that a version gives rise to. `is_cut`: only
    /// its period is new, so that indexes of values alone have it already.
    pub(crate) fn index_entries(
        &self,
        row_key: &[u8],
        (valid_from, document): (ValidTime, &Document),
        is_cut: bool,
        mut each: impl FnMut(Vec<u8>),
    ) -> Result<()> {
        if self.indexes.is_empty() {
            return Ok(());
        }
        let view = document.view()?;
        for index in self.indexes.iter().filter(|index| !is_cut || index.has_valid_from()) {
            if let Some(prefix) = self.index_prefix(index, row_key, valid_from, &view)? {
                each(prefix);
            }
        }
        Ok(())
    }

    /// Returns the start of one index's key; nothing where a value is NULL.
    pub(crate) fn index_prefix(
        &self,
        index: &IndexDef,
        row_key: &[u8],
        valid_from: ValidTime,
        document: &DocumentView<'_>,
    ) -> Result<Option<Vec<u8>>> {
        let mut values = Vec::with_capacity(index.columns.len());
        for column in &index.columns {
            if *column == ColumnId::VALID_FROM {
                values.push(Value::Timestamp(valid_from.micros()));
                continue;
            }
            let value = match self.def.key.iter().position(|id| id == column) {
                Some(at) => {
                    let kinds: Vec<&ColumnType> = self.key_kinds.iter().collect();
                    let decoded = RowKey(row_key.to_vec()).decode(&kinds)?;
                    decoded.into_iter().nth(at)
                }
                None => document.get(*column)?,
            };
            match value {
                Some(value) => values.push(value),
                None => return Ok(None),
            }
        }
        key::index_prefix(index.id, &values)
    }

    pub(crate) fn check(&self, write: &Write, system_time: SystemTime) -> Result<()> {
        let (key, assertion, event) = match &write.kind {
            WriteKind::Assert { key, assertion, event } => (key, assertion, event),
            WriteKind::Retract { .. } => {
                return match self.precedence {
                    Precedence::Effective => Ok(()),
                    Precedence::Recorded => Err(refused("a retraction in a RECORDED table")),
                };
            }
            WriteKind::EraseHashed { .. } => {
                return Err(refused("an erasure by hash outside a replay"));
            }
            WriteKind::Erase { key } => {
                return match key::is_key_of(&key.0, &self.key_kinds) {
                    true => Ok(()),
                    false => Err(refused(format!("a key that is not of table {}", self.def.name))),
                };
            }
        };
        if event.is_some() && self.precedence == Precedence::Recorded {
            return Err(refused(format!("an event id for RECORDED table {}", self.def.name)));
        }
        if !key::is_key_of(&key.0, &self.key_kinds) {
            return Err(refused(format!("a key that is not of table {}", self.def.name)));
        }
        let empty = match assertion.from {
            AssertedFrom::At(from) => from >= assertion.to,
            AssertedFrom::SystemTime => assertion.to.micros() <= system_time.micros(),
        };
        if empty {
            let from = match assertion.from {
                AssertedFrom::At(from) => from.to_string(),
                AssertedFrom::SystemTime => system_time.to_string(),
            };
            return Err(Error::EmptyPeriod { from, to: assertion.to.to_string() });
        }
        self.check_fields(assertion)
    }

    fn check_fields(&self, assertion: &Assertion) -> Result<()> {
        for (id, value) in assertion.fields.fields() {
            let kind = self.kinds.get(id).ok_or_else(|| {
                refused(format!("table {} has no column {} beside its key", self.def.name, id.0))
            })?;
            if !kind.admits(value) {
                return Err(refused(format!(
                    "a value of column {} of table {} is no {kind}",
                    id.0, self.def.name
                )));
            }
        }
        if assertion.op == Op::Put {
            let is_null = |id: &&ColumnId| assertion.fields.get(**id).is_none_or(Value::is_null);
            if let Some(missing) = self.required.iter().find(is_null) {
                return Err(refused(format!(
                    "column {} of table {} is NULL",
                    missing.0, self.def.name
                )));
            }
        }
        Ok(())
    }
}

impl Tables {
    /// Takes over the definitions in force.
    pub(crate) fn new(definitions: &Definitions) -> Self {
        let tables = definitions.tables.values();
        Self(tables.map(|def| (def.id, Arc::new(Table::new(def, definitions)))).collect())
    }

    /// Returns a table.
    pub(crate) fn get(&self, id: TableId) -> Result<&Arc<Table>> {
        self.0.get(&id).ok_or_else(|| refused(format!("table {} does not exist", id.0)))
    }

    /// Checks a batch against the tables; `system_time` is that of its first transaction or before.
    pub(crate) fn check(&self, batch: &Batch, system_time: SystemTime) -> Result<()> {
        let writes = || batch.txs.iter().flat_map(|tx| &tx.writes);
        for write in writes() {
            self.get(write.table)?.check(write, system_time)?;
        }
        let erases = |write: &Write| matches!(write.kind, WriteKind::Erase { .. });
        let mixed = batch.origin != Origin::Client || !writes().all(erases);
        if batch.erases() && (mixed || !batch.definitions.is_empty()) {
            return Err(refused("an erasure beside other writes"));
        }
        Ok(())
    }
}

/// Checks that ids and names of changed tables and indexes do not clash with those in force.
pub(crate) fn check_definitions(
    definitions: &Definitions,
    changes: &[DefinitionChange],
) -> Result<()> {
    for change in changes {
        match change {
            DefinitionChange::Table(table) => {
                let named = definitions.table(&table.name);
                let numbered = definitions.table_by_id(table.id);
                if named.is_some_and(|known| known.id != table.id)
                    || numbered.is_some_and(|known| known.name != table.name)
                    || (named.is_none() && table.id.0 < definitions.next_table)
                {
                    return Err(refused(format!("table id {} is taken", table.id.0)));
                }
                if table.key.is_empty()
                    || table.key.iter().any(|id| table.column_by_id(*id).is_none())
                {
                    return Err(refused(format!("table {} has no key", table.name)));
                }
                check_columns(definitions, numbered.map(AsRef::as_ref), table)?;
            }
            DefinitionChange::Index(index) => {
                let known = definitions.indexes.get(&index.id.0);
                if known.is_some_and(|k| (k.table, &k.columns) != (index.table, &index.columns))
                    || (known.is_none() && index.id.0 < definitions.next_index)
                {
                    return Err(refused(format!("index id {} is taken", index.id.0)));
                }
                if definitions.table_by_id(index.table).is_none() {
                    return Err(refused("an index of a table that does not exist"));
                }
            }
            DefinitionChange::Retention { table, micros } => {
                let made = |change: &DefinitionChange| matches!(change, DefinitionChange::Table(made) if made.id == *table);
                if definitions.table_by_id(*table).is_none() && !changes.iter().any(made) {
                    return Err(refused("a retention of a table that does not exist"));
                }
                if micros.is_some_and(|micros| micros <= 0) {
                    return Err(refused("a retention that is no positive time"));
                }
            }
            DefinitionChange::DropTable(_)
            | DefinitionChange::DropIndex(_)
            | DefinitionChange::Put(_)
            | DefinitionChange::Drop(..) => {}
        }
    }
    Ok(())
}

/// Checks that what is stored of a table can be read under another version of its declaration.
fn check_columns(
    definitions: &Definitions,
    known: Option<&TableDef>,
    table: &TableDef,
) -> Result<()> {
    let name = &table.name;
    for (at, column) in table.columns.iter().enumerate() {
        let others = &table.columns[..at];
        if others.iter().any(|other| other.id == column.id || other.name == column.name) {
            return Err(refused(format!("table {name} has column {} twice", column.name)));
        }
        let before = known.and_then(|known| known.column_by_id(column.id));
        let widens = before.is_none_or(|before| match table.is_key(column.id) {
            true => before.kind == column.kind,
            false => before.kind.widens_to(&column.kind),
        });
        if !widens {
            let (column, kind) = (&column.name, &column.kind);
            return Err(refused(format!("column {column} of table {name} cannot become {kind}")));
        }
        if before.is_none() && known.is_some() && column.id < definitions.next_column(table.id) {
            let id = column.id.0;
            return Err(refused(format!("column id {id} of table {name} was used before")));
        }
    }
    if known.is_some_and(|known| known.key != table.key || known.precedence != table.precedence) {
        return Err(refused(format!("table {name} keeps its key and precedence")));
    }
    Ok(())
}
