//! From a late write to its acknowledged row in SQLite, through a projection with one as-of join, sync
//! on, over a small and a large history in turn.

use std::time::{Duration, Instant};

use everwhen_tests::process::{Process, Server, start_projector};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::report::{Report, median, quantile, verdict};

const SMALL: i64 = 100_000;
const LARGE: i64 = 10_000_000;
const ROUNDS: usize = 5;
const WRITES: usize = 100;
/// Versions of each desk, and bookings of each desk: half of all versions are bookings.
const PER_DESK: i64 = 5;

const MODEL: &str = "
CREATE STREAM desks FORMAT JSON (id TEXT, room TEXT, at TIMESTAMPTZ);
CREATE MAPPING desk_moved ON desks AS PUT INTO desks SELECT id AS _id, room, at AS _valid_from;
CREATE STREAM bookings FORMAT JSON (id TEXT, desk TEXT, at TIMESTAMPTZ);
CREATE MAPPING desk_booked ON bookings AS PUT INTO bookings
SELECT id AS _id, desk, at AS _valid_from;
CREATE PROJECTION report KEY (id) INTO warehouse.report AS
SELECT b._id AS id, b.desk, d.room FROM bookings FOR ALL VALID_TIME AS b
LEFT JOIN desks FOR VALID_TIME AS OF b._valid_from AS d ON d._id = b.desk;
";

struct Line {
    server: Server,
    _projector: Process,
    _dir: tempfile::TempDir,
    desks: i64,
}

/// Measures both sizes in turn and reports medians over the rounds.
pub async fn run(report: &mut Report) {
    let small = Line::load(SMALL).await;
    let large = Line::load(LARGE).await;
    let mut random = StdRng::seed_from_u64(3);
    let mut figures = [Vec::new(), Vec::new()];
    for round in 0..=ROUNDS {
        for (line, figures) in [&small, &large].into_iter().zip(&mut figures) {
            let times = line.late_writes(round, &mut random).await;
            // The first round warms both.
            if round > 0 {
                figures.push((median(&times), quantile(&times, 0.99)));
            }
        }
    }
    let of = |figures: &[(f64, f64)], pick: fn(&(f64, f64)) -> f64| {
        median(&figures.iter().map(pick).collect::<Vec<_>>())
    };
    let (p50, p99) = (of(&figures[0], |f| f.0), of(&figures[0], |f| f.1));
    let (large_p50, large_p99) = (of(&figures[1], |f| f.0), of(&figures[1], |f| f.1));
    for (what, p50, p99) in
        [("100,000 versions", p50, p99), ("10,000,000 versions", large_p50, large_p99)]
    {
        report.row(
            &format!("late write to acknowledged SQLite row, {what}"),
            format!("p50 {p50:.1} ms, p99 {p99:.1} ms"),
            "goal p50 <= 25 ms, p99 <= 100 ms".to_owned(),
            verdict(p50 <= 25.0 && p99 <= 100.0).to_owned(),
        );
    }
    let ratio = large_p50 / p50;
    report.row(
        "the same, 10,000,000 against 100,000 versions (p50)",
        format!("{large_p50:.1} ms"),
        format!("{p50:.1} ms"),
        format!("{ratio:.2}x, goal <= 1.2x: {}", verdict(ratio <= 1.2)),
    );
}

impl Line {
    async fn load(versions: i64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(&dir.path().join("data"), None).await.unwrap();
        server.client.script(MODEL).await.unwrap();
        let desks = versions / 2 / PER_DESK;
        let line = |of: i64| (of / PER_DESK, of % PER_DESK);
        for first in (0..versions / 2).step_by(5_000) {
            let all = first..(first + 5_000).min(versions / 2);
            let moves = all.clone().map(|n| {
                let (version, desk) = (n / desks, n % desks);
                json!({ "value": { "id": format!("d{desk}"), "room": format!("room {version}"), "at": at(version * 10) } })
            });
            post(&server, "desks", moves.collect()).await;
            let bookings = all.map(|n| {
                let (desk, booking) = line(n);
                json!({ "value": { "id": format!("b{n}"), "desk": format!("d{desk}"), "at": at(booking * 10 + 5) } })
            });
            post(&server, "bookings", bookings.collect()).await;
        }
        let warehouse = dir.path().join("warehouse.db");
        let config =
            format!("[sinks.warehouse]\ntype = \"sqlite\"\npath = \"{}\"\n", warehouse.display());
        let projector = start_projector(&server.grpc, &config, dir.path(), "projector").unwrap();
        let line = Self { server, _projector: projector, _dir: dir, desks };
        let tx = line.latest_tx().await;
        let started = Instant::now();
        line.wait_delivered(tx, Duration::from_millis(100)).await;
        println!("{versions} versions loaded; first delivery took {:.1?}", started.elapsed());
        line
    }

    /// Posts late moves of random desks one after another; returns milliseconds for each.
    async fn late_writes(&self, round: usize, random: &mut StdRng) -> Vec<f64> {
        let mut times = Vec::new();
        for n in 0..WRITES {
            let (desk, day) =
                (random.random_range(0..self.desks), random.random_range(0..PER_DESK));
            let late = json!({ "value": {
                "id": format!("d{desk}"), "room": format!("late {round} {n}"), "at": at(day * 10 + 2),
            } });
            let start = Instant::now();
            let tx = post(&self.server, "desks", vec![late]).await;
            self.wait_delivered(tx, Duration::from_micros(500)).await;
            times.push(start.elapsed().as_secs_f64() * 1_000.0);
        }
        times
    }

    async fn latest_tx(&self) -> u64 {
        self.projection("latest_tx").await.unwrap()
    }

    /// Returns a number of the projection's status.
    async fn projection(&self, field: &str) -> Option<u64> {
        let answer = self.server.client.get("/v1/projections").await.unwrap();
        answer.body["projections"][0][field].as_u64()
    }

    async fn wait_delivered(&self, tx: u64, pause: Duration) {
        while self.projection("delivered_tx").await.unwrap_or(0) < tx {
            tokio::time::sleep(pause).await;
        }
    }
}

fn at(day: i64) -> String {
    let seconds = 1_735_689_600 + day * 86_400;
    jiff::Timestamp::from_second(seconds).unwrap().to_string()
}

async fn post(server: &Server, stream: &str, events: Vec<Value>) -> u64 {
    let body = json!({ "stream": stream, "events": events });
    let answer = server.client.post("/v1/events", &body).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["tx"].as_u64().unwrap()
}
