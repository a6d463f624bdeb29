//! Values at the edges of their types: a sink has what the query answers, and both what PostgreSQL has.

use everwhen_projector::compute::ProjectionOptions;
use everwhen_storage::{ColumnType, Op, Precedence, TableDef, Tenant, Value, Write};
use serde_json::{Value as Json, json};

use super::rig::{HOUR, Rig, START, Shape, assertion, table};

fn numbers() -> TableDef {
    let columns = [
        ("_id", ColumnType::Int64),
        ("x", ColumnType::Float64),
        ("y", ColumnType::Float64),
        ("d", ColumnType::Decimal),
    ];
    table(1, "m", Precedence::Recorded, &columns)
}

fn put(key: i64, x: Option<f64>, y: Option<f64>, d: i128) -> Write {
    let mut fields: Vec<(u32, Value)> = Vec::new();
    fields.extend(x.map(|x| (1, Value::Float(x))));
    fields.extend(y.map(|y| (2, Value::Float(y))));
    fields.push((3, Value::Decimal(d)));
    let period = (START - HOUR, None);
    assertion(&Tenant::default(), &numbers(), Value::Int(key), Op::Put, period, fields)
}

/// Zeros of both signs, NaNs of both, infinities and numbers between.
fn floats() -> Vec<Write> {
    let negative_nan = f64::NAN.copysign(-1.0);
    vec![
        put(1, Some(0.0), Some(f64::NAN), 1_000_000_000),
        put(2, Some(-0.0), Some(f64::NEG_INFINITY), 2_000_000_000),
        put(3, Some(f64::NAN), Some(-0.0), 2_000_000_000),
        put(4, Some(negative_nan), Some(0.0), 0),
        put(5, Some(f64::INFINITY), Some(f64::INFINITY), -7_000_000_000),
        put(6, Some(1.5), Some(negative_nan), 3),
        put(7, None, None, 1),
    ]
}

/// Delivers a query row by row of the writes, and compares the sink with the query's answer.
fn delivered(key: &'static [&'static str], query: &'static str) -> Vec<Json> {
    let tables = [numbers()];
    let mut rig = Rig::new(&tables, ProjectionOptions::default());
    let shape = Shape { name: "p", key, query };
    rig.create_with(&shape, &[("tenant_column", "none")], false);
    for write in floats() {
        rig.write(vec![write]);
        rig.drain("p");
        let sink: Vec<Json> = rig.sinks["p"].rows.values().cloned().collect();
        let held: Vec<String> = rig.projections.errors().into_iter().map(|held| held.key).collect();
        let mut answer = rig.ask(query, &Tenant::default()).unwrap();
        let id =
            |row: &Json| Json::Array(key.iter().map(|of| row[*of].clone()).collect()).to_string();
        answer.retain(|row| !held.contains(&id(row)));
        answer.sort_by_key(id);
        assert_eq!(sink, answer, "{query}: held {held:?}");
    }
    rig.sinks["p"].rows.values().cloned().collect()
}

fn column(rows: &[Json], name: &str) -> Vec<Json> {
    rows.iter().map(|row| row[name].clone()).collect()
}

#[test]
fn zeros_are_one_group_and_nans_another() {
    let rows = delivered(&["x"], "SELECT x, count(*) AS n FROM m WHERE x IS NOT NULL GROUP BY x");
    assert_eq!(rows.len(), 4);
    let of = |x: Json| rows.iter().find(|row| row["x"] == x).map(|row| row["n"].clone());
    assert_eq!(of(json!("NaN")), Some(json!(2)));
    assert_eq!(of(json!(0.0)), Some(json!(2)));
    let rows = delivered(&["x"], "SELECT DISTINCT x FROM m WHERE x IS NOT NULL");
    assert_eq!(rows.len(), 4);
    let rows =
        delivered(&["x"], "SELECT x FROM m WHERE x IS NOT NULL UNION SELECT y FROM m WHERE y = y");
    assert_eq!(rows.len(), 5);
    let rows = delivered(&["one"], "SELECT 1 AS one, count(DISTINCT x) AS n FROM m");
    assert_eq!(column(&rows, "n"), [json!(4)]);
}

#[test]
fn zeros_and_nans_are_partners_in_joins() {
    let query = "SELECT a._id, b._id AS other FROM m a JOIN m b ON a.x = b.y";
    let rows = delivered(&["_id", "other"], query);
    // 0 and -0 with both of 3 and 4; both NaNs with 1 and 6; infinity with itself.
    assert_eq!(rows.len(), 4 + 4 + 1);
    let query = "SELECT a._id FROM m a WHERE a.x IN (SELECT y FROM m)";
    assert_eq!(column(&delivered(&["_id"], query), "_id"), [1, 2, 3, 4, 5].map(|id| json!(id)));
    let query = "SELECT a._id FROM m a WHERE NOT EXISTS (SELECT 1 FROM m b WHERE b.y = a.x)";
    assert_eq!(column(&delivered(&["_id"], query), "_id"), [json!(6), json!(7)]);
    let query = "SELECT a._id, (SELECT count(*) FROM m b WHERE b.y = a.x) AS n FROM m a";
    let counts = column(&delivered(&["_id"], query), "n");
    assert_eq!(counts, [2, 2, 2, 2, 1, 0, 0].map(|count| json!(count)));
    let query = "SELECT x FROM m WHERE x IS NOT NULL EXCEPT SELECT y FROM m";
    assert_eq!(column(&delivered(&["x"], query), "x"), [json!(1.5)]);
}

#[test]
fn floats_compare_as_in_postgres() {
    let ids = |condition: &str| {
        let query = format!("SELECT _id FROM m WHERE {condition}").leak();
        let rows = delivered(&["_id"], query);
        rows.iter().map(|row| row["_id"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(ids("x = 0.0"), [1, 2]);
    assert_eq!(ids("x = -0.0"), [1, 2]);
    assert_eq!(ids("x <> 0"), [3, 4, 5, 6]);
    assert_eq!(ids("x < 0.0"), [0_i64; 0]);
    assert_eq!(ids("x >= 0.0"), [1, 2, 3, 4, 5, 6]);
    assert_eq!(ids("x > CAST('Infinity' AS DOUBLE PRECISION)"), [3, 4]);
    assert_eq!(ids("x = CAST('NaN' AS DOUBLE PRECISION)"), [3, 4]);
    assert_eq!(ids("x IN (0.0, 1.5)"), [1, 2, 6]);
    assert_eq!(ids("x BETWEEN 0.0 AND 1.0"), [1, 2]);
    assert_eq!(ids("x IS NOT DISTINCT FROM 0.0"), [1, 2]);
    assert_eq!(ids("CASE x WHEN 0.0 THEN true ELSE false END"), [1, 2]);
    assert_eq!(ids("x < 1.0"), [1, 2]);
}

#[test]
fn the_least_passes_over_nan_and_the_greatest_is_nan() {
    let query = "SELECT 1 AS one, min(x) AS least, max(x) AS most FROM m";
    assert_eq!(delivered(&["one"], query), [json!({"one": 1, "least": 0.0, "most": "NaN"})]);
    let query = "SELECT _id, min(x) AS least, max(x) AS most FROM m GROUP BY _id";
    let rows = delivered(&["_id"], query);
    assert_eq!(rows[2], json!({"_id": 3, "least": "NaN", "most": "NaN"}));
    assert_eq!(rows[4], json!({"_id": 5, "least": "Infinity", "most": "Infinity"}));
    let query = "SELECT d, min(y) AS least, max(y) AS most FROM m WHERE d = 2 GROUP BY d";
    assert_eq!(delivered(&["d"], query), [json!({"d": "2", "least": "-Infinity", "most": 0.0})]);
    let query = "SELECT d, min(x) AS least, max(x) AS most FROM m WHERE d = 2 GROUP BY d";
    assert_eq!(delivered(&["d"], query), [json!({"d": "2", "least": 0.0, "most": "NaN"})]);
}

#[test]
fn nans_are_last_in_an_order_and_zeros_tie() {
    let query = "SELECT _id, x FROM m ORDER BY x, _id LIMIT 4";
    assert_eq!(column(&delivered(&["_id"], query), "_id"), [1, 2, 5, 6].map(|id| json!(id)));
    let query = "SELECT _id, rank() OVER (ORDER BY x) AS place FROM m WHERE x IS NOT NULL";
    let places = column(&delivered(&["_id"], query), "place");
    assert_eq!(places, [1, 1, 5, 5, 4, 3].map(|place| json!(place)));
    let query = "SELECT _id, count(*) OVER (PARTITION BY x) AS n FROM m";
    let counts = column(&delivered(&["_id"], query), "n");
    assert_eq!(counts, [2, 2, 2, 2, 1, 1, 1].map(|count| json!(count)));
}

#[test]
fn decimals_are_shown_with_the_digits_that_sinks_have() {
    let query = "SELECT 1 AS one, avg(d) AS mean, sum(d) AS total FROM m WHERE _id < 4";
    let rows = delivered(&["one"], query);
    assert_eq!(rows, [json!({"one": 1, "mean": "1.666666667", "total": "5"})]);
    let query = "SELECT _id, d / 3 AS third, d * d AS square FROM m WHERE d <> 0";
    let rows = delivered(&["_id"], query);
    assert_eq!(rows[1]["third"], json!("0.666666667"));
    assert_eq!(rows[3]["third"], json!("-2.333333333"));
    assert_eq!(rows[4]["square"], json!("0"));
    // Inside of a query the digits are all there.
    let query = "SELECT _id, (d * d) * 1000000000 AS large FROM m WHERE _id = 6";
    assert_eq!(column(&delivered(&["_id"], query), "large"), [json!("0.000000009")]);
}
