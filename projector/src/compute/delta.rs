//! The exact change of a node's rows between two bases, operator by operator, part by part.
//!
//! The exact variant of continuous.md 3.3: linear operators map the delta of their input; a join
//! follows `d(L * R) = dL * R(m) + L(n) * dR`; an operator that is local to a partition is
//! computed at both bases for the partitions that the delta of its input touches. All reads are
//! made at the new basis n: old rows are new rows minus the delta, `R(m) = R(n) - dR`, so the store
//! is asked for past beliefs only by the scans' own deltas.
//!
//! Parts are not consolidated: a row may come in one and go in another. Whoever needs the sum brings
//! them together ([`super::row_sorter`]).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use everwhen_storage::{Basis, TableId};

use super::evaluate::evaluate;
use super::fault::Fault;
use super::node::{Join, JoinKind, Kind, Node, Output};
use super::only::Only;
use super::partners::Partners;
use super::row_sorter::{Order, RowSorter};
use super::source::{Reader, TableChanges};
use super::zset::{Each, ZSet};
use crate::error::Result;

/// What a step goes by, for one tenant: from `before` to the reader's basis.
pub struct Change<'a, 'db> {
    /// Reads at the new basis.
    pub reader: &'a Reader<'a, 'db>,
    /// The old basis.
    pub before: Basis,
    /// What changed, by table.
    pub tables: &'a BTreeMap<TableId, TableChanges>,
    /// Rows that no output row can be told from, since their key could not be computed.
    pub lost: &'a RefCell<Vec<Lost>>,
}

/// A row that came or went and has no place in the result, as the key that would lead there failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Its values as text.
    pub row: String,
    /// What failed.
    pub fault: Fault,
    /// How often it came.
    pub weight: i64,
}

impl Change<'_, '_> {
    fn touches(&self, node: &Node) -> bool {
        node.tables
            .iter()
            .any(|table| self.tables.get(table).is_some_and(|changes| !changes.is_empty()))
    }
}

/// Hands over the change of a node's rows.
pub fn delta(node: &Node, change: &Change<'_, '_>, each: Each<'_>) -> Result<()> {
    if !change.touches(node) {
        return Ok(());
    }
    let mut some = |rows: ZSet| if rows.is_empty() { Ok(()) } else { each(rows) };
    match &node.kind {
        Kind::Constant(_) => Ok(()),
        Kind::Scan(scan) => match change.tables.get(&scan.table.def.id) {
            Some(changes) => {
                change.reader.delta(scan, &node.schema, change.before, changes, &mut some)
            }
            None => Ok(()),
        },
        Kind::Filter(filter) => delta(&filter.input, change, &mut |rows| some(filter.apply(rows)?)),
        Kind::Project(project) => {
            delta(&project.input, change, &mut |rows| some(project.apply(&node.schema, &rows)?))
        }
        Kind::Union(inputs) => {
            for input in inputs {
                delta(input, change, &mut some)?;
            }
            Ok(())
        }
        Kind::Join(join) => join.delta(node, change, &mut some),
        Kind::Aggregate(aggregate) if aggregate.group.is_empty() => {
            aggregate.total_delta(&node.schema, change, &mut some)
        }
        Kind::Aggregate(aggregate) => {
            by_partition(&aggregate.input, &aggregate.group, change, &mut |touched, only| {
                aggregate.delta(&node.schema, change, (touched, only), &mut some)
            })
        }
        Kind::Window(window) if window.partition.is_empty() => {
            let below = gathered(&window.input, change, "what changes below a window")?;
            if below.is_empty() {
                return Ok(());
            }
            window.delta(&node.schema, change, (below, None), &mut some)
        }
        Kind::Window(window) => {
            by_partition(&window.input, &window.partition, change, &mut |touched, only| {
                window.delta(&node.schema, change, (touched, Some(only)), &mut some)
            })
        }
        Kind::Top(top) => {
            let below = gathered(&top.input, change, "what changes below a LIMIT")?;
            if below.is_empty() {
                return Ok(());
            }
            some(top.delta(&node.schema, change, below)?)
        }
    }
}

/// Gathers the change of a node's rows, consolidated, where it must be in memory as a whole.
pub fn gathered(node: &Node, change: &Change<'_, '_>, what: &str) -> Result<ZSet> {
    let mut held = change.reader.memory.entry();
    let mut parts = Vec::new();
    delta(node, change, &mut |part| {
        held.grow(part.bytes(), what)?;
        parts.push(part);
        Ok(())
    })?;
    if parts.is_empty() {
        return Ok(ZSet::empty(&node.schema));
    }
    ZSet::concatenated(&node.schema, parts)?.consolidated()
}

/// Brings the change of a node's rows together by partition, and hands over the rows of some
/// partitions, consolidated, with the restriction to those.
fn by_partition(
    input: &Node,
    partition: &[usize],
    change: &Change<'_, '_>,
    each: &mut dyn FnMut(ZSet, &Only) -> Result<()>,
) -> Result<()> {
    let order = Order { group: partition.to_vec(), canonical: true };
    let schema = Arc::clone(&input.schema);
    let mut sorter = RowSorter::new(change.reader.memory, schema, order);
    delta(input, change, &mut |rows| sorter.add_after(rows))?;
    sorter.groups("what changed of one group", &mut |part| {
        let touched = part.rows.nonzero()?;
        if touched.is_empty() {
            return Ok(());
        }
        let tuples = partition.iter().map(|at| Arc::clone(touched.batch().column(*at))).collect();
        let only = Only::new(partition.to_vec(), tuples, true)?;
        each(touched, &only)
    })
}

impl Join {
    fn delta(&self, node: &Node, change: &Change<'_, '_>, each: Each<'_>) -> Result<()> {
        let mut right_change = gathered(&self.right, change, "what changes on one side of a join")?;
        if !right_change.faults().is_empty() && !self.null_equal {
            right_change = self.without_lost(right_change, change)?;
        }
        let gone = Partners::new(self, right_change.clone().negated())?;
        delta(&self.left, change, &mut |left| {
            let mut right_before = |joining: &mut super::join::Joining<'_, '_>| {
                self.right_of(change.reader, &left, &mut |right| {
                    joining.meet(&Partners::new(self, right)?)
                })?;
                joining.meet(&gone)
            };
            self.with(&node.schema, &left, &mut right_before, each)
        })?;
        if right_change.is_empty() {
            return Ok(());
        }
        let keys = self.partners_of_right(&right_change)?;
        let come = Partners::new(self, right_change)?;
        evaluate(&self.left, change.reader, keys.as_ref(), &mut |left| {
            if self.kind == JoinKind::Inner {
                return self.pairs_with(&node.schema, &left, &come, each);
            }
            self.by_right(node, change, (&left, &come, &gone), each)
        })
    }

    /// What a change of the right side makes of left rows at the new basis.
    fn by_right(
        &self,
        node: &Node,
        change: &Change<'_, '_>,
        (left, come, gone): (&ZSet, &Partners<'_>, &Partners<'_>),
        each: Each<'_>,
    ) -> Result<()> {
        // Not linear in the right: left rows with a changed partner, before and after.
        let left = self.matching(left, come)?;
        if left.is_empty() {
            return Ok(());
        }
        self.with_right(node, change.reader, &left, each)?;
        let mut before = |joining: &mut super::join::Joining<'_, '_>| {
            self.right_of(change.reader, &left, &mut |right| {
                joining.meet(&Partners::new(self, right)?)
            })?;
            joining.meet(gone)
        };
        self.with(&node.schema, &left, &mut before, &mut |rows| each(rows.negated()))
    }

    /// Leaves out right rows whose key could not be computed, and notes them.
    fn without_lost(&self, right: ZSet, change: &Change<'_, '_>) -> Result<ZSet> {
        let keys = self.right_keys(right.batch())?;
        let is_lost = |row: usize| self.is_lost(&right, &keys, row);
        let lost = (0..right.len()).filter(|row| is_lost(*row));
        change.lost.borrow_mut().extend(lost.filter_map(|row| lost_row(&right, row)));
        let keep = (0..right.len()).map(|row| Some(!is_lost(row))).collect();
        right.filtered(&keep)
    }
}

/// Returns the rows below a node that have no place in its result at all, at the reader's basis: what a
/// load finds, as [`delta`] notes those that come later. Reads sides of joins whose keys are computed.
pub fn lost_below(node: &Node, reader: &Reader<'_, '_>) -> Result<Vec<Lost>> {
    let mut lost = Vec::new();
    for input in node.inputs() {
        lost.extend(lost_below(input, reader)?);
    }
    let Kind::Join(join) = &node.kind else { return Ok(lost) };
    if join.null_equal || !join.on.iter().any(|(_, right)| is_computed(&join.right, *right)) {
        return Ok(lost);
    }
    evaluate(&join.right, reader, None, &mut |rows| {
        if !rows.faults().is_empty() {
            let keys = join.right_keys(rows.batch())?;
            let of = (0..rows.len()).filter(|row| join.is_lost(&rows, &keys, *row));
            lost.extend(of.filter_map(|row| lost_row(&rows, row)));
        }
        Ok(())
    })?;
    Ok(lost)
}

/// True for a column that an expression makes, which may fail.
fn is_computed(node: &Node, column: usize) -> bool {
    match &node.kind {
        Kind::Project(project) => match project.outputs.get(column) {
            Some(Output::Column(at)) => is_computed(&project.input, *at),
            Some(Output::Cast(..)) | None => false,
            Some(Output::Computed(_)) => true,
        },
        Kind::Filter(filter) => is_computed(&filter.input, column),
        Kind::Join(join) => match (join.side_column(column, false), join.side_column(column, true))
        {
            (Some(at), _) => is_computed(&join.left, at),
            (None, Some(at)) => is_computed(&join.right, at),
            (None, None) => false,
        },
        Kind::Scan(_) | Kind::Constant(_) => false,
        Kind::Union(_) | Kind::Aggregate(_) | Kind::Window(_) | Kind::Top(_) => true,
    }
}

/// Describes a row that has no place in the result.
pub fn lost_row(rows: &ZSet, row: usize) -> Option<Lost> {
    let fault = rows.faults().at(row).cloned()?;
    let shown = |column: &ArrayRef| {
        let text = arrow::util::display::array_value_to_string(column, row);
        text.ok().filter(|_| column.is_valid(row))
    };
    let values: Vec<String> = rows.batch().columns().iter().filter_map(shown).collect();
    let row_text = serde_json::Value::from(values).to_string();
    Some(Lost { row: row_text, fault, weight: rows.weights()[row] })
}
