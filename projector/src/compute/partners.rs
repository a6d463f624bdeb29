//! The partners of a join: rows of the right side found by key and by time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::DataType;
use datafusion::common::JoinSide;
use everwhen_query::period_join::index::{Entry, Index, Last, Strict};

use super::fault::{Fault, Faults, truth_of};
use super::node::Join;
use super::residual::Spans;
use super::zset::{ZSet, key_bytes};
use crate::error::{Error, Result};

/// Pairs that are looked at together, about.
const PAIRS: usize = 16_384;

/// Some pairs: `left[i]` goes with `right[i]`.
#[derive(Debug, Default)]
pub struct Pairs {
    /// Places in the left rows, not falling.
    pub left: Vec<u32>,
    /// Places in the right rows.
    pub right: Vec<u32>,
    /// What of a pair's condition could not be computed.
    pub faults: Faults,
}

/// Right rows of a join, indexed.
pub struct Partners<'j> {
    join: &'j Join,
    right: ZSet,
    index: Index,
    /// All bounds of the right rows were computed.
    is_exact: bool,
}

impl<'j> Partners<'j> {
    /// Indexes right rows.
    pub fn new(join: &'j Join, right: ZSet) -> Result<Self> {
        let keys = join.right_keys(right.batch())?;
        let keys = key_column(&keys, join.null_equal)?;
        let spans = join.overlap().map(|overlap| Spans::of(&overlap.right, &right)).transpose()?;
        let mut entries = Vec::with_capacity(right.len());
        for (at, row) in (0..right.len()).zip(0_u32..) {
            let span = spans.as_ref().map_or(Some((0, 0)), |spans| spans.get(at));
            entries.extend(span.map(|(from, to)| Entry { from, to, row }));
        }
        let is_exact = spans.as_ref().is_none_or(Spans::is_exact);
        Ok(Self { join, right, index: Index::build(&keys, entries)?, is_exact })
    }

    /// Returns the right rows.
    pub const fn rows(&self) -> &ZSet {
        &self.right
    }

    /// Hands over all pairs of left rows with these that meet the join's condition, some at a time.
    pub fn pairs(&self, left: &ZSet, each: &mut dyn FnMut(Pairs) -> Result<()>) -> Result<()> {
        if left.is_empty() || self.right.is_empty() {
            return Ok(());
        }
        let keys = key_column(&self.join.left_keys(left.batch()), self.join.null_equal)?;
        let overlap = self.join.overlap();
        let spans = overlap.map(|overlap| Spans::of(&overlap.left, left)).transpose()?;
        let strict = overlap.map(|overlap| overlap.strict(JoinSide::Right));
        let strict = strict.unwrap_or(Strict { from: false, to: false });
        let is_exact = self.is_exact && spans.as_ref().is_none_or(Spans::is_exact);
        let lookup = self.index.probe(&keys)?;
        let columns = (keys.as_slice(), lookup.as_ref());
        let mut last = Last::default();
        let mut found = Vec::new();
        let mut pairs = Pairs::default();
        for (at, place) in (0..left.len()).zip(0_u32..) {
            let span = spans.as_ref().map_or(Some((0, 0)), |spans| spans.get(at));
            let Some(span) = span else { continue };
            let strict = match spans.as_ref().is_some_and(|spans| spans.has_failed(at)) {
                true => Strict { from: false, to: false },
                false => strict,
            };
            found.clear();
            self.index.matching(columns, at, span, strict, &mut last, &mut found);
            for some in found.chunks(PAIRS) {
                pairs.left.extend(std::iter::repeat_n(place, some.len()));
                pairs.right.extend(some);
                if pairs.left.len() >= PAIRS {
                    each(self.checked(left, std::mem::take(&mut pairs), is_exact)?)?;
                }
            }
        }
        each(self.checked(left, pairs, is_exact)?)
    }

    /// Keeps the pairs that meet the whole condition, and those of which that cannot be told.
    fn checked(&self, left: &ZSet, mut pairs: Pairs, is_exact: bool) -> Result<Pairs> {
        let Some(residual) = &self.join.residual else { return Ok(pairs) };
        let is_all = residual.overlap.as_ref().is_some_and(|overlap| overlap.is_all);
        if pairs.left.is_empty() || (is_all && is_exact) {
            return Ok(pairs);
        }
        let width = left.batch().num_columns();
        let left_places = UInt32Array::from(pairs.left.clone());
        let right_places = UInt32Array::from(pairs.right.clone());
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(residual.columns.len());
        for at in &residual.columns {
            columns.push(match *at < width {
                true => take(left.batch().column(*at), &left_places, None)?,
                false => take(self.right.batch().column(*at - width), &right_places, None)?,
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(pairs.left.len()));
        let schema = Arc::clone(&residual.schema);
        let rows = RecordBatch::try_new_with_options(schema, columns, &options)?;
        let (truth, faults) = truth_of(&residual.expr, &rows)?;
        let keep: Vec<bool> = (0..pairs.left.len())
            .map(|at| (truth.is_valid(at) && truth.value(at)) || faults.at(at).is_some())
            .collect();
        let kept = |of: &mut Vec<u32>| {
            let mut keep = keep.iter();
            of.retain(|_| keep.next().copied().unwrap_or(false));
        };
        kept(&mut pairs.left);
        kept(&mut pairs.right);
        pairs.faults = faults.filtered(&keep.into());
        Ok(pairs)
    }

    /// Returns the fault of a pair: of its condition, or of its right row.
    pub fn fault(&self, pairs: &Pairs, at: usize) -> Option<Fault> {
        let of_right = || self.right.faults().at(pairs.right[at] as usize);
        pairs.faults.at(at).or_else(of_right).cloned()
    }
}

impl Join {
    /// Returns the left's key columns.
    pub fn left_keys(&self, left: &RecordBatch) -> Vec<ArrayRef> {
        self.on.iter().map(|(at, _)| Arc::clone(left.column(*at))).collect()
    }

    /// Returns the right's key columns in the types of the left's.
    pub fn right_keys(&self, right: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let mut keys = Vec::with_capacity(self.on.len());
        for (left, at) in &self.on {
            let column = right.column(*at);
            let kind: &DataType = self.left.schema.field(*left).data_type();
            keys.push(match column.data_type() == kind {
                true => Arc::clone(column),
                false => arrow::compute::cast(column, kind)?,
            });
        }
        Ok(keys)
    }
}

/// Makes one column of key columns: NULL where a row can have no partner. No key columns make none.
fn key_column(keys: &[ArrayRef], null_equal: bool) -> Result<Vec<ArrayRef>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let rows = key_bytes(keys)?;
    let count = keys.first().map_or(0, |key| key.len());
    let is_null = |row: usize| !null_equal && keys.iter().any(|key| key.is_null(row));
    let values = (0..count).map(|row| (!is_null(row)).then(|| rows.row(row).data().to_vec()));
    let column: BinaryArray = values.collect();
    if column.len() != count {
        return Err(Error::internal("a key for every row"));
    }
    Ok(vec![Arc::new(column)])
}
