//! Erasing and retention at the store: what is hidden, what leaves the files, what is kept.

use super::*;
use crate::batch::Origin;
use crate::definitions::DefinitionChange;
use crate::retention::Needed;

fn erase(table: u32, id: &str) -> Batch {
    let kind = WriteKind::Erase { key: key(id) };
    one(Write { tenant: Tenant::default(), table: TableId(table), kind })
}

fn text(from: i64, b: &str) -> Assertion {
    said(Op::Put, from, None, Some(1), Some(b))
}

fn record(write: Write) -> Batch {
    Batch { origin: Origin::Events { stream: "s".to_owned() }, ..one(write) }
}

/// Carries erasures on until nothing is under way.
fn purge(store: &Store) {
    for _ in 0..10_000 {
        store.advance_erasures(TxId::END).unwrap();
        if store.erasures_under_way().unwrap().is_empty() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("files are never gone");
}

/// Returns which of the texts stand in any file below a directory, as they are or in hex, which is
/// how the engine's log names keys.
fn found<'t>(directory: &Path, texts: &[&'t str]) -> Vec<&'t str> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            // The engine deletes files beside this: what is gone holds nothing.
            let Ok(bytes) = std::fs::read(&path) else { continue };
            for text in texts {
                let upper: String = text.bytes().map(|byte| format!("{byte:02X}")).collect();
                for spelling in [(*text).to_owned(), upper.to_lowercase(), upper] {
                    if bytes.windows(spelling.len()).any(|window| window == spelling.as_bytes()) {
                        found.push(*text);
                    }
                }
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn an_erased_key_shows_at_no_time_but_to_projections() {
    let directory = Directory::new();
    let store = with_tables(&directory.0);
    for table in [1, 2] {
        write(&store, one(assert_write(table, "x", put(10, None, 1), None))).unwrap();
        write(&store, one(assert_write(table, "x", put(20, None, 2), None))).unwrap();
        write(&store, one(assert_write(table, "y", put(10, None, 3), None))).unwrap();
    }
    let before = store.latest().tx;
    let then = shown_at(&store, 1, before);
    for table in [1, 2] {
        write(&store, erase(table, "x")).unwrap();
    }
    for table in [1, 2] {
        for tx in 1..=store.latest().tx.get() {
            let seen = versions(&store, table, TxId::new(tx));
            assert!(seen.iter().all(|version| version.key == key("y")), "{table} at {tx}");
        }
        let definitions = store.definitions();
        let def = definitions.table_by_id(TableId(table)).unwrap();
        let point = |view: &View<'_>| {
            view.point(def, &Tenant::default(), &key("x"), ValidTime::from_micros(15))
        };
        assert!(store.read(before, point).unwrap().is_none());
        assert!(store.read_unerased(before, point).unwrap().is_some());
        assert!(store.read_unerased(store.latest().tx, point).unwrap().is_none());
        let changes = |view: &View<'_>| view.changes(TableId(table), TxId::ZERO, view.tx(), 100);
        let (shown, _) = store.read(store.latest().tx, changes).unwrap();
        assert!(shown.iter().all(|change| change.key == key("y")));
        let (all, _) = store.read_unerased(store.latest().tx, changes).unwrap();
        assert!(all.iter().any(|change| change.key == key("x")));
    }
    assert_ne!(then, shown_at(&store, 1, before));
}

#[test]
fn erasing_hides_the_past_of_a_new_life_before_and_after_the_purge() {
    let directory = Directory::new();
    let store = with_tables(&directory.0);
    write(&store, one(assert_write(2, "x", put(10, None, 1), Some(("e", 1))))).unwrap();
    write(&store, one(assert_write(2, "x", put(20, None, 2), Some(("f", 1))))).unwrap();
    write(&store, erase(2, "x")).unwrap();
    write(&store, one(assert_write(2, "x", put(5, None, 7), None))).unwrap();
    write(&store, one(assert_write(2, "x", put(30, None, 8), None))).unwrap();
    let expected = [(5, 30, 5, 7), (30, 0, 6, 8)];
    for _ in 0..2 {
        assert_eq!(shown(&store, 2), expected);
        assert_eq!(shown_at(&store, 2, TxId::new(5)), [(5, 0, 5, 7)]);
        assert_eq!(shown_at(&store, 2, TxId::new(3)), []);
        purge(&store);
    }
    // What its events were is forgotten: the same id is new.
    let again = write(&store, one(assert_write(2, "x", put(1, None, 1), Some(("e", 1))))).unwrap();
    assert!(matches!(again.outcomes[0], TxOutcome::Applied(_)));
    assert_eq!(store.erasures().unwrap().len(), 1);
}

#[test]
fn records_of_what_held_before_the_erasure_are_dropped() {
    let directory = Directory::new();
    let mut store = with_tables(&directory.0);
    write(&store, one(assert_write(2, "x", put(10, None, 1), None))).unwrap();
    let erased = write(&store, erase(2, "x")).unwrap().system_time.micros();
    let late = |from| record(assert_write(2, "x", put(from, None, 3), None));
    for _ in 0..2 {
        let before = store.latest().tx;
        assert_eq!(write(&store, late(erased)).unwrap().outcomes, [TxOutcome::Erased]);
        assert_eq!(write(&store, late(10)).unwrap().outcomes, [TxOutcome::Erased]);
        assert_eq!(store.latest().tx, before);
        purge(&store);
        store.close().unwrap();
        store = open(&directory.0, 2 * T);
    }
}

#[test]
fn what_is_dropped_of_a_transaction_is_not_in_the_journal() {
    let directory = Directory::new();
    let store = with_tables(&directory.0);
    write(&store, one(assert_write(2, "x", put(10, None, 1), None))).unwrap();
    write(&store, erase(2, "x")).unwrap();
    let late = |id, b| one(assert_write(2, id, text(10, b), None)).txs.remove(0).writes.remove(0);
    let writes = vec![late("x", "dropped-text"), late("y", "kept-text")];
    let origin = Origin::Events { stream: "s".to_owned() };
    let batch = Batch { txs: vec![Tx { writes, position: None }], origin, ..Batch::default() };
    assert!(matches!(write(&store, batch).unwrap().outcomes[0], TxOutcome::Applied(_)));
    store.ship_journal(&directory.join("shipped")).unwrap();
    assert_eq!(found(&directory.0, &["dropped-text", "kept-text"]), ["kept-text"]);
}

#[test]
fn later_records_and_client_writes_are_a_new_life() {
    let directory = Directory::new();
    let store = with_tables(&directory.0);
    write(&store, one(assert_write(2, "x", put(10, None, 1), None))).unwrap();
    let erased = write(&store, erase(2, "x")).unwrap().system_time.micros();
    let later = record(assert_write(2, "x", put(erased + 1, None, 3), None));
    assert!(matches!(write(&store, later).unwrap().outcomes[0], TxOutcome::Applied(_)));
    let own = one(assert_write(2, "x", put(10, Some(20), 4), None));
    assert!(matches!(write(&store, own).unwrap().outcomes[0], TxOutcome::Applied(_)));
    assert_eq!(shown(&store, 2).len(), 2);
    let mixed = Batch {
        txs: vec![Tx {
            writes: [erase(2, "x"), one(assert_write(2, "y", put(1, None, 1), None))]
                .into_iter()
                .flat_map(|batch| batch.txs)
                .flat_map(|tx| tx.writes)
                .collect(),
            position: None,
        }],
        ..Batch::default()
    };
    assert!(matches!(write(&store, mixed), Err(Error::Refused { .. })));
}

#[test]
fn an_event_keeps_standing_for_the_neighbours_of_an_erased_key() {
    let directory = Directory::new();
    let store = with_tables(&directory.0);
    let writes = vec![
        assert_write(2, "x", put(10, None, 1), Some(("e", 1))),
        assert_write(2, "y", put(10, None, 1), Some(("e", 1))),
    ];
    let batch = Batch { txs: vec![Tx { writes, position: None }], ..Batch::default() };
    write(&store, batch).unwrap();
    write(&store, erase(2, "x")).unwrap();
    assert_eq!(shown(&store, 2).len(), 1);
    let kind = WriteKind::Retract { event_id: EventId("e".to_owned()) };
    write(&store, one(Write { tenant: Tenant::default(), table: TableId(2), kind })).unwrap();
    assert_eq!(shown(&store, 2), []);
}

#[test]
fn after_the_purge_no_file_holds_what_was_erased() {
    let directory = Directory::new();
    let mut store = with_tables(&directory.0);
    let index =
        IndexDef { id: IndexId(0), table: TableId(2), columns: vec![ColumnId(2)], ready: false };
    store.ensure_index(index).unwrap();
    let far = 1_000_000_000_000_000;
    for (id, first, second, event) in [
        ("erased-key", "erased-first", "erased-second", "erased-event"),
        ("kept-key", "kept-first", "kept-second", "kept-event"),
    ] {
        for table in [1, 2] {
            let event = (table == 2).then_some((event, 1));
            write(&store, one(assert_write(table, id, text(10, first), event))).unwrap();
            write(&store, one(assert_write(table, id, text(far, second), None))).unwrap();
            write(&store, one(assert_write(table, id, text(10, second), None))).unwrap();
        }
        let letter = DeadLetter {
            id: 0,
            tenant: "default".to_owned(),
            stream: "s".to_owned(),
            topic: None,
            partition: None,
            offset: None,
            reason: "no".to_owned(),
            value: format!("{{\"id\":\"{id}\",\"b\":\"{first}-letter\"}}").into_bytes(),
            size: 1,
            at: 0,
        };
        write(&store, Batch { dead_letters: vec![letter], ..Batch::default() }).unwrap();
    }
    store.engine().unwrap().db().flush_cf(store.engine().unwrap().family(Family::Current)).unwrap();
    let gone = ["erased-key", "erased-first", "erased-second", "erased-event"];
    let kept = ["kept-event", "kept-first", "kept-key", "kept-second"];
    assert_eq!(found(&directory.0, &gone).len(), gone.len());
    for table in [1, 2] {
        write(&store, erase(table, "erased-key")).unwrap();
    }
    // A projection that has not passed it holds the bytes back.
    let progress = store.advance_erasures(TxId::new(1)).unwrap();
    assert_eq!((progress.purged, progress.hidden), (0, 2));
    purge(&store);
    assert_eq!(found(&directory.0, &gone), Vec::<&str>::new());
    assert_eq!(found(&directory.0, &kept), kept);
    let letters = store.dead_letters(0, 10).unwrap();
    assert_eq!((letters[0].value.len(), letters[0].reason.as_str()), (0, "erased"));
    assert!(!letters[1].value.is_empty());
    store.close().unwrap();
    store = open(&directory.0, T);
    assert_eq!(found(&directory.0, &gone), Vec::<&str>::new());
    let left = versions(&store, 1, store.latest().tx);
    assert!(!left.is_empty() && left.iter().all(|version| version.key == key("kept-key")));
    for erasure in store.erasures().unwrap() {
        assert_eq!(erasure.state, crate::ErasureState::Erased);
        assert!(erasure.purged_at.is_some());
    }
}

fn keep_for(store: &Store, table: u32, micros: Option<i64>) {
    let change = DefinitionChange::Retention { table: TableId(table), micros };
    write(store, Batch { definitions: vec![change], ..Batch::default() }).unwrap();
}

fn all(store: &Store) -> Needed {
    Needed { tx: store.latest().tx, now: store.latest().now }
}

fn archived(store: &Store) -> usize {
    let mut count = 0;
    let each = |_: &[u8], _: &[u8]| {
        count += 1;
        Ok(true)
    };
    store.engine().unwrap().each_from(Family::Archive, &[], &[], each).unwrap();
    count
}

#[test]
fn history_older_than_a_tables_retention_is_deleted_and_said_to_be_gone() {
    let directory = Directory::new();
    let store = with_tables(&directory.0);
    let mut seen = Vec::new();
    for step in 0..20 {
        store.clock().set(T + step * 1_000).unwrap();
        for table in [1, 2] {
            let a = step;
            write(&store, one(assert_write(table, "x", put(10 + step, None, a), None))).unwrap();
            write(&store, one(assert_write(table, "x", put(10, Some(15), a), None))).unwrap();
        }
        let tx = store.latest().tx;
        seen.push((tx, shown_at(&store, 1, tx), shown_at(&store, 2, tx)));
    }
    let before = archived(&store);
    keep_for(&store, 1, Some(5_000));
    // Something is held: nothing from there on goes.
    let held = store.hold(seen[3].0);
    store.sweep(all(&store)).unwrap();
    assert_eq!(store.horizon(TableId(1)), seen[3].0);
    drop(held);
    let swept = store.sweep(all(&store)).unwrap();
    assert!(swept.pieces > 0 && !swept.more);
    assert!(archived(&store) < before);
    let horizon = store.horizon(TableId(1));
    assert!(horizon > seen[10].0, "{horizon}");
    for (tx, one, two) in &seen {
        assert_eq!(&shown_at(&store, 2, *tx), two, "the other table keeps all");
        let definitions = store.definitions();
        let scan = Scan {
            table: definitions.table_by_id(TableId(1)).unwrap(),
            tenant: None,
            keys: Keys::All,
            valid: ValidBound::ALL,
            system: SystemBound::Latest,
            columns: None,
            whole: true,
        };
        let read = store.read(*tx, |view| view.collect(&scan));
        if *tx >= horizon {
            assert_eq!(&shown_at(&store, 1, *tx), one);
        } else {
            assert!(matches!(read, Err(Error::Forgotten { .. })), "{tx}");
        }
    }
    let kept = store.read(store.latest().tx, |view| {
        let definitions = store.definitions();
        view.collect(&Scan {
            table: definitions.table_by_id(TableId(1)).unwrap(),
            tenant: None,
            keys: Keys::All,
            valid: ValidBound::ALL,
            system: SystemBound::Kept,
            columns: None,
            whole: true,
        })
    });
    assert!(kept.unwrap().iter().all(|version| version.tx_to.is_none_or(|to| to > horizon)));
    store.close().unwrap();
    assert_eq!(open(&directory.0, 2 * T).horizon(TableId(1)), horizon);
}

#[test]
fn a_sweep_stops_at_what_projections_need() {
    let directory = Directory::new();
    let store = with_tables(&directory.0);
    for a in 0..10 {
        write(&store, one(assert_write(1, "x", put(10, None, a), None))).unwrap();
    }
    keep_for(&store, 1, Some(1));
    store.clock().set(2 * T).unwrap();
    let needed = Needed { tx: TxId::new(4), now: ValidTime::BEGIN };
    store.sweep(needed).unwrap();
    assert_eq!(store.horizon(TableId(1)), TxId::new(4));
    assert_eq!(shown_at(&store, 1, TxId::new(4)), [(10, 0, 4, 2)]);
    keep_for(&store, 1, None);
    store.sweep(all(&store)).unwrap();
    assert_eq!(store.horizon(TableId(1)), TxId::new(4));
}
