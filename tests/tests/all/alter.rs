//! ALTER TABLE under a running line: events come in, a projection is delivered, past answers stay
//! as they were over restarts too (FC3).

use anyhow::{Result, ensure};
use everwhen_tests::http::Client;
use everwhen_tests::one_at_a_time;
use everwhen_tests::process::{Server, start_projector};
use everwhen_tests::warehouse::sqlite_rows;
use serde_json::{Value, json};

const MODEL: &str = "
CREATE TABLE meters (_id TEXT PRIMARY KEY, site TEXT, level INT, note TEXT);
CREATE STREAM levels FORMAT JSON (id TEXT, site TEXT, level BIGINT);
CREATE MAPPING measured ON levels AS PUT INTO meters SELECT id AS _id, site, level;
CREATE PROJECTION by_site KEY (id) INTO warehouse.by_site AS SELECT _id AS id, site FROM meters;
";

/// What changes, and what is refused because the mapping or the projection rests on it.
const CHANGES: [&str; 5] = [
    "ALTER TABLE meters ALTER COLUMN level TYPE FLOAT",
    "ALTER TABLE meters ADD COLUMN unit TEXT",
    "ALTER TABLE meters DROP COLUMN note",
    "ALTER TABLE meters ADD COLUMN note JSON",
    "ALTER TABLE meters ALTER COLUMN level SET NOT NULL",
];
const REFUSED: [(&str, &str); 5] = [
    ("ALTER TABLE meters DROP COLUMN site", "mapping"),
    ("ALTER TABLE meters RENAME COLUMN level TO height", "mapping"),
    ("ALTER TABLE meters ALTER COLUMN site TYPE JSON", "mapping"),
    ("ALTER TABLE meters ALTER COLUMN unit SET NOT NULL", "mapping"),
    ("DROP TABLE meters", "mapping"),
];

async fn emit(client: &Client, id: &str, site: &str, level: i64) -> Result<()> {
    let event = json!({"value": {"id": id, "site": site, "level": level}});
    let answer = client.post("/v1/events", &json!({"stream": "levels", "events": [event]})).await?;
    ensure!(answer.status == 200 && answer.body["accepted"] == 1, "{answer:?}");
    Ok(())
}

/// Asks again at a basis; what is compared is the whole text of the answer.
async fn at_basis(client: &Client, basis: &Value) -> Result<Value> {
    let sql = "SELECT *, _valid_from, _system_from FROM meters FOR ALL VALID_TIME ORDER BY _id, _valid_from";
    let answer = client.post("/v1/sql", &json!({"sql": sql, "basis": basis})).await?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(json!([answer.body["columns"], answer.body["rows"]]))
}

async fn run() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let clock = Some("2026-01-10T12:00:00Z");
    let mut server = Server::start(&dir.path().join("data"), clock).await?;
    let config = format!(
        "[sinks.warehouse]\ntype = \"sqlite\"\npath = \"{}\"\n",
        dir.path().join("warehouse.db").display()
    );
    let projector = start_projector(&server.grpc, &config, dir.path(), "projector")?;
    server.client.script(MODEL).await?;
    let mut answers = Vec::new();
    for (n, change) in (0..).zip(CHANGES) {
        emit(&server.client, &format!("m{n}"), "north", n).await?;
        emit(&server.client, "m0", "south", 100 + n).await?;
        let now = server.client.sql("SELECT count(*) FROM meters").await?["basis"].clone();
        let answer = at_basis(&server.client, &now).await?;
        answers.push((now, answer));
        server.client.sql(change).await?;
    }
    for (change, owner) in REFUSED {
        let refused = server.client.sql_error(change).await?;
        let says = refused.body["detail"].as_str().is_some_and(|text| text.contains(owner));
        ensure!(refused.body["sqlstate"] == "2BP01" && says, "{change}: {refused:?}");
    }
    server.client.sql("DROP MAPPING measured").await?;
    let refused = server.client.sql_error("ALTER TABLE meters DROP COLUMN site").await?;
    ensure!(refused.body["detail"].as_str().is_some_and(|t| t.contains("by_site")), "{refused:?}");
    // The projection goes on under the names that it was made with.
    server.client.sql("ALTER TABLE meters RENAME COLUMN site TO place").await?;
    let write = "INSERT INTO meters (_id, place, level, note) VALUES ('m9', 'west', 1.5, '{}')";
    server.client.sql(write).await?;
    server.client.wait_delivered().await?;
    let sink = sqlite_rows(
        &dir.path().join("warehouse.db"),
        "SELECT id, site FROM by_site WHERE id IN ('m0', 'm9') ORDER BY id",
    )?;
    let text = |text: &str| Some(text.to_owned());
    ensure!(sink == [[text("m0"), text("south")], [text("m9"), text("west")]], "{sink:?}");

    drop(projector);
    server.stop()?;
    let server = Server::start(&dir.path().join("data"), clock).await?;
    for (basis, then) in &answers {
        let found = at_basis(&server.client, basis).await?;
        ensure!(found == *then, "at {basis}: {found}, it was {then}");
    }
    let entity = server.client.get("/v1/entities/meters/m0").await?;
    ensure!(entity.body["row"]["place"] == "south", "{entity:?}");
    let basis = answers[0].0.as_str().unwrap_or_default();
    let then = server.client.get(&format!("/v1/entities/meters/m0?basis={basis}")).await?;
    ensure!(then.body["row"]["site"] == "south", "{then:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_change_under_a_running_line() {
    let _turn = one_at_a_time();
    run().await.unwrap();
}
