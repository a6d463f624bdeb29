//! Rows in a SQLite file: a warehouse that needs no account.
//!
//! The file may be read by anyone at any time (WAL); each step is one durable transaction. Column
//! forms: instants are RFC 3339 text with `Z` and six fraction digits, dates and times text, bool 0 or
//! 1, decimals, NaN and infinities text, bytes blob, the rest JSON text.

mod table;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::types::{ToSql, ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use self::table::{Statements, quote};
use crate::deliver::error::{Error, RefusedRow, Result};
use crate::deliver::kind::{Cell, Kind, float_of, float_text};
use crate::deliver::sink::{Admission, Control, Sink, Takeover, admit, take_over};
use crate::deliver::step::{RowStep, Step};
use crate::deliver::target::Target;

/// The name of the error of a constraint.
const CONSTRAINT: &str = "ConstraintViolation";

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
        let (sink, target) = (self.name.clone(), target.clone());
        self.transact(move |tx| prepare(tx, &sink, &target)).await
    }

    async fn write(&self, target: &Target, step: &Step) -> Result<()> {
        let projection = target.projection.clone();
        let (target, step) = (target.clone(), step.clone());
        let written = self.transact(move |tx| write(tx, &target, &step)).await;
        match written {
            // A constraint that is checked at the end of the transaction names no row.
            Err(Error::Refused { code, detail, .. }) if code == CONSTRAINT => {
                Err(Error::Rows { projection, rows: Vec::new(), detail })
            }
            other => other,
        }
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
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(LOCK_WAIT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.set_prepared_statement_cache_capacity(256);
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        table::make_own_tables(&tx)?;
        tx.commit()?;
        Ok(connection)
    };
    open().map_err(|error| format!("{}: {error}", path.display()))
}

fn prepare(tx: &Transaction<'_>, sink: &str, target: &Target) -> Result<Control, Fault> {
    let control = match take_over(table::control_of(tx, target)?, target)? {
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
    let control = table::have(tx, sink, target, control)?;
    table::store_control(tx, target, &control)?;
    Ok(control)
}

fn write(tx: &Transaction<'_>, target: &Target, step: &Step) -> Result<(), Fault> {
    let Some(control) = table::control_of(tx, target)? else {
        let detail = format!("table \"{}\" has no control row any more", target.table);
        return Err(Fault::Table(detail));
    };
    let Admission::Write(known) = admit(&control, target, step)? else { return Ok(()) };
    let rows = Rows { tx, target, step, statements: Statements::new(target) };
    let refused = rows.write_all(step.writable(known).collect())?;
    if let Some(first) = refused.first() {
        let detail = first.reason.clone();
        let projection = target.projection.clone();
        return Err(Error::Rows { projection, rows: refused, detail }.into());
    }
    if control.ends_reload(step) {
        table::end_reload(tx, target, step.generation).map_err(|fault| match fault {
            Fault::Sqlite(error) => Fault::Table(format!(
                "cannot delete the rows of table \"{}\" that are gone from the query: {error}",
                target.table
            )),
            other => other,
        })?;
    }
    table::store_control(tx, target, &control.after(step))
}

/// The rows of one step on their way into the table.
struct Rows<'a> {
    tx: &'a Transaction<'a>,
    target: &'a Target,
    step: &'a Step,
    statements: Statements,
}

impl Rows<'_> {
    /// Writes rows and returns those that the table does not accept: the others are written.
    ///
    /// A row may be accepted once another has made room, such as for a unique value: so those
    /// refused are tried again as long as that helps.
    fn write_all(&self, rows: Vec<&RowStep>) -> Result<Vec<RefusedRow>, Fault> {
        let mut rows = rows;
        let mut refused: Vec<RefusedRow> = Vec::new();
        loop {
            let tried = rows.len();
            let mut again = Vec::new();
            for row in rows {
                let Err(fault) = self.apply(row) else { continue };
                let reason = match fault {
                    Fault::Sqlite(error) if is_about_the_row(&error) => error.to_string(),
                    other => return Err(other),
                };
                again.push((row, reason));
                // A constraint may have ended the transaction: what was written in it is gone.
                if self.tx.is_autocommit() {
                    break;
                }
            }
            if again.is_empty() {
                return Ok(refused);
            }
            let ended = self.tx.is_autocommit();
            let last: BTreeSet<u64> =
                self.step.last_of_each_key().iter().map(|row| row.change).collect();
            let is_last = |row: &RowStep| last.contains(&row.change);
            let (hopeful, hopeless): (Vec<_>, Vec<_>) =
                again.into_iter().partition(|(row, _)| !ended && is_last(row));
            let refusal =
                |(row, reason): (&RowStep, String)| RefusedRow { change: row.change, reason };
            refused.extend(hopeless.into_iter().map(refusal));
            if hopeful.is_empty() || hopeful.len() == tried {
                refused.extend(hopeful.into_iter().map(refusal));
                refused.sort_unstable_by_key(|row| row.change);
                return Ok(refused);
            }
            rows = hopeful.into_iter().map(|(row, _)| row).collect();
        }
    }

    fn apply(&self, row: &RowStep) -> Result<(), Fault> {
        let (tx, target, statements) = (self.tx, self.target, &self.statements);
        let mut key: Vec<&dyn ToSql> = row.key.iter().map(|cell| cell as &dyn ToSql).collect();
        let Some(cells) = &row.row else {
            if target.metadata {
                tx.prepare_cached(&statements.delete)?.execute(key.as_slice())?;
            } else if tx.prepare_cached(&statements.marked)?.exists(key.as_slice())? {
                tx.prepare_cached(&statements.delete)?.execute(key.as_slice())?;
                tx.prepare_cached(&statements.unmark)?.execute(key.as_slice())?;
            }
            return Ok(());
        };
        let metadata = [signed(self.step.generation), signed(self.step.tx), signed(row.change)];
        let mut values: Vec<&dyn ToSql> = cells.iter().map(|cell| cell as &dyn ToSql).collect();
        if target.metadata {
            values.extend(metadata.iter().map(|value| value as &dyn ToSql));
        }
        if tx.prepare_cached(&statements.update)?.execute(values.as_slice())? == 0 {
            tx.prepare_cached(&statements.insert)?.execute(values.as_slice())?;
        }
        if !target.metadata {
            key.push(&metadata[0]);
            if tx.prepare_cached(&statements.mark)?.execute(key.as_slice())? == 0 {
                tx.prepare_cached(&statements.mark_new)?.execute(key.as_slice())?;
            }
        }
        Ok(())
    }
}

/// Says whether it is the values of the row that SQLite does not accept.
fn is_about_the_row(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{ConstraintViolation, TooBig, TypeMismatch};
    matches!(error.sqlite_error_code(), Some(ConstraintViolation | TooBig | TypeMismatch))
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

/// SQLite has no unsigned integers; counters never come near the bound.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
