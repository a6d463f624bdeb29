//! The journal is shipped as it grows, so that a lost machine loses no more than was not shipped; and
//! what was erased since a snapshot does not come back with it (O11, O13, NF24).

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use everwhen_tests::buckets::{Buckets, Kind};
use everwhen_tests::http::eventually;
use everwhen_tests::kafka::Record;
use everwhen_tests::process::{Said, Server, run_with_env};
use everwhen_tests::{one_at_a_time, shared_broker};
use serde_json::json;

const CLOCK: &str = "2026-03-01T00:00:00Z";
/// How often the journal is shipped; or at the start and the end alone.
const OFTEN_MS: u64 = 20;
const NEVER_MS: u64 = 3_600_000;
/// No clock of a restored server may stand before what it holds.
const LATER: &str = "2026-04-01T00:00:00Z";

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A server that ships its journal to a target.
struct Place {
    dir: tempfile::TempDir,
    target: String,
    store: Option<Buckets>,
    server: Server,
}

impl Place {
    async fn start(store: Option<Buckets>, interval_ms: u64) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let target = match &store {
            Some(store) => store.target("shipped"),
            None => text(&dir.path().join("target")),
        };
        let config = dir.path().join("everwhen.toml");
        let lines = [
            format!("snapshot_targets = [{target:?}]"),
            format!("journal_ship_to = {target:?}"),
            format!("journal_ship_interval_ms = {interval_ms}"),
        ];
        std::fs::write(&config, lines.join("\n"))?;
        let server = Self::serve(dir.path(), "data", CLOCK, store.as_ref()).await?;
        Ok(Self { dir, target, store, server })
    }

    async fn serve(dir: &Path, name: &str, clock: &str, store: Option<&Buckets>) -> Result<Server> {
        let config = text(&dir.join("everwhen.toml"));
        let env = store.map(Buckets::environment).unwrap_or_default();
        Server::start_with_env(&dir.join(name), Some(clock), &["--config", &config], &env).await
    }

    fn run(&self, args: &[&str]) -> Result<Said> {
        let env = self.store.as_ref().map(Buckets::environment).unwrap_or_default();
        run_with_env(args, &env)
    }

    fn snapshot(&self) -> Result<()> {
        let args = ["snapshot", "create", "--to", &self.target, "--url", &self.server.http];
        let created = self.run(&args)?;
        ensure!(created.success, "{created:?}");
        Ok(())
    }

    fn restore(&self, name: &str, more: &[&str]) -> Result<Said> {
        let data = text(&self.dir.path().join(name));
        let args = [&["restore", "--from", &self.target, "--data", &data], more].concat();
        self.run(&args)
    }

    /// Restores and serves what was restored, shipping off.
    async fn serve_restored(&self, name: &str, more: &[&str]) -> Result<(Server, Said)> {
        let said = self.restore(name, more)?;
        ensure!(said.success, "{said:?}");
        let server = Server::start(&self.dir.path().join(name), Some(LATER)).await?;
        Ok((server, said))
    }

    /// Ends the server once all is shipped, and expects the same answers of what is restored.
    async fn restored_answers_the_same(&mut self) -> Result<()> {
        self.wait_shipped().await?;
        let right = answers(&self.server, "desks").await?;
        self.server.kill();
        let (mut again, _) = self.serve_restored("again", &[]).await?;
        ensure!(answers(&again, "desks").await? == right, "it answers otherwise");
        again.stop()
    }

    async fn wait_shipped(&self) -> Result<()> {
        eventually("the journal is shipped", || async {
            let page = reqwest::get(format!("{}/metrics", self.server.admin)).await?.text().await?;
            let is = |line: &str| page.lines().any(|found| found == line);
            Ok(is("everwhen_journal_ship_lag_tx 0") && is("everwhen_journal_ship_failing 0"))
        })
        .await
    }
}

/// Everything that a server says of a table and of its transactions.
async fn answers(server: &Server, table: &str) -> Result<String> {
    let mut all = String::new();
    for sql in [
        format!(
            "SELECT *, _valid_from, _valid_to, _system_from, _system_to, _tx FROM {table} \
             FOR ALL VALID_TIME FOR ALL SYSTEM_TIME ORDER BY _id, _valid_from, _system_from"
        ),
        "SELECT * FROM everwhen.transactions ORDER BY tx".to_owned(),
    ] {
        all.push_str(&server.client.sql(&sql).await?["rows"].to_string());
    }
    Ok(all)
}

fn bucket_of(kind: &str) -> Option<Kind> {
    match kind {
        "s3" => Some(Kind::S3),
        "gs" => Some(Kind::Gcs),
        _ => None,
    }
}

async fn machine_lost(kind: &str) -> Result<()> {
    let store = match bucket_of(kind) {
        Some(kind) => Some(Buckets::start(kind).await?),
        None => None,
    };
    let mut place = Place::start(store, OFTEN_MS).await?;
    let client = &place.server.client;
    client.sql("INSERT INTO desks (_id, n) VALUES ('before', 1)").await?;
    place.snapshot()?;
    for n in 0..20 {
        place.server.client.sql(&format!("INSERT INTO desks (_id, n) VALUES ('{n}', {n})")).await?;
    }
    place.server.client.sql("UPDATE desks SET n = 7 WHERE _id = '3'").await?;
    place.wait_shipped().await?;
    let right = answers(&place.server, "desks").await?;
    let tx = place.server.client.one("SELECT max(tx) FROM everwhen.transactions").await?;
    place.server.kill();

    let (mut again, said) = place.serve_restored("again", &[]).await?;
    ensure!(said.out.contains(&format!("up to transaction {tx}")), "{said:?}");
    ensure!(said.out.contains("was not shipped"), "{said:?}");
    ensure!(answers(&again, "desks").await? == right, "it answers otherwise");
    again.stop()?;

    // Up to a transaction, and without the journal.
    let (mut part, said) = place.serve_restored("part", &["--to-tx", "5"]).await?;
    ensure!(said.out.contains("up to transaction 5,"), "{said:?}");
    ensure!(part.client.one("SELECT max(tx) FROM everwhen.transactions").await? == json!(5));
    part.stop()?;
    let alone = place.restore("alone", &["--no-journal"])?;
    ensure!(alone.success && alone.out.contains("no journal of it was used"), "{alone:?}");

    goes_on(&place).await?;
    let pruned = place.run(&["snapshot", "prune", "--from", &place.target, "--keep-last", "1"])?;
    ensure!(pruned.success, "{pruned:?}");
    Ok(())
}

/// A restored server ships on: its history is another one from there, and is followed.
async fn goes_on(place: &Place) -> Result<()> {
    let restored = place.restore("next", &["--to-tx", "5"])?;
    ensure!(restored.success, "{restored:?}");
    let dir = place.dir.path();
    let mut next = Place::serve(dir, "next", LATER, place.store.as_ref()).await?;
    next.client.sql("INSERT INTO desks (_id, n) VALUES ('next', 1)").await?;
    let right = answers(&next, "desks").await?;
    // Stopping ships the rest.
    next.stop()?;
    let (mut last, said) = place.serve_restored("last", &[]).await?;
    ensure!(answers(&last, "desks").await? == right, "{said:?}");
    last.stop()?;
    // The first history is still there for whoever asks for it.
    let snapshots = place.run(&["snapshot", "list", "--json", "--from", &place.target])?;
    let listed: serde_json::Value = serde_json::from_str(&snapshots.out)?;
    let first = listed["snapshots"][0]["incarnation"].as_str().context("no incarnation")?;
    let other = place.restore("other", &["--history", first])?;
    ensure!(other.success && other.out.contains("up to transaction 2"), "{other:?}");
    let none = place.restore("none", &["--history", "nobody's"])?;
    ensure!(!none.success && none.err.contains(first), "{none:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_shipped_is_not_lost_with_the_machine() {
    let _turn = one_at_a_time();
    for kind in ["directory", "s3", "gs"] {
        println!("{kind}");
        machine_lost(kind).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_topics_are_read_again_at_the_journals_positions() {
    let _turn = one_at_a_time();
    with_a_topic().await.unwrap();
}

async fn with_a_topic() -> Result<()> {
    let broker = shared_broker();
    let topic = format!("shipping_{}", std::process::id());
    broker.create_topic(&topic, 2, &[]).await?;
    let mut place = Place::start(None, OFTEN_MS).await?;
    let model = format!(
        "CREATE STREAM read FROM KAFKA (brokers = '{}', topic = '{topic}')
         FORMAT JSON (id TEXT, n BIGINT, at TIMESTAMPTZ);
         CREATE MAPPING read_by ON read AS PUT INTO read SELECT id AS _id, n, at AS _valid_from;",
        broker.bootstrap()
    );
    place.server.client.script(&model).await?;
    let record = |n: i32| {
        let json = format!(r#"{{"id":"r{}","n":{n},"at":"2026-01-01T00:00:00Z"}}"#, n % 70);
        Record { partition: n % 2, ..Record::new(json) }
    };
    let produce = |range: std::ops::Range<i32>| {
        broker.produce(&topic, &range.map(record).collect::<Vec<Record>>())
    };
    produce(0..200)?;
    place.server.client.wait_ingested("read", 200).await?;
    place.snapshot()?;
    produce(200..500)?;
    place.server.client.sql("INSERT INTO read (_id, n) VALUES ('mine', -1)").await?;
    place.server.client.wait_ingested("read", 500).await?;
    let last = place.server.client.sql("INSERT INTO read (_id, n) VALUES ('mine', -2)").await?;
    let at = last["system_time"].as_str().context("no system time")?;
    let then = format!(
        "SELECT *, _valid_from, _valid_to, _system_from, _tx FROM read FOR ALL VALID_TIME \
         FOR SYSTEM_TIME AS OF TIMESTAMP '{at}' ORDER BY _id, _valid_from"
    );
    place.wait_shipped().await?;
    let right = place.server.client.rows(&then).await?;
    ensure!(right.len() > 70, "{right:?}");
    place.server.kill();
    produce(500..600)?;

    // Without its brokers nothing is restored.
    let away = place.restore("away", &["--brokers", "127.0.0.1:1"])?;
    ensure!(!away.success && away.err.contains("--no-journal"), "{away:?}");
    ensure!(!place.dir.path().join("away").exists(), "something was restored");
    let (mut again, _) = place.serve_restored("again", &[]).await?;
    again.client.wait_ingested("read", 600).await?;
    ensure!(again.client.rows(&then).await? == right, "it answers otherwise");
    let counted = "SELECT count(DISTINCT n) FROM read FOR ALL VALID_TIME FOR ALL SYSTEM_TIME \
                   WHERE n >= 0";
    ensure!(again.client.one(counted).await? == json!(600), "a record is missing");
    again.stop()
}

/// Looks for bytes in every file below a folder.
fn holds(folder: &Path, wanted: &[u8]) -> Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if let Some(found) = holds(&path, wanted)? {
                return Ok(Some(found));
            }
        } else if std::fs::read(&path)?.windows(wanted.len()).any(|window| window == wanted) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_erased_does_not_come_back_with_an_older_snapshot() {
    let _turn = one_at_a_time();
    erased(OFTEN_MS).await.unwrap();
}

/// The same where the journal has forgotten the keys before it is shipped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_erased_before_it_was_shipped_does_not_come_back_either() {
    let _turn = one_at_a_time();
    erased(NEVER_MS).await.unwrap();
}

async fn erased(interval_ms: u64) -> Result<()> {
    let mut place = Place::start(None, interval_ms).await?;
    let client = &place.server.client;
    client
        .script(
            "CREATE STREAM seen FORMAT JSON (id TEXT, note TEXT, at TIMESTAMPTZ);
             CREATE MAPPING seen_by ON seen AS
             PUT INTO seen SELECT id AS _id, note, at AS _valid_from;
             CREATE TABLE people (_id TEXT PRIMARY KEY, name TEXT);",
        )
        .await?;
    let event = |id: &str, note: &str, at: &str| {
        json!({ "stream": "seen", "events": [
        { "value": { "id": id, "note": note, "at": at } }
    ] })
    };
    client.post("/v1/events", &event("person-42", "Quaxolotl", "2026-02-01T00:00:00Z")).await?;
    client.post("/v1/events", &event("other", "stays", "2026-02-01T00:00:00Z")).await?;
    client.sql("INSERT INTO people (_id, name) VALUES ('person-42', 'Quaxolotl')").await?;
    place.snapshot()?;
    let tx = client.one("SELECT max(tx) FROM everwhen.transactions").await?;
    // The second one is erased before the store ever had it.
    client.set_clock("2026-03-02T00:00:00Z").await?;
    client.sql("ERASE FROM seen WHERE _id = 'person-42'").await?;
    client.sql("ERASE FROM people WHERE _id = 'person-42'").await?;
    client.sql("ERASE FROM seen WHERE _id = 'person-43'").await?;
    client.set_clock("2026-03-03T00:00:00Z").await?;
    client.sql("INSERT INTO people (_id, name) VALUES ('after', 'x')").await?;
    if interval_ms == OFTEN_MS {
        place.wait_shipped().await?;
        place.server.kill();
    } else {
        let left = "SELECT state FROM everwhen.erasures WHERE state <> 'erased'";
        eventually("the bytes are gone", || async {
            Ok(place.server.client.rows(left).await?.is_empty())
        })
        .await?;
        place.server.stop()?;
    }

    let to_tx = tx.to_string();
    let ways: [&[&str]; 4] = [&[], &["--no-journal"], &["--tx", &to_tx], &["--snapshot", "1"]];
    for (n, way) in ways.into_iter().enumerate() {
        let name = format!("restored{n}");
        let said = place.restore(&name, way)?;
        ensure!(said.success, "{way:?}: {said:?}");
        ensure!(way.is_empty() || said.out.contains("3 erasures"), "{way:?}: {said:?}");
        let data = place.dir.path().join(&name);
        for secret in ["Quaxolotl", "person-42"] {
            let found = holds(&data, secret.as_bytes())?;
            ensure!(found.is_none(), "{way:?}: {secret} stands in {found:?}");
        }
        let verified = place.run(&["verify", "--data", &text(&data)])?;
        ensure!(verified.success, "{verified:?}");
        let mut server = Server::start(&data, Some(LATER)).await?;
        let all = "SELECT _id FROM seen FOR ALL VALID_TIME FOR ALL SYSTEM_TIME";
        ensure!(server.client.rows(all).await? == [[json!("other")]], "{way:?}");
        // Late records of what was erased stay forgotten, those of a new life do not.
        for id in ["person-42", "person-43"] {
            let late = event(id, "late", "2026-02-20T00:00:00Z");
            ensure!(server.client.post("/v1/events", &late).await?.status == 200);
        }
        ensure!(server.client.rows(all).await? == [[json!("other")]], "{way:?}: a late record");
        let new = event("person-42", "new life", "2026-03-02T12:00:00Z");
        ensure!(server.client.post("/v1/events", &new).await?.status == 200);
        ensure!(server.client.rows(all).await?.len() == 2, "{way:?}: no new life");
        server.stop()?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_away_stops_nothing_and_is_shipped_to_later() {
    let _turn = one_at_a_time();
    away().await.unwrap();
}

async fn away() -> Result<()> {
    let mut place = Place::start(None, OFTEN_MS).await?;
    place.server.client.sql("INSERT INTO desks (_id, n) VALUES ('a', 1)").await?;
    place.snapshot()?;
    place.wait_shipped().await?;
    // The place of what is being written is gone: nothing can be shipped.
    let partial = Path::new(&place.target).join("partial");
    std::fs::remove_dir(&partial)?;
    std::fs::write(&partial, "in the way")?;
    place.server.client.sql("INSERT INTO desks (_id, n) VALUES ('b', 2)").await?;
    eventually("the failure is told", || async {
        let url = format!("{}/metrics", place.server.admin);
        let page = reqwest::get(url).await?.text().await?;
        Ok(page.lines().any(|line| line == "everwhen_journal_ship_failing 1"))
    })
    .await?;
    place.server.client.sql("INSERT INTO desks (_id, n) VALUES ('c', 3)").await?;
    ensure!(place.server.log_text().contains("the journal was not shipped"), "no warning");
    let status = place.server.client.get("/v1/status").await?;
    ensure!(status.body["journal"]["state"] == "failing", "{status:?}");
    std::fs::remove_file(&partial)?;
    std::fs::create_dir(&partial)?;
    place.restored_answers_the_same().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_while_it_ships_goes_on_where_the_target_stands() {
    let _turn = one_at_a_time();
    killed().await.unwrap();
}

async fn killed() -> Result<()> {
    let mut place = Place::start(None, OFTEN_MS).await?;
    place.server.client.sql("INSERT INTO desks (_id, n) VALUES ('first', 0)").await?;
    place.snapshot()?;
    let config = text(&place.dir.path().join("everwhen.toml"));
    let data = place.dir.path().join("data");
    for (n, point) in ["ship.written", "ship.put", "ship.written", "ship.put"].iter().enumerate() {
        place.wait_shipped().await?;
        place.server.kill();
        let armed = format!("{point}=abort");
        let env = [("EVERWHEN_FAILPOINTS", armed.as_str())];
        let more = ["--config", config.as_str()];
        place.server = Server::start_with_env(&data, Some(CLOCK), &more, &env).await?;
        let sql = format!("INSERT INTO desks (_id, n) VALUES ('k{n}', {n})");
        // Whether it is answered depends on which is first.
        place.server.client.sql(&sql).await.ok();
        ensure!(!place.server.ended()?.success(), "{point} did not end the server");
        place.server = Place::serve(place.dir.path(), "data", CLOCK, None).await?;
    }
    place.restored_answers_the_same().await
}
