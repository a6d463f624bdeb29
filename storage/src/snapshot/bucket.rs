//! A target in a bucket of an object store: `s3://` and `gs://`.
//!
//! The one file that names `object_store`. Its calls are asynchronous, storage works on threads: a
//! private runtime runs them on the thread that waits. Memory is bounded: a file is read and sent in
//! parts of [`PART`] bytes. An object is there once its last part and the end of the upload are; of
//! one that was broken off nothing is ever listed.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path as Name;
use object_store::{
    Error as StoreError, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, RetryConfig,
    UpdateVersion, WriteMultipart,
};
use tokio::runtime::{Builder, Runtime};

use super::files::{Content, Hashing, content};
use super::lease::{Leases, Stamp, Version, Written};
use super::manifest::Part;
use super::place::{For, Found, Held, Pieces, Place, Told, blob_name, is_ours};
use crate::disk::{io_error, open};
use crate::error::{Error, Result};

/// Bytes sent or asked for at once; larger files are uploaded in parts of it.
const PART: usize = 8 << 20;
/// Parts of one file under way at once.
const PARTS_UNDER_WAY: usize = 2;
/// How long a request is tried again.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRIES_MAX: usize = 6;
/// Characters told of what a store says.
const TOLD_MAX: usize = 600;
/// After this long without a sign of life somebody's lease counts no more.
const LEASE: Duration = Duration::from_secs(120);

/// A part of a bucket that holds snapshots. Cheap to clone.
#[derive(Clone)]
pub(super) struct Bucket {
    shared: Arc<Shared>,
    lease: Duration,
}

struct Shared {
    store: Arc<dyn ObjectStore>,
    prefix: Name,
    url: String,
    /// Nothing while it is dropped.
    runtime: Option<Runtime>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Waits for nothing, so that it may be dropped on an async thread.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bucket").field(&self.shared.url).finish()
    }
}

impl Bucket {
    /// Names a part of a bucket: what follows `s3://` or `gs://`. Credentials and the end point come
    /// from the environment; nothing is connected to.
    pub(super) fn at(scheme: &str, rest: &str) -> Result<Self> {
        let rest = rest.trim_end_matches('/');
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let url = format!("{scheme}://{rest}");
        let wrong = |why: String| Error::Snapshot { place: url.clone(), why };
        if bucket.is_empty() {
            return Err(wrong("it names no bucket".to_owned()));
        }
        let prefix = Name::parse(prefix).map_err(|error| wrong(told(&error)))?;
        let store = match scheme {
            "s3" => amazon(bucket),
            _ => google(bucket),
        };
        let store = store.map_err(|error| {
            let advice = "the environment must hold usable settings (docs/operations.md)";
            wrong(format!("{}; {advice}", told(&error)))
        })?;
        Self::over(store, prefix, url, LEASE)
    }

    /// Uses a part of a store that is there.
    pub(super) fn over(
        store: Arc<dyn ObjectStore>,
        prefix: Name,
        url: String,
        lease: Duration,
    ) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| Error::Io { path: url.clone(), source })?;
        let shared = Shared { store, prefix, url, runtime: Some(runtime) };
        Ok(Self { shared: Arc::new(shared), lease })
    }

    fn run<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        match &self.shared.runtime {
            Some(runtime) => runtime.block_on(work),
            None => Err(StoreError::Generic { store: "bucket", source: "it is closed".into() }),
        }
    }

    fn name(&self, name: &str) -> Name {
        name.split('/')
            .filter(|part| !part.is_empty())
            .fold(self.shared.prefix.clone(), |path, part| path.join(part))
    }

    /// Says what could not be done to which object, and what to do.
    fn failed(&self, doing: &str, name: &str, error: &StoreError) -> Error {
        let advice = match error {
            StoreError::PermissionDenied { .. } => "the credentials may not do that",
            StoreError::Unauthenticated { .. } => "the credentials are not accepted",
            StoreError::NotFound { .. } => "the bucket must exist",
            StoreError::Precondition { .. } | StoreError::AlreadyExists { .. } => {
                "somebody else is writing there"
            }
            _ => "look at the bucket's name, the end point and the credentials, then try again",
        };
        let why = format!("cannot {doing} it: {}; {advice}", told(error));
        Error::Snapshot { place: self.shown(name), why }
    }

    /// Writes a small object where `over` is what is there: nothing, or one writing of it.
    pub(super) fn write_if(
        &self,
        name: &str,
        bytes: &[u8],
        over: Option<&Version>,
    ) -> Result<Written> {
        let mode = match over {
            None => PutMode::Create,
            Some(version) => PutMode::Update(UpdateVersion {
                e_tag: version.e_tag.clone(),
                version: version.version.clone(),
            }),
        };
        let path = self.name(name);
        let payload = Bytes::copy_from_slice(bytes).into();
        match self.run(self.shared.store.put_opts(&path, payload, PutOptions::from(mode))) {
            Ok(put) => Ok(Written::Now(Version { e_tag: put.e_tag, version: put.version })),
            Err(
                StoreError::AlreadyExists { .. }
                | StoreError::Precondition { .. }
                | StoreError::NotFound { .. },
            ) => {
                // It may be ours all the same: the answer was lost, and the request sent again.
                let is_ours = self.whole(name)?.is_some_and(|found| found == bytes);
                let stamp = if is_ours { self.stamp(name)? } else { None };
                Ok(stamp.map_or(Written::Not, |stamp| Written::Now(stamp.version)))
            }
            Err(StoreError::PermissionDenied { .. }) => Ok(Written::Denied),
            Err(error) => Err(self.failed("write", name, &error)),
        }
    }

    /// Returns when an object was written, by the store's clock.
    pub(super) fn stamp(&self, name: &str) -> Result<Option<Stamp>> {
        match self.run(self.shared.store.head(&self.name(name))) {
            Ok(meta) => Ok(Some(Stamp {
                written_ms: meta.last_modified.timestamp_millis(),
                version: Version { e_tag: meta.e_tag, version: meta.version },
            })),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("look at", name, &error)),
        }
    }

    /// Says that the credentials do not suffice to write an object.
    pub(super) fn denied(&self, name: &str) -> Error {
        let why = "the credentials may not write it; use others, or let them".to_owned();
        Error::Snapshot { place: self.shown(name), why }
    }

    fn write(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        let path = self.name(name);
        let put = self.run(self.shared.store.put(&path, Bytes::from(bytes).into()));
        put.map(|_| ()).map_err(|error| self.failed("write", name, &error))
    }

    /// Uploads a file in parts, if it still is what it was.
    fn write_parts(
        &self,
        from: &Path,
        name: &str,
        content: &Content,
        told: Told<'_>,
    ) -> Result<()> {
        let failed = |error: StoreError| self.failed("write", name, &error);
        let path = self.name(name);
        let upload = self.run(self.shared.store.put_multipart(&path)).map_err(failed)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
        let sent = self.send(from, &mut upload, name, told).and_then(|sent| {
            if sent == *content {
                return Ok(());
            }
            let why = "it changed while it was read".to_owned();
            Err(Error::Snapshot { place: from.display().to_string(), why })
        });
        if let Err(error) = sent {
            // What this cannot take back is seen by nobody; the store's own rules remove it.
            if let Err(error) = self.run(upload.abort()) {
                tracing::warn!(%error, object = name, "an upload was not taken back");
            }
            return Err(error);
        }
        self.run(upload.finish()).map(|_| ()).map_err(failed)
    }

    fn send(
        &self,
        from: &Path,
        upload: &mut WriteMultipart,
        name: &str,
        told: Told<'_>,
    ) -> Result<Content> {
        let mut file = open(from)?;
        let mut hashing = Hashing::new();
        let mut buffer = vec![0; PART];
        loop {
            let read = file.read(&mut buffer).map_err(|source| io_error(from, source))?;
            if read == 0 {
                return Ok(hashing.end());
            }
            let piece = &buffer[..read];
            hashing.add(piece);
            let sent = self.run(async {
                upload.wait_for_capacity(PARTS_UNDER_WAY).await?;
                upload.write(piece);
                Ok(())
            });
            sent.map_err(|error| self.failed("write", name, &error))?;
            told(read as u64)?;
        }
    }

    fn range(&self, name: &str, range: std::ops::Range<u64>) -> Result<Option<Bytes>> {
        match self.run(self.shared.store.get_range(&self.name(name), range)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("read", name, &error)),
        }
    }
}

impl Place for Bucket {
    fn shown(&self, name: &str) -> String {
        match name {
            "" => self.shared.url.clone(),
            name => format!("{}/{name}", self.shared.url),
        }
    }

    fn folder(&self) -> Option<&Path> {
        None
    }

    fn make(&self, format: &str) -> Result<()> {
        let found = self.list("")?;
        if let Some(strange) = found.iter().find(|found| !is_ours(&found.name)) {
            let name = &strange.name;
            let why = format!("it is no snapshot target and not empty (it holds {name:?})");
            return Err(Error::Snapshot { place: self.shown(""), why });
        }
        // Another one may have made it just now: then it must say the same.
        self.create("FORMAT", format.as_bytes()).map(|_| ())
    }

    fn whole(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.name(name);
        let read = self.run(async { self.shared.store.get(&path).await?.bytes().await });
        match read {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("read", name, &error)),
        }
    }

    fn read(&self, name: &str, each: Pieces<'_>) -> Result<bool> {
        let Some(bytes) = self.bytes_of(name)? else { return Ok(false) };
        let mut from = 0;
        while from < bytes {
            let to = bytes.min(from + PART as u64);
            let Some(piece) = self.range(name, from..to)? else { return Ok(false) };
            each(&piece)?;
            from = to;
        }
        Ok(true)
    }

    fn start(&self, name: &str, bytes: u64) -> Result<Option<Vec<u8>>> {
        match self.bytes_of(name)? {
            None => Ok(None),
            Some(0) => Ok(Some(Vec::new())),
            Some(size) => Ok(self.range(name, 0..size.min(bytes))?.map(|start| start.to_vec())),
        }
    }

    fn bytes_of(&self, name: &str) -> Result<Option<u64>> {
        match self.run(self.shared.store.head(&self.name(name))) {
            Ok(meta) => Ok(Some(meta.size)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("look at", name, &error)),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<Found>> {
        let prefix = self.name(folder);
        let listed = self.run(self.shared.store.list(Some(&prefix)).try_collect::<Vec<_>>());
        let listed = listed.map_err(|error| self.failed("list", folder, &error))?;
        let mut found: Vec<Found> = listed
            .into_iter()
            .filter_map(|meta| {
                let parts = meta.location.prefix_match(&self.shared.prefix)?;
                let parts: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
                Some(Found { name: parts.join("/"), bytes: meta.size })
            })
            .collect();
        found.sort();
        Ok(found)
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        match self.write_if(name, bytes, None)? {
            Written::Now(_) => Ok(true),
            Written::Not => Ok(false),
            Written::Denied => Err(self.denied(name)),
        }
    }

    fn put_file(&self, from: &Path, name: &str) -> Result<bool> {
        let size = std::fs::metadata(from).map_err(|source| io_error(from, source))?.len();
        if size <= PART as u64 {
            let bytes = std::fs::read(from).map_err(|source| io_error(from, source))?;
            return self.create(name, &bytes);
        }
        // Uploads in parts are not conditional everywhere: only one process writes such a name.
        if self.bytes_of(name)?.is_some() {
            return Ok(false);
        }
        let content = content(from, |_| Ok(()))?;
        self.write_parts(from, name, &content, &mut |_| Ok(())).map(|()| true)
    }

    fn put_blob(&self, from: &Path, told: Told<'_>) -> Result<Content> {
        let size = std::fs::metadata(from).map_err(|source| io_error(from, source))?.len();
        if size > PART as u64 {
            let content = content(from, |_| told(0))?;
            let name = blob_name(&content.sha256);
            if self.bytes_of(&name)? == Some(content.bytes) {
                told(content.bytes)?;
            } else {
                self.write_parts(from, &name, &content, told)?;
            }
            return Ok(content);
        }
        let bytes = std::fs::read(from).map_err(|source| io_error(from, source))?;
        let mut hashing = Hashing::new();
        hashing.add(&bytes);
        let content = hashing.end();
        let name = blob_name(&content.sha256);
        if self.bytes_of(&name)? != Some(content.bytes) {
            self.write(&name, bytes)?;
        }
        told(content.bytes)?;
        Ok(content)
    }

    fn settle(&self, parts: &[Part]) -> Result<()> {
        // Somebody whose lease was thought to be over may have removed what was known.
        let found = self.list("blobs")?;
        let found: BTreeSet<Found> = found.into_iter().collect();
        for part in parts {
            let blob = Found { name: blob_name(&part.sha256), bytes: part.bytes };
            if !found.contains(&blob) {
                let why = format!("the blob {} is not there any more; try again", blob.name);
                return Err(Error::Snapshot { place: self.shown(""), why });
            }
        }
        Ok(())
    }

    fn remove(&self, names: &[String]) -> Result<()> {
        let paths: Vec<_> = names.iter().map(|name| Ok(self.name(name))).collect();
        let removed = self.run(async {
            let mut removed = self.shared.store.delete_stream(futures::stream::iter(paths).boxed());
            while let Some(one) = removed.next().await {
                match one {
                    Ok(_) | Err(StoreError::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        let first = names.first().map_or("", String::as_str);
        removed.map_err(|error| self.failed("remove", first, &error))
    }

    fn leftovers(&self) -> Result<Vec<Found>> {
        Ok(Vec::new())
    }

    fn share(&self, what_for: For) -> Result<Option<Held>> {
        Leases::new(self, self.lease).share(what_for)
    }

    fn claim(&self) -> Result<Option<Held>> {
        Leases::new(self, self.lease).claim()
    }
}

fn retries() -> RetryConfig {
    RetryConfig { max_retries: RETRIES_MAX, retry_timeout: PATIENCE, ..RetryConfig::default() }
}

fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn amazon(bucket: &str) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let mut builder = AmazonS3Builder::new().with_retry(retries());
    for (name, value) in variables().filter(|(name, _)| name.starts_with("AWS_")) {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    Ok(Arc::new(builder.with_bucket_name(bucket).build()?))
}

fn google(bucket: &str) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let mut builder = GoogleCloudStorageBuilder::new().with_retry(retries());
    for (name, value) in variables() {
        if name == "SERVICE_ACCOUNT" {
            builder = builder.with_service_account_path(value);
        } else if name.starts_with("GOOGLE_")
            && let Ok(key) = name.to_ascii_lowercase().parse::<GoogleConfigKey>()
        {
            builder = builder.with_config(key, value);
        }
    }
    Ok(Arc::new(builder.with_bucket_name(bucket).build()?))
}

/// Returns an error with its causes as one line of bounded length.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(TOLD_MAX) {
        Some((at, _)) => format!("{}..", &line[..at]),
        None => line,
    }
}
