//! BEGIN with options, in one request; arithmetic that has no place.

use serde_json::json;

use super::kit::Kit;
use crate::Request;

#[tokio::test]
async fn a_transaction_that_reads_has_its_basis_and_now() {
    let kit = Kit::new();
    kit.write("CREATE TABLE t (_id TEXT, n INT)").await;
    kit.write("INSERT INTO t (_id, n) VALUES ('a', 1)").await;
    let token = kit.answer(Request::new("SELECT 1")).await.basis;
    kit.clock_forward();
    kit.write("UPDATE t SET n = 2").await;
    let sql = format!("BEGIN READ ONLY WITH (SNAPSHOT_TOKEN = '{token}'); SELECT n FROM t; COMMIT");
    assert_eq!(kit.rows(&sql).await, json!([[1]]));
    let sql = "BEGIN WITH (CLOCK_TIME = TIMESTAMP '2025-01-01T00:00:00Z'); SELECT now(), count(*) FROM t; COMMIT";
    assert_eq!(kit.rows(sql).await, json!([["2025-01-01T00:00:00Z", 0]]));
    let sql = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SELECT n FROM t; COMMIT";
    assert_eq!(kit.rows(sql).await, json!([[2]]));
    for (sql, state) in [
        ("BEGIN WITH (CLOCK_TIME = '2025-01-01'); DELETE FROM t; COMMIT", "25006"),
        ("BEGIN WITH (SYSTEM_TIME = '2025-01-01'); SELECT 1; COMMIT", "0A000"),
        ("BEGIN WITH (SNAPSHOT_TOKEN = 'x'); SELECT 1; COMMIT", "22023"),
    ] {
        assert_eq!(kit.error(sql).await.sqlstate(), state, "{sql}");
    }
}

#[tokio::test]
async fn a_transaction_that_writes_may_have_a_chosen_system_time() {
    let kit = Kit::new();
    kit.write("CREATE TABLE t (_id TEXT, n INT)").await;
    kit.at("2026-01-05");
    let insert = "INSERT INTO t (_id, n) VALUES ('a', 1)";
    let sql = format!(
        "BEGIN READ WRITE WITH (SYSTEM_TIME = TIMESTAMP '2026-01-03T00:00:00Z'); {insert}; COMMIT"
    );
    assert_eq!(kit.write(&sql).await.system_time.to_string(), "2026-01-03T00:00:00Z");
    let rows = kit.rows("SELECT _valid_from, _system_from FROM t").await;
    assert_eq!(rows, json!([["2026-01-03T00:00:00Z", "2026-01-03T00:00:00Z"]]));
    for at in ["2026-01-02", "2026-01-06"] {
        let sql = format!("BEGIN WITH (SYSTEM_TIME = '{at}'); {insert}; COMMIT");
        assert_eq!(kit.error(&sql).await.sqlstate(), "22023", "{at}");
    }
}

#[tokio::test]
async fn integers_that_do_not_fit_are_an_error_and_never_wrap() {
    let kit = Kit::new();
    kit.write("CREATE TABLE t (_id TEXT, n INT)").await;
    kit.write("INSERT INTO t (_id, n) VALUES ('a', 9223372036854775807), ('b', 2)").await;
    for sql in [
        "SELECT 9223372036854775807 + 1",
        "SELECT n + 1 FROM t",
        "SELECT -n - 2 FROM t",
        "SELECT - (n * -1 - 1) FROM t",
        "SELECT n * 2 AS twice FROM t GROUP BY n * 2",
        "SELECT 1 FROM t WHERE n + n > 0",
        "SELECT abs(n + 1) FROM t",
        "UPDATE t SET n = n + 1",
        "SELECT sum(n) FROM t",
        "SELECT sum(DISTINCT n) FROM t",
        "SELECT sum(n) + 0.5 FROM t",
        "SELECT 1, sum(n) FROM t GROUP BY 1",
        "SELECT sum(n) FILTER (WHERE n > 0) FROM t GROUP BY n IS NULL",
        "SELECT sum(n) OVER (ORDER BY _id) FROM t",
        "SELECT sum(n) OVER (ORDER BY _id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t",
    ] {
        assert_eq!(kit.error(sql).await.sqlstate(), "22003", "{sql}");
    }
    let sql = "SELECT n + 1, n - 1, n * 3, 2 + NULL, 10 - n * 2 - 1, -n, - (1 - n) FROM t WHERE _id = 'b'";
    assert_eq!(kit.rows(sql).await, json!([[3, 1, 6, null, 5, -2, 1]]));
    let sql = "SELECT n + 1 AS m, count(*) FROM t WHERE n < 9 GROUP BY n + 1 ORDER BY n + 1";
    assert_eq!(kit.rows(sql).await, json!([[3, 1]]));
    let sql = "SELECT n + 1.5, n + n / 2.0, _id || 'x' FROM t WHERE n < 9";
    assert_eq!(kit.rows(sql).await[0][2], json!("bx"));
    let sql = "SELECT sum(n - 9), sum(DISTINCT n - 9), sum(n) FILTER (WHERE n < 0) FROM t";
    assert_eq!(
        kit.rows(sql).await,
        json!([[9_223_372_036_854_775_791_i64, 9_223_372_036_854_775_791_i64, null]])
    );
    let sql =
        "SELECT sum(n) OVER (ORDER BY _id DESC), sum(n) OVER (PARTITION BY _id) FROM t WHERE n < 9";
    assert_eq!(kit.rows(sql).await, json!([[2, 2]]));
    let sql = "SELECT sum(CAST(n AS DECIMAL)), avg(n) > 0 FROM t";
    assert_eq!(kit.rows(sql).await, json!([["9223372036854775809", true]]));
    let sql = "SELECT CASE WHEN n < 9 THEN n + 1 ELSE 0 END FROM t ORDER BY 1";
    assert_eq!(kit.rows(sql).await, json!([[0], [3]]));
}

#[tokio::test]
async fn long_and_deep_arithmetic_is_planned_in_no_time() {
    let kit = Kit::new();
    kit.write("CREATE TABLE t (_id TEXT, n INT)").await;
    kit.write("INSERT INTO t (_id, n) VALUES ('a', 1)").await;
    let chain = format!("SELECT {}n FROM t", "n + ".repeat(899));
    let in_time = std::time::Duration::from_secs(30);
    let rows = tokio::time::timeout(in_time, kit.rows(&chain)).await.unwrap();
    assert_eq!(rows, json!([[900]]));
    let deep = format!("SELECT {}n{} FROM t", "abs(1 + ".repeat(50), ")".repeat(50));
    let rows = tokio::time::timeout(in_time, kit.rows(&deep)).await.unwrap();
    assert_eq!(rows, json!([[51]]));
    // Not of integers alone, and integers within: each is looked at once more, not twice as often.
    let mixed =
        format!("SELECT {}n{} FROM t", "CAST((n + ".repeat(18), ") * 1.0 AS BIGINT)".repeat(18));
    let rows = tokio::time::timeout(in_time, kit.rows(&mixed)).await.unwrap();
    assert_eq!(rows, json!([[19]]));
}
