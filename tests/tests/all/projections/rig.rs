//! A store with projections over it, and a sink in memory that checks what it is sent.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use everwhen_projector::compute::{Chunk, ProjectionOptions, Projections};
use everwhen_query::columns::{cast_column, json_of};
use everwhen_query::statements::CreateProjection;
use everwhen_query::{Engine, EngineOptions, Outcome, Request, RowsAnswer};
use everwhen_storage::{
    AssertedFrom, Assertion, Basis, Batch, Clock, ColumnDef, ColumnId, ColumnType,
    DefinitionChange, ManualClock, Op, Options, Precedence, Row, RowKey, Store, TableDef, TableId,
    Tenant, Tx, ValidTime, Value, Write, WriteKind,
};
use futures::StreamExt;
use serde_json::{Map, Value as Json};

/// A time in 2026, in microseconds.
pub const START: i64 = 1_767_600_000_000_000;

/// One hour in microseconds: the grain of the histories.
pub const HOUR: i64 = 3_600_000_000;

/// Rows of a sink by key, each a JSON object.
pub type Rows = BTreeMap<String, Json>;

/// What a sink holds of one projection.
#[derive(Debug, Default, Clone)]
pub struct Sink {
    pub rows: Rows,
    /// Rows by key with the generation that wrote them.
    pub generations: BTreeMap<String, u64>,
    pub generation: u64,
    pub last_change: u64,
    pub chunks: u64,
    pub changes: u64,
}

/// A projection as a test names it.
#[derive(Debug, Clone)]
pub struct Shape {
    pub name: &'static str,
    pub key: &'static [&'static str],
    pub query: &'static str,
}

/// A store, its clock, and projections into memory.
pub struct Rig {
    pub store: Store,
    pub clock: Arc<ManualClock>,
    pub projections: Arc<Projections>,
    pub sinks: BTreeMap<String, Sink>,
    options: ProjectionOptions,
    keys: BTreeMap<String, Vec<String>>,
    // Last, so that the store is closed before its directory goes.
    _folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

/// In memory where the machine has that: steps sync what they write.
fn folder() -> tempfile::TempDir {
    let shared = PathBuf::from("/dev/shm");
    let fast = shared.is_dir().then(|| tempfile::tempdir_in(shared).ok()).flatten();
    fast.unwrap_or_else(|| tempfile::tempdir().unwrap())
}

impl Rig {
    pub fn new(tables: &[TableDef], options: ProjectionOptions) -> Self {
        let folder = folder();
        let clock = Arc::new(ManualClock::at(START));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let _entered = runtime.enter();
        let store = Store::open(Options {
            path: folder.path().to_owned(),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            sync: false,
            block_cache_bytes: 64 << 20,
        })
        .unwrap();
        let definitions = tables.iter().cloned().map(DefinitionChange::Table).collect();
        commit(&store, Batch { definitions, ..Batch::default() });
        let projections = Projections::new(store.clone(), options.clone()).unwrap();
        drop(_entered);
        Self {
            store,
            clock,
            projections,
            sinks: BTreeMap::new(),
            options,
            keys: BTreeMap::new(),
            _folder: folder,
            runtime,
        }
    }

    /// Runs in the rig's runtime, as the server does.
    pub fn entered(&self) -> tokio::runtime::EnterGuard<'_> {
        self.runtime.enter()
    }

    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Declares a table anew.
    pub fn define(&self, table: &TableDef) {
        let definitions = vec![DefinitionChange::Table(table.clone())];
        commit(&self.store, Batch { definitions, ..Batch::default() });
    }

    pub async fn write_async(&self, writes: Vec<Write>) {
        let txs = vec![Tx { writes, position: None }];
        self.store.write(Batch { txs, ..Batch::default() }).await.unwrap();
    }

    pub fn create(&mut self, shape: &Shape) {
        self.create_with(shape, &[("tenants", "all")], false);
    }

    pub fn create_with(&mut self, shape: &Shape, options: &[(&str, &str)], or_replace: bool) {
        let statement = statement(shape, options, or_replace);
        let _entered = self.runtime.enter();
        let definitions = self
            .projections
            .plan_create(&statement)
            .unwrap_or_else(|error| panic!("{}: {error}", shape.name));
        commit(&self.store, Batch { definitions, ..Batch::default() });
        self.projections.refresh().unwrap();
        let several =
            |(name, of): &(&str, &str)| *name == "tenants" && (*of == "all" || of.contains(','));
        let several = options.iter().any(several);
        let mut key: Vec<String> = several.then(|| "_tenant".to_owned()).into_iter().collect();
        key.extend(shape.key.iter().map(|name| (*name).to_owned()));
        self.keys.insert(shape.name.to_owned(), key);
        if !or_replace {
            self.sinks.insert(shape.name.to_owned(), Sink::default());
        }
    }

    /// Asks for all rows again, as a sink does that has lost some.
    pub fn reload(&self, name: &str) {
        let _entered = self.runtime.enter();
        let leases = self.projections.lease("rig", &["memory".to_owned()]).unwrap();
        let lease = leases.iter().find(|lease| lease.projection == name).unwrap().lease;
        self.projections.fail(name, lease, "the table is gone", true).unwrap();
        self.projections.release("rig");
    }

    /// Opens the projections anew over the same store, as a restart does.
    pub fn restart(&mut self) {
        let _entered = self.runtime.enter();
        self.projections = Projections::new(self.store.clone(), self.options.clone()).unwrap();
    }

    /// Computes and delivers until the projection is at the latest basis.
    pub fn drain(&mut self, name: &str) {
        let _entered = self.runtime.enter();
        for _ in 0..100_000 {
            self.deliver(name);
            let moved = self.projections.advance(name).unwrap_or_else(|e| panic!("{name}: {e}"));
            if !moved && self.projections.outstanding(name).unwrap().is_none() {
                return;
            }
        }
        panic!("{name} does not come to rest");
    }

    /// Computes one step and applies its chunks without acknowledging the last of them.
    pub fn step_unacknowledged(&mut self, name: &str) {
        let _entered = self.runtime.enter();
        self.deliver(name);
        self.projections.advance(name).unwrap();
        if let Some(chunk) = self.projections.outstanding(name).unwrap() {
            let key = self.keys[name].clone();
            self.sinks.get_mut(name).unwrap().apply(&chunk, &key);
        }
    }

    /// Delivers the chunks that wait.
    pub fn deliver(&mut self, name: &str) {
        while let Some(chunk) = self.projections.outstanding(name).unwrap() {
            let key = self.keys[name].clone();
            self.sinks.get_mut(name).unwrap().apply(&chunk, &key);
            let count = u64::try_from(chunk.changes.len()).unwrap();
            self.projections.acknowledge(name, (chunk.first_change + count) - 1).unwrap();
        }
    }

    pub fn write(&self, writes: Vec<Write>) {
        commit(&self.store, Batch { txs: vec![Tx { writes, position: None }], ..Batch::default() });
    }

    /// Returns a tenant's rows in a sink by the query's own key, without the tenant.
    pub fn rows_of(&self, name: &str, tenant: &Tenant) -> Rows {
        let keys = &self.keys[name][1..];
        let mine = self.sinks[name].rows.values().filter(|row| row["_tenant"] == tenant.as_str());
        let rows = mine.map(|row| {
            let mut row = row.as_object().unwrap().clone();
            row.remove("_tenant");
            let key: Vec<Json> = keys.iter().map(|of| row[of].clone()).collect();
            (Json::Array(key).to_string(), Json::Object(row))
        });
        rows.collect()
    }

    /// Asks a query as a client does; each row is an object.
    pub fn ask(&self, sql: &str, tenant: &Tenant) -> Result<Vec<Json>, everwhen_query::Error> {
        let engine = Engine::new(self.store.clone(), EngineOptions::default());
        let request = Request { tenant: tenant.clone(), ..Request::new(sql) };
        self.block_on(async {
            let Outcome::Rows(answer) = engine.execute(request).await? else {
                panic!("{sql} is no query")
            };
            let RowsAnswer { columns, mut stream, .. } = answer;
            let mut rows = Vec::new();
            while let Some(batch) = stream.next().await {
                let batch = batch?;
                for row in 0..batch.num_rows() {
                    let cells = batch.columns().iter().zip(&columns);
                    let cells = cells
                        .map(|(array, (name, kind))| (name.clone(), json_of(array, row, kind)));
                    rows.push(Json::Object(cells.collect()));
                }
            }
            Ok(rows)
        })
    }

    /// Compares a tenant's rows in the sink with the query from scratch. Keys without one good row
    /// must be in quarantine, all others must not.
    pub fn check(&self, name: &str, tenant: &Tenant) -> Result<(), String> {
        let _entered = self.runtime.enter();
        let basis = self.store.latest();
        let wanted = self.scratch(name, tenant, basis);
        let held: Vec<String> = self
            .projections
            .errors()
            .into_iter()
            .filter(|error| error.projection == name && error.tenant == *tenant)
            .map(|error| error.key)
            .collect();
        let column = self.keys[name].first().filter(|_| self.keys[name].len() > 1);
        let of_tenant = |row: &Json| {
            column.is_none_or(|column| {
                row.get(column).is_none_or(|of| column != "_tenant" || of == tenant.as_str())
            })
        };
        let sink = &self.sinks[name];
        let mut problems = Vec::new();
        for (key, rows) in &wanted {
            let bad = rows.len() > 1 || key.contains("null");
            if bad != held.contains(key) {
                problems.push(format!("key {key} with {} rows, held: {held:?}", rows.len()));
            }
            if bad {
                continue;
            }
            let full_key = self.sink_key(name, tenant, key);
            if sink.rows.get(&full_key) != Some(&rows[0]) {
                let is = sink.rows.get(&full_key);
                problems.push(format!("key {key} should be {}, is {is:?}", rows[0]));
            }
        }
        for (key, row) in &sink.rows {
            let known = wanted.keys().any(|of| self.sink_key(name, tenant, of) == *key);
            if of_tenant(row) && !known {
                problems.push(format!("row {row} should be gone"));
            }
        }
        if held.iter().any(|key| !wanted.contains_key(key)) {
            problems.push(format!("held without reason: {held:?}"));
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(format!("{name} of {tenant} at {basis:?}:\n  {}", problems.join("\n  ")))
    }

    fn sink_key(&self, name: &str, tenant: &Tenant, key: &str) -> String {
        if self.keys[name].first().is_some_and(|column| column == "_tenant") {
            let rest = key.strip_prefix('[').unwrap();
            return format!("[\"{tenant}\",{rest}");
        }
        key.to_owned()
    }

    /// Returns the query's rows from scratch by key (without the tenant).
    fn scratch(&self, name: &str, tenant: &Tenant, basis: Basis) -> BTreeMap<String, Vec<Json>> {
        let all = self.projections.full(name, basis, tenant).unwrap();
        let batch = all.batch();
        let mut rows: BTreeMap<String, Vec<Json>> = BTreeMap::new();
        let keys: Vec<&String> = self.keys[name].iter().filter(|key| *key != "_tenant").collect();
        let has_tenant = keys.len() != self.keys[name].len();
        for place in 0..batch.num_rows() {
            let mut row = Map::new();
            if has_tenant {
                row.insert("_tenant".to_owned(), Json::String(tenant.to_string()));
            }
            for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
                let kind = everwhen_query::columns::field_type(field).unwrap();
                let column = cast_column(column, &kind).unwrap();
                row.insert(field.name().clone(), json_of(column.as_ref(), place, &kind));
            }
            let key: Vec<Json> = keys.iter().map(|key| row[*key].clone()).collect();
            rows.entry(Json::Array(key).to_string()).or_default().push(Json::Object(row));
        }
        rows
    }
}

impl Sink {
    /// Writes a chunk as a sink must: in order, each change once, none of an older generation.
    pub fn apply(&mut self, chunk: &Chunk, key: &[String]) {
        if chunk.generation != self.generation {
            assert!(chunk.generation > self.generation, "an older generation came back");
            assert!(chunk.reload_begin, "a generation begins with a reload");
            self.generation = chunk.generation;
            self.last_change = 0;
        }
        let count = u64::try_from(chunk.changes.len()).unwrap();
        let last = (chunk.first_change + count) - 1;
        if last <= self.last_change && count > 0 {
            return;
        }
        assert_eq!(chunk.first_change, self.last_change + 1, "a change was skipped");
        for change in chunk.changes.iter() {
            let row: Json = serde_json::from_str(&change.row_json).unwrap();
            let values: Vec<Json> = key.iter().map(|name| row[name].clone()).collect();
            let id = Json::Array(values).to_string();
            if change.delete {
                assert_eq!(row.as_object().unwrap().len(), key.len(), "a delete names its key");
                self.rows.remove(&id);
                self.generations.remove(&id);
            } else {
                self.generations.insert(id.clone(), chunk.generation);
                self.rows.insert(id, row);
            }
        }
        self.last_change = last;
        self.chunks += 1;
        self.changes += count;
        if chunk.reload_end {
            let old = chunk.generation;
            let gone: Vec<String> = self
                .generations
                .iter()
                .filter(|(_, generation)| **generation < old)
                .map(|(id, _)| id.clone())
                .collect();
            for id in gone {
                self.rows.remove(&id);
                self.generations.remove(&id);
            }
        }
    }
}

pub fn statement(shape: &Shape, options: &[(&str, &str)], or_replace: bool) -> CreateProjection {
    CreateProjection {
        name: shape.name.to_owned(),
        or_replace,
        if_not_exists: false,
        key: shape.key.iter().map(|name| (*name).to_owned()).collect(),
        sink: Some("memory".to_owned()),
        sink_table: None,
        options: options.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        query: shape.query.to_owned(),
        query_position: 1,
        sql: shape.query.to_owned(),
    }
}

pub fn commit(store: &Store, batch: Batch) {
    let answer = store.submit(batch).unwrap();
    answer.blocking_recv().unwrap().unwrap();
}

/// Declares a table: the first column is the key.
pub fn table(
    id: u32,
    name: &str,
    precedence: Precedence,
    columns: &[(&str, ColumnType)],
) -> TableDef {
    let columns = columns
        .iter()
        .zip(0..)
        .map(|((name, kind), at)| ColumnDef {
            id: ColumnId(at),
            name: (*name).to_owned(),
            kind: kind.clone(),
            nullable: at > 0,
        })
        .collect();
    TableDef {
        id: TableId(id),
        name: name.to_owned(),
        precedence,
        key: vec![ColumnId(0)],
        columns,
        declared: true,
    }
}

/// Builds a write; `fields` are by column, the key's excluded.
pub fn assertion(
    tenant: &Tenant,
    table: &TableDef,
    key: Value,
    op: Op,
    period: (i64, Option<i64>),
    fields: Vec<(u32, Value)>,
) -> Write {
    Write {
        tenant: tenant.clone(),
        table: table.id,
        kind: WriteKind::Assert {
            key: RowKey::encode(&[key]).unwrap(),
            assertion: Assertion {
                op,
                from: AssertedFrom::At(ValidTime::from_micros(period.0)),
                to: period.1.map_or(ValidTime::END, ValidTime::from_micros),
                order: 0,
                fields: Row::new(fields.into_iter().map(|(id, value)| (ColumnId(id), value))),
                exact: false,
            },
            event: None,
        },
    }
}

pub fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}
