//! Flips, zeros and cuts in every file of a data directory and of a snapshot: no answer is ever wrong,
//! and `verify` finds all of it (O11, NF16).
//!
//! Bytes that no answer comes from are those of the files that `verify` says it passed over:
//! RocksDB's `LOG`, `LOCK`, `IDENTITY`, `OPTIONS-*`. Damage there must change nothing.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use everwhen_storage::snapshot::{self, Asked, Progress, Target};
use everwhen_storage::{
    AssertedFrom, Assertion, Batch, ColumnDef, ColumnId, ColumnType, DeadLetter, DefinitionChange,
    Error, Event, EventId, Keys, ManualClock, Op, Options, Origin, Precedence, Result, Row, RowKey,
    Scan, SourceAdvance, SourceLog, SourcePosition, Store, SystemBound, TableDef, TableId, Tenant,
    Tx, TxId, ValidBound, ValidTime, Value, Write, WriteKind, verify,
};
use everwhen_tests::{seed, soak};
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

const GO_ON: snapshot::Watch<'static> = &|_: &Progress| ControlFlow::Continue(());
const TABLES: [(u32, Precedence); 2] = [(1, Precedence::Recorded), (2, Precedence::Effective)];

fn open(path: &Path) -> Result<Store> {
    Store::open(Options {
        path: path.to_owned(),
        clock: Arc::new(ManualClock::at(1_000_000_000)),
        // What is closed in order is durable all the same.
        sync: false,
        block_cache_bytes: 4 << 20,
    })
}

fn submit(store: &Store, batch: Batch) {
    store.submit(batch).unwrap().blocking_recv().unwrap().unwrap();
}

fn definitions() -> Batch {
    let table = |(id, precedence)| {
        DefinitionChange::Table(TableDef {
            id: TableId(id),
            name: format!("t{id}"),
            precedence,
            key: vec![ColumnId(0)],
            columns: vec![
                ColumnDef::new(0, "_id", ColumnType::Text),
                ColumnDef::new(1, "n", ColumnType::Int64),
                ColumnDef::new(2, "note", ColumnType::Text),
            ],
            declared: true,
        })
    };
    Batch { definitions: TABLES.into_iter().map(table).collect(), ..Batch::default() }
}

/// One record, to both tables: late, future, bounded and patching ones; now and then a dead letter.
fn record(n: i64, random: &mut StdRng) -> Batch {
    let from = random.random_range(0..10_000);
    let is_open = random.random_bool(0.5);
    let to = if is_open { ValidTime::END } else { ValidTime::from_micros(from + 200) };
    let patches = random.random_bool(0.3);
    let note: String =
        (0..random.random_range(0..300)).map(|_| random.random_range('a'..='z')).collect();
    let assertion = Assertion {
        op: if patches { Op::Patch { set_nulls: false } } else { Op::Put },
        from: AssertedFrom::At(ValidTime::from_micros(from)),
        to,
        order: 0,
        fields: Row::new([(ColumnId(1), Value::Int(n)), (ColumnId(2), Value::Text(note))]),
        exact: false,
    };
    let id = format!("k{}", random.random_range(0..20));
    let key = RowKey::encode(&[Value::Text(id)]).unwrap();
    let write = |(table, precedence)| {
        let id = EventId(format!("e{n}"));
        let event = (precedence == Precedence::Effective)
            .then(|| Event { id, content_hash: u128::from(n.unsigned_abs()) });
        let kind = WriteKind::Assert { key: key.clone(), assertion: assertion.clone(), event };
        Write { tenant: Tenant::default(), table: TableId(table), kind }
    };
    let position = SourcePosition { topic: "t".to_owned(), partition: 0, offset: n };
    let letter = DeadLetter {
        id: 0,
        tenant: "default".to_owned(),
        stream: "s".to_owned(),
        topic: None,
        partition: None,
        offset: None,
        reason: "no JSON".to_owned(),
        value: vec![7; 40],
        size: 40,
        at: 0,
    };
    Batch {
        txs: vec![Tx { writes: TABLES.map(write).to_vec(), position: Some(position) }],
        sources: vec![SourceAdvance {
            stream: "s".to_owned(),
            topic: "t".to_owned(),
            partition: 0,
            next_offset: n + 1,
            log: SourceLog::default(),
        }],
        dead_letters: if n % 10 == 0 { vec![letter] } else { Vec::new() },
        origin: Origin::Kafka { stream: "s".to_owned() },
        ..Batch::default()
    }
}

/// A store's answers, one text a question; an error where it has none.
fn answers(store: &Store) -> Vec<Result<String>> {
    let latest = store.latest().tx;
    let definitions = store.definitions();
    let mut answers = Vec::new();
    for tx in [latest, TxId::new(latest.get() / 2)] {
        for (table, _) in TABLES {
            for system in [SystemBound::Latest, SystemBound::Between(TxId::ZERO, tx)] {
                let Some(table) = definitions.table_by_id(TableId(table)) else {
                    answers.push(Ok("no such table".to_owned()));
                    continue;
                };
                let (tenant, keys, valid) = (None, Keys::All, ValidBound::ALL);
                let scan = Scan { table, tenant, keys, valid, system, columns: None, whole: true };
                let found = store.read(tx, |view| view.collect(&scan));
                answers.push(found.map(|found| format!("{found:?}")));
            }
        }
    }
    for (table, _) in TABLES {
        let changes = |view: &everwhen_storage::View<'_>| {
            view.changes(TableId(table), TxId::ZERO, latest, usize::MAX)
        };
        answers.push(store.read(latest, changes).map(|found| format!("{found:?}")));
    }
    answers.push(store.journal(TxId::new(1), latest).map(|found| format!("{found:?}")));
    answers.push(store.source_offsets("s").map(|found| format!("{found:?}")));
    answers.push(store.dead_letters(0, 1_000).map(|found| format!("{found:?}")));
    answers.push(store.cursors(b"", 1_000).map(|found| format!("{found:?}")));
    answers.push(Ok(format!("{latest} {:?} {:?}", store.tenants(), store.definitions().tables)));
    answers
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, found);
        } else {
            found.push(path);
        }
    }
    found.sort();
}

/// Damages a file, and says how; nothing where the bytes came out as they were.
fn damage(path: &Path, random: &mut StdRng) -> Option<String> {
    let good = fs::read(path).unwrap();
    if good.is_empty() {
        return None;
    }
    let at = random.random_range(0..good.len());
    let mut bad = good.clone();
    let how = match random.random_range(0..4) {
        0 | 1 => {
            let bit = random.random_range(0..8);
            bad[at] ^= 1 << bit;
            format!("bit {bit} of byte {at}")
        }
        2 => {
            let end = (at + random.random_range(1..5_000)).min(bad.len());
            bad[at..end].fill(0);
            format!("zeros in {at}..{end}")
        }
        _ => {
            bad.truncate(at);
            format!("cut at {at} of {}", good.len())
        }
    };
    // Written anew: a hard link elsewhere keeps its content.
    fs::remove_file(path).unwrap();
    fs::write(path, &bad).unwrap();
    (bad != good).then_some(how)
}

/// What damage is done to: every kind of file as often as the others.
fn chosen(files: &[PathBuf], random: &mut StdRng) -> PathBuf {
    let kinds = [
        ".sst",
        ".log",
        "MANIFEST",
        "CURRENT",
        "OPTIONS",
        "FORMAT",
        "INCARNATION",
        "WITNESS",
        ".sst",
        ".log",
    ];
    loop {
        let kind = kinds.choose(random).unwrap();
        let of_kind: Vec<&PathBuf> =
            files.iter().filter(|path| path.to_string_lossy().contains(kind)).collect();
        if let Some(path) = of_kind.choose(random) {
            return (*path).clone();
        }
    }
}

struct Case {
    dir: tempfile::TempDir,
    data: PathBuf,
    target: Target,
    right: Vec<String>,
}

impl Case {
    /// A closed directory with table files of several levels of age and a log, and a snapshot.
    fn make(random: &mut StdRng) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let target = Target::at(&dir.path().join("snapshots").to_string_lossy()).unwrap();
        let store = open(&data).unwrap();
        submit(&store, definitions());
        for n in 0..400 {
            submit(&store, record(n, random));
            if n % 150 == 149 {
                // Flushes what is in memory.
                snapshot::create(&store, &target, GO_ON).unwrap();
            }
        }
        store.put_cursors(&[(b"c".to_vec(), Some(b"1".to_vec()))], true).unwrap();
        store.close().unwrap();
        let store = open(&data).unwrap();
        for n in 400..500 {
            submit(&store, record(n, random));
        }
        let right = answers(&store).into_iter().map(Result::unwrap).collect();
        store.close().unwrap();
        drop(store);
        Self { dir, data, target, right }
    }

    /// Reads all there is: every answer is right, or none.
    fn check_answers(&self, data: &Path, place: &str) {
        let store = match open(data) {
            Ok(store) => store,
            Err(Error::Closed | Error::Refused { .. }) => {
                panic!("{place}: an error that says nothing")
            }
            Err(_) => return,
        };
        let found = answers(&store);
        assert_eq!(found.len(), self.right.len(), "{place}");
        for (found, right) in found.iter().zip(&self.right) {
            if let Ok(found) = found {
                assert!(found == right, "{place}: a wrong answer\n{found}\ninstead of\n{right}");
            }
        }
    }

    fn directory(&self, random: &mut StdRng) {
        let data = self.dir.path().join("copy");
        copy(&self.data, &data);
        let mut files = Vec::new();
        files_below(&data, &mut files);
        let path = chosen(&files, random);
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let Some(how) = damage(&path, random) else {
            fs::remove_dir_all(&data).unwrap();
            return;
        };
        let place = format!("{name}: {how}");
        match verify::directory(&data, GO_ON) {
            // The damaged file itself may keep the directory from being read.
            Err(Error::Format { .. } | Error::Corrupt { .. }) => {}
            Err(error) => panic!("{place}: {error}"),
            Ok(report) if !report.is_good() => {}
            Ok(report) => {
                let passed_over = report.passed_over.contains(&name);
                let harmless = ["OPTIONS-", "LOG", "LOCK", "IDENTITY"];
                let is_harmless = harmless.iter().any(|start| name.starts_with(start));
                assert!(passed_over && is_harmless, "{place} was not found by verify");
            }
        }
        self.check_answers(&data, &place);
        fs::remove_dir_all(&data).unwrap();
    }

    fn snapshot(&self, random: &mut StdRng) {
        let root = self.dir.path().join("target");
        copy(self.target.folder().unwrap(), &root);
        let target = Target::at(&root.to_string_lossy()).unwrap();
        let mut files = Vec::new();
        files_below(&root, &mut files);
        files.retain(|path| !path.ends_with("LOCK"));
        let path = files.choose(random).unwrap().clone();
        if let Some(how) = damage(&path, random) {
            let place = format!("{}: {how}", path.strip_prefix(&root).unwrap().display());
            let scratch = tempfile::tempdir().unwrap();
            let found = match snapshot::check(&target, None, scratch.path(), GO_ON) {
                Err(Error::Snapshot { .. }) => true,
                Err(error) => panic!("{place}: {error}"),
                Ok(checked) => checked.iter().any(|checked| !checked.problems.is_empty()),
            };
            assert!(found, "{place} was not found by verify");
            let restored = self.dir.path().join("restored");
            match snapshot::prepare(&target, &restored, Asked::default(), GO_ON) {
                Err(Error::Snapshot { .. }) => assert!(!restored.exists(), "{place}"),
                Err(error) => panic!("{place}: {error}"),
                Ok(prepared) => {
                    // The damage is in another snapshot's part: this one is what it was.
                    let there = self.restored_from(&self.target, "good");
                    drop(prepared);
                    assert_eq!(there, self.restored_from(&target, "restored"), "{place}");
                }
            }
        }
        fs::remove_dir_all(&root).unwrap();
    }

    fn restored_from(&self, target: &Target, name: &str) -> Vec<String> {
        let data = self.dir.path().join(name);
        let prepared = snapshot::prepare(target, &data, Asked::default(), GO_ON).unwrap();
        prepared.publish().unwrap();
        let store = open(&data).unwrap();
        let answers = answers(&store).into_iter().map(Result::unwrap).collect();
        store.close().unwrap();
        fs::remove_dir_all(&data).unwrap();
        answers
    }
}

#[test]
fn no_damage_leads_to_a_wrong_answer_and_verify_finds_all_of_it() {
    let seed = seed();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let case = Case::make(&mut random);
    let good = verify::directory(&case.data, GO_ON).unwrap();
    assert!(good.is_good(), "{:?}", good.problems);
    let count = if soak() > 1 { 170 * soak() } else { 50 };
    for _ in 0..count {
        case.directory(&mut random);
    }
    for _ in 0..count / 5 + 5 {
        case.snapshot(&mut random);
    }
}
