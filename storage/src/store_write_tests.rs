//! What callers see of the write path: shared syncs, a clock that jumps, a disk that is full.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant as Monotonic};

use super::*;
use crate::standing::Standing;

/// Takes the writer's turn, so that all that is handed in waits until it is given back.
fn hold(store: &Store) -> Turn {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.turn()).unwrap()
}

#[test]
fn writes_that_wait_together_share_one_sync() {
    let directory = Directory::new();
    drop(with_tables(&directory.0));
    let clock = Arc::new(ManualClock::at(T));
    let path = directory.0.clone();
    let options = Options { path, clock, sync: true, block_cache_bytes: 8 << 20 };
    let store = Store::open(options).unwrap();
    let turn = hold(&store);
    let waiting: Vec<_> = (0..20)
        .map(|n| store.submit(one(assert_write(1, "x", put(n, Some(n + 1), n), None))).unwrap())
        .collect();
    assert_eq!(store.metrics().unwrap().writer.queue_depth, 20);
    drop(turn);
    let mut txs = Vec::new();
    for answer in waiting {
        txs.push(answer.blocking_recv().unwrap().unwrap().last_tx);
    }
    let writer = store.metrics().unwrap().writer;
    assert_eq!((writer.log_syncs, writer.transactions, writer.queue_depth), (1, 20, 0));
    assert_eq!((writer.group_batches.count(), writer.wait_seconds.count()), (1, 20));
    assert!((writer.group_batches.sum - 20.0).abs() < f64::EPSILON);
    // Each is a batch of its own all the same: all are told the transaction that was theirs.
    txs.dedup();
    assert_eq!(txs.len(), 20);
}

#[test]
fn callers_wait_where_the_queue_is_full() {
    let directory = Directory::new();
    let store = with_tables(&directory.0);
    let turn = hold(&store);
    let next = |n| one(assert_write(1, "x", put(n, Some(n + 1), n), None));
    let most = i64::try_from(writer::QUEUE_BATCHES_MAX).unwrap();
    let waiting: Vec<_> = (0..most).map(|n| store.submit(next(n)).unwrap()).collect();
    let held = || store.metrics().unwrap().writer.callers_held;
    assert_eq!(held(), 0);
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| write(&store, next(most)));
        while held() == 0 {
            std::thread::yield_now();
        }
        drop(turn);
        caller.join().unwrap().unwrap();
    });
    assert_eq!(held(), 0);
    for answer in waiting {
        answer.blocking_recv().unwrap().unwrap();
    }
    assert_eq!(shown(&store, 1).len(), writer::QUEUE_BATCHES_MAX + 1);
}

#[test]
fn the_log_is_synced_in_intervals_where_that_is_asked_for() {
    let directory = Directory::new();
    drop(with_tables(&directory.0));
    let open = |sync_interval| {
        let clock = Arc::new(ManualClock::at(T));
        let path = directory.0.clone();
        let options = Options { path, clock, sync: false, block_cache_bytes: 8 << 20 };
        Store::open_tuned(options, &Tuning { sync_interval, ..Tuning::default() }).unwrap()
    };
    let syncs = |store: &Store| store.metrics().unwrap().writer.log_syncs;
    let store = open(None);
    write(&store, one(assert_write(1, "x", put(1, None, 1), None))).unwrap();
    assert_eq!(syncs(&store), 0);
    drop(store);
    let store = open(Some(Duration::from_millis(1)));
    write(&store, one(assert_write(1, "x", put(2, None, 2), None))).unwrap();
    while syncs(&store) == 0 {
        std::thread::yield_now();
    }
}

/// A clock that stands wherever it is put, earlier too.
struct Jumping(AtomicI64);

impl Clock for Jumping {
    fn now_micros(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Monotonic {
        crate::clock::RealClock.monotonic()
    }

    fn set(&self, micros: i64) -> Result<()> {
        self.0.store(micros, Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn system_time_and_now_only_grow_whatever_the_clock_does() {
    let directory = Directory::new();
    drop(with_tables(&directory.0));
    let clock = Arc::new(Jumping(AtomicI64::new(T)));
    let open = || {
        let (path, clock) = (directory.0.clone(), Arc::clone(&clock) as Arc<dyn Clock>);
        Store::open(Options { path, clock, sync: false, block_cache_bytes: 8 << 20 }).unwrap()
    };
    let mut store = open();
    let mut random = 7_u64;
    let mut last = store.latest().now.micros();
    let mut jumps = 0;
    for round in 0..200 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let hours = i64::try_from(random >> 33).unwrap() % 4_000 - 2_000;
        let at = 5_000 * 3_600 * T + hours * 3_600 * T;
        clock.set(at).unwrap();
        let committed =
            write(&store, one(assert_write(1, "x", put(round, None, round), None))).unwrap();
        let time = committed.system_time.micros();
        assert!(time > last, "round {round}: {time} after {last}");
        assert_eq!(time, at.max(last + 1), "round {round}");
        let behind = store.metrics().unwrap().writer.clock_behind;
        let expected = u64::try_from((last - at).max(0)).unwrap();
        assert_eq!(behind, Duration::from_micros(expected), "round {round}");
        jumps = jumps.max(store.metrics().unwrap().writer.clock_jumps);
        last = store.latest().now.micros();
        assert_eq!(last, time);
        if round % 50 == 49 {
            drop(store);
            store = open();
            assert!(store.latest().now.micros() >= last, "round {round}");
        }
    }
    assert!(jumps > 10, "{jumps} jumps were noticed");
    // Every system time leads to its own transaction, and answers of the past stay.
    let journal = store.journal(TxId::new(1), store.latest().tx).unwrap();
    let times: Vec<_> = journal.iter().map(|entry| entry.system_time).collect();
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
    for entry in &journal {
        assert_eq!(store.tx_at(entry.system_time).unwrap(), entry.first_tx);
    }
}

#[test]
fn a_full_disk_refuses_writes_and_answers_reads() {
    let directory = Directory::new();
    let store = with_tables(&directory.0);
    write(&store, one(assert_write(1, "x", put(1, None, 1), None))).unwrap();
    store.close().unwrap();
    let open = |disk_reserve_bytes| {
        let clock = Arc::new(ManualClock::at(T));
        let path = directory.0.clone();
        let options = Options { path, clock, sync: true, block_cache_bytes: 8 << 20 };
        Store::open_tuned(options, &Tuning { disk_reserve_bytes, ..Tuning::default() }).unwrap()
    };
    let store = open(u64::MAX / 2);
    let before = store.latest();
    let standing = store.watch_standing();
    assert_eq!(*standing.borrow(), Standing::Well);
    for _ in 0..3 {
        let refused = write(&store, one(assert_write(1, "x", put(5, None, 5), None))).unwrap_err();
        assert!(matches!(refused, Error::DiskFull { .. }) && refused.is_retryable(), "{refused}");
        let refused = store.put_cursors(&[(b"a".to_vec(), None)], false).unwrap_err();
        assert!(matches!(refused, Error::DiskFull { .. }), "{refused}");
    }
    assert!(matches!(&*standing.borrow(), Standing::Full { .. }));
    assert_eq!((store.latest().tx, shown(&store, 1)), (before.tx, vec![(1, 0, 2, 1)]));
    // What must not be lost at the end fits into the reserve.
    store.close().unwrap();
    let store = open(1);
    assert_eq!(store.latest().tx, before.tx);
    // A write that only the disk refuses is no reason to stay: the store finds room by itself.
    let engine = store.engine().unwrap();
    engine.keeper().admit(u64::MAX).unwrap_err();
    write(&store, Batch { txs: vec![Tx::default()], ..Batch::default() }).unwrap();
    assert_eq!(store.standing(), Standing::Well);
    engine.keeper().admit(u64::MAX).unwrap_err();
    drop(engine);
    let turn = hold(&store);
    assert!(matches!(store.standing(), Standing::Full { .. }));
    drop(turn);
    while store.standing() != Standing::Well {
        std::thread::yield_now();
    }
    let before = store.latest();
    let committed = write(&store, one(assert_write(1, "x", put(5, None, 5), None))).unwrap();
    assert_eq!(committed.last_tx, before.tx.plus(1));
}

#[test]
fn only_the_columns_asked_for_are_decoded_and_none_of_what_is_not_believed() {
    let directory = Directory::new();
    let store = with_tables(&directory.0);
    let wide = said(Op::Put, 10, Some(20), Some(1), Some("text"));
    write(&store, one(assert_write(1, "x", wide, None))).unwrap();
    write(&store, one(assert_write(1, "x", put(30, None, 2), None))).unwrap();
    store.close().unwrap();
    // The text of the first version is made unreadable: only who decodes it can tell.
    spoil(&directory.0, b"text");
    let store = open(&directory.0, T);
    let definitions = store.definitions();
    let def = definitions.table_by_id(TableId(1)).unwrap();
    let scan = |valid, columns| Scan {
        table: def,
        tenant: None,
        keys: Keys::All,
        valid,
        system: SystemBound::Latest,
        columns,
        whole: true,
    };
    let read = |scan: &Scan<'_>| store.read(store.latest().tx, |view| view.collect(scan));
    let (a, b) = ([ColumnId(1)], [ColumnId(2)]);
    assert_eq!(read(&scan(ValidBound::ALL, Some(&a))).unwrap().len(), 2);
    assert!(matches!(read(&scan(ValidBound::ALL, Some(&b))), Err(Error::Corrupt { .. })));
    // Outside of its period the version is passed by, whatever it holds.
    let later = ValidBound::AsOf(ValidTime::from_micros(40));
    assert_eq!(read(&scan(later, None)).unwrap().len(), 1);
    let before = ValidBound::AsOf(ValidTime::from_micros(15));
    assert!(matches!(read(&scan(before, None)), Err(Error::Corrupt { .. })));
}

/// Puts bytes that are no text in the place of a text in every value of the timeline.
fn spoil(path: &Path, text: &[u8]) {
    let engine = Engine::open(path, 8 << 20).unwrap();
    let mut writes = WriteBatch::default();
    let family = engine.family(Family::Timeline);
    engine
        .each_from(Family::Timeline, &[], &[], |key, value| {
            if let Some(at) = value.windows(text.len()).position(|part| part == text) {
                let mut spoilt = value.to_vec();
                spoilt[at..at + text.len()].fill(0xFF);
                writes.put_cf(family, key, spoilt);
            }
            Ok(true)
        })
        .unwrap();
    assert_eq!(writes.len(), 1);
    engine.write(writes, true).unwrap();
}
