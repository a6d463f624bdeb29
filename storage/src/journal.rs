//! The journal: tx id, system time and source position of every transaction, one entry a batch.
//!
//! ```text
//! key     first tx 8
//! value   format 1 | count varint | system time 8 | origin (tag 1, stream) | topics | positions
//! ```

use std::collections::HashMap;

use crate::batch::{Origin, SourcePosition};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::families::Family;
use crate::key;
use crate::row;
use crate::time::SystemTime;
use crate::tx::TxId;

/// One batch of the journal: consecutive transactions with one base of system time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEntry {
    pub first_tx: TxId,
    pub count: u64,
    /// System time of `first_tx`; each later transaction of the batch is 1 us later.
    pub system_time: SystemTime,
    pub origin: Origin,
    /// Source positions by transaction, where they came from a source.
    pub positions: Vec<(TxId, SourcePosition)>,
}

impl JournalEntry {
    /// Returns the last transaction.
    pub fn last_tx(&self) -> TxId {
        self.first_tx.plus(self.count.saturating_sub(1))
    }

    /// Returns the system time of one of its transactions.
    pub fn system_time_of(&self, tx: TxId) -> SystemTime {
        let place = i64::try_from(tx.get().saturating_sub(self.first_tx.get()));
        self.system_time.saturating_add(place.unwrap_or(i64::MAX))
    }

    /// Appends the value.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.push(row::FORMAT);
        row::put_varint(out, self.count);
        out.extend_from_slice(&self.system_time.micros().to_le_bytes());
        let (tag, stream) = match &self.origin {
            Origin::Client => (0, ""),
            Origin::Events { stream } => (1, stream.as_str()),
            Origin::Kafka { stream } => (2, stream.as_str()),
        };
        out.push(tag);
        put_text(out, stream);
        let mut partitions: Vec<(&str, i32, i64)> = Vec::new();
        let mut places = Vec::with_capacity(self.positions.len() * 4);
        let mut last_tx = self.first_tx.get();
        for (tx, position) in &self.positions {
            let source = (position.topic.as_str(), position.partition);
            let at =
                partitions.iter().position(|(topic, partition, _)| (*topic, *partition) == source);
            let at = at.unwrap_or_else(|| {
                partitions.push((source.0, source.1, 0));
                partitions.len() - 1
            });
            row::put_varint(&mut places, tx.get().saturating_sub(last_tx));
            row::put_varint(&mut places, at as u64);
            row::put_varint(&mut places, row::zigzag(position.offset - partitions[at].2));
            partitions[at].2 = position.offset;
            last_tx = tx.get();
        }
        row::put_varint(out, partitions.len() as u64);
        for (topic, partition, _) in &partitions {
            put_text(out, topic);
            row::put_varint(out, row::zigzag(i64::from(*partition)));
        }
        row::put_varint(out, self.positions.len() as u64);
        out.extend_from_slice(&places);
    }

    /// Reads an entry; without positions where they are not wanted.
    pub(crate) fn read(key: &[u8], mut bytes: &[u8], with_positions: bool) -> Result<Self> {
        let first_tx = TxId::new(key::split_number(key)?);
        row::take_format(&mut bytes)?;
        let count = row::take_varint(&mut bytes)?;
        let micros = i64::from_le_bytes(row::take_array(&mut bytes)?);
        let tag = row::take_byte(&mut bytes)?;
        let stream = take_text(&mut bytes)?;
        let origin = match tag {
            0 => Origin::Client,
            1 => Origin::Events { stream },
            2 => Origin::Kafka { stream },
            _ => return Err(damaged("an origin of unknown kind")),
        };
        let positions =
            if with_positions { take_positions(&mut bytes, first_tx)? } else { Vec::new() };
        let system_time = SystemTime::from_micros(micros);
        Ok(Self { first_tx, count, system_time, origin, positions })
    }
}

fn damaged(why: &str) -> Error {
    Error::Corrupt { what: "journal", why: why.to_owned() }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    row::put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn take_text(bytes: &mut &[u8]) -> Result<String> {
    let length = row::take_length(bytes)?;
    let text = row::take_slice(bytes, length)?;
    String::from_utf8(text.to_vec()).map_err(|_| damaged("text is no UTF-8"))
}

fn take_positions(bytes: &mut &[u8], first: TxId) -> Result<Vec<(TxId, SourcePosition)>> {
    let mut partitions = Vec::new();
    for _ in 0..row::take_length(bytes)? {
        let topic = take_text(bytes)?;
        let partition = i32::try_from(row::unzigzag(row::take_varint(bytes)?))
            .map_err(|_| damaged("partition out of range"))?;
        partitions.push((topic, partition, 0_i64));
    }
    let count = row::take_length(bytes)?;
    let mut positions = Vec::with_capacity(count.min(bytes.len()));
    let mut tx = first;
    for _ in 0..count {
        tx = tx.plus(row::take_varint(bytes)?);
        let at = row::take_length(bytes)?;
        let step = row::unzigzag(row::take_varint(bytes)?);
        let source = partitions.get_mut(at).ok_or_else(|| damaged("no such partition"))?;
        source.2 += step;
        let (topic, partition, offset) = (source.0.clone(), source.1, source.2);
        positions.push((tx, SourcePosition { topic, partition, offset }));
    }
    Ok(positions)
}

/// Returns the last entry; nothing in an empty store.
pub(crate) fn last(engine: &Engine) -> Result<Option<JournalEntry>> {
    let mut entries = engine.iterator(Family::Transactions);
    entries.seek_to_last();
    let entry = entries.item().map(|(key, value)| JournalEntry::read(key, value, false));
    entries.status()?;
    entry.transpose()
}

/// Returns the entry that holds a committed transaction.
pub(crate) fn entry_of(engine: &Engine, tx: TxId) -> Result<Option<JournalEntry>> {
    let mut entries = engine.iterator(Family::Transactions);
    entries.seek_for_prev(key::number(tx.get()));
    let entry = entries.item().map(|(key, value)| JournalEntry::read(key, value, false));
    entries.status()?;
    Ok(entry.transpose()?.filter(|entry| tx <= entry.last_tx()))
}

/// Returns the system time of a committed transaction; the start of time for that before the first.
pub(crate) fn system_time(engine: &Engine, tx: TxId, latest: TxId) -> Result<SystemTime> {
    if tx == TxId::ZERO {
        return Ok(SystemTime::BEGIN);
    }
    let unreached = || Error::Unreached { asked: tx.get(), latest: latest.get() };
    if tx > latest {
        return Err(unreached());
    }
    Ok(entry_of(engine, tx)?.ok_or_else(unreached)?.system_time_of(tx))
}

/// Returns the last transaction up to `latest` with a system time at or before `at`.
pub(crate) fn tx_at(engine: &Engine, at: SystemTime, latest: TxId) -> Result<TxId> {
    // Invariant: `low` is at or before `at`, `high` is later (or the one after the last).
    let (mut low, mut high) = (0, latest.get() + 1);
    while high - low > 1 {
        let middle = u64::midpoint(low, high);
        let Some(entry) = entry_of(engine, TxId::new(middle))? else {
            return Err(damaged("a transaction is missing"));
        };
        if entry.system_time > at {
            high = entry.first_tx.get();
        } else if entry.system_time_of(entry.last_tx()) <= at {
            low = entry.last_tx().get().min(latest.get());
        } else {
            let place = at.micros() - entry.system_time.micros();
            return Ok(entry.first_tx.plus(place.unsigned_abs()));
        }
    }
    Ok(TxId::new(low))
}

/// Returns the entries with transactions in `from..=to`, whole, in order.
pub(crate) fn entries(engine: &Engine, from: TxId, to: TxId) -> Result<Vec<JournalEntry>> {
    let start = entry_of(engine, from)?.map_or(from, |entry| entry.first_tx);
    let mut found = Vec::new();
    engine.each_from(Family::Transactions, &[], &key::number(start.get()), |key, value| {
        let within = key::split_number(key)? <= to.get();
        if within {
            found.push(JournalEntry::read(key, value, true)?);
        }
        Ok(within)
    })?;
    Ok(found)
}

/// Next offsets to read, by stream, topic and partition.
pub(crate) type SourceOffsets = HashMap<(String, String, i32), i64>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_round_trips() {
        let position =
            |partition, offset| SourcePosition { topic: "presence".to_owned(), partition, offset };
        let entry = JournalEntry {
            first_tx: TxId::new(10),
            count: 4,
            system_time: SystemTime::from_micros(-1),
            origin: Origin::Kafka { stream: "presence".to_owned() },
            positions: vec![
                (TxId::new(10), position(0, 5)),
                (TxId::new(12), position(7, 1_000_000)),
                (TxId::new(13), position(0, 9)),
            ],
        };
        let mut bytes = Vec::new();
        entry.put(&mut bytes);
        assert_eq!(JournalEntry::read(&key::number(10), &bytes, true).unwrap(), entry);
        let bare = JournalEntry::read(&key::number(10), &bytes, false).unwrap();
        assert!(bare.positions.is_empty());
        assert_eq!(bare.system_time_of(TxId::new(13)).micros(), 2);
    }
}
