//! Joins and aggregates over time, over tables in memory on both sides: ours against DuckDB and Polars.

use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{AsArray as _, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
use datafusion::catalog::MemTable;
use datafusion::execution::runtime_env::RuntimeEnv;
use everwhen_query::session::{NamedTable, session_over};
use everwhen_tests::cache_dir;
use serde_json::Value;

use crate::peers::script;
use crate::report::{Report, median, verdict};

const KEYS: i64 = 100_000;
const VERSIONS: i64 = 50;
const PERIODS: i64 = 100_000;
/// Periods of the aggregate: half as many as their ends.
const AGGREGATED: i64 = 5_000_000;
const RUNS: usize = 5;
const BATCH: i64 = 8_192;

struct Workload {
    name: &'static str,
    what: &'static str,
    tables: Vec<NamedTable>,
    sql: &'static str,
    goal: f64,
    polars: bool,
}

/// Runs each workload on both sides in turn, one thread each, and DuckDB with two as well.
pub async fn run(report: &mut Report) {
    for workload in workloads() {
        let (ours, answer) = ours(&workload).await;
        let duck = peer("emulator", "duckdb", workload.name, 1);
        let duck_of_two = peer("emulator", "duckdb", workload.name, 2);
        assert_eq!(answer, duck.1, "{}", workload.name);
        let mut others = format!("DuckDB {:.2} s, on two threads {:.2} s", duck.0, duck_of_two.0);
        if workload.polars {
            let polars = peer("flight", "polars", workload.name, 1);
            assert_eq!(answer, polars.1, "{}", workload.name);
            others.push_str(&format!(", Polars {:.2} s", polars.0));
        }
        let (ratio, goal) = (ours / duck.0, workload.goal);
        let judged = format!("{ratio:.2}x DuckDB's, goal <= {goal}x: {}", verdict(ratio <= goal));
        report.row(workload.what, format!("{ours:.2} s"), others, judged);
    }
}

fn workloads() -> Vec<Workload> {
    let whole = KEYS * VERSIONS;
    let events = table("e", whole, &["k", "t"], |i| {
        [i / VERSIONS, (i % VERSIONS) * 1_000 + (i * 104_729) % 1_000, 0, 0]
    });
    let history = table("v", whole, &["k", "n", "f", "u"], |i| {
        let from = (i % VERSIONS) * 1_000;
        [i / VERSIONS, i, from, from + 1_000]
    });
    vec![
        Workload {
            name: "asof",
            what: "as-of join, 5 M events of 100,000 keys with 50 versions each",
            tables: vec![events, history],
            sql: "SELECT count(*), sum(v.n) FROM e JOIN v ON e.k = v.k AND v.f <= e.t AND e.t < v.u",
            goal: 0.7,
            polars: true,
        },
        Workload {
            name: "overlap",
            what: "overlap join, 100,000 periods with 100,000",
            tables: vec![
                periods("a", PERIODS, 9_999_991, 1_000),
                periods("b", PERIODS, 9_999_973, 1_000),
            ],
            sql: "SELECT count(*), sum(a.n + b.n) FROM a JOIN b ON a.f < b.u AND b.f < a.u",
            goal: 1.0,
            polars: true,
        },
        Workload {
            name: "aggregate",
            what: "count and sum over constant intervals, 10 M ends of periods",
            tables: vec![periods("p", AGGREGATED, 999_999_937, 1_000)],
            sql: "SELECT count(*), sum(c), sum(s) FROM (SELECT CONSTANT_INTERVAL(PERIOD(f, u)) AS at, \
                  count(*) AS c, sum(n) AS s FROM p GROUP BY 1) AS x",
            goal: 0.5,
            polars: false,
        },
    ]
}

/// Builds a table whose rows follow from their numbers; `f`, `t` and `u` are instants.
fn table(name: &str, rows: i64, columns: &[&str], row: impl Fn(i64) -> [i64; 4]) -> NamedTable {
    let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let is_instant = |column: &str| ["f", "t", "u"].contains(&column);
    let fields: Vec<Field> = columns
        .iter()
        .map(|column| match is_instant(column) {
            true => Field::new(*column, instant.clone(), false),
            false => Field::new(*column, DataType::Int64, false),
        })
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let batch = |first: i64| {
        let rows: Vec<[i64; 4]> = (first..(first + BATCH).min(rows)).map(&row).collect();
        let arrays = columns.iter().enumerate().map(|(at, column)| {
            let values = Int64Array::from_iter_values(rows.iter().map(|row| row[at]));
            match is_instant(column) {
                true => Arc::new(instants(&values)) as _,
                false => Arc::new(values) as _,
            }
        });
        RecordBatch::try_new(Arc::clone(&schema), arrays.collect()).unwrap()
    };
    let batches = (0..rows).step_by(usize::try_from(BATCH).unwrap()).map(batch).collect();
    let table = MemTable::try_new(Arc::clone(&schema), vec![batches]).unwrap();
    (name.to_owned(), Arc::new(table))
}

fn instants(micros: &Int64Array) -> TimestampMicrosecondArray {
    TimestampMicrosecondArray::new(micros.values().clone(), None).with_timezone("UTC")
}

fn periods(name: &str, rows: i64, span: i64, longest: i64) -> NamedTable {
    table(name, rows, &["n", "f", "u"], |i| {
        let from = (i * 104_729) % span;
        [i, from, from + 1 + (i * 7_919) % longest, 0]
    })
}

/// Returns the median seconds of a run and what it answers.
async fn ours(workload: &Workload) -> (f64, Vec<i64>) {
    let session =
        session_over(workload.tables.clone(), 1, Arc::new(RuntimeEnv::default())).unwrap();
    let mut seconds = Vec::new();
    let mut answer = Vec::new();
    for _ in 0..=RUNS {
        let began = Instant::now();
        let rows = session.sql(workload.sql).await.unwrap().collect().await.unwrap();
        seconds.push(began.elapsed().as_secs_f64());
        let column = |at: usize| rows[0].column(at).as_primitive::<Int64Type>().value(0);
        answer = (0..rows[0].num_columns()).map(column).collect();
    }
    (median(&seconds[1..]), answer)
}

/// Returns the same of another engine, which runs in a process of its own.
fn peer(environment: &str, engine: &str, workload: &str, threads: usize) -> (f64, Vec<i64>) {
    let python = cache_dir().join(environment).join("bin/python");
    let output = Command::new(python)
        .arg(script("frames.py"))
        .args([engine, workload, &threads.to_string()])
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{engine} {workload}: {complaint}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let numbers = answer["answer"].as_array().unwrap().iter().map(|n| n.as_i64().unwrap());
    (answer["seconds"].as_f64().unwrap(), numbers.collect())
}
