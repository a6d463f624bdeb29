//! Operators against their naive twins: over rows at hand, random, at sizes up to a million.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, binary};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::node::{Join, JoinKind, Kind, Node};
use super::partners::Partners;
use super::residual::Residual;
use super::zset::ZSet;

type Row = Vec<Option<i64>>;
type Bag = BTreeMap<Row, i64>;

fn schema(names: &[&str]) -> SchemaRef {
    let fields = names.iter().map(|name| Field::new(*name, DataType::Int64, true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn rows(names: &[&str], of: &[(Row, i64)]) -> ZSet {
    let column = |at: usize| -> ArrayRef {
        Arc::new(of.iter().map(|(row, _)| row[at]).collect::<Int64Array>())
    };
    let columns = (0..names.len()).map(column).collect();
    let batch = RecordBatch::try_new(schema(names), columns).unwrap();
    ZSet::weighted(batch, of.iter().map(|(_, weight)| *weight).collect()).unwrap()
}

fn add(bag: &mut Bag, set: &ZSet) {
    let value = |column: &ArrayRef, row: usize| match column.data_type() {
        DataType::Boolean => Some(i64::from(column.as_boolean().value(row))),
        _ => column.is_valid(row).then(|| column.as_primitive::<Int64Type>().value(row)),
    };
    for row in 0..set.len() {
        let key = set.batch().columns().iter().map(|column| value(column, row)).collect();
        *bag.entry(key).or_default() += set.weights()[row];
    }
    bag.retain(|_, weight| *weight != 0);
}

fn constant(set: &ZSet) -> Node {
    Node {
        schema: set.batch().schema(),
        kind: Kind::Constant(set.batch().clone()),
        unique: Vec::new(),
        instants: Vec::new(),
        tables: std::collections::BTreeSet::new(),
    }
}

const LEFT: [&str; 3] = ["k", "at", "v"];
const RIGHT: [&str; 4] = ["k", "from", "to", "w"];

/// `l.k = r.k AND r.from <= l.at AND l.at < r.to`, and perhaps `l.v <> r.w`.
fn join(kind: JoinKind, keyed: bool, more: bool, left: &ZSet, right: &ZSet) -> (Join, SchemaRef) {
    let both = schema(&["k", "at", "v", "k2", "from", "to", "w"]);
    let column =
        |at: usize| -> Arc<dyn PhysicalExpr> { Arc::new(Column::new(both.field(at).name(), at)) };
    let compare = |l, op, r| binary(column(l), op, column(r), &both).unwrap();
    let and = |l, r| binary(l, Operator::And, r, &both).unwrap();
    let mut residual = and(compare(4, Operator::LtEq, 1), compare(1, Operator::Lt, 5));
    if more {
        residual = and(residual, compare(2, Operator::NotEq, 6));
    }
    let residual =
        Residual::new(&residual, String::new(), &schema(&LEFT), &schema(&RIGHT)).unwrap();
    assert!(residual.overlap.is_some(), "the comparisons are found");
    let (outputs, out) = match kind {
        JoinKind::Inner | JoinKind::Left => (vec![0, 1, 2, 6], schema(&["k", "at", "v", "w"])),
        JoinKind::Semi | JoinKind::Anti => (vec![0, 1, 2], schema(&LEFT)),
        JoinKind::Mark => {
            let mut fields: Vec<_> = schema(&LEFT).fields().iter().cloned().collect();
            fields.push(Arc::new(Field::new("mark", DataType::Boolean, true)));
            (vec![0, 1, 2, 7], Arc::new(Schema::new(fields)))
        }
    };
    let join = Join {
        kind,
        left: constant(left),
        right: constant(right),
        on: if keyed { vec![(0, 0)] } else { Vec::new() },
        null_equal: false,
        residual: Some(residual),
        outputs,
        as_of: true,
        right_is_large: AtomicBool::new(false),
    };
    (join, out)
}

fn meets(keyed: bool, more: bool, left: &Row, right: &Row) -> bool {
    let true_of = |a: Option<i64>, b: Option<i64>, test: fn(i64, i64) -> bool| {
        a.zip(b).is_some_and(|(a, b)| test(a, b))
    };
    (!keyed || true_of(left[0], right[0], |a, b| a == b))
        && true_of(right[1], left[1], |from, at| from <= at)
        && true_of(left[1], right[2], |at, to| at < to)
        && (!more || true_of(left[2], right[3], |v, w| v != w))
}

fn naive(
    kind: JoinKind,
    (keyed, more): (bool, bool),
    left: &[(Row, i64)],
    right: &[(Row, i64)],
) -> Bag {
    let mut bag = Bag::new();
    for (l, weight) in left {
        let partners: Vec<_> = right.iter().filter(|(r, _)| meets(keyed, more, l, r)).collect();
        let count: i64 = partners.iter().map(|(_, weight)| weight).sum();
        let mut put = |more: Option<Option<i64>>, weight: i64| {
            let row = l.iter().copied().chain(more).collect();
            *bag.entry(row).or_default() += weight;
        };
        match kind {
            JoinKind::Inner => partners.iter().for_each(|(r, w)| put(Some(r[3]), weight * w)),
            JoinKind::Left => {
                partners.iter().for_each(|(r, w)| put(Some(r[3]), weight * w));
                if count == 0 {
                    put(Some(None), *weight);
                }
            }
            JoinKind::Semi if count > 0 => put(None, *weight),
            JoinKind::Anti if count == 0 => put(None, *weight),
            JoinKind::Mark => put(Some(Some(i64::from(count > 0))), *weight),
            JoinKind::Semi | JoinKind::Anti => {}
        }
    }
    bag.retain(|_, weight| *weight != 0);
    bag
}

fn value(random: &mut StdRng, most: i64) -> Option<i64> {
    random.random_bool(0.93).then(|| random.random_range(0..most))
}

#[test]
fn joins_in_parts_find_what_looking_at_every_pair_finds() {
    let mut random = StdRng::seed_from_u64(11);
    for round in 0..400 {
        let kinds =
            [JoinKind::Inner, JoinKind::Left, JoinKind::Semi, JoinKind::Anti, JoinKind::Mark];
        let kind = kinds[round % 5];
        let (keyed, more) = (random.random_bool(0.7), random.random_bool(0.5));
        let left: Vec<(Row, i64)> = (0..random.random_range(0..20))
            .map(|_| {
                let row =
                    vec![value(&mut random, 3), value(&mut random, 20), value(&mut random, 3)];
                (row, random.random_range(-2..3))
            })
            .collect();
        let right: Vec<(Row, i64)> = (0..random.random_range(0..20))
            .map(|_| {
                let from = value(&mut random, 20);
                let to = from.map(|from| from + random.random_range(0..6));
                (vec![value(&mut random, 3), from, to, value(&mut random, 3)], 1)
            })
            .collect();
        let (of_left, of_right) = (rows(&LEFT, &left), rows(&RIGHT, &right));
        let (join, out) = join(kind, keyed, more, &of_left, &of_right);
        // The right side comes in parts, cut anywhere.
        let cut = random.random_range(0..=right.len());
        let parts = [of_right.slice(0, cut), of_right.slice(cut, right.len() - cut)];
        let mut found = Bag::new();
        join.with(
            &out,
            &of_left,
            &mut |joining| {
                for part in &parts {
                    joining.meet(&Partners::new(&join, part.clone())?)?;
                }
                Ok(())
            },
            &mut |set| {
                assert_eq!(set.batch().schema(), out);
                add(&mut found, &set);
                Ok(())
            },
        )
        .unwrap();
        let expected = naive(kind, (keyed, more), &left, &right);
        assert_eq!(found, expected, "round {round} {kind:?} {keyed} {more}\n{left:?}\n{right:?}");
        // What the right is restricted by keeps every partner.
        if let Some(only) = join.partners_of_left(&of_left).unwrap() {
            let times = only.times().unwrap();
            for (r, _) in &right {
                let has_partner = left.iter().any(|(l, _)| meets(keyed, more, l, r));
                let reaches = |ranges: &Vec<(i64, i64)>| {
                    let (Some(from), Some(to)) = (r[1], r[2]) else { return false };
                    ranges.iter().any(|(least, most)| from <= *most && *least <= to)
                };
                assert!(!has_partner || times.ranges.iter().any(reaches), "{r:?} {times:?}");
            }
        }
    }
}

#[test]
fn a_key_of_a_million_versions_under_a_million_facts_is_joined_in_parts() {
    let count = 1_000_000_i64;
    let right: Vec<(Row, i64)> = (0..count)
        .map(|at| (vec![Some(1), Some(at * 10), Some(at * 10 + 10), Some(at % 7)], 1))
        .collect();
    let of_right = rows(&RIGHT, &right);
    drop(right);
    let mut random = StdRng::seed_from_u64(5);
    let left: Vec<(Row, i64)> = (0..count)
        .map(|v| (vec![Some(1), Some(random.random_range(0..count * 10)), Some(v)], 1))
        .collect();
    let of_left = rows(&LEFT, &left);
    let (join, out) = join(JoinKind::Left, true, false, &of_left, &of_right);
    let partners = Partners::new(&join, of_right).unwrap();
    let (mut most, mut total, mut wrong) = (0, 0, 0);
    for start in (0..of_left.len()).step_by(8_192) {
        let part = of_left.slice(start, 8_192.min(of_left.len() - start));
        let mut meet = |joining: &mut super::join::Joining<'_, '_>| joining.meet(&partners);
        join.with(&out, &part, &mut meet, &mut |set| {
            most = most.max(set.len());
            total += set.len();
            let at = set.batch().column(1).as_primitive::<Int64Type>();
            let found = set.batch().column(3).as_primitive::<Int64Type>();
            let is_wrong = |row: &usize| found.value(*row) != at.value(*row) / 10 % 7;
            wrong += (0..set.len()).filter(is_wrong).count();
            Ok(())
        })
        .unwrap();
    }
    assert_eq!((total, wrong), (1_000_000, 0));
    assert!(most <= 16_384, "{most} rows came at once");
}
