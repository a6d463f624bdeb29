//! CREATE INDEX and DROP INDEX. One at a time and apart from definitions of projections, which use
//! the same indexes of the store: their caller sees to that.

use everwhen_storage::{
    Batch, ColumnId, DefinitionChange, DefinitionKind, Definitions, IndexDef, IndexId, Store,
    TableDef,
};

use super::answer_of;
use super::dependents::reader;
use super::tables::unchanged;
use crate::engine::WriteAnswer;
use crate::error::{Error, Result, SqlState};
use crate::indexes::Index;
use crate::statements::{CreateIndex, DropIndex, NamedColumn};

/// Makes an index, and enters all rows that are there: it takes its time over a big table.
///
/// # Errors
/// 42P01 and 42703 for what is not there, 42710 for a name that is, 42P17 for a column of a type
/// that no index takes.
pub async fn create_index(store: &Store, create: &CreateIndex) -> Result<WriteAnswer> {
    let definitions = store.definitions();
    let before = Index::named(&definitions, &create.name);
    if before.is_some() && !create.or_replace {
        if create.if_not_exists {
            return unchanged(store, store.latest());
        }
        let message = format!("index \"{}\" exists already", create.name);
        return Err(Error::new(SqlState::DuplicateObject, message).at(create.position));
    }
    let Some(table) = definitions.table(&create.table) else {
        return Err(Error::unknown_table(&create.table).at(create.table_position));
    };
    let columns =
        create.columns.iter().map(|column| column_of(table, column)).collect::<Result<Vec<_>>>()?;
    let index = Index { name: create.name.clone(), table: table.id, columns };
    let stored = IndexDef {
        id: IndexId(definitions.next_index),
        table: index.table,
        columns: index.columns.clone(),
        ready: false,
    };
    let filling = store.clone();
    tokio::task::spawn_blocking(move || filling.ensure_index(stored))
        .await
        .map_err(|_| Error::internal("an index was not made, in an unforeseen way"))??;
    let change = DefinitionChange::Put(index.definition());
    let batch = Batch { definitions: vec![change], ..Batch::default() };
    let committed = store.turn().await?.commit(batch).await?;
    if let Some(before) = before.filter(|before| *before != index) {
        remove(store, &before).await?;
    }
    answer_of(store, &committed)
}

fn column_of(table: &TableDef, column: &NamedColumn) -> Result<ColumnId> {
    let Some(found) = table.column(&column.name) else {
        return Err(Error::unknown_column(&column.name).at(column.position));
    };
    if !found.kind.may_be_key() {
        let message = format!("column \"{}\" is {}, which no index takes", found.name, found.kind);
        return Err(Error::new(SqlState::InvalidObjectDefinition, message).at(column.position));
    }
    Ok(found.id)
}

/// Drops an index.
///
/// # Errors
/// 42704 where there is none.
pub async fn drop_index(store: &Store, drop: &DropIndex) -> Result<WriteAnswer> {
    let Some(index) = Index::named(&store.definitions(), &drop.name) else {
        if drop.if_exists {
            return unchanged(store, store.latest());
        }
        let message = format!("index \"{}\" does not exist", drop.name);
        return Err(Error::new(SqlState::UndefinedObject, message).at(drop.position));
    };
    let change = DefinitionChange::Drop(DefinitionKind::Index, drop.name.clone());
    let batch = Batch { definitions: vec![change], ..Batch::default() };
    let committed = store.turn().await?.commit(batch).await?;
    remove(store, &index).await?;
    answer_of(store, &committed)
}

/// Takes the entries of an index away, unless another of its kind or a projection of the table needs them.
async fn remove(store: &Store, index: &Index) -> Result<()> {
    let definitions = store.definitions();
    let again = Index::over(&definitions, index.table).any(|other| other.columns == index.columns);
    let is_read = match definitions.table_by_id(index.table) {
        Some(table) => reader(store, &definitions, table, None).is_some(),
        None => false,
    };
    let stored = definitions.index_on(index.table, &index.columns);
    let (false, false, Some(stored)) = (again, is_read, stored) else { return Ok(()) };
    let (store, id) = (store.clone(), stored.id);
    tokio::task::spawn_blocking(move || store.drop_index(id))
        .await
        .map_err(|_| Error::internal("an index was not dropped, in an unforeseen way"))??;
    Ok(())
}

/// Returns an index that rests on a column.
pub(super) fn index_on(
    definitions: &Definitions,
    table: &TableDef,
    column: ColumnId,
) -> Option<String> {
    Index::over(definitions, table.id)
        .find(|index| index.columns.contains(&column))
        .map(|index| index.name)
}
