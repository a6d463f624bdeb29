//! The dialect from text to rows: clauses, as-of joins, hidden columns, and the manual's examples.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests panic")]

use std::path::Path;
use std::sync::Arc;

use everwhen_query::columns::json_of;
use everwhen_query::statements::DefinitionStatement;
use everwhen_query::{Engine, EngineOptions, Error, Outcome, Request};
use everwhen_storage::{ManualClock, Options, Store, ValidTime};
use futures::StreamExt;

struct Database {
    engine: Arc<Engine>,
    store: Store,
    _dir: tempfile::TempDir,
}

impl Database {
    /// Opens an empty database whose clock stands at an instant.
    fn at(now: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = ValidTime::parse(now).unwrap().micros();
        let options = Options {
            path: dir.path().join("data"),
            clock: Arc::new(ManualClock::at(now)),
            sync: false,
            block_cache_bytes: 1 << 20,
        };
        let store = Store::open(options).unwrap();
        let engine = Engine::new(store.clone(), EngineOptions::default());
        Self { engine, store, _dir: dir }
    }

    fn set(&self, now: &str) {
        self.store.clock().set(ValidTime::parse(now).unwrap().micros()).unwrap();
    }

    /// Runs one request; rows come as text, values parted by a space.
    async fn run(&self, sql: &str) -> Result<Vec<String>, Error> {
        match self.engine.execute(Request::new(sql)).await? {
            Outcome::Rows(mut answer) => {
                let mut rows = Vec::new();
                while let Some(batch) = answer.stream.next().await {
                    let batch = batch?;
                    for row in 0..batch.num_rows() {
                        let values = batch.columns().iter().zip(&answer.columns);
                        let values = values.map(|(array, (_, kind))| {
                            match json_of(array.as_ref(), row, kind) {
                                serde_json::Value::String(text) => text,
                                other => other.to_string(),
                            }
                        });
                        rows.push(values.collect::<Vec<_>>().join(" "));
                    }
                }
                Ok(rows)
            }
            Outcome::Define(DefinitionStatement::AlterTable(alter)) => {
                everwhen_query::alter_table(&self.store, &alter).await.map(|_| Vec::new())
            }
            Outcome::Define(DefinitionStatement::CreateIndex(create)) => {
                everwhen_query::create_index(&self.store, &create).await.map(|_| Vec::new())
            }
            Outcome::Define(DefinitionStatement::DropIndex(drop)) => {
                everwhen_query::drop_index(&self.store, &drop).await.map(|_| Vec::new())
            }
            Outcome::Written(_) | Outcome::Define(_) => Ok(Vec::new()),
        }
    }

    #[track_caller]
    fn check(&self, sql: &str) -> impl Future<Output = Vec<String>> {
        let place = std::panic::Location::caller();
        async move {
            match self.run(sql).await {
                Ok(rows) => rows,
                Err(error) => panic!("{place}: {sql}: {} {error}", error.sqlstate()),
            }
        }
    }

    async fn fails(&self, sql: &str, sqlstate: &str, place: Option<&str>) {
        match self.run(sql).await {
            Ok(rows) => panic!("{sql}: {rows:?}"),
            Err(error) => {
                assert_eq!(error.sqlstate(), sqlstate, "{sql}: {error}");
                let byte = place.map(|place| sql.find(place).unwrap());
                let expected = byte.map(|byte| sql[..byte].chars().count() + 1);
                if expected.is_some() {
                    assert_eq!(error.position(), expected, "{sql}: {error}");
                }
            }
        }
    }
}

/// Desk d1 is in A from the 5th, in B from the 7th, in C from the 9th; d2 is in Z throughout.
async fn office() -> Database {
    let db = Database::at("2026-01-05T00:00:00Z");
    for sql in [
        "CREATE TABLE desks (_id TEXT PRIMARY KEY, room TEXT)",
        "CREATE TABLE bookings (_id TEXT PRIMARY KEY, desk TEXT, starts TIMESTAMPTZ)",
    ] {
        db.check(sql).await;
    }
    db.check("INSERT INTO desks (_id, room) VALUES ('d1', 'A'), ('d2', 'Z')").await;
    db.check(
        "INSERT INTO bookings VALUES ('b1', 'd1', '2026-01-06T10:00:00Z'), \
         ('b2', 'd1', '2026-01-08T10:00:00Z'), ('b3', 'd2', '2026-01-08T10:00:00Z'), \
         ('b4', 'd1', NULL), ('b5', 'd9', '2026-01-08T10:00:00Z'), ('b6', 'd1', '2026-01-04T00:00:00Z')",
    )
    .await;
    db.set("2026-01-07T00:00:00Z");
    db.check("INSERT INTO desks (_id, room) VALUES ('d1', 'B')").await;
    db.set("2026-01-09T00:00:00Z");
    db.check("INSERT INTO desks (_id, room) VALUES ('d1', 'C')").await;
    db.set("2026-01-10T00:00:00Z");
    db
}

#[tokio::test]
async fn clauses_pick_points_and_windows_on_both_axes() {
    let db = office().await;
    for (clause, expected) in [
        ("", vec!["C"]),
        ("FOR VALID_TIME AS OF '2026-01-05T12:00:00Z'", vec!["A"]),
        ("FOR VALID_TIME AS OF TIMESTAMP '2026-01-08'", vec!["B"]),
        ("FOR VALID_TIME AS OF now() - INTERVAL '2 days'", vec!["B"]),
        ("FOR VALID_TIME FROM '2026-01-05' TO '2026-01-07'", vec!["A"]),
        ("FOR VALID_TIME BETWEEN '2026-01-05' AND '2026-01-07'", vec!["A", "B"]),
        ("FOR VALID_TIME FROM NULL TO NULL", vec!["A", "B", "C"]),
        ("FOR ALL VALID_TIME", vec!["A", "B", "C"]),
        ("FOR SYSTEM_TIME AS OF '2026-01-06'", vec!["A"]),
        ("FOR SYSTEM_TIME AS OF '2026-01-08' FOR VALID_TIME AS OF '2026-01-06'", vec!["A"]),
        ("FOR ALL VALID_TIME FOR SYSTEM_TIME AS OF '2026-01-08'", vec!["A", "B"]),
        ("FOR ALL SYSTEM_TIME", vec!["A", "B", "C"]),
        ("FOR SYSTEM_TIME AS OF '2026-01-01'", vec![]),
    ] {
        for sql in [
            format!("SELECT room FROM desks {clause} d WHERE _id = 'd1' ORDER BY 1"),
            format!("SELECT d.room FROM desks AS d {clause} WHERE d._id = 'd1' ORDER BY room"),
            format!(
                "WITH x AS (SELECT * FROM desks {clause}) SELECT room FROM x WHERE _id = 'd1' ORDER BY 1"
            ),
        ] {
            assert_eq!(db.check(&sql).await, expected, "{sql}");
        }
    }
}

#[tokio::test]
async fn as_of_joins_meet_the_version_at_each_rows_own_instant() {
    let db = office().await;
    let inner = ["b1 A", "b2 B", "b3 Z"];
    for sql in [
        "SELECT b._id, d.room FROM bookings b JOIN desks FOR VALID_TIME AS OF b.starts d \
         ON d._id = b.desk ORDER BY 1",
        "SELECT b._id, d.room FROM bookings b JOIN desks d FOR VALID_TIME AS OF starts \
         ON d._id = b.desk ORDER BY 1",
        "SELECT b._id, d.room FROM bookings b, desks FOR VALID_TIME AS OF b.starts d \
         WHERE d._id = b.desk ORDER BY 1",
        "SELECT b._id, d.room FROM (SELECT _id, desk AS at_desk, starts FROM bookings) b \
         JOIN desks FOR VALID_TIME AS OF starts d ON d._id = at_desk ORDER BY 1",
    ] {
        assert_eq!(db.check(sql).await, inner, "{sql}");
    }
    let left = db
        .check(
            "SELECT b._id, d.room FROM bookings b LEFT JOIN desks FOR VALID_TIME AS OF b.starts d \
             ON d._id = b.desk ORDER BY 1",
        )
        .await;
    assert_eq!(left, ["b1 A", "b2 B", "b3 Z", "b4 null", "b5 null", "b6 null"]);
    let shifted = db
        .check(
            "SELECT b._id, d.room FROM bookings b JOIN desks FOR VALID_TIME AS OF \
             b.starts + INTERVAL '1 day' d ON d._id = b.desk WHERE b._id = 'b2'",
        )
        .await;
    assert_eq!(shifted, ["b2 C"]);
}

#[tokio::test]
async fn an_as_of_join_is_a_period_join() {
    let db = office().await;
    for join in ["JOIN", "LEFT JOIN"] {
        let sql = format!(
            "SELECT b._id, d.room FROM bookings b {join} desks FOR VALID_TIME AS OF b.starts d \
             ON d._id = b.desk"
        );
        let plan = db.engine.explain(Request::new(sql)).await.unwrap();
        assert!(plan.contains("PeriodJoinExec") && !plan.contains("NestedLoop"), "{plan}");
    }
}

#[tokio::test]
async fn an_as_of_join_on_system_time_shows_what_was_believed_then() {
    let db = office().await;
    let rows = db
        .check(
            "SELECT b._id, d.room FROM bookings b JOIN desks FOR SYSTEM_TIME AS OF b.starts \
             FOR VALID_TIME AS OF now() d ON d._id = b.desk ORDER BY 1",
        )
        .await;
    assert_eq!(rows, ["b1 A", "b2 B", "b3 Z"]);
    let rows = db
        .check(
            "SELECT b._id, d.room FROM bookings b JOIN desks FOR SYSTEM_TIME AS OF b.starts \
             FOR VALID_TIME AS OF b.starts d ON d._id = b.desk ORDER BY 1",
        )
        .await;
    assert_eq!(rows, ["b1 A", "b2 B", "b3 Z"]);
}

#[tokio::test]
async fn instants_reach_into_exists_and_aggregates() {
    let db = office().await;
    let rows = db
        .check(
            "SELECT b._id FROM bookings b WHERE EXISTS (SELECT 1 FROM desks FOR VALID_TIME AS OF \
             b.starts d WHERE d._id = b.desk AND d.room = 'B')",
        )
        .await;
    assert_eq!(rows, ["b2"]);
    let rows = db
        .check(
            "SELECT d.room, count(*) FROM bookings b JOIN desks FOR VALID_TIME AS OF b.starts d \
             ON d._id = b.desk GROUP BY d.room ORDER BY 1",
        )
        .await;
    assert_eq!(rows, ["A 1", "B 1", "Z 1"]);
}

#[tokio::test]
async fn instants_reach_into_lateral_sub_queries() {
    let db = office().await;
    let rows = db
        .check(
            "SELECT b._id, x.room FROM bookings b, LATERAL (SELECT d.room FROM desks \
             FOR VALID_TIME AS OF b.starts d WHERE d._id = b.desk) x ORDER BY 1",
        )
        .await;
    assert_eq!(rows, ["b1 A", "b2 B", "b3 Z"]);
    let rows = db
        .check(
            "SELECT b._id, x.room FROM bookings b LEFT JOIN LATERAL (SELECT d.room FROM desks \
             FOR VALID_TIME AS OF b.starts d WHERE d._id = b.desk) x ON true ORDER BY 1",
        )
        .await;
    assert_eq!(rows, ["b1 A", "b2 B", "b3 Z", "b4 null", "b5 null", "b6 null"]);
}

#[tokio::test]
async fn instants_reach_into_scalar_sub_queries() {
    let db = office().await;
    for sql in [
        "SELECT b._id, (SELECT d.room FROM desks FOR VALID_TIME AS OF b.starts d \
         WHERE d._id = b.desk) FROM bookings b ORDER BY 1",
        "SELECT b._id, (SELECT room FROM desks FOR VALID_TIME AS OF starts \
         WHERE _id = desk) AS room FROM bookings b ORDER BY 1",
    ] {
        let rows = db.check(sql).await;
        assert_eq!(rows, ["b1 A", "b2 B", "b3 Z", "b4 null", "b5 null", "b6 null"], "{sql}");
    }
}

#[tokio::test]
async fn hidden_columns_show_where_named_and_never_in_a_star() {
    let db = office().await;
    assert_eq!(db.check("SELECT * FROM desks ORDER BY 1").await, ["d1 C", "d2 Z"]);
    let rows = db.check("SELECT *, _valid_from, _valid_to FROM desks ORDER BY 1").await;
    assert!(rows[0].starts_with("d1 C 2026-01-09T00:00:00") && rows[0].ends_with(" null"));
    assert!(rows[1].starts_with("d2 Z 2026-01-05T00:00:00") && rows.len() == 2);
    let joined = db
        .check(
            "SELECT * FROM bookings b JOIN desks FOR VALID_TIME AS OF b.starts d ON d._id = b.desk \
             WHERE d._valid_to IS NOT NULL ORDER BY 1",
        )
        .await;
    assert_eq!(joined, ["b1 d1 2026-01-06T10:00:00Z d1 A", "b2 d1 2026-01-08T10:00:00Z d1 B"]);
    let using =
        db.check("SELECT * FROM bookings JOIN desks FOR VALID_TIME AS OF starts USING (_id)").await;
    assert!(using.is_empty());
    let excluded = db.check("SELECT * EXCLUDE (room), _tx > 0 FROM desks ORDER BY 1").await;
    assert_eq!(excluded, ["d1 true", "d2 true"]);
    let renamed = db.check("SELECT x.a, x._tx > 0 FROM desks AS x (a, b) ORDER BY 1").await;
    assert_eq!(renamed, ["d1 true", "d2 true"]);
}

#[tokio::test]
async fn wrong_queries_say_what_and_where() {
    let db = office().await;
    for (sql, sqlstate, place) in [
        ("SELECT * FROM nope", "42P01", Some("nope")),
        ("SELECT nope FROM desks", "42703", Some("nope")),
        ("SELECT _id FROM desks, bookings", "42702", Some("_id")),
        ("SELECT nope(1)", "42883", None),
        ("SELECT * FROM desks FOR VALID_TIME AS OF NULL", "22004", Some("NULL")),
        ("SELECT * FROM desks FOR VALID_TIME AS OF '2026-02-30'", "22008", Some("'2026-02-30'")),
        (
            "SELECT * FROM desks FOR VALID_TIME AS OF '2026-01-01T00:00:00.1234567Z'",
            "22008",
            Some("'2026-01"),
        ),
        (
            "SELECT * FROM desks FOR VALID_TIME FROM '2026-01-02' TO '2026-01-02'",
            "22023",
            Some("'2026-01-02'"),
        ),
        ("SELECT * FROM desks FOR VALID_TIME AS OF $1", "42P02", None),
        ("SELEC", "42601", Some("SELEC")),
        ("SELECT 1; SELECT 2", "0A000", None),
    ] {
        db.fails(sql, sqlstate, place).await;
    }
}

#[test]
fn hostile_queries_neither_hang_nor_end_the_process() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_stack_size(everwhen_query::QUERY_STACK_BYTES)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(runtime.spawn(survive_hostile_queries())).unwrap();
}

async fn survive_hostile_queries() {
    let db = office().await;
    for sql in [
        format!("SELECT {}1", "1 + ".repeat(900)),
        format!("SELECT 1 WHERE {}true", "true OR ".repeat(900)),
        format!("SELECT {}1{}", "(".repeat(60), ")".repeat(60)),
        format!("{}SELECT 1 AS x{}", "SELECT * FROM (".repeat(30), ") y".repeat(30)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(300)),
        format!("SELECT {}1{}", "CASE WHEN true THEN ".repeat(60), " END".repeat(60)),
        format!("SELECT {} 1", "NOT ".repeat(120)),
    ] {
        let _either = db.run(&sql).await;
    }
    assert_eq!(db.check("SELECT 1").await, ["1"]);
}

/// True for a definition that the engine only reads.
fn is_of_the_server(statement: &str) -> bool {
    let owned = ["CREATE PROJECTION", "EXPLAIN PROJECTION", "ALTER PROJECTION", "ALTER STREAM"];
    owned.iter().any(|start| statement.starts_with(start))
}

/// The examples of the manual: those marked `error=..` fail with that code, others run.
#[tokio::test]
async fn every_example_of_the_manual_does_what_it_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/sql.md");
    let text = std::fs::read_to_string(page).unwrap();
    let db = Database::at("2026-01-10T12:00:00Z");
    let mut run = 0;
    for block in text.split("```sql").skip(1) {
        let (head, rest) = block.split_once('\n').unwrap();
        let body = rest.split("```").next().unwrap();
        let error = head.trim().strip_prefix("error=");
        for statement in body.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
            match error {
                // The server carries these out: its own test of the page runs them.
                Some(_) if is_of_the_server(statement) => continue,
                Some(sqlstate) => db.fails(statement, sqlstate, None).await,
                None => {
                    db.check(statement).await;
                }
            }
            run += 1;
        }
    }
    assert!(run > 50, "only {run} statements");
}
