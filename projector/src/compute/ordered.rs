//! Operators that go by an order of rows: window functions and ORDER BY .. LIMIT.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{SortColumn, SortOptions, concat, lexsort_to_indices};
use arrow::datatypes::SchemaRef;
use datafusion::physical_expr::window::WindowExpr;

use super::aggregate::Source;
use super::delta::Change;
use super::evaluate::{collected, evaluate};
use super::fault::{Fault, Faults, fault_of, is_of_rows, values_of};
use super::memory::Memory;
use super::node::{Top, Window};
use super::only::Only;
use super::row_sorter::{Order, RowSorter};
use super::zset::{Each, ZSet, batch_of, key_bytes, row_bytes, take_columns, take_rows};
use crate::error::Result;

/// What a window must have in memory.
const PARTITION: &str = "a partition of a window";

impl Window {
    /// Computes the functions over all rows of a relation, some whole partitions at a time.
    pub fn over(
        &self,
        schema: &SchemaRef,
        memory: &Memory,
        each: Each<'_>,
        source: Source<'_>,
    ) -> Result<()> {
        let order = Order { group: self.partition.clone(), canonical: false };
        let mut sorter = RowSorter::new(memory, Arc::clone(&self.input.schema), order);
        source(&mut |rows| sorter.add_after(rows))?;
        sorter.groups(PARTITION, &mut |part| each(self.apply(schema, part.rows)?))
    }

    /// Computes touched partitions before and after. `touched` is what changed below, of all partitions
    /// of `only`; without, of all rows.
    pub fn delta(
        &self,
        schema: &SchemaRef,
        change: &Change<'_, '_>,
        (touched, only): (ZSet, Option<&Only>),
        each: Each<'_>,
    ) -> Result<()> {
        let after = collected(&self.input, change.reader, only, PARTITION)?;
        let before = after.clone().plus(touched.negated())?.consolidated()?;
        let rows = self.apply(schema, after)?.plus(self.apply(schema, before)?.negated())?;
        each(rows.consolidated()?)
    }

    /// Computes the functions over whole partitions of a relation.
    fn apply(&self, schema: &SchemaRef, rows: ZSet) -> Result<ZSet> {
        let rows = rows.expanded()?;
        let mut columns = rows.batch().columns().to_vec();
        let mut faults = rows.faults().clone();
        for call in &self.calls {
            let (values, failed) = over(call, &rows)?;
            columns.push(values);
            faults = faults.or(failed);
        }
        Ok(ZSet::once(batch_of(schema, columns, rows.len())?).with_faults(faults))
    }
}

/// Computes one function, partition by partition, and puts its values beside their rows. A partition
/// with a row that failed has no values.
fn over(call: &Arc<dyn WindowExpr>, rows: &ZSet) -> Result<(ArrayRef, Faults)> {
    let count = rows.len();
    let batch = rows.batch();
    if count == 0 {
        let none = arrow::array::new_empty_array(call.field()?.data_type());
        return Ok((none, Faults::default()));
    }
    let mut keys = Vec::new();
    let mut failed = Faults::default();
    for expr in call.partition_by() {
        let (values, faults) = values_of(expr, batch)?;
        failed = failed.or(faults);
        keys.push(values);
    }
    let mut sorts: Vec<(ArrayRef, SortOptions)> =
        keys.iter().map(|key| (Arc::clone(key), SortOptions::default())).collect();
    for order in call.order_by() {
        let (values, faults) = values_of(&order.expr, batch)?;
        failed = failed.or(faults);
        sorts.push((values, order.options));
    }
    let failed = rows.faults().clone().or(failed);
    let order = canonical_order(batch, sorts)?;
    let sorted = take_rows(batch, order.values())?;
    let sorted_keys = take_columns(&keys, &order)?;
    let mut starts = vec![0];
    if !sorted_keys.is_empty() {
        let bytes = key_bytes(&sorted_keys)?;
        starts.extend((1..count).filter(|at| bytes.row(*at) != bytes.row(at - 1)));
    }
    starts.push(count);
    let mut parts = Vec::with_capacity(starts.len());
    let mut faults = vec![None; count];
    for bounds in starts.windows(2) {
        let places = &order.values()[bounds[0]..bounds[1]];
        let known = places.iter().find_map(|at| failed.at(*at as usize)).cloned();
        let (values, fault) = partition(call, &sorted, bounds[0]..bounds[1], known)?;
        parts.push(values);
        if let Some(fault) = fault {
            places.iter().for_each(|at| faults[*at as usize] = Some(Arc::clone(&fault)));
        }
    }
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    let values = concat(&parts)?;
    let mut back = vec![0_u32; count];
    for (place, from) in (0_u32..).zip(order.values()) {
        back[*from as usize] = place;
    }
    let values = arrow::compute::take(&values, &UInt32Array::from(back), None)?;
    Ok((values, Faults::new(faults)))
}

/// Computes one function over one partition.
fn partition(
    call: &Arc<dyn WindowExpr>,
    sorted: &RecordBatch,
    range: Range<usize>,
    fault: Option<Fault>,
) -> Result<(ArrayRef, Option<Fault>)> {
    let nothing = |fault| -> Result<_> {
        Ok((new_null_array(call.field()?.data_type(), range.len()), Some(fault)))
    };
    if let Some(fault) = fault {
        return nothing(fault);
    }
    match call.evaluate(&sorted.slice(range.start, range.len())) {
        Ok(values) => Ok((values, None)),
        Err(error) if is_of_rows(&error) => nothing(fault_of(error, &call.name())),
        Err(error) => Err(error.into()),
    }
}

impl Top {
    /// Takes the first rows of a relation, of which it holds no more than those.
    pub fn over(&self, schema: &SchemaRef, memory: &Memory, source: Source<'_>) -> Result<ZSet> {
        let mut best = Best::new(self, schema, memory);
        source(&mut |rows| best.add(rows))?;
        best.end()
    }

    /// Parts rows into those whose place is known, and those that failed.
    fn told(&self, rows: ZSet) -> Result<(ZSet, ZSet)> {
        let mut failed = rows.faults().clone();
        for (expr, _) in &self.order {
            failed = failed.or(values_of(expr, rows.batch())?.1);
        }
        if failed.is_empty() {
            let none = ZSet::empty(&rows.batch().schema());
            return Ok((rows, none));
        }
        let told = (0..rows.len()).map(|row| Some(failed.at(row).is_none())).collect();
        let others = (0..rows.len()).map(|row| Some(failed.at(row).is_some())).collect();
        Ok((rows.clone().filtered(&told)?, rows.with_faults(failed).filtered(&others)?))
    }

    /// Takes the first rows before and after. `below` is what changed below.
    pub fn delta(&self, schema: &SchemaRef, change: &Change<'_, '_>, below: ZSet) -> Result<ZSet> {
        let memory = change.reader.memory;
        let mut after = Best::new(self, schema, memory);
        let mut before = Best::new(self, schema, memory);
        // What came may push everything else out of the first rows, so as many more are held.
        before.spare = usize::try_from(below.weights().iter().filter(|w| **w > 0).sum::<i64>())
            .unwrap_or(usize::MAX);
        evaluate(&self.input, change.reader, None, &mut |rows| {
            before.add(rows.clone())?;
            after.add(rows)
        })?;
        before.add(below.negated())?;
        after.end()?.plus(before.end()?.negated())?.consolidated()
    }

    /// Puts rows in order and takes some from the first on.
    fn first(&self, rows: ZSet, skip: usize, fetch: usize) -> Result<ZSet> {
        let mut sorts = Vec::with_capacity(self.order.len());
        for (expr, options) in &self.order {
            sorts.push((values_of(expr, rows.batch())?.0, *options));
        }
        let order = canonical_order(rows.batch(), sorts)?;
        let taken: Vec<u32> = order.values().iter().copied().skip(skip).take(fetch).collect();
        rows.taken(&taken)
    }
}

/// The first rows of those that came so far.
struct Best<'a> {
    top: &'a Top,
    rows: ZSet,
    /// Rows of which a value could not be computed: which place they have is not known.
    failed: ZSet,
    /// Rows held beyond those that are put out.
    spare: usize,
    held: super::memory::Held<'a>,
}

impl<'a> Best<'a> {
    fn new(top: &'a Top, schema: &SchemaRef, memory: &'a Memory) -> Self {
        let (rows, failed) = (ZSet::empty(schema), ZSet::empty(schema));
        Self { top, rows, failed, spare: 0, held: memory.entry() }
    }

    /// Adds rows; what came before may go again.
    fn add(&mut self, rows: ZSet) -> Result<()> {
        let (rows, failed) = self.top.told(rows)?;
        let none = ZSet::empty(&rows.batch().schema());
        self.failed = std::mem::replace(&mut self.failed, none.clone()).plus(failed)?;
        let rows = std::mem::replace(&mut self.rows, none).plus(rows)?.consolidated()?;
        let most = self.top.fetch.map(|fetch| fetch.saturating_add(self.top.skip));
        let most = most.map(|most| most.saturating_add(self.spare));
        let is_relation = rows.weights().iter().all(|weight| *weight > 0);
        self.rows = match most {
            Some(most) if rows.len() > most && is_relation => {
                self.top.first(rows.expanded()?, 0, most)?
            }
            _ => rows,
        };
        self.held.free();
        let bytes = self.rows.bytes() + self.failed.bytes();
        self.held.grow(bytes, "the rows of an ORDER BY with a LIMIT")
    }

    fn end(self) -> Result<ZSet> {
        // What went and was not held did not stand among the first.
        let there = self.rows.weights().iter().map(|weight| Some(*weight > 0)).collect();
        let rows = self.rows.filtered(&there)?.expanded()?;
        let fetch = self.top.fetch.unwrap_or(usize::MAX);
        let rows = self.top.first(rows, self.top.skip, fetch)?;
        let failed = self.failed.consolidated()?;
        let Some(fault) = failed.faults().first().cloned() else { return Ok(rows) };
        // Which rows are the first is not known.
        let rows = rows.plus(failed)?;
        let faults = Faults::new(vec![Some(fault); rows.len()]);
        Ok(rows.with_faults(faults))
    }
}

/// Returns places of rows in an order; ties by all columns, so that it never depends on the input's.
fn canonical_order(rows: &RecordBatch, sorts: Vec<(ArrayRef, SortOptions)>) -> Result<UInt32Array> {
    let bytes = row_bytes(rows.columns())?;
    let mut canonical: Vec<u32> = (0_u32..).take(rows.num_rows()).collect();
    canonical.sort_by(|a, b| bytes.row(*a as usize).cmp(&bytes.row(*b as usize)));
    let canonical = UInt32Array::from(canonical);
    if sorts.is_empty() {
        return Ok(canonical);
    }
    let mut columns = Vec::with_capacity(sorts.len() + 1);
    for (values, options) in sorts {
        let values = arrow::compute::take(&values, &canonical, None)?;
        columns.push(SortColumn { values, options: Some(options) });
    }
    let places = UInt32Array::from_iter_values((0_u32..).take(rows.num_rows()));
    columns.push(SortColumn { values: Arc::new(places), options: None });
    let order = lexsort_to_indices(&columns, None)?;
    Ok(UInt32Array::from_iter_values(order.values().iter().map(|at| canonical.value(*at as usize))))
}
