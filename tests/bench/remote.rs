//! A point as-of read and a key's history by a client: ours over HTTP, MariaDB and PostgreSQL by prepared
//! statements over their Unix sockets, over the same versions.

use std::time::{Duration, Instant};

use everwhen_storage::{Batch, ManualClock, Options, Precedence, Store, ValidTime};
use everwhen_tests::process::Server;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use std::sync::Arc;

use crate::fixture::{DAY, put, table, write};
use crate::peers::{self, Loaded, Peer};
use crate::report::{Report, verdict};

const KEYS: i64 = 200_000;
const VERSIONS: i64 = 5;
const READ_FOR: Duration = Duration::from_secs(5);
/// 2025-01-01, the day of the first version.
const FIRST_DAY: i64 = 1_735_689_600_000_000;
/// 2025-02-01, when the first versions were recorded; the next ones an hour later each.
const RECORDED: i64 = 1_738_368_000_000_000;
const HOUR: i64 = 3_600_000_000;
/// XTDB 2.2 over its Postgres wire, measured once on a machine of this kind.
const XTDB_2_MICROS: f64 = 1_230.0;

/// Loads all sides and reads each in turn.
pub async fn run(report: &mut Report) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    tokio::task::block_in_place(|| load_ours(&data));
    let peers = tokio::task::block_in_place(|| [Peer::mariadb(), Peer::postgres()]);
    for peer in &peers {
        let seconds = tokio::task::block_in_place(|| peer.load(versions()));
        println!("{}: {} rows loaded in {seconds:.1} s", peer.name, versions().count());
    }
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

/// Writes every version at its hour.
fn load_ours(path: &std::path::Path) {
    let clock = Arc::new(ManualClock::at(RECORDED - HOUR));
    let store = Store::open(Options {
        path: path.to_owned(),
        clock: Arc::clone(&clock) as Arc<dyn everwhen_storage::Clock>,
        sync: false,
        block_cache_bytes: 512 << 20,
    })
    .unwrap();
    let table = table(Precedence::Effective);
    let definitions = vec![everwhen_storage::DefinitionChange::Table(table)];
    write(&store, Batch { definitions, ..Batch::default() });
    for version in 0..VERSIONS {
        everwhen_storage::Clock::set(&*clock, RECORDED + version * HOUR).unwrap();
        for first in (0..KEYS).step_by(10_000) {
            let from = ValidTime::from_micros(FIRST_DAY + version * DAY);
            let txs = (first..first + 10_000).map(|id| put(id, version, from)).collect();
            write(&store, Batch { txs, ..Batch::default() });
        }
    }
    store.close().unwrap();
}

/// The rows of a bitemporal table after the same writes.
fn versions() -> impl Iterator<Item = Loaded> {
    let text = |micros: i64| {
        let at = jiff::Timestamp::from_microsecond(micros).unwrap().to_string();
        at.trim_end_matches('Z').replace('T', " ")
    };
    let day = move |version: i64| text(FIRST_DAY + version * DAY);
    let hour = move |version: i64| text(RECORDED + version * HOUR);
    (0..KEYS).flat_map(move |id| {
        (0..VERSIONS).flat_map(move |version| {
            let row = move |valid_to: Option<i64>, sys: (i64, Option<i64>)| Loaded {
                id: format!("key-{id:08}"),
                site: format!("site {}", id % 97),
                n: id * 10 + version,
                note: format!("note {version} of {id}, forty characters or so"),
                valid: (day(version), valid_to.map(day)),
                sys: (hour(sys.0), sys.1.map(hour)),
            };
            let next = version + 1;
            if next == VERSIONS {
                vec![row(None, (version, None))]
            } else {
                vec![row(None, (version, Some(next))), row(Some(next), (next, None))]
            }
        })
    })
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
