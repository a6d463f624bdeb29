//! Rebuilding a store: the journal says what was committed, the topics have the records.
//!
//! Each entry of the journal is committed again under its own transactions and times. A batch of a
//! topic is read again at the positions that the entry names, in its order, and mapped under the
//! definitions that it was mapped under; everything else stands in the entry itself. Records that
//! had no effect are not read: duplicates, stale ones, what no mapping let through. Dead letters
//! come with the journal.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use everwhen_storage::{
    Batch, Clock, DeadLetter, DefinitionChange, JournalEntry, Origin, SegmentPart, SegmentReader,
    SourceAdvance, SourceLog, SourcePosition, Store, SystemTime, Tenant, TxId,
};

use crate::apply::TenantRule;
use crate::batch::Records;
use crate::error::{Error, Result};
use crate::kafka::Again;
use crate::plan::StreamPlan;

/// How to replay.
#[derive(Debug, Clone, Default)]
pub struct ReplayOptions {
    /// Brokers in place of those that the streams name.
    pub brokers: Option<String>,
    /// The last transaction wanted; all of the journal where nothing. A batch is never parted: the
    /// last one is that which holds this transaction.
    pub through: Option<TxId>,
    /// Stops before the batch that holds a later transaction than this.
    pub at_most: Option<TxId>,
    /// Stops before the batch that holds a transaction recorded later than this.
    pub at_most_time: Option<SystemTime>,
}

impl ReplayOptions {
    /// True where an entry is beyond what is wanted.
    fn ends_before(&self, entry: &JournalEntry) -> bool {
        let last = entry.last_tx();
        self.through.is_some_and(|through| through < entry.first_tx)
            || self.at_most.is_some_and(|most| most < last)
            || self.at_most_time.is_some_and(|most| most < entry.system_time_of(last))
    }
}

/// Where a replay came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// The last transaction of the store and its system time.
    pub last_tx: TxId,
    pub system_time: SystemTime,
    /// Transactions that were committed again, and the records read for them.
    pub transactions: u64,
    pub records: u64,
}

/// Brings a store to the state that segments of a journal describe, given in their order; what it
/// has already is passed over. Blocks. `progress` is told the last transaction, batch by batch.
///
/// # Errors
/// [`Error::Replay`] where segments do not follow the store or each other, a record is gone, or the
/// outcome differs; [`Error::Storage`] for a segment that is damaged. The store is then as of the
/// last batch before, and a later call goes on from there.
pub fn replay(
    store: &Store,
    segments: &[PathBuf],
    options: &ReplayOptions,
    progress: &mut dyn FnMut(&Replayed),
) -> Result<Replayed> {
    let clock = Arc::clone(store.clock());
    let mut replaying = Replaying {
        store,
        options,
        clock: &*clock,
        plans: HashMap::new(),
        topics: BTreeMap::new(),
        letters: Vec::new(),
        done: Replayed {
            last_tx: store.latest().tx,
            system_time: store.system_time(store.latest().tx)?,
            transactions: 0,
            records: 0,
        },
    };
    for path in segments {
        if !replaying.segment(path, progress)? {
            break;
        }
    }
    Ok(replaying.done)
}

struct Replaying<'a> {
    store: &'a Store,
    options: &'a ReplayOptions,
    clock: &'a dyn Clock,
    /// By stream and the transaction of the definitions.
    plans: HashMap<(String, TxId), Arc<StreamPlan>>,
    topics: BTreeMap<String, Again<'a>>,
    /// Dead letters that belong to the next entry.
    letters: Vec<DeadLetter>,
    done: Replayed,
}

impl Replaying<'_> {
    /// Replays one segment; false once the last transaction wanted is there.
    fn segment(&mut self, path: &Path, progress: &mut dyn FnMut(&Replayed)) -> Result<bool> {
        let shown = path.display().to_string();
        let file = File::open(path).map_err(|source| {
            Error::Storage(everwhen_storage::Error::Io { path: shown.clone(), source })
        })?;
        let mut reader = SegmentReader::open(BufReader::with_capacity(1 << 20, file), &shown)?;
        let (after, at) = reader.head().after;
        if after > self.done.last_tx {
            return Err(self.wrong(format!("segment {shown} begins after transaction {after}")));
        }
        if after != TxId::ZERO && self.store.system_time(after)? != at {
            return Err(self.wrong(format!("segment {shown} is of another history")));
        }
        self.letters.clear();
        while let Some(part) = reader.next()? {
            match part {
                SegmentPart::Letter(letter) => self.letters.push(letter),
                SegmentPart::Entry(entry, definitions) => {
                    if self.options.ends_before(&entry) {
                        return Ok(false);
                    }
                    self.entry(*entry, definitions)?;
                    progress(&self.done);
                }
                SegmentPart::End(end) => {
                    // A later part of the same history knows better.
                    if end.last.0 == self.done.last_tx {
                        self.tail(end.sources)?;
                    }
                }
            }
        }
        Ok(true)
    }

    /// Takes over what followed the last entry: how far sources were read, and dead letters.
    fn tail(&mut self, mut sources: Vec<SourceAdvance>) -> Result<()> {
        let mut known = HashMap::new();
        for source in &sources {
            if !known.contains_key(&source.stream) {
                known.insert(source.stream.clone(), self.store.sources(&source.stream)?);
            }
        }
        sources.retain(|source| {
            let of_stream = known.get(&source.stream).into_iter().flatten();
            let mut same = of_stream.filter(|known| {
                (&known.topic, known.partition) == (&source.topic, source.partition)
            });
            let reached = |source: &SourceAdvance| (source.log.generation, source.next_offset);
            same.all(|known| reached(known) < reached(source))
        });
        let dead_letters = std::mem::take(&mut self.letters);
        self.store.replay(None, Batch { sources, dead_letters, ..Batch::default() })?;
        Ok(())
    }

    fn entry(&mut self, entry: JournalEntry, definitions: Vec<DefinitionChange>) -> Result<()> {
        let dead_letters = std::mem::take(&mut self.letters);
        if entry.last_tx() <= self.done.last_tx {
            let (last, at) = (entry.last_tx(), entry.system_time_of(entry.last_tx()));
            if self.store.system_time(last)? != at {
                return Err(self.wrong(format!("transaction {last} of the journal is another one")));
            }
            return Ok(());
        }
        let mut batch = match &entry.origin {
            Origin::Kafka { stream } => self.of_topic(stream, &entry)?,
            Origin::Client | Origin::Events { .. } | Origin::Import => self.of_entry(&entry)?,
        };
        batch.definitions = definitions;
        batch.dead_letters = dead_letters;
        batch.origin = entry.origin.clone();
        let (first, count) = (entry.first_tx, entry.count);
        let committed = self
            .store
            .replay(Some(entry), batch)
            .map_err(|error| self.wrong(format!("at transaction {first}: {error}")))?;
        self.done.last_tx = committed.last_tx;
        self.done.system_time = committed.system_time;
        self.done.transactions += count;
        Ok(())
    }

    /// Returns what stands in the entry itself.
    fn of_entry(&self, entry: &JournalEntry) -> Result<Batch> {
        let Some(detail) = &entry.replay else {
            return Err(self.wrong(format!(
                "the journal of transactions {} to {} was written by a version that kept no \
                 operations",
                entry.first_tx,
                entry.last_tx()
            )));
        };
        Ok(Batch {
            txs: detail.txs.clone(),
            sources: detail.sources.clone(),
            mapped_at: detail.mapped_at,
            ..Batch::default()
        })
    }

    /// Reads and maps the records of an entry.
    fn of_topic(&mut self, stream: &str, entry: &JournalEntry) -> Result<Batch> {
        // An entry of format 1 does not say under which definitions, nor how far it had read.
        let mapped_at = entry.replay.as_ref().map(|detail| detail.mapped_at);
        let before = TxId::new(entry.first_tx.get() - 1);
        let plan = self.plan(stream, mapped_at.unwrap_or(before))?;
        let records = self.records(&plan, entry)?;
        let tenant = Tenant::default();
        let tenants = TenantRule { tenant: &tenant, bound: false };
        let mut prepared = plan.prepare(&records, tenants)?;
        let same = |txs: &[everwhen_storage::Tx]| {
            let found = txs.iter().map(|tx| tx.position.as_ref());
            found.eq(entry.positions.iter().map(|(_, position)| Some(position)))
        };
        if !prepared.rejected.is_empty() || !same(&prepared.batch.txs) {
            return Err(self.wrong(format!(
                "records of transactions {} to {} assert something else than they did: is the topic \
                 the same one?",
                entry.first_tx,
                entry.last_tx()
            )));
        }
        prepared.batch.sources = match &entry.replay {
            Some(detail) => detail.sources.clone(),
            None => advances(stream, entry),
        };
        self.done.records += u64::try_from(records.len()).unwrap_or(u64::MAX);
        Ok(prepared.batch)
    }

    fn plan(&mut self, stream: &str, defined_at: TxId) -> Result<Arc<StreamPlan>> {
        let place = (stream.to_owned(), defined_at);
        if let Some(plan) = self.plans.get(&place) {
            return Ok(Arc::clone(plan));
        }
        let definitions = self.store.definitions_at(defined_at);
        // What was taken then is taken now, whatever the limit was.
        let plan = Arc::new(StreamPlan::compile(&definitions, stream, usize::MAX)?);
        self.plans.insert(place, Arc::clone(&plan));
        Ok(plan)
    }

    fn records(&mut self, plan: &StreamPlan, entry: &JournalEntry) -> Result<Records> {
        let Some(mut topic) = plan.stream.kafka.clone() else {
            return Err(self.wrong(format!("stream \"{}\" has no topic", plan.name)));
        };
        if let Some(brokers) = &self.options.brokers {
            topic.brokers.clone_from(brokers);
        }
        if self.topics.get(&plan.name).is_none_or(|again| *again.topic() != topic) {
            let again = Again::new(&plan.name, topic, self.clock);
            self.topics.insert(plan.name.clone(), again);
        }
        let mut records = Records::default();
        let sources = entry.replay.iter().flat_map(|detail| &detail.sources);
        let sources: Vec<_> = sources.filter(|source| source.stream == plan.name).collect();
        for (tx, position) in &entry.positions {
            let of_position = |source: &&&SourceAdvance| {
                (&source.topic, source.partition) == (&position.topic, position.partition)
            };
            // Other brokers have a copy of the topic, under an id of its own.
            let topic_id = match self.options.brokers {
                Some(_) => None,
                None => sources.iter().find(of_position).and_then(|source| source.log.topic_id),
            };
            let with_headers = plan.wants_headers();
            let read = match self.topics.get_mut(&plan.name) {
                Some(again) => again.read(position, topic_id, with_headers, &mut records),
                None => Ok(()),
            };
            read.map_err(|why| self.wrong(format!("record of transaction {tx}: {why}")))?;
        }
        Ok(records)
    }

    fn wrong(&self, why: String) -> Error {
        Error::Replay { last: self.done.last_tx, why }
    }
}

/// Returns the next offsets after the records of an entry.
fn advances(stream: &str, entry: &JournalEntry) -> Vec<SourceAdvance> {
    let mut next = BTreeMap::<(&str, i32), i64>::new();
    for (_, SourcePosition { topic, partition, offset }) in &entry.positions {
        let reached = next.entry((topic, *partition)).or_insert(0);
        *reached = (*reached).max(offset + 1);
    }
    let advance = |((topic, partition), next_offset): ((&str, i32), i64)| SourceAdvance {
        stream: stream.to_owned(),
        topic: topic.to_owned(),
        partition,
        next_offset,
        log: SourceLog::default(),
    };
    next.into_iter().map(advance).collect()
}
