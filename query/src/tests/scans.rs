//! What scans read: ranges of keys, declared indexes, the order of rows, and what EXPLAIN tells of it.

use serde_json::{Value as Json, json};

use super::kit::Kit;
use crate::Request;

async fn places() -> Kit {
    let kit = Kit::new();
    kit.write("CREATE TABLE rooms (_id TEXT PRIMARY KEY, floor TEXT, seats INT)").await;
    kit.write("CREATE TABLE cells (site TEXT, at BIGINT, n INT, PRIMARY KEY (site, at))").await;
    for part in 0..3 {
        let rows: Vec<String> = (0..40)
            .map(|n| format!("('r{:03}', 'f{}', {n})", n * 3 + part, (n + part) % 7))
            .collect();
        kit.write(&format!("INSERT INTO rooms (_id, floor, seats) VALUES {}", rows.join(", ")))
            .await;
        let rows: Vec<String> = (0..40).map(|n| format!("('s{part}', {}, {n})", n - 20)).collect();
        kit.write(&format!("INSERT INTO cells (site, at, n) VALUES {}", rows.join(", "))).await;
        kit.clock_forward();
    }
    kit.write("UPDATE rooms SET floor = 'f9' WHERE seats = 4").await;
    kit
}

async fn plan(kit: &Kit, sql: &str) -> String {
    kit.rows(&format!("EXPLAIN {sql}")).await.to_string()
}

#[tokio::test]
async fn comparisons_of_the_key_read_a_range() {
    let kit = places().await;
    for (table, pushed, plain) in [
        ("rooms", "_id >= 'r100'", "_id || '' >= 'r100'"),
        ("rooms", "_id < 'r010'", "_id || '' < 'r010'"),
        ("rooms", "'r050' <= _id AND _id <= 'r055'", "_id || '' BETWEEN 'r050' AND 'r055'"),
        ("rooms", "_id BETWEEN 'r110' AND 'r900'", "_id || '' >= 'r110'"),
        ("rooms", "_id LIKE 'r01%'", "_id || '' LIKE 'r01%'"),
        ("rooms", "_id LIKE 'r_1%'", "_id || '' LIKE 'r_1%'"),
        ("rooms", "_id > 'r050' AND _id < 'r040'", "false"),
        ("cells", "site = 's1'", "site || '' = 's1'"),
        ("cells", "site = 's1' AND at > 5", "site || '' = 's1' AND at + 0 > 5"),
        ("cells", "site = 's2' AND at BETWEEN -3 AND 3", "site || '' = 's2' AND abs(at) <= 3"),
        ("cells", "site > 's0' AND at = 7", "site || '' > 's0' AND at + 0 = 7"),
        ("cells", "site LIKE 's2%' AND at < -10", "site || '' = 's2' AND at + 0 < -10"),
    ] {
        let sql = format!("SELECT * FROM {table} WHERE {pushed}");
        assert!(plan(&kit, &sql).await.contains("keys=range"), "{sql}");
        let found = kit.rows(&sql).await;
        assert_eq!(found, kit.rows(&format!("SELECT * FROM {table} WHERE {plain}")).await, "{sql}");
        assert_eq!(found == json!([]), plain == "false", "{sql}");
    }
    assert!(!plan(&kit, "SELECT * FROM rooms WHERE seats > 3").await.contains("keys="));
}

#[tokio::test]
async fn rows_come_in_the_order_of_their_keys_without_being_sorted() {
    let kit = places().await;
    for sql in [
        "SELECT * FROM rooms ORDER BY _id LIMIT 3",
        "SELECT n, at FROM cells WHERE site = 's1' ORDER BY at",
        "SELECT site, at FROM cells ORDER BY site, at",
    ] {
        assert!(!plan(&kit, sql).await.contains("SortExec"), "{sql}");
    }
    for sql in ["SELECT * FROM rooms ORDER BY _id DESC", "SELECT at FROM cells ORDER BY at"] {
        assert!(plan(&kit, sql).await.contains("SortExec"), "{sql}");
    }
    let first = json!([["r000", "f0", 0], ["r001", "f1", 0]]);
    assert_eq!(kit.rows("SELECT * FROM rooms ORDER BY _id LIMIT 2").await, first);
    // What a transaction wrote before comes last, and so is sorted in.
    let sql = "INSERT INTO rooms (_id, floor) VALUES ('a', 'f0'); \
               INSERT INTO cells (site, at) SELECT _id, 1 FROM rooms ORDER BY _id LIMIT 1";
    kit.write(sql).await;
    assert_eq!(kit.rows("SELECT site FROM cells WHERE at = 1 LIMIT 1").await, json!([["a"]]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sides_of_a_union_come_in_the_order_of_the_text() {
    let kit = places().await;
    let sql = "SELECT _id FROM rooms UNION ALL SELECT site FROM cells UNION ALL SELECT 'last'";
    let first = kit.rows(sql).await;
    assert_eq!(
        (&first[0][0], &first[120][0], &first[240][0]),
        (&json!("r000"), &json!("s0"), &json!("last"))
    );
    for _ in 0..20 {
        assert_eq!(kit.rows(sql).await, first);
    }
    assert_eq!(kit.rows(&format!("{sql} LIMIT 121")).await[120], first[120]);
}

#[tokio::test]
async fn explain_analyze_counts_what_was_read_and_skipped() {
    let kit = places().await;
    let of = async |sql: &str, name: &str| {
        let plan = kit.rows(&format!("EXPLAIN ANALYZE {sql}")).await.to_string();
        let (_, after) = plan.split_once(&format!("{name}=")).unwrap_or_else(|| panic!("{plan}"));
        after.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u32>().unwrap()
    };
    let all = "SELECT * FROM rooms";
    assert_eq!([of(all, "keys_read").await, of(all, "output_rows").await], [120, 120]);
    let early = "SELECT * FROM rooms FOR VALID_TIME AS OF '2025-01-01'";
    assert_eq!([of(early, "versions_read").await, of(early, "versions_skipped").await], [120, 120]);
    let some = "SELECT * FROM rooms WHERE _id >= 'r110'";
    assert_eq!(of(some, "keys_read").await, 10);
    let history = "SELECT * FROM rooms FOR ALL VALID_TIME";
    assert_eq!(of(history, "versions_read").await, 123);
}

#[tokio::test]
async fn an_index_narrows_and_changes_no_answer() {
    let kit = places().await;
    let asked = [
        "SELECT * FROM rooms WHERE floor = 'f1'",
        "SELECT * FROM rooms WHERE floor IN ('f1', 'f9') AND seats > 3",
        "SELECT * FROM rooms FOR ALL VALID_TIME FOR ALL SYSTEM_TIME WHERE floor = 'f5'",
        "SELECT * FROM rooms FOR SYSTEM_TIME AS OF '2026-01-01T00:01:30Z' WHERE floor = 'f4'",
        "SELECT * FROM rooms WHERE floor = 'f0' AND seats = 7",
        "SELECT * FROM rooms WHERE floor = 'nowhere'",
    ];
    let answers = async || {
        let mut answers: Vec<Json> = Vec::new();
        for sql in asked {
            answers.push(kit.rows(sql).await);
        }
        answers
    };
    let before = answers().await;
    kit.alter("CREATE INDEX by_floor ON rooms (floor)").await.unwrap();
    kit.alter("CREATE INDEX by_both ON rooms (floor, seats)").await.unwrap();
    for sql in asked {
        assert!(plan(&kit, sql).await.contains("index=by_"), "{sql}");
    }
    assert!(plan(&kit, asked[4]).await.contains("index=by_both"));
    assert_eq!(answers().await, before);
    let sql = format!("EXPLAIN ANALYZE {}", asked[0]);
    assert!(kit.rows(&sql).await.to_string().contains("keys_read=1"));

    // What is written afterwards is found, within the transaction that writes it too.
    kit.write("UPDATE rooms SET floor = 'f1' WHERE _id = 'r119'").await;
    let at_f1 = "SELECT count(*) FROM rooms WHERE floor = 'f1'";
    let with = kit.rows(at_f1).await;
    assert_eq!(with, kit.rows("SELECT count(*) FROM rooms WHERE floor || '' = 'f1'").await);
    kit.write(
        "UPDATE rooms SET floor = 'f8' WHERE _id = 'r118'; UPDATE rooms SET seats = 99 WHERE floor = 'f8'",
    )
    .await;
    assert_eq!(kit.rows("SELECT _id FROM rooms WHERE seats = 99").await, json!([["r118"]]));

    let listed = kit.rows("SELECT * FROM everwhen.indexes").await;
    assert_eq!(
        listed,
        json!([["by_both", "rooms", "floor, seats"], ["by_floor", "rooms", "floor"]])
    );
    kit.alter("DROP INDEX by_both").await.unwrap();
    kit.alter("DROP INDEX by_floor").await.unwrap();
    assert!(!plan(&kit, asked[0]).await.contains("index="));
    assert!(kit.store.definitions().indexes.is_empty());
    assert_eq!(kit.rows(at_f1).await, with);
    kit.alter("CREATE INDEX again ON rooms (floor)").await.unwrap();
    assert!(plan(&kit, asked[0]).await.contains("index=again"));
    assert_eq!(kit.rows(at_f1).await, with);
}

#[tokio::test]
async fn indexes_are_refused_where_they_cannot_be() {
    let kit = places().await;
    kit.write("CREATE TABLE odd (_id TEXT PRIMARY KEY, f FLOAT, j JSON)").await;
    kit.alter("CREATE INDEX i ON rooms (floor)").await.unwrap();
    for (sql, state) in [
        ("CREATE INDEX i ON rooms (seats)", "42710"),
        ("CREATE INDEX j ON nowhere (a)", "42P01"),
        ("CREATE INDEX j ON rooms (nothing)", "42703"),
        ("CREATE INDEX j ON rooms (floor, floor)", "42701"),
        ("CREATE INDEX j ON odd (f)", "42P17"),
        ("CREATE INDEX j ON rooms (lower(floor))", "0A000"),
        ("CREATE INDEX j ON rooms (floor DESC)", "0A000"),
        ("CREATE INDEX j ON rooms USING hash (floor)", "0A000"),
        ("CREATE INDEX j ON rooms (floor) WHERE seats > 1", "42601"),
        ("CREATE INDEX j ON rooms ((((", "0A000"),
        ("CREATE INDEX j ON rooms )", "42601"),
        ("CREATE UNIQUE INDEX j ON rooms (floor)", "0A000"),
        ("CREATE INDEX ON rooms (floor)", "42601"),
        ("DROP INDEX j", "42704"),
        ("ALTER TABLE rooms DROP COLUMN floor", "2BP01"),
        ("ALTER TABLE rooms ALTER COLUMN floor TYPE JSON", "2BP01"),
    ] {
        let error = match kit.run(Request::new(sql)).await {
            Err(error) => error,
            Ok(_) => kit.alter(sql).await.unwrap_err(),
        };
        assert_eq!(error.state().code(), state, "{sql}: {error:?}");
    }
    let before = kit.store.latest().tx;
    kit.alter("CREATE INDEX IF NOT EXISTS i ON rooms (seats)").await.unwrap();
    kit.alter("DROP INDEX IF EXISTS j").await.unwrap();
    assert_eq!(kit.store.latest().tx, before);
    kit.alter("CREATE OR REPLACE INDEX i ON rooms (seats)").await.unwrap();
    assert!(plan(&kit, "SELECT * FROM rooms WHERE seats = 1").await.contains("index=i"));
    assert!(!plan(&kit, "SELECT * FROM rooms WHERE floor = 'f1'").await.contains("index="));
    kit.write("DROP TABLE rooms").await;
    assert_eq!(kit.rows("SELECT * FROM everwhen.indexes").await, json!([]));
}

#[tokio::test]
async fn the_catalogs_are_read_by_their_schema() {
    let kit = places().await;
    let sql = "SELECT column_name, data_type FROM information_schema.columns \
               WHERE table_name = 'cells' ORDER BY ordinal_position LIMIT 2";
    assert_eq!(kit.rows(sql).await[0][0], json!("site"));
    let sql =
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1";
    assert_eq!(kit.rows(sql).await, json!([["cells"], ["rooms"]]));
    for sql in [
        "SELECT * FROM information_schema.tables FOR ALL VALID_TIME",
        "SELECT * FROM information_schema.tables, rooms",
    ] {
        let error = kit.run(Request::new(sql)).await.err().unwrap();
        assert_eq!(error.state().code(), "0A000", "{error:?}");
    }
    assert_eq!(kit.rows("SELECT tenant FROM everwhen.tenants").await, json!([["default"]]));
}

/// The tables of a plan in the order in which it names them: a join holds the first one.
async fn tables_of(kit: &Kit, sql: &str) -> Vec<String> {
    let plan = kit.engine.explain(Request::new(sql)).await.unwrap();
    let physical = plan.rsplit_once("physical_plan").map_or(plan.as_str(), |(_, plan)| plan);
    let named = physical.split("ScanExec: table=").skip(1);
    named.map(|rest| rest.split([',', '\n']).next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn joins_hold_the_smaller_side_and_go_on_doing_what_they_did_at_a_basis() {
    let kit = Kit::new();
    kit.write("CREATE TABLE facts (_id INT PRIMARY KEY, kind INT)").await;
    kit.write("CREATE TABLE kinds (_id INT PRIMARY KEY, name INT)").await;
    let some = "SELECT value, value % 30 FROM generate_series";
    kit.write(&format!("INSERT INTO facts (_id, kind) {some}(1, 10)")).await;
    kit.write(&format!("INSERT INTO kinds (_id, name) {some}(0, 29)")).await;
    let joins = ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"];
    let sql = |join, clause| {
        format!(
            "SELECT f._id, k.name FROM facts {clause} AS f {join} kinds {clause} AS k ON f.kind = k._id"
        )
    };
    let mut before = Vec::new();
    for join in joins {
        assert_eq!(tables_of(&kit, &sql(join, "")).await, ["facts", "kinds"], "{join}");
        before.push(kit.rows(&sql(join, "")).await);
    }
    let then = kit.rows("SELECT CAST(now() AS TEXT)").await[0][0].as_str().unwrap().to_owned();
    kit.clock_forward();
    kit.write(&format!("INSERT INTO facts (_id, kind) {some}(11, 2000)")).await;
    let past = format!("FOR SYSTEM_TIME AS OF '{then}'");
    for (join, before) in joins.into_iter().zip(before) {
        let now = sql(join, "");
        assert_eq!(tables_of(&kit, &now).await, ["kinds", "facts"], "{join}");
        // Whatever side is held, the rows are the same.
        let turned = "ON k._id = f.kind ORDER BY 1, 2";
        let plain = now.replace("ON f.kind = k._id", "ON f.kind + 0 = k._id + 0 ORDER BY 1, 2");
        let sorted = now.replace("ON f.kind = k._id", turned);
        assert_eq!(kit.rows(&sorted).await, kit.rows(&plain).await, "{join}");
        let past = sql(join, &past);
        assert_eq!(tables_of(&kit, &past).await, ["facts", "kinds"], "{join}");
        assert_eq!(kit.rows(&past).await, before, "{join}");
    }
    // Of a few keys there are few rows, whatever the table has.
    let few = sql("JOIN", "") + " WHERE f._id IN (1, 2, 3)";
    assert_eq!(tables_of(&kit, &few).await, ["facts", "kinds"]);
}
