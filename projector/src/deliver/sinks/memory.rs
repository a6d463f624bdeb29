//! A sink in memory: the shortest reading of the rules, for tests.

use std::collections::{BTreeMap, HashMap, HashSet};

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::deliver::error::{Error, Result};
use crate::deliver::kind::Cell;
use crate::deliver::sink::{Admission, Control, Sink, Takeover, admit, take_over};
use crate::deliver::step::Step;
use crate::deliver::target::Target;

/// Keeps tables in memory.
#[derive(Default)]
pub struct MemorySink {
    tables: Mutex<HashMap<String, Table>>,
}

struct Table {
    control: Control,
    rows: BTreeMap<String, Vec<Cell>>,
    /// Keys written since a reload began.
    seen: HashSet<String>,
}

#[async_trait]
impl Sink for MemorySink {
    async fn prepare(&self, target: &Target) -> Result<Control> {
        let mut tables = self.tables.lock();
        let found = tables.get(&target.projection).map(|table| table.control.clone());
        let control = match take_over(found, target)? {
            Takeover::New | Takeover::Foreign => Control::new(target),
            Takeover::Renewed(control) => control,
        };
        let table = tables.entry(target.projection.clone()).or_insert_with(|| Table {
            control: control.clone(),
            rows: BTreeMap::new(),
            seen: HashSet::new(),
        });
        table.control = control.clone();
        Ok(control)
    }

    async fn write(&self, target: &Target, step: &Step) -> Result<()> {
        let mut tables = self.tables.lock();
        let table = tables.get_mut(&target.projection).ok_or_else(|| unprepared(target))?;
        let Admission::Write(known) = admit(&table.control, target, step)? else { return Ok(()) };
        if step.reload_begin && known == 0 {
            table.seen.clear();
        }
        let ends_reload = table.control.ends_reload(step);
        table.control = table.control.after(step);
        for row in step.rows.iter().skip(known) {
            let key = row.identity();
            match &row.row {
                Some(cells) => table.rows.insert(key.clone(), cells.clone()),
                None => table.rows.remove(&key),
            };
            table.seen.insert(key);
        }
        if ends_reload {
            let seen = std::mem::take(&mut table.seen);
            table.rows.retain(|key, _| seen.contains(key));
        }
        Ok(())
    }

    async fn rows(&self, target: &Target) -> Result<Vec<Vec<serde_json::Value>>> {
        let tables = self.tables.lock();
        let table = tables.get(&target.projection).ok_or_else(|| unprepared(target))?;
        Ok(table.rows.values().map(|row| row.iter().map(Cell::to_json).collect()).collect())
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

    #[tokio::test]
    async fn passes_the_suite() {
        crate::deliver::suite::check(&MemorySink::default(), "suite").await.unwrap();
    }
}
