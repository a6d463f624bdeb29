//! A chunk of changes from the server, decoded and checked against its target.

use std::collections::{BTreeSet, HashMap};

use everwhen_proto::v1::Chunk;
use serde_json::Value as Json;

use super::error::{Error, RefusedRow, Result};
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
    /// Numbers of changes that the sink does not accept: they are not written, and the control row
    /// moves past them as past the others.
    pub refused: BTreeSet<u64>,
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
    /// Decodes a chunk, of which every row must be good.
    ///
    /// # Errors
    /// [`Error::Rows`] if a row is not a JSON object, lacks a key column or has a value of a wrong form.
    pub fn from_chunk(target: &Target, chunk: Chunk) -> Result<Self> {
        let (step, rows) = Self::decode(target, chunk);
        match rows.first() {
            None => Ok(step),
            Some(first) => {
                let detail = first.reason.clone();
                Err(Error::Rows { projection: target.projection.clone(), rows, detail })
            }
        }
    }

    /// Decodes a chunk. Rows that do not have the form of their types are refused in the step, and
    /// returned with the reason.
    pub fn decode(target: &Target, chunk: Chunk) -> (Self, Vec<RefusedRow>) {
        let mut rows = Vec::with_capacity(chunk.changes.len());
        let mut wrong = Vec::new();
        for (change, row) in (chunk.first_change..).zip(chunk.changes) {
            match row_step(target, change, &row.row_json, row.delete) {
                Ok(row) => rows.push(row),
                Err(error) => {
                    rows.push(RowStep { change, key: Vec::new(), row: None });
                    wrong.push(RefusedRow { change, reason: error.to_string() });
                }
            }
        }
        let step = Self {
            generation: chunk.generation,
            tx: chunk.tx,
            first_change: chunk.first_change,
            rows,
            refused: wrong.iter().map(|row| row.change).collect(),
            reload_begin: chunk.reload_begin,
            reload_end: chunk.reload_end,
        };
        (step, wrong)
    }

    /// The rows to write, from the place `known` on: without those that are refused.
    pub fn writable(&self, known: usize) -> impl Iterator<Item = &RowStep> {
        self.rows.iter().skip(known).filter(|row| !self.refused.contains(&row.change))
    }

    /// Returns `count` rows from the place `from` on as a step of their own, to be written in order
    /// with those before and after it.
    #[must_use]
    pub fn part(&self, from: usize, count: usize) -> Self {
        let rows: Vec<RowStep> = self.rows.iter().skip(from).take(count).cloned().collect();
        let first_change = rows.first().map_or(self.first_change, |row| row.change);
        let last_change = rows.last().map_or(0, |row| row.change);
        let within = |change: &u64| (first_change..=last_change).contains(change);
        Self {
            first_change,
            refused: self.refused.iter().copied().filter(within).collect(),
            reload_begin: self.reload_begin && from == 0,
            reload_end: self.reload_end && from.saturating_add(count) >= self.rows.len(),
            generation: self.generation,
            tx: self.tx,
            rows,
        }
    }

    /// The number of the last change; one below the first for a step without changes.
    pub fn last_change(&self) -> u64 {
        self.rows.last().map_or(self.first_change.saturating_sub(1), |row| row.change)
    }

    /// Returns the last change of each key to write, in order.
    pub fn last_of_each_key(&self) -> Vec<&RowStep> {
        let mut last = HashMap::with_capacity(self.rows.len());
        for row in self.writable(0) {
            last.insert(row.identity(), row);
        }
        let mut rows: Vec<&RowStep> = last.into_values().collect();
        rows.sort_unstable_by_key(|row| row.change);
        rows
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
