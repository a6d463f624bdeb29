//! One step m -> n of a projection: from what changed in the store to changes of a sink's rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use everwhen_query::columns::{cast_column, json_of};
use everwhen_storage::{Basis, Definitions, Store, TableId, Tenant, TxId, ValidTime, View};
use serde_json::{Map, Value as Json};

use super::admit::{Program, Way};
use super::cursor::{Held, RowChange};
use super::definition::Body;
use super::delta::{Change, delta};
use super::diff::{Verdict, touches, verdict};
use super::evaluate::evaluate;
use super::full::Full;
use super::load::load;
use super::source::{Reader, TableChanges};
use super::zset::{Only, ZSet, row_bytes};
use crate::error::{Error, Result};

/// Keys in quarantine: by tenant and key.
pub type HeldKeys = BTreeMap<(Tenant, String), Held>;

/// What a step is computed from.
pub struct Work<'a> {
    /// The store.
    pub store: &'a Store,
    /// Definitions in force: where indexes are found.
    pub definitions: &'a Definitions,
    /// The query.
    pub program: &'a Program,
    /// The rows' form.
    pub body: &'a Body,
    /// Keys in quarantine before the step.
    pub held: &'a HeldKeys,
    /// Tenants whose rows from nothing are delivered; kept only where a query has such rows.
    pub known: &'a BTreeSet<Tenant>,
    /// Runs full queries, for what has no delta.
    pub full: &'a Full,
    /// Change records read by one step, about.
    pub records_max: usize,
    /// Keys loaded at once.
    pub load_keys: usize,
}

/// A computed step.
#[derive(Debug)]
pub struct Step {
    /// The basis it leads to.
    pub to: Basis,
    /// It loads all rows of a generation.
    pub reload: bool,
    /// Changes of the sink's rows that wait to be taken.
    rows: Vec<RowChange>,
    /// Keys that came into quarantine (or stay for another reason), and such that left it.
    pub held: BTreeMap<(Tenant, String), Option<Held>>,
    /// Tenants met for the first time, where the query has rows from nothing.
    pub met: Vec<Tenant>,
}

type Changes = BTreeMap<Tenant, BTreeMap<TableId, TableChanges>>;

impl Work<'_> {
    /// Computes the load of all rows at a basis; `out` takes the changes as they come.
    pub fn load(
        &self,
        to: Basis,
        out: &mut dyn FnMut(Vec<RowChange>) -> Result<()>,
    ) -> Result<Step> {
        let mut step = self.empty_step(to, true);
        for tenant in self.tenants() {
            self.load_tenant(&mut step, tenant, out)?;
        }
        Ok(step)
    }

    fn load_tenant(
        &self,
        step: &mut Step,
        tenant: Tenant,
        out: &mut dyn FnMut(Vec<RowChange>) -> Result<()>,
    ) -> Result<()> {
        let to = step.to;
        let mut part = |rows: ZSet| {
            let rows = rows.consolidated()?;
            self.emit(step, &tenant, &rows, &Loaded(&rows))?;
            out(std::mem::take(&mut step.rows))
        };
        match &self.program.way {
            Way::Compare(_) => {
                part(self.full.rows(self.store, &self.program.plan, to, &tenant)?)?;
            }
            Way::Delta(root) => {
                let part_keys = self.program.unique.then_some(self.load_keys);
                self.store.read_unerased(to.tx, |view| {
                    let reader = self.reader(view, to, &tenant);
                    Ok(load(root, &reader, part_keys, &mut part))
                })??;
            }
        }
        if self.program.from_nothing {
            step.met.push(tenant);
        }
        Ok(())
    }

    /// Computes the step from one basis towards another; it may end earlier where much changed.
    pub fn step(
        &self,
        from: Basis,
        latest: Basis,
        out: &mut dyn FnMut(Vec<RowChange>) -> Result<()>,
    ) -> Result<Step> {
        let (to, changes) = self.changes(from, latest)?;
        let mut step = self.empty_step(to, false);
        if self.program.from_nothing {
            let fresh = |tenant: &Tenant| !self.known.contains(tenant);
            for tenant in self.tenants().into_iter().filter(fresh) {
                self.load_tenant(&mut step, tenant, out)?;
            }
        }
        for (tenant, tables) in &changes {
            if step.met.contains(tenant) {
                continue;
            }
            match &self.program.way {
                Way::Delta(root) => {
                    let done = self.store.read_unerased(to.tx, |view| {
                        let reader = self.reader(view, to, tenant);
                        let change = Change { reader: &reader, before: from, tables };
                        let counted = Restricted { root, reader: &reader };
                        Ok(delta(root, &change)
                            .and_then(|changed| self.emit(&mut step, tenant, &changed, &counted)))
                    })?;
                    done?;
                }
                Way::Compare(_) => {
                    let plan = &self.program.plan;
                    let before = self.full.rows(self.store, plan, from, tenant)?;
                    let after = self.full.rows(self.store, plan, to, tenant)?;
                    let changed = after.clone().plus(before.negated())?.consolidated()?;
                    self.emit(&mut step, tenant, &changed, &Loaded(&after))?;
                }
            }
            out(std::mem::take(&mut step.rows))?;
        }
        Ok(step)
    }

    const fn empty_step(&self, to: Basis, reload: bool) -> Step {
        let held = BTreeMap::new();
        Step { to, reload, rows: Vec::new(), held, met: Vec::new() }
    }

    fn reader<'r, 'db>(
        &'r self,
        view: &'r View<'db>,
        basis: Basis,
        tenant: &'r Tenant,
    ) -> Reader<'r, 'db> {
        Reader { store: self.store, view, basis, tenant, definitions: self.definitions }
    }

    /// Returns the tenants whose rows the projection has.
    fn tenants(&self) -> Vec<Tenant> {
        let default = Tenant::default();
        if self.body.tenant_column.is_none() {
            return vec![default];
        }
        let mut tenants = self.store.tenants();
        if !tenants.contains(&default) {
            tenants.push(default);
        }
        tenants
    }

    fn covers(&self, tenant: &Tenant) -> bool {
        self.body.tenant_column.is_some() || *tenant == Tenant::default()
    }

    /// Gathers what changed since a basis, and how far that goes: to the latest basis, or where
    /// very much changed to an earlier one.
    fn changes(&self, from: Basis, latest: Basis) -> Result<(Basis, Changes)> {
        let crossed =
            self.store.read_unerased(latest.tx, |view| self.crossed(view, from, latest.now))?;
        let (now, crossed) = crossed;
        if now < latest.now {
            // The clock alone first, so far as its crossings fit a step.
            let to = Basis { tx: from.tx, now };
            return Ok((to, crossed));
        }
        let tables: Vec<TableId> = self.program.tables.keys().copied().collect();
        let (tx, written) = self.store.read_unerased(latest.tx, |view| {
            let mut reached = latest.tx;
            let mut all = Vec::new();
            for table in &tables {
                let (keys, last) = view.changes(*table, from.tx, latest.tx, self.records_max)?;
                reached = reached.min(last);
                all.push((*table, keys));
            }
            if reached < latest.tx {
                all.clear();
                for table in &tables {
                    let (keys, _) = view.changes(*table, from.tx, reached, usize::MAX)?;
                    all.push((*table, keys));
                }
            }
            Ok((reached, all))
        })?;
        let mut changes = crossed;
        for (table, keys) in written {
            for change in keys {
                if self.covers(&change.tenant) {
                    let tables = changes.entry(change.tenant.clone()).or_default();
                    tables.entry(table).or_default().keys.push(change);
                }
            }
        }
        Ok((Basis { tx, now }, changes))
    }

    /// Gathers the keys whose bounds the clock crosses until `until`, or until earlier where they
    /// are very many.
    fn crossed(
        &self,
        view: &View<'_>,
        from: Basis,
        until: ValidTime,
    ) -> everwhen_storage::Result<(ValidTime, Changes)> {
        let mut until = until;
        let mut found = Vec::new();
        for table in &self.program.clocked {
            let mut bounds = view.boundaries(*table, from.now, until, self.records_max)?;
            if bounds.len() == self.records_max
                && let Some((last, ..)) = bounds.last()
            {
                let whole = last.saturating_add(-1);
                if whole > from.now {
                    until = whole;
                } else {
                    // One instant has more bounds than a step should: it is taken whole.
                    until = *last;
                    bounds = view.boundaries(*table, from.now, until, usize::MAX)?;
                }
            }
            found.push((*table, bounds));
        }
        let mut changes = Changes::new();
        for (table, bounds) in found {
            for (at, tenant, key) in bounds {
                if at <= until && self.covers(&tenant) {
                    let tables = changes.entry(tenant).or_default();
                    tables.entry(table).or_default().crossed.push(key);
                }
            }
        }
        Ok((until, changes))
    }

    /// Turns a delta of the query's rows into changes of the sink's.
    fn emit(
        &self,
        step: &mut Step,
        tenant: &Tenant,
        changed: &ZSet,
        rows_of: &dyn RowsOf,
    ) -> Result<()> {
        if changed.is_empty() {
            return Ok(());
        }
        let key = &self.program.key;
        let mut out = Output { work: self, tenant, step, columns: Vec::new() };
        out.columns = vec![None; self.program.columns.len()];
        let mut verdicts = BTreeMap::new();
        let mut checks = Vec::new();
        for (bytes, touch) in touches(changed, key)? {
            let first = touch.come.first().or(touch.gone.first()).map_or(0, |(place, _)| *place);
            let held = !self.held.is_empty()
                && self.held.contains_key(&(tenant.clone(), out.key_text(changed.batch(), first)?));
            match verdict(&touch, self.program.unique, held) {
                Some(Verdict::Check(place)) => checks.push(place),
                Some(other) => {
                    verdicts.insert(bytes, other);
                }
                None => {}
            }
        }
        out.columns = vec![None; self.program.columns.len()];
        for verdict in verdicts.into_values() {
            match verdict {
                Verdict::Upsert(place) => out.upsert(changed.batch(), place)?,
                Verdict::Delete(place) => out.delete(changed.batch(), place)?,
                Verdict::Check(_) => {}
            }
        }
        if !checks.is_empty() {
            out.checked(changed, &checks, rows_of)?;
        }
        Ok(())
    }
}

/// Finds the rows that keys have now.
trait RowsOf {
    fn rows(&self, only: &Only) -> Result<ZSet>;
}

/// All rows are at hand.
struct Loaded<'a>(&'a ZSet);

impl RowsOf for Loaded<'_> {
    fn rows(&self, only: &Only) -> Result<ZSet> {
        only.keep(self.0.clone())
    }
}

/// Rows come by restricted evaluation.
struct Restricted<'a, 'r, 'db> {
    root: &'a super::node::Node,
    reader: &'a Reader<'r, 'db>,
}

impl RowsOf for Restricted<'_, '_, '_> {
    fn rows(&self, only: &Only) -> Result<ZSet> {
        evaluate(self.root, self.reader, Some(only))
    }
}

/// Writes the changes of one tenant's rows.
struct Output<'a, 'w> {
    work: &'a Work<'w>,
    tenant: &'a Tenant,
    step: &'a mut Step,
    /// Columns of the batch in hand in their output types, once asked for.
    columns: Vec<Option<ArrayRef>>,
}

impl Output<'_, '_> {
    /// Counts the rows that keys have now, and writes, removes or holds each.
    fn checked(&mut self, changed: &ZSet, places: &[u32], rows_of: &dyn RowsOf) -> Result<()> {
        let key = &self.work.program.key;
        let wanted = changed.taken(places)?;
        let tuples: Vec<ArrayRef> =
            key.iter().map(|at| Arc::clone(wanted.batch().column(*at))).collect();
        let only = Only::new(key.clone(), tuples.clone(), true)?;
        let rows = rows_of.rows(&only)?.consolidated()?;
        let found: Vec<ArrayRef> =
            key.iter().map(|at| Arc::clone(rows.batch().column(*at))).collect();
        let found_bytes = row_bytes(&found)?;
        let mut by_key: BTreeMap<&[u8], (u32, i64)> = BTreeMap::new();
        for ((row, place), weight) in (0..rows.len()).zip(0_u32..).zip(rows.weights()) {
            by_key.entry(found_bytes.row(row).data()).or_insert((place, 0)).1 += weight;
        }
        let wanted_bytes = row_bytes(&tuples)?;
        let mut seen = BTreeSet::new();
        for (row, place) in (0..wanted.len()).zip(0_u32..) {
            let bytes = wanted_bytes.row(row).data();
            if !seen.insert(bytes) {
                continue;
            }
            self.columns.fill(None);
            let null = tuples.iter().any(|column| column.is_null(row));
            match by_key.get(bytes) {
                None if null => self.released(wanted.batch(), place)?,
                None => self.delete(wanted.batch(), place)?,
                Some(_) if null => {
                    self.hold(wanted.batch(), place, "a column of the key is NULL")?
                }
                Some((at, 1)) => self.upsert(rows.batch(), *at)?,
                Some((_, count)) => {
                    self.hold(wanted.batch(), place, &format!("{count} rows have this key"))?;
                }
            }
        }
        self.columns.fill(None);
        Ok(())
    }

    fn upsert(&mut self, batch: &RecordBatch, place: u32) -> Result<()> {
        let mut row = self.row_start();
        for at in 0..self.work.program.columns.len() {
            match self.value(batch, at, place) {
                Ok(value) => {
                    let name = self.work.program.columns[at].name.clone();
                    row.insert(name, value);
                }
                Err(error) => return self.hold(batch, place, &error.to_string()),
            }
        }
        self.released(batch, place)?;
        self.step.rows.push(RowChange { row_json: Json::Object(row).to_string(), delete: false });
        Ok(())
    }

    fn delete(&mut self, batch: &RecordBatch, place: u32) -> Result<()> {
        let mut row = self.row_start();
        for at in self.work.program.key.clone() {
            let name = self.work.program.columns[at].name.clone();
            match self.value(batch, at, place) {
                Ok(value) => row.insert(name, value),
                // A key that has no value in the sink's type has no row there.
                Err(_) => return self.released(batch, place),
            };
        }
        self.released(batch, place)?;
        self.step.rows.push(RowChange { row_json: Json::Object(row).to_string(), delete: true });
        Ok(())
    }

    fn row_start(&self) -> Map<String, Json> {
        let mut row = Map::new();
        if let Some(name) = &self.work.body.tenant_column {
            row.insert(name.clone(), Json::String(self.tenant.as_str().to_owned()));
        }
        row
    }

    /// Returns a value in the contract's JSON form.
    fn value(&mut self, batch: &RecordBatch, at: usize, place: u32) -> Result<Json> {
        let kind = &self.work.program.columns[at].kind;
        let row = place as usize;
        if self.columns[at].is_none() {
            self.columns[at] = cast_column(batch.column(at), kind).ok();
        }
        match &self.columns[at] {
            Some(column) => Ok(json_of(column.as_ref(), row, kind)),
            // Some row's value does not fit; this one's may.
            None => {
                let one = cast_column(&batch.column(at).slice(row, 1), kind)?;
                Ok(json_of(one.as_ref(), 0, kind))
            }
        }
    }

    /// Returns the key of a row as a JSON array: its name in quarantine.
    fn key_text(&mut self, batch: &RecordBatch, place: u32) -> Result<String> {
        let mut values = Vec::new();
        for at in self.work.program.key.clone() {
            let value = self.value(batch, at, place).unwrap_or_else(|_| {
                Json::String(
                    arrow::util::display::array_value_to_string(batch.column(at), place as usize)
                        .unwrap_or_default(),
                )
            });
            values.push(value);
        }
        Ok(Json::Array(values).to_string())
    }

    fn hold(&mut self, batch: &RecordBatch, place: u32, reason: &str) -> Result<()> {
        let key = self.key_text(batch, place)?;
        let held = Held {
            tenant: self.tenant.as_str().to_owned(),
            key: key.clone(),
            reason: reason.to_owned(),
            tx: self.step.to.tx.get(),
        };
        self.step.held.insert((self.tenant.clone(), key), Some(held));
        Ok(())
    }

    /// Takes a key out of quarantine, where it is in.
    fn released(&mut self, batch: &RecordBatch, place: u32) -> Result<()> {
        if self.work.held.is_empty() {
            return Ok(());
        }
        let id = (self.tenant.clone(), self.key_text(batch, place)?);
        if self.work.held.contains_key(&id) {
            self.step.held.insert(id, None);
        }
        Ok(())
    }
}

/// Returns when the clock alone next changes something, after an instant.
pub fn next_boundary(
    store: &Store,
    program: &Program,
    tx: TxId,
    after: ValidTime,
) -> Result<Option<ValidTime>> {
    if program.clocked.is_empty() {
        return Ok(None);
    }
    let found = store.read_unerased(tx, |view| {
        let mut next: Option<ValidTime> = None;
        for table in &program.clocked {
            if let Some(at) = view.next_boundary(*table, after)? {
                next = Some(next.map_or(at, |so_far| so_far.min(at)));
            }
        }
        Ok(next)
    });
    found.map_err(Error::from)
}
