//! Forms of queries: the same expression several times, operators of which nothing is read, and
//! queries that cannot run, which CREATE refuses.

use everwhen_projector::Error;
use everwhen_projector::compute::ProjectionOptions;
use everwhen_query::statements::ExplainProjection;
use everwhen_storage::{ColumnType, Op, Precedence, TableDef, Tenant, Value, Write};
use serde_json::json;

use super::rig::{HOUR, Rig, START, Shape, assertion, statement, table};

fn ints(id: u32, name: &str, columns: &[&str]) -> TableDef {
    let columns: Vec<_> = columns.iter().map(|name| (*name, ColumnType::Int64)).collect();
    table(id, name, Precedence::Recorded, &columns)
}

fn tables() -> [TableDef; 3] {
    [
        ints(1, "t", &["_id", "g", "n"]),
        ints(2, "s", &["_id", "g", "n"]),
        ints(3, "u", &["_id", "g"]),
    ]
}

/// Writes a row for all of valid time after the start, or takes it away.
fn put(table: &TableDef, key: i64, values: Option<&[Option<i64>]>) -> Write {
    let fields = (1..).zip(values.unwrap_or_default());
    let fields = fields.filter_map(|(id, value)| Some((id, Value::Int((*value)?)))).collect();
    let op = if values.is_some() { Op::Put } else { Op::Delete };
    let period = (START - HOUR, None);
    assertion(&Tenant::default(), table, Value::Int(key), op, period, fields)
}

/// What is written to each table in turn: rows that come, change, repeat others' values, and go.
fn stories(tables: &[TableDef; 3]) -> Vec<Vec<Write>> {
    let [t, s, u] = tables;
    let row = |g, n| Some(vec![Some(g), n]);
    let story = [
        (t, 1, row(7, Some(150))),
        (u, 1, Some(vec![Some(7)])),
        (s, 1, row(7, Some(1))),
        (t, 2, row(7, Some(-3))),
        (t, 3, row(8, None)),
        (s, 2, row(8, Some(2))),
        (u, 2, Some(vec![Some(8)])),
        (s, 3, row(7, Some(1))),
        (t, 1, row(8, Some(150))),
        (s, 1, None),
        (t, 2, None),
        (u, 1, None),
        (s, 2, None),
        (s, 3, None),
        (t, 1, None),
        (t, 3, None),
    ];
    story.into_iter().map(|(table, key, values)| vec![put(table, key, values.as_deref())]).collect()
}

/// Plays the story and compares every projection with the query from scratch after each write.
fn play(queries: &[(String, &'static [&'static str])]) {
    let tables = tables();
    let mut rig = Rig::new(&tables, ProjectionOptions::default());
    let mut names = Vec::new();
    for (at, (query, key)) in queries.iter().enumerate() {
        let name: &'static str = format!("p{at}").leak();
        let query: &'static str = query.clone().leak();
        rig.create_with(&Shape { name, key, query }, &[("tenant_column", "none")], false);
        names.push((name, query));
    }
    for (turn, writes) in stories(&tables).into_iter().enumerate() {
        rig.write(writes);
        for (name, query) in &names {
            rig.drain(name);
            let held = rig.check(name, &Tenant::default());
            held.unwrap_or_else(|problem| panic!("{query}\nafter write {turn}: {problem}"));
        }
    }
}

#[test]
fn an_expression_that_stands_twice_in_group_by_makes_one_column() {
    let tables = tables();
    let mut rig = Rig::new(&tables, ProjectionOptions::default());
    let shape = Shape {
        name: "sales",
        key: &["g"],
        query: "SELECT g, sum(n) AS units, count(*) AS n FROM t GROUP BY g, g",
    };
    rig.create_with(&shape, &[("tenant_column", "none")], false);
    rig.write(vec![
        put(&tables[0], 1, Some(&[Some(7), Some(100)])),
        put(&tables[0], 2, Some(&[Some(7), Some(50)])),
    ]);
    rig.drain("sales");
    assert_eq!(rig.sinks["sales"].rows["[7]"], json!({"g": 7, "units": 150, "n": 2}));
}

#[test]
fn repeated_expressions_count_once() {
    let by_g: &[&str] = &["g"];
    let by_id: &[&str] = &["_id"];
    let queries = [
        ("SELECT g, sum(n) AS s, count(*) AS c FROM t GROUP BY g, g", by_g),
        (
            "SELECT g, sum(n) AS s, g + 1 AS h, count(*) AS c FROM t GROUP BY g + 1, g, g + 1, g",
            by_g,
        ),
        ("SELECT g, max(n) AS m FROM t GROUP BY t.g, g", by_g),
        ("SELECT g, count(*) AS c FROM t GROUP BY 1, 1, g", by_g),
        ("SELECT g AS g, count(*) AS c FROM t GROUP BY g, 'x', 'x'", by_g),
        ("SELECT 'x' AS g, count(*) AS c FROM t GROUP BY 'x'", by_g),
        ("SELECT 1 AS g, sum(n) AS s FROM t GROUP BY g, 1", by_g),
        ("SELECT g, sum(n) AS a, sum(n) AS b, sum(n) + 1 AS c FROM t GROUP BY g", by_g),
        (
            "SELECT g, count(DISTINCT n) AS a, count(DISTINCT n) AS b, count(n) AS c FROM t GROUP BY g",
            by_g,
        ),
        ("SELECT g, count(*) AS a, count(1) AS b, count(2) AS c FROM t GROUP BY g", by_g),
        ("SELECT DISTINCT g, g AS h, g + 0 AS i, n FROM t", &["g", "n"]),
        ("SELECT g, h FROM (SELECT g, g AS h FROM t UNION SELECT n, n FROM s) x", by_g),
        (
            "SELECT g, h, count(*) AS c FROM (SELECT g, g AS h FROM t UNION ALL SELECT g, n FROM s) x GROUP BY g, h",
            &["g", "h"],
        ),
        ("SELECT g, h FROM (SELECT g, g AS h FROM t EXCEPT SELECT g, g FROM s) x", by_g),
        ("SELECT g, h FROM (SELECT g, g AS h FROM t INTERSECT SELECT g, g FROM s) x", by_g),
        (
            "SELECT _id, sum(n) OVER (PARTITION BY g, g) AS a, sum(n) OVER (PARTITION BY g, g) AS b, \
          count(*) OVER (PARTITION BY g) AS c FROM t",
            by_id,
        ),
        (
            "SELECT _id, row_number() OVER (PARTITION BY g, g ORDER BY n, n, _id, _id) AS a FROM t",
            by_id,
        ),
        (
            "SELECT t._id, s._id AS other FROM t JOIN s ON t.g = s.g AND t.g = s.g AND s.g = t.g",
            &["_id", "other"],
        ),
        (
            "SELECT t._id, s._id AS other FROM t JOIN s ON t.g = s.g AND t.g = s.n",
            &["_id", "other"],
        ),
        (
            "SELECT t._id, s._id AS other FROM t JOIN s ON t.g + 1 = s.g + 1 AND t.g + 1 = s.g + 1",
            &["_id", "other"],
        ),
        ("SELECT _id, s.g FROM s JOIN u USING (_id, g)", by_id),
        ("SELECT _id, g FROM t WHERE g IN (SELECT g FROM s) AND g IN (SELECT g FROM s)", by_id),
        (
            "SELECT g, sum(s) AS s, count(*) AS c FROM (SELECT g, n, sum(n) AS s FROM t GROUP BY g, n, g) x GROUP BY g, g",
            by_g,
        ),
        ("SELECT g FROM t GROUP BY g, g HAVING count(*) > 1 AND count(*) > 1", by_g),
    ];
    let queries: Vec<_> = queries.iter().map(|(query, key)| ((*query).to_owned(), *key)).collect();
    play(&queries);
}

/// What a FROM may have.
const INPUTS: &[&str] = &[
    "t",
    "(SELECT * FROM t WHERE n > 0) i",
    "t CROSS JOIN s",
    "t, s",
    "t LEFT JOIN s ON true",
    "t RIGHT JOIN s ON true",
    "t JOIN s ON true",
    "t LEFT JOIN s ON t.n > 0",
    "t JOIN s ON t.g = s.g",
    "t LEFT JOIN s ON t.g = s.g",
    "t RIGHT JOIN s ON t.g = s.g",
    "t FULL JOIN s ON t.g = s.g",
    "t CROSS JOIN s CROSS JOIN t AS r",
    "(SELECT g FROM t UNION ALL SELECT g FROM s) i",
    "(SELECT g FROM t UNION SELECT g FROM s) i",
    "(SELECT 1 AS one FROM t UNION ALL SELECT 2 FROM s) i",
    "(SELECT g FROM t EXCEPT SELECT g FROM s) i",
    "(SELECT DISTINCT g FROM t) i",
    "(SELECT g FROM t GROUP BY g) i",
    "(SELECT count(*) AS c FROM t) i",
    "(SELECT max(n) OVER (PARTITION BY g) AS m FROM t) i",
    "(SELECT count(*) OVER () AS m FROM t) i",
    "(SELECT _id FROM t ORDER BY _id LIMIT 1) i",
    "(VALUES (1), (2)) i",
    "(SELECT 1 AS one) i",
    "(SELECT * FROM t WHERE false) i",
    "(SELECT * FROM t WHERE EXISTS (SELECT 1 FROM s)) i",
    "(SELECT * FROM t WHERE NOT EXISTS (SELECT 1 FROM s WHERE s.g = t.g)) i",
];

#[test]
fn rows_of_which_no_column_is_read_are_counted() {
    let mut queries: Vec<(String, &'static [&'static str])> = Vec::new();
    for input in INPUTS {
        queries.push((format!("SELECT 1 AS one, count(*) AS c FROM {input}"), &["one"]));
        queries.push((
            format!("SELECT 'x' AS word, count(*) AS c FROM {input} GROUP BY 'x'"),
            &["word"],
        ));
        queries.push((format!("SELECT _id FROM u WHERE EXISTS (SELECT 1 FROM {input})"), &["_id"]));
        queries.push((
            format!("SELECT _id FROM u WHERE NOT EXISTS (SELECT 1 FROM {input})"),
            &["_id"],
        ));
        queries.push((format!("SELECT DISTINCT 1 AS one FROM {input}"), &["one"]));
        let constant = format!("(SELECT 1 AS one FROM {input}) c");
        queries.push((
            format!("SELECT u._id, count(*) AS c FROM u CROSS JOIN {constant} GROUP BY u._id"),
            &["_id"],
        ));
        queries.push((
            format!(
                "SELECT u._id, count(one) AS c FROM {constant} RIGHT JOIN u ON true GROUP BY u._id"
            ),
            &["_id"],
        ));
        queries.push((
            format!("SELECT 1 AS one, count(*) AS c FROM {constant} CROSS JOIN u"),
            &["one"],
        ));
        queries.push((
            format!(
                "SELECT one, count(*) OVER () AS c FROM (SELECT DISTINCT one FROM {constant}) d"
            ),
            &["one"],
        ));
        queries.push((
            format!("SELECT 1 AS one, count(*) AS c FROM (SELECT 1 AS a FROM {input} UNION ALL SELECT g FROM u) d"),
            &["one"],
        ));
    }
    queries.push(("SELECT 1 AS one, count(*) OVER () AS c".to_owned(), &["one"]));
    queries.push(("SELECT 1 AS one, count(*) AS c".to_owned(), &["one"]));
    play(&queries);
}

/// Queries that have no plan to run, or whose expressions have no operation for their types.
const IMPOSSIBLE: &[(&str, &str)] = &[
    ("SELECT _id, (SELECT count(*) FROM s WHERE s.n < t.n) AS c FROM t", "s.n < t.n"),
    (
        "SELECT _id, (SELECT max(s.n) FROM s FOR VALID_TIME AS OF t._valid_from AS s \
         WHERE s.g = t.g) AS c FROM t",
        "",
    ),
    ("SELECT t._id, x.n FROM t, LATERAL (SELECT UNNEST(generate_series(1, t.n)) AS n) x", "t.n"),
];

#[test]
fn a_query_that_cannot_run_is_refused_when_it_is_made() {
    let tables = tables();
    let rig = Rig::new(&tables, ProjectionOptions::default());
    let _entered = rig.entered();
    for (query, part) in IMPOSSIBLE {
        let create = statement(&Shape { name: "p", key: &["_id"], query }, &[], false);
        let explain = ExplainProjection::Query {
            key: vec!["_id".to_owned()],
            query: (*query).to_owned(),
            query_position: 1,
        };
        let made = rig.projections.plan_create(&create).map(drop);
        for refused in [made, rig.projections.explain(&explain).map(drop)] {
            let error: Error = refused.expect_err(query);
            assert_eq!(error.sqlstate(), "0A000", "{query}: {error}");
            assert!(error.to_string().contains(part), "{query}: {error}");
            assert!(error.hint().is_some(), "{query}: {error}");
        }
    }
}
