//! Sorts and aggregates beyond their memory, on disk.

use std::sync::Arc;

use futures::StreamExt;
use serde_json::json;

use super::kit::{Kit, collect};
use crate::{Engine, EngineOptions, Error, Outcome, Request, RowsAnswer, Spilling};

const ROWS: u64 = 300_000;

/// An engine with little memory and so much disk, over a kit's store.
fn engine(kit: &Kit, bytes_max: u64, keep_free_bytes: u64) -> Arc<Engine> {
    let directory = kit.directory.path().to_owned();
    let spilling = Some(Spilling { directory, bytes_max, keep_free_bytes });
    let options =
        EngineOptions { memory_bytes_max: 24 << 20, spilling, ..EngineOptions::default() };
    Engine::new(kit.store.clone(), options)
}

async fn ask(engine: &Engine, sql: &str) -> Result<RowsAnswer, Error> {
    match engine.execute(Request::new(sql)).await? {
        Outcome::Rows(answer) => Ok(answer),
        _ => panic!("{sql}"),
    }
}

fn sorted() -> String {
    format!(
        "SELECT value, repeat('x', 200) AS wide FROM range({ROWS}) ORDER BY value % 1000, value DESC"
    )
}

fn names(kit: &Kit) -> Vec<String> {
    let entries = std::fs::read_dir(kit.directory.path()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_sort_that_memory_does_not_hold_goes_on_in_files_without_names() {
    let kit = Kit::new();
    let engine = engine(&kit, 1 << 30, 0);
    let mut answer = ask(&engine, &sorted()).await.unwrap();
    let mut most = 0;
    let mut found = Vec::new();
    while let Some(batch) = answer.stream.next().await {
        let batch = batch.unwrap();
        most = most.max(engine.held_bytes().1);
        assert_eq!(names(&kit), ["data"]);
        let values =
            arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(batch.column(0));
        found.extend(values.values().iter().copied());
    }
    assert!(most > 20 << 20, "{most} bytes were spilled");
    let mut expected: Vec<i64> = (0..i64::try_from(ROWS).unwrap()).collect();
    expected.sort_by_key(|value| (value % 1000, -value));
    assert!(found == expected);
    drop(answer);
    assert_eq!(engine.held_bytes(), (0, 0));
}

#[tokio::test]
async fn groups_that_memory_does_not_hold_are_the_same_groups() {
    let kit = Kit::new();
    let sql = format!(
        "SELECT count(*), sum(n), max(wide) = repeat('x', 200), min(k), max(k) FROM (SELECT value % 200000 AS k, \
         count(*) AS n, max(repeat('x', 200)) AS wide FROM range({ROWS}) GROUP BY 1) AS g"
    );
    let engine = engine(&kit, 1 << 30, 0);
    let rows = collect(ask(&engine, &sql).await.unwrap()).await.unwrap();
    assert_eq!(rows, json!([[200_000, ROWS, true, 0, 199_999]]));
    assert_eq!(engine.held_bytes(), (0, 0));
}

#[tokio::test]
async fn what_is_too_much_for_the_disk_too_is_refused_and_given_back() {
    let kit = Kit::new();
    for (bytes_max, keep_free, sqlstate, says) in [
        (4 << 20, 0, "53200", "query_spill_bytes_max"),
        (1 << 30, u64::MAX / 2, "53100", "kept for writes"),
    ] {
        let engine = engine(&kit, bytes_max, keep_free);
        let answered = ask(&engine, &sorted()).await;
        let error = match answered {
            Ok(answer) => collect(answer).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.sqlstate(), sqlstate, "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(engine.held_bytes(), (0, 0));
    }
    let without = EngineOptions { memory_bytes_max: 24 << 20, ..EngineOptions::default() };
    let answered = ask(&Engine::new(kit.store.clone(), without), &sorted()).await;
    let error = match answered {
        Ok(answer) => collect(answer).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.sqlstate(), "53200", "{error:?}");
}

#[tokio::test]
async fn a_statement_that_is_left_gives_its_room_back() {
    let kit = Kit::new();
    let engine = engine(&kit, 1 << 30, 0);
    let mut answer = ask(&engine, &sorted()).await.unwrap();
    answer.stream.next().await.unwrap().unwrap();
    assert!(engine.held_bytes().1 > 0);
    drop(answer);
    for _ in 0..500 {
        if engine.held_bytes() == (0, 0) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("still held: {:?}", engine.held_bytes());
}

#[tokio::test]
async fn small_sorts_take_little_of_the_memory_for_all() {
    let kit = Kit::new();
    let engine = engine(&kit, 1 << 30, 0);
    // Each is held until its last batch is taken.
    let mut answers = Vec::new();
    for _ in 0..12 {
        let sql = "SELECT value FROM range(40000) ORDER BY value % 7, value";
        let mut answer = ask(&engine, sql).await.unwrap();
        answer.stream.next().await.unwrap().unwrap();
        answers.push(answer);
    }
    assert!(engine.held_bytes().0 > 0);
    for answer in answers {
        let rows = collect(answer).await.unwrap();
        assert_eq!(rows.as_array().unwrap().last(), Some(&json!([39_997])));
    }
}
