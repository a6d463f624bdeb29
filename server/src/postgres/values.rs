//! Values of an answer in Postgres' text and binary forms.

use arrow::array::{Array, ArrayRef, AsArray as _};
use arrow::datatypes::{DataType, Decimal128Type, Field};
use bytes::{BufMut as _, BytesMut};
use everwhen_query::columns::json::named;
use everwhen_query::columns::text::{
    date_text, decimal_text, decimal_text_exact, float_text, stored_decimal_scale, time_text,
};
use everwhen_query::columns::{cast_column, value_at};
use everwhen_storage::{ColumnType, ValidTime, Value};

use super::types::{JSON, TSTZRANGE, item_of, oid_of_field};
use crate::failure::{Answered, Failure};

/// Microseconds from the Unix epoch to Postgres', the first of January 2000.
pub const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// Days between the same.
pub const EPOCH_DAYS: i32 = 10_957;

/// A column of an answer.
#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    pub kind: ColumnType,
    pub oid: u32,
    pub binary: bool,
    data_type: DataType,
}

impl Column {
    /// Builds a column that is sent as text.
    pub fn new(field: &Field, kind: &ColumnType) -> Self {
        Self {
            name: field.name().clone(),
            kind: kind.clone(),
            oid: oid_of_field(field, kind),
            binary: false,
            data_type: field.data_type().clone(),
        }
    }

    /// Returns an array of an answer in the form that was promised for the column.
    ///
    /// # Errors
    /// Where a value does not fit it.
    pub fn promised(&self, array: &ArrayRef) -> Answered<ArrayRef> {
        if *array.data_type() == self.data_type {
            return Ok(ArrayRef::clone(array));
        }
        Ok(cast_column(array, &self.kind)?)
    }

    /// Writes one value with its length before it.
    ///
    /// # Errors
    /// `internal_error` for an array of another type.
    pub fn write(&self, array: &dyn Array, row: usize, out: &mut BytesMut) -> Answered<()> {
        if array.is_null(row) {
            out.put_i32(-1);
            return Ok(());
        }
        counted(out, |out| match self.binary {
            true => self.binary(array, row, out),
            false => self.text(array, row, out),
        })
    }

    /// Writes one value as text; it is not NULL.
    ///
    /// # Errors
    /// `internal_error` for an array of another type.
    pub fn text(&self, array: &dyn Array, row: usize, out: &mut BytesMut) -> Answered<()> {
        if let (ColumnType::Text | ColumnType::Uuid | ColumnType::Json, Some(texts)) =
            (&self.kind, array.as_string_opt::<i32>())
        {
            out.put_slice(texts.value(row).as_bytes());
            return Ok(());
        }
        if let Some(text) = self.decimal(array, row) {
            out.put_slice(text.as_bytes());
            return Ok(());
        }
        let value = value_at(array, row, &self.kind)?;
        if self.oid == TSTZRANGE {
            out.put_slice(range_text(&value).as_bytes());
        } else {
            out.put_slice(text_of(&value, &self.kind).as_bytes());
        }
        Ok(())
    }

    fn binary(&self, array: &dyn Array, row: usize, out: &mut BytesMut) -> Answered<()> {
        if let Some(text) = self.decimal(array, row) {
            return numeric(&text, out);
        }
        if self.oid == JSON {
            return self.text(array, row, out);
        }
        let value = value_at(array, row, &self.kind)?;
        if self.oid == TSTZRANGE {
            return range_binary(&value, out);
        }
        binary_of(&value, &self.kind, out)
    }

    /// Returns the digits of a decimal: computed ones have a scale of their own.
    fn decimal(&self, array: &dyn Array, row: usize) -> Option<String> {
        let (ColumnType::Decimal, DataType::Decimal128(precision, scale)) =
            (&self.kind, array.data_type())
        else {
            return None;
        };
        let units = array.as_primitive_opt::<Decimal128Type>()?.value(row);
        let scale = usize::try_from(*scale).ok()?;
        Some(match *precision == 38 && scale == stored_decimal_scale() {
            true => decimal_text(units, scale),
            false => decimal_text_exact(units, scale),
        })
    }
}

/// Writes something with its length before it.
fn counted(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut) -> Answered<()>) -> Answered<()> {
    let at = out.len();
    out.put_i32(0);
    write(out)?;
    let length = i32::try_from(out.len() - at - 4).map_err(|e| Failure::internal(&e))?;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// Returns a value's text as Postgres shows it in ISO style, in UTC.
pub fn text_of(value: &Value, kind: &ColumnType) -> String {
    match (value, kind) {
        (Value::Bool(value), _) => if *value { "t" } else { "f" }.to_owned(),
        (Value::Int(value), _) => value.to_string(),
        (Value::Float(value), _) => {
            let text = float_text(*value);
            text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
        }
        (Value::Decimal(units), _) => decimal_text(*units, stored_decimal_scale()),
        (Value::Text(text) | Value::Json(text), _) => text.clone(),
        (Value::Uuid(uuid), _) => uuid.to_string(),
        (Value::Bytes(bytes), _) => {
            bytes.iter().fold(String::from("\\x"), |text, byte| text + &format!("{byte:02x}"))
        }
        (Value::Date(days), _) => date_text(*days),
        (Value::Time(micros), _) => time_text(*micros),
        (Value::Timestamp(micros), _) => instant_text(*micros),
        (Value::List(values), ColumnType::List(item)) if item_of(item).is_some() => {
            let items: Vec<_> = values.iter().map(|value| item_text(value, item)).collect();
            format!("{{{}}}", items.join(","))
        }
        (Value::List(_) | Value::Struct(_), _) => named(value, kind).to_string(),
        (Value::Null, _) => String::new(),
    }
}

/// Returns an item as it stands in the text of an array.
fn item_text(value: &Value, kind: &ColumnType) -> String {
    if value.is_null() {
        return "NULL".to_owned();
    }
    let text = text_of(value, kind);
    let plain = |c: char| !matches!(c, '{' | '}' | ',' | '"' | '\\') && !c.is_whitespace();
    if !text.is_empty() && text.chars().all(plain) && !text.eq_ignore_ascii_case("null") {
        return text;
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Returns an instant as `2026-01-05 10:30:00.25+00`.
pub fn instant_text(micros: i64) -> String {
    match micros {
        i64::MIN => return "-infinity".to_owned(),
        i64::MAX => return "infinity".to_owned(),
        _ => {}
    }
    let text = ValidTime::from_micros(micros).to_string();
    let (date, time) = text.split_once('T').unwrap_or((&text, "00:00:00Z"));
    let (date, era) = match date.strip_prefix('-') {
        // Year 0 is 1 BC.
        Some(date) => {
            let (year, rest) = date.split_once('-').unwrap_or((date, "01-01"));
            let year = year.parse::<u32>().unwrap_or(0) + 1;
            (format!("{year:04}-{rest}"), " BC")
        }
        None => (date.to_owned(), ""),
    };
    let time = time.trim_end_matches('Z');
    let time = match time.contains('.') {
        true => time.trim_end_matches('0'),
        false => time,
    };
    format!("{date} {time}+00{era}")
}

/// Returns the bounds of a period.
fn bounds(value: &Value) -> (Option<i64>, Option<i64>) {
    let bound = |value: Option<&Value>| match value {
        Some(Value::Timestamp(micros)) => Some(*micros),
        _ => None,
    };
    match value {
        Value::Struct(ends) => (bound(ends.first()), bound(ends.get(1))),
        _ => (None, None),
    }
}

fn range_text(value: &Value) -> String {
    let quoted = |end: i64| format!("\"{}\"", instant_text(end));
    match bounds(value) {
        (Some(from), to) => {
            format!("[{},{})", quoted(from), to.map(quoted).unwrap_or_default())
        }
        (None, to) => format!("(,{})", to.map(quoted).unwrap_or_default()),
    }
}

fn range_binary(value: &Value, out: &mut BytesMut) -> Answered<()> {
    const FROM_INCLUDED: u8 = 0x02;
    const FROM_OPEN: u8 = 0x08;
    const TO_OPEN: u8 = 0x10;
    let (from, to) = bounds(value);
    let first = if from.is_some() { FROM_INCLUDED } else { FROM_OPEN };
    out.put_u8(first | if to.is_some() { 0 } else { TO_OPEN });
    for micros in [from, to].into_iter().flatten() {
        out.put_i32(8);
        out.put_i64(since_2000(micros));
    }
    Ok(())
}

fn since_2000(micros: i64) -> i64 {
    match micros {
        i64::MIN | i64::MAX => micros,
        micros => micros.saturating_sub(EPOCH_MICROS),
    }
}

fn binary_of(value: &Value, kind: &ColumnType, out: &mut BytesMut) -> Answered<()> {
    match (value, kind) {
        (Value::Bool(value), _) => out.put_u8(u8::from(*value)),
        (Value::Int(value), _) => out.put_i64(*value),
        (Value::Float(value), _) => out.put_f64(*value),
        (Value::Decimal(units), _) => {
            numeric(&decimal_text(*units, stored_decimal_scale()), out)?;
        }
        (Value::Text(text) | Value::Json(text), _) => out.put_slice(text.as_bytes()),
        (Value::Uuid(uuid), _) => out.put_slice(uuid.as_bytes()),
        (Value::Bytes(bytes), _) => out.put_slice(bytes),
        (Value::Date(days), _) => out.put_i32(days.saturating_sub(EPOCH_DAYS)),
        (Value::Time(micros), _) => out.put_i64(*micros),
        (Value::Timestamp(micros), _) => out.put_i64(since_2000(*micros)),
        (Value::List(values), ColumnType::List(item)) => array_binary(values, item, out)?,
        (value, kind) => out.put_slice(named(value, kind).to_string().as_bytes()),
    }
    Ok(())
}

fn array_binary(values: &[Value], item: &ColumnType, out: &mut BytesMut) -> Answered<()> {
    let length = i32::try_from(values.len()).map_err(|e| Failure::internal(&e))?;
    out.put_i32(i32::from(!values.is_empty()));
    out.put_i32(i32::from(values.iter().any(Value::is_null)));
    out.put_u32(item_of(item).unwrap_or(JSON));
    if values.is_empty() {
        return Ok(());
    }
    out.put_i32(length);
    out.put_i32(1);
    for value in values {
        match value.is_null() {
            true => out.put_i32(-1),
            false => counted(out, |out| binary_of(value, item, out))?,
        }
    }
    Ok(())
}

/// Writes a number in groups of four digits: how many, the weight of the first, sign, digits
/// after the point, then the groups.
fn numeric(text: &str, out: &mut BytesMut) -> Answered<()> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.trim_start_matches('0');
    let padded = format!("{}{whole}", "0".repeat((4 - whole.len() % 4) % 4));
    let before = padded.len() / 4;
    let all = format!("{padded}{fraction}{}", "0".repeat((4 - fraction.len() % 4) % 4));
    let mut groups: Vec<u16> = Vec::with_capacity(all.len() / 4);
    for at in (0..all.len()).step_by(4) {
        let group = all.get(at..at + 4).and_then(|group| group.parse().ok());
        groups.push(group.ok_or_else(|| Failure::internal(&"a decimal that is no number"))?);
    }
    let leading = groups.iter().take_while(|group| **group == 0).count();
    groups.drain(..leading);
    while groups.last() == Some(&0) {
        groups.pop();
    }
    let small = |n: usize| i16::try_from(n).map_err(|e| Failure::internal(&e));
    let weight = if groups.is_empty() { 0 } else { small(before)? - small(leading)? - 1 };
    out.put_i16(small(groups.len())?);
    out.put_i16(weight);
    out.put_u16(if negative { 0x4000 } else { 0 });
    out.put_i16(small(fraction.len())?);
    for group in groups {
        out.put_u16(group);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use everwhen_query::columns::{ColumnBuilder, field_of, period_field, period_type};

    use super::*;

    fn column_of(value: &Value, kind: &ColumnType, field: &Field) -> (Column, ArrayRef) {
        let mut builder = ColumnBuilder::new(kind, 1);
        builder.append(value);
        (Column::new(field, kind), builder.finish())
    }

    fn text(value: &Value, kind: &ColumnType) -> String {
        let (column, array) = column_of(value, kind, &field_of("c", kind));
        let mut out = BytesMut::new();
        column.text(&array, 0, &mut out).unwrap();
        String::from_utf8(out.to_vec()).unwrap()
    }

    fn binary(value: &Value, kind: &ColumnType) -> Vec<u8> {
        let (mut column, array) = column_of(value, kind, &field_of("c", kind));
        column.binary = true;
        let mut out = BytesMut::new();
        column.write(&array, 0, &mut out).unwrap();
        out.to_vec()
    }

    #[test]
    fn texts_are_as_postgres_shows_them() {
        let list = ColumnType::List(Box::new(ColumnType::Text));
        let words = ["a", "b c", "", "null", "q\"\\"].map(|word| Value::Text(word.to_owned()));
        let words = Value::List([words.to_vec(), vec![Value::Null]].concat());
        for (value, kind, expected) in [
            (Value::Bool(true), ColumnType::Bool, "t"),
            (Value::Float(5.0), ColumnType::Float64, "5"),
            (Value::Float(-0.25), ColumnType::Float64, "-0.25"),
            (Value::Float(f64::NEG_INFINITY), ColumnType::Float64, "-Infinity"),
            (Value::Decimal(1_500_000_000), ColumnType::Decimal, "1.5"),
            (Value::Bytes(vec![1, 255]), ColumnType::Bytes, "\\x01ff"),
            (Value::Date(20_458), ColumnType::Date, "2026-01-05"),
            (Value::Time(37_800_250_000), ColumnType::Time, "10:30:00.250"),
            (Value::Timestamp(0), ColumnType::Timestamp, "1970-01-01 00:00:00+00"),
            (Value::Timestamp(250_000), ColumnType::Timestamp, "1970-01-01 00:00:00.25+00"),
            (Value::Timestamp(i64::MAX), ColumnType::Timestamp, "infinity"),
            (words, list, r#"{a,"b c","","null","q\"\\",NULL}"#),
        ] {
            assert_eq!(text(&value, &kind), expected);
        }
    }

    #[test]
    fn binary_forms_have_their_length_and_epoch() {
        assert_eq!(
            binary(&Value::Int(1), &ColumnType::Int64),
            [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1]
        );
        let epoch = Value::Timestamp(EPOCH_MICROS + 1);
        assert_eq!(binary(&epoch, &ColumnType::Timestamp), [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(binary(&Value::Date(EPOCH_DAYS), &ColumnType::Date), [0, 0, 0, 4, 0, 0, 0, 0]);
        assert_eq!(binary(&Value::Null, &ColumnType::Date), [255, 255, 255, 255]);
    }

    /// As `numeric_send` of Postgres 15 writes them.
    #[test]
    fn numerics_are_groups_of_four_digits() {
        let send = |units: i128| binary(&Value::Decimal(units), &ColumnType::Decimal)[4..].to_vec();
        assert_eq!(send(0), [0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(send(1_500_000_000), [0, 2, 0, 0, 0, 0, 0, 1, 0, 1, 0x13, 0x88]);
        // -12345.6: groups 1, 2345, 6000.
        let expected = [0, 3, 0, 1, 0x40, 0, 0, 1, 0, 1, 0x09, 0x29, 0x17, 0x70];
        assert_eq!(send(-12_345_600_000_000), expected);
        // 0.00001: one group, two places after the point.
        assert_eq!(send(10_000), [0, 1, 0xff, 0xfe, 0, 0, 0, 5, 0x03, 0xe8]);
        // 10000: one group with a weight.
        assert_eq!(send(10_000_000_000_000), [0, 1, 0, 1, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn periods_are_ranges_with_open_ends() {
        let period = Value::Struct(vec![Value::Timestamp(0), Value::Null]);
        let (mut column, array) = column_of(&period, &period_type(), &period_field("p"));
        let mut out = BytesMut::new();
        column.text(&array, 0, &mut out).unwrap();
        assert_eq!(out, "[\"1970-01-01 00:00:00+00\",)");
        column.binary = true;
        out.clear();
        column.write(&array, 0, &mut out).unwrap();
        assert_eq!(out[..9], [0, 0, 0, 13, 0x12, 0, 0, 0, 8]);
    }
}
