//! Reads at one transaction: point, as-of, period, history, and what changed between two.

use std::marker::PhantomData;

use crate::error::Result;
use crate::schema::{ColumnId, IndexId, RowKey, TableDef, TableId, Tenant};
use crate::time::{Period, SystemTime, ValidTime};
use crate::tx::TxId;
use crate::value::{Row, Value};

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

/// Which keys to read.
#[derive(Debug, Clone)]
pub enum Keys {
    All,
    /// Just these; any order, answered in key order.
    Among(Vec<RowKey>),
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
}

/// Which system times to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemBound {
    /// As believed at the view's own transaction.
    Latest,
    /// Everything believed at some point within transactions `[from, to]`, both inclusive and
    /// `to` at most the view's; versions have `tx_to` where superseded at or before `to`.
    Between(TxId, TxId),
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
pub struct View<'db> {
    _db: PhantomData<&'db ()>,
}

impl View<'_> {
    /// Returns the transaction the view reads at.
    pub fn tx(&self) -> TxId {
        unimplemented!()
    }

    /// Returns the version of a key at a valid time, as believed at the view's transaction.
    /// O(log n) seeks, however long the key's history.
    pub fn point(
        &self,
        _table: &TableDef,
        _tenant: &Tenant,
        _key: &RowKey,
        _valid: ValidTime,
    ) -> Result<Option<Version>> {
        unimplemented!()
    }

    /// Calls `each` for every version of the scan, in order, until it answers false.
    pub fn scan(
        &self,
        _scan: &Scan<'_>,
        _each: &mut dyn FnMut(Version) -> Result<bool>,
    ) -> Result<()> {
        unimplemented!()
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
    /// early, the second value is the last transaction wholly included.
    pub fn changes(
        &self,
        _table: TableId,
        _after: TxId,
        _through: TxId,
        _limit: usize,
    ) -> Result<(Vec<KeyChange>, TxId)> {
        unimplemented!()
    }

    /// Returns the versions of one key as shown at `tx` (at most the view's) that overlap or touch
    /// one of `periods`. Cost: changes of the key's window, not its whole history.
    pub fn versions_near(
        &self,
        _table: &TableDef,
        _tenant: &Tenant,
        _key: &RowKey,
        _tx: TxId,
        _periods: &[Period<ValidTime>],
    ) -> Result<Vec<Version>> {
        unimplemented!()
    }

    /// Returns keys of a table with a valid bound in `(after, through]`, in order of the bound;
    /// a superset, at most `limit`.
    pub fn boundaries(
        &self,
        _table: TableId,
        _after: ValidTime,
        _through: ValidTime,
        _limit: usize,
    ) -> Result<Vec<(ValidTime, Tenant, RowKey)>> {
        unimplemented!()
    }

    /// Returns the first valid bound of a table after an instant.
    pub fn next_boundary(&self, _table: TableId, _after: ValidTime) -> Result<Option<ValidTime>> {
        unimplemented!()
    }

    /// Returns keys that have or had a version with these values in the index's columns; a
    /// superset, in tenant and key order. `None` for all tenants.
    pub fn lookup(
        &self,
        _index: IndexId,
        _values: &[Value],
        _tenant: Option<&Tenant>,
    ) -> Result<Vec<(Tenant, RowKey)>> {
        unimplemented!()
    }

    /// Returns the system time of a committed transaction.
    pub fn system_time(&self, _tx: TxId) -> Result<SystemTime> {
        unimplemented!()
    }
}
