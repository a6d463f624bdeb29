//! Random histories, and stores compared byte for byte: what loads and replays are tested with.

use std::path::Path;
use std::sync::Arc;

use crate::assertion::{AssertedFrom, Assertion, Op};
use crate::batch::{Batch, Committed};
use crate::clock::ManualClock;
use crate::definitions::DefinitionChange;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::families::Family;
use crate::schema::{
    ColumnDef, ColumnId, ColumnType, Precedence, RowKey, TableDef, TableId, Tenant,
};
use crate::store::{Options, Store};
use crate::testing::Directory;
use crate::time::ValidTime;
use crate::value::{Row, Value};

mod load;
mod replay;

/// Where the clock of all these stores begins, in microseconds.
const NOW: i64 = 1_000_000_000;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn signed(&mut self, bound: i64) -> i64 {
        i64::try_from(self.below(u64::try_from(bound).unwrap())).unwrap()
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

fn open(path: &Path) -> Store {
    open_at(path, NOW)
}

fn open_at(path: &Path, clock: i64) -> Store {
    let options = Options {
        path: path.to_owned(),
        clock: Arc::new(ManualClock::at(clock)),
        sync: false,
        block_cache_bytes: 8 << 20,
    };
    Store::open(options).unwrap()
}

fn write(store: &Store, batch: Batch) -> Result<Committed> {
    store.submit(batch)?.blocking_recv().map_err(|_| Error::Closed)?
}

/// A table with a composite key: text and integer.
fn table(id: u32, precedence: Precedence) -> TableDef {
    let column = |id, name: &str, kind, nullable| ColumnDef {
        id: ColumnId(id),
        name: name.to_owned(),
        kind,
        nullable,
    };
    TableDef {
        id: TableId(id),
        name: format!("t{id}"),
        precedence,
        key: vec![ColumnId(0), ColumnId(1)],
        columns: vec![
            column(0, "site", ColumnType::Text, false),
            column(1, "number", ColumnType::Int64, false),
            column(2, "a", ColumnType::Int64, true),
            column(3, "b", ColumnType::Text, true),
        ],
        declared: true,
    }
}

fn with_tables(path: &Path) -> Store {
    let store = open(path);
    let definitions = vec![
        DefinitionChange::Table(table(0, Precedence::Recorded)),
        DefinitionChange::Table(table(1, Precedence::Effective)),
    ];
    write(&store, Batch { definitions, ..Batch::default() }).unwrap();
    store
}

fn key(random: &mut Random) -> RowKey {
    let site = ["", "a", "a\0b", "ab"][usize::try_from(random.below(4)).unwrap()];
    let number = [-1, 0, 7][usize::try_from(random.below(3)).unwrap()];
    RowKey::encode(&[Value::Text(site.to_owned()), Value::Int(number)]).unwrap()
}

fn tenant(random: &mut Random) -> Tenant {
    if random.one_in(4) { Tenant::new("acme").unwrap() } else { Tenant::default() }
}

/// A small assertion; bounds fall together often.
fn assertion(random: &mut Random) -> Assertion {
    let op = match random.below(6) {
        0 => Op::Delete,
        1 => Op::Patch { set_nulls: false },
        2 => Op::Patch { set_nulls: true },
        _ => Op::Put,
    };
    let from = random.signed(12) * 10;
    let to = if random.one_in(3) { None } else { Some(from + 10 * (1 + random.signed(6))) };
    let mut fields = Vec::new();
    if op != Op::Delete {
        if !random.one_in(4) {
            let value = if random.one_in(5) { Value::Null } else { Value::Int(random.signed(3)) };
            fields.push((ColumnId(2), value));
        }
        if !random.one_in(3) {
            fields.push((
                ColumnId(3),
                Value::Text("x".repeat(usize::try_from(random.below(3)).unwrap())),
            ));
        }
    }
    let from = match random.below(12) {
        0 if to.is_none() => AssertedFrom::SystemTime,
        1 => AssertedFrom::At(ValidTime::BEGIN),
        _ => AssertedFrom::At(ValidTime::from_micros(from)),
    };
    let to = to.map_or(ValidTime::END, ValidTime::from_micros);
    let order = if random.one_in(3) { random.signed(3) - 1 } else { 0 };
    Assertion { op, from, to, order, fields: Row::new(fields), exact: random.one_in(6) }
}

type Entry = (&'static str, Vec<u8>, Vec<u8>);

/// Everything that is stored, but the floor of `now`, which says when a store was looked at.
fn everything(path: &Path) -> Vec<Entry> {
    let engine = Engine::open(path, 8 << 20).unwrap();
    let mut all = Vec::new();
    for family in Family::ALL {
        engine
            .each_from(family, &[], &[], |key, value| {
                if key != b"now" {
                    all.push((family.name(), key.to_vec(), value.to_vec()));
                }
                Ok(true)
            })
            .unwrap();
    }
    all
}

/// Compares two closed stores, and names the first entry in which they differ.
fn assert_equal_bytes(left: &Path, right: &Path, what: &str) {
    let (left, right) = (everything(left), everything(right));
    let differ = left.iter().zip(&right).position(|(left, right)| left != right);
    if let Some(at) = differ {
        panic!("{what}: entry {at} differs\n  {:?}\n  {:?}", left[at], right[at]);
    }
    assert_eq!(left.len(), right.len(), "{what}: entries");
}
