//! JSON records to typed columns.
//!
//! Each value is parsed once, straight into the columns' builders; no tree is built. A record is
//! held in scratch cells until all of it has been parsed, so a bad one leaves nothing behind.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBuilder, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use base64::Engine as _;
use everwhen_query::records::record_field;
use everwhen_storage::ColumnType;
use serde::de::{DeserializeSeed, Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::batch::{Record, Records};
use crate::dead_letter::Rejection;
use crate::decode::cells::{Cell, CellColumn};
use crate::decode::text;
use crate::stream::{META_COLUMNS, Meta, PAYLOAD, StreamColumn, StreamDef, sent_column};

/// Decodes a stream's records to the columns that its mappings read.
#[derive(Debug)]
pub struct JsonDecoder {
    fields: Fields,
    /// Which of the declared columns are built.
    built: Vec<bool>,
    /// The columns about the record that are built.
    meta: Vec<Meta>,
    /// Declared columns whose presence bit is built.
    tracked: Vec<usize>,
    topic: Option<String>,
    value_bytes_max: usize,
    schema: SchemaRef,
}

#[derive(Debug)]
enum Fields {
    Declared(Vec<StreamColumn>),
    Payload { built: bool },
}

/// A decoded batch.
#[derive(Debug)]
pub struct Decoded {
    pub batch: RecordBatch,
    /// The record of each row, ascending.
    pub rows: Vec<usize>,
    /// Records that could not be decoded, ascending.
    pub rejected: Vec<(usize, Rejection)>,
}

impl JsonDecoder {
    /// Prepares to build the columns named in `wanted`, of the stream's full schema.
    pub fn new(stream: &StreamDef, wanted: &BTreeSet<String>, value_bytes_max: usize) -> Self {
        let mut schema = Vec::new();
        let (mut built, mut tracked) = (Vec::new(), Vec::new());
        let fields = match &stream.columns {
            Some(columns) => {
                for column in columns {
                    built.push(wanted.contains(&column.name));
                    if wanted.contains(&column.name) {
                        schema.push(record_field(&column.name, &column.kind));
                    }
                }
                Fields::Declared(columns.clone())
            }
            None => {
                let built = wanted.contains(PAYLOAD);
                if built {
                    schema.push(record_field(PAYLOAD, &ColumnType::Json));
                }
                Fields::Payload { built }
            }
        };
        let mut meta = Vec::new();
        for (name, column, kind) in META_COLUMNS {
            if wanted.contains(name) {
                meta.push(column);
                schema.push(record_field(name, &kind));
            }
        }
        for (at, column) in stream.columns.iter().flatten().enumerate() {
            let name = sent_column(&column.name);
            if wanted.contains(&name) {
                tracked.push(at);
                schema.push(Field::new(name, arrow::datatypes::DataType::Boolean, false));
            }
        }
        let topic = stream.kafka.as_ref().map(|kafka| kafka.topic.clone());
        let schema = Arc::new(Schema::new(schema));
        Self { fields, built, meta, tracked, topic, value_bytes_max, schema }
    }

    /// Returns the schema of decoded batches.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Decodes a batch. Every record becomes a row or a rejection.
    ///
    /// # Errors
    /// Only where the columns do not fit together, which is a mistake of ours.
    pub fn decode(&self, records: &Records) -> Result<Decoded, arrow::error::ArrowError> {
        let mut builders = Builders::new(self, records.len());
        let mut rows = Vec::with_capacity(records.len());
        let mut rejected = Vec::new();
        let mut cells = Vec::new();
        for (index, record) in records.iter().enumerate() {
            cells.clear();
            match self.parse(&record, &mut cells) {
                Ok(()) => {
                    builders.append(self, &record, &cells);
                    rows.push(index);
                }
                Err(reason) => rejected.push((index, reason)),
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let batch = RecordBatch::try_new_with_options(
            Arc::clone(&self.schema),
            builders.finish(),
            &options,
        )?;
        Ok(Decoded { batch, rows, rejected })
    }

    fn parse<'a>(&self, record: &Record<'a>, cells: &mut Vec<Cell<'a>>) -> Result<(), Rejection> {
        if record.truncated {
            return Err(Rejection::oversize(record.size, self.value_bytes_max));
        }
        if self.meta.contains(&Meta::Key)
            && record.key.is_some_and(|key| std::str::from_utf8(key).is_err())
        {
            return Err(Rejection::new("the record's key is not UTF-8 text"));
        }
        match (&self.fields, record.value) {
            (Fields::Declared(columns), Some(value)) => {
                cells.resize(columns.len(), Cell::Absent);
                parse_object(value, columns, cells)
                    .map_err(|error| Rejection::new(format!("value: {error}")))?;
                not_null(columns, cells)
            }
            // A tombstone says nothing of its fields; `_value IS NULL` tells it apart.
            (Fields::Declared(columns), None) => {
                cells.resize(columns.len(), Cell::Absent);
                Ok(())
            }
            (Fields::Payload { .. }, Some(value)) => {
                let document: &RawValue = serde_json::from_slice(value)
                    .map_err(|error| Rejection::new(format!("value: {error}")))?;
                cells.push(Cell::Text(Cow::Borrowed(document.get())));
                Ok(())
            }
            (Fields::Payload { .. }, None) => {
                cells.push(Cell::Null);
                Ok(())
            }
        }
    }
}

fn not_null(columns: &[StreamColumn], cells: &[Cell<'_>]) -> Result<(), Rejection> {
    let missing = columns
        .iter()
        .zip(cells)
        .find(|(column, cell)| column.not_null && matches!(cell, Cell::Absent | Cell::Null));
    match missing {
        Some((column, _)) => {
            Err(Rejection::new(format!("field \"{}\" is NULL but declared NOT NULL", column.name)))
        }
        None => Ok(()),
    }
}

/// The columns of one batch under construction.
struct Builders {
    cells: Vec<Option<CellColumn>>,
    meta: Vec<(Meta, CellColumn)>,
    sent: Vec<BooleanBuilder>,
}

impl Builders {
    fn new(decoder: &JsonDecoder, capacity: usize) -> Self {
        let cells = match &decoder.fields {
            Fields::Declared(columns) => columns
                .iter()
                .zip(&decoder.built)
                .map(|(column, built)| built.then(|| CellColumn::new(&column.kind, capacity)))
                .collect(),
            Fields::Payload { built } => {
                vec![built.then(|| CellColumn::new(&ColumnType::Json, capacity))]
            }
        };
        let meta = decoder.meta.iter();
        Self {
            cells,
            meta: meta.map(|meta| (*meta, CellColumn::new(&meta.kind(), capacity))).collect(),
            sent: decoder.tracked.iter().map(|_| BooleanBuilder::with_capacity(capacity)).collect(),
        }
    }

    fn append(&mut self, decoder: &JsonDecoder, record: &Record<'_>, cells: &[Cell<'_>]) {
        for (column, cell) in self.cells.iter_mut().zip(cells) {
            if let Some(column) = column {
                column.append(cell);
            }
        }
        for (bits, at) in self.sent.iter_mut().zip(&decoder.tracked) {
            bits.append_value(cells[*at] != Cell::Absent);
        }
        for (meta, column) in &mut self.meta {
            column.append(&meta_cell(*meta, record, decoder.topic.as_deref()));
        }
    }

    fn finish(self) -> Vec<ArrayRef> {
        let cells = self.cells.into_iter().flatten().map(CellColumn::finish);
        let meta = self.meta.into_iter().map(|(_, column)| column.finish());
        let sent = self.sent.into_iter().map(|mut bits| Arc::new(bits.finish()) as ArrayRef);
        cells.chain(meta).chain(sent).collect()
    }
}

fn meta_cell<'a>(meta: Meta, record: &Record<'a>, topic: Option<&'a str>) -> Cell<'a> {
    let text = |bytes: Option<&'a [u8]>| {
        bytes.map_or(Cell::Null, |bytes| Cell::Text(String::from_utf8_lossy(bytes)))
    };
    match meta {
        Meta::Key => text(record.key),
        Meta::Value => text(record.value),
        Meta::Headers => text(record.headers),
        Meta::Timestamp => record.timestamp.map_or(Cell::Null, Cell::Timestamp),
        Meta::Topic => match (record.place, topic) {
            (Some(_), Some(topic)) => Cell::Text(Cow::Borrowed(topic)),
            _ => Cell::Null,
        },
        Meta::Partition => {
            record.place.map_or(Cell::Null, |(partition, _)| Cell::Int(i64::from(partition)))
        }
        Meta::Offset => record.place.map_or(Cell::Null, |(_, offset)| Cell::Int(offset)),
    }
}

fn parse_object<'a>(
    value: &'a [u8],
    columns: &[StreamColumn],
    cells: &mut [Cell<'a>],
) -> Result<(), serde_json::Error> {
    let mut parser = serde_json::Deserializer::from_slice(value);
    parser.deserialize_map(ObjectVisitor { columns, cells })?;
    parser.end()
}

struct ObjectVisitor<'c, 'a> {
    columns: &'c [StreamColumn],
    cells: &'c mut [Cell<'a>],
}

impl<'a> Visitor<'a> for ObjectVisitor<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        // Producers send fields in one order, so the next field is tried first.
        let mut next = 0;
        while let Some(found) = map.next_key_seed(FieldSeed { columns: self.columns, next })? {
            let Some(at) = found else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            self.cells[at] = map.next_value_seed(CellSeed { column: &self.columns[at] })?;
            next = at + 1;
        }
        Ok(())
    }
}

/// Finds the declared column of a field name.
struct FieldSeed<'c> {
    columns: &'c [StreamColumn],
    next: usize,
}

impl<'a> DeserializeSeed<'a> for FieldSeed<'_> {
    type Value = Option<usize>;

    fn deserialize<D: serde::Deserializer<'a>>(self, parser: D) -> Result<Self::Value, D::Error> {
        parser.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldSeed<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        if self.columns.get(self.next).is_some_and(|column| column.name == name) {
            return Ok(Some(self.next));
        }
        Ok(self.columns.iter().position(|column| column.name == name))
    }
}

/// Parses the value of one declared column.
struct CellSeed<'c> {
    column: &'c StreamColumn,
}

impl CellSeed<'_> {
    fn error<E: serde::de::Error>(&self, why: impl fmt::Display) -> E {
        E::custom(format_args!("field \"{}\": {why}", self.column.name))
    }

    fn wrong<E: serde::de::Error>(&self, got: &str) -> E {
        self.error(format_args!("expected {}, got {got}", self.column.kind))
    }

    fn raw<'a, E: serde::de::Error>(&self, text: &'a str) -> Result<Cell<'a>, E> {
        if text == "null" {
            return Ok(Cell::Null);
        }
        if self.column.kind != ColumnType::Decimal {
            return Ok(Cell::Text(Cow::Borrowed(text)));
        }
        let unquoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        text::decimal(unquoted.unwrap_or(text)).map(Cell::Decimal).map_err(|why| self.error(why))
    }
}

impl<'a> DeserializeSeed<'a> for CellSeed<'_> {
    type Value = Cell<'a>;

    fn deserialize<D: serde::Deserializer<'a>>(self, parser: D) -> Result<Cell<'a>, D::Error> {
        match self.column.kind {
            ColumnType::Json
            | ColumnType::Decimal
            | ColumnType::List(_)
            | ColumnType::Struct(_) => {
                let raw = <&RawValue as serde::Deserialize>::deserialize(parser)?;
                self.raw(raw.get())
            }
            _ => parser.deserialize_any(self),
        }
    }
}

impl<'a> Visitor<'a> for CellSeed<'_> {
    type Value = Cell<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in field \"{}\"", self.column.kind, self.column.name)
    }

    fn visit_unit<E>(self) -> Result<Cell<'a>, E> {
        Ok(Cell::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Cell<'a>, E> {
        match self.column.kind {
            ColumnType::Bool => Ok(Cell::Bool(value)),
            _ => Err(self.wrong("a boolean")),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Cell<'a>, E> {
        match self.column.kind {
            ColumnType::Int64 => Ok(Cell::Int(value)),
            ColumnType::Float64 => Ok(Cell::Float(value as f64)),
            _ => Err(self.wrong("a number")),
        }
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Cell<'a>, E> {
        match (&self.column.kind, i64::try_from(value)) {
            (ColumnType::Int64, Err(_)) => Err(self.error(format_args!("{value} is too large"))),
            (ColumnType::Float64, Err(_)) => Ok(Cell::Float(value as f64)),
            (_, Ok(value)) => self.visit_i64(value),
            _ => Err(self.wrong("a number")),
        }
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Cell<'a>, E> {
        match self.column.kind {
            ColumnType::Float64 => Ok(Cell::Float(value)),
            ColumnType::Int64 => Err(self.wrong("a number with a fraction")),
            _ => Err(self.wrong("a number")),
        }
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, value: &'a str) -> Result<Cell<'a>, E> {
        match self.column.kind {
            ColumnType::Text => Ok(Cell::Text(Cow::Borrowed(value))),
            _ => self.visit_str(value),
        }
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Cell<'a>, E> {
        let parsed = match self.column.kind {
            ColumnType::Text => Ok(Cell::Text(Cow::Owned(value.to_owned()))),
            ColumnType::Uuid => text::uuid(value).map(|text| Cell::Text(Cow::Owned(text))),
            ColumnType::Timestamp => text::instant(value).map(Cell::Timestamp),
            ColumnType::Date => text::date(value).map(Cell::Date),
            ColumnType::Time => text::time(value).map(Cell::Time),
            ColumnType::Bytes => base64::engine::general_purpose::STANDARD
                .decode(value)
                .map(Cell::Bytes)
                .map_err(|error| error.to_string()),
            ColumnType::Float64 => match value {
                "NaN" => Ok(Cell::Float(f64::NAN)),
                "Infinity" => Ok(Cell::Float(f64::INFINITY)),
                "-Infinity" => Ok(Cell::Float(f64::NEG_INFINITY)),
                _ => return Err(self.wrong("text")),
            },
            _ => return Err(self.wrong("text")),
        };
        parsed.map_err(|why| self.error(why))
    }

    fn visit_seq<S: serde::de::SeqAccess<'a>>(self, _: S) -> Result<Cell<'a>, S::Error> {
        Err(self.wrong("an array"))
    }

    fn visit_map<M: MapAccess<'a>>(self, _: M) -> Result<Cell<'a>, M::Error> {
        Err(self.wrong("an object"))
    }
}

#[cfg(test)]
mod tests;
