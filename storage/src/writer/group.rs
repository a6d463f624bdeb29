//! Folding a group of batches: transactions in order over the keys they touch, one write at the end.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use rocksdb::WriteBatch;

use crate::assertion::{AssertedFrom, Assertion, EventId, Op, Position};
use crate::assertions::{self, Live, Suffix};
use crate::batch::{Batch, Event, Origin, Tx, TxOutcome, Write, WriteKind};
use crate::engine::{DbIterator, Engine};
use crate::error::{Error, Result};
use crate::event_ids::EventEntry;
use crate::families::Family;
use crate::journal::{JournalEntry, SourceOffsets};
use crate::key::{self, Fork};
use crate::meta;
use crate::row::{ArchiveHeader, Asserted, ChangeValue, Document, LevelSet};
use crate::schema::{Precedence, RowKey, TableId, Tenant};
use crate::time::{Period, SystemTime, ValidTime};
use crate::timeline::{Change, Said, Segment, effective, recorded};
use crate::tx::TxId;

use super::key_state::KeyState;
use super::sorted::Sorted;
use super::tables::Tables;

/// The folding of one group, up to its commit.
pub(super) struct Group<'w> {
    engine: &'w Engine,
    tables: &'w Tables,
    /// What will be written.
    pub(super) writes: WriteBatch,
    /// The last transaction given out.
    pub(super) last_tx: TxId,
    /// Its system time.
    pub(super) last_time: SystemTime,
    /// Tenants not written to before.
    pub(super) new_tenants: BTreeSet<Tenant>,
    known_tenants: &'w BTreeSet<Tenant>,
    places: hashbrown::HashMap<Vec<u8>, usize>,
    states: Vec<KeyState>,
    events: HashMap<Vec<u8>, Option<EventEntry>>,
    changed_events: BTreeSet<Vec<u8>>,
    timeline: Option<DbIterator<'w>>,
    assertions: Option<DbIterator<'w>>,
    said: Sorted,
    archived: Sorted,
    bounds: Sorted,
    indexed: Sorted,
    value: Vec<u8>,
}

/// What a transaction does to one key.
enum KeyOp<'t> {
    Say { said: Said, exact: bool, event_id: Option<&'t EventId> },
    TakeBack { suffix: Suffix, said: Said },
}

/// One step in changing a key over a period.
enum Step<'t> {
    /// Applies an assertion over what is there.
    Apply(&'t Said),
    /// Puts segments in the place of what is there.
    Replace(Vec<Segment>),
}

/// A transaction while its writes are resolved.
struct Resolving<'t> {
    tx: TxId,
    system_time: SystemTime,
    ordinal: u32,
    ops: Vec<(usize, KeyOp<'t>)>,
    duplicates: usize,
    stale: usize,
    /// What was decided of each event id of the transaction.
    decided: Vec<(Vec<u8>, bool)>,
}

impl<'w> Group<'w> {
    /// Starts a group after `last_tx`.
    pub(super) fn new(
        engine: &'w Engine,
        tables: &'w Tables,
        known_tenants: &'w BTreeSet<Tenant>,
        last_tx: TxId,
        last_time: SystemTime,
    ) -> Self {
        Self {
            engine,
            tables,
            writes: WriteBatch::default(),
            last_tx,
            last_time,
            new_tenants: BTreeSet::new(),
            known_tenants,
            places: hashbrown::HashMap::new(),
            states: Vec::new(),
            events: HashMap::new(),
            changed_events: BTreeSet::new(),
            timeline: None,
            assertions: None,
            said: Sorted::default(),
            archived: Sorted::default(),
            bounds: Sorted::default(),
            indexed: Sorted::default(),
            value: Vec::with_capacity(1024),
        }
    }

    /// Reads, at once, what is stored of every key and event id that the batches name.
    pub(super) fn preload<'b>(&mut self, batches: impl Iterator<Item = &'b Batch>) -> Result<()> {
        let mut keys = Vec::new();
        let mut events = Vec::new();
        for write in batches.flat_map(|batch| &batch.txs).flat_map(|tx| &tx.writes) {
            let event_id = match &write.kind {
                WriteKind::Assert { key, event, .. } => {
                    let prefix = key::row_prefix(&write.tenant, write.table, key);
                    keys.push((prefix, &write.tenant, write.table));
                    event.as_ref().map(|event| &event.id)
                }
                WriteKind::Retract { event_id } => Some(event_id),
            };
            if let Some(id) = event_id {
                events.push(key::event_id(&write.tenant, write.table, &id.0));
            }
        }
        keys.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        keys.dedup_by(|a, b| a.0 == b.0);
        let family = self.engine.family(Family::Current);
        let prefixes = keys.iter().map(|(prefix, ..)| prefix.as_slice());
        let stored = self.engine.db().batched_multi_get_cf(family, prefixes, true);
        self.states.reserve(keys.len());
        for ((prefix, tenant, table), stored) in keys.into_iter().zip(stored) {
            self.add_state(tenant.clone(), table, prefix, stored?.as_deref())?;
        }
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
        let state = KeyState::new(tenant, table, prefix.clone(), stored)?;
        let place = self.states.len();
        self.states.push(state);
        self.places.insert(prefix, place);
        Ok(place)
    }

    /// Returns the place of a key's state, read now where the batches did not name it.
    fn place(&mut self, tenant: &Tenant, table: TableId, row_key: &RowKey) -> Result<usize> {
        let prefix = key::row_prefix(tenant, table, row_key);
        match self.places.get(&prefix) {
            Some(place) => Ok(*place),
            None => {
                let stored = self.engine.get(Family::Current, &prefix)?;
                self.add_state(tenant.clone(), table, prefix, stored.as_deref())
            }
        }
    }

    /// Folds the transactions of a batch, the first with system time `base`, and adds its journal
    /// entry. Records below `sources` were taken before.
    pub(super) fn fold(
        &mut self,
        batch: &Batch,
        base: SystemTime,
        sources: &SourceOffsets,
    ) -> Result<Vec<TxOutcome>> {
        let mut entry = JournalEntry {
            first_tx: self.last_tx.plus(1),
            count: 0,
            system_time: base,
            origin: batch.origin.clone(),
            positions: Vec::new(),
        };
        let mut outcomes = Vec::with_capacity(batch.txs.len());
        let taken = taken_of(&batch.origin, sources);
        let step = |count: u64| base.saturating_add(i64::try_from(count).unwrap_or(i64::MAX));
        for tx in &batch.txs {
            let outcome = if was_taken(tx, &taken) {
                TxOutcome::Duplicate
            } else {
                let id = entry.first_tx.plus(entry.count);
                self.transaction(tx, id, step(entry.count), &batch.origin)?
            };
            if let TxOutcome::Applied(id) = outcome {
                entry.count += 1;
                if let Some(position) = &tx.position {
                    entry.positions.push((id, position.clone()));
                }
            }
            outcomes.push(outcome);
        }
        if entry.count == 0 && !batch.definitions.is_empty() {
            entry.count = 1;
        }
        if entry.count > 0 {
            self.last_tx = entry.last_tx();
            self.last_time = entry.system_time_of(self.last_tx);
            self.value.clear();
            entry.put(&mut self.value);
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
        let mut resolving = Resolving {
            tx: id,
            system_time,
            ordinal: 0,
            ops: Vec::with_capacity(tx.writes.len()),
            duplicates: 0,
            stale: 0,
            decided: Vec::new(),
        };
        for write in &tx.writes {
            self.resolve(write, &mut resolving)?;
        }
        let Resolving { mut ops, duplicates, stale, .. } = resolving;
        if ops.is_empty() {
            match (duplicates, stale) {
                (0, 0) if *origin == Origin::Client => return Ok(TxOutcome::Applied(id)),
                (0, 1..) => return Ok(TxOutcome::Stale),
                _ => return Ok(TxOutcome::Duplicate),
            }
        }
        if ops.len() > 1 {
            ops.sort_by_key(|(place, _)| *place);
        }
        for of_key in ops.chunk_by(|a, b| a.0 == b.0) {
            self.change_key(of_key, id, system_time)?;
        }
        Ok(TxOutcome::Applied(id))
    }

    /// Turns one write into operations on keys: finds periods and positions, and what an event id
    /// makes of it.
    fn resolve<'t>(&mut self, write: &'t Write, resolving: &mut Resolving<'t>) -> Result<()> {
        match &write.kind {
            WriteKind::Assert { key, assertion, event } => {
                let said = resolving.said(assertion);
                let Some(said) = said else { return Ok(()) };
                if let Some(event) = event
                    && !self.admit_event(write, event, &said, resolving)?
                {
                    return Ok(());
                }
                let place = self.place(&write.tenant, write.table, key)?;
                if let Some(event) = event {
                    let id = key::event_id(&write.tenant, write.table, &event.id.0);
                    if let Some(Some(entry)) = self.events.get_mut(&id) {
                        entry.order = entry.order.max(said.at.order);
                        entry.assertions.push((key.clone(), assertions::suffix_of(&said)));
                    }
                }
                let event_id = event.as_ref().map(|event| &event.id);
                resolving.ops.push((place, KeyOp::Say { said, exact: assertion.exact, event_id }));
            }
            WriteKind::Retract { event_id } => {
                let id = key::event_id(&write.tenant, write.table, &event_id.0);
                match self.event(&id)? {
                    Some(entry) => {
                        self.take_back(write, &entry, resolving)?;
                        self.set_event(id, None);
                    }
                    None => resolving.duplicates += 1,
                }
            }
        }
        Ok(())
    }

    fn event(&mut self, id: &[u8]) -> Result<Option<EventEntry>> {
        if let Some(known) = self.events.get(id) {
            return Ok(known.clone());
        }
        let stored = self.engine.get(Family::EventIds, id)?;
        stored.map(|value| EventEntry::read(&value)).transpose()
    }

    fn set_event(&mut self, id: Vec<u8>, entry: Option<EventEntry>) {
        if !self.changed_events.contains(&id) {
            self.changed_events.insert(id.clone());
        }
        self.events.insert(id, entry);
    }

    /// Decides on the first assertion of an event id in a transaction whether the record stands;
    /// what the id said before is then taken back.
    fn admit_event<'t>(
        &mut self,
        write: &'t Write,
        event: &Event,
        said: &Said,
        resolving: &mut Resolving<'t>,
    ) -> Result<bool> {
        let id = key::event_id(&write.tenant, write.table, &event.id.0);
        if let Some((_, admitted)) = resolving.decided.iter().find(|(decided, _)| *decided == id) {
            return Ok(*admitted);
        }
        let admitted = match self.event(&id)? {
            Some(entry) if said.at.order < entry.order => {
                resolving.stale += 1;
                false
            }
            Some(entry) if entry.content_hash == event.content_hash => {
                resolving.duplicates += 1;
                false
            }
            Some(entry) => {
                self.take_back(write, &entry, resolving)?;
                true
            }
            None => true,
        };
        if admitted {
            let entry = EventEntry {
                content_hash: event.content_hash,
                order: said.at.order,
                assertions: Vec::with_capacity(1),
            };
            self.set_event(id.clone(), Some(entry));
        }
        resolving.decided.push((id, admitted));
        Ok(admitted)
    }

    fn take_back<'t>(
        &mut self,
        write: &'t Write,
        entry: &EventEntry,
        resolving: &mut Resolving<'t>,
    ) -> Result<()> {
        for (row_key, suffix) in &entry.assertions {
            let place = self.place(&write.tenant, write.table, row_key)?;
            let state = &self.states[place];
            let said = match state.overlay.get(suffix) {
                Some(made) => made.cloned(),
                None => {
                    let key = [state.prefix.as_slice(), suffix].concat();
                    let stored = self.engine.get(Family::Assertions, &key)?;
                    stored.map(|value| assertions::read(suffix, &value)).transpose()?
                }
            };
            // One of the same transaction is not registered yet: it is among the operations.
            let said = said.or_else(|| resolving.unregistered(place, suffix));
            let said = said.ok_or_else(|| Error::Corrupt {
                what: "event id",
                why: "it names an assertion that is not there".to_owned(),
            })?;
            resolving.ops.push((place, KeyOp::TakeBack { suffix: *suffix, said }));
        }
        Ok(())
    }

    fn change_key(
        &mut self,
        ops: &[(usize, KeyOp<'_>)],
        tx: TxId,
        system_time: SystemTime,
    ) -> Result<()> {
        let place = ops[0].0;
        if self.tables.get(self.states[place].table)?.precedence == Precedence::Effective {
            let (last_in_order, touched) = self.register(place, ops)?;
            if !last_in_order {
                let folded = self.fold_again(place, &touched, tx)?;
                return self.change(place, folded, tx, system_time);
            }
        }
        // One over the other: RECORDED, or each the last in EFFECTIVE order.
        let said = ops.iter().filter_map(|(_, op)| match op {
            KeyOp::Say { said, .. } => Some((said.valid, Step::Apply(said))),
            KeyOp::TakeBack { .. } => None,
        });
        self.change(place, said.collect(), tx, system_time)
    }

    /// Changes a key over some periods, apart where they do not meet: what lies between is not
    /// read, however much it is.
    fn change(
        &mut self,
        place: usize,
        mut steps: Vec<(Period<ValidTime>, Step<'_>)>,
        tx: TxId,
        system_time: SystemTime,
    ) -> Result<()> {
        let mut value = ChangeValue::default();
        for (hull, steps) in apart(&mut steps) {
            let before = self.segments(place, &hull)?;
            let mut after = before.clone();
            for (window, step) in steps {
                match step {
                    Step::Apply(said) => recorded::apply(&mut after, said, tx)?,
                    Step::Replace(segments) => {
                        recorded::replace(&mut after, *window, std::mem::take(segments));
                    }
                }
            }
            let change = Change::between(&before, &after, tx);
            if !change.changed.is_empty() {
                self.record(place, &before, &change, tx, system_time)?;
                self.states[place].update(&before, &change, tx);
                value.changed.extend_from_slice(&change.changed);
                value.replaced.extend(change.replaced.iter().map(|segment| segment.valid));
            }
        }
        if !value.changed.is_empty() {
            let state = &self.states[place];
            self.value.clear();
            value.put(&mut self.value);
            let key = key::change(tx, &state.tenant, state.table, state.row_key());
            self.writes.put_cf(self.engine.family(Family::Changes), key, &self.value);
        }
        Ok(())
    }

    fn segments(&mut self, place: usize, window: &Period<ValidTime>) -> Result<Vec<Segment>> {
        let (engine, timeline) = (self.engine, &mut self.timeline);
        self.states[place]
            .segments(window, || timeline.get_or_insert_with(|| engine.iterator(Family::Timeline)))
    }

    /// Adds and removes what was said; answers whether each operation came last in the order, and
    /// the place and period of all.
    fn register(
        &mut self,
        place: usize,
        ops: &[(usize, KeyOp<'_>)],
    ) -> Result<(bool, Vec<(Position, Period<ValidTime>)>)> {
        let mut touched = Vec::with_capacity(ops.len());
        let mut last_in_order = true;
        for (_, op) in ops {
            match op {
                KeyOp::Say { said, exact: false, event_id } => {
                    let asserted = self.states[place].header.asserted;
                    let here = (said.at.valid_from, said.at.order);
                    last_in_order &= asserted.is_none_or(|asserted| asserted.last <= here);
                    self.say(place, said.clone(), *event_id);
                    touched.push((said.at, said.valid));
                }
                KeyOp::Say { said, exact: true, event_id } => {
                    for part in self.cut_exactly(place, said)? {
                        touched.push((part.at, part.valid));
                        self.say(place, part, *event_id);
                    }
                }
                KeyOp::TakeBack { suffix, said } => {
                    last_in_order = false;
                    let state = &mut self.states[place];
                    state.dirty = true;
                    state.overlay.set(*suffix, None);
                    self.said.delete(&[&state.prefix, suffix]);
                    touched.push((said.at, said.valid));
                }
            }
        }
        Ok((last_in_order, touched))
    }

    /// Registers an assertion.
    fn say(&mut self, place: usize, said: Said, event_id: Option<&EventId>) {
        let state = &mut self.states[place];
        state.dirty = true;
        let here = (said.at.valid_from, said.at.order);
        let suffix = assertions::suffix_of(&said);
        let asserted = state
            .header
            .asserted
            .get_or_insert(Asserted { last: here, classes: LevelSet::default() });
        asserted.last = asserted.last.max(here);
        asserted.classes.insert(suffix[0]);
        self.value.clear();
        assertions::put(&mut self.value, &said, event_id.map(|id| id.0.as_str()));
        self.said.put(&[&state.prefix, &suffix], &self.value);
        state.overlay.set(suffix, Some(said));
    }

    /// Cuts an exact assertion at the bounds of all that is live in its period; each part stands
    /// after everything that starts where it does.
    fn cut_exactly(&mut self, place: usize, said: &Said) -> Result<Vec<Said>> {
        let mut live = live(self.engine, &self.states[place], &mut self.assertions);
        let around = live.bounds_within(&said.valid)?;
        let bounds = around.iter().flat_map(|said| [said.valid.from(), said.valid.to()]).collect();
        let parts = effective::cut(said.valid, bounds).into_iter().map(|valid| {
            let together = around.iter().filter(|other| other.at.valid_from == valid.from());
            let order = together.map(|other| other.at.order).fold(said.at.order, i64::max);
            let at = Position { valid_from: valid.from(), order, ..said.at };
            Said { at, valid, ..said.clone() }
        });
        Ok(parts.collect())
    }

    /// Folds the windows of all that was added or removed again from what is live.
    fn fold_again(
        &mut self,
        place: usize,
        touched: &[(Position, Period<ValidTime>)],
        tx: TxId,
    ) -> Result<Vec<(Period<ValidTime>, Step<'static>)>> {
        let mut folded: Vec<(Period<ValidTime>, Step<'static>)> = Vec::new();
        for (at, valid) in touched {
            let mut live = live(self.engine, &self.states[place], &mut self.assertions);
            let Some((window, mut found)) = live.window(at, valid)? else { continue };
            let done = |(done, _): &(Period<ValidTime>, _)| {
                done.from() <= window.from() && window.to() <= done.to()
            };
            if folded.iter().any(done) {
                continue;
            }
            live.reaching_into(&window, &mut found)?;
            folded.push((window, Step::Replace(effective::fold(&mut found, window, tx)?)));
        }
        Ok(folded)
    }

    /// Adds what follows from a change besides `current` and `timeline`.
    fn record(
        &mut self,
        place: usize,
        before: &[Segment],
        change: &Change,
        tx: TxId,
        system_time: SystemTime,
    ) -> Result<()> {
        let state = &mut self.states[place];
        for gone in &change.replaced {
            let fork = Fork::of(&gone.valid);
            state.header.archive.insert(fork.level);
            self.value.clear();
            ArchiveHeader { valid: gone.valid, tx_from: gone.tx_from }
                .put(&mut self.value, gone.document.as_bytes());
            let suffix = key::archive_suffix(fork, tx);
            self.archived.put(&[&state.prefix, &suffix], &self.value);
        }
        let row_key = state.row_key();
        let table = Arc::clone(self.tables.get(state.table)?);
        for segment in &change.segments {
            let old = before.binary_search_by_key(&segment.valid.from(), |old| old.valid.from());
            if old.map(|at| &before[at]) == Ok(segment) {
                continue;
            }
            for at in [segment.valid.from(), segment.valid.to()] {
                if at.micros() > system_time.micros() && !at.is_open() {
                    let key = key::boundary(at, &state.tenant, state.table, row_key);
                    self.bounds.put(&[&key], &[]);
                }
            }
            if segment.tx_from == tx {
                table.index_entries(row_key, &segment.document, |mut key| {
                    key::put_tenant(&mut key, &state.tenant);
                    key.extend_from_slice(row_key);
                    self.indexed.put(&[&key], &[]);
                })?;
            }
        }
        Ok(())
    }

    /// Adds the state of every key and event id that changed.
    pub(super) fn finish(&mut self) {
        let mut dirty: Vec<&KeyState> = self.states.iter().filter(|state| state.dirty).collect();
        dirty.sort_unstable_by(|a, b| a.prefix.cmp(&b.prefix));
        for state in dirty {
            state.write(self.engine, &mut self.writes, &mut self.value);
        }
        for (sorted, family) in [
            (&mut self.said, Family::Assertions),
            (&mut self.archived, Family::Archive),
            (&mut self.bounds, Family::Boundaries),
            (&mut self.indexed, Family::Indexes),
        ] {
            sorted.write(self.engine.family(family), &mut self.writes);
        }
        let family = self.engine.family(Family::EventIds);
        for id in &self.changed_events {
            match self.events.get(id) {
                Some(Some(entry)) => {
                    self.value.clear();
                    entry.put(&mut self.value);
                    self.writes.put_cf(family, id, &self.value);
                }
                _ => self.writes.delete_cf(family, id),
            }
        }
        for tenant in &self.new_tenants {
            meta::put_tenant(self.engine, &mut self.writes, tenant);
        }
    }
}

impl Resolving<'_> {
    /// Resolves an assertion's period and place, and encodes its fields.
    fn said(&mut self, assertion: &Assertion) -> Option<Said> {
        let valid = assertion.period(self.system_time.micros())?;
        debug_assert!(
            matches!(assertion.from, AssertedFrom::SystemTime) || valid.to() == assertion.to
        );
        let ordinal = self.ordinal;
        self.ordinal += 1;
        let fields = match assertion.op {
            Op::Put => Document::of_put(&assertion.fields),
            Op::Patch { .. } => Document::of_assertion(&assertion.fields),
            Op::Delete => Document::default(),
        };
        let at =
            Position { valid_from: valid.from(), order: assertion.order, tx: self.tx, ordinal };
        Some(Said { at, op: assertion.op, valid, fields })
    }

    /// Finds an assertion of this transaction that is not registered yet.
    fn unregistered(&self, place: usize, suffix: &Suffix) -> Option<Said> {
        self.ops.iter().find_map(|(at, op)| match op {
            KeyOp::Say { said, .. } if *at == place && assertions::suffix_of(said) == *suffix => {
                Some(said.clone())
            }
            _ => None,
        })
    }
}

/// A run of steps, and the period they lie in.
type Run<'s, 't> = (Period<ValidTime>, &'s mut [(Period<ValidTime>, Step<'t>)]);

/// Parts steps into runs whose periods do not meet, in order; within a run the steps keep theirs.
fn apart<'s, 't>(mut steps: &'s mut [(Period<ValidTime>, Step<'t>)]) -> Vec<Run<'s, 't>> {
    let mut hulls: Vec<Period<ValidTime>> = steps.iter().map(|(period, _)| *period).collect();
    hulls.sort_unstable();
    hulls.dedup_by(|next, last| {
        let meet = last.touches(next);
        if meet {
            *last = last.hull(next);
        }
        meet
    });
    let run_of =
        |period: &Period<ValidTime>| hulls.partition_point(|hull| hull.from() <= period.from());
    steps.sort_by_key(|(period, _)| run_of(period));
    let mut runs = Vec::with_capacity(hulls.len());
    for (place, hull) in hulls.iter().enumerate() {
        let end = steps.partition_point(|(period, _)| run_of(period) <= place + 1);
        let (run, rest) = steps.split_at_mut(end);
        runs.push((*hull, run));
        steps = rest;
    }
    runs
}

/// Next offsets of one stream: topic, partition, offset.
type Taken<'s> = Vec<(&'s str, i32, i64)>;

fn taken_of<'s>(origin: &Origin, sources: &'s SourceOffsets) -> Taken<'s> {
    let Origin::Kafka { stream } = origin else { return Vec::new() };
    let of_stream = sources.iter().filter(|((of, ..), _)| of == stream);
    of_stream.map(|((_, topic, partition), next)| (topic.as_str(), *partition, *next)).collect()
}

/// True for a record of a source that stands before what was taken from it.
fn was_taken(tx: &Tx, taken: &Taken<'_>) -> bool {
    let Some(position) = &tx.position else { return false };
    taken.iter().any(|(topic, partition, next)| {
        *partition == position.partition && *topic == position.topic && position.offset < *next
    })
}

fn live<'a, 'w>(
    engine: &'w Engine,
    state: &'a KeyState,
    stored: &'a mut Option<DbIterator<'w>>,
) -> Live<'a, 'w> {
    let classes = state.header.asserted.map(|asserted| asserted.classes).unwrap_or_default();
    let stored = state
        .stored_assertions
        .then(|| stored.get_or_insert_with(|| engine.iterator(Family::Assertions)));
    Live { prefix: &state.prefix, classes, overlay: &state.overlay, stored }
}
