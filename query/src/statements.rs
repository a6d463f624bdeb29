//! Definition statements as parsed: what they ask for, free of requests and of the store.

use std::collections::BTreeMap;

use everwhen_storage::{ColumnType, DefinitionKind, Precedence, ValidTime};

/// A statement that defines or drops something the server's other parts own.
#[derive(Debug, Clone, PartialEq)]
pub enum DefinitionStatement {
    CreateStream(CreateStream),
    CreateMapping(CreateMapping),
    CreateProjection(CreateProjection),
    Drop(DropDefinition),
    ExplainProjection(ExplainProjection),
    AlterTable(AlterTable),
    AlterProjection(AlterProjection),
    AlterStream(AlterStream),
    CreateIndex(CreateIndex),
    DropIndex(DropIndex),
}

/// A declared column of a table or a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct DeclaredColumn {
    pub name: String,
    pub kind: ColumnType,
    pub not_null: bool,
    /// 1-based character of the name in the statement's text.
    pub position: usize,
}

/// `CREATE TABLE [IF NOT EXISTS] name (..) [WITH (precedence = .., history_retention = ..)]`.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateTable {
    pub name: String,
    pub if_not_exists: bool,
    /// Without a declared key the first is `_id`, text unless declared otherwise.
    pub columns: Vec<DeclaredColumn>,
    /// Names of the key's columns, in key order; never empty; all are NOT NULL.
    pub key: Vec<String>,
    pub precedence: Precedence,
    /// For how many microseconds superseded belief is kept; `None` for ever.
    pub retention: Option<i64>,
    pub position: usize,
}

/// `ALTER TABLE name SET (history_retention = ..)`.
#[derive(Debug, Clone, PartialEq)]
pub struct SetRetention {
    pub name: String,
    /// For how many microseconds superseded belief is kept; `None` for ever.
    pub micros: Option<i64>,
    pub position: usize,
}

/// `DROP TABLE [IF EXISTS] name`.
#[derive(Debug, Clone, PartialEq)]
pub struct DropTable {
    pub name: String,
    pub if_exists: bool,
    pub position: usize,
}

/// `CREATE [OR REPLACE] [TEMPORARY] VIEW [IF NOT EXISTS] name [(columns)] AS SELECT ..`.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateView {
    pub name: String,
    /// It is the session's alone.
    pub temporary: bool,
    pub or_replace: bool,
    pub if_not_exists: bool,
    /// Names of the columns, where they are given.
    pub columns: Vec<String>,
    /// The query's text.
    pub query: String,
    /// 1-based character of the query in the statement's text.
    pub query_position: usize,
    pub position: usize,
}

/// `DROP VIEW [IF EXISTS] name`.
#[derive(Debug, Clone, PartialEq)]
pub struct DropView {
    pub name: String,
    pub if_exists: bool,
    pub position: usize,
}

/// `CREATE [OR REPLACE] INDEX [IF NOT EXISTS] name ON table (columns)`.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateIndex {
    pub name: String,
    pub position: usize,
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub table: String,
    pub table_position: usize,
    pub columns: Vec<NamedColumn>,
}

/// `DROP INDEX [IF EXISTS] name`.
#[derive(Debug, Clone, PartialEq)]
pub struct DropIndex {
    pub name: String,
    pub if_exists: bool,
    pub position: usize,
}

/// `ALTER TABLE [IF EXISTS] name change`.
#[derive(Debug, Clone, PartialEq)]
pub struct AlterTable {
    pub name: String,
    pub if_exists: bool,
    pub position: usize,
    pub change: ColumnChange,
}

/// What an ALTER TABLE does to one column.
#[derive(Debug, Clone, PartialEq)]
pub enum ColumnChange {
    /// `ADD [COLUMN] [IF NOT EXISTS] name type [NOT NULL]`.
    Add { column: DeclaredColumn, if_not_exists: bool },
    /// `DROP [COLUMN] [IF EXISTS] name`.
    Drop { column: NamedColumn, if_exists: bool },
    /// `RENAME [COLUMN] name TO name`.
    Rename { column: NamedColumn, to: NamedColumn },
    /// `ALTER [COLUMN] name [SET DATA] TYPE type`.
    Type { column: NamedColumn, kind: ColumnType },
    /// `ALTER [COLUMN] name SET NOT NULL`.
    SetNotNull { column: NamedColumn },
    /// `ALTER [COLUMN] name DROP NOT NULL`.
    DropNotNull { column: NamedColumn },
}

/// A column named by a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedColumn {
    pub name: String,
    /// 1-based character in the statement's text.
    pub position: usize,
}

/// How a stream's records are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    Json,
}

/// Where a stream's records come from: `FROM KAFKA (brokers = .., topic = .., ..)`.
#[derive(Debug, Clone, PartialEq)]
pub struct KafkaSource {
    pub brokers: String,
    pub topic: String,
    /// The other options, for the client library, under its own names.
    pub options: BTreeMap<String, String>,
}

/// `CREATE [OR REPLACE] STREAM [IF NOT EXISTS] name [FROM KAFKA (..)] [FORMAT f [(columns)]]
/// [WITH (..)]`.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateStream {
    pub name: String,
    pub or_replace: bool,
    pub if_not_exists: bool,
    /// `None`: records come from `POST /v1/events` alone.
    pub kafka: Option<KafkaSource>,
    pub format: Format,
    /// `None`: the document is the JSON column `payload`.
    pub columns: Option<Vec<DeclaredColumn>>,
    pub options: BTreeMap<String, String>,
    /// The statement's own text.
    pub sql: String,
}

/// `ALTER STREAM [IF EXISTS] name change`.
#[derive(Debug, Clone, PartialEq)]
pub struct AlterStream {
    pub name: String,
    pub if_exists: bool,
    pub position: usize,
    pub change: StreamChange,
}

/// Where and whether a stream reads its topic from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamChange {
    /// `RESET TO place [PARTITION p]`: begin anew there, in every partition or in one.
    Reset { to: ResetTo, partition: Option<NamedPartition> },
    /// `SKIP`: go on at the beginning of logs that were truncated past the stream's place.
    Skip,
    /// `RESUME`: try again as it is.
    Resume,
    /// `PAUSE`: read nothing until `RESUME`.
    Pause,
}

/// A place in a topic's partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetTo {
    /// `BEGINNING`: the first record that is there.
    Beginning,
    /// `END`: what comes from now on.
    End,
    /// `OFFSET n`, never negative.
    Offset(i64),
    /// `TIMESTAMP '..'`: the first record of this time or a later one.
    Timestamp(ValidTime),
}

/// A partition named by a statement, never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedPartition {
    pub partition: i32,
    /// 1-based character in the statement's text.
    pub position: usize,
}

/// What a mapping's rows assert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MappingVerb {
    /// `PUT INTO t`.
    Put,
    /// `PATCH INTO t [SET NULLS]`.
    Patch { set_nulls: bool },
    /// `DELETE FROM t`.
    Delete,
    /// `RETRACT FROM t`.
    Retract,
}

/// `CREATE [OR REPLACE] MAPPING name ON stream AS verb table [WITH (..)] SELECT .. [WHERE ..]`.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateMapping {
    pub name: String,
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub stream: String,
    pub verb: MappingVerb,
    pub table: String,
    /// The text from SELECT to the end: a select list and perhaps a WHERE, no FROM.
    pub select: String,
    /// 1-based character of that SELECT in the statement's text.
    pub select_position: usize,
    pub options: BTreeMap<String, String>,
    pub sql: String,
}

/// `CREATE [OR REPLACE] PROJECTION name KEY (cols) [INTO sink[.table]] [WITH (..)] AS SELECT ..`.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateProjection {
    pub name: String,
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub key: Vec<String>,
    pub sink: Option<String>,
    pub sink_table: Option<String>,
    pub options: BTreeMap<String, String>,
    /// The query's text.
    pub query: String,
    /// 1-based character of the query in the statement's text.
    pub query_position: usize,
    pub sql: String,
}

/// `ALTER PROJECTION [IF EXISTS] name PAUSE|RESUME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlterProjection {
    pub name: String,
    pub if_exists: bool,
    /// Compute nothing more, rather than go on.
    pub pause: bool,
    pub position: usize,
}

/// `DROP STREAM|MAPPING|PROJECTION [IF EXISTS] name`.
#[derive(Debug, Clone, PartialEq)]
pub struct DropDefinition {
    pub kind: DefinitionKind,
    pub name: String,
    pub if_exists: bool,
    pub position: usize,
}

/// `EXPLAIN PROJECTION name`, `EXPLAIN PROJECTION KEY (cols) AS SELECT ..`, or
/// `EXPLAIN CREATE PROJECTION ..`.
#[derive(Debug, Clone, PartialEq)]
pub enum ExplainProjection {
    Named { name: String, position: usize },
    Query { key: Vec<String>, query: String, query_position: usize },
    Create(Box<CreateProjection>),
}
