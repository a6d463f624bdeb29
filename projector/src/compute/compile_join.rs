//! Joins of the logical plan as joins of ours: left-preserving only, keys as plain columns.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::{Column, DFSchema, JoinType, NullEquality, ScalarValue};
use datafusion::logical_expr::{Expr, ExprSchemable, Join as LogicalJoin, LogicalPlan};
use datafusion::physical_expr::expressions::Literal;

use super::compile::{
    Built, Compiled, Compiler, Need, arrow_schema, column_places, fall_back, plain_column, project,
    qualified, union_of,
};
use super::contained::containments;
use super::node::{Join, JoinKind, Kind, Node, Output, UniqueAtInstant};
use super::residual::Residual;
use crate::error::Error;

/// One side of a join while it is compiled.
struct Side<'a> {
    plan: &'a LogicalPlan,
    /// Where the side's columns begin in the plan's left ++ right.
    offset: usize,
    keys: Vec<&'a Expr>,
    need: Need,
}

/// A side that is compiled, its keys plain columns.
struct ReadySide {
    node: Node,
    /// For each of the node's columns its place in the plan's left ++ right; `None` for a key made
    /// by an expression.
    columns: Vec<Option<usize>>,
    keys: Vec<usize>,
    /// Names that the residual knows the columns by.
    names: DFSchema,
}

impl Compiler {
    /// Compiles any join.
    pub fn join(&self, join: &LogicalJoin, need: &Need) -> Compiled<Built> {
        if join.null_aware {
            return fall_back("NOT IN over a sub-query that may have NULLs");
        }
        match join.join_type {
            JoinType::Inner => self.preserving(join, need, JoinKind::Inner, false),
            JoinType::Left => self.preserving(join, need, JoinKind::Left, false),
            JoinType::Right => self.preserving(join, need, JoinKind::Left, true),
            JoinType::LeftSemi => self.preserving(join, need, JoinKind::Semi, false),
            JoinType::RightSemi => self.preserving(join, need, JoinKind::Semi, true),
            JoinType::LeftAnti => self.preserving(join, need, JoinKind::Anti, false),
            JoinType::RightAnti => self.preserving(join, need, JoinKind::Anti, true),
            JoinType::LeftMark => self.preserving(join, need, JoinKind::Mark, false),
            JoinType::RightMark => self.preserving(join, need, JoinKind::Mark, true),
            JoinType::Full => self.full(join, need),
        }
    }

    /// FULL = LEFT, and the right rows without partner beside NULLs.
    fn full(&self, join: &LogicalJoin, need: &Need) -> Compiled<Built> {
        let wanted: Vec<usize> = need.all().into_iter().collect();
        let schema = arrow_schema(&join.schema, &wanted);
        let values = Need::of_values(wanted.clone());
        let left = self.preserving(join, &values, JoinKind::Left, false)?.trimmed(&wanted)?;
        let left_width = join.left.schema().fields().len();
        let of_right = wanted.iter().filter(|at| **at >= left_width).map(|at| at - left_width);
        let alone = self.preserving(join, &Need::of_values(of_right), JoinKind::Anti, true)?;
        let mut outputs = Vec::with_capacity(wanted.len());
        for (at, field) in wanted.iter().zip(schema.fields()) {
            outputs.push(if *at >= left_width {
                Output::Column(alone.place(at - left_width)?)
            } else {
                let null = ScalarValue::try_from(field.data_type()).map_err(Error::from)?;
                Output::Computed(Arc::new(Literal::new(null)))
            });
        }
        let node = match wanted.is_empty() {
            true => alone.node,
            false => project(alone.node, outputs, Arc::clone(&schema)),
        };
        let alone = Built { node, columns: wanted.clone() };
        Ok(union_of(vec![left, alone], schema, wanted))
    }

    /// Compiles a join that preserves its left side, or its right one where `swapped`.
    fn preserving(
        &self,
        join: &LogicalJoin,
        need: &Need,
        kind: JoinKind,
        swapped: bool,
    ) -> Compiled<Built> {
        let left_width = join.left.schema().fields().len();
        let pairs = join.on.iter();
        let mut left = Side {
            plan: &join.left,
            offset: 0,
            keys: pairs.clone().map(|(l, _)| l).collect(),
            need: Need::default(),
        };
        let mut right = Side {
            plan: &join.right,
            offset: left_width,
            keys: pairs.map(|(_, r)| r).collect(),
            need: Need::default(),
        };
        if swapped {
            std::mem::swap(&mut left, &mut right);
        }
        // What a semi or mark join puts out is numbered by its preserved side alone.
        let of_left = matches!(kind, JoinKind::Semi | JoinKind::Anti | JoinKind::Mark);
        let mark = left.plan.schema().fields().len();
        let concat = |at: usize| if of_left { left.offset + at } else { at };
        let wanted: Vec<usize> = need.all().into_iter().collect();
        let outer = wanted.iter().filter(|at| !(of_left && **at >= mark));
        let outer: Vec<(usize, bool)> =
            outer.map(|at| (concat(*at), need.only_contained(*at))).collect();
        for (at, contained) in outer {
            let to_left = left.has(at);
            let side = if to_left { &mut left } else { &mut right };
            let own = at - side.offset;
            // An outer join is not linear in its right side, so bounds are values there.
            if contained && (to_left || kind == JoinKind::Inner) {
                side.need.contained.insert(own);
            } else {
                side.need.values.insert(own);
            }
        }
        let as_of = residual_need(join.filter.as_ref(), &mut left, &mut right)?;
        let left = self.side(left)?;
        let right = self.side(right)?;
        let as_of = as_of.map(|(from, to)| {
            let place = |of| right.columns.iter().position(|at| *at == Some(of));
            (place(from), place(to))
        });
        let outputs = Outputs { of_left, mark, left_offset: if swapped { left_width } else { 0 } };
        self.joined(join, kind, left, right, as_of, &wanted, &outputs)
    }

    /// Compiles a side and makes its keys plain columns.
    fn side(&self, side: Side<'_>) -> Compiled<ReadySide> {
        let schema = side.plan.schema();
        let mut below = side.need.clone();
        for key in &side.keys {
            below.values.extend(column_places(key, schema)?);
        }
        let built = self.compile(side.plan, &below)?;
        let width = built.node.schema.fields().len();
        let mut outputs: Vec<Output> = (0..width).map(Output::Column).collect();
        let mut fields: Vec<Field> =
            built.node.schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        let mut keys = Vec::with_capacity(side.keys.len());
        for (at, key) in side.keys.iter().enumerate() {
            if let Some(column) = plain_column(key, schema) {
                keys.push(built.place(column)?);
                continue;
            }
            let output = self.output(key, side.plan, &built)?;
            let kind = key.get_type(schema.as_ref()).map_err(Error::from)?;
            fields.push(Field::new(format!("__key_{at}"), kind, true));
            keys.push(outputs.len());
            outputs.push(output);
        }
        let mut columns: Vec<Option<usize>> =
            built.columns.iter().map(|at| Some(at + side.offset)).collect();
        columns.resize(outputs.len(), None);
        let names = qualified(schema, &built.columns)?;
        let node = if outputs.len() == width {
            built.node
        } else {
            project(built.node, outputs, Arc::new(Schema::new(fields)))
        };
        Ok(ReadySide { node, columns, keys, names })
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one node, put together once")]
    fn joined(
        &self,
        join: &LogicalJoin,
        kind: JoinKind,
        left: ReadySide,
        right: ReadySide,
        as_of: Option<(Option<usize>, Option<usize>)>,
        wanted: &[usize],
        numbering: &Outputs,
    ) -> Compiled<Built> {
        let names = padded(&left, "left")?.join(&padded(&right, "right")?).map_err(Error::from)?;
        let residual = join.filter.as_ref().map(|expr| self.physical_over(expr, &names));
        let residual = residual.transpose()?;
        let width = left.columns.len();
        let columns: Vec<usize> = wanted.to_vec();
        let mut outputs = Vec::with_capacity(columns.len());
        for at in &columns {
            outputs.push(numbering.place(*at, &left, &right)?);
        }
        if outputs.is_empty() {
            outputs.push(0);
        }
        let sides = left.node.schema.fields().iter().chain(right.node.schema.fields());
        let pair: Vec<_> = sides.cloned().collect();
        let residual = residual.zip(join.filter.as_ref()).map(|(expr, text)| {
            let (left, right) = (&left.node.schema, &right.node.schema);
            Residual::new(&expr, text.to_string(), left, right).map_err(Error::from)
        });
        let residual = residual.transpose()?;
        // Past both sides stands the mark.
        let mark = Arc::new(Field::new("mark", DataType::Boolean, true));
        let fields = outputs.iter().map(|at| Arc::clone(pair.get(*at).unwrap_or(&mark)));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let on: Vec<(usize, usize)> =
            left.keys.iter().copied().zip(right.keys.iter().copied()).collect();
        let as_of = match as_of {
            Some((Some(from), Some(to))) => Some((from, to)),
            _ => None,
        };
        let node = Join {
            kind,
            on,
            null_equal: join.null_equality == NullEquality::NullEqualsNull,
            residual,
            outputs,
            as_of: as_of.is_some(),
            right_is_large: AtomicBool::new(false),
            left: left.node,
            right: right.node,
        };
        let node = with_keys(node, schema, width, as_of);
        Ok(Built { node, columns })
    }
}

/// How a join's output columns are numbered in the logical plan.
struct Outputs {
    of_left: bool,
    mark: usize,
    left_offset: usize,
}

impl Outputs {
    /// Returns an output column's place in the node's left ++ right (++ mark).
    fn place(&self, at: usize, left: &ReadySide, right: &ReadySide) -> Compiled<usize> {
        if self.of_left && at >= self.mark {
            return Ok(left.columns.len() + right.columns.len());
        }
        let concat = if self.of_left { at + self.left_offset } else { at };
        let all = left.columns.iter().chain(&right.columns);
        all.enumerate()
            .find_map(|(place, of)| (*of == Some(concat)).then_some(place))
            .ok_or_else(|| Error::internal("a join puts out what is needed").into())
    }
}

impl Side<'_> {
    fn has(&self, concat: usize) -> bool {
        let width = self.plan.schema().fields().len();
        (self.offset..self.offset + width).contains(&concat)
    }
}

/// Adds what the residual reads to both sides; returns the right side's period that is asked for
/// one instant, as places in left ++ right.
fn residual_need<'a>(
    filter: Option<&Expr>,
    left: &mut Side<'a>,
    right: &mut Side<'a>,
) -> Compiled<Option<(usize, usize)>> {
    let Some(filter) = filter else { return Ok(None) };
    let mut as_of = None;
    for on_left in [true, false] {
        let side: &mut Side<'a> = if on_left { &mut *left } else { &mut *right };
        for (from, to) in containments(filter, side.plan.schema()).periods {
            side.need.contained.extend([from, to]);
            if !on_left {
                as_of = Some((from + side.offset, to + side.offset));
            }
        }
    }
    // Everything but those bounds is read as a value; a bound also read otherwise is too.
    let both = left.plan.schema().join(right.plan.schema()).map_err(Error::from)?;
    let found = containments(filter, &both);
    for expr in found.rest.iter().chain(&found.instants) {
        for column in expr.column_refs() {
            add_value(column, left, right)?;
        }
    }
    Ok(as_of)
}

fn add_value<'a>(column: &Column, left: &mut Side<'a>, right: &mut Side<'a>) -> Compiled<()> {
    for side in [left, right] {
        if let Some(at) = side.plan.schema().maybe_index_of_column(column) {
            side.need.values.insert(at);
            return Ok(());
        }
    }
    fall_back(&format!("a sub-query that stays correlated (by {column})"))
}

/// Returns the names of a side with one for each made key, so that places agree with the node's.
fn padded(side: &ReadySide, which: &str) -> Compiled<DFSchema> {
    let mut fields: Vec<_> = side
        .names
        .iter()
        .map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)))
        .collect();
    for at in fields.len()..side.columns.len() {
        let field = side.node.schema.field(at).clone();
        fields.push((None, Arc::new(field.with_name(format!("__{which}_{at}")))));
    }
    DFSchema::new_with_metadata(fields, std::collections::HashMap::new())
        .map_err(|e| Error::from(e).into())
}

/// Finishes the node: what is unique in its output.
fn with_keys(
    join: Join,
    schema: arrow::datatypes::SchemaRef,
    width: usize,
    as_of: Option<(usize, usize)>,
) -> Node {
    let left_keys: BTreeSet<usize> = join.on.iter().map(|(l, _)| *l).collect();
    let right_keys: BTreeSet<usize> = join.on.iter().map(|(_, r)| *r).collect();
    let within = |columns: &[usize], keys: &BTreeSet<usize>| {
        columns.iter().all(|column| keys.contains(column))
    };
    let at_instant = as_of.is_some_and(|(from, to)| {
        join.right.instants.iter().any(|instant| {
            instant.from == from && instant.to == to && within(&instant.columns, &right_keys)
        })
    });
    let right_single =
        at_instant || join.right.unique.iter().any(|columns| within(columns, &right_keys));
    let left_single = join.left.unique.iter().any(|columns| within(columns, &left_keys));
    let places: BTreeMap<usize, usize> =
        join.outputs.iter().enumerate().map(|(place, of)| (*of, place)).collect();
    let place = |columns: &[usize], offset: usize| -> Option<Vec<usize>> {
        columns.iter().map(|column| places.get(&(column + offset)).copied()).collect()
    };
    let mut unique: Vec<Vec<usize>> = Vec::new();
    let of_left = matches!(join.kind, JoinKind::Semi | JoinKind::Anti | JoinKind::Mark);
    let keeps_left = of_left || right_single;
    if keeps_left {
        unique.extend(join.left.unique.iter().filter_map(|columns| place(columns, 0)));
    }
    if left_single && join.kind == JoinKind::Inner {
        unique.extend(join.right.unique.iter().filter_map(|columns| place(columns, width)));
    }
    if !keeps_left && !of_left {
        for l in join.left.unique.iter().filter_map(|columns| place(columns, 0)) {
            for r in join.right.unique.iter().filter_map(|columns| place(columns, width)) {
                unique.push([l.as_slice(), &r].concat());
            }
        }
    }
    let instants = join
        .left
        .instants
        .iter()
        .filter(|_| keeps_left)
        .filter_map(|instant| {
            Some(UniqueAtInstant {
                from: *places.get(&instant.from)?,
                to: *places.get(&instant.to)?,
                columns: place(&instant.columns, 0)?,
            })
        })
        .collect();
    let tables = join.left.tables.union(&join.right.tables).copied().collect();
    Node { schema, unique, instants, tables, kind: Kind::Join(Box::new(join)) }
}
