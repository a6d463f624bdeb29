//! Rows in BigQuery by MERGE batches: one multi-statement transaction per batch checks the control
//! row, merges the rows and moves the control row.
//!
//! A script cannot take parameters everywhere, so rows travel as one JSON text in a raw string
//! literal, from which nothing can break out ([`sql`]). Every answer is checked for `errors`, also
//! with status 200. A table's control row has a table of its own, so that transactions of different
//! projections do not conflict.

mod api;
mod sql;

use std::collections::HashMap;

use async_trait::async_trait;
use parking_lot::Mutex;

use self::api::Api;
use self::sql::TableSql;
use crate::deliver::config::BigQueryConfig;
use crate::deliver::error::{Error, Result};
use crate::deliver::kind::{Cell, Kind, float_of};
use crate::deliver::sink::{Admission, Control, Sink, Takeover, admit, take_over};
use crate::deliver::step::{RowStep, Step};
use crate::deliver::target::Target;

/// BigQuery refuses statements over 1 MB of text; the rest of a script stays far below the difference.
const ROWS_BYTES_MAX: usize = 640 << 10;

/// A sink in one dataset.
pub struct BigQuerySink {
    name: String,
    api: Api,
    /// Control rows as last seen, by projection; missing after a write of unknown outcome.
    controls: Mutex<HashMap<String, Control>>,
}

impl BigQuerySink {
    /// Makes a client; calls nothing yet.
    ///
    /// # Errors
    /// [`Error::Config`] if the credentials cannot be read.
    pub async fn open(name: &str, config: &BigQueryConfig) -> Result<Self> {
        let api = Api::new(name, config).await?;
        Ok(Self { name: name.into(), api, controls: Mutex::default() })
    }

    fn refused(&self, code: &str, detail: String) -> Error {
        Error::Refused { sink: self.name.clone(), code: code.into(), detail }
    }

    fn table_sql<'a>(&'a self, target: &'a Target) -> Result<TableSql<'a>> {
        TableSql::new(&self.api.project, &self.api.dataset, target)
            .map_err(|detail| self.refused("name", detail))
    }

    async fn control(&self, sql: &TableSql<'_>) -> Result<Option<Control>> {
        let rows = self.api.query(sql.read_control()).await?;
        let Some(row) = rows.into_iter().next() else { return Ok(None) };
        let text = |place: usize| row.get(place).cloned().flatten().unwrap_or_default();
        let number = |place: usize| -> Result<u64> {
            text(place).parse().map_err(|_| self.refused("control row", "is damaged".into()))
        };
        Ok(Some(Control {
            incarnation: text(0),
            generation: number(1)?,
            lease: number(2)?,
            change: number(3)?,
            reloading: text(4).eq_ignore_ascii_case("true"),
        }))
    }

    /// Makes the dataset and the tables that are missing.
    async fn make_tables(&self, sql: &TableSql<'_>) -> Result<()> {
        for statement in sql.create_tables() {
            match self.api.query(statement.clone()).await {
                // Perhaps there is no dataset yet; who may not make one hears the first error.
                Err(first @ Error::Refused { .. }) => {
                    if self.api.create_dataset().await.is_err() {
                        return Err(first);
                    }
                    self.api.query(statement).await?;
                }
                other => {
                    other?;
                }
            }
        }
        Ok(())
    }

    /// Says whether the table's columns are those of the target.
    async fn fits(&self, sql: &TableSql<'_>, ours: bool) -> Result<bool> {
        let rows = self.api.query(sql.read_columns()).await?;
        let present: Vec<(String, String)> = rows
            .into_iter()
            .filter_map(|row| {
                let mut cells = row.into_iter();
                Some((cells.next()??, cells.next()??))
            })
            .collect();
        let wanted = sql.columns();
        let base = |kind: &str| kind.split('(').next().unwrap_or_default().to_owned();
        let has = |name: &str, kind: &str| {
            present.iter().filter(|(n, _)| n == name).any(|(_, found)| {
                // An emulator may keep JSON as text.
                base(found) == base(kind) || (kind == "JSON" && found == "STRING")
            })
        };
        let all = wanted.iter().all(|(name, kind)| has(name, kind));
        Ok(all && (!ours || present.len() == wanted.len()))
    }

    /// Writes rows as one batch under `before` and returns the control row after it.
    async fn batch(&self, sql: &TableSql<'_>, before: &Control, step: &Step) -> Result<Control> {
        let after = before.after(step);
        self.api.query(sql.write(before, &after, step)).await?;
        Ok(after)
    }
}

#[async_trait]
impl Sink for BigQuerySink {
    async fn prepare(&self, target: &Target) -> Result<Control> {
        let sql = self.table_sql(target)?;
        self.make_tables(&sql).await?;
        let found = self.control(&sql).await?;
        let takeover = take_over(found.clone(), target)?;
        let mut control = match &takeover {
            Takeover::Renewed(control) => control.clone(),
            Takeover::New | Takeover::Foreign => Control::new(target),
        };
        if !self.fits(&sql, found.is_some()).await? {
            if found.is_none() {
                let detail = format!("table \"{}\" exists with other columns", target.table);
                return Err(self.refused("table", detail));
            }
            // The table is ours and of an older form of the query: the generation's reload fills it.
            self.api.query(sql.drop_table()).await?;
            self.make_tables(&sql).await?;
            control = Control::new(target);
        }
        for statement in sql.move_control(found.as_ref(), &control) {
            self.api.query(statement).await?;
        }
        if self.control(&sql).await?.as_ref() != Some(&control) {
            return Err(Error::Unavailable {
                sink: self.name.clone(),
                code: "control row".into(),
                detail: "another process has moved it".into(),
            });
        }
        self.controls.lock().insert(target.projection.clone(), control.clone());
        Ok(control)
    }

    async fn write(&self, target: &Target, step: &Step) -> Result<()> {
        let sql = self.table_sql(target)?;
        let remembered = self.controls.lock().remove(&target.projection);
        let mut fresh = remembered.is_none();
        let mut control = match remembered {
            Some(control) => control,
            None => self.control(&sql).await?.ok_or_else(|| {
                self.refused("table", format!("table \"{}\" has no control row", target.table))
            })?,
        };
        loop {
            let Admission::Write(known) = admit(&control, target, step)? else { break };
            let part = self.part(&sql, step, known)?;
            let complete = part.last_change() == step.last_change();
            match self.batch(&sql, &control, &part).await {
                Ok(after) => control = after,
                // Perhaps the control row has moved: then it says what to do.
                Err(error @ Error::Refused { .. }) if !fresh => {
                    let found = self.control(&sql).await?;
                    if found.as_ref() == Some(&control) || found.is_none() {
                        return Err(error);
                    }
                    control = found.unwrap_or_default();
                    fresh = true;
                    continue;
                }
                Err(error) => return Err(error),
            }
            if complete {
                break;
            }
        }
        self.controls.lock().insert(target.projection.clone(), control);
        Ok(())
    }

    async fn rows(&self, target: &Target) -> Result<Vec<Vec<serde_json::Value>>> {
        let sql = self.table_sql(target)?;
        let rows = self.api.query(sql.read_rows()).await?;
        let decode = |row: Vec<Option<String>>| {
            let cells = target.columns.iter().zip(row);
            cells.map(|(column, text)| cell_of(column.kind, text).to_json()).collect()
        };
        Ok(rows.into_iter().map(decode).collect())
    }
}

impl BigQuerySink {
    /// Cuts the rows from the place `known` on that fit into one statement.
    fn part(&self, sql: &TableSql<'_>, step: &Step, known: usize) -> Result<Step> {
        let rows = step.rows.get(known..).unwrap_or_default();
        let mut bytes = 0;
        let mut count = 0;
        for row in rows {
            bytes += sql.row_bytes(row);
            if bytes > ROWS_BYTES_MAX {
                break;
            }
            count += 1;
        }
        if count == 0 && !rows.is_empty() {
            let detail = format!("a row is over {ROWS_BYTES_MAX} bytes as JSON");
            return Err(self.refused("row size", detail));
        }
        let part: Vec<RowStep> = rows.iter().take(count).cloned().collect();
        Ok(Step {
            first_change: part.first().map_or(step.first_change, |row| row.change),
            reload_begin: step.reload_begin && known == 0,
            reload_end: step.reload_end && count == rows.len(),
            rows: part,
            ..*step
        })
    }
}

fn cell_of(kind: Kind, text: Option<String>) -> Cell {
    let Some(text) = text else { return Cell::Null };
    match kind {
        Kind::Bool => Cell::Bool(text.eq_ignore_ascii_case("true")),
        Kind::Int64 => text.parse().map_or(Cell::Text(text), Cell::Int),
        Kind::Float64 => float_of(&text).map_or(Cell::Null, Cell::Float),
        Kind::Timestamp => instant(&text).map_or(Cell::Text(text), Cell::Text),
        Kind::Json => Cell::Json(text),
        // Bytes come in the contract's base64.
        _ => Cell::Text(text),
    }
}

/// Turns microseconds into RFC 3339 with six fraction digits.
fn instant(micros: &str) -> Option<String> {
    let at = jiff::Timestamp::from_microsecond(micros.parse().ok()?).ok()?;
    Some(format!("{at:.6}"))
}
