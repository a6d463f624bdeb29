//! A stream's definition: where its records come from, how they are decoded, what they offer.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use everwhen_query::records::record_field;
use everwhen_query::statements::{CreateStream, DropDefinition, Format};
use everwhen_query::{Error as QueryError, SqlState};
use everwhen_storage::{
    ColumnType, Definition, DefinitionChange, DefinitionKind, Definitions, TxId,
};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::mapping::{CompiledMapping, MappingDef};
use crate::reading::Reading;

/// The column of a whole document, in a stream without declared columns.
pub const PAYLOAD: &str = "payload";

/// What a stream may hold in one record unless its definition says otherwise.
pub const RECORD_BYTES_MAX_DEFAULT: usize = 1 << 20;

/// A column about the record rather than of its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meta {
    Key,
    Value,
    Headers,
    Timestamp,
    Topic,
    Partition,
    Offset,
}

impl Meta {
    /// Returns the column's type.
    pub const fn kind(self) -> ColumnType {
        match self {
            Self::Key | Self::Value | Self::Topic => ColumnType::Text,
            Self::Headers => ColumnType::Json,
            Self::Timestamp => ColumnType::Timestamp,
            Self::Partition | Self::Offset => ColumnType::Int64,
        }
    }
}

/// The columns that every record offers besides its document's.
pub const META_COLUMNS: [(&str, Meta, ColumnType); 7] = [
    ("_key", Meta::Key, Meta::Key.kind()),
    ("_value", Meta::Value, Meta::Value.kind()),
    ("_headers", Meta::Headers, Meta::Headers.kind()),
    ("_timestamp", Meta::Timestamp, Meta::Timestamp.kind()),
    ("_topic", Meta::Topic, Meta::Topic.kind()),
    ("_partition", Meta::Partition, Meta::Partition.kind()),
    ("_offset", Meta::Offset, Meta::Offset.kind()),
];

/// Returns the name of the column that says whether a declared field was sent.
pub fn sent_column(column: &str) -> String {
    format!("__sent_{column}")
}

/// A declared column of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamColumn {
    pub name: String,
    pub kind: ColumnType,
    #[serde(default)]
    pub not_null: bool,
}

/// A Kafka topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaTopic {
    pub brokers: String,
    pub topic: String,
    /// Settings of the client library.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// A stream as stored: the body of its [`Definition`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamDef {
    /// `None`: records are posted alone.
    pub kafka: Option<KafkaTopic>,
    /// `None`: the document is the JSON column `payload`.
    pub columns: Option<Vec<StreamColumn>>,
    #[serde(default)]
    pub record_bytes_max: Option<usize>,
    #[serde(default, skip_serializing_if = "Reading::is_as_of_old")]
    pub reading: Reading,
    pub sql: String,
}

impl StreamDef {
    /// Reads a stored definition.
    ///
    /// # Errors
    /// Where it was written by another version of the program.
    pub fn read(definition: &Definition) -> Result<Self> {
        serde_json::from_value(definition.body.clone()).map_err(|error| {
            let message = format!("stream \"{}\" cannot be read: {error}", definition.name);
            QueryError::new(SqlState::ObjectNotInState, message).into()
        })
    }

    /// Returns everything a mapping may read: the document's columns, those about the record, and
    /// a presence bit for each declared column.
    pub fn schema(&self) -> SchemaRef {
        let mut fields = match &self.columns {
            Some(columns) => {
                columns.iter().map(|column| record_field(&column.name, &column.kind)).collect()
            }
            None => vec![record_field(PAYLOAD, &ColumnType::Json)],
        };
        fields.extend(META_COLUMNS.iter().map(|(name, _, kind)| record_field(name, kind)));
        fields.extend(
            self.columns
                .iter()
                .flatten()
                .map(|column| Field::new(sent_column(&column.name), DataType::Boolean, false)),
        );
        Arc::new(Schema::new(fields))
    }

    /// Returns the presence bit's column of a declared column.
    pub fn sent_of(&self, column: &str) -> Option<String> {
        let declared = self.columns.iter().flatten().any(|declared| declared.name == column);
        declared.then(|| sent_column(column))
    }
}

/// Plans `CREATE STREAM`.
///
/// # Errors
/// 42710 where it exists, 42701, 42P16 and 0A000 for wrong columns, 22023 for wrong options, and
/// what a mapping on a replaced stream answers where it no longer fits.
pub fn plan_stream(
    definitions: &Definitions,
    statement: &CreateStream,
) -> Result<Vec<DefinitionChange>> {
    let existing = definitions.get(DefinitionKind::Stream, &statement.name);
    if existing.is_some() && !statement.or_replace {
        if statement.if_not_exists {
            return Ok(Vec::new());
        }
        let message = format!("stream \"{}\" exists already", statement.name);
        return Err(QueryError::new(SqlState::DuplicateObject, message).into());
    }
    let Format::Json = statement.format;
    let kafka = kafka_topic(statement)?;
    let reading = match existing.map(|before| StreamDef::read(before)).transpose()? {
        Some(before) => {
            let topic =
                |kafka: &Option<KafkaTopic>| kafka.as_ref().map(|kafka| kafka.topic.clone());
            before.reading.replaced(definitions, topic(&before.kafka) == topic(&kafka))
        }
        None => Reading::anew(definitions),
    };
    let stream = StreamDef {
        kafka,
        reading,
        columns: columns(statement)?,
        record_bytes_max: record_bytes_max(&statement.options)?,
        sql: statement.sql.clone(),
    };
    if existing.is_some() {
        for mapping in MappingDef::all_of(definitions, &statement.name)? {
            CompiledMapping::compile(definitions, &mapping.0, &mapping.1, &stream)?;
        }
    }
    let body = serde_json::to_value(&stream)
        .map_err(|error| QueryError::internal(format!("stream to JSON: {error}")))?;
    Ok(vec![DefinitionChange::Put(Definition {
        kind: DefinitionKind::Stream,
        name: statement.name.clone(),
        body,
        tx: TxId::ZERO,
    })])
}

/// Plans `DROP STREAM` and `DROP MAPPING`.
///
/// # Errors
/// 42704 where it does not exist, 2BP01 for a stream with mappings.
pub fn plan_drop(
    definitions: &Definitions,
    statement: &DropDefinition,
) -> Result<Vec<DefinitionChange>> {
    let (kind, name) = (statement.kind, &statement.name);
    let word = kind.word();
    if definitions.get(kind, name).is_none() {
        if statement.if_exists {
            return Ok(Vec::new());
        }
        let unknown = match kind {
            DefinitionKind::Stream => unknown_stream(definitions, name),
            _ => {
                let message = format!("{word} \"{name}\" does not exist");
                QueryError::new(SqlState::UndefinedObject, message)
            }
        };
        return Err(unknown.at(statement.position).into());
    }
    if kind == DefinitionKind::Stream {
        let mappings = MappingDef::all_of(definitions, name)?;
        if let Some((mapping, _)) = mappings.first() {
            let message = format!("mapping \"{mapping}\" reads stream \"{name}\"");
            return Err(QueryError::new(SqlState::DependentObjects, message)
                .at(statement.position)
                .with_hint("drop the stream's mappings first")
                .into());
        }
    }
    Ok(vec![DefinitionChange::Drop(kind, name.clone())])
}

/// Returns the error of naming a stream that is not there.
pub(crate) fn unknown_stream(definitions: &Definitions, name: &str) -> QueryError {
    let message = format!("stream \"{name}\" does not exist");
    let hint = match definitions.all(DefinitionKind::Stream).next() {
        Some(_) => "SHOW STREAMS lists the streams",
        None => "CREATE STREAM makes one; there are none yet",
    };
    QueryError::new(SqlState::UndefinedObject, message).with_hint(hint)
}

fn columns(statement: &CreateStream) -> Result<Option<Vec<StreamColumn>>> {
    let Some(declared) = &statement.columns else { return Ok(None) };
    let mut columns = Vec::<StreamColumn>::new();
    for column in declared {
        let refuse = |state, message: String| -> Error {
            QueryError::new(state, message).at(column.position).into()
        };
        if columns.iter().any(|other| other.name == column.name) {
            let message = format!("column \"{}\" is declared twice", column.name);
            return Err(refuse(SqlState::DuplicateColumn, message));
        }
        let meta = META_COLUMNS.iter().any(|(name, ..)| *name == column.name);
        if meta || column.name.starts_with("__") {
            let message = format!("column name \"{}\" is taken", column.name);
            return Err(refuse(SqlState::InvalidTableDefinition, message));
        }
        if matches!(column.kind, ColumnType::List(_) | ColumnType::Struct(_)) {
            let message = format!("column \"{}\" of type {}", column.name, column.kind);
            return Err(QueryError::unsupported(message)
                .at(column.position)
                .with_hint("declare it JSON")
                .into());
        }
        columns.push(StreamColumn {
            name: column.name.clone(),
            kind: column.kind.clone(),
            not_null: column.not_null,
        });
    }
    Ok(Some(columns))
}

fn record_bytes_max(options: &BTreeMap<String, String>) -> Result<Option<usize>> {
    let mut found = None;
    for (name, value) in options {
        let invalid = |message: String| QueryError::new(SqlState::InvalidParameter, message);
        if name != "record_bytes_max" {
            let message = format!("a stream has no option \"{name}\"");
            return Err(invalid(message).with_hint("there is record_bytes_max").into());
        }
        let bytes = value.parse().ok().filter(|bytes| (1..=RECEIVABLE_BYTES_MAX).contains(bytes));
        found = Some(bytes.ok_or_else(|| {
            invalid(format!("record_bytes_max must be from 1 to {RECEIVABLE_BYTES_MAX}"))
        })?);
    }
    Ok(found)
}

/// The largest record that the client is set up to receive at all.
pub const RECEIVABLE_BYTES_MAX: usize = 256 << 20;

fn kafka_topic(statement: &CreateStream) -> Result<Option<KafkaTopic>> {
    let Some(kafka) = &statement.kafka else { return Ok(None) };
    let invalid = |message: String| QueryError::new(SqlState::InvalidParameter, message);
    if kafka.brokers.trim().is_empty() || kafka.topic.trim().is_empty() {
        return Err(invalid("a Kafka stream needs brokers and a topic".to_owned()).into());
    }
    for name in kafka.options.keys() {
        if !is_allowed(name) {
            return Err(invalid(format!("Kafka option \"{name}\" cannot be set here"))
                .with_hint(
                    "settings that name files or commands, and those that exactly-once reading \
                     rests on, are not open to SQL; certificates go in as ssl.*.pem",
                )
                .into());
        }
    }
    Ok(Some(KafkaTopic {
        brokers: kafka.brokers.clone(),
        topic: kafka.topic.clone(),
        options: kafka.options.clone(),
    }))
}

/// Client settings that SQL may set: none that reads a file, runs a command or moves offsets.
fn is_allowed(option: &str) -> bool {
    const ALLOWED: [&str; 25] = [
        "broker.address.family",
        "check.crcs",
        "client.dns.lookup",
        "client.id",
        "client.rack",
        "enable.ssl.certificate.verification",
        "fetch.error.backoff.ms",
        "fetch.max.bytes",
        "fetch.message.max.bytes",
        "fetch.min.bytes",
        "fetch.queue.backoff.ms",
        "fetch.wait.max.ms",
        "group.id",
        "isolation.level",
        "max.partition.fetch.bytes",
        "queued.max.messages.kbytes",
        "queued.min.messages",
        "sasl.mechanism",
        "sasl.mechanisms",
        "sasl.password",
        "sasl.username",
        "security.protocol",
        "ssl.endpoint.identification.algorithm",
        "ssl.key.password",
        "topic.metadata.refresh.interval.ms",
    ];
    const PREFIXES: [&str; 3] = ["socket.", "reconnect.", "retry."];
    ALLOWED.contains(&option)
        || PREFIXES.iter().any(|prefix| option.starts_with(prefix))
        || (option.starts_with("ssl.") && option.ends_with(".pem"))
}

#[cfg(test)]
mod tests;
