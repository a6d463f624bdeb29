//! GROUP BY by DataFusion's own accumulators, group by group.
//!
//! Rows of a group are fed in one canonical order where the result may depend on it, so that a
//! float sum has the same bits whether its group was evaluated alone or with all others.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{SortColumn, filter, lexsort_to_indices, take};
use arrow::datatypes::SchemaRef;
use datafusion::scalar::ScalarValue;

use super::node::{Aggregate, Call, array_of};
use super::zset::{ZSet, batch_of, row_bytes, take_columns, take_rows};
use crate::error::{Error, Result};

impl Aggregate {
    /// Aggregates whole groups of a relation: one row a group; without GROUP BY always one row.
    pub fn apply(&self, schema: &SchemaRef, rows: ZSet) -> Result<ZSet> {
        let (rows, groups) = self.grouped(rows.expanded()?)?;
        let firsts: Result<Vec<u32>, _> =
            groups.iter().map(|group| u32::try_from(group.start)).collect();
        let firsts = firsts.map_err(|_| Error::internal("fewer than 2^32 rows in one step"))?;
        let keys: Vec<ArrayRef> =
            self.group.iter().map(|at| Arc::clone(rows.column(*at))).collect();
        let mut columns = take_columns(&keys, &UInt32Array::from(firsts))?;
        for call in &self.calls {
            columns.push(call.over(&rows, &groups)?);
        }
        Ok(ZSet::once(batch_of(schema, columns, groups.len())?))
    }

    /// Sorts rows so that each group stands together, and says where.
    fn grouped(&self, rows: RecordBatch) -> Result<(RecordBatch, Vec<Range<usize>>)> {
        let count = rows.num_rows();
        if self.group.is_empty() && !self.ordered {
            return Ok((rows, one_group(count)));
        }
        let mut places: Vec<u32> = (0_u32..).take(count).collect();
        let whole = self.ordered.then(|| row_bytes(rows.columns())).transpose()?;
        let canonical = |a: u32, b: u32| {
            whole
                .as_ref()
                .map_or(a.cmp(&b), |bytes| bytes.row(a as usize).cmp(&bytes.row(b as usize)))
        };
        if self.group.is_empty() {
            places.sort_by(|a, b| canonical(*a, *b));
            return Ok((take_rows(&rows, &places)?, one_group(count)));
        }
        let keys: Vec<ArrayRef> =
            self.group.iter().map(|at| Arc::clone(rows.column(*at))).collect();
        let bytes = row_bytes(&keys)?;
        let key = |place: u32| bytes.row(place as usize);
        places.sort_by(|a, b| key(*a).cmp(&key(*b)).then_with(|| canonical(*a, *b)));
        let mut groups: Vec<Range<usize>> = Vec::new();
        for at in 0..count {
            match groups.last_mut() {
                Some(group) if key(places[at]) == key(places[group.start]) => group.end = at + 1,
                _ => groups.push(at..at + 1),
            }
        }
        Ok((take_rows(&rows, &places)?, groups))
    }
}

/// Without GROUP BY all rows are one group, also where there are none.
fn one_group(count: usize) -> Vec<Range<usize>> {
    std::iter::once(0..count).collect()
}

impl Call {
    /// Returns the function's value for each group.
    fn over(&self, rows: &RecordBatch, groups: &[Range<usize>]) -> Result<ArrayRef> {
        let mut arguments = Vec::with_capacity(self.arguments.len());
        for argument in &self.arguments {
            arguments.push(array_of(argument, rows)?);
        }
        let kept = self.filter.as_ref().map(|expr| array_of(expr, rows)).transpose()?;
        let mut values = Vec::with_capacity(groups.len());
        for group in groups {
            let part = |array: &ArrayRef| array.slice(group.start, group.len());
            let mut slices: Vec<ArrayRef> = arguments.iter().map(part).collect();
            if let Some(kept) = &kept {
                let kept = part(kept);
                for slice in &mut slices {
                    *slice = filter(slice, kept.as_boolean())?;
                }
            }
            if !self.order.is_empty() {
                slices = self.in_order(slices)?;
            }
            let mut accumulator = self.function.create_accumulator()?;
            if slices.first().is_none_or(|slice| !slice.is_empty()) {
                accumulator.update_batch(&slices)?;
            }
            values.push(accumulator.evaluate()?);
        }
        if values.is_empty() {
            return Ok(arrow::array::new_empty_array(self.function.field().data_type()));
        }
        Ok(ScalarValue::iter_to_array(values)?)
    }

    /// Sorts a group's arguments by the call's own ORDER BY; ties keep their canonical order.
    fn in_order(&self, slices: Vec<ArrayRef>) -> Result<Vec<ArrayRef>> {
        let count = slices.first().map_or(0, |slice| slice.len());
        if count < 2 {
            return Ok(slices);
        }
        let first_key = slices.len() - self.order.len();
        let mut keys: Vec<SortColumn> = slices[first_key..]
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
        slices.iter().map(|slice| Ok(take(slice, &order, None)?)).collect()
    }
}
