//! `BEGIN [READ ONLY | READ WRITE] [WITH (..)]`, `COMMIT` and `ROLLBACK`.

use datafusion::sql::sqlparser::ast::{Expr, Value};
use datafusion::sql::sqlparser::tokenizer::Token;
use everwhen_storage::SystemTime;

use super::cursor::Cursor;
use super::{BoundExpr, ParsedStatement};
use crate::error::{Error, Result, SqlState};

/// What `BEGIN .. WITH (..)` says of its transaction.
#[derive(Debug, Clone, Default)]
pub struct TransactionOptions {
    /// The basis that its queries read at.
    pub snapshot_token: Option<String>,
    /// The now of its queries.
    pub clock_time: Option<BoundExpr>,
    /// The system time of its writes: an import.
    pub system_time: Option<SystemTime>,
}

impl TransactionOptions {
    /// Returns the access mode that the options mean; nothing where there are none.
    pub const fn read_only(&self) -> Option<bool> {
        if self.snapshot_token.is_some() || self.clock_time.is_some() {
            return Some(true);
        }
        if self.system_time.is_some() { Some(false) } else { None }
    }
}

/// Reads a statement that begins or ends a transaction, if it is one.
pub(super) fn read(cursor: &mut Cursor<'_, '_>) -> Result<Option<ParsedStatement>> {
    if cursor.accept(&["begin"]) || cursor.accept(&["start", "transaction"]) {
        return begin(cursor).map(Some);
    }
    let statement = if cursor.accept(&["commit"]) || cursor.accept(&["end"]) {
        ParsedStatement::Commit
    } else if cursor.accept(&["rollback"]) || cursor.accept(&["abort"]) {
        ParsedStatement::Rollback
    } else {
        return Ok(None);
    };
    let _optional = cursor.accept(&["transaction"]) || cursor.accept(&["work"]);
    cursor.finish()?;
    Ok(Some(statement))
}

fn begin(cursor: &mut Cursor<'_, '_>) -> Result<ParsedStatement> {
    let _optional = cursor.accept(&["transaction"]) || cursor.accept(&["work"]);
    let mut read_only = None;
    loop {
        if cursor.accept(&["read", "only"]) {
            read_only = Some(true);
        } else if cursor.accept(&["read", "write"]) {
            read_only = Some(false);
        } else if cursor.accept(&["isolation", "level"]) {
            level(cursor)?;
        } else {
            break;
        }
        cursor.accept_token(&Token::Comma);
    }
    let position = cursor.position();
    let mut options = TransactionOptions::default();
    if cursor.accept(&["with"]) {
        read_options(cursor, &mut options)?;
    }
    cursor.finish()?;
    let means = options.read_only();
    let both = options.system_time.is_some()
        && (options.snapshot_token.is_some() || options.clock_time.is_some());
    if both || (means.is_some() && read_only.is_some() && means != read_only) {
        let message = "SNAPSHOT_TOKEN and CLOCK_TIME are of a transaction that reads, SYSTEM_TIME of \
                       one that writes";
        return Err(Error::syntax(message).at(position));
    }
    Ok(ParsedStatement::Begin { read_only, options })
}

/// Reads an isolation level: whatever it is, transactions are serializable.
fn level(cursor: &mut Cursor<'_, '_>) -> Result<()> {
    let levels: [&[&str]; 4] = [
        &["serializable"],
        &["repeatable", "read"],
        &["read", "committed"],
        &["read", "uncommitted"],
    ];
    match levels.into_iter().any(|level| cursor.accept(level)) {
        true => Ok(()),
        false => Err(cursor.expected("an isolation level")),
    }
}

fn read_options(cursor: &mut Cursor<'_, '_>, options: &mut TransactionOptions) -> Result<()> {
    cursor.expect_token(&Token::LParen)?;
    loop {
        let (name, position) = cursor.name("an option")?;
        cursor.expect_token(&Token::Eq)?;
        let _optional = cursor.accept(&["timestamp"]) || cursor.accept(&["date"]);
        let value_position = cursor.position();
        let Some(Token::SingleQuotedString(value)) = cursor.peek() else {
            return Err(cursor.expected("a value in quotes"));
        };
        cursor.at += 1;
        let twice = match name.as_str() {
            "snapshot_token" => options.snapshot_token.replace(value.clone()).is_some(),
            "clock_time" => {
                let literal = Value::SingleQuotedString(value.clone()).with_empty_span();
                let expr = Expr::Value(literal);
                let now = BoundExpr { expr, position: value_position };
                options.clock_time.replace(now).is_some()
            }
            "system_time" => {
                let at = SystemTime::parse(value).map_err(|error| {
                    let message = error.to_string();
                    Error::new(SqlState::DatetimeOverflow, message).at(value_position)
                })?;
                options.system_time.replace(at).is_some()
            }
            _ => {
                let message = format!("a transaction has no option \"{name}\"");
                return Err(Error::new(SqlState::UndefinedObject, message)
                    .at(position)
                    .with_hint("known here: SNAPSHOT_TOKEN, CLOCK_TIME, SYSTEM_TIME"));
            }
        };
        if twice {
            return Err(Error::syntax(format!("option \"{name}\" is given twice")).at(position));
        }
        if !cursor.accept_token(&Token::Comma) {
            break;
        }
    }
    cursor.expect_token(&Token::RParen)
}
