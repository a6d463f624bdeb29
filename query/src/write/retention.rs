//! ALTER TABLE .. SET (history_retention = ..): for how long superseded belief is kept.

use everwhen_storage::{Batch, DefinitionChange, Store};

use super::answer_of;
use crate::engine::WriteAnswer;
use crate::error::{Error, Result};
use crate::statements::SetRetention;

/// Sets or lifts a table's retention.
///
/// # Errors
/// 42P01 for a table that does not exist.
pub async fn set_retention(store: &Store, set: &SetRetention) -> Result<WriteAnswer> {
    let turn = store.turn().await?;
    let definitions = turn.definitions();
    let Some(table) = definitions.table(&set.name) else {
        return Err(Error::unknown_table(&set.name).at(set.position));
    };
    let change = DefinitionChange::Retention { table: table.id, micros: set.micros };
    let batch = Batch { definitions: vec![change], ..Batch::default() };
    answer_of(store, &turn.commit(batch).await?)
}
