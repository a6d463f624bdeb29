//! `everwhen.audit`: what was done to definitions and keys, in order.

use serde_json::{Value as Json, json};

use super::kit::Kit;

const ACTS: &str = "SELECT action, kind, name, detail FROM everwhen.audit ORDER BY tx, action";

async fn last(kit: &Kit) -> Json {
    let acts = kit.rows(ACTS).await;
    acts.as_array().and_then(|acts| acts.last()).cloned().unwrap_or_default()
}

#[tokio::test]
async fn every_change_of_a_definition_is_listed_with_its_transaction() {
    let kit = Kit::new();
    assert_eq!(kit.rows(ACTS).await, json!([]));
    kit.at("2026-01-02");
    let made = kit.write("CREATE TABLE emp (_id TEXT, name TEXT NOT NULL, age INT)").await;
    let first = kit.rows("SELECT tx, system_time FROM everwhen.audit").await;
    assert_eq!(first, json!([[made.tx.get(), "2026-01-02T00:00:00Z"]]));
    let detail = "_id text not null, name text not null, age int64; precedence = recorded";
    assert_eq!(last(&kit).await, json!(["create", "table", "emp", detail]));
    kit.write("INSERT INTO emp (_id, name) VALUES ('e1', 'Ada')").await;
    assert_eq!(kit.rows(ACTS).await.as_array().map(Vec::len), Some(1), "rows are no definitions");
    for (sql, act) in [
        ("ALTER TABLE emp ADD COLUMN team TEXT", json!(["alter", "table", "emp", "add team text"])),
        (
            "ALTER TABLE emp RENAME COLUMN team TO crew",
            json!(["alter", "table", "emp", "rename team to crew"]),
        ),
        (
            "ALTER TABLE emp ALTER COLUMN age TYPE FLOAT",
            json!(["alter", "table", "emp", "change age to age float64"]),
        ),
        ("ALTER TABLE emp DROP COLUMN age", json!(["alter", "table", "emp", "drop age"])),
    ] {
        kit.alter(sql).await.unwrap();
        assert_eq!(last(&kit).await, act, "{sql}");
    }
    for (sql, act) in [
        ("CREATE VIEW staff AS SELECT name FROM emp", json!(["create", "view", "staff", null])),
        (
            "CREATE OR REPLACE VIEW staff AS SELECT crew FROM emp",
            json!(["replace", "view", "staff", null]),
        ),
        ("DROP VIEW staff", json!(["drop", "view", "staff", null])),
        ("DROP TABLE emp", json!(["drop", "table", "emp", null])),
    ] {
        kit.write(sql).await;
        assert_eq!(last(&kit).await, act, "{sql}");
    }
    // A table that comes to be by a write, and grows by one.
    kit.write("INSERT INTO pets (_id, name) VALUES (1, 'Rex')").await;
    assert_eq!(last(&kit).await[2], "pets");
    kit.write("INSERT INTO pets (_id, legs) VALUES (1, 4)").await;
    assert_eq!(last(&kit).await, json!(["alter", "table", "pets", "add legs int64"]));
    let erased = kit.write("ERASE FROM pets WHERE _id = 1").await;
    let sql = "SELECT tx, kind, name FROM everwhen.audit WHERE action = 'erase'";
    assert_eq!(kit.rows(sql).await, json!([[erased.tx.get(), "table", "pets"]]));
}
