use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::*;
use crate::testing::{Directory, define, history, open, record};

const GO_ON: Watch<'static> = &|_| ControlFlow::Continue(());

/// Makes a closed directory: table files from a checkpoint's flush, more in the log.
fn made(directory: &Directory) {
    let store = open(&directory.0).unwrap();
    define(&store);
    (0..20).for_each(|n| record(&store, n));
    drop(store.engine().unwrap().checkpoint().unwrap());
    (20..60).for_each(|n| record(&store, n));
}

fn verified(path: &Path) -> Report {
    directory(path, GO_ON).unwrap()
}

/// Returns the one file of `rocks/` with that ending, the greatest where there are several.
fn last(path: &Path, ending: &str) -> PathBuf {
    let names = disk::names(&path.join("rocks")).unwrap();
    let name = names.iter().rfind(|name| name.contains(ending)).unwrap();
    path.join("rocks").join(name)
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_good_directory_is_good_and_stays_as_it_is() {
    let directory = Directory::new();
    made(&directory);
    let report = verified(&directory.0);
    assert_eq!(report.problems, [] as [String; 0]);
    assert_eq!((report.tx, report.unsummed), (61, 0));
    let entries = |name: &str| report.families.iter().find(|(n, _)| *n == name).unwrap().1;
    assert_eq!((entries("current"), entries("transactions")), (10, 61));
    assert!(entries("archive") > 0 && entries("assertions") > 0 && entries("event_ids") > 0);
    assert_eq!(verified(&directory.0), report);
    let store = open(&directory.0).unwrap();
    assert!(matches!(super::directory(&directory.0, GO_ON), Err(Error::InUse { .. })));
    drop(store);
    let none = Directory::new();
    assert!(matches!(super::directory(&none.0, GO_ON), Err(Error::Format { .. })));
}

/// RocksDB by itself opens such a directory, with a hole or without its end.
#[test]
fn logs_with_a_hole_or_without_their_end_are_refused() {
    for (case, damage) in [
        ("zeros within", (|log| log[2_000..2_100].fill(0)) as fn(&mut Vec<u8>)),
        ("zeros at the end", |log| {
            let end = log.len();
            log[end - 300..].fill(0);
        }),
        ("cut", |log| log.truncate(log.len() - 1)),
        ("cut to nothing", Vec::clear),
        ("a changed length", |log| {
            let end = log.len();
            log[end - 200..].iter_mut().for_each(|byte| *byte ^= 0x55);
        }),
    ] {
        let directory = Directory::new();
        made(&directory);
        change(&last(&directory.0, ".log"), damage);
        assert!(!verified(&directory.0).is_good(), "{case}");
        match open(&directory.0) {
            Err(Error::Corrupt { .. } | Error::Engine { .. }) => {}
            Err(other) => panic!("{case}: {other}"),
            Ok(store) => panic!("{case}: opened with {}", store.latest().tx),
        }
    }
}

#[test]
fn a_log_that_is_torn_behind_what_was_durable_opens() {
    let directory = Directory::new();
    made(&directory);
    let right = history(&open(&directory.0).unwrap()).unwrap();
    let log = last(&directory.0, ".log");
    change(&log, |log| log.extend_from_slice(&[7, 7, 7, 7, 200, 0, 1, 5, 5]));
    assert_eq!(verified(&directory.0).problems, [] as [String; 0]);
    assert_eq!(history(&open(&directory.0).unwrap()).unwrap(), right);
}

/// What a machine that lost power may leave of a write that nobody was told of.
#[test]
fn a_damaged_write_behind_what_was_durable_is_cut_off() {
    let directory = Directory::new();
    made(&directory);
    let witness = directory.join("WITNESS");
    let before = fs::read(&witness).unwrap();
    let right = history(&open(&directory.0).unwrap()).unwrap();
    // Opened and closed once more: the log begins anew.
    let store = open(&directory.0).unwrap();
    let durable = fs::read(&witness).unwrap();
    assert_ne!(before, durable);
    record(&store, 99);
    drop(store);
    fs::write(&witness, durable).unwrap();
    change(&last(&directory.0, ".log"), |log| {
        let end = log.len();
        log[end - 400..].iter_mut().for_each(|byte| *byte ^= 0x55);
    });
    assert!(!verified(&directory.0).is_good());
    assert_eq!(history(&open(&directory.0).unwrap()).unwrap(), right);
    assert!(verified(&directory.0).is_good());
}

#[test]
fn every_table_file_is_summed_as_a_whole() {
    let directory = Directory::new();
    made(&directory);
    let names = disk::names(&directory.join("rocks")).unwrap();
    let tables: Vec<_> = names.iter().filter(|name| name.ends_with(".sst")).collect();
    assert!(tables.len() > 3);
    for name in tables {
        let path = directory.join("rocks").join(name);
        let good = fs::read(&path).unwrap();
        for at in [0, good.len() / 3, good.len() / 2, good.len() - 60, good.len() - 1] {
            change(&path, |bytes| bytes[at] ^= 0x10);
            let report = verified(&directory.0);
            assert_eq!(report.problem_count, 1, "{name} at {at}: {:?}", report.problems);
            assert!(report.problems[0].contains(name.as_str()));
            fs::write(&path, &good).unwrap();
        }
        fs::remove_file(&path).unwrap();
        assert!(verified(&directory.0).problems[0].contains("missing"));
        fs::write(&path, &good).unwrap();
    }
    assert!(verified(&directory.0).is_good());
}

#[test]
fn lost_parts_of_the_directory_are_not_made_anew() {
    for name in ["rocks/CURRENT", "INCARNATION"] {
        let directory = Directory::new();
        made(&directory);
        fs::remove_file(directory.join(name)).unwrap();
        let error = open(&directory.0).err().unwrap();
        assert!(matches!(error, Error::Corrupt { .. }), "{name}: {error}");
    }
    let directory = Directory::new();
    made(&directory);
    for name in disk::names(&directory.join("rocks")).unwrap() {
        fs::remove_file(directory.join("rocks").join(name)).unwrap();
    }
    assert!(matches!(open(&directory.0).err().unwrap(), Error::Corrupt { .. }));
    let directory = Directory::new();
    made(&directory);
    change(&last(&directory.0, "MANIFEST"), |bytes| bytes.truncate(bytes.len() / 2));
    assert!(open(&directory.0).is_err());
}
