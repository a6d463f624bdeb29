//! The settled rules about versions, each by name, read from the store itself.

use everwhen_storage::{
    AssertedFrom, Assertion, Batch, Clock, Event, EventId, Keys, Op, Period, Precedence, Row,
    RowKey, Scan, SystemBound, TableDef, Tenant, Tx, TxId, TxOutcome, ValidBound, ValidTime, Value,
    Write, WriteKind,
};
use everwhen_tests::model::history::{NUMBER, TEXT};

use super::{Bench, START};

const END: i64 = i64::MAX;

/// A version as these tests write it: valid from and to in steps, tx from and to, row.
type Line = (i64, i64, u64, Option<u64>, String);

struct World {
    bench: Bench,
    table: TableDef,
    tenant: Tenant,
    base: TxId,
}

fn at(step: i64) -> ValidTime {
    match step {
        END => ValidTime::END,
        step => ValidTime::from_micros(START + step * 1_000_000),
    }
}

fn step(at: ValidTime) -> i64 {
    if at == ValidTime::END { END } else { (at.micros() - START) / 1_000_000 }
}

fn text(value: &str) -> Row {
    Row::new([(TEXT, Value::Text(value.to_owned()))])
}

fn number(value: i64) -> Row {
    Row::new([(NUMBER, Value::Int(value))])
}

fn said(op: Op, from: i64, to: i64, fields: Row) -> Assertion {
    Assertion { op, from: AssertedFrom::At(at(from)), to: at(to), order: 0, fields, exact: false }
}

fn put(from: i64, to: i64, value: &str) -> Assertion {
    said(Op::Put, from, to, text(value))
}

fn patch(from: i64, to: i64, fields: Row) -> Assertion {
    said(Op::Patch { set_nulls: false }, from, to, fields)
}

fn delete(from: i64, to: i64) -> Assertion {
    said(Op::Delete, from, to, Row::default())
}

fn exactly(assertion: Assertion) -> Assertion {
    Assertion { exact: true, ..assertion }
}

fn shown(row: &Row) -> String {
    let value = |(_, value): &(_, Value)| match value {
        Value::Int(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        other => format!("{other:?}"),
    };
    row.fields().iter().map(value).collect::<Vec<_>>().join(" ")
}

impl World {
    fn new(precedence: Precedence) -> Self {
        let bench = Bench::new();
        let table = bench.tables.iter().find(|t| t.precedence == precedence).unwrap().clone();
        let base = bench.store().latest().tx;
        Self { bench, table, tenant: Tenant::default(), base }
    }

    fn recorded() -> Self {
        Self::new(Precedence::Recorded)
    }

    fn effective() -> Self {
        Self::new(Precedence::Effective)
    }

    fn key(&self, name: &str) -> RowKey {
        let mut parts = vec![Value::Text(name.to_owned())];
        if self.table.key.len() > 1 {
            parts.push(Value::Int(1));
        }
        RowKey::encode(&parts).unwrap()
    }

    /// Commits one transaction; its writes are about key `k`.
    fn tx(&self, assertions: impl IntoIterator<Item = Assertion>) -> TxOutcome {
        let kind = |assertion| WriteKind::Assert { key: self.key("k"), assertion, event: None };
        self.write(assertions.into_iter().map(kind).collect())
    }

    fn event(&self, id: &str, content: u128, key: &str, assertion: Assertion) -> TxOutcome {
        let event = Some(Event { id: EventId(id.to_owned()), content_hash: content });
        self.write(vec![WriteKind::Assert { key: self.key(key), assertion, event }])
    }

    fn retract(&self, id: &str) -> TxOutcome {
        self.write(vec![WriteKind::Retract { event_id: EventId(id.to_owned()) }])
    }

    fn write(&self, kinds: Vec<WriteKind>) -> TxOutcome {
        let write = |kind| Write { tenant: self.tenant.clone(), table: self.table.id, kind };
        let tx = Tx { writes: kinds.into_iter().map(write).collect(), position: None };
        let batch = Batch { txs: vec![tx], ..Batch::default() };
        self.bench.store().submit(batch).unwrap().blocking_recv().unwrap().unwrap().outcomes[0]
    }

    /// Every version of a key at a transaction counted from the world's beginning.
    fn believed(&self, key: &str, tx: u64) -> Vec<Line> {
        self.read(key, tx, SystemBound::Latest, ValidBound::ALL)
    }

    fn now(&self) -> Vec<Line> {
        self.believed("k", self.latest())
    }

    fn latest(&self) -> u64 {
        self.bench.store().latest().tx.get() - self.base.get()
    }

    fn read(&self, key: &str, tx: u64, system: SystemBound, valid: ValidBound) -> Vec<Line> {
        let keys = Keys::Among(vec![self.key(key)]);
        let tenant = Some(&self.tenant);
        let scan =
            Scan { table: &self.table, tenant, keys, valid, system, columns: None, whole: true };
        let versions = self.bench.store().read(self.base.plus(tx), |view| view.collect(&scan));
        let line = |v: everwhen_storage::Version| {
            let own = |tx: TxId| tx.get() - self.base.get();
            let (from, to) = (step(v.valid.from()), step(v.valid.to()));
            (from, to, own(v.tx_from), v.tx_to.map(own), shown(&v.row))
        };
        versions.unwrap().into_iter().map(line).collect()
    }

    fn between(&self, from: u64, to: u64) -> Vec<Line> {
        let window = SystemBound::Between(self.base.plus(from), self.base.plus(to));
        self.read("k", self.latest(), window, ValidBound::ALL)
    }

    fn changed(&self, after: u64, through: u64) -> Vec<(i64, i64)> {
        let (after, through) = (self.base.plus(after), self.base.plus(through));
        let changes = self
            .bench
            .store()
            .read(through, |view| view.changes(self.table.id, after, through, usize::MAX));
        let changes = changes.unwrap().0.into_iter().flat_map(|change| change.changed);
        changes.map(|period| (step(period.from()), step(period.to()))).collect()
    }
}

fn line(from: i64, to: i64, tx: u64, row: &str) -> Line {
    (from, to, tx, None, row.to_owned())
}

#[test]
fn what_an_operation_leaves_untouched_keeps_its_system_from() {
    for world in [World::recorded(), World::effective()] {
        world.tx([put(0, END, "a")]);
        world.tx([exactly(said(Op::Patch { set_nulls: false }, 4, 6, text("b")))]);
        let expected = [line(0, 4, 1, "a"), line(4, 6, 2, "b"), line(6, END, 1, "a")];
        assert_eq!(world.now(), expected);
        assert_eq!(world.changed(1, 2), [(4, 6)]);
    }
}

#[test]
fn a_past_system_time_shows_the_valid_bounds_believed_then() {
    let world = World::recorded();
    world.tx([put(0, END, "a")]);
    world.tx([put(4, 6, "b")]);
    world.tx([put(8, END, "c")]);
    assert_eq!(world.believed("k", 1), [line(0, END, 1, "a")]);
    let expected = [line(0, 4, 1, "a"), line(4, 6, 2, "b"), line(6, END, 1, "a")];
    assert_eq!(world.believed("k", 2), expected);
    let at_five = ValidBound::AsOf(at(5));
    assert_eq!(world.read("k", 1, SystemBound::Latest, at_five), [line(0, END, 1, "a")]);
    let point = world.bench.store().read(world.base.plus(1), |view| {
        view.point(&world.table, &world.tenant, &world.key("k"), at(7))
    });
    assert_eq!(point.unwrap().unwrap().valid, Period::new(at(0), ValidTime::END).unwrap());
}

#[test]
fn equal_rows_of_different_transactions_are_not_merged() {
    let world = World::recorded();
    world.tx([put(0, 4, "a")]);
    world.tx([put(4, 8, "a")]);
    assert_eq!(world.now(), [line(0, 4, 1, "a"), line(4, 8, 2, "a")]);
}

#[test]
fn a_write_that_repeats_part_of_the_values_changes_only_the_rest() {
    let world = World::recorded();
    world.tx([put(0, 4, "a")]);
    world.tx([put(2, 6, "a")]);
    assert_eq!(world.now(), [line(0, 4, 1, "a"), line(4, 6, 2, "a")]);
    assert_eq!(world.changed(1, 2), [(4, 6)]);
}

#[test]
fn a_write_that_changes_nothing_spends_a_transaction_and_no_version() {
    for world in [World::recorded(), World::effective()] {
        world.tx([put(0, 4, "a")]);
        assert_eq!(world.tx([put(0, 4, "a")]), TxOutcome::Applied(world.base.plus(2)));
        assert_eq!(world.now(), [line(0, 4, 1, "a")]);
        assert!(world.changed(1, 2).is_empty());
        assert_eq!(world.between(0, 2), [line(0, 4, 1, "a")]);
    }
}

#[test]
fn a_system_window_sees_nothing_recorded_after_its_end() {
    let world = World::recorded();
    world.tx([put(0, END, "a")]);
    world.tx([put(4, END, "b")]);
    world.tx([put(6, END, "c")]);
    let first = (4, END, 1, Some(2), "a".to_owned());
    assert_eq!(world.between(1, 1), [line(0, END, 1, "a")]);
    assert_eq!(world.between(1, 2), [line(0, 4, 1, "a"), first.clone(), line(4, END, 2, "b")]);
    assert_eq!(world.between(2, 2), [line(0, 4, 1, "a"), line(4, END, 2, "b")]);
    let superseded = (6, END, 2, Some(3), "b".to_owned());
    let all = [line(0, 4, 1, "a"), first, line(4, 6, 2, "b"), superseded, line(6, END, 3, "c")];
    assert_eq!(world.between(0, 3), all);
}

#[test]
fn a_late_open_put_overwrites_what_follows_only_where_recorded_order_counts() {
    let recorded = World::recorded();
    let effective = World::effective();
    for world in [&recorded, &effective] {
        world.tx([put(5, END, "later")]);
        world.tx([put(2, END, "late")]);
    }
    assert_eq!(recorded.now(), [line(2, END, 2, "late")]);
    assert_eq!(effective.now(), [line(2, 5, 2, "late"), line(5, END, 1, "later")]);
}

#[test]
fn a_late_patch_ripples_through_states_that_did_not_set_the_field() {
    let world = World::effective();
    world.tx([put(0, END, "room a")]);
    world.tx([patch(4, END, text("room b"))]);
    world.tx([said(Op::Put, 8, END, number(9))]);
    world.tx([patch(2, END, number(7))]);
    let expected = [
        line(0, 2, 1, "room a"),
        line(2, 4, 4, "7 room a"),
        line(4, 8, 4, "7 room b"),
        line(8, END, 3, "9"),
    ];
    assert_eq!(world.now(), expected);
}

#[test]
fn a_patch_over_nothing_makes_a_row_of_its_own_fields() {
    for world in [World::recorded(), World::effective()] {
        world.tx([patch(2, 4, number(1))]);
        world.tx([delete(2, 3)]);
        world.tx([patch(0, 3, Row::new([(TEXT, Value::Text("x".into())), (NUMBER, Value::Null)]))]);
        let late = world.table.precedence == Precedence::Effective;
        // By effect the delete at 2 comes after the patch that begins at 0, recorded later or not.
        let expected = if late {
            vec![line(0, 2, 3, "x"), line(3, 4, 1, "1")]
        } else {
            vec![line(0, 3, 3, "x"), line(3, 4, 1, "1")]
        };
        assert_eq!(world.now(), expected);
    }
}

#[test]
fn a_null_in_a_patch_counts_only_with_set_nulls() {
    for world in [World::recorded(), World::effective()] {
        let nulls = || Row::new([(TEXT, Value::Null), (NUMBER, Value::Int(2))]);
        world.tx([put(0, END, "a")]);
        world.tx([patch(2, END, nulls())]);
        world.tx([said(Op::Patch { set_nulls: true }, 4, END, nulls())]);
        let expected = [line(0, 2, 1, "a"), line(2, 4, 2, "2 a"), line(4, END, 3, "2")];
        assert_eq!(world.now(), expected);
    }
}

#[test]
fn the_same_instant_goes_by_order_then_by_transaction_then_by_place() {
    let world = World::effective();
    world.tx([Assertion { order: 2, ..put(0, END, "two") }]);
    world.tx([Assertion { order: 1, ..put(0, END, "one") }]);
    assert_eq!(world.now(), [line(0, END, 1, "two")]);
    world.tx([Assertion { order: 2, ..put(0, END, "two again") }]);
    assert_eq!(world.now(), [line(0, END, 3, "two again")]);
    let twice = [("x", 3), ("y", 3)].map(|(s, order)| Assertion { order, ..put(0, END, s) });
    world.tx(twice);
    assert_eq!(world.now(), [line(0, END, 4, "y")]);
}

#[test]
fn several_operations_of_one_transaction_fold_in_statement_order() {
    let world = World::recorded();
    world.tx([put(0, 9, "a"), put(3, 6, "b"), delete(4, 5), put(0, 3, "a")]);
    let expected = [line(0, 3, 1, "a"), line(3, 4, 1, "b"), line(5, 6, 1, "b"), line(6, 9, 1, "a")];
    assert_eq!(world.now(), expected);
    world.tx([put(0, 9, "z"), delete(0, 9)]);
    assert!(world.now().is_empty());
    world.tx([put(0, 9, "z"), delete(0, 9)]);
    assert!(world.changed(2, 3).is_empty());
}

#[test]
fn neighbours_that_one_transaction_makes_equal_are_one_version() {
    for world in [World::recorded(), World::effective()] {
        world.tx([put(0, 4, "a"), put(4, 8, "a")]);
        assert_eq!(world.now(), [line(0, 8, 1, "a")]);
    }
}

#[test]
fn an_exact_update_holds_over_its_whole_window_at_once() {
    let world = World::effective();
    world.tx([put(0, END, "a")]);
    world.tx([put(4, END, "b")]);
    world.tx([exactly(patch(2, 6, text("u")))]);
    let expected = [line(0, 2, 1, "a"), line(2, 6, 3, "u"), line(6, END, 2, "b")];
    assert_eq!(world.now(), expected);
    world.tx([exactly(delete(1, END))]);
    assert_eq!(world.now(), [line(0, 1, 1, "a")]);
}

#[test]
fn an_exact_update_beats_a_tied_assertion_of_a_higher_order() {
    let world = World::effective();
    world.tx([Assertion { order: 7, ..put(2, END, "seven") }]);
    world.tx([exactly(patch(0, END, text("u")))]);
    assert_eq!(world.now(), [line(0, END, 2, "u")]);
    world.tx([Assertion { order: 8, ..put(2, END, "eight") }]);
    assert_eq!(world.now(), [line(0, 2, 2, "u"), line(2, END, 3, "eight")]);
}

#[test]
fn late_events_after_an_exact_delete_follow_the_ordinary_precedence() {
    let world = World::effective();
    world.tx([put(0, END, "a")]);
    world.tx([exactly(delete(4, END))]);
    world.tx([put(2, END, "late")]);
    world.tx([put(6, END, "after")]);
    let expected = [line(0, 2, 1, "a"), line(2, 4, 3, "late"), line(6, END, 4, "after")];
    assert_eq!(world.now(), expected);
}

#[test]
fn an_equal_event_is_a_duplicate_and_spends_no_transaction() {
    let world = World::effective();
    world.event("e", 1, "k", put(0, END, "a"));
    assert_eq!(world.event("e", 1, "k", put(0, END, "a")), TxOutcome::Duplicate);
    assert_eq!(world.latest(), 1);
}

#[test]
fn a_correction_takes_back_what_the_id_said_also_under_another_key() {
    let world = World::effective();
    world.tx([put(0, END, "before")]);
    world.event("e", 1, "k", put(2, END, "wrong"));
    world.event("e", 2, "other", put(3, END, "right"));
    assert_eq!(world.now(), [line(0, 2, 1, "before"), line(2, END, 3, "before")]);
    assert_eq!(world.believed("other", 3), [line(3, END, 3, "right")]);
    assert_eq!(world.believed("k", 2), [line(0, 2, 1, "before"), line(2, END, 2, "wrong")]);
    // Back to an earlier content is a correction too, and takes its place by its own tx.
    assert_eq!(
        world.event("e", 1, "k", put(2, END, "wrong")),
        TxOutcome::Applied(world.base.plus(4))
    );
    assert_eq!(world.now(), [line(0, 2, 1, "before"), line(2, END, 4, "wrong")]);
    assert!(world.believed("other", 4).is_empty());
}

#[test]
fn an_event_of_a_lower_order_than_its_id_has_is_stale() {
    let world = World::effective();
    world.event("e", 2, "k", Assertion { order: 5, ..put(0, END, "five") });
    let stale = world.event("e", 1, "k", Assertion { order: 4, ..put(0, END, "four") });
    assert_eq!(stale, TxOutcome::Stale);
    assert_eq!(world.now(), [line(0, END, 1, "five")]);
}

#[test]
fn a_retracted_event_is_gone_and_its_id_may_come_again() {
    let world = World::effective();
    world.event("e", 1, "k", put(0, END, "a"));
    world.retract("e");
    assert!(world.now().is_empty());
    assert_eq!(world.changed(1, 2), [(0, END)]);
    world.event("e", 1, "k", put(0, END, "a"));
    assert_eq!(world.now(), [line(0, END, 3, "a")]);
    let all = [(0, END, 1, Some(2), "a".to_owned()), line(0, END, 3, "a")];
    assert_eq!(world.between(0, 3), all);
}

#[test]
fn a_batch_with_an_empty_period_is_refused_and_changes_nothing() {
    let world = World::recorded();
    let key = world.key("k");
    for assertion in [put(4, 4, "a"), put(5, 4, "a")] {
        let kind = WriteKind::Assert { key: key.clone(), assertion, event: None };
        let write = Write { tenant: world.tenant.clone(), table: world.table.id, kind };
        let tx = Tx { writes: vec![write], position: None };
        let batch = Batch { txs: vec![tx], ..Batch::default() };
        let answer = world.bench.store().submit(batch).unwrap().blocking_recv().unwrap();
        assert!(answer.is_err());
    }
    assert_eq!(world.latest(), 0);
}

#[test]
fn a_period_without_a_start_reads_back_without_one() {
    let world = World::recorded();
    let open = Assertion { from: AssertedFrom::At(ValidTime::BEGIN), ..put(0, 5, "a") };
    world.tx([open]);
    world.tx([put(2, 3, "b")]);
    let first = world.bench.store().read(world.bench.store().latest().tx, |view| {
        view.point(&world.table, &world.tenant, &world.key("k"), ValidTime::BEGIN)
    });
    let expected = Period::new(ValidTime::BEGIN, at(2)).unwrap();
    assert_eq!(first.unwrap().unwrap().valid, expected);
}

#[test]
fn only_bounds_after_the_recording_instant_are_boundaries_to_wait_for() {
    let world = World::recorded();
    world.bench.clock.set(at(10).micros()).unwrap();
    world.tx([put(2, 20, "booked")]);
    let tx = world.bench.store().latest().tx;
    let read = |after, through| {
        let view = world.bench.store().read(tx, |view| {
            let all = view.boundaries(world.table.id, after, through, 10)?;
            Ok((all, view.next_boundary(world.table.id, after)?))
        });
        view.unwrap()
    };
    let (all, next) = read(at(10), at(30));
    assert_eq!(all, [(at(20), world.tenant.clone(), world.key("k"))]);
    assert_eq!(next, Some(at(20)));
    let (all, next) = read(at(20), at(30));
    assert_eq!((all, next), (vec![], None));
}

#[test]
fn a_view_does_not_see_what_is_committed_after_it_was_opened() {
    let world = World::effective();
    world.tx([put(0, END, "a")]);
    let tx = world.base.plus(1);
    let row = world.bench.store().read(tx, |view| {
        world.tx([put(0, END, "b")]);
        world.tx([exactly(delete(0, END))]);
        view.point(&world.table, &world.tenant, &world.key("k"), at(5))
    });
    assert_eq!(row.unwrap().map(|version| shown(&version.row)), Some("a".to_owned()));
    assert!(world.now().is_empty());
}
