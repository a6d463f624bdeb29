//! `SETTING DEFAULT VALID_TIME .., SNAPSHOT_TOKEN = '..', CLOCK_TIME = ..` at the head of a query.

use datafusion::sql::sqlparser::tokenizer::{Location, Token};

use super::clauses::{Axis, Clause, ClauseReader, Settings};
use super::tokens::StatementText;
use crate::error::{Error, Result, SqlState};

/// Takes SETTING and its list off a statement.
///
/// # Errors
/// 42601 for a list that is none, 42704 for a setting that is not known.
pub(super) fn take(text: &mut StatementText<'_>) -> Result<Settings> {
    let mut settings = Settings::default();
    let mut reader = ClauseReader { text, at: 0 };
    if reader.word("setting") {
        loop {
            one(&mut reader, &mut settings)?;
            if !token(&mut reader, &Token::Comma) {
                break;
            }
        }
    }
    let read = reader.at;
    text.tokens.drain(..read);
    Ok(settings)
}

fn one(reader: &mut ClauseReader<'_, '_>, settings: &mut Settings) -> Result<()> {
    let position = reader.position();
    let twice = |what: &str| Err(Error::syntax(format!("{what} is set twice")).at(position));
    if reader.word("default") {
        let axis = if reader.word("valid_time") {
            Axis::Valid
        } else if reader.word("system_time") {
            Axis::System
        } else {
            let message = "expected VALID_TIME or SYSTEM_TIME after DEFAULT";
            return Err(Error::syntax(message).at(reader.position()));
        };
        let _optional = reader.word("to") || token(reader, &Token::Eq);
        let kind = reader.default_of(axis)?;
        if settings.defaults.iter().any(|earlier| earlier.axis == axis) {
            return twice(&format!("DEFAULT {}", axis.word()));
        }
        let anchor = Location { line: 0, column: 0 };
        let position = position.unwrap_or(1);
        settings.defaults.push(Clause { axis, kind, portion: false, anchor, position });
        return Ok(());
    }
    if reader.word("snapshot_token") {
        equals(reader)?;
        let given = reader.text.tokens.get(reader.at).map(|token| &token.token);
        let Some(Token::SingleQuotedString(token)) = given else {
            return Err(Error::syntax("expected a token in quotes").at(reader.position()));
        };
        if settings.snapshot_token.replace(token.clone()).is_some() {
            return twice("SNAPSHOT_TOKEN");
        }
        reader.at += 1;
        return Ok(());
    }
    if reader.word("clock_time") {
        equals(reader)?;
        let now = reader.bound()?;
        return match settings.clock_time.replace(now) {
            None => Ok(()),
            Some(_) => twice("CLOCK_TIME"),
        };
    }
    Err(Error::new(SqlState::UndefinedObject, "this is no setting of a query")
        .at(position)
        .with_hint(
            "SETTING takes DEFAULT VALID_TIME, DEFAULT SYSTEM_TIME, SNAPSHOT_TOKEN and CLOCK_TIME",
        ))
}

fn equals(reader: &mut ClauseReader<'_, '_>) -> Result<()> {
    if token(reader, &Token::Eq) || reader.word("to") {
        return Ok(());
    }
    Err(Error::syntax("expected = and a value").at(reader.position()))
}

fn token(reader: &mut ClauseReader<'_, '_>, expected: &Token) -> bool {
    let found = reader.text.tokens.get(reader.at).is_some_and(|token| token.token == *expected);
    reader.at += usize::from(found);
    found
}
