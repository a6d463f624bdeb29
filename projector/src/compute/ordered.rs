//! Operators that go by an order of rows: window functions and ORDER BY .. LIMIT.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{SortColumn, SortOptions, concat, lexsort_to_indices};
use arrow::datatypes::SchemaRef;
use datafusion::physical_expr::window::WindowExpr;

use super::node::{Top, Window, array_of};
use super::zset::{ZSet, batch_of, row_bytes, take_columns, take_rows};
use crate::error::Result;

impl Window {
    /// Computes the functions over whole partitions of a relation.
    pub fn apply(&self, schema: &SchemaRef, rows: ZSet) -> Result<ZSet> {
        let rows = rows.expanded()?;
        let mut columns = rows.columns().to_vec();
        for call in &self.calls {
            columns.push(over(call, &rows)?);
        }
        Ok(ZSet::once(batch_of(schema, columns, rows.num_rows())?))
    }
}

/// Computes one function, partition by partition, and puts its values beside their rows.
fn over(call: &Arc<dyn WindowExpr>, rows: &RecordBatch) -> Result<ArrayRef> {
    let count = rows.num_rows();
    if count == 0 {
        return Ok(arrow::array::new_empty_array(call.field()?.data_type()));
    }
    let mut keys = Vec::new();
    for expr in call.partition_by() {
        keys.push(array_of(expr, rows)?);
    }
    let mut sorts: Vec<(ArrayRef, SortOptions)> =
        keys.iter().map(|key| (Arc::clone(key), SortOptions::default())).collect();
    for order in call.order_by() {
        sorts.push((array_of(&order.expr, rows)?, order.options));
    }
    let order = canonical_order(rows, sorts)?;
    let sorted = take_rows(rows, order.values())?;
    let sorted_keys = take_columns(&keys, &order)?;
    let mut starts = vec![0];
    if !sorted_keys.is_empty() {
        let bytes = row_bytes(&sorted_keys)?;
        starts.extend((1..count).filter(|at| bytes.row(*at) != bytes.row(at - 1)));
    }
    starts.push(count);
    let mut parts = Vec::with_capacity(starts.len());
    for bounds in starts.windows(2) {
        parts.push(call.evaluate(&sorted.slice(bounds[0], bounds[1] - bounds[0]))?);
    }
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    let values = concat(&parts)?;
    let mut back = vec![0_u32; count];
    for (place, from) in (0_u32..).zip(order.values()) {
        back[*from as usize] = place;
    }
    Ok(arrow::compute::take(&values, &UInt32Array::from(back), None)?)
}

impl Top {
    /// Takes the first rows of a relation.
    pub fn apply(&self, rows: ZSet) -> Result<ZSet> {
        let rows = rows.expanded()?;
        let mut sorts = Vec::with_capacity(self.order.len());
        for (expr, options) in &self.order {
            sorts.push((array_of(expr, &rows)?, *options));
        }
        let order = canonical_order(&rows, sorts)?;
        let taken: Vec<u32> = order
            .values()
            .iter()
            .copied()
            .skip(self.skip)
            .take(self.fetch.unwrap_or(usize::MAX))
            .collect();
        Ok(ZSet::once(take_rows(&rows, &taken)?))
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
