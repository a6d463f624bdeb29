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
use crate::deliver::error::{Error, RefusedRow, Result};
use crate::deliver::kind::{Cell, Kind, float_of};
use crate::deliver::sink::{Admission, Control, Sink, Takeover, admit, take_over, taken};
use crate::deliver::step::Step;
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

/// What there is in the dataset of a table.
#[derive(Debug, Default)]
struct Form {
    /// Names and types of its columns; there are none without a table.
    present: Vec<(String, String)>,
    /// Names of those that the sink made.
    made: Vec<String>,
    /// Another projection that has it.
    owner: Option<String>,
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

    /// Makes the control table, and the dataset if it is missing.
    async fn make_control(&self, sql: &TableSql<'_>) -> Result<()> {
        let script = sql.create_control();
        match self.api.query(script.clone()).await {
            // Perhaps there is no dataset yet; who may not make one hears the first error.
            Err(first @ Error::Refused { .. }) => {
                if self.api.create_dataset().await.is_err() {
                    return Err(first);
                }
                self.api.query(script).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    async fn form(&self, sql: &TableSql<'_>) -> Result<Form> {
        let mut form = Form::default();
        for row in self.api.query(sql.read_form()).await? {
            let mut cells = row.into_iter().map(Option::unwrap_or_default);
            let mut next = || cells.next().unwrap_or_default();
            let (word, name, kind) = (next(), next(), next());
            match word.as_str() {
                "present" => form.present.push((name, kind)),
                "made" => form.made.push(name),
                _ => form.owner = Some(name),
            }
        }
        Ok(form)
    }

    /// Adds the columns that the query has gained to a table that the projection has; refuses one
    /// that does not fit in another way. No table is ever dropped.
    async fn fit(&self, sql: &TableSql<'_>, target: &Target, form: &Form) -> Result<()> {
        let Form { present, made, .. } = form;
        let unfit = |what: String| {
            let detail = format!(
                "table \"{}\" {what}: drop the table in the sink, so that it is made anew, or name \
                 another with INTO sink.table",
                target.table
            );
            self.refused("table", detail)
        };
        let base = |kind: &str| kind.split('(').next().unwrap_or_default().to_owned();
        let wanted = sql.columns();
        let known = |name: &str| present.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        let mut missing = Vec::new();
        for (name, kind) in &wanted {
            match known(name) {
                // An emulator may keep JSON as text.
                Some((_, found))
                    if base(found) == base(kind) || (kind == "JSON" && found == "STRING") => {}
                Some((_, found)) => {
                    return Err(unfit(format!("has column \"{name}\" as {found}, not as {kind}")));
                }
                None => missing.push((name.as_str(), kind.as_str())),
            }
        }
        let gone =
            made.iter().find(|name| !wanted.iter().any(|(w, _)| w.eq_ignore_ascii_case(name)));
        if let Some(gone) = gone {
            return Err(unfit(format!("has column \"{gone}\", which the query has no more")));
        }
        match missing.first() {
            Some((name, _)) if made.is_empty() => {
                return Err(unfit(format!("lacks the column \"{name}\"")));
            }
            None => return Ok(()),
            Some(_) => {}
        }
        for (name, kind) in &missing {
            self.api.query(sql.add_column(name, kind)).await?;
        }
        let names: Vec<&str> = missing.into_iter().map(|(name, _)| name).collect();
        self.all(sql.keep_made(&names, false)).await
    }

    async fn all(&self, statements: Vec<String>) -> Result<()> {
        for statement in statements {
            self.api.query(statement).await?;
        }
        Ok(())
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
        self.make_control(&sql).await?;
        let form = self.form(&sql).await?;
        let exists = !form.present.is_empty();
        match &form.owner {
            Some(owner) if exists => return Err(taken(&self.name, target, owner)),
            // The control row of a table that was dropped is nobody's.
            Some(_) => self.all(vec![sql.forget_owners()]).await?,
            None => {}
        }
        let found = self.control(&sql).await?;
        let takeover = take_over(found.clone(), target)?;
        let mut control = match &takeover {
            Takeover::Renewed(control) => control.clone(),
            Takeover::New | Takeover::Foreign => Control::new(target),
        };
        if !exists {
            control = Control::new(target);
            let columns = sql.columns();
            let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
            // Before the table: a crash in between leaves one that somebody else could make, and
            // nothing is done to a table on the word of this note but adding columns.
            self.all(sql.keep_made(&names, true)).await?;
        } else {
            self.fit(&sql, target, &form).await?;
        }
        if !exists || !target.metadata {
            self.all(vec![sql.create_tables()]).await?;
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
            let part = self.part(&sql, target, step, known)?;
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
    fn part(&self, sql: &TableSql<'_>, target: &Target, step: &Step, known: usize) -> Result<Step> {
        let mut bytes = 0;
        let mut count = 0;
        for row in step.rows.iter().skip(known) {
            if !step.refused.contains(&row.change) {
                let of_row = sql.row_bytes(row);
                if of_row > ROWS_BYTES_MAX {
                    let reason = format!("a row is over {ROWS_BYTES_MAX} bytes as JSON");
                    let rows = vec![RefusedRow { change: row.change, reason: reason.clone() }];
                    let projection = target.projection.clone();
                    return Err(Error::Rows { projection, rows, detail: reason });
                }
                bytes += of_row;
            }
            if bytes > ROWS_BYTES_MAX {
                break;
            }
            count += 1;
        }
        Ok(step.part(known, count))
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
    let since = jiff::SignedDuration::from_micros(micros.parse().ok()?);
    let at = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0).checked_add(since).ok()?;
    Some(format!("{at:.6}Z"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn instants_of_the_whole_range_come_back() {
        for (micros, text) in [
            ("0", "1970-01-01T00:00:00.000000Z"),
            ("253402300799999999", "9999-12-31T23:59:59.999999Z"),
            ("-62135596800000000", "0001-01-01T00:00:00.000000Z"),
        ] {
            assert_eq!(super::instant(micros).as_deref(), Some(text));
        }
    }
}
