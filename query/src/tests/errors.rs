//! What is wrong is said with its SQLSTATE and, where known, its place.

use super::kit::{Kit, with_params};
use crate::Request;
use serde_json::json;

async fn kit() -> Kit {
    let kit = Kit::new();
    kit.write("CREATE TABLE t (_id TEXT, n BIGINT NOT NULL, at TIMESTAMPTZ, j JSON)").await;
    kit.write("INSERT INTO t (_id, n) VALUES ('a', 1)").await;
    kit
}

#[tokio::test]
async fn errors_carry_the_sqlstate_that_clients_know() {
    let kit = kit().await;
    for (sql, state) in [
        ("SELECT * FROM nowhere", "42P01"),
        ("SELECT missing FROM t", "42703"),
        ("SELECT t.missing FROM t", "42703"),
        ("SELECT x.n FROM t", "42703"),
        ("SELEC 1", "42601"),
        ("SELECT 1 FROM", "42601"),
        ("SELECT nofunction(1)", "42883"),
        ("SELECT 1/0", "22012"),
        ("SELECT CAST('x' AS BIGINT)", "22P02"),
        ("SELECT regexp_like('x', '(a')", "22023"),
        ("SELECT regexp_like('x', '(a{1000}){1000}')", "22023"),
        ("SELECT regexp_replace(_id, '(a', '') FROM t", "22023"),
        ("SELECT 1 FROM t WHERE _id ~ '(a'", "22023"),
        ("SELECT n FROM t JOIN t AS u ON true", "42702"),
        ("SELECT n, count(*) FROM t", "42803"),
        ("SELECT $1", "42P02"),
        ("SELECT * FROM t FOR VALID_TIME AS OF NULL", "22004"),
        ("SELECT * FROM t FOR VALID_TIME AS OF '2026-02-30'", "22008"),
        ("SELECT * FROM t FOR VALID_TIME FROM '2026-02-01' TO '2026-01-01'", "22023"),
        ("SELECT * FROM t FOR VALID_TIME BETWEEN '2026-02-01' AND '2026-01-01'", "22023"),
        ("INSERT INTO t (_id, n) VALUES ('b', 'x')", "42804"),
        ("INSERT INTO t (_id, n) VALUES ('b', 1.5)", "42804"),
        ("INSERT INTO t (_id, n) VALUES (1, 1)", "42804"),
        ("INSERT INTO t (_id, n, missing) VALUES ('b', 1, 2)", "42703"),
        ("INSERT INTO t (_id, n) VALUES ('b', NULL)", "23502"),
        ("INSERT INTO t (_id) VALUES ('b')", "23502"),
        ("INSERT INTO t (n) VALUES (1)", "23502"),
        ("INSERT INTO t (_id, n) VALUES (NULL, 1)", "23502"),
        ("INSERT INTO t (_id, n, at) VALUES ('b', 1, '2026-02-30')", "22008"),
        ("INSERT INTO t (_id, n, j) VALUES ('b', 1, '{')", "22P02"),
        ("INSERT INTO t (_id, n, _system_from) VALUES ('b', 1, now())", "42P10"),
        (
            "INSERT INTO t (_id, n, _valid_from, _valid_to) \
             VALUES ('b', 1, '2026-01-02', '2026-01-02')",
            "22023",
        ),
        ("INSERT INTO t (_id, n, _valid_to) VALUES ('b', 1, '2020-01-01')", "22023"),
        ("UPDATE t SET missing = 1", "42703"),
        ("UPDATE t SET n = 'x'", "42804"),
        ("UPDATE t SET n = NULL", "23502"),
        ("UPDATE nowhere SET n = 1", "42P01"),
        ("UPDATE t FOR PORTION OF VALID_TIME FROM '2026-02-01' TO '2026-01-01' SET n = 1", "22023"),
        ("DELETE FROM nowhere", "42P01"),
        ("CREATE TABLE t (_id TEXT)", "42P07"),
        ("DROP TABLE nowhere", "42P01"),
        ("SELECT 1; INSERT INTO t (_id, n) VALUES ('b', 1)", "0A000"),
        ("CREATE TABLE u (_id TEXT); INSERT INTO u (_id) VALUES ('b')", "0A000"),
        ("BEGIN READ ONLY; DELETE FROM t; COMMIT", "25006"),
        ("SELECT * FROM everwhen.tables FOR ALL VALID_TIME", "0A000"),
    ] {
        let error = kit.error(sql).await;
        assert_eq!(error.sqlstate(), state, "{sql}: {error}");
    }
    assert_eq!(kit.rows("SELECT count(*) FROM t").await, json!([[1]]));
}

#[tokio::test]
async fn errors_point_at_the_character() {
    let kit = kit().await;
    for (sql, place) in [
        ("SELECT n,\n  mïssing FROM t", 13),
        ("SELECT n FROM nowhere", 15),
        ("SELECT n FROM t WHERE missing = 1", 23),
        ("SELECT * FROM t FOR VALID_TIME AS OF '2026-02-30'", 38),
        ("INSERT INTO t (_id, n, missing) VALUES ('b', 1, 2)", 24),
        ("UPDATE t SET missing = 1", 14),
    ] {
        let error = kit.error(sql).await;
        assert_eq!(error.position(), Some(place), "{sql}: {error}");
    }
}

#[tokio::test]
async fn a_foreign_or_unreached_basis_is_refused() {
    let kit = kit().await;
    let other = Kit::new();
    let mut request = Request::new("SELECT 1");
    request.basis = Some(other.answer(Request::new("SELECT 1")).await.basis);
    assert_eq!(kit.run(request.clone()).await.err().unwrap().sqlstate(), "0B000");
    request.basis = Some("nonsense".to_owned());
    assert_eq!(kit.run(request).await.err().unwrap().sqlstate(), "22023");
}

#[tokio::test]
async fn a_write_takes_no_instants_and_no_basis() {
    let kit = kit().await;
    let mut request = Request::new("DELETE FROM t");
    request.basis = Some(kit.answer(Request::new("SELECT 1")).await.basis);
    assert_eq!(kit.run(request).await.err().unwrap().sqlstate(), "0A000");
}

#[tokio::test]
async fn a_hungry_query_fails_alone() {
    let kit = kit().await;
    let options = crate::EngineOptions { memory_bytes_max: 1 << 20, ..Default::default() };
    let engine = crate::Engine::new(kit.store.clone(), options);
    let sql = "SELECT count(*) FROM (SELECT DISTINCT a.value * 1000003 + b.value AS x \
               FROM generate_series(1, 1000) a, generate_series(1, 1000) b)";
    let outcome = engine.execute(Request::new(sql)).await;
    let error = match outcome {
        Ok(crate::Outcome::Rows(rows)) => super::kit::collect(rows).await.unwrap_err(),
        Ok(_) => panic!("no query"),
        Err(error) => error,
    };
    assert_eq!(error.sqlstate(), "53200", "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_past_its_time_is_cancelled() {
    let kit = kit().await;
    let mut request = with_params(
        "INSERT INTO t (_id, n) SELECT 'b', count(*) FROM \
        generate_series(1, 20000) a, generate_series(1, 20000) b WHERE (a.value * b.value) % 7 = 3",
        json!([]),
    );
    request.timeout = Some(std::time::Duration::from_millis(50));
    assert_eq!(kit.run(request).await.err().unwrap().sqlstate(), "57014");
    kit.write("INSERT INTO t (_id, n) VALUES ('c', 1)").await;
}

#[tokio::test]
async fn a_sum_of_decimals_that_does_not_fit_is_an_error() {
    let kit = Kit::new();
    let most = "9".repeat(38);
    let values = [&most, &format!("-{most}"), &most, "-1"]
        .map(|text| format!("(CAST('{text}' AS DECIMAL(38, 0)))"));
    let rows = format!("(VALUES {}) AS t (d)", values.join(", "));
    let typed = "d";
    let sum = |what: &str, rest: &str| format!("SELECT sum({what}) FROM {rows} {rest}");
    for sql in [
        sum(typed, "WHERE d > 0"),
        sum(typed, "WHERE d > 0 GROUP BY d"),
        sum(&format!("DISTINCT {typed}"), "WHERE d < 0"),
        format!("SELECT sum({typed}) OVER (ORDER BY d DESC ROWS 1 PRECEDING) FROM {rows}"),
        format!(
            "SELECT CONSTANT_INTERVAL(PERIOD(TIMESTAMP '2026-01-01', TIMESTAMP '2026-01-02')), sum({typed}) \
             FROM {rows} WHERE d > 0 GROUP BY 1"
        ),
    ] {
        let error = kit.error(&sql).await;
        assert_eq!(error.sqlstate(), "22003", "{sql}: {error:?}");
    }
    // What fits is exact.
    let one = |text: &str| json!([[text]]);
    assert_eq!(kit.rows(&sum(typed, "WHERE d <> -1")).await, one(&most));
    let grouped = sum(typed, "WHERE d <> -1 GROUP BY d IS NULL");
    assert_eq!(kit.rows(&grouped).await, one(&most));
    let distinct = sum(&format!("DISTINCT {typed}"), "WHERE d <> -1");
    assert_eq!(kit.rows(&distinct).await, one("0"));
    let sliding =
        format!("SELECT sum({typed}) OVER (ORDER BY d ROWS 1 PRECEDING) FROM {rows} WHERE d < -1");
    assert_eq!(kit.rows(&sliding).await, one(&format!("-{most}")));
    assert_eq!(kit.rows(&sum(typed, "WHERE d = 5")).await, json!([[null]]));
}

#[tokio::test]
async fn an_instant_that_cannot_be_is_an_error_of_the_statement() {
    let kit = Kit::new();
    for sql in [
        "SELECT now() + INTERVAL '100000000 days'",
        "SELECT now() + INTERVAL '100000000000 days'",
        "SELECT now() - INTERVAL '10000000 months'",
        "SELECT to_char(now() + INTERVAL '100000000000 days', '%Y')",
    ] {
        let error = kit.error(sql).await;
        assert_eq!(error.sqlstate(), "22008", "{sql}: {error:?}");
    }
}
