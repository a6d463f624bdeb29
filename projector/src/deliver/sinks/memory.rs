//! A sink in memory: the shortest reading of the rules, for tests.

use std::collections::{BTreeMap, HashMap, HashSet};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value as Json;

use crate::deliver::error::{Error, RefusedRow, Result};
use crate::deliver::kind::Cell;
use crate::deliver::sink::{Admission, Control, Sink, Takeover, admit, take_over, taken};
use crate::deliver::step::{RowStep, Step, identity};
use crate::deliver::suite::Outsider;
use crate::deliver::target::{Column, Target};

/// Says why a row is not accepted, if it is not.
type Constraint = Box<dyn Fn(&RowStep) -> Option<String> + Send + Sync>;

/// Keeps tables in memory.
#[derive(Default)]
pub struct MemorySink {
    tables: Mutex<HashMap<String, Table>>,
    constraint: Option<(Constraint, bool)>,
}

struct Table {
    /// The projection and its control row, once one has come.
    owner: Option<(String, Control)>,
    /// The sink made it, not somebody else.
    made: bool,
    columns: Vec<Column>,
    key: Vec<String>,
    rows: BTreeMap<String, Row>,
    /// Keys written since a reload began.
    seen: HashSet<String>,
}

struct Row {
    cells: BTreeMap<String, Cell>,
    /// The projection has written it.
    ours: bool,
}

impl MemorySink {
    /// Makes a sink that accepts no row for which `constraint` has a reason; it tells which rows these
    /// are, if it `names` them.
    pub fn constrained(
        constraint: impl Fn(&RowStep) -> Option<String> + Send + Sync + 'static,
        names: bool,
    ) -> Self {
        Self { constraint: Some((Box::new(constraint), names)), ..Self::default() }
    }

    /// Refuses the step if one of its rows is not accepted.
    fn check(&self, target: &Target, step: &Step, known: usize) -> Result<()> {
        let Some((constraint, names)) = &self.constraint else { return Ok(()) };
        let refused =
            |row: &RowStep| constraint(row).map(|reason| RefusedRow { change: row.change, reason });
        let rows: Vec<RefusedRow> = step.writable(known).filter_map(refused).collect();
        let Some(first) = rows.first() else { return Ok(()) };
        let detail = first.reason.clone();
        let rows = if *names { rows } else { Vec::new() };
        Err(Error::Rows { projection: target.projection.clone(), rows, detail })
    }
}

impl Table {
    fn new(target: &Target, made: bool) -> Self {
        Self {
            owner: None,
            made,
            columns: target.columns.clone(),
            key: target.key_columns().map(|column| column.name.clone()).collect(),
            rows: BTreeMap::new(),
            seen: HashSet::new(),
        }
    }

    /// Adds the columns that the query has gained; fails if the table does not fit in another way.
    fn fit(&mut self, target: &Target) -> Result<()> {
        let unfit = |what: String| Error::Refused {
            sink: "memory".into(),
            code: "table".into(),
            detail: format!("table \"{}\" {what}", target.table),
        };
        let of = |name: &str, columns: &[Column]| columns.iter().find(|c| c.name == name).cloned();
        for column in &target.columns {
            match of(&column.name, &self.columns) {
                Some(old) if old.kind == column.kind => {}
                Some(_) => return Err(unfit(format!("has another type of \"{}\"", column.name))),
                None if self.made => self.columns.push(column.clone()),
                None => return Err(unfit(format!("lacks the columns {}", column.name))),
            }
        }
        let gone = self.columns.iter().find(|c| of(&c.name, &target.columns).is_none());
        let key: Vec<String> = target.key_columns().map(|column| column.name.clone()).collect();
        match gone {
            Some(gone) if self.made => {
                Err(unfit(format!("has column \"{}\", which the query has no more", gone.name)))
            }
            _ if self.key != key => Err(unfit("has another key".into())),
            _ => Ok(()),
        }
    }

    fn apply(&mut self, target: &Target, row: &RowStep) {
        let key = row.identity();
        match &row.row {
            Some(cells) => {
                let names = target.columns.iter().map(|column| column.name.clone());
                let cells = names.zip(cells.iter().cloned()).collect();
                self.rows.insert(key.clone(), Row { cells, ours: true });
            }
            None if self.rows.get(&key).is_some_and(|row| row.ours) => {
                self.rows.remove(&key);
            }
            None => {}
        }
        self.seen.insert(key);
    }
}

#[async_trait]
impl Sink for MemorySink {
    async fn prepare(&self, target: &Target) -> Result<Control> {
        let mut tables = self.tables.lock();
        let table = tables.entry(target.table.clone()).or_insert_with(|| Table::new(target, true));
        let found = match &table.owner {
            Some((owner, _)) if *owner != target.projection => {
                return Err(taken("memory", target, owner));
            }
            Some((_, control)) => Some(control.clone()),
            None => None,
        };
        let control = match take_over(found, target)? {
            Takeover::New | Takeover::Foreign => Control::new(target),
            Takeover::Renewed(control) => control,
        };
        table.fit(target)?;
        table.owner = Some((target.projection.clone(), control.clone()));
        Ok(control)
    }

    async fn write(&self, target: &Target, step: &Step) -> Result<()> {
        let mut tables = self.tables.lock();
        let table = tables.get_mut(&target.table).ok_or_else(|| unprepared(target))?;
        let Some((_, control)) = &mut table.owner else { return Err(unprepared(target)) };
        let Admission::Write(known) = admit(control, target, step)? else { return Ok(()) };
        self.check(target, step, known)?;
        let ends_reload = control.ends_reload(step);
        *control = control.after(step);
        if step.reload_begin && known == 0 {
            table.seen.clear();
        }
        for row in step.writable(known) {
            table.apply(target, row);
        }
        if ends_reload {
            let seen = std::mem::take(&mut table.seen);
            table.rows.retain(|key, row| seen.contains(key) || !row.ours);
        }
        Ok(())
    }

    async fn rows(&self, target: &Target) -> Result<Vec<Vec<Json>>> {
        let tables = self.tables.lock();
        let table = tables.get(&target.table).ok_or_else(|| unprepared(target))?;
        let cell = |row: &Row, column: &Column| {
            row.cells.get(&column.name).map_or(Json::Null, Cell::to_json)
        };
        let cells = |row: &Row| target.columns.iter().map(|column| cell(row, column)).collect();
        Ok(table.rows.values().map(cells).collect())
    }
}

#[async_trait]
impl Outsider for MemorySink {
    async fn make_table(&self, target: &Target) -> Result<()> {
        self.tables.lock().insert(target.table.clone(), Table::new(target, false));
        Ok(())
    }

    async fn insert(&self, target: &Target, row: Vec<Cell>) -> Result<()> {
        let mut tables = self.tables.lock();
        let table = tables.get_mut(&target.table).ok_or_else(|| unprepared(target))?;
        let key: Vec<Cell> = target.key.iter().filter_map(|&at| row.get(at).cloned()).collect();
        let names = target.columns.iter().map(|column| column.name.clone());
        let cells = names.zip(row).collect();
        table.rows.insert(identity(&key), Row { cells, ours: false });
        Ok(())
    }
}

fn unprepared(target: &Target) -> Error {
    Error::Refused {
        sink: "memory".into(),
        code: "not found".into(),
        detail: format!("there is no table \"{}\"", target.table),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::suite;

    #[tokio::test]
    async fn passes_the_suite() {
        let sink = MemorySink::default();
        suite::check(&sink, "suite").await.unwrap();
        suite::check_beside_others(&sink, &sink, "beside").await.unwrap();
    }
}
