//! Joins over periods: the operator against the same query in a form that it does not take.

use serde_json::{Value as Json, json};

use super::kit::Kit;
use super::random::Random;
use crate::Request;

impl Random {
    fn instant(&mut self) -> String {
        format!("2025-{:02}-{:02}T00:00:00Z", 1 + self.below(12), 1 + self.below(28))
    }

    /// A value, or at times none.
    fn maybe_null(&mut self, value: String) -> String {
        if self.below(9) == 0 { "NULL".to_owned() } else { value }
    }
}

async fn tables(random: &mut Random) -> Kit {
    let kit = Kit::new();
    kit.write("CREATE TABLE v (_id TEXT, kind TEXT, n INT)").await;
    kit.write("CREATE TABLE e (_id TEXT, who TEXT, at TIMESTAMPTZ, until TIMESTAMPTZ)").await;
    for n in 0..60 {
        let (mut from, mut to) = (random.instant(), random.instant());
        if from > to {
            std::mem::swap(&mut from, &mut to);
        }
        let to =
            if from == to || random.below(3) == 0 { "NULL".to_owned() } else { format!("'{to}'") };
        let (id, kind) = (random.below(6), random.below(3));
        kit.write(&format!(
            "INSERT INTO v (_id, kind, n, _valid_from, _valid_to) VALUES ('k{id}', 'c{kind}', {n}, '{from}', {to})"
        ))
        .await;
    }
    for n in 0..50 {
        let who = format!("'k{}'", random.below(8));
        let at = format!("'{}'", random.instant());
        let until = format!("'{}'", random.instant());
        let (who, at, until) =
            (random.maybe_null(who), random.maybe_null(at), random.maybe_null(until));
        kit.write(&format!(
            "INSERT INTO e (_id, who, at, until) VALUES ('e{n}', {who}, {at}, {until})"
        ))
        .await;
    }
    kit
}

async fn sorted(kit: &Kit, sql: &str) -> Vec<String> {
    let rows = kit.rows(sql).await;
    let mut rows: Vec<String> = rows.as_array().unwrap().iter().map(Json::to_string).collect();
    rows.sort();
    rows
}

async fn plan(kit: &Kit, sql: &str) -> String {
    kit.engine.explain(Request::new(sql)).await.unwrap()
}

#[tokio::test]
async fn period_joins_answer_as_other_joins_do() {
    for seed in 0..12 {
        let mut random = Random(seed);
        let kit = tables(&mut random).await;
        for (on, same) in [
            // Instants within versions.
            (
                "v._id = e.who AND v._valid_from <= e.at AND e.at < v.ends",
                "v._id = e.who AND (v._valid_from <= e.at)::INT + (e.at < v.ends)::INT = 2",
            ),
            (
                "v._valid_from <= e.at AND e.at < v.ends AND v.n % 2 = 0",
                "(v._valid_from <= e.at)::INT + (e.at < v.ends)::INT = 2 AND v.n % 2 = 0",
            ),
            // Periods, which may be inverted.
            (
                "e.who = v._id AND e.at < v.ends AND v._valid_from < e.until",
                "e.who = v._id AND (e.at < v.ends)::INT + (v._valid_from < e.until)::INT = 2",
            ),
            (
                "v._id = e.who AND e.at <= v.ends AND e.until >= v._valid_from",
                "v._id = e.who AND (e.at <= v.ends)::INT + (e.until >= v._valid_from)::INT = 2",
            ),
        ] {
            for join in ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"] {
                for (one, other) in [("e", "v"), ("v", "e")] {
                    let text = |on: &str| {
                        let named = |name: &str| {
                            match name {
                            "v" => "(SELECT *, _valid_from, COALESCE(_valid_to, TIMESTAMP '9999-01-01T00:00:00Z') AS ends \
                                    FROM v FOR ALL VALID_TIME) AS v".to_owned(),
                            name => name.to_owned(),
                        }
                        };
                        format!(
                            "SELECT e._id, e.at, v._id, v.n, v.kind FROM {} {join} {} ON {on}",
                            named(one),
                            named(other)
                        )
                    };
                    let (asked, naive) = (text(on), text(same));
                    let shown = plan(&kit, &asked).await;
                    assert_eq!(
                        shown.contains("PeriodJoinExec"),
                        join != "FULL JOIN",
                        "{asked}\n{shown}"
                    );
                    assert!(!plan(&kit, &naive).await.contains("PeriodJoinExec"), "{naive}");
                    assert_eq!(
                        sorted(&kit, &asked).await,
                        sorted(&kit, &naive).await,
                        "seed {seed}: {asked}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn as_of_joins_and_overlaps_are_period_joins() {
    let kit = tables(&mut Random(3)).await;
    for sql in [
        "SELECT e._id, v.n FROM e JOIN v FOR VALID_TIME AS OF e.at ON v._id = e.who",
        "SELECT e._id, v.n FROM e LEFT JOIN v FOR VALID_TIME AS OF e.at ON v._id = e.who",
        "SELECT e._id, v.n FROM e, v FOR VALID_TIME AS OF e.at WHERE v._id = e.who AND e.who > 'k1'",
        "SELECT a.n, b.n FROM v FOR ALL VALID_TIME a JOIN v FOR ALL VALID_TIME b ON a._id = b._id AND a._valid_time OVERLAPS b._valid_time",
        "SELECT a.n, b.n FROM v FOR ALL VALID_TIME a JOIN v FOR ALL VALID_TIME b ON a._valid_time OVERLAPS b._valid_time",
        "SELECT a.n, e._id FROM v FOR ALL VALID_TIME a JOIN e ON a._valid_time CONTAINS e.at",
    ] {
        let shown = plan(&kit, sql).await;
        assert!(shown.contains("PeriodJoinExec"), "{sql}\n{shown}");
        assert!(kit.rows(sql).await.as_array().is_some_and(|rows| !rows.is_empty()), "{sql}");
    }
    let pairs = "SELECT count(*) FROM v FOR ALL VALID_TIME a JOIN v FOR ALL VALID_TIME b ON ";
    let found = kit.rows(&format!("{pairs} a._valid_time OVERLAPS b._valid_time")).await;
    let looked = kit
        .rows(&format!("{pairs} COALESCE(a._valid_time * b._valid_time IS NOT NULL, false)"))
        .await;
    assert_eq!(found, looked);
    assert_ne!(found, json!([[0]]));
}

/// UNION ALL has a partition for each of its sides, of which the join read the first alone.
#[tokio::test]
async fn both_sides_of_a_union_are_joined() {
    let kit = tables(&mut Random(4)).await;
    let twice = "(SELECT who, at FROM e UNION ALL SELECT who, at FROM e) AS u";
    let versions = "v FOR ALL VALID_TIME AS a";
    for on in ["a._valid_time CONTAINS u.at", "a._id = u.who AND a._valid_time CONTAINS u.at"] {
        let once = format!("SELECT 2 * count(*) FROM e AS u JOIN {versions} ON {on}");
        let expected = kit.rows(&once).await;
        for from in [format!("{twice} JOIN {versions}"), format!("{versions} JOIN {twice}")] {
            let sql = format!("SELECT count(*) FROM {from} ON {on}");
            assert!(plan(&kit, &sql).await.contains("PeriodJoinExec"), "{sql}");
            assert_eq!(kit.rows(&sql).await, expected, "{sql}");
        }
    }
}
