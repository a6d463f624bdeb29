use std::path::Path;

use super::*;
use crate::assertion::{AssertedFrom, Assertion, EventId, Op};
use crate::batch::{Event, Origin, SourceAdvance, SourcePosition, Tx, TxOutcome, Write, WriteKind};
use crate::clock::ManualClock;
use crate::schema::{ColumnDef, ColumnId, ColumnType, Precedence, RowKey, TableDef, TableId};
use crate::source::SourceLog;
use crate::testing::Directory;
use crate::time::{Period, ValidTime};
use crate::value::{Row, Value};
use crate::view::{Keys, Scan, SystemBound, ValidBound, Version};

const T: i64 = 1_000_000;

fn open(path: &Path, clock: i64) -> Store {
    let options = Options {
        path: path.to_owned(),
        clock: Arc::new(ManualClock::at(clock)),
        sync: false,
        block_cache_bytes: 8 << 20,
    };
    Store::open(options).unwrap()
}

fn table(id: u32, precedence: Precedence) -> TableDef {
    TableDef {
        id: TableId(id),
        name: format!("t{id}"),
        precedence,
        key: vec![ColumnId(0)],
        columns: vec![
            ColumnDef::new(0, "_id", ColumnType::Text),
            ColumnDef::new(1, "a", ColumnType::Int64),
            ColumnDef::new(2, "b", ColumnType::Text),
        ],
        declared: true,
    }
}

fn write(store: &Store, batch: Batch) -> Result<Committed> {
    store.submit(batch)?.blocking_recv().map_err(|_| Error::Closed)?
}

fn with_tables(path: &Path) -> Store {
    let store = open(path, T);
    let definitions = vec![
        DefinitionChange::Table(table(1, Precedence::Recorded)),
        DefinitionChange::Table(table(2, Precedence::Effective)),
    ];
    write(&store, Batch { definitions, ..Batch::default() }).unwrap();
    store
}

fn key(id: &str) -> RowKey {
    RowKey::encode(&[Value::Text(id.to_owned())]).unwrap()
}

fn said(op: Op, from: i64, to: Option<i64>, a: Option<i64>, b: Option<&str>) -> Assertion {
    let b = b.map(|b| Value::Text(b.to_owned()));
    let fields = [(ColumnId(1), a.map(Value::Int)), (ColumnId(2), b)];
    Assertion {
        op,
        from: AssertedFrom::At(ValidTime::from_micros(from)),
        to: to.map_or(ValidTime::END, ValidTime::from_micros),
        order: 0,
        fields: Row::new(fields.into_iter().filter_map(|(id, value)| Some((id, value?)))),
        exact: false,
    }
}

fn put(from: i64, to: Option<i64>, a: i64) -> Assertion {
    said(Op::Put, from, to, Some(a), None)
}

fn assert_write(table: u32, id: &str, assertion: Assertion, event: Option<(&str, u128)>) -> Write {
    Write {
        tenant: Tenant::default(),
        table: TableId(table),
        kind: WriteKind::Assert {
            key: key(id),
            assertion,
            event: event
                .map(|(id, content_hash)| Event { id: EventId(id.to_owned()), content_hash }),
        },
    }
}

fn one(write: Write) -> Batch {
    Batch { txs: vec![Tx { writes: vec![write], position: None }], ..Batch::default() }
}

fn versions(store: &Store, table: u32, tx: TxId) -> Vec<Version> {
    let definitions = store.definitions();
    let def = definitions.table_by_id(TableId(table)).unwrap();
    let scan = Scan {
        table: def,
        tenant: None,
        keys: Keys::All,
        valid: ValidBound::ALL,
        system: SystemBound::Latest,
        columns: None,
        whole: true,
    };
    store.read(tx, |view| view.collect(&scan)).unwrap()
}

/// From, to (0 where open), transaction and column `a` of every version.
fn shown(store: &Store, table: u32) -> Vec<(i64, i64, u64, i64)> {
    shown_at(store, table, store.latest().tx)
}

fn shown_at(store: &Store, table: u32, tx: TxId) -> Vec<(i64, i64, u64, i64)> {
    let all = versions(store, table, tx);
    let row = |version: &Version| {
        let to = if version.valid.to().is_open() { 0 } else { version.valid.to().micros() };
        let a = match version.row.get(ColumnId(1)) {
            Some(Value::Int(a)) => *a,
            _ => -1,
        };
        (version.valid.from().micros(), to, version.tx_from.get(), a)
    };
    all.iter().map(row).collect()
}

#[test]
fn what_is_written_is_read_and_survives_reopening() {
    let directory = Directory::new();
    let store = with_tables(&directory.0);
    let committed = write(&store, one(assert_write(1, "x", put(10, None, 1), None))).unwrap();
    assert_eq!(committed.outcomes, [TxOutcome::Applied(TxId::new(2))]);
    write(&store, one(assert_write(1, "x", put(20, Some(30), 2), None))).unwrap();
    let expected = [(10, 20, 2, 1), (20, 30, 3, 2), (30, 0, 2, 1)];
    assert_eq!(shown(&store, 1), expected);
    assert_eq!(shown_at(&store, 1, TxId::new(2)), [(10, 0, 2, 1)]);
    let (incarnation, basis) = (store.incarnation(), store.latest());
    store.close().unwrap();
    assert!(matches!(store.read(TxId::ZERO, |_| Ok(())), Err(Error::Closed)));
    assert!(matches!(write(&store, Batch::default()), Err(Error::Closed)));

    let store = open(&directory.0, T - 500);
    assert_eq!(store.incarnation(), incarnation);
    assert_eq!(store.latest(), basis, "neither tx nor now goes back");
    assert_eq!(shown(&store, 1), expected);
    assert_eq!(store.definitions().tables.len(), 2);
    assert_eq!(store.definitions_at(TxId::ZERO).tables.len(), 0);
    assert_eq!(store.tenants(), [Tenant::default()]);
    let next = write(&store, one(assert_write(1, "x", put(5, Some(6), 3), None))).unwrap();
    assert_eq!(next.last_tx, TxId::new(4));
    assert!(next.system_time.micros() > T + 2);
}

#[test]
fn a_second_opening_of_a_directory_is_refused() {
    let directory = Directory::new();
    let store = with_tables(&directory.0);
    let again = Store::open(Options {
        path: directory.0.clone(),
        clock: Arc::new(ManualClock::at(T)),
        sync: false,
        block_cache_bytes: 8 << 20,
    });
    assert!(matches!(again.err(), Some(Error::InUse { .. })));
    drop(store);
    open(&directory.0, T);
}

/// Found by killing the process at random: RocksDB makes `CURRENT` before it adds the families.
#[test]
fn a_directory_whose_making_was_broken_off_is_made() {
    let directory = Directory::new();
    let rocks = directory.join("rocks");
    std::fs::create_dir_all(&rocks).unwrap();
    std::fs::write(directory.join("INCARNATION"), "0123456789abcdef".repeat(2) + "\n").unwrap();
    std::fs::write(directory.join("FORMAT"), "1\n").unwrap();
    drop(rocksdb::DB::open_default(&rocks).unwrap());
    let store = with_tables(&directory.0);
    assert_eq!(store.latest().tx, TxId::new(1));
    store.close().unwrap();
    open(&directory.0, 1_000_000);
    // Once something was durable, such a manifest is damage.
    std::fs::remove_dir_all(&rocks).unwrap();
    std::fs::create_dir_all(&rocks).unwrap();
    drop(rocksdb::DB::open_default(&rocks).unwrap());
    let clock = Arc::new(ManualClock::at(1));
    let (path, block_cache_bytes) = (directory.0.clone(), 8 << 20);
    let refused = Store::open(Options { path, clock, sync: true, block_cache_bytes });
    assert!(matches!(refused, Err(Error::Corrupt { .. })));
}

#[test]
fn a_directory_of_another_format_is_refused() {
    let directory = Directory::new();
    drop(with_tables(&directory.0));
    std::fs::write(directory.0.join("FORMAT"), "99\n").unwrap();
    let options = Options {
        path: directory.0.clone(),
        clock: Arc::new(ManualClock::at(T)),
        sync: false,
        block_cache_bytes: 8 << 20,
    };
    assert!(matches!(Store::open(options).err(), Some(Error::Format { .. })));
}

#[test]
fn late_events_fill_the_time_up_to_the_next_that_says_otherwise() {
    let directory = Directory::new();
    let store = with_tables(&directory.0);
    for (from, a) in [(30, 3), (10, 1), (20, 2)] {
        write(&store, one(assert_write(2, "x", put(from, None, a), None))).unwrap();
    }
    assert_eq!(shown(&store, 2), [(10, 20, 3, 1), (20, 30, 4, 2), (30, 0, 2, 3)]);
    // A late patch goes through the states that did not set the field themselves.
    let patch = said(Op::Patch { set_nulls: false }, 15, Some(25), None, Some("p"));
    write(&store, one(assert_write(2, "x", patch, None))).unwrap();
    assert_eq!(shown(&store, 2), [(10, 15, 3, 1), (15, 20, 5, 1), (20, 30, 4, 2), (30, 0, 2, 3)]);
}

#[test]
fn order_within_one_batch_does_not_matter_to_the_outcome() {
    let directory = Directory::new();
    let store = with_tables(&directory.0);
    let tx = |from, a| Tx {
        writes: vec![assert_write(2, "x", put(from, None, a), None)],
        position: None,
    };
    let txs = vec![tx(30, 3), tx(10, 1), tx(20, 2), tx(40, 4), tx(5, 0)];
    write(&store, Batch { txs, ..Batch::default() }).unwrap();
    let found: Vec<_> =
        shown(&store, 2).into_iter().map(|(from, to, _, a)| (from, to, a)).collect();
    assert_eq!(found, [(5, 10, 0), (10, 20, 1), (20, 30, 2), (30, 40, 3), (40, 0, 4)]);
}

#[test]
fn several_operations_on_a_key_in_one_transaction_are_one_change() {
    let directory = Directory::new();
    let store = with_tables(&directory.0);
    write(&store, one(assert_write(1, "x", put(0, None, 1), None))).unwrap();
    let writes = vec![
        assert_write(1, "x", put(10, None, 2), None),
        assert_write(1, "x", put(20, None, 3), None),
        assert_write(1, "x", put(10, Some(20), 1), None),
    ];
    write(&store, Batch { txs: vec![Tx { writes, position: None }], ..Batch::default() }).unwrap();
    assert_eq!(shown(&store, 1), [(0, 20, 2, 1), (20, 0, 3, 3)]);
}

#[test]
fn an_event_id_is_a_duplicate_a_correction_or_stale() {
    let directory = Directory::new();
    let store = with_tables(&directory.0);
    let event = |id: &str, from, a: i64, order, hash| {
        let assertion = Assertion { order, ..put(from, Some(from + 10), a) };
        one(assert_write(2, id, assertion, Some(("e1", hash))))
    };
    let outcome = |batch| write(&store, batch).unwrap().outcomes[0];
    assert_eq!(outcome(event("x", 10, 1, 5, 1)), TxOutcome::Applied(TxId::new(2)));
    assert_eq!(outcome(event("x", 10, 1, 5, 1)), TxOutcome::Duplicate);
    assert_eq!(outcome(event("x", 10, 2, 4, 2)), TxOutcome::Stale);
    assert_eq!(outcome(event("x", 30, 2, 5, 2)), TxOutcome::Applied(TxId::new(3)));
    assert_eq!(shown(&store, 2), [(30, 40, 3, 2)]);
    assert_eq!(outcome(event("y", 50, 2, 6, 3)), TxOutcome::Applied(TxId::new(4)));
    assert_eq!(shown(&store, 2), [(50, 60, 4, 2)], "also under another key");
    let retract = |id: &str| {
        one(Write {
            tenant: Tenant::default(),
            table: TableId(2),
            kind: WriteKind::Retract { event_id: EventId(id.to_owned()) },
        })
    };
    assert_eq!(outcome(retract("e1")), TxOutcome::Applied(TxId::new(5)));
    assert!(shown(&store, 2).is_empty());
    assert_eq!(outcome(event("x", 10, 1, 5, 1)), TxOutcome::Applied(TxId::new(6)));
    assert_eq!(shown(&store, 2), [(10, 20, 6, 1)]);
    assert_eq!(shown_at(&store, 2, TxId::new(3)), [(30, 40, 3, 2)]);
}

#[test]
fn one_batch_may_make_correct_and_retract_an_event() {
    let directory = Directory::new();
    let store = with_tables(&directory.0);
    let tx = |write| Tx { writes: vec![write], position: None };
    let txs = vec![
        tx(assert_write(2, "x", put(10, None, 1), Some(("e", 1)))),
        tx(assert_write(2, "x", put(20, None, 2), Some(("f", 1)))),
        tx(assert_write(2, "x", put(15, None, 3), Some(("e", 2)))),
        tx(assert_write(2, "x", put(15, None, 3), Some(("e", 2)))),
    ];
    let committed = write(&store, Batch { txs, ..Batch::default() }).unwrap();
    assert_eq!(committed.outcomes[3], TxOutcome::Duplicate);
    assert_eq!(committed.last_tx, TxId::new(4), "a duplicate spends no transaction");
    assert_eq!(shown(&store, 2), [(15, 20, 4, 3), (20, 0, 3, 2)]);
}

#[test]
fn an_exact_write_has_its_effect_at_once_and_later_late_events_follow_the_order() {
    let directory = Directory::new();
    let store = with_tables(&directory.0);
    for (from, a) in [(10, 1), (20, 2), (30, 3)] {
        write(&store, one(assert_write(2, "x", put(from, None, a), None))).unwrap();
    }
    let exact = Assertion { exact: true, ..put(15, Some(40), 9) };
    write(&store, one(assert_write(2, "x", exact, None))).unwrap();
    assert_eq!(shown(&store, 2), [(10, 15, 2, 1), (15, 40, 5, 9), (40, 0, 4, 3)]);
    // A late event shows up to the next part of the exact write, which takes effect later.
    write(&store, one(assert_write(2, "x", put(16, None, 4), None))).unwrap();
    let found = shown(&store, 2);
    assert_eq!(
        found,
        [(10, 15, 2, 1), (15, 16, 5, 9), (16, 20, 6, 4), (20, 40, 5, 9), (40, 0, 4, 3)]
    );
}

#[test]
fn a_batch_that_breaks_the_contract_is_refused_whole() {
    let directory = Directory::new();
    let store = with_tables(&directory.0);
    let wrong = said(Op::Put, 0, None, None, None);
    let wrong = Assertion { fields: Row::new([(ColumnId(1), Value::Bool(true))]), ..wrong };
    let batches = [
        one(assert_write(9, "x", put(0, None, 1), None)),
        one(assert_write(1, "x", wrong, None)),
        one(assert_write(1, "x", put(0, None, 1), Some(("e", 1)))),
    ];
    for batch in batches {
        assert!(matches!(write(&store, batch), Err(Error::Refused { .. })));
    }
    let empty = write(&store, one(assert_write(1, "x", put(5, Some(5), 1), None)));
    assert!(matches!(empty, Err(Error::EmptyPeriod { .. })));
    assert_eq!(store.latest().tx, TxId::new(1));
}

/// A record at an offset of partition 0 in a generation, and the offset after it as the next one.
fn read_in(generation: u64, offset: i64) -> Batch {
    let id = format!("{generation} {offset}");
    let position = SourcePosition { topic: "t".to_owned(), partition: 0, offset };
    Batch {
        txs: vec![Tx {
            writes: vec![assert_write(2, &id, put(10, None, offset), None)],
            position: Some(position),
        }],
        sources: vec![SourceAdvance {
            stream: "s".to_owned(),
            topic: "t".to_owned(),
            partition: 0,
            next_offset: offset + 1,
            log: SourceLog { generation, ..SourceLog::default() },
        }],
        origin: Origin::Kafka { stream: "s".to_owned() },
        ..Batch::default()
    }
}

#[test]
fn offsets_of_another_generation_are_those_of_other_records() {
    let directory = Directory::new();
    let store = with_tables(&directory.0);
    let applied = |store: &Store, batch| {
        let committed = write(store, batch).unwrap();
        matches!(committed.outcomes[..], [TxOutcome::Applied(_)])
    };
    assert!(applied(&store, read_in(1, 5)));
    assert!(!applied(&store, read_in(1, 5)), "it was taken already");
    assert!(applied(&store, read_in(2, 5)), "another topic's record");
    assert!(!applied(&store, read_in(2, 5)), "it was taken already");
    // What was read before the stream began anew is refused.
    let late = write(&store, read_in(1, 9)).unwrap_err();
    assert!(late.to_string().contains("begun anew"), "{late}");
    store.close().unwrap();
    let store = open(&directory.0, T);
    assert!(!applied(&store, read_in(2, 5)), "it was taken before the restart");
    let sources = store.sources("s").unwrap();
    assert_eq!((sources[0].next_offset, sources[0].log.generation), (6, 2));
}

#[test]
fn source_offsets_journal_and_dead_letters_are_kept() {
    let directory = Directory::new();
    let store = with_tables(&directory.0);
    let record = |offset, id: &str| Tx {
        writes: vec![assert_write(2, id, put(10, None, offset), None)],
        position: Some(SourcePosition { topic: "t".to_owned(), partition: 3, offset }),
    };
    let letter = DeadLetter {
        id: 0,
        tenant: "default".to_owned(),
        stream: "s".to_owned(),
        topic: Some("t".to_owned()),
        partition: Some(3),
        offset: Some(2),
        reason: "broken".to_owned(),
        value: vec![0, 159, 146],
        size: 3,
        at: 0,
    };
    let batch = |txs, next_offset| Batch {
        txs,
        sources: vec![SourceAdvance {
            stream: "s".to_owned(),
            topic: "t".to_owned(),
            partition: 3,
            next_offset,
            log: SourceLog::default(),
        }],
        dead_letters: vec![letter.clone()],
        origin: Origin::Kafka { stream: "s".to_owned() },
        ..Batch::default()
    };
    write(&store, batch(vec![record(0, "a"), record(1, "b")], 3)).unwrap();
    let again = write(&store, batch(vec![record(1, "b"), record(3, "c")], 4)).unwrap();
    assert_eq!(again.outcomes, [TxOutcome::Duplicate, TxOutcome::Applied(TxId::new(4))]);
    assert_eq!(store.source_offsets("s").unwrap(), [("t".to_owned(), 3, 4)]);
    let letters = store.dead_letters(0, 10).unwrap();
    assert_eq!(letters.iter().map(|l| l.id).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(letters[0].value, [0, 159, 146]);
    assert_eq!(store.dead_letters(1, 10).unwrap().len(), 1);
    let journal = store.journal(TxId::new(1), TxId::new(4)).unwrap();
    assert_eq!(journal.len(), 3);
    assert_eq!(journal[1].positions[1].1.offset, 1);
    let times: Vec<_> = (1..=4).map(|tx| store.system_time(TxId::new(tx)).unwrap()).collect();
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
    for (place, at) in times.iter().enumerate() {
        let tx = TxId::new(u64::try_from(place).unwrap() + 1);
        // The second answer is remembered.
        for _ in 0..2 {
            assert_eq!(store.tx_at(*at).unwrap(), tx);
            let before = SystemTime::from_micros(at.micros() - 1);
            assert_eq!(store.tx_at(before).unwrap(), TxId::new(tx.get() - 1));
        }
    }
    assert_eq!(store.tx_at(SystemTime::from_micros(T - 1)).unwrap(), TxId::ZERO);
    assert_eq!(store.tx_at(SystemTime::END).unwrap(), TxId::new(4));
    assert!(store.system_time(TxId::new(5)).is_err());
}

#[test]
fn an_index_holds_what_was_there_before_and_what_comes_after() {
    let directory = Directory::new();
    let store = with_tables(&directory.0);
    write(&store, one(assert_write(1, "x", put(0, None, 7), None))).unwrap();
    write(&store, one(assert_write(1, "x", put(0, None, 8), None))).unwrap();
    let wanted =
        IndexDef { id: IndexId(0), table: TableId(1), columns: vec![ColumnId(1)], ready: false };
    let id = store.ensure_index(wanted.clone()).unwrap();
    assert_eq!(store.ensure_index(wanted).unwrap(), id);
    write(&store, one(assert_write(1, "y", put(0, None, 7), None))).unwrap();
    let found = |a: i64| {
        let tx = store.latest().tx;
        store.read(tx, |view| view.lookup(id, &[Value::Int(a)], None)).unwrap()
    };
    let keys = |a| found(a).into_iter().map(|(_, key)| key).collect::<Vec<_>>();
    assert_eq!(keys(7), [key("x"), key("y")]);
    assert_eq!(keys(8), [key("x")]);
    assert!(keys(9).is_empty());
    assert!(store.definitions().index_on(TableId(1), &[ColumnId(1)]).is_some());
}

#[test]
fn an_index_over_the_start_of_versions_finds_those_that_a_write_cut() {
    let directory = Directory::new();
    let store = with_tables(&directory.0);
    write(&store, one(assert_write(1, "x", put(0, Some(100), 7), None))).unwrap();
    write(&store, one(assert_write(1, "y", put(40, None, 7), None))).unwrap();
    let columns = vec![ColumnId(1), ColumnId::VALID_FROM];
    let wanted = IndexDef { id: IndexId(0), table: TableId(1), columns, ready: false };
    let id = store.ensure_index(wanted).unwrap();
    // Of x are now [0, 30) and [60, 100) of the first write, and [30, 60).
    write(&store, one(assert_write(1, "x", put(30, Some(60), 8), None))).unwrap();
    let found = |a: i64, least: i64, most: i64| {
        let bounds = (&Value::Timestamp(least), &Value::Timestamp(most));
        let mut keys = Vec::new();
        let mut each = |key| {
            keys.push(key);
            Ok(true)
        };
        let tenant = Tenant::default();
        store
            .read(store.latest().tx, |view| {
                view.lookup_between(id, &[Value::Int(a)], bounds, &tenant, &mut each)
            })
            .unwrap();
        keys
    };
    assert_eq!(found(7, 0, 0), [key("x")]);
    assert_eq!(found(7, 1, 39), []);
    assert_eq!(found(7, 40, 60), [key("y"), key("x")]);
    assert_eq!(found(7, 61, i64::MAX), []);
    assert_eq!(found(8, i64::MIN, i64::MAX), [key("x")]);
    assert_eq!(found(9, i64::MIN, i64::MAX), []);
}

#[test]
fn a_turn_commits_at_the_time_it_promised_and_nothing_comes_between() {
    let directory = Directory::new();
    let store = with_tables(&directory.0);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        drop(store.turn().await.unwrap());
        let turn = store.turn().await.unwrap();
        let basis = turn.basis();
        let waiting = store.submit(one(assert_write(1, "x", put(0, None, 1), None))).unwrap();
        let from = Assertion { from: AssertedFrom::SystemTime, ..put(0, None, 2) };
        let committed = turn.commit(one(assert_write(1, "y", from, None))).await.unwrap();
        assert_eq!(committed.last_tx, basis.tx.plus(1));
        assert_eq!(committed.system_time.micros(), basis.now.micros());
        let later = waiting.await.unwrap().unwrap();
        assert_eq!(later.last_tx, basis.tx.plus(2));
    });
    let y = versions(&store, 1, store.latest().tx).into_iter().find(|v| v.key == key("y"));
    let y = y.unwrap();
    let system_time = store.system_time(y.tx_from).unwrap();
    assert_eq!(y.valid.from().micros(), system_time.micros());
}

#[test]
fn cursors_are_read_back_in_order() {
    let directory = Directory::new();
    let store = with_tables(&directory.0);
    let entry = |key: &str, value: Option<&str>| {
        (key.as_bytes().to_vec(), value.map(|value| value.as_bytes().to_vec()))
    };
    store.put_cursors(&[entry("a/1", Some("x")), entry("a/2", Some("y"))], true).unwrap();
    store.put_cursors(&[entry("a/1", None), entry("b", Some("z"))], false).unwrap();
    assert_eq!(store.cursors(b"a/", 10).unwrap(), [(b"a/2".to_vec(), b"y".to_vec())]);
    assert_eq!(store.cursor(b"b").unwrap(), Some(b"z".to_vec()));
    assert_eq!(store.cursor(b"a/1").unwrap(), None);
}

#[test]
fn future_bounds_are_known_to_the_boundary_index() {
    let directory = Directory::new();
    let store = with_tables(&directory.0);
    write(&store, one(assert_write(2, "x", put(T + 100, Some(T + 200), 1), None))).unwrap();
    write(&store, one(assert_write(2, "x", put(T - 100, Some(T - 50), 2), None))).unwrap();
    let tx = store.latest().tx;
    let at = |micros| ValidTime::from_micros(micros);
    let next = store.read(tx, |view| view.next_boundary(TableId(2), at(T + 10))).unwrap();
    assert_eq!(next, Some(at(T + 100)));
    let found =
        store.read(tx, |view| view.boundaries(TableId(2), at(0), at(T + 1_000), 10)).unwrap();
    assert_eq!(found.iter().map(|(at, ..)| at.micros()).collect::<Vec<_>>(), [T + 100, T + 200]);
    let window = Period::new(at(0), at(T)).unwrap();
    assert!(window.contains(at(5)));
}

#[test]
fn a_correction_far_away_leaves_alone_what_lies_between() {
    let directory = Directory::new();
    let store = with_tables(&directory.0);
    let tx = |write| Tx { writes: vec![write], position: None };
    let mut txs: Vec<_> =
        (1..50).map(|i| tx(assert_write(2, "x", put(i * 10, Some(i * 10 + 5), i), None))).collect();
    txs.push(tx(assert_write(2, "x", put(15, Some(20), 77), Some(("e", 1)))));
    write(&store, Batch { txs, ..Batch::default() }).unwrap();
    let before = shown(&store, 2);
    write(&store, one(assert_write(2, "x", put(485, Some(490), 77), Some(("e", 2))))).unwrap();
    let after = shown(&store, 2);
    assert_eq!(after.len(), before.len());
    assert_eq!(after.iter().filter(|row| !before.contains(row)).count(), 1);
    let tx = store.latest().tx;
    let changes = store.read(tx, |view| view.changes(TableId(2), TxId::new(tx.get() - 1), tx, 100));
    let changed: Vec<_> = changes.unwrap().0[0]
        .changed
        .iter()
        .map(|period| (period.from().micros(), period.to().micros()))
        .collect();
    assert_eq!(changed, [(15, 20), (485, 490)]);
}

#[path = "store_erase_tests.rs"]
mod erasing;
#[path = "store_write_tests.rs"]
mod write_path;
