//! Delivery into a warehouse that has rules of its own: rows that it refuses are held and hold up nothing
//! else, what the projection did not make stays, and an operator is told what is wrong.

use std::path::Path;

use anyhow::{Result, ensure};
use everwhen_tests::http::eventually;
use everwhen_tests::one_at_a_time;
use everwhen_tests::process::Server;
use everwhen_tests::warehouse::sqlite_rows;
use rusqlite::Connection;
use serde_json::{Value, json};

const CLOCK: &str = "2026-01-10T12:00:00Z";

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

async fn start(dir: &Path) -> Result<Server> {
    let sinks = dir.join("delivery.toml");
    let warehouse = text(&dir.join("warehouse.db"));
    let config = format!(
        "[sinks.warehouse]\ntype = \"sqlite\"\npath = {warehouse:?}\n[retry]\nrefused_ms = 50\n"
    );
    std::fs::write(&sinks, config)?;
    Server::start_with(&dir.join("data"), Some(CLOCK), &["--projector", &text(&sinks)]).await
}

async fn projection(server: &Server, columns: &str, name: &str) -> Result<Vec<Value>> {
    let sql = format!("SELECT {columns} FROM everwhen.projections WHERE projection = '{name}'");
    Ok(server.client.rows(&sql).await?.into_iter().next().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_a_warehouse_refuses_are_held_and_the_rest_goes_on() {
    let _turn = one_at_a_time();
    rows_are_held().await.unwrap();
}

async fn rows_are_held() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("warehouse.db");
    let user = Connection::open(&path)?;
    user.busy_timeout(std::time::Duration::from_secs(5))?;
    user.execute_batch(
        "CREATE TABLE stock (id TEXT PRIMARY KEY, n INTEGER NOT NULL CHECK (n >= 0), note TEXT);
         INSERT INTO stock VALUES ('theirs', 7, 'mine');",
    )?;
    let mut server = start(dir.path()).await?;
    server.client.sql("CREATE TABLE items (_id TEXT PRIMARY KEY, n BIGINT)").await?;
    server.client.sql("INSERT INTO items (_id, n) VALUES ('a', 1), ('b', -1), ('c', NULL)").await?;
    let create = "CREATE PROJECTION stock KEY (id) INTO warehouse.stock WITH (metadata = false) \
                  AS SELECT _id AS id, n FROM items";
    server.client.sql(create).await?;
    server.client.wait_delivered().await?;
    let stock = "SELECT id, n FROM stock ORDER BY id";
    let cell = |text: &str| Some(text.to_owned());
    let rows = sqlite_rows(&path, stock)?;
    ensure!(rows == [[cell("a"), cell("1")], [cell("theirs"), cell("7")]], "{rows:?}");
    let held = "SELECT key, tenant, reason FROM everwhen.projection_errors ORDER BY reason";
    let errors = server.client.rows(held).await?;
    ensure!(errors.len() == 2 && errors[0][0] == json!(["b"]), "{errors:?}");
    ensure!(errors[0][1] == json!("default"), "{errors:?}");
    let reasons = [&errors[0][2], &errors[1][2]].map(Value::to_string);
    ensure!(reasons[0].contains("CHECK") && reasons[1].contains("NOT NULL"), "{reasons:?}");
    let shown = projection(&server, "state, held_keys, held_since IS NOT NULL", "stock").await?;
    ensure!(shown == [json!("incomplete"), json!(2), json!(true)], "{shown:?}");

    // Over a restart too, and a key is released by its next change that is accepted.
    server.stop()?;
    let mut server = start(dir.path()).await?;
    ensure!(server.client.rows(held).await?.len() == 2, "held keys are durable");
    server.client.sql("UPDATE items SET n = 5 WHERE _id = 'b'").await?;
    server.client.sql("DELETE FROM items WHERE _id = 'c'").await?;
    server.client.wait_delivered().await?;
    let rows = sqlite_rows(&path, stock)?;
    ensure!(rows.len() == 3 && rows[1] == [cell("b"), cell("5")], "{rows:?}");
    ensure!(server.client.rows(held).await?.is_empty(), "both are released");
    let shown = projection(&server, "state, held_keys", "stock").await?;
    ensure!(shown == [json!("live"), json!(0)], "{shown:?}");

    // A reload removes what is gone from the query, and nothing that is not the projection's.
    let replace = create.replace("CREATE", "CREATE OR REPLACE") + " WHERE n > 1";
    server.client.sql(&replace).await?;
    server.client.wait_delivered().await?;
    let rows = sqlite_rows(&path, "SELECT id, note FROM stock ORDER BY id")?;
    ensure!(rows == [[cell("b"), None], [cell("theirs"), cell("mine")]], "{rows:?}");
    server.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_sink_is_said() {
    let _turn = one_at_a_time();
    wrong_sinks().await.unwrap();
}

async fn wrong_sinks() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("warehouse.db");
    let mut server = start(dir.path()).await?;
    server.client.sql("CREATE TABLE items (_id TEXT PRIMARY KEY, n BIGINT)").await?;
    server.client.sql("INSERT INTO items (_id, n) VALUES ('a', 1)").await?;
    let create = |name: &str, into: &str| {
        format!("CREATE PROJECTION {name} KEY (_id) INTO {into} AS SELECT _id, n FROM items")
    };
    server.client.sql(&create("lost", "nosink.t")).await?;
    let text = "no delivery process offers sink \"nosink\"; offered: warehouse";
    eventually("the sink that nobody offers to be said", || async {
        let shown = projection(&server, "state, error", "lost").await?;
        Ok(shown == [json!("waiting"), json!(text)])
    })
    .await?;
    server.client.sql("DROP PROJECTION lost").await?;

    server.client.sql(&create("one", "warehouse.t")).await?;
    server.client.wait_delivered().await?;
    for sql in
        [create("two", "warehouse.t"), create("two", "warehouse.T"), create("t", "warehouse")]
    {
        let refused = server.client.sql_error(&sql).await?;
        ensure!(refused.body["sqlstate"] == "42710", "{:?}", refused.body);
        ensure!(refused.body["detail"].to_string().contains("one"), "{:?}", refused.body);
        ensure!(refused.body["hint"].to_string().contains("INTO warehouse."), "{:?}", refused.body);
    }

    // The table of a projection that is gone is not taken over either, until it is dropped.
    server.client.sql("DROP PROJECTION one").await?;
    server.client.sql(&create("two", "warehouse.t")).await?;
    eventually("the table of another projection to be refused", || async {
        let error = projection(&server, "error", "two").await?;
        Ok(error.first().is_some_and(|error| error.to_string().contains("belongs to projection")))
    })
    .await?;
    ensure!(sqlite_rows(&path, "SELECT _id FROM t")?.len() == 1, "its rows are still there");
    let user = Connection::open(&path)?;
    user.busy_timeout(std::time::Duration::from_secs(5))?;
    user.execute("DROP TABLE t", [])?;
    server.client.wait_delivered().await?;
    eventually("the error to go", || async {
        Ok(projection(&server, "state, error", "two").await? == [json!("live"), Value::Null])
    })
    .await?;

    // A table that somebody drops while it is delivered to is made anew, with all rows.
    user.execute("DROP TABLE t", [])?;
    server.client.sql("INSERT INTO items (_id, n) VALUES ('b', 2)").await?;
    eventually("the table to be made anew", || async {
        let rows = sqlite_rows(&path, "SELECT _id FROM t").unwrap_or_default();
        Ok(rows.len() == 2)
    })
    .await?;
    server.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_range_of_time_is_shown_and_delivered() {
    let _turn = one_at_a_time();
    whole_range().await.unwrap();
}

async fn whole_range() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("warehouse.db");
    let mut server = start(dir.path()).await?;
    server.client.sql("CREATE TABLE ends (_id TEXT PRIMARY KEY, at TIMESTAMPTZ, day DATE)").await?;
    server
        .client
        .sql(
            "INSERT INTO ends (_id, at, day) VALUES \
             ('first', TIMESTAMPTZ '0001-01-01T00:00:00Z', DATE '0001-01-01'), \
             ('last', TIMESTAMPTZ '9999-12-31T23:59:59.999999Z', DATE '9999-12-31')",
        )
        .await?;
    let create =
        "CREATE PROJECTION ends KEY (_id) INTO warehouse.ends AS SELECT _id, at, day FROM ends";
    server.client.sql(create).await?;
    let rows = server.client.rows("SELECT at, day FROM ends ORDER BY _id").await?;
    let expected = [
        [json!("0001-01-01T00:00:00Z"), json!("0001-01-01")],
        [json!("9999-12-31T23:59:59.999999Z"), json!("9999-12-31")],
    ];
    ensure!(rows == expected, "{rows:?}");
    server.client.wait_delivered().await?;
    let rows = sqlite_rows(&path, "SELECT at, day FROM ends ORDER BY _id")?;
    let cell = |text: &str| Some(text.to_owned());
    let expected = [
        [cell("0001-01-01T00:00:00.000000Z"), cell("0001-01-01")],
        [cell("9999-12-31T23:59:59.999999Z"), cell("9999-12-31")],
    ];
    ensure!(rows == expected, "{rows:?}");
    server.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_that_are_not_covered_are_warned_of() {
    let _turn = one_at_a_time();
    uncovered_tenants().await.unwrap();
}

async fn uncovered_tenants() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("warehouse.db");
    let mut server = start(dir.path()).await?;
    server.client.sql("CREATE TABLE items (_id TEXT PRIMARY KEY, n BIGINT)").await?;
    for tenant in ["default", "acme"] {
        let insert = "INSERT INTO items (_id, n) VALUES ('a', 1)";
        let body = json!({ "sql": insert, "tenant": tenant });
        let answer = server.client.post("/v1/sql", &body).await?;
        ensure!(answer.status == 200, "{:?}", answer.body);
    }
    let create = |name: &str, with: &str| {
        format!(
            "CREATE PROJECTION {name} KEY (_id) INTO warehouse.{name} {with} AS SELECT _id, n FROM items"
        )
    };
    let answer = server.client.sql(&create("one", "")).await?;
    let warning = answer["warnings"][0].as_str().unwrap_or_default().to_owned();
    ensure!(warning.contains("1 other tenant has rows"), "{answer:?}");
    ensure!(!warning.contains("acme"), "another tenant's name is not told: {warning}");
    let answer = server.client.sql(&create("both", "WITH (tenants = 'all')")).await?;
    ensure!(answer["warnings"].is_null(), "{answer:?}");
    server.client.wait_delivered().await?;
    ensure!(projection(&server, "uncovered_tenants", "one").await? == [json!(1)]);
    ensure!(projection(&server, "uncovered_tenants", "both").await? == [json!(0)]);
    ensure!(sqlite_rows(&path, "SELECT _id FROM one")?.len() == 1);
    let rows = sqlite_rows(&path, "SELECT _tenant, _id FROM \"both\" ORDER BY 1")?;
    ensure!(rows.len() == 2 && rows[0][0].as_deref() == Some("acme"), "{rows:?}");
    server.stop()?;
    Ok(())
}
