//! `ALTER STREAM`: where a stream reads its topic, and whether it does.

use datafusion::sql::sqlparser::tokenizer::Token;
use everwhen_storage::ValidTime;

use super::cursor::Cursor;
use crate::columns::text::parse_instant;
use crate::error::{Error, Result, SqlState};
use crate::statements::{AlterStream, NamedPartition, ResetTo, StreamChange};

/// Reads a statement that begins with ALTER STREAM.
///
/// # Errors
/// 42601 for text of another form, 22023 for a number that is out of range, 22008 and 22P02 for an
/// instant that cannot be read.
pub fn alter_stream(cursor: &mut Cursor<'_, '_>) -> Result<AlterStream> {
    cursor.expect(&["alter", "stream"])?;
    let if_exists = cursor.accept(&["if", "exists"]);
    let (name, position) = cursor.name("a stream")?;
    let change = if cursor.accept(&["reset"]) {
        cursor.expect(&["to"])?;
        let to = place(cursor)?;
        StreamChange::Reset { to, partition: partition(cursor)? }
    } else if cursor.accept(&["skip"]) {
        StreamChange::Skip
    } else if cursor.accept(&["resume"]) {
        StreamChange::Resume
    } else if cursor.accept(&["pause"]) {
        StreamChange::Pause
    } else {
        return Err(cursor.expected("RESET TO, SKIP, RESUME or PAUSE"));
    };
    cursor.finish()?;
    Ok(AlterStream { name, if_exists, position, change })
}

fn place(cursor: &mut Cursor<'_, '_>) -> Result<ResetTo> {
    if cursor.accept(&["beginning"]) {
        return Ok(ResetTo::Beginning);
    }
    if cursor.accept(&["end"]) {
        return Ok(ResetTo::End);
    }
    if cursor.accept(&["offset"]) {
        return Ok(ResetTo::Offset(number(cursor, "an offset")?.0));
    }
    if cursor.accept(&["timestamp"]) {
        return Ok(ResetTo::Timestamp(instant(cursor)?));
    }
    Err(cursor.expected("BEGINNING, END, OFFSET or TIMESTAMP"))
}

fn partition(cursor: &mut Cursor<'_, '_>) -> Result<Option<NamedPartition>> {
    if !cursor.accept(&["partition"]) {
        return Ok(None);
    }
    let (number, position) = number::<i32>(cursor, "a partition")?;
    Ok(Some(NamedPartition { partition: number, position }))
}

/// Reads a whole number that is not negative.
fn number<N: std::str::FromStr>(cursor: &mut Cursor<'_, '_>, what: &str) -> Result<(N, usize)> {
    let position = cursor.position();
    let negative = cursor.accept_token(&Token::Minus);
    let text = match cursor.peek() {
        Some(Token::Number(text, _)) => text.as_str(),
        _ => return Err(cursor.expected(what)),
    };
    cursor.at += 1;
    let number = text.parse().ok().filter(|_| !negative);
    let number = number.ok_or_else(|| {
        let message = format!("{what} must be a whole number that is not negative");
        Error::new(SqlState::InvalidParameter, message).at(position)
    })?;
    Ok((number, position))
}

fn instant(cursor: &mut Cursor<'_, '_>) -> Result<ValidTime> {
    let position = cursor.position();
    let text = match cursor.peek() {
        Some(Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text)) => text,
        _ => return Err(cursor.expected("an instant in quotes")),
    };
    cursor.at += 1;
    parse_instant(text).map_err(|error| error.at(position))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::{ParseLimits, ParsedStatement, parse};
    use crate::statements::DefinitionStatement;

    fn read(change: &str) -> Result<StreamChange> {
        let sql = format!("ALTER STREAM Orders {change}");
        match parse(&sql, &ParseLimits::default())?.pop() {
            Some(ParsedStatement::Define(DefinitionStatement::AlterStream(alter))) => {
                assert_eq!((alter.name.as_str(), alter.position), ("orders", 14));
                Ok(alter.change)
            }
            other => panic!("{other:?}"),
        }
    }

    fn reset(to: ResetTo) -> StreamChange {
        StreamChange::Reset { to, partition: None }
    }

    #[test]
    fn every_change_is_read() {
        assert_eq!(read("RESET TO BEGINNING").unwrap(), reset(ResetTo::Beginning));
        assert_eq!(read("reset to end;").unwrap(), reset(ResetTo::End));
        assert_eq!(read("RESET TO OFFSET 12").unwrap(), reset(ResetTo::Offset(12)));
        let at = ValidTime::from_micros(1_767_225_600_000_000);
        let found = read("RESET TO TIMESTAMP '2026-01-01T00:00:00Z'").unwrap();
        assert_eq!(found, reset(ResetTo::Timestamp(at)));
        let partition = Some(NamedPartition { partition: 3, position: 49 });
        assert_eq!(
            read("RESET TO OFFSET 0 PARTITION 3").unwrap(),
            StreamChange::Reset { to: ResetTo::Offset(0), partition }
        );
        assert_eq!(read("SKIP").unwrap(), StreamChange::Skip);
        assert_eq!(read("RESUME").unwrap(), StreamChange::Resume);
        assert_eq!(read("PAUSE").unwrap(), StreamChange::Pause);
    }

    #[test]
    fn other_forms_are_refused_with_their_place() {
        for (change, state, at, said) in [
            ("", "42601", 20, "expected RESET TO, SKIP, RESUME or PAUSE, found the end"),
            ("RESET", "42601", 26, "expected to, found the end"),
            ("RESET TO 5", "42601", 30, "expected BEGINNING, END, OFFSET or TIMESTAMP"),
            ("RESET TO OFFSET", "42601", 36, "expected an offset, found the end"),
            ("RESET TO OFFSET -1", "22023", 37, "an offset must be a whole number"),
            ("RESET TO OFFSET 1.5", "22023", 37, "an offset must be a whole number"),
            ("RESET TO OFFSET 1 PARTITION 9999999999", "22023", 49, "a partition must be a whole"),
            ("RESET TO OFFSET 1 PARTITION x", "42601", 49, "expected a partition, found \"x\""),
            ("RESET TO TIMESTAMP 5", "42601", 40, "expected an instant in quotes"),
            ("RESET TO TIMESTAMP '2026-02-30T00:00:00Z'", "22008", 40, ""),
            ("RESET TO TIMESTAMP 'noon'", "22P02", 40, ""),
            ("SKIP 3", "42601", 26, "expected the end of the statement"),
        ] {
            let error = read(change).unwrap_err();
            let found = (error.sqlstate(), error.position());
            assert_eq!(found, (state, Some(at)), "{change}: {error}");
            assert!(error.to_string().contains(said), "{change}: {error}");
        }
    }
}
