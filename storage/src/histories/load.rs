//! A load comes to the bytes of the same rows written one after the other, or to nothing.

use rocksdb::WriteBatch;

use super::*;
use crate::batch::{Origin, Tx, Write, WriteKind};
use crate::definitions::IndexDef;
use crate::load::{Intent, Load, LoadRow};
use crate::meta;
use crate::schema::IndexId;
use crate::time::SystemTime;
use crate::tx::TxId;
use crate::view::{Keys, Scan, SystemBound, ValidBound};

/// After the definitions of indexes, which are made at [`NOW`].
const LATER: i64 = 2 * NOW;

fn rows(random: &mut Random, count: usize) -> Vec<LoadRow> {
    let mut at = 1_000;
    let row = |_| {
        // Several rows at one instant, and runs that are a microsecond apart.
        at += [0, 0, 1, 1, 2, 1_000][usize::try_from(random.below(6)).unwrap()];
        LoadRow {
            tenant: tenant(random),
            key: key(random),
            assertion: assertion(random),
            system_time: Some(SystemTime::from_micros(at)),
        }
    };
    (0..count).map(row).collect()
}

fn with_index(path: &Path) -> Store {
    let store = open_early(path);
    for table in [0, 1] {
        let columns = vec![ColumnId(2)];
        let index = IndexDef { id: IndexId(0), table: TableId(table), columns, ready: false };
        store.ensure_index(index).unwrap();
    }
    store
}

/// A store whose definitions were made before the history, as their system time must be.
fn open_early(path: &Path) -> Store {
    let store = open(path);
    for (id, precedence) in [(0, Precedence::Recorded), (1, Precedence::Effective)] {
        let batch = Batch {
            definitions: vec![DefinitionChange::Table(table(id, precedence))],
            system_time: Some(SystemTime::from_micros(i64::from(id))),
            ..Batch::default()
        };
        write(&store, batch).unwrap();
    }
    store
}

fn load(store: &Store, table: u32, rows: Vec<LoadRow>, sort_bytes_max: usize) -> Result<Committed> {
    let load = Load { sort_bytes_max, ..Load::into_table(TableId(table)) };
    store.bulk_load(load, Box::new(rows.into_iter().map(Ok)))
}

/// Writes rows in the batches that a load's journal shows.
fn write_rows(store: &Store, loaded: &Store, first: TxId, table: u32, rows: &[LoadRow]) {
    let mut rows = rows.iter();
    for entry in loaded.journal(first, TxId::END).unwrap() {
        let count = usize::try_from(entry.count).unwrap();
        let txs = rows.by_ref().take(count).map(|row| Tx {
            writes: vec![Write {
                tenant: row.tenant.clone(),
                table: TableId(table),
                kind: WriteKind::Assert {
                    key: row.key.clone(),
                    assertion: row.assertion.clone(),
                    event: None,
                },
            }],
            position: None,
        });
        let batch = Batch {
            txs: txs.collect(),
            origin: Origin::Import,
            system_time: Some(entry.system_time),
            ..Batch::default()
        };
        write(store, batch).unwrap();
    }
    assert!(rows.next().is_none());
}

#[test]
fn a_load_is_the_same_as_its_rows_one_after_the_other() {
    for seed in 0..12 {
        let mut random = Random(seed);
        let (loaded, written) = (Directory::new(), Directory::new());
        let (store, ordinary) = (open_early(&loaded.0), open_early(&written.0));
        for table in [0, 1] {
            let first = store.latest().tx.plus(1);
            let at = store.system_time(store.latest().tx).unwrap().micros();
            let mut rows = rows(&mut random, 300);
            for row in &mut rows {
                row.system_time = row.system_time.map(|time| time.saturating_add(at));
            }
            // Spilled more than once, or not at all.
            let bytes = if seed % 2 == 0 { 4_000 } else { 64 << 20 };
            let committed = load(&store, table, rows.clone(), bytes).unwrap();
            assert_eq!(committed.last_tx, TxId::new(first.get() + 299));
            write_rows(&ordinary, &store, first, table, &rows);
            assert_eq!(store.latest().tx, ordinary.latest().tx);
        }
        store.close().unwrap();
        ordinary.close().unwrap();
        assert_equal_bytes(&loaded.0, &written.0, &format!("seed {seed}"));
    }
}

#[test]
fn what_comes_after_a_load_and_its_indexes_go_on_from_it() {
    let mut random = Random(77);
    let (loaded, written) = (Directory::new(), Directory::new());
    let store = open_early(&loaded.0);
    let first = store.latest().tx.plus(1);
    let rows = rows(&mut random, 200);
    load(&store, 1, rows.clone(), 64 << 20).unwrap();
    let ordinary = open_early(&written.0);
    write_rows(&ordinary, &store, first, 1, &rows);
    let later: Vec<Write> = (0..50)
        .map(|_| Write {
            tenant: tenant(&mut random),
            table: TableId(1),
            kind: WriteKind::Assert {
                key: key(&mut random),
                assertion: assertion(&mut random),
                event: None,
            },
        })
        .collect();
    for store in [&store, &ordinary] {
        for write_later in &later {
            let tx = Tx { writes: vec![write_later.clone()], position: None };
            write(store, Batch { txs: vec![tx], ..Batch::default() }).unwrap();
        }
        let columns = vec![ColumnId(3)];
        let index = IndexDef { id: IndexId(0), table: TableId(1), columns, ready: false };
        store.ensure_index(index).unwrap();
        store.close().unwrap();
    }
    assert_equal_bytes(&loaded.0, &written.0, "later writes");
}

#[test]
fn a_load_that_was_not_finished_leaves_nothing() {
    let mut random = Random(5);
    let directory = Directory::new();
    drop(open_index_times(&directory.0));
    let before = everything(&directory.0);
    let store = open_at(&directory.0, LATER);
    let after = store.latest().tx;
    let indexes = store.definitions().indexes.values().map(|index| index.id).collect();
    let mut rows = rows(&mut random, 200);
    let at = store.system_time(after).unwrap().micros() - 1_000;
    for row in &mut rows {
        row.system_time = row.system_time.map(|time| time.saturating_add(at));
    }
    load(&store, 1, rows.clone(), 64 << 20).unwrap();
    let tenants = store.tenants();
    store.close().unwrap();
    let whole = everything(&directory.0);
    // As it is before the last write.
    let engine = Engine::open(&directory.0, 8 << 20).unwrap();
    let mut writes = WriteBatch::default();
    let tenants = tenants.iter().map(ToString::to_string).collect();
    let intent = Intent { table: TableId(1), indexes, tenants, after };
    meta::put_load_intent(&engine, &mut writes, Some(&intent)).unwrap();
    for tenant in &intent.tenants {
        writes.delete_cf(engine.family(Family::Meta), format!("tenant\0{tenant}"));
    }
    let counts_after = |entry: &[u8]| entry[entry.len() - 8..] > after.get().to_be_bytes()[..];
    let meta = engine.family(Family::Meta);
    engine
        .each_from(Family::Meta, b"size\0", b"size\0", |entry, _| {
            if counts_after(entry) {
                writes.delete_cf(meta, entry);
            }
            Ok(true)
        })
        .unwrap();
    engine.write(writes, true).unwrap();
    drop(engine);
    let store = open_at(&directory.0, LATER);
    assert_eq!(store.latest().tx, after);
    store.close().unwrap();
    assert_eq!(everything(&directory.0), before);
    let store = open_at(&directory.0, LATER);
    load(&store, 1, rows, 4_000).unwrap();
    store.close().unwrap();
    assert_eq!(everything(&directory.0), whole);
}

fn open_index_times(path: &Path) -> Store {
    let store = with_index(path);
    // Otherwise the history would lie before the definitions of the indexes.
    assert!(store.system_time(store.latest().tx).unwrap().micros() >= NOW);
    store
}

#[test]
fn a_load_is_refused_as_a_whole() {
    let mut random = Random(9);
    let directory = Directory::new();
    let store = open_early(&directory.0);
    let good = rows(&mut random, 20);
    let latest = store.latest().tx;
    let refused = |rows: Vec<LoadRow>, why: &str| {
        let error = load(&store, 0, rows, 64 << 20).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert_eq!(store.latest().tx, latest);
        let definitions = store.definitions();
        let scan = Scan {
            table: definitions.table_by_id(TableId(0)).unwrap(),
            tenant: None,
            keys: Keys::All,
            valid: ValidBound::ALL,
            system: SystemBound::Latest,
            columns: None,
            whole: true,
        };
        assert!(store.read(latest, |view| view.collect(&scan)).unwrap().is_empty());
    };
    let with = |place: usize, change: &dyn Fn(&mut LoadRow)| {
        let mut rows = good.clone();
        change(&mut rows[place]);
        rows
    };
    let at = |micros| Some(SystemTime::from_micros(micros));
    refused(with(7, &|row| row.system_time = at(0)), "row 8: system time");
    refused(with(19, &|row| row.system_time = at(NOW + 1)), "row 20: system time");
    refused(with(0, &|row| row.system_time = at(0)), "lies before that of the last transaction");
    refused(with(3, &|row| row.key = RowKey(vec![1])), "row 4: a key");
    refused(
        with(4, &|row| {
            row.assertion.from = AssertedFrom::At(ValidTime::from_micros(5));
            row.assertion.to = ValidTime::from_micros(5);
        }),
        "row 5: valid period is empty",
    );
    let failing = good.clone().into_iter().map(Ok).chain([Err(Error::Closed)]);
    let failed = store.bulk_load(Load::into_table(TableId(0)), Box::new(failing));
    assert!(matches!(failed, Err(Error::Closed)));
    assert!(load(&store, 9, good.clone(), 1 << 20).is_err(), "no such table");
    load(&store, 0, good.clone(), 1 << 20).unwrap();
    let again = load(&store, 0, good, 1 << 20).unwrap_err();
    assert!(again.to_string().contains("is not empty"), "{again}");
    assert!(!directory.0.join("load").exists());
}

#[test]
fn an_imported_system_time_lies_after_the_last_and_not_after_the_clock() {
    let directory = Directory::new();
    let store = open_early(&directory.0);
    let import = |at: i64| {
        let txs = vec![Tx::default(), Tx::default()];
        let system_time = Some(SystemTime::from_micros(at));
        write(&store, Batch { txs, system_time, origin: Origin::Import, ..Batch::default() })
    };
    assert_eq!(import(50).unwrap().system_time.micros(), 51, "the second of the batch");
    assert_eq!(import(51).unwrap().system_time.micros(), 53, "an equal one is the next");
    for (at, why) in [(52, "lies before"), (NOW + 1, "later than the clock")] {
        let refused = import(at).unwrap_err();
        assert!(refused.to_string().contains(why), "{refused}");
    }
    assert_eq!(import(NOW).unwrap().system_time.micros(), NOW + 1);
    let later = write(&store, Batch { txs: vec![Tx::default()], ..Batch::default() }).unwrap();
    assert_eq!(later.system_time.micros(), NOW + 2);
}
