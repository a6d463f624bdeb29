//! ALTER TABLE: another version of a table's declaration, made in the writer's turn.
//!
//! Stored rows stay as they are. Columns have ids, and a statement uses the declaration in force at
//! its basis, so answers at past bases stay what they were; a value stored under a narrower type is
//! widened when it is read under the wider one.

use everwhen_storage::{
    ColumnDef, ColumnId, ColumnType, DefinitionChange, Definitions, Store, TableDef, Tenant,
};

use super::answer_of;
use super::dependents::{reader, writers};
use super::draft::refuse_reserved;
use super::indexes::index_on;
use super::tables::{commit, unchanged};
use super::views::go_on;
use crate::engine::WriteAnswer;
use crate::error::{Error, Result, SqlState};
use crate::session::StatementContext;
use crate::statements::{AlterTable, ColumnChange, DeclaredColumn, NamedColumn};
use crate::system_tables::SystemTables;

/// Changes a column of a table.
///
/// # Errors
/// 42P01 and 42703 for what is not there, 42701 for a column that is, 2BP01 where a mapping, a
/// projection, a view or an index rests on the column, 42846 for a type that does not hold the old one's values, 42P16
/// for what a key column cannot do.
pub async fn alter_table(store: &Store, alter: &AlterTable) -> Result<WriteAnswer> {
    let turn = store.turn().await?;
    let definitions = turn.definitions();
    let Some(table) = definitions.table(&alter.name) else {
        if alter.if_exists {
            return unchanged(store, turn.basis());
        }
        return Err(Error::unknown_table(&alter.name).at(alter.position));
    };
    let altering = Altering { store, definitions: &definitions, table };
    let changed = altering.changed(&alter.change)?;
    if changed == **table {
        return unchanged(store, turn.basis());
    }
    let change = DefinitionChange::Table(changed);
    let next = definitions.with(std::slice::from_ref(&change), turn.basis().tx.plus(1));
    let ctx = StatementContext::new(store.clone(), turn.basis(), Tenant::default());
    go_on(&ctx, &SystemTables::of(store), &definitions, &next)
        .await
        .map_err(|error| error.at(alter.position))?;
    let committed = commit(turn, change).await?;
    answer_of(store, &committed)
}

struct Altering<'a> {
    store: &'a Store,
    definitions: &'a Definitions,
    table: &'a TableDef,
}

impl Altering<'_> {
    /// Returns the table as it is to be.
    fn changed(&self, change: &ColumnChange) -> Result<TableDef> {
        let mut changed = self.table.clone();
        match change {
            ColumnChange::Add { column, if_not_exists } => {
                if *if_not_exists && self.table.column(&column.name).is_some() {
                    return Ok(changed);
                }
                changed.columns.push(self.added(column)?);
            }
            ColumnChange::Drop { column, if_exists } => {
                if *if_exists && self.table.column(&column.name).is_none() {
                    return Ok(changed);
                }
                let id = self.dropped(column)?;
                changed.columns.retain(|column| column.id != id);
            }
            ColumnChange::Rename { column, to } => {
                let id = self.renamed(column, to)?;
                of(&mut changed, id).for_each(|column| column.name.clone_from(&to.name));
            }
            ColumnChange::Type { column, kind } => {
                let id = self.widened(column, kind)?;
                of(&mut changed, id).for_each(|column| column.kind = kind.clone());
            }
            ColumnChange::SetNotNull { column } => {
                let found = self.column(column)?;
                self.refuse_incomplete_puts(&column.name, column.position)?;
                of(&mut changed, found.id).for_each(|column| column.nullable = false);
            }
            ColumnChange::DropNotNull { column } => {
                let id = self.not_of_key(column, "is never NULL")?.id;
                of(&mut changed, id).for_each(|column| column.nullable = true);
            }
        }
        Ok(changed)
    }

    fn added(&self, column: &DeclaredColumn) -> Result<ColumnDef> {
        self.refuse_taken(&column.name, column.position)?;
        if column.not_null {
            self.refuse_incomplete_puts(&column.name, column.position)?;
        }
        Ok(ColumnDef {
            id: self.definitions.next_column(self.table.id),
            name: column.name.clone(),
            kind: column.kind.clone(),
            nullable: !column.not_null,
        })
    }

    fn dropped(&self, column: &NamedColumn) -> Result<ColumnId> {
        let id = self.not_of_key(column, "cannot be dropped")?.id;
        self.refuse_written(column, |_| true)?;
        self.refuse_read(column, id)?;
        Ok(id)
    }

    fn renamed(&self, column: &NamedColumn, to: &NamedColumn) -> Result<ColumnId> {
        let found = self.column(column)?;
        if found.name == to.name {
            return Ok(found.id);
        }
        if found.name.starts_with('_') || to.name.starts_with('_') {
            let message = "names that begin with an underscore belong to the database";
            return Err(Error::new(SqlState::InvalidTableDefinition, message).at(column.position));
        }
        self.refuse_taken(&to.name, to.position)?;
        // Projections go on under the names they were made with, mappings name columns anew with
        // every version of the table.
        self.refuse_written(column, |_| true)?;
        Ok(found.id)
    }

    fn widened(&self, column: &NamedColumn, kind: &ColumnType) -> Result<ColumnId> {
        let found = self.not_of_key(column, "keeps its type, which orders its rows")?;
        if found.kind == *kind {
            return Ok(found.id);
        }
        let refused = |why: String| {
            Error::new(SqlState::CannotCoerce, why).at(column.position).with_hint(
                "types widen: int64 to float64 or decimal, date to timestamptz, scalars to text, \
                 all but structs to json; for another, add a column and UPDATE it",
            )
        };
        if !found.kind.widens_to(kind) {
            let (name, from) = (&column.name, &found.kind);
            return Err(refused(format!("column \"{name}\" is {from}, which is no {kind}")));
        }
        let mut former = self.definitions.former_types(self.table.id, found.id);
        let text = matches!(kind, ColumnType::Text | ColumnType::Json);
        if let Some(was) = former.find(|was| text || !was.widens_to(kind)) {
            let (name, now) = (&column.name, &found.kind);
            return Err(refused(format!(
                "column \"{name}\" was {was} before it was {now}: as {kind} its old values would \
                 read otherwise than now"
            )));
        }
        self.refuse_written(column, |_| !mapping_follows(&found.kind, kind))?;
        self.refuse_read(column, found.id)?;
        Ok(found.id)
    }

    fn column(&self, column: &NamedColumn) -> Result<&ColumnDef> {
        let found = self.table.column(&column.name);
        found.ok_or_else(|| Error::unknown_column(&column.name).at(column.position))
    }

    fn not_of_key(&self, column: &NamedColumn, why: &str) -> Result<&ColumnDef> {
        let found = self.column(column)?;
        if self.table.is_key(found.id) {
            let message = format!("key column \"{}\" {why}", column.name);
            return Err(Error::new(SqlState::InvalidTableDefinition, message).at(column.position));
        }
        Ok(found)
    }

    fn refuse_taken(&self, name: &str, position: usize) -> Result<()> {
        refuse_reserved(name, position)?;
        if self.table.column(name).is_some() {
            let message = format!("column \"{name}\" exists already");
            return Err(Error::new(SqlState::DuplicateColumn, message).at(position));
        }
        Ok(())
    }

    /// Refuses a change that a mapping which computes the column would not survive.
    fn refuse_written(&self, column: &NamedColumn, breaks: impl Fn(&str) -> bool) -> Result<()> {
        for writer in writers(self.definitions, self.table)? {
            if writer.columns.contains(&column.name) && breaks(&writer.name) {
                return Err(depends(column, &format!("written by mapping \"{}\"", writer.name)));
            }
        }
        Ok(())
    }

    fn refuse_read(&self, column: &NamedColumn, id: ColumnId) -> Result<()> {
        if let Some(name) = index_on(self.definitions, self.table, id) {
            return Err(depends(column, &format!("in index \"{name}\"")));
        }
        match reader(self.store, self.definitions, self.table, Some(id)) {
            Some(name) => Err(depends(column, &format!("read by projection \"{name}\""))),
            None => Ok(()),
        }
    }

    /// Refuses NOT NULL on a column that a mapping leaves out of the rows it puts.
    fn refuse_incomplete_puts(&self, column: &str, position: usize) -> Result<()> {
        let writers = writers(self.definitions, self.table)?;
        let leaves_out = |name: &String| name == column;
        match writers.iter().find(|w| w.puts && !w.columns.iter().any(leaves_out)) {
            None => Ok(()),
            Some(writer) => {
                let message =
                    format!("mapping \"{}\" does not compute column \"{column}\"", writer.name);
                Err(Error::new(SqlState::DependentObjects, message)
                    .at(position)
                    .with_hint("every row it puts would be refused; leave the column nullable"))
            }
        }
    }
}

fn of(table: &mut TableDef, id: ColumnId) -> impl Iterator<Item = &mut ColumnDef> {
    table.columns.iter_mut().filter(move |column| column.id == id)
}

/// True where every expression that a mapping may have for the one type may stand for the other,
/// with the same meaning.
const fn mapping_follows(from: &ColumnType, to: &ColumnType) -> bool {
    matches!(
        (from, to),
        (ColumnType::Int64, ColumnType::Float64 | ColumnType::Decimal)
            | (ColumnType::Date, ColumnType::Timestamp)
            | (ColumnType::Json, ColumnType::Text)
    )
}

fn depends(column: &NamedColumn, how: &str) -> Error {
    let message = format!("column \"{}\" is {how}", column.name);
    Error::new(SqlState::DependentObjects, message)
        .at(column.position)
        .with_hint("drop it first and create it again afterwards")
}
