//! Joins, part by part: left rows with their partners, or with the fact that they have none.
//!
//! Left rows come in parts, and the right rows that a part may meet as well, found by the part's keys
//! and by the time its rows reach into. So memory goes by the parts, whatever the sides are.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use everwhen_query::period_join::condition::{Bounds, Overlap};

use super::fault::{Fault, Faults};
use super::node::{Join, JoinKind};
use super::only::Only;
use super::partners::{Pairs, Partners};
use super::residual::{Spans, bound_columns};
use super::zset::{Each, ZSet, batch_of};
use crate::error::Result;

impl Join {
    /// Returns how rows of both sides meet in time.
    pub fn overlap(&self) -> Option<&Overlap> {
        self.residual.as_ref().and_then(|residual| residual.overlap.as_ref())
    }

    /// Returns what right rows must have to be partners of some left rows. `None` where nothing is known.
    pub fn partners_of_left(&self, left: &ZSet) -> Result<Option<Only>> {
        let keys = self.left_keys(left.batch());
        let to = self.on.iter().map(|(_, right)| *right).collect();
        let bounds = self.overlap().map(|overlap| (&overlap.left, &overlap.right));
        self.restriction(left, keys, to, bounds)
    }

    /// Returns what left rows must have to be partners of some right rows.
    pub fn partners_of_right(&self, right: &ZSet) -> Result<Option<Only>> {
        let keys = self.right_keys(right.batch())?;
        let to = self.on.iter().map(|(left, _)| *left).collect();
        let bounds = self.overlap().map(|overlap| (&overlap.right, &overlap.left));
        self.restriction(right, keys, to, bounds)
    }

    /// Makes a restriction of columns `to` of the other side from rows of this one.
    fn restriction(
        &self,
        rows: &ZSet,
        keys: Vec<ArrayRef>,
        to: Vec<usize>,
        bounds: Option<(&Bounds, &Bounds)>,
    ) -> Result<Option<Only>> {
        let columns = bounds.and_then(|(_, other)| bound_columns(other));
        if let (Some(columns), Some((own, _))) = (columns, bounds) {
            let spans = Spans::of(own, rows)?;
            let ranges: Vec<_> = (0..rows.len()).map(|row| spans.get(row)).collect();
            return Only::timed(to, keys, self.null_equal, (columns, &ranges)).map(Some);
        }
        if to.is_empty() {
            return Ok(None);
        }
        Only::new(to, keys, self.null_equal).map(Some)
    }

    /// Joins left rows of any weight with right rows whose weights add up to a relation, which
    /// `right` hands over in parts.
    ///
    /// Linear in the left. The right may stand as old rows plus a delta, also one cut to the
    /// instants that changed: only sums of weights over the partners of a left row count.
    pub fn with(
        &self,
        schema: &SchemaRef,
        left: &ZSet,
        right: &mut dyn FnMut(&mut Joining<'_, '_>) -> Result<()>,
        each: Each<'_>,
    ) -> Result<()> {
        self.with_kind(self.kind, schema, left, right, each)
    }

    /// As [`Join::with`], as a join of another kind.
    pub fn with_kind(
        &self,
        kind: JoinKind,
        schema: &SchemaRef,
        left: &ZSet,
        right: &mut dyn FnMut(&mut Joining<'_, '_>) -> Result<()>,
        each: Each<'_>,
    ) -> Result<()> {
        if left.is_empty() {
            return Ok(());
        }
        let counts = if kind == JoinKind::Inner { Vec::new() } else { vec![0; left.len()] };
        let mut joining =
            Joining { join: self, kind, schema, left, counts, faults: Vec::new(), each };
        right(&mut joining)?;
        joining.end()
    }

    /// Returns the left rows that have a partner among some right rows, whatever the weights.
    pub fn matching(&self, left: &ZSet, right: &Partners<'_>) -> Result<ZSet> {
        let mut found = vec![false; left.len()];
        right.pairs(left, &mut |pairs| {
            pairs.left.iter().for_each(|place| found[*place as usize] = true);
            Ok(())
        })?;
        left.clone().filtered(&BooleanArray::from(found))
    }

    /// True for a row whose key could not be computed, so that its partners are not known.
    pub fn is_lost(&self, rows: &ZSet, keys: &[ArrayRef], row: usize) -> bool {
        use arrow::array::Array as _;
        rows.faults().at(row).is_some() && keys.iter().any(|key| key.is_null(row))
    }
}

/// Left rows on their way through a join.
pub struct Joining<'a, 'e> {
    join: &'a Join,
    kind: JoinKind,
    schema: &'a SchemaRef,
    left: &'a ZSet,
    /// The weight of all partners of each left row, where that counts.
    counts: Vec<i64>,
    /// Left rows of which a partner is doubtful; empty where none is.
    faults: Vec<Option<Fault>>,
    each: Each<'e>,
}

impl Joining<'_, '_> {
    /// Joins them with some right rows.
    pub fn meet(&mut self, right: &Partners<'_>) -> Result<()> {
        let left = self.left;
        right.pairs(left, &mut |pairs| self.take(right, &pairs))
    }

    fn take(&mut self, right: &Partners<'_>, pairs: &Pairs) -> Result<()> {
        let weights = right.rows().weights();
        if !self.counts.is_empty() {
            for (left, right) in pairs.left.iter().zip(&pairs.right) {
                self.counts[*left as usize] += weights[*right as usize];
            }
        }
        match self.kind {
            JoinKind::Inner | JoinKind::Left => self.put_pairs(right, pairs),
            JoinKind::Semi | JoinKind::Anti | JoinKind::Mark => {
                for at in 0..pairs.left.len() {
                    if let Some(fault) = right.fault(pairs, at) {
                        self.faults.resize(self.left.len(), None);
                        self.faults[pairs.left[at] as usize] = Some(fault);
                    }
                }
                Ok(())
            }
        }
    }

    fn put_pairs(&mut self, right: &Partners<'_>, pairs: &Pairs) -> Result<()> {
        if pairs.left.is_empty() {
            return Ok(());
        }
        let (left_weights, right_weights) = (self.left.weights(), right.rows().weights());
        let weights: Vec<i64> = pairs
            .left
            .iter()
            .zip(&pairs.right)
            .map(|(l, r)| left_weights[*l as usize] * right_weights[*r as usize])
            .collect();
        let faults = if pairs.faults.is_empty() && right.rows().faults().is_empty() {
            Faults::default()
        } else {
            Faults::new((0..pairs.left.len()).map(|at| right.fault(pairs, at)).collect())
        };
        let of_left = self.left.faults().taken(pairs.left.iter().map(|at| *at as usize));
        let left_places = UInt32Array::from(pairs.left.clone());
        let right_places = UInt32Array::from(pairs.right.clone());
        let width = self.left.batch().num_columns();
        let mut columns = Vec::with_capacity(self.join.outputs.len());
        for at in &self.join.outputs {
            columns.push(match *at < width {
                true => take(self.left.batch().column(*at), &left_places, None)?,
                false => take(right.rows().batch().column(*at - width), &right_places, None)?,
            });
        }
        let batch = batch_of(self.schema, columns, weights.len())?;
        (self.each)(ZSet::weighted(batch, weights)?.with_faults(of_left.or(faults)))
    }

    /// Puts out what depends on all partners.
    fn end(self) -> Result<()> {
        match self.kind {
            JoinKind::Inner => {
                // Of a row whose key could not be computed the partners are not known: it goes on alone.
                if self.left.faults().is_empty() {
                    return Ok(());
                }
                let keys = self.join.left_keys(self.left.batch());
                let lost = |row: &usize| self.join.is_lost(self.left, &keys, *row);
                let alone: Vec<u32> = (0..self.left.len())
                    .filter(lost)
                    .filter_map(|row| u32::try_from(row).ok())
                    .collect();
                self.put_alone(&alone)
            }
            JoinKind::Left => {
                let alone: Vec<u32> = (0_u32..)
                    .zip(&self.counts)
                    .filter_map(|(place, count)| (*count == 0).then_some(place))
                    .collect();
                self.put_alone(&alone)
            }
            JoinKind::Semi | JoinKind::Anti => self.put_told(),
            JoinKind::Mark => self.put_marked(),
        }
    }

    /// Puts out left rows beside NULLs.
    fn put_alone(self, alone: &[u32]) -> Result<()> {
        if alone.is_empty() {
            return Ok(());
        }
        let rows = self.left.taken(alone)?;
        let width = rows.batch().num_columns();
        let column = |(at, field): (&usize, &Arc<arrow::datatypes::Field>)| match *at < width {
            true => Arc::clone(rows.batch().column(*at)),
            false => new_null_array(field.data_type(), alone.len()),
        };
        let columns = self.join.outputs.iter().zip(self.schema.fields()).map(column).collect();
        let batch = batch_of(self.schema, columns, alone.len())?;
        let weights = rows.weights().to_vec();
        (self.each)(ZSet::weighted(batch, weights)?.with_faults(rows.faults().clone()))
    }

    /// Returns the left rows with all that is doubtful about them.
    fn doubted(&self) -> ZSet {
        let faults = self.left.faults().clone();
        let more = Faults::new(self.faults.clone());
        self.left.clone().with_faults(faults.or(more))
    }

    fn put_told(self) -> Result<()> {
        let wanted = self.kind == JoinKind::Semi;
        let keys = self.join.left_keys(self.left.batch());
        let is_open = |row: usize| {
            self.faults.get(row).is_some_and(Option::is_some)
                || self.join.is_lost(self.left, &keys, row)
        };
        let told = self.counts.iter().enumerate();
        let keep: BooleanArray =
            told.map(|(row, count)| Some((*count > 0) == wanted || is_open(row))).collect();
        let rows = self.doubted().filtered(&keep)?;
        if rows.is_empty() {
            return Ok(());
        }
        (self.each)(rows.columns(self.schema, &self.join.outputs)?)
    }

    fn put_marked(self) -> Result<()> {
        let mark: BooleanArray = self.counts.iter().map(|count| Some(*count > 0)).collect();
        let mark: ArrayRef = Arc::new(mark);
        let rows = self.doubted();
        let columns = rows.batch().columns();
        let out = self.join.outputs.iter();
        let out = out.map(|at| Arc::clone(columns.get(*at).unwrap_or(&mark))).collect();
        let batch = batch_of(self.schema, out, rows.len())?;
        let marked = ZSet::weighted(batch, rows.weights().to_vec())?;
        (self.each)(marked.with_faults(rows.faults().clone()))
    }
}
