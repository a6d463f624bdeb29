//! How much may be asked of the server at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::code::Code;
use crate::failure::{Answered, Failure};

/// Bounds on requests, apart from those that a statement meets inside the query engine.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// Bytes of a statement's text.
    pub sql_bytes_max: usize,
    /// For statements that ask for no other; `None` for no limit.
    pub statement_timeout: Option<Duration>,
    statements: Arc<Semaphore>,
}

/// How long a statement waits for a place before it is refused.
const PLACE_WAIT: Duration = Duration::from_secs(5);

impl Limits {
    /// Builds limits with places for `statements_max` statements at a time.
    pub fn new(
        body_bytes_max: usize,
        sql_bytes_max: usize,
        statement_timeout: Option<Duration>,
        statements_max: usize,
    ) -> Self {
        let statements = Arc::new(Semaphore::new(statements_max));
        Self { body_bytes_max, sql_bytes_max, statement_timeout, statements }
    }

    /// Takes a place for one statement, waiting a little.
    ///
    /// # Errors
    /// [`Code::Busy`] where none comes free in time: try again later.
    pub async fn place(&self) -> Answered<OwnedSemaphorePermit> {
        let wait = tokio::time::timeout(PLACE_WAIT, Arc::clone(&self.statements).acquire_owned());
        match wait.await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(Failure::stopping()),
            Err(_) => Err(Failure::new(Code::Busy, "too many statements run at once")
                .with_hint("try again later, or raise statements_max")),
        }
    }

    /// Refuses a statement's text that is too long.
    ///
    /// # Errors
    /// [`Code::OverLimit`].
    pub fn check_sql(&self, sql: &str) -> Answered<()> {
        if sql.len() > self.sql_bytes_max {
            let detail = format!(
                "the statement has {} bytes, at most {} are taken",
                sql.len(),
                self.sql_bytes_max
            );
            return Err(Failure::new(Code::OverLimit, detail));
        }
        Ok(())
    }
}
