//! The exact change of a node's rows between two bases, operator by operator.
//!
//! The exact variant of continuous.md 3.3: linear operators map the delta of their input; a join
//! follows `d(L * R) = dL * R(m) + L(n) * dR`; an operator that is local to a partition is
//! computed at both bases for the partitions that the delta of its input touches. All reads are
//! made at the new basis n: old rows are new rows minus the delta, `R(m) = R(n) - dR`, so the store
//! is asked for past beliefs only by the scans' own deltas.

use std::collections::BTreeMap;

use everwhen_storage::{Basis, TableId};

use super::evaluate::evaluate;
use super::node::{Join, JoinKind, Kind, Node};
use super::source::{Reader, TableChanges};
use super::zset::{Only, ZSet};
use crate::error::Result;

/// What a step goes by, for one tenant: from `before` to the reader's basis.
pub struct Change<'a, 'db> {
    /// Reads at the new basis.
    pub reader: &'a Reader<'a, 'db>,
    /// The old basis.
    pub before: Basis,
    /// What changed, by table.
    pub tables: &'a BTreeMap<TableId, TableChanges>,
}

impl Change<'_, '_> {
    fn touches(&self, node: &Node) -> bool {
        node.tables
            .iter()
            .any(|table| self.tables.get(table).is_some_and(|changes| !changes.is_empty()))
    }
}

/// Returns the change of a node's rows, consolidated.
pub fn delta(node: &Node, change: &Change<'_, '_>) -> Result<ZSet> {
    if !change.touches(node) {
        return Ok(ZSet::empty(&node.schema));
    }
    let changed = match &node.kind {
        Kind::Constant(_) => ZSet::empty(&node.schema),
        Kind::Scan(scan) => match change.tables.get(&scan.table.def.id) {
            Some(changes) => change.reader.delta(scan, &node.schema, change.before, changes)?,
            None => ZSet::empty(&node.schema),
        },
        Kind::Filter(filter) => return filter.apply(delta(&filter.input, change)?),
        Kind::Project(project) => {
            project.weighted(&node.schema, &delta(&project.input, change)?)?.consolidated()?
        }
        Kind::Union(inputs) => {
            let mut all = ZSet::empty(&node.schema);
            for input in inputs {
                all = all.plus(delta(input, change)?)?;
            }
            all.consolidated()?
        }
        Kind::Join(join) => join.delta(node, change)?,
        Kind::Aggregate(aggregate) => {
            recomputed(node, &aggregate.input, &aggregate.group, change, |rows| {
                aggregate.apply(&node.schema, rows)
            })?
        }
        Kind::Window(window) => {
            recomputed(node, &window.input, &window.partition, change, |rows| {
                window.apply(&node.schema, rows)
            })?
        }
        Kind::Top(top) => recomputed(node, &top.input, &[], change, |rows| top.apply(rows))?,
    };
    Ok(changed)
}

/// Computes an operator before and after, over the partitions that its input's delta touches.
fn recomputed(
    node: &Node,
    input: &Node,
    partition: &[usize],
    change: &Change<'_, '_>,
    compute: impl Fn(ZSet) -> Result<ZSet>,
) -> Result<ZSet> {
    let below = delta(input, change)?;
    if below.is_empty() {
        return Ok(ZSet::empty(&node.schema));
    }
    let touched = if partition.is_empty() {
        None
    } else {
        let tuples = partition.iter().map(|at| below.batch().column(*at).clone()).collect();
        Some(Only::new(partition.to_vec(), tuples, true)?)
    };
    let after = evaluate(input, change.reader, touched.as_ref())?;
    let before = after.clone().plus(below.negated())?.consolidated()?;
    compute(after)?.plus(compute(before)?.negated())?.consolidated()
}

impl Join {
    fn delta(&self, node: &Node, change: &Change<'_, '_>) -> Result<ZSet> {
        let left_change = delta(&self.left, change)?;
        let right_change = delta(&self.right, change)?;
        let mut out = ZSet::empty(&node.schema);
        if !left_change.is_empty() {
            let right = self.right_of(change.reader, &left_change)?;
            let right_before = if right_change.is_empty() {
                right
            } else {
                right.plus(right_change.clone().negated())?
            };
            out = out.plus(self.apply(&node.schema, &left_change, &right_before)?)?;
        }
        if !right_change.is_empty() {
            let keys = self.partners_of_right(&right_change)?;
            let left = evaluate(&self.left, change.reader, keys.as_ref())?;
            out = out.plus(self.delta_by_right(node, change, left, right_change)?)?;
        }
        out.consolidated()
    }

    /// What a change of the right side makes of the left rows at the new basis.
    fn delta_by_right(
        &self,
        node: &Node,
        change: &Change<'_, '_>,
        left: ZSet,
        right_change: ZSet,
    ) -> Result<ZSet> {
        if self.kind == JoinKind::Inner {
            return self.apply(&node.schema, &left, &right_change);
        }
        // Not linear in the right: left rows with a changed partner, before and after.
        let left = self.matching(left, &right_change)?;
        if left.is_empty() {
            return Ok(ZSet::empty(&node.schema));
        }
        let after = self.right_of(change.reader, &left)?;
        let before = after.clone().plus(right_change.negated())?;
        let gone = self.apply(&node.schema, &left, &before)?.negated();
        self.apply(&node.schema, &left, &after)?.plus(gone)
    }
}
