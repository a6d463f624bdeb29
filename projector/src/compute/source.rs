//! Reading the store for one tenant: a scan's rows at a basis, and what changed between two.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, ArrayRef};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::SchemaRef;
use everwhen_query::columns::value_at;
use everwhen_query::table::{SystemClause, TableColumn, ValidClause};
use everwhen_query::versions::{VersionColumns, versions_to_batch};
use everwhen_storage::{
    Basis, ColumnId, ColumnType, Definitions, KeyChange, Keys, Period, RowKey, Scan as StoreScan,
    Store, SystemBound, TableDef, Tenant, TxId, ValidBound, ValidTime, Value, Version, VersionRef,
    View,
};

use super::access::Access;
use super::memory::Memory;
use super::node::Scan;
use super::only::Only;
use super::walk::Walk;
use super::zset::{Each, ZSet, batch_of};
use crate::error::{Error, Result};

/// Bytes of stored values that travel together at most, about.
const PART_BYTES: usize = 4 << 20;
/// Changed periods of one key that are read together.
const PERIODS_AT_ONCE: usize = 512;

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
    /// What may be held in memory.
    pub memory: &'a Memory,
    /// A scan that is read bit by bit.
    pub walk: Option<&'a Walk<'a>>,
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

/// What a scan reads at a basis.
struct Bounds {
    tx: TxId,
    valid: ValidBound,
    system: SystemBound,
}

impl Scan {
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

impl Reader<'_, '_> {
    /// Reads a scan's rows, those that match `only` at least.
    pub fn rows(
        &self,
        scan: &Scan,
        schema: &SchemaRef,
        only: Option<&Only>,
        each: Each<'_>,
    ) -> Result<()> {
        let found = match only {
            Some(only) => self.find(scan, only)?,
            None => Finding::Keys(Keys::All),
        };
        let bounds = scan.bounds(self.store, self.basis)?;
        let mut rows = Rows::new(self.view, scan, schema, self.memory.part_rows())?;
        let walk = self.walk.filter(|walk| only.is_none() && std::ptr::eq(walk.scan, scan));
        let keys = match found {
            Finding::Keys(Keys::Among(keys)) if keys.is_empty() => return Ok(()),
            Finding::Keys(keys) => keys,
            Finding::InTime(of) => return self.rows_in_time(scan, &bounds, &of, rows, each),
        };
        let keys = walk.and_then(Walk::rest).map_or(keys, Keys::Within);
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
        // A view of its own: what takes the rows reads from the other.
        self.store.read_unerased(bounds.tx, |view| {
            view.scan_borrowed(&read, &mut |version| {
                let goes_on = walk.is_none_or(|walk| walk.reaches(version));
                Ok(goes_on && rows.add(version, each))
            })
        })?;
        rows.end(each)?;
        if let Some(walk) = walk {
            walk.ends();
        }
        Ok(())
    }

    /// Reads versions of keys that reach into ranges of valid time.
    fn rows_in_time(
        &self,
        scan: &Scan,
        bounds: &Bounds,
        of: &BTreeMap<RowKey, Vec<Period<ValidTime>>>,
        mut rows: Rows<'_, '_>,
        each: Each<'_>,
    ) -> Result<()> {
        let ValidBound::Overlapping(shown) = bounds.valid else {
            return Err(Error::internal("ranges of time are asked of scans over time"));
        };
        self.store.read_unerased(bounds.tx, |view| {
            for (key, periods) in of {
                let more = view.versions_within(
                    &scan.table.def,
                    self.tenant,
                    key,
                    periods,
                    &mut |version| Ok(!version.valid.overlaps(&shown) || rows.add(version, each)),
                )?;
                if !more {
                    break;
                }
            }
            Ok(())
        })?;
        rows.end(each)
    }

    /// Finds the keys that may have a row matching `only`.
    fn find(&self, scan: &Scan, only: &Only) -> Result<Finding> {
        let def = &scan.table.def;
        let instant = only.times().filter(|times| times.columns.0 == times.columns.1);
        let instant = instant.and_then(|times| scan.instant(times.columns.0));
        let mut keys = Vec::new();
        match scan.access_in_time(only.columns(), instant, self.definitions) {
            Access::Full => return Ok(Finding::Keys(Keys::All)),
            Access::Key(columns) => {
                let times = only.times().filter(|times| scan.is_over_time(times.columns));
                let mut in_time: BTreeMap<RowKey, Vec<Period<ValidTime>>> = BTreeMap::new();
                for (number, values) in tuples(scan, only, &columns)?.iter().enumerate() {
                    // A NULL is no key, so no row has it.
                    if values.iter().any(Value::is_null) {
                        continue;
                    }
                    let key = RowKey::encode(values)?;
                    match times {
                        None => keys.push(key),
                        Some(times) => in_time
                            .entry(key)
                            .or_default()
                            .extend(times.ranges[number].iter().filter_map(as_period)),
                    }
                }
                if times.is_some() {
                    in_time.values_mut().for_each(|periods| periods.sort_unstable());
                    return Ok(Finding::InTime(in_time));
                }
            }
            Access::Index(index, columns) => {
                for values in tuples(scan, only, &columns)? {
                    if values.iter().any(Value::is_null) {
                        tracing::debug!(table = %def.name, "NULL looked for: whole table read");
                        return Ok(Finding::Keys(Keys::All));
                    }
                    let found = self.view.lookup(index, &values, Some(self.tenant))?;
                    keys.extend(found.into_iter().map(|(_, key)| key));
                }
            }
            Access::TimeIndex(index, columns) => {
                let (Some(times), Some(instant)) = (only.times(), instant) else {
                    return Err(Error::internal("an index over an instant is for ranges of time"));
                };
                let kind = def.column_by_id(instant).map(|column| &column.kind);
                for (number, values) in tuples(scan, only, &columns)?.iter().enumerate() {
                    if values.iter().any(Value::is_null) {
                        return Ok(Finding::Keys(Keys::All));
                    }
                    for (least, most) in &times.ranges[number] {
                        let bounds = (&instant_value(kind, *least), &instant_value(kind, *most));
                        let mut add = |key| {
                            keys.push(key);
                            Ok(true)
                        };
                        self.view.lookup_between(index, values, bounds, self.tenant, &mut add)?;
                    }
                }
            }
        }
        keys.sort_unstable();
        keys.dedup();
        Ok(Finding::Keys(Keys::Among(keys)))
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

    /// Hands over the scan's columns of some versions, with a weight.
    fn put_out(
        &self,
        (scan, schema): (&Scan, &SchemaRef),
        (gone, come): (&[Version], &[Version]),
        each: Each<'_>,
    ) -> Result<()> {
        let built = |versions: &[Version]| -> Result<ZSet> {
            let batch = versions_to_batch(self.view, &scan.table, Some(&scan.columns), versions)?;
            Ok(ZSet::once(batch_of(schema, batch.columns().to_vec(), versions.len())?))
        };
        let part_rows = self.memory.part_rows();
        if gone.len() + come.len() <= 2 * part_rows {
            return each(built(gone)?.negated().plus(built(come)?)?.consolidated()?);
        }
        for some in gone.chunks(part_rows) {
            each(built(some)?.negated())?;
        }
        for some in come.chunks(part_rows) {
            each(built(some)?)?;
        }
        Ok(())
    }

    /// Hands over what changed in a scan's rows since the basis `before`: rows gone and rows come.
    pub fn delta(
        &self,
        scan: &Scan,
        schema: &SchemaRef,
        before: Basis,
        changes: &TableChanges,
        each: Each<'_>,
    ) -> Result<()> {
        if !scan.follows_basis() {
            let (gone, come) = self.by_scan(scan, before, changes)?;
            self.put_out((scan, schema), (&gone, &come), each)
        } else if let ValidClause::Overlapping(period) = &scan.table.valid {
            self.by_period((scan, schema), *period, before, changes, each)
        } else {
            let (gone, come) = self.by_instant(scan, before, changes)?;
            self.put_out((scan, schema), (&gone, &come), each)
        }
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
        (scan, schema): (&Scan, &SchemaRef),
        shown: Period<ValidTime>,
        before: Basis,
        changes: &TableChanges,
        each: Each<'_>,
    ) -> Result<()> {
        let mut gone = Vec::new();
        let mut come = Vec::new();
        for change in &changes.keys {
            // Pieces are cut to the periods, so that some of these do as well as all.
            let at_once =
                if scan.pointwise { PERIODS_AT_ONCE } else { change.changed.len().max(1) };
            for periods in change.changed.chunks(at_once) {
                let was = self.near(scan, &change.key, before.tx, periods)?;
                let is = self.near(scan, &change.key, self.basis.tx, periods)?;
                if scan.pointwise {
                    cut(&was, periods, &mut gone);
                    cut(&is, periods, &mut come);
                } else {
                    gone.extend(was.into_iter().filter(|version| version.valid.overlaps(&shown)));
                    come.extend(is.into_iter().filter(|version| version.valid.overlaps(&shown)));
                }
                if gone.len() + come.len() >= self.memory.part_rows() {
                    self.put_out((scan, schema), (&gone, &come), each)?;
                    gone.clear();
                    come.clear();
                }
            }
        }
        self.put_out((scan, schema), (&gone, &come), each)
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

/// What a restriction leads to.
enum Finding {
    Keys(Keys),
    /// Versions of keys that reach into periods, which are in order.
    InTime(BTreeMap<RowKey, Vec<Period<ValidTime>>>),
}

/// Rows of a scan on their way, part by part.
struct Rows<'a, 'db> {
    /// For what is looked up beside the rows.
    view: &'a View<'db>,
    scan: &'a Scan,
    schema: &'a SchemaRef,
    columns: VersionColumns<'a>,
    part_rows: usize,
    bytes: usize,
    failed: Option<Error>,
}

impl<'a, 'db> Rows<'a, 'db> {
    fn new(
        view: &'a View<'db>,
        scan: &'a Scan,
        schema: &'a SchemaRef,
        part_rows: usize,
    ) -> Result<Self> {
        let columns = VersionColumns::new(&scan.table, Some(&scan.columns), 0)?;
        Ok(Self { view, scan, schema, columns, part_rows, bytes: 0, failed: None })
    }

    /// Adds a version; false where no more are wanted.
    fn add(&mut self, version: &VersionRef<'_>, each: Each<'_>) -> bool {
        self.bytes += version.bytes();
        let added = self.columns.push(version).map_err(Error::from).and_then(|()| {
            let is_full = self.columns.len() >= self.part_rows || self.bytes >= PART_BYTES;
            if is_full { self.flush(each) } else { Ok(()) }
        });
        self.failed = added.err();
        self.failed.is_none()
    }

    fn flush(&mut self, each: Each<'_>) -> Result<()> {
        let next = VersionColumns::new(&self.scan.table, Some(&self.scan.columns), self.part_rows)?;
        let columns = std::mem::replace(&mut self.columns, next);
        self.bytes = 0;
        let count = columns.len();
        let batch = columns.finish(self.view, HashMap::new())?;
        each(ZSet::once(batch_of(self.schema, batch.columns().to_vec(), count)?))
    }

    fn end(mut self, each: Each<'_>) -> Result<()> {
        match self.failed.take() {
            Some(error) => Err(error),
            None if self.columns.is_empty() => Ok(()),
            None => self.flush(each),
        }
    }
}

/// Returns a range of microseconds as a period.
fn as_period((least, most): &(i64, i64)) -> Option<Period<ValidTime>> {
    Period::nonempty(
        ValidTime::from_micros(*least),
        ValidTime::from_micros(*most).saturating_add(1),
    )
}

/// Returns an instant as a value of its column.
fn instant_value(kind: Option<&ColumnType>, at: i64) -> Value {
    match kind {
        Some(ColumnType::Int64) => Value::Int(at),
        Some(ColumnType::Date) => {
            let days = at.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
            Value::Date(i32::try_from(days).unwrap_or_default())
        }
        _ => Value::Timestamp(at),
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
