//! The transaction of a session: one basis to read at, or writes that COMMIT does as one.

use std::collections::HashMap;

use everwhen_query::{Params, basis_token, parse_basis};
use everwhen_storage::{Basis, SystemTime};
use pgwire::messages::response::TransactionStatus;

use super::command::{Begin, Kind};
use crate::failure::{Answered, Failure};
use crate::service::{Services, instant_of};

/// Statements that a transaction gathers at most.
const STATEMENTS_MAX: usize = 1_000_000;

/// Where a session stands.
#[derive(Debug, Default)]
pub enum Transaction {
    /// Every statement is a transaction of its own.
    #[default]
    None,
    /// The first statement decides whether it reads or writes.
    Open,
    /// Every query reads at this token.
    Reading {
        basis: String,
        read_only: bool,
    },
    Writing(Writes),
    /// Nothing but its end is taken, or the way back to a savepoint, for which writes are kept.
    Failed(Option<Writes>),
}

/// A place in a transaction to come back to.
#[derive(Debug)]
pub struct Savepoint {
    pub name: String,
    at: At,
}

/// Where a transaction stood.
#[derive(Debug)]
enum At {
    Open,
    Reading { basis: String, read_only: bool },
    Writing { statements: usize, bytes: usize },
}

/// The writes of a transaction, not done yet.
#[derive(Debug, Default)]
pub struct Writes {
    statements: Vec<(String, Params)>,
    bytes: usize,
    pub system_time: Option<SystemTime>,
    /// The texts that were found to be right, with the rows of an INSERT of values.
    checked: HashMap<String, u64>,
}

impl Writes {
    /// Adds a write.
    ///
    /// # Errors
    /// 54000 where the transaction becomes too large.
    pub fn push(&mut self, sql: &str, params: Params, bytes_max: usize) -> Answered<()> {
        let values = match &params {
            Params::Typed(values) => values.iter().map(|(json, _)| weight(json)).sum(),
            _ => 0,
        };
        self.bytes = self.bytes.saturating_add(sql.len() + values);
        if self.bytes > bytes_max || self.statements.len() >= STATEMENTS_MAX {
            let detail = format!("a transaction of writes holds at most {bytes_max} bytes");
            return Err(Failure::of_sqlstate("54000", detail).with_hint("commit more often"));
        }
        self.statements.push((sql.to_owned(), params));
        Ok(())
    }

    /// Returns the rows that a text writes, where it was checked before.
    pub fn checked(&self, sql: &str) -> Option<u64> {
        self.checked.get(sql).copied()
    }

    /// Notes that a text is right.
    pub fn note_checked(&mut self, sql: &str, rows: u64) {
        const TEXTS_MAX: usize = 1_000;
        if self.checked.len() < TEXTS_MAX {
            self.checked.insert(sql.to_owned(), rows);
        }
    }

    /// Returns the writes in their order.
    pub fn take(self) -> Vec<(String, Params)> {
        self.statements
    }
}

/// Returns about how much memory a value takes.
fn weight(json: &serde_json::Value) -> usize {
    use serde_json::Value as Json;
    16 + match json {
        Json::String(text) => text.len(),
        Json::Array(items) => items.iter().map(weight).sum(),
        Json::Object(fields) => fields.iter().map(|(name, value)| name.len() + weight(value)).sum(),
        _ => 0,
    }
}

impl Transaction {
    /// Begins a transaction.
    ///
    /// # Errors
    /// 25001 within another one, 22023 and 0B000 for a token that is none, 42601 for options that
    /// do not fit the mode.
    pub fn begin(&mut self, services: &Services, begin: &Begin, session: Mode) -> Answered<()> {
        if !matches!(self, Self::None) {
            let detail = "there is a transaction in progress already";
            return Err(Failure::of_sqlstate("25001", detail.to_owned()));
        }
        let reads = begin.snapshot_token.is_some() || begin.clock_time.is_some();
        let read_only = match (begin.read_only, reads, begin.system_time.is_some()) {
            (Some(false) | None, true, _) => {
                let detail = "SNAPSHOT_TOKEN and CLOCK_TIME are options of READ ONLY";
                return Err(Failure::of_sqlstate("42601", detail.to_owned()));
            }
            (Some(true) | None, _, true) => {
                let detail = "SYSTEM_TIME is an option of READ WRITE";
                return Err(Failure::of_sqlstate("42601", detail.to_owned()));
            }
            (mode, ..) => mode.or(session.read_only.then_some(true)),
        };
        *self = match read_only {
            None => Self::Open,
            Some(true) => {
                let token = begin.snapshot_token.as_deref().or(session.snapshot_token);
                let basis = basis_of(services, token, begin.clock_time.as_deref())?;
                Self::Reading { basis, read_only: true }
            }
            Some(false) => {
                let system_time = match &begin.system_time {
                    Some(text) => Some(instant_of(&"SYSTEM_TIME", text)?),
                    None => None,
                };
                Self::Writing(Writes { system_time, ..Writes::default() })
            }
        };
        Ok(())
    }

    /// Takes `SET TRANSACTION READ ONLY` and its like.
    ///
    /// # Errors
    /// 25001 where a statement decided otherwise.
    pub fn set_mode(&mut self, services: &Services, read_only: Option<bool>) -> Answered<()> {
        match (&self, read_only) {
            (Self::Open, Some(true)) => {
                let basis = basis_of(services, None, None)?;
                *self = Self::Reading { basis, read_only: true };
            }
            (Self::Reading { .. }, Some(false)) | (Self::Writing(_), Some(true)) => {
                let detail = "the mode of a transaction is set before its first statement";
                return Err(Failure::of_sqlstate("25001", detail.to_owned()));
            }
            _ => {}
        }
        Ok(())
    }

    /// Makes ready for a statement of the database: an open transaction becomes one that reads or
    /// one that writes.
    ///
    /// # Errors
    /// 25P02 after a failure, 25006 for a write in one that reads, 0A000 for a query in one that
    /// writes.
    pub fn admit(&mut self, services: &Services, kind: Kind, token: Option<&str>) -> Answered<()> {
        match (&self, kind) {
            (Self::Failed(_), _) => return Err(aborted()),
            (Self::None, _) | (_, Kind::Bare | Kind::Catalog) => {}
            (Self::Open, Kind::Query) => {
                let basis = basis_of(services, token, None)?;
                *self = Self::Reading { basis, read_only: false };
            }
            (Self::Open, Kind::Write(_)) => *self = Self::Writing(Writes::default()),
            (Self::Reading { read_only, .. }, Kind::Write(_) | Kind::Define(_)) => {
                let detail = "a read transaction takes no writes";
                let hint = match read_only {
                    true => "begin READ WRITE",
                    false => "its first statement was a query: commit, and write in another",
                };
                return Err(Failure::of_sqlstate("25006", detail.to_owned()).with_hint(hint));
            }
            (Self::Writing(_), Kind::Query) => {
                let detail = "queries cannot stand in a transaction that writes";
                return Err(Failure::of_sqlstate("0A000", detail.to_owned())
                    .with_hint("its writes are done together by COMMIT: query before or after"));
            }
            (Self::Writing(_), Kind::Define(_)) => {
                let detail = "a definition cannot stand in a transaction that writes";
                return Err(Failure::of_sqlstate("0A000", detail.to_owned())
                    .with_hint("a definition is a transaction of its own"));
            }
            (Self::Open, Kind::Define(_)) | (Self::Reading { .. } | Self::Writing(_), _) => {}
        }
        Ok(())
    }

    /// Takes note of a failure; the writes so far are kept for savepoints.
    pub fn fail(&mut self) {
        match std::mem::take(self) {
            Self::None => {}
            Self::Writing(writes) => *self = Self::Failed(Some(writes)),
            failed @ Self::Failed(_) => *self = failed,
            Self::Open | Self::Reading { .. } => *self = Self::Failed(None),
        }
    }

    /// Marks a place to come back to.
    ///
    /// # Errors
    /// 25P01 outside of a transaction, 25P02 after a failure.
    pub fn savepoint(&self, name: String) -> Answered<Savepoint> {
        let at = match self {
            Self::None => {
                let detail = "a savepoint stands in a transaction";
                return Err(Failure::of_sqlstate("25P01", detail.to_owned()));
            }
            Self::Failed(_) => return Err(aborted()),
            Self::Open => At::Open,
            Self::Reading { basis, read_only } => {
                At::Reading { basis: basis.clone(), read_only: *read_only }
            }
            Self::Writing(writes) => {
                At::Writing { statements: writes.statements.len(), bytes: writes.bytes }
            }
        };
        Ok(Savepoint { name, at })
    }

    /// Comes back to a place: what came after it is forgotten, a failure too.
    pub fn back_to(&mut self, savepoint: &Savepoint) {
        let writes = match std::mem::take(self) {
            Self::Writing(writes) | Self::Failed(Some(writes)) => Some(writes),
            _ => None,
        };
        *self = match (&savepoint.at, writes) {
            (At::Reading { basis, read_only }, _) => {
                Self::Reading { basis: basis.clone(), read_only: *read_only }
            }
            (At::Writing { statements, bytes }, Some(mut writes)) => {
                writes.statements.truncate(*statements);
                writes.bytes = *bytes;
                Self::Writing(writes)
            }
            _ => Self::Open,
        };
    }

    /// Returns the token that queries read at.
    pub fn basis(&self) -> Option<&str> {
        match self {
            Self::Reading { basis, .. } => Some(basis),
            _ => None,
        }
    }

    /// Returns what clients are told of it.
    pub const fn status(&self) -> TransactionStatus {
        match self {
            Self::None => TransactionStatus::Idle,
            Self::Open | Self::Reading { .. } | Self::Writing(_) => TransactionStatus::Transaction,
            Self::Failed(_) => TransactionStatus::Error,
        }
    }
}

/// What a session says of transactions that do not say themselves.
#[derive(Debug, Clone, Copy)]
pub struct Mode<'a> {
    pub read_only: bool,
    pub snapshot_token: Option<&'a str>,
}

/// Builds the failure of a statement after one that failed.
pub fn aborted() -> Failure {
    let detail = "the transaction has failed: nothing but ROLLBACK is taken";
    Failure::of_sqlstate("25P02", detail.to_owned())
}

/// Returns the token of the basis to read at: the latest, unless another is named.
fn basis_of(services: &Services, token: Option<&str>, now: Option<&str>) -> Answered<String> {
    let store = &services.store;
    let basis = match token {
        Some(token) => parse_basis(store, token)?,
        None => store.latest(),
    };
    let basis = match now {
        Some(now) => Basis { now: instant_of(&"CLOCK_TIME", now)?, ..basis },
        None => basis,
    };
    Ok(basis_token(store, basis))
}
