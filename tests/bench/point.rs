//! A point as-of read in process against a raw RocksDB seek, both warm, over the same keys.

use std::collections::BTreeMap;
use std::time::Instant;

use everwhen_storage::{Precedence, RowKey, Store, TableDef, Tenant, TxId, ValidTime};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::fixture::{DAY, key, loaded, put, table};
use crate::report::{Report, median, verdict};

const KEYS: i64 = 200_000;
const VERSIONS: i64 = 5;
const READS: usize = 200_000;

/// The raw side: the same keys and versions, values of the same size, one seek a read.
fn load_raw(path: &std::path::Path) -> rocksdb::DB {
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    let mut block = rocksdb::BlockBasedOptions::default();
    block.set_block_cache(&rocksdb::Cache::new_lru_cache(512 << 20));
    options.set_block_based_table_factory(&block);
    let db = rocksdb::DB::open(&options, path).unwrap();
    for version in 0..VERSIONS {
        for id in 0..KEYS {
            let value = format!(
                "{id:08} site {:>4} note {version} of {id}, forty characters or so",
                id % 97
            );
            db.put(raw_key(id, version * DAY), value).unwrap();
        }
    }
    db.flush().unwrap();
    db
}

fn raw_key(id: i64, at: i64) -> Vec<u8> {
    let mut bytes = format!("default\0\0\0\0\x01key-{id:08}\0\x01").into_bytes();
    bytes.extend_from_slice(&at.to_be_bytes());
    bytes
}

/// Runs both sides in turn, five rounds, and reports medians.
pub fn run(report: &mut Report) {
    let dir = tempfile::tempdir().unwrap();
    let table = table(Precedence::Effective);
    let of = |n: i64| put(n % KEYS, n / KEYS, ValidTime::from_micros(n / KEYS * DAY));
    let store = loaded(&dir.path().join("store"), &table, KEYS * VERSIONS, of);
    let raw = load_raw(&dir.path().join("raw"));
    let mut random = StdRng::seed_from_u64(1);
    let reads: Vec<(i64, i64)> = (0..READS)
        .map(|_| (random.random_range(0..KEYS), random.random_range(0..VERSIONS * DAY)))
        .collect();
    let keys: Vec<(RowKey, ValidTime)> =
        reads.iter().map(|(id, at)| (key(*id), ValidTime::from_micros(*at))).collect();
    let raw_keys: Vec<Vec<u8>> = reads.iter().map(|(id, at)| raw_key(*id, *at)).collect();
    let (latest, past) = (store.latest().tx, past_tx());

    let mut figures: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..6 {
        let raw = time(|| read_raw(&raw, &raw_keys));
        figures.entry("raw").or_default().push(raw);
        for (name, tx, bounds) in [
            ("now", latest, false),
            ("past", past, false),
            ("versions", latest, true),
            ("past versions", past, true),
        ] {
            let ours = time(|| read_ours(&store, tx, &table, &keys, bounds));
            figures.entry(name).or_default().push(ours);
        }
    }
    // The first round warms the caches.
    let warm = |name: &str| median(&figures[name][1..]);
    let raw = warm("raw");
    for (what, name) in [
        ("point as-of read in process, decoded row", "now"),
        ("the same at a past system time (half the versions superseded since)", "past"),
        ("point as-of read in process, with the bounds of its version", "versions"),
        ("the same at a past system time", "past versions"),
    ] {
        let ours = warm(name);
        report.row(
            what,
            format!("{ours:.2} us"),
            format!("raw RocksDB seek {raw:.2} us"),
            format!("{:.2}x, goal <= 2.4x: {}", ours / raw, verdict(ours / raw <= 2.4)),
        );
    }
}

/// A transaction after which the later versions were written.
fn past_tx() -> TxId {
    TxId::new(u64::try_from(KEYS * VERSIONS / 2).unwrap())
}

/// Returns microseconds per read.
fn time(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    #[expect(clippy::cast_precision_loss, reason = "a small constant")]
    let reads = READS as f64;
    start.elapsed().as_secs_f64() * 1e6 / reads
}

fn read_ours(
    store: &Store,
    tx: TxId,
    table: &TableDef,
    keys: &[(RowKey, ValidTime)],
    bounds: bool,
) {
    let tenant = Tenant::default();
    let mut fields = 0;
    store
        .read(tx, |view| {
            for (key, at) in keys {
                let row = if bounds {
                    view.point(table, &tenant, key, *at)?.map(|version| version.row)
                } else {
                    view.row_at(table, &tenant, key, *at, None)?.map(|(_, row)| row)
                };
                fields += row.map_or(0, |row| row.fields().len());
            }
            Ok(())
        })
        .unwrap();
    assert!(fields > 0, "nothing was read");
}

fn read_raw(db: &rocksdb::DB, keys: &[Vec<u8>]) {
    let mut bytes = 0;
    let mut iterator = db.raw_iterator();
    for key in keys {
        iterator.seek_for_prev(key);
        bytes += iterator.value().map_or(0, <[u8]>::len);
    }
    assert!(bytes > 0, "nothing was read");
}
