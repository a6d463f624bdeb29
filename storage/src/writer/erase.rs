//! Erasing in the writer's turn: the first phase of a key's erasure, and the end of its second.

use std::collections::{BTreeMap, HashSet};

use rocksdb::WriteBatch;

use crate::assertion::{Op, Position};
use crate::assertions::{self, Suffix};
use crate::engine::Engine;
use crate::erase::ledger::{Entry, Step as Done};
use crate::erase::purge::Doomed;
use crate::error::{Error, Result};
use crate::families::Family;
use crate::key;
use crate::row::{ArchiveHeader, CurrentHeader, Document, LevelSet, TimelineHeader};
use crate::schema::RowKey;
use crate::time::{Period, SystemTime, ValidTime};
use crate::timeline::Said;
use crate::tx::TxId;

use super::change::Step;
use super::group::Group;
use super::tables::Tables;

impl Group<'_> {
    /// Ends a key: nothing is believed of it from transaction `tx` on, at no valid time; what was
    /// is hidden. Its group holds nothing but erasures.
    ///
    /// Cost: the key's assertions and the segments of its latest belief.
    pub(super) fn erase_key(
        &mut self,
        place: usize,
        tx: TxId,
        system_time: SystemTime,
        ordinal: u32,
    ) -> Result<()> {
        self.forget_assertions(place)?;
        let at = Position { valid_from: ValidTime::BEGIN, order: 0, tx, ordinal };
        let fields = Document::default();
        let nothing = Said { at, op: Op::Delete, valid: Period::ALL, fields };
        self.change(place, vec![(Period::ALL, Step::Apply(&nothing))], tx, system_time)?;
        let state = &mut self.states[place];
        state.header.asserted = None;
        if state.is_stored {
            state.header.erased = Some(tx);
            state.dirty = true;
        }
        let hash = self.erased.hash(&state.prefix).ok_or_else(|| Error::Corrupt {
            what: "erasure",
            why: "there is no secret to hash with".to_owned(),
        })?;
        let entry = Entry {
            tx,
            ordinal,
            step: Done::Hidden,
            requested_at: system_time,
            hash,
            tenant: state.tenant.clone(),
            table: state.table,
            key: RowKey(state.row_key().to_vec()),
        };
        entry.put(self.engine, &mut self.writes);
        self.erased.put(self.engine, &mut self.writes, hash, system_time);
        self.newly_erased.push((hash, system_time));
        Ok(())
    }

    /// Removes a key's assertions, and their part in what event ids stand for.
    fn forget_assertions(&mut self, place: usize) -> Result<()> {
        let state = &self.states[place];
        if !state.stored_assertions {
            return Ok(());
        }
        let (prefix, row_key) = (state.prefix.clone(), RowKey(state.row_key().to_vec()));
        let of_table = prefix.len() - row_key.as_bytes().len();
        let mut events: BTreeMap<Vec<u8>, HashSet<Suffix>> = BTreeMap::new();
        let engine = self.engine;
        engine.each_from(Family::Assertions, &prefix, &prefix, |key, value| {
            let damaged =
                || Error::Corrupt { what: "assertion", why: "wrong length of its key".to_owned() };
            let suffix: Suffix = key[prefix.len()..].try_into().map_err(|_| damaged())?;
            self.said.delete(&[&prefix, &suffix]);
            if let Some(id) = assertions::event_id(value)? {
                let id = [&prefix[..of_table], id].concat();
                events.entry(id).or_default().insert(suffix);
            }
            Ok(true)
        })?;
        for (id, gone) in events {
            let Some(mut entry) = self.event(&id)? else { continue };
            entry.assertions.retain(|(key, suffix)| *key != row_key || !gone.contains(suffix));
            let entry = Some(entry).filter(|entry| !entry.assertions.is_empty());
            self.set_event(id, entry);
        }
        self.states[place].stored_assertions = false;
        Ok(())
    }
}

/// What a key has besides its erased past.
#[derive(Default)]
struct Life {
    levels: LevelSet,
    has_timeline: bool,
    /// Entries of `boundaries` and `indexes` that it needs.
    needed: HashSet<Vec<u8>>,
}

/// Adds the deletion of a key's erased past from where a new life of the key may stand beside it.
pub(super) fn purge(
    engine: &Engine,
    tables: &Tables,
    doomed: &Doomed,
    writes: &mut WriteBatch,
) -> Result<()> {
    let family = engine.family(Family::Current);
    let mut life = Life::default();
    if let Some(value) = engine.get(Family::Current, &doomed.prefix)? {
        let (mut header, document) = CurrentHeader::read(&value)?;
        life = Life::of(engine, tables, doomed, &header, document)?;
        header.archive = life.levels;
        header.timeline = life.has_timeline;
        header.erased = header.erased.filter(|at| *at > doomed.tx);
        let is_alive = !header.tombstone
            || header.timeline
            || !header.archive.is_empty()
            || header.asserted.is_some()
            || header.erased.is_some();
        if is_alive {
            let mut value = Vec::new();
            header.put(&mut value, document);
            writes.put_cf(family, &doomed.prefix, value);
        } else {
            writes.delete_cf(family, &doomed.prefix);
        }
    }
    for (family, entries) in
        [(Family::Boundaries, &doomed.boundaries), (Family::Indexes, &doomed.indexes)]
    {
        for entry in entries.iter().filter(|entry| !life.needed.contains(*entry)) {
            writes.delete_cf(engine.family(family), entry);
        }
    }
    Ok(())
}

impl Life {
    fn of(
        engine: &Engine,
        tables: &Tables,
        doomed: &Doomed,
        header: &CurrentHeader,
        document: &[u8],
    ) -> Result<Self> {
        let mut life = Self::default();
        let prefix = doomed.prefix.as_slice();
        let mut pieces = Vec::new();
        engine.each_from(Family::Archive, prefix, prefix, |key, value| {
            let (fork, tx_to) = key::split_archive(key)?;
            if tx_to > doomed.tx {
                life.levels.insert(fork.level);
                let (header, row) = ArchiveHeader::read(value)?;
                pieces.push((header.valid, Document::copy_from(row)));
            }
            Ok(true)
        })?;
        engine.each_from(Family::Timeline, prefix, prefix, |key, value| {
            life.has_timeline = true;
            let (header, row) = TimelineHeader::read(value)?;
            let valid = Period::new(key::timeline_from(key)?, header.valid_to)?;
            pieces.push((valid, Document::copy_from(row)));
            Ok(true)
        })?;
        if !header.tombstone {
            let valid = Period::new(header.valid_from, ValidTime::END)?;
            pieces.push((valid, Document::copy_from(document)));
        }
        let (tenant, table, row_key) = key::split_row_prefix(prefix)?;
        for (valid, document) in pieces {
            for at in [valid.from(), valid.to()] {
                life.needed.insert(key::boundary(at, &tenant, table, row_key.as_bytes()));
            }
            // A table that was dropped has no indexes.
            let Ok(indexed) = tables.get(doomed.table) else { continue };
            let version = (valid.from(), &document);
            indexed.index_entries(row_key.as_bytes(), version, false, |mut key| {
                key::put_tenant(&mut key, &tenant);
                key.extend_from_slice(row_key.as_bytes());
                life.needed.insert(key);
            })?;
        }
        Ok(life)
    }
}
