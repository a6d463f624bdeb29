//! The 22 queries of TPC-H over a store at now and at a past point of system time, beside the same engine over
//! plain Parquet copies of the two snapshots. Between them one row of ten changed, in every table but the
//! two that never do. Data and queries come from DuckDB's generator; decimals are floats on all sides.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, AsArray as _, Float64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use everwhen_query::session::session_over;
use everwhen_query::{Engine, EngineOptions, Outcome, Request};
use everwhen_storage::{SystemTime, Tenant};
use everwhen_tests::cache_dir;
use futures::TryStreamExt as _;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::fixture::open;
use crate::peers::script;
use crate::report::{Report, median};

const SCALE: &str = "0.1";
const RUNS: usize = 3;
/// Tables, and their keys.
const TABLES: [(&str, &str); 8] = [
    ("region", "r_regionkey"),
    ("nation", "n_nationkey"),
    ("supplier", "s_suppkey"),
    ("customer", "c_custkey"),
    ("part", "p_partkey"),
    ("partsupp", "ps_partkey, ps_suppkey"),
    ("orders", "o_orderkey"),
    ("lineitem", "l_orderkey, l_linenumber"),
];
/// How far apart two sums of the same floats may be, relatively.
const ROUNDING: f64 = 1e-9;

/// Loads the store, runs each query on both sides in turn, and reports their geometric means.
pub async fn run(report: &mut Report) {
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("files");
    generate(&files);
    let store = open(&dir.path().join("data"));
    let engine = Engine::new(
        store.clone(),
        EngineOptions { memory_bytes_max: 8 << 30, ..EngineOptions::default() },
    );
    for (table, key) in TABLES {
        let columns = columns_of(&files.join(format!("before/{table}.parquet")));
        execute(
            &engine,
            Request::new(format!("CREATE TABLE {table} ({columns}, PRIMARY KEY ({key}))")),
        )
        .await;
    }
    let past = fill(&engine, &files.join("before")).await;
    fill(&engine, &files.join("changed")).await;
    let sides = [("now", "after", None), ("at a past system time", "before", past)];
    for (when, copy, system_time) in sides {
        let plain = plain(&files.join(copy)).await;
        let mut ratios = Vec::new();
        let mut totals = [0.0; 2];
        for number in 1..=22 {
            let sql = std::fs::read_to_string(files.join(format!("q{number:02}.sql"))).unwrap();
            let mut seconds = [Vec::new(), Vec::new()];
            let mut answers = [Vec::new(), Vec::new()];
            for _ in 0..=RUNS {
                let began = Instant::now();
                let request = Request { system_time, ..Request::new(sql.as_str()) };
                answers[0] = execute(&engine, request).await;
                seconds[0].push(began.elapsed().as_secs_f64());
                let began = Instant::now();
                answers[1] = plain.sql(&sql).await.unwrap().collect().await.unwrap();
                seconds[1].push(began.elapsed().as_secs_f64());
            }
            assert_same(&answers, number);
            let [ours, theirs] = seconds.map(|all| median(&all[1..]));
            println!("q{number:02} {when}: {:.0} ms, Parquet {:.0} ms", ours * 1e3, theirs * 1e3);
            ratios.push(ours / theirs);
            totals[0] += ours;
            totals[1] += theirs;
        }
        let mean = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / 22.0).exp();
        let most = ratios.iter().copied().fold(0.0, f64::max);
        report.row(
            &format!("TPC-H, 22 queries at scale {SCALE}, {when}"),
            format!("{:.2} s in all", totals[0]),
            format!("the same engine over Parquet {:.2} s", totals[1]),
            format!("{mean:.1}x in the geometric mean, {most:.1}x at most"),
        );
    }
}

/// Writes the tables before and after the change, the changed rows, and the queries.
fn generate(files: &Path) {
    let output = Command::new(cache_dir().join("tpch/bin/python"))
        .arg(script("tpch/generate.py"))
        .arg(files)
        .arg(SCALE)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Returns the columns of a Parquet file as a declaration.
fn columns_of(file: &Path) -> String {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file).unwrap()).unwrap();
    let of = |kind: &DataType| match kind {
        DataType::Int64 => "BIGINT",
        DataType::Float64 => "DOUBLE",
        DataType::Date32 => "DATE",
        DataType::Utf8 => "TEXT",
        other => panic!("{other}"),
    };
    let columns = reader.schema().fields().iter();
    let columns: Vec<String> =
        columns.map(|field| format!("{} {}", field.name(), of(field.data_type()))).collect();
    columns.join(", ")
}

/// Puts the rows of the files of a folder into their tables; returns the last system time.
async fn fill(engine: &Engine, folder: &Path) -> Option<SystemTime> {
    let mut last = None;
    for (table, _) in TABLES {
        let file = folder.join(format!("{table}.parquet"));
        if !file.exists() {
            continue;
        }
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file).unwrap()).unwrap();
        for batch in reader.with_batch_size(20_000).build().unwrap() {
            let batch = vec![batch.unwrap()];
            let written = engine.append(Tenant::default(), table.to_owned(), batch).await;
            last = Some(written.unwrap().system_time);
        }
    }
    last
}

/// Returns our engine, without a store, over the Parquet files of a folder.
async fn plain(folder: &Path) -> SessionContext {
    let session = session_over(Vec::new(), 1, Arc::new(RuntimeEnv::default())).unwrap();
    for (table, _) in TABLES {
        let file = folder.join(format!("{table}.parquet"));
        let options = ParquetReadOptions::default();
        session.register_parquet(table, file.display().to_string(), options).await.unwrap();
    }
    session
}

async fn execute(engine: &Engine, request: Request) -> Vec<RecordBatch> {
    let sql = request.sql.clone();
    let outcome = engine.execute(request).await.unwrap_or_else(|error| panic!("{sql}\n{error}"));
    match outcome {
        Outcome::Rows(rows) => rows.stream.try_collect().await.unwrap(),
        Outcome::Written(_) => Vec::new(),
        Outcome::Define(_) => panic!("{sql}"),
    }
}

/// Asserts that both sides answered the same rows, floats but for their rounding.
fn assert_same([ours, theirs]: &[Vec<RecordBatch>; 2], number: usize) {
    let columns = |batches: &[RecordBatch]| -> Vec<Vec<ArrayRef>> {
        batches
            .iter()
            .filter(|batch| batch.num_rows() > 0)
            .map(|batch| batch.columns().to_vec())
            .collect()
    };
    let (ours, theirs) = (cells(&columns(ours)), cells(&columns(theirs)));
    assert_eq!(ours.len(), theirs.len(), "cells of q{number:02}");
    for (mine, other) in ours.iter().zip(&theirs) {
        match (mine, other) {
            (Cell::Number(a), Cell::Number(b)) => {
                let apart = (a - b).abs() / a.abs().max(b.abs()).max(1.0);
                assert!(apart <= ROUNDING, "q{number:02}: {a} and {b}");
            }
            _ => assert_eq!(mine, other, "q{number:02}"),
        }
    }
}

#[derive(Debug, PartialEq)]
enum Cell {
    Number(f64),
    Text(String),
}

/// Returns the cells of batches in order.
fn cells(batches: &[Vec<ArrayRef>]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for columns in batches {
        let columns: Vec<Vec<Cell>> = columns.iter().map(of_column).collect();
        let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
        while columns.iter().all(|column| column.len() > 0) {
            cells.extend(columns.iter_mut().filter_map(Iterator::next));
        }
    }
    cells
}

fn of_column(column: &ArrayRef) -> Vec<Cell> {
    if column.data_type().is_numeric() {
        let floats = cast(column, &DataType::Float64).unwrap();
        let floats: &Float64Array = floats.as_primitive::<Float64Type>();
        return floats.iter().map(|value| Cell::Number(value.unwrap_or(f64::MIN))).collect();
    }
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(column, &options).unwrap();
    (0..column.len()).map(|row| Cell::Text(formatter.value(row).to_string())).collect()
}
