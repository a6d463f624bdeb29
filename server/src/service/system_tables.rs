//! System tables that show what the server's other parts know: streams, projections, and the
//! statements that run.

use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use everwhen_ingest::Ingest;
use everwhen_projector::compute::Projections;
use everwhen_query::columns::{ColumnBuilder, field_of};
use everwhen_query::{Error as QueryError, SystemTable};
use everwhen_storage::{ColumnType, Store, SystemTime, Tenant, Value};

use super::running::{Running, RunningStatement};

/// `everwhen.streams`: a line for each partition that a stream reads.
pub struct StreamsTable(pub Arc<Ingest>);

/// `everwhen.projections`: a line for each projection.
pub struct ProjectionsTable(pub Arc<Projections>);

/// `everwhen.projection_errors`: a line for each key whose row in the sink is held.
pub struct ProjectionErrorsTable(pub Arc<Projections>);

/// `everwhen.queries`: a line for each statement of the reader's tenant that runs, its own too.
pub struct QueriesTable {
    running: Running,
    store: Store,
}

const QUERIES: &[(&str, ColumnType)] = &[
    ("query_id", ColumnType::Text),
    ("started", ColumnType::Timestamp),
    ("elapsed_ms", ColumnType::Int64),
    ("sql", ColumnType::Text),
    ("rows", ColumnType::Int64),
];

const STREAMS: &[(&str, ColumnType)] = &[
    ("stream", ColumnType::Text),
    ("topic", ColumnType::Text),
    ("partition", ColumnType::Int64),
    ("next_offset", ColumnType::Int64),
    ("high_watermark", ColumnType::Int64),
    ("lag", ColumnType::Int64),
    ("state", ColumnType::Text),
    ("error", ColumnType::Text),
];

const PROJECTIONS: &[(&str, ColumnType)] = &[
    ("projection", ColumnType::Text),
    ("generation", ColumnType::Int64),
    ("state", ColumnType::Text),
    ("delivered_tx", ColumnType::Int64),
    ("delivered_now", ColumnType::Timestamp),
    ("latest_tx", ColumnType::Int64),
    ("pending_keys", ColumnType::Int64),
    ("error", ColumnType::Text),
    ("verified_through", ColumnType::Int64),
    ("held_keys", ColumnType::Int64),
    ("worker", ColumnType::Text),
    ("held_since", ColumnType::Timestamp),
    ("uncovered_tenants", ColumnType::Int64),
];

const PROJECTION_ERRORS: &[(&str, ColumnType)] = &[
    ("projection", ColumnType::Text),
    ("key", ColumnType::Json),
    ("reason", ColumnType::Text),
    ("tx", ColumnType::Int64),
    ("tenant", ColumnType::Text),
    ("since", ColumnType::Timestamp),
];

impl SystemTable for StreamsTable {
    fn name(&self) -> &str {
        "streams"
    }

    fn schema(&self) -> SchemaRef {
        static SCHEMA: OnceLock<SchemaRef> = OnceLock::new();
        Arc::clone(SCHEMA.get_or_init(|| schema_of(STREAMS)))
    }

    fn rows(&self, _tenant: &Tenant) -> Result<RecordBatch, QueryError> {
        let row = |s: everwhen_ingest::StreamStatus| {
            vec![
                Value::Text(s.stream),
                text(s.topic),
                int(s.partition.map(i64::from)),
                int(s.next_offset),
                int(s.high_watermark),
                int(s.lag),
                Value::Text(s.state.to_string()),
                text(s.error),
            ]
        };
        batch(self.schema(), STREAMS, self.0.status().into_iter().map(row))
    }
}

impl SystemTable for ProjectionsTable {
    fn name(&self) -> &str {
        "projections"
    }

    fn schema(&self) -> SchemaRef {
        static SCHEMA: OnceLock<SchemaRef> = OnceLock::new();
        Arc::clone(SCHEMA.get_or_init(|| schema_of(PROJECTIONS)))
    }

    fn rows(&self, _tenant: &Tenant) -> Result<RecordBatch, QueryError> {
        let row = |p: everwhen_projector::compute::ProjectionStatus| {
            vec![
                Value::Text(p.projection),
                count(p.generation),
                Value::Text(p.state),
                count(p.delivered_tx),
                p.delivered_now.map_or(Value::Null, |now| Value::Timestamp(now.micros())),
                count(p.latest_tx),
                count(p.pending_keys),
                text(p.error),
                p.verified_through.map_or(Value::Null, count),
                count(p.held_keys),
                text(p.worker),
                instant(p.held_since),
                count(p.uncovered_tenants),
            ]
        };
        batch(self.schema(), PROJECTIONS, self.0.status().into_iter().map(row))
    }
}

impl SystemTable for ProjectionErrorsTable {
    fn name(&self) -> &str {
        "projection_errors"
    }

    fn schema(&self) -> SchemaRef {
        static SCHEMA: OnceLock<SchemaRef> = OnceLock::new();
        Arc::clone(SCHEMA.get_or_init(|| schema_of(PROJECTION_ERRORS)))
    }

    fn rows(&self, tenant: &Tenant) -> Result<RecordBatch, QueryError> {
        let errors = self.0.errors().into_iter().filter(|held| held.tenant == *tenant);
        let row = |held: everwhen_projector::compute::ProjectionError| {
            vec![
                Value::Text(held.projection),
                Value::Json(held.key),
                Value::Text(held.reason),
                count(held.tx),
                Value::Text(held.tenant.to_string()),
                instant(held.since),
            ]
        };
        batch(self.schema(), PROJECTION_ERRORS, errors.map(row))
    }
}

impl QueriesTable {
    /// Shows what runs; the store tells the time.
    pub const fn new(running: Running, store: Store) -> Self {
        Self { running, store }
    }
}

impl SystemTable for QueriesTable {
    fn name(&self) -> &str {
        "queries"
    }

    fn schema(&self) -> SchemaRef {
        static SCHEMA: OnceLock<SchemaRef> = OnceLock::new();
        Arc::clone(SCHEMA.get_or_init(|| schema_of(QUERIES)))
    }

    fn rows(&self, tenant: &Tenant) -> Result<RecordBatch, QueryError> {
        let list = self.running.list(self.store.clock().monotonic(), tenant);
        let row = |one: RunningStatement| {
            vec![
                Value::Text(one.id),
                Value::Timestamp(one.started.micros()),
                Value::Int(i64::try_from(one.elapsed.as_millis()).unwrap_or(i64::MAX)),
                Value::Text(one.sql),
                count(one.rows),
            ]
        };
        batch(self.schema(), QUERIES, list.into_iter().map(row))
    }
}

fn text(value: Option<String>) -> Value {
    value.map_or(Value::Null, Value::Text)
}

fn int(value: Option<i64>) -> Value {
    value.map_or(Value::Null, Value::Int)
}

fn instant(value: Option<SystemTime>) -> Value {
    value.map_or(Value::Null, |at| Value::Timestamp(at.micros()))
}

fn count(value: u64) -> Value {
    Value::Int(i64::try_from(value).unwrap_or(i64::MAX))
}

fn schema_of(columns: &[(&str, ColumnType)]) -> SchemaRef {
    let field = |(name, kind): &(&str, ColumnType)| field_of(name, kind);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

fn batch(
    schema: SchemaRef,
    columns: &[(&str, ColumnType)],
    rows: impl Iterator<Item = Vec<Value>>,
) -> Result<RecordBatch, QueryError> {
    let mut builders: Vec<_> =
        columns.iter().map(|(_, kind)| ColumnBuilder::new(kind, 8)).collect();
    for row in rows {
        for (builder, value) in builders.iter_mut().zip(&row) {
            builder.append(value);
        }
    }
    let arrays = builders.into_iter().map(ColumnBuilder::finish).collect::<Vec<ArrayRef>>();
    Ok(RecordBatch::try_new(schema, arrays)?)
}
