//! What a change of the query's rows means for the sink's: rows written and removed, keys held.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use everwhen_query::columns::{cast_column, json_of};
use everwhen_storage::{Tenant, TxId};
use serde_json::{Map, Value as Json};

use super::admit::Program;
use super::cursor::{Held, RowChange};
use super::definition::Body;
use super::delta::{Lost, lost_row};
use super::diff::{Touch, Verdict, verdict};
use super::evaluate::evaluate;
use super::fault::Fault;
use super::node::Node;
use super::only::Only;
use super::row_sorter::Sorted;
use super::source::Reader;
use super::step::{HeldKeys, Out};
use super::zset::{ZSet, key_bytes};
use crate::error::Result;

/// Finds the rows that keys have now, by restricted evaluation.
pub struct Restricted<'a, 'r, 'db> {
    /// The query.
    pub root: &'a Node,
    /// Reads at the new basis.
    pub reader: &'a Reader<'r, 'db>,
}

/// Where a step notes what it does.
pub struct Emitted<'a> {
    /// The transaction it leads to.
    pub tx: TxId,
    /// Keys that come into quarantine, and such that leave it.
    pub held: &'a mut BTreeMap<(Tenant, String), Option<Held>>,
}

/// Turns rows of one tenant into changes of the sink's rows.
pub struct Output<'a> {
    program: &'a Program,
    body: &'a Body,
    /// Keys in quarantine before the step.
    held: &'a HeldKeys,
    tenant: &'a Tenant,
    into: Emitted<'a>,
    rows: Vec<RowChange>,
}

/// What a key has now.
#[derive(Debug, Default)]
struct Now {
    /// The first of its rows.
    first: usize,
    count: i64,
    fault: Option<Fault>,
}

impl<'a> Output<'a> {
    /// Starts an output.
    pub const fn new(
        program: &'a Program,
        body: &'a Body,
        (held, tenant): (&'a HeldKeys, &'a Tenant),
        into: Emitted<'a>,
    ) -> Self {
        Self { program, body, held, tenant, into, rows: Vec::new() }
    }

    /// Sends the changes.
    pub fn send(self, out: Out<'_>) -> Result<()> {
        if self.rows.is_empty() { Ok(()) } else { out(self.rows) }
    }

    /// Takes all rows that some keys have after the step and before.
    pub fn whole(mut self, part: &Sorted) -> Result<Self> {
        let cells = Cells::new(self.program, part.rows.batch());
        for group in &part.groups {
            let mut now = Now { first: group.start, ..Now::default() };
            let mut changed = false;
            for row in group.clone() {
                let weight = part.rows.weights()[row];
                changed |= weight != part.before[row];
                if weight > 0 {
                    now.first = if now.count == 0 { row } else { now.first };
                    now.count += weight;
                    now.fault = now.fault.or_else(|| part.rows.faults().at(row).cloned());
                }
            }
            if changed {
                self.decide(&cells, group.start, Some(&cells), &now)?;
            }
        }
        Ok(self)
    }

    /// Takes rows of a load whose keys are unique by the query itself.
    pub fn loaded(mut self, rows: &ZSet, rows_of: &Restricted<'_, '_, '_>) -> Result<Self> {
        let cells = Cells::new(self.program, rows.batch());
        let key = cells.key_columns();
        let mut checks = Vec::new();
        for row in 0..rows.len() {
            let doubtful = rows.faults().at(row).is_some()
                || rows.weights()[row] != 1
                || key.iter().any(|column| column.is_null(row))
                || self.is_held(&cells, row)?;
            if doubtful {
                checks.push(row);
            } else {
                self.upsert(&cells, row)?;
            }
        }
        self.check(rows, &cells, &checks, rows_of)?;
        Ok(self)
    }

    /// Takes a delta of the query's rows, key by key.
    pub fn changed(mut self, part: &Sorted, rows_of: &Restricted<'_, '_, '_>) -> Result<Self> {
        let cells = Cells::new(self.program, part.rows.batch());
        let key = cells.key_columns();
        let mut checks = Vec::new();
        for group in &part.groups {
            let touch = touch_of(part, group, &key);
            let held = self.is_held(&cells, group.start)?;
            match verdict(&touch, self.program.unique, held) {
                Some(Verdict::Upsert(place)) => self.upsert(&cells, place as usize)?,
                Some(Verdict::Delete(place)) => self.delete(&cells, place as usize)?,
                Some(Verdict::Check(place)) => checks.push(place as usize),
                None => {}
            }
        }
        self.check(&part.rows, &cells, &checks, rows_of)?;
        Ok(self)
    }

    /// Takes rows that no output row can be told from.
    pub fn lost(mut self, lost: &[Lost]) {
        let mut sums: BTreeMap<&str, (i64, &Fault)> = BTreeMap::new();
        for row in lost {
            sums.entry(&row.row).or_insert((0, &row.fault)).0 += row.weight;
        }
        for (row, (weight, fault)) in sums {
            self.note_lost(row, weight, fault);
        }
    }

    fn note_lost(&mut self, row: &str, weight: i64, fault: &Fault) {
        let id = (self.tenant.clone(), row.to_owned());
        if weight > 0 {
            let reason = format!("the key of an input row could not be computed: {fault}");
            self.into.held.insert(id, Some(self.entry(row.to_owned(), reason)));
        } else if weight < 0 && self.held.contains_key(&id) {
            self.into.held.insert(id, None);
        }
    }

    /// Counts the rows that keys have now, and writes, removes or holds each.
    fn check(
        &mut self,
        rows: &ZSet,
        cells: &Cells<'_>,
        places: &[usize],
        rows_of: &Restricted<'_, '_, '_>,
    ) -> Result<()> {
        if places.is_empty() {
            return Ok(());
        }
        let mut wanted = Vec::new();
        let key_columns = cells.key_columns();
        for place in places {
            let is_null = key_columns.iter().any(|column| column.is_null(*place));
            match lost_row(rows, *place).filter(|_| is_null) {
                // A key that could not be computed is no key that rows are found by.
                Some(lost) => self.note_lost(&lost.row, lost.weight, &lost.fault),
                None => wanted.push(u32::try_from(*place).unwrap_or(u32::MAX)),
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let key = &self.program.key;
        let asked = rows.taken(&wanted)?;
        let tuples: Vec<ArrayRef> =
            key.iter().map(|at| Arc::clone(asked.batch().column(*at))).collect();
        let only = Only::new(key.clone(), tuples.clone(), true)?;
        let (found, by_key) = self.counted(&only, &asked, rows_of)?;
        let found_cells = Cells::new(self.program, found.batch());
        let asked_cells = Cells::new(self.program, asked.batch());
        let bytes = key_bytes(&tuples)?;
        let mut seen = BTreeSet::new();
        for row in 0..asked.len() {
            let key = bytes.row(row).data();
            if seen.insert(key) {
                let nothing = Now::default();
                let now = by_key.get(key).unwrap_or(&nothing);
                self.decide(&asked_cells, row, Some(&found_cells), now)?;
            }
        }
        Ok(())
    }

    /// Evaluates the rows that some keys have now: one of each, and how many there are.
    fn counted(
        &self,
        only: &Only,
        asked: &ZSet,
        rows_of: &Restricted<'_, '_, '_>,
    ) -> Result<(ZSet, BTreeMap<Vec<u8>, Now>)> {
        let key = &self.program.key;
        let mut firsts = ZSet::empty(&asked.batch().schema());
        let mut by_key: BTreeMap<Vec<u8>, Now> = BTreeMap::new();
        evaluate(rows_of.root, rows_of.reader, Some(only), &mut |part| {
            let columns: Vec<ArrayRef> =
                key.iter().map(|at| Arc::clone(part.batch().column(*at))).collect();
            let bytes = key_bytes(&columns)?;
            let mut new = Vec::new();
            for (row, place) in (0..part.len()).zip(0_u32..) {
                let now = by_key.entry(bytes.row(row).data().to_vec()).or_default();
                if now.count == 0 {
                    now.first = firsts.len() + new.len();
                    new.push(place);
                }
                now.count += part.weights()[row];
                now.fault = now.fault.take().or_else(|| part.faults().at(row).cloned());
            }
            let more = part.taken(&new)?;
            let so_far = std::mem::replace(&mut firsts, ZSet::empty(&asked.batch().schema()));
            firsts = so_far.plus(more)?;
            Ok(())
        })?;
        Ok((firsts, by_key))
    }

    /// Writes, removes or holds the key of a row, by what it has now.
    fn decide(
        &mut self,
        cells: &Cells<'_>,
        row: usize,
        found: Option<&Cells<'_>>,
        now: &Now,
    ) -> Result<()> {
        let null = cells.key_columns().iter().any(|column| column.is_null(row));
        if let Some(fault) = &now.fault {
            return self.hold(cells, row, fault);
        }
        match (now.count, found) {
            (0, _) if null => self.released(cells, row),
            (0, _) => self.delete(cells, row),
            _ if null => self.hold(cells, row, "a column of the key is NULL"),
            (1, Some(found)) => self.upsert(found, now.first),
            (count, _) => self.hold(cells, row, &format!("{count} rows have this key")),
        }
    }

    fn upsert(&mut self, cells: &Cells<'_>, at: usize) -> Result<()> {
        let mut row = self.row_start();
        for (column, of) in self.program.columns.iter().enumerate() {
            match cells.value(column, at) {
                Ok(value) => {
                    row.insert(of.name.clone(), value);
                }
                Err(error) => return self.hold(cells, at, &error.to_string()),
            }
        }
        self.released(cells, at)?;
        self.rows.push(RowChange { row_json: Json::Object(row).to_string(), delete: false });
        Ok(())
    }

    fn delete(&mut self, cells: &Cells<'_>, at: usize) -> Result<()> {
        let mut row = self.row_start();
        for column in &self.program.key {
            match cells.value(*column, at) {
                Ok(value) => row.insert(self.program.columns[*column].name.clone(), value),
                // A key that has no value in the sink's type has no row there.
                Err(_) => return self.released(cells, at),
            };
        }
        self.released(cells, at)?;
        self.rows.push(RowChange { row_json: Json::Object(row).to_string(), delete: true });
        Ok(())
    }

    fn row_start(&self) -> Map<String, Json> {
        let mut row = Map::new();
        if let Some(name) = &self.body.tenant_column {
            row.insert(name.clone(), Json::String(self.tenant.as_str().to_owned()));
        }
        row
    }

    fn entry(&self, key: String, reason: String) -> Held {
        let tenant = self.tenant.as_str().to_owned();
        Held { tenant, key, reason, tx: self.into.tx.get() }
    }

    fn hold(&mut self, cells: &Cells<'_>, row: usize, reason: &str) -> Result<()> {
        let key = cells.key_text(row);
        let held = self.entry(key.clone(), reason.to_owned());
        self.into.held.insert((self.tenant.clone(), key), Some(held));
        Ok(())
    }

    fn is_held(&self, cells: &Cells<'_>, row: usize) -> Result<bool> {
        Ok(!self.held.is_empty()
            && self.held.contains_key(&(self.tenant.clone(), cells.key_text(row))))
    }

    /// Takes a key out of quarantine, where it is in.
    fn released(&mut self, cells: &Cells<'_>, row: usize) -> Result<()> {
        if self.held.is_empty() && self.into.held.is_empty() {
            return Ok(());
        }
        let id = (self.tenant.clone(), cells.key_text(row));
        if self.held.contains_key(&id) || self.into.held.contains_key(&id) {
            self.into.held.insert(id, None);
        }
        Ok(())
    }
}

fn touch_of(part: &Sorted, group: &Range<usize>, key: &[&ArrayRef]) -> Touch {
    let mut touch = Touch::default();
    for (row, weight) in group.clone().zip(&part.rows.weights()[group.clone()]) {
        let place = u32::try_from(row).unwrap_or(u32::MAX);
        touch.null |= key.iter().any(|column| column.is_null(row));
        match *weight {
            0 => {}
            weight if weight > 0 => {
                touch.failed |= part.rows.faults().at(row).is_some();
                touch.come.push((place, weight));
            }
            weight => touch.gone.push((place, -weight)),
        }
    }
    touch
}

/// Rows in the contract's JSON form, a column cast when it is first asked for.
struct Cells<'a> {
    program: &'a Program,
    batch: &'a RecordBatch,
    columns: Vec<std::cell::OnceCell<Option<ArrayRef>>>,
}

impl<'a> Cells<'a> {
    fn new(program: &'a Program, batch: &'a RecordBatch) -> Self {
        let columns = program.columns.iter().map(|_| std::cell::OnceCell::new()).collect();
        Self { program, batch, columns }
    }

    fn key_columns(&self) -> Vec<&ArrayRef> {
        self.program.key.iter().map(|at| self.batch.column(*at)).collect()
    }

    /// Returns a value in the contract's JSON form.
    fn value(&self, at: usize, row: usize) -> Result<Json> {
        let kind = &self.program.columns[at].kind;
        match self.columns[at].get_or_init(|| cast_column(self.batch.column(at), kind).ok()) {
            Some(column) => Ok(json_of(column.as_ref(), row, kind)),
            // Some row's value does not fit; this one's may.
            None => {
                let one = cast_column(&self.batch.column(at).slice(row, 1), kind)?;
                Ok(json_of(one.as_ref(), 0, kind))
            }
        }
    }

    /// Returns the key of a row as a JSON array: its name in quarantine.
    fn key_text(&self, row: usize) -> String {
        let value = |at: &usize| {
            self.value(*at, row).unwrap_or_else(|_| {
                let text = arrow::util::display::array_value_to_string(self.batch.column(*at), row);
                Json::String(text.unwrap_or_default())
            })
        };
        Json::Array(self.program.key.iter().map(value).collect()).to_string()
    }
}
