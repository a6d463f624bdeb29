//! How long a server that was killed takes to its first right answer, over ten million versions.

use std::time::Instant;

use everwhen_storage::{Precedence, ValidTime};
use everwhen_tests::process::Server;

use crate::fixture::{DAY, loaded, put, table};
use crate::report::{Report, median, quantile, verdict};

const KEYS: i64 = 1_000_000;
const VERSIONS: i64 = 10;
/// Client writes that are only in the log when the server is killed.
const LATE: u64 = 20_000;
const ROUNDS: u64 = 3;

/// Kills and starts the server, and reports the median.
pub async fn run(report: &mut Report) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let store = tokio::task::block_in_place(|| {
        loaded(&data, &table(Precedence::Effective), KEYS * VERSIONS, |n| {
            put(n % KEYS, n / KEYS, ValidTime::from_micros(n / KEYS * DAY))
        })
    });
    store.close().unwrap();
    drop(store);
    let mut server = Server::start(&data, None).await.unwrap();
    let mut times = Vec::new();
    for round in 1..=ROUNDS {
        for first in (0..LATE).step_by(1_000) {
            let rows: Vec<String> = (first..first + 1_000)
                .map(|n| {
                    format!("('key-{n:08}', 'late', {}, TIMESTAMP '2026-01-01')", round * LATE + n)
                })
                .collect();
            let sql = format!(
                "INSERT INTO readings (_id, site, n, _valid_from) VALUES {}",
                rows.join(", ")
            );
            server.client.sql(&sql).await.unwrap();
        }
        server.kill();
        let start = Instant::now();
        server = Server::start(&data, None).await.unwrap();
        let last = format!("SELECT n FROM readings WHERE _id = 'key-{:08}'", LATE - 1);
        let answer = server.client.one(&last).await.unwrap();
        times.push(start.elapsed().as_secs_f64());
        assert_eq!(answer.as_u64(), Some(round * LATE + LATE - 1), "the last write is there");
    }
    let (usual, worst) = (median(&times), quantile(&times, 1.0));
    report.row(
        "restart after a kill to the first right answer, 10,000,000 versions",
        format!("{usual:.2} s (worst {worst:.2} s)"),
        "goal <= 5 s".to_owned(),
        verdict(worst <= 5.0).to_owned(),
    );
}
