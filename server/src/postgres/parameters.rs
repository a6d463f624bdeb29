//! Parameters' values in text and binary form, to the JSON forms of the contract's types.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Buf as _, Bytes};
use everwhen_query::columns::text::{date_text, float_text, time_text};
use everwhen_storage::{ColumnType, ValidTime};
use serde_json::Value as Json;

use super::input::not_utf8;
use super::types::{JSONB, item_of, kind_of};
use super::values::{EPOCH_DAYS, EPOCH_MICROS};
use crate::code::Code;
use crate::failure::{Answered, Failure};

/// Reads a parameter of an object id that was described or declared; 0 stands for any text.
///
/// # Errors
/// 22P02 for text that is no value of the type, 22P03 for bytes that are none.
pub fn decode(bytes: &Bytes, oid: u32, binary: bool) -> Answered<Json> {
    let kind = kind_of(oid);
    if binary {
        return match &kind {
            Some(kind) => from_binary(bytes.clone(), oid, kind),
            None => utf8(bytes).map(Json::from),
        };
    }
    let text = utf8(bytes)?;
    match &kind {
        Some(kind) => from_text(text, kind),
        None => Ok(text.into()),
    }
}

fn utf8(bytes: &[u8]) -> Answered<&str> {
    std::str::from_utf8(bytes).map_err(|_| not_utf8())
}

fn invalid(text: &str, kind: &ColumnType) -> Failure {
    let shown: String = text.chars().take(60).collect();
    Failure::of_sqlstate("22P02", format!("\"{shown}\" is no value of type {kind}"))
}

/// Reads a value's text as Postgres takes it.
///
/// # Errors
/// 22P02 for text that is no value of the type.
pub fn from_text(text: &str, kind: &ColumnType) -> Answered<Json> {
    let wrong = || invalid(text, kind);
    Ok(match kind {
        ColumnType::Bool => match text.trim().to_ascii_lowercase().as_str() {
            "t" | "true" | "1" | "y" | "yes" | "on" => true.into(),
            "f" | "false" | "0" | "n" | "no" | "off" => false.into(),
            _ => return Err(wrong()),
        },
        ColumnType::Int64 => text.trim().parse::<i64>().map_err(|_| wrong())?.into(),
        ColumnType::Float64 => match text.trim() {
            "inf" | "Infinity" | "infinity" => "Infinity".into(),
            "-inf" | "-Infinity" | "-infinity" => "-Infinity".into(),
            "NaN" | "nan" => "NaN".into(),
            text => float(text.parse().map_err(|_| wrong())?),
        },
        ColumnType::Bytes => BASE64.encode(bytea(text).ok_or_else(wrong)?).into(),
        ColumnType::Json => serde_json::from_str(text).map_err(|_| wrong())?,
        ColumnType::List(item) if item_of(item).is_some() => array(text, item)?,
        ColumnType::List(_) | ColumnType::Struct(_) => {
            serde_json::from_str(text).map_err(|_| wrong())?
        }
        // These have text as their JSON form and are checked where it is read.
        _ => text.into(),
    })
}

fn float(value: f64) -> Json {
    if value.is_finite() { value.into() } else { float_text(value).into() }
}

/// Reads `\x0aff`, or the older form with `\nnn` for bytes that are no text.
fn bytea(text: &str) -> Option<Vec<u8>> {
    if let Some(digits) = text.strip_prefix("\\x") {
        let pairs = digits.as_bytes().chunks(2);
        let byte = |pair: &[u8]| match pair {
            [_, _] => u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok(),
            _ => None,
        };
        return pairs.map(byte).collect();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            bytes.push(*first);
        } else if let Some(after) = rest.strip_prefix(b"\\") {
            (rest, _) = (after, bytes.push(b'\\'));
        } else {
            let digits = std::str::from_utf8(rest.get(..3)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 8).ok()?);
            rest = &rest[3..];
        }
    }
    Some(bytes)
}

/// Reads `{a,"b c",NULL}`.
fn array(text: &str, item: &ColumnType) -> Answered<Json> {
    let wrong = || invalid(text, &ColumnType::List(Box::new(item.clone())));
    let inner = text.trim().strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    let mut rest = inner.ok_or_else(wrong)?.trim();
    let mut items = Vec::new();
    while !rest.is_empty() {
        let (value, after) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (value, after) = unquoted(quoted).ok_or_else(wrong)?;
                (Some(value), after)
            }
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (value, after) = rest.split_at(end);
                let value = value.trim();
                if value.is_empty() || value.contains(['{', '}', '"']) {
                    return Err(wrong());
                }
                ((!value.eq_ignore_ascii_case("null")).then(|| value.to_owned()), after)
            }
        };
        items.push(match value {
            None => Json::Null,
            Some(value) => from_text(&value, item)?,
        });
        rest = match after.trim_start().strip_prefix(',') {
            Some(next) if !next.trim().is_empty() => next.trim_start(),
            Some(_) => return Err(wrong()),
            None if after.trim().is_empty() => "",
            None => return Err(wrong()),
        };
    }
    Ok(Json::Array(items))
}

/// Reads to the closing quote; returns what stood before it and what follows.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

fn from_binary(mut bytes: Bytes, oid: u32, kind: &ColumnType) -> Answered<Json> {
    let wrong = || {
        Failure::of_sqlstate(
            "22P03",
            format!("the bytes of a parameter are no value of type {kind}"),
        )
        .as_code(Code::InvalidValue)
    };
    Ok(match (kind, bytes.len()) {
        (ColumnType::Bool, 1) => (bytes.get_u8() != 0).into(),
        (ColumnType::Int64, 2) => bytes.get_i16().into(),
        (ColumnType::Int64, 4) if oid == super::types::OID => bytes.get_u32().into(),
        (ColumnType::Int64, 4) => bytes.get_i32().into(),
        (ColumnType::Int64, 8) => bytes.get_i64().into(),
        (ColumnType::Float64, 4) => float(f64::from(bytes.get_f32())),
        (ColumnType::Float64, 8) => float(bytes.get_f64()),
        (ColumnType::Uuid, 16) => {
            let bytes: [u8; 16] = bytes.as_ref().try_into().map_err(|_| wrong())?;
            uuid::Uuid::from_bytes(bytes).to_string().into()
        }
        (ColumnType::Text, _) => utf8(&bytes)?.into(),
        (ColumnType::Json, _) => {
            if oid == JSONB {
                if bytes.first() != Some(&1) {
                    return Err(wrong());
                }
                bytes.advance(1);
            }
            serde_json::from_slice(&bytes).map_err(|_| wrong())?
        }
        (ColumnType::Bytes, _) => BASE64.encode(&bytes).into(),
        (ColumnType::Date, 4) => {
            let days = bytes.get_i32().checked_add(EPOCH_DAYS).ok_or_else(wrong)?;
            date_text(days).into()
        }
        (ColumnType::Time, 8) => time_text(bytes.get_i64()).into(),
        (ColumnType::Timestamp, 8) => {
            let micros = bytes.get_i64().checked_add(EPOCH_MICROS).ok_or_else(wrong)?;
            ValidTime::from_micros(micros).to_string().into()
        }
        (ColumnType::Decimal, _) => numeric(bytes).ok_or_else(wrong)?.into(),
        (ColumnType::List(item), _) => array_binary(bytes, item, &wrong)?,
        _ => return Err(wrong()),
    })
}

/// Reads a number in groups of four digits.
fn numeric(mut bytes: Bytes) -> Option<String> {
    /// Far more than a decimal(38, 9) needs.
    const GROUPS_MAX: i16 = 32;
    if bytes.len() < 8 {
        return None;
    }
    let (count, weight) = (bytes.get_i16(), bytes.get_i16());
    let (sign, _scale) = (bytes.get_u16(), bytes.get_i16());
    let bounds = -GROUPS_MAX..=GROUPS_MAX;
    if !bounds.contains(&count) || !bounds.contains(&weight) {
        return None;
    }
    let count = usize::try_from(count).ok()?;
    if bytes.len() != count * 2 {
        return None;
    }
    let mut digits = String::new();
    for _ in 0..count {
        let group = bytes.get_u16();
        if group > 9_999 {
            return None;
        }
        digits.push_str(&format!("{group:04}"));
    }
    let sign = match sign {
        0 => "",
        0x4000 => "-",
        // NaN and the infinities are no decimals here.
        _ => return None,
    };
    if digits.is_empty() {
        return Some("0".to_owned());
    }
    // The point stands after the group of weight 0: an exponent moves it there.
    let exponent = (i32::from(weight) + 1) * 4 - i32::try_from(digits.len()).ok()?;
    Some(format!("{sign}{digits}e{exponent}"))
}

fn array_binary(
    mut bytes: Bytes,
    item: &ColumnType,
    wrong: &dyn Fn() -> Failure,
) -> Answered<Json> {
    if bytes.len() < 12 {
        return Err(wrong());
    }
    let (dimensions, _nulls, oid) = (bytes.get_i32(), bytes.get_i32(), bytes.get_u32());
    match dimensions {
        0 => return Ok(Json::Array(Vec::new())),
        1 if bytes.len() >= 8 => {}
        _ => return Err(wrong()),
    }
    let count = usize::try_from(bytes.get_i32()).map_err(|_| wrong())?;
    bytes.advance(4);
    if bytes.len() < count.saturating_mul(4) || kind_of(oid).as_ref() != Some(item) {
        return Err(wrong());
    }
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        if bytes.len() < 4 {
            return Err(wrong());
        }
        let length = bytes.get_i32();
        if length == -1 {
            items.push(Json::Null);
            continue;
        }
        let length = usize::try_from(length).map_err(|_| wrong())?;
        if bytes.len() < length {
            return Err(wrong());
        }
        items.push(from_binary(bytes.split_to(length), oid, item)?);
    }
    Ok(Json::Array(items))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::types::{BYTEA, DATE, INT4, NUMERIC, TEXT, TIMESTAMPTZ};
    use super::*;

    fn text(value: &str, oid: u32) -> Answered<Json> {
        decode(&Bytes::copy_from_slice(value.as_bytes()), oid, false)
    }

    fn binary(value: &[u8], oid: u32) -> Answered<Json> {
        decode(&Bytes::copy_from_slice(value), oid, true)
    }

    #[test]
    fn texts_are_read_as_postgres_does() {
        assert_eq!(text("17", INT4), Ok(json!(17)));
        assert_eq!(text("17", 0), Ok(json!("17")));
        assert_eq!(text("on", 16), Ok(json!(true)));
        assert_eq!(text("-Infinity", 701), Ok(json!("-Infinity")));
        assert_eq!(text("\\x01ff", BYTEA), Ok(json!("Af8=")));
        assert_eq!(text("a\\\\b\\001", BYTEA), Ok(json!(BASE64.encode(b"a\\b\x01"))));
        assert_eq!(
            text(r#"{a,"b \"c\"", NULL ,"NULL"}"#, 1009),
            Ok(json!(["a", "b \"c\"", null, "NULL"]))
        );
        assert_eq!(text("{}", 1007), Ok(json!([])));
        assert_eq!(text("{1,2}", 1007), Ok(json!([1, 2])));
        for (value, oid) in
            [("x", INT4), ("{1", 1007), ("{1,}", 1007), ("{\"a}", 1009), ("{a b", 114)]
        {
            assert_eq!(text(value, oid).unwrap_err().sqlstate, "22P02", "{value}");
        }
        assert_eq!(binary(&[0xff], TEXT).unwrap_err().sqlstate, "22021");
    }

    #[test]
    fn bytes_are_read_by_their_type() {
        assert_eq!(binary(&[0, 0, 0, 5], INT4), Ok(json!(5)));
        assert_eq!(binary(&[0, 0, 0, 0], DATE), Ok(json!("2000-01-01")));
        assert_eq!(binary(&[0; 8], TIMESTAMPTZ), Ok(json!("2000-01-01T00:00:00Z")));
        assert_eq!(binary(b"\x01{\"a\":1}", JSONB), Ok(json!({"a": 1})));
        let number = [0, 3, 0, 1, 0x40, 0, 0, 1, 0, 1, 0x09, 0x29, 0x17, 0x70];
        assert_eq!(binary(&number, NUMERIC), Ok(json!("-000123456000e-4")));
        let list = [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 23, 0, 0, 0, 2, 0, 0, 0, 1];
        let items = [0, 0, 0, 4, 0, 0, 0, 7, 255, 255, 255, 255];
        assert_eq!(binary(&[list.as_slice(), &items].concat(), 1007), Ok(json!([7, null])));
    }

    #[test]
    fn bytes_that_lie_are_refused() {
        let count = [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 23, 0x7f, 255, 255, 255, 0, 0, 0, 1];
        for (value, oid) in [
            (&count[..], 1007),
            (&[0, 0, 0][..], INT4),
            (&[0x7f, 0xff, 0, 0, 0, 0, 0, 0][..], NUMERIC),
            (&[0xff, 0xff, 0, 0, 0, 0, 0, 0][..], NUMERIC),
            (&[][..], JSONB),
            (&[1, 2][..], super::super::types::UUID),
        ] {
            assert_eq!(binary(value, oid).unwrap_err().sqlstate, "22P03", "{value:?}");
        }
    }

    /// The first four bytes say the type, the next whether the value is binary.
    fn framed(oid: u32, binary: bool, value: &[u8]) -> Vec<u8> {
        [&oid.to_be_bytes()[..], &[u8::from(binary)], value].concat()
    }

    fn binary_parameters() -> Vec<Vec<u8>> {
        let numeric = [0, 3, 0, 1, 0x40, 0, 0, 1, 0, 1, 0x09, 0x29, 0x17, 0x70];
        let array = [
            &[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 20, 0, 0, 0, 2, 0, 0, 0, 1][..],
            &[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff][..],
        ];
        let range = [&[2_u8, 0, 0, 0, 8][..], &[0; 8], &[0, 0, 0, 8], &[0, 0, 0, 0, 1, 0, 0, 0]];
        vec![
            framed(16, true, &[1]),
            framed(20, true, &5_i64.to_be_bytes()),
            framed(23, true, &5_i32.to_be_bytes()),
            framed(21, true, &5_i16.to_be_bytes()),
            framed(701, true, &1.5_f64.to_be_bytes()),
            framed(700, true, &1.5_f32.to_be_bytes()),
            framed(1700, true, &numeric),
            framed(1184, true, &1_i64.to_be_bytes()),
            framed(1082, true, &i32::MAX.to_be_bytes()),
            framed(1083, true, &1_i64.to_be_bytes()),
            framed(2950, true, &[7; 16]),
            framed(3802, true, b"\x01{\"a\": 1}"),
            framed(1016, true, &array.concat()),
            framed(3910, true, &range.concat()),
            framed(25, true, b"text"),
        ]
    }

    fn text_parameters() -> Vec<Vec<u8>> {
        vec![
            framed(16, false, b"yes"),
            framed(17, false, b"\\x0aff"),
            framed(17, false, b"a\\001\\\\"),
            framed(701, false, b"-Infinity"),
            framed(114, false, b"{\"a\": [1]}"),
            framed(1009, false, b"{a,\"b c\",NULL,\"q\\\"\"}"),
            framed(1016, false, b"{{1,2},{3,4}}"),
            framed(1231, false, b"{1.5,-2}"),
            framed(3910, false, b"[\"2026-01-05 00:00:00+00\",)"),
            framed(0, false, b"x"),
        ]
    }

    #[test]
    fn fuzzed_parameters_are_read_or_refused() {
        let corpus = binary_parameters().into_iter().chain(text_parameters());
        everwhen_fuzz::Fuzz::bytes("parameters", corpus).run(|bytes| {
            let Some((oid, rest)) = bytes.split_first_chunk::<4>() else { return false };
            let Some((binary, value)) = rest.split_first() else { return false };
            let (oid, value) = (u32::from_be_bytes(*oid), Bytes::copy_from_slice(value));
            let Ok(json) = decode(&value, oid, *binary != 0) else { return false };
            let kind = kind_of(oid).unwrap_or(ColumnType::Text);
            // Whoever takes it next must not panic either.
            everwhen_query::columns::json::json_to_value(&json, &kind).is_ok()
        });
    }
}
