//! One snapshot of the engine, and the cursors that a view reuses over it.

use std::cell::{Cell, RefCell, RefMut};

use hashbrown::{HashMap, HashSet};
use rocksdb::{ColumnFamily, DBPinnableSlice, ReadOptions};

use crate::engine::{DbIterator, DbSnapshot, Engine, in_total_order};
use crate::error::Result;
use crate::families::Family;
use crate::key::{self, Fork};
use crate::row::{ArchiveHeader, CurrentHeader, LevelSet, TimelineHeader};
use crate::scan::forward::{Forward, Stepped};
use crate::scan::merge::{Believed, Pieces};
use crate::scan::point::Found;
use crate::schema::TableId;
use crate::time::{Period, ValidTime};
use crate::tx::TxId;

/// How many later change records a scan of a few keys reads to learn which of them changed since.
pub(crate) const LATER_OF_SOME: usize = 500;
/// How many a scan of a whole table reads.
pub(crate) const LATER_OF_ALL: usize = 50_000;

/// The open-ended segment of a key, or that nothing is known of it from an instant on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Current<'a> {
    pub(crate) valid_from: ValidTime,
    pub(crate) tx_from: TxId,
    /// Nothing for a tombstone.
    pub(crate) row: Option<&'a [u8]>,
    /// False where there cannot be any segment before.
    pub(crate) timeline: bool,
    /// The levels of superseded pieces.
    pub(crate) archive: LevelSet,
    /// What was believed before this transaction is hidden.
    pub(crate) erased: TxId,
}

impl<'a> Current<'a> {
    /// Reads a value of the `current` family.
    pub(crate) fn read(value: &'a [u8]) -> Result<Self> {
        let (header, row) = CurrentHeader::read(value)?;
        Ok(Self {
            valid_from: header.valid_from,
            tx_from: header.tx_from,
            row: (!header.tombstone).then_some(row),
            timeline: header.timeline,
            archive: header.archive,
            erased: header.erased.unwrap_or(TxId::ZERO),
        })
    }
}

/// The cursors of rows that are read in order, each opened when it is first needed.
#[derive(Default)]
struct InOrder<'db> {
    timeline: Option<Forward<'db>>,
    archive: Option<Forward<'db>>,
}

/// Reads of one snapshot at one transaction.
pub(crate) struct Reader<'db> {
    // Before the snapshot: cursors go first.
    timeline: RefCell<Option<DbIterator<'db>>>,
    archive: RefCell<Option<DbIterator<'db>>>,
    /// While rows are read in order.
    in_order: RefCell<Option<InOrder<'db>>>,
    gets: ReadOptions,
    snapshot: DbSnapshot<'db>,
    engine: &'db Engine,
    current: &'db ColumnFamily,
    tx: TxId,
    newest: TxId,
    /// Shows what was erased as it was.
    unerased: bool,
    /// By table the row prefixes that later transactions changed; nothing where they are too many.
    later: RefCell<HashMap<TableId, Option<HashSet<Vec<u8>>>>>,
    pieces: RefCell<Pieces>,
    seek_key: RefCell<Vec<u8>>,
    /// The last read of one instant was answered by the timeline.
    timeline_first: Cell<bool>,
}

impl<'db> Reader<'db> {
    /// Pins a snapshot, to be read at `tx`, which must be in it. `newest` is asked after that:
    /// the snapshot may hold nothing later than its answer.
    pub(crate) fn new(
        engine: &'db Engine,
        tx: TxId,
        unerased: bool,
        newest: impl FnOnce() -> TxId,
    ) -> Self {
        let snapshot = engine.db().snapshot();
        let newest = newest();
        let mut gets = ReadOptions::default();
        gets.set_snapshot(&snapshot);
        Self {
            timeline: RefCell::default(),
            archive: RefCell::default(),
            in_order: RefCell::default(),
            gets,
            snapshot,
            engine,
            current: engine.family(Family::Current),
            tx,
            newest,
            unerased,
            later: RefCell::default(),
            pieces: RefCell::default(),
            seek_key: RefCell::default(),
            timeline_first: Cell::new(false),
        }
    }

    /// Returns the part of a period of belief that may be shown of a key; nothing where it was
    /// erased since.
    pub(crate) fn shown(&self, current: &Current<'_>, believed: Believed) -> Option<Believed> {
        if self.unerased || current.erased <= believed.from {
            return Some(believed);
        }
        (current.erased <= believed.to).then_some(Believed { from: current.erased, ..believed })
    }

    /// True where change records of a key up to the erasure are hidden.
    pub(crate) fn hides_erased(&self) -> bool {
        !self.unerased
    }

    /// Returns the transaction that is read at.
    pub(crate) const fn tx(&self) -> TxId {
        self.tx
    }

    /// Returns whether the next read of one instant looks into the timeline first, as the last one
    /// was answered there: reads of the past and of the present come in runs, and the first look is
    /// most often the only one.
    pub(crate) const fn timeline_first(&self) -> &Cell<bool> {
        &self.timeline_first
    }

    /// Returns the engine, for what no later transaction changes.
    pub(crate) const fn engine(&self) -> &'db Engine {
        self.engine
    }

    /// True where the snapshot holds nothing later than `tx`.
    pub(crate) fn is_latest(&self, tx: TxId) -> bool {
        self.newest <= tx
    }

    /// True where no transaction later than the reader's is known to have changed a row, so that
    /// the latest belief is what is read. The first call for a table reads its later changes.
    pub(crate) fn is_unchanged(
        &self,
        table: TableId,
        prefix: &[u8],
        records_max: usize,
    ) -> Result<bool> {
        if self.is_latest(self.tx) {
            return Ok(true);
        }
        let mut later = self.later.borrow_mut();
        if !later.contains_key(&table) {
            later.insert(table, self.changed_later(table, records_max)?);
        }
        let changed = later.get(&table).and_then(Option::as_ref);
        Ok(changed.is_some_and(|changed| !changed.contains(prefix)))
    }

    fn changed_later(
        &self,
        table: TableId,
        records_max: usize,
    ) -> Result<Option<HashSet<Vec<u8>>>> {
        let first = key::changes_prefix(table, self.tx.plus(1));
        let end = key::changes_prefix(table, TxId::END);
        let mut cursor = self.cursor(Family::Changes, Some(end));
        let mut changed = HashSet::new();
        cursor.seek(&first);
        for _ in 0..records_max {
            let Some(found) = cursor.key() else {
                cursor.status()?;
                return Ok(Some(changed));
            };
            let (table, _, tenant, key) = key::split_change(found)?;
            changed.insert(key::row_prefix(&tenant, table, &key));
            cursor.next();
        }
        Ok(None)
    }

    /// Returns a buffer for the pieces of one key; only one can be out at a time.
    pub(crate) fn pieces(&self) -> RefMut<'_, Pieces> {
        self.pieces.borrow_mut()
    }

    /// Opens a cursor over keys of a family below `end`.
    pub(crate) fn cursor(&self, family: Family, end: Option<Vec<u8>>) -> DbIterator<'db> {
        let mut options = in_total_order();
        options.set_snapshot(&self.snapshot);
        if let Some(end) = end {
            options.set_iterate_upper_bound(end);
        }
        self.engine.db().raw_iterator_cf_opt(self.engine.family(family), options)
    }

    /// Opens a cursor that passes over the files that hold nothing of the row it is sent to: all
    /// seeks go to whole keys, forwards, and nothing is read beyond the row.
    fn archive_cursor(&self) -> DbIterator<'db> {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        self.engine.db().raw_iterator_cf_opt(self.engine.family(Family::Archive), options)
    }

    /// Reads the `current` entry of a row.
    pub(crate) fn current(&self, prefix: &[u8]) -> Result<Option<DBPinnableSlice<'db>>> {
        Ok(self.engine.db().get_pinned_cf_opt(self.current, prefix, &self.gets)?)
    }

    /// Calls `each` with the segment of the latest belief before `current` that holds `at`, where
    /// it is no newer than what is read.
    pub(crate) fn timeline_at<T>(
        &self,
        prefix: &[u8],
        at: ValidTime,
        each: impl FnOnce(Found, &[u8]) -> Result<T>,
    ) -> Result<Option<T>> {
        if let Some(InOrder { timeline, .. }) = self.in_order.borrow_mut().as_mut() {
            let timeline =
                timeline.get_or_insert_with(|| Forward::new(self.cursor(Family::Timeline, None)));
            match timeline.segment(prefix, at)? {
                Stepped::Found(found, row)
                    if found.valid.contains(at) && found.tx_from <= self.tx =>
                {
                    return each(found, row).map(Some);
                }
                Stepped::TooFar => {}
                _ => return Ok(None),
            }
        }
        let mut slot = self.timeline.borrow_mut();
        let cursor = slot.get_or_insert_with(|| self.cursor(Family::Timeline, None));
        cursor.seek_for_prev(self.timeline_key(prefix, at).as_slice());
        match segment(cursor, prefix)? {
            Some((found, row)) if found.valid.contains(at) && found.tx_from <= self.tx => {
                each(found, row).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Returns the superseded piece of a row that held an instant as believed at the reader's
    /// transaction, its row in `row`, if steps from the last row tell; nothing where they do not.
    pub(crate) fn superseded_near(
        &self,
        prefix: &[u8],
        at: ValidTime,
        row: &mut Vec<u8>,
    ) -> Result<Option<Option<Found>>> {
        let mut in_order = self.in_order.borrow_mut();
        let Some(InOrder { archive, .. }) = in_order.as_mut() else { return Ok(None) };
        let archive =
            archive.get_or_insert_with(|| Forward::new(self.cursor(Family::Archive, None)));
        Ok(match archive.piece(prefix, at, self.tx)? {
            Stepped::Found(found, bytes) => {
                row.extend_from_slice(bytes);
                Some(Some(found))
            }
            Stepped::Nothing => Some(None),
            Stepped::TooFar => None,
        })
    }

    /// Runs `read`, which asks for rows in their order and for one instant of each.
    pub(crate) fn in_order<T>(&self, read: impl FnOnce() -> Result<T>) -> Result<T> {
        *self.in_order.borrow_mut() = Some(InOrder::default());
        let done = read();
        *self.in_order.borrow_mut() = None;
        done
    }

    /// True within [`Reader::in_order`].
    pub(crate) fn is_in_order(&self) -> bool {
        self.in_order.borrow().is_some()
    }

    /// Calls `each` with the segments of the latest belief before `current` that overlap `window`,
    /// in order.
    pub(crate) fn timeline(
        &self,
        prefix: &[u8],
        window: Period<ValidTime>,
        each: &mut dyn FnMut(Found, &[u8]),
    ) -> Result<()> {
        let mut slot = self.timeline.borrow_mut();
        let cursor = slot.get_or_insert_with(|| self.cursor(Family::Timeline, None));
        let first = self.timeline_key(prefix, window.from());
        let mut settled = ValidTime::END;
        if window.from() != ValidTime::BEGIN {
            cursor.seek_for_prev(first.as_slice());
            if let Some((found, row)) = segment(cursor, prefix)?
                && found.valid.overlaps(&window)
            {
                each(found, row);
                // Looking further would be a second seek.
                if found.valid.to() >= window.to() {
                    return Ok(());
                }
                settled = found.valid.from();
            }
            if window.to() == window.from().saturating_add(1) {
                return Ok(());
            }
        }
        cursor.seek(first.as_slice());
        while let Some((found, row)) = segment(cursor, prefix)? {
            if found.valid.from() >= window.to() {
                break;
            }
            if found.valid.from() != settled {
                each(found, row);
            }
            cursor.next();
        }
        Ok(())
    }

    /// Returns the cursor over the latest belief before `current`, to go from segment to segment.
    pub(crate) fn walk<'r>(&'r self, prefix: &'r [u8]) -> Walk<'r, 'db> {
        let slot = self.timeline.borrow_mut();
        let cursor = RefMut::map(slot, |slot| {
            slot.get_or_insert_with(|| self.cursor(Family::Timeline, None))
        });
        Walk { cursor, prefix, key: &self.seek_key, is_placed: false }
    }

    /// Runs `read` with the cursor over superseded belief.
    pub(crate) fn with_archive<T>(
        &self,
        read: impl FnOnce(&mut Archive<'_, 'db>) -> Result<T>,
    ) -> Result<T> {
        let mut slot = self.archive.borrow_mut();
        let raw = slot.get_or_insert_with(|| self.archive_cursor());
        let mut key = self.seek_key.borrow_mut();
        read(&mut Archive { raw, key: &mut key })
    }

    fn timeline_key(&self, prefix: &[u8], at: ValidTime) -> RefMut<'_, Vec<u8>> {
        let mut key = self.seek_key.borrow_mut();
        key::timeline_into(&mut key, prefix, at);
        key
    }
}

/// Returns the segment under a cursor of the `timeline` family where it is of this row.
fn segment<'a>(cursor: &'a DbIterator<'_>, prefix: &[u8]) -> Result<Option<(Found, &'a [u8])>> {
    let Some((key, value)) = cursor.item() else {
        cursor.status()?;
        return Ok(None);
    };
    if !key.starts_with(prefix) {
        return Ok(None);
    }
    let (header, row) = TimelineHeader::read(value)?;
    let valid = Period::new(key::timeline_from(key)?, header.valid_to)?;
    Ok(Some((Found { valid, tx_from: header.tx_from }, row)))
}

/// A walk over the segments of one row: to a neighbour by a step, further by a seek.
pub(crate) struct Walk<'r, 'db> {
    cursor: RefMut<'r, DbIterator<'db>>,
    prefix: &'r [u8],
    key: &'r RefCell<Vec<u8>>,
    /// The cursor stands at a segment of this row.
    is_placed: bool,
}

impl Walk<'_, '_> {
    /// Returns the segment that holds an instant.
    pub(crate) fn at(&mut self, at: ValidTime) -> Result<Option<(Found, &[u8])>> {
        let is_near = self.is_placed && self.step_to(at)?;
        if !is_near {
            let mut key = self.key.borrow_mut();
            key::timeline_into(&mut key, self.prefix, at);
            self.cursor.seek_for_prev(key.as_slice());
        }
        let found = segment(&self.cursor, self.prefix)?;
        self.is_placed = found.is_some();
        Ok(found.filter(|(found, _)| found.valid.contains(at)))
    }

    /// Goes to the segment that holds an instant, or the last before it, where that is the one here
    /// or a neighbour; false where it is neither.
    fn step_to(&mut self, at: ValidTime) -> Result<bool> {
        let Some((here, _)) = segment(&self.cursor, self.prefix)? else { return Ok(false) };
        if at < here.valid.from() {
            self.cursor.prev();
            let before = segment(&self.cursor, self.prefix)?;
            return Ok(before.is_none_or(|(before, _)| before.valid.from() <= at));
        }
        if at < here.valid.to() {
            return Ok(true);
        }
        self.cursor.next();
        let after = segment(&self.cursor, self.prefix)?;
        Ok(after.is_some_and(|(after, _)| after.valid.contains(at)))
    }
}

/// A piece under a cursor of the `archive` family.
pub(crate) struct ArchivedPiece<'a> {
    pub(crate) fork: Fork,
    pub(crate) valid: Period<ValidTime>,
    pub(crate) tx_from: TxId,
    pub(crate) tx_to: TxId,
    pub(crate) row: &'a [u8],
}

/// A cursor over superseded belief.
pub(crate) struct Archive<'a, 'db> {
    raw: &'a mut DbIterator<'db>,
    key: &'a mut Vec<u8>,
}

impl Archive<'_, '_> {
    /// Goes to the first piece at or after a fork and the transaction that superseded it.
    pub(crate) fn seek(&mut self, prefix: &[u8], fork: Fork, tx_to: TxId) {
        key::archive_into(self.key, prefix, fork, tx_to);
        self.raw.seek(self.key.as_slice());
    }

    pub(crate) fn next(&mut self) {
        self.raw.next();
    }

    /// Returns the piece here; nothing where the row has no more.
    pub(crate) fn piece(&self, prefix: &[u8]) -> Result<Option<ArchivedPiece<'_>>> {
        let Some((key, value)) = self.raw.item() else {
            self.raw.status()?;
            return Ok(None);
        };
        if !key.starts_with(prefix) {
            return Ok(None);
        }
        let (fork, tx_to) = key::split_archive(key)?;
        let (ArchiveHeader { valid, tx_from }, row) = ArchiveHeader::read(value)?;
        Ok(Some(ArchivedPiece { fork, valid, tx_from, tx_to, row }))
    }
}
