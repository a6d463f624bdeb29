//! One step m -> n of a projection: from what changed in the store to changes of a sink's rows.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use everwhen_storage::{Basis, Definitions, RowKey, Store, TableId, Tenant, TxId, ValidTime, View};

use super::admit::{Program, Way};
use super::cursor::{Held, RowChange};
use super::definition::Body;
use super::delta::{Change, delta, lost_below};
use super::emit::{Emitted, Output, Restricted};
use super::full::Full;
use super::load::{load_by_key, load_some};
use super::memory::Memory;
use super::row_sorter::{Order, RowSorter};
use super::source::{Reader, TableChanges};
use super::zset::ZSet;
use crate::error::{Error, Result};

/// Keys in quarantine: by tenant and key.
pub type HeldKeys = BTreeMap<(Tenant, String), Held>;

/// Takes changes of the sink's rows, in their order.
pub type Out<'a> = &'a mut dyn FnMut(Vec<RowChange>) -> Result<()>;

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
    /// What may be held in memory.
    pub memory: &'a Memory,
    /// Change records read by one step, about.
    pub records_max: usize,
    /// Rows of a first load that are computed at once, about.
    pub load_rows: usize,
}

/// A computed step.
#[derive(Debug)]
pub struct Step {
    /// The basis it leads to.
    pub to: Basis,
    /// Keys that came into quarantine (or stay for another reason), and such that left it.
    pub held: BTreeMap<(Tenant, String), Option<Held>>,
    /// Tenants met for the first time, where the query has rows from nothing.
    pub met: Vec<Tenant>,
}

/// How far a load has come: the tenant whose rows come next, and the key they come after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadPlace {
    /// The tenant under way.
    pub tenant: Tenant,
    /// The last key of its leading table that is loaded.
    pub after: Option<RowKey>,
}

type Changes = BTreeMap<Tenant, BTreeMap<TableId, TableChanges>>;

impl Work<'_> {
    /// Computes some of the load of all rows at a basis, from a place on. Returns where it goes on; nothing
    /// at its end.
    pub fn load(
        &self,
        to: Basis,
        from: Option<LoadPlace>,
        out: Out<'_>,
    ) -> Result<(Step, Option<LoadPlace>)> {
        let mut step = self.empty_step(to);
        let mut left = self.load_rows;
        let (first, mut after) = match from {
            Some(place) => (Some(place.tenant), place.after),
            None => (None, None),
        };
        let tenants = self.tenants().into_iter();
        for tenant in tenants.filter(|tenant| first.as_ref().is_none_or(|first| first <= tenant)) {
            if left == 0 {
                return Ok((step, Some(LoadPlace { tenant, after: None })));
            }
            let after = after.take().filter(|_| first.as_ref() == Some(&tenant));
            let rests = self.load_tenant(&mut step, &tenant, after, &mut left, out)?;
            if let Some(after) = rests {
                return Ok((step, Some(LoadPlace { tenant, after: Some(after) })));
            }
        }
        Ok((step, None))
    }

    /// Loads a tenant's rows, of which `left` may come at once where the query allows.
    fn load_tenant(
        &self,
        step: &mut Step,
        tenant: &Tenant,
        after: Option<RowKey>,
        left: &mut usize,
        out: Out<'_>,
    ) -> Result<Option<RowKey>> {
        let to = step.to;
        if let (Way::Delta(root), None) = (&self.program.way, &after) {
            let lost = self.store.read_unerased(to.tx, |view| {
                Ok(lost_below(root, &self.reader(view, to, tenant)))
            })??;
            self.output(step, tenant).lost(&lost);
        }
        let rests = match &self.program.way {
            Way::Compare(_) => {
                let rows = self.full.rows(self.store, &self.program.plan, to, tenant)?;
                let mut held = self.memory.entry();
                held.grow(rows.bytes(), "the result of a query that is compared as a whole")?;
                let mut sorter = self.sorter(&rows);
                sorter.add_after(rows)?;
                sorter.groups(ONE_KEY, &mut |part| {
                    *left = left.saturating_sub(part.rows.len());
                    self.output(step, tenant).whole(&part)?.send(out)
                })?;
                None
            }
            Way::Delta(root) if self.program.unique => {
                self.store.read_unerased(to.tx, |view| {
                    let reader = self.reader(view, to, tenant);
                    Ok(load_some(root, &reader, after, &mut |rows| {
                        *left = left.saturating_sub(rows.len());
                        let rows_of = Restricted { root, reader: &reader };
                        self.output(step, tenant).loaded(&rows, &rows_of)?.send(out)?;
                        Ok(*left > 0)
                    }))
                })??
            }
            Way::Delta(root) => {
                self.store.read_unerased(to.tx, |view| {
                    let reader = self.reader(view, to, tenant);
                    Ok(load_by_key(root, &reader, &self.program.key, &mut |part| {
                        *left = left.saturating_sub(part.rows.len());
                        self.output(step, tenant).whole(&part)?.send(out)
                    }))
                })??;
                None
            }
        };
        if self.program.from_nothing && rests.is_none() {
            step.met.push(tenant.clone());
        }
        Ok(rests)
    }

    /// Computes the step from one basis towards another; it may end earlier where much changed.
    pub fn step(&self, from: Basis, latest: Basis, out: Out<'_>) -> Result<Step> {
        let (to, changes) = self.changes(from, latest)?;
        let mut step = self.empty_step(to);
        if self.program.from_nothing {
            let fresh = |tenant: &Tenant| !self.known.contains(tenant);
            for tenant in self.tenants().into_iter().filter(fresh) {
                let mut all = usize::MAX;
                self.load_tenant(&mut step, &tenant, None, &mut all, out)?;
            }
        }
        for (tenant, tables) in &changes {
            if step.met.contains(tenant) {
                continue;
            }
            match &self.program.way {
                Way::Delta(root) => {
                    self.store.read_unerased(to.tx, |view| {
                        let reader = self.reader(view, to, tenant);
                        let lost = RefCell::default();
                        let change = Change { reader: &reader, before: from, tables, lost: &lost };
                        let done = self.step_tenant(root, &change, &mut step, out);
                        Ok(done.map(|()| self.output(&mut step, tenant).lost(&lost.take())))
                    })??;
                }
                Way::Compare(_) => self.compare(&mut step, from, tenant, out)?,
            }
        }
        Ok(step)
    }

    /// Brings what changed of a tenant's rows together by key, and sends it.
    fn step_tenant(
        &self,
        root: &super::node::Node,
        change: &Change<'_, '_>,
        step: &mut Step,
        out: Out<'_>,
    ) -> Result<()> {
        let tenant = change.reader.tenant;
        let mut sorter = self.sorter(&ZSet::empty(&root.schema));
        delta(root, change, &mut |rows| sorter.add_after(rows))?;
        let rows_of = Restricted { root, reader: change.reader };
        sorter.groups(ONE_KEY, &mut |part| {
            self.output(step, tenant).changed(&part, &rows_of)?.send(out)
        })
    }

    /// Compares a tenant's full results at both bases.
    fn compare(&self, step: &mut Step, from: Basis, tenant: &Tenant, out: Out<'_>) -> Result<()> {
        let plan = &self.program.plan;
        let what = "the results of a query that is compared as a whole";
        let mut held = self.memory.entry();
        let before = self.full.rows(self.store, plan, from, tenant)?;
        held.grow(before.bytes(), what)?;
        let after = self.full.rows(self.store, plan, step.to, tenant)?;
        held.grow(after.bytes(), what)?;
        let mut sorter = self.sorter(&after);
        sorter.add_before(before)?;
        sorter.add_after(after)?;
        sorter.groups(ONE_KEY, &mut |part| self.output(step, tenant).whole(&part)?.send(out))
    }

    /// Starts to bring rows of the result together by key.
    fn sorter(&self, like: &ZSet) -> RowSorter<'_> {
        let order = Order { group: self.program.key.clone(), canonical: true };
        RowSorter::new(self.memory, like.batch().schema(), order)
    }

    fn output<'o>(&'o self, step: &'o mut Step, tenant: &'o Tenant) -> Output<'o> {
        let Self { program, body, held, .. } = self;
        let Step { to, held: changed, .. } = step;
        let into = Emitted { tx: to.tx, held: changed };
        Output::new(program, body, (held, tenant), into)
    }

    const fn empty_step(&self, to: Basis) -> Step {
        Step { to, held: BTreeMap::new(), met: Vec::new() }
    }

    fn reader<'r, 'db>(
        &'r self,
        view: &'r View<'db>,
        basis: Basis,
        tenant: &'r Tenant,
    ) -> Reader<'r, 'db> {
        let Self { store, definitions, memory, .. } = self;
        Reader { store, view, basis, tenant, definitions, memory, walk: None }
    }

    /// Returns the tenants whose rows the projection has, in order.
    fn tenants(&self) -> Vec<Tenant> {
        let mut tenants = self.body.covered(self.store.tenants());
        tenants.sort_unstable();
        tenants
    }

    fn covers(&self, tenant: &Tenant) -> bool {
        self.body.covers(tenant)
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
}

/// What a sort by key must have in memory.
const ONE_KEY: &str = "the changes of one key";

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
