//! Reads at one transaction: point, as-of, period, history, and what changed between two.

use std::sync::Arc;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::retention::Horizons;
use crate::row::DocumentView;
use crate::scan::gather::{self, Target};
use crate::scan::keys::{self, Entry};
use crate::scan::merge::{Believed, Piece, Pieces};
use crate::scan::point::{self, Found};
use crate::scan::range::KeyRange;
use crate::scan::reader::{Current, LATER_OF_SOME, Reader};
use crate::schema::{ColumnId, IndexId, RowKey, TableDef, TableId, Tenant};
use crate::state::State;
use crate::time::{Period, SystemTime, ValidTime};
use crate::tx::TxId;
use crate::value::{Row, Value, ValueRef};
use crate::{boundaries, changes, index, journal, key};

/// One version as shown: a maximal period with equal values and equal system times.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    pub tenant: Tenant,
    pub key: RowKey,
    pub valid: Period<ValidTime>,
    /// The transaction that made the state.
    pub tx_from: TxId,
    /// The transaction that superseded it; `None` while believed at the end of what is read.
    pub tx_to: Option<TxId>,
    /// Columns asked for, without the key's.
    pub row: Row,
}

/// A [`Version`] where it lies, while a scan stands at it.
pub struct VersionRef<'a> {
    pub tenant: &'a Tenant,
    key: &'a [u8],
    pub valid: Period<ValidTime>,
    /// The transaction that made the state.
    pub tx_from: TxId,
    /// The transaction that superseded it; `None` while believed at the end of what is read.
    pub tx_to: Option<TxId>,
    document: DocumentView<'a>,
}

impl VersionRef<'_> {
    /// Returns the bytes of the key.
    pub const fn key_bytes(&self) -> &[u8] {
        self.key
    }

    /// Returns how many bytes the values take as they are stored.
    pub fn bytes(&self) -> usize {
        self.document.bytes()
    }

    /// Returns the key.
    pub fn key(&self) -> RowKey {
        RowKey(self.key.to_vec())
    }

    /// Calls `each` with the place and value of every column of `wanted`, which is in order and has
    /// none of the key; NULL where the version has none.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn each(&self, wanted: &[ColumnId], each: impl FnMut(usize, ValueRef<'_>)) -> Result<()> {
        self.document.each(wanted, each)
    }

    /// Returns the version with some columns, or all.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn version(&self, columns: Option<&[ColumnId]>) -> Result<Version> {
        Ok(Version {
            tenant: self.tenant.clone(),
            key: self.key(),
            valid: self.valid,
            tx_from: self.tx_from,
            tx_to: self.tx_to,
            row: self.document.row(columns)?,
        })
    }
}

/// Which keys to read.
#[derive(Debug, Clone)]
pub enum Keys {
    All,
    /// Just these; any order, answered in key order.
    Among(Vec<RowKey>),
    /// Those of a range.
    Within(KeyRange),
}

/// Which valid times to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValidBound {
    /// Versions whose valid period contains the instant.
    AsOf(ValidTime),
    /// Versions whose valid period overlaps; shown whole, not cut.
    Overlapping(Period<ValidTime>),
}

impl ValidBound {
    /// All of valid time.
    pub const ALL: Self = Self::Overlapping(Period::ALL);

    /// Returns the window to read; nothing where no version can contain the instant.
    fn window(self) -> Option<Period<ValidTime>> {
        match self {
            Self::AsOf(at) => Period::nonempty(at, at.saturating_add(1)),
            Self::Overlapping(period) => Some(period),
        }
    }
}

/// Which system times to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemBound {
    /// As believed at the view's own transaction.
    Latest,
    /// Everything believed at some point within transactions `[from, to]`, both inclusive and
    /// `to` at most the view's; versions have `tx_to` where superseded at or before `to`.
    Between(TxId, TxId),
    /// Everything believed up to the view's transaction that is still kept.
    Kept,
}

/// A scan of one table. Order of results: tenant, key, `valid_from`, `tx_from`.
#[derive(Debug, Clone)]
pub struct Scan<'a> {
    pub table: &'a TableDef,
    /// One tenant, or all of them.
    pub tenant: Option<&'a Tenant>,
    pub keys: Keys,
    pub valid: ValidBound,
    pub system: SystemBound,
    /// Columns to decode; `None` for all.
    pub columns: Option<&'a [ColumnId]>,
    /// Versions have their whole periods. Without, of what was believed at a past transaction at one
    /// instant, a period that holds the instant and may be a part of it: which costs a third.
    pub whole: bool,
}

/// What a scan looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScanCounts {
    /// Keys that ever had anything, of those asked for.
    pub keys: u64,
    /// Versions of theirs that were read: one a key for an instant.
    pub versions: u64,
    /// Versions within the bounds.
    pub shown: u64,
}

/// What changed for one key between two transactions.
#[derive(Debug, Clone)]
pub struct KeyChange {
    pub tenant: Tenant,
    pub key: RowKey,
    /// Disjoint periods of valid time in which some transaction changed the state, in order.
    pub changed: Vec<Period<ValidTime>>,
}

/// A consistent view of the store up to one transaction. Lives within [`crate::Store::read`].
///
/// It pins one snapshot, so commits after it was opened do not show; it reads as of its transaction
/// also where the snapshot holds later ones.
pub struct View<'db> {
    reader: Reader<'db>,
    /// Read after the snapshot was taken: what is missing in the snapshot lies before them.
    horizons: Arc<Horizons>,
}

impl<'db> View<'db> {
    /// Opens a view of everything up to `tx`, which must have been committed.
    ///
    /// The newest transaction is asked once the snapshot is taken: the last that may be in it, so
    /// the writer must raise it before it writes. An answer too high only costs the reader time.
    pub(crate) fn open(engine: &'db Engine, state: &State, tx: TxId, unerased: bool) -> Self {
        let reader = Reader::new(engine, tx, unerased, || state.newest());
        Self { reader, horizons: state.horizons() }
    }

    /// Opens a view without the rest of a store.
    #[cfg(test)]
    pub(crate) fn new(engine: &'db Engine, tx: TxId, newest: impl FnOnce() -> TxId) -> Self {
        Self { reader: Reader::new(engine, tx, false, newest), horizons: Arc::default() }
    }
}

impl View<'_> {
    /// Returns the transaction the view reads at.
    pub fn tx(&self) -> TxId {
        self.reader.tx()
    }

    /// Returns the version of a key at a valid time, as believed at the view's transaction.
    ///
    /// O(log n) seeks, however long the key's history. Of a past belief, each later cut into the
    /// version's valid period adds as many, since its bounds are those believed then.
    pub fn point(
        &self,
        table: &TableDef,
        tenant: &Tenant,
        key: &RowKey,
        valid: ValidTime,
    ) -> Result<Option<Version>> {
        self.check_kept(table.id, Some(table), self.tx())?;
        let prefix = key::row_prefix(tenant, table.id, key);
        let version = |found: Found, bytes: &[u8]| {
            Ok(Version {
                tenant: tenant.clone(),
                key: key.clone(),
                valid: found.valid,
                tx_from: found.tx_from,
                tx_to: None,
                row: DocumentView::read(bytes)?.row(None)?,
            })
        };
        let timeline_first = self.reader.timeline_first();
        if timeline_first.get() && self.reader.is_latest(self.tx()) {
            // A segment of the latest belief is the whole answer.
            if let Some(version) = self.reader.timeline_at(&prefix, valid, version)? {
                return Ok(Some(version));
            }
        }
        let Some(value) = self.reader.current(&prefix)? else { return Ok(None) };
        let current = Current::read(&value)?;
        timeline_first.set(valid < current.valid_from);
        let target = Target { prefix: &prefix, current, unchanged: false };
        point::point(&self.reader, &target, valid, true, version)
    }

    /// Returns a key's row at a valid time, as believed at the view's transaction, with the
    /// transaction that made it: [`View::point`] without valid bounds, so always O(log n) seeks.
    pub fn row_at(
        &self,
        table: &TableDef,
        tenant: &Tenant,
        key: &RowKey,
        valid: ValidTime,
        columns: Option<&[ColumnId]>,
    ) -> Result<Option<(TxId, Row)>> {
        self.check_kept(table.id, Some(table), self.tx())?;
        let prefix = key::row_prefix(tenant, table.id, key);
        if valid == ValidTime::END {
            return Ok(None);
        }
        let decode = |tx, bytes: &[u8]| Ok((tx, DocumentView::read(bytes)?.row(columns)?));
        let timeline_first = self.reader.timeline_first();
        if timeline_first.get() {
            let row = |found: Found, bytes: &[u8]| decode(found.tx_from, bytes);
            if let Some(row) = self.reader.timeline_at(&prefix, valid, row)? {
                return Ok(Some(row));
            }
        }
        let Some(value) = self.reader.current(&prefix)? else { return Ok(None) };
        let current = Current::read(&value)?;
        timeline_first.set(valid < current.valid_from);
        let target = Target { prefix: &prefix, current, unchanged: false };
        point::row_at(&self.reader, &target, valid, decode)
    }

    /// Calls `each` for every version of the scan, in order, until it answers false. Returns what was
    /// looked at for it. `each` must not read from this view.
    pub fn scan(
        &self,
        scan: &Scan<'_>,
        each: &mut dyn FnMut(Version) -> Result<bool>,
    ) -> Result<ScanCounts> {
        self.scan_borrowed(scan, &mut |version| each(version.version(scan.columns)?))
    }

    /// As [`View::scan`], without a copy of what is found: the scan's columns are not looked at.
    /// `each` must not read from this view.
    pub fn scan_borrowed(
        &self,
        scan: &Scan<'_>,
        each: &mut dyn FnMut(&VersionRef<'_>) -> Result<bool>,
    ) -> Result<ScanCounts> {
        let mut counts = ScanCounts::default();
        let Some(window) = scan.valid.window() else { return Ok(counts) };
        let believed = match scan.system {
            SystemBound::Latest => Believed::at(self.tx()),
            SystemBound::Between(from, to) => {
                self.check_reached(to)?;
                if from > to {
                    return Ok(counts);
                }
                Believed { from, to }
            }
            SystemBound::Kept => {
                let kept = self.horizons.get(&scan.table.id).copied().unwrap_or(TxId::ZERO);
                Believed { from: kept.min(self.tx()), to: self.tx() }
            }
        };
        self.check_kept(scan.table.id, Some(scan.table), believed.from)?;
        let at = match scan.valid {
            ValidBound::AsOf(at) if believed == Believed::at(self.tx()) => Some(at),
            _ => None,
        };
        let mut pieces = Pieces::default();
        let mut of_row = |entry: &Entry<'_>| {
            counts.keys += 1;
            let Some(at) = at else {
                let target = &entry.target;
                gather::versions(&self.reader, target, window, believed, &mut pieces)?;
                for piece in pieces.iter() {
                    counts.versions += 1;
                    if piece.valid.overlaps(&window) {
                        counts.shown += 1;
                        if !each(&entry_version(entry, piece, pieces.row(piece))?)? {
                            return Ok(false);
                        }
                    }
                }
                return Ok(true);
            };
            counts.versions += 1;
            let more =
                point::point(&self.reader, &entry.target, at, scan.whole, |found, bytes| {
                    counts.shown += 1;
                    each(&VersionRef {
                        tenant: entry.tenant,
                        key: entry.key_bytes(),
                        valid: found.valid,
                        tx_from: found.tx_from,
                        tx_to: None,
                        document: DocumentView::read(bytes)?,
                    })
                })?;
            Ok(more.unwrap_or(true))
        };
        let (reader, table, tenant) = (&self.reader, scan.table.id, scan.tenant);
        let mut within = |range: &KeyRange| match at {
            Some(_) => reader.in_order(|| keys::within(reader, table, tenant, range, &mut of_row)),
            None => keys::within(reader, table, tenant, range, &mut of_row),
        };
        match &scan.keys {
            Keys::All => within(&KeyRange::ALL),
            Keys::Within(range) => within(range),
            Keys::Among(some) => keys::among(reader, table, tenant, some, &mut of_row),
        }?;
        Ok(counts)
    }

    /// Collects a scan. For callers that bound its size themselves.
    pub fn collect(&self, scan: &Scan<'_>) -> Result<Vec<Version>> {
        let mut versions = Vec::new();
        self.scan(scan, &mut |version| {
            versions.push(version);
            Ok(true)
        })?;
        Ok(versions)
    }

    /// Returns what transactions `(after, through]` changed in a table, in tenant and key order;
    /// `through` is at most the view's. `limit` bounds the change records read: where it stops
    /// early, the second value is the last transaction wholly included (at least the first one
    /// that changed anything).
    pub fn changes(
        &self,
        table: TableId,
        after: TxId,
        through: TxId,
        limit: usize,
    ) -> Result<(Vec<KeyChange>, TxId)> {
        self.check_reached(through)?;
        self.check_kept(table, None, after)?;
        changes::between(&self.reader, table, after, through, limit)
    }

    /// Returns the versions of one key as shown at `tx` (at most the view's) that overlap or touch
    /// one of `periods`. Cost: changes of the key's window, not its whole history.
    pub fn versions_near(
        &self,
        table: &TableDef,
        tenant: &Tenant,
        key: &RowKey,
        tx: TxId,
        periods: &[Period<ValidTime>],
    ) -> Result<Vec<Version>> {
        self.check_reached(tx)?;
        self.check_kept(table.id, Some(table), tx)?;
        let prefix = key::row_prefix(tenant, table.id, key);
        let Some(value) = self.reader.current(&prefix)? else { return Ok(Vec::new()) };
        let current = Current::read(&value)?;
        let target = Target { prefix: &prefix, current, unchanged: false };
        let table_prefix = prefix.len() - key.as_bytes().len();
        let entry = Entry { tenant, target, table_prefix };
        let mut pieces = self.reader.pieces();
        let mut versions: Vec<Version> = Vec::new();
        for period in periods {
            let window = gather::with_neighbours(period);
            let believed = Believed::at(tx);
            gather::versions(&self.reader, &target, window, believed, &mut pieces)?;
            for piece in pieces.iter().filter(|piece| piece.valid.overlaps(&window)) {
                versions.push(entry_version(&entry, piece, pieces.row(piece))?.version(None)?);
            }
        }
        if periods.len() > 1 {
            versions.sort_unstable_by_key(|version| version.valid.from());
            versions.dedup_by_key(|version| version.valid.from());
        }
        Ok(versions)
    }

    /// Calls `each` for every version of one key, as shown at the view's transaction, that overlaps
    /// one of `periods`, which are in order and apart; whole, in order, each once, until it answers
    /// false. Cost: a seek for each of the periods that the version before does not reach into.
    /// `each` must not read from this view.
    pub fn versions_within(
        &self,
        table: &TableDef,
        tenant: &Tenant,
        key: &RowKey,
        periods: &[Period<ValidTime>],
        each: &mut dyn FnMut(&VersionRef<'_>) -> Result<bool>,
    ) -> Result<bool> {
        let tx = self.tx();
        self.check_kept(table.id, Some(table), tx)?;
        let prefix = key::row_prefix(tenant, table.id, key);
        let Some(value) = self.reader.current(&prefix)? else { return Ok(true) };
        let current = Current::read(&value)?;
        let unchanged = self.reader.is_unchanged(table.id, &prefix, LATER_OF_SOME)?;
        let target = Target { prefix: &prefix, current, unchanged };
        let table_prefix = prefix.len() - key.as_bytes().len();
        let entry = Entry { tenant, target, table_prefix };
        let mut pieces = Pieces::default();
        let mut reached = ValidTime::BEGIN;
        for period in periods {
            // What began before `reached` has been shown, and ends there at the latest.
            let from = period.from().max(reached);
            let Some(window) = Period::nonempty(from, period.to()) else { continue };
            gather::versions(&self.reader, &target, window, Believed::at(tx), &mut pieces)?;
            for piece in pieces.iter().filter(|piece| piece.valid.overlaps(&window)) {
                if !each(&entry_version(&entry, piece, pieces.row(piece))?)? {
                    return Ok(false);
                }
                reached = reached.max(piece.valid.to());
            }
        }
        Ok(true)
    }

    /// Returns keys of a table with a valid bound in `(after, through]`, in order of the bound;
    /// a superset, at most `limit`.
    ///
    /// It holds the bounds that lay in the future when they were recorded, those since changed too.
    pub fn boundaries(
        &self,
        table: TableId,
        after: ValidTime,
        through: ValidTime,
        limit: usize,
    ) -> Result<Vec<(ValidTime, Tenant, RowKey)>> {
        boundaries::between(&self.reader, table, after, through, limit)
    }

    /// Returns the first valid bound of a table after an instant.
    pub fn next_boundary(&self, table: TableId, after: ValidTime) -> Result<Option<ValidTime>> {
        let first = boundaries::between(&self.reader, table, after, ValidTime::END, 1)?;
        Ok(first.into_iter().next().map(|(at, ..)| at))
    }

    /// Returns keys that have or had a version with these values in the index's columns; a
    /// superset, in tenant and key order. `None` for all tenants. A NULL leads nowhere.
    pub fn lookup(
        &self,
        index: IndexId,
        values: &[Value],
        tenant: Option<&Tenant>,
    ) -> Result<Vec<(Tenant, RowKey)>> {
        index::lookup(&self.reader, index, values, tenant)
    }

    /// Calls `each` with every key that has or had a version with the values `equal` in the index's
    /// first columns and a value within `[least, most]` in its last, until it answers false; a
    /// superset, and a key may come more than once. The last column is an integer, a date or an
    /// instant. `each` may read from this view.
    ///
    /// # Errors
    /// [`Error::Corrupt`], and whatever `each` reports.
    pub fn lookup_between(
        &self,
        index: IndexId,
        equal: &[Value],
        bounds: (&Value, &Value),
        tenant: &Tenant,
        each: &mut dyn FnMut(RowKey) -> Result<bool>,
    ) -> Result<()> {
        index::lookup_between(&self.reader, index, equal, bounds, tenant, each)
    }

    /// Returns the system time of a committed transaction.
    pub fn system_time(&self, tx: TxId) -> Result<SystemTime> {
        journal::system_time(self.reader.engine(), tx, self.tx())
    }

    /// Refuses to read a table as of a transaction that its retention no longer keeps.
    fn check_kept(&self, id: TableId, table: Option<&TableDef>, tx: TxId) -> Result<()> {
        let Some(oldest) = self.horizons.get(&id).filter(|oldest| tx < **oldest) else {
            return Ok(());
        };
        let name = table.map_or_else(|| id.0.to_string(), |table| table.name.clone());
        Err(Error::Forgotten {
            table: name,
            asked: tx.get(),
            oldest_tx: oldest.get(),
            oldest: journal::system_time(self.reader.engine(), *oldest, *oldest)?.to_string(),
        })
    }

    fn check_reached(&self, tx: TxId) -> Result<()> {
        if tx <= self.tx() {
            return Ok(());
        }
        Err(Error::Unreached { asked: tx.get(), latest: self.tx().get() })
    }
}

fn entry_version<'a>(entry: &Entry<'a>, piece: &Piece, bytes: &'a [u8]) -> Result<VersionRef<'a>> {
    Ok(VersionRef {
        tenant: entry.tenant,
        key: entry.key_bytes(),
        valid: piece.valid,
        tx_from: piece.tx_from,
        tx_to: piece.tx_to,
        document: DocumentView::read(bytes)?,
    })
}
