//! A year of events from a real broker to a warehouse, with kills on the way: after each checkpoint
//! every sink equals what DuckDB answers over the events themselves. `make soak` plays
//! [`feed::YEAR_EVENTS`], `make test` a week of them; `EVERWHEN_SEED` sets the seed, `EVERWHEN_SCALE`
//! the number of events.

mod feed;
mod model;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use everwhen_tests::kafka::{Broker, Record, Sender, produce};
use everwhen_tests::process::{Process, Server, start_projector};
use everwhen_tests::{one_at_a_time, seed, soak};
use feed::{BEGIN, DAY, Event, Feed, MINUTE, SECOND, STATIONS, Says, TOPICS, YEAR_EVENTS, text};
use model::Model;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

const PARTITIONS: i32 = 3;
/// How long is waited for what was produced to be in and delivered.
const PATIENCE: Duration = Duration::from_secs(1_800);
/// Address space of the server: beyond its goal, so that the figure is known, but not all of the
/// machine's memory.
const ADDRESS_SPACE_KIB: u64 = 8 << 20;
const PEAK_MIB_MAX: u64 = 1_536;
/// What 99 of 100 single events take at most from the producer to the sink, in a release build.
const LATE_P99_MAX: Duration = Duration::from_millis(100);

const MODEL: &str = "
CREATE STREAM readings FROM KAFKA (brokers = '${brokers}', topic = 'readings')
FORMAT JSON (kind TEXT, id TEXT, station TEXT, temp INT, at TIMESTAMPTZ);
CREATE MAPPING reading_put ON readings AS PUT INTO readings
SELECT station AS _id, temp, at AS _valid_from, id AS _event_id WHERE kind = 'put';
CREATE MAPPING reading_gone ON readings AS RETRACT FROM readings
SELECT id AS _event_id WHERE kind = 'gone';

CREATE STREAM trips FROM KAFKA (brokers = '${brokers}', topic = 'trips')
FORMAT JSON (kind TEXT, id TEXT, trip TEXT, station TEXT, operator TEXT, n INT, at TIMESTAMPTZ);
CREATE MAPPING trip_put ON trips AS PUT INTO trips
SELECT id AS _id, station, operator, n, at AS departs, at AS _valid_from, id AS _event_id
WHERE kind = 'put';
CREATE MAPPING trip_gone ON trips AS RETRACT FROM trips SELECT id AS _event_id WHERE kind = 'gone';
CREATE MAPPING trip_cancelled ON trips AS DELETE FROM trips
SELECT trip AS _id, at AS _valid_from, id AS _event_id WHERE kind = 'cancel';

CREATE STREAM leases FROM KAFKA (brokers = '${brokers}', topic = 'leases')
FORMAT JSON (kind TEXT, id TEXT, holder TEXT, gear TEXT, starts TIMESTAMPTZ, ends TIMESTAMPTZ);
CREATE MAPPING lease_put ON leases AS PUT INTO leases
SELECT id AS _id, holder, starts AS _valid_from, ends AS _valid_to, id AS _event_id WHERE kind = 'put';
CREATE MAPPING lease_gone ON leases AS RETRACT FROM leases SELECT id AS _event_id WHERE kind = 'gone';
CREATE MAPPING gear_put ON leases AS PUT INTO gear
SELECT holder AS _id, gear, starts AS _valid_from, ends AS _valid_to, id AS _event_id WHERE kind = 'put';
CREATE MAPPING gear_gone ON leases AS RETRACT FROM gear SELECT id AS _event_id WHERE kind = 'gone';

CREATE STREAM operators FROM KAFKA (brokers = '${brokers}', topic = 'operators')
FORMAT JSON (kind TEXT, id TEXT, operator TEXT, name TEXT, at TIMESTAMPTZ);
CREATE MAPPING operator_put ON operators AS PUT INTO operators
SELECT operator AS _id, name, at AS _valid_from, id AS _event_id WHERE kind = 'put';
CREATE MAPPING operator_gone ON operators AS RETRACT FROM operators
SELECT id AS _event_id WHERE kind = 'gone';

CREATE PROJECTION departures KEY (id) INTO warehouse.departures AS
SELECT t._id AS id, t._valid_from AS departed, t.station, r.temp, g.gear, k.gear AS kit
FROM trips FOR ALL VALID_TIME AS t
LEFT JOIN readings FOR VALID_TIME AS OF t._valid_from AS r ON r._id = t.station
LEFT JOIN gear FOR VALID_TIME AS OF t._valid_from AS g ON g._id = t._id
LEFT JOIN gear FOR VALID_TIME AS OF t._valid_from AS k ON k._id = t.station;
CREATE PROJECTION names KEY (id) INTO warehouse.names AS
SELECT t._id AS id, o.name FROM trips AS t LEFT JOIN operators AS o ON o._id = t.operator;
CREATE PROJECTION days KEY (day) INTO warehouse.days AS
SELECT date_trunc('day', departs) AS day, count(*) AS trips, sum(n) AS people
FROM trips GROUP BY date_trunc('day', departs);
CREATE PROJECTION best KEY (id) INTO warehouse.best AS
SELECT id, station, n, place FROM (SELECT _id AS id, station, n,
row_number() OVER (PARTITION BY station ORDER BY n DESC, _id) AS place FROM trips) AS placed
WHERE place <= 3;
CREATE PROJECTION top KEY (id) INTO warehouse.top AS
SELECT _id AS id, n FROM trips ORDER BY n DESC, _id LIMIT 3;
CREATE PROJECTION bare KEY (id) INTO warehouse.bare AS
SELECT t._id AS id, t.station FROM trips FOR ALL VALID_TIME AS t
WHERE NOT EXISTS (SELECT 1 FROM leases FOR VALID_TIME AS OF t._valid_from AS l
WHERE l.holder = t._id);
";

/// How much is played.
struct Extent {
    events: usize,
    checkpoints: i64,
    kills: usize,
    /// Single events that are timed, of each kind and way.
    singles: usize,
}

impl Extent {
    fn of_this_run() -> Self {
        let asked = std::env::var("EVERWHEN_SCALE").ok().and_then(|text| text.parse().ok());
        let mut extent = match soak() {
            0 | 1 => Self { events: YEAR_EVENTS / 55, checkpoints: 3, kills: 2, singles: 10 },
            _ => Self { events: YEAR_EVENTS, checkpoints: 10, kills: 5, singles: 100 },
        };
        extent.events = asked.unwrap_or(extent.events);
        extent
    }
}

/// All processes of the line.
struct Line {
    broker: Broker,
    server: Server,
    projector: Process,
    dir: tempfile::TempDir,
    clock: String,
    /// Records of each topic so far.
    produced: [i64; TOPICS.len()],
    peak: u64,
}

impl Line {
    async fn start() -> Result<Self> {
        let broker = Broker::start()?;
        for topic in TOPICS {
            broker.create_topic(topic.name(), PARTITIONS, &[]).await?;
        }
        let dir = tempfile::tempdir()?;
        let clock = text(BEGIN);
        let server = start_server(dir.path(), &clock).await?;
        server.client.script(&MODEL.replace("${brokers}", &broker.bootstrap())).await?;
        let projector = projector(&server, dir.path())?;
        Ok(Self { broker, server, projector, dir, clock, produced: [0; TOPICS.len()], peak: 0 })
    }

    fn warehouse(&self) -> PathBuf {
        self.dir.path().join("warehouse.db")
    }

    async fn set_clock(&mut self, at: i64) -> Result<()> {
        self.clock = text(at);
        self.server.client.set_clock(&self.clock).await
    }

    /// Ends the server or the projector with SIGKILL and starts it again.
    async fn kill(&mut self, server: bool) -> Result<()> {
        self.note_peak()?;
        if server {
            self.server.kill();
            self.server = start_server(self.dir.path(), &self.clock).await?;
        }
        // The projector, which is stateless, has to be told the server's new address too.
        self.projector.kill();
        self.projector = projector(&self.server, self.dir.path())?;
        Ok(())
    }

    fn note_peak(&mut self) -> Result<()> {
        self.peak = self.peak.max(self.server.peak_memory()?);
        Ok(())
    }

    /// Produces events, each event id in its order, and kills on the way.
    async fn produce(&mut self, events: &[Event], kills: &[(bool, Duration)]) -> Result<()> {
        let mut topics = Vec::new();
        for (topic, produced) in TOPICS.into_iter().zip(&mut self.produced) {
            let own = events.iter().filter(|event| event.says.topic() == topic);
            let records: Vec<Record> = own.map(record).collect();
            *produced += i64::try_from(records.len())?;
            topics.push((topic.name(), records));
        }
        let bootstrap = self.broker.bootstrap();
        let producing = tokio::task::spawn_blocking(move || {
            topics.iter().try_for_each(|(topic, records)| produce(&bootstrap, topic, records))
        });
        for (server, after) in kills {
            tokio::time::sleep(*after).await;
            self.kill(*server).await?;
        }
        producing.await?
    }

    /// Sends one event to its topic.
    fn send(&mut self, sender: &Sender, event: &Event) -> Result<()> {
        let topic = event.says.topic();
        for (of, produced) in TOPICS.into_iter().zip(&mut self.produced) {
            *produced += i64::from(of == topic);
        }
        sender.send(topic.name(), &record(event))
    }

    /// Posts one event to its stream.
    async fn post(&self, event: &Event) -> Result<()> {
        let value: Value = serde_json::from_str(&event.json())?;
        let events = json!({"stream": event.says.topic().name(), "events": [{"value": value}]});
        let answer = self.server.client.post("/v1/events", &events).await?;
        ensure!(answer.status == 200, "events answered {}: {}", answer.status, answer.body);
        Ok(())
    }

    /// Waits until all that was produced is in and delivered, also what the clock changed.
    /// Returns how long the first of the two takes.
    async fn settle(&mut self) -> Result<Duration> {
        let started = Instant::now();
        // One question for all: each asks the broker for the end of every partition.
        let offsets = "SELECT stream, sum(next_offset) FROM everwhen.streams GROUP BY stream";
        let produced = self.produced;
        self.until(offsets, |rows| {
            TOPICS.into_iter().zip(produced).all(|(topic, produced)| {
                let own = rows.iter().find(|row| row[0] == topic.name());
                own.and_then(|row| row[1].as_i64()).unwrap_or(0) >= produced
            })
        })
        .await?;
        let read = started.elapsed();
        let behind = "SELECT projection, state, error FROM everwhen.projections WHERE state <> 'live' \
             OR delivered_tx < latest_tx OR delivered_now IS NULL OR delivered_now < now()";
        self.until(behind, |rows| rows.is_empty()).await?;
        let letters = self.server.client.rows("SELECT reason FROM everwhen.dead_letters").await?;
        ensure!(letters.is_empty(), "dead letters: {letters:?}");
        let held = self.server.client.rows("SELECT * FROM everwhen.projection_errors").await?;
        ensure!(held.is_empty(), "held keys: {held:?}");
        Ok(read)
    }

    async fn until(&mut self, sql: &str, done: impl Fn(&[Vec<Value>]) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let rows = self.server.client.rows(sql).await;
            match &rows {
                Ok(rows) if done(rows) => return Ok(()),
                Err(error) if !self.server.is_running() => {
                    bail!("the server has ended: {error}\n{}", self.server.log_text())
                }
                _ if Instant::now() > deadline => {
                    bail!("{sql} answers {rows:?} after {PATIENCE:?}")
                }
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

async fn start_server(dir: &Path, clock: &str) -> Result<Server> {
    Server::start_within(&dir.join("data"), Some(clock), &[], ADDRESS_SPACE_KIB).await
}

fn projector(server: &Server, dir: &Path) -> Result<Process> {
    let path = dir.join("warehouse.db");
    let config = format!("[sinks.warehouse]\ntype = \"sqlite\"\npath = \"{}\"\n", path.display());
    start_projector(&server.grpc, &config, dir, "projector")
}

fn record(event: &Event) -> Record {
    let partition = i32::try_from(event.number % 3).unwrap_or(0) % PARTITIONS;
    Record {
        partition,
        key: Some(event.id()),
        value: event.json().into_bytes(),
        timestamp_ms: None,
    }
}

/// Draws after which checkpoint's events which process is killed, and when.
fn kills(extent: &Extent, random: &mut StdRng) -> Vec<(i64, bool, Duration)> {
    let longest = if soak() > 1 { 8_000 } else { 800 };
    let draw = |n: usize| {
        let after = Duration::from_millis(random.random_range(20..longest));
        (random.random_range(1..=extent.checkpoints), n.is_multiple_of(2), after)
    };
    (0..extent.kills).map(draw).collect()
}

async fn play(extent: Extent) -> Result<()> {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let feed = Feed::new(seed, extent.events);
    println!("pipeline: seed {seed}, {} events", feed.events.len());
    let kills = kills(&extent, &mut random);
    let mut line = Line::start().await?;
    let mut model = Model::start()?;
    let mut rest = feed.events.as_slice();
    for checkpoint in 1..=extent.checkpoints {
        let now = BEGIN + (feed.end - BEGIN) / extent.checkpoints * checkpoint;
        let last = checkpoint == extent.checkpoints;
        let now = if last { feed.end } else { now };
        let (part, later) = rest.split_at(rest.partition_point(|event| event.arrival <= now));
        rest = later;
        // What was ahead of the clock comes into force, together with what arrives.
        line.set_clock(now).await?;
        let started = Instant::now();
        let own: Vec<(bool, Duration)> = kills
            .iter()
            .filter(|(of, ..)| *of == checkpoint)
            .map(|(_, server, after)| (*server, *after))
            .collect();
        line.produce(part, &own).await?;
        let produced = started.elapsed().as_secs_f64();
        let read = produced + line.settle().await?.as_secs_f64();
        let took = started.elapsed().as_secs_f64();
        model.tell(part, line.dir.path())?;
        let sink = line.warehouse();
        let rows = model
            .check(&sink, now)
            .with_context(|| format!("seed {seed}, checkpoint {checkpoint} at {}", line.clock))?;
        line.note_peak()?;
        println!(
            "pipeline: checkpoint {checkpoint}: {} events and {} kills, produced after {produced:.1} s, \
             read after {read:.1} s, delivered after {took:.1} s; {rows} rows right, peak {} MiB",
            part.len(),
            own.len(),
            line.peak >> 20
        );
    }
    ensure!(rest.is_empty(), "{} events never arrived", rest.len());
    let now = feed.end + 3 * DAY;
    line.set_clock(now).await?;
    line.settle().await?;
    let sink = line.warehouse();
    let rows = model.check(&sink, now).context("after three days without events")?;
    println!("pipeline: three days without events: {rows} rows right");

    let times = singles(&mut line, &mut model, &feed, extent.singles).await?;
    line.settle().await?;
    model.check(&sink, now).context("after single events")?;
    line.note_peak()?;
    println!("pipeline: peak {} MiB, goal {PEAK_MIB_MAX} MiB", line.peak >> 20);
    line.server.stop()?;
    ensure!(line.peak >> 20 <= PEAK_MIB_MAX, "peak {} MiB", line.peak >> 20);
    let p99 = times[times.len() * 99 / 100];
    let timed = soak() > 1 && !cfg!(debug_assertions);
    ensure!(!timed || p99 <= LATE_P99_MAX, "a single event in a hundred takes {p99:?}");
    Ok(())
}

/// Sends late trips, and late readings that change them, one by one, and times each until its row is in
/// the sink: by the topic and by `POST /v1/events` in turn. Returns the times in order.
async fn singles(
    line: &mut Line,
    model: &mut Model,
    feed: &Feed,
    count: usize,
) -> Result<Vec<Duration>> {
    let sender = Sender::new(&line.broker.bootstrap())?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let sink = Connection::open_with_flags(line.warehouse(), flags)?;
    sink.busy_timeout(Duration::from_secs(5))?;
    let minutes = usize::try_from((feed.end - BEGIN) / MINUTE)?;
    let mut told = Vec::new();
    let mut times: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for n in 0..2 * count {
        // A prime step, so that no two are of one minute.
        let at = BEGIN + i64::try_from((n + 1) * 7_919 % minutes)? * MINUTE;
        let (number, station) = (feed.events.len() + n, n % STATIONS);
        let temp = 100_000 + i64::try_from(n)?;
        let trip = Says::Trip { station, operator: 0, n: 1, at };
        let reading = Says::Reading { station, temp, at: at - SECOND / 2 };
        for (says, of, temp) in [(trip, "trip", None), (reading, "reading", Some(temp))] {
            let event = Event { arrival: feed.end, number, says };
            let started = Instant::now();
            if n % 2 == 0 {
                line.send(&sender, &event)?;
            } else {
                line.post(&event).await?;
            }
            arrived(&sink, number, temp)?;
            let way = match (of, n % 2) {
                ("trip", 0) => "trip by the topic",
                ("trip", _) => "trip by POST",
                (_, 0) => "reading by the topic",
                _ => "reading by POST",
            };
            times.entry(way).or_default().push(started.elapsed());
            told.push(event);
        }
    }
    model.tell(&told, line.dir.path())?;
    for (way, times) in &mut times {
        times.sort_unstable();
        let (middle, late) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        println!("pipeline: late {way}, until its row is there: p50 {middle:.1?}, p99 {late:.1?}");
    }
    let mut all: Vec<Duration> = times.into_values().flatten().collect();
    all.sort_unstable();
    Ok(all)
}

/// Waits until a trip is in the sink, with a temperature if one is given.
fn arrived(sink: &Connection, number: usize, temp: Option<i64>) -> Result<()> {
    let sql = "SELECT count(*) FROM departures WHERE id = ?1 AND (?2 IS NULL OR temp = ?2)";
    let mut found = sink.prepare(sql)?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while found.query_row((format!("t{number}"), temp), |row| row.get::<_, i64>(0))? == 0 {
        ensure!(Instant::now() < deadline, "trip {number} with {temp:?} is not in the sink");
        std::thread::sleep(Duration::from_micros(300));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_year_of_events_ends_in_the_tables_that_duckdb_finds() {
    let _turn = one_at_a_time();
    play(Extent::of_this_run()).await.unwrap();
}
