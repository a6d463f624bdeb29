//! What the tests of several modules make: directories that go with the test, small stores.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::assertion::{AssertedFrom, Assertion, EventId, Op};
use crate::batch::{
    Batch, Committed, Event, Origin, SourceAdvance, SourcePosition, Tx, Write, WriteKind,
};
use crate::clock::ManualClock;
use crate::definitions::DefinitionChange;
use crate::schema::{
    ColumnDef, ColumnId, ColumnType, Precedence, RowKey, TableDef, TableId, Tenant,
};
use crate::store::{Options, Store};
use crate::time::ValidTime;
use crate::tx::TxId;
use crate::value::{Row, Value};
use crate::view::{Keys, Scan, SystemBound, ValidBound};

/// A directory that goes with the test.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    /// Names a directory that is not there yet.
    pub(crate) fn new() -> Self {
        let name = format!("everwhen-test-{}", uuid::Uuid::new_v4().simple());
        Self(std::env::temp_dir().join(name))
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Opens a store that syncs every commit.
pub(crate) fn open(path: &Path) -> crate::Result<Store> {
    Store::open(Options {
        path: path.to_owned(),
        clock: Arc::new(ManualClock::at(1_000_000)),
        sync: true,
        block_cache_bytes: 8 << 20,
    })
}

const TABLES: [(u32, Precedence); 2] = [(1, Precedence::Recorded), (2, Precedence::Effective)];

/// Makes two tables, `t1` and `t2`, of a text key and an int64.
pub(crate) fn define(store: &Store) {
    let definitions = TABLES
        .into_iter()
        .map(|(id, precedence)| {
            DefinitionChange::Table(TableDef {
                id: TableId(id),
                name: format!("t{id}"),
                precedence,
                key: vec![ColumnId(0)],
                columns: vec![
                    ColumnDef::new(0, "_id", ColumnType::Text),
                    ColumnDef::new(1, "n", ColumnType::Int64),
                ],
                declared: true,
            })
        })
        .collect();
    submit(store, Batch { definitions, ..Batch::default() });
}

pub(crate) fn submit(store: &Store, batch: Batch) -> Committed {
    store.submit(batch).unwrap().blocking_recv().unwrap().unwrap()
}

/// Writes one record, `n`, to both tables: late ones, bounded ones, and patches among them.
pub(crate) fn record(store: &Store, n: i64) {
    let op = if n % 3 == 0 { Op::Patch { set_nulls: false } } else { Op::Put };
    let from = n * 7_919 % 1_000;
    let to = if n % 2 == 0 { ValidTime::END } else { ValidTime::from_micros(from + 50 + n % 90) };
    let assertion = Assertion {
        op,
        from: AssertedFrom::At(ValidTime::from_micros(from)),
        to,
        order: 0,
        fields: Row::new([(ColumnId(1), Value::Int(n))]),
        exact: false,
    };
    let key = RowKey::encode(&[Value::Text(format!("k{}", n % 5))]).unwrap();
    let write = |table: u32| {
        let id = EventId(format!("e{n}"));
        let hash = u128::from(n.unsigned_abs());
        let event = (table == 2).then_some(Event { id, content_hash: hash });
        Write {
            tenant: Tenant::default(),
            table: TableId(table),
            kind: WriteKind::Assert { key: key.clone(), assertion: assertion.clone(), event },
        }
    };
    let position = SourcePosition { topic: "t".to_owned(), partition: 0, offset: n };
    let source = SourceAdvance {
        stream: "s".to_owned(),
        topic: "t".to_owned(),
        partition: 0,
        next_offset: n + 1,
        log: crate::SourceLog::default(),
    };
    submit(
        store,
        Batch {
            txs: vec![Tx { writes: vec![write(1), write(2)], position: Some(position) }],
            sources: vec![source],
            origin: Origin::Kafka { stream: "s".to_owned() },
            ..Batch::default()
        },
    );
}

/// Returns the whole history of both tables, as text.
pub(crate) fn history(store: &Store) -> crate::Result<String> {
    let mut out = String::new();
    for (table, _) in TABLES {
        let definitions = store.definitions();
        let Some(table) = definitions.table_by_id(TableId(table)) else { continue };
        let scan = Scan {
            table,
            tenant: None,
            keys: Keys::All,
            valid: ValidBound::ALL,
            system: SystemBound::Between(TxId::ZERO, store.latest().tx),
            columns: None,
            whole: true,
        };
        let found = store.read(store.latest().tx, |view| view.collect(&scan))?;
        out.push_str(&format!("{found:?}\n"));
    }
    Ok(out)
}
