//! How long a table keeps what it no longer believes: the option and `ALTER TABLE .. SET (..)`.

use super::cursor::Cursor;
use crate::error::{Error, Result, SqlState};
use crate::statements::SetRetention;

/// The option's name.
pub const OPTION: &str = "history_retention";

/// Reads `ALTER TABLE name SET (history_retention = ..)`; nothing where it is another ALTER TABLE.
pub fn alter_table_set(cursor: &mut Cursor<'_, '_>) -> Result<Option<SetRetention>> {
    let start = cursor.at;
    if !cursor.accept(&["alter", "table"]) {
        return Ok(None);
    }
    let named = cursor.name("a table");
    let Ok((name, position)) = named.and_then(|named| {
        cursor.expect(&["set"])?;
        Ok(named)
    }) else {
        cursor.at = start;
        return Ok(None);
    };
    let place = cursor.position();
    let mut options = cursor.options()?;
    cursor.finish()?;
    let Some((text, position_of_value)) = options.remove(OPTION) else {
        let message = format!("ALTER TABLE .. SET needs the option \"{OPTION}\"");
        return Err(Error::new(SqlState::UndefinedObject, message).at(place));
    };
    if let Some((key, (_, at))) = options.into_iter().next() {
        let message = format!("option \"{key}\" does not exist");
        return Err(Error::new(SqlState::UndefinedObject, message)
            .at(at)
            .with_hint(format!("known here: {OPTION}")));
    }
    let micros = micros(&text, position_of_value)?;
    Ok(Some(SetRetention { name, micros, position }))
}

/// Reads a length of time: `'90 days'`, `'12 hours'`, .., in microseconds; `'forever'` is none.
///
/// # Errors
/// 22023 for other text.
pub fn micros(text: &str, position: usize) -> Result<Option<i64>> {
    let wrong = || {
        let message = format!("\"{text}\" is no length of time for {OPTION}");
        Error::new(SqlState::InvalidParameter, message)
            .at(position)
            .with_hint("a whole number of seconds, minutes, hours, days or weeks, or 'forever'")
    };
    let lower = text.trim().to_ascii_lowercase();
    if lower == "forever" {
        return Ok(None);
    }
    let (number, unit) = lower.split_once(' ').ok_or_else(wrong)?;
    let unit: i64 = match unit.trim().trim_end_matches('s') {
        "second" => 1,
        "minute" => 60,
        "hour" => 3_600,
        "day" => 86_400,
        "week" => 7 * 86_400,
        _ => return Err(wrong()),
    };
    let number: i64 = number.parse().map_err(|_| wrong())?;
    let micros = number.checked_mul(unit).and_then(|seconds| seconds.checked_mul(1_000_000));
    micros.filter(|micros| *micros > 0).map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::micros;

    #[test]
    fn lengths_of_time_are_whole_and_positive() {
        assert_eq!(micros("90 days", 1).unwrap(), Some(90 * 86_400_000_000));
        assert_eq!(micros(" 1 Hour ", 1).unwrap(), Some(3_600_000_000));
        assert_eq!(micros("forever", 1).unwrap(), None);
        for wrong in ["", "90", "0 days", "-1 days", "1.5 days", "3 months", "9999999999999 weeks"]
        {
            assert_eq!(micros(wrong, 1).unwrap_err().sqlstate(), "22023", "{wrong}");
        }
    }
}
