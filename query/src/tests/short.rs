//! Which statements are short by their form.

use super::kit::Kit;
use crate::Request;

#[tokio::test]
async fn look_ups_and_literal_rows_are_short() {
    let kit = Kit::new();
    kit.write("CREATE TABLE t (_id TEXT PRIMARY KEY, n BIGINT)").await;
    kit.write("CREATE TABLE pairs (a TEXT, b BIGINT, n BIGINT, PRIMARY KEY (a, b))").await;
    let is_short = |sql: &str| kit.engine.is_short(&Request::new(sql));
    for sql in [
        "SELECT n FROM t WHERE _id = 'a'",
        "SELECT *, _valid_from FROM T AS x WHERE $1 = x._id AND n + 1 > 2 LIMIT 1",
        "SELECT n FROM t FOR VALID_TIME AS OF $2 FOR SYSTEM_TIME AS OF $3 WHERE (_id = $1)",
        "SETTING DEFAULT VALID_TIME AS OF DATE '2026-01-07' SELECT n FROM t WHERE _id = 'a'",
        "SELECT n FROM pairs WHERE a = 'a' AND b = 2",
        "INSERT INTO t (_id, n) VALUES ('a', 1), ($1, -$2)",
    ] {
        assert!(is_short(sql), "{sql}");
    }
    for sql in [
        "SELECT n FROM t",
        "SELECT n FROM t WHERE _id = n",
        "SELECT n FROM t WHERE _id = n || 'x'",
        "SELECT n FROM t WHERE _id = 'a' OR n = 1",
        "SELECT n FROM pairs WHERE a = 'a'",
        "SELECT n FROM nowhere WHERE _id = 'a'",
        "SELECT repeat('x', 1000000000) FROM t WHERE _id = 'a'",
        "SELECT n FROM t WHERE _id = repeat('x', 1000000000)",
        "SELECT n FROM t FOR ALL VALID_TIME WHERE _id = 'a'",
        "SELECT n FROM t WHERE _id = 'a' AND n = (SELECT count(*) FROM t)",
        "SELECT a.n FROM t a, t b WHERE a._id = 'a'",
        "WITH x AS (SELECT 1) SELECT n FROM t WHERE _id = 'a'",
        "SELECT n FROM t WHERE _id = 'a' ORDER BY n",
        "SELECT n FROM t WHERE _id = 'a'; SELECT 1",
        "INSERT INTO t (_id, n) SELECT 'a', 1",
        "INSERT INTO t (_id, n) VALUES (repeat('x', 1000), 1)",
        "DELETE FROM t WHERE _id = 'a'",
        "nonsense",
    ] {
        assert!(!is_short(sql), "{sql}");
    }
}
