//! Loading a history from a file: one JSON object a line, into an empty table, all of it or nothing.
//!
//! A line has the table's columns by name and may have `_valid_from` (else: when it was recorded),
//! `_valid_to` (else: no end), `_system_from` (else: the time of loading; never before that of the
//! line above), `_order`, and `_op`: `put` (else), `patch` or `delete`.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use everwhen_query::columns::json::json_to_value;
use everwhen_storage::{
    AssertedFrom, Assertion, ColumnType, Committed, Load, LoadProgress, LoadRow, Op, Precedence,
    Row, RowKey, Store, SystemTime, TableDef, Tenant, TxId, ValidTime, Value,
};
use parking_lot::Mutex;
use serde_json::{Map, Value as Json};

use crate::error::{Error, Result};

/// Reasons that an error tells; more are counted.
const TOLD_MAX: usize = 10;

/// What happens to lines that cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejects {
    /// Nothing is loaded.
    Refuse,
    /// They are written to this file, a JSON object with `line`, `reason` and `text` each; the
    /// others are loaded.
    Write(PathBuf),
}

/// A file to load.
#[derive(Debug, Clone)]
pub struct FileLoad {
    pub path: PathBuf,
    pub table: String,
    pub tenant: Tenant,
    pub rejects: Rejects,
    /// Memory for sorting, in bytes.
    pub sort_bytes_max: usize,
}

/// What a load came to.
#[derive(Debug, Clone)]
pub struct FileLoaded {
    /// Lines that were loaded, each a transaction, and lines that were not.
    pub rows: u64,
    pub rejected: u64,
    pub committed: Committed,
}

/// Loads a file. Blocks for as long as it takes; see [`Store::bulk_load`] for what it keeps.
///
/// # Errors
/// 42P01 for an unknown table; [`Error::File`] where the file cannot be read or lines are refused,
/// with their numbers; [`Error::Storage`] where the table is not empty. Nothing is loaded then.
pub fn load_file(
    store: &Store,
    load: &FileLoad,
    progress: Box<dyn FnMut(LoadProgress) + Send>,
) -> Result<FileLoaded> {
    let definitions = store.definitions();
    let table = definitions
        .table(&load.table)
        .ok_or_else(|| everwhen_query::Error::unknown_table(&load.table))?;
    let failed = |path: &Path, error: std::io::Error| Error::File {
        path: path.display().to_string(),
        why: error.to_string(),
    };
    let input = File::open(&load.path).map_err(|error| failed(&load.path, error))?;
    let out = match &load.rejects {
        Rejects::Refuse => None,
        Rejects::Write(path) => {
            let file = File::create(path).map_err(|error| failed(path, error))?;
            Some(BufWriter::new(file))
        }
    };
    let report = Arc::new(Mutex::new(Report { out, ..Report::default() }));
    let latest = store.latest().tx;
    let lines = Lines {
        input: BufReader::with_capacity(1 << 20, input),
        reader: LineReader {
            table: Arc::clone(table),
            tenant: load.tenant.clone(),
            clock: SystemTime::from_micros(store.clock().now_micros()),
            last: if latest == TxId::ZERO { None } else { Some(store.system_time(latest)?) },
            at_loading: false,
        },
        number: 0,
        report: Arc::clone(&report),
        ended: false,
    };
    let into = Load { table: table.id, sort_bytes_max: load.sort_bytes_max, progress };
    let committed = store.bulk_load(into, Box::new(lines));
    let mut report = report.lock();
    if let Some(why) = report.refusal(&load.rejects) {
        return Err(Error::File { path: load.path.display().to_string(), why });
    }
    let committed = committed?;
    if let (Some(out), Rejects::Write(path)) = (&mut report.out, &load.rejects) {
        let kept = out.flush().and_then(|()| out.get_ref().sync_all());
        kept.map_err(|error| failed(path, error))?;
    }
    Ok(FileLoaded { rows: report.rows, rejected: report.rejected, committed })
}

/// What became of the lines.
#[derive(Default)]
struct Report {
    rows: u64,
    rejected: u64,
    told: Vec<String>,
    out: Option<BufWriter<File>>,
    /// Why reading or writing failed.
    failed: Option<String>,
}

impl Report {
    fn reject(&mut self, line: u64, reason: &str, text: &str) -> std::io::Result<()> {
        self.rejected += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(format!("line {line}: {reason}"));
        }
        let Some(out) = &mut self.out else { return Ok(()) };
        let json = serde_json::json!({ "line": line, "reason": reason, "text": text });
        writeln!(out, "{json}")
    }

    fn refusal(&self, rejects: &Rejects) -> Option<String> {
        if self.failed.is_some() {
            return self.failed.clone();
        }
        if self.rejected == 0 || *rejects != Rejects::Refuse {
            return None;
        }
        let mut why = format!("{} lines cannot be loaded, so none was", self.rejected);
        for told in &self.told {
            why.push_str("\n  ");
            why.push_str(told);
        }
        Some(why)
    }
}

/// The rows of a file, in its order.
struct Lines {
    input: BufReader<File>,
    reader: LineReader,
    number: u64,
    report: Arc<Mutex<Report>>,
    ended: bool,
}

impl Iterator for Lines {
    type Item = everwhen_storage::Result<LoadRow>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let mut text = Vec::new();
            self.number += 1;
            let read = self.input.read_until(b'\n', &mut text);
            let mut report = self.report.lock();
            match read {
                Ok(0) => {
                    self.ended = true;
                    // Turned away only now, so that all that is wrong is told at once.
                    if report.rejected > 0 && report.out.is_none() {
                        return Some(Err(refused()));
                    }
                    return None;
                }
                Ok(_) if text.trim_ascii().is_empty() => {}
                Ok(_) => match self.reader.read(&text) {
                    Ok(row) => {
                        report.rows += 1;
                        return Some(Ok(row));
                    }
                    Err(reason) => {
                        let text = String::from_utf8_lossy(text.trim_ascii_end());
                        if let Err(error) = report.reject(self.number, &reason, &text) {
                            report.failed = Some(format!("the rejects cannot be kept: {error}"));
                            self.ended = true;
                            return Some(Err(refused()));
                        }
                    }
                },
                Err(error) => {
                    report.failed = Some(format!("line {}: {error}", self.number));
                    self.ended = true;
                    return Some(Err(refused()));
                }
            }
        }
        None
    }
}

/// Ends the load; the report says why.
fn refused() -> everwhen_storage::Error {
    everwhen_storage::Error::Refused { reason: "lines of the file cannot be loaded".to_owned() }
}

/// From a line to a row.
struct LineReader {
    table: Arc<TableDef>,
    tenant: Tenant,
    clock: SystemTime,
    /// The system time of the line above, at first of the store's last transaction.
    last: Option<SystemTime>,
    /// A line above was without a system time.
    at_loading: bool,
}

impl LineReader {
    /// Reads a line; the error says what is wrong with it.
    fn read(&mut self, line: &[u8]) -> Result<LoadRow, String> {
        let mut object: Map<String, Json> =
            serde_json::from_slice(line).map_err(|error| format!("no JSON object: {error}"))?;
        let system_time = self.system_time(object.remove("_system_from"))?;
        let op = op_of(object.remove("_op"))?;
        let to = instant(object.remove("_valid_to"), "_valid_to")?.unwrap_or(ValidTime::END);
        let from = match object.remove("_valid_from") {
            None => AssertedFrom::SystemTime,
            stated => {
                let from = instant(stated, "_valid_from")?.ok_or("_valid_from is null")?;
                AssertedFrom::At(from)
            }
        };
        let recorded = system_time.unwrap_or(self.clock).micros();
        let begins = match from {
            AssertedFrom::At(from) => from,
            AssertedFrom::SystemTime => ValidTime::from_micros(recorded),
        };
        if begins >= to {
            return Err(format!("valid period is empty: {begins} is not before {to}"));
        }
        let order = match object.remove("_order") {
            None | Some(Json::Null) => 0,
            Some(_) if self.table.precedence == Precedence::Recorded => {
                return Err("_order in a table of RECORDED precedence".to_owned());
            }
            Some(order) => order.as_i64().ok_or("_order is no integer")?,
        };
        let key = self.key(&mut object)?;
        let fields = self.fields(op, object)?;
        self.last = system_time.or(self.last);
        self.at_loading |= system_time.is_none();
        let assertion = Assertion { op, from, to, order, fields, exact: false };
        Ok(LoadRow { tenant: self.tenant.clone(), key, assertion, system_time })
    }

    fn system_time(&self, given: Option<Json>) -> Result<Option<SystemTime>, String> {
        let Some(at) = instant(given, "_system_from")? else { return Ok(None) };
        let at = SystemTime::from_micros(at.micros());
        if at > self.clock {
            return Err(format!("_system_from {at} is later than the clock, {}", self.clock));
        }
        if self.at_loading {
            return Err("_system_from after a line without one, recorded at loading".to_owned());
        }
        if let Some(last) = self.last.filter(|last| at < *last) {
            return Err(format!("_system_from {at} lies before what was recorded last, {last}"));
        }
        Ok(Some(at))
    }

    fn key(&self, object: &mut Map<String, Json>) -> Result<RowKey, String> {
        let mut values = Vec::with_capacity(self.table.key.len());
        for column in self.table.key.iter().filter_map(|id| self.table.column_by_id(*id)) {
            let name = column.name.as_str();
            let value = match object.remove(name) {
                None => return Err(format!("{name} is missing")),
                Some(json) => value_of(&json, &column.kind, name)?,
            };
            if value.is_null() {
                return Err(format!("{name} is null"));
            }
            values.push(value);
        }
        RowKey::encode(&values).map_err(|error| error.to_string())
    }

    fn fields(&self, op: Op, object: Map<String, Json>) -> Result<Row, String> {
        let mut fields = Vec::with_capacity(object.len());
        for (name, json) in object {
            let Some(column) = self.table.column(&name) else {
                return Err(format!("table \"{}\" has no column \"{name}\"", self.table.name));
            };
            if op == Op::Delete {
                return Err(format!("a delete with column \"{name}\""));
            }
            let value = value_of(&json, &column.kind, &name)?;
            if !value.is_null() {
                fields.push((column.id, value));
            }
        }
        let fields = Row::new(fields);
        if op == Op::Put {
            let lacks = |id| fields.get(id).is_none() && !self.table.is_key(id);
            let missing = self.table.columns.iter().find(|c| !c.nullable && lacks(c.id));
            if let Some(column) = missing {
                return Err(format!("column \"{}\" is NOT NULL", column.name));
            }
        }
        Ok(fields)
    }
}

fn value_of(json: &Json, kind: &ColumnType, name: &str) -> Result<Value, String> {
    json_to_value(json, kind).map_err(|error| format!("column \"{name}\": {error}"))
}

fn op_of(json: Option<Json>) -> Result<Op, String> {
    match json.as_ref().and_then(Json::as_str) {
        Some("put") => Ok(Op::Put),
        Some("patch") => Ok(Op::Patch { set_nulls: false }),
        Some("delete") => Ok(Op::Delete),
        None if json.is_none() => Ok(Op::Put),
        _ => Err("_op is none of \"put\", \"patch\" and \"delete\"".to_owned()),
    }
}

/// Returns an instant; nothing where it is null or not there.
fn instant(json: Option<Json>, name: &str) -> Result<Option<ValidTime>, String> {
    match json {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => {
            ValidTime::parse(&text).map(Some).map_err(|error| format!("{name}: {error}"))
        }
        Some(_) => Err(format!("{name} is no text")),
    }
}

#[cfg(test)]
mod tests {
    use everwhen_storage::{ColumnDef, ColumnId, TableId};

    use super::*;

    #[test]
    fn fuzzed_lines_are_rows_or_refused() {
        let kinds = [
            ("_id", ColumnType::Text),
            ("n", ColumnType::Int64),
            ("d", ColumnType::Decimal),
            ("at", ColumnType::Timestamp),
            ("tags", ColumnType::List(Box::new(ColumnType::Text))),
        ];
        let columns = (0..).zip(kinds).map(|(id, (name, kind))| ColumnDef::new(id, name, kind));
        let table = Arc::new(TableDef {
            id: TableId(1),
            name: "t".to_owned(),
            precedence: Precedence::Effective,
            key: vec![ColumnId(0)],
            columns: columns.collect(),
            declared: true,
        });
        let lines = [
            r#"{"_id": "a", "n": 5, "d": "1.5", "at": "2026-01-05", "tags": ["x", null]}"#,
            r#"{"_id": "b", "_op": "delete", "_valid_from": "2026-01-05", "_valid_to": null}"#,
            r#"{"_id": "c", "_op": "patch", "_order": 7, "_system_from": "2025-01-01", "n": null}"#,
        ];
        let words = ["_op", "_order", "_system_from", "_valid_from", "_valid_to"];
        everwhen_fuzz::Fuzz::text("lines of files", lines).words(&words).run_text(|text| {
            let mut reader = LineReader {
                table: Arc::clone(&table),
                tenant: Tenant::default(),
                clock: SystemTime::from_micros(1_767_600_000_000_000),
                last: None,
                at_loading: false,
            };
            reader.read(text.as_bytes()).is_ok()
        });
    }
}
