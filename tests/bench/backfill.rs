//! Loading a history of ten million versions, in any order of valid time: by the bulk load, by
//! RocksDB's own `db_bench fillseq` of as many keys and bytes, and by MariaDB's LOAD DATA.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use everwhen_storage::Precedence;

use crate::fixture::{History, Written, backfill, day_text, open_with, table, written};
use crate::peers::{Loaded, Peer};
use crate::report::{Report, verdict};

const HISTORY: History = History { keys: 1_000_000, versions: 10 };
/// Rows for MariaDB, whose rate falls with their number.
const PEER_ROWS: i64 = 1_000_000;

/// Runs all sides in turn and reports them.
pub fn run(report: &mut Report) {
    let mariadb = per_second(PEER_ROWS, Peer::mariadb().load(peer_rows()));
    for (precedence, name) in
        [(Precedence::Recorded, "recorded"), (Precedence::Effective, "effective")]
    {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let seconds = load(&data, precedence);
        let ours = per_second(HISTORY.count(), seconds);
        let left = written(&data);
        let what = format!("backfill of 10,000,000 versions ({name})");
        println!("{what}: {seconds:.1} s for {} keys in all families", left.keys);
        // The same keys and bytes in one go, in order; neither side syncs but at its end.
        let raw = HISTORY.count() as f64 / fill_sequentially(&left, left.keys);
        report.row(
            &what,
            format!("{ours:.0} versions/s"),
            format!("db_bench fillseq of the same keys and bytes {raw:.0} versions/s"),
            format!("{:.2}, goal >= 0.35: {}", ours / raw, verdict(ours / raw >= 0.35)),
        );
        report.row(
            &format!("the same ({name})"),
            format!("{ours:.0} versions/s"),
            format!("MariaDB LOAD DATA of {PEER_ROWS} rows {mariadb:.0} rows/s"),
            format!("{:.1}x, goal >= 5x: {}", ours / mariadb, verdict(ours / mariadb >= 5.0)),
        );
    }
}

/// Returns the seconds of a load, making the rows included.
fn load(data: &Path, precedence: Precedence) -> f64 {
    let store = open_with(data, &table(precedence));
    let started = Instant::now();
    backfill(&store, HISTORY);
    let seconds = started.elapsed().as_secs_f64();
    store.close().unwrap();
    seconds
}

fn per_second(count: i64, seconds: f64) -> f64 {
    count as f64 / seconds
}

/// Returns the seconds that RocksDB takes for so many keys of the mean sizes: LZ4, with its log.
fn fill_sequentially(left: &Written, keys: u64) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new("db_bench")
        .args(["--benchmarks=fillseq", "--compression_type=lz4", "--max_background_jobs=4"])
        .args([format!("--db={}", dir.path().display()), format!("--num={keys}")])
        .arg(format!("--key_size={}", left.key_bytes / left.keys))
        .arg(format!("--value_size={}", left.value_bytes / left.keys))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.starts_with("fillseq")).unwrap_or_default();
    let words: Vec<&str> = line.split_whitespace().collect();
    let place = words.iter().position(|word| word.starts_with("seconds"));
    let seconds = place.and_then(|place| words[place - 1].parse().ok());
    seconds.unwrap_or_else(|| panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr)))
}

/// The least that the same history is for MariaDB: one row a version, all of them current.
fn peer_rows() -> impl Iterator<Item = Loaded> {
    let versions = HISTORY.versions;
    (0..PEER_ROWS).map(move |n| {
        let (id, version) = (n / versions, n % versions);
        let next = version + 1;
        Loaded {
            id: format!("key-{id:08}"),
            site: format!("site {}", id % 97),
            n: id * 10 + version,
            note: format!("note {version} of {id}, forty characters or so"),
            valid: (day_text(version), (next < versions).then(|| day_text(next))),
            sys: (day_text(versions), None),
        }
    })
}
