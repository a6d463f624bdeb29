//! Reads on both axes, as-of joins, stability at a basis, forms of answers.

use everwhen_storage::{Clock as _, ColumnType, RealClock, SystemTime, ValidTime};
use serde_json::json;

use super::kit::{Kit, with_params};
use crate::Request;

async fn employees() -> Kit {
    let kit = Kit::new();
    kit.write("CREATE TABLE emp (_id TEXT, name TEXT, team TEXT)").await;
    kit.at("2026-01-02");
    kit.write(
        "INSERT INTO emp (_id, name, team, _valid_from) \
         VALUES ('e1', 'Ada', 'red', TIMESTAMP '2025-06-01T00:00:00Z')",
    )
    .await;
    kit.at("2026-01-03");
    kit.write(
        "INSERT INTO emp (_id, name, team, _valid_from) \
         VALUES ('e1', 'Ada', 'blue', TIMESTAMP '2025-09-01T00:00:00Z')",
    )
    .await;
    kit
}

#[tokio::test]
async fn a_read_without_clauses_is_as_of_now() {
    let kit = employees().await;
    assert_eq!(kit.rows("SELECT * FROM emp").await, json!([["e1", "Ada", "blue"]]));
}

#[tokio::test]
async fn exists_stands_in_a_select_list_too() {
    let kit = employees().await;
    let sql = "SELECT EXISTS (SELECT 1 FROM emp WHERE name = 'Ada'), \
               NOT EXISTS (SELECT 1 FROM emp WHERE name = 'Ada'), \
               CASE WHEN EXISTS (SELECT * FROM emp ORDER BY 1) THEN 1 END";
    assert_eq!(kit.rows(sql).await, json!([[true, false, 1]]));
    let sql = "SELECT x, EXISTS (SELECT 1 FROM emp e WHERE e.team = x) FROM \
               (VALUES ('blue'), ('red')) AS v (x) ORDER BY 1";
    assert_eq!(kit.rows(sql).await, json!([["blue", true], ["red", false]]));
}

#[tokio::test]
async fn both_axes_can_be_read_as_of_the_past() {
    let kit = employees().await;
    let sql = "SELECT team FROM emp FOR VALID_TIME AS OF TIMESTAMP '2025-07-01T00:00:00Z'";
    assert_eq!(kit.rows(sql).await, json!([["red"]]));
    let sql = "SELECT team FROM emp FOR SYSTEM_TIME AS OF '2026-01-02T12:00:00Z'";
    assert_eq!(kit.rows(sql).await, json!([["red"]]));
    let sql = "SELECT team FROM emp FOR SYSTEM_TIME AS OF '2026-01-01T12:00:00Z'";
    assert_eq!(kit.rows(sql).await, json!([]));
    let sql = "SELECT team FROM emp FOR VALID_TIME AS OF $1";
    let request = with_params(sql, json!(["2025-08-31T23:59:59.999999Z"]));
    assert_eq!(kit.rows_of(request).await, json!([["red"]]));
    let sql =
        "SELECT team FROM emp FOR VALID_TIME AS OF TIMESTAMP '2025-09-02' - INTERVAL '2 days'";
    assert_eq!(kit.rows(sql).await, json!([["red"]]));
}

#[tokio::test]
async fn requests_set_the_default_instants_and_clauses_win() {
    let kit = employees().await;
    let mut request = Request::new("SELECT team FROM emp");
    request.valid_time = Some(ValidTime::parse("2025-07-01").unwrap());
    assert_eq!(kit.rows_of(request.clone()).await, json!([["red"]]));
    request.sql = "SELECT team FROM emp FOR VALID_TIME AS OF now()".to_owned();
    assert_eq!(kit.rows_of(request).await, json!([["blue"]]));
    let mut request = Request::new("SELECT team FROM emp");
    request.system_time = Some(SystemTime::parse("2026-01-02T12:00:00Z").unwrap());
    assert_eq!(kit.rows_of(request).await, json!([["red"]]));
}

#[tokio::test]
async fn open_ends_read_null_and_hidden_columns_show_only_where_named() {
    let kit = employees().await;
    let sql = "SELECT team, _valid_from, _valid_to, _system_to, _valid_time \
               FROM emp FOR ALL VALID_TIME ORDER BY _valid_from";
    assert_eq!(
        kit.rows(sql).await,
        json!([
            ["red", "2025-06-01T00:00:00Z", "2025-09-01T00:00:00Z", null,
             {"from": "2025-06-01T00:00:00Z", "to": "2025-09-01T00:00:00Z"}],
            ["blue", "2025-09-01T00:00:00Z", null, null,
             {"from": "2025-09-01T00:00:00Z", "to": null}],
        ])
    );
    let sql = "SELECT *, _valid_to FROM emp";
    assert_eq!(kit.rows(sql).await, json!([["e1", "Ada", "blue", null]]));
}

#[tokio::test]
async fn all_of_system_time_shows_what_was_superseded() {
    let kit = employees().await;
    let sql = "SELECT team, _valid_from, _valid_to, _system_to FROM emp \
               FOR ALL VALID_TIME FOR ALL SYSTEM_TIME ORDER BY _system_to NULLS LAST, _valid_from";
    let rows = kit.rows(sql).await;
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert_eq!(rows[0][0], "red");
    assert_eq!(rows[0][3], "2026-01-03T00:00:00Z");
}

#[tokio::test]
async fn an_as_of_join_looks_up_the_row_of_its_instant() {
    let kit = employees().await;
    kit.write(
        "INSERT INTO visit (_id, emp, at) VALUES \
         ('v1', 'e1', TIMESTAMP '2025-07-01T00:00:00Z'), \
         ('v2', 'e1', TIMESTAMP '2025-10-01T00:00:00Z'), \
         ('v3', 'e1', TIMESTAMP '2020-01-01T00:00:00Z')",
    )
    .await;
    let sql = "SELECT v._id, e.team FROM visit v \
               JOIN emp FOR VALID_TIME AS OF v.at AS e ON e._id = v.emp ORDER BY v._id";
    assert_eq!(kit.rows(sql).await, json!([["v1", "red"], ["v2", "blue"]]));
    let plan = kit.engine.explain(Request::new(sql)).await.unwrap();
    assert!(plan.contains("PeriodJoinExec"), "{plan}");
    assert!(!plan.contains("NestedLoopJoinExec"), "{plan}");
    let sql = "SELECT v._id, e.team FROM visit v \
               LEFT JOIN emp e FOR VALID_TIME AS OF v.at ON e._id = v.emp ORDER BY v._id";
    assert_eq!(kit.rows(sql).await, json!([["v1", "red"], ["v2", "blue"], ["v3", null]]));
    let plan = kit.engine.explain(Request::new(sql)).await.unwrap();
    assert!(plan.contains("PeriodJoinExec") && !plan.contains("NestedLoop"), "{plan}");
    let sql = "SELECT v._id, e.team FROM visit v, emp FOR VALID_TIME AS OF v.at e \
               WHERE e._id = v.emp ORDER BY 1";
    assert_eq!(kit.rows(sql).await, json!([["v1", "red"], ["v2", "blue"]]));
    let plan = kit.engine.explain(Request::new(sql)).await.unwrap();
    assert!(plan.contains("PeriodJoinExec") && !plan.contains("NestedLoop"), "{plan}");
}

#[tokio::test]
async fn reading_again_at_a_basis_gives_the_same_whatever_came_since() {
    let kit = employees().await;
    let first = kit.answer(Request::new("SELECT team, now() FROM emp")).await;
    let basis = first.basis.clone();
    let before = super::kit::collect(first).await.unwrap();
    kit.at("2026-02-01");
    kit.write("DELETE FROM emp FOR ALL VALID_TIME WHERE _id = 'e1'").await;
    assert_eq!(kit.rows("SELECT team FROM emp").await, json!([]));
    let mut request = Request::new("SELECT team, now() FROM emp");
    request.basis = Some(basis);
    assert_eq!(kit.rows_of(request.clone()).await, before);
    request.basis = Some(kit.answer(Request::new("SELECT 1")).await.basis);
    assert_eq!(kit.rows_of(request).await, json!([]));
}

#[tokio::test]
async fn keys_named_by_the_filter_are_all_that_is_read() {
    let kit = employees().await;
    let plan =
        kit.engine.explain(Request::new("SELECT * FROM emp WHERE _id = 'e1'")).await.unwrap();
    assert!(plan.contains("keys=1"), "{plan}");
    let sql = "SELECT team FROM emp WHERE _id IN ('e1', 'e2', 'e3')";
    let plan = kit.engine.explain(Request::new(sql)).await.unwrap();
    assert!(plan.contains("keys=3"), "{plan}");
    assert_eq!(kit.rows(sql).await, json!([["blue"]]));
}

#[tokio::test]
async fn answers_name_the_contracts_types() {
    let kit = Kit::new();
    kit.write(
        "CREATE TABLE t (_id BIGINT, b BOOLEAN, f DOUBLE PRECISION, d DECIMAL, j JSON, at TIMESTAMPTZ)",
    )
    .await;
    kit.write(
        "INSERT INTO t (_id, b, f, d, j, at) \
         VALUES (1, true, 1, 12.50, '{\"a\": [1, null]}', '2026-01-05 09:00:00.5+02:00')",
    )
    .await;
    let answer = kit.answer(Request::new("SELECT *, count(*) OVER () AS n FROM t")).await;
    let kinds: Vec<_> = answer.columns.iter().map(|(_, kind)| kind.clone()).collect();
    assert_eq!(
        kinds,
        [
            ColumnType::Int64,
            ColumnType::Bool,
            ColumnType::Float64,
            ColumnType::Decimal,
            ColumnType::Json,
            ColumnType::Timestamp,
            ColumnType::Int64,
        ]
    );
    let rows = super::kit::collect(answer).await.unwrap();
    let expected = json!([[1, true, 1.0, "12.5", {"a": [1, null]}, "2026-01-05T07:00:00.500Z", 1]]);
    assert_eq!(rows, expected);
    let sql = "SELECT j->'a', j->>'a', j->'a'->0, cast(d AS decimal(10, 2)) FROM t";
    assert_eq!(kit.rows(sql).await, json!([[[1, null], "[1, null]", 1, "12.50"]]));
}

#[tokio::test]
async fn limits_and_shows_and_explains_answer_rows() {
    let kit = employees().await;
    let mut request = Request::new("SELECT * FROM emp FOR ALL VALID_TIME");
    request.limit = Some(1);
    assert_eq!(kit.rows_of(request).await.as_array().unwrap().len(), 1);
    assert_eq!(kit.rows("SHOW TABLES").await, json!([["emp"]]));
    assert_eq!(kit.rows("SHOW CLOCK_TIME").await, json!([["2026-01-03T00:00:00Z"]]));
    assert!(kit.rows("EXPLAIN SELECT * FROM emp").await.to_string().contains("ScanExec"));
}

#[tokio::test]
async fn system_tables_tell_of_transactions_tables_and_columns() {
    let kit = employees().await;
    let sql = "SELECT tx, system_time, source FROM everwhen.transactions ORDER BY tx";
    let rows = kit.rows(sql).await;
    assert_eq!(rows[0], json!([1, "2026-01-01T00:00:00Z", "client"]));
    assert_eq!(rows.as_array().unwrap().len(), 3);
    let sql = "SELECT \"table\", declared FROM everwhen.tables";
    assert_eq!(kit.rows(sql).await, json!([["emp", true]]));
    let sql = "SELECT \"column\", type, \"key\" FROM everwhen.columns ORDER BY position";
    let expected = json!([["_id", "text", true], ["name", "text", false], ["team", "text", false]]);
    assert_eq!(kit.rows(sql).await, expected);
    assert_eq!(kit.rows("SELECT count(*) FROM everwhen.dead_letters").await, json!([[0]]));
}

#[tokio::test]
async fn sub_queries_ctes_and_aggregates_read_versions_too() {
    let kit = employees().await;
    let sql = "WITH teams AS (SELECT team, count(*) AS n FROM emp FOR ALL VALID_TIME GROUP BY team) \
               SELECT team, n FROM teams WHERE n = (SELECT max(n) FROM teams) ORDER BY team";
    assert_eq!(kit.rows(sql).await, json!([["blue", 1], ["red", 1]]));
    let sql = "SELECT name FROM emp e WHERE EXISTS \
               (SELECT 1 FROM emp FOR ALL VALID_TIME AS old WHERE old._id = e._id AND old.team = 'red')";
    assert_eq!(kit.rows(sql).await, json!([["Ada"]]));
}

#[tokio::test]
async fn instants_in_nanoseconds_meet_open_ends() {
    let kit = employees().await;
    let sql = "SELECT g.value, e.team FROM generate_series(TIMESTAMP '2025-08-31', \
               TIMESTAMP '2025-09-01', INTERVAL '1 day') AS g(value) \
               LEFT JOIN emp e FOR VALID_TIME AS OF g.value ON e._id = 'e1' ORDER BY 1";
    assert_eq!(
        kit.rows(sql).await,
        json!([["2025-08-31T00:00:00Z", "red"], ["2025-09-01T00:00:00Z", "blue"]])
    );
    kit.write("INSERT INTO v (_id, emp, at) VALUES (1, 'e1', '2025-08-31T00:00:00Z')").await;
    let sql = "SELECT e.team FROM v JOIN emp e FOR VALID_TIME AS OF \
               arrow_cast(v.at, 'Timestamp(Nanosecond, Some(\"UTC\"))') ON e._id = v.emp";
    assert_eq!(kit.rows(sql).await, json!([["red"]]));
    let sql =
        "SELECT to_timestamp(at), to_timestamp_millis(at) FROM v WHERE to_timestamp(at) < now()";
    assert_eq!(kit.rows(sql).await, json!([["2025-08-31T00:00:00Z", "2025-08-31T00:00:00Z"]]));
}

/// Runs for minutes, and its join finds no row to pause at.
const ENDLESS: &str = "SELECT count(*) AS n FROM (SELECT unnest(range(0, 300000)) AS a) x, \
                       (SELECT unnest(range(0, 300000)) AS b) y WHERE a * b = -1";

/// What was waited for has ended when the runtime can be dropped: its threads are joined.
#[test]
fn queries_and_writes_end_when_nobody_waits_for_them() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(crate::QUERY_STACK_BYTES)
        .enable_all()
        .build()
        .unwrap();
    let began = RealClock.monotonic();
    runtime.block_on(async {
        let kit = Kit::new();
        let short = std::time::Duration::from_millis(100);
        let answer = kit.answer(Request::new(ENDLESS)).await;
        let waited = tokio::time::timeout(short, super::kit::collect(answer)).await;
        assert!(waited.is_err(), "it is not endless");
        let mut write = Request::new(format!("INSERT INTO t (_id) {ENDLESS}"));
        write.timeout = Some(short);
        let Err(error) = kit.run(write).await else { panic!("it is not endless") };
        assert_eq!(error.sqlstate(), "57014");
        // The writer's turn is free again.
        kit.write("INSERT INTO t (_id) SELECT 1").await;
    });
    drop(runtime);
    let took = RealClock.monotonic().saturating_duration_since(began);
    assert!(took < std::time::Duration::from_secs(20), "{took:?}");
}
