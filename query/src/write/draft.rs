//! A transaction in the making: its writes and the tables that come with it.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::LogicalPlan;
use everwhen_storage::{
    ColumnDef, ColumnId, ColumnType, DefinitionChange, Definitions, Precedence, TableDef, TableId,
    Tenant, TxId, ValidTime, Value, Write, WriteKind,
};

use super::values::{assign, wider};
use crate::dialect::{ColumnName, TableName};
use crate::error::{Error, Result, SqlState};
use crate::table::TemporalTable;
use crate::views::View;

/// A transaction in the making.
pub struct Draft {
    /// With the changes so far.
    pub definitions: Arc<Definitions>,
    pub changes: Vec<DefinitionChange>,
    pub writes: Vec<Write>,
    pub tenant: Tenant,
    /// The present instant; in the writer's turn, the transaction's system time.
    pub now: ValidTime,
    /// True where the exact system time matters for what is legal.
    pub needs_turn: bool,
    /// Tables written by assertions whose effect depends on others than those they cover.
    unseen: BTreeSet<TableId>,
}

/// The name of the key where none is declared.
pub const ID: &str = "_id";

/// Columns that the database fills.
const RESERVED: &[&str] = &[
    "_valid_from",
    "_valid_to",
    "_system_from",
    "_system_to",
    "_valid_time",
    "_system_time",
    "_tx",
    "_tenant",
    "__valid_from",
    "__valid_to",
    "__system_from",
    "__system_to",
];

/// Refuses names that the database fills itself.
///
/// # Errors
/// 42P10 for one of them.
pub fn refuse_reserved(column: &str, position: usize) -> Result<()> {
    if RESERVED.contains(&column) {
        let message = format!("column \"{column}\" is filled by the database");
        return Err(Error::new(SqlState::InvalidColumnReference, message).at(position));
    }
    Ok(())
}

impl Draft {
    /// Starts a transaction.
    pub fn new(definitions: &Arc<Definitions>, tenant: &Tenant, now: ValidTime) -> Self {
        Self {
            definitions: Arc::clone(definitions),
            changes: Vec::new(),
            writes: Vec::new(),
            tenant: tenant.clone(),
            now,
            needs_turn: false,
            unseen: BTreeSet::new(),
        }
    }

    /// Returns a table that is there.
    ///
    /// # Errors
    /// 42P01 for one that is not.
    pub fn table(&self, name: &TableName) -> Result<Arc<TableDef>> {
        self.refuse_view(name)?;
        let table = self.definitions.table(&name.name).cloned();
        table.ok_or_else(|| Error::unknown_table(&name.name).at(name.position))
    }

    fn refuse_view(&self, name: &TableName) -> Result<()> {
        let (definitions, name_of_it) = (&self.definitions, &name.name);
        let what = if View::temporary(definitions, name_of_it).is_some() {
            "temporary view"
        } else if View::named(definitions, name_of_it).is_some() {
            "view"
        } else {
            return Ok(());
        };
        let message = format!("\"{name_of_it}\" is a {what}: it takes no writes");
        Err(Error::unsupported(message).at(name.position))
    }

    /// Returns a table to write to; one that is not there is made, keyed by `_id`.
    pub fn table_or_new(&self, name: &TableName, id: &ColumnType) -> Result<TableDef> {
        self.refuse_view(name)?;
        if let Some(table) = self.definitions.table(&name.name) {
            return Ok(TableDef::clone(table));
        }
        if !matches!(id, ColumnType::Text | ColumnType::Int64 | ColumnType::Uuid) {
            let message = format!("\"_id\" is text, an integer or a uuid, not {id}");
            return Err(Error::new(SqlState::DatatypeMismatch, message).at(name.position));
        }
        let key =
            ColumnDef { id: ColumnId(0), name: ID.to_owned(), kind: id.clone(), nullable: false };
        Ok(TableDef {
            id: TableId(self.definitions.next_table),
            name: name.name.clone(),
            precedence: Precedence::Recorded,
            key: vec![key.id],
            columns: vec![key],
            declared: false,
        })
    }

    /// Takes in a table as it is to be from now on.
    pub fn keep_table(&mut self, table: &TableDef) {
        if self.definitions.table(&table.name).is_some_and(|known| **known == *table) {
            return;
        }
        let change = DefinitionChange::Table(table.clone());
        self.definitions =
            Arc::new(self.definitions.with(std::slice::from_ref(&change), TxId::ZERO));
        self.changes.push(change);
    }

    /// Adds a write.
    pub fn push(&mut self, precedence: Precedence, write: Write) {
        let exact = match &write.kind {
            WriteKind::Assert { assertion, .. } => assertion.exact,
            WriteKind::Retract { .. } => false,
            WriteKind::Erase { .. } | WriteKind::EraseHashed { .. } => true,
        };
        if precedence == Precedence::Effective && !exact {
            self.unseen.insert(write.table);
        }
        self.writes.push(write);
    }

    /// Returns how many rows were written after the first `from` writes: each key of a table once.
    pub fn rows_since(&self, from: usize) -> u64 {
        let keys = self.writes.iter().skip(from).filter_map(|write| match &write.kind {
            WriteKind::Assert { key, .. } | WriteKind::Erase { key } => Some((write.table, key)),
            WriteKind::Retract { .. } | WriteKind::EraseHashed { .. } => None,
        });
        let distinct: HashSet<_> = keys.collect();
        u64::try_from(distinct.len()).unwrap_or(u64::MAX)
    }

    /// Refuses a query that would have to see writes of this transaction whose effect only their
    /// commit tells.
    ///
    /// # Errors
    /// 0A000 where it reads an EFFECTIVE table that an earlier statement inserted into.
    pub fn refuse_reads_of_written(&self, plan: &LogicalPlan) -> Result<()> {
        if self.unseen.is_empty() {
            return Ok(());
        }
        let mut found = None;
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && let Ok(provider) = source_as_provider(&scan.source)
                && let Some(table) = provider.downcast_ref::<TemporalTable>()
                && self.unseen.contains(&table.def.id)
            {
                found = Some(table.def.name.clone());
                return Ok(TreeNodeRecursion::Stop);
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        match found {
            None => Ok(()),
            Some(name) => {
                let message =
                    format!("table \"{name}\" was written earlier in the same transaction");
                Err(Error::unsupported(message).with_hint("send the statements one by one"))
            }
        }
    }
}

/// Returns the column that a statement names; one that an undeclared table does not have is added
/// with the type of its values, under the id `unused` or a later one.
///
/// # Errors
/// 42703 for an unknown column of a declared table, 42P10 for one that the database fills.
pub fn column_or_new<'t>(
    table: &'t mut TableDef,
    name: &ColumnName,
    kind: Option<&ColumnType>,
    unused: ColumnId,
) -> Result<Option<&'t ColumnDef>> {
    refuse_reserved(&name.name, name.position)?;
    if let Some(at) = table.columns.iter().position(|column| column.name == name.name) {
        widen_column(table, at, kind);
        return Ok(table.columns.get(at));
    }
    if table.declared {
        let message =
            format!("column \"{}\" of table \"{}\" does not exist", name.name, table.name);
        return Err(Error::new(SqlState::UndefinedColumn, message).at(name.position));
    }
    let Some(kind) = kind else {
        // Nothing but NULL was written to it: there is nothing to keep.
        return Ok(None);
    };
    let added = table.columns.iter().map(|column| ColumnId(column.id.0 + 1)).max();
    table.columns.push(ColumnDef {
        id: added.map_or(unused, |added| added.max(unused)),
        name: name.name.clone(),
        kind: kind.clone(),
        nullable: true,
    });
    Ok(table.columns.last())
}

/// Widens a column of an undeclared table to hold another type; the key's type is fixed.
fn widen_column(table: &mut TableDef, at: usize, kind: Option<&ColumnType>) {
    let (false, Some(kind)) = (table.declared, kind) else { return };
    let id = table.columns[at].id;
    if !table.is_key(id) {
        let column = &mut table.columns[at];
        if !fits(kind, &column.kind) {
            column.kind = wider(&column.kind, kind);
        }
    }
}

/// True where values of one type stand in a column of another as they are, or as numbers do.
fn fits(from: &ColumnType, to: &ColumnType) -> bool {
    from == to || wider(from, to) == *to
}

/// Returns a value as one of the column's, or says what is wrong with it.
///
/// # Errors
/// As [`assign`], with the column named; 23502 for a NULL where none may be.
pub fn value_for(
    column: &ColumnDef,
    value: Value,
    from: Option<&ColumnType>,
    position: usize,
) -> Result<Value> {
    if value.is_null() && !column.nullable {
        return Err(not_null(&column.name).at(position));
    }
    assign(value, from, &column.kind).map_err(|error| {
        Error::new(error.state(), format!("column \"{}\": {error}", column.name)).at(position)
    })
}

/// Builds the error of a column that must have a value.
pub fn not_null(column: &str) -> Error {
    let message = format!("column \"{column}\" must have a value");
    Error::new(SqlState::NotNullViolation, message)
}
