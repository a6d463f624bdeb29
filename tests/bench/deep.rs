//! One key with a million versions against keys with one: reads at any point of both time axes, and late
//! writes whose effect is one segment; then a scan of the current state beside a hundred times the
//! history.

use std::collections::BTreeMap;
use std::time::Instant;

use everwhen_storage::{
    Batch, Keys, Precedence, Scan, Store, SystemBound, TableDef, Tenant, TxId, ValidBound,
    ValidTime,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::fixture::{DAY, key, loaded, put, table, write};
use crate::report::{Report, median, verdict};

const VERSIONS: i64 = 1_000_000;
/// Keys of one version each, so that both stores are of one size.
const SINGLE_KEYS: i64 = 1_000_000;
const READS: usize = 50_000;
const LATE_WRITES: i64 = 2_000;
const ROUNDS: usize = 5;
/// Rows of the current state, and versions of each in the long history.
const ROWS: i64 = 20_000;
const HISTORY: i64 = 100;

/// Measures both sides in turn and reports medians.
pub fn run(report: &mut Report) {
    one_key(report);
    current_state(report);
}

fn one_key(report: &mut Report) {
    let dir = tempfile::tempdir().unwrap();
    let table = table(Precedence::Effective);
    // One in a hundred is a correction of the past: it starts at an instant that was long before.
    let deep = loaded(&dir.path().join("deep"), &table, VERSIONS, |n| {
        let day = if n % 100 == 99 { n.wrapping_mul(7_919) % n } else { n };
        put(0, n, ValidTime::from_micros(day * DAY))
    });
    let single = loaded(&dir.path().join("single"), &table, SINGLE_KEYS, |n| {
        put(n, 0, ValidTime::from_micros(n * DAY))
    });
    let mut random = StdRng::seed_from_u64(4);
    let mut figures: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let latest = u64::try_from(VERSIONS).unwrap();
    for _ in 0..=ROUNDS {
        let mut points = |most: u64| -> Vec<(i64, i64, u64)> {
            let point = |_| {
                let at = random.random_range(0..VERSIONS) * DAY + 1;
                (random.random_range(0..SINGLE_KEYS), at, random.random_range(most / 2..=most))
            };
            (0..READS).map(point).collect()
        };
        let (now, past) = (points(latest), points(latest));
        let now: Vec<_> = now.into_iter().map(|(key, at, _)| (key, at, latest)).collect();
        for (name, store, one, points) in [
            ("deep now", &deep, true, &now),
            ("single now", &single, false, &now),
            ("deep past", &deep, true, &past),
            ("single past", &single, false, &past),
        ] {
            figures.entry(name).or_default().push(reads(store, &table, one, points));
        }
        for (name, store, one) in [("deep late", &deep, true), ("single late", &single, false)] {
            figures.entry(name).or_default().push(late_writes(store, one, &mut random));
        }
    }
    let warm = |name: &str| median(&figures[name][1..]);
    for (what, deep, single) in [
        ("as-of read of a key with 10^6 versions, now", "deep now", "single now"),
        ("the same at a random past system time", "deep past", "single past"),
        ("late write with an effect of one segment", "deep late", "single late"),
    ] {
        let (deep, single) = (warm(deep), warm(single));
        report.row(
            what,
            format!("{deep:.2} us"),
            format!("a key with 1 version {single:.2} us"),
            format!("{:.2}x, goal <= 2x: {}", deep / single, verdict(deep / single <= 2.0)),
        );
    }
}

/// Returns microseconds per read, each in a view of its own, as a client's would be.
fn reads(store: &Store, table: &TableDef, one_key: bool, points: &[(i64, i64, u64)]) -> f64 {
    let tenant = Tenant::default();
    let mut found = 0_usize;
    let start = Instant::now();
    for (id, at, tx) in points {
        let (key, at) = (key(if one_key { 0 } else { *id }), ValidTime::from_micros(*at));
        let row = store.read(TxId::new(*tx), |view| view.row_at(table, &tenant, &key, at, None));
        found += usize::from(row.unwrap().is_some());
    }
    let micros = start.elapsed().as_secs_f64() * 1e6;
    assert!(found > 0, "nothing was read");
    per(micros, points.len())
}

/// Returns microseconds per write, all in one batch.
fn late_writes(store: &Store, one_key: bool, random: &mut StdRng) -> f64 {
    let txs = (0..LATE_WRITES)
        .map(|n| {
            let key = if one_key { 0 } else { random.random_range(0..SINGLE_KEYS) };
            let at = random.random_range(0..VERSIONS) * DAY + DAY / 2 + n;
            put(key, VERSIONS + n, ValidTime::from_micros(at))
        })
        .collect();
    let start = Instant::now();
    write(store, Batch { txs, ..Batch::default() });
    per(start.elapsed().as_secs_f64() * 1e6, usize::try_from(LATE_WRITES).unwrap())
}

fn current_state(report: &mut Report) {
    let dir = tempfile::tempdir().unwrap();
    let table = table(Precedence::Effective);
    let at = |version: i64| ValidTime::from_micros(version * DAY);
    let short = loaded(&dir.path().join("short"), &table, ROWS, |n| put(n, 0, at(0)));
    let long = loaded(&dir.path().join("long"), &table, ROWS * HISTORY, |n| {
        put(n % ROWS, n / ROWS, at(n / ROWS))
    });
    // As a server does every second.
    for store in [&short, &long] {
        store.tidy().unwrap();
    }
    let mut figures = [Vec::new(), Vec::new()];
    for _ in 0..=ROUNDS {
        for (store, figures) in [&short, &long].into_iter().zip(&mut figures) {
            let start = Instant::now();
            assert_eq!(scan(store, &table, at(HISTORY)), usize::try_from(ROWS).unwrap());
            figures.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    let (short, long) = (median(&figures[0][1..]), median(&figures[1][1..]));
    report.row(
        "scan of the current state, 20,000 rows after 100x history",
        format!("{long:.1} ms"),
        format!("after 1x history {short:.1} ms"),
        format!("{:.2}x, goal <= 1.2x: {}", long / short, verdict(long / short <= 1.2)),
    );
}

fn scan(store: &Store, table: &TableDef, at: ValidTime) -> usize {
    let tenant = Tenant::default();
    let scan = Scan {
        table,
        tenant: Some(&tenant),
        keys: Keys::All,
        valid: ValidBound::AsOf(at),
        system: SystemBound::Latest,
        columns: None,
        whole: true,
    };
    let mut rows = 0;
    let tx = store.latest().tx;
    let read = store.read(tx, |view| {
        view.scan(&scan, &mut |_| {
            rows += 1;
            Ok(true)
        })
    });
    read.unwrap();
    rows
}

#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn per(micros: f64, count: usize) -> f64 {
    micros / count as f64
}
