//! What statements take and answer, and parameters of known types.

use everwhen_storage::ColumnType::{
    self, Bool, Bytes, Date, Decimal, Float64, Int64, Json, List, Text, Time, Timestamp,
};
use serde_json::json;

use super::kit::Kit;
use crate::{Described, Error, Outcome, Params, Request, StatementKind};

const TABLE: &str = "CREATE TABLE t (_id TEXT PRIMARY KEY, i INT, f FLOAT, d DECIMAL, b BOOL, y BYTES, \
     day DATE, clock TIME, at TIMESTAMPTZ, j JSON, l TEXT[])";

async fn describe(kit: &Kit, sql: &str) -> Result<Described, Error> {
    kit.engine.describe(Request::new(sql)).await
}

async fn parameters(kit: &Kit, sql: &str) -> Vec<Option<ColumnType>> {
    describe(kit, sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).parameters
}

async fn columns(kit: &Kit, sql: &str) -> Vec<(String, ColumnType)> {
    let described = describe(kit, sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    described.columns.map(|shape| shape.columns).unwrap_or_default()
}

fn named(columns: &[(&str, ColumnType)]) -> Vec<(String, ColumnType)> {
    columns.iter().map(|(name, kind)| ((*name).to_owned(), kind.clone())).collect()
}

#[tokio::test]
async fn parameters_have_the_types_of_what_they_meet() {
    let kit = Kit::new();
    kit.write(TABLE).await;
    for (sql, expected) in [
        ("SELECT 1", vec![]),
        ("SELECT * FROM t WHERE _id = $1", vec![Some(Text)]),
        ("SELECT * FROM t WHERE i > $1 AND f < $2", vec![Some(Int64), Some(Float64)]),
        ("SELECT * FROM t WHERE at BETWEEN $2 AND $1", vec![Some(Timestamp), Some(Timestamp)]),
        ("SELECT * FROM t WHERE d IN ($1, $2)", vec![Some(Decimal), Some(Decimal)]),
        ("SELECT * FROM t WHERE b = $1 LIMIT $2", vec![Some(Bool), Some(Int64)]),
        ("SELECT $1", vec![None]),
        ("SELECT $1::int, CAST($2 AS DATE)", vec![Some(Int64), Some(Date)]),
        ("SELECT * FROM t FOR VALID_TIME AS OF $1", vec![Some(Timestamp)]),
        ("SELECT * FROM t FOR VALID_TIME AS OF $1 - INTERVAL '1 day'", vec![Some(Timestamp)]),
        (
            "SELECT * FROM t FOR SYSTEM_TIME AS OF $2 FOR VALID_TIME FROM $1 TO $3 WHERE i = $4",
            vec![Some(Timestamp), Some(Timestamp), Some(Timestamp), Some(Int64)],
        ),
        (
            "SELECT 1 FROM t a JOIN t FOR VALID_TIME AS OF a.at b ON b._id = a._id AND b.i = $1",
            vec![Some(Int64)],
        ),
        ("SELECT * FROM t WHERE i = ANY($1)", vec![Some(List(Box::new(Int64)))]),
        ("DELETE FROM t WHERE _id = ANY($1)", vec![Some(List(Box::new(Text)))]),
        ("DELETE FROM t WHERE i = $1", vec![Some(Int64)]),
        ("ERASE FROM t WHERE _id = $1", vec![Some(Text)]),
        (
            "UPDATE t FOR PORTION OF VALID_TIME FROM $1 TO $2 SET i = $3, f = f + $4 WHERE _id = $5",
            vec![Some(Timestamp), Some(Timestamp), Some(Int64), Some(Float64), Some(Text)],
        ),
    ] {
        assert_eq!(parameters(&kit, sql).await, expected, "{sql}");
    }
}

#[tokio::test]
async fn an_inserts_parameters_have_the_types_of_its_columns() {
    let kit = Kit::new();
    kit.write(TABLE).await;
    let all = "INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
    let list = List(Box::new(Text));
    let kinds =
        [Text, Int64, Float64, Decimal, Bool, Bytes, Date, Time, Timestamp, Json, list].map(Some);
    assert_eq!(parameters(&kit, all).await, kinds);
    for (sql, expected) in [
        (
            "INSERT INTO t (_id, i, _valid_from) VALUES ('a', $1, $2), ($3, $4 + 1, NULL)",
            vec![Some(Int64), Some(Timestamp), Some(Text), Some(Int64)],
        ),
        ("INSERT INTO t RECORDS {_id: $1, day: $2}", vec![Some(Text), Some(Date)]),
        ("INSERT INTO t (_id, i) SELECT $1, $2", vec![Some(Text), Some(Int64)]),
        ("INSERT INTO later (_id, v) VALUES ($1, $2)", vec![None, None]),
        ("PATCH INTO t (_id, at) VALUES ($1, $2)", vec![Some(Text), Some(Timestamp)]),
    ] {
        assert_eq!(parameters(&kit, sql).await, expected, "{sql}");
    }
    kit.write("INSERT INTO loose (_id, v) VALUES (1, 2)").await;
    let loose = "INSERT INTO loose (_id, v) VALUES ($1, $2)";
    assert_eq!(parameters(&kit, loose).await, vec![Some(Int64), None]);
}

#[tokio::test]
async fn columns_are_those_that_running_answers() {
    let kit = Kit::new();
    kit.write(TABLE).await;
    kit.write("INSERT INTO t (_id, i, d) VALUES ('a', 1, 1.5)").await;
    let queries = [
        "SELECT * FROM t",
        "SELECT i + 1 AS n, d * 2, upper(_id), _valid_from, _valid_time FROM t",
        "SELECT count(*), sum(f), max(at) FROM t",
        "SELECT i FROM t UNION ALL SELECT f FROM t",
        "SELECT NULL AS nothing, j->'a', j->>'a' FROM t",
        "EXPLAIN SELECT 1",
        "SHOW SNAPSHOT_TOKEN",
        "SELECT * FROM everwhen.tables",
    ];
    for sql in queries {
        let described = describe(&kit, sql).await.unwrap().columns.unwrap();
        let answer = kit.answer(Request::new(sql)).await;
        assert_eq!(described.columns, answer.columns, "{sql}");
        assert_eq!(described.schema, answer.schema, "{sql}");
    }
    assert_eq!(
        columns(&kit, "SELECT $1 AS a, $2::int AS b").await,
        named(&[("a", Text), ("b", Int64)])
    );
    assert_eq!(columns(&kit, "DELETE FROM t").await, vec![]);
    assert_eq!(
        columns(&kit, "UPDATE t SET i = $1 RETURNING _id, i + 1 AS n, _valid_from").await,
        named(&[("_id", Text), ("n", Int64), ("_valid_from", Timestamp)])
    );
    assert_eq!(
        columns(&kit, "INSERT INTO fresh (_id, n) VALUES ('a', 1) RETURNING *").await,
        named(&[("_id", Text), ("n", Int64)])
    );
}

#[tokio::test]
async fn nothing_runs_and_faults_show() {
    let kit = Kit::new();
    kit.write(TABLE).await;
    let before = kit.store.latest().tx;
    let described = describe(&kit, "INSERT INTO t (_id) VALUES ($1)").await.unwrap();
    assert_eq!(described.kind, StatementKind::Insert);
    assert_eq!(kit.store.latest().tx, before);
    for (sql, state) in [
        ("SELECT nope FROM t", "42703"),
        ("SELECT * FROM nope WHERE a = $1", "42P01"),
        ("UPDATE nope SET a = $1", "42P01"),
        ("SELECT 1; SELECT 2", "42601"),
        ("SELECT $name", "42P02"),
        ("SELECT $99999999", "54000"),
    ] {
        assert_eq!(describe(&kit, sql).await.expect_err(sql).sqlstate(), state, "{sql}");
    }
}

#[tokio::test]
async fn declared_types_win() {
    let kit = Kit::new();
    kit.write(TABLE).await;
    let request = |sql: &str| Request {
        params: Params::Typed(vec![(json!(null), Some(Int64))]),
        ..Request::new(sql)
    };
    let described = kit.engine.describe(request("SELECT $1 AS n, $2 AS t")).await.unwrap();
    assert_eq!(described.parameters, vec![Some(Int64), None]);
    assert_eq!(described.columns.unwrap().columns, named(&[("n", Int64), ("t", Text)]));
}

#[tokio::test]
async fn typed_parameters_reach_every_type_of_column() {
    let kit = Kit::new();
    kit.write(TABLE).await;
    let values = [
        (json!("k"), Text),
        (json!(9_007_199_254_740_993_i64), Int64),
        (json!(-2.0), Float64),
        (json!("12345678901234567890.123456789"), Decimal),
        (json!(true), Bool),
        (json!("AQL/"), Bytes),
        (json!("2026-01-05"), Date),
        (json!("10:30:00.250"), Time),
        (json!("2026-01-05T10:30:00.123456Z"), Timestamp),
        (json!({"a": [1, null]}), Json),
        (json!(["x", "it's"]), List(Box::new(Text))),
    ];
    let row: Vec<_> = values.iter().map(|(json, _)| json.clone()).collect();
    let typed = |all: bool| {
        let values = values.iter();
        Params::Typed(
            values.map(|(json, kind)| (json.clone(), all.then(|| kind.clone()))).collect(),
        )
    };
    let insert = "INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
    let request = Request { params: typed(true), ..Request::new(insert) };
    assert!(matches!(kit.run(request).await, Ok(Outcome::Written(answer)) if answer.rows == 1));
    assert_eq!(kit.rows("SELECT * FROM t").await, json!([row]));
    let query = "SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11 FROM t \
         WHERE _id = $1 AND i = $2 AND f = $3 AND d = $4 AND b = $5 AND y = $6 AND day = $7 \
         AND clock = $8 AND at = $9 AND l = $11";
    let request = Request { params: typed(true), ..Request::new(query) };
    assert_eq!(kit.rows_of(request).await, json!([row]));
    let nulls =
        Params::Typed(values.iter().map(|(_, kind)| (json!(null), Some(kind.clone()))).collect());
    let request =
        Request { params: nulls.clone(), ..Request::new(query.split(" FROM").next().unwrap()) };
    assert_eq!(kit.rows_of(request).await, json!([vec![json!(null); 11]]));
    let update = "UPDATE t SET i = $2, f = $3, d = $4, b = $5, y = $6, day = $7, clock = $8, at = $9, \
         j = $10, l = $11 WHERE $1 IS NULL";
    kit.clock_forward();
    let request = Request { params: nulls, ..Request::new(update) };
    assert!(matches!(kit.run(request).await, Ok(Outcome::Written(answer)) if answer.rows == 1));
    assert_eq!(
        kit.rows("SELECT i, f, d, b, y, day, clock, at, j, l FROM t").await,
        json!([vec![json!(null); 10]])
    );
}

#[tokio::test]
async fn a_typed_parameter_that_is_no_value_of_its_type_is_refused_at_its_place() {
    let kit = Kit::new();
    for (json, kind, state) in [
        (json!("2026-02-30"), Date, "22008"),
        (json!("x"), Timestamp, "22P02"),
        (json!("1"), Int64, "42804"),
        (json!("1e60"), Decimal, "22P02"),
    ] {
        let params = Params::Typed(vec![(json, Some(kind))]);
        let error = kit.run(Request { params, ..Request::new("SELECT $1") }).await.err().unwrap();
        assert_eq!((error.sqlstate(), error.position()), (state, Some(8)), "{error:?}");
    }
}

#[tokio::test]
async fn writes_with_their_own_parameters_are_one_transaction() {
    let kit = Kit::new();
    kit.write(TABLE).await;
    let insert = "INSERT INTO t (_id, i) VALUES ($1, $2)";
    let with =
        |id: &str, i: i64| Params::Typed(vec![(json!(id), Some(Text)), (json!(i), Some(Int64))]);
    let request = Request {
        params: with("a", 1),
        then: vec![
            (insert.to_owned(), with("b", 2)),
            ("UPDATE t SET i = i + $1".to_owned(), Params::Typed(vec![(json!(10), Some(Int64))])),
        ],
        ..Request::new(insert)
    };
    let before = kit.store.latest().tx.get();
    let Ok(Outcome::Written(answer)) = kit.run(request).await else { panic!("no write") };
    assert_eq!((answer.tx.get(), answer.rows), (before + 1, 4));
    assert_eq!(answer.statement_rows, vec![1, 1, 2]);
    assert_eq!(kit.rows("SELECT _id, i FROM t ORDER BY _id").await, json!([["a", 11], ["b", 12]]));
    let then = vec![("INSERT INTO t (nope) VALUES (1)".to_owned(), Params::None)];
    let request = Request { params: with("c", 3), then, ..Request::new(insert) };
    assert_eq!(kit.run(request).await.err().unwrap().sqlstate(), "42703");
    assert_eq!(kit.rows("SELECT count(*) FROM t").await, json!([[2]]));
}
