//! Snapshots of a server that runs, with its process killed in the middle: no half snapshot is ever
//! listed, nothing half is ever restored, and what is restored answers as then, byte for byte
//! (O11, O13, NF5).

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use everwhen_tests::kafka::Record;
use everwhen_tests::process::{Process, Said, Server, run};
use everwhen_tests::warehouse::sqlite_rows;
use everwhen_tests::{one_at_a_time, seed, shared_broker, soak};
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

const CLOCK: &str = "2026-03-01T00:00:00Z";

const MODEL: &str = "
CREATE STREAM seen FORMAT JSON (id TEXT, n BIGINT, at TIMESTAMPTZ);
CREATE MAPPING seen_by ON seen AS PUT INTO seen SELECT id AS _id, n, at AS _valid_from;
CREATE TABLE desks (_id TEXT, room TEXT, n BIGINT);
";

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A data directory with its server, and a place of snapshots.
struct Place {
    dir: tempfile::TempDir,
    server: Server,
    random: StdRng,
    written: u64,
    /// System times of writes, to ask about the past.
    instants: Vec<String>,
}

impl Place {
    async fn start(random: StdRng) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let server = Server::start(&dir.path().join("data"), Some(CLOCK)).await?;
        server.client.script(MODEL).await?;
        Ok(Self { dir, server, random, written: 0, instants: Vec::new() })
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn target(&self) -> String {
        text(&self.dir.path().join("snapshots"))
    }

    async fn restart(&mut self, env: &[(&str, &str)]) -> Result<()> {
        self.server.kill();
        self.server = Server::start_with_env(&self.data(), Some(CLOCK), &[], env).await?;
        Ok(())
    }

    /// Writes late and future events, and rows by SQL.
    async fn write(&mut self) -> Result<()> {
        let mut events = Vec::new();
        let mut rows = Vec::new();
        for _ in 0..30 {
            self.written += 1;
            let (n, key) = (self.written, self.random.random_range(0..40));
            let day = self.random.random_range(1..29);
            let at = format!("2026-{:02}-{day:02}T00:00:00Z", self.random.random_range(1..7));
            events.push(json!({ "value": { "id": format!("s{key}"), "n": n, "at": at } }));
            rows.push(format!("('d{key}', 'room {day}', {n}, TIMESTAMP '{at}')"));
        }
        let posted = json!({ "stream": "seen", "events": events });
        let answer = self.server.client.post("/v1/events", &posted).await?;
        ensure!(answer.status == 200, "{}", answer.body);
        let rows = rows.join(", ");
        let sql = format!("INSERT INTO desks (_id, room, n, _valid_from) VALUES {rows}");
        let written = self.server.client.sql(&sql).await?;
        let at = written["system_time"].as_str().context("no system time")?;
        self.instants.push(at.to_owned());
        Ok(())
    }

    fn create(&self) -> Result<Said> {
        run(&["snapshot", "create", "--to", &self.target(), "--url", &self.server.http])
    }

    /// Returns the numbers of the snapshots, all of them good to the last byte.
    fn good_snapshots(&self) -> Result<Vec<u64>> {
        let target = self.target();
        if !Path::new(&target).join("FORMAT").exists() {
            return Ok(Vec::new());
        }
        let verified = run(&["snapshot", "verify", "--from", &target])?;
        ensure!(verified.success, "a bad snapshot is listed: {verified:?}");
        let listed = run(&["snapshot", "list", "--json", "--from", &target])?;
        let listed: Value = serde_json::from_str(&listed.out)?;
        let listed = listed["snapshots"].as_array().context("no list")?;
        Ok(listed.iter().filter_map(|snapshot| snapshot["snapshot"].as_u64()).collect())
    }

    fn restore_arguments(&self, data: &Path, snapshot: u64) -> Vec<String> {
        let (target, data) = (self.target(), text(data));
        ["restore", "--from", &target, "--data", &data, "--snapshot", &snapshot.to_string()]
            .map(ToOwned::to_owned)
            .to_vec()
    }
}

/// Everything a server answers, now and as of the past, byte for byte.
async fn answers(server: &Server, instants: &[String]) -> Result<String> {
    let mut all = String::new();
    let mut ask = Vec::new();
    for table in ["desks", "seen"] {
        let (order, n) = ("ORDER BY _id, _valid_from, _system_from", "_valid_to, _system_to");
        let columns = format!("_id, n, _valid_from, _system_from, {n}");
        ask.push(format!("SELECT {columns} FROM {table} {order}"));
        ask.push(format!(
            "SELECT {columns} FROM {table} FOR ALL VALID_TIME FOR ALL SYSTEM_TIME {order}"
        ));
        for at in instants {
            ask.push(format!(
                "SELECT {columns} FROM {table} FOR ALL VALID_TIME \
                 FOR SYSTEM_TIME AS OF TIMESTAMP '{at}' {order}"
            ));
        }
    }
    ask.push("SELECT tx, system_time FROM everwhen.transactions ORDER BY tx".to_owned());
    for sql in ask {
        let answer = server.client.sql(&sql).await?;
        all.push_str(&format!("{sql}\n{}\n{}\n", answer["columns"], answer["rows"]));
    }
    Ok(all)
}

/// A snapshot and what the server answered when it was taken.
struct Taken {
    snapshot: u64,
    instants: Vec<String>,
    answers: String,
}

const CREATE_POINTS: [&str; 6] = [
    "snapshot.checkpoint=abort",
    "snapshot.part_put=abort",
    "snapshot.part_put=abort@5",
    "snapshot.before_manifest=abort",
    "snapshot.after_manifest=abort",
    "",
];

/// Kills the server at each failpoint in turn, or at a random moment, while it takes a snapshot.
async fn kill_creates(place: &mut Place, kills: usize) -> Result<()> {
    let first = place.random.random_range(0..CREATE_POINTS.len());
    for kill in first..first + kills {
        let point = CREATE_POINTS[kill % CREATE_POINTS.len()];
        let before = place.good_snapshots()?.len();
        place.restart(&[("EVERWHEN_FAILPOINTS", point)]).await?;
        place.write().await?;
        let (to, url) = (place.target(), place.server.http.clone());
        let args = ["snapshot", "create", "--to", &to, "--url", &url].map(ToOwned::to_owned);
        let mut creating = Process::start(&args, &place.dir.path().join("create.log"))?;
        if point.is_empty() {
            let moment = Duration::from_millis(place.random.random_range(1..400));
            tokio::time::sleep(moment).await;
        } else {
            let status = creating.wait(Duration::from_secs(60))?;
            ensure!(!status.success(), "{point} did not end the server");
        }
        place.server.kill();
        let _ = creating.wait(Duration::from_secs(60))?;
        let after = place.good_snapshots()?.len();
        ensure!(after == before || after == before + 1, "{before} snapshots became {after}");
        if !point.is_empty() {
            let published = point.starts_with("snapshot.after_manifest");
            ensure!((after > before) == published, "{point}: {before} became {after}");
        }
    }
    place.restart(&[]).await
}

/// Kills restores: the data directory is there as a whole, or not at all.
async fn kill_restores(place: &mut Place, taken: &[Taken], kills: usize) -> Result<()> {
    let points = [
        "restore.file=abort",
        "restore.file=abort@4",
        "restore.prepared=abort",
        "restore.before_rename=abort",
        "restore.after_rename=abort",
        "",
    ];
    let first = place.random.random_range(0..points.len());
    for kill in first..first + kills {
        let point = points[kill % points.len()];
        let data = place.dir.path().join(format!("killed{kill}"));
        let one = taken.choose(&mut place.random).context("nothing was taken")?;
        let args = place.restore_arguments(&data, one.snapshot);
        let log = place.dir.path().join("restore.log");
        let env = [("EVERWHEN_FAILPOINTS", point)];
        let mut restoring = Process::start_with_env(&args, &log, &env)?;
        if point.is_empty() {
            let moment = Duration::from_millis(place.random.random_range(1..150));
            tokio::time::sleep(moment).await;
            restoring.kill();
        } else {
            let status = restoring.wait(Duration::from_secs(60))?;
            ensure!(!status.success(), "{point} did not end the restore");
        }
        let renamed = point.starts_with("restore.after_rename");
        ensure!(point.is_empty() || data.exists() == renamed, "{point}");
        if !data.exists() {
            let arguments: Vec<&str> = args.iter().map(String::as_str).collect();
            let again = run(&arguments)?;
            ensure!(again.success, "{again:?}");
        }
        let verified = run(&["verify", "--data", &text(&data)])?;
        ensure!(verified.success, "{verified:?}");
        std::fs::remove_dir_all(&data)?;
    }
    Ok(())
}

async fn snapshots(kills: usize, restores: usize, seed: u64) -> Result<()> {
    let mut place = Place::start(StdRng::seed_from_u64(seed)).await?;
    kill_creates(&mut place, kills).await?;
    let mut taken: Vec<Taken> = Vec::new();
    for _ in 0..restores.min(8) {
        place.write().await?;
        let created = place.create()?;
        ensure!(created.success, "{created:?}");
        let instants = place.instants.clone();
        let answers = answers(&place.server, &instants).await?;
        let snapshot = *place.good_snapshots()?.last().context("no snapshot")?;
        taken.push(Taken { snapshot, instants, answers });
    }
    place.write().await?;
    place.server.stop()?;
    let verified = run(&["verify", "--data", &text(&place.data())])?;
    ensure!(verified.success, "{verified:?}");
    kill_restores(&mut place, &taken, kills).await?;

    for n in 0..restores {
        let one = &taken[n % taken.len()];
        let data = place.dir.path().join(format!("restored{n}"));
        let args = place.restore_arguments(&data, one.snapshot);
        let restored = run(&args.iter().map(String::as_str).collect::<Vec<_>>())?;
        ensure!(restored.success, "{restored:?}");
        let mut server = Server::start(&data, Some(CLOCK)).await?;
        let found = answers(&server, &one.instants).await?;
        ensure!(found == one.answers, "snapshot {} answers otherwise than then", one.snapshot);
        // It goes on: the next transaction follows.
        server.client.sql("INSERT INTO desks (_id, n) VALUES ('after', 1)").await?;
        server.stop()?;
        std::fs::remove_dir_all(&data)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_creates_and_restores_leave_nothing_half_and_what_is_restored_is_as_then() {
    let _turn = one_at_a_time();
    for round in 0..soak() {
        let seed = seed() + round;
        println!("seed {seed}");
        let (kills, restores) = if soak() > 1 { (10, 5) } else { (4, 2) };
        snapshots(kills, restores, seed).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_server_reads_on_where_the_snapshot_ends() {
    let _turn = one_at_a_time();
    go_on_from_a_topic().await.unwrap();
}

async fn go_on_from_a_topic() -> Result<()> {
    let broker = shared_broker();
    let topic = format!("snapshots_{}", std::process::id());
    broker.create_topic(&topic, 2, &[]).await?;
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let warehouse = dir.path().join("warehouse.db");
    let sinks = dir.path().join("delivery.toml");
    let sink = format!("[sinks.warehouse]\ntype = \"sqlite\"\npath = {:?}\n", text(&warehouse));
    std::fs::write(&sinks, sink)?;
    let sinks = text(&sinks);
    let delivering = ["--projector", sinks.as_str()];
    let mut server = Server::start_with(&data, Some(CLOCK), &delivering).await?;
    let model = format!(
        "CREATE STREAM read FROM KAFKA (brokers = '{}', topic = '{topic}')
         FORMAT JSON (id TEXT, n BIGINT, at TIMESTAMPTZ);
         CREATE MAPPING read_by ON read AS PUT INTO read SELECT id AS _id, n, at AS _valid_from;
         CREATE PROJECTION report KEY (id) INTO warehouse.report AS SELECT _id AS id, n FROM read;",
        broker.bootstrap()
    );
    server.client.script(&model).await?;
    let record = |n: i32| {
        let json = format!(r#"{{"id":"r{n}","n":{n},"at":"2026-01-01T00:00:00Z"}}"#);
        Record { partition: n % 2, ..Record::new(json) }
    };
    let records = |range: std::ops::Range<i32>| range.map(record).collect::<Vec<Record>>();
    broker.produce(&topic, &records(0..400))?;
    server.client.wait_ingested("read", 400).await?;
    let target = text(&dir.path().join("snapshots"));
    let created = run(&["snapshot", "create", "--to", &target, "--url", &server.http])?;
    ensure!(created.success, "{created:?}");
    broker.produce(&topic, &records(400..900))?;
    server.client.wait_ingested("read", 700).await?;
    let all = "SELECT tx, system_time FROM everwhen.transactions ORDER BY tx";
    let transactions = server.client.rows(all).await?.len();
    // Lost with the server: no snapshot and no topic has it.
    server.client.sql("INSERT INTO read (_id, n) VALUES ('lost', -1)").await?;
    server.client.wait_delivered().await?;
    let lost = "SELECT id FROM report WHERE id = 'lost'";
    ensure!(sqlite_rows(&warehouse, lost)?.len() == 1, "it was not delivered");
    server.kill();

    let again = text(&dir.path().join("again"));
    let restored = run(&["restore", "--from", &target, "--data", &again])?;
    ensure!(restored.success && restored.out.contains("from offset"), "{restored:?}");
    let refused = run(&["restore", "--from", &target, "--data", &again])?;
    ensure!(!refused.success && refused.err.contains("not empty"), "{refused:?}");
    let mut server = Server::start_with(Path::new(&again), Some(CLOCK), &delivering).await?;
    broker.produce(&topic, &records(900..1_000))?;
    server.client.wait_ingested("read", 1_000).await?;
    let counted = "SELECT count(*), count(DISTINCT n), sum(n) FROM read FOR ALL VALID_TIME";
    let found = server.client.rows(counted).await?;
    ensure!(found == [[json!(1_000), json!(1_000), json!(499_500)]], "{found:?}");
    let found = server.client.rows(all).await?.len();
    ensure!(found > 1_000, "{found} transactions, {transactions} before");
    let versions = "SELECT count(*) FROM read FOR ALL VALID_TIME FOR ALL SYSTEM_TIME";
    ensure!(server.client.one(versions).await? == json!(1_000), "a record was taken twice");
    // The sink was ahead of the snapshot: it is made equal again.
    server.client.wait_delivered().await?;
    let delivered = sqlite_rows(&warehouse, "SELECT count(*), sum(n), min(n) FROM report")?;
    let right = [Some("1000".to_owned()), Some("499500".to_owned()), Some("0".to_owned())];
    ensure!(delivered == [right], "{delivered:?}");
    server.stop()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_ones_own_directories_and_configured_ones_are_written_to() {
    let _turn = one_at_a_time();
    refusals().await.unwrap();
}

async fn refusals() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let configured = dir.path().join("configured");
    let config = dir.path().join("everwhen.toml");
    std::fs::write(&config, format!("snapshot_targets = [{:?}]\n", text(&configured)))?;
    let config = text(&config);
    let mut server =
        Server::start_with(&dir.path().join("data"), Some(CLOCK), &["--config", &config]).await?;
    let elsewhere = dir.path().join("elsewhere");
    std::fs::create_dir(&elsewhere)?;
    for (to, status) in [
        (json!({ "to": text(&elsewhere) }), 403),
        (json!({ "to": text(&elsewhere), "proof": "0".repeat(32) }), 403),
        (json!({ "to": "relative" }), 400),
        (json!({ "to": "s3://bucket/x" }), 403),
        (json!({ "to": "ftp://host/x" }), 400),
        (json!({}), 400),
        (json!({ "to": text(&configured), "more": 1 }), 400),
    ] {
        let answer = server.client.post("/v1/snapshots", &to).await?;
        ensure!(answer.status == status, "{to}: {answer:?}");
    }
    ensure!(std::fs::read_dir(&elsewhere)?.next().is_none(), "something was written");
    let body = json!({ "to": text(&configured) });
    let answer = server.client.post("/v1/snapshots", &body).await?;
    let Value::String(lines) = &answer.body else { bail!("{answer:?}") };
    let last: Value = serde_json::from_str(lines.lines().last().unwrap_or_default())?;
    ensure!(last["snapshot"]["snapshot"] == 1, "{lines}");
    ensure!(lines.lines().next().is_some_and(|line| line.contains("progress")), "{lines}");

    std::fs::write(elsewhere.join("letter.txt"), "dear")?;
    let to = text(&elsewhere);
    let foreign = run(&["snapshot", "create", "--to", &to, "--url", &server.http])?;
    ensure!(!foreign.success && foreign.err.contains("not empty"), "{foreign:?}");
    let busy = run(&["verify", "--data", &text(&dir.path().join("data"))])?;
    ensure!(!busy.success && busy.err.contains("in use"), "{busy:?}");
    let none = run(&["snapshot", "list", "--from", &text(dir.path())])?;
    ensure!(!none.success && none.err.contains("no snapshots"), "{none:?}");
    let target = text(&configured);
    let pruned = run(&["snapshot", "prune", "--from", &target, "--keep-last", "1"])?;
    ensure!(pruned.success && pruned.out.contains("kept 1"), "{pruned:?}");
    server.stop()
}
