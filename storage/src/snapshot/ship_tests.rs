//! Shipped journals and ledgers of erasures: what leads on from a snapshot, and what is kept.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::journal::following;
use super::*;
use crate::batch::{Batch, Tx, Write, WriteKind};
use crate::clock::ManualClock;
use crate::error::Error;
use crate::journal::segment::{SegmentPart, SegmentReader};
use crate::schema::{RowKey, TableId, Tenant};
use crate::store::Store;
use crate::testing::{Directory, define, history, open, record, submit};
use crate::tx::TxId;
use crate::value::Value;

const GO_ON: Watch<'static> = &|_| ControlFlow::Continue(());

fn places() -> [(Directory, Target); 2] {
    let directory = Directory::new();
    fs::create_dir_all(&directory.0).unwrap();
    let target = Target::at(&directory.join("backup").to_string_lossy()).unwrap();
    let other = Directory::new();
    fs::create_dir_all(&other.0).unwrap();
    [(directory, target), (other, bucket_tests::in_memory())]
}

fn store_of(directory: &Directory, records: i64) -> Store {
    let store = open(&directory.join("data")).unwrap();
    define(&store);
    (0..records).for_each(|n| record(&store, n));
    store
}

fn last_of(segment: &Path) -> TxId {
    let mut reader = SegmentReader::open(File::open(segment).unwrap(), "segment").unwrap();
    loop {
        if let SegmentPart::End(end) = reader.next().unwrap().unwrap() {
            return end.last.0;
        }
    }
}

#[test]
fn what_is_shipped_leads_on_from_a_snapshot() {
    for (directory, target) in places() {
        let store = store_of(&directory, 4);
        let mut shipper = Shipper::new(store.clone(), target.clone());
        let first = shipper.ship().unwrap().unwrap();
        assert_eq!((first.first, first.last), (TxId::new(1), TxId::new(5)));
        assert_eq!(shipper.ship().unwrap(), None);
        record(&store, 4);
        create(&store, &target, GO_ON).unwrap();
        (5..9).for_each(|n| record(&store, n));
        shipper.ship().unwrap().unwrap();
        (9..11).for_each(|n| record(&store, n));
        // As after a restart of the server.
        let last = Shipper::new(store.clone(), target.clone()).ship().unwrap().unwrap();
        assert_eq!((last.first, last.last), (TxId::new(11), TxId::new(12)));
        assert!(!directory.join("data/ship/segment").exists());

        let checked = check_journals(&target, &directory.0, GO_ON).unwrap();
        assert_eq!((checked[0].segments, checked[0].last), (3, TxId::new(12)));
        assert_eq!(checked[0].problems, [""; 0]);
        let name = format!("journal/{}/{:020}-{:020}.journal", store.incarnation(), 6, 10);
        let good = target.place().whole(&name).unwrap().unwrap();
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 1;
        for content in [bad, good[..good.len() - 1].to_vec(), good] {
            target.place().remove(std::slice::from_ref(&name)).unwrap();
            let checked = check_journals(&target, &directory.0, GO_ON).unwrap_err().to_string();
            assert!(checked.contains("does not follow"), "{checked}");
            target.place().create(&name, &content).unwrap();
            let problems = check_journals(&target, &directory.0, GO_ON).unwrap().remove(0).problems;
            assert!(problems.iter().all(|problem| problem.contains(&name)), "{problems:?}");
        }

        let data = directory.join("again");
        let mut prepared = prepare(&target, &data, Asked::default(), GO_ON).unwrap();
        let fetched = prepared.fetch_journal(None, GO_ON).unwrap();
        assert_eq!((fetched.len(), fetched[0].segments.len()), (1, 2));
        assert_eq!(fetched[0].last, TxId::new(12));
        assert_eq!(last_of(&fetched[0].segments[1]), TxId::new(12));
        assert!(prepared.fetch_journal(Some("nobody's"), GO_ON).is_err());
        prepared.publish().unwrap();
        assert!(!data.join("journal").exists());
    }
}

#[test]
fn a_copy_of_the_directory_that_falls_behind_is_refused() {
    let [(directory, target), _] = places();
    let store = store_of(&directory, 3);
    store.close().unwrap();
    let copy = directory.join("copy");
    copy_folder(&directory.join("data"), &copy);
    let store = open(&directory.join("data")).unwrap();
    (3..6).for_each(|n| record(&store, n));
    Shipper::new(store, target.clone()).ship().unwrap();
    let behind = open(&copy).unwrap();
    record(&behind, 3);
    let refused = Shipper::new(behind, target).ship();
    assert!(matches!(refused, Err(Error::Segment { .. })), "{refused:?}");
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let beside = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &beside);
        } else {
            fs::copy(&path, &beside).unwrap();
        }
    }
}

#[test]
fn a_journal_that_begins_after_the_snapshot_is_a_gap() {
    let [(directory, target), _] = places();
    let store = store_of(&directory, 2);
    let created = create(&store, &target, GO_ON).unwrap();
    let mut shipper = Shipper::new(store.clone(), target.clone());
    for n in 2..5 {
        record(&store, n);
        shipper.ship().unwrap().unwrap();
    }
    let found = target.place().list(&format!("journal/{}", store.incarnation())).unwrap();
    let segments: Vec<&String> =
        found.iter().map(|f| &f.name).filter(|name| name.ends_with(".journal")).collect();
    target.place().remove(&[segments[0].clone()]).unwrap();
    let refused = following(&target, &created.manifest, None).unwrap_err().to_string();
    assert!(refused.contains("--no-journal"), "{refused}");
    target.place().remove(&[segments[2].clone()]).unwrap();
    assert!(following(&target, &created.manifest, None).is_err());
}

#[test]
fn pruning_keeps_the_journal_that_kept_snapshots_need() {
    for (directory, target) in places() {
        let store = store_of(&directory, 1);
        let mut shipper = Shipper::new(store.clone(), target.clone());
        for n in 1..5 {
            create(&store, &target, GO_ON).unwrap();
            record(&store, n);
            shipper.ship().unwrap().unwrap();
        }
        let segments = || {
            let found = target.place().list("journal").unwrap();
            found.iter().filter(|found| found.name.ends_with(".journal")).count()
        };
        prune(&target, Keep::default()).unwrap();
        assert_eq!(segments(), 4);
        prune(&target, Keep { last: Some(2), since: None }).unwrap();
        assert_eq!(segments(), 2);
        let data = directory.join("again");
        let mut prepared = prepare(&target, &data, Asked::default(), GO_ON).unwrap();
        assert_eq!(prepared.fetch_journal(None, GO_ON).unwrap()[0].last, TxId::new(6));
        drop(prepared);
        // Shipping goes on where it was.
        record(&store, 5);
        assert!(Shipper::new(store, target.clone()).ship().unwrap().is_some());
    }
}

fn erase(store: &Store, key: &str) {
    let write = |table: u32| Write {
        tenant: Tenant::default(),
        table: TableId(table),
        kind: WriteKind::Erase { key: RowKey::encode(&[Value::Text(key.to_owned())]).unwrap() },
    };
    let txs = vec![Tx { writes: vec![write(1), write(2)], position: None }];
    submit(store, Batch { txs, ..Batch::default() });
}

#[test]
fn what_was_erased_since_the_snapshot_is_erased_again() {
    for (directory, target) in places() {
        let store = store_of(&directory, 10);
        create(&store, &target, GO_ON).unwrap();
        let shown =
            |key: &str| format!("{:?}", RowKey::encode(&[Value::Text(key.to_owned())]).unwrap());
        assert!(history(&store).unwrap().contains(&shown("k3")));
        erase(&store, "k3");
        erase(&store, "never seen");
        // The ledger goes along with a later snapshot, too.
        create(&store, &target, GO_ON).unwrap();
        let clock = || Arc::new(ManualClock::at(2_000_000));
        let data = directory.join("again");
        let asked = Asked { snapshot: Some(1), ..Asked::default() };
        let mut prepared = prepare(&target, &data, asked, GO_ON).unwrap();
        let again = prepared.erase_again(clock()).unwrap();
        assert_eq!((again.erasures, again.keys, again.unmarked), (4, 2, 0));
        assert!(!again.unfinished);
        prepared.publish().unwrap();
        let restored = open(&data).unwrap();
        let found = history(&restored).unwrap();
        assert!(!found.contains(&shown("k3")) && found.contains(&shown("k2")), "{found}");
        assert_eq!(restored.erasures_under_way().unwrap(), []);
        assert_eq!(restored.erase_secret().unwrap(), store.erase_secret().unwrap());

        // The newest has them already.
        let data = directory.join("newest");
        let mut prepared = prepare(&target, &data, Asked::default(), GO_ON).unwrap();
        assert_eq!(prepared.erase_again(clock()).unwrap(), ErasedAgain::default());

        assert_eq!(check_erasures(&target).unwrap(), [""; 0]);
        let ledger = target.place().list("erasures").unwrap().remove(0).name;
        target.place().remove(std::slice::from_ref(&ledger)).unwrap();
        target.place().create(&ledger, b"everwhen erasures 1 sha256 00\n{}\n").unwrap();
        let refused = prepared.erase_again(clock()).unwrap_err().to_string();
        assert!(refused.contains("tampered with") && refused.contains(&ledger), "{refused}");
        assert_eq!(check_erasures(&target).unwrap().len(), 1);
    }
}
