//! A place for snapshots: blobs, each named by its hash, and manifests; in a directory or a bucket.
//!
//! ```text
//! TARGET/FORMAT             "snapshots 1"
//! TARGET/LOCK               shared by those who create, verify or restore; whole by those who remove
//! TARGET/locks/             the same in a bucket: leases
//! TARGET/blobs/ab/abcd..    one file of a database, named by its SHA-256
//! TARGET/snapshots/N.json   a manifest, ten digits; the snapshot exists once this does
//! TARGET/partial/           what is being written; not in a bucket
//! TARGET/journal/           journals shipped since, replayed after a snapshot
//! ```

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bucket::Bucket;
use super::directory::Directory;
use super::files::{Content, Hashing};
use super::manifest::{Manifest, Part};
use super::place::{For, Found, Held, Place, blob_name};
use crate::disk::io_error;
use crate::error::{Error, Result};

const FORMAT: &str = "snapshots 1";
/// What the names of files start with that prove who asks for a snapshot.
pub(super) const PROOF: &str = "proof-";

/// A place that holds snapshots. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Target {
    place: Arc<dyn Place>,
}

/// A snapshot as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub snapshot: u64,
    /// Its manifest, or why it cannot be used.
    pub manifest: Result<Manifest, String>,
}

/// Returns the snapshots of a target, oldest first, damaged ones too.
///
/// # Errors
/// [`Error::Snapshot`] where it is no target or a bucket does not answer, [`Error::Io`].
pub fn list(target: &Target) -> Result<Vec<Listed>> {
    target.check_format()?;
    target.listed()
}

impl Target {
    /// Names a target: a path, `file://` and an absolute one, `s3://bucket/prefix` or
    /// `gs://bucket/prefix`. Credentials of buckets come from the process's environment.
    ///
    /// Connects to nothing.
    ///
    /// # Errors
    /// [`Error::Snapshot`] for another kind of URL, or an environment that cannot be used.
    pub fn at(place: &str) -> Result<Self> {
        let path = place.strip_prefix("file://").unwrap_or(place);
        let wrong = |why: &str| Error::Snapshot { place: place.to_owned(), why: why.to_owned() };
        if path.is_empty() {
            return Err(wrong("a target must have a name"));
        }
        let place: Arc<dyn Place> = match path.split_once("://") {
            None => Arc::new(Directory::at(PathBuf::from(path))),
            Some((scheme @ ("s3" | "gs"), rest)) => Arc::new(Bucket::at(scheme, rest)?),
            Some((scheme, _)) => {
                let known = "a directory, file://, s3:// and gs:// are";
                return Err(wrong(&format!(
                    "targets of the kind {scheme}:// are not known; {known}"
                )));
            }
        };
        Ok(Self { place })
    }

    #[cfg(test)]
    pub(super) fn of(place: Arc<dyn Place>) -> Self {
        Self { place }
    }

    /// Returns its name for people: a path or a URL.
    pub fn shown(&self) -> String {
        self.place.shown("")
    }

    /// Returns the directory of this machine that it is; nothing for a bucket.
    pub fn folder(&self) -> Option<&Path> {
        self.place.folder()
    }

    /// Returns where its files are.
    pub(super) fn place(&self) -> &dyn Place {
        &*self.place
    }

    /// Builds an error about this target.
    pub(super) fn error(&self, why: impl Into<String>) -> Error {
        Error::Snapshot { place: self.shown(), why: why.into() }
    }

    /// Makes the target where there is none yet: in a place that is missing or empty.
    pub(super) fn make(&self) -> Result<()> {
        if self.place.bytes_of("FORMAT")?.is_some() {
            return self.check_format();
        }
        self.place.make(&format!("{FORMAT}\n"))
    }

    /// Refuses what is no target of a format that this program knows.
    pub(super) fn check_format(&self) -> Result<()> {
        let bytes = self
            .place
            .whole("FORMAT")?
            .ok_or_else(|| self.error("there are no snapshots: the file FORMAT is missing"))?;
        let text = String::from_utf8_lossy(&bytes);
        if text == format!("{FORMAT}\n") {
            return Ok(());
        }
        if text.trim().parse::<u32>().is_ok() {
            return Err(self.error("this is a data directory, not a place of snapshots"));
        }
        let found: String = text.trim().chars().take(40).collect();
        Err(self.error(format!("its format is {found:?}, this program reads {FORMAT:?}")))
    }

    /// Keeps others from removing anything.
    pub(super) fn share(&self, what_for: For) -> Result<Held> {
        let held = self.place.share(what_for)?;
        held.ok_or_else(|| self.error("snapshots are being removed; try again"))
    }

    /// Keeps others from using the target; nothing where somebody does.
    pub(super) fn claim(&self) -> Result<Option<Held>> {
        self.place.claim()
    }

    /// Reads a blob and returns what it holds; nothing where it is missing.
    pub(super) fn content(
        &self,
        sha256: &str,
        mut told: impl FnMut(u64) -> Result<()>,
    ) -> Result<Option<Content>> {
        let mut hashing = Hashing::new();
        let found = self.place.read(&blob_name(sha256), &mut |piece| {
            hashing.add(piece);
            told(piece.len() as u64)
        })?;
        Ok(found.then(|| hashing.end()))
    }

    /// Copies a file of the target to a new one, synced, and returns what it holds; nothing where
    /// it is missing.
    pub(super) fn fetch(
        &self,
        name: &str,
        to: &Path,
        mut told: impl FnMut(u64) -> Result<()>,
    ) -> Result<Option<Content>> {
        let failed = |source| io_error(to, source);
        let mut out = File::options().write(true).create_new(true).open(to).map_err(failed)?;
        let mut hashing = Hashing::new();
        let found = self.place.read(name, &mut |piece| {
            hashing.add(piece);
            out.write_all(piece).map_err(failed)?;
            told(piece.len() as u64)
        })?;
        out.sync_all().map_err(failed)?;
        Ok(found.then(|| hashing.end()))
    }

    /// Publishes a manifest under the first number that is free, and gives it that number.
    pub(super) fn publish(&self, manifest: &mut Manifest) -> Result<()> {
        let last = self.numbers()?.last().copied().unwrap_or(0);
        manifest.snapshot = last + 1;
        loop {
            let text = manifest.to_text().map_err(|why| self.error(why))?;
            if self.place.create(&manifest_name(manifest.snapshot), text.as_bytes())? {
                return Ok(());
            }
            manifest.snapshot += 1;
        }
    }

    fn numbers(&self) -> Result<Vec<u64>> {
        let found = self.place.list("snapshots")?;
        let stem = |found: &Found| {
            let name = found.name.strip_prefix("snapshots/")?.strip_suffix(".json")?;
            (name.len() == 10).then(|| name.parse().ok()).flatten()
        };
        Ok(found.iter().filter_map(stem).collect())
    }

    /// Returns the snapshots in order of their numbers.
    pub(super) fn listed(&self) -> Result<Vec<Listed>> {
        self.numbers()?.into_iter().map(|snapshot| self.read(snapshot)).collect()
    }

    fn read(&self, snapshot: u64) -> Result<Listed> {
        let bytes = self.place.whole(&manifest_name(snapshot))?;
        let manifest = bytes.ok_or_else(|| "it is gone".to_owned()).and_then(|bytes| {
            let manifest = Manifest::of_text(&bytes)?;
            if manifest.snapshot == snapshot {
                return Ok(manifest);
            }
            Err(format!("it is the manifest of snapshot {}, under another name", manifest.snapshot))
        });
        Ok(Listed { snapshot, manifest })
    }

    /// Removes what is being written by nobody, and blobs that no manifest names.
    ///
    /// Call it with the target claimed, and only where every manifest can be read.
    pub(super) fn sweep(&self, claimed: &Held, manifests: &[Manifest]) -> Result<(u64, u64)> {
        let parts = manifests.iter().flat_map(|manifest| &manifest.files);
        let named: BTreeSet<String> = parts.map(|part| blob_name(&part.sha256)).collect();
        let mut gone = self.place.leftovers()?;
        gone.extend(self.place.list("blobs")?.into_iter().filter(|f| !named.contains(&f.name)));
        let bytes = gone.iter().map(|found| found.bytes).sum();
        let names: Vec<String> = gone.into_iter().map(|found| found.name).collect();
        for some in names.chunks(REMOVED_AT_ONCE) {
            claimed.renew()?;
            self.place.remove(some)?;
        }
        Ok((names.len() as u64, bytes))
    }
}

/// Files removed before the lock is looked at again.
const REMOVED_AT_ONCE: usize = 1_000;

/// Returns the name of a manifest.
pub(super) fn manifest_name(snapshot: u64) -> String {
    format!("snapshots/{snapshot:010}.json")
}

/// Says what is wrong with what was read of a part's blob; nothing for a good one.
pub(super) fn problem(part: &Part, content: Option<&Content>) -> Option<String> {
    let blob = &part.sha256;
    let Some(Content { bytes, sha256 }) = content else {
        return Some(format!("its blob {blob} is missing"));
    };
    if *bytes != part.bytes {
        return Some(format!("its blob {blob} has {bytes} bytes instead of {}", part.bytes));
    }
    (sha256 != blob)
        .then(|| format!("its blob {blob} holds other content: damaged or tampered with"))
}
