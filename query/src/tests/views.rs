//! Views: read like tables, at whatever time their reader reads.

use serde_json::json;

use super::kit::Kit;
use crate::{Outcome, Request, TemporaryViews};

async fn staff() -> Kit {
    let kit = Kit::new();
    kit.write("CREATE TABLE emp (_id TEXT, name TEXT, team TEXT)").await;
    kit.write(
        "INSERT INTO emp (_id, name, team, _valid_from, _valid_to) VALUES \
         ('e1', 'Ada', 'red', '2025-01-01', '2025-06-01'), \
         ('e1', 'Ada', 'blue', '2025-06-01', NULL), ('e2', 'Bob', 'red', '2025-01-01', NULL)",
    )
    .await;
    kit.write("CREATE VIEW reds AS SELECT _id, name FROM emp WHERE team = 'red'").await;
    kit
}

#[tokio::test]
async fn a_view_is_read_at_the_time_of_its_reader() {
    let kit = staff().await;
    assert_eq!(kit.rows("SELECT * FROM reds").await, json!([["e2", "Bob"]]));
    assert_eq!(kit.rows("SELECT r.name FROM public.reds r").await, json!([["Bob"]]));
    let sql = "SETTING DEFAULT VALID_TIME AS OF '2025-02-01' SELECT name FROM reds ORDER BY 1";
    assert_eq!(kit.rows(sql).await, json!([["Ada"], ["Bob"]]));
    let mut request = Request::new("SELECT count(*) FROM reds");
    request.valid_time = Some(everwhen_storage::ValidTime::parse("2025-02-01").unwrap());
    assert_eq!(kit.rows_of(request).await, json!([[2]]));
    let error = kit.error("SELECT * FROM reds FOR ALL VALID_TIME").await;
    assert_eq!(error.sqlstate(), "0A000");
}

#[tokio::test]
async fn a_views_own_clauses_and_hidden_columns_hold() {
    let kit = staff().await;
    kit.write(
        "CREATE VIEW stays (who, since) AS \
         SELECT name, _valid_from FROM emp FOR ALL VALID_TIME WHERE team = 'red'",
    )
    .await;
    let sql = "SELECT who, since FROM stays ORDER BY 1";
    let since = "2025-01-01T00:00:00Z";
    assert_eq!(kit.rows(sql).await, json!([["Ada", since], ["Bob", since]]));
    assert_eq!(kit.rows("SELECT * FROM stays WHERE who = 'Ada'").await, json!([["Ada", since]]));
    kit.write(
        "CREATE VIEW early AS SETTING DEFAULT VALID_TIME AS OF '2025-02-01' SELECT name FROM reds",
    )
    .await;
    assert_eq!(kit.rows("SELECT name FROM early ORDER BY 1").await, json!([["Ada"], ["Bob"]]));
    let sql = "SELECT s.who, e.team FROM stays s JOIN emp FOR VALID_TIME AS OF s.since e ON e.name = s.who ORDER BY 1";
    assert_eq!(kit.rows(sql).await, json!([["Ada", "red"], ["Bob", "red"]]));
    let sql = "INSERT INTO emp (_id, name) SELECT who || '2', who FROM stays";
    kit.write(sql).await;
    assert_eq!(kit.rows("SELECT count(*) FROM emp").await, json!([[4]]));
}

#[tokio::test]
async fn views_are_replaced_dropped_and_listed() {
    let kit = staff().await;
    let basis = kit.answer(Request::new("SELECT 1")).await.basis;
    kit.write(
        "CREATE OR REPLACE VIEW reds AS SELECT upper(name) AS name FROM emp WHERE team = 'red'",
    )
    .await;
    assert_eq!(kit.rows("SELECT * FROM reds").await, json!([["BOB"]]));
    let mut earlier = Request::new("SELECT * FROM reds");
    earlier.basis = Some(basis);
    assert_eq!(kit.rows_of(earlier).await, json!([["e2", "Bob"]]));
    kit.write("CREATE VIEW IF NOT EXISTS reds AS SELECT 1 AS one").await;
    kit.write("CREATE VIEW over AS SELECT name FROM reds").await;
    for (sql, state) in [
        ("CREATE VIEW reds AS SELECT 1 AS one", "42P07"),
        ("CREATE VIEW emp AS SELECT 1 AS one", "42P07"),
        ("CREATE TABLE reds (a INT)", "42P07"),
        ("CREATE OR REPLACE VIEW reds AS SELECT name FROM over", "54001"),
        ("CREATE OR REPLACE VIEW reds AS SELECT 1 AS one", "2BP01"),
        ("CREATE VIEW bad AS SELECT nope FROM emp", "42703"),
        ("CREATE VIEW bad (a, b) AS SELECT name FROM emp", "42P16"),
        ("CREATE VIEW bad AS SETTING CLOCK_TIME = now() SELECT 1", "0A000"),
        ("INSERT INTO reds (_id) VALUES ('x')", "0A000"),
        ("UPDATE reds SET name = 'x'", "0A000"),
        ("DROP VIEW reds", "2BP01"),
        ("DROP TABLE emp", "2BP01"),
        ("DROP VIEW nowhere", "42P01"),
    ] {
        assert_eq!(kit.error(sql).await.sqlstate(), state, "{sql}");
    }
    let listed = kit.rows("SELECT view, query FROM everwhen.views ORDER BY 1").await;
    assert_eq!(listed[0], json!(["over", "SELECT name FROM reds"]));
    assert_eq!(kit.rows("SHOW VIEWS").await, json!([["over"], ["reds"]]));
    kit.write("DROP VIEW over").await;
    kit.write("DROP VIEW reds").await;
    kit.write("DROP VIEW IF EXISTS reds").await;
    assert_eq!(kit.error("SELECT * FROM reds").await.sqlstate(), "42P01");
}

/// A session of a kit.
struct Session<'k> {
    kit: &'k Kit,
    views: TemporaryViews,
}

impl<'k> Session<'k> {
    fn new(kit: &'k Kit) -> Self {
        Self { kit, views: TemporaryViews::default() }
    }

    fn request(&self, sql: &str) -> Request {
        Request { temporary_views: Some(self.views.clone()), ..Request::new(sql) }
    }

    async fn write(&self, sql: &str) {
        match self.kit.run(self.request(sql)).await {
            Ok(Outcome::Written(_)) => {}
            Ok(_) => panic!("{sql} is no write"),
            Err(error) => panic!("{sql}: {error:?}"),
        }
    }

    async fn rows(&self, sql: &str) -> serde_json::Value {
        self.kit.rows_of(self.request(sql)).await
    }

    async fn state(&self, sql: &str) -> &'static str {
        self.kit.run(self.request(sql)).await.err().map_or("none", |error| error.sqlstate())
    }
}

#[tokio::test]
async fn a_temporary_view_is_its_sessions_alone() {
    let kit = staff().await;
    let (one, other) = (Session::new(&kit), Session::new(&kit));
    let before = kit.store.latest().tx;
    one.write("CREATE TEMPORARY VIEW blues (who) AS SELECT name FROM emp WHERE team = 'blue'")
        .await;
    one.write("CREATE TEMP VIEW shout AS SELECT upper(who) AS who FROM blues").await;
    assert_eq!(kit.store.latest().tx, before, "nothing is stored");
    assert_eq!(one.rows("SELECT * FROM shout").await, json!([["ADA"]]));
    assert_eq!(one.rows("SELECT who FROM pg_temp.blues").await, json!([["Ada"]]));
    let sql = "SETTING DEFAULT VALID_TIME AS OF '2025-02-01' SELECT count(*) FROM shout";
    assert_eq!(one.rows(sql).await, json!([[0]]));
    one.write("INSERT INTO emp (_id, name) SELECT who || '2', who FROM blues").await;
    one.write("DELETE FROM emp WHERE name IN (SELECT who FROM blues) AND _id = 'Ada2'").await;
    assert_eq!(one.rows("SELECT count(*) FROM emp").await, json!([[2]]));
    assert_eq!(one.rows("SHOW VIEWS").await, json!([["reds"]]));
    one.write("CREATE TEMP VIEW IF NOT EXISTS blues AS SELECT 1 AS one").await;
    one.write("CREATE OR REPLACE TEMP VIEW blues AS SELECT lower(name) AS who FROM emp").await;
    assert_eq!(one.rows("SELECT * FROM shout ORDER BY 1").await, json!([["ADA"], ["BOB"]]));
    for (sql, state) in [
        ("CREATE TEMP VIEW blues AS SELECT 1 AS one", "42P07"),
        ("CREATE TEMP VIEW reds AS SELECT 1 AS one", "42P07"),
        ("CREATE OR REPLACE TEMP VIEW emp AS SELECT 1 AS one", "42P07"),
        ("CREATE OR REPLACE TEMP VIEW blues AS SELECT who FROM shout", "54001"),
        ("CREATE TEMP VIEW bad AS SELECT nope FROM emp", "42703"),
        ("CREATE TEMP VIEW bad (a, b) AS SELECT name FROM emp", "42P16"),
        ("CREATE TEMP TABLE bad (a INT)", "0A000"),
        ("CREATE VIEW stored AS SELECT who FROM blues", "42P01"),
        ("INSERT INTO blues (_id) VALUES ('x')", "0A000"),
        ("UPDATE blues SET who = 'x'", "0A000"),
        ("SELECT * FROM blues FOR ALL VALID_TIME", "0A000"),
    ] {
        assert_eq!(one.state(sql).await, state, "{sql}");
    }
    assert_eq!(other.state("SELECT * FROM blues").await, "42P01");
    assert_eq!(other.state("DROP VIEW blues").await, "42P01");
    assert_eq!(kit.error("CREATE TEMP VIEW v AS SELECT 1 AS one").await.sqlstate(), "0A000");
    one.write("DROP VIEW blues").await;
    assert_eq!(one.state("SELECT * FROM shout").await, "42P01", "what it rests on is gone");
    one.views.clear();
    assert_eq!(one.state("DROP VIEW shout").await, "42P01");
}

#[tokio::test]
async fn what_others_store_under_a_temporary_views_name_stays_theirs() {
    let kit = staff().await;
    let one = Session::new(&kit);
    one.write("CREATE TEMP VIEW late AS SELECT 'mine' AS whose").await;
    kit.write("INSERT INTO late (_id, whose) VALUES (1, 'theirs')").await;
    kit.write("CREATE VIEW lates AS SELECT whose FROM late").await;
    assert_eq!(one.rows("SELECT whose FROM late").await, json!([["mine"]]));
    let sql = "SELECT whose FROM late WHERE _id = 1";
    assert_eq!(one.state(sql).await, "42703", "not taken for a look-up in the table");
    assert_eq!(one.rows("SELECT whose FROM public.late").await, json!([["theirs"]]));
    // A stored view means what is stored.
    assert_eq!(one.rows("SELECT * FROM lates").await, json!([["theirs"]]));
    one.write("CREATE TEMP VIEW over AS SELECT whose FROM lates UNION SELECT whose FROM late")
        .await;
    assert_eq!(one.rows("SELECT * FROM over ORDER BY 1").await, json!([["mine"], ["theirs"]]));
    for sql in [
        "INSERT INTO late (_id, whose) VALUES (2, 'x')",
        "UPDATE late SET whose = 'x'",
        "DELETE FROM late",
    ] {
        assert_eq!(one.state(sql).await, "0A000", "{sql}");
    }
    one.write("DROP VIEW late").await;
    assert_eq!(one.rows("SELECT whose FROM late").await, json!([["theirs"]]));
}

#[tokio::test]
async fn a_session_holds_so_many_temporary_views() {
    let kit = Kit::new();
    let one = Session::new(&kit);
    let filler = "x".repeat(900_000);
    for n in 0..4 {
        one.write(&format!("CREATE TEMP VIEW v{n} AS SELECT '{filler}' AS x")).await;
    }
    let sql = format!("CREATE TEMP VIEW v4 AS SELECT '{filler}' AS x");
    assert_eq!(one.state(&sql).await, "54000");
    // What it takes the place of makes room for it.
    one.write(&sql.replace("CREATE TEMP VIEW v4", "CREATE OR REPLACE TEMP VIEW v3")).await;
}
