//! Writes: periods, portions, types, tables that appear, transactions.

use everwhen_storage::Tenant;
use serde_json::json;

use super::kit::{Kit, with_params};
use crate::columns::json_of;
use crate::{Outcome, Request};

const HISTORY: &str =
    "SELECT v, _valid_from, _valid_to FROM t FOR ALL VALID_TIME ORDER BY _valid_from";

#[tokio::test]
async fn a_row_holds_from_its_transaction_on_unless_it_says_otherwise() {
    let kit = Kit::new();
    kit.at("2026-01-05");
    let answer = kit.write("INSERT INTO t (_id, v) VALUES ('a', 1)").await;
    assert_eq!(answer.system_time.to_string(), "2026-01-05T00:00:00Z");
    assert_eq!(kit.rows(HISTORY).await, json!([[1, "2026-01-05T00:00:00Z", null]]));
}

#[tokio::test]
async fn an_update_changes_its_portion_alone() {
    let kit = Kit::new();
    kit.write(
        "INSERT INTO t (_id, v, w, _valid_from) VALUES ('a', 1, 'x', TIMESTAMP '2025-01-01')",
    )
    .await;
    kit.write(
        "UPDATE t FOR PORTION OF VALID_TIME FROM TIMESTAMP '2025-03-01' TO TIMESTAMP '2025-04-01' \
         SET v = v + 1 WHERE _id = 'a'",
    )
    .await;
    assert_eq!(
        kit.rows(HISTORY).await,
        json!([
            [1, "2025-01-01T00:00:00Z", "2025-03-01T00:00:00Z"],
            [2, "2025-03-01T00:00:00Z", "2025-04-01T00:00:00Z"],
            [1, "2025-04-01T00:00:00Z", null],
        ])
    );
    kit.at("2026-02-01");
    kit.write("UPDATE t SET v = NULL, w = upper(w)").await;
    assert_eq!(kit.rows("SELECT v, w FROM t").await, json!([[null, "X"]]));
    let rows = kit.rows(HISTORY).await;
    assert_eq!(rows[2], json!([1, "2025-04-01T00:00:00Z", "2026-02-01T00:00:00Z"]));
}

#[tokio::test]
async fn a_delete_ends_its_portion_alone() {
    let kit = Kit::new();
    kit.write("INSERT INTO t (_id, v, _valid_from) VALUES ('a', 1, TIMESTAMP '2025-01-01')").await;
    kit.write(
        "DELETE FROM t FOR PORTION OF VALID_TIME FROM '2025-02-01' TO '2025-03-01' WHERE v = 1",
    )
    .await;
    kit.at("2026-03-01");
    kit.write("DELETE FROM t").await;
    assert_eq!(
        kit.rows(HISTORY).await,
        json!([
            [1, "2025-01-01T00:00:00Z", "2025-02-01T00:00:00Z"],
            [1, "2025-03-01T00:00:00Z", "2026-03-01T00:00:00Z"],
        ])
    );
}

#[tokio::test]
async fn a_patch_keeps_what_it_does_not_name() {
    let kit = Kit::new();
    kit.write("INSERT INTO t (_id, v, w) VALUES ('a', 1, 'x')").await;
    kit.at("2026-01-02");
    kit.write("PATCH INTO t (_id, v) VALUES ('a', 2)").await;
    assert_eq!(kit.rows("SELECT * FROM t").await, json!([["a", 2, "x"]]));
    kit.at("2026-01-03");
    kit.write("INSERT INTO t (_id, v) VALUES ('a', 3)").await;
    assert_eq!(kit.rows("SELECT * FROM t").await, json!([["a", 3, null]]));
}

#[tokio::test]
async fn several_writes_of_one_request_are_one_transaction() {
    let kit = Kit::new();
    kit.write("INSERT INTO t (_id, v) VALUES ('a', 1)").await;
    let answer = kit
        .write(
            "BEGIN; INSERT INTO t (_id, v) VALUES ('b', 2); INSERT INTO u (_id) VALUES (7); COMMIT",
        )
        .await;
    assert_eq!(answer.tx.get(), 2);
    let refused = kit.error("INSERT INTO t (_id, v) VALUES ('c', 3); INSERT INTO t (v) VALUES (4)");
    assert_eq!(refused.await.sqlstate(), "23502");
    assert_eq!(kit.rows("SELECT _id, v FROM t ORDER BY _id").await, json!([["a", 1], ["b", 2]]));
    assert_eq!(kit.store.latest().tx.get(), 2);
}

#[tokio::test]
async fn a_write_that_asserts_nothing_spends_no_transaction() {
    let kit = Kit::new();
    kit.write("INSERT INTO t (_id, v) VALUES ('a', 1)").await;
    assert_eq!(kit.write("DELETE FROM t WHERE v = 9").await.tx.get(), 1);
    assert_eq!(kit.write("INSERT INTO t (_id, v) VALUES ('a', 1)").await.tx.get(), 2);
}

#[tokio::test]
async fn an_undeclared_table_takes_new_columns_and_wider_values() {
    let kit = Kit::new();
    kit.write("INSERT INTO t (_id, v) VALUES ('a', 1)").await;
    kit.write("INSERT INTO t (_id, v, w) VALUES ('b', 1.5, true)").await;
    let rows = kit.rows("SELECT _id, v, w FROM t ORDER BY _id").await;
    assert_eq!(rows, json!([["a", 1.0, null], ["b", 1.5, true]]));
    kit.write("INSERT INTO t (_id, v) VALUES ('c', 'many')").await;
    let rows = kit.rows("SELECT _id, v FROM t ORDER BY _id").await;
    assert_eq!(rows, json!([["a", "1"], ["b", "1.5"], ["c", "many"]]));
    assert_eq!(kit.error("INSERT INTO t (_id) VALUES (1)").await.sqlstate(), "42804");
}

#[tokio::test]
async fn rows_can_come_from_a_query_and_from_parameters() {
    let kit = Kit::new();
    let request = with_params(
        "INSERT INTO t (_id, v, at) VALUES ($1, $2, now()), ('b', 2, NULL)",
        json!(["a", 1]),
    );
    assert!(matches!(kit.run(request).await, Ok(Outcome::Written(_))));
    kit.write("INSERT INTO u (_id, double) SELECT _id, v * 2 FROM t").await;
    let rows = kit.rows("SELECT * FROM u ORDER BY _id").await;
    assert_eq!(rows, json!([["a", 2], ["b", 4]]));
    let request = with_params("SELECT v FROM t WHERE _id = $id", json!({"id": "a"}));
    assert_eq!(kit.rows_of(request).await, json!([[1]]));
}

#[tokio::test]
async fn returning_shows_the_rows_a_write_touched() {
    let kit = Kit::new();
    let show = |answer: crate::WriteAnswer| {
        let batch = answer.returning.unwrap().remove(0);
        let schema = batch.schema();
        let cells = batch.columns().iter().zip(schema.fields());
        cells
            .map(|(array, field)| json_of(array, 0, &crate::columns::field_type(field).unwrap()))
            .collect::<serde_json::Value>()
    };
    let answer = kit.write("INSERT INTO t (_id, v) VALUES ('a', 1) RETURNING *, _valid_from").await;
    assert_eq!(show(answer), json!(["a", 1, "2026-01-01T00:00:00Z"]));
    let answer = kit.write("UPDATE t SET v = v + 1 RETURNING v * 10 AS tenfold").await;
    assert_eq!(show(answer), json!([20]));
    let answer = kit.write("DELETE FROM t RETURNING _id, v").await;
    assert_eq!(show(answer), json!(["a", 2]));
}

#[tokio::test]
async fn an_effective_table_keeps_later_facts_against_late_ones() {
    let kit = Kit::new();
    kit.write("CREATE TABLE t (_id TEXT, v BIGINT) WITH (precedence = 'effective')").await;
    kit.write("INSERT INTO t (_id, v, _valid_from) VALUES ('a', 2, TIMESTAMP '2025-02-01')").await;
    kit.write("INSERT INTO t (_id, v, _valid_from) VALUES ('a', 1, TIMESTAMP '2025-01-01')").await;
    assert_eq!(
        kit.rows(HISTORY).await,
        json!([
            [1, "2025-01-01T00:00:00Z", "2025-02-01T00:00:00Z"],
            [2, "2025-02-01T00:00:00Z", null],
        ])
    );
    kit.write("UPDATE t FOR PORTION OF VALID_TIME FROM '2025-01-15' TO '2025-02-15' SET v = 9")
        .await;
    assert_eq!(
        kit.rows("SELECT v, _valid_from FROM t FOR ALL VALID_TIME ORDER BY 2").await,
        json!([
            [1, "2025-01-01T00:00:00Z"],
            [9, "2025-01-15T00:00:00Z"],
            [2, "2025-02-15T00:00:00Z"],
        ])
    );
}

#[tokio::test]
async fn tenants_see_their_own_rows() {
    let kit = Kit::new();
    let tenant = Tenant::new("acme").unwrap();
    let of = |sql: &str| Request { tenant: tenant.clone(), ..Request::new(sql) };
    kit.write("INSERT INTO t (_id, v) VALUES ('a', 1)").await;
    let missing = kit.run(of("SELECT * FROM t")).await.err().unwrap();
    assert_eq!(missing.sqlstate(), "3D000");
    assert!(kit.run(of("INSERT INTO t (_id, v) VALUES ('a', 2)")).await.is_ok());
    assert_eq!(kit.rows_of(of("SELECT v FROM t")).await, json!([[2]]));
    assert_eq!(kit.rows("SELECT v FROM t").await, json!([[1]]));
}

#[tokio::test]
async fn composite_keys_and_dropped_tables() {
    let kit = Kit::new();
    kit.write("CREATE TABLE t (site TEXT, day DATE, v BIGINT NOT NULL, PRIMARY KEY (site, day))")
        .await;
    kit.write("INSERT INTO t (site, day, v) VALUES ('x', '2026-01-01', 1), ('x', '2026-01-02', 2)")
        .await;
    let sql = "SELECT v FROM t WHERE site = 'x' AND day = DATE '2026-01-02'";
    assert_eq!(kit.rows(sql).await, json!([[2]]));
    let plan = kit.engine.explain(Request::new(sql)).await.unwrap();
    assert!(plan.contains("keys=1"), "{plan}");
    kit.write("DROP TABLE t").await;
    assert_eq!(kit.error("SELECT * FROM t").await.sqlstate(), "42P01");
    kit.write("DROP TABLE IF EXISTS t").await;
}

#[tokio::test]
async fn later_statements_of_a_transaction_see_earlier_ones() {
    let kit = Kit::new();
    kit.write("INSERT INTO t (_id, v, _valid_from) VALUES ('a', 1, '2025-01-01')").await;
    kit.at("2026-01-05");
    let answer = kit
        .write(
            "INSERT INTO t (_id, v) VALUES ('b', 5); UPDATE t SET v = v + 1; \
             DELETE FROM t WHERE v = 2; INSERT INTO u (_id, n) SELECT _id, v FROM t",
        )
        .await;
    assert_eq!(answer.tx.get(), 2);
    assert_eq!(kit.rows("SELECT _id, v FROM t").await, json!([["b", 6]]));
    assert_eq!(kit.rows("SELECT _id, n FROM u").await, json!([["b", 6]]));
    let sql = "SELECT v, _valid_from, _valid_to FROM t FOR ALL VALID_TIME WHERE _id = 'a'";
    let before = json!([[1, "2025-01-01T00:00:00Z", "2026-01-05T00:00:00Z"]]);
    assert_eq!(kit.rows(sql).await, before);
}
