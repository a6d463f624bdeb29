//! Changing one key: what its assertions make of it, and all that follows from that on disk.

use std::sync::Arc;

use crate::assertion::{EventId, Position};
use crate::assertions::{self, Live};
use crate::engine::{DbIterator, Engine};
use crate::error::Result;
use crate::families::Family;
use crate::key::{self, Fork};
use crate::row::{ArchiveHeader, Asserted, ChangeValue, LevelSet};
use crate::schema::Precedence;
use crate::time::{Period, SystemTime, ValidTime};
use crate::timeline::{Change, Said, Segment, effective, recorded};
use crate::tx::TxId;

use super::group::Group;
use super::key_state::KeyState;
use super::resolve::KeyOp;

/// Versions of one key that a transaction may replace without a word in the log.
const RIPPLE_REPORTED: usize = 10_000;

/// One step in changing a key over a period.
pub(super) enum Step<'t> {
    /// Applies an assertion over what is there.
    Apply(&'t Said),
    /// Puts segments in the place of what is there.
    Replace(Vec<Segment>),
}

/// Where an assertion stands in the order, and its period.
type Touched = (Position, Period<ValidTime>);

impl Group<'_> {
    /// Changes a key by the operations of one transaction, all on this key.
    pub(super) fn change_key(
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
    pub(super) fn change(
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
            if value.changed.len() + value.replaced.len() > RIPPLE_REPORTED {
                let (table, replaced) = (state.table.0, value.replaced.len());
                tracing::warn!(%tx, table, replaced, "one transaction rewrote very many versions");
            }
            self.value.clear();
            value.put(&mut self.value);
            let key = key::change(tx, &state.tenant, state.table, state.row_key());
            self.changed.put(&[&key], &self.value);
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
    ) -> Result<(bool, Vec<Touched>)> {
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
        touched: &[Touched],
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
            let (version, is_cut) =
                ((segment.valid.from(), &segment.document), segment.tx_from != tx);
            table.index_entries(row_key, version, is_cut, |mut key| {
                key::put_tenant(&mut key, &state.tenant);
                key.extend_from_slice(row_key);
                self.indexed.put(&[&key], &[]);
            })?;
        }
        Ok(())
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
    if let [hull] = hulls.as_slice() {
        return vec![(*hull, steps)];
    }
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
