//! ERASE and history retention, by SQL.

use serde_json::json;

use super::kit::{Kit, with_params};
use crate::Request;

const ALL: &str = "SELECT _id, v FROM t FOR ALL VALID_TIME FOR ALL SYSTEM_TIME ORDER BY _id, v";

#[tokio::test]
async fn erase_matches_what_was_true_at_any_time_and_takes_the_whole_key() {
    let kit = Kit::new();
    kit.write("INSERT INTO t (_id, v) VALUES ('a', 1), ('b', 2), ('c', 3)").await;
    kit.at("2026-02-01");
    kit.write("UPDATE t SET v = 9 WHERE _id = 'a'").await;
    let before = kit.write("DELETE FROM t WHERE _id = 'b'").await;
    kit.at("2026-03-01");
    // 1 and 2 are the past of a and b.
    let erased = kit.write("ERASE FROM t AS x WHERE x.v IN (1, 2)").await;
    assert_eq!(kit.rows(ALL).await, json!([["c", 3]]));
    let then = Request { basis: Some(before.basis), ..Request::new(ALL) };
    assert_eq!(kit.rows_of(then).await, json!([["c", 3]]));
    let listed = "SELECT \"table\", erased_tx, state FROM everwhen.erasures";
    let tx = erased.tx.get();
    assert_eq!(kit.rows(listed).await, json!([["t", tx, "hidden"], ["t", tx, "hidden"]]));
    kit.write("INSERT INTO t (_id, v) VALUES ('a', 4)").await;
    assert_eq!(kit.rows(ALL).await, json!([["a", 4], ["c", 3]]));
}

#[tokio::test]
async fn a_key_that_is_named_is_erased_though_nothing_of_it_is_stored() {
    let kit = Kit::new();
    kit.write("CREATE TABLE d (part TEXT, n BIGINT, v BIGINT, PRIMARY KEY (part, n))").await;
    let first = kit.write("INSERT INTO d (part, n, v) VALUES ('x', 1, 1)").await;
    // Not both columns of the key, or more than the key: nothing but rows.
    let nothing = kit.write("ERASE FROM d WHERE part = 'y'").await;
    let more = kit.write("ERASE FROM d WHERE part = 'y' AND n = 1 AND v = 1").await;
    assert_eq!([nothing.tx, more.tx], [first.tx, first.tx]);
    let request = with_params("ERASE FROM d WHERE n = $1 AND part = $2", json!([2, "x"]));
    assert!(kit.run(request).await.is_ok());
    let erased = kit.rows("SELECT count(*) FROM everwhen.erasures").await;
    assert_eq!(erased, json!([[1]]));
    assert_eq!(kit.rows("SELECT n FROM d").await, json!([[1]]));
}

#[tokio::test]
async fn erase_stands_with_nothing_but_itself() {
    let kit = Kit::new();
    kit.write("INSERT INTO t (_id, v) VALUES ('a', 1), ('b', 1)").await;
    let mixed = "INSERT INTO t (_id, v) VALUES ('c', 1); ERASE FROM t WHERE _id = 'a'";
    assert_eq!(kit.error(mixed).await.sqlstate(), "0A000");
    assert_eq!(kit.error("ERASE FROM nothing WHERE _id = 'a'").await.sqlstate(), "42P01");
    assert_eq!(kit.error("ERASE FROM t WHERE w = 'a'").await.sqlstate(), "42703");
    kit.write("ERASE FROM t WHERE _id = 'a'; ERASE FROM t WHERE _id = 'b'").await;
    assert_eq!(kit.rows(ALL).await, json!([]));
}

#[tokio::test]
async fn history_is_kept_as_long_as_the_table_says() {
    let kit = Kit::new();
    kit.write("CREATE TABLE t (_id TEXT, v BIGINT) WITH (history_retention = '30 days')").await;
    let first = kit.write("INSERT INTO t (_id, v) VALUES ('a', 1)").await;
    kit.at("2026-02-01");
    let second = kit.write("UPDATE t SET v = 2").await;
    kit.at("2026-03-15");
    let third = kit.write("UPDATE t SET v = 3").await;
    let needed = everwhen_storage::Needed { tx: third.tx, now: kit.store.latest().now };
    kit.store.sweep(needed).unwrap();
    let at = |basis: &str| Request {
        basis: Some(basis.to_owned()),
        ..Request::new("SELECT v FROM t FOR ALL VALID_TIME ORDER BY v")
    };
    assert_eq!(kit.rows_of(at(&second.basis)).await, json!([[1], [2]]));
    let error = super::kit::collect(kit.answer(at(&first.basis)).await).await.unwrap_err();
    assert_eq!(error.sqlstate(), "22023");
    assert!(error.to_string().contains("2026-02-01T00:00:00Z"), "{error}");
    let early = "SELECT v FROM t FOR SYSTEM_TIME AS OF TIMESTAMP '2026-01-15'";
    assert_eq!(kit.error(early).await.sqlstate(), "22023");
    let from = "SELECT v FROM t FOR SYSTEM_TIME FROM NULL TO NULL";
    assert_eq!(kit.error(from).await.sqlstate(), "22023");
    // All that is kept is no error.
    assert_eq!(kit.rows("SELECT v FROM t FOR ALL SYSTEM_TIME ORDER BY v").await, json!([[2], [3]]));
    let listed = "SELECT history_retention, oldest_tx FROM everwhen.tables";
    assert_eq!(kit.rows(listed).await, json!([["2592000 seconds", second.tx.get()]]));
    kit.write("ALTER TABLE t SET (history_retention = 'forever')").await;
    assert_eq!(kit.rows(listed).await, json!([["forever", second.tx.get()]]));
    assert_eq!(
        kit.error("ALTER TABLE u SET (history_retention = '1 day')").await.sqlstate(),
        "42P01"
    );
    assert_eq!(kit.error("ALTER TABLE t SET (history_retention = 'x')").await.sqlstate(), "22023");
    assert_eq!(kit.error("ALTER TABLE t SET (precedence = 'x')").await.sqlstate(), "42704");
}
