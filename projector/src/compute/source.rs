//! Reading the store for one tenant: a scan's rows at a basis, and what changed between two.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::SchemaRef;
use everwhen_query::columns::value_at;
use everwhen_query::table::{SystemClause, TableColumn, ValidClause};
use everwhen_query::versions::versions_to_batch;
use everwhen_storage::{
    Basis, ColumnId, ColumnType, Definitions, IndexDef, IndexId, KeyChange, Keys, Period, RowKey,
    Scan as StoreScan, Store, SystemBound, TableDef, Tenant, TxId, ValidBound, ValidTime, Value,
    Version, View,
};

use super::node::Scan;
use super::zset::{Only, ZSet, batch_of};
use crate::error::Result;

/// Reads for one tenant at one basis.
pub struct Reader<'a, 'db> {
    /// The store, for views at other transactions.
    pub store: &'a Store,
    /// A view at the basis' transaction.
    pub view: &'a View<'db>,
    /// The basis.
    pub basis: Basis,
    /// Whose rows.
    pub tenant: &'a Tenant,
    /// Where indexes are found.
    pub definitions: &'a Definitions,
}

/// What changed in one table for one tenant.
#[derive(Debug, Clone, Default)]
pub struct TableChanges {
    /// Keys that transactions changed.
    pub keys: Vec<KeyChange>,
    /// Keys with a valid bound that the clock has crossed.
    pub crossed: Vec<RowKey>,
}

impl TableChanges {
    /// True where nothing changed.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.crossed.is_empty()
    }
}

/// How the rows of a restricted scan are found.
#[derive(Debug, Clone, PartialEq)]
pub enum Access {
    /// By the table's key; the columns in key order.
    Key(Vec<usize>),
    /// By an index over these columns.
    Index(IndexId, Vec<usize>),
    /// By reading the whole table.
    Full,
}

/// What a scan reads at a basis.
struct Bounds {
    tx: TxId,
    valid: ValidBound,
    system: SystemBound,
}

impl Scan {
    /// Chooses how to find rows by values of some output columns.
    pub fn access(&self, columns: &[usize], definitions: &Definitions) -> Access {
        let stored: Vec<(usize, ColumnId)> = self.stored(columns);
        let place = |id: &ColumnId| stored.iter().find(|(_, of)| of == id).map(|(at, _)| *at);
        let key: Option<Vec<usize>> = self.table.def.key.iter().map(place).collect();
        if let Some(key) = key {
            return Access::Key(key);
        }
        let mut best: Option<(&Arc<IndexDef>, Vec<usize>)> = None;
        for index in definitions.indexes.values() {
            let usable = index.ready
                && index.table == self.table.def.id
                && index.columns.iter().all(|column| has_one_type(definitions, index, *column));
            let columns: Option<Vec<usize>> = index.columns.iter().map(place).collect();
            if let (true, Some(columns)) = (usable, columns)
                && best.as_ref().is_none_or(|(_, so_far)| so_far.len() < columns.len())
            {
                best = Some((index, columns));
            }
        }
        best.map_or(Access::Full, |(index, columns)| Access::Index(index.id, columns))
    }

    /// Returns the index that would find rows by values of some output columns; `None` where the
    /// key does, or no index can.
    pub fn index_for(&self, columns: &[usize]) -> Option<Vec<ColumnId>> {
        let mut ids: Vec<ColumnId> = self
            .stored(columns)
            .into_iter()
            .map(|(_, id)| id)
            .filter(|id| {
                self.table.def.column_by_id(*id).is_some_and(|column| column.kind.may_be_key())
            })
            .collect();
        ids.sort_unstable();
        ids.dedup();
        let by_key = self.table.def.key.iter().all(|id| ids.contains(id));
        (!ids.is_empty() && !by_key).then_some(ids)
    }

    fn stored(&self, columns: &[usize]) -> Vec<(usize, ColumnId)> {
        columns
            .iter()
            .filter_map(|at| match self.column(*at) {
                Some(TableColumn::Stored(id)) => Some((*at, *id)),
                _ => None,
            })
            .collect()
    }

    fn bounds(&self, store: &Store, basis: Basis) -> Result<Bounds> {
        let valid = match &self.table.valid {
            ValidClause::Now => ValidBound::AsOf(basis.now),
            ValidClause::AsOf(at) => ValidBound::AsOf(*at),
            ValidClause::Overlapping(period) => ValidBound::Overlapping(*period),
        };
        let reached = |at| -> Result<TxId> { Ok(store.tx_at(at)?.min(basis.tx)) };
        let (tx, system) = match &self.table.system {
            SystemClause::Basis => (basis.tx, SystemBound::Latest),
            SystemClause::AsOf(at) => (reached(*at)?, SystemBound::Latest),
            SystemClause::Between(from, to) => {
                let upper = reached(to.saturating_add(-1))?;
                (upper, SystemBound::Between(reached(*from)?, upper))
            }
            SystemClause::All => (basis.tx, SystemBound::Between(TxId::ZERO, basis.tx)),
        };
        Ok(Bounds { tx, valid, system })
    }

    fn follows_basis(&self) -> bool {
        matches!(self.table.system, SystemClause::Basis)
    }

    /// True where the clock alone can change the rows.
    pub fn follows_clock(&self) -> bool {
        matches!(self.table.valid, ValidClause::Now)
    }

    fn columns_read(&self) -> Vec<ColumnId> {
        (0..self.columns.len())
            .filter_map(|at| match self.column(at) {
                Some(TableColumn::Stored(id)) => Some(*id),
                _ => None,
            })
            .collect()
    }
}

/// True for a column that never had another type: an index has values as they were stored, so one
/// over a widened column would not find the older ones.
fn has_one_type(definitions: &Definitions, index: &IndexDef, column: ColumnId) -> bool {
    definitions.former_types(index.table, column).next().is_none()
}

impl Reader<'_, '_> {
    /// Reads a scan's rows, those that match `only` at least.
    pub fn rows(&self, scan: &Scan, schema: &SchemaRef, only: Option<&Only>) -> Result<ZSet> {
        let keys = match only {
            Some(only) => self.keys(scan, only)?,
            None => Keys::All,
        };
        if matches!(&keys, Keys::Among(keys) if keys.is_empty()) {
            return Ok(ZSet::empty(schema));
        }
        let versions = self.versions(scan, keys, self.basis)?;
        self.batch(scan, schema, &versions).map(ZSet::once)
    }

    /// Returns the keys of a scan's rows, in key order.
    pub fn all_keys(&self, scan: &Scan) -> Result<Vec<RowKey>> {
        let bounds = scan.bounds(self.store, self.basis)?;
        let read = StoreScan {
            table: &scan.table.def,
            tenant: Some(self.tenant),
            keys: Keys::All,
            valid: bounds.valid,
            system: bounds.system,
            columns: Some(&[]),
            whole: false,
        };
        Ok(self.store.read_unerased(bounds.tx, |view| {
            let mut keys: Vec<RowKey> = Vec::new();
            view.scan_borrowed(&read, &mut |version| {
                if keys.last().is_none_or(|last| last.as_bytes() != version.key_bytes()) {
                    keys.push(version.key());
                }
                Ok(true)
            })?;
            Ok(keys)
        })?)
    }

    /// Finds the keys that may have a row matching `only`.
    fn keys(&self, scan: &Scan, only: &Only) -> Result<Keys> {
        let def = &scan.table.def;
        match scan.access(only.columns(), self.definitions) {
            Access::Full => Ok(Keys::All),
            Access::Key(columns) => {
                let mut keys = Vec::with_capacity(only.len());
                for values in tuples(scan, only, &columns)? {
                    // A NULL is no key, so no row has it.
                    if !values.iter().any(Value::is_null) {
                        keys.push(RowKey::encode(&values)?);
                    }
                }
                keys.sort_unstable();
                keys.dedup();
                Ok(Keys::Among(keys))
            }
            Access::Index(index, columns) => {
                let mut keys = Vec::new();
                for values in tuples(scan, only, &columns)? {
                    if values.iter().any(Value::is_null) {
                        tracing::debug!(table = %def.name, "NULL looked for: whole table read");
                        return Ok(Keys::All);
                    }
                    let found = self.view.lookup(index, &values, Some(self.tenant))?;
                    keys.extend(found.into_iter().map(|(_, key)| key));
                }
                keys.sort_unstable();
                keys.dedup();
                Ok(Keys::Among(keys))
            }
        }
    }

    fn versions(&self, scan: &Scan, keys: Keys, basis: Basis) -> Result<Vec<Version>> {
        let bounds = scan.bounds(self.store, basis)?;
        let columns = scan.columns_read();
        let read = StoreScan {
            table: &scan.table.def,
            tenant: Some(self.tenant),
            keys,
            valid: bounds.valid,
            system: bounds.system,
            columns: Some(&columns),
            whole: true,
        };
        if bounds.tx == self.view.tx() {
            return Ok(self.view.collect(&read)?);
        }
        Ok(self.store.read_unerased(bounds.tx, |view| view.collect(&read))?)
    }

    /// Builds the scan's columns of some versions.
    fn batch(
        &self,
        scan: &Scan,
        schema: &SchemaRef,
        versions: &[Version],
    ) -> Result<arrow::array::RecordBatch> {
        let batch = versions_to_batch(self.view, &scan.table, Some(&scan.columns), versions)?;
        batch_of(schema, batch.columns().to_vec(), versions.len())
    }

    /// Returns what changed in a scan's rows since the basis `before`: rows gone and rows come.
    pub fn delta(
        &self,
        scan: &Scan,
        schema: &SchemaRef,
        before: Basis,
        changes: &TableChanges,
    ) -> Result<ZSet> {
        let (gone, come) = if !scan.follows_basis() {
            self.by_scan(scan, before, changes)?
        } else if let ValidClause::Overlapping(period) = &scan.table.valid {
            self.by_period(scan, *period, before, changes)?
        } else {
            self.by_instant(scan, before, changes)?
        };
        if gone.is_empty() && come.is_empty() {
            return Ok(ZSet::empty(schema));
        }
        let gone = ZSet::once(self.batch(scan, schema, &gone)?).negated();
        let come = ZSet::once(self.batch(scan, schema, &come)?);
        gone.plus(come)?.consolidated()
    }

    /// Both states of every changed key, whole: for reads of the past beliefs of a key.
    fn by_scan(
        &self,
        scan: &Scan,
        before: Basis,
        changes: &TableChanges,
    ) -> Result<(Vec<Version>, Vec<Version>)> {
        let mut keys: Vec<RowKey> = changes.keys.iter().map(|change| change.key.clone()).collect();
        if scan.follows_clock() {
            keys.extend(changes.crossed.iter().cloned());
        }
        keys.sort_unstable();
        keys.dedup();
        let gone = self.versions(scan, Keys::Among(keys.clone()), before)?;
        let come = self.versions(scan, Keys::Among(keys), self.basis)?;
        Ok((gone, come))
    }

    /// The version at one instant, before and after: for `now` the instant moves too.
    fn by_instant(
        &self,
        scan: &Scan,
        before: Basis,
        changes: &TableChanges,
    ) -> Result<(Vec<Version>, Vec<Version>)> {
        let (was, is) = match &scan.table.valid {
            ValidClause::AsOf(at) => (*at, *at),
            _ => (before.now, self.basis.now),
        };
        let touched = |change: &&KeyChange| {
            scan.bounds_shown
                || change.changed.iter().any(|period| period.contains(was) || period.contains(is))
        };
        let mut keys: Vec<RowKey> =
            changes.keys.iter().filter(touched).map(|change| change.key.clone()).collect();
        if scan.follows_clock() {
            keys.extend(changes.crossed.iter().cloned());
        }
        keys.sort_unstable();
        keys.dedup();
        if keys.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let mut gone = Vec::new();
        if let Some(instant) = Period::nonempty(was, was.saturating_add(1)) {
            for key in &keys {
                let near = self.near(scan, key, before.tx, &[instant])?;
                gone.extend(near.into_iter().filter(|version| version.valid.contains(was)));
            }
        }
        let come = self.versions(scan, Keys::Among(keys), self.basis)?;
        Ok((gone, come))
    }

    /// Versions around the periods that changed, before and after.
    fn by_period(
        &self,
        scan: &Scan,
        shown: Period<ValidTime>,
        before: Basis,
        changes: &TableChanges,
    ) -> Result<(Vec<Version>, Vec<Version>)> {
        let mut gone = Vec::new();
        let mut come = Vec::new();
        for change in &changes.keys {
            let was = self.near(scan, &change.key, before.tx, &change.changed)?;
            let is = self.near(scan, &change.key, self.basis.tx, &change.changed)?;
            if scan.pointwise {
                cut(&was, &change.changed, &mut gone);
                cut(&is, &change.changed, &mut come);
            } else {
                gone.extend(was.into_iter().filter(|version| version.valid.overlaps(&shown)));
                come.extend(is.into_iter().filter(|version| version.valid.overlaps(&shown)));
            }
        }
        Ok((gone, come))
    }

    fn near(
        &self,
        scan: &Scan,
        key: &RowKey,
        tx: TxId,
        periods: &[Period<ValidTime>],
    ) -> Result<Vec<Version>> {
        let def: &TableDef = &scan.table.def;
        Ok(self.view.versions_near(def, self.tenant, key, tx, periods)?)
    }
}

/// Cuts versions to the periods that changed.
fn cut(versions: &[Version], changed: &[Period<ValidTime>], out: &mut Vec<Version>) {
    for version in versions {
        for period in changed {
            if let Some(valid) = version.valid.intersect(period) {
                out.push(Version { valid, ..version.clone() });
            }
        }
    }
}

/// Returns the tuples of `only` as values of some of its columns, in their stored types; a value
/// that its column's type cannot hold becomes NULL.
fn tuples(scan: &Scan, only: &Only, columns: &[usize]) -> Result<Vec<Vec<Value>>> {
    let mut arrays: Vec<(ArrayRef, ColumnType)> = Vec::with_capacity(columns.len());
    for column in columns {
        let at = only.columns().iter().position(|of| of == column).unwrap_or_default();
        let kind = match scan.column(*column) {
            Some(TableColumn::Stored(id)) => scan.table.def.column_by_id(*id).map(|c| &c.kind),
            _ => None,
        };
        let kind = kind.cloned().unwrap_or(ColumnType::Text);
        let array = &only.tuples()[at];
        let options = CastOptions { safe: true, ..CastOptions::default() };
        arrays.push((cast_with_options(array, &kind.data_type(), &options)?, kind));
    }
    let mut values = Vec::with_capacity(only.len());
    for row in 0..only.len() {
        let mut tuple = Vec::with_capacity(arrays.len());
        for (array, kind) in &arrays {
            tuple.push(if array.is_null(row) {
                Value::Null
            } else {
                value_at(array.as_ref(), row, kind)?
            });
        }
        values.push(tuple);
    }
    Ok(values)
}
