//! A table of readings, and stores that hold it.

use std::path::Path;
use std::sync::Arc;

use everwhen_storage::{
    AssertedFrom, Assertion, Batch, ColumnDef, ColumnId, ColumnType, DefinitionChange, Load,
    LoadRow, Op, Options, Precedence, RealClock, Row, RowKey, Store, SystemTime, TableDef, TableId,
    Tenant, Tx, ValidTime, Value, Write, WriteKind,
};

pub const DAY: i64 = 86_400_000_000;

/// Transactions handed over at once.
const BATCH: i64 = 10_000;

pub fn table(precedence: Precedence) -> TableDef {
    TableDef {
        id: TableId(1),
        name: "readings".to_owned(),
        precedence,
        key: vec![ColumnId(0)],
        columns: vec![
            ColumnDef::new(0, "_id", ColumnType::Text),
            ColumnDef::new(1, "site", ColumnType::Text),
            ColumnDef::new(2, "n", ColumnType::Int64),
            ColumnDef::new(3, "note", ColumnType::Text),
        ],
        declared: true,
    }
}

pub fn key(id: i64) -> RowKey {
    RowKey::encode(&[Value::Text(format!("key-{id:08}"))]).unwrap()
}

pub fn fields(id: i64, version: i64) -> Row {
    Row::new([
        (ColumnId(1), Value::Text(format!("site {}", id % 97))),
        (ColumnId(2), Value::Int(id * 10 + version)),
        (ColumnId(3), Value::Text(format!("note {version} of {id}, forty characters or so"))),
    ])
}

/// A put of a version from an instant on.
pub fn put(id: i64, version: i64, from: ValidTime) -> Tx {
    let kind =
        WriteKind::Assert { key: key(id), assertion: assertion(id, version, from), event: None };
    let write = Write { tenant: Tenant::default(), table: TableId(1), kind };
    Tx { writes: vec![write], position: None }
}

fn assertion(id: i64, version: i64, from: ValidTime) -> Assertion {
    Assertion {
        op: Op::Put,
        from: AssertedFrom::At(from),
        to: ValidTime::END,
        order: 0,
        fields: fields(id, version),
        exact: false,
    }
}

/// Opens a store without syncs and with a cache that holds everything.
pub fn open(path: &Path) -> Store {
    Store::open(Options {
        path: path.to_owned(),
        clock: Arc::new(RealClock),
        sync: false,
        block_cache_bytes: 512 << 20,
    })
    .unwrap()
}

/// Makes a store at `path` with a table and the transactions `tx` makes of `0..count`, and opens it
/// anew, so that all of it is in files.
pub fn loaded(path: &Path, table: &TableDef, count: i64, tx: impl Fn(i64) -> Tx) -> Store {
    let store = open(path);
    let definitions =
        Batch { definitions: vec![DefinitionChange::Table(table.clone())], ..Batch::default() };
    write(&store, definitions);
    for first in (0..count).step_by(usize::try_from(BATCH).unwrap()) {
        let txs = (first..(first + BATCH).min(count)).map(&tx).collect();
        write(&store, Batch { txs, ..Batch::default() });
    }
    store.close().unwrap();
    drop(store);
    open(path)
}

/// Writes a batch and waits for it.
pub fn write(store: &Store, batch: Batch) {
    store.submit(batch).unwrap().blocking_recv().unwrap().unwrap();
}

/// A history that is loaded at once.
#[derive(Clone, Copy)]
pub struct History {
    pub keys: i64,
    pub versions: i64,
}

impl History {
    pub const fn count(self) -> i64 {
        self.keys * self.versions
    }

    /// Versions of keys in any order, each of a key on a day of its own, in any order too.
    fn rows(self) -> impl Iterator<Item = LoadRow> {
        (0..self.count()).map(move |n| {
            let id = n.wrapping_mul(7_919) % self.keys;
            let round = n / self.keys;
            let version = (round * 7 + id) % self.versions;
            LoadRow {
                tenant: Tenant::default(),
                key: key(id),
                assertion: assertion(id, version, ValidTime::from_micros(version * DAY)),
                system_time: Some(SystemTime::from_micros(FIRST_RECORDED + n * 1_000)),
            }
        })
    }
}

/// When a history began to be recorded.
const FIRST_RECORDED: i64 = 1_700_000_000_000_000;

/// Opens a new store with a table that is older than any history.
pub fn open_with(path: &Path, table: &TableDef) -> Store {
    let store = open(path);
    let definitions = vec![DefinitionChange::Table(table.clone())];
    let system_time = Some(SystemTime::from_micros(FIRST_RECORDED - DAY));
    write(&store, Batch { definitions, system_time, ..Batch::default() });
    store
}

/// Loads a history into the table, which is empty.
pub fn backfill(store: &Store, history: History) {
    let rows = Box::new(history.rows().map(Ok));
    store.bulk_load(Load::into_table(TableId(1)), rows).unwrap();
}

/// Makes a store with the transactions `tx` makes of `0..count` by the bulk load, so that
/// every family lies in files of the lowest level, as after a compaction.
pub fn loaded_whole(path: &Path, table: &TableDef, count: i64, tx: impl Fn(i64) -> Tx) -> Store {
    let store = open_with(path, table);
    let rows: Vec<LoadRow> = (0..count).map(|n| load_row(tx(n), n)).collect();
    let rows = Box::new(rows.into_iter().map(Ok));
    store.bulk_load(Load::into_table(table.id), rows).unwrap();
    store
}

fn load_row(mut tx: Tx, n: i64) -> LoadRow {
    let write = tx.writes.pop().unwrap();
    let WriteKind::Assert { key, assertion, .. } = write.kind else { panic!("{write:?}") };
    let system_time = Some(SystemTime::from_micros(FIRST_RECORDED + n * 1_000));
    LoadRow { tenant: write.tenant, key, assertion, system_time }
}

/// What a store has on disk.
pub struct Written {
    pub keys: u64,
    pub key_bytes: u64,
    pub value_bytes: u64,
}

/// Counts a store that nobody has open.
pub fn written(data: &Path) -> Written {
    let report =
        everwhen_storage::verify::directory(data, &|_| std::ops::ControlFlow::Continue(()))
            .unwrap();
    assert!(report.is_good(), "{:?}", report.problems);
    let keys = report.families.iter().map(|(_, entries)| entries).sum();
    Written { keys, key_bytes: report.key_bytes, value_bytes: report.value_bytes }
}

/// Returns a day as text, in the form of the peers.
pub fn day_text(day: i64) -> String {
    let at = jiff::Timestamp::from_microsecond(FIRST_RECORDED / DAY * DAY + day * DAY).unwrap();
    at.to_string().trim_end_matches('Z').replace('T', " ")
}
