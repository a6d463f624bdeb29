//! Rows of a node at the reader's basis, part by part: all of them or only those that match some values.
//!
//! A restriction travels down: through plain columns, filters and group columns as it is, through
//! a join to the side that has the columns and from there, by the join's keys, to the other. Where
//! it cannot go on, the node below is read as a whole; [`super::admit`] says so beforehand.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use everwhen_storage::Definitions;

use super::access::Access;
use super::fault::truth_of;
use super::node::{Join, JoinKind, Kind, Node, Output};
use super::only::Only;
use super::partners::Partners;
use super::source::Reader;
use super::zset::{Each, ZSet};
use crate::error::{Error, Result};

/// Left parts that are joined with what they need of the right before all of it is read instead.
const PARTS_APART: usize = 2;
/// Bytes of a right side that is read once for all left parts.
const SHARED_BYTES_MAX: usize = 32 << 20;

/// Evaluates a node: hands over exactly the rows that match `only`, every weight positive.
pub fn evaluate(
    node: &Node,
    reader: &Reader<'_, '_>,
    only: Option<&Only>,
    each: Each<'_>,
) -> Result<()> {
    if only.is_some_and(Only::is_empty) {
        return Ok(());
    }
    let mut matching = |rows: ZSet| -> Result<()> {
        let rows = match only {
            Some(only) => only.keep(rows)?,
            None => rows,
        };
        if rows.is_empty() { Ok(()) } else { each(rows) }
    };
    match &node.kind {
        Kind::Constant(rows) => matching(ZSet::once(rows.clone())),
        Kind::Scan(scan) => reader.rows(scan, &node.schema, only, &mut matching),
        Kind::Filter(filter) => {
            evaluate(&filter.input, reader, only, &mut |rows| matching(filter.apply(rows)?))
        }
        Kind::Project(project) => {
            let below = pushed(only, |at| project.outputs.get(at).and_then(Output::source))?;
            evaluate(&project.input, reader, below.as_ref(), &mut |rows| {
                matching(project.apply(&node.schema, &rows)?)
            })
        }
        Kind::Union(inputs) => {
            for input in inputs {
                evaluate(input, reader, only, &mut matching)?;
            }
            Ok(())
        }
        Kind::Aggregate(aggregate) => {
            let below = pushed(only, |at| aggregate.group.get(at).copied())?;
            aggregate.over(&node.schema, reader.memory, &mut matching, &mut |take| {
                evaluate(&aggregate.input, reader, below.as_ref(), take)
            })
        }
        Kind::Window(window) => {
            let below = pushed(only, |at| window.partition.contains(&at).then_some(at))?;
            window.over(&node.schema, reader.memory, &mut matching, &mut |take| {
                evaluate(&window.input, reader, below.as_ref(), take)
            })
        }
        Kind::Top(top) => {
            let rows = top.over(&node.schema, reader.memory, &mut |take| {
                evaluate(&top.input, reader, None, take)
            })?;
            matching(rows)
        }
        Kind::Join(join) => join.evaluate(node, reader, only, &mut matching),
    }
}

/// Gathers the rows of a node that an operator must have together.
pub fn collected(
    node: &Node,
    reader: &Reader<'_, '_>,
    only: Option<&Only>,
    what: &str,
) -> Result<ZSet> {
    let mut held = reader.memory.entry();
    let mut parts = Vec::new();
    evaluate(node, reader, only, &mut |part| {
        held.grow(part.bytes(), what)?;
        parts.push(part);
        Ok(())
    })?;
    ZSet::concatenated(&node.schema, parts)
}

fn pushed(only: Option<&Only>, map: impl Fn(usize) -> Option<usize>) -> Result<Option<Only>> {
    match only {
        Some(only) => only.mapped(map),
        None => Ok(None),
    }
}

impl super::node::Filter {
    /// Keeps the rows for which the predicate is true, and those of which it cannot be told.
    pub fn apply(&self, rows: ZSet) -> Result<ZSet> {
        if rows.is_empty() {
            return Ok(rows);
        }
        let (truth, faults) = truth_of(&self.predicate, rows.batch())?;
        // A row that failed before may be kept or not by a value that it does not have.
        let is_open = |row: usize| faults.at(row).or(rows.faults().at(row)).is_some();
        if faults.is_empty() && rows.faults().is_empty() {
            return rows.filtered(&truth);
        }
        let keep = (0..rows.len()).map(|row| {
            Some(
                is_open(row) && truth_at(&truth, row) != Some(false)
                    || truth_at(&truth, row) == Some(true),
            )
        });
        let keep = keep.collect();
        let faults = rows.faults().clone().or(faults);
        rows.with_faults(faults).filtered(&keep)
    }
}

fn truth_at(truth: &arrow::array::BooleanArray, row: usize) -> Option<bool> {
    use arrow::array::Array as _;
    truth.is_valid(row).then(|| truth.value(row))
}

impl super::node::Project {
    /// Computes the columns of rows with weights.
    pub fn apply(&self, schema: &arrow::datatypes::SchemaRef, rows: &ZSet) -> Result<ZSet> {
        if rows.is_empty() {
            return Ok(ZSet::empty(schema));
        }
        let mut columns = Vec::with_capacity(self.outputs.len());
        let mut faults = rows.faults().clone();
        for output in &self.outputs {
            columns.push(match output {
                Output::Column(at) => std::sync::Arc::clone(rows.batch().column(*at)),
                Output::Cast(_, expr) | Output::Computed(expr) => {
                    let (values, failed) = super::fault::values_of(expr, rows.batch())?;
                    faults = faults.or(failed);
                    values
                }
            });
        }
        let batch = super::zset::batch_of(schema, columns, rows.len())?;
        Ok(ZSet::weighted(batch, rows.weights().to_vec())?.with_faults(faults))
    }
}

/// Which side of a join a restriction goes to first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinRoute {
    /// To the left by these columns of it, then to the right by the keys.
    Left(Vec<usize>),
    /// To the right by these columns of it, then to the left by the keys, and back.
    Right(Vec<usize>),
    /// Nowhere: both sides are read as a whole.
    Nowhere,
}

impl Join {
    /// Returns the left's, or the right's, column behind an output column.
    pub fn side_column(&self, output: usize, right: bool) -> Option<usize> {
        let width = self.left.schema.fields().len();
        let total = width + self.right.schema.fields().len();
        let at = *self.outputs.get(output)?;
        match right {
            false => (at < width).then_some(at),
            true => (width..total).contains(&at).then(|| at - width),
        }
    }

    /// Chooses where a restriction of some output columns goes. `nulls`: it has NULLs.
    pub fn route(&self, columns: &[usize], nulls: bool, definitions: &Definitions) -> JoinRoute {
        let side = |right: bool| -> Vec<usize> {
            columns.iter().filter_map(|at| self.side_column(*at, right)).collect()
        };
        let left = side(false);
        let right = side(true);
        // Beside NULLs stand left rows without partner: the right does not lead to them.
        let by_right =
            !right.is_empty() && (self.kind == JoinKind::Inner || (left.is_empty() && !nulls));
        let by_right = by_right && matches!(self.kind, JoinKind::Inner | JoinKind::Left);
        if left.is_empty() {
            return if by_right { JoinRoute::Right(right) } else { JoinRoute::Nowhere };
        }
        if !by_right {
            return JoinRoute::Left(left);
        }
        let (left_keys, right_keys): (Vec<usize>, Vec<usize>) = self.on.iter().copied().unzip();
        let by_left_cost = full_reads(&self.left, Some(&left), definitions)
            + full_reads(&self.right, Some(&right_keys), definitions);
        let by_right_cost = full_reads(&self.right, Some(&right), definitions)
            + full_reads(&self.left, Some(&left_keys), definitions);
        if by_right_cost < by_left_cost { JoinRoute::Right(right) } else { JoinRoute::Left(left) }
    }

    fn evaluate(
        &self,
        node: &Node,
        reader: &Reader<'_, '_>,
        only: Option<&Only>,
        each: Each<'_>,
    ) -> Result<()> {
        let route = only.map_or(JoinRoute::Nowhere, |only| {
            self.route(only.columns(), only.has_null(), reader.definitions)
        });
        match route {
            JoinRoute::Nowhere => self.evaluate_all(node, reader, each),
            JoinRoute::Left(_) => {
                let below = pushed(only, |at| self.side_column(at, false))?;
                evaluate(&self.left, reader, below.as_ref(), &mut |left| {
                    self.with_right(node, reader, &left, each)
                })
            }
            JoinRoute::Right(_) => {
                let below = pushed(only, |at| self.side_column(at, true))?;
                // Of an outer join, too, only pairs match values of the right.
                evaluate(&self.right, reader, below.as_ref(), &mut |right| {
                    let keys = self.partners_of_right(&right)?;
                    let partners = Partners::new(self, right)?;
                    evaluate(&self.left, reader, keys.as_ref(), &mut |left| {
                        self.pairs_with(&node.schema, &left, &partners, each)
                    })
                })
            }
        }
    }

    /// Joins left rows with what they need of the right side.
    pub fn with_right(
        &self,
        node: &Node,
        reader: &Reader<'_, '_>,
        left: &ZSet,
        each: Each<'_>,
    ) -> Result<()> {
        let mut right = |joining: &mut super::join::Joining<'_, '_>| {
            self.right_of(reader, left, &mut |right| joining.meet(&Partners::new(self, right)?))
        };
        self.with(&node.schema, left, &mut right, each)
    }

    /// Joins all left rows. After some parts, the right side is read once for all the others, where it
    /// is small.
    fn evaluate_all(&self, node: &Node, reader: &Reader<'_, '_>, each: Each<'_>) -> Result<()> {
        let mut shared: Option<Partners<'_>> = None;
        let (parts, is_large) = (Cell::new(0), &self.right_is_large);
        let mut held = reader.memory.entry();
        evaluate(&self.left, reader, None, &mut |left| {
            parts.set(parts.get() + usize::from(left.len() >= reader.memory.part_rows() / 2));
            if shared.is_none() && parts.get() > PARTS_APART && !is_large.load(Ordering::Relaxed) {
                match self.whole_right(reader)? {
                    Some(right) if held.try_grow(2 * right.bytes()) => {
                        shared = Some(Partners::new(self, right)?);
                    }
                    _ => is_large.store(true, Ordering::Relaxed),
                }
            }
            match &shared {
                None => self.with_right(node, reader, &left, each),
                Some(right) => {
                    self.with(&node.schema, &left, &mut |joining| joining.meet(right), each)
                }
            }
        })
    }

    /// Reads the whole right side; nothing where it is large.
    fn whole_right(&self, reader: &Reader<'_, '_>) -> Result<Option<ZSet>> {
        let (mut parts, mut bytes, mut is_large) = (Vec::new(), 0, false);
        let read = evaluate(&self.right, reader, None, &mut |part| {
            bytes += part.bytes();
            if bytes > SHARED_BYTES_MAX {
                is_large = true;
                return Err(Error::internal("enough of the right side is read"));
            }
            parts.push(part);
            Ok(())
        });
        if is_large {
            return Ok(None);
        }
        read?;
        ZSet::concatenated(&self.right.schema, parts).map(Some)
    }

    /// Hands over the pairs of left rows with some right rows.
    pub fn pairs_with(
        &self,
        schema: &arrow::datatypes::SchemaRef,
        left: &ZSet,
        right: &Partners<'_>,
        each: Each<'_>,
    ) -> Result<()> {
        self.with_kind(JoinKind::Inner, schema, left, &mut |joining| joining.meet(right), each)
    }

    /// Evaluates the right rows that some left rows may have as partners.
    pub fn right_of(&self, reader: &Reader<'_, '_>, left: &ZSet, each: Each<'_>) -> Result<()> {
        let keys = self.partners_of_left(left)?;
        evaluate(&self.right, reader, keys.as_ref(), each)
    }
}

/// Counts the tables that are read as a whole when a node is restricted by some columns
/// (`None`: by none).
pub fn full_reads(node: &Node, columns: Option<&[usize]>, definitions: &Definitions) -> usize {
    let columns = columns.filter(|columns| !columns.is_empty());
    let Some(columns) = columns else {
        let mut count = 0;
        node.scans(&mut |_| count += 1);
        return count;
    };
    let through = |input: &Node, map: &dyn Fn(usize) -> Option<usize>| {
        let below: Vec<usize> = columns.iter().filter_map(|at| map(*at)).collect();
        full_reads(input, Some(&below), definitions)
    };
    match &node.kind {
        Kind::Constant(_) => 0,
        Kind::Scan(scan) => usize::from(scan.access(columns, definitions) == Access::Full),
        Kind::Filter(filter) => full_reads(&filter.input, Some(columns), definitions),
        Kind::Project(project) => {
            through(&project.input, &|at| project.outputs.get(at).and_then(Output::source))
        }
        Kind::Union(inputs) => {
            inputs.iter().map(|input| full_reads(input, Some(columns), definitions)).sum()
        }
        Kind::Aggregate(aggregate) => {
            through(&aggregate.input, &|at| aggregate.group.get(at).copied())
        }
        Kind::Window(window) => {
            through(&window.input, &|at| window.partition.contains(&at).then_some(at))
        }
        Kind::Top(top) => full_reads(&top.input, None, definitions),
        Kind::Join(join) => {
            let (left_keys, right_keys): (Vec<usize>, Vec<usize>) = join.on.iter().copied().unzip();
            match join.route(columns, false, definitions) {
                JoinRoute::Nowhere => {
                    full_reads(&join.left, None, definitions)
                        + full_reads(&join.right, None, definitions)
                }
                JoinRoute::Left(left) => {
                    full_reads(&join.left, Some(&left), definitions)
                        + full_reads(&join.right, Some(&right_keys), definitions)
                }
                JoinRoute::Right(right) => {
                    full_reads(&join.right, Some(&right), definitions)
                        + full_reads(&join.left, Some(&left_keys), definitions)
                }
            }
        }
    }
}
