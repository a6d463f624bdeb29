//! Topics that are deleted, made anew or truncated under a stream, and the statements that move a
//! stream: on a real broker, as only it gives topics ids and deletes them.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use everwhen_tests::http::eventually;
use everwhen_tests::kafka::Record;
use everwhen_tests::process::{Server, run};
use everwhen_tests::{one_at_a_time, shared_broker};
use serde_json::{Value, json};

const CLOCK: &str = "2026-06-01T00:00:00Z";
/// Midnight of 2026-01-01, in milliseconds.
const EPOCH_MS: i64 = 1_767_225_600_000;

/// A server with a stream `orders` of a topic of its own.
struct Rig {
    server: Server,
    topic: String,
    dir: tempfile::TempDir,
}

/// Records `{name}{n}` of partition 0, a minute apart by their timestamps.
fn records(name: &str, range: std::ops::Range<i64>) -> Vec<Record> {
    let record = |n: i64| Record {
        timestamp_ms: Some(EPOCH_MS + n * 60_000),
        ..Record::new(json!({"id": format!("{name}{n}"), "n": n}).to_string())
    };
    range.map(record).collect()
}

impl Rig {
    async fn new(name: &str, partitions: i32) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let topic = format!("topics_{name}_{}", std::process::id());
        shared_broker().create_topic(&topic, partitions, &[]).await?;
        let server = Server::start(&dir.path().join("data"), Some(CLOCK)).await?;
        let rig = Self { server, topic, dir };
        rig.define("orders").await?;
        Ok(rig)
    }

    /// Makes the stream, and its mapping into a table.
    async fn define(&self, table: &str) -> Result<()> {
        let brokers = shared_broker().bootstrap();
        let client = &self.server.client;
        let stream = format!(
            "CREATE STREAM orders FROM KAFKA (brokers = '{brokers}', topic = '{}') \
             FORMAT JSON (id TEXT, n BIGINT)",
            self.topic
        );
        client.sql(&stream).await?;
        let mapping =
            format!("CREATE MAPPING put ON orders AS PUT INTO {table} SELECT id AS _id, n");
        client.sql(&mapping).await?;
        Ok(())
    }

    fn produce(&self, records: &[Record]) -> Result<()> {
        shared_broker().produce(&self.topic, records)
    }

    async fn alter(&self, change: &str) -> Result<Value> {
        self.server.client.sql(&format!("ALTER STREAM orders {change}")).await
    }

    async fn restart(&mut self) -> Result<()> {
        self.server.kill();
        self.server = Server::start(&self.server.data.clone(), Some(CLOCK)).await?;
        Ok(())
    }

    /// Waits until the stream is at an offset, all partitions together, and shows a state.
    async fn until(&self, next: i64, state: &str) -> Result<()> {
        let sql = "SELECT coalesce(sum(next_offset), -1), min(state), max(state) \
                   FROM everwhen.streams";
        eventually(&format!("offset {next}, {state}"), || async {
            let rows = self.server.client.rows(sql).await?;
            let found = (rows[0][0].as_i64(), rows[0][1].as_str(), rows[0][2].as_str());
            let right = found == (Some(next), Some(state), Some(state));
            ensure!(right, "{:?}", self.streams().await?);
            Ok(true)
        })
        .await
    }

    async fn streams(&self) -> Result<Vec<Vec<Value>>> {
        let sql = "SELECT partition, next_offset, state, error FROM everwhen.streams ORDER BY 1";
        self.server.client.rows(sql).await
    }

    /// Waits until the stream has stopped at an offset, and its error says this.
    async fn until_stopped(&self, next: i64, says: &[&str]) -> Result<()> {
        self.until(next, "stopped").await?;
        let rows = self.streams().await?;
        let error = rows[0][3].as_str().unwrap_or_default();
        for part in says {
            ensure!(error.contains(part), "{part:?} is not in {error:?}");
        }
        Ok(())
    }

    /// The ids of a table's rows whose name begins with a text, by their numbers.
    async fn numbers(&self, table: &str, name: &str) -> Result<Vec<i64>> {
        let sql = format!("SELECT n FROM {table} WHERE _id LIKE '{name}%' ORDER BY n");
        let rows = self.server.client.rows(&sql).await?;
        Ok(rows.iter().filter_map(|row| row[0].as_i64()).collect())
    }

    /// Partition and offset of each record that was taken after a transaction, in order.
    async fn taken(&self, after: i64) -> Result<Vec<(i64, i64)>> {
        let sql = format!(
            "SELECT partition, \"offset\" FROM everwhen.transactions \
             WHERE source = 'kafka' AND tx > {after} ORDER BY tx"
        );
        let rows = self.server.client.rows(&sql).await?;
        let number = |value: &Value| value.as_i64().unwrap_or(-1);
        Ok(rows.iter().map(|row| (number(&row[0]), number(&row[1]))).collect())
    }

    fn signal(&self, name: &str) -> Result<()> {
        let id = self.server.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status()?;
        ensure!(sent.success(), "{name} was not sent");
        Ok(())
    }

    fn place(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }
}

fn tx(answer: &Value) -> i64 {
    answer["tx"].as_i64().unwrap_or(-1)
}

/// How a topic is made anew.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Remade {
    /// The stream sees that the topic is away for a while.
    Slowly,
    /// The stream sees little of it.
    AtOnce,
    /// The server stands still meanwhile: its client knows one topic and then the other.
    StandingStill,
    /// The server is down meanwhile.
    Unseen,
}

/// A stream that has read 10 records finds another topic of the name, with so many records.
async fn finds_another_topic(rig: &mut Rig, records_new: i64, remade: Remade) -> Result<()> {
    rig.produce(&records("old", 0..10))?;
    rig.until(10, "running").await?;
    let broker = shared_broker();
    match remade {
        Remade::Slowly => {
            broker.delete_topic(&rig.topic).await?;
            rig.until(10, "waiting").await?;
            let error = rig.streams().await?[0][3].clone();
            ensure!(error.as_str().is_some_and(|error| error.contains("does not exist")));
            broker.create_topic(&rig.topic, 1, &[]).await?;
        }
        Remade::AtOnce => broker.remake_topic(&rig.topic, 1).await?,
        Remade::StandingStill => {
            rig.signal("STOP")?;
            broker.remake_topic(&rig.topic, 1).await?;
        }
        Remade::Unseen => {
            rig.server.kill();
            broker.remake_topic(&rig.topic, 1).await?;
        }
    }
    rig.produce(&records("new", 0..records_new))?;
    match remade {
        Remade::StandingStill => rig.signal("CONT")?,
        Remade::Unseen => rig.restart().await?,
        Remade::Slowly | Remade::AtOnce => {}
    }
    let says = ["was deleted and made anew", "ALTER STREAM orders RESET TO BEGINNING"];
    rig.until_stopped(10, &says).await?;
    // Nothing of the new topic was read, and it is not gone on with by itself, by another record,
    // a try or a restart.
    rig.produce(&records("new", records_new..records_new + 5))?;
    rig.alter("RESUME").await?;
    rig.until_stopped(10, &says).await?;
    rig.restart().await?;
    rig.until_stopped(10, &says).await?;
    ensure!(rig.numbers("orders", "new").await?.is_empty(), "records were read silently");

    rig.alter("RESET TO BEGINNING").await?;
    rig.until(records_new + 5, "running").await?;
    let all: Vec<i64> = (0..records_new + 5).collect();
    ensure!(rig.numbers("orders", "new").await? == all, "records of the new topic are missing");
    ensure!(rig.numbers("orders", "old").await?.len() == 10, "rows of the old topic are missing");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remade_topic_stops_its_stream_until_a_reset_and_loses_no_record() {
    let _turn = one_at_a_time();
    for (name, records_new, remade) in [
        ("fewer", 3, Remade::Slowly),
        ("as_many", 10, Remade::AtOnce),
        ("more", 25, Remade::AtOnce),
        ("still", 25, Remade::StandingStill),
        ("unseen", 25, Remade::Unseen),
    ] {
        let mut rig = Rig::new(name, 1).await.unwrap();
        finds_another_topic(&mut rig, records_new, remade).await.unwrap();
        if remade != Remade::Unseen {
            continue;
        }
        // A rebuild from the journal cannot have the old topic's records, and says so.
        rig.server.stop().unwrap();
        let (data, journal) = (rig.server.data.display().to_string(), rig.place("journal"));
        let exported = run(&["journal", "export", "--data", &data, "--to", &journal]).unwrap();
        assert!(exported.success, "{}", exported.err);
        let rebuilt = rig.place("rebuilt");
        let replayed = run(&["replay", "--journal", &journal, "--data", &rebuilt]).unwrap();
        assert!(!replayed.success && replayed.err.contains("made anew since"), "{}", replayed.err);
    }
}

/// Has the first records of a log deleted before they are read.
async fn loses_the_start(rig: &mut Rig) -> Result<()> {
    rig.produce(&records("a", 0..10))?;
    rig.until(10, "running").await?;
    let early = rig.server.client.sql_error("ALTER STREAM orders SKIP").await?;
    ensure!(early.body["sqlstate"] == "55000" && early.body["hint"].is_string(), "{}", early.body);
    rig.alter("PAUSE").await?;
    rig.produce(&records("a", 10..20))?;
    rig.until(10, "paused").await?;
    rig.restart().await?;
    rig.until(10, "paused").await?;
    shared_broker().delete_records(&rig.topic, 0, 15).await?;
    rig.alter("RESUME").await?;
    let says = ["log truncated below the stored offset", "begins at 15", "SKIP goes on at 15"];
    rig.until_stopped(10, &says).await?;
    rig.restart().await?;
    rig.until_stopped(10, &says).await?;
    rig.alter("SKIP").await?;
    rig.until(20, "running").await?;
    let there: Vec<i64> = (0..10).chain(15..20).collect();
    ensure!(rig.numbers("orders", "a").await? == there, "rows are not those that were there");
    let again = rig.server.client.sql_error("ALTER STREAM orders SKIP").await?;
    ensure!(again.body["sqlstate"] == "55000", "{}", again.body);
    // Further records come as ever, over a restart too.
    rig.produce(&records("a", 20..25))?;
    rig.until(25, "running").await?;
    rig.restart().await?;
    rig.until(25, "running").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_log_stops_its_stream_and_skip_goes_on() {
    let _turn = one_at_a_time();
    let mut rig = Rig::new("truncated", 1).await.unwrap();
    loses_the_start(&mut rig).await.unwrap();
    rig.server.stop().unwrap();
}

async fn makes_the_stream_again(rig: &mut Rig) -> Result<()> {
    rig.produce(&records("a", 0..10))?;
    rig.until(10, "running").await?;
    for round in 0..2 {
        let table = format!("again{round}");
        rig.server.client.sql("DROP MAPPING put").await?;
        rig.server.client.sql("DROP STREAM orders").await?;
        if round == 1 {
            rig.restart().await?;
        }
        rig.define(&table).await?;
        rig.until(10, "running").await?;
        let found = rig.numbers(&table, "a").await?;
        ensure!(found == (0..10).collect::<Vec<_>>(), "{table} has {found:?}");
    }
    // Replacing a stream is not making it again: it goes on.
    let stream = format!(
        "CREATE OR REPLACE STREAM orders FROM KAFKA (brokers = '{}', topic = '{}') \
         FORMAT JSON (id TEXT, n BIGINT, more TEXT)",
        shared_broker().bootstrap(),
        rig.topic
    );
    let replaced = tx(&rig.server.client.sql(&stream).await?);
    rig.produce(&records("a", 10..12))?;
    rig.until(12, "running").await?;
    ensure!(rig.taken(replaced).await? == [(0, 10), (0, 11)], "a replaced stream goes on");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_dropped_and_made_again_reads_from_the_beginning() {
    let _turn = one_at_a_time();
    let mut rig = Rig::new("made_again", 1).await.unwrap();
    makes_the_stream_again(&mut rig).await.unwrap();
    rig.server.stop().unwrap();
}

/// Moves a stream of two partitions about; answers with what it has taken in the end.
async fn moves_about(rig: &mut Rig) -> Result<()> {
    let second = |record: Record| Record { partition: 1, ..record };
    rig.produce(&records("a", 0..10))?;
    rig.produce(&records("b", 0..10).into_iter().map(second).collect::<Vec<_>>())?;
    rig.until(20, "running").await?;
    let zero = |range: std::ops::Range<i64>| range.map(|offset| (0, offset)).collect::<Vec<_>>();

    let at = tx(&rig.alter("RESET TO OFFSET 7 PARTITION 0").await?);
    rig.until(20, "running").await?;
    ensure!(rig.taken(at).await? == zero(7..10), "{:?}", rig.taken(at).await?);

    // Between the fifth and the sixth record's timestamps.
    let at = tx(&rig.alter("RESET TO TIMESTAMP '2026-01-01T00:04:30Z'").await?);
    rig.until(20, "running").await?;
    let mut taken = rig.taken(at).await?;
    taken.sort_unstable();
    let both = |range: std::ops::Range<i64>| {
        [0, 1].into_iter().flat_map(move |id| range.clone().map(move |offset| (id, offset)))
    };
    ensure!(taken == both(5..10).collect::<Vec<_>>(), "{taken:?}");

    let at = tx(&rig.alter("RESET TO END").await?);
    rig.until(20, "running").await?;
    rig.produce(&records("a", 10..12))?;
    rig.until(22, "running").await?;
    ensure!(rig.taken(at).await? == zero(10..12), "{:?}", rig.taken(at).await?);

    // An offset that the log does not have is a stop, and no data is read.
    let at = tx(&rig.alter("RESET TO OFFSET 99 PARTITION 0").await?);
    eventually("a stop", || async {
        let rows = rig.streams().await?;
        let error = rows[0][3].as_str().unwrap_or_default();
        Ok(rows[0][2] == "stopped" && error.contains("RESET TO OFFSET takes one from 0 to 12"))
    })
    .await?;
    ensure!(rig.taken(at).await?.is_empty());
    rig.alter("RESET TO OFFSET 11 PARTITION 0").await?;
    rig.until(22, "running").await?;
    ensure!(rig.taken(at).await? == zero(11..12), "{:?}", rig.taken(at).await?);

    let audit = "SELECT action, detail FROM everwhen.audit WHERE kind = 'stream' ORDER BY tx DESC";
    let rows = rig.server.client.rows(audit).await?;
    ensure!(rows[0] == [json!("alter"), json!("RESET TO OFFSET 11 PARTITION 0")], "{rows:?}");
    ensure!(rows[3] == [json!("alter"), json!("RESET TO TIMESTAMP '2026-01-01T00:04:30Z'")]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_moves_a_stream_to_an_offset_a_time_and_the_end() {
    let _turn = one_at_a_time();
    let mut rig = Rig::new("moved", 2).await.unwrap();
    moves_about(&mut rig).await.unwrap();
    let shown = "SELECT * FROM everwhen.transactions ORDER BY tx";
    let right = rig.server.client.rows(shown).await.unwrap();
    rig.server.stop().unwrap();
    // The journal says where the stream was moved, so a rebuilt store reads and goes on the same.
    let (data, journal) = (rig.server.data.display().to_string(), rig.place("journal"));
    let rebuilt = rig.place("rebuilt");
    for args in [
        ["journal", "export", "--data", &data, "--to", &journal],
        ["replay", "--journal", &journal, "--data", &rebuilt, "--"],
    ] {
        let args: Vec<&str> = args.into_iter().filter(|arg| *arg != "--").collect();
        let said = run(&args).unwrap();
        assert!(said.success, "{args:?}: {}", said.err);
    }
    rig.server = Server::start(Path::new(&rebuilt), Some(CLOCK)).await.unwrap();
    rig.until(22, "running").await.unwrap();
    assert_eq!(rig.server.client.rows(shown).await.unwrap(), right);
    rig.server.stop().unwrap();
}

/// Kills the server as soon as it has answered.
async fn keeps_its_word(rig: &mut Rig) -> Result<()> {
    rig.produce(&records("a", 0..10))?;
    rig.until(10, "running").await?;
    for (change, expected) in [
        ("RESET TO BEGINNING", 0..10),
        ("RESET TO OFFSET 6", 6..10),
        ("RESET TO OFFSET 8 PARTITION 0", 8..10),
        ("RESET TO END", 10..10),
    ] {
        let at = tx(&rig.alter(change).await?);
        rig.restart().await?;
        rig.until(10, "running").await?;
        let expected: Vec<_> = expected.map(|offset| (0, offset)).collect();
        let taken = rig.taken(at).await?;
        ensure!(taken == expected, "{change}: {taken:?}");
        // Once is enough: it is not carried out again.
        rig.restart().await?;
        rig.until(10, "running").await?;
        ensure!(rig.taken(at).await? == expected, "{change} was carried out twice");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_that_was_answered_survives_a_kill() {
    let _turn = one_at_a_time();
    let mut rig = Rig::new("killed", 1).await.unwrap();
    keeps_its_word(&mut rig).await.unwrap();
}

async fn refuses(rig: &Rig) -> Result<()> {
    let client = &rig.server.client;
    client.sql("CREATE STREAM posted FORMAT JSON").await?;
    for (sql, sqlstate, hinted) in [
        ("ALTER STREAM nothing SKIP", "42704", true),
        ("ALTER STREAM posted RESET TO END", "55000", true),
        ("ALTER STREAM orders SKIP", "55000", true),
        ("ALTER STREAM orders RESET TO OFFSET -1", "22023", false),
        ("ALTER STREAM orders RESET TO OFFSET 1 PARTITION 7", "22023", true),
        ("ALTER STREAM orders RESET TO TIMESTAMP 'noon'", "22P02", false),
        ("ALTER STREAM orders RESET", "42601", false),
    ] {
        let body = client.sql_error(sql).await?.body;
        ensure!(body["sqlstate"] == sqlstate, "{sql}: {body}");
        ensure!(body["hint"].is_string() || !hinted, "{sql}: {body}");
    }
    client.sql("ALTER STREAM IF EXISTS nothing PAUSE").await?;
    // The same by the command line.
    let http = rig.server.http.as_str();
    let said = run(&["sql", "--url", http, "-c", "ALTER STREAM orders PAUSE"])?;
    ensure!(said.success, "{}", said.err);
    eventually("a pause", || async {
        let paused = "SELECT state FROM everwhen.streams WHERE stream = 'orders'";
        Ok(client.one(paused).await? == json!("paused"))
    })
    .await?;
    let said = run(&["sql", "--url", http, "-c", "ALTER STREAM posted SKIP"])?;
    ensure!(!said.success && said.err.contains("reads no topic"), "{}", said.err);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_about_streams_are_refused_with_advice() {
    let _turn = one_at_a_time();
    let rig = Rig::new("refused", 1).await.unwrap();
    eventually("the stream to run", || async {
        Ok(rig.streams().await?.iter().any(|row| row[2] == "running"))
    })
    .await
    .unwrap();
    refuses(&rig).await.unwrap();
}
