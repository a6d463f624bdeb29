//! What every sink must do, as one suite that all sinks run: against the real thing or its emulator.
//!
//! Each case uses a table of its own. A case asserts, and returns the sink's error if a call fails that
//! should not.

use async_trait::async_trait;
use everwhen_proto::v1::{Chunk, Lease, RowChange, SinkColumn};
use serde_json::{Value as Json, json};

use super::error::{Error, Result};
use super::kind::{Cell, Kind};
use super::sink::Sink;
use super::step::Step;
use super::target::Target;

/// Runs all cases on `sink`, in tables whose names begin with `prefix`.
///
/// # Errors
/// The first error of the sink where none should be.
pub async fn check(sink: &dyn Sink, prefix: &str) -> Result<()> {
    let case = |name: &str| Case::new(prefix, name);
    empty_result_makes_the_table(sink, case("empty")).await?;
    rows_are_upserted_and_deleted(sink, case("upsert")).await?;
    the_last_change_of_a_key_in_a_chunk_wins(sink, case("last")).await?;
    redelivery_changes_nothing(sink, case("redelivery")).await?;
    a_gap_is_refused(sink, case("gap")).await?;
    an_older_lease_is_fenced(sink, case("lease")).await?;
    an_older_generation_is_fenced(sink, case("generation")).await?;
    a_reload_removes_what_it_does_not_write(sink, case("reload")).await?;
    a_reload_removes_what_it_does_not_write(sink, case("reload_bare").bare()).await?;
    a_late_end_of_a_reload_removes_nothing(sink, case("late_end").bare()).await?;
    a_generation_may_have_more_columns(sink, case("columns")).await?;
    a_column_that_is_gone_is_refused_and_nothing_is_lost(sink, case("gone")).await?;
    the_table_of_another_projection_is_refused(sink, case("taken")).await?;
    refused_rows_are_passed_over(sink, case("refused")).await?;
    refused_rows_are_passed_over(sink, case("refused_bare").bare()).await?;
    another_database_takes_the_table_over(sink, case("foreign")).await?;
    a_sink_that_lost_rows_says_so(sink, case("lost")).await?;
    all_column_types_come_back(sink, case("types")).await?;
    keys_may_be_of_several_columns_and_null(sink, case("keys")).await?;
    a_large_chunk_is_written(sink, case("large")).await
}

/// Somebody else who uses the sink's tables, past the sink.
#[async_trait]
pub trait Outsider: Send + Sync {
    /// Makes the target's table as somebody else would, before the sink does.
    ///
    /// # Errors
    /// Those of the sink.
    async fn make_table(&self, target: &Target) -> Result<()>;

    /// Inserts a row of the target's columns that the projection has not written.
    ///
    /// # Errors
    /// Those of the sink.
    async fn insert(&self, target: &Target, row: Vec<Cell>) -> Result<()>;
}

/// Runs the cases about tables and rows of somebody else.
///
/// # Errors
/// The first error of the sink where none should be.
pub async fn check_beside_others(
    sink: &dyn Sink,
    outsider: &dyn Outsider,
    prefix: &str,
) -> Result<()> {
    let case = |name: &str| Case::new(prefix, name);
    for bare in [false, true] {
        let case = |name: &str| match bare {
            true => case(&format!("{name}_bare")).bare(),
            false => case(name),
        };
        rows_of_others_stay(sink, outsider, case("rows")).await?;
        rows_in_a_table_that_was_there_stay(sink, outsider, case("table")).await?;
    }
    a_table_of_somebody_else_is_never_altered(sink, outsider, case("altered")).await
}

/// A projection and its table, under leases made by the case.
struct Case {
    lease: Lease,
}

impl Case {
    fn new(prefix: &str, name: &str) -> Self {
        let lease = Lease {
            projection: format!("{prefix}_{name}"),
            lease: 10,
            generation: 1,
            sink: "warehouse".into(),
            table: format!("{prefix}_{name}"),
            key: vec!["id".into()],
            metadata: true,
            incarnation: "first".into(),
            lease_ms: 10_000,
            ..Lease::default()
        };
        Self { lease }.with(&[("id", "text"), ("n", "int64")])
    }

    fn with(mut self, columns: &[(&str, &str)]) -> Self {
        self.lease.columns = columns
            .iter()
            .map(|(name, kind)| SinkColumn {
                name: (*name).into(),
                r#type: (*kind).into(),
                nullable: true,
            })
            .collect();
        self
    }

    fn bare(mut self) -> Self {
        self.lease.metadata = false;
        self
    }

    fn target(&self) -> Result<Target> {
        Target::from_lease(&self.lease)
    }

    fn under(&self, lease: u64) -> Result<Target> {
        Target::from_lease(&Lease { lease, ..self.lease.clone() })
    }
}

/// Builds chunks.
struct Changes(Chunk);

impl Changes {
    fn from(first_change: u64) -> Self {
        Self(Chunk {
            generation: 1,
            tx: first_change,
            first_change,
            last: true,
            ..Chunk::default()
        })
    }

    fn of(mut self, generation: u64) -> Self {
        self.0.generation = generation;
        self
    }

    fn put(mut self, row: &Json) -> Self {
        self.0.changes.push(RowChange { row_json: row.to_string(), delete: false });
        self
    }

    fn delete(mut self, key: &Json) -> Self {
        self.0.changes.push(RowChange { row_json: key.to_string(), delete: true });
        self
    }

    fn begins(mut self) -> Self {
        self.0.reload_begin = true;
        self
    }

    fn ends(mut self) -> Self {
        self.0.reload_end = true;
        self
    }

    async fn write(self, sink: &dyn Sink, target: &Target) -> Result<()> {
        sink.write(target, &Step::from_chunk(target, self.0)?).await
    }
}

fn row(id: &str, n: i64) -> Json {
    json!({"id": id, "n": n})
}

/// The rows, sorted, in forms that are equal for equal values.
async fn rows(sink: &dyn Sink, target: &Target) -> Result<Vec<Vec<Json>>> {
    let mut rows = sink.rows(target).await?;
    for row in &mut rows {
        for (column, cell) in target.columns.iter().zip(row.iter_mut()) {
            *cell = plain(column.kind, cell.take());
        }
    }
    rows.sort_by_key(|row| Json::Array(row.clone()).to_string());
    Ok(rows)
}

/// Sinks may drop or add zeros at the end of a fraction.
fn plain(kind: Kind, cell: Json) -> Json {
    match (kind, cell) {
        (Kind::Decimal { .. } | Kind::Time, Json::String(text)) if text.contains('.') => {
            Json::from(text.trim_end_matches('0').trim_end_matches('.'))
        }
        (_, cell) => cell,
    }
}

async fn empty_result_makes_the_table(sink: &dyn Sink, case: Case) -> Result<()> {
    let target = case.target()?;
    let control = sink.prepare(&target).await?;
    assert_eq!((control.generation, control.change), (0, 0), "a new control row is at the start");
    assert!(rows(sink, &target).await?.is_empty(), "the table is there and empty");
    Changes::from(1).begins().ends().write(sink, &target).await?;
    assert!(rows(sink, &target).await?.is_empty(), "an empty step writes nothing");
    Changes::from(1).put(&row("a", 1)).write(sink, &target).await?;
    assert_eq!(rows(sink, &target).await?, [[json!("a"), json!(1)]]);
    Ok(())
}

async fn rows_are_upserted_and_deleted(sink: &dyn Sink, case: Case) -> Result<()> {
    let target = case.target()?;
    sink.prepare(&target).await?;
    Changes::from(1).put(&row("a", 1)).put(&row("b", 2)).write(sink, &target).await?;
    Changes::from(3).put(&row("a", 3)).delete(&json!({"id": "b"})).write(sink, &target).await?;
    Changes::from(5).delete(&json!({"id": "never there"})).write(sink, &target).await?;
    assert_eq!(rows(sink, &target).await?, [[json!("a"), json!(3)]]);
    let control = sink.prepare(&target).await?;
    assert_eq!((control.generation, control.change), (1, 5), "the control row moves along");
    Ok(())
}

async fn the_last_change_of_a_key_in_a_chunk_wins(sink: &dyn Sink, case: Case) -> Result<()> {
    let target = case.target()?;
    sink.prepare(&target).await?;
    let gone = json!({"id": "a"});
    let changes = Changes::from(1).put(&row("a", 1)).delete(&gone).put(&row("a", 2));
    changes.put(&row("b", 1)).delete(&json!({"id": "b"})).write(sink, &target).await?;
    assert_eq!(rows(sink, &target).await?, [[json!("a"), json!(2)]]);
    Ok(())
}

async fn redelivery_changes_nothing(sink: &dyn Sink, case: Case) -> Result<()> {
    let target = case.target()?;
    sink.prepare(&target).await?;
    let first = || Changes::from(1).put(&row("a", 1)).put(&row("b", 1));
    let second = || Changes::from(3).put(&row("a", 2)).delete(&json!({"id": "b"}));
    first().write(sink, &target).await?;
    first().write(sink, &target).await?;
    second().write(sink, &target).await?;
    first().write(sink, &target).await?;
    second().write(sink, &target).await?;
    assert_eq!(rows(sink, &target).await?, [[json!("a"), json!(2)]]);
    // A chunk of which the sink has the beginning: the rest is written.
    second().put(&row("c", 5)).write(sink, &target).await?;
    assert_eq!(
        rows(sink, &target).await?,
        [[json!("a"), json!(2)], [json!("c"), json!(5)]],
        "only the new change is written"
    );
    Ok(())
}

async fn a_gap_is_refused(sink: &dyn Sink, case: Case) -> Result<()> {
    let target = case.target()?;
    sink.prepare(&target).await?;
    Changes::from(1).put(&row("a", 1)).write(sink, &target).await?;
    let early = Changes::from(3).put(&row("a", 3)).write(sink, &target).await;
    assert!(matches!(early, Err(Error::OutOfOrder { at: 1, first: 3, .. })), "{early:?}");
    Changes::from(2).put(&row("a", 2)).write(sink, &target).await?;
    Changes::from(3).put(&row("a", 3)).write(sink, &target).await?;
    assert_eq!(rows(sink, &target).await?, [[json!("a"), json!(3)]]);
    Ok(())
}

async fn an_older_lease_is_fenced(sink: &dyn Sink, case: Case) -> Result<()> {
    let old = case.under(10)?;
    let new = case.under(11)?;
    sink.prepare(&old).await?;
    Changes::from(1).put(&row("a", 1)).write(sink, &old).await?;
    let control = sink.prepare(&new).await?;
    assert_eq!(control.change, 1, "the new lease goes on where the old one was");
    let late = Changes::from(2).put(&row("a", 99)).write(sink, &old).await;
    assert!(matches!(late, Err(Error::Fenced { .. })), "{late:?}");
    let back = sink.prepare(&old).await;
    assert!(matches!(back, Err(Error::Fenced { .. })), "{back:?}");
    Changes::from(2).put(&row("b", 2)).write(sink, &new).await?;
    let late = Changes::from(3).delete(&json!({"id": "b"})).write(sink, &old).await;
    assert!(matches!(late, Err(Error::Fenced { .. })), "{late:?}");
    assert_eq!(rows(sink, &new).await?, [[json!("a"), json!(1)], [json!("b"), json!(2)]]);
    Ok(())
}

async fn an_older_generation_is_fenced(sink: &dyn Sink, case: Case) -> Result<()> {
    let target = case.target()?;
    sink.prepare(&target).await?;
    Changes::from(1).put(&row("a", 1)).write(sink, &target).await?;
    let early = Changes::from(1).of(2).put(&row("a", 98)).write(sink, &target).await;
    assert!(matches!(early, Err(Error::OutOfOrder { .. })), "without its beginning: {early:?}");
    Changes::from(1).of(2).begins().ends().put(&row("a", 2)).write(sink, &target).await?;
    let late = Changes::from(2).put(&row("a", 99)).write(sink, &target).await;
    assert!(matches!(late, Err(Error::Fenced { .. })), "{late:?}");
    assert_eq!(rows(sink, &target).await?, [[json!("a"), json!(2)]]);
    Ok(())
}

async fn a_reload_removes_what_it_does_not_write(sink: &dyn Sink, case: Case) -> Result<()> {
    let target = case.target()?;
    sink.prepare(&target).await?;
    Changes::from(1)
        .put(&row("a", 1))
        .put(&row("b", 1))
        .put(&row("c", 1))
        .write(sink, &target)
        .await?;
    Changes::from(1).of(2).begins().put(&row("b", 2)).write(sink, &target).await?;
    assert_eq!(rows(sink, &target).await?.len(), 3, "old rows stay until the end");
    Changes::from(2).of(2).put(&row("d", 2)).write(sink, &target).await?;
    Changes::from(3)
        .of(2)
        .put(&row("e", 2))
        .delete(&json!({"id": "c"}))
        .ends()
        .write(sink, &target)
        .await?;
    let expected = [[json!("b"), json!(2)], [json!("d"), json!(2)], [json!("e"), json!(2)]];
    assert_eq!(rows(sink, &target).await?, expected);
    Changes::from(5).of(2).put(&row("a", 3)).write(sink, &target).await?;
    assert_eq!(rows(sink, &target).await?.len(), 4, "later changes go on");
    Ok(())
}

async fn a_late_end_of_a_reload_removes_nothing(sink: &dyn Sink, case: Case) -> Result<()> {
    let target = case.target()?;
    sink.prepare(&target).await?;
    Changes::from(1).begins().put(&row("a", 1)).write(sink, &target).await?;
    Changes::from(2).ends().write(sink, &target).await?;
    Changes::from(2).ends().write(sink, &target).await?;
    assert_eq!(rows(sink, &target).await?, [[json!("a"), json!(1)]]);
    Changes::from(2).put(&row("b", 1)).write(sink, &target).await?;
    Changes::from(2).ends().write(sink, &target).await?;
    assert_eq!(rows(sink, &target).await?.len(), 2);
    Ok(())
}

async fn a_generation_may_have_more_columns(sink: &dyn Sink, case: Case) -> Result<()> {
    let target = case.target()?;
    sink.prepare(&target).await?;
    Changes::from(1).put(&row("a", 1)).put(&row("b", 1)).write(sink, &target).await?;
    let changed = Case { lease: Lease { generation: 2, lease: 11, ..case.lease.clone() } };
    let changed =
        changed.with(&[("id", "text"), ("label", "text"), ("n", "int64"), ("when", "date")]);
    let target = changed.target()?;
    sink.prepare(&target).await?;
    let new = json!({"id": "a", "label": "x", "n": 1, "when": "2026-11-21"});
    Changes::from(1).of(2).begins().ends().put(&new).write(sink, &target).await?;
    let expected = [[json!("a"), json!("x"), json!(1), json!("2026-11-21")]];
    assert_eq!(rows(sink, &target).await?, expected);
    Ok(())
}

async fn a_column_that_is_gone_is_refused_and_nothing_is_lost(
    sink: &dyn Sink,
    case: Case,
) -> Result<()> {
    let target = case.target()?;
    sink.prepare(&target).await?;
    Changes::from(1).put(&row("a", 1)).write(sink, &target).await?;
    let next = Case { lease: Lease { generation: 2, lease: 11, ..case.lease.clone() } };
    let other_kind = next.lease.clone();
    let narrowed = next.with(&[("id", "text")]);
    let retyped = Case { lease: other_kind }.with(&[("id", "text"), ("n", "text")]);
    for changed in [narrowed, retyped] {
        let refused = sink.prepare(&changed.target()?).await;
        let Err(error @ Error::Refused { .. }) = refused else {
            unreachable!("a table that does not fit was prepared: {refused:?}")
        };
        assert!(error.to_string().contains("\"n\""), "{error}");
    }
    assert_eq!(rows(sink, &target).await?, [[json!("a"), json!(1)]], "the table is as it was");
    Ok(())
}

async fn the_table_of_another_projection_is_refused(sink: &dyn Sink, case: Case) -> Result<()> {
    let target = case.target()?;
    sink.prepare(&target).await?;
    Changes::from(1).begins().ends().put(&row("a", 1)).write(sink, &target).await?;
    let other = Lease { projection: "other".into(), lease: 99, ..case.lease.clone() };
    let refused = sink.prepare(&Target::from_lease(&other)?).await;
    let Err(error @ Error::Refused { .. }) = refused else {
        unreachable!("the table of another projection was taken over: {refused:?}")
    };
    let owner = format!("projection \"{}\"", target.projection);
    assert!(error.to_string().contains(&owner), "{error}");
    Changes::from(2).put(&row("b", 2)).write(sink, &target).await?;
    let expected = [[json!("a"), json!(1)], [json!("b"), json!(2)]];
    assert_eq!(rows(sink, &target).await?, expected, "the owner goes on");
    Ok(())
}

async fn refused_rows_are_passed_over(sink: &dyn Sink, case: Case) -> Result<()> {
    let target = case.target()?;
    sink.prepare(&target).await?;
    Changes::from(1).begins().ends().put(&row("a", 1)).write(sink, &target).await?;
    let chunk = Changes::from(2).put(&row("a", 2)).put(&row("b", 2)).put(&row("c", 2)).0;
    let mut step = Step::from_chunk(&target, chunk)?;
    step.refused.extend([2, 4]);
    sink.write(&target, &step).await?;
    let expected = [[json!("a"), json!(1)], [json!("b"), json!(2)]];
    assert_eq!(rows(sink, &target).await?, expected, "what is refused is as it was");
    sink.write(&target, &step).await?;
    let control = sink.prepare(&target).await?;
    assert_eq!(control.change, 4, "the control row has moved past the refused rows");
    Changes::from(5).put(&row("a", 3)).delete(&json!({"id": "c"})).write(sink, &target).await?;
    assert_eq!(rows(sink, &target).await?, [[json!("a"), json!(3)], [json!("b"), json!(2)]]);
    Ok(())
}

fn foreign_row(id: &str, n: i64) -> Vec<Cell> {
    vec![Cell::Text(id.into()), Cell::Int(n)]
}

async fn rows_of_others_stay(sink: &dyn Sink, outsider: &dyn Outsider, case: Case) -> Result<()> {
    let target = case.target()?;
    sink.prepare(&target).await?;
    Changes::from(1)
        .begins()
        .ends()
        .put(&row("a", 1))
        .put(&row("b", 1))
        .write(sink, &target)
        .await?;
    outsider.insert(&target, foreign_row("theirs", 7)).await?;
    Changes::from(3)
        .delete(&json!({"id": "theirs"}))
        .put(&row("c", 1))
        .write(sink, &target)
        .await?;
    let foreign = [json!("theirs"), json!(7)];
    let [a, b, c] = ["a", "b", "c"].map(|id| [json!(id), json!(1)]);
    assert_eq!(
        rows(sink, &target).await?,
        [a.clone(), b, c, foreign.clone()],
        "a delete of a row that was never written removes nothing"
    );
    let reload = Changes::from(1).of(2).begins().put(&row("a", 1)).ends();
    reload.write(sink, &target).await?;
    assert_eq!(rows(sink, &target).await?, [a.clone(), foreign.clone()], "a reload leaves it");
    let new = Lease { incarnation: "second".into(), lease: 1, ..case.lease.clone() };
    let new = Target::from_lease(&new)?;
    sink.prepare(&new).await?;
    Changes::from(1).begins().ends().put(&row("b", 1)).write(sink, &new).await?;
    let taken_over = [[json!("b"), json!(1)], foreign.clone()];
    assert_eq!(rows(sink, &new).await?, taken_over, "so does another database");
    Changes::from(2).put(&row("theirs", 8)).write(sink, &new).await?;
    Changes::from(3).delete(&json!({"id": "theirs"})).write(sink, &new).await?;
    assert_eq!(rows(sink, &new).await?.len(), 1, "a row that is written becomes the projection's");
    Ok(())
}

async fn rows_in_a_table_that_was_there_stay(
    sink: &dyn Sink,
    outsider: &dyn Outsider,
    case: Case,
) -> Result<()> {
    let target = case.target()?;
    outsider.make_table(&target).await?;
    outsider.insert(&target, foreign_row("theirs", 7)).await?;
    outsider.insert(&target, foreign_row("a", 7)).await?;
    sink.prepare(&target).await?;
    Changes::from(1).begins().put(&row("a", 1)).put(&row("b", 1)).write(sink, &target).await?;
    Changes::from(3).delete(&json!({"id": "b"})).ends().write(sink, &target).await?;
    let expected = [[json!("a"), json!(1)], [json!("theirs"), json!(7)]];
    assert_eq!(rows(sink, &target).await?, expected);
    Changes::from(1).of(2).begins().ends().put(&row("c", 1)).write(sink, &target).await?;
    let expected = [[json!("c"), json!(1)], [json!("theirs"), json!(7)]];
    assert_eq!(rows(sink, &target).await?, expected);
    Ok(())
}

async fn a_table_of_somebody_else_is_never_altered(
    sink: &dyn Sink,
    outsider: &dyn Outsider,
    case: Case,
) -> Result<()> {
    let target = case.target()?;
    outsider.make_table(&target).await?;
    sink.prepare(&target).await?;
    Changes::from(1).begins().ends().put(&row("a", 1)).write(sink, &target).await?;
    let wider = Case { lease: Lease { generation: 2, lease: 11, ..case.lease.clone() } };
    let wider = wider.with(&[("id", "text"), ("n", "int64"), ("label", "text")]).target()?;
    let refused = sink.prepare(&wider).await;
    let Err(error @ Error::Refused { .. }) = refused else {
        unreachable!("a table of somebody else was altered: {refused:?}")
    };
    assert!(error.to_string().contains("lacks the columns label"), "{error}");
    assert_eq!(rows(sink, &target).await?, [[json!("a"), json!(1)]]);
    Ok(())
}

async fn another_database_takes_the_table_over(sink: &dyn Sink, case: Case) -> Result<()> {
    let old = case.target()?;
    sink.prepare(&old).await?;
    Changes::from(1).of(7).put(&row("a", 1)).put(&row("b", 1)).write(sink, &old).await?;
    let new = Lease { incarnation: "second".into(), lease: 1, ..case.lease.clone() };
    let new = Target::from_lease(&new)?;
    let control = sink.prepare(&new).await?;
    assert_eq!((control.generation, control.change), (0, 0), "it starts from the beginning");
    let late = Changes::from(3).of(7).put(&row("a", 99)).write(sink, &old).await;
    assert!(matches!(late, Err(Error::Fenced { .. })), "{late:?}");
    Changes::from(1).begins().ends().put(&row("b", 2)).write(sink, &new).await?;
    assert_eq!(rows(sink, &new).await?, [[json!("b"), json!(2)]]);
    Ok(())
}

async fn a_sink_that_lost_rows_says_so(sink: &dyn Sink, case: Case) -> Result<()> {
    let lease = Lease { acked_change: 5, ..case.lease.clone() };
    let target = Target::from_lease(&lease)?;
    let control = sink.prepare(&target).await?;
    assert!(control.is_behind(&target), "{control:?}");
    Changes::from(6).begins().ends().put(&row("a", 1)).write(sink, &target).await?;
    let control = sink.prepare(&target).await?;
    assert!(!control.is_behind(&target), "{control:?}");
    Ok(())
}

async fn all_column_types_come_back(sink: &dyn Sink, case: Case) -> Result<()> {
    let columns = [
        ("id", "int64"),
        ("flag", "bool"),
        ("ratio", "float64"),
        ("price", "decimal(38,9)"),
        ("name", "text"),
        ("raw", "bytes"),
        ("day", "date"),
        ("clock", "time"),
        ("at", "timestamptz"),
        ("doc", "json"),
        ("tags", "list<text>"),
        ("place", "struct<room: text, floor: int64>"),
        ("Group Order", "int64"),
    ];
    let case = case.with(&columns);
    let target = case.target()?;
    sink.prepare(&target).await?;
    let full = json!({
        "id": i64::MAX, "flag": true, "ratio": 1.5e300,
        "price": "12345678901234567890123456789.123456789",
        "name": "O'Brien \"quoted\" \\ back\\slash\nline; -- @p ? $1 ${x} {y} \u{2028} ü 漢 😀 '''",
        "raw": "AAH/", "day": "2024-02-29", "clock": "12:34:56.123456",
        "at": "2026-11-21T01:02:03.000004Z",
        "doc": {"a": [1, null, "it's"], "b": {"c": true}}, "tags": ["x", "y'z"],
        "place": {"room": "B", "floor": 3}, "Group Order": 1
    });
    let odd = json!({
        "id": i64::MIN, "flag": false, "ratio": "NaN", "price": "-0.000000001", "name": "",
        "raw": "", "day": "0001-01-01", "clock": "00:00:00", "at": "1969-12-31T23:59:59.999999Z",
        "doc": "just text", "tags": [], "place": {"room": null, "floor": null}, "Group Order": 0
    });
    let infinite = json!({"id": 0, "ratio": "-Infinity", "doc": 17});
    let mut changes = Changes::from(1).begins().ends();
    for row in [&full, &odd, &infinite] {
        changes = changes.put(row);
    }
    changes.write(sink, &target).await?;
    let mut expected = Vec::new();
    for row in [&full, &odd, &infinite] {
        let cells = target.columns.iter().map(|column| {
            let cell = row.get(&column.name).cloned().unwrap_or(Json::Null);
            plain(column.kind, cell)
        });
        expected.push(cells.collect::<Vec<Json>>());
    }
    expected.sort_by_key(|row| Json::Array(row.clone()).to_string());
    assert_eq!(rows(sink, &target).await?, expected);
    // All values give way to NULL, and rows of these keys are found again.
    let mut changes = Changes::from(4).put(&json!({"id": i64::MAX}));
    changes = changes.delete(&json!({"id": i64::MIN})).delete(&json!({"id": 0}));
    changes.write(sink, &target).await?;
    let mut nulls = vec![Json::Null; columns.len()];
    if let Some(first) = nulls.first_mut() {
        *first = json!(i64::MAX);
    }
    assert_eq!(rows(sink, &target).await?, [nulls]);
    Ok(())
}

async fn keys_may_be_of_several_columns_and_null(sink: &dyn Sink, case: Case) -> Result<()> {
    let mut case = case.with(&[("n", "int64"), ("day", "date"), ("who", "text")]);
    case.lease.key = vec!["who".into(), "day".into()];
    let target = case.target()?;
    sink.prepare(&target).await?;
    let put = |who: Json, day: &str, n: i64| json!({"who": who, "day": day, "n": n});
    Changes::from(1)
        .put(&put(json!("a"), "2026-11-20", 1))
        .put(&put(json!("a"), "2026-11-21", 2))
        .put(&put(Json::Null, "2026-11-21", 3))
        .write(sink, &target)
        .await?;
    Changes::from(4)
        .put(&put(Json::Null, "2026-11-21", 4))
        .delete(&json!({"who": "a", "day": "2026-11-20"}))
        .write(sink, &target)
        .await?;
    let expected = [
        vec![json!(2), json!("2026-11-21"), json!("a")],
        vec![json!(4), json!("2026-11-21"), Json::Null],
    ];
    assert_eq!(rows(sink, &target).await?, expected);
    Changes::from(6)
        .delete(&json!({"who": null, "day": "2026-11-21"}))
        .write(sink, &target)
        .await?;
    assert_eq!(rows(sink, &target).await?.len(), 1);
    Ok(())
}

async fn a_large_chunk_is_written(sink: &dyn Sink, case: Case) -> Result<()> {
    let case = case.with(&[("id", "text"), ("n", "int64"), ("text", "text")]);
    let target = case.target()?;
    sink.prepare(&target).await?;
    let text = "long ".repeat(200);
    let mut changes = Changes::from(1).begins().ends();
    for n in 0..1500 {
        changes = changes.put(&json!({"id": format!("row {n}"), "n": n, "text": text}));
    }
    changes.write(sink, &target).await?;
    assert_eq!(rows(sink, &target).await?.len(), 1500);
    let control = sink.prepare(&target).await?;
    assert_eq!((control.change, control.reloading), (1500, false));
    Ok(())
}
