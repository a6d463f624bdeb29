//! Rows of a node at the reader's basis, all of them or only those that match some values.
//!
//! A restriction travels down: through plain columns, filters and group columns as it is, through
//! a join to the side that has the columns and from there, by the join's keys, to the other. Where
//! it cannot go on, the node below is read as a whole; [`super::admit`] says so beforehand.

use arrow::array::BooleanArray;
use everwhen_storage::Definitions;

use super::node::{Join, JoinKind, Kind, Node, Output, truth_of};
use super::source::{Access, Reader};
use super::zset::{Only, ZSet};
use crate::error::Result;

/// Evaluates a node: exactly the rows that match `only`, every weight positive.
pub fn evaluate(node: &Node, reader: &Reader<'_, '_>, only: Option<&Only>) -> Result<ZSet> {
    if only.is_some_and(Only::is_empty) {
        return Ok(ZSet::empty(&node.schema));
    }
    let rows = match &node.kind {
        Kind::Constant(rows) => ZSet::once(rows.clone()),
        Kind::Scan(scan) => reader.rows(scan, &node.schema, only)?,
        Kind::Filter(filter) => {
            let rows = evaluate(&filter.input, reader, only)?;
            return filter.apply(rows);
        }
        Kind::Project(project) => {
            let below = pushed(only, |at| project.outputs.get(at).and_then(Output::source))?;
            let rows = evaluate(&project.input, reader, below.as_ref())?;
            project.weighted(&node.schema, &rows)?
        }
        Kind::Union(inputs) => {
            let mut all = ZSet::empty(&node.schema);
            for input in inputs {
                all = all.plus(evaluate(input, reader, only)?)?;
            }
            return Ok(all);
        }
        Kind::Aggregate(aggregate) => {
            let below = pushed(only, |at| aggregate.group.get(at).copied())?;
            let rows = evaluate(&aggregate.input, reader, below.as_ref())?;
            aggregate.apply(&node.schema, rows)?
        }
        Kind::Window(window) => {
            let below = pushed(only, |at| window.partition.contains(&at).then_some(at))?;
            let rows = evaluate(&window.input, reader, below.as_ref())?;
            window.apply(&node.schema, rows)?
        }
        Kind::Top(top) => top.apply(evaluate(&top.input, reader, None)?)?,
        Kind::Join(join) => join.evaluate(node, reader, only)?,
    };
    match only {
        Some(only) => only.keep(rows),
        None => Ok(rows),
    }
}

fn pushed(only: Option<&Only>, map: impl Fn(usize) -> Option<usize>) -> Result<Option<Only>> {
    match only {
        Some(only) => only.mapped(map),
        None => Ok(None),
    }
}

impl super::node::Filter {
    /// Keeps the rows for which the predicate is true.
    pub fn apply(&self, rows: ZSet) -> Result<ZSet> {
        if rows.is_empty() {
            return Ok(rows);
        }
        let truth: BooleanArray = truth_of(&self.predicate, rows.batch())?;
        rows.filtered(&truth)
    }
}

impl super::node::Project {
    /// Computes the columns of rows with weights.
    pub fn weighted(&self, schema: &arrow::datatypes::SchemaRef, rows: &ZSet) -> Result<ZSet> {
        if rows.is_empty() {
            return Ok(ZSet::empty(schema));
        }
        ZSet::weighted(self.apply(schema, rows.batch())?, rows.weights().to_vec())
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

    fn evaluate(&self, node: &Node, reader: &Reader<'_, '_>, only: Option<&Only>) -> Result<ZSet> {
        let route = only.map_or(JoinRoute::Nowhere, |only| {
            self.route(only.columns(), only.has_null(), reader.definitions)
        });
        let left = match route {
            JoinRoute::Nowhere => {
                let left = evaluate(&self.left, reader, None)?;
                let right = evaluate(&self.right, reader, None)?;
                return self.apply(&node.schema, &left, &right);
            }
            JoinRoute::Left(_) => {
                let below = pushed(only, |at| self.side_column(at, false))?;
                evaluate(&self.left, reader, below.as_ref())?
            }
            JoinRoute::Right(_) => {
                let below = pushed(only, |at| self.side_column(at, true))?;
                let right = evaluate(&self.right, reader, below.as_ref())?;
                let keys = self.partners_of_right(&right)?;
                let left = evaluate(&self.left, reader, keys.as_ref())?;
                if self.kind == JoinKind::Inner {
                    return self.apply(&node.schema, &left, &right);
                }
                left
            }
        };
        let right = self.right_of(reader, &left)?;
        self.apply(&node.schema, &left, &right)
    }

    /// Evaluates the right rows that some left rows may have as partners.
    pub fn right_of(&self, reader: &Reader<'_, '_>, left: &ZSet) -> Result<ZSet> {
        let keys = self.partners_of_left(left)?;
        evaluate(&self.right, reader, keys.as_ref())
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
