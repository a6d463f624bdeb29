//! What reads and writes of one key cost must not grow with its history: the work that the engine
//! counts (key comparisons, entries stepped over, blocks) for long histories against short ones.

use std::sync::Arc;

use rocksdb::perf::{PerfContext, PerfMetric, PerfStatsLevel, set_perf_stats};

use super::*;
use crate::assertion::{AssertedFrom, Assertion, EventId, Op};
use crate::batch::{Event, Tx, Write, WriteKind};
use crate::clock::ManualClock;
use crate::definitions::DefinitionChange;
use crate::journal;
use crate::load::{self, Load, LoadRow, LoadRows};
use crate::schema::{ColumnDef, ColumnId, ColumnType, Precedence, RowKey, TableDef, TableId};
use crate::store::{Options, Store};
use crate::testing::Directory;
use crate::value::{Row, Value};
use crate::view::View;

/// Versions of a short and of a long history; the long one is longer in a soak.
const SHORT: i64 = 1_000;
const LONG: i64 = 30_000;
/// Between two bounds of valid time.
const STEP: i64 = 1_000;

fn table(precedence: Precedence) -> TableDef {
    TableDef {
        id: TableId(0),
        name: "t".to_owned(),
        precedence,
        key: vec![ColumnId(0)],
        columns: vec![
            ColumnDef::new(0, "_id", ColumnType::Int64),
            ColumnDef::new(1, "a", ColumnType::Int64),
            ColumnDef::new(2, "b", ColumnType::Int64),
        ],
        declared: true,
    }
}

fn key() -> RowKey {
    RowKey::encode(&[Value::Int(7)]).unwrap()
}

fn says(op: Op, from: i64, to: Option<i64>, column: u32, value: i64) -> Assertion {
    Assertion {
        op,
        from: AssertedFrom::At(ValidTime::from_micros(from)),
        to: to.map_or(ValidTime::END, ValidTime::from_micros),
        order: 0,
        fields: Row::new([(ColumnId(column), Value::Int(value))]),
        exact: false,
    }
}

/// The order in which a history arrives, and the form of its assertions.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// In order of valid time, without ends.
    InOrder,
    /// In an order that is all but random, without ends.
    Late,
    /// Each within the one before, as far as the middle of the axis.
    Nested,
    /// Of all lengths, one over the other, in an order that is all but random.
    Bounded,
}

fn assertion_of(shape: Shape, n: i64, count: i64) -> Assertion {
    // 7,919 is prime and divides neither count.
    let mixed = (n * 7_919) % count;
    match shape {
        Shape::InOrder => says(Op::Put, n * STEP, None, 1, n),
        Shape::Late => says(Op::Put, mixed * STEP, None, 1, n),
        Shape::Nested => says(Op::Put, n * STEP, Some((2 * count - n) * STEP), 1, n),
        Shape::Bounded => {
            let length = 1 + (1 << (n % 12)) + n % 5;
            says(Op::Put, mixed * STEP, Some((mixed + length) * STEP), 1, n)
        }
    }
}

struct History {
    store: Store,
    count: i64,
    shape: Shape,
    precedence: Precedence,
    // Last: the store closes first.
    _directory: Directory,
}

impl History {
    fn new(precedence: Precedence, shape: Shape, count: i64) -> Self {
        let directory = Directory::new();
        let store = Store::open(Options {
            path: directory.0.clone(),
            clock: Arc::new(ManualClock::at(1 << 50)),
            sync: false,
            block_cache_bytes: 64 << 20,
        })
        .unwrap();
        let definitions = Batch {
            definitions: vec![DefinitionChange::Table(table(precedence))],
            system_time: Some(SystemTime::from_micros(0)),
            ..Batch::default()
        };
        store.submit(definitions).unwrap().blocking_recv().unwrap().unwrap();
        let rows: LoadRows = Box::new((0..count).map(move |n| {
            Ok(LoadRow {
                tenant: Tenant::default(),
                key: key(),
                assertion: assertion_of(shape, n, count),
                system_time: Some(SystemTime::from_micros(1 + n)),
            })
        }));
        store.bulk_load(Load::into_table(TableId(0)), rows).unwrap();
        Self { store, count, shape, precedence, _directory: directory }
    }

    /// Closes the store and opens its engine, to work on this thread, where work is counted.
    fn into_engine(self) -> (Engine, Directory) {
        self.store.close().unwrap();
        let path = self._directory.0.clone();
        let engine = Engine::open(&path, 64 << 20).unwrap();
        load::recover(&engine).unwrap();
        (engine, self._directory)
    }
}

/// Returns the work that the engine does on this thread.
fn work_of<T>(work: impl FnOnce() -> T) -> (u64, T) {
    set_perf_stats(PerfStatsLevel::EnableCount);
    let mut counted = PerfContext::default();
    counted.reset();
    let done = work();
    let metrics = [
        PerfMetric::UserKeyComparisonCount,
        PerfMetric::InternalKeySkippedCount,
        PerfMetric::BlockReadCount,
        PerfMetric::BlockCacheHitCount,
        PerfMetric::NextOnMemtableCount,
        PerfMetric::PrevOnMemtableCount,
    ];
    let sum = metrics.into_iter().map(|metric| counted.metric(metric)).sum();
    set_perf_stats(PerfStatsLevel::Disable);
    (sum, done)
}

/// The work of one read at each of some points of both axes, at the most; names the worst.
fn reads(engine: &Engine, def: &TableDef, count: i64, bounds: bool) -> u64 {
    let latest = u64::try_from(count).unwrap() + 1;
    let mut worst = 0;
    for n in 0..60 {
        let at = ValidTime::from_micros((n * 104_729) % (count * STEP) + 17);
        let tx = TxId::new((u64::try_from(n).unwrap() * 15_485_863) % latest + 1);
        let view = View::new(engine, tx, || TxId::new(latest));
        let (tenant, key) = (Tenant::default(), key());
        let (work, found) = work_of(|| {
            if bounds {
                view.point(def, &tenant, &key, at).unwrap().is_some()
            } else {
                view.row_at(def, &tenant, &key, at, None).unwrap().is_some()
            }
        });
        let _ = found;
        worst = worst.max(work);
    }
    worst
}

/// Folds and writes one transaction; answers with the work.
fn write(engine: &Engine, def: &TableDef, last: &mut TxId, kind: WriteKind) -> u64 {
    let mut definitions = crate::definitions::Definitions::default();
    definitions = definitions.with(&[DefinitionChange::Table(def.clone())], TxId::new(1));
    let tables = Tables::new(&definitions);
    let tenants = BTreeSet::from([Tenant::default()]);
    let write = Write { tenant: Tenant::default(), table: def.id, kind };
    let batch = Batch { txs: vec![Tx { writes: vec![write], position: None }], ..Batch::default() };
    let erased = crate::erase::Erased::default();
    let time = SystemTime::from_micros((1 << 50) + i64::try_from(last.get()).unwrap());
    let (work, writes) = work_of(|| {
        let sizes = Sizes::default();
        let mut group = Group::new(engine, &tables, &tenants, &erased, &sizes, (*last, time));
        group.preload(std::iter::once(&batch)).unwrap();
        let around = Around {
            base: time.saturating_add(1),
            sources: &SourceOffsets::new(),
            unjournaled: &mut Unjournaled::new(),
            last_dead_letter: 0,
            replayed: None,
        };
        group.fold(&batch, around).unwrap();
        *last = group.last_tx;
        group.finish();
        std::mem::take(&mut group.writes)
    });
    assert!(writes.len() < 40, "{} entries written", writes.len());
    engine.write(writes, false).unwrap();
    work
}

fn assert_kind(assertion: Assertion, event: Option<(&str, u128)>) -> WriteKind {
    let event = event.map(|(id, content_hash)| Event { id: EventId(id.to_owned()), content_hash });
    WriteKind::Assert { key: key(), assertion, event }
}

/// Late writes in the middle whose effect is a segment or a few: put, patch, and in an EFFECTIVE
/// table an event that is corrected and retracted.
fn late_writes(engine: &Engine, def: &TableDef, count: i64) -> Vec<(&'static str, u64)> {
    let mut last = journal::last(engine).unwrap().unwrap().last_tx();
    let middle = count / 2 * STEP;
    let next = Some(middle + STEP / 2);
    let is_effective = def.precedence == Precedence::Effective;
    let put = says(Op::Put, middle + 3, next, 1, -1);
    let patch = says(Op::Patch { set_nulls: false }, middle + 5, next, 2, -2);
    let mut works = vec![
        ("put", write(engine, def, &mut last, assert_kind(put, None))),
        ("patch", write(engine, def, &mut last, assert_kind(patch, None))),
    ];
    if is_effective {
        let event = |a, hash| assert_kind(says(Op::Put, middle + 7, next, 1, a), Some(("e", hash)));
        works.push(("event", write(engine, def, &mut last, event(-3, 1))));
        works.push(("correction", write(engine, def, &mut last, event(-4, 2))));
        let retract = WriteKind::Retract { event_id: EventId("e".to_owned()) };
        works.push(("retraction", write(engine, def, &mut last, retract)));
    }
    works
}

fn soak() -> i64 {
    std::env::var("EVERWHEN_SOAK").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

#[test]
fn what_a_read_or_a_late_write_costs_does_not_grow_with_the_history() {
    let long = LONG * soak().min(30);
    for precedence in [Precedence::Recorded, Precedence::Effective] {
        for shape in [Shape::InOrder, Shape::Late, Shape::Nested, Shape::Bounded] {
            let measure = |count: i64| {
                let history = History::new(precedence, shape, count);
                let what = format!("{:?} {:?}", history.precedence, history.shape);
                let (count, def) = (history.count, table(precedence));
                let (engine, _directory) = history.into_engine();
                let mut works = vec![("row", reads(&engine, &def, count, false))];
                works.push(("version", reads(&engine, &def, count, true)));
                works.extend(late_writes(&engine, &def, count));
                (what, works)
            };
            let (what, short) = measure(SHORT);
            let (_, long) = measure(long);
            println!("{what}: {short:?} {long:?}");
            for ((name, short), (_, long)) in short.iter().zip(&long) {
                // A walk would cost thirty times as much; a logarithm, and more levels in use, less
                // than three times.
                assert!(*long <= 3 * short + 200, "{what}: {name} costs {long}, before {short}");
            }
        }
    }
}
