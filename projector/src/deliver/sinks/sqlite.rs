//! Rows in a SQLite file: a warehouse that needs no account.
//!
//! The file may be read by anyone at any time (WAL); each step is one durable transaction. Column
//! forms: instants are RFC 3339 text with `Z` and six fraction digits, dates and times text, bool 0 or
//! 1, decimals, NaN and infinities text, bytes blob, the rest JSON text.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::types::{ToSql, ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use crate::deliver::error::{Error, Result};
use crate::deliver::kind::{Cell, Kind, float_of, float_text};
use crate::deliver::sink::{Admission, Control, Sink, Takeover, admit, take_over};
use crate::deliver::step::{RowStep, Step};
use crate::deliver::target::{GENERATION, METADATA, Target};

const CONTROL_TABLE: &str = "CREATE TABLE IF NOT EXISTS everwhen_control (
    projection TEXT PRIMARY KEY, sink_table TEXT NOT NULL, incarnation TEXT NOT NULL,
    generation INTEGER NOT NULL, lease INTEGER NOT NULL, change INTEGER NOT NULL,
    reloading INTEGER NOT NULL)";

/// How long to wait for another process that holds the file's write lock.
const LOCK_WAIT: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A sink in one SQLite file.
pub struct SqliteSink {
    name: String,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl SqliteSink {
    /// Opens the file, or makes it with its folder, and starts the thread that alone uses it.
    ///
    /// # Errors
    /// [`Error::Config`] if the file cannot be had.
    pub fn open(name: &str, path: &Path) -> Result<Self> {
        let wrong = |detail: String| Error::Config { what: format!("sink \"{name}\""), detail };
        let mut connection = connect(path).map_err(wrong)?;
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = std::thread::Builder::new()
            .name(format!("sqlite-{name}"))
            .spawn(move || {
                for job in queue {
                    job(&mut connection);
                }
            })
            .map_err(|error| wrong(error.to_string()))?;
        Ok(Self { name: name.into(), jobs: Some(jobs), thread: Some(thread) })
    }

    /// Runs `work` in a write transaction on the sink's thread.
    async fn transact<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let result = connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(Fault::from)
                .and_then(|transaction| {
                    let value = work(&transaction)?;
                    transaction.commit()?;
                    Ok(value)
                });
            // Nobody waits any more if the caller was cancelled; the transaction counts all the same.
            let _ = answer.send(result);
        });
        let gone = || Error::Unavailable {
            sink: self.name.clone(),
            code: "closed".into(),
            detail: "its thread has ended".into(),
        };
        self.jobs.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?.map_err(|fault| fault.into_error(&self.name))
    }
}

impl Drop for SqliteSink {
    fn drop(&mut self) {
        self.jobs.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl Sink for SqliteSink {
    async fn prepare(&self, target: &Target) -> Result<Control> {
        let target = target.clone();
        self.transact(move |tx| prepare(tx, &target)).await
    }

    async fn write(&self, target: &Target, step: &Step) -> Result<()> {
        let (target, step) = (target.clone(), step.clone());
        self.transact(move |tx| write(tx, &target, &step)).await
    }

    async fn rows(&self, target: &Target) -> Result<Vec<Vec<serde_json::Value>>> {
        let target = target.clone();
        self.transact(move |tx| read(tx, &target)).await
    }
}

/// Why a transaction did not happen.
enum Fault {
    Sqlite(rusqlite::Error),
    Deliver(Error),
    Table(String),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Deliver(error)
    }
}

impl Fault {
    fn into_error(self, sink: &str) -> Error {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull, SystemIoFailure};
        let sink = sink.to_owned();
        match self {
            Self::Deliver(error) => error,
            Self::Table(detail) => Error::Refused { sink, code: "table".into(), detail },
            Self::Sqlite(error) => {
                let code = error.sqlite_error_code();
                let detail = error.to_string();
                let name = code.map_or_else(|| "sqlite".into(), |code| format!("{code:?}"));
                match code {
                    Some(DatabaseBusy | DatabaseLocked | DiskFull | SystemIoFailure) => {
                        Error::Unavailable { sink, code: name, detail }
                    }
                    _ => Error::Refused { sink, code: name, detail },
                }
            }
        }
    }
}

fn connect(path: &Path) -> Result<Connection, String> {
    let folder: PathBuf = path.parent().map(Path::to_path_buf).unwrap_or_default();
    if !folder.as_os_str().is_empty() {
        std::fs::create_dir_all(&folder)
            .map_err(|error| format!("folder {}: {error}", folder.display()))?;
    }
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(LOCK_WAIT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.set_prepared_statement_cache_capacity(256);
        connection.execute(CONTROL_TABLE, [])?;
        Ok(connection)
    };
    open().map_err(|error| format!("{}: {error}", path.display()))
}

fn prepare(tx: &Transaction<'_>, target: &Target) -> Result<Control, Fault> {
    let found = control_of(tx, target)?;
    let ours = found.is_some();
    let mut control = match take_over(found, target)? {
        Takeover::Renewed(control) => control,
        Takeover::New => Control::new(target),
        Takeover::Foreign => {
            tracing::warn!(
                projection = target.projection,
                "takes over the table of another database"
            );
            Control::new(target)
        }
    };
    let wanted = wanted_columns(target);
    let present = present_columns(tx, &target.table)?;
    let complete = |names: &[String]| wanted.iter().all(|(name, _)| names.contains(name));
    if present.is_empty() {
        create_table(tx, target, &wanted)?;
        control = Control::new(target);
    } else if ours
        && (present.len() != wanted.len() || !complete(&present) || !same_form(tx, target)?)
    {
        // The table is ours and of an older form of the query: the generation's reload fills it.
        tx.execute(&format!("DROP TABLE {}", quote(&target.table)), [])?;
        create_table(tx, target, &wanted)?;
        control = Control::new(target);
    } else if !complete(&present) {
        let names: Vec<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
        return Err(Fault::Table(format!(
            "table \"{}\" exists and has not the columns {}",
            target.table,
            names.join(", ")
        )));
    }
    if control.generation == 0 && target.metadata {
        tx.execute(&format!("UPDATE {} SET {GENERATION} = -1", quote(&target.table)), [])?;
    }
    if !target.metadata {
        let keys = key_declarations(target);
        tx.execute(&format!("CREATE TABLE IF NOT EXISTS {} ({keys})", seen_table(target)), [])?;
    }
    store_control(tx, target, &control)?;
    Ok(control)
}

fn write(tx: &Transaction<'_>, target: &Target, step: &Step) -> Result<(), Fault> {
    let Some(control) = control_of(tx, target)? else {
        let detail = format!("table \"{}\" has no control row any more", target.table);
        return Err(Fault::Table(detail));
    };
    let Admission::Write(known) = admit(&control, target, step)? else { return Ok(()) };
    let after = control.after(step);
    let track = !target.metadata && (control.reloading || step.reload_begin);
    if track && step.reload_begin && known == 0 {
        tx.execute(&format!("DELETE FROM {}", seen_table(target)), [])?;
    }
    let statements = Statements::new(target);
    for row in step.rows.iter().skip(known) {
        statements.apply(tx, target, step, row)?;
        if track && row.row.is_some() {
            let cells: Vec<&dyn ToSql> = row.key.iter().map(|cell| cell as &dyn ToSql).collect();
            tx.prepare_cached(&statements.see)?.execute(cells.as_slice())?;
        }
    }
    if control.ends_reload(step) {
        end_reload(tx, target, step)?;
    }
    store_control(tx, target, &after)
}

fn end_reload(tx: &Transaction<'_>, target: &Target, step: &Step) -> Result<(), Fault> {
    let table = quote(&target.table);
    if target.metadata {
        let sql = format!("DELETE FROM {table} WHERE {GENERATION} < ?1 OR {GENERATION} IS NULL");
        tx.execute(&sql, [signed(step.generation)])?;
        return Ok(());
    }
    let same: Vec<String> =
        target.key_columns().map(|c| format!("s.{0} IS t.{0}", quote(&c.name))).collect();
    let seen = seen_table(target);
    tx.execute(
        &format!(
            "DELETE FROM {table} AS t WHERE NOT EXISTS (SELECT 1 FROM {seen} AS s WHERE {})",
            same.join(" AND ")
        ),
        [],
    )?;
    tx.execute(&format!("DELETE FROM {seen}"), [])?;
    Ok(())
}

/// The statements of one table.
struct Statements {
    update: String,
    insert: String,
    delete: String,
    see: String,
}

impl Statements {
    fn new(target: &Target) -> Self {
        let table = quote(&target.table);
        let names: Vec<String> =
            wanted_columns(target).iter().map(|(name, _)| quote(name)).collect();
        let numbered = |names: &[String], between: &str, sign: &str| -> String {
            let parts = names.iter().zip(1..).map(|(name, n)| format!("{name} {sign} ?{n}"));
            parts.collect::<Vec<_>>().join(between)
        };
        let places = |count: usize| -> String {
            (1..=count).map(|n| format!("?{n}")).collect::<Vec<_>>().join(", ")
        };
        let keys: Vec<String> = target.key_columns().map(|column| quote(&column.name)).collect();
        let key_places = target.key.iter().map(|place| format!("?{}", place + 1));
        let matches: Vec<String> =
            keys.iter().zip(key_places).map(|(name, at)| format!("{name} IS {at}")).collect();
        Self {
            update: format!(
                "UPDATE {table} SET {} WHERE {}",
                numbered(&names, ", ", "="),
                matches.join(" AND ")
            ),
            insert: format!(
                "INSERT INTO {table} ({}) VALUES ({})",
                names.join(", "),
                places(names.len())
            ),
            delete: format!("DELETE FROM {table} WHERE {}", numbered(&keys, " AND ", "IS")),
            see: format!("INSERT INTO {} VALUES ({})", seen_table(target), places(keys.len())),
        }
    }

    fn apply(
        &self,
        tx: &Transaction<'_>,
        target: &Target,
        step: &Step,
        row: &RowStep,
    ) -> Result<(), Fault> {
        let Some(cells) = &row.row else {
            let key: Vec<&dyn ToSql> = row.key.iter().map(|cell| cell as &dyn ToSql).collect();
            tx.prepare_cached(&self.delete)?.execute(key.as_slice())?;
            return Ok(());
        };
        let metadata = [signed(step.generation), signed(step.tx), signed(row.change)];
        let mut values: Vec<&dyn ToSql> = cells.iter().map(|cell| cell as &dyn ToSql).collect();
        if target.metadata {
            values.extend(metadata.iter().map(|value| value as &dyn ToSql));
        }
        if tx.prepare_cached(&self.update)?.execute(values.as_slice())? == 0 {
            tx.prepare_cached(&self.insert)?.execute(values.as_slice())?;
        }
        Ok(())
    }
}

fn read(tx: &Transaction<'_>, target: &Target) -> Result<Vec<Vec<serde_json::Value>>, Fault> {
    let names: Vec<String> = target.columns.iter().map(|column| quote(&column.name)).collect();
    let sql = format!("SELECT {} FROM {}", names.join(", "), quote(&target.table));
    let mut statement = tx.prepare(&sql)?;
    let mut found = statement.query([])?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let mut cells = Vec::with_capacity(target.columns.len());
        for (place, column) in target.columns.iter().enumerate() {
            cells.push(cell_of(column.kind, row.get_ref(place)?).to_json());
        }
        rows.push(cells);
    }
    Ok(rows)
}

fn cell_of(kind: Kind, value: ValueRef<'_>) -> Cell {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match (kind, value) {
        (_, ValueRef::Null) => Cell::Null,
        (Kind::Bool, ValueRef::Integer(value)) => Cell::Bool(value != 0),
        (_, ValueRef::Integer(value)) => Cell::Int(value),
        (_, ValueRef::Real(value)) => Cell::Float(value),
        (_, ValueRef::Blob(bytes)) => Cell::Bytes(bytes.to_vec()),
        (Kind::Float64, ValueRef::Text(bytes)) => {
            float_of(&text(bytes)).map_or(Cell::Null, Cell::Float)
        }
        (Kind::Json, ValueRef::Text(bytes)) => Cell::Json(text(bytes)),
        (_, ValueRef::Text(bytes)) => Cell::Text(text(bytes)),
    }
}

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Null => ToSqlOutput::Owned(Value::Null),
            Self::Bool(value) => ToSqlOutput::Owned(Value::Integer(i64::from(*value))),
            Self::Int(value) => ToSqlOutput::Owned(Value::Integer(*value)),
            Self::Float(value) if value.is_finite() => ToSqlOutput::Owned(Value::Real(*value)),
            Self::Float(value) => ToSqlOutput::Owned(Value::Text(float_text(*value))),
            Self::Text(text) | Self::Json(text) => {
                ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes()))
            }
            Self::Bytes(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        })
    }
}

const fn declared_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool | Kind::Int64 => "INTEGER",
        Kind::Float64 => "REAL",
        Kind::Bytes => "BLOB",
        _ => "TEXT",
    }
}

/// Names and types of the columns that the sink's table must have.
fn wanted_columns(target: &Target) -> Vec<(String, &'static str)> {
    let own = target.columns.iter().map(|c| (c.name.clone(), declared_type(c.kind)));
    let added = METADATA.iter().filter(|_| target.metadata);
    own.chain(added.map(|name| ((*name).to_owned(), "INTEGER"))).collect()
}

fn present_columns(tx: &Transaction<'_>, table: &str) -> Result<Vec<String>, Fault> {
    let mut statement = tx.prepare("SELECT name FROM pragma_table_info(?1)")?;
    let names = statement.query_map([table], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(names)
}

/// Says whether the table's types and primary key are the target's.
fn same_form(tx: &Transaction<'_>, target: &Target) -> Result<bool, Fault> {
    let mut statement = tx.prepare("SELECT name, type, pk FROM pragma_table_info(?1)")?;
    let mut found = statement.query([&target.table])?;
    let wanted = wanted_columns(target);
    while let Some(row) = found.next()? {
        let (name, kind, pk): (String, String, usize) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let place = target.key_columns().position(|column| column.name == name);
        let known = wanted.iter().any(|(n, k)| *n == name && *k == kind);
        if place.map_or(0, |place| place + 1) != pk || !known {
            return Ok(false);
        }
    }
    Ok(true)
}

fn create_table(
    tx: &Transaction<'_>,
    target: &Target,
    wanted: &[(String, &'static str)],
) -> Result<(), Fault> {
    let columns: Vec<String> =
        wanted.iter().map(|(name, kind)| format!("{} {kind}", quote(name))).collect();
    let key: Vec<String> = target.key_columns().map(|column| quote(&column.name)).collect();
    tx.execute(
        &format!(
            "CREATE TABLE {} ({}, PRIMARY KEY ({}))",
            quote(&target.table),
            columns.join(", "),
            key.join(", ")
        ),
        [],
    )?;
    Ok(())
}

fn key_declarations(target: &Target) -> String {
    let columns: Vec<String> = target
        .key_columns()
        .map(|column| format!("{} {}", quote(&column.name), declared_type(column.kind)))
        .collect();
    columns.join(", ")
}

fn seen_table(target: &Target) -> String {
    quote(&format!("everwhen_seen_{}", target.table))
}

fn control_of(tx: &Transaction<'_>, target: &Target) -> Result<Option<Control>, Fault> {
    let sql = "SELECT incarnation, generation, lease, change, reloading FROM everwhen_control
        WHERE projection = ?1 AND sink_table = ?2";
    let found = tx
        .prepare_cached(sql)?
        .query_row([&target.projection, &target.table], |row| {
            Ok(Control {
                incarnation: row.get(0)?,
                generation: row.get(1)?,
                lease: row.get(2)?,
                change: row.get(3)?,
                reloading: row.get(4)?,
            })
        })
        .optional()?;
    Ok(found)
}

fn store_control(tx: &Transaction<'_>, target: &Target, control: &Control) -> Result<(), Fault> {
    let sql = "INSERT OR REPLACE INTO everwhen_control
        (projection, sink_table, incarnation, generation, lease, change, reloading)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    tx.prepare_cached(sql)?.execute((
        &target.projection,
        &target.table,
        &control.incarnation,
        signed(control.generation),
        signed(control.lease),
        signed(control.change),
        control.reloading,
    ))?;
    Ok(())
}

/// SQLite has no unsigned integers; counters never come near the bound.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests;
