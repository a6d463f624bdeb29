//! The part of a join's condition that is not an equality of columns, and what it says of time.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{JoinSide, Result as DataFusionResult};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter};
use everwhen_query::period_join::condition::{Bounds, Overlap};

use super::fault::{Faults, values_of};
use super::zset::ZSet;
use crate::error::Result;

/// A condition over pairs of rows.
#[derive(Debug)]
pub struct Residual {
    /// Over the columns below.
    pub expr: Arc<dyn PhysicalExpr>,
    /// Its text.
    pub text: String,
    /// Which columns it reads, as places in left ++ right.
    pub columns: Vec<usize>,
    /// Those columns.
    pub schema: SchemaRef,
    /// The two comparisons by which rows of both sides meet in time, where it has them.
    pub overlap: Option<Overlap>,
}

impl Residual {
    /// Takes a condition over left ++ right apart.
    pub fn new(
        expr: &Arc<dyn PhysicalExpr>,
        text: String,
        left: &Schema,
        right: &Schema,
    ) -> DataFusionResult<Self> {
        let width = left.fields().len();
        let mut columns: Vec<usize> =
            collect_columns(expr).iter().map(Column::index).collect::<Vec<_>>();
        columns.sort_unstable();
        columns.dedup();
        let places: BTreeMap<usize, usize> =
            columns.iter().enumerate().map(|(place, at)| (*at, place)).collect();
        let field = |at: &usize| -> Field {
            let of = if *at < width { left.field(*at) } else { right.field(*at - width) };
            of.clone().with_nullable(true)
        };
        let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
        let moved = Arc::clone(expr).transform(|part| {
            let of = part.downcast_ref::<Column>();
            Ok(match of.and_then(|column| Some((column, places.get(&column.index())?))) {
                Some((column, place)) => {
                    Transformed::yes(Arc::new(Column::new(column.name(), *place)) as _)
                }
                None => Transformed::no(part),
            })
        })?;
        let side = |at: &usize| match *at < width {
            true => ColumnIndex { index: *at, side: JoinSide::Left },
            false => ColumnIndex { index: *at - width, side: JoinSide::Right },
        };
        let filter = JoinFilter::new(
            Arc::clone(&moved.data),
            columns.iter().map(side).collect(),
            Arc::clone(&schema),
        );
        let overlap = Overlap::of(&filter, left, right)?;
        Ok(Self { expr: moved.data, text, columns, schema, overlap })
    }
}

/// Where rows begin and end in time, as numbers; NULL where a bound is.
pub struct Spans {
    from: Int64Array,
    to: Int64Array,
    /// What of a row's bounds could not be computed.
    failed: Faults,
}

impl Spans {
    /// Evaluates the bounds of rows.
    pub fn of(bounds: &Bounds, rows: &ZSet) -> Result<Self> {
        let (from, failed) = numbers(&bounds.from, rows.batch())?;
        if bounds.is_instant() {
            return Ok(Self { to: from.clone(), from, failed });
        }
        let (to, others) = numbers(&bounds.to, rows.batch())?;
        Ok(Self { from, to, failed: failed.or(others) })
    }

    /// Returns the span of a row; all of time where it could not be computed, nothing where a bound is
    /// NULL, as then no comparison is true.
    pub fn get(&self, row: usize) -> Option<(i64, i64)> {
        if self.has_failed(row) {
            return Some((i64::MIN, i64::MAX));
        }
        let is_there = self.from.is_valid(row) && self.to.is_valid(row);
        is_there.then(|| (self.from.value(row), self.to.value(row)))
    }

    /// True for a row of which a bound could not be computed.
    pub fn has_failed(&self, row: usize) -> bool {
        self.failed.at(row).is_some()
    }

    /// True where all bounds were computed.
    pub fn is_exact(&self) -> bool {
        self.failed.is_empty()
    }
}

fn numbers(expr: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<(Int64Array, Faults)> {
    let (values, failed) = values_of(expr, rows)?;
    let numbers: ArrayRef = cast(&values, &DataType::Int64)?;
    Ok((numbers.as_primitive::<Int64Type>().clone(), failed))
}

/// Returns the columns that hold a side's bounds, where they are plain columns.
pub fn bound_columns(bounds: &Bounds) -> Option<(usize, usize)> {
    let column = |expr: &Arc<dyn PhysicalExpr>| expr.downcast_ref::<Column>().map(Column::index);
    Some((column(&bounds.from)?, column(&bounds.to)?))
}

/// Returns the column of a side's instant, where it has one.
pub fn instant_column(bounds: &Bounds) -> Option<usize> {
    bound_columns(bounds).filter(|(from, to)| from == to).map(|(at, _)| at)
}
