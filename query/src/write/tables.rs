//! CREATE TABLE and DROP TABLE: definitions that query owns, made in the writer's turn.

use everwhen_storage::{
    Basis, Batch, ColumnDef, ColumnId, ColumnType, Committed, DefinitionChange, DefinitionKind,
    Definitions, Store, SystemTime, TableDef, TableId, Turn,
};

use super::draft::refuse_reserved;
use super::{answer_of, write_answer};
use crate::engine::WriteAnswer;
use crate::error::{Error, Result, SqlState};
use crate::statements::{CreateTable, DropTable};

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
        if of_key && !may_be_key(&column.kind) {
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

const fn may_be_key(kind: &ColumnType) -> bool {
    matches!(
        kind,
        ColumnType::Text
            | ColumnType::Int64
            | ColumnType::Timestamp
            | ColumnType::Date
            | ColumnType::Bool
            | ColumnType::Bytes
    )
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
    if let Some(user) = user_of(&definitions, table) {
        let message = format!("table \"{}\" is used by {user}", drop.name);
        return Err(Error::new(SqlState::DependentObjects, message).at(drop.position));
    }
    let committed = commit(turn, DefinitionChange::DropTable(drop.name.clone())).await?;
    answer_of(store, &committed)
}

/// Returns a mapping or projection that names a table. Their bodies are their owners'; both keep
/// the names or ids of their tables under `table` or `tables`.
fn user_of(definitions: &Definitions, table: &TableDef) -> Option<String> {
    let names = |value: &serde_json::Value| {
        value.as_str() == Some(&table.name) || value.as_u64() == Some(u64::from(table.id.0))
    };
    let uses = |body: &serde_json::Value| {
        body.get("table").is_some_and(names)
            || body
                .get("tables")
                .and_then(serde_json::Value::as_array)
                .is_some_and(|tables| tables.iter().any(names))
    };
    [(DefinitionKind::Mapping, "mapping"), (DefinitionKind::Projection, "projection")]
        .into_iter()
        .flat_map(|(kind, word)| definitions.all(kind).map(move |one| (word, one)))
        .find(|(_, one)| uses(&one.body))
        .map(|(word, one)| format!("{word} \"{}\"", one.name))
}

async fn commit(turn: Turn, change: DefinitionChange) -> Result<Committed> {
    Ok(turn.commit(Batch { definitions: vec![change], ..Batch::default() }).await?)
}

/// Answers a definition that changes nothing: no transaction is spent.
fn unchanged(store: &Store, basis: Basis) -> Result<WriteAnswer> {
    let system_time = match basis.tx.get() {
        0 => SystemTime::from_micros(basis.now.micros()),
        _ => store.system_time(basis.tx)?,
    };
    Ok(write_answer(store, basis.tx, system_time))
}
