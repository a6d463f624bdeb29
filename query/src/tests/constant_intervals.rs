//! Aggregates over constant intervals against plain aggregates over the rows that are valid between
//! any two adjacent bounds.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Decimal128Builder, Float64Builder, Int64Builder, RecordBatch,
    StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::catalog::MemTable;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::SessionContext;
use serde_json::json;

use super::kit::Kit;
use super::random::Random;
use crate::columns::timestamp_type;
use crate::session::{runtime, session_over};
use crate::{Error, Request};

impl Random {
    /// A value, or at times none.
    fn maybe(&mut self, bound: u64) -> Option<i64> {
        let value = self.value(bound);
        (self.value(7) != 0).then_some(value)
    }
}

/// How a history looks.
struct History {
    rows: usize,
    keys: u64,
    /// Instants that bounds are drawn from.
    instants: u64,
    batch_rows: usize,
    partitions: usize,
}

fn schema() -> Arc<Schema> {
    let field = |name, kind| Field::new(name, kind, true);
    Arc::new(Schema::new(vec![
        field("k", DataType::Int64),
        field("g", DataType::Utf8),
        field("a", timestamp_type()),
        field("b", timestamp_type()),
        field("has", DataType::Boolean),
        field("n", DataType::Int64),
        field("f", DataType::Float64),
        field("d", DataType::Decimal128(12, 2)),
        field("s", DataType::Utf8),
        field("yes", DataType::Boolean),
    ]))
}

fn batch(random: &mut Random, history: &History, rows: usize) -> RecordBatch {
    let (mut k, mut g) = (Int64Builder::new(), StringBuilder::new());
    let instants = || TimestampMicrosecondBuilder::new().with_data_type(timestamp_type());
    let (mut a, mut b, mut has) = (instants(), instants(), BooleanBuilder::new());
    let (mut n, mut f) = (Int64Builder::new(), Float64Builder::new());
    let mut d = Decimal128Builder::new().with_data_type(DataType::Decimal128(12, 2));
    let (mut s, mut yes) = (StringBuilder::new(), BooleanBuilder::new());
    for _ in 0..rows {
        k.append_option(random.maybe(history.keys));
        g.append_value(format!("group {}", random.value(2)));
        let from = random.value(history.instants);
        let to = from + 1 + random.value(history.instants / 2 + 1);
        a.append_option((random.value(9) != 0).then_some(from));
        b.append_option((random.value(4) != 0).then_some(to));
        has.append_value(random.value(10) != 0);
        n.append_option(random.maybe(1_000).map(|n| n - 500));
        // Sums of eighths are exact in any order.
        f.append_option(random.maybe(900).map(|n| f64::from(i32::try_from(n).unwrap()) / 8.0));
        d.append_option(random.maybe(100_000).map(i128::from));
        s.append_option(random.maybe(50).map(|n| format!("text {n}")));
        yes.append_option(random.maybe(2).map(|n| n == 1));
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(k.finish()),
        Arc::new(g.finish()),
        Arc::new(a.finish()),
        Arc::new(b.finish()),
        Arc::new(has.finish()),
        Arc::new(n.finish()),
        Arc::new(f.finish()),
        Arc::new(d.finish()),
        Arc::new(s.finish()),
        Arc::new(yes.finish()),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn table(seed: u64, history: &History) -> Arc<MemTable> {
    let mut random = Random(seed);
    let mut partitions = vec![Vec::new(); history.partitions];
    let (mut left, mut next) = (history.rows, 0);
    while left > 0 {
        let rows = left.min(history.batch_rows);
        partitions[next % history.partitions].push(batch(&mut random, history, rows));
        (left, next) = (left - rows, next + 1);
    }
    Arc::new(MemTable::try_new(schema(), partitions).unwrap())
}

fn session(table: &Arc<MemTable>, partitions: usize, runtime: Arc<RuntimeEnv>) -> SessionContext {
    session_over(vec![("t".to_owned(), Arc::clone(table) as _)], partitions, runtime).unwrap()
}

async fn planned(session: &SessionContext, sql: &str) -> Result<Arc<dyn ExecutionPlan>> {
    session.sql(sql).await?.create_physical_plan().await
}

fn shown(plan: &Arc<dyn ExecutionPlan>) -> String {
    datafusion::physical_plan::displayable(plan.as_ref()).indent(false).to_string()
}

/// Runs a query; its rows as text, in order, and the types of its columns.
async fn answer(session: &SessionContext, sql: &str) -> (Vec<DataType>, Vec<String>) {
    let plan = planned(session, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    rows_of(&plan, session).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

async fn rows_of(
    plan: &Arc<dyn ExecutionPlan>,
    session: &SessionContext,
) -> Result<(Vec<DataType>, Vec<String>)> {
    let types = plan.schema().fields().iter().map(|field| field.data_type().clone()).collect();
    let mut rows = Vec::new();
    for batch in collect(Arc::clone(plan), session.task_ctx()).await? {
        assert!(batch.num_rows() <= 8_192);
        let options = FormatOptions::new().with_null("NULL");
        let cells: Vec<ArrayFormatter<'_>> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap())
            .collect();
        for row in 0..batch.num_rows() {
            let texts: Vec<String> = cells.iter().map(|cell| cell.value(row).to_string()).collect();
            rows.push(texts.join(" | "));
        }
    }
    rows.sort();
    Ok((types, rows))
}

const AGGREGATES: &str = "count(*), count(n), count(s), count(n, d), sum(n), sum(f), sum(d), avg(n), avg(f), \
     avg(d), min(n), max(n), min(f), max(f), min(d), max(d), min(s), max(s), min(a), max(b), \
     min(yes), bool_and(yes), bool_or(yes), max(DISTINCT n), \
     count(*) FILTER (WHERE n > 0), count(f) FILTER (WHERE n > 0), sum(n) FILTER (WHERE n > 400), \
     avg(d) FILTER (WHERE yes), max(s) FILTER (WHERE NOT yes), sum(n) * 2 + count(*)";

/// Returns the same query in both forms, over some of the keys.
fn both(keys: &[&str]) -> (String, String) {
    let listed = |prefix: &str, end: &str| -> String {
        keys.iter().map(|key| format!("{prefix}{key}{end}")).collect()
    };
    let shown = listed("", ", ");
    let asked = format!(
        "SELECT {shown} CONSTANT_INTERVAL(p) AS period, {AGGREGATES} \
         FROM (SELECT *, CASE WHEN has THEN PERIOD(a, b) END AS p FROM t) AS x \
         GROUP BY {shown} CONSTANT_INTERVAL(p)"
    );
    let same: String =
        keys.iter().map(|key| format!("(i_{key} IS NOT DISTINCT FROM r.{key}) AND ")).collect();
    let (begin, end) = ("TIMESTAMP '1900-01-01'", "TIMESTAMP '2900-01-01'");
    let over = match keys {
        [] => "ORDER BY at".to_owned(),
        keys => format!("PARTITION BY i_{} ORDER BY at", keys.join(", i_")),
    };
    let named: String = keys.iter().map(|key| format!("{key} AS i_{key}, ")).collect();
    let naive = format!(
        "WITH r AS (SELECT *, COALESCE(a, {begin}) AS lo, COALESCE(b, {end}) AS hi FROM t WHERE has), \
         c AS (SELECT {named} lo AS at FROM r UNION SELECT {named} hi FROM r), \
         i AS (SELECT *, lead(at) OVER ({over}) AS until FROM c) \
         SELECT {} PERIOD(NULLIF(at, {begin}), NULLIF(until, {end})) AS period, {AGGREGATES} \
         FROM i JOIN r ON {same} r.lo <= i.at AND i.at < r.hi GROUP BY {} at, until",
        listed("i_", ", "),
        listed("i_", ", ")
    );
    (asked, naive)
}

#[tokio::test]
async fn constant_intervals_have_what_plain_aggregates_have_between_two_bounds() {
    for seed in 0..8 {
        let mut random = Random(seed + 100);
        let history = History {
            rows: usize::try_from(random.value(400)).unwrap(),
            keys: 1 + seed % 5,
            instants: if seed % 2 == 0 { 12 } else { 1_000 },
            batch_rows: if seed % 3 == 0 { 7 } else { 100 },
            partitions: 1 + usize::try_from(seed % 4).unwrap(),
        };
        let table = table(seed, &history);
        for keys in [&["k", "g"][..], &["s"], &[]] {
            let (asked, naive) = both(keys);
            let reference = session(&table, 1, Arc::new(RuntimeEnv::default()));
            let expected = answer(&reference, &naive).await;
            for partitions in [1, 4] {
                let session = session(&table, partitions, Arc::new(RuntimeEnv::default()));
                let plan = planned(&session, &asked).await.unwrap();
                assert!(shown(&plan).contains("PeriodAggregateExec"), "{}", shown(&plan));
                let found = answer(&session, &asked).await;
                assert_eq!(found.0, expected.0, "types, seed {seed}");
                assert_eq!(found.1, expected.1, "seed {seed}, {partitions} partitions: {asked}");
            }
        }
    }
}

/// Rows of one key in few or many intervals, so that portions of the sweep end everywhere.
#[tokio::test]
async fn long_groups_are_put_out_in_portions() {
    for (keys, instants) in [(1, 1_000_000), (3, 20_000), (1, 5)] {
        let history = History { rows: 20_000, keys, instants, batch_rows: 8_192, partitions: 2 };
        let table = table(keys, &history);
        let few = "SELECT CONSTANT_INTERVAL(PERIOD(a, b)) AS p, count(*) AS n, min(s) AS s FROM t GROUP BY 1";
        let session = session(&table, 2, Arc::new(RuntimeEnv::default()));
        let intervals = answer(&session, few).await.1.len();
        let bounds = "SELECT count(*) FROM (SELECT COALESCE(a, TIMESTAMP '1900-01-01') FROM t \
                      UNION SELECT COALESCE(b, TIMESTAMP '2900-01-01') FROM t)";
        // Open ends on both sides, so there are no gaps.
        assert_eq!(answer(&session, bounds).await.1, [(intervals + 1).to_string()]);
        // What the rows last is what the intervals last, as often as they count.
        let ended = "FROM t WHERE a IS NOT NULL AND b IS NOT NULL";
        let lasting = format!("SELECT sum(CAST(b AS BIGINT) - CAST(a AS BIGINT)) {ended}");
        let counted = format!(
            "SELECT sum((CAST(upper(p) AS BIGINT) - CAST(lower(p) AS BIGINT)) * n) FROM \
             (SELECT CONSTANT_INTERVAL(PERIOD(a, b)) AS p, count(*) AS n {ended} GROUP BY 1) AS x"
        );
        assert_eq!(answer(&session, &counted).await.1, answer(&session, &lasting).await.1);
    }
}

fn spilling(bytes: usize) -> Arc<RuntimeEnv> {
    RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(bytes)))
        .build_arc()
        .unwrap()
}

fn spills(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let own = plan.metrics().and_then(|metrics| metrics.spill_count()).unwrap_or(0);
    own + plan.children().into_iter().map(spills).sum::<usize>()
}

#[tokio::test]
async fn the_sort_spills_under_a_small_budget() {
    let history =
        History { rows: 200_000, keys: 2_000, instants: 1_000, batch_rows: 8_192, partitions: 2 };
    let table = table(9, &history);
    let sql = "SELECT k, g, CONSTANT_INTERVAL(PERIOD(a, b)) AS p, count(*), sum(n), max(s) FROM t GROUP BY 1, 2, 3";
    let plenty = session(&table, 1, Arc::new(RuntimeEnv::default()));
    let expected = answer(&plenty, sql).await;
    let tight = session(&table, 1, spilling(14 << 20));
    let plan = planned(&tight, sql).await.unwrap();
    let found = rows_of(&plan, &tight).await.unwrap();
    assert!(spills(&plan) > 0, "nothing was spilled: {}", shown(&plan));
    assert!(found == expected);
}

#[tokio::test]
async fn the_active_set_is_bound_by_the_memory_budget() {
    // Every row is open at the end.
    let history =
        History { rows: 60_000, keys: 1, instants: 1 << 40, batch_rows: 8_192, partitions: 1 };
    let table = table(1, &history);
    let sql = "SELECT CONSTANT_INTERVAL(PERIOD(a, NULL)) AS p, max(n), min(n), max(f), min(s), sum(f) FROM t GROUP BY 1";
    let tight = session(&table, 1, runtime(12 << 20, None).unwrap());
    let plan = planned(&tight, sql).await.unwrap();
    let error = rows_of(&plan, &tight).await.unwrap_err();
    assert!(matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)), "{error}");
    assert!(error.to_string().contains("for PeriodAggregateExec"), "{error}");
    assert_eq!(Error::from(error).sqlstate(), "53200");
}

async fn kit() -> Kit {
    let kit = Kit::new();
    kit.write("CREATE TABLE r (_id TEXT, site TEXT, n INT)").await;
    for (id, site, n, from, to) in [
        ("a", "x", 1, "2025-01-01", "'2025-01-10'"),
        ("b", "x", 2, "2025-01-05", "NULL"),
        ("c", "y", 4, "2025-01-02", "'2025-01-03'"),
    ] {
        kit.write(&format!(
            "INSERT INTO r (_id, site, n, _valid_from, _valid_to) VALUES ('{id}', '{site}', {n}, '{from}', {to})"
        ))
        .await;
    }
    kit
}

#[tokio::test]
async fn filters_on_keys_go_below_and_plans_show_the_operator() {
    let kit = kit().await;
    let sql = "SELECT * FROM (SELECT site, CONSTANT_INTERVAL(_valid_time) AS p, count(*) AS c \
               FROM r FOR ALL VALID_TIME GROUP BY 1, 2) AS x WHERE site = 'y' AND c = 1";
    let shown = kit.engine.explain(Request::new(sql)).await.unwrap();
    let (above, below) = shown.split_once("PeriodAggregateExec").unwrap();
    assert!(above.contains("= 1") && !above.contains("site@0 = y"), "{shown}");
    assert!(below.starts_with(": keys=[site@"), "{shown}");
    assert!(below.contains("SortExec") && below.contains("= y"), "{shown}");
    let period = json!({"from": "2025-01-02T00:00:00Z", "to": "2025-01-03T00:00:00Z"});
    assert_eq!(kit.rows(sql).await, json!([["y", period, 1]]));
    for (explain, wanted) in [
        ("EXPLAIN", "PeriodAggregate: keys=[r.site], period=r._valid_time, aggregates=[count(*)]"),
        ("EXPLAIN ANALYZE", "output_rows="),
    ] {
        let text = kit.rows(&format!("{explain} {sql}")).await.to_string();
        assert!(text.contains("PeriodAggregateExec: keys=["), "{text}");
        assert!(text.contains(wanted), "{text}");
    }
}

#[tokio::test]
async fn what_has_no_form_is_refused_with_what_works() {
    let kit = kit().await;
    let grouped =
        |what: &str, by: &str| format!("SELECT {what} FROM r FOR ALL VALID_TIME GROUP BY {by}");
    let p = "CONSTANT_INTERVAL(_valid_time)";
    for (sql, state, words) in [
        (format!("SELECT {p} FROM r"), "42803", "stands in GROUP BY"),
        (format!("SELECT n FROM r WHERE {p} IS NULL"), "42803", "stands in GROUP BY"),
        (grouped("count(*)", &format!("lower({p})")), "42803", "on its own"),
        (grouped(&format!("max({p})"), "site"), "42803", "stands in GROUP BY"),
        (grouped(&format!("max(lower({p}))"), p), "42803", "stands in GROUP BY"),
        (grouped("1", &format!("{p}, CONSTANT_INTERVAL(_system_time)")), "0A000", "takes one"),
        (grouped("1", &format!("ROLLUP (site, {p})")), "0A000", "GROUPING SETS"),
        (grouped("1", &format!("GROUPING SETS ((site, {p}), ({p}))")), "0A000", "GROUPING SETS"),
        (grouped("count(DISTINCT n)", p), "0A000", "count(DISTINCT ..)"),
        (grouped("sum(DISTINCT n)", p), "0A000", "sum(DISTINCT ..)"),
        (grouped("array_agg(n)", p), "0A000", "array_agg() has no form"),
        (grouped("stddev(n)", p), "0A000", "has no form"),
        (grouped("count(*)", "CONSTANT_INTERVAL(n)"), "42804", "takes periods"),
        (grouped("count(*)", "CONSTANT_INTERVAL()"), "42804", "takes one period"),
    ] {
        let error = kit.error(&sql).await;
        assert_eq!(error.sqlstate(), state, "{sql}: {error}");
        assert!(error.to_string().contains(words), "{sql}: {error}");
    }
    let hint = kit.error(&grouped("stddev(n)", p)).await;
    assert_eq!(hint.hint(), Some("count, sum, avg, min, max, bool_and and bool_or work there"));
}
