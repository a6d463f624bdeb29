//! Column types as the contract names them, and values checked against them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use super::error::{Error, Result};

const NO_INSTANT: &str = "not an RFC 3339 instant in UTC of the years 0001 to 9999";

/// What a sink must know of a column's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `bool`
    Bool,
    /// `int64`
    Int64,
    /// `float64`, with NaN and infinities
    Float64,
    /// `decimal(p,s)`
    Decimal {
        /// Digits in all.
        precision: u8,
        /// Digits after the point.
        scale: u8,
    },
    /// `text`
    Text,
    /// `bytes`
    Bytes,
    /// `date`
    Date,
    /// `time`
    Time,
    /// `timestamptz`
    Timestamp,
    /// `json`, `list<..>`, `struct<..>`, `period`: kept as JSON
    Json,
}

impl Kind {
    /// Reads a type name of the contract.
    ///
    /// # Errors
    /// [`Error::Config`] for a name that no version of the contract has.
    pub fn parse(name: &str) -> Result<Self> {
        let lower = name.trim().to_ascii_lowercase();
        let kind = match lower.as_str() {
            "bool" => Self::Bool,
            "int64" => Self::Int64,
            "float64" => Self::Float64,
            "text" | "uuid" => Self::Text,
            "bytes" => Self::Bytes,
            "date" => Self::Date,
            "time" => Self::Time,
            "timestamptz" => Self::Timestamp,
            "json" | "period" | "null" => Self::Json,
            _ if lower.starts_with("list<") || lower.starts_with("struct<") => Self::Json,
            _ => Self::parse_decimal(&lower).ok_or_else(|| Error::Config {
                what: format!("column type \"{name}\""),
                detail: "no sink knows this type".into(),
            })?,
        };
        Ok(kind)
    }

    fn parse_decimal(name: &str) -> Option<Self> {
        let inside = name.strip_prefix("decimal(")?.strip_suffix(')')?;
        let (precision, scale) = inside.split_once(',')?;
        Some(Self::Decimal {
            precision: precision.trim().parse().ok()?,
            scale: scale.trim().parse().ok()?,
        })
    }

    /// The contract's name of the type, for messages.
    pub fn name(self) -> String {
        match self {
            Self::Bool => "bool".into(),
            Self::Int64 => "int64".into(),
            Self::Float64 => "float64".into(),
            Self::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
            Self::Text => "text".into(),
            Self::Bytes => "bytes".into(),
            Self::Date => "date".into(),
            Self::Time => "time".into(),
            Self::Timestamp => "timestamptz".into(),
            Self::Json => "json".into(),
        }
    }

    /// Checks a value in the contract's JSON form.
    ///
    /// # Errors
    /// [`Error::Value`] naming `column` if the value has another form.
    pub fn cell(self, column: &str, json: Json) -> Result<Cell> {
        let wrong = |detail: &str| Error::Value {
            column: column.into(),
            kind: self.name(),
            detail: detail.into(),
        };
        Ok(match (self, json) {
            (_, Json::Null) => Cell::Null,
            (Self::Bool, Json::Bool(value)) => Cell::Bool(value),
            (Self::Int64, Json::Number(number)) => {
                Cell::Int(number.as_i64().ok_or_else(|| wrong("not a 64-bit integer"))?)
            }
            (Self::Int64, Json::String(text)) => {
                Cell::Int(text.parse().map_err(|_| wrong("not a 64-bit integer"))?)
            }
            (Self::Float64, Json::Number(number)) => {
                Cell::Float(number.as_f64().ok_or_else(|| wrong("not a double"))?)
            }
            (Self::Float64, Json::String(text)) => {
                Cell::Float(float_of(&text).ok_or_else(|| wrong("not a double"))?)
            }
            (Self::Decimal { .. }, Json::Number(number)) => Cell::Text(number.to_string()),
            (Self::Timestamp, Json::String(text)) => {
                Cell::Text(six_digits(&text).ok_or_else(|| wrong(NO_INSTANT))?)
            }
            (Self::Bytes, Json::String(text)) => {
                Cell::Bytes(STANDARD.decode(&text).map_err(|_| wrong("not base64"))?)
            }
            (Self::Date, Json::String(text)) if is_date(&text) => Cell::Text(text),
            (Self::Date, Json::String(_)) => {
                return Err(wrong("not a date of the years 0001 to 9999"));
            }
            (Self::Decimal { .. } | Self::Text | Self::Time, Json::String(text)) => {
                Cell::Text(text)
            }
            (Self::Json, value) => Cell::Json(value.to_string()),
            (_, value) => return Err(wrong(&format!("unexpected value {value}"))),
        })
    }
}

/// A checked value. Which of them a column has follows from its [`Kind`].
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// SQL NULL.
    Null,
    /// A `bool`.
    Bool(bool),
    /// An `int64`.
    Int(i64),
    /// A `float64`.
    Float(f64),
    /// Text, decimals, dates and times in their text form; instants with six fraction digits.
    Text(String),
    /// Raw bytes.
    Bytes(Vec<u8>),
    /// JSON text.
    Json(String),
}

impl Cell {
    /// Returns text that is equal for equal values: to find rows of one key.
    pub fn identity(&self) -> String {
        match self {
            Self::Null => "n".into(),
            Self::Bool(value) => format!("b{value}"),
            Self::Int(value) => format!("i{value}"),
            // Zero is one key, whatever its sign.
            Self::Float(value) => format!("f{:?}", value + 0.0),
            Self::Text(text) => format!("t{text}"),
            Self::Bytes(bytes) => format!("y{}", STANDARD.encode(bytes)),
            Self::Json(text) => format!("j{text}"),
        }
    }

    /// Returns the contract's JSON form, instants with six fraction digits.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(*value),
            Self::Int(value) => Json::from(*value),
            Self::Float(value) if value.is_finite() => Json::from(*value),
            Self::Float(value) => Json::from(float_text(*value)),
            Self::Text(text) => Json::from(text.as_str()),
            Self::Bytes(bytes) => Json::from(STANDARD.encode(bytes)),
            Self::Json(text) => serde_json::from_str(text).unwrap_or(Json::Null),
        }
    }
}

/// Returns the contract's text of NaN and the infinities, digits for the rest.
pub fn float_text(value: f64) -> String {
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity".into() } else { "-Infinity".into() }
    } else {
        format!("{value:?}")
    }
}

/// Reads what [`float_text`] and sinks write, in any case, also `inf`.
pub fn float_of(text: &str) -> Option<f64> {
    text.trim().parse().ok()
}

/// Gives an RFC 3339 instant in UTC its six fraction digits.
fn six_digits(text: &str) -> Option<String> {
    let body = text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00"))?;
    let (seconds, fraction) = body.split_once('.').unwrap_or((body, ""));
    let (date, clock) = seconds.split_once('T')?;
    if !is_date(date)
        || clock.len() != 8
        || clock.parse::<jiff::civil::Time>().is_err()
        || fraction.len() > 6
        || !fraction.bytes().all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    Some(format!("{seconds}.{fraction:0<6}Z"))
}

/// Says whether a text is `YYYY-MM-DD` of the years 0001 to 9999.
fn is_date(text: &str) -> bool {
    let plain = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    plain && text.parse::<jiff::civil::Date>().is_ok_and(|date| date.year() > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn contract_type_names_are_read() {
        assert_eq!(Kind::parse("int64").unwrap(), Kind::Int64);
        assert_eq!(
            Kind::parse("decimal(38,9)").unwrap(),
            Kind::Decimal { precision: 38, scale: 9 }
        );
        assert_eq!(Kind::parse("list<struct<a: int64>>").unwrap(), Kind::Json);
        assert!(Kind::parse("money").is_err());
    }

    #[test]
    fn instants_get_six_digits() {
        let cell = |text: &str| Kind::Timestamp.cell("at", json!(text));
        let expected = Cell::Text("2026-11-21T08:00:00.000000Z".into());
        assert_eq!(cell("2026-11-21T08:00:00Z").unwrap(), expected);
        let expected = Cell::Text("2026-11-21T08:00:00.123000Z".into());
        assert_eq!(cell("2026-11-21T08:00:00.123Z").unwrap(), expected);
        assert!(cell("2026-11-21").is_err());
    }

    #[test]
    fn the_whole_range_of_time_is_accepted_and_nothing_beyond() {
        let instant = |text: &str| Kind::Timestamp.cell("at", json!(text));
        for text in ["0001-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z"] {
            assert_eq!(instant(text).unwrap(), Cell::Text(text.into()));
        }
        for text in ["+10000-01-01T00:00:00Z", "0000-12-31T23:59:59Z", "2026-02-30T00:00:00Z"] {
            assert!(instant(text).is_err(), "{text}");
        }
        for text in ["0001-01-01", "9999-12-31"] {
            assert_eq!(Kind::Date.cell("day", json!(text)).unwrap(), Cell::Text(text.into()));
        }
        for text in ["2932897d", "+10000-01-01", "0000-12-31", "2026-02-30"] {
            assert!(Kind::Date.cell("day", json!(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn values_of_another_form_are_refused() {
        assert!(Kind::Int64.cell("n", json!(1.5)).is_err());
        assert!(Kind::Bool.cell("b", json!(1)).is_err());
        assert!(Kind::Bytes.cell("y", json!("***")).is_err());
        assert_eq!(Kind::Int64.cell("n", json!(i64::MIN)).unwrap(), Cell::Int(i64::MIN));
    }

    #[test]
    fn not_a_number_is_text() {
        let cell = Kind::Float64.cell("f", json!("NaN")).unwrap();
        assert_eq!(cell.to_json(), json!("NaN"));
        let cell = Kind::Float64.cell("f", json!("-Infinity")).unwrap();
        assert_eq!(cell.to_json(), json!("-Infinity"));
    }
}
