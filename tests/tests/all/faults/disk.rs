//! A disk that is full: reads go on, writes and ingest wait, and go on by themselves.
//!
//! The disk is a small file system in memory, which only root can mount.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use everwhen_tests::http::{Client, eventually};
use everwhen_tests::kafka::Record;
use everwhen_tests::process::Server;
use everwhen_tests::workload::Workload;
use everwhen_tests::{one_at_a_time, seed, shared_broker, soak};

/// From room to writing again: the engine looks for room every 5 s.
const RESUME: Duration = Duration::from_secs(10);

/// A small file system in memory, unmounted when dropped.
struct Disk {
    at: PathBuf,
    _folder: tempfile::TempDir,
}

impl Disk {
    fn mount(mib: u32) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let at = folder.path().join("disk");
        fs::create_dir(&at)?;
        let size = format!("size={mib}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at);
        let mounted = mount.status().context("the command mount")?;
        ensure!(mounted.success(), "a file system cannot be mounted: run this suite as root");
        Ok(Self { at, _folder: folder })
    }

    fn data(&self) -> PathBuf {
        self.at.join("data")
    }

    fn free_bytes(&self) -> Result<u64> {
        let out = Command::new("df").args(["--output=avail", "-B1"]).arg(&self.at).output()?;
        let text = String::from_utf8(out.stdout)?;
        Ok(text.lines().nth(1).context("df prints a line")?.trim().parse()?)
    }

    /// Fills it but for so many bytes.
    fn fill(&self, but_for: u64) -> Result<()> {
        let mut filler = fs::OpenOptions::new().create(true).append(true).open(self.filler())?;
        let block = vec![0_u8; 1 << 20];
        loop {
            let mut left = self.free_bytes()?.saturating_sub(but_for);
            if left == 0 {
                return Ok(());
            }
            while left > 0 {
                let size = usize::try_from(left)?.min(block.len());
                if filler.write_all(&block[..size]).is_err() {
                    return Ok(());
                }
                left -= u64::try_from(size)?;
            }
        }
    }

    fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.filler())?)
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.at).status().ok();
    }
}

/// A driver under way, whose lines come as it prints them.
struct Driving {
    child: Child,
    lines: Receiver<String>,
    acked: usize,
}

impl Driving {
    fn start(data: &Path, seed: u64, batches: usize) -> Result<Self> {
        let mut child = Command::new(super::DRIVER)
            .arg(data)
            .args([seed.to_string(), batches.to_string(), "0".to_owned()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = BufReader::new(child.stdout.take().context("its output")?);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lines, acked: 0 })
    }

    /// Waits for a line that begins so; none other than an `acked` may come before it.
    fn wait_for(&mut self, start: &str, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).with_context(|| format!("no \"{start}\""))?;
            if let Some(acked) = line.strip_prefix("acked ") {
                self.acked = acked.parse()?;
            }
            if line.starts_with(start) {
                return Ok(());
            }
            ensure!(line.starts_with("acked") || line.starts_with("opened"), "driver: {line}");
        }
    }
}

impl Drop for Driving {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn a_write_that_the_disk_refuses_is_not_there_and_succeeds_once_there_is_room() {
    let rounds = if soak() > 1 { 20 } else { 1 };
    for round in 0..rounds {
        let seed = seed() + round;
        println!("seed {seed}");
        refused_by_the_disk(seed).unwrap();
    }
}

/// The store is told to keep no reserve, so that it is the system that refuses.
fn refused_by_the_disk(seed: u64) -> Result<()> {
    let disk = Disk::mount(192)?;
    let batches = 900;
    // Enough to begin in, not enough to get far.
    disk.fill((1 << 20) + seed % 5 * 40_000)?;
    let mut driving = Driving::start(&disk.data(), seed, batches)?;
    // Compares all it can read with the model while it waits.
    driving.wait_for("refused", Duration::from_secs(30))?;
    disk.free()?;
    driving.wait_for("acked", RESUME)?;
    driving.wait_for("acked", Duration::from_secs(5))?;
    let acked = driving.acked;
    drop(driving);
    let store = super::open(&disk.data());
    let workload = Workload::new(seed, batches);
    let place = workload.position(&store).map_err(anyhow::Error::msg)?;
    ensure!(place >= acked, "{acked} batches were acknowledged, {place} are there");
    workload.compare(&store).map_err(anyhow::Error::msg)
}

const MODEL: &str = "
CREATE STREAM full_disk FROM KAFKA (brokers = '${brokers}', topic = 'full_disk_${seed}')
FORMAT JSON (id TEXT, n BIGINT);
CREATE MAPPING full_disk_m ON full_disk AS PUT INTO readings SELECT id AS _id, n;
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_on_and_ingest_waits_while_the_disk_is_full() {
    let _turn = one_at_a_time();
    let cycles = if soak() > 1 { 50 } else { 2 };
    println!("seed {}", seed());
    waits_for_room(cycles).await.unwrap();
}

async fn waits_for_room(cycles: u64) -> Result<()> {
    let disk = Disk::mount(256)?;
    let (broker, topic) = (shared_broker(), format!("full_disk_{}", seed()));
    broker.create_topic(&topic, 2, &[]).await?;
    let mut server = Server::start(&disk.data(), None).await?;
    let script = MODEL.replace("${brokers}", &broker.bootstrap());
    server.client.script(&script.replace("${seed}", &seed().to_string())).await?;
    let mut produced = 0;
    let mut produce = |count: u64| {
        let first = produced;
        produced += count;
        let record = |n| Record {
            partition: i32::try_from(n % 2).unwrap_or(0),
            ..Record::new(format!(r#"{{"id":"k{n}","n":{n}}}"#))
        };
        let records: Vec<Record> = (first..produced).map(record).collect();
        broker.produce(&topic, &records).map(|()| produced)
    };
    let (client, admin) = (server.client.clone(), Client::new(&server.admin));
    for cycle in 0..cycles {
        let before = produce(500)?;
        client.wait_ingested("full_disk", i64::try_from(before)?).await?;
        // Less than what is kept in reserve.
        disk.fill(8 << 20)?;
        let after = produce(500)?;
        eventually("ingest to wait for room", || async {
            let rows = client.rows("SELECT state, error FROM everwhen.streams").await?;
            Ok(rows.iter().all(|row| {
                row[0] == "waiting" && row[1].as_str().is_some_and(|e| e.contains("disk is full"))
            }))
        })
        .await?;
        let refused = client.sql_error("INSERT INTO t (_id) VALUES (1)").await?;
        ensure!(refused.status == 507 && refused.body["sqlstate"] == "53100", "{refused:?}");
        let counted = client.one("SELECT count(*) FROM readings").await?;
        ensure!(counted.as_u64() == Some(before), "cycle {cycle}: {counted} of {before}");
        let offsets = client.one("SELECT sum(next_offset) FROM everwhen.streams").await?;
        ensure!(offsets.as_u64() == Some(before), "offsets moved to {offsets} of {before}");
        let page = admin.get("/metrics").await?.body;
        let told = page.as_str().is_some_and(|page| page.contains("\neverwhen_store_disk_full 1"));
        ensure!(told, "{page}");
        let status = client.get("/v1/status").await?.body;
        ensure!(status["writes"]["state"] == "disk full", "{status}");

        disk.free()?;
        let freed = Instant::now();
        client.wait_ingested("full_disk", i64::try_from(after)?).await?;
        ensure!(freed.elapsed() < RESUME, "it took {:?} to go on", freed.elapsed());
        let status = client.get("/v1/status").await?.body;
        ensure!(status["writes"]["state"] == "taken", "{status}");
        client.sql("INSERT INTO t (_id) VALUES (1)").await?;
        let counted = client.one("SELECT count(DISTINCT n) FROM readings").await?;
        ensure!(counted.as_u64() == Some(after), "cycle {cycle}: {counted} of {after}");
    }
    server.stop()
}
