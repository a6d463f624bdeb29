//! A store rebuilt from its topics and its journal is the same one: transactions, times, answers,
//! dead letters, offsets. And a history loaded from a file is there wholly or not at all.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Result, ensure};
use everwhen_tests::http::{Client, eventually};
use everwhen_tests::kafka::Record;
use everwhen_tests::process::{Server, program, start_projector};
use everwhen_tests::warehouse::sqlite_rows;
use everwhen_tests::{one_at_a_time, seed, shared_broker, soak};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

const CLOCK: &str = "2026-03-01T00:00:00Z";
const PARTITIONS: i32 = 3;
/// Parts of a history, and records of each.
const ROUNDS: usize = 6;
const RECORDS: usize = 400;

const MODEL: &str = "
CREATE STREAM readings FROM KAFKA (brokers = '${brokers}', topic = '${topic}')
FORMAT JSON (id TEXT, sensor TEXT, n BIGINT, at TIMESTAMPTZ, until TIMESTAMPTZ);
CREATE MAPPING taken ON readings AS PUT INTO readings
SELECT sensor AS _id, n, at AS _valid_from, until AS _valid_to, id AS _event_id WHERE n >= 0;
CREATE STREAM notes FORMAT JSON (desk TEXT, note TEXT, at TIMESTAMPTZ);
CREATE MAPPING noted ON notes AS PATCH INTO desks SELECT desk AS _id, note, at AS _valid_from;
CREATE TABLE rooms (_id TEXT PRIMARY KEY, floor INT, name TEXT);
";

/// Runs the program to its end.
fn run(args: &[&str], failpoints: &str) -> Result<Output> {
    let mut command = Command::new(program()?);
    Ok(command.args(args).env("EVERWHEN_FAILPOINTS", failpoints).output()?)
}

fn run_well(args: &[&str]) -> Result<String> {
    let output = run(args, "")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{args:?} ended with {}:\n{error}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

fn at(second: i64) -> String {
    jiff::Timestamp::from_second(1_767_225_600 + second).unwrap().to_string()
}

/// A record: an event, the same once more, a correction, one that no mapping wants, or a bad one.
fn reading(random: &mut StdRng) -> Record {
    let id = random.random_range(0..200);
    let partition = random.random_range(0..PARTITIONS);
    let value = if random.random_bool(0.02) {
        format!(r#"{{"id":"e{id}","n":"#)
    } else {
        let (sensor, n) = (id % 11, if random.random_bool(0.1) { -1 } else { id % 3 });
        let from = at(id * 60);
        let until = match id % 4 {
            0 => "null".to_owned(),
            more => format!("\"{}\"", at((id + more * 9) * 60)),
        };
        // A number that differs makes a correction of what is otherwise a duplicate.
        let n = if random.random_bool(0.1) { n + 10 } else { n };
        format!(r#"{{"id":"e{id}","sensor":"s{sensor}","n":{n},"at":"{from}","until":{until}}}"#)
    };
    Record { partition, key: None, value: value.into_bytes(), timestamp_ms: None }
}

/// One write of a client, or posted events.
async fn write(client: &Client, random: &mut StdRng) -> Result<()> {
    let (id, floor) = (random.random_range(0..6), random.random_range(0..4));
    let day = random.random_range(1..28);
    let sql = match random.random_range(0..6) {
        0 => format!(
            "DELETE FROM rooms FOR PORTION OF VALID_TIME FROM '2026-02-{day:02}' TO NULL WHERE _id = 'r{id}'"
        ),
        1 => format!("UPDATE rooms SET floor = {floor} WHERE _id = 'r{id}'"),
        2 => format!(
            "PATCH INTO rooms (_id, name) VALUES ('r{id}', 'n{floor}'); INSERT INTO free (_id, x) VALUES ({id}, {floor})"
        ),
        3 => {
            let events = [
                json!({"value": {"desk": format!("d{id}"), "note": format!("x{floor}"), "at": at(day)}}),
                json!({"value": {"desk": null, "note": "none", "at": at(day)}}),
            ];
            let answer =
                client.post("/v1/events", &json!({"stream": "notes", "events": events})).await?;
            ensure!(answer.status == 200, "{}", answer.body);
            return Ok(());
        }
        _ => format!(
            "INSERT INTO rooms (_id, floor, name, _valid_from) VALUES ('r{id}', {floor}, 'n', TIMESTAMP '2026-02-{day:02}T00:00:00Z')"
        ),
    };
    client.sql(&sql).await?;
    Ok(())
}

/// What a store answers: every table whole, at present and at past instants, and what it says of
/// its transactions, dead letters and sources.
async fn answers(client: &Client, instants: &[String]) -> Result<String> {
    let mut all = String::new();
    for sql in [
        "SELECT * FROM everwhen.transactions ORDER BY tx",
        "SELECT * FROM everwhen.dead_letters ORDER BY id",
        "SELECT stream, topic, partition, next_offset FROM everwhen.streams ORDER BY 1, 3",
        "SELECT * FROM everwhen.columns ORDER BY 1, 2, 3",
    ] {
        writeln!(all, "{sql}: {}", client.sql(sql).await?["rows"])?;
    }
    for table in ["readings", "desks", "rooms", "free"] {
        let whole = format!(
            "SELECT *, _valid_from, _valid_to, _system_from, _system_to, _tx FROM {table} \
             FOR ALL VALID_TIME FOR ALL SYSTEM_TIME ORDER BY _id, _valid_from, _system_from"
        );
        writeln!(all, "{whole}: {}", client.sql(&whole).await?["rows"])?;
        for instant in instants {
            let sql = format!("SELECT *, _valid_from, _valid_to, _tx FROM {table} ORDER BY _id");
            let body = json!({"sql": sql, "system_time": instant, "valid_time": at(7_000)});
            let answer = client.post("/v1/sql", &body).await?;
            // The table may not be there yet: then the error must be the same.
            let shown = [&answer.body["rows"], &answer.body["columns"], &answer.body["detail"]];
            writeln!(all, "{table} at {instant}: {shown:?}")?;
        }
    }
    Ok(all)
}

/// The first line in which two texts differ.
fn difference(left: &str, right: &str) -> Option<String> {
    let place = left.lines().zip(right.lines()).find(|(left, right)| left != right);
    let differ = place.map(|(left, right)| {
        let same = left.bytes().zip(right.bytes()).take_while(|(l, r)| l == r).count();
        let part =
            |text: &str| text.chars().skip(same.saturating_sub(120)).take(300).collect::<String>();
        format!("first:   ..{}\nrebuilt: ..{}", part(left), part(right))
    });
    differ.or_else(|| (left.len() != right.len()).then(|| "one says more".to_owned()))
}

async fn wait_read(client: &Client, records: usize) -> Result<()> {
    client.wait_ingested("readings", i64::try_from(records)?).await
}

/// A history: records, writes and events side by side, definitions in between, a kill.
async fn live(data: &Path, topic: &str, random: &mut StdRng) -> Result<(Server, Vec<String>)> {
    let broker = shared_broker();
    broker.create_topic(topic, PARTITIONS, &[]).await?;
    let mut server = Server::start(data, Some(CLOCK)).await?;
    let model = MODEL.replace("${brokers}", &broker.bootstrap()).replace("${topic}", topic);
    server.client.script(&model).await?;
    let mut instants = Vec::new();
    let mut produced = 0;
    for round in 0..ROUNDS {
        let records: Vec<Record> = (0..RECORDS).map(|_| reading(random)).collect();
        broker.produce(topic, &records)?;
        produced += records.len();
        for _ in 0..8 {
            write(&server.client, random).await?;
        }
        match round {
            1 => {
                let mapping = "CREATE OR REPLACE MAPPING taken ON readings AS PUT INTO readings \
                    SELECT sensor AS _id, n * 2 AS n, upper(sensor) AS name, at AS _valid_from, \
                    id AS _event_id WHERE n <> 1";
                server.client.sql(mapping).await?;
            }
            2 => {
                server.kill();
                server = Server::start(data, Some(CLOCK)).await?;
            }
            _ => {}
        }
        wait_read(&server.client, produced).await?;
        let day = round + 2;
        let instant = format!("2026-03-{day:02}T00:00:00Z");
        server.client.set_clock(&instant).await?;
        instants.push(instant);
    }
    for _ in 0..4 {
        write(&server.client, random).await?;
    }
    Ok((server, instants))
}

async fn rebuild_and_compare(seed: u64) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir()?;
    let place = |name: &str| dir.path().join(name).display().to_string();
    let topic = format!("replay_{}_{seed}", std::process::id());
    let (first, second, journal) = (place("first"), place("second"), place("journal"));
    std::fs::create_dir(&journal)?;
    let (mut server, instants) = live(Path::new(&first), &topic, &mut random).await?;
    let right = answers(&server.client, &instants).await?;
    server.stop()?;
    run_well(&["journal", "export", "--data", &first, "--to", &journal])?;

    // Up to the middle, and then the rest.
    let half = run_well(&["replay", "--journal", &journal, "--data", &second, "--to-tx", "300"])?;
    ensure!(half.contains("stands at transaction 3"), "{half}");
    run_well(&["replay", "--journal", &journal, "--data", &second])?;
    let last = instants.last().map(String::as_str);
    let mut rebuilt = Server::start(Path::new(&second), last).await?;
    // Where sources stand is shown once the broker answered.
    wait_read(&rebuilt.client, ROUNDS * RECORDS).await?;
    let found = answers(&rebuilt.client, &instants).await?;
    if let Some(difference) = difference(&right, &found) {
        anyhow::bail!("the rebuilt store answers otherwise:\n{difference}");
    }
    // It goes on from there: what comes now gets transactions of its own.
    let count = "SELECT count(*) FROM everwhen.transactions WHERE source = 'kafka'";
    let before = rebuilt.client.one(count).await?.as_u64().unwrap_or(0);
    let fresh = r#"{"id":"fresh","sensor":"fresh","n":5,"at":"2026-01-01T00:00:00Z"}"#;
    shared_broker().produce(&topic, &[Record::new(fresh), Record::new(fresh)])?;
    eventually("the next record", || async {
        Ok(rebuilt.client.one(count).await?.as_u64() == Some(before + 1))
    })
    .await?;
    ensure!(rebuilt.client.one("SELECT n FROM readings WHERE _id = 'fresh'").await? == json!(10));
    rebuilt.stop()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuilt_store_answers_byte_for_byte() {
    let _turn = one_at_a_time();
    for round in 0..soak() {
        let seed = seed() + round;
        println!("seed {seed}");
        rebuild_and_compare(seed).await.unwrap();
    }
}

/// Rows of a history in the order of their recording; valid times in no order.
fn history(random: &mut StdRng, rows: usize) -> String {
    let mut text = String::new();
    for n in 0..rows {
        let (id, from) = (n % 97, random.random_range(0..10_000));
        let recorded = at(i64::try_from(n / 3).unwrap_or(0));
        let line = match n % 10 {
            0 => json!({"_op": "delete", "_id": format!("k{id}"), "_valid_from": at(from),
                "_valid_to": at(from + 500), "_system_from": recorded}),
            1 => {
                json!({"_op": "patch", "_id": format!("k{id}"), "note": "é", "_valid_from": at(from),
                "_system_from": recorded})
            }
            _ => json!({"_id": format!("k{id}"), "n": n, "_valid_from": at(from),
                "_valid_to": if n % 3 == 0 { json!(at(from + 900)) } else { Value::Null },
                "_system_from": recorded}),
        };
        writeln!(text, "{line}").unwrap();
    }
    text
}

/// A data directory that is loaded into, and the files beside it.
struct Loading {
    dir: tempfile::TempDir,
    data: String,
    file: String,
}

const PAST: &str = "
CREATE TABLE past (_id TEXT PRIMARY KEY, n BIGINT, note TEXT) WITH (precedence = 'effective');
CREATE PROJECTION shown KEY (id) INTO warehouse.shown AS
SELECT _id AS id, n, note FROM past FOR VALID_TIME AS OF TIMESTAMP '2026-01-01T01:00:00Z';
";
/// After everything that was recorded.
const NOW: &str = "2026-06-01T00:00:00Z";

impl Loading {
    async fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let place = |name: &str| dir.path().join(name).display().to_string();
        let (data, file) = (place("data"), place("rows.ndjson"));
        let mut server = Server::start(Path::new(&data), Some("2025-12-01T00:00:00Z")).await?;
        server.client.script(PAST).await?;
        server.stop()?;
        Ok(Self { dir, data, file })
    }

    fn place(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Ends the process at each step of a load, once more after the last.
    async fn kill_at_every_step(&self) -> Result<()> {
        let args = ["ingest", "--data", &self.data, "--table", "past", "--file", &self.file];
        let sql = "SELECT count(*) FROM past FOR ALL VALID_TIME FOR ALL SYSTEM_TIME";
        for step in ["load.intended", "load.family@2", "load.family@5", "load.before_publish"] {
            let (name, count) = step.split_once('@').unwrap_or((step, "1"));
            let output = run(&args, &format!("{name}=abort@{count}"))?;
            ensure!(!output.status.success(), "{step} was not passed");
            let mut server = Server::start(Path::new(&self.data), Some(NOW)).await?;
            ensure!(server.client.one(sql).await? == json!(0), "after {step}");
            let last = server.client.one("SELECT max(tx) FROM everwhen.transactions").await?;
            ensure!(last.as_i64().is_some_and(|last| last < 10), "{last} after {step}");
            server.kill();
        }
        let output = run(&args, "load.published=abort")?;
        ensure!(!output.status.success(), "load.published was not passed");
        let again = run(&args, "")?;
        let error = String::from_utf8_lossy(&again.stderr).into_owned();
        ensure!(!again.status.success() && error.contains("not empty"), "{error}");
        Ok(())
    }

    /// Compares a projection over the table with its query, and answers with what the table was
    /// believed to hold at some instants.
    async fn check_loaded(&self) -> Result<Vec<Value>> {
        let warehouse = self.place("warehouse.db");
        let config = format!("[sinks.warehouse]\ntype = \"sqlite\"\npath = \"{warehouse}\"\n");
        let mut server = Server::start(Path::new(&self.data), Some(NOW)).await?;
        let _projector = start_projector(&server.grpc, &config, self.dir.path(), "projector")?;
        server.client.wait_delivered().await?;
        let query = "SELECT _id AS id, n, note FROM past \
                     FOR VALID_TIME AS OF TIMESTAMP '2026-01-01T01:00:00Z' ORDER BY id";
        let rows = server.client.rows(query).await?;
        let cells = |row: &Vec<Value>| row.iter().map(crate::crash::cell_text).collect();
        let right: Vec<Vec<Option<String>>> = rows.iter().map(cells).collect();
        ensure!(right.len() > 50, "{} rows", right.len());
        let sink = sqlite_rows(Path::new(&warehouse), "SELECT id, n, note FROM shown ORDER BY id")?;
        ensure!(sink == right, "the sink differs from the query");
        let then = believed(&server.client).await?;
        ensure!(then[0] != then[1] && then[1] != then[2], "the instants are all alike");
        server.stop()?;
        Ok(then)
    }

    /// Rebuilds the directory from its journal alone, as the load stands in it as well.
    async fn check_rebuilt(&self, right: &[Value]) -> Result<String> {
        let (journal, rebuilt) = (self.place("all.journal"), self.place("rebuilt"));
        run_well(&["journal", "export", "--data", &self.data, "--to", &journal])?;
        run_well(&["replay", "--journal", &journal, "--data", &rebuilt])?;
        let mut server = Server::start(Path::new(&rebuilt), Some(NOW)).await?;
        ensure!(believed(&server.client).await? == right, "the rebuilt store differs");
        server.client.sql("CREATE TABLE bad (_id TEXT PRIMARY KEY, n BIGINT NOT NULL)").await?;
        server.stop()?;
        Ok(rebuilt)
    }
}

/// What the loaded table was believed to hold at some instants.
async fn believed(client: &Client) -> Result<Vec<Value>> {
    let sql = "SELECT *, _valid_from, _valid_to, _tx FROM past FOR ALL VALID_TIME \
               ORDER BY _id, _valid_from";
    let mut then = Vec::new();
    for instant in [at(100), at(500), at(999)] {
        let body = json!({"sql": sql, "system_time": instant});
        then.push(client.post("/v1/sql", &body).await?.body["rows"].clone());
    }
    Ok(then)
}

async fn load_with_kills(random: &mut StdRng) -> Result<()> {
    let loading = Loading::new().await?;
    std::fs::write(&loading.file, history(random, 3_000))?;
    loading.kill_at_every_step().await?;
    let right = loading.check_loaded().await?;
    let rebuilt = loading.check_rebuilt(&right).await?;

    let lines = [
        r#"{"_id":"a","n":1}"#,
        r#"{"_id":"b"}"#,
        "",
        r#"{"_id":"c","n":"x"}"#,
        r#"{"_id":"d","n":2}"#,
        "none",
    ];
    std::fs::write(&loading.file, lines.join("\n"))?;
    let args = ["ingest", "--data", &rebuilt, "--table", "bad", "--file", &loading.file];
    let output = run(&args, "")?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "bad lines were taken");
    for told in ["line 2: column \"n\" is NOT NULL", "line 4: column \"n\"", "line 6: no JSON"] {
        ensure!(error.contains(told), "{error}");
    }
    let rejects = loading.place("rejects.ndjson");
    let loaded = run_well(&[&args[..], &["--rejects", &rejects]].concat())?;
    ensure!(loaded.contains("loaded 2 rows into bad, 3 lines rejected"), "{loaded}");
    let lines = std::fs::read_to_string(&rejects)?;
    ensure!(lines.lines().count() == 3 && lines.contains("\"line\":4"), "{lines}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_is_there_wholly_or_not_at_all() {
    let _turn = one_at_a_time();
    let seed = seed();
    println!("seed {seed}");
    load_with_kills(&mut StdRng::seed_from_u64(seed)).await.unwrap();
}
