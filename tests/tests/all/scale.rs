//! Projections at size, in a server that has 4 GB of address space: facts beside versions, joins by
//! ranges, and what comes late to them. `make soak` runs [`SOAKED`] rows, `make test` a tenth, and
//! `EVERWHEN_SCALE` sets another number. Goals of time and memory are those of the full size.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use everwhen_tests::fanout::{DAY, Fanout, Feed, HOUR, Shape, delivered};
use everwhen_tests::judge::Judge;
use everwhen_tests::process::{Server, run};
use everwhen_tests::{one_at_a_time, seed, soak};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

/// Address space of the server, `ulimit -v`.
const ADDRESS_SPACE_KIB: u64 = 4 << 20;
/// Rows of a soak.
const SOAKED: usize = 1_000_000;
/// Versions and facts of an upload onto a hot key.
const HOT: usize = 12_000;
/// Late versions that are timed one by one.
const TRIES: usize = 20;
const FIRST_LOAD_MAX: Duration = Duration::from_secs(60);
/// For the median; a debug build may take four times as long.
const LATE_MAX: Duration = Duration::from_millis(if cfg!(debug_assertions) { 200 } else { 50 });
const LATE_AT_ONCE_MAX: Duration = Duration::from_secs(30);
const PEAK_MIB_MAX: u64 = 1 << 10;
/// How long is waited for what takes longer than it should, so that the figure is known.
const PATIENCE: Duration = Duration::from_secs(600);

/// Returns the rows of this run.
fn rows() -> usize {
    let asked = std::env::var("EVERWHEN_SCALE").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(if soak() > 1 { SOAKED } else { SOAKED / 10 })
}

/// Gathers what is measured; what misses its goal fails the test at the end, when all is known.
struct Figures {
    name: &'static str,
    missed: Vec<String>,
}

impl Figures {
    const fn new(name: &'static str) -> Self {
        Self { name, missed: Vec::new() }
    }

    fn time(&mut self, what: &str, found: Duration, most: Duration) {
        println!("{}: {what}: {found:.3?}, goal {most:?}", self.name);
        if found > most {
            self.missed.push(format!("{what} {found:.3?} > {most:?}"));
        }
    }

    fn peak(&mut self, what: &str, mib: u64) {
        println!("{}: {what}: peak {mib} MiB, goal {PEAK_MIB_MAX} MiB", self.name);
        if mib > PEAK_MIB_MAX {
            self.missed.push(format!("{what} {mib} MiB > {PEAK_MIB_MAX} MiB"));
        }
    }

    fn judge(self) {
        assert!(self.missed.is_empty(), "{}, seed {}: {:?}", self.name, seed(), self.missed);
    }
}

/// Loads, projects and changes a set, comparing the sink after each.
async fn fan_out(name: &'static str, shape: Shape, feed: Feed) -> Result<()> {
    println!("{name}: seed {}", seed());
    let mut figures = Figures::new(name);
    let mut set = Fanout::load(shape, feed, seed(), ADDRESS_SPACE_KIB).await?;
    println!("{name}: before the projection: peak {} MiB", set.peak_mib()?);
    let first = set.project(PATIENCE).await?;
    figures.time("first load", first, FIRST_LOAD_MAX);
    figures.peak("first load", set.peak_mib()?);
    set.check()?;

    let mut times = Vec::new();
    for _ in 0..TRIES {
        times.push(set.late(PATIENCE).await?);
    }
    times.sort_unstable();
    figures.time("late version, p50", times[TRIES / 2], LATE_MAX);
    println!("{name}: late version, slowest of {TRIES}: {:.3?}", times[TRIES - 1]);
    figures.peak("late versions", set.peak_mib()?);
    set.check()?;

    let many = shape.facts / 100;
    let took = set.late_at_once(many, PATIENCE).await?;
    figures.time(&format!("{many} late versions at once"), took, LATE_AT_ONCE_MAX);
    figures.peak("late versions at once", set.peak_mib()?);
    let compared = set.check()?;
    println!("{name}: {compared} rows are right");
    set.server.stop()?;
    figures.judge();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn facts_of_one_key_with_many_versions() {
    let _turn = one_at_a_time();
    let shape = Shape { keys: 1, versions: rows(), facts: rows(), step: HOUR };
    fan_out("one key", shape, Feed::Tables).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn facts_of_many_keys_with_ten_versions() {
    let _turn = one_at_a_time();
    let shape = Shape { keys: rows() / 10, versions: 10, facts: rows(), step: 30 * DAY };
    fan_out("many keys", shape, Feed::Tables).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_one_key_with_many_versions() {
    let _turn = one_at_a_time();
    let shape = Shape { keys: 1, versions: rows(), facts: rows(), step: HOUR };
    fan_out("one key, events", shape, Feed::Events).await.unwrap();
}

/// One upload onto a key that much refers to is taken, delivered and survives a kill, in the memory
/// that there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_onto_a_hot_key_leaves_the_server_up() {
    let _turn = one_at_a_time();
    let shape = Shape { keys: 1, versions: HOT, facts: 1, step: HOUR };
    let mut set = Fanout::load(shape, Feed::Events, seed(), ADDRESS_SPACE_KIB).await.unwrap();
    set.project(PATIENCE).await.unwrap();
    let took = set.upload(HOT, PATIENCE).await.unwrap();
    println!("hot key: upload of {HOT} facts: {took:.3?}, peak {} MiB", set.peak_mib().unwrap());
    set.check().unwrap();
    set.restart().await.unwrap();
    let took = set.upload(HOT, PATIENCE).await.unwrap();
    println!("hot key: the next after a kill: {took:.3?}, peak {} MiB", set.peak_mib().unwrap());
    set.late_at_once(50, PATIENCE).await.unwrap();
    assert_eq!(set.check().unwrap(), u64::try_from(2 * HOT + 1).unwrap());
    set.server.stop().unwrap();
}

/// Ranges and points, each range over as many points as [`Ranges::matches`].
struct Ranges {
    server: Server,
    dir: tempfile::TempDir,
    judge: Judge,
    /// The rows as they are by now: `(lo, hi)` by id, and `x` by id.
    ranges: Vec<(i64, i64)>,
    points: Vec<i64>,
}

impl Ranges {
    async fn load(count: usize, matches: i64) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let data = dir.path().join("data");
        let mut server = Server::start(&data, None).await?;
        server.client.sql("CREATE TABLE a (_id INT PRIMARY KEY, lo INT, hi INT)").await?;
        server.client.sql("CREATE TABLE b (_id INT PRIMARY KEY, x INT)").await?;
        server.stop()?;
        let mut random = StdRng::seed_from_u64(seed());
        let last = i64::try_from(count)? - matches;
        let ranges: Vec<(i64, i64)> = (0..count)
            .map(|_| random.random_range(0..=last))
            .map(|lo| (lo, lo + matches))
            .collect();
        let points: Vec<i64> = (0..).take(count).collect();
        let rows = |(id, (lo, hi)): (usize, &(i64, i64))| json!({"_id": id, "lo": lo, "hi": hi});
        load(dir.path(), "a", ranges.iter().enumerate().map(rows))?;
        let rows = |(id, x): (usize, &i64)| json!({"_id": id, "x": x});
        load(dir.path(), "b", points.iter().enumerate().map(rows))?;
        let config = format!(
            "[sinks.warehouse]\ntype = \"sqlite\"\npath = \"{}\"\n",
            dir.path().join("warehouse.db").display()
        );
        let delivery = dir.path().join("delivery.toml");
        std::fs::write(&delivery, config)?;
        let delivery = ["--projector", &delivery.display().to_string()];
        let server = Server::start_within(&data, None, &delivery, ADDRESS_SPACE_KIB).await?;
        Ok(Self { server, dir, judge: Judge::start()?, ranges, points })
    }

    async fn run(&mut self, sql: &str) -> Result<Duration> {
        let started = Instant::now();
        self.server.client.sql(sql).await?;
        delivered(&mut self.server, 0, Duration::from_millis(2), PATIENCE).await?;
        Ok(started.elapsed())
    }

    /// Compares a sink with the join of what is there.
    fn check(&mut self, sink: &str, expected: &str) -> Result<u64> {
        let write = |name: &str, lines: Vec<String>| -> Result<PathBuf> {
            let path = self.dir.path().join(name);
            std::fs::write(&path, lines.join("\n"))?;
            Ok(path)
        };
        let ranges = self.ranges.iter().enumerate();
        let a = write("a.csv", ranges.map(|(id, (lo, hi))| format!("{id},{lo},{hi}")).collect())?;
        let points = self.points.iter().enumerate();
        let b = write("b.csv", points.map(|(id, x)| format!("{id},{x}")).collect())?;
        self.judge.run("DROP TABLE IF EXISTS a; DROP TABLE IF EXISTS b")?;
        self.judge.read_csv("a", "id BIGINT, lo BIGINT, hi BIGINT", &a)?;
        self.judge.read_csv("b", "id BIGINT, x BIGINT", &b)?;
        self.judge.compare(&self.dir.path().join("warehouse.db"), sink, expected)
    }
}

/// Loads rows into a table of a directory that no server has open.
fn load(dir: &Path, table: &str, rows: impl Iterator<Item = serde_json::Value>) -> Result<()> {
    let path = dir.join(format!("{table}.ndjson"));
    let mut file = BufWriter::new(File::create(&path)?);
    for row in rows {
        writeln!(file, "{row}")?;
    }
    file.flush()?;
    let (data, file) = (dir.join("data").display().to_string(), path.display().to_string());
    let said = run(&["ingest", "--data", &data, "--table", table, "--file", &file])?;
    ensure!(said.success, "loading {table}: {}{}", said.out, said.err);
    Ok(())
}

/// Plays a join by ranges: its first load, a point that comes, and a range that moves.
async fn ranges(name: &'static str, projection: &str, sink: &str, expected: &str) -> Result<()> {
    println!("{name}: seed {}", seed());
    let (count, matches) = (rows() / 10, 100);
    let mut figures = Figures::new(name);
    let mut set = Ranges::load(count, matches).await?;
    set.server.reset_peak_memory()?;
    let first = set.run(projection).await?;
    println!("{name}: first load of {count} ranges: {first:.3?}");
    figures.peak("first load", set.server.peak_memory()? >> 20);
    set.check(sink, expected)?;

    set.server.reset_peak_memory()?;
    let middle = i64::try_from(count / 2)?;
    let one = set.run(&format!("INSERT INTO b (_id, x) VALUES ({count}, {middle})")).await?;
    set.points.push(middle);
    println!("{name}: one more point: {one:.3?}");
    let last = i64::try_from(count)? - matches;
    let one = set.run(&format!("UPDATE a SET lo = {last}, hi = {count} WHERE _id = 0")).await?;
    set.ranges[0] = (last, i64::try_from(count)?);
    println!("{name}: a range elsewhere: {one:.3?}");
    figures.peak("changes", set.server.peak_memory()? >> 20);
    let compared = set.check(sink, expected)?;
    println!("{name}: {compared} rows are right");
    set.server.stop()?;
    figures.judge();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pairs_of_a_range_join() {
    let _turn = one_at_a_time();
    let projection = "CREATE PROJECTION pairs KEY (a, b) INTO warehouse.pairs AS \
                      SELECT a._id AS a, b._id AS b, a.lo, b.x FROM a \
                      JOIN b ON b.x >= a.lo AND b.x < a.hi";
    let expected = "SELECT a.id, b.id, a.lo, b.x FROM a JOIN b ON b.x >= a.lo AND b.x < a.hi";
    ranges("range join", projection, "SELECT a, b, lo, x FROM pairs", expected).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_over_a_range_join() {
    let _turn = one_at_a_time();
    let projection = "CREATE PROJECTION counts KEY (a) INTO warehouse.counts AS \
                      SELECT a._id AS a, count(*) AS points, sum(b.x) AS total FROM a \
                      JOIN b ON b.x >= a.lo AND b.x < a.hi GROUP BY a._id";
    let expected = "SELECT a.id, count(*), sum(b.x)::BIGINT FROM a \
                    JOIN b ON b.x >= a.lo AND b.x < a.hi GROUP BY a.id";
    let sink = "SELECT a, points, total FROM counts";
    ranges("range join counted", projection, sink, expected).await.unwrap();
}
