//! Select lists: what stands twice in them, and what asks whether a value is among others.

use serde_json::{Value as Json, json};

use super::kit::{Kit, collect};
use crate::Request;

/// A statement over `t`, the names of its columns (any where there are none), and its first row.
type Case = (&'static str, Vec<&'static str>, Json);

fn columns_twice() -> Vec<Case> {
    vec![
        ("SELECT a, a FROM t ORDER BY a", vec!["a", "a"], json!([10, 10])),
        (
            "SELECT a, t.a, b, a FROM t ORDER BY a",
            vec!["a", "a", "b", "a"],
            json!([10, 10, "x", 10]),
        ),
        (
            "SELECT *, b FROM t ORDER BY b DESC",
            vec!["_id", "a", "b", "b"],
            json!([2, 20, "y", "y"]),
        ),
        ("SELECT t.*, _id FROM t ORDER BY 1", vec!["_id", "a", "b", "_id"], json!([1, 10, "x", 1])),
        ("SELECT a AS x, b AS x FROM t ORDER BY _id", vec!["x", "x"], json!([10, "x"])),
    ]
}

fn expressions_and_tables_twice() -> Vec<Case> {
    vec![
        ("SELECT count(*), COUNT(*), count(*) FROM t", vec!["count(*)"; 3], json!([2, 2, 2])),
        (
            "SELECT sum(a), max(b), sum(a) FROM t",
            vec!["sum(a)", "max(t.b)", "sum(a)"],
            json!([30, "y", 30]),
        ),
        (
            "SELECT *, upper(b) AS b FROM t ORDER BY _id",
            vec!["_id", "a", "b", "b"],
            json!([1, 10, "x", "X"]),
        ),
        ("SELECT a, b AS a FROM t WHERE _id = 1", vec!["a", "a"], json!([10, "x"])),
        ("SELECT b AS a, a FROM t ORDER BY _id", vec!["a", "a"], json!(["x", 10])),
        (
            "SELECT a, t.a FROM t JOIN (SELECT 1 AS z) u ON true ORDER BY 1",
            vec!["a", "a"],
            json!([10, 10]),
        ),
        (
            "SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM t WHERE a > 10)",
            vec!["count(*)", "count(*)"],
            json!([2, 1]),
        ),
        ("SELECT s.b FROM (SELECT * EXCLUDE (b), b FROM t) s ORDER BY 1", vec!["b"], json!(["x"])),
        (
            "SELECT a IN (SELECT a FROM t), b IN (SELECT b FROM t) FROM t",
            Vec::new(),
            json!([true, true]),
        ),
        ("SELECT * FROM (SELECT a, a FROM t) s ORDER BY 1", vec!["a", "a"], json!([10, 10])),
        (
            "SELECT p, q FROM (SELECT a, a FROM t) AS s (p, q) ORDER BY 1",
            vec!["p", "q"],
            json!([10, 10]),
        ),
        (
            "WITH s AS (SELECT a, a FROM t) SELECT s.a, s.a FROM s ORDER BY 1",
            vec!["a", "a"],
            json!([10, 10]),
        ),
        ("SELECT a, a FROM t UNION ALL SELECT 5, 6 ORDER BY 1", vec!["a", "a"], json!([5, 6])),
        (
            "SELECT a, a, _valid_from = _valid_from AS s FROM t ORDER BY a",
            vec!["a", "a", "s"],
            json!([10, 10, true]),
        ),
        (
            "SELECT l._id, r._id FROM t l JOIN t r ON l.a = r.a ORDER BY 1",
            vec!["_id", "_id"],
            json!([1, 1]),
        ),
        (
            "SELECT b, b, sum(a) FROM t GROUP BY b ORDER BY b",
            vec!["b", "b", "sum(t.a)"],
            json!(["x", "x", 10]),
        ),
    ]
}

#[tokio::test]
async fn a_list_may_have_the_same_twice() {
    let kit = Kit::new();
    kit.write("CREATE TABLE t (_id INT PRIMARY KEY, a INT, b TEXT)").await;
    kit.write("INSERT INTO t (_id, a, b) VALUES (1, 10, 'x'), (2, 20, 'y')").await;
    for (sql, names, first) in columns_twice().into_iter().chain(expressions_and_tables_twice()) {
        let answer = kit.answer(Request::new(sql)).await;
        let found: Vec<_> = answer.columns.iter().map(|(name, _)| name.as_str()).collect();
        let fields: Vec<_> =
            answer.schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert!(
            names.is_empty() || (&found, &fields) == (&names, &names),
            "{sql}: {found:?} {fields:?}"
        );
        assert!(!format!("{found:?}").contains('\u{1}'), "{sql}");
        assert_eq!(collect(answer).await.unwrap()[0], first, "{sql}");
    }
    kit.write("INSERT INTO t (_id, a, b) SELECT a, a, b FROM t WHERE a = 20").await;
    assert_eq!(kit.rows("SELECT a, b FROM t WHERE _id = 20").await, json!([[20, "y"]]));
    let plan = kit.rows("EXPLAIN SELECT a, a FROM t").await.to_string();
    assert!(!plan.contains("u0001") && plan.contains("ScanExec"), "{plan}");
    let returned =
        kit.write("INSERT INTO t (_id, a) VALUES (7, 70) RETURNING a, *, a").await.returning;
    let names: Vec<_> =
        returned.unwrap()[0].schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["a", "_id", "a", "b", "a"]);
    // Of two columns of a name each is itself.
    let sides = "SELECT *, (SELECT count(*) FROM t FOR VALID_TIME AS OF now() u WHERE u._id = s.a) FROM \
                 (SELECT l._id, r._id, l.a FROM t l LEFT JOIN t r ON r._id = l._id + 1) s ORDER BY 1 LIMIT 2";
    assert_eq!(kit.rows(sides).await, json!([[1, 2, 10, 0], [2, null, 20, 1]]));
    assert_eq!(kit.error("CREATE VIEW v AS SELECT a, b AS a FROM t").await.sqlstate(), "42701");
    kit.write("CREATE VIEW v (p, q) AS SELECT a, b AS a FROM t").await;
    assert_eq!(kit.rows("SELECT * FROM v ORDER BY p LIMIT 1").await, json!([[10, "x"]]));
    // Names that somebody refers to mean one thing.
    let error = kit.error("SELECT a AS x, -a AS x FROM t ORDER BY x").await;
    assert!(["42702", "42701"].contains(&error.sqlstate()), "{error:?}");
    let error = kit.error("SELECT x FROM (SELECT a AS x, b AS x FROM t) s").await;
    assert!(["42702", "42701"].contains(&error.sqlstate()), "{error:?}");
}

#[tokio::test]
async fn membership_may_stand_in_a_select_list() {
    let kit = Kit::new();
    kit.write("CREATE TABLE t (_id INT PRIMARY KEY, a INT)").await;
    kit.write("CREATE TABLE s (_id INT PRIMARY KEY, b INT)").await;
    kit.write("INSERT INTO t (_id, a) VALUES (1, 10), (2, 20), (3, NULL)").await;
    kit.write("INSERT INTO s (_id, b) VALUES (1, 10), (2, 30)").await;
    let is = "SELECT _id, a IN (SELECT b FROM s) AS i, a NOT IN (SELECT b FROM s) AS n FROM t ORDER BY 1";
    let expected = json!([[1, true, false], [2, false, true], [3, null, null]]);
    assert_eq!(kit.rows(is).await, expected);
    let none = is.replace("FROM s)", "FROM s WHERE b > 99)");
    let expected = json!([[1, false, true], [2, false, true], [3, false, true]]);
    assert_eq!(kit.rows(&none).await, expected);
    kit.clock_forward();
    kit.write("UPDATE s SET b = NULL WHERE _id = 2").await;
    let expected = json!([[1, true, false], [2, null, null], [3, null, null]]);
    assert_eq!(kit.rows(is).await, expected);
    let cases = "SELECT CASE WHEN a IN (SELECT b FROM s WHERE b IS NOT NULL) THEN 'yes' ELSE 'no' END FROM t ORDER BY _id";
    assert_eq!(kit.rows(cases).await, json!([["yes"], ["no"], ["no"]]));
    let then = "SELECT a IN (SELECT b FROM s FOR ALL VALID_TIME WHERE b > 10) FROM t WHERE _id = 2";
    assert_eq!(kit.rows(then).await, json!([[false]]));
    // Copies of copies would be without end.
    let deep = format!("SELECT {}1{}", "1 IN (SELECT ".repeat(20), ")".repeat(20));
    let long = format!("SELECT 1{}", " IN (SELECT true)".repeat(40));
    for sql in [deep, long] {
        let error = kit.error(&sql).await;
        assert!(["54001", "0A000", "42804"].contains(&error.sqlstate()), "{error:?}");
    }
    let literal = "SELECT 30 IN (SELECT b FROM s FOR ALL VALID_TIME)";
    assert_eq!(kit.rows(literal).await, json!([[true]]));
}
