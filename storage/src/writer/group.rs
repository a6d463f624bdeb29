//! Folding a group of batches: transactions in order over the keys they touch, one write at the end.

use std::collections::{BTreeSet, HashMap};

use rocksdb::WriteBatch;

use crate::batch::{Batch, Origin, Tx, TxOutcome, WriteKind};
use crate::engine::{DbIterator, Engine};
use crate::erase::Erased;
use crate::error::{Error, Result};
use crate::event_ids::EventEntry;
use crate::families::Family;
use crate::journal::{self, JournalEntry, ReplayDetail, SourceOffsets, Unjournaled};
use crate::key;
use crate::meta;
use crate::schema::{RowKey, TableId, Tenant};
use crate::sizes::Sizes;
use crate::time::SystemTime;
use crate::tx::TxId;

use super::key_state::KeyState;
use super::resolve::Resolving;
use super::sorted::Sorted;
use super::tables::Tables;

/// What surrounds a batch in the journal.
pub(super) struct Around<'a> {
    /// The system time of its first transaction.
    pub(super) base: SystemTime,
    /// Where sources stand: records before that were taken already.
    pub(super) sources: &'a SourceOffsets,
    /// How far sources were read since the last entry, this batch included.
    pub(super) unjournaled: &'a mut Unjournaled,
    /// The last dead letter, those of this batch included.
    pub(super) last_dead_letter: u64,
    /// The entry that this batch must come to.
    pub(super) replayed: Option<&'a JournalEntry>,
}

/// The folding of one group, up to its commit.
pub(super) struct Group<'w> {
    pub(super) engine: &'w Engine,
    pub(super) tables: &'w Tables,
    /// What will be written.
    pub(super) writes: WriteBatch,
    /// The last transaction given out.
    pub(super) last_tx: TxId,
    /// Its system time.
    pub(super) last_time: SystemTime,
    /// Tenants not written to before.
    pub(super) new_tenants: BTreeSet<Tenant>,
    pub(super) known_tenants: &'w BTreeSet<Tenant>,
    /// Keys erased before this group.
    pub(super) erased: &'w Erased,
    sizes: &'w Sizes,
    /// Keyed hashes of those that this group erases, with the system time.
    pub(super) newly_erased: Vec<(u128, SystemTime)>,
    /// Writes of the last transaction that were dropped as they are about erased keys, by place.
    dropped: Vec<usize>,
    /// First those that the batches name, by prefix, then those met on the way.
    pub(super) states: Vec<KeyState>,
    named: usize,
    met: HashMap<Vec<u8>, usize>,
    /// The state of each write's key, over all writes of the group in order.
    places: Vec<usize>,
    /// The write that comes next.
    next_write: usize,
    pub(super) events: HashMap<Vec<u8>, Option<EventEntry>>,
    pub(super) changed_events: BTreeSet<Vec<u8>>,
    pub(super) timeline: Option<DbIterator<'w>>,
    pub(super) assertions: Option<DbIterator<'w>>,
    pub(super) said: Sorted,
    pub(super) archived: Sorted,
    pub(super) changed: Sorted,
    pub(super) bounds: Sorted,
    pub(super) indexed: Sorted,
    pub(super) value: Vec<u8>,
}

impl<'w> Group<'w> {
    /// Starts a group after `last_tx`.
    pub(super) fn new(
        engine: &'w Engine,
        tables: &'w Tables,
        known_tenants: &'w BTreeSet<Tenant>,
        erased: &'w Erased,
        sizes: &'w Sizes,
        (last_tx, last_time): (TxId, SystemTime),
    ) -> Self {
        Self {
            engine,
            tables,
            writes: WriteBatch::default(),
            last_tx,
            last_time,
            new_tenants: BTreeSet::new(),
            known_tenants,
            erased,
            sizes,
            newly_erased: Vec::new(),
            dropped: Vec::new(),
            states: Vec::new(),
            named: 0,
            met: HashMap::new(),
            places: Vec::new(),
            next_write: 0,
            events: HashMap::new(),
            changed_events: BTreeSet::new(),
            timeline: None,
            assertions: None,
            said: Sorted::default(),
            archived: Sorted::default(),
            changed: Sorted::default(),
            bounds: Sorted::default(),
            indexed: Sorted::default(),
            value: Vec::with_capacity(1024),
        }
    }

    /// Reads, at once, what is stored of every key and event id that the batches name.
    pub(super) fn preload<'b>(&mut self, batches: impl Iterator<Item = &'b Batch>) -> Result<()> {
        let mut keys = Vec::new();
        let mut events = Vec::new();
        let writes = batches.flat_map(|batch| &batch.txs).flat_map(|tx| &tx.writes);
        for (at, write) in writes.enumerate() {
            self.places.push(usize::MAX);
            let event_id = match &write.kind {
                WriteKind::Assert { key, event, .. } => {
                    keys.push((key::row_prefix(&write.tenant, write.table, key), at, write));
                    event.as_ref().map(|event| &event.id)
                }
                WriteKind::Retract { event_id } => Some(event_id),
                WriteKind::Erase { key } => {
                    keys.push((key::row_prefix(&write.tenant, write.table, key), at, write));
                    None
                }
                WriteKind::EraseHashed { .. } => None,
            };
            if let Some(id) = event_id {
                events.push(key::event_id(&write.tenant, write.table, &id.0));
            }
        }
        keys.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        if let Some((_, first, _)) = keys.first() {
            self.places[*first] = 0;
        }
        let mut place = 0;
        keys.dedup_by(|next, last| {
            let same = next.0 == last.0;
            if !same {
                place += 1;
            }
            self.places[next.1] = place;
            same
        });
        let family = self.engine.family(Family::Current);
        let prefixes = keys.iter().map(|(prefix, ..)| prefix.as_slice());
        let stored = self.engine.db().batched_multi_get_cf(family, prefixes, true);
        self.states.reserve(keys.len());
        for ((prefix, _, write), stored) in keys.into_iter().zip(stored) {
            self.add_state(write.tenant.clone(), write.table, prefix, stored?.as_deref())?;
        }
        self.named = self.states.len();
        if events.is_empty() {
            return Ok(());
        }
        events.sort_unstable();
        events.dedup();
        let family = self.engine.family(Family::EventIds);
        let ids = events.iter().map(Vec::as_slice);
        let stored = self.engine.db().batched_multi_get_cf(family, ids, true);
        for (id, stored) in events.into_iter().zip(stored) {
            let entry = stored?.map(|value| EventEntry::read(&value)).transpose()?;
            self.events.insert(id, entry);
        }
        Ok(())
    }

    fn add_state(
        &mut self,
        tenant: Tenant,
        table: TableId,
        prefix: Vec<u8>,
        stored: Option<&[u8]>,
    ) -> Result<usize> {
        if stored.is_none() && !self.known_tenants.contains(&tenant) {
            self.new_tenants.insert(tenant.clone());
        }
        let state = KeyState::new(tenant, table, prefix, stored)?;
        self.states.push(state);
        Ok(self.states.len() - 1)
    }

    /// Returns the place of the key that the next write names, and goes on to the one after.
    pub(super) fn next_place(&mut self) -> usize {
        self.next_write += 1;
        self.places[self.next_write - 1]
    }

    /// Returns the place of a key's state, read now where the batches did not name it.
    pub(super) fn place(
        &mut self,
        tenant: &Tenant,
        table: TableId,
        row_key: &RowKey,
    ) -> Result<usize> {
        let prefix = key::row_prefix(tenant, table, row_key);
        let named = &self.states[..self.named];
        if let Ok(place) = named.binary_search_by(|state| state.prefix.cmp(&prefix)) {
            return Ok(place);
        }
        if let Some(place) = self.met.get(&prefix) {
            return Ok(*place);
        }
        let stored = self.engine.get(Family::Current, &prefix)?;
        let place = self.add_state(tenant.clone(), table, prefix.clone(), stored.as_deref())?;
        self.met.insert(prefix, place);
        Ok(place)
    }

    /// Folds the transactions of a batch and adds its journal entry.
    ///
    /// # Errors
    /// [`Error::Refused`] where it comes out otherwise than the entry that is replayed.
    pub(super) fn fold(&mut self, batch: &Batch, around: Around<'_>) -> Result<Vec<TxOutcome>> {
        let base = around.base;
        let mut entry = JournalEntry {
            first_tx: self.last_tx.plus(1),
            count: 0,
            system_time: base,
            origin: batch.origin.clone(),
            positions: Vec::new(),
            replay: None,
        };
        let mut outcomes = Vec::with_capacity(batch.txs.len());
        let taken = taken_of(batch, around.sources);
        let is_read_again = matches!(batch.origin, Origin::Kafka { .. });
        let mut operations = (0, Vec::new());
        for tx in &batch.txs {
            let outcome = if was_taken(tx, &taken) {
                self.next_write += tx.writes.len();
                TxOutcome::Duplicate
            } else {
                let id = entry.first_tx.plus(entry.count);
                let at = base.saturating_add(i64::try_from(entry.count).unwrap_or(i64::MAX));
                self.transaction(tx, id, at, &batch.origin)?
            };
            if let TxOutcome::Applied(id) = outcome {
                entry.count += 1;
                if let Some(position) = &tx.position {
                    entry.positions.push((id, position.clone()));
                }
                if !is_read_again {
                    // What was to be forgotten must not come back by the journal.
                    let kept = tx.writes.iter().enumerate();
                    let kept = kept.filter(|(place, _)| !self.dropped.contains(place));
                    journal::put_operation(&mut operations.1, kept.map(|(_, write)| write));
                    operations.0 += 1;
                }
            }
            outcomes.push(outcome);
        }
        if entry.count == 0 && !batch.definitions.is_empty() {
            entry.count = 1;
        }
        if let Some(original) = around.replayed
            && (entry.count, &entry.positions) != (original.count, &original.positions)
        {
            return Err(diverges(original, &outcomes));
        }
        if entry.count > 0 {
            self.last_tx = entry.last_tx();
            self.last_time = entry.system_time_of(self.last_tx);
            let sources = match around.replayed.and_then(|original| original.replay.as_ref()) {
                Some(detail) => detail.sources.clone(),
                None => journal::advances(around.unjournaled),
            };
            around.unjournaled.clear();
            let detail = ReplayDetail {
                mapped_at: batch.mapped_at,
                sources,
                last_dead_letter: around.last_dead_letter,
                txs: Vec::new(),
            };
            self.value.clear();
            entry.put(&detail, (operations.0, &operations.1), &mut self.value);
            let key = key::number(entry.first_tx.get());
            self.writes.put_cf(self.engine.family(Family::Transactions), key, &self.value);
        }
        Ok(outcomes)
    }

    fn transaction(
        &mut self,
        tx: &Tx,
        id: TxId,
        system_time: SystemTime,
        origin: &Origin,
    ) -> Result<TxOutcome> {
        let mut resolving = Resolving::new(id, system_time, *origin != Origin::Client);
        self.dropped.clear();
        for (place, write) in tx.writes.iter().enumerate() {
            let before = resolving.erased;
            self.resolve(write, &mut resolving)?;
            if resolving.erased > before {
                self.dropped.push(place);
            }
        }
        let Resolving { mut ops, duplicates, stale, erased, erasing, .. } = resolving;
        for (ordinal, place) in (0..).zip(erasing) {
            self.erase_key(place, id, system_time, ordinal)?;
        }
        if ops.is_empty() {
            match (duplicates, stale) {
                (0, 0) if matches!(origin, Origin::Client | Origin::Import) => {
                    return Ok(TxOutcome::Applied(id));
                }
                (0, 0) if erased > 0 => return Ok(TxOutcome::Erased),
                (0, 1..) => return Ok(TxOutcome::Stale),
                _ => return Ok(TxOutcome::Duplicate),
            }
        }
        if ops.len() > 1 {
            ops.sort_by_key(|(place, _)| *place);
        }
        for of_key in ops.chunk_by(|a, b| a.0 == b.0) {
            let state = &self.states[of_key[0].0];
            let was_there = state.is_stored || state.dirty;
            self.change_key(of_key, id, system_time)?;
            let state = &self.states[of_key[0].0];
            if state.dirty && !was_there {
                let of_table = (&state.tenant, state.table);
                let (engine, writes) = (self.engine, &mut self.writes);
                self.sizes.add(engine, writes, of_table, &state.prefix, id)?;
            }
        }
        Ok(TxOutcome::Applied(id))
    }

    /// Adds the state of every key and event id that changed.
    pub(super) fn finish(&mut self) {
        let (engine, mut writes) = (self.engine, std::mem::take(&mut self.writes));
        self.drain(|family, key, value| {
            let family = engine.family(family);
            match value {
                Some(value) => writes.put_cf(family, key, value),
                None => writes.delete_cf(family, key),
            }
        });
        for tenant in &self.new_tenants {
            meta::put_tenant(engine, &mut writes, tenant);
        }
        self.writes = writes;
    }

    /// Calls `each` with what becomes of every key and event id that changed, without a value where
    /// an entry goes: by family, within each in key order, a later one for the same key counting.
    pub(super) fn drain(&mut self, mut each: impl FnMut(Family, &[u8], Option<&[u8]>)) {
        let mut dirty: Vec<&KeyState> = self.states.iter().filter(|state| state.dirty).collect();
        dirty.sort_unstable_by(|a, b| a.prefix.cmp(&b.prefix));
        for state in dirty {
            state.drain(&mut self.value, &mut each);
        }
        for (sorted, family) in [
            (&mut self.said, Family::Assertions),
            (&mut self.archived, Family::Archive),
            (&mut self.changed, Family::Changes),
            (&mut self.bounds, Family::Boundaries),
            (&mut self.indexed, Family::Indexes),
        ] {
            sorted.drain(|key, value| each(family, key, value));
        }
        for id in &self.changed_events {
            match self.events.get(id) {
                Some(Some(entry)) => {
                    self.value.clear();
                    entry.put(&mut self.value);
                    each(Family::EventIds, id, Some(&self.value));
                }
                _ => each(Family::EventIds, id, None),
            }
        }
    }
}

fn diverges(original: &JournalEntry, outcomes: &[TxOutcome]) -> Error {
    let applied = outcomes.iter().filter(|outcome| matches!(outcome, TxOutcome::Applied(_)));
    let (first, last, applied) = (original.first_tx, original.last_tx(), applied.count());
    Error::Refused {
        reason: format!(
            "the replay of transactions {first} to {last} comes out otherwise: {applied} of them \
             have an effect"
        ),
    }
}

/// Next offsets of one stream: topic, partition, offset.
type Taken<'s> = Vec<(&'s str, i32, i64)>;

fn taken_of<'s>(batch: &Batch, sources: &'s SourceOffsets) -> Taken<'s> {
    let Origin::Kafka { stream } = &batch.origin else { return Vec::new() };
    let of_stream = sources.iter().filter(|((of, ..), _)| of == stream);
    // Offsets of another generation are those of other records, whatever their numbers.
    let is_same = |topic: &str, partition: i32, generation: u64| {
        let mut advances = batch.sources.iter();
        advances
            .find(|source| source.topic == topic && source.partition == partition)
            .is_none_or(|source| source.log.generation == generation)
    };
    of_stream
        .filter(|((_, topic, partition), place)| is_same(topic, *partition, place.log.generation))
        .map(|((_, topic, partition), place)| (topic.as_str(), *partition, place.next_offset))
        .collect()
}

/// True for a record of a source that stands before what was taken from it.
fn was_taken(tx: &Tx, taken: &Taken<'_>) -> bool {
    let Some(position) = &tx.position else { return false };
    taken.iter().any(|(topic, partition, next)| {
        *partition == position.partition && *topic == position.topic && position.offset < *next
    })
}
