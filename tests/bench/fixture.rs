//! A table of readings, and stores that hold it.

use std::path::Path;
use std::sync::Arc;

use everwhen_storage::{
    AssertedFrom, Assertion, Batch, ColumnDef, ColumnId, ColumnType, DefinitionChange, Op, Options,
    Precedence, RealClock, Row, RowKey, Store, TableDef, TableId, Tenant, Tx, ValidTime, Value,
    Write, WriteKind,
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
    let assertion = Assertion {
        op: Op::Put,
        from: AssertedFrom::At(from),
        to: ValidTime::END,
        order: 0,
        fields: fields(id, version),
        exact: false,
    };
    let kind = WriteKind::Assert { key: key(id), assertion, event: None };
    let write = Write { tenant: Tenant::default(), table: TableId(1), kind };
    Tx { writes: vec![write], position: None }
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
