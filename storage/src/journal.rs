//! The journal: tx id, system time and source position of every transaction, one entry a batch.
//!
//! ```text
//! key     first tx 8
//! value   format 2 or 3 | count varint | system time 8 | origin (tag 1, stream) | partitions | positions
//!         | mapped at varint | sources | last dead letter varint | operations
//! ```
//!
//! With it a store is rebuilt exactly: records of a topic are read again at the same positions and
//! mapped under the same definitions, everything else stands here as [`operations`]. Entries of
//! format 1 end after the positions; in those of format 3 each source says what its log is known
//! by. [`segment`] is the form in which it leaves the directory.

use std::collections::{BTreeMap, HashMap};

use crate::batch::{Origin, SourceAdvance, SourcePosition, Tx};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::families::Family;
use crate::key;
use crate::row;
use crate::source::{SourceLog, SourcePlace};
use crate::time::SystemTime;
use crate::tx::TxId;

mod operations;
pub mod segment;
pub mod ship;

pub(crate) use operations::{put as put_operation, take_tx as take_operation};

/// The number that values start with.
const FORMAT: u8 = 3;
/// Where nothing is known of the sources' logs.
const FORMAT_WITHOUT_LOGS: u8 = 2;
/// Without what a replay needs.
const FORMAT_WITHOUT_REPLAY: u8 = 1;

/// One batch of the journal: consecutive transactions with one base of system time.
#[derive(Debug, Clone, PartialEq)]
pub struct JournalEntry {
    pub first_tx: TxId,
    pub count: u64,
    /// System time of `first_tx`; each later transaction of the batch is 1 us later.
    pub system_time: SystemTime,
    pub origin: Origin,
    /// Source positions by transaction, where they came from a source.
    pub positions: Vec<(TxId, SourcePosition)>,
    /// Nothing where it was not asked for, or in an entry of format 1.
    pub replay: Option<ReplayDetail>,
}

/// What a replay of a batch needs besides its records.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReplayDetail {
    /// The transaction of the definitions that records were mapped under.
    pub mapped_at: TxId,
    /// How far sources were read since the entry before.
    pub sources: Vec<SourceAdvance>,
    /// The last dead letter that was durable with the batch; 0 where there was none yet.
    pub last_dead_letter: u64,
    /// The operations of each transaction; empty where they come from a topic or there are none.
    pub txs: Vec<Tx>,
}

/// How much of an entry is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Depth {
    Times,
    Positions,
    Whole,
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

    /// Appends the value: `detail`'s own transactions do not count, their `count` stand encoded in
    /// `operations`.
    pub(crate) fn put(
        &self,
        detail: &ReplayDetail,
        (count, operations): (u64, &[u8]),
        out: &mut Vec<u8>,
    ) {
        let has_logs = has_logs(&detail.sources);
        out.push(if has_logs { FORMAT } else { FORMAT_WITHOUT_LOGS });
        self.put_times(out);
        self.put_positions(out);
        row::put_varint(out, detail.mapped_at.get());
        put_sources(out, &detail.sources, has_logs);
        row::put_varint(out, detail.last_dead_letter);
        row::put_varint(out, count);
        out.extend_from_slice(operations);
    }

    fn put_times(&self, out: &mut Vec<u8>) {
        row::put_varint(out, self.count);
        out.extend_from_slice(&self.system_time.micros().to_le_bytes());
        let (tag, stream) = match &self.origin {
            Origin::Client => (0, ""),
            Origin::Events { stream } => (1, stream.as_str()),
            Origin::Kafka { stream } => (2, stream.as_str()),
            Origin::Import => (3, ""),
        };
        out.push(tag);
        put_text(out, stream);
    }

    fn put_positions(&self, out: &mut Vec<u8>) {
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

    /// Reads an entry, as much of it as is wanted.
    pub(crate) fn read(key: &[u8], mut bytes: &[u8], depth: Depth) -> Result<Self> {
        let first_tx = TxId::new(key::split_number(key)?);
        let format = row::take_byte(&mut bytes)?;
        if !matches!(format, FORMAT | FORMAT_WITHOUT_LOGS | FORMAT_WITHOUT_REPLAY) {
            return Err(damaged(&format!("format {format} is not known")));
        }
        let count = row::take_varint(&mut bytes)?;
        let micros = i64::from_le_bytes(row::take_array(&mut bytes)?);
        let tag = row::take_byte(&mut bytes)?;
        let stream = take_text(&mut bytes)?;
        let origin = match tag {
            0 => Origin::Client,
            1 => Origin::Events { stream },
            2 => Origin::Kafka { stream },
            3 => Origin::Import,
            _ => return Err(damaged("an origin of unknown kind")),
        };
        let mut entry = Self {
            first_tx,
            count,
            system_time: SystemTime::from_micros(micros),
            origin,
            positions: Vec::new(),
            replay: None,
        };
        if depth >= Depth::Positions {
            entry.positions = take_positions(&mut bytes, first_tx)?;
        }
        if depth == Depth::Whole && format != FORMAT_WITHOUT_REPLAY {
            entry.replay = Some(ReplayDetail {
                mapped_at: TxId::new(row::take_varint(&mut bytes)?),
                sources: take_sources(&mut bytes, format == FORMAT)?,
                last_dead_letter: row::take_varint(&mut bytes)?,
                txs: operations::take(&mut bytes)?,
            });
        }
        Ok(entry)
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

/// True where something is known of the logs of sources.
fn has_logs(sources: &[SourceAdvance]) -> bool {
    sources.iter().any(|source| !source.log.is_unknown())
}

/// Appends how far sources were read, and of which logs where that is wanted.
fn put_sources(out: &mut Vec<u8>, sources: &[SourceAdvance], with_logs: bool) {
    row::put_varint(out, sources.len() as u64);
    for source in sources {
        put_text(out, &source.stream);
        put_text(out, &source.topic);
        row::put_varint(out, row::zigzag(i64::from(source.partition)));
        row::put_varint(out, row::zigzag(source.next_offset));
        if with_logs {
            source.log.put(out);
        }
    }
}

fn take_sources(bytes: &mut &[u8], with_logs: bool) -> Result<Vec<SourceAdvance>> {
    let count = row::take_length(bytes)?;
    let mut sources = Vec::with_capacity(count.min(bytes.len()));
    for _ in 0..count {
        sources.push(SourceAdvance {
            stream: take_text(bytes)?,
            topic: take_text(bytes)?,
            partition: i32::try_from(row::unzigzag(row::take_varint(bytes)?))
                .map_err(|_| damaged("partition out of range"))?,
            next_offset: row::unzigzag(row::take_varint(bytes)?),
            log: if with_logs { SourceLog::take(bytes)? } else { SourceLog::default() },
        });
    }
    Ok(sources)
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
    let entry = entries.item().map(|(key, value)| JournalEntry::read(key, value, Depth::Times));
    entries.status()?;
    entry.transpose()
}

/// Returns the entry that holds a committed transaction, no more than its times.
pub(crate) fn entry_of(engine: &Engine, tx: TxId) -> Result<Option<JournalEntry>> {
    entry_at(engine, tx, Depth::Times)
}

/// Returns the entry that holds a committed transaction.
fn entry_at(engine: &Engine, tx: TxId, depth: Depth) -> Result<Option<JournalEntry>> {
    let mut entries = engine.iterator(Family::Transactions);
    entries.seek_for_prev(key::number(tx.get()));
    let entry = entries.item().map(|(key, value)| JournalEntry::read(key, value, depth));
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

/// Returns the entries with transactions in `from..=to`, uncut, in order, without what a replay needs.
pub(crate) fn entries(engine: &Engine, from: TxId, to: TxId) -> Result<Vec<JournalEntry>> {
    let start = entry_of(engine, from)?.map_or(from, |entry| entry.first_tx);
    let mut found = Vec::new();
    engine.each_from(Family::Transactions, &[], &key::number(start.get()), |key, value| {
        let within = key::split_number(key)? <= to.get();
        if within {
            found.push(JournalEntry::read(key, value, Depth::Positions)?);
        }
        Ok(within)
    })?;
    Ok(found)
}

/// Where sources stand, by stream, topic and partition.
pub(crate) type SourceOffsets = HashMap<(String, String, i32), SourcePlace>;

/// How far sources were read since the last entry, in the order of stream, topic and partition.
pub(crate) type Unjournaled = BTreeMap<(String, String, i32), SourcePlace>;

/// Returns sources in the order of the map, which is what an entry says of them.
pub(crate) fn advances(sources: &Unjournaled) -> Vec<SourceAdvance> {
    let advance = |((stream, topic, partition), place): (&(String, String, i32), &SourcePlace)| {
        let (stream, topic) = (stream.clone(), topic.clone());
        let SourcePlace { next_offset, log } = *place;
        SourceAdvance { stream, topic, partition: *partition, next_offset, log }
    };
    sources.iter().map(advance).collect()
}

#[cfg(test)]
#[path = "journal/tests.rs"]
mod tests;
