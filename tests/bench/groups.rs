//! What one more fact costs a projection, by how many there are: rows, days, a total, the first ten, a rank.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use everwhen_tests::fanout::delivered;
use everwhen_tests::process::{Server, run as command};
use serde_json::json;

use crate::report::{Report, median};

const SIZES: [u64; 2] = [20_000, 100_000];
const TRIES: u64 = 20;
const PATIENCE: Duration = Duration::from_secs(600);
/// Facts of one day.
const A_DAY: u64 = 100;

const SHAPES: [(&str, &str, &str); 6] = [
    (
        "an as-of join",
        "_id",
        "SELECT f._id, f.at, d.name FROM facts f \
         LEFT JOIN dims FOR VALID_TIME AS OF f.at AS d ON d._id = f.site",
    ),
    (
        "a count by day",
        "day",
        "SELECT date_trunc('day', at) AS day, count(*) AS n, sum(units) AS units \
         FROM facts GROUP BY date_trunc('day', at)",
    ),
    ("a total", "one", "SELECT 1 AS one, count(*) AS n, sum(units) AS units FROM facts"),
    ("the first ten", "_id", "SELECT _id, units FROM facts ORDER BY units DESC, _id LIMIT 10"),
    (
        "what is above the average",
        "_id",
        "SELECT f._id, f.units FROM facts f JOIN (SELECT avg(units) AS mean FROM facts) a \
         ON f.units > 2 * a.mean",
    ),
    (
        "a rank over all",
        "_id",
        "SELECT _id, rank() OVER (ORDER BY units DESC, _id) AS place FROM facts",
    ),
];

/// Measures every shape at both sizes.
pub async fn run(report: &mut Report) {
    for (name, key, query) in SHAPES {
        let mut figures = Vec::new();
        for facts in SIZES {
            match late_facts(facts, key, query).await {
                Ok(ms) => figures.push(ms),
                Err(error) => println!("{name}, {facts} facts: {error:#}"),
            }
        }
        let [small, large] = figures[..] else { continue };
        report.row(
            &format!("one more fact under {name}, 100,000 facts"),
            format!("{large:.1} ms"),
            format!("20,000 facts {small:.1} ms"),
            format!("{:.2}x", large / small),
        );
    }
}

/// Returns the median of milliseconds from a fact to its sink rows.
async fn late_facts(facts: u64, key: &str, query: &str) -> Result<f64> {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let mut server = Server::start(&data, None).await?;
    server.client.sql("CREATE TABLE dims (_id TEXT PRIMARY KEY, name TEXT)").await?;
    server
        .client
        .sql("CREATE TABLE facts (_id INT PRIMARY KEY, site TEXT, at TIMESTAMPTZ, units INT)")
        .await?;
    server.stop()?;
    load(dir.path(), facts)?;
    let warehouse = dir.path().join("warehouse.db").display().to_string();
    let delivery = dir.path().join("delivery.toml");
    std::fs::write(
        &delivery,
        format!("[sinks.warehouse]\ntype = \"sqlite\"\npath = \"{warehouse}\"\n"),
    )?;
    let delivery = ["--projector", &delivery.display().to_string()];
    let mut server = Server::start_within(&data, None, &delivery, 8 << 20).await?;
    server.client.sql("INSERT INTO dims (_id, name) VALUES ('s1', 'one')").await?;
    let sql = format!("CREATE PROJECTION report KEY ({key}) INTO warehouse.report AS {query}");
    server.client.sql(&sql).await?;
    delivered(&mut server, 0, Duration::from_millis(20), PATIENCE).await?;
    let mut times = Vec::new();
    for n in 0..TRIES {
        let values = row(facts + n);
        let sql = format!(
            "INSERT INTO facts (_id, site, at, units) VALUES ({}, 's1', '{}', {})",
            values["_id"],
            values["at"].as_str().unwrap_or_default(),
            values["units"]
        );
        let started = Instant::now();
        let tx = server.client.sql(&sql).await?["tx"].as_u64().unwrap_or_default();
        delivered(&mut server, tx, Duration::from_micros(500), PATIENCE).await?;
        times.push(started.elapsed().as_secs_f64() * 1_000.0);
    }
    server.stop()?;
    Ok(median(&times))
}

fn row(n: u64) -> serde_json::Value {
    let seconds = i64::try_from(1_735_689_600 + n % (100_000 / A_DAY) * 86_400).unwrap_or_default();
    let at = jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string();
    json!({ "_id": n, "site": "s1", "at": at, "units": n * 7_919 % 1_009 })
}

fn load(dir: &Path, facts: u64) -> Result<()> {
    let path = dir.join("facts.ndjson");
    let mut file = BufWriter::new(File::create(&path)?);
    for n in 0..facts {
        writeln!(file, "{}", row(n))?;
    }
    file.flush()?;
    let (data, file) = (dir.join("data").display().to_string(), path.display().to_string());
    let said = command(&["ingest", "--data", &data, "--table", "facts", "--file", &file])?;
    ensure!(said.success, "loading facts: {}{}", said.out, said.err);
    Ok(())
}
