use super::*;
use crate::schema::ColumnId;
use crate::value::{Row, Value};

fn at(micros: i64) -> ValidTime {
    ValidTime::from_micros(micros)
}

fn period(from: i64, to: i64) -> Period<ValidTime> {
    Period::new(at(from), if to == 99 { ValidTime::END } else { at(to) }).unwrap()
}

fn row(a: i64, b: Option<i64>) -> Row {
    let fields = [(ColumnId(0), Some(a)), (ColumnId(1), b)];
    Row::new(fields.into_iter().filter_map(|(id, v)| Some((id, Value::Int(v?)))))
}

fn said(tx: u64, op: Op, from: i64, to: i64, fields: &Row) -> Said {
    let valid = period(from, to);
    Said {
        at: Position { valid_from: valid.from(), order: 0, tx: TxId::new(tx), ordinal: 0 },
        op,
        valid,
        fields: match op {
            Op::Put => Document::of_put(fields),
            Op::Patch { .. } => Document::of_assertion(fields),
            Op::Delete => Document::default(),
        },
    }
}

fn shown(segments: &[Segment]) -> Vec<(i64, i64, u64)> {
    let end = |to: ValidTime| if to == ValidTime::END { 99 } else { to.micros() };
    segments.iter().map(|s| (s.valid.from().micros(), end(s.valid.to()), s.tx_from.get())).collect()
}

/// Applies and compares, as the writer does for a transaction of one operation.
fn step(segments: &mut Vec<Segment>, said: &Said) -> Change {
    let before = segments.clone();
    recorded::apply(segments, said, said.at.tx).unwrap();
    let change = Change::between(&before, segments, said.at.tx);
    segments.clone_from(&change.segments);
    change
}

#[test]
fn a_put_within_a_segment_cuts_it_and_leaves_both_sides_as_they_were() {
    let mut segments = Vec::new();
    step(&mut segments, &said(1, Op::Put, 0, 99, &row(1, None)));
    let change = step(&mut segments, &said(2, Op::Put, 10, 20, &row(2, None)));
    assert_eq!(shown(&segments), [(0, 10, 1), (10, 20, 2), (20, 99, 1)]);
    assert_eq!(shown(&change.replaced), [(10, 20, 1)]);
    assert_eq!(change.changed, [period(10, 20)]);
}

#[test]
fn a_put_that_repeats_the_values_over_part_of_its_period_changes_only_the_rest() {
    let mut segments = Vec::new();
    step(&mut segments, &said(1, Op::Put, 0, 10, &row(1, None)));
    let change = step(&mut segments, &said(2, Op::Put, 5, 20, &row(1, None)));
    assert_eq!(shown(&segments), [(0, 10, 1), (10, 20, 2)]);
    assert!(change.replaced.is_empty());
    assert_eq!(change.changed, [period(10, 20)]);
    let nothing = step(&mut segments, &said(3, Op::Put, 0, 20, &row(1, None)));
    assert!(nothing.changed.is_empty());
    assert_eq!(shown(&segments), [(0, 10, 1), (10, 20, 2)]);
}

#[test]
fn a_delete_over_several_segments_leaves_a_gap() {
    let mut segments = Vec::new();
    step(&mut segments, &said(1, Op::Put, 0, 10, &row(1, None)));
    step(&mut segments, &said(2, Op::Put, 10, 99, &row(2, None)));
    let change = step(&mut segments, &said(3, Op::Delete, 5, 15, &Row::default()));
    assert_eq!(shown(&segments), [(0, 5, 1), (15, 99, 2)]);
    assert_eq!(shown(&change.replaced), [(5, 10, 1), (10, 15, 2)]);
    assert_eq!(change.changed, [period(5, 15)]);
}

#[test]
fn a_patch_makes_a_row_where_there_is_none() {
    let patch = Op::Patch { set_nulls: false };
    let mut segments = Vec::new();
    step(&mut segments, &said(1, Op::Put, 5, 10, &row(1, None)));
    step(&mut segments, &said(2, patch, 0, 15, &Row::new([(ColumnId(1), Value::Int(7))])));
    assert_eq!(shown(&segments), [(0, 5, 2), (5, 10, 2), (10, 15, 2)]);
    assert_eq!(segments[1].document, Document::of_put(&row(1, Some(7))));
}

#[test]
fn later_effective_wins_whatever_the_order_of_arrival() {
    let patch = Op::Patch { set_nulls: false };
    let mut all = vec![
        said(3, Op::Put, 0, 99, &row(1, None)),
        said(1, Op::Put, 20, 99, &row(2, None)),
        said(2, patch, 10, 99, &Row::new([(ColumnId(1), Value::Int(7))])),
    ];
    let segments = effective::fold(&mut all, period(0, 99), TxId::new(4)).unwrap();
    assert_eq!(shown(&segments), [(0, 10, 4), (10, 20, 4), (20, 99, 4)]);
    assert_eq!(segments[1].document, Document::of_put(&row(1, Some(7))));
    assert_eq!(segments[2].document, Document::of_put(&row(2, None)));
    let part = effective::fold(&mut all, period(12, 30), TxId::new(4)).unwrap();
    assert_eq!(shown(&part), [(12, 20, 4), (20, 30, 4)]);
}

#[test]
fn a_window_ends_at_the_first_later_put_that_covers_the_rest() {
    let late = said(9, Op::Put, 0, 50, &row(1, None));
    let end = |later: &Said| effective::end_by(later, &late.at, &late.valid);
    assert_eq!(end(&said(1, Op::Put, 10, 50, &row(2, None))), Some(at(10)));
    assert_eq!(end(&said(1, Op::Delete, 10, 99, &row(2, None))), Some(at(10)));
    assert_eq!(end(&said(1, Op::Put, 10, 49, &row(2, None))), None);
    assert_eq!(end(&said(1, Op::Patch { set_nulls: true }, 10, 50, &row(2, None))), None);
    assert_eq!(end(&said(1, Op::Put, 0, 50, &row(2, None))), None, "earlier in the order");
    assert_eq!(end(&said(1, Op::Put, 50, 99, &row(2, None))), None, "starts after it");
}

#[test]
fn a_period_is_cut_at_the_bounds_within_it() {
    let bounds = vec![at(30), at(5), at(10), at(10), at(0), at(50)];
    assert_eq!(
        effective::cut(period(5, 40), bounds),
        [period(5, 10), period(10, 30), period(30, 40)]
    );
}

/// The definition itself, per instant, against the incremental form over random histories.
#[test]
fn segments_equal_the_fold_per_instant() {
    let mut state = 7_u64;
    let mut below = |n: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    for history in 0..2_000 {
        let mut segments = Vec::new();
        let mut all = Vec::new();
        for tx in 1..=1 + below(12) {
            let (a, b) = (below(16).cast_signed(), below(16).cast_signed());
            let (from, to) = if a == b { (a, 99) } else { (a.min(b), a.max(b)) };
            let op = match below(4) {
                0 => Op::Delete,
                1 => Op::Patch { set_nulls: below(2) == 0 },
                _ => Op::Put,
            };
            let fields = Row::new((0..3).filter_map(|id| match below(3) {
                0 => None,
                1 => Some((ColumnId(id), Value::Null)),
                _ => Some((ColumnId(id), Value::Int(below(2).cast_signed()))),
            }));
            let next = said(tx, op, from, to, &fields);
            step(&mut segments, &next);
            all.push(next);
        }
        for instant in 0..20 {
            let expected = naive(&all, at(instant));
            let found = segments.iter().find(|s| s.valid.contains(at(instant)));
            assert_eq!(found.map(|s| &s.document), expected.as_ref(), "history {history}");
        }
        let mut by_effect = all.clone();
        let whole = Period::new(at(-1), ValidTime::END).unwrap();
        let folded = effective::fold(&mut by_effect, whole, TxId::new(99)).unwrap();
        for instant in 0..20 {
            let expected = naive(&by_effect, at(instant));
            let found = folded.iter().find(|s| s.valid.contains(at(instant)));
            assert_eq!(found.map(|s| &s.document), expected.as_ref(), "history {history}");
        }
        assert!(segments.windows(2).all(|pair| pair[0].valid.to() <= pair[1].valid.from()));
    }
}

fn naive(in_order: &[Said], instant: ValidTime) -> Option<Document> {
    let mut state: Option<Row> = None;
    for said in in_order.iter().filter(|said| said.valid.contains(instant)) {
        let fields = said.fields.view().unwrap().row(None).unwrap();
        state = match said.op {
            Op::Put => Some(fields),
            Op::Delete => None,
            Op::Patch { set_nulls } => {
                let mut row = state.unwrap_or_default();
                for (id, value) in fields.fields() {
                    match value {
                        Value::Null if set_nulls => row.unset(*id),
                        Value::Null => {}
                        value => row.set(*id, value.clone()),
                    }
                }
                Some(row)
            }
        };
    }
    state.map(|row| Document::of_put(&row))
}
