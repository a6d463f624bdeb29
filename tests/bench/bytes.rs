//! Bytes of a version on disk, beside a Parquet file with zstd of the same versions.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Builder, RecordBatch, StringBuilder};
use everwhen_storage::{
    ColumnId, Keys, Precedence, Scan, Store, SystemBound, TableDef, TxId, ValidBound, ValidTime,
    Value, Version,
};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::fixture::{DAY, loaded_whole, put, table};
use crate::report::{Report, verdict};

const KEYS: i64 = 200_000;
const VERSIONS: i64 = 10;
/// Rows of one Arrow batch.
const BATCH: usize = 65_536;

/// Writes the same history under both rules, and reports each beside its Parquet file.
pub fn run(report: &mut Report) {
    for (precedence, name) in
        [(Precedence::Recorded, "recorded"), (Precedence::Effective, "effective")]
    {
        let dir = tempfile::tempdir().unwrap();
        let table = table(precedence);
        // A reading a day from each key, in order: the day before ends then.
        let of = |n: i64| put(n % KEYS, n / KEYS, ValidTime::from_micros(n / KEYS * DAY));
        let data = dir.path().join("data");
        let store = loaded_whole(&data, &table, KEYS * VERSIONS, of);
        let parquet = dir.path().join("versions.parquet");
        let versions = write_parquet(&store, &table, &parquet);
        store.close().unwrap();
        drop(store);
        let families = bytes_of_families(&data);
        let parts: Vec<String> = families
            .iter()
            .filter(|(_, bytes)| **bytes > 0)
            .map(|(family, bytes)| format!("{family} {:.1}", per(*bytes, versions)))
            .collect();
        let ours = per(families.values().sum(), versions);
        let theirs = per(parquet.metadata().unwrap().len(), versions);
        let ratio = ours / theirs;
        let judged = if precedence == Precedence::Recorded {
            format!("{ratio:.2}x, goal <= 2.5x: {}", verdict(ratio <= 2.5))
        } else {
            format!("{ratio:.2}x")
        };
        report.row(
            &format!("bytes of a version ({name}, {versions} versions)"),
            format!("{ours:.1} bytes ({})", parts.join(", ")),
            format!("Parquet with zstd {theirs:.1} bytes"),
            judged,
        );
    }
}

fn per(bytes: u64, versions: u64) -> f64 {
    bytes as f64 / versions as f64
}

/// Returns the bytes of the table files of each family.
fn bytes_of_families(data: &Path) -> BTreeMap<String, u64> {
    let (options, rocks) = (rocksdb::Options::default(), data.join("rocks"));
    let names = rocksdb::DB::list_cf(&options, &rocks).unwrap();
    let db = rocksdb::DB::open_cf_for_read_only(&options, &rocks, &names, false).unwrap();
    let mut bytes = BTreeMap::new();
    for file in db.live_files().unwrap() {
        *bytes.entry(file.column_family_name).or_default() += u64::try_from(file.size).unwrap();
    }
    bytes
}

/// Columns of the Parquet file.
#[derive(Default)]
struct Columns {
    texts: [StringBuilder; 3],
    /// n, then the four times.
    numbers: [Int64Builder; 5],
    rows: usize,
}

impl Columns {
    fn push(&mut self, version: &Version) {
        // A key of one text: its bytes and a terminator.
        let key = version.key.as_bytes();
        self.texts[0].append_value(String::from_utf8_lossy(&key[..key.len() - 2]));
        for (column, place) in [(1, 1), (3, 2)] {
            match version.row.get(ColumnId(column)) {
                Some(Value::Text(text)) => self.texts[place].append_value(text),
                other => panic!("{other:?}"),
            }
        }
        let n = match version.row.get(ColumnId(2)) {
            Some(Value::Int(n)) => *n,
            other => panic!("{other:?}"),
        };
        let tx = |tx: TxId| i64::try_from(tx.get()).unwrap();
        let (from, to) = (version.valid.from(), version.valid.to());
        self.numbers[0].append_value(n);
        self.numbers[1].append_value(from.micros());
        self.numbers[2].append_option((to != ValidTime::END).then(|| to.micros()));
        // A system time is one to one with its transaction.
        self.numbers[3].append_value(tx(version.tx_from));
        self.numbers[4].append_option(version.tx_to.map(tx));
        self.rows += 1;
    }

    fn batch(&mut self) -> RecordBatch {
        let texts = self.texts.iter_mut().map(|all| Arc::new(all.finish()) as ArrayRef);
        let numbers = self.numbers.iter_mut().map(|all| Arc::new(all.finish()) as ArrayRef);
        let names = ["id", "site", "note", "n", "valid_from", "valid_to", "tx_from", "tx_to"];
        self.rows = 0;
        let columns = names.into_iter().zip(texts.chain(numbers));
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, all)| (name, all, true)))
            .unwrap()
    }
}

/// Writes all that was ever believed, by key and valid time; returns how many versions that is.
fn write_parquet(store: &Store, table: &TableDef, path: &Path) -> u64 {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).unwrap()))
        .build();
    let mut columns = Columns::default();
    let mut writer: Option<ArrowWriter<File>> = None;
    let mut flush = |columns: &mut Columns| {
        let batch = columns.batch();
        let writer = writer.get_or_insert_with(|| {
            let file = File::create(path).unwrap();
            ArrowWriter::try_new(file, batch.schema(), Some(properties.clone())).unwrap()
        });
        writer.write(&batch).unwrap();
    };
    let scan = Scan {
        table,
        tenant: None,
        keys: Keys::All,
        valid: ValidBound::ALL,
        system: SystemBound::Between(TxId::ZERO, store.latest().tx),
        columns: None,
        whole: true,
    };
    let mut versions = 0;
    let read = store.read(store.latest().tx, |view| {
        view.scan(&scan, &mut |version| {
            columns.push(&version);
            versions += 1;
            if columns.rows == BATCH {
                flush(&mut columns);
            }
            Ok(true)
        })
    });
    read.unwrap();
    flush(&mut columns);
    writer.unwrap().close().unwrap();
    versions
}
