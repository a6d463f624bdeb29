//! SETTING, ONLY and ASSERT.

use serde_json::json;

use super::kit::{Kit, with_params};
use crate::Request;

async fn rooms() -> Kit {
    let kit = Kit::new();
    kit.write("CREATE TABLE room (_id TEXT, name TEXT)").await;
    kit.write(
        "INSERT INTO room (_id, name, _valid_from, _valid_to) VALUES \
         ('r', 'old', '2025-01-01', '2025-06-01'), ('r', 'new', '2025-06-01', NULL)",
    )
    .await;
    kit
}

#[tokio::test]
async fn a_setting_is_what_tables_without_a_clause_read() {
    let kit = rooms().await;
    let all = json!([["new"], ["old"]]);
    let old = json!([["old"]]);
    for (sql, expected) in [
        ("SETTING DEFAULT VALID_TIME ALL SELECT name FROM room ORDER BY 1", &all),
        ("SETTING DEFAULT VALID_TIME TO AS OF DATE '2025-02-01' SELECT name FROM room", &old),
        (
            "SETTING DEFAULT VALID_TIME = FROM '2025-01-01' TO '2025-06-01' SELECT name FROM room",
            &old,
        ),
        (
            "SETTING DEFAULT VALID_TIME BETWEEN '2025-01-01' AND '2025-06-01' SELECT name FROM room ORDER BY 1",
            &all,
        ),
        (
            "SETTING DEFAULT VALID_TIME ALL SELECT name FROM room FOR VALID_TIME AS OF '2025-02-01'",
            &old,
        ),
        (
            "SETTING DEFAULT SYSTEM_TIME ALL, DEFAULT VALID_TIME AS OF '2025-02-01' WITH x AS (SELECT name FROM room) SELECT * FROM x",
            &old,
        ),
        ("SETTING CLOCK_TIME = TIMESTAMP '2025-02-01T00:00:00Z' SELECT name FROM room", &old),
        (
            "SETTING CLOCK_TIME = now() - INTERVAL '300 days' SELECT name FROM room WHERE now() < '2025-06-01'",
            &old,
        ),
    ] {
        assert_eq!(kit.rows(sql).await, *expected, "{sql}");
    }
    let request = with_params(
        "SETTING DEFAULT VALID_TIME AS OF $1 SELECT name FROM room",
        json!(["2025-02-01"]),
    );
    assert_eq!(kit.rows_of(request).await, old);
    let mut request =
        Request::new("SETTING DEFAULT VALID_TIME ALL SELECT name FROM room ORDER BY 1");
    request.valid_time = Some(everwhen_storage::ValidTime::parse("2025-02-01").unwrap());
    assert_eq!(kit.rows_of(request).await, all);
}

#[tokio::test]
async fn a_setting_may_name_the_basis() {
    let kit = rooms().await;
    let token = kit.answer(Request::new("SELECT 1")).await.basis;
    kit.clock_forward();
    kit.write("UPDATE room SET name = 'newer' WHERE _id = 'r'").await;
    let sql = format!("SETTING SNAPSHOT_TOKEN = '{token}' SELECT name FROM room");
    let answer = kit.answer(Request::new(sql.as_str())).await;
    assert_eq!(answer.basis, token);
    assert_eq!(kit.rows(&sql).await, json!([["new"]]));
}

#[tokio::test]
async fn what_is_no_setting_is_refused() {
    let kit = rooms().await;
    for (sql, state) in [
        ("SETTING DEFAULT VALID_TIME ALL, DEFAULT VALID_TIME ALL SELECT 1", "42601"),
        ("SETTING DEFAULT TIME ALL SELECT 1", "42601"),
        ("SETTING COLOUR = 'red' SELECT 1", "42704"),
        ("SETTING CLOCK_TIME = NULL SELECT 1", "22004"),
        ("SETTING SNAPSHOT_TOKEN = 'x' SELECT 1", "22023"),
        ("SETTING DEFAULT VALID_TIME AS OF NULL SELECT * FROM room", "22004"),
        ("SETTING DEFAULT VALID_TIME ALL DELETE FROM room", "0A000"),
    ] {
        assert_eq!(kit.error(sql).await.sqlstate(), state, "{sql}");
    }
}

#[tokio::test]
async fn only_cuts_the_bounds_of_rows_to_the_window() {
    let kit = rooms().await;
    let sql = "SELECT name, _valid_from, _valid_to, _valid_time FROM room \
               FOR VALID_TIME ONLY FROM '2025-05-01' TO '2025-07-01' ORDER BY 2";
    let at = |day: &str| format!("{day}T00:00:00Z");
    let row = |name: &str, from: &str, to: &str| json!([name, at(from), at(to), {"from": at(from), "to": at(to)}]);
    let expected =
        json!([row("old", "2025-05-01", "2025-06-01"), row("new", "2025-06-01", "2025-07-01")]);
    assert_eq!(kit.rows(sql).await, expected);
    let sql = "SELECT _valid_to FROM room FOR VALID_TIME ONLY FROM '2025-07-01' TO NULL";
    assert_eq!(kit.rows(sql).await, json!([[null]]));
    let sql = "SELECT 1 FROM room FOR SYSTEM_TIME ONLY FROM '2025-05-01' TO '2025-07-01'";
    assert_eq!(kit.error(sql).await.sqlstate(), "42601");
}

#[tokio::test]
async fn an_assertion_that_fails_undoes_its_transaction() {
    let kit = rooms().await;
    let insert = "INSERT INTO room (_id, name) VALUES ('s', 'second')";
    let unique =
        "ASSERT NOT EXISTS (SELECT 1 FROM room WHERE name = 'second'), 'the name is taken'";
    kit.write(&format!("{unique}; {insert}")).await;
    let error = kit.error(&format!("{insert}; {unique}")).await;
    assert_eq!((error.sqlstate(), error.to_string().as_str()), ("P0004", "the name is taken"));
    for (sql, state, text) in [
        ("ASSERT 1 = 2", "P0004", "1 = 2"),
        ("ASSERT NULL", "P0004", "NULL"),
        ("ASSERT 1", "42804", "condition"),
        ("ASSERT 1 = 2, 'n' || 1", "P0004", "n1"),
        ("ASSERT 1 = 1 FROM room", "42601", "condition"),
        ("ASSERT *", "42601", "condition"),
    ] {
        let error = kit.error(sql).await;
        assert_eq!(error.sqlstate(), state, "{sql}");
        assert!(error.to_string().contains(text), "{sql}: {error}");
    }
    let before = kit.store.latest().tx;
    kit.write("ASSERT (SELECT count(*) FROM room) = 2").await;
    assert_eq!(kit.store.latest().tx, before);
    let request = with_params("ASSERT $1 = 2, $2", json!([1, "not two"]));
    let error = kit.run(request).await.err().unwrap();
    assert_eq!(error.to_string(), "not two");
}
