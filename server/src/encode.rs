//! Rows in the forms that clients ask for: JSON, NDJSON, CSV, an Arrow stream, Parquet.
//!
//! The JSON forms of values come from `everwhen_query::columns`, the one place that has them.

mod columnar;

use std::io::Write as _;
use std::sync::Arc;

use arrow::array::{Array as _, RecordBatch};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use columnar::Columnar;
use everwhen_query::columns::{field_type, json_of, type_name};
use everwhen_storage::ColumnType;
use serde_json::{Map, Value, json};

use crate::failure::{Answered, Failure};
use crate::service::write::Written;

/// A form of an answer's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Ndjson,
    Csv,
    Arrow,
    Parquet,
}

/// How int64 values stand in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Integers {
    /// As numbers, with all digits.
    Numbers,
    /// As text, for readers whose numbers are floats.
    Text,
}

impl Format {
    /// Every form, the preferred first.
    pub const ALL: [Self; 5] = [Self::Json, Self::Ndjson, Self::Csv, Self::Arrow, Self::Parquet];

    /// Returns the media type of the answer.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }
}

/// What stands after the rows, where a form has room for it.
pub struct Tail<'a> {
    pub basis: &'a str,
    /// The token of the page that follows.
    pub next: Option<&'a str>,
    pub stats: &'a Value,
}

/// Turns batches into bytes of one form.
pub struct Encoder {
    format: Format,
    integers: Integers,
    columns: Vec<(String, ColumnType)>,
    /// `[{"name", "type"}]`.
    header: Value,
    columnar: Option<Columnar>,
    first: bool,
}

impl Encoder {
    /// Builds an encoder for rows of these columns.
    ///
    /// # Errors
    /// `internal_error` where a binary form cannot have the columns.
    pub fn new(
        format: Format,
        integers: Integers,
        columns: Vec<(String, ColumnType)>,
        schema: &SchemaRef,
    ) -> Answered<Self> {
        let columnar = match format {
            Format::Arrow => Some(Columnar::arrow(schema)?),
            Format::Parquet => Some(Columnar::parquet(Arc::clone(schema))?),
            _ => None,
        };
        Ok(Self { format, integers, columns, header: columns_json(schema), columnar, first: true })
    }

    /// Writes what stands before the rows.
    ///
    /// # Errors
    /// `internal_error` where that fails.
    pub fn begin(&mut self, out: &mut Vec<u8>) -> Answered<()> {
        match self.format {
            Format::Json => {
                write!(out, "{{\"columns\":{},\"rows\":[", self.header).map_err(internal)
            }
            Format::Csv => {
                let names = self.columns.iter().map(|(name, _)| Some(name.clone()));
                csv_line(names, out);
                Ok(())
            }
            Format::Ndjson => Ok(()),
            Format::Arrow | Format::Parquet => {
                self.columnar.as_mut().map_or(Ok(()), |columnar| columnar.drain(out))
            }
        }
    }

    /// Writes a batch's rows.
    ///
    /// # Errors
    /// `internal_error` where that fails.
    pub fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Answered<()> {
        if let Some(columnar) = &mut self.columnar {
            return columnar.batch(batch, out);
        }
        for row in 0..batch.num_rows() {
            match self.format {
                Format::Json => {
                    out.extend_from_slice(if self.first { b"\n" } else { b",\n" });
                    self.json_row(batch, row, out)?;
                }
                Format::Ndjson => self.ndjson_row(batch, row, out)?,
                Format::Csv | Format::Arrow | Format::Parquet => self.csv_row(batch, row, out),
            }
            self.first = false;
        }
        Ok(())
    }

    /// Writes what stands after the rows.
    ///
    /// # Errors
    /// `internal_error` where that fails.
    pub fn end(&mut self, tail: &Tail<'_>, out: &mut Vec<u8>) -> Answered<()> {
        if let Some(columnar) = &mut self.columnar {
            return columnar.end(out);
        }
        if self.format == Format::Json {
            let basis = Value::from(tail.basis);
            write!(out, "],\"basis\":{basis}").map_err(internal)?;
            if let Some(next) = tail.next {
                write!(out, ",\"next\":{}", Value::from(next)).map_err(internal)?;
            }
            write!(out, ",\"stats\":{}}}", tail.stats).map_err(internal)?;
        }
        Ok(())
    }

    /// Writes a failure after the first rows; false where the form has no place for it.
    pub fn failure(&self, failure: &Failure, out: &mut Vec<u8>) -> bool {
        if self.format != Format::Ndjson {
            return false;
        }
        let line = json!({"error": failure.problem()});
        writeln!(out, "{line}").is_ok()
    }

    fn json_row(&self, batch: &RecordBatch, row: usize, out: &mut Vec<u8>) -> Answered<()> {
        out.push(b'[');
        for (place, ((_, kind), array)) in self.columns.iter().zip(batch.columns()).enumerate() {
            if place > 0 {
                out.push(b',');
            }
            let value = with_integers(json_of(array, row, kind), kind, self.integers);
            serde_json::to_writer(&mut *out, &value).map_err(internal)?;
        }
        out.push(b']');
        Ok(())
    }

    fn ndjson_row(&self, batch: &RecordBatch, row: usize, out: &mut Vec<u8>) -> Answered<()> {
        out.push(b'{');
        for (place, ((name, kind), array)) in self.columns.iter().zip(batch.columns()).enumerate() {
            if place > 0 {
                out.push(b',');
            }
            serde_json::to_writer(&mut *out, name).map_err(internal)?;
            out.push(b':');
            let value = with_integers(json_of(array, row, kind), kind, self.integers);
            serde_json::to_writer(&mut *out, &value).map_err(internal)?;
        }
        out.extend_from_slice(b"}\n");
        Ok(())
    }

    fn csv_row(&self, batch: &RecordBatch, row: usize, out: &mut Vec<u8>) {
        let cells = self.columns.iter().zip(batch.columns()).map(|((_, kind), array)| {
            if array.is_null(row) {
                return None;
            }
            Some(match (kind, json_of(array, row, kind)) {
                (ColumnType::Json, value) => value.to_string(),
                (_, Value::String(text)) => text,
                (_, value) => value.to_string(),
            })
        });
        csv_line(cells, out);
    }
}

fn internal(error: impl std::fmt::Display) -> Failure {
    Failure::internal(&error)
}

/// Writes a line of CSV (RFC 4180, with plain line ends). NULL is nothing at all, an empty text is `""`.
fn csv_line(cells: impl Iterator<Item = Option<String>>, out: &mut Vec<u8>) {
    for (place, cell) in cells.enumerate() {
        if place > 0 {
            out.push(b',');
        }
        let Some(cell) = cell else { continue };
        let plain = |c: char| !matches!(c, ',' | '"' | '\n' | '\r');
        if !cell.is_empty() && cell.chars().all(plain) {
            out.extend_from_slice(cell.as_bytes());
        } else {
            out.push(b'"');
            out.extend_from_slice(cell.replace('"', "\"\"").as_bytes());
            out.push(b'"');
        }
    }
    out.push(b'\n');
}

/// Returns `[{"name", "type"}]`.
fn columns_json(schema: &Schema) -> Value {
    let column = |field: &FieldRef| json!({"name": field.name(), "type": type_name(field)});
    schema.fields().iter().map(column).collect()
}

/// Puts int64 values in the form asked for, within lists and structs too.
fn with_integers(value: Value, kind: &ColumnType, integers: Integers) -> Value {
    if integers == Integers::Numbers {
        return value;
    }
    match (kind, value) {
        (ColumnType::Int64, Value::Number(number)) => Value::String(number.to_string()),
        (ColumnType::List(item), Value::Array(values)) => {
            values.into_iter().map(|value| with_integers(value, item, integers)).collect()
        }
        (ColumnType::Struct(kinds), Value::Object(fields)) => {
            let typed = |name: &String, value| match kinds.iter().find(|(field, _)| field == name) {
                Some((_, kind)) => with_integers(value, kind, integers),
                None => value,
            };
            let fields = fields.into_iter().map(|(name, value)| {
                let value = typed(&name, value);
                (name, value)
            });
            Value::Object(fields.collect::<Map<_, _>>())
        }
        (_, value) => value,
    }
}

/// Returns the answer to a write: its place, and the rows of a `RETURNING`.
///
/// # Errors
/// `internal_error` where a returned column has no type of ours.
pub fn written_json(written: &Written, integers: Integers) -> Answered<Value> {
    let mut answer = json!({
        "tx": written.tx.get(),
        "system_time": written.system_time.to_string(),
        "basis": written.basis,
    });
    if !written.warnings.is_empty() {
        answer["warnings"] = written.warnings.clone().into();
    }
    if let (Some(batches), Some(answer)) = (&written.returning, answer.as_object_mut()) {
        let mut header = json!([]);
        let mut rows = Vec::new();
        for batch in batches {
            header = columns_json(batch.schema_ref());
            let columns = columns_of(batch.schema_ref())?;
            for row in 0..batch.num_rows() {
                let cells = columns.iter().zip(batch.columns()).map(|((_, kind), array)| {
                    with_integers(json_of(array, row, kind), kind, integers)
                });
                rows.push(cells.collect::<Value>());
            }
        }
        answer.insert("columns".to_owned(), header);
        answer.insert("rows".to_owned(), rows.into());
    }
    Ok(answer)
}

fn columns_of(schema: &Schema) -> Answered<Vec<(String, ColumnType)>> {
    let typed = |field: &FieldRef| {
        let kind = field_type(field)
            .ok_or_else(|| internal(format!("no column type for {}", field.data_type())))?;
        Ok((field.name().clone(), kind))
    };
    schema.fields().iter().map(typed).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::code::Code;
    use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};

    fn sample() -> (Vec<(String, ColumnType)>, RecordBatch) {
        let columns = vec![
            ("n".to_owned(), ColumnType::Int64),
            ("t".to_owned(), ColumnType::Text),
            ("b".to_owned(), ColumnType::Bool),
            ("f".to_owned(), ColumnType::Float64),
        ];
        let arrays: Vec<(&str, ArrayRef)> = vec![
            ("n", Arc::new(Int64Array::from(vec![Some(9_007_199_254_740_993), None]))),
            ("t", Arc::new(StringArray::from(vec![Some("a,\"b\""), Some("")]))),
            ("b", Arc::new(BooleanArray::from(vec![Some(true), None]))),
            ("f", Arc::new(Float64Array::from(vec![Some(1.5), Some(f64::NAN)]))),
        ];
        (columns, RecordBatch::try_from_iter(arrays).unwrap())
    }

    fn tail(stats: &Value) -> Tail<'_> {
        Tail { basis: "token", next: None, stats }
    }

    fn encoded(format: Format, integers: Integers) -> String {
        let (columns, batch) = sample();
        let mut encoder = Encoder::new(format, integers, columns, &batch.schema()).unwrap();
        let mut out = Vec::new();
        encoder.begin(&mut out).unwrap();
        encoder.batch(&batch, &mut out).unwrap();
        encoder.end(&tail(&json!({"rows": 2})), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_has_columns_rows_basis_and_stats() {
        let document: Value =
            serde_json::from_str(&encoded(Format::Json, Integers::Numbers)).unwrap();
        assert_eq!(document["columns"][0], json!({"name": "n", "type": "int64"}));
        assert_eq!(document["rows"][0], json!([9_007_199_254_740_993_i64, "a,\"b\"", true, 1.5]));
        assert_eq!(document["rows"][1], json!([null, "", null, "NaN"]));
        assert_eq!(document["basis"], "token");
        assert_eq!(document["stats"]["rows"], 2);
    }

    #[test]
    fn integers_are_text_where_asked() {
        let document: Value = serde_json::from_str(&encoded(Format::Json, Integers::Text)).unwrap();
        assert_eq!(document["rows"][0][0], "9007199254740993");
        let list = ColumnType::List(Box::new(ColumnType::Int64));
        assert_eq!(with_integers(json!([1, null]), &list, Integers::Text), json!(["1", null]));
    }

    #[test]
    fn ndjson_is_one_object_a_row_and_ends_with_an_error() {
        let text = encoded(Format::Ndjson, Integers::Numbers);
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["t"], "a,\"b\"");
        let (columns, batch) = sample();
        let encoder =
            Encoder::new(Format::Ndjson, Integers::Numbers, columns, &batch.schema()).unwrap();
        let mut out = Vec::new();
        assert!(encoder.failure(&Failure::new(Code::Cancelled, "late"), &mut out));
        let line: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(line["error"]["sqlstate"], "57014");
    }

    #[test]
    fn csv_quotes_and_tells_null_from_empty() {
        let text = encoded(Format::Csv, Integers::Numbers);
        let expected = "n,t,b,f\n9007199254740993,\"a,\"\"b\"\"\",true,1.5\n,\"\",,NaN\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn arrow_stream_reads_back() {
        let (columns, batch) = sample();
        let mut encoder =
            Encoder::new(Format::Arrow, Integers::Numbers, columns, &batch.schema()).unwrap();
        let mut out = Vec::new();
        encoder.begin(&mut out).unwrap();
        encoder.batch(&batch, &mut out).unwrap();
        encoder.end(&tail(&Value::Null), &mut out).unwrap();
        let reader = arrow::ipc::reader::StreamReader::try_new(out.as_slice(), None).unwrap();
        let rows: usize = reader.map(|batch| batch.unwrap().num_rows()).sum();
        assert_eq!(rows, 2);
    }

    #[test]
    fn parquet_comes_in_row_groups_and_reads_back() {
        let (columns, batch) = sample();
        let mut encoder =
            Encoder::new(Format::Parquet, Integers::Numbers, columns, &batch.schema()).unwrap();
        let mut out = Vec::new();
        encoder.begin(&mut out).unwrap();
        let mut held = 0;
        for _ in 0..100_000 {
            let before = out.len();
            encoder.batch(&batch, &mut out).unwrap();
            held += usize::from(out.len() > before);
        }
        encoder.end(&tail(&Value::Null), &mut out).unwrap();
        assert!(held > 0, "nothing left before the end");
        let file = bytes::Bytes::from(out);
        let reader =
            parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        assert_eq!(reader.schema(), &batch.schema());
        assert!(reader.metadata().num_row_groups() > 1);
        let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 200_000);
        assert_eq!(batches[0].slice(0, 2), batch);
    }
}
