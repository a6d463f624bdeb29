//! What the store survives: ends at every step of a write, calls to the system that fail, files
//! that end early, a disk that is full (NF12, O11).
//!
//! A driver process writes a workload that follows from a seed; something stops or hurts it; then
//! the store is opened again without faults. It must hold an exact beginning of the workload, by
//! partition too, with everything in it that was acknowledged, and answer as the naive model does.
//! A failure prints the seed and the fault.

mod calls;
mod disk;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use everwhen_storage::{Error, FAILPOINTS, ManualClock, Options, Store};
use everwhen_tests::http::{Answer, Client};
use everwhen_tests::process::program;
use everwhen_tests::workload::{CLOCK, Workload};
use everwhen_tests::{seed, soak};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

const DRIVER: &str = env!("CARGO_BIN_EXE_everwhen-store-driver");
/// Batches of a workload.
const BATCHES: usize = 60;
/// No run of the driver takes nearly as long.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a lock may outlive its holder.
const LOCKED_MAX: Duration = Duration::from_secs(20);

/// A store directory that a driver writes to, and what it is to hold.
struct Victim {
    folder: tempfile::TempDir,
    seed: u64,
    workload: Arc<Workload>,
    /// Batches that some run of the driver was told to be durable.
    acked: usize,
}

/// How a run of the driver ended.
#[derive(Debug)]
struct Run {
    /// `None` where a signal ended it.
    code: Option<i32>,
    said: String,
}

impl Run {
    /// True where the driver ended by itself, in one of the ways it may.
    fn is_orderly(&self) -> bool {
        matches!(self.code, Some(0 | 3 | 6))
    }

    fn is_done(&self) -> bool {
        self.code == Some(0)
    }
}

impl Victim {
    fn new(seed: u64) -> Self {
        Self::with(seed, Arc::new(Workload::new(seed, BATCHES)))
    }

    fn with(seed: u64, workload: Arc<Workload>) -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), seed, workload)
    }

    const fn in_folder(folder: tempfile::TempDir, seed: u64, workload: Arc<Workload>) -> Self {
        Self { folder, seed, workload, acked: 0 }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn snapshots(&self) -> PathBuf {
        self.folder.path().join("snapshots")
    }

    fn arguments(&self) -> [String; 4] {
        let data = self.data().display().to_string();
        [data, self.seed.to_string(), self.workload.batches.len().to_string(), "0".to_owned()]
    }

    fn driver(&self) -> Command {
        let mut command = Command::new(DRIVER);
        command.args(self.arguments());
        command
    }

    /// Runs the driver to its end, or ends it after a while where one is given.
    fn run(&mut self, mut command: Command, end_after: Option<Duration>) -> Run {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn().unwrap();
        let began = Instant::now();
        while child.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < PATIENCE, "the driver hangs: {command:?}");
            if end_after.is_some_and(|after| began.elapsed() >= after) {
                child.kill().unwrap();
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&stdout).into_owned();
        for line in said.lines() {
            if let Some(acked) = line.strip_prefix("acked ") {
                self.acked = self.acked.max(acked.parse().unwrap());
            }
        }
        let stderr = String::from_utf8_lossy(&stderr);
        assert!(!stderr.contains("panicked"), "{stderr}");
        Run { code: status.code(), said }
    }

    /// Runs the driver without a fault, once nobody holds the lock any more (see [`open`]).
    fn run_free(&mut self, command: impl Fn(&Self) -> Command) -> Run {
        let began = Instant::now();
        loop {
            let run = self.run(command(self), None);
            if !run.said.contains("in use by another") || began.elapsed() > LOCKED_MAX {
                return run;
            }
        }
    }

    /// Checks what the store holds now, opened without faults; answers how many batches.
    fn check(&self, what: &str) -> usize {
        let store = open(&self.data());
        let place = self.workload.position(&store);
        let place = place.unwrap_or_else(|why| panic!("seed {}, {what}: {why}", self.seed));
        assert!(
            place >= self.acked,
            "seed {}, {what}: {} batches were acknowledged, {place} are there",
            self.seed,
            self.acked
        );
        if let Err(why) = self.workload.compare(&store) {
            panic!("seed {}, {what}: {why}", self.seed);
        }
        store.close().unwrap();
        place
    }
}

/// Opens a store. A process that another thread has begun to start may hold its lock for a moment.
fn open(data: &Path) -> Store {
    let began = Instant::now();
    loop {
        let clock = Arc::new(ManualClock::at(CLOCK));
        let path = data.to_owned();
        match Store::open(Options { path, clock, sync: false, block_cache_bytes: 8 << 20 }) {
            Err(Error::InUse { .. }) if began.elapsed() < LOCKED_MAX => {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened.unwrap(),
        }
    }
}

#[test]
fn an_end_at_any_step_of_a_write_leaves_an_exact_beginning() {
    let kills = if soak() > 1 { 1_000 } else { 30 };
    let first = seed();
    println!("seed {first}");
    let mut random = StdRng::seed_from_u64(first);
    let mut victim = Victim::new(first);
    let places = ["store.opened", "cursors.before_write", "cursors.written", "store.closing"];
    let places: Vec<&str> = FAILPOINTS.iter().copied().chain(places).collect();
    let mut ended = 0;
    for kill in 0.. {
        if ended >= kills {
            break;
        }
        assert!(kill < 20 * kills, "only {ended} of {kill} runs were ended");
        let mut command = victim.driver();
        let place = places[kill % places.len()];
        // Every fourth time at some moment rather than at a step.
        let after = (kill % 4 == 3).then(|| Duration::from_millis(random.random_range(5..250)));
        if after.is_none() {
            let count = random.random_range(1..=6);
            command.env("EVERWHEN_FAILPOINTS", format!("{place}=abort@{count}"));
        }
        let run = victim.run(command, after);
        let what = format!("kill {kill} at {place} or after {after:?}");
        assert!(run.code.is_none() || run.is_done(), "{what}: {run:?}");
        ended += usize::from(run.code.is_none());
        if kill % 50 == 49 {
            println!("{ended} of {} runs were ended", kill + 1);
        }
        let there = victim.check(&what);
        if there == BATCHES {
            victim = Victim::new(first + 1 + u64::try_from(kill).unwrap());
        }
    }
}

/// Runs the driver where no file can be longer than so many blocks of 512 bytes: the write that
/// crosses the bound is cut short, the next one fails. Answers whether that stopped it.
fn files_end_at(seed: u64, blocks: usize) -> bool {
    let mut victim =
        Victim::in_folder(calls::memory(), seed, Arc::new(Workload::new(seed, BATCHES)));
    let mut command = Command::new("sh");
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    command.args(["-c", &script, DRIVER]).args(victim.arguments());
    let run = victim.run(command, None);
    let what = format!("files end at {blocks} blocks");
    assert!(run.is_orderly(), "seed {seed}, {what}: {run:?}");
    victim.check(&what);
    let rest = victim.run_free(Victim::driver);
    assert!(rest.is_done(), "seed {seed}, after {what}: {rest:?}");
    assert_eq!(victim.check(&what), BATCHES);
    !run.is_done()
}

#[test]
fn files_that_cannot_grow_further_cost_no_acknowledged_write() {
    let first = seed();
    println!("seed {first}");
    if soak() > 1 {
        let (stopped, wrong) = calls::walk(|blocks| files_end_at(first, blocks), usize::MAX);
        println!("files ended at 1 to {stopped} blocks, {} wrong", wrong.len());
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        return;
    }
    let mut random = StdRng::seed_from_u64(first);
    let stopped = (0..4).filter(|round| {
        let most = if *round == 0 { 100 } else { 300 };
        files_end_at(first + round, random.random_range(8..most))
    });
    assert!(stopped.count() > 0, "no file came to its bound");
}

#[test]
fn a_failed_sync_ends_writing_for_good() {
    let mut victim = Victim::new(seed());
    let mut command = victim.driver();
    // One sync fails, after those of the start, and all later ones succeed: they must not be
    // believed.
    calls::inject(&mut command, victim.folder.path(), "sync:5:60");
    let run = victim.run(command, None);
    assert_eq!(run.code, Some(6), "{run:?}");
    assert!(run.said.contains("stopped: the store takes no more writes"), "{run:?}");
    victim.check("after a failed sync");
}

#[test]
fn a_server_whose_log_cannot_be_synced_says_so_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let mut command = Command::new(program().unwrap());
    // After all those of the start.
    calls::inject(&mut command, folder.path(), "sync:5:80+");
    command.args(["serve", "--postgres-listen", "off", "--data"]).arg(&data);
    for listener in ["--http-listen", "--grpc-listen", "--admin-listen"] {
        command.args([listener, "127.0.0.1:0"]);
    }
    let mut server =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let refused = runtime.block_on(write_until_refused(&data));
    let began = Instant::now();
    let status = loop {
        if let Some(status) = server.try_wait().unwrap() {
            break status;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "the server goes on");
        std::thread::sleep(Duration::from_millis(10));
    };
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("the store takes no more writes"), "{log}");
    assert_eq!(refused.body["sqlstate"], "58030", "{refused:?}");
    assert!(!refused.body.to_string().contains("data"), "inside shown: {refused:?}");
}

/// Writes until a write fails, and returns that answer.
async fn write_until_refused(data: &Path) -> Answer {
    let endpoints = data.join("endpoints.json");
    let base = loop {
        let text = std::fs::read_to_string(&endpoints).unwrap_or_default();
        match serde_json::from_str::<serde_json::Value>(&text) {
            Ok(all) => break all["http"].as_str().unwrap().to_owned(),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let client = Client::new(&base);
    for n in 0..200 {
        let sql = format!("INSERT INTO t (_id, n) VALUES ({n}, {n})");
        let answer = client.post("/v1/sql", &serde_json::json!({ "sql": sql })).await.unwrap();
        if answer.status != 200 {
            return answer;
        }
    }
    panic!("all writes were taken");
}
