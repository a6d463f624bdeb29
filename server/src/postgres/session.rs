//! A session: runs statements one at a time, each in the transaction it stands in.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use everwhen_query::columns::{field_of, field_type};
use everwhen_query::{Described, Params, TemporaryViews};
use everwhen_storage::ColumnType;
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};

use super::command::{Command, Kind};
use super::settings::Settings;
use super::transaction::{Mode, Savepoint, Transaction, Writes, aborted};
use super::values::Column;
use crate::failure::{Answered, Failure};
use crate::service::Services;
use crate::service::query::{self, Answer, Statement};
use crate::service::write::Written;

/// A client's session.
pub struct Session {
    pub services: Arc<Services>,
    /// The database's name as the client gave it.
    pub database: String,
    pub user: String,
    pub settings: Settings,
    pub transaction: Transaction,
    pub savepoints: Vec<Savepoint>,
    pub temporary_views: TemporaryViews,
    /// Settings that changed and warnings, to be told with the answer.
    pub told: Vec<Told>,
}

/// What a client is told beside an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Setting(&'static str, String),
    Warning(&'static str, String),
}

/// The answer to a statement.
pub enum Reply {
    /// There was no statement.
    Empty,
    /// The command tag.
    Done(String),
    Rows(Cursor),
}

/// Rows under way to a client.
pub struct Cursor {
    pub columns: Vec<Column>,
    rows: BoxStream<'static, Answered<RecordBatch>>,
    batch: Option<Vec<ArrayRef>>,
    at: usize,
    sent: u64,
    /// The command tag, where it is not the number of rows sent.
    tag: Option<String>,
}

impl Cursor {
    fn new(columns: Vec<Column>, rows: BoxStream<'static, Answered<RecordBatch>>) -> Self {
        Self { columns, rows, batch: None, at: 0, sent: 0, tag: None }
    }

    /// Returns the columns' values of the next row and its place in them; nothing at the end.
    ///
    /// # Errors
    /// The failure that ended the query.
    pub async fn next_row(&mut self) -> Answered<Option<(&[Column], &[ArrayRef], usize)>> {
        loop {
            let ended = self.batch.as_ref().is_some_and(|columns| {
                columns.first().is_none_or(|column| self.at >= column.len())
            });
            if self.batch.is_some() && !ended {
                break;
            }
            let Some(batch) = self.rows.next().await.transpose()? else {
                self.batch = None;
                return Ok(None);
            };
            if batch.num_columns() != self.columns.len() {
                let detail = "cached plan must not change result type";
                return Err(Failure::of_sqlstate("0A000", detail.to_owned())
                    .with_hint("prepare the statement again: its table was changed"));
            }
            let columns = self.columns.iter().zip(batch.columns());
            let arrays = columns.map(|(column, array)| column.promised(array));
            self.batch = Some(arrays.collect::<Answered<_>>()?);
            self.at = 0;
        }
        let at = self.at;
        self.at += 1;
        self.sent += 1;
        let arrays = self.batch.as_deref().unwrap_or_default();
        Ok(Some((&self.columns, arrays, at)))
    }

    /// True where a row is at hand without waiting.
    pub fn has_row(&self) -> bool {
        let rows = self.batch.as_ref().and_then(|columns| columns.first()).map_or(0, |c| c.len());
        self.at < rows
    }

    /// Returns the command tag of a query that was read to its end.
    pub fn tag(&self) -> String {
        self.tag.clone().unwrap_or_else(|| format!("SELECT {}", self.sent))
    }
}

/// A statement with its parameters.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    pub sql: &'a str,
    pub command: &'a Command,
    pub params: Params,
}

impl Session {
    /// Runs a statement.
    ///
    /// # Errors
    /// Whatever it deserves; the transaction has failed then.
    pub async fn run(&mut self, call: Call<'_>) -> Answered<Reply> {
        let reply = self.run_unguarded(call).await;
        if reply.is_err() {
            self.transaction.fail();
        }
        reply
    }

    async fn run_unguarded(&mut self, call: Call<'_>) -> Answered<Reply> {
        match call.command {
            Command::Commit => return self.commit().await,
            Command::Rollback => return Ok(self.rollback()),
            Command::Empty => return Ok(Reply::Empty),
            Command::RollbackTo(name) => return self.back_to(name),
            _ if matches!(self.transaction, Transaction::Failed(_)) => return Err(aborted()),
            _ => {}
        }
        match call.command {
            Command::Begin(_)
            | Command::Savepoint(_)
            | Command::Release(_)
            | Command::Mode { .. } => self.control(call.command),
            Command::Set { name, value } => {
                self.settings.set(name, value.as_deref())?;
                self.tell(name);
                done("SET")
            }
            Command::Reset(name) => {
                // DISCARD PLANS and its like have nothing to forget.
                if name.as_deref() != Some("") {
                    self.settings.reset(name.as_deref())?;
                    self.tell("application_name");
                }
                done("RESET")
            }
            Command::DiscardAll => {
                if !matches!(self.transaction, Transaction::None) {
                    let detail = "DISCARD ALL cannot stand in a transaction";
                    return Err(Failure::of_sqlstate("25001", detail.to_owned()));
                }
                self.settings.reset(None)?;
                self.temporary_views.clear();
                self.tell("application_name");
                done("DISCARD ALL")
            }
            Command::DiscardTemporary => {
                self.temporary_views.clear();
                done("DISCARD TEMP")
            }
            Command::Show(name) => self.show(name).map(Reply::Rows),
            Command::Deallocate(_) => done("DEALLOCATE"),
            Command::Sql(kind) => self.sql(call.sql, *kind, call.params).await,
            Command::Copy(_) => Err(Failure::internal(&"a COPY was taken for a statement")),
            Command::Commit | Command::Rollback | Command::Empty | Command::RollbackTo(_) => {
                Ok(Reply::Empty)
            }
        }
    }

    /// Begins a transaction, sets its mode, marks places in it.
    fn control(&mut self, command: &Command) -> Answered<Reply> {
        match command {
            Command::Begin(begin) => {
                let mode = Mode {
                    read_only: self.settings.read_only,
                    snapshot_token: self.settings.snapshot_token(),
                };
                self.transaction.begin(&self.services, begin, mode)?;
                self.savepoints.clear();
                done("BEGIN")
            }
            Command::Savepoint(name) => {
                const SAVEPOINTS_MAX: usize = 1_000;
                if self.savepoints.len() >= SAVEPOINTS_MAX {
                    let detail = "a transaction has too many savepoints";
                    return Err(Failure::of_sqlstate("54000", detail.to_owned()));
                }
                self.savepoints.push(self.transaction.savepoint(name.clone())?);
                done("SAVEPOINT")
            }
            Command::Release(name) => {
                let at = self.find_savepoint(name)?;
                self.savepoints.truncate(at);
                done("RELEASE")
            }
            Command::Mode { read_only, session: true } => {
                if let Some(read_only) = read_only {
                    self.settings.read_only = *read_only;
                }
                done("SET")
            }
            Command::Mode { read_only, session: false } => {
                self.transaction.set_mode(&self.services, *read_only)?;
                done("SET")
            }
            _ => Err(Failure::internal(&"a statement was taken for one about transactions")),
        }
    }

    fn find_savepoint(&self, name: &str) -> Answered<usize> {
        let found = match self.transaction {
            Transaction::None => None,
            _ => self.savepoints.iter().rposition(|savepoint| savepoint.name == name),
        };
        found.ok_or_else(|| {
            Failure::of_sqlstate("3B001", format!("savepoint \"{name}\" does not exist"))
        })
    }

    fn back_to(&mut self, name: &str) -> Answered<Reply> {
        let at = self.find_savepoint(name)?;
        self.savepoints.truncate(at + 1);
        if let Some(savepoint) = self.savepoints.last() {
            self.transaction.back_to(savepoint);
        }
        done("ROLLBACK")
    }

    /// Tells a client a setting that it keeps track of.
    fn tell(&mut self, name: &str) {
        let told = self.settings.told();
        let known = told.into_iter().find(|(shown, _)| shown.eq_ignore_ascii_case(name));
        self.told.extend(known.map(|(shown, value)| Told::Setting(shown, value)));
    }

    fn warn(&mut self, sqlstate: &'static str, text: impl Into<String>) {
        self.told.push(Told::Warning(sqlstate, text.into()));
    }

    fn show(&self, name: &str) -> Answered<Cursor> {
        if name == "all" {
            let (names, values): (Vec<_>, Vec<_>) = self.settings.all().into_iter().unzip();
            return texts(&[("name", names), ("setting", values)]);
        }
        texts(&[(name, vec![self.settings.get(name)?])])
    }

    async fn sql(&mut self, sql: &str, kind: Kind, params: Params) -> Answered<Reply> {
        let token = self.settings.snapshot_token().map(str::to_owned);
        self.transaction.admit(&self.services, kind, token.as_deref())?;
        match (kind, &mut self.transaction) {
            (Kind::Catalog, _) => self.catalog(sql, params).await.map(Reply::Rows),
            (Kind::Write(verb), Transaction::Writing(_)) => self.gather(sql, verb, params).await,
            (Kind::Write(_) | Kind::Define(_), _) => {
                if self.settings.read_only && matches!(self.transaction, Transaction::None) {
                    let detail = "the session takes no writes: its transactions are READ ONLY";
                    return Err(Failure::of_sqlstate("25006", detail.to_owned()));
                }
                if !matches!(self.transaction, Transaction::None) {
                    self.warn("01000", "a definition is done at once: ROLLBACK does not undo it");
                }
                let mut statement = self.statement(sql, params);
                self.settings.time_limit(&mut statement);
                self.answered(statement, kind).await
            }
            (Kind::Query | Kind::Bare, _) => {
                let mut statement = self.statement(sql, params);
                self.settings.read_with(&mut statement, self.transaction.basis());
                self.settings.time_limit(&mut statement);
                if kind == Kind::Bare {
                    // Of nobody's data, so it does not matter whether anybody has any.
                    statement.tenant = None;
                }
                self.answered(statement, kind).await
            }
        }
    }

    fn statement(&self, sql: &str, params: Params) -> Statement {
        Statement {
            params,
            tenant: Some(self.tenant().to_owned()),
            temporary_views: Some(self.temporary_views.clone()),
            ..Statement::new(sql)
        }
    }

    /// Returns the tenant that the database's name stands for.
    pub fn tenant(&self) -> &str {
        match self.database.as_str() {
            "" | "postgres" | "everwhen" => "default",
            name => name,
        }
    }

    async fn answered(&mut self, statement: Statement, kind: Kind) -> Answered<Reply> {
        match query::run(&self.services, statement).await? {
            Answer::Rows(rows) => {
                let fields = rows.schema.fields().iter().zip(&rows.columns);
                let columns = fields.map(|(field, (_, kind))| Column::new(field, kind)).collect();
                Ok(Reply::Rows(Cursor::new(columns, rows.boxed())))
            }
            Answer::Written(mut written) => {
                for warning in std::mem::take(&mut written.warnings) {
                    self.warn("01000", warning);
                }
                written_reply(written, kind)
            }
        }
    }

    async fn catalog(&mut self, sql: &str, params: Params) -> Answered<Cursor> {
        let mut statement = self.statement(sql, params);
        self.settings.time_limit(&mut statement);
        statement.basis = self.transaction.basis().map(str::to_owned);
        let names = everwhen_query::Names {
            database: self.database_shown().to_owned(),
            user: self.user.clone(),
        };
        let rows = query::catalog(&self.services, statement, names).await?;
        let fields = rows.schema.fields().iter().zip(&rows.columns);
        let columns = fields.map(|(field, (_, kind))| Column::new(field, kind)).collect();
        Ok(Cursor::new(columns, rows.boxed()))
    }

    /// Returns the database's name as clients see it.
    pub fn database_shown(&self) -> &str {
        if self.database.is_empty() { "default" } else { &self.database }
    }

    /// Keeps a write for COMMIT.
    async fn gather(&mut self, sql: &str, verb: &str, params: Params) -> Answered<Reply> {
        let Transaction::Writing(writes) = &self.transaction else {
            return Err(Failure::internal(&"a write was gathered outside of a transaction"));
        };
        let rows = match writes.checked(sql) {
            Some(rows) => rows,
            None => self.check_gathered(sql, &params).await?,
        };
        let bytes_max = self.services.limits.body_bytes_max;
        if let Transaction::Writing(writes) = &mut self.transaction {
            writes.note_checked(sql, rows);
            writes.push(sql, params, bytes_max)?;
        }
        done(&format!("{verb} {rows}"))
    }

    /// Finds out now what is wrong with a write that is done later, and how many rows it states.
    async fn check_gathered(&mut self, sql: &str, params: &Params) -> Answered<u64> {
        let mut statement = self.statement(sql, params.clone());
        self.settings.time_limit(&mut statement);
        let described = query::describe(&self.services, statement).await?;
        if described.columns.is_some() {
            let detail = "RETURNING cannot stand in a transaction: its writes are done by COMMIT";
            return Err(Failure::of_sqlstate("0A000", detail.to_owned()));
        }
        Ok(described.rows.unwrap_or(0))
    }

    async fn commit(&mut self) -> Answered<Reply> {
        match std::mem::take(&mut self.transaction) {
            Transaction::None => {
                self.warn("25P01", "there is no transaction in progress");
                done("COMMIT")
            }
            Transaction::Failed(_) => done("ROLLBACK"),
            Transaction::Open | Transaction::Reading { .. } => done("COMMIT"),
            Transaction::Writing(writes) => self.write(writes).await,
        }
    }

    /// Does writes as one transaction.
    ///
    /// # Errors
    /// Whatever one of them deserves; none is done then.
    pub async fn write_all(&mut self, writes: Writes) -> Answered<()> {
        self.write(writes).await.map(|_| ())
    }

    async fn write(&mut self, writes: Writes) -> Answered<Reply> {
        let system_time = writes.system_time;
        let mut statements = writes.take().into_iter();
        let Some((sql, params)) = statements.next() else { return done("COMMIT") };
        let mut statement = self.statement(&sql, params);
        statement.then = statements.collect();
        statement.import_time = system_time;
        self.settings.time_limit(&mut statement);
        query::run(&self.services, statement).await?;
        done("COMMIT")
    }

    fn rollback(&mut self) -> Reply {
        if matches!(self.transaction, Transaction::None) {
            self.warn("25P01", "there is no transaction in progress");
        }
        self.transaction = Transaction::None;
        Reply::Done("ROLLBACK".to_owned())
    }

    /// Runs several writes as one transaction; returns the tag of each.
    ///
    /// # Errors
    /// Whatever one of them deserves; none is done then.
    pub async fn run_writes(&mut self, writes: &[(String, &'static str)]) -> Answered<Vec<String>> {
        let Some(((first, _), rest)) = writes.split_first() else { return Ok(Vec::new()) };
        let mut statement = self.statement(first, Params::None);
        statement.then = rest.iter().map(|(sql, _)| (sql.clone(), Params::None)).collect();
        self.settings.time_limit(&mut statement);
        let rows = match query::run(&self.services, statement).await? {
            Answer::Written(written) => written.statement_rows,
            Answer::Rows(_) => Vec::new(),
        };
        let rows = rows.into_iter().chain(std::iter::repeat(0));
        Ok(writes.iter().zip(rows).map(|((_, verb), rows)| format!("{verb} {rows}")).collect())
    }

    /// Tells what a statement takes and answers.
    ///
    /// # Errors
    /// Whatever is wrong with it.
    pub async fn describe(&self, sql: &str, params: Params) -> Answered<Described> {
        let mut statement = self.statement(sql, params);
        if matches!(Command::of(sql), Ok(Command::Sql(Kind::Bare))) {
            // As where it is run: of nobody's data.
            statement.tenant = None;
        }
        statement.basis = self.transaction.basis().map(str::to_owned);
        self.settings.time_limit(&mut statement);
        query::describe(&self.services, statement).await
    }
}

fn done(tag: &str) -> Answered<Reply> {
    Ok(Reply::Done(tag.to_owned()))
}

fn written_reply(written: Written, kind: Kind) -> Answered<Reply> {
    let tag = match kind {
        Kind::Write(verb) => format!("{verb} {}", written.rows),
        Kind::Define(tag) => tag.to_owned(),
        _ => "SELECT 0".to_owned(),
    };
    let Some(batches) = written.returning else { return Ok(Reply::Done(tag)) };
    let Some(first) = batches.first() else { return Ok(Reply::Done(tag)) };
    let columns = first
        .schema_ref()
        .fields()
        .iter()
        .map(|field| Column::new(field, &field_type(field).unwrap_or(ColumnType::Text)));
    let columns = columns.collect();
    let rows = stream::iter(batches.into_iter().map(Ok)).boxed();
    Ok(Reply::Rows(Cursor { tag: Some(tag), ..Cursor::new(columns, rows) }))
}

/// Builds an answer of texts at hand; the command tag is SHOW.
fn texts(columns: &[(&str, Vec<String>)]) -> Answered<Cursor> {
    let arrays = columns.iter().map(|(name, values)| {
        let array: ArrayRef = Arc::new(StringArray::from(values.clone()));
        (*name, array)
    });
    let batch = RecordBatch::try_from_iter(arrays).map_err(|error| Failure::internal(&error))?;
    let shown = columns
        .iter()
        .map(|(name, _)| Column::new(&field_of(name, &ColumnType::Text), &ColumnType::Text));
    let shown = shown.collect();
    let cursor = Cursor::new(shown, stream::iter([Ok(batch)]).boxed());
    Ok(Cursor { tag: Some("SHOW".to_owned()), ..cursor })
}
