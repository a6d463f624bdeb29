//! One connection: its messages in their order, each answered before the next is read.

use std::sync::Arc;

use everwhen_query::TemporaryViews;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::sync::CancellationToken;

use super::command::{Command, Kind};
use super::copy;
use super::extended::{Extended, Progress};
use super::input::{Input, Message, Startup, Target};
use super::listen::{Place, Running};
use super::output::{Gone, Output};
use super::session::{Call, Cursor, Reply, Session, Told};
use super::settings::Settings;
use super::transaction::Transaction;
use crate::code::Code;
use crate::failure::{Answered, Failure};
use crate::service::Services;

/// How long a client may take to say who it is.
const STARTUP_WAIT: std::time::Duration = std::time::Duration::from_secs(60);
/// Names of users and databases at most.
const NAME_BYTES_MAX: usize = 256;

/// Why a message was not answered: the connection is of no more use, or the statement failed.
pub enum Stop {
    Gone,
    Failed(Box<Failure>),
}

impl From<Gone> for Stop {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

/// A connection after its startup.
pub struct Connection {
    pub input: Input<OwnedReadHalf>,
    pub output: Output<OwnedWriteHalf>,
    pub session: Session,
    extended: Extended,
    place: Place,
    /// After a failure, messages of the extended protocol are passed over until Sync.
    skipping: bool,
}

/// Serves a connection to its end.
pub async fn serve(
    stream: TcpStream,
    services: Arc<Services>,
    running: Arc<Running>,
    full: bool,
    stop: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection sends with delay");
    }
    let (read, write) = stream.into_split();
    let mut input = Input::new(read, services.limits.body_bytes_max);
    let mut output = Output::new(write);
    let metrics = services.metrics.clone();
    let started = startup(&mut input, &mut output, &running);
    let options = tokio::select! {
        () = stop.cancelled() => return,
        started = tokio::time::timeout(STARTUP_WAIT, started) => match started {
            Ok(Ok(Some(options))) => options,
            Ok(Err(Stop::Failed(failure))) => {
                output.failure(&failure, "FATAL", 0);
                return output.close().await;
            }
            Ok(Ok(None) | Err(Stop::Gone)) | Err(_) => return,
        },
    };
    if full {
        let failure = Failure::new(Code::Busy, "there are too many connections")
            .with_hint("close some, or raise postgres_connections_max");
        output.failure(&failure, "FATAL", 0);
        return output.close().await;
    }
    let place = running.place();
    let session = match session_of(services, &options) {
        Ok(session) => session,
        Err(failure) => {
            output.failure(&failure, "FATAL", 0);
            return output.close().await;
        }
    };
    output.welcome(&session.settings.told(), place.process, place.secret);
    output.ready(session.transaction.status());
    metrics.add("everwhen_postgres_connections_total", &[], 1);
    let extended = Extended::default();
    let mut connection = Connection { input, output, session, extended, place, skipping: false };
    if connection.output.flush().await.is_ok() {
        connection.run(&stop).await;
    }
}

/// Reads who connects; nothing where there is no session to serve.
async fn startup(
    input: &mut Input<OwnedReadHalf>,
    output: &mut Output<OwnedWriteHalf>,
    running: &Running,
) -> Result<Option<Vec<(String, String)>>, Stop> {
    // A client asks for TLS and for GSS once each.
    for _ in 0..3 {
        match input.startup().await? {
            None => return Ok(None),
            Some(Startup::Ssl | Startup::Gss) => {
                output.no_encryption();
                output.flush().await?;
            }
            Some(Startup::Cancel { process, secret }) => {
                if let Ok(secret) = <[u8; 4]>::try_from(secret.as_ref()) {
                    running.cancel(process, u32::from_be_bytes(secret));
                }
                return Ok(None);
            }
            Some(Startup::Begin { minor, options }) => {
                let unknown = options.iter().map(|(name, _)| name.clone());
                let unknown: Vec<_> = unknown.filter(|name| name.starts_with("_pq_.")).collect();
                if minor > 0 || !unknown.is_empty() {
                    output.negotiate(unknown);
                }
                return Ok(Some(options));
            }
        }
    }
    Ok(None)
}

/// Builds the session of a client from what it said of itself.
fn session_of(services: Arc<Services>, options: &[(String, String)]) -> Answered<Session> {
    let mut session = Session {
        services,
        database: String::new(),
        user: "everwhen".to_owned(),
        settings: Settings::default(),
        transaction: Transaction::default(),
        savepoints: Vec::new(),
        temporary_views: TemporaryViews::default(),
        told: Vec::new(),
    };
    let mut database = None;
    for (name, value) in options {
        match name.as_str() {
            "user" => session.user.clone_from(value),
            "database" => database = Some(value.clone()),
            "replication" if value != "false" && value != "0" => {
                let detail = "replication connections are not supported";
                return Err(Failure::of_sqlstate("0A000", detail.to_owned()));
            }
            // What a driver says of its own accord is taken where it can be: times are UTC here
            // whatever its machine's zone is.
            "timezone" | "TimeZone" | "replication" => {}
            "options" => options_of(&mut session.settings, value)?,
            name if name.starts_with("_pq_.") => {}
            name => session.settings.set(&name.to_lowercase(), Some(value))?,
        }
    }
    if session.user.len() > NAME_BYTES_MAX {
        return Err(Failure::request("the user's name is too long"));
    }
    // Clients that name no database mean one of the user's name; here that is the default one.
    session.database = database.filter(|name| *name != session.user).unwrap_or_default();
    crate::service::tenant_of(Some(session.tenant()))?;
    Ok(session)
}

/// Reads `-c name=value -c name=value`.
fn options_of(settings: &mut Settings, text: &str) -> Answered<()> {
    let mut parts = text.split_whitespace();
    while let Some(part) = parts.next() {
        let pair = match part {
            "-c" => parts.next(),
            part => part.strip_prefix("--").or_else(|| part.strip_prefix("-c")),
        };
        let Some((name, value)) = pair.and_then(|pair| pair.split_once('=')) else {
            return Err(Failure::request("options are of the form -c name=value"));
        };
        settings.set(&name.to_lowercase().replace('-', "_"), Some(value))?;
    }
    Ok(())
}

impl Connection {
    async fn run(&mut self, stop: &CancellationToken) {
        loop {
            let message = tokio::select! {
                () = stop.cancelled() => {
                    self.output.failure(&Failure::stopping(), "FATAL", 0);
                    return self.output.close().await;
                }
                message = self.input.message() => message,
            };
            let message = match message {
                Ok(Some(Message::Terminate) | None) => return,
                Ok(Some(message)) => message,
                Err(failure) => {
                    self.output.failure(&failure, "FATAL", 0);
                    return self.output.close().await;
                }
            };
            if self.answer(message).await.is_err() {
                return;
            }
        }
    }

    async fn answer(&mut self, message: Message) -> Result<(), Gone> {
        match message {
            Message::Query(sql) => {
                self.skipping = false;
                if let Err(Stop::Gone) = self.simple(&sql).await {
                    return Err(Gone);
                }
                self.extended.close("");
                return self.ready().await;
            }
            Message::Sync => {
                self.skipping = false;
                return self.ready().await;
            }
            // The end of a COPY that had failed before.
            Message::CopyData(_) | Message::CopyDone | Message::CopyFail(_) => return Ok(()),
            _ if self.skipping => return Ok(()),
            _ => {}
        }
        match self.extended(message).await {
            Ok(()) => self.output.relieve().await,
            Err(Stop::Gone) => Err(Gone),
            Err(Stop::Failed(failure)) => {
                self.session.transaction.fail();
                self.tell();
                self.output.failure(&failure, "ERROR", 0);
                self.skipping = true;
                Ok(())
            }
        }
    }

    async fn ready(&mut self) -> Result<(), Gone> {
        if matches!(self.session.transaction, Transaction::None) {
            self.extended.close_all();
        }
        self.output.ready(self.session.transaction.status());
        self.output.flush().await
    }

    /// Tells what there is to tell beside answers.
    fn tell(&mut self) {
        for told in self.session.told.drain(..) {
            match told {
                Told::Setting(name, value) => self.output.parameter(name, &value),
                Told::Warning(sqlstate, text) => self.output.warning(sqlstate, &text),
            }
        }
    }

    /// Runs the statements of a text, one after the other; several writes in a row, outside of a
    /// transaction, are one. The first failure ends it.
    async fn simple(&mut self, text: &str) -> Result<(), Stop> {
        let limits = everwhen_query::dialect::ParseLimits {
            bytes_max: self.session.services.limits.sql_bytes_max,
            ..everwhen_query::dialect::ParseLimits::default()
        };
        let parts = match everwhen_query::dialect::split(text, &limits) {
            Ok(parts) => parts,
            Err(error) => return self.failed(error.into(), 0),
        };
        if parts.is_empty() {
            self.output.empty();
            return Ok(());
        }
        if let Err(failure) = definitions_alone(&parts) {
            return self.failed(failure, 0);
        }
        let mut at = 0;
        while let Some((position, sql)) = parts.get(at) {
            let offset = position - 1;
            let writes = self.writes_from(&parts[at..]);
            let answered = if writes.len() > 1 {
                at += writes.len();
                self.several(&writes).await
            } else {
                at += 1;
                self.one(sql).await
            };
            match answered {
                Ok(()) => {}
                Err(Stop::Failed(failure)) => return self.failed(*failure, offset),
                Err(Stop::Gone) => return Err(Stop::Gone),
            }
        }
        Ok(())
    }

    fn failed(&mut self, failure: Failure, offset: usize) -> Result<(), Stop> {
        self.session.transaction.fail();
        self.tell();
        self.output.failure(&failure, "ERROR", offset);
        Ok(())
    }

    /// Returns the writes at the front of a text's statements that are one transaction.
    fn writes_from(&self, parts: &[(usize, String)]) -> Vec<(String, &'static str)> {
        if !matches!(self.session.transaction, Transaction::None) || self.session.settings.read_only
        {
            return Vec::new();
        }
        let write = |(_, sql): &(usize, String)| match Command::of(sql) {
            Ok(Command::Sql(Kind::Write(verb))) => Some((sql.clone(), verb)),
            _ => None,
        };
        parts.iter().map_while(write).collect()
    }

    async fn several(&mut self, writes: &[(String, &'static str)]) -> Result<(), Stop> {
        let work = self.session.run_writes(writes);
        let tags = attended(&self.input, &self.place, work).await?.map_err(|failure| {
            // It is a place in one of the texts, and nothing says in which.
            Failure { position: None, ..failure }
        })?;
        tags.iter().for_each(|tag| self.output.complete(tag));
        Ok(())
    }

    async fn one(&mut self, sql: &str) -> Result<(), Stop> {
        let command = Command::of(sql)?;
        if let Command::Copy(copy) = &command {
            return self.copy(copy).await;
        }
        if let Command::Deallocate(name) = &command {
            self.extended.forget(name.as_deref());
        }
        let call = Call { sql, command: &command, params: everwhen_query::Params::None };
        let reply = attended(&self.input, &self.place, self.session.run(call)).await?;
        let reply = reply?;
        self.tell();
        match reply {
            Reply::Empty => self.output.empty(),
            Reply::Done(tag) => self.output.complete(&tag),
            Reply::Rows(mut cursor) => {
                self.output.columns(Some(&cursor.columns));
                self.send(&mut cursor, u64::MAX).await?;
                self.output.complete(&cursor.tag());
            }
        }
        if command == Command::DiscardAll {
            self.extended = Extended::default();
        }
        Ok(())
    }

    /// Sends rows of a query; true where there are more than were asked for.
    async fn send(&mut self, cursor: &mut Cursor, rows_max: u64) -> Result<bool, Stop> {
        let mut sent = 0;
        loop {
            if sent == rows_max {
                return Ok(true);
            }
            // Cancelling has to be heard only where there is waiting.
            let next = match cursor.has_row() {
                true => cursor.next_row().await?,
                false => attended(&self.input, &self.place, cursor.next_row()).await??,
            };
            let Some((columns, arrays, row)) = next else { return Ok(false) };
            self.output.row(columns.len(), |out| {
                for (column, array) in columns.iter().zip(arrays) {
                    column.write(array, row, out)?;
                }
                Ok(())
            })?;
            sent += 1;
            self.output.relieve().await?;
        }
    }

    async fn extended(&mut self, message: Message) -> Result<(), Stop> {
        match message {
            Message::Parse { name, sql, types } => {
                self.session.services.limits.check_sql(&sql)?;
                if name.is_empty() {
                    self.extended.forget(Some(""));
                }
                self.extended.parse(name, sql, types)?;
                self.output.parsed();
            }
            Message::Bind(bind) => {
                let work = self.extended.bind(&mut self.session, bind);
                attended(&self.input, &self.place, work).await??;
                self.output.bound();
            }
            Message::Describe { target: Target::Statement, name } => {
                let work = self.extended.describe(&mut self.session, &name);
                let (types, columns) = attended(&self.input, &self.place, work).await??;
                self.output.parameters(types);
                self.output.columns(columns.as_deref());
            }
            Message::Describe { target: Target::Portal, name } => {
                let work = self.extended.portal(&name)?.columns(&mut self.session);
                let columns = attended(&self.input, &self.place, work).await??;
                self.tell();
                self.output.columns(columns.as_deref());
            }
            Message::Execute { portal, rows_max } => self.execute(&portal, rows_max).await?,
            Message::Close { target: Target::Statement, name } => {
                self.extended.forget(Some(&name));
                self.output.closed();
            }
            Message::Close { target: Target::Portal, name } => {
                self.extended.close(&name);
                self.output.closed();
            }
            Message::Flush => self.output.flush().await?,
            _ => {}
        }
        Ok(())
    }

    async fn execute(&mut self, name: &str, rows_max: u32) -> Result<(), Stop> {
        let portal = self.extended.portal(name)?;
        match portal.command().clone() {
            Command::Copy(copy) => return self.copy(&copy).await,
            Command::Deallocate(name) => self.extended.forget(name.as_deref()),
            Command::DiscardAll => self.extended.forget(None),
            _ => {}
        }
        let portal = self.extended.portal(name)?;
        attended(&self.input, &self.place, portal.start(&mut self.session)).await??;
        self.tell();
        let portal = self.extended.portal(name)?;
        let mut cursor = match std::mem::replace(&mut portal.state, Progress::Bound) {
            Progress::Rows(cursor) => cursor,
            Progress::Ended(tag) => {
                match tag.is_empty() {
                    true => self.output.empty(),
                    false => self.output.complete(&tag),
                }
                portal.state = Progress::Ended(tag);
                return Ok(());
            }
            Progress::Bound => return Err(Failure::internal(&"a portal did not start").into()),
        };
        let rows_max = if rows_max == 0 { u64::MAX } else { u64::from(rows_max) };
        let more = self.send(&mut cursor, rows_max).await?;
        let tag = cursor.tag();
        let portal = self.extended.portal(name)?;
        match more {
            true => {
                self.output.suspended();
                portal.state = Progress::Rows(cursor);
            }
            false => {
                self.output.complete(&tag);
                portal.state = Progress::Ended(tag);
            }
        }
        Ok(())
    }

    async fn copy(&mut self, copy: &copy::Copy) -> Result<(), Stop> {
        match copy.is_in() {
            true => copy::copy_in(self, copy).await,
            false => copy::copy_out(self, copy).await,
        }
    }

    /// Runs work of the session, until it is cancelled or the client has gone.
    pub async fn attend<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Session) -> Answered<T>,
    ) -> Result<T, Stop> {
        Ok(attended(&self.input, &self.place, work(&mut self.session)).await??)
    }
}

/// Refuses a definition beside other statements of the database in one message: Postgres would do
/// all of them or none, and a definition is done at once.
fn definitions_alone(parts: &[(usize, String)]) -> Answered<()> {
    let kinds = parts.iter().filter_map(|(_, sql)| match Command::of(sql) {
        Ok(Command::Sql(kind)) => Some(kind),
        _ => None,
    });
    let kinds: Vec<Kind> = if parts.len() > 1 { kinds.collect() } else { Vec::new() };
    if kinds.len() < 2 || !kinds.iter().any(|kind| matches!(kind, Kind::Define(_))) {
        return Ok(());
    }
    let detail = "a definition stands alone in its request";
    Err(Failure::of_sqlstate("0A000", detail.to_owned())
        .with_hint("send the statements one by one"))
}

/// Waits for work, until it is cancelled or the client has gone; the work is dropped then.
pub async fn attended<T>(
    input: &Input<OwnedReadHalf>,
    place: &Place,
    work: impl Future<Output = Answered<T>>,
) -> Result<Answered<T>, Gone> {
    let (cancelled, _guard) = place.begin();
    tokio::select! {
        biased;
        answered = work => Ok(answered),
        () = cancelled.cancelled() => {
            let detail = "the statement was cancelled by its user";
            Ok(Err(Failure::new(Code::Cancelled, detail)))
        }
        () = gone(input) => Err(Gone),
    }
}

/// Waits until the client closes the connection; never where it has sent more.
async fn gone(input: &Input<OwnedReadHalf>) {
    let mut byte = [0; 1];
    if !input.has_more() {
        match input.source().as_ref().peek(&mut byte).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    std::future::pending().await
}
