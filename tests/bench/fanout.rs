//! What a projection with one as-of join costs by its facts and by the versions of the one key that all
//! of them refer to: its first load, one late version of a day, and the server's memory. The server has 4 GB of address
//! space; a cell that it cannot hold says so.

use std::time::Duration;

use anyhow::Result;
use everwhen_tests::fanout::{Fanout, Feed, HOUR, Shape};

use crate::report::{Report, median};

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
const TRIES: usize = 20;
const PATIENCE: Duration = Duration::from_secs(600);
const ADDRESS_SPACE_KIB: u64 = 4 << 20;

/// What one cell of the grid comes to.
struct Cost {
    first_load_s: f64,
    late_ms: f64,
    peak_mib: u64,
}

/// Measures every cell once, on a server of its own.
pub async fn run(report: &mut Report) {
    let mut table = String::new();
    for facts in SIZES {
        for versions in SIZES {
            let shape = Shape { keys: 1, versions, facts, step: HOUR };
            let cells = match cost(shape).await {
                Ok(Cost { first_load_s, late_ms, peak_mib }) => {
                    report.row(
                        &format!("{facts} facts of a key with {versions} versions into SQLite"),
                        format!("first load {first_load_s:.2} s, late version {late_ms:.1} ms"),
                        format!("peak {peak_mib} MiB"),
                        "reported".to_owned(),
                    );
                    format!("{first_load_s:.2} s | {late_ms:.1} ms | {peak_mib} MiB")
                }
                Err(error) => {
                    println!("{facts} facts, {versions} versions: {error:#}");
                    "failed | - | -".to_owned()
                }
            };
            table += &format!("| {facts} | {versions} | {cells} |\n");
        }
    }
    println!("\n| facts | versions | first load | one late version, p50 | peak of the server |");
    println!("|---|---|---|---|---|\n{table}");
}

async fn cost(shape: Shape) -> Result<Cost> {
    let mut set = Fanout::load(shape, Feed::Tables, 5, ADDRESS_SPACE_KIB).await?;
    set.peak_mib()?;
    let first_load_s = set.project(PATIENCE).await?.as_secs_f64();
    let mut times = Vec::new();
    for _ in 0..TRIES {
        times.push(set.late(PATIENCE).await?.as_secs_f64() * 1_000.0);
    }
    let peak_mib = set.peak_mib()?;
    set.check()?;
    set.server.stop()?;
    Ok(Cost { first_load_s, late_ms: median(&times), peak_mib })
}
