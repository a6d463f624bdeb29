//! A chunk of changes from the server, decoded and checked against its target.

use std::collections::HashMap;

use everwhen_proto::v1::Chunk;
use serde_json::Value as Json;

use super::error::{Error, Result};
use super::kind::Cell;
use super::target::Target;

/// The changes of one chunk, written in one transaction of the sink.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The generation the changes belong to.
    pub generation: u64,
    /// The transaction the step leads to.
    pub tx: u64,
    /// The number of the first change.
    pub first_change: u64,
    /// The changes in their order.
    pub rows: Vec<RowStep>,
    /// A reload begins: rows nobody writes until its end are to go.
    pub reload_begin: bool,
    /// The reload ends: what it has not written goes.
    pub reload_end: bool,
}

/// One change of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct RowStep {
    /// Its number, never used twice in a generation.
    pub change: u64,
    /// The key in key order.
    pub key: Vec<Cell>,
    /// All columns in the target's order, or nothing: the row goes.
    pub row: Option<Vec<Cell>>,
}

impl RowStep {
    /// Returns text that is equal for rows of one key.
    pub fn identity(&self) -> String {
        identity(&self.key)
    }
}

/// Returns text that is equal for equal keys.
pub fn identity(key: &[Cell]) -> String {
    let parts: Vec<Json> = key.iter().map(|cell| Json::from(cell.identity())).collect();
    Json::Array(parts).to_string()
}

impl Step {
    /// Decodes a chunk.
    ///
    /// # Errors
    /// [`Error::Value`] if a row is no JSON object, lacks a key column or has a value of a wrong form.
    pub fn from_chunk(target: &Target, chunk: Chunk) -> Result<Self> {
        let mut rows = Vec::with_capacity(chunk.changes.len());
        for (change, row) in (chunk.first_change..).zip(chunk.changes) {
            rows.push(row_step(target, change, &row.row_json, row.delete)?);
        }
        Ok(Self {
            generation: chunk.generation,
            tx: chunk.tx,
            first_change: chunk.first_change,
            rows,
            reload_begin: chunk.reload_begin,
            reload_end: chunk.reload_end,
        })
    }

    /// The number of the last change; one below the first for a step without changes.
    pub fn last_change(&self) -> u64 {
        self.rows.last().map_or(self.first_change.saturating_sub(1), |row| row.change)
    }

    /// Returns the last change of each key from `rows`, in order.
    pub fn last_of_each_key(rows: &[RowStep]) -> Vec<&RowStep> {
        let mut last = HashMap::with_capacity(rows.len());
        for (place, row) in rows.iter().enumerate() {
            last.insert(row.identity(), place);
        }
        let mut places: Vec<usize> = last.into_values().collect();
        places.sort_unstable();
        places.into_iter().filter_map(|place| rows.get(place)).collect()
    }
}

fn row_step(target: &Target, change: u64, text: &str, delete: bool) -> Result<RowStep> {
    let wrong = |detail: String| Error::Value {
        column: target.projection.clone(),
        kind: "row".into(),
        detail,
    };
    let parsed = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let Json::Object(mut object) = parsed else {
        return Err(wrong("not a JSON object".into()));
    };
    if delete {
        let mut key = Vec::with_capacity(target.key.len());
        for column in target.key_columns() {
            let json = object.remove(&column.name);
            let json = json.ok_or_else(|| wrong(format!("key \"{}\" is missing", column.name)))?;
            key.push(column.kind.cell(&column.name, json)?);
        }
        return Ok(RowStep { change, key, row: None });
    }
    let mut row = Vec::with_capacity(target.columns.len());
    for column in &target.columns {
        let json = object.remove(&column.name).unwrap_or(Json::Null);
        row.push(column.kind.cell(&column.name, json)?);
    }
    let key = target.key.iter().filter_map(|&place| row.get(place).cloned()).collect();
    Ok(RowStep { change, key, row: Some(row) })
}
