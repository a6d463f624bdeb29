//! The text forms of values, both ways.

use everwhen_storage::civil::CivilDate;
use everwhen_storage::{ColumnType, ValidTime, Value};

use crate::error::{Error, Result, SqlState};

/// 1 as an unscaled decimal(38, 9).
pub const DECIMAL_ONE: i128 = 1_000_000_000;
/// Microseconds of a day.
pub const MICROS_PER_DAY: i64 = 86_400_000_000;

const DECIMAL_SCALE: usize = 9;
const DECIMAL_DIGITS_MAX: usize = 38;

/// Returns a value's plain text: what it widens to in a text column.
pub fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => float_text(*value),
        Value::Decimal(units) => decimal_text(*units, 9),
        Value::Text(text) | Value::Json(text) => text.clone(),
        Value::Uuid(value) => value.hyphenated().to_string(),
        Value::Date(days) => date_text(*days),
        Value::Time(micros) => time_text(*micros),
        Value::Timestamp(micros) => timestamp_text(*micros),
        Value::Bytes(_) | Value::List(_) | Value::Struct(_) => {
            match super::json::json_of_value(value) {
                serde_json::Value::String(text) => text,
                json => json.to_string(),
            }
        }
    }
}

/// Reads a text as a value of a type.
///
/// # Errors
/// 22P02, 22003 or 22008 where it is none.
pub fn parse_value(text: &str, kind: &ColumnType) -> Result<Value> {
    let wrong = || invalid(text, kind);
    Ok(match kind {
        ColumnType::Text => Value::Text(text.to_owned()),
        ColumnType::Uuid => Value::Uuid(text.trim().parse().map_err(|_| wrong())?),
        ColumnType::Bool => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "t" => Value::Bool(true),
            "false" | "f" => Value::Bool(false),
            _ => return Err(wrong()),
        },
        ColumnType::Int64 => Value::Int(text.trim().parse().map_err(|_| wrong())?),
        ColumnType::Float64 => Value::Float(parse_float(text).ok_or_else(wrong)?),
        ColumnType::Decimal => Value::Decimal(parse_decimal(text).ok_or_else(wrong)?),
        ColumnType::Timestamp => Value::Timestamp(parse_instant(text)?.micros()),
        ColumnType::Date => {
            let micros = parse_instant(text)?.micros();
            let days = micros.div_euclid(MICROS_PER_DAY);
            Value::Date(i32::try_from(days).map_err(|_| wrong())?)
        }
        ColumnType::Time => Value::Time(parse_time(text).ok_or_else(wrong)?),
        ColumnType::Json => match serde_json::from_str::<serde::de::IgnoredAny>(text) {
            Ok(_) => Value::Json(text.to_owned()),
            Err(_) => return Err(wrong()),
        },
        ColumnType::Bytes | ColumnType::List(_) | ColumnType::Struct(_) => {
            let json = match kind {
                ColumnType::Bytes => serde_json::Value::from(text),
                _ => serde_json::from_str(text).map_err(|_| wrong())?,
            };
            super::json::json_to_value(&json, kind)?
        }
    })
}

/// Reads an instant.
///
/// # Errors
/// 22008 where it looks like one but does not exist or is too fine, else 22P02.
pub fn parse_instant(text: &str) -> Result<ValidTime> {
    ValidTime::parse(text).map_err(|error| {
        let shaped = text.trim().as_bytes().iter().take(4).filter(|b| b.is_ascii_digit()).count();
        let state = if shaped == 4 { SqlState::DatetimeOverflow } else { SqlState::InvalidText };
        Error::new(state, error.to_string())
    })
}

fn invalid(text: &str, kind: &ColumnType) -> Error {
    let shown: String = text.chars().take(60).collect();
    Error::new(SqlState::InvalidText, format!("\"{shown}\" is no value of type {kind}"))
}

fn parse_float(text: &str) -> Option<f64> {
    match text.trim() {
        "NaN" => Some(f64::NAN),
        "Infinity" | "inf" => Some(f64::INFINITY),
        "-Infinity" | "-inf" => Some(f64::NEG_INFINITY),
        text if text.bytes().any(|b| b.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

/// Reads `HH:MM[:SS[.ffffff]]` as microseconds since midnight.
fn parse_time(text: &str) -> Option<i64> {
    let text = text.trim();
    let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
    if fraction.len() > 6 {
        return None;
    }
    let time = text.parse::<jiff::civil::Time>().ok()?;
    let seconds =
        i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60 + i64::from(time.second());
    Some(seconds * 1_000_000 + i64::from(time.subsec_nanosecond()) / 1_000)
}

/// Reads a decimal as units of 10^-9; nothing where it has more digits than decimal(38, 9).
pub fn parse_decimal(text: &str) -> Option<i128> {
    let text = text.trim();
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let all = format!("{whole}{fraction}");
    let significant = all.trim_start_matches('0');
    let fraction_count = i32::try_from(fraction.len()).ok()?;
    let shift = exponent.checked_sub(fraction_count)?.checked_add(9)?;
    let units = if significant.is_empty() {
        0
    } else if let Ok(zeros) = usize::try_from(shift) {
        if significant.len() + zeros > DECIMAL_DIGITS_MAX {
            return None;
        }
        format!("{significant}{}", "0".repeat(zeros)).parse::<i128>().ok()?
    } else {
        let dropped = usize::try_from(shift.unsigned_abs()).ok()?;
        let kept = significant.len().checked_sub(dropped)?;
        let (kept, dropped) = significant.split_at(kept);
        if kept.len() > DECIMAL_DIGITS_MAX || dropped.bytes().any(|b| b != b'0') {
            return None;
        }
        if kept.is_empty() { 0 } else { kept.parse::<i128>().ok()? }
    };
    Some(if negative { -units } else { units })
}

/// Writes a decimal of units of 10^-scale, without zeros at the end of the fraction.
pub fn decimal_text(units: i128, scale: usize) -> String {
    let exact = decimal_text_exact(units, scale);
    if !exact.contains('.') {
        return exact;
    }
    exact.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Writes a decimal of units of 10^-scale with all its fraction digits.
pub fn decimal_text_exact(units: i128, scale: usize) -> String {
    let digits = format!("{:0>width$}", units.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if units < 0 { "-" } else { "" };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// Returns the fraction digits of a stored decimal.
pub const fn stored_decimal_scale() -> usize {
    DECIMAL_SCALE
}

/// Writes a float so that it reads back the same; NaN and the infinities by name.
pub fn float_text(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity".to_owned() } else { "-Infinity".to_owned() }
    } else {
        serde_json::Value::from(value).to_string()
    }
}

/// Writes an instant as RFC 3339 UTC with 0, 3 or 6 fraction digits.
pub fn timestamp_text(micros: i64) -> String {
    ValidTime::from_micros(micros).to_string()
}

/// Writes days since the Unix epoch as `YYYY-MM-DD`.
pub fn date_text(days: i32) -> String {
    CivilDate::of_days(days.into()).to_string()
}

/// Writes microseconds since midnight as `HH:MM:SS` with 0, 3 or 6 fraction digits.
pub fn time_text(micros: i64) -> String {
    let (seconds, fraction) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match fraction {
        0 => format!("{hours:02}:{minutes:02}:{seconds:02}"),
        _ if fraction % 1_000 == 0 => {
            format!("{hours:02}:{minutes:02}:{seconds:02}.{:03}", fraction / 1_000)
        }
        _ => format!("{hours:02}:{minutes:02}:{seconds:02}.{fraction:06}"),
    }
}
