//! How much may be asked of the server at once.

use std::time::Duration;

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
}

impl Limits {
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
