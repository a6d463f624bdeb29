//! Periods as values: their relations, what they have in common, bins, coalescing.

use serde_json::{Value as Json, json};

use super::kit::{Kit, with_params};

async fn value(kit: &Kit, expr: &str) -> Json {
    kit.rows(&format!("SELECT {expr}")).await[0][0].clone()
}

#[tokio::test]
async fn relations_are_operators_between_periods() {
    let kit = Kit::new();
    let (first, second) =
        ("PERIOD('2026-01-01', '2026-01-03')", "PERIOD('2026-01-03', '2026-01-05')");
    for (expr, expected) in [
        ("a PRECEDES b", true),
        ("a IMMEDIATELY PRECEDES b", true),
        ("a STRICTLY PRECEDES b", false),
        ("b SUCCEEDS a", true),
        ("b IMMEDIATELY SUCCEEDS a AND NOT b STRICTLY SUCCEEDS a", true),
        ("a OVERLAPS b", false),
        ("a EQUALS a", true),
        ("a CONTAINS TIMESTAMP '2026-01-02T00:00:00Z'", true),
        ("a CONTAINS '2026-01-03'", false),
        ("a CONTAINS DATE '2026-01-01'", true),
        ("PERIOD('2025-01-01', NULL) STRICTLY CONTAINS a", true),
        ("(DATE '2026-01-02', DATE '2026-01-04') OVERLAPS b", true),
        ("PERIOD('2026-01-01', '2026-01-04') LEADS b", true),
        ("PERIOD('2026-01-01', '2026-01-04') STRICTLY LEADS b", true),
        ("PERIOD('2026-01-01', '2026-01-05') IMMEDIATELY LEADS b", true),
        ("PERIOD('2026-01-04', '2026-01-06') LAGS b", true),
        ("PERIOD('2026-01-03', '2026-01-06') IMMEDIATELY LAGS b", true),
        ("PERIOD('2026-01-07', '2026-01-08') LAGS b", false),
        ("a && b OR a @> '2026-01-02' AND '2026-01-02' <@ a", true),
        ("overlaps(a, PERIOD('2026-01-02', NULL), PERIOD(NULL, '2026-01-03'))", true),
        ("overlaps(a, b, PERIOD(NULL, NULL))", false),
        ("LOWER_INF(PERIOD(NULL, '2026-01-01')) AND UPPER_INF(PERIOD('2026-01-01', NULL))", true),
    ] {
        let sql = format!("SELECT {expr} FROM (SELECT {first} AS a, {second} AS b) AS x");
        assert_eq!(kit.rows(&sql).await, json!([[expected]]), "{expr}");
    }
    let sql = "SELECT NULL OVERLAPS PERIOD('2026-01-01', NULL)";
    assert_eq!(kit.rows(sql).await, json!([[null]]));
}

#[tokio::test]
async fn names_of_relations_stay_names_elsewhere() {
    let kit = Kit::new();
    assert_eq!(kit.rows("SELECT 1 contains, 2 AS equals").await, json!([[1, 2]]));
    let sql = "SELECT x.leads, lags FROM (SELECT 1 AS leads, 2 lags) AS x ORDER BY leads DESC";
    assert_eq!(kit.rows(sql).await, json!([[1, 2]]));
}

#[tokio::test]
async fn periods_are_made_taken_apart_and_cut() {
    let kit = Kit::new();
    let made = value(&kit, "PERIOD('2026-01-01', NULL)").await;
    assert_eq!(made, json!({"from": "2026-01-01T00:00:00Z", "to": null}));
    assert_eq!(value(&kit, "LOWER(TSTZRANGE('2026-01-01', NULL))").await, "2026-01-01T00:00:00Z");
    assert_eq!(value(&kit, "UPPER(PERIOD('2026-01-01', NULL))").await, json!(null));
    assert_eq!(value(&kit, "UPPER('abc') || LOWER('ABC')").await, "ABCabc");
    let cut = value(&kit, "PERIOD('2026-01-01', '2026-01-03') * PERIOD('2026-01-02', NULL)").await;
    assert_eq!(cut, json!({"from": "2026-01-02T00:00:00Z", "to": "2026-01-03T00:00:00Z"}));
    let apart = "PERIOD('2026-01-01', '2026-01-02') * PERIOD('2026-01-02', NULL)";
    assert_eq!(value(&kit, apart).await, json!(null));
    for (sql, state) in [
        ("SELECT PERIOD('2026-01-02', '2026-01-02')", "22023"),
        ("SELECT PERIOD('2026-01-02T00:00:00.0000001Z', NULL)", "22008"),
        ("SELECT 1 OVERLAPS PERIOD('2026-01-02', NULL)", "42804"),
    ] {
        assert_eq!(kit.error(sql).await.sqlstate(), state, "{sql}");
    }
    let strictly = "SELECT PERIOD('2026-01-02', NULL) STRICTLY OVERLAPS PERIOD('2026-01-02', NULL)";
    assert!(kit.error(strictly).await.to_string().contains("LEADS"));
    let request =
        with_params("SELECT PERIOD($1, $2) CONTAINS $3", json!(["2026-01-01", null, "2026-01-01"]));
    assert_eq!(kit.rows_of(request).await, json!([[true]]));
}

#[tokio::test]
async fn versions_join_where_their_periods_overlap() {
    let kit = Kit::new();
    kit.write("CREATE TABLE price (_id TEXT, amount INT)").await;
    kit.write("CREATE TABLE rate (_id TEXT, percent INT)").await;
    kit.write(
        "INSERT INTO price (_id, amount, _valid_from, _valid_to) VALUES \
         ('p', 10, '2026-01-01', '2026-01-05'), ('p', 20, '2026-01-05', '2026-01-09'); \
         INSERT INTO rate (_id, percent, _valid_from, _valid_to) VALUES \
         ('p', 1, '2026-01-03', '2026-01-06')",
    )
    .await;
    let sql = "SELECT p.amount, r.percent, p._valid_time * r._valid_time AS both \
               FROM price FOR ALL VALID_TIME p JOIN rate FOR ALL VALID_TIME r \
               ON p._id = r._id AND p._valid_time OVERLAPS r._valid_time ORDER BY 1";
    let period = |from: &str, to: &str| json!({"from": format!("{from}T00:00:00Z"), "to": format!("{to}T00:00:00Z")});
    let expected = json!([
        [10, 1, period("2026-01-03", "2026-01-05")],
        [20, 1, period("2026-01-05", "2026-01-06")],
    ]);
    assert_eq!(kit.rows(sql).await, expected);
    let sql = "SELECT _id, COALESCE_PERIODS(_valid_time) AS whole FROM price FOR ALL VALID_TIME GROUP BY _id";
    assert_eq!(kit.rows(sql).await, json!([["p", [period("2026-01-01", "2026-01-09")]]]));
}

#[tokio::test]
async fn bins_share_a_period_out() {
    let kit = Kit::new();
    let sql = "SELECT b._from, b._to, b._weight FROM (SELECT UNNEST(RANGE_BINS(INTERVAL '1 day', \
               PERIOD('2026-01-01T12:00:00Z', '2026-01-03T12:00:00Z'))) AS b) AS x ORDER BY 1";
    let expected = json!([
        ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", 0.25],
        ["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z", 0.5],
        ["2026-01-03T00:00:00Z", "2026-01-04T00:00:00Z", 0.25],
    ]);
    assert_eq!(kit.rows(sql).await, expected);
    for (args, state) in [
        ("INTERVAL '1 month', PERIOD('2026-01-01', '2026-01-03')", "22023"),
        ("INTERVAL '0 days', PERIOD('2026-01-01', '2026-01-03')", "22023"),
        ("INTERVAL '1 day', PERIOD('2026-01-01', NULL)", "22023"),
        ("INTERVAL '1 microsecond', PERIOD('2026-01-01', '2026-01-03')", "54000"),
    ] {
        assert_eq!(
            kit.error(&format!("SELECT RANGE_BINS({args})")).await.sqlstate(),
            state,
            "{args}"
        );
    }
}
