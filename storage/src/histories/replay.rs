//! A store rebuilt from the journal has the bytes of the first, whatever was written in between.

use std::collections::HashMap;

use super::*;
use crate::assertion::EventId;
use crate::batch::{
    DeadLetter, Event, Origin, SourceAdvance, SourcePosition, Tx, Write, WriteKind,
};
use crate::definitions::{Definition, DefinitionKind, IndexDef};
use crate::journal::JournalEntry;
use crate::schema::IndexId;
use crate::store::{SegmentPart, SegmentReader, segments};
use crate::tx::TxId;

/// The topic: what its records say, by partition and offset.
type Topic = HashMap<(i32, i64), Tx>;

fn write_of(random: &mut Random, table: u32) -> Write {
    let event = (table == 1 && !random.one_in(3)).then(|| Event {
        id: EventId(format!("e{}", random.below(20))),
        content_hash: u128::from(random.below(3)),
    });
    let kind = match event {
        Some(event) if random.one_in(5) => WriteKind::Retract { event_id: event.id },
        event => {
            let mut assertion = assertion(random);
            // An event's record says its own times.
            assertion.exact &= event.is_none();
            WriteKind::Assert { key: key(random), assertion, event }
        }
    };
    Write { tenant: tenant(random), table: TableId(table), kind }
}

fn tx(random: &mut Random) -> Tx {
    let first = u32::try_from(random.below(2)).unwrap();
    let mut writes = vec![write_of(random, first)];
    if random.one_in(2) {
        writes.push(write_of(random, 0));
    }
    Tx { writes, position: None }
}

fn letter(random: &mut Random) -> DeadLetter {
    DeadLetter {
        id: 0,
        tenant: "default".to_owned(),
        stream: "s".to_owned(),
        topic: None,
        partition: None,
        offset: None,
        reason: format!("reason {}", random.below(9)),
        value: vec![0, 255],
        size: 2,
        at: 0,
    }
}

/// A batch of a topic's records; some are without effect and take their offsets all the same.
fn of_topic(random: &mut Random, next: &mut [i64; 2], topic: &mut Topic) -> Batch {
    let mut batch = Batch { origin: Origin::Kafka { stream: "s".to_owned() }, ..Batch::default() };
    for _ in 0..random.below(4) {
        let partition = usize::try_from(random.below(2)).unwrap();
        let offset = next[partition];
        next[partition] += 1 + random.signed(3);
        let partition = i32::try_from(partition).unwrap();
        let tx = tx(random);
        topic.insert((partition, offset), tx.clone());
        let position = SourcePosition { topic: "t".to_owned(), partition, offset };
        batch.txs.push(Tx { position: Some(position), ..tx });
    }
    for partition in [0, 1] {
        let next_offset = next[usize::try_from(partition).unwrap()];
        let (stream, topic) = ("s".to_owned(), "t".to_owned());
        let log = crate::SourceLog::default();
        batch.sources.push(SourceAdvance { stream, topic, partition, next_offset, log });
    }
    if random.one_in(3) {
        batch.dead_letters.push(letter(random));
    }
    batch.mapped_at = TxId::new(1);
    batch
}

fn definition(random: &mut Random) -> Batch {
    let change = DefinitionChange::Put(Definition {
        kind: DefinitionKind::Mapping,
        name: format!("m{}", random.below(3)),
        body: serde_json::json!({ "z": random.below(9), "a": [1] }),
        tx: TxId::ZERO,
    });
    let txs = if random.one_in(2) { vec![tx(random)] } else { Vec::new() };
    Batch { definitions: vec![change], txs, ..Batch::default() }
}

/// Writes a history; ships its journal and opens the store anew now and then.
fn live(random: &mut Random, path: &Path, journal: &Path) -> Topic {
    let mut store = with_tables(path);
    let (mut topic, mut next) = (Topic::new(), [0, 0]);
    for step in 0..120 {
        let batch = match random.below(10) {
            0 => definition(random),
            1 => Batch { dead_letters: vec![letter(random)], ..Batch::default() },
            2..=5 => of_topic(random, &mut next, &mut topic),
            6 => {
                let origin = Origin::Events { stream: "s".to_owned() };
                let dead_letters = vec![letter(random)];
                Batch {
                    txs: vec![tx(random), tx(random)],
                    origin,
                    dead_letters,
                    ..Batch::default()
                }
            }
            _ => Batch { txs: vec![tx(random)], ..Batch::default() },
        };
        write(&store, batch).unwrap();
        if step == 60 {
            let columns = vec![ColumnId(2)];
            let index = IndexDef { id: IndexId(0), table: TableId(1), columns, ready: false };
            store.ensure_index(index).unwrap();
        }
        if random.one_in(15) {
            store.ship_journal(journal).unwrap();
        }
        if random.one_in(25) {
            store.close().unwrap();
            store = open(path);
        }
    }
    store.ship_journal(journal).unwrap();
    assert_eq!(store.ship_journal(journal).unwrap(), None, "nothing is lacking");
    store.close().unwrap();
    topic
}

/// The batch that an entry comes to.
fn batch_of(
    entry: &JournalEntry,
    definitions: Vec<DefinitionChange>,
    dead_letters: Vec<DeadLetter>,
    topic: &Topic,
) -> Batch {
    let detail = entry.replay.clone().unwrap();
    let mut txs = detail.txs;
    for (_, position) in &entry.positions {
        let tx = topic[&(position.partition, position.offset)].clone();
        txs.push(Tx { position: Some(position.clone()), ..tx });
    }
    Batch {
        definitions,
        txs,
        sources: detail.sources,
        dead_letters,
        origin: entry.origin.clone(),
        mapped_at: detail.mapped_at,
        system_time: None,
    }
}

fn replay(store: &Store, journal: &Path, topic: &Topic) {
    let mut letters = Vec::new();
    for (_, _, path) in segments(journal).unwrap() {
        let file = std::fs::File::open(&path).unwrap();
        let mut reader = SegmentReader::open(file, "segment").unwrap();
        assert_eq!(reader.head().after.0, store.latest().tx);
        while let Some(part) = reader.next().unwrap() {
            match part {
                SegmentPart::Letter(letter) => letters.push(letter),
                SegmentPart::Entry(entry, definitions) => {
                    let letters = std::mem::take(&mut letters);
                    let batch = batch_of(&entry, definitions, letters, topic);
                    store.replay(Some(*entry), batch).unwrap();
                }
                SegmentPart::End(end) => {
                    let dead_letters = std::mem::take(&mut letters);
                    let sources = end.sources;
                    let batch = Batch { sources, dead_letters, ..Batch::default() };
                    store.replay(None, batch).unwrap();
                }
            }
        }
    }
}

#[test]
fn a_replay_comes_to_the_same_bytes() {
    for seed in 0..8 {
        let mut random = Random(1_000 + seed);
        let (first, journal, second) = (Directory::new(), Directory::new(), Directory::new());
        let topic = live(&mut random, &first.0, &journal.0);
        let store = open(&second.0);
        replay(&store, &journal.0, &topic);
        let original = open(&first.0);
        assert_eq!(store.latest().tx, original.latest().tx);
        original.close().unwrap();
        store.close().unwrap();
        assert_equal_bytes(&first.0, &second.0, &format!("seed {seed}"));
    }
}

#[test]
fn what_comes_out_otherwise_is_refused_and_nothing_is_written() {
    let mut random = Random(31);
    let (first, journal, second) = (Directory::new(), Directory::new(), Directory::new());
    live(&mut random, &first.0, &journal.0);
    let original = open(&first.0);
    let store = with_tables(&second.0);
    let mut whole = Vec::new();
    original.export_journal(TxId::new(1), "memory", &mut whole).unwrap();
    let mut reader = SegmentReader::open(whole.as_slice(), "memory").unwrap();
    let entry = loop {
        if let Some(SegmentPart::Entry(entry, _)) = reader.next().unwrap() {
            break entry;
        }
    };
    assert_eq!(entry.first_tx, TxId::new(2));
    let txs = Batch { txs: vec![Tx::default(); 5], ..Batch::default() };
    let refused = store.replay(Some(JournalEntry::clone(&entry)), txs);
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    let later = JournalEntry { first_tx: TxId::new(3), ..JournalEntry::clone(&entry) };
    let refused = store.replay(Some(later), Batch::default());
    assert!(refused.unwrap_err().to_string().contains("does not follow"));
    assert_eq!(store.latest().tx, TxId::new(1));
    assert!(original.export_journal(original.latest().tx.plus(1), "memory", &mut whole).is_err());
    assert!(matches!(store.ship_journal(&journal.0), Err(Error::Segment { .. })), "foreign");
}

#[test]
fn a_segment_that_is_damaged_or_cut_off_is_found_out() {
    let directory = Directory::new();
    let store = with_tables(&directory.0);
    let mut random = Random(3);
    for _ in 0..3 {
        let dead_letters = vec![letter(&mut random)];
        write(&store, Batch { txs: vec![tx(&mut random)], dead_letters, ..Batch::default() })
            .unwrap();
    }
    let mut whole = Vec::new();
    store.export_journal(TxId::ZERO, "memory", &mut whole).unwrap();
    let read = |bytes: &[u8]| -> Result<usize> {
        let mut reader = SegmentReader::open(bytes, "memory")?;
        let mut parts = 0;
        while reader.next()?.is_some() {
            parts += 1;
        }
        Ok(parts)
    };
    assert_eq!(read(&whole).unwrap(), 4 + 3 + 1, "entries, letters, end");
    for at in 0..whole.len() {
        assert!(read(&whole[..at]).is_err(), "cut off at {at}");
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << random.below(8);
        assert!(read(&damaged).is_err(), "damaged at {at}");
    }
    whole.push(0);
    assert!(read(&whole).is_err());
}
