//! CREATE TABLE and DROP TABLE: definitions that query owns, made in the writer's turn.
//! [`super::alter`] changes them.

use everwhen_storage::{
    Basis, Batch, ColumnDef, ColumnId, Committed, DefinitionChange, DefinitionKind, Store,
    SystemTime, TableDef, TableId, Turn,
};

use super::dependents::{reader, writers};
use super::draft::refuse_reserved;
use super::views::view_over;
use super::{answer_of, write_answer};
use crate::engine::WriteAnswer;
use crate::error::{Error, Result, SqlState};
use crate::indexes::Index;
use crate::statements::{CreateTable, DropTable};
use crate::views::View;

/// Makes a table.
///
/// # Errors
/// 42P07 where it exists, 42P16, 42701 and 42P10 for a declaration that cannot be.
pub async fn create_table(store: &Store, create: &CreateTable) -> Result<WriteAnswer> {
    let turn = store.turn().await?;
    let definitions = turn.definitions();
    if definitions.table(&create.name).is_some() {
        if create.if_not_exists {
            return unchanged(store, turn.basis());
        }
        let message = format!("table \"{}\" exists already", create.name);
        return Err(Error::new(SqlState::DuplicateTable, message).at(create.position));
    }
    if View::named(&definitions, &create.name).is_some() {
        let message = format!("view \"{}\" exists already", create.name);
        return Err(Error::new(SqlState::DuplicateTable, message).at(create.position));
    }
    let table = table_of(create, definitions.next_table)?;
    let id = table.id;
    let mut changes = vec![DefinitionChange::Table(table)];
    if create.retention.is_some() {
        changes.push(DefinitionChange::Retention { table: id, micros: create.retention });
    }
    let batch = Batch { definitions: changes, ..Batch::default() };
    answer_of(store, &turn.commit(batch).await?)
}

fn table_of(create: &CreateTable, id: u32) -> Result<TableDef> {
    let mut columns: Vec<ColumnDef> = Vec::with_capacity(create.columns.len());
    for (number, column) in (0..).zip(&create.columns) {
        refuse_reserved(&column.name, column.position)?;
        if columns.iter().any(|earlier| earlier.name == column.name) {
            let message = format!("column \"{}\" is declared twice", column.name);
            return Err(Error::new(SqlState::DuplicateColumn, message).at(column.position));
        }
        let of_key = create.key.contains(&column.name);
        if of_key && !column.kind.may_be_key() {
            let message = format!("a key cannot be of type {}", column.kind);
            return Err(Error::new(SqlState::InvalidTableDefinition, message).at(column.position));
        }
        columns.push(ColumnDef {
            id: ColumnId(number),
            name: column.name.clone(),
            kind: column.kind.clone(),
            nullable: !column.not_null && !of_key,
        });
    }
    let mut key = Vec::with_capacity(create.key.len());
    for name in &create.key {
        let Some(column) = columns.iter().find(|column| column.name == *name) else {
            let message = format!("column \"{name}\" of the key is not declared");
            return Err(Error::new(SqlState::InvalidTableDefinition, message).at(create.position));
        };
        key.push(column.id);
    }
    Ok(TableDef {
        id: TableId(id),
        name: create.name.clone(),
        precedence: create.precedence,
        key,
        columns,
        declared: true,
    })
}

/// Drops a table.
///
/// # Errors
/// 42P01 where there is none, 2BP01 where a mapping or projection uses it.
pub async fn drop_table(store: &Store, drop: &DropTable) -> Result<WriteAnswer> {
    let turn = store.turn().await?;
    let definitions = turn.definitions();
    let Some(table) = definitions.table(&drop.name) else {
        if drop.if_exists {
            return unchanged(store, turn.basis());
        }
        return Err(Error::unknown_table(&drop.name).at(drop.position));
    };
    let writer = writers(&definitions, table)?.into_iter().next();
    let user = match writer {
        Some(writer) => Some(format!("mapping \"{}\"", writer.name)),
        None => {
            reader(store, &definitions, table, None).map(|name| format!("projection \"{name}\""))
        }
    };
    let user = match user {
        Some(user) => Some(user),
        None => view_over(&definitions, &drop.name)?.map(|name| format!("view \"{name}\"")),
    };
    if let Some(user) = user {
        let message = format!("table \"{}\" is used by {user}", drop.name);
        return Err(Error::new(SqlState::DependentObjects, message).at(drop.position));
    }
    let gone = Index::over(&definitions, table.id)
        .map(|index| DefinitionChange::Drop(DefinitionKind::Index, index.name));
    let definitions: Vec<_> =
        gone.chain([DefinitionChange::DropTable(drop.name.clone())]).collect();
    let committed = turn.commit(Batch { definitions, ..Batch::default() }).await?;
    answer_of(store, &committed)
}

pub(super) async fn commit(turn: Turn, change: DefinitionChange) -> Result<Committed> {
    Ok(turn.commit(Batch { definitions: vec![change], ..Batch::default() }).await?)
}

/// Answers a definition that changes nothing: no transaction is spent.
pub(super) fn unchanged(store: &Store, basis: Basis) -> Result<WriteAnswer> {
    let system_time = match basis.tx.get() {
        0 => SystemTime::from_micros(basis.now.micros()),
        _ => store.system_time(basis.tx)?,
    };
    Ok(write_answer(store, basis.tx, system_time))
}
