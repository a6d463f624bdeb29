//! Text to instants, dates, times and decimals, strictly.

use everwhen_query::columns::parse_decimal;
use everwhen_query::columns::text::{parse_value, text_of};
use everwhen_storage::civil::CivilDate;
use everwhen_storage::{ColumnType, ValidTime, Value};

/// Parses an RFC 3339 instant to microseconds since the Unix epoch.
///
/// # Errors
/// For anything else, for dates that do not exist and for precision finer than a microsecond.
pub fn instant(text: &str) -> Result<i64, String> {
    if let Some(micros) = utc_instant(text.as_bytes()) {
        return Ok(micros);
    }
    ValidTime::parse(text).map(ValidTime::micros).map_err(|error| error.to_string())
}

/// The common form `YYYY-MM-DDTHH:MM:SS[.ffffff]Z`, without a detour; nothing for any other.
fn utc_instant(text: &[u8]) -> Option<i64> {
    let (body, zone) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if zone != b"Z" || body.len() < 19 || body[10] != b'T' || body[13] != b':' || body[16] != b':' {
        return None;
    }
    let days = days(body.get(..10)?)?;
    let (hour, minute, second) =
        (digits(&body[11..13])?, digits(&body[14..16])?, digits(&body[17..19])?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let micros = match body.get(19..)? {
        [] => 0,
        [b'.', fraction @ ..] => fraction_micros(fraction)?,
        _ => return None,
    };
    Some((days * 86_400 + hour * 3_600 + minute * 60 + second) * 1_000_000 + micros)
}

fn fraction_micros(fraction: &[u8]) -> Option<i64> {
    let missing = 6_usize.checked_sub(fraction.len())?;
    if fraction.is_empty() {
        return None;
    }
    Some(digits(fraction)? * 10_i64.pow(u32::try_from(missing).ok()?))
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0_i64, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0'))
    })
}

/// Days since the Unix epoch of `YYYY-MM-DD`, where the date exists.
fn days(text: &[u8]) -> Option<i64> {
    CivilDate::parse(text).map(CivilDate::days)
}

/// Parses `YYYY-MM-DD` to days since the Unix epoch.
///
/// # Errors
/// For anything else and for dates that do not exist.
pub fn date(text: &str) -> Result<i32, String> {
    days(text.as_bytes())
        .and_then(|days| i32::try_from(days).ok())
        .ok_or_else(|| format!("\"{text}\" is no date that exists"))
}

/// Returns a UUID's text in its one form.
///
/// # Errors
/// For text that is none.
pub fn uuid(text: &str) -> Result<String, String> {
    match parse_value(text, &ColumnType::Uuid) {
        Ok(value) => Ok(text_of(&value)),
        Err(_) => Err(format!("\"{text}\" is no UUID")),
    }
}

/// Parses `HH:MM[:SS[.ffffff]]` to microseconds since midnight.
///
/// # Errors
/// For anything else.
pub fn time(text: &str) -> Result<i64, String> {
    match parse_value(text, &ColumnType::Time) {
        Ok(Value::Time(micros)) => Ok(micros),
        _ => Err(format!("\"{text}\" is no time of day")),
    }
}

/// Parses a number exactly to its unscaled decimal(38, 9): the number times 10^9.
///
/// # Errors
/// For text that is no number, and for numbers that do not fit exactly.
pub fn decimal(text: &str) -> Result<i128, String> {
    parse_decimal(text).ok_or_else(|| format!("\"{text}\" is no decimal(38,9)"))
}

#[cfg(test)]
mod tests {
    use super::{date, decimal, instant, time};
    use everwhen_storage::ValidTime;

    #[test]
    fn the_short_way_to_an_instant_agrees_with_the_long_one() {
        for text in [
            "1970-01-01T00:00:00Z",
            "2026-01-05T09:00:00Z",
            "2024-02-29T23:59:59.999999Z",
            "2000-03-01T00:00:00.5Z",
            "1969-12-31T23:59:59.123Z",
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999Z",
        ] {
            let long = ValidTime::parse(text).expect("an instant").micros();
            assert_eq!(super::utc_instant(text.as_bytes()), Some(long), "{text}");
        }
        assert_eq!(instant("2026-01-05T10:00:00+01:00"), instant("2026-01-05T09:00:00Z"));
    }

    #[test]
    fn instants_that_are_none_are_refused() {
        for text in [
            "",
            "Z",
            "now",
            "2026-02-30T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-05T09:00:00.1234567Z",
            "2026-01-05T25:00:00Z",
            "1767604800",
        ] {
            assert!(instant(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dates_and_times_must_exist() {
        assert_eq!(date("1970-01-02"), Ok(1));
        assert_eq!(date("2024-02-29"), Ok(19_782));
        assert!(date("2023-02-29").is_err() && date("2024-2-29").is_err());
        assert_eq!(time("01:00:00.5"), Ok(3_600_500_000));
        assert!(time("24:00:00").is_err() && time("noon").is_err());
    }

    #[test]
    fn decimals_are_exact_or_refused() {
        assert_eq!(decimal("1.5"), Ok(1_500_000_000));
        assert_eq!(decimal("-0.000000001"), Ok(-1));
        assert_eq!(decimal("1e3"), Ok(1_000_000_000_000));
        assert_eq!(decimal("12.50e-1"), Ok(1_250_000_000));
        assert_eq!(decimal("0.10000000000000"), Ok(100_000_000));
        assert_eq!(decimal("0e999"), Ok(0));
        assert!(decimal("0.0000000001").is_err());
        assert!(decimal("1e29").is_err() && decimal("1e28").is_ok());
        assert!(decimal("abc").is_err() && decimal("").is_err() && decimal("1.2.3").is_err());
    }
}
