use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use super::place::{For, blob_name};
use super::*;
use crate::error::{Error, Result};
use crate::store::Store;
use crate::testing::{Directory, define, history, open, record};
use crate::time::SystemTime;
use crate::tx::TxId;

const GO_ON: Watch<'static> = &|_| ControlFlow::Continue(());

struct Place {
    directory: Directory,
    target: Target,
}

impl Place {
    fn new() -> Self {
        let directory = Directory::new();
        fs::create_dir_all(&directory.0).unwrap();
        let target = Target::at(&directory.join("backup").to_string_lossy()).unwrap();
        Self { directory, target }
    }

    fn in_bucket() -> Self {
        Self { target: bucket_tests::in_memory(), ..Self::new() }
    }

    fn root(&self) -> std::path::PathBuf {
        self.target.folder().unwrap().to_owned()
    }

    fn store(&self, records: i64) -> Store {
        let store = open(&self.directory.join("data")).unwrap();
        define(&store);
        (0..records).for_each(|n| record(&store, n));
        store
    }

    fn create(&self, store: &Store) -> Created {
        create(store, &self.target, GO_ON).unwrap()
    }

    fn restore(&self, name: &str, asked: Asked) -> Result<Restored> {
        prepare(&self.target, &self.directory.join(name), asked, GO_ON)?.publish()
    }

    fn check(&self) -> Vec<Checked> {
        let scratch = self.directory.join("scratch");
        fs::create_dir(&scratch).unwrap();
        let checked = check(&self.target, None, &scratch, GO_ON).unwrap();
        fs::remove_dir_all(&scratch).unwrap();
        checked
    }
}

fn refusal(result: Result<Restored>) -> String {
    match result {
        Err(error @ (Error::Snapshot { .. } | Error::Refused { .. })) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

fn files_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn a_restored_store_answers_as_then_and_goes_on() {
    for place in [Place::new(), Place::in_bucket()] {
        a_restored_store_answers_as_then_and_goes_on_in(&place);
    }
}

fn a_restored_store_answers_as_then_and_goes_on_in(place: &Place) {
    let store = place.store(30);
    let then = history(&store).unwrap();
    let first = place.create(&store);
    assert_eq!((first.manifest.snapshot, first.manifest.tx), (1, 31));
    assert_eq!(first.manifest.sources[0].next_offset, 30);
    assert!(first.manifest.families[0].entries > 0);
    (30..40).for_each(|n| record(&store, n));
    let second = place.create(&store);
    assert!(second.new_bytes < second.manifest.bytes(), "tables of the first are known");
    assert_eq!(place.check().iter().map(|c| c.problems.len()).collect::<Vec<_>>(), [0, 0]);
    let incarnation = store.incarnation();
    drop(store);

    let asked = Asked { tx: Some(TxId::new(35)), ..Asked::default() };
    fs::create_dir(place.directory.join("again")).unwrap();
    let restored = place.restore("again", asked).unwrap();
    assert_eq!(restored.tx, TxId::new(31));
    let again = open(&place.directory.join("again")).unwrap();
    assert_eq!(again.incarnation(), restored.incarnation);
    assert_ne!(again.incarnation(), incarnation);
    assert_eq!(history(&again).unwrap(), then);
    assert_eq!(again.source_offsets("s").unwrap(), [("t".to_owned(), 0, 30)]);
    record(&again, 30);
    assert_eq!(again.latest().tx, TxId::new(32));
    let of_restored = place.create(&again);
    let parent = Ancestor { incarnation, tx: 31 };
    assert_eq!(of_restored.manifest.ancestors, [parent]);
    // The second one's history is not that of the newest.
    let asked = Asked { tx: Some(TxId::new(41)), ..Asked::default() };
    assert_eq!(place.restore("third", asked).unwrap().manifest.snapshot, 3);
    let asked = Asked { snapshot: Some(2), ..Asked::default() };
    assert_eq!(place.restore("second", asked).unwrap().tx, TxId::new(41));
}

#[test]
fn instants_and_transactions_before_the_first_are_refused() {
    for place in [Place::new(), Place::in_bucket()] {
        instants_and_transactions_before_the_first_are_refused_in(&place);
    }
}

fn instants_and_transactions_before_the_first_are_refused_in(place: &Place) {
    let store = place.store(3);
    let created = place.create(&store);
    let at = created.manifest.system_time();
    let asked = Asked { system_time: Some(at), ..Asked::default() };
    assert_eq!(place.restore("good", asked).unwrap().tx, TxId::new(4));
    let before = SystemTime::from_micros(at.micros() - 1);
    for asked in [
        Asked { system_time: Some(before), ..Asked::default() },
        Asked { tx: Some(TxId::new(3)), ..Asked::default() },
        Asked { snapshot: Some(7), ..Asked::default() },
        Asked { snapshot: Some(1), tx: Some(TxId::new(1)), ..Asked::default() },
    ] {
        refusal(place.restore("bad", asked));
        assert!(!place.directory.join("bad").exists());
    }
    let used = refusal(place.restore("good", Asked::default()));
    assert!(used.contains("not empty"), "{used}");
}

#[test]
fn damaged_snapshots_are_refused_with_the_reason() {
    let place = Place::new();
    let store = place.store(10);
    place.create(&store);
    drop(store);
    let root = place.root();
    for path in files_below(&root.join("blobs")) {
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        if let Some(byte) = bad.get_mut(middle) {
            *byte ^= 1;
            fs::write(&path, &bad).unwrap();
            let why = refusal(place.restore("bad", Asked::default()));
            assert!(why.contains("damaged or tampered with"), "{why}");
            assert_eq!(place.check()[0].problems.len(), 1);
            fs::write(&path, &good[..good.len() - 1]).unwrap();
            assert!(refusal(place.restore("bad", Asked::default())).contains("bytes instead of"));
        }
        fs::remove_file(&path).unwrap();
        assert!(refusal(place.restore("bad", Asked::default())).contains("is missing"));
        fs::write(&path, &good).unwrap();
    }
    let manifest = root.join("snapshots/0000000001.json");
    let good = fs::read(&manifest).unwrap();
    fs::write(&manifest, &good[..good.len() / 2]).unwrap();
    assert!(refusal(place.restore("bad", Asked::default())).contains("torn"));
    assert_eq!(place.check()[0].problems.len(), 1);
    assert!(prune(&place.target, Keep { last: Some(1), since: None }).is_err());
    fs::write(&manifest, &good).unwrap();
    fs::rename(&manifest, root.join("snapshots/0000000002.json")).unwrap();
    assert!(refusal(place.restore("bad", Asked::default())).contains("under another name"));
    assert!(!place.directory.join("bad").exists());
    assert!(!place.directory.join(".bad.restoring").exists());
}

#[test]
fn foreign_directories_are_not_written_to() {
    let place = Place::new();
    let store = place.store(1);
    let home = place.directory.join("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("letter.txt"), "dear").unwrap();
    for foreign in [home.clone(), place.directory.join("data")] {
        let target = Target::at(&foreign.to_string_lossy()).unwrap();
        let before = files_below(&foreign);
        assert!(matches!(create(&store, &target, GO_ON), Err(Error::Snapshot { .. })));
        assert_eq!(files_below(&foreign), before);
        assert!(matches!(list(&target), Err(Error::Snapshot { .. })));
    }
    assert!(Target::at("ftp://host/x").is_err());
    assert!(Target::at("s3://").is_err());
    assert_eq!(Target::at("file:///x").unwrap().folder(), Some(Path::new("/x")));
}

#[test]
fn what_is_stopped_leaves_no_snapshot_and_goes_with_the_next() {
    let place = Place::new();
    let store = place.store(20);
    let stop: Watch<'_> = &|progress| match progress.files_done {
        0 | 1 => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    };
    assert!(matches!(create(&store, &place.target, stop), Err(Error::Stopped)));
    assert_eq!(list(&place.target).unwrap(), []);
    fs::write(place.root().join("partial/left"), "over").unwrap();
    let strange = place.root().join("blobs/00");
    fs::create_dir_all(&strange).unwrap();
    fs::write(strange.join("0".repeat(64)), "left over").unwrap();
    let created = place.create(&store);
    let blobs = files_below(&place.root().join("blobs"));
    assert_eq!(blobs.len(), created.manifest.files.len());
    assert_eq!(files_below(&place.root().join("partial")).len(), 0);
    let left = fs::read_dir(place.directory.join("data")).unwrap();
    let is_checkpoint = |name: std::ffi::OsString| name.to_string_lossy().contains("checkpoint");
    assert_eq!(left.filter(|e| is_checkpoint(e.as_ref().unwrap().file_name())).count(), 0);
}

#[test]
fn pruning_keeps_what_the_rules_keep_and_all_that_it_needs() {
    for place in [Place::new(), Place::in_bucket()] {
        pruning_keeps_what_the_rules_keep_and_all_that_it_needs_in(&place);
    }
}

fn pruning_keeps_what_the_rules_keep_and_all_that_it_needs_in(place: &Place) {
    let store = place.store(5);
    for n in 5..9 {
        place.create(&store);
        record(&store, n);
    }
    let nothing = prune(&place.target, Keep::default()).unwrap();
    assert_eq!((nothing.removed.len(), nothing.files), (0, 0));
    let all = Keep { last: None, since: Some(0) };
    assert_eq!(prune(&place.target, all).unwrap().removed.len(), 0);
    let pruned = prune(&place.target, Keep { last: Some(2), since: None }).unwrap();
    assert_eq!((pruned.removed, pruned.kept), (vec![1, 2], vec![3, 4]));
    assert!(pruned.files > 0);
    assert!(place.check().iter().all(|checked| checked.problems.is_empty()));
    let none = prune(&place.target, Keep { last: Some(0), since: Some(i64::MAX) }).unwrap();
    assert_eq!(none.kept, [4], "the newest stays");
    assert_eq!(place.restore("again", Asked::default()).unwrap().tx, TxId::new(9));
}

#[test]
fn who_asks_proves_it_by_a_name_of_hex_digits() {
    assert_eq!(proof_name(&"ab".repeat(16)).unwrap(), format!("proof-{}", "ab".repeat(16)));
    for bad in ["", "../x", &"AB".repeat(16), &"a".repeat(31)] {
        assert_eq!(proof_name(bad), None);
    }
}

#[test]
fn a_target_that_cannot_be_written_is_an_error_with_its_path() {
    let place = Place::new();
    let store = place.store(1);
    place.create(&store);
    let partial = place.root().join("partial");
    fs::remove_dir(&partial).unwrap();
    fs::write(&partial, "a file in the way").unwrap();
    match create(&store, &place.target, GO_ON) {
        Err(Error::Io { path, .. }) => assert!(Path::new(&path).starts_with(place.root())),
        other => panic!("{other:?}"),
    }
    assert_eq!(list(&place.target).unwrap().len(), 1);
}

#[test]
fn nothing_is_removed_while_somebody_is_at_work() {
    let place = Place::new();
    let store = place.store(3);
    place.create(&store);
    let held = place.target.share(For::Writing).unwrap();
    let refused = prune(&place.target, Keep::default());
    assert!(matches!(refused, Err(Error::Snapshot { .. })), "{refused:?}");
    let left = place.root().join("partial/of-another");
    fs::write(&left, "under way").unwrap();
    place.create(&store);
    assert!(left.exists(), "a create tidies up only where nobody else is at work");
    drop(held);
    let claimed = place.target.claim().unwrap().unwrap();
    assert!(matches!(create(&store, &place.target, GO_ON), Err(Error::Snapshot { .. })));
    drop(claimed);
    assert_eq!(prune(&place.target, Keep::default()).unwrap().files, 1);
}

#[test]
fn a_blob_that_was_lost_is_made_again_by_the_next_snapshot() {
    let place = Place::new();
    let store = place.store(10);
    let created = place.create(&store);
    let is_table = |part: &&Part| part.name.ends_with(".sst");
    let table = created.manifest.files.iter().find(is_table).unwrap();
    fs::remove_file(place.root().join(blob_name(&table.sha256))).unwrap();
    assert_eq!(place.check()[0].problems.len(), 1);
    place.create(&store);
    assert!(place.check()[1].problems.is_empty());
}
