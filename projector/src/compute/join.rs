//! Pairs of rows: equality by hashing, the rest by a residual condition.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use hashbrown::HashMap;

use super::node::{Join, JoinKind, truth_of};
use super::zset::{Only, ZSet, batch_of, take_columns};
use crate::error::{Error, Result};

/// Places of partners: `left[i]` goes with `right[i]`.
pub struct Pairs {
    left: Vec<u32>,
    right: Vec<u32>,
}

impl Join {
    /// Returns the distinct values of the left's key columns as a restriction of the right.
    /// `None` where there is no equality to restrict by.
    pub fn partners_of_left(&self, left: &ZSet) -> Result<Option<Only>> {
        let (from, to) = self.on.iter().copied().unzip();
        self.restriction(left, from, to)
    }

    /// Returns the distinct values of the right's key columns as a restriction of the left.
    pub fn partners_of_right(&self, right: &ZSet) -> Result<Option<Only>> {
        let (to, from) = self.on.iter().copied().unzip();
        self.restriction(right, from, to)
    }

    fn restriction(&self, rows: &ZSet, from: Vec<usize>, to: Vec<usize>) -> Result<Option<Only>> {
        if from.is_empty() {
            return Ok(None);
        }
        let tuples = from.iter().map(|at| Arc::clone(rows.batch().column(*at))).collect();
        Only::new(to, tuples, self.null_equal).map(Some)
    }

    /// Finds the pairs that agree in the key columns and pass the residual.
    pub fn pairs(&self, left: &ZSet, right: &ZSet) -> Result<Pairs> {
        let mut pairs = if self.on.is_empty() {
            all_pairs(left.len(), right.len())?
        } else {
            self.equal_pairs(left, right)?
        };
        let Some(residual) = &self.residual else {
            return Ok(pairs);
        };
        if pairs.left.is_empty() {
            return Ok(pairs);
        }
        let rows = self.side_by_side(left, right, &pairs)?;
        let rows = batch_of(&self.pair_schema, rows, pairs.left.len())?;
        let truth = truth_of(residual, &rows)?;
        let keep = |at: usize| truth.is_valid(at) && truth.value(at);
        let mut at = 0;
        pairs.left.retain(|_| {
            at += 1;
            keep(at - 1)
        });
        at = 0;
        pairs.right.retain(|_| {
            at += 1;
            keep(at - 1)
        });
        Ok(pairs)
    }

    fn equal_pairs(&self, left: &ZSet, right: &ZSet) -> Result<Pairs> {
        let mut pairs = Pairs { left: Vec::new(), right: Vec::new() };
        if left.is_empty() || right.is_empty() {
            return Ok(pairs);
        }
        let left_keys: Vec<ArrayRef> =
            self.on.iter().map(|(at, _)| Arc::clone(left.batch().column(*at))).collect();
        let mut right_keys = Vec::with_capacity(self.on.len());
        for ((_, at), like) in self.on.iter().zip(&left_keys) {
            let column = right.batch().column(*at);
            right_keys.push(if column.data_type() == like.data_type() {
                Arc::clone(column)
            } else {
                arrow::compute::cast(column, like.data_type())?
            });
        }
        let fields = left_keys.iter().map(|c| SortField::new(c.data_type().clone())).collect();
        let converter = RowConverter::new(fields)?;
        let left_rows = converter.convert_columns(&left_keys)?;
        let right_rows = converter.convert_columns(&right_keys)?;
        let null = |keys: &[ArrayRef], at: usize| keys.iter().any(|key| key.is_null(at));
        let mut partners: HashMap<&[u8], Vec<u32>> = HashMap::with_capacity(right.len());
        for (at, place) in (0..right.len()).zip(0_u32..) {
            if self.null_equal || !null(&right_keys, at) {
                partners.entry(right_rows.row(at).data()).or_default().push(place);
            }
        }
        for (at, place) in (0..left.len()).zip(0_u32..) {
            if !self.null_equal && null(&left_keys, at) {
                continue;
            }
            if let Some(found) = partners.get(left_rows.row(at).data()) {
                pairs.left.extend(std::iter::repeat_n(place, found.len()));
                pairs.right.extend(found);
            }
        }
        Ok(pairs)
    }

    fn side_by_side(&self, left: &ZSet, right: &ZSet, pairs: &Pairs) -> Result<Vec<ArrayRef>> {
        let mut columns =
            take_columns(left.batch().columns(), &UInt32Array::from(pairs.left.clone()))?;
        let right = take_columns(right.batch().columns(), &UInt32Array::from(pairs.right.clone()))?;
        columns.extend(right);
        Ok(columns)
    }

    /// Joins left rows of any weight with a right side whose weights add up to a relation.
    ///
    /// Linear in the left. The right may stand as old rows plus a delta, also one cut to the
    /// instants that changed: only sums of weights over the partners of a left row count.
    pub fn apply(&self, schema: &SchemaRef, left: &ZSet, right: &ZSet) -> Result<ZSet> {
        if left.is_empty() {
            return Ok(ZSet::empty(schema));
        }
        let pairs = self.pairs(left, right)?;
        match self.kind {
            JoinKind::Inner => self.all_of(schema, left, right, &pairs, &[]),
            JoinKind::Left => {
                let partners = partner_counts(left, right, &pairs);
                let alone: Vec<u32> = (0_u32..)
                    .zip(&partners)
                    .filter_map(|(place, count)| (*count == 0).then_some(place))
                    .collect();
                self.all_of(schema, left, right, &pairs, &alone)
            }
            JoinKind::Semi | JoinKind::Anti => {
                let wanted = self.kind == JoinKind::Semi;
                let partners = partner_counts(left, right, &pairs);
                let keep: BooleanArray =
                    partners.iter().map(|count| Some((*count > 0) == wanted)).collect();
                left.clone().filtered(&keep)?.columns(schema, &self.outputs)
            }
            JoinKind::Mark => {
                let partners = partner_counts(left, right, &pairs);
                let mark: BooleanArray = partners.iter().map(|count| Some(*count > 0)).collect();
                let mark: ArrayRef = Arc::new(mark);
                let columns = left.batch().columns();
                let out = self.outputs.iter();
                let out = out.map(|at| Arc::clone(columns.get(*at).unwrap_or(&mark))).collect();
                let batch = batch_of(schema, out, left.len())?;
                ZSet::weighted(batch, left.weights().to_vec())
            }
        }
    }

    /// Puts out pairs, and left rows `alone` beside NULLs.
    fn all_of(
        &self,
        schema: &SchemaRef,
        left: &ZSet,
        right: &ZSet,
        pairs: &Pairs,
        alone: &[u32],
    ) -> Result<ZSet> {
        let mut left_places = pairs.left.clone();
        left_places.extend(alone);
        let mut right_places: Vec<Option<u32>> = pairs.right.iter().copied().map(Some).collect();
        right_places.extend(alone.iter().map(|_| None));
        let mut weights: Vec<i64> = pairs
            .left
            .iter()
            .zip(&pairs.right)
            .map(|(l, r)| left.weights()[*l as usize] * right.weights()[*r as usize])
            .collect();
        weights.extend(alone.iter().map(|place| left.weights()[*place as usize]));
        let left_places = UInt32Array::from(left_places);
        let right_places = UInt32Array::from(right_places);
        let width = left.batch().num_columns();
        let mut columns = Vec::with_capacity(self.outputs.len());
        for at in &self.outputs {
            let (from, places) = if *at < width {
                (left.batch().column(*at), &left_places)
            } else {
                (right.batch().column(*at - width), &right_places)
            };
            columns.push(arrow::compute::take(from, places, None)?);
        }
        ZSet::weighted(batch_of(schema, columns, weights.len())?, weights)
    }

    /// Returns the left rows that have a partner among some right rows, whatever the weights.
    pub fn matching(&self, left: ZSet, right: &ZSet) -> Result<ZSet> {
        let pairs = self.pairs(&left, right)?;
        let mut found = vec![false; left.len()];
        for place in &pairs.left {
            found[*place as usize] = true;
        }
        left.filtered(&BooleanArray::from(found))
    }
}

/// Returns the weight of all partners of each left row.
fn partner_counts(left: &ZSet, right: &ZSet, pairs: &Pairs) -> Vec<i64> {
    let mut counts = vec![0; left.len()];
    for (l, r) in pairs.left.iter().zip(&pairs.right) {
        counts[*l as usize] += right.weights()[*r as usize];
    }
    counts
}

fn all_pairs(left: usize, right: usize) -> Result<Pairs> {
    let too_many = || Error::refused("a join without equality has more than 2^32 rows on a side");
    let left_len = u32::try_from(left).map_err(|_| too_many())?;
    let right_len = u32::try_from(right).map_err(|_| too_many())?;
    let mut pairs = Pairs { left: Vec::new(), right: Vec::new() };
    for l in 0..left_len {
        pairs.left.extend(std::iter::repeat_n(l, right));
        pairs.right.extend(0..right_len);
    }
    Ok(pairs)
}
