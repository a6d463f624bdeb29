//! BEGIN with options, in one request.

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
