//! Targets in a bucket: uploads that fail, objects that were changed, leases of the dead.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path as Name;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result as StoreResult,
};

use super::bucket::Bucket;
use super::place::{For, blob_name};
use super::*;
use crate::error::Error;
use crate::testing::{Directory, define, open, record};

const GO_ON: Watch<'static> = &|_| ControlFlow::Continue(());
const LEASE: Duration = Duration::from_millis(200);

/// A store whose writes fail once so many have gone through.
#[derive(Debug)]
struct Faulty {
    inner: Arc<InMemory>,
    writes_left: AtomicI64,
    bytes_written: AtomicU64,
    /// The credentials may only read.
    is_denied: AtomicBool,
}

impl Faulty {
    fn new() -> Arc<Self> {
        let writes_left = AtomicI64::new(i64::MAX);
        Arc::new(Self {
            inner: Arc::default(),
            writes_left,
            bytes_written: AtomicU64::default(),
            is_denied: AtomicBool::default(),
        })
    }

    fn pass(&self) -> StoreResult<()> {
        if self.is_denied.load(Ordering::SeqCst) {
            let (path, source) = ("it".to_owned(), "403".into());
            return Err(object_store::Error::PermissionDenied { path, source });
        }
        if self.writes_left.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Ok(());
        }
        Err(object_store::Error::Generic { store: "faulty", source: "the wire was cut".into() })
    }
}

impl std::fmt::Display for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        at: &Name,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        self.pass()?;
        if at.as_ref().contains("blobs/") {
            self.bytes_written.fetch_add(payload.content_length() as u64, Ordering::SeqCst);
        }
        self.inner.put_opts(at, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Name,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.pass()?;
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Name, options: GetOptions) -> StoreResult<GetResult> {
        self.inner.get_opts(at, options).await
    }

    async fn get_ranges(&self, at: &Name, ranges: &[Range<u64>]) -> StoreResult<Vec<Bytes>> {
        self.inner.get_ranges(at, ranges).await
    }

    fn delete_stream(
        &self,
        names: BoxStream<'static, StoreResult<Name>>,
    ) -> BoxStream<'static, StoreResult<Name>> {
        self.inner.delete_stream(names)
    }

    fn list(&self, prefix: Option<&Name>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Name>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Name, to: &Name, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn target(store: Arc<dyn ObjectStore>) -> Target {
    let url = "s3://bucket/some/where".to_owned();
    let bucket = Bucket::over(store, Name::from("some/where"), url, LEASE).unwrap();
    Target::of(Arc::new(bucket))
}

/// Returns a target in a bucket of this process's memory.
pub(super) fn in_memory() -> Target {
    target(Arc::new(InMemory::new()))
}

fn now<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

struct Place {
    directory: Directory,
    store: Arc<Faulty>,
    target: Target,
}

impl Place {
    fn new() -> Self {
        let (directory, store) = (Directory::new(), Faulty::new());
        std::fs::create_dir_all(&directory.0).unwrap();
        let target = target(Arc::clone(&store) as Arc<dyn ObjectStore>);
        Self { directory, store, target }
    }

    fn data(&self, records: i64) -> crate::Store {
        let store = open(&self.directory.join("data")).unwrap();
        define(&store);
        (0..records).for_each(|n| record(&store, n));
        store
    }

    fn restore(&self) -> Result<Restored, Error> {
        let to = self.directory.join("restored");
        prepare(&self.target, &to, Asked::default(), GO_ON)?.publish()
    }
}

#[test]
fn an_upload_that_fails_anywhere_leaves_nothing_listed() {
    let place = Place::new();
    let store = place.data(20);
    create(&store, &place.target, GO_ON).unwrap();
    record(&store, 20);
    let before = list(&place.target).unwrap().len();
    let mut failures = 0;
    for writes in 0.. {
        place.store.writes_left.store(writes, Ordering::SeqCst);
        let outcome = create(&store, &place.target, GO_ON);
        place.store.writes_left.store(i64::MAX, Ordering::SeqCst);
        let listed = list(&place.target).unwrap();
        assert!(listed.iter().all(|listed| listed.manifest.is_ok()));
        match outcome {
            // The manifest is the last thing that a snapshot needs.
            _ if listed.len() > before => break,
            Err(Error::Snapshot { place, why }) => {
                assert!(place.starts_with("s3://bucket/some/where/"), "{place}");
                assert!(why.contains("the wire was cut"), "{why}");
                failures += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(failures > 3, "{failures}");
    let checked = check(&place.target, None, &place.directory.0, GO_ON).unwrap();
    assert!(checked.iter().all(|checked| checked.problems.is_empty()), "{checked:?}");
    place.restore().unwrap();
}

#[test]
fn a_blob_that_is_missing_or_changed_is_refused_by_name() {
    let place = Place::new();
    let store = place.data(10);
    let created = create(&store, &place.target, GO_ON).unwrap();
    for part in created.manifest.files.iter().filter(|part| part.bytes > 0) {
        let at = Name::from(format!("some/where/{}", blob_name(&part.sha256)));
        let good = now(async { place.store.inner.get(&at).await.unwrap().bytes().await.unwrap() });
        let mut bad = good.to_vec();
        bad[good.len() / 2] ^= 1;
        now(place.store.inner.put(&at, bad.into())).unwrap();
        let refused = place.restore().unwrap_err().to_string();
        assert!(refused.contains(&part.name) && refused.contains("tampered with"), "{refused}");
        now(place.store.inner.delete(&at)).unwrap();
        let refused = place.restore().unwrap_err().to_string();
        assert!(refused.contains(&part.name) && refused.contains("is missing"), "{refused}");
        now(place.store.inner.put(&at, good.into())).unwrap();
    }
    assert!(!place.directory.join("restored").exists());
    place.restore().unwrap();
}

#[test]
fn only_what_is_new_is_uploaded() {
    let place = Place::new();
    let store = place.data(400);
    create(&store, &place.target, GO_ON).unwrap();
    let first = place.store.bytes_written.swap(0, Ordering::SeqCst);
    record(&store, 400);
    let second = create(&store, &place.target, GO_ON).unwrap();
    let written = place.store.bytes_written.load(Ordering::SeqCst);
    assert!(written <= second.new_bytes && second.new_bytes < second.manifest.bytes());
    assert!(written < first, "{written} after {first}");
}

#[test]
fn files_larger_than_a_part_are_whole() {
    let place = Place::new();
    let file = place.directory.join("large");
    let bytes: Vec<u8> = (0..20_000_003_u32).map(|n| n.to_le_bytes()[0] ^ 7).collect();
    std::fs::write(&file, &bytes).unwrap();
    let mut told = 0;
    let content = place
        .target
        .place()
        .put_blob(&file, &mut |n| {
            told += n;
            Ok(())
        })
        .unwrap();
    assert_eq!((content.bytes, told), (20_000_003, 20_000_003));
    let found = place.target.content(&content.sha256, |_| Ok(())).unwrap();
    assert_eq!(found, Some(content.clone()));
    // Again: nothing is sent.
    place.store.writes_left.store(0, Ordering::SeqCst);
    assert_eq!(place.target.place().put_blob(&file, &mut |_| Ok(())).unwrap(), content);
    let stopped = place.target.place().put_file(&file, "journal/x");
    assert!(stopped.is_err());
}

#[test]
fn leases_exclude_each_other_and_those_of_the_dead_run_out() {
    let place = Place::new();
    let store = place.data(3);
    create(&store, &place.target, GO_ON).unwrap();
    let held = place.target.share(For::Writing).unwrap();
    assert!(prune(&place.target, Keep::default()).is_err());
    // It is kept fresh for longer than it lasts.
    std::thread::sleep(LEASE * 2);
    assert!(prune(&place.target, Keep::default()).is_err());
    held.renew().unwrap();
    drop(held);
    let claimed = place.target.claim().unwrap().unwrap();
    assert!(place.target.claim().unwrap().is_none());
    assert!(matches!(create(&store, &place.target, GO_ON), Err(Error::Snapshot { .. })));
    drop(claimed);
    // Left by processes that were killed.
    for left in ["locks/shared-dead", "locks/whole"] {
        let at = Name::from(format!("some/where/{left}"));
        now(place.store.inner.put(&at, "dead 0\n".into())).unwrap();
        assert!(prune(&place.target, Keep::default()).is_err(), "{left} is fresh");
        std::thread::sleep(LEASE + LEASE / 2);
        prune(&place.target, Keep::default()).unwrap();
    }
    assert_eq!(place.target.place().list("locks").unwrap(), []);
}

#[test]
fn whoever_may_only_read_can_verify_and_restore() {
    let place = Place::new();
    let store = place.data(3);
    create(&store, &place.target, GO_ON).unwrap();
    place.store.is_denied.store(true, Ordering::SeqCst);
    let checked = check(&place.target, None, &place.directory.0, GO_ON).unwrap();
    assert_eq!(checked[0].problems, [""; 0]);
    place.restore().unwrap();
    for refused in [
        create(&store, &place.target, GO_ON).map(|_| ()),
        prune(&place.target, Keep::default()).map(|_| ()),
    ] {
        let why = refused.unwrap_err().to_string();
        assert!(why.contains("locks") && why.contains("credentials may not write"), "{why}");
    }
}

#[test]
fn a_holder_that_was_too_slow_finds_out() {
    let place = Place::new();
    place.target.make().unwrap();
    let held = place.target.share(For::Writing).unwrap();
    let found = place.target.place().list("locks").unwrap();
    place.target.place().remove(&[found[0].name.clone()]).unwrap();
    assert!(held.renew().is_err());
}

#[test]
fn foreign_prefixes_are_not_written_to() {
    let place = Place::new();
    let store = place.data(1);
    let letter = Name::from("some/where/letter.txt");
    now(place.store.inner.put(&letter, "dear".into())).unwrap();
    let refused = create(&store, &place.target, GO_ON).unwrap_err().to_string();
    assert!(refused.contains("letter.txt"), "{refused}");
    assert!(list(&place.target).is_err());
    assert_eq!(place.target.place().list("").unwrap().len(), 1);
}
