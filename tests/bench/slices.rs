//! Questions over the whole of a table at one instant of both times, asked by a client: ours over HTTP beside
//! DuckDB, MariaDB and PostgreSQL over the same versions.

use std::process::Command;
use std::time::Instant;

use everwhen_tests::cache_dir;
use everwhen_tests::process::Server;
use serde_json::{Value, json};

use crate::bitemporal::Bitemporal;
use crate::peers::{Peer, script};
use crate::report::{Report, median};

/// 5,000,000 versions: nine of each key were believed at some time.
const HISTORY: Bitemporal = Bitemporal { keys: 555_556, versions: 5 };
const RUNS: usize = 5;
/// In the middle of the third version's day.
const DAY: &str = "2025-01-03 12:00:00";
/// When three of five versions were recorded, and when all of them were.
const SYSTEM_TIMES: [(&str, &str); 2] =
    [("now", "2025-06-01 00:00:00"), ("at a past system time", "2025-02-01 02:30:00")];

const SLICE: &str = "SELECT count(*), sum(n), sum(length(note))";
const AGGREGATE: &str = "SELECT site, count(*), sum(n)";

/// Loads all sides, asks each in turn and reports medians; all have to answer the same.
pub async fn run(report: &mut Report) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let peers = HISTORY.load(&data);
    let server = Server::start(&data, None).await.unwrap();
    for (what, select, rest) in
        [("slice", SLICE, ""), ("aggregate by site", AGGREGATE, " GROUP BY site ORDER BY site")]
    {
        for (when, system_time) in SYSTEM_TIMES {
            let sql = format!("{select} FROM readings{rest}");
            let (ours, answer) = ours(&server, &sql, system_time).await;
            let mut others = Vec::new();
            tokio::task::block_in_place(|| {
                let duckdb = duckdb(select, rest, system_time);
                assert_eq!(answer, duckdb.1, "DuckDB, {what} {when}");
                others.push(("DuckDB 1.5 on one thread", duckdb.0));
                for peer in &peers {
                    let theirs = timed(|| peer.answer(&asked_of(peer, select, rest, system_time)));
                    assert_eq!(answer, theirs.1, "{}, {what} {when}", peer.name);
                    others.push((peer.name, theirs.0));
                }
            });
            let shown: Vec<String> =
                others.iter().map(|(name, millis)| format!("{name} {millis:.0} ms")).collect();
            let ratios: Vec<String> =
                others.iter().map(|(_, millis)| format!("{:.2}x", ours / millis)).collect();
            report.row(
                &format!("{what} of 555,556 rows in 5,000,000 versions, {when}"),
                format!("{ours:.0} ms over HTTP"),
                shown.join(", "),
                format!("{} of their times", ratios.join(", ")),
            );
        }
    }
}

/// Returns the median milliseconds of a question and its answer.
fn timed(ask: impl Fn() -> Vec<Vec<String>>) -> (f64, Vec<Vec<String>>) {
    let (mut millis, mut answer) = (Vec::new(), Vec::new());
    for _ in 0..=RUNS {
        let began = Instant::now();
        answer = ask();
        millis.push(began.elapsed().as_secs_f64() * 1e3);
    }
    (median(&millis[1..]), answer)
}

async fn ours(server: &Server, sql: &str, system_time: &str) -> (f64, Vec<Vec<String>>) {
    let zoned = |at: &str| format!("{}Z", at.replace(' ', "T"));
    let body = json!({"sql": sql, "valid_time": zoned(DAY), "system_time": zoned(system_time)});
    let (mut millis, mut answer) = (Vec::new(), Vec::new());
    for _ in 0..=RUNS {
        let began = Instant::now();
        let said = server.client.post("/v1/sql", &body).await.unwrap();
        millis.push(began.elapsed().as_secs_f64() * 1e3);
        let rows = said.body["rows"].as_array().unwrap_or_else(|| panic!("{}", said.body));
        answer = rows.iter().map(texts).collect();
    }
    (median(&millis[1..]), answer)
}

fn texts(row: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    row.as_array().unwrap().iter().map(text).collect()
}

fn asked_of(peer: &Peer, select: &str, rest: &str, system_time: &str) -> String {
    if peer.is_mariadb() {
        format!(
            "{select} FROM readings FOR SYSTEM_TIME AS OF TIMESTAMP'{system_time}' \
             WHERE valid_from <= '{DAY}' AND valid_to > '{DAY}'{rest}"
        )
    } else {
        format!(
            "{select} FROM readings WHERE valid @> timestamptz '{DAY}+00' \
             AND sys @> timestamptz '{system_time}+00'{rest}"
        )
    }
}

/// Returns the median milliseconds within DuckDB, and the answer.
fn duckdb(select: &str, rest: &str, system_time: &str) -> (f64, Vec<Vec<String>>) {
    let at = |from: &str, to: &str, instant: &str| {
        format!(
            "{from} <= TIMESTAMP '{instant}' AND ({to} IS NULL OR {to} > TIMESTAMP '{instant}')"
        )
    };
    let valid = at("valid_from", "valid_to", DAY);
    let system = at("sys_from", "sys_to", system_time);
    let sql = format!("{select} FROM readings WHERE {valid} AND {system}{rest}");
    let output = Command::new(cache_dir().join("emulator/bin/python"))
        .arg(script("slices.py"))
        .args([HISTORY.keys.to_string(), HISTORY.versions.to_string(), sql])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = answer["rows"].as_array().unwrap().iter().map(texts).collect();
    (answer["millis"].as_f64().unwrap(), rows)
}
