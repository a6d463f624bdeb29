//! GROUP BY by DataFusion's own accumulators, group by group.
//!
//! Rows of a group are fed in one canonical order, so that a float sum has the same bits whether its
//! group was evaluated alone or with all others. A group may be larger than memory: its rows come in
//! parts. One with a row that failed, and one whose function fails, has a fault.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt32Array};
use arrow::compute::{SortColumn, filter, lexsort_to_indices, take};
use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::Accumulator;
use datafusion::scalar::ScalarValue;
use hashbrown::HashMap;

use super::delta::Change;
use super::evaluate::evaluate;
use super::fault::{Fault, Faults, fault_of, is_of_rows, values_of};
use super::memory::Memory;
use super::node::{Aggregate, Call};
use super::only::Only;
use super::row_sorter::{Order, RowSorter, Sorted};
use super::zset::{Each, ZSet, batch_of, row_bytes, take_columns};
use crate::error::Result;

/// Hands over rows, part by part.
pub type Source<'a> = &'a mut dyn FnMut(Each<'_>) -> Result<()>;

impl Aggregate {
    /// Aggregates whole groups of a relation: one row a group; without GROUP BY always one row.
    pub fn over(
        &self,
        schema: &SchemaRef,
        memory: &Memory,
        each: Each<'_>,
        source: Source<'_>,
    ) -> Result<()> {
        if self.is_streamed() {
            let mut total = Group::new(self)?;
            source(&mut |rows| total.feed(self, &rows.expanded()?))?;
            return each(self.rows(schema, vec![(None, total.value(self)?)])?);
        }
        let mut sorter = RowSorter::new(memory, self.input_schema(), self.order());
        source(&mut |rows| sorter.add_after(rows))?;
        let mut out = Folding::new(self, schema, memory, false);
        sorter.parts(&mut |part| out.take(&part, each))?;
        out.end(each)
    }

    /// Computes touched groups before and after. `touched` is what changed below, of all groups of `only`.
    pub fn delta(
        &self,
        schema: &SchemaRef,
        change: &Change<'_, '_>,
        (touched, only): (ZSet, &Only),
        each: Each<'_>,
    ) -> Result<()> {
        let mut sorter = RowSorter::new(change.reader.memory, self.input_schema(), self.order());
        evaluate(&self.input, change.reader, Some(only), &mut |rows| sorter.add_unchanged(rows))?;
        sorter.add_before(touched.negated())?;
        let mut out = Folding::new(self, schema, change.reader.memory, true);
        sorter.parts(&mut |part| out.take(&part, each))?;
        out.end(each)
    }

    /// Computes the one group of all rows before and after.
    pub fn total_delta(
        &self,
        schema: &SchemaRef,
        change: &Change<'_, '_>,
        each: Each<'_>,
    ) -> Result<()> {
        let below = super::delta::gathered(&self.input, change, "what changes below a total")?;
        if below.is_empty() {
            return Ok(());
        }
        if !self.is_streamed() {
            let mut sorter =
                RowSorter::new(change.reader.memory, self.input_schema(), self.order());
            evaluate(&self.input, change.reader, None, &mut |rows| sorter.add_unchanged(rows))?;
            sorter.add_before(below.negated())?;
            let mut out = Folding::new(self, schema, change.reader.memory, true);
            sorter.parts(&mut |part| out.take(&part, each))?;
            return out.end(each);
        }
        let (mut after, mut before) = (Group::new(self)?, Group::new(self)?);
        let mut come = Come::new(&below)?;
        evaluate(&self.input, change.reader, None, &mut |rows| {
            after.feed(self, &rows.clone().expanded()?)?;
            before.feed(self, &come.taken_from(rows)?.expanded()?)
        })?;
        let gone: BooleanArray = below.weights().iter().map(|weight| Some(*weight < 0)).collect();
        before.feed(self, &below.filtered(&gone)?.negated().expanded()?)?;
        let after = self.rows(schema, vec![(None, after.value(self)?)])?;
        let before = self.rows(schema, vec![(None, before.value(self)?)])?;
        each(after.plus(before.negated())?.consolidated()?)
    }

    /// True where rows can be fed as they come.
    fn is_streamed(&self) -> bool {
        self.group.is_empty() && !self.ordered
    }

    fn input_schema(&self) -> SchemaRef {
        Arc::clone(&self.input.schema)
    }

    fn order(&self) -> Order {
        Order { group: self.group.clone(), canonical: true }
    }

    /// Builds the output's rows of groups: their keys, and values or a fault.
    fn rows(&self, schema: &SchemaRef, groups: Vec<(Option<GroupKey>, Values)>) -> Result<ZSet> {
        let count = groups.len();
        if count == 0 {
            return Ok(ZSet::empty(schema));
        }
        let (keys, values): (Vec<_>, Vec<_>) = groups.into_iter().unzip();
        let mut columns = Vec::with_capacity(schema.fields().len());
        for at in 0..self.group.len() {
            let parts: Vec<ArrayRef> =
                keys.iter().flatten().map(|key| Arc::clone(&key[at])).collect();
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            columns.push(arrow::compute::concat(&parts)?);
        }
        for (at, call) in self.calls.iter().enumerate() {
            let kind = call.function.field().data_type().clone();
            let null = ScalarValue::try_from(&kind)?;
            let of = values.iter().map(|value| match value {
                Ok(values) => values[at].clone(),
                Err(_) => null.clone(),
            });
            columns.push(ScalarValue::iter_to_array(of)?);
        }
        let faults = Faults::new(values.into_iter().map(std::result::Result::err).collect());
        Ok(ZSet::once(batch_of(schema, columns, count)?).with_faults(faults))
    }
}

/// A group's key, one row of each of its columns.
type GroupKey = Vec<ArrayRef>;
/// The values of all functions of a group, or why there are none.
type Values = std::result::Result<Vec<ScalarValue>, Fault>;

/// Groups on their way, as their rows come in order.
struct Folding<'a> {
    aggregate: &'a Aggregate,
    schema: &'a SchemaRef,
    /// Both states are computed.
    both: bool,
    /// Rows put out at once.
    part_rows: usize,
    open: Option<OpenGroup>,
    after: Vec<(Option<GroupKey>, Values)>,
    before: Vec<(Option<GroupKey>, Values)>,
}

struct OpenGroup {
    key: GroupKey,
    after: Group,
    /// Where both states are computed.
    before: Option<Group>,
}

impl<'a> Folding<'a> {
    fn new(aggregate: &'a Aggregate, schema: &'a SchemaRef, memory: &Memory, both: bool) -> Self {
        let part_rows = memory.part_rows();
        Self {
            aggregate,
            schema,
            both,
            part_rows,
            open: None,
            after: Vec::new(),
            before: Vec::new(),
        }
    }

    fn take(&mut self, part: &Sorted, each: Each<'_>) -> Result<()> {
        for (number, range) in part.groups.iter().enumerate() {
            if !(number == 0 && part.continues && self.open.is_some()) {
                self.close()?;
                let first = u32::try_from(range.start).unwrap_or(u32::MAX);
                let columns: Vec<ArrayRef> = self
                    .aggregate
                    .group
                    .iter()
                    .map(|at| Arc::clone(part.rows.batch().column(*at)))
                    .collect();
                let key = take_columns(&columns, &UInt32Array::from(vec![first]))?;
                let before = self.both.then(|| Group::new(self.aggregate)).transpose()?;
                let after = Group::new(self.aggregate)?;
                self.open = Some(OpenGroup { key, after, before });
            }
            self.feed(part, range)?;
        }
        if self.after.len() + self.before.len() >= self.part_rows {
            self.put_out(each)
        } else {
            Ok(())
        }
    }

    fn feed(&mut self, part: &Sorted, range: &Range<usize>) -> Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let rows = part.rows.slice(range.start, range.len());
        if let Some(before) = &mut open.before {
            before.feed(self.aggregate, &rows.repeated(&part.before[range.clone()])?)?;
        }
        open.after.feed(self.aggregate, &rows.expanded()?)
    }

    /// Ends the group under way. One without rows is none, unless it is that of all rows.
    fn close(&mut self) -> Result<()> {
        let Some(OpenGroup { key, mut after, before }) = self.open.take() else {
            return Ok(());
        };
        let total = self.aggregate.group.is_empty();
        if after.rows > 0 || total {
            self.after.push((Some(key.clone()), after.value(self.aggregate)?));
        }
        if let Some(mut before) = before.filter(|before| before.rows > 0 || total) {
            self.before.push((Some(key), before.value(self.aggregate)?));
        }
        Ok(())
    }

    fn put_out(&mut self, each: Each<'_>) -> Result<()> {
        let after = self.aggregate.rows(self.schema, std::mem::take(&mut self.after))?;
        let before = self.aggregate.rows(self.schema, std::mem::take(&mut self.before))?;
        let rows = after.plus(before.negated())?;
        let rows = if self.both { rows.consolidated()? } else { rows };
        if rows.is_empty() { Ok(()) } else { each(rows) }
    }

    fn end(mut self, each: Each<'_>) -> Result<()> {
        self.close()?;
        let total = self.aggregate.group.is_empty();
        if total && self.after.is_empty() {
            // No rows at all are a group, too.
            self.after.push((None, Group::new(self.aggregate)?.value(self.aggregate)?));
            if self.both {
                self.before.push((None, Group::new(self.aggregate)?.value(self.aggregate)?));
            }
        }
        if self.after.is_empty() && self.before.is_empty() {
            return Ok(());
        }
        self.put_out(each)
    }
}

/// One group's accumulators.
struct Group {
    calls: Vec<Box<dyn Accumulator>>,
    /// Arguments of calls with an order of their own, until all are there.
    waiting: Vec<Vec<Vec<ArrayRef>>>,
    rows: usize,
    fault: Option<Fault>,
}

impl Group {
    fn new(aggregate: &Aggregate) -> Result<Self> {
        let mut calls = Vec::with_capacity(aggregate.calls.len());
        for call in &aggregate.calls {
            calls.push(call.function.create_accumulator()?);
        }
        let waiting = aggregate.calls.iter().map(|_| Vec::new()).collect();
        Ok(Self { calls, waiting, rows: 0, fault: None })
    }

    /// Adds rows, each once.
    fn feed(&mut self, aggregate: &Aggregate, rows: &ZSet) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        self.rows += rows.len();
        self.fault = self.fault.take().or_else(|| rows.faults().first().cloned());
        for (at, call) in aggregate.calls.iter().enumerate() {
            if self.fault.is_some() {
                return Ok(());
            }
            let mut values = Vec::with_capacity(call.arguments.len());
            for argument in call.arguments.iter().chain(&call.filter) {
                let (array, faults) = values_of(argument, rows.batch())?;
                self.fault = self.fault.take().or_else(|| faults.first().cloned());
                values.push(array);
            }
            if self.fault.is_some() {
                return Ok(());
            }
            if call.filter.is_some()
                && let Some(kept) = values.pop()
            {
                for array in &mut values {
                    *array = filter(array, kept.as_boolean())?;
                }
            }
            if values.first().is_some_and(|array| array.is_empty()) {
                continue;
            }
            if call.order.is_empty() {
                self.update(at, call, &values)?;
            } else {
                self.waiting[at].push(values);
            }
        }
        Ok(())
    }

    fn update(&mut self, at: usize, call: &Call, values: &[ArrayRef]) -> Result<()> {
        match self.calls[at].update_batch(values) {
            Ok(()) => Ok(()),
            Err(error) if is_of_rows(&error) => {
                self.fault = Some(fault_of(error, &call.function.name()));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the functions' values.
    fn value(&mut self, aggregate: &Aggregate) -> Result<Values> {
        let mut values = Vec::with_capacity(self.calls.len());
        for (at, call) in aggregate.calls.iter().enumerate() {
            let waiting = std::mem::take(&mut self.waiting[at]);
            if !waiting.is_empty() {
                let ordered = call.in_order(waiting)?;
                self.update(at, call, &ordered)?;
            }
            if let Some(fault) = &self.fault {
                return Ok(Err(Arc::clone(fault)));
            }
            match self.calls[at].evaluate() {
                Ok(value) => values.push(value),
                Err(error) if is_of_rows(&error) => {
                    return Ok(Err(fault_of(error, &call.function.name())));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.fault.clone().map_or(Ok(values), Err))
    }
}

impl Call {
    /// Sorts a group's arguments by the call's own ORDER BY; ties keep their canonical order.
    fn in_order(&self, parts: Vec<Vec<ArrayRef>>) -> Result<Vec<ArrayRef>> {
        let width = self.arguments.len();
        let mut whole = Vec::with_capacity(width);
        for at in 0..width {
            let of: Vec<&dyn Array> = parts.iter().map(|part| part[at].as_ref()).collect();
            whole.push(arrow::compute::concat(&of)?);
        }
        let count = whole.first().map_or(0, |array| array.len());
        if count < 2 {
            return Ok(whole);
        }
        let first_key = width - self.order.len();
        let mut keys: Vec<SortColumn> = whole[first_key..]
            .iter()
            .zip(&self.order)
            .map(|(values, order)| SortColumn {
                values: Arc::clone(values),
                options: Some(order.options),
            })
            .collect();
        let places = UInt32Array::from_iter_values((0_u32..).take(count));
        keys.push(SortColumn { values: Arc::new(places), options: None });
        let order = lexsort_to_indices(&keys, None)?;
        whole.iter().map(|array| Ok(take(array, &order, None)?)).collect()
    }
}

/// The rows that a change brought, to be taken out of those that are there now.
struct Come {
    left: HashMap<Vec<u8>, i64>,
}

impl Come {
    fn new(change: &ZSet) -> Result<Self> {
        let bytes = row_bytes(change.batch().columns())?;
        let mut left = HashMap::new();
        for (row, weight) in change.weights().iter().enumerate().filter(|(_, w)| **w > 0) {
            *left.entry(bytes.row(row).data().to_vec()).or_insert(0) += *weight;
        }
        Ok(Self { left })
    }

    /// Returns the rows without those that came.
    fn taken_from(&mut self, rows: ZSet) -> Result<ZSet> {
        if self.left.is_empty() {
            return Ok(rows);
        }
        let bytes = row_bytes(rows.batch().columns())?;
        let mut weights = rows.weights().to_vec();
        for (row, weight) in weights.iter_mut().enumerate() {
            if let Some(left) = self.left.get_mut(bytes.row(row).data()) {
                let some = (*left).min(*weight);
                *weight -= some;
                *left -= some;
                if *left == 0 {
                    self.left.remove(bytes.row(row).data());
                }
            }
        }
        let kept = ZSet::weighted(rows.batch().clone(), weights)?;
        Ok(kept.with_faults(rows.faults().clone()))
    }
}
