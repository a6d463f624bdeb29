//! SIGKILL of server, projector and broker in the middle of a run: nothing lost, nothing twice, the
//! sink equal to the query (NF12, NF14, NF16, O11).

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use everwhen_tests::http::eventually;
use everwhen_tests::kafka::{Broker, Record, produce};
use everwhen_tests::process::{Process, Server, start_projector};
use everwhen_tests::warehouse::sqlite_rows;
use everwhen_tests::{one_at_a_time, seed, soak};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

const PARTITIONS: i32 = 4;
const SENSORS: u64 = 500;
const KEYS: u64 = 5_000;
const CLOCK: &str = "2026-03-01T00:00:00Z";

const MODEL: &str = "
CREATE STREAM sensors FROM KAFKA (brokers = '${brokers}', topic = 'sensors')
FORMAT JSON (id TEXT, site TEXT, at TIMESTAMPTZ);
CREATE MAPPING sensor_placed ON sensors AS PUT INTO sensors
SELECT id AS _id, site, at AS _valid_from;
CREATE STREAM readings FROM KAFKA (brokers = '${brokers}', topic = 'readings')
FORMAT JSON (id TEXT, sensor TEXT, n BIGINT, at TIMESTAMPTZ);
CREATE MAPPING reading_taken ON readings AS PUT INTO readings
SELECT id AS _id, sensor, n, at AS _valid_from;
CREATE PROJECTION latest KEY (id) INTO warehouse.latest AS
SELECT r._id AS id, r.n, s.site
FROM readings AS r
LEFT JOIN sensors FOR VALID_TIME AS OF r._valid_from AS s ON s._id = r.sensor;
";

/// All processes of the line, each of which can be killed and started again.
struct Line {
    broker: Broker,
    server: Server,
    projector: Process,
    dir: tempfile::TempDir,
}

impl Line {
    async fn start() -> Result<Self> {
        let broker = Broker::start()?;
        broker.create_topic("sensors", 1, &[]).await?;
        broker.create_topic("readings", PARTITIONS, &[]).await?;
        let dir = tempfile::tempdir()?;
        let server = Server::start(&dir.path().join("data"), Some(CLOCK)).await?;
        server.client.script(&MODEL.replace("${brokers}", &broker.bootstrap())).await?;
        let projector = projector(&server, dir.path())?;
        Ok(Self { broker, server, projector, dir })
    }

    /// Kills one of the three and starts it again.
    async fn kill(&mut self, victim: usize) -> Result<()> {
        match victim {
            0 => {
                self.server.kill();
                self.server = Server::start(&self.dir.path().join("data"), Some(CLOCK)).await?;
                // Addresses are new: the projector, which is stateless, follows.
                self.projector.kill();
                self.projector = projector(&self.server, self.dir.path())?;
            }
            1 => {
                self.projector.kill();
                self.projector = projector(&self.server, self.dir.path())?;
            }
            _ => {
                self.broker.kill();
                self.broker.boot()?;
            }
        }
        Ok(())
    }
}

fn projector(server: &Server, dir: &Path) -> Result<Process> {
    let config = format!(
        "[sinks.warehouse]\ntype = \"sqlite\"\npath = \"{}\"\n",
        dir.join("warehouse.db").display()
    );
    start_projector(&server.grpc, &config, dir, "projector")
}

/// The `n`-th reading: its own instant, so every event stays visible as a version of its own.
fn reading(n: u64) -> Record {
    let (key, sensor) = (n % KEYS, n % SENSORS);
    let at = jiff::Timestamp::from_second(1_767_225_600 + i64::try_from(n).unwrap_or(0)).unwrap();
    let json = format!(r#"{{"id":"k{key}","sensor":"s{sensor}","n":{n},"at":"{at}"}}"#);
    let partition = i32::try_from(key % 4).unwrap_or(0) % PARTITIONS;
    Record { partition, key: Some(format!("k{key}")), value: json.into_bytes(), timestamp_ms: None }
}

async fn latest_tx(server: &Server) -> Result<u64> {
    server
        .client
        .one("SELECT max(latest_tx) FROM everwhen.projections")
        .await?
        .as_u64()
        .context("no projection is listed")
}

async fn run(kills: usize, events: u64, seed: u64) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut line = Line::start().await?;
    let sensors: Vec<Record> = (0..SENSORS)
        .map(|id| {
            let site = id % 7;
            Record::new(format!(
                r#"{{"id":"s{id}","site":"site {site}","at":"2026-01-01T00:00:00Z"}}"#
            ))
        })
        .collect();
    line.broker.produce("sensors", &sensors)?;
    line.server.client.wait_ingested("sensors", i64::try_from(SENSORS)?).await?;
    let before = latest_tx(&line.server).await?;

    let per_kill = events / u64::try_from(kills)?;
    for kill in 0..kills {
        let first = u64::try_from(kill)? * per_kill;
        let records: Vec<Record> = (first..first + per_kill).map(reading).collect();
        let bootstrap = line.broker.bootstrap();
        let producing =
            tokio::task::spawn_blocking(move || produce(&bootstrap, "readings", &records));
        tokio::time::sleep(Duration::from_millis(random.random_range(20..600))).await;
        line.kill(random.random_range(0..3)).await?;
        producing.await??;
    }
    let produced = per_kill * u64::try_from(kills)?;
    line.server.client.wait_ingested("readings", i64::try_from(produced)?).await?;

    // Each event is one transaction and one version: a gap or a duplicate would show in all three.
    let after = latest_tx(&line.server).await?;
    ensure!(after - before == produced, "{} transactions for {produced} events", after - before);
    let counted = line
        .server
        .client
        .rows("SELECT count(*), count(DISTINCT n), sum(n) FROM readings FOR ALL VALID_TIME")
        .await?;
    let expected = (produced, produced, produced * (produced - 1) / 2);
    let found = (counted[0][0].as_u64(), counted[0][1].as_u64(), counted[0][2].as_u64());
    ensure!(found == (Some(expected.0), Some(expected.1), Some(expected.2)), "{found:?}");

    eventually("the projection to be delivered", || async {
        let behind = line
            .server
            .client
            .rows("SELECT projection FROM everwhen.projections WHERE delivered_tx < latest_tx")
            .await?;
        Ok(behind.is_empty())
    })
    .await?;
    let query = "SELECT r._id AS id, r.n, s.site FROM readings AS r \
                 LEFT JOIN sensors FOR VALID_TIME AS OF r._valid_from AS s ON s._id = r.sensor \
                 ORDER BY id";
    let right: Vec<Vec<Option<String>>> = line
        .server
        .client
        .rows(query)
        .await?
        .iter()
        .map(|row| row.iter().map(cell_text).collect())
        .collect();
    let warehouse = line.dir.path().join("warehouse.db");
    let sink = sqlite_rows(&warehouse, "SELECT id, n, site FROM latest ORDER BY id")?;
    ensure!(right.len() == usize::try_from(KEYS.min(produced))?, "{} rows", right.len());
    ensure!(sink == right, "the sink differs from the query");
    line.server.stop()
}

/// Returns a cell as the sink's text has it.
pub(crate) fn cell_text(cell: &serde_json::Value) -> Option<String> {
    match cell {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_kills_lose_nothing_and_repeat_nothing() {
    let _turn = one_at_a_time();
    for round in 0..soak() {
        let seed = seed() + round;
        println!("seed {seed}");
        run(20, 200_000, seed).await.unwrap();
    }
}
