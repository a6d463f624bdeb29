//! S1 to S3 with nothing faked: a real broker in, a manual clock, a separate projector process, the
//! warehouse out, checked in SQLite and in the BigQuery emulator after each day (F1, F6, F7, F10).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use everwhen_tests::kafka::{Broker, Record};
use everwhen_tests::process::{Process, Server, start_projector};
use everwhen_tests::warehouse::sqlite_rows;
use everwhen_tests::{one_at_a_time, seed, shared_broker, shared_emulator};
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;

use crate::scenario::{Event, Scenario, future_booking, late_presence, latest_name};

type Cells = Vec<Vec<Option<String>>>;

/// A server, its projector and both warehouses, fed from topics of their own.
struct Line {
    server: Server,
    _projector: Process,
    dir: tempfile::TempDir,
    prefix: String,
    produced: BTreeMap<String, i64>,
    topics: BTreeSet<String>,
}

impl Line {
    /// Starts all processes with the scenarios' models; every projection goes to both sinks.
    async fn start(name: &str, clock: &str, scenarios: &[&Scenario]) -> Result<Self> {
        let broker = shared_broker();
        let emulator = shared_emulator();
        let dir = tempfile::tempdir()?;
        let prefix = format!("{name}_{}_", std::process::id());
        let server = Server::start(&dir.path().join("data"), Some(clock)).await?;
        let config = format!(
            "[sinks.warehouse]\ntype = \"sqlite\"\npath = \"{}\"\n\n\
             [sinks.lake]\ntype = \"bigquery\"\nproject = \"test\"\ndataset = \"{name}\"\n\
             endpoint = \"{}\"\n",
            dir.path().join("warehouse.db").display(),
            emulator.rest,
        );
        let projector = start_projector(&server.grpc, &config, dir.path(), "projector")?;
        let mut line = Self {
            server,
            _projector: projector,
            dir,
            prefix,
            produced: BTreeMap::new(),
            topics: BTreeSet::new(),
        };
        for scenario in scenarios {
            line.install(broker, scenario).await?;
        }
        Ok(line)
    }

    async fn install(&mut self, broker: &Broker, scenario: &Scenario) -> Result<()> {
        for stream in ["employees", "desks", "bookings", "presence"] {
            let named = format!("'${{prefix}}{stream}'");
            if scenario.model.contains(&named) && self.topics.insert(stream.to_owned()) {
                broker.create_topic(&format!("{}{stream}", self.prefix), 1, &[]).await?;
            }
        }
        let model = scenario
            .model
            .replace("${brokers}", &broker.bootstrap())
            .replace("${prefix}", &self.prefix);
        self.server.client.script(&model).await?;
        let projection = scenario.projection;
        let into_lake = everwhen_tests::http::statements(&model)
            .into_iter()
            .find(|statement| statement.contains("CREATE PROJECTION"))
            .context("the model has no projection")?
            .replace(&format!("PROJECTION {projection}"), &format!("PROJECTION {projection}_bq"))
            .replace(&format!("warehouse.{projection}"), &format!("lake.{projection}"));
        self.server.client.sql(&into_lake).await?;
        Ok(())
    }

    /// Produces events and waits until they have been read.
    async fn feed(&mut self, events: &[Event]) -> Result<()> {
        let mut by_stream: BTreeMap<&str, Vec<Record>> = BTreeMap::new();
        for (stream, event) in events {
            by_stream.entry(stream).or_default().push(Record::new(event.to_string()));
        }
        for (stream, records) in by_stream {
            shared_broker().produce(&format!("{}{stream}", self.prefix), &records)?;
            *self.produced.entry(stream.to_owned()).or_default() += i64::try_from(records.len())?;
        }
        for (stream, count) in &self.produced {
            self.server.client.wait_ingested(stream, *count).await?;
        }
        Ok(())
    }

    fn sqlite(&self, select: &str) -> Result<Cells> {
        sqlite_rows(&self.warehouse(), select)
    }

    fn warehouse(&self) -> std::path::PathBuf {
        self.dir.path().join("warehouse.db")
    }

    /// Returns the report from the SQLite and from the BigQuery table.
    async fn reports(&self, dataset: &str, scenario: &Scenario) -> Result<(Cells, Cells)> {
        let Scenario { projection, columns, order_by, .. } = scenario;
        let local =
            self.sqlite(&format!("SELECT {columns} FROM {projection} ORDER BY {order_by}"))?;
        let lake = shared_emulator()
            .query(
                "test",
                &format!("SELECT {columns} FROM `test.{dataset}.{projection}` ORDER BY {order_by}"),
            )
            .await?;
        Ok((local, lake))
    }
}

fn cells(rows: &[Vec<&str>]) -> Cells {
    rows.iter().map(|row| row.iter().map(|cell| Some((*cell).to_owned())).collect()).collect()
}

/// Plays a scenario and checks both warehouses after each day.
async fn plays_day_by_day(scenario: Scenario) -> Result<()> {
    let name = format!("days_{}", scenario.name);
    let mut line = Line::start(&name, "2026-01-04T00:00:00Z", &[&scenario]).await?;
    let mut changes = Vec::new();
    for day in &scenario.days {
        line.server.client.set_clock(day.clock).await?;
        line.feed(&day.events).await?;
        line.server.client.wait_delivered().await?;
        let (local, lake) = line.reports(&name, &scenario).await?;
        let expected = cells(&day.report);
        ensure!(local == expected, "{name} in SQLite on {}: {local:?}", day.clock);
        ensure!(lake == expected, "{name} in BigQuery on {}: {lake:?}", day.clock);
        let stamps = line.sqlite(&format!("SELECT max(_change) FROM {}", scenario.projection))?;
        changes.push((day.clock, expected, stamps));
    }
    // A day that leaves the report as it was writes nothing.
    for pair in changes.windows(2) {
        let [(_, before, stamp_before), (clock, after, stamp_after)] = pair else { continue };
        if before == after {
            ensure!(stamp_before == stamp_after, "{name}: {clock} rewrote equal rows");
        }
    }
    line.server.stop()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_presence_is_reported_under_the_department_of_its_day() {
    let _turn = one_at_a_time();
    plays_day_by_day(late_presence()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_future_booking_is_reported_in_the_room_in_force_when_it_starts() {
    let _turn = one_at_a_time();
    plays_day_by_day(future_booking()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bookings_are_counted_under_the_latest_name() {
    let _turn = one_at_a_time();
    plays_day_by_day(latest_name()).await.unwrap();
}

/// Prefixes every id and name of an event, so that many orders live side by side.
fn with_prefix(event: &Value, prefix: &str) -> Value {
    let mut event = event.clone();
    for field in ["id", "employee", "desk", "name"] {
        if let Some(Value::String(text)) = event.get_mut(field) {
            *text = format!("{prefix}{text}");
        }
    }
    event
}

/// Takes the prefix off and returns each order's rows.
fn by_order(rows: &Cells) -> BTreeMap<String, Cells> {
    let mut orders: BTreeMap<String, Cells> = BTreeMap::new();
    for row in rows {
        let order = row[0].as_deref().and_then(|cell| cell.split_once('~')).map(|(order, _)| order);
        let stripped = row
            .iter()
            .map(|cell| {
                cell.as_deref().map(|c| c.split_once('~').map_or(c, |(_, rest)| rest).to_owned())
            })
            .collect();
        orders.entry(order.unwrap_or_default().to_owned()).or_default().push(stripped);
    }
    orders
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_arrival_order_leads_to_the_same_tables() {
    let _turn = one_at_a_time();
    let seed = seed();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let orders = 20;
    let scenarios = [late_presence(), future_booking(), latest_name()];
    for scenario in &scenarios {
        let name = format!("orders_{}", scenario.name);
        let mut line = Line::start(&name, "2026-01-04T00:00:00Z", &[scenario]).await.unwrap();
        // The topics are read by one partition each, so an order is what is drawn here.
        let mut queues: Vec<Vec<Event>> = (0..orders)
            .map(|order| {
                let prefix = format!("o{order}~");
                let mut events: Vec<Event> = scenario
                    .days
                    .iter()
                    .flat_map(|day| &day.events)
                    .map(|(stream, event)| (*stream, with_prefix(event, &prefix)))
                    .collect();
                events.shuffle(&mut random);
                events
            })
            .collect();
        let mut day = 4;
        while queues.iter().any(|queue| !queue.is_empty()) {
            let mut burst = Vec::new();
            for queue in &mut queues {
                let take = random.random_range(0..=queue.len().min(3));
                burst.extend(queue.drain(..take));
            }
            line.feed(&burst).await.unwrap();
            day = (day + 1).min(9);
            line.server.client.set_clock(&format!("2026-01-{day:02}T20:00:00Z")).await.unwrap();
        }
        line.server.client.set_clock("2026-01-10T20:00:00Z").await.unwrap();
        line.server.client.wait_delivered().await.unwrap();
        let (local, lake) = line.reports(&name, scenario).await.unwrap();
        let expected = cells(&scenario.days.last().unwrap().report);
        for (sink, rows) in [("SQLite", local), ("BigQuery", lake)] {
            let found = by_order(&rows);
            assert_eq!(found.len(), orders, "{name} in {sink}, seed {seed}");
            for (order, rows) in found {
                assert_eq!(rows, expected, "{name}, {order} in {sink}, seed {seed}");
            }
        }
        line.server.stop().unwrap();
    }
}
