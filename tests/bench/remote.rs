//! A point as-of read and a key's history by a client: ours over HTTP, MariaDB and PostgreSQL by prepared
//! statements over their Unix sockets, over the same versions.

use std::time::{Duration, Instant};

use everwhen_tests::process::Server;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::bitemporal::Bitemporal;
use crate::peers::{self, Peer};
use crate::report::{Report, verdict};

const KEYS: i64 = 200_000;
const VERSIONS: i64 = 5;
const HISTORY: Bitemporal = Bitemporal { keys: KEYS, versions: VERSIONS };
const READ_FOR: Duration = Duration::from_secs(5);
/// XTDB 2.2 over its Postgres wire, measured once on a machine of this kind.
const XTDB_2_MICROS: f64 = 1_230.0;

/// Loads all sides and reads each in turn.
pub async fn run(report: &mut Report) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let peers = HISTORY.load(&data);
    tokio::task::block_in_place(|| peers.iter().for_each(Peer::index));
    let server = Server::start(&data, None).await.unwrap();
    let http = reqwest::Client::new();
    let ours = Ours { base: server.http.clone(), http };
    let xtdb = tokio::task::block_in_place(|| peers::xtdb_reads(KEYS, VERSIONS));
    for (what, mode, at) in [
        ("point as-of read by a client", "point", "now"),
        ("the same at a past system time", "point", "past"),
        ("history of a key by a client", "history", "now"),
    ] {
        let mine = ours.read(mode, at).await;
        let others: Vec<(&str, f64)> = peers
            .iter()
            .map(|peer| {
                let read = || peer.read(mode, at, KEYS, VERSIONS);
                (peer.name, tokio::task::block_in_place(read))
            })
            .collect();
        let shown: Vec<String> =
            others.iter().map(|(name, micros)| format!("{name} {micros:.0} us")).collect();
        let best = others.iter().map(|(_, micros)| *micros).fold(f64::INFINITY, f64::min);
        let judged = if mode == "point" {
            let ratio = XTDB_2_MICROS / mine;
            format!(
                "{:.2}x the best peer's; XTDB 2 took 1230 us once: {ratio:.1}x, goal >= 3x: {}",
                best / mine,
                verdict(ratio >= 3.0)
            )
        } else {
            format!(
                "{:.2}x, goal >= 3x the best peer: {}",
                best / mine,
                verdict(best / mine >= 3.0)
            )
        };
        report.row(what, format!("{mine:.0} us over HTTP"), shown.join(", "), judged);
        if mode == "point" {
            let theirs = xtdb[usize::from(at == "past")];
            report.row(
                &format!("{what}, beside a read without a wire"),
                format!("{mine:.0} us over HTTP"),
                format!("XTDB 1.24 on RocksDB in process {theirs:.0} us"),
                format!("{:.2}x", theirs / mine),
            );
        }
    }
}

struct Ours {
    base: String,
    http: reqwest::Client,
}

impl Ours {
    /// Returns the mean microseconds of one read.
    async fn read(&self, mode: &str, at: &str) -> f64 {
        let mut random = StdRng::seed_from_u64(5);
        // The first second warms up.
        self.repeat(mode, at, &mut random, Duration::from_secs(2)).await;
        self.repeat(mode, at, &mut random, READ_FOR).await
    }

    async fn repeat(&self, mode: &str, at: &str, random: &mut StdRng, time: Duration) -> f64 {
        let start = Instant::now();
        let mut reads = 0_u32;
        while start.elapsed() < time {
            let id = format!("key-{:08}", random.random_range(0..KEYS));
            let day = random.random_range(1..=VERSIONS);
            if mode == "history" {
                let path = format!("{}/v1/entities/readings/{id}/history", self.base);
                let answer: Value = self.http.get(path).send().await.unwrap().json().await.unwrap();
                assert!(
                    answer["versions"].as_array().is_some_and(|all| all.len() >= 5),
                    "{answer}"
                );
            } else {
                let mut body = json!({
                    "sql": "SELECT site, n, note FROM readings FOR VALID_TIME AS OF $2 WHERE _id = $1",
                    "params": [id, format!("2025-01-{day:02}T12:00:00Z")],
                });
                if at == "past" {
                    body["system_time"] = json!("2025-02-01T02:30:00Z");
                }
                let path = format!("{}/v1/sql", self.base);
                let answer = self.http.post(path).json(&body).send().await.unwrap();
                let answer: Value = answer.json().await.unwrap();
                assert_eq!(answer["rows"].as_array().map(Vec::len), Some(1), "{answer}");
            }
            reads += 1;
        }
        start.elapsed().as_secs_f64() * 1e6 / f64::from(reads)
    }
}
