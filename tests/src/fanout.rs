//! Facts that each meet the version in force at their own instant, of few keys with many versions or
//! of many with few: loaded, projected into SQLite, changed late, and judged by DuckDB.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::seq::index;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::judge::Judge;
use crate::postgres::Wire;
use crate::process::{Server, run};

pub const HOUR: i64 = 3_600;
pub const DAY: i64 = 24 * HOUR;
/// Where valid time begins here, in seconds: the year 1900, so that 10^6 hours end before today.
const BEGIN: i64 = -2_208_988_800;
/// Late versions that one loaded set can take.
const LATE_MAX: usize = 20_000;
/// Events of one request.
const EVENTS: usize = 5_000;

/// How many keys, versions of each, and facts.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub keys: usize,
    pub versions: usize,
    pub facts: usize,
    /// Seconds from the start of a version to that of the next, about.
    pub step: i64,
}

/// How rows reach the server, and with that which rule decides between versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// Files and SQL into declared tables: the later recorded wins.
    Tables,
    /// Events through mappings, whose instant is `_valid_from`: the later effective wins.
    Events,
}

/// A server with a fan-out in it.
pub struct Fanout {
    pub server: Server,
    dir: tempfile::TempDir,
    judge: Judge,
    random: StdRng,
    shape: Shape,
    feed: Feed,
    address_space_kib: u64,
    /// Days of keys that late versions have not been given yet.
    free: Vec<usize>,
    /// The late versions, as the judge reads them; each layer is free of overlaps.
    layers: Vec<Vec<Late>>,
    facts: usize,
}

/// A late version of one day.
#[derive(Debug, Clone)]
struct Late {
    key: usize,
    from: i64,
    to: i64,
    name: String,
}

impl Shape {
    fn days(self) -> usize {
        let span = self.step * i64::try_from(self.versions).unwrap_or(i64::MAX / self.step);
        usize::try_from(span / DAY).unwrap_or(1).max(1)
    }
}

impl Fanout {
    /// Loads a set into a server that has so much address space, delivery included.
    pub async fn load(shape: Shape, feed: Feed, seed: u64, address_space_kib: u64) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut random = StdRng::seed_from_u64(seed);
        let data = dir.path().join("data");
        let mut server = Server::start(&data, None).await?;
        server.client.script(definitions(feed)).await?;
        server.stop()?;
        drop(server);
        let starts = write_versions(dir.path(), shape, &mut random)?;
        write_facts(dir.path(), shape, 0..shape.facts, &starts, feed, &mut random)?;
        let file = |name: &str| dir.path().join(name).display().to_string();
        let loaded = Instant::now();
        let mut tables = vec!["dims"];
        tables.extend((feed == Feed::Tables).then_some("facts"));
        for table in tables {
            let (data, rows) = (file("data"), file(&format!("{table}.ndjson")));
            let said = run(&["ingest", "--data", &data, "--table", table, "--file", &rows])?;
            ensure!(said.success, "loading {table}: {}{}", said.out, said.err);
        }
        let config =
            format!("[sinks.warehouse]\ntype = \"sqlite\"\npath = \"{}\"\n", file("warehouse.db"));
        std::fs::write(dir.path().join("delivery.toml"), config)?;
        let delivery = ["--projector", &file("delivery.toml")];
        let server = Server::start_within(&data, None, &delivery, address_space_kib).await?;
        let slots = shape.keys * shape.days();
        let free = index::sample(&mut random, slots, slots.min(LATE_MAX)).into_vec();
        let mut judge = Judge::start()?;
        let columns = "site VARCHAR, vf BIGINT, vt BIGINT, name VARCHAR";
        judge.read_csv("layer0", columns, &dir.path().join("dims.csv"))?;
        let mut fanout = Self {
            server,
            dir,
            judge,
            random,
            shape,
            feed,
            address_space_kib,
            free,
            layers: Vec::new(),
            facts: shape.facts,
        };
        fanout.judge_facts()?;
        if feed == Feed::Events {
            fanout.post_file("fact_events", "facts.ndjson").await?;
        }
        println!("{shape:?} loaded in {:.1} s", loaded.elapsed().as_secs_f64());
        Ok(fanout)
    }

    /// Makes the projection and returns how long its first rows take to be in SQLite.
    pub async fn project(&mut self, patience: Duration) -> Result<Duration> {
        let query = match self.feed {
            Feed::Tables => {
                "SELECT f._id, f.at, f.n, d.name FROM facts f \
                 LEFT JOIN dims FOR VALID_TIME AS OF f.at AS d ON d._id = f.site"
            }
            Feed::Events => {
                "SELECT f._id, f._valid_from AS at, f.n, d.name FROM facts FOR ALL VALID_TIME AS f \
                 LEFT JOIN dims FOR VALID_TIME AS OF f._valid_from AS d ON d._id = f.site"
            }
        };
        let started = Instant::now();
        let sql = format!("CREATE PROJECTION report KEY (_id) INTO warehouse.report AS {query}");
        self.server.client.sql(&sql).await?;
        delivered(&mut self.server, 0, Duration::from_millis(20), patience).await?;
        Ok(started.elapsed())
    }

    /// Writes one late version of a day and returns how long it takes to be in SQLite.
    pub async fn late(&mut self, patience: Duration) -> Result<Duration> {
        if self.layers.is_empty() {
            self.layers.push(Vec::new());
        }
        let late = self.next_late()?;
        let (from, to) = (text(late.from), text(late.to));
        let started = Instant::now();
        let tx = match self.feed {
            Feed::Tables => {
                let sql = format!(
                    "INSERT INTO dims (_id, name, rate, _valid_from, _valid_to) \
                     VALUES ('s{}', '{}', 2.5, '{from}', '{to}')",
                    late.key, late.name
                );
                self.server.client.sql(&sql).await?["tx"].as_u64().context("no tx")?
            }
            Feed::Events => self.post("dim_events", vec![late_event(&late)]).await?,
        };
        delivered(&mut self.server, tx, Duration::from_micros(500), patience).await?;
        let took = started.elapsed();
        self.layers[0].push(late);
        Ok(took)
    }

    /// Writes many late versions of a day in one request and returns how long they take.
    pub async fn late_at_once(&mut self, count: usize, patience: Duration) -> Result<Duration> {
        let lates = (0..count).map(|_| self.next_late()).collect::<Result<Vec<Late>>>()?;
        let started = Instant::now();
        match self.feed {
            Feed::Tables => {
                let mut rows = String::new();
                for late in &lates {
                    let (from, to) = (text(late.from), text(late.to));
                    rows += &format!("s{}\t{}\t2.5\t{from}\t{to}\n", late.key, late.name);
                }
                let refused = |refusal| anyhow::anyhow!("{refusal:?}");
                let mut wire =
                    Wire::open(&self.server.postgres, "suite", None).await.map_err(refused)?;
                let copy = "COPY dims (_id, name, rate, _valid_from, _valid_to) FROM STDIN";
                wire.copy_in(copy, &rows).await.map_err(refused)?;
            }
            Feed::Events => {
                self.post("dim_events", lates.iter().map(late_event).collect()).await?;
            }
        }
        delivered(&mut self.server, 0, Duration::from_millis(20), patience).await?;
        let took = started.elapsed();
        self.layers.push(lates);
        Ok(took)
    }

    /// Uploads facts in one request and returns how long they take to be in SQLite.
    pub async fn upload(&mut self, count: usize, patience: Duration) -> Result<Duration> {
        ensure!(self.feed == Feed::Events, "facts are uploaded as events");
        let starts: Vec<(usize, i64)> = vec![(0, BEGIN), (0, BEGIN + self.shape.step)];
        let shape = self.shape;
        let ids = self.facts..self.facts + count;
        write_facts(self.dir.path(), shape, ids, &starts, self.feed, &mut self.random)?;
        self.facts += count;
        self.judge_facts()?;
        let events = self.events_of("facts.ndjson")?;
        let started = Instant::now();
        self.post("fact_events", events).await?;
        delivered(&mut self.server, 0, Duration::from_millis(20), patience).await?;
        Ok(started.elapsed())
    }

    /// Compares the whole sink with what it should hold; returns its rows.
    pub fn check(&mut self) -> Result<u64> {
        for (layer, lates) in self.layers.iter().enumerate() {
            let path = self.dir.path().join("late.csv");
            let mut file = BufWriter::new(File::create(&path)?);
            for Late { key, from, to, name } in lates {
                writeln!(file, "s{key},{from},{to},{name}")?;
            }
            file.flush()?;
            let table = format!("layer{}", layer + 1);
            self.judge.run(&format!("DROP TABLE IF EXISTS {table}"))?;
            let columns = "site VARCHAR, vf BIGINT, vt BIGINT, name VARCHAR";
            self.judge.read_csv(&table, columns, &path)?;
        }
        let expected = expected(self.layers.len() + 1, self.feed);
        let sink = self.dir.path().join("warehouse.db");
        let rows = self.judge.compare(&sink, "SELECT _id, at, n, name FROM report", &expected)?;
        ensure!(rows == u64::try_from(self.facts)?, "{rows} rows of {} facts", self.facts);
        Ok(rows)
    }

    /// Ends the server with SIGKILL and starts it again.
    pub async fn restart(&mut self) -> Result<()> {
        self.server.kill();
        let data = self.dir.path().join("data");
        let config = self.dir.path().join("delivery.toml").display().to_string();
        let delivery = ["--projector", config.as_str()];
        self.server = Server::start_within(&data, None, &delivery, self.address_space_kib).await?;
        Ok(())
    }

    /// Returns the most memory that the server has held since it was last asked, in MiB.
    pub fn peak_mib(&self) -> Result<u64> {
        let peak = self.server.peak_memory()?;
        self.server.reset_peak_memory()?;
        Ok(peak >> 20)
    }

    fn judge_facts(&mut self) -> Result<()> {
        let columns = "id BIGINT, site VARCHAR, moment BIGINT, n BIGINT";
        self.judge.read_csv("facts", columns, &self.dir.path().join("facts.csv"))
    }

    fn next_late(&mut self) -> Result<Late> {
        let slot = self.free.pop().context("there is no day left for a late version")?;
        let (key, day) = (slot % self.shape.keys, slot / self.shape.keys);
        let from = BEGIN + i64::try_from(day)? * DAY;
        Ok(Late { key, from, to: from + DAY, name: format!("late {}", self.free.len()) })
    }

    fn events_of(&self, file: &str) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.dir.path().join(file))?;
        text.lines()
            .map(|line| Ok(json!({ "value": serde_json::from_str::<Value>(line)? })))
            .collect()
    }

    async fn post_file(&self, stream: &str, file: &str) -> Result<()> {
        for events in self.events_of(file)?.chunks(EVENTS) {
            self.post(stream, events.to_vec()).await?;
        }
        Ok(())
    }

    async fn post(&self, stream: &str, events: Vec<Value>) -> Result<u64> {
        let body = json!({ "stream": stream, "events": events });
        let answer = self.server.client.post("/v1/events", &body).await?;
        ensure!(answer.status == 200, "events answered {}: {}", answer.status, answer.body);
        answer.body["tx"].as_u64().context("no tx")
    }
}

/// Waits until every projection has delivered a transaction, and all that is there; says why where
/// the server ends instead.
pub async fn delivered(
    server: &mut Server,
    tx: u64,
    pause: Duration,
    patience: Duration,
) -> Result<()> {
    let deadline = Instant::now() + patience;
    let mut last = Value::Null;
    while Instant::now() < deadline {
        match server.client.get("/v1/projections").await {
            Ok(answer) => {
                last = answer.body["projections"].clone();
                let done = |one: &Value| {
                    let of = |field: &str| one[field].as_u64();
                    one["state"] == "live" && of("delivered_tx") >= of("latest_tx").max(Some(tx))
                };
                if last.as_array().is_some_and(|all| all.iter().all(done)) {
                    return Ok(());
                }
            }
            Err(_) if !server.is_running() => bail!("the server has ended:\n{}", log_end(server)),
            Err(error) => last = Value::String(error.to_string()),
        }
        tokio::time::sleep(pause).await;
    }
    bail!("not delivered within {patience:?}: {last}\n{}", log_end(server))
}

/// Returns what a server's log says of its end: panics, memory that was not there and errors.
fn log_end(server: &Server) -> String {
    let log = server.log_text();
    let told = ["panicked at", "memory allocation", "\"ERROR\"", "overflow"];
    let mut end: Vec<&str> = Vec::new();
    let mut lines = log.lines();
    while let Some(line) = lines.next() {
        if told.iter().any(|mark| line.contains(mark)) {
            end.push(line);
            // A panic's message is on the line after its place.
            end.extend(line.contains("panicked at").then(|| lines.next()).flatten());
        }
    }
    end[end.len().saturating_sub(8)..].join("\n").chars().take(4_000).collect()
}

fn definitions(feed: Feed) -> &'static str {
    match feed {
        Feed::Tables => {
            "CREATE TABLE facts (_id INT PRIMARY KEY, site TEXT, at TIMESTAMPTZ, n INT);\n\
             CREATE TABLE dims (_id TEXT PRIMARY KEY, name TEXT, rate DECIMAL);"
        }
        Feed::Events => {
            "CREATE STREAM fact_events FORMAT JSON (id INT, site TEXT, at TIMESTAMPTZ, n INT);\n\
             CREATE MAPPING fact_seen ON fact_events AS PUT INTO facts \
             SELECT id AS _id, site, n, at AS _valid_from;\n\
             CREATE STREAM dim_events FORMAT JSON \
             (id TEXT, name TEXT, rate DECIMAL, at TIMESTAMPTZ, until TIMESTAMPTZ);\n\
             CREATE MAPPING dim_set ON dim_events AS PUT INTO dims \
             SELECT id AS _id, name, rate, at AS _valid_from, until AS _valid_to;"
        }
    }
}

/// Returns the rows that the sink should hold. Of each layer at most one version covers an instant;
/// where several layers have one, the rule of the tables decides.
fn expected(layers: usize, feed: Feed) -> String {
    let mut from = "facts f".to_owned();
    let mut candidates = Vec::new();
    for layer in 0..layers {
        let l = format!("l{layer}");
        from += &format!(
            " ASOF LEFT JOIN layer{layer} {l} ON {l}.site = f.site AND f.moment >= {l}.vf"
        );
        let order = if feed == Feed::Tables { "0".to_owned() } else { format!("{l}.vf") };
        candidates.push(format!(
            "CASE WHEN f.moment < coalesce({l}.vt, 9223372036854775807) AND {l}.vf IS NOT NULL \
             THEN {{'order': {order}::BIGINT, 'layer': {layer}, 'name': {l}.name}} END"
        ));
    }
    format!(
        "SELECT f.id, strftime(make_timestamp(f.moment * 1000000), '%Y-%m-%dT%H:%M:%S.%fZ'), f.n, \
         list_max([{}]).name FROM {from}",
        candidates.join(", ")
    )
}

/// Writes the versions for the server and for the judge; returns where each begins.
fn write_versions(dir: &Path, shape: Shape, random: &mut StdRng) -> Result<Vec<(usize, i64)>> {
    let mut lines = BufWriter::new(File::create(dir.join("dims.ndjson"))?);
    let mut csv = BufWriter::new(File::create(dir.join("dims.csv"))?);
    let mut starts = Vec::with_capacity(shape.keys * shape.versions);
    for key in 0..shape.keys {
        let mut from = BEGIN + random.random_range(0..shape.step / 4);
        for version in 0..shape.versions {
            let next = BEGIN
                + i64::try_from(version + 1)? * shape.step
                + random.random_range(0..shape.step / 4);
            // One in twenty ends early, so that some instants have no version; the last has no end.
            let early = random.random_bool(0.05);
            let to = if early { from + (next - from) / 2 } else { next };
            let to = (version + 1 < shape.versions).then_some(to);
            let name = format!("v{key}.{version}");
            writeln!(
                csv,
                "s{key},{from},{},{name}",
                to.map_or(String::new(), |to| to.to_string())
            )?;
            let line = json!({
                "_id": format!("s{key}"), "name": name, "rate": "1.25",
                "_valid_from": text(from), "_valid_to": to.map(text),
            });
            writeln!(lines, "{line}")?;
            starts.push((key, from));
            from = next;
        }
    }
    lines.flush()?;
    csv.flush()?;
    Ok(starts)
}

/// Writes facts for the server and for the judge: most at any instant, some right at the start of a
/// version or before all of them.
fn write_facts(
    dir: &Path,
    shape: Shape,
    ids: std::ops::Range<usize>,
    starts: &[(usize, i64)],
    feed: Feed,
    random: &mut StdRng,
) -> Result<()> {
    let mut lines = BufWriter::new(File::create(dir.join("facts.ndjson"))?);
    let mut csv = BufWriter::new(File::create(dir.join("facts.csv"))?);
    let span = shape.step * i64::try_from(shape.versions)?;
    for id in ids {
        let (key, at) = if random.random_bool(0.05) {
            starts[random.random_range(0..starts.len())]
        } else {
            (random.random_range(0..shape.keys), BEGIN + random.random_range(-shape.step..span))
        };
        let n = random.random_range(0..1_000);
        writeln!(csv, "{id},s{key},{at},{n}")?;
        let name = if feed == Feed::Tables { "_id" } else { "id" };
        let line = json!({ name: id, "site": format!("s{key}"), "at": text(at), "n": n });
        writeln!(lines, "{line}")?;
    }
    lines.flush()?;
    csv.flush()?;
    Ok(())
}

fn late_event(late: &Late) -> Value {
    json!({ "value": {
        "id": format!("s{}", late.key), "name": late.name, "rate": "2.5",
        "at": text(late.from), "until": text(late.to),
    } })
}

/// Returns an instant, in seconds, as text.
pub fn text(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map(|at| at.to_string()).unwrap_or_default()
}
