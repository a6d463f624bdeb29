use super::*;
use crate::assertion::{AssertedFrom, Assertion, EventId, Op};
use crate::batch::{Event, Write, WriteKind};
use crate::schema::{ColumnId, RowKey, TableId, Tenant};
use crate::source::LastRecord;
use crate::time::ValidTime;
use crate::value::{Row, Value};

fn position(partition: i32, offset: i64) -> SourcePosition {
    SourcePosition { topic: "presence".to_owned(), partition, offset }
}

fn entry() -> JournalEntry {
    JournalEntry {
        first_tx: TxId::new(10),
        count: 4,
        system_time: SystemTime::from_micros(-1),
        origin: Origin::Kafka { stream: "presence".to_owned() },
        positions: vec![
            (TxId::new(10), position(0, 5)),
            (TxId::new(12), position(7, 1_000_000)),
            (TxId::new(13), position(0, 9)),
        ],
        replay: None,
    }
}

fn bytes_of(entry: &JournalEntry) -> Vec<u8> {
    let detail = entry.replay.clone().unwrap_or_default();
    let mut operations = Vec::new();
    for tx in &detail.txs {
        put_operation(&mut operations, tx.writes.iter());
    }
    let mut bytes = Vec::new();
    entry.put(&detail, (detail.txs.len() as u64, &operations), &mut bytes);
    bytes
}

#[test]
fn an_entry_round_trips_at_every_depth() {
    let sources = vec![SourceAdvance {
        stream: "presence".to_owned(),
        topic: "presence".to_owned(),
        partition: 7,
        next_offset: 1_000_004,
        log: SourceLog::default(),
    }];
    let log = SourceLog {
        generation: 9,
        topic_id: Some([1; 16]),
        last: Some(LastRecord { offset: 1_000_003, hash: 77 }),
        stop: None,
    };
    let known: Vec<_> =
        sources.iter().map(|source| SourceAdvance { log, ..source.clone() }).collect();
    for (sources, format) in [(sources, 2), (known, 3)] {
        let detail = ReplayDetail {
            mapped_at: TxId::new(8),
            sources,
            last_dead_letter: 300,
            txs: Vec::new(),
        };
        round_trips(&JournalEntry { replay: Some(detail), ..entry() }, format);
    }
}

fn round_trips(whole: &JournalEntry, format: u8) {
    let bytes = bytes_of(whole);
    assert_eq!(bytes[0], format);
    let read = |depth| JournalEntry::read(&key::number(10), &bytes, depth).unwrap();
    assert_eq!(read(Depth::Whole), *whole);
    assert_eq!(read(Depth::Positions), entry());
    let bare = read(Depth::Times);
    assert!(bare.positions.is_empty());
    assert_eq!(bare.system_time_of(TxId::new(13)).micros(), 2);
    for length in 0..bytes.len() {
        let cut = JournalEntry::read(&key::number(10), &bytes[..length], Depth::Whole);
        assert!(cut.is_err(), "{length} of {} bytes", bytes.len());
    }
}

#[test]
fn an_entry_of_format_1_is_read_and_says_nothing_for_a_replay() {
    // Two transactions of a client at 1,000,000 us.
    let bytes = [1, 2, 0x40, 0x42, 0x0F, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let found = JournalEntry::read(&key::number(3), &bytes, Depth::Whole).unwrap();
    let expected = JournalEntry {
        first_tx: TxId::new(3),
        count: 2,
        system_time: SystemTime::from_micros(1_000_000),
        origin: Origin::Client,
        positions: Vec::new(),
        replay: None,
    };
    assert_eq!(found, expected);
}

#[test]
fn operations_round_trip() {
    let assertion = |op, from, exact, fields| Assertion {
        op,
        from,
        to: ValidTime::END,
        order: -7,
        fields: Row::new(fields),
        exact,
    };
    let write = |kind| Write { tenant: Tenant::new("acme").unwrap(), table: TableId(300), kind };
    let key = RowKey(vec![1, 0, 255]);
    let fields = vec![(ColumnId(1), Value::Null), (ColumnId(9), Value::Text("x".to_owned()))];
    let at = AssertedFrom::At(ValidTime::BEGIN);
    let event = Some(Event { id: EventId("e".to_owned()), content_hash: u128::MAX - 3 });
    let txs = vec![
        Tx {
            writes: vec![
                write(WriteKind::Assert {
                    key: key.clone(),
                    assertion: assertion(Op::Patch { set_nulls: true }, at, true, fields),
                    event,
                }),
                write(WriteKind::Retract { event_id: EventId("e".to_owned()) }),
            ],
            position: None,
        },
        Tx::default(),
        Tx {
            writes: vec![write(WriteKind::Assert {
                key,
                assertion: assertion(Op::Delete, AssertedFrom::SystemTime, false, Vec::new()),
                event: None,
            })],
            position: None,
        },
    ];
    let detail = ReplayDetail { txs, ..ReplayDetail::default() };
    let entry = JournalEntry {
        positions: Vec::new(),
        origin: Origin::Client,
        replay: Some(detail),
        ..entry()
    };
    let read = JournalEntry::read(&key::number(10), &bytes_of(&entry), Depth::Whole).unwrap();
    assert_eq!(read, entry);
}
