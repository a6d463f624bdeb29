//! What the tests of this crate share: definitions made by planning statements, and records.

use std::collections::BTreeMap;
use std::sync::Arc;

use everwhen_query::statements::{
    CreateMapping, CreateStream, DeclaredColumn, Format, KafkaSource, MappingVerb,
};
use everwhen_storage::{
    Batch, ColumnType, DefinitionChange, Definitions, ManualClock, Options, Store, Tenant, TxId,
};

use crate::apply::TenantRule;
use crate::batch::{Record, Records};
use crate::error::Result;
use crate::mapping::plan_mapping;
use crate::plan::{Prepared, StreamPlan};
use crate::stream::plan_stream;

/// Midnight of 2026-01-10, where test clocks stand.
pub const NOW: i64 = 1_768_003_200_000_000;

pub fn column(name: &str, kind: ColumnType) -> DeclaredColumn {
    DeclaredColumn { name: name.to_owned(), kind, not_null: false, position: 1 }
}

pub fn stream(name: &str, columns: Option<Vec<DeclaredColumn>>) -> CreateStream {
    CreateStream {
        name: name.to_owned(),
        or_replace: false,
        if_not_exists: false,
        kafka: None,
        format: Format::Json,
        columns,
        options: BTreeMap::new(),
        sql: String::new(),
    }
}

pub fn from_topic(mut stream: CreateStream, brokers: &str, topic: &str) -> CreateStream {
    stream.kafka = Some(KafkaSource {
        brokers: brokers.to_owned(),
        topic: topic.to_owned(),
        options: BTreeMap::new(),
    });
    stream
}

pub fn mapping(
    name: &str,
    stream: &str,
    verb: MappingVerb,
    table: &str,
    select: &str,
) -> CreateMapping {
    CreateMapping {
        name: name.to_owned(),
        or_replace: false,
        if_not_exists: false,
        stream: stream.to_owned(),
        verb,
        table: table.to_owned(),
        select: select.to_owned(),
        select_position: 7,
        options: BTreeMap::new(),
        sql: String::new(),
    }
}

/// Columns of the streams that most tests use: id, n, at, until.
pub fn orders() -> CreateStream {
    let columns = vec![
        column("id", ColumnType::Text),
        column("n", ColumnType::Int64),
        column("at", ColumnType::Timestamp),
        column("until", ColumnType::Timestamp),
    ];
    stream("orders", Some(columns))
}

#[derive(Default)]
pub struct Defined(pub Definitions);

impl Defined {
    pub fn apply(&mut self, changes: &[DefinitionChange]) {
        self.0 = self.0.with(changes, TxId::new(1));
    }

    pub fn stream(&mut self, statement: &CreateStream) -> Result<()> {
        let changes = plan_stream(&self.0, statement)?;
        self.apply(&changes);
        Ok(())
    }

    pub fn mapping(&mut self, statement: &CreateMapping) -> Result<()> {
        let changes = plan_mapping(&self.0, statement)?;
        self.apply(&changes);
        Ok(())
    }

    pub fn prepare(&self, stream: &str, values: &[&str]) -> Prepared {
        let plan = StreamPlan::compile(&self.0, stream, 1 << 20).expect("a stream that compiles");
        let tenant = Tenant::default();
        let rule = TenantRule { tenant: &tenant, bound: false };
        plan.prepare(&records(values), rule).expect("prepares")
    }
}

/// A stream `orders` with one mapping.
pub fn defined(verb: MappingVerb, select: &str) -> Defined {
    let mut defined = Defined::default();
    defined.stream(&orders()).expect("a stream");
    defined.mapping(&mapping("ordered", "orders", verb, "orders", select)).expect("a mapping");
    defined
}

pub fn record(value: &str) -> Record<'_> {
    Record {
        key: None,
        value: Some(value.as_bytes()),
        headers: None,
        timestamp: Some(NOW),
        place: None,
        size: value.len(),
        truncated: false,
    }
}

pub fn records(values: &[&str]) -> Records {
    let mut records = Records::default();
    for value in values {
        records.push(&record(value), 1 << 20);
    }
    records
}

pub struct TestStore {
    pub store: Store,
    _dir: tempfile::TempDir,
}

pub fn store() -> TestStore {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(Options {
        path: dir.path().join("data"),
        clock: Arc::new(ManualClock::at(NOW)),
        sync: false,
        block_cache_bytes: 1 << 20,
    })
    .expect("a store");
    TestStore { store, _dir: dir }
}

impl TestStore {
    pub async fn define(&self, changes: Result<Vec<DefinitionChange>>) {
        let definitions = changes.expect("a definition that is planned");
        let batch = Batch { definitions, ..Batch::default() };
        self.store.write(batch).await.expect("a definition that is stored");
    }

    pub async fn stream(&self, statement: &CreateStream) {
        self.define(plan_stream(&self.store.definitions(), statement)).await;
    }

    pub async fn mapping(&self, statement: &CreateMapping) {
        self.define(plan_mapping(&self.store.definitions(), statement)).await;
    }
}
