//! A place for snapshots: a directory of blobs, each named by its hash, and of manifests.
//!
//! ```text
//! TARGET/FORMAT             "snapshots 1"
//! TARGET/LOCK               shared by those who create, verify or restore; whole by those who remove
//! TARGET/blobs/ab/abcd..    one file of a database, named by its SHA-256
//! TARGET/snapshots/N.json   a manifest, ten digits; the snapshot exists once this does
//! TARGET/partial/           what is being written
//! TARGET/journal/           journals shipped since, replayed after a snapshot
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use fs4::fs_std::FileExt as _;

use super::files::{Content, copy, remove, write_new};
use super::manifest::{Manifest, Part};
use crate::disk::{self, io_error, names, open, sync_folder, write_whole};
use crate::error::{Error, Result};

const FORMAT: &str = "snapshots 1";
/// What the names of files start with that prove who asks for a snapshot.
pub(super) const PROOF: &str = "proof-";

/// A directory that holds snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    root: PathBuf,
}

/// A snapshot as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub snapshot: u64,
    /// Its manifest, or why it cannot be used.
    pub manifest: Result<Manifest, String>,
}

/// Held while a target is used; given back with this.
pub(super) struct Held(#[expect(dead_code, reason = "the lock is the open file")] File);

/// Returns the snapshots of a target, oldest first, damaged ones too.
///
/// # Errors
/// [`Error::Snapshot`] where it is no target, [`Error::Io`].
pub fn list(target: &Target) -> Result<Vec<Listed>> {
    target.check_format()?;
    target.listed()
}

impl Target {
    /// Names a target: a path, or `file://` and an absolute one.
    ///
    /// # Errors
    /// [`Error::Snapshot`] for another kind of URL.
    pub fn at(place: &str) -> Result<Self> {
        let path = place.strip_prefix("file://").unwrap_or(place);
        let wrong = |why: &str| Error::Snapshot { place: place.to_owned(), why: why.to_owned() };
        if let Some((scheme, _)) = path.split_once("://") {
            return Err(wrong(&format!("targets of the kind {scheme}:// are not in this build")));
        }
        if path.is_empty() {
            return Err(wrong("a target must have a name"));
        }
        Ok(Self { root: PathBuf::from(path) })
    }

    /// Returns where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the folder of shipped journals, which may not be there.
    pub fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    /// Builds an error about this target.
    pub(super) fn error(&self, why: impl Into<String>) -> Error {
        Error::Snapshot { place: self.root.display().to_string(), why: why.into() }
    }

    /// Makes the target where there is none yet: in a directory that is missing or empty.
    pub(super) fn make(&self) -> Result<()> {
        if self.root.join("FORMAT").exists() {
            return self.check_format();
        }
        let strange =
            |name: &String| !name.starts_with(PROOF) && name != "lost+found" && !is_ours(name);
        if let Some(name) = names(&self.root)?.iter().find(|name| strange(name)) {
            let why = format!("it is no snapshot target and not empty (it holds {name:?})");
            return Err(self.error(why));
        }
        for folder in ["blobs", "snapshots", "partial"].map(|name| self.root.join(name)) {
            fs::create_dir_all(&folder).map_err(|source| io_error(&folder, source))?;
        }
        let lock = self.root.join("LOCK");
        let made = File::options().create(true).truncate(false).write(true).open(&lock);
        made.map_err(|source| io_error(&lock, source))?;
        // Last: a directory without it is not a target yet.
        write_whole(&self.root.join("FORMAT"), &format!("{FORMAT}\n"))
    }

    /// Refuses what is no target of a format that this program knows.
    pub(super) fn check_format(&self) -> Result<()> {
        let text = disk::text(&self.root.join("FORMAT"))?
            .ok_or_else(|| self.error("there are no snapshots: the file FORMAT is missing"))?;
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
    pub(super) fn share(&self) -> Result<Held> {
        let path = self.root.join("LOCK");
        let file = open(&path)?;
        match file.try_lock_shared() {
            Ok(()) => Ok(Held(file)),
            Err(TryLockError::WouldBlock) => {
                Err(self.error("snapshots are being removed; try again"))
            }
            Err(TryLockError::Error(source)) => Err(io_error(&path, source)),
        }
    }

    /// Keeps others from using the target; nothing where somebody does.
    pub(super) fn claim(&self) -> Result<Option<Held>> {
        let path = self.root.join("LOCK");
        let file = open(&path)?;
        match file.try_lock_exclusive() {
            Ok(held) => Ok(held.then_some(Held(file))),
            Err(source) => Err(io_error(&path, source)),
        }
    }

    /// Returns where a blob is or will be.
    pub(super) fn blob(&self, sha256: &str) -> PathBuf {
        let folder = sha256.get(..2).unwrap_or("00");
        self.root.join("blobs").join(folder).join(sha256)
    }

    /// True where a blob of that size is there.
    pub(super) fn has(&self, sha256: &str, bytes: u64) -> bool {
        fs::metadata(self.blob(sha256)).is_ok_and(|blob| blob.is_file() && blob.len() == bytes)
    }

    /// Copies a file into the blobs, durable but for the folders' lists ([`Self::settle`]).
    pub(super) fn put(&self, from: &Path, each: impl FnMut(u64) -> Result<()>) -> Result<Content> {
        let partial = self.partial();
        let content = copy(from, &partial, each).and_then(|content| {
            let blob = self.blob(&content.sha256);
            let folder = blob.parent().unwrap_or(&self.root);
            fs::create_dir_all(folder).map_err(|source| io_error(folder, source))?;
            fs::rename(&partial, &blob).map_err(|source| io_error(&blob, source))?;
            Ok(content)
        });
        if content.is_err() {
            remove(&partial)?;
        }
        content
    }

    /// Makes the lists of the folders that these blobs are in durable.
    pub(super) fn settle(&self, parts: &[Part]) -> Result<()> {
        let folders: BTreeSet<&str> = parts.iter().filter_map(|p| p.sha256.get(..2)).collect();
        for folder in folders {
            sync_folder(&self.root.join("blobs").join(folder))?;
        }
        sync_folder(&self.root.join("blobs"))
    }

    /// Publishes a manifest under the first number that is free, and gives it that number.
    pub(super) fn publish(&self, manifest: &mut Manifest) -> Result<()> {
        let folder = self.root.join("snapshots");
        let last = self.numbers()?.last().copied().unwrap_or(0);
        manifest.snapshot = last + 1;
        loop {
            let text = manifest.to_text().map_err(|why| self.error(why))?;
            let partial = self.partial();
            write_new(&partial, text.as_bytes())?;
            let path = self.manifest(manifest.snapshot);
            // A link is made whole or not at all, and never over what is there.
            let linked = fs::hard_link(&partial, &path);
            remove(&partial)?;
            match linked {
                Ok(()) => return sync_folder(&folder),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    manifest.snapshot += 1;
                }
                Err(source) => return Err(io_error(&path, source)),
            }
        }
    }

    pub(super) fn manifest(&self, snapshot: u64) -> PathBuf {
        self.root.join("snapshots").join(format!("{snapshot:010}.json"))
    }

    fn partial(&self) -> PathBuf {
        self.root.join("partial").join(uuid::Uuid::new_v4().simple().to_string())
    }

    fn numbers(&self) -> Result<Vec<u64>> {
        let names = names(&self.root.join("snapshots"))?;
        let stems = names.iter().filter_map(|name| name.strip_suffix(".json"));
        Ok(stems.filter(|stem| stem.len() == 10).filter_map(|stem| stem.parse().ok()).collect())
    }

    /// Returns the snapshots in order of their numbers.
    pub(super) fn listed(&self) -> Result<Vec<Listed>> {
        self.numbers()?.into_iter().map(|snapshot| self.read(snapshot)).collect()
    }

    fn read(&self, snapshot: u64) -> Result<Listed> {
        let path = self.manifest(snapshot);
        let bytes = fs::read(&path).map_err(|source| io_error(&path, source))?;
        let manifest = Manifest::of_text(&bytes).and_then(|manifest| {
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
    pub(super) fn sweep(&self, manifests: &[Manifest]) -> Result<(u64, u64)> {
        let (mut files, mut bytes) = (0, 0);
        let mut gone = |path: &Path| -> Result<()> {
            bytes += fs::metadata(path).map_or(0, |file| file.len());
            files += 1;
            remove(path)
        };
        let partial = self.root.join("partial");
        for name in names(&partial)? {
            gone(&partial.join(name))?;
        }
        for name in names(&self.root)?.iter().filter(|name| name.starts_with(PROOF)) {
            gone(&self.root.join(name))?;
        }
        let parts = manifests.iter().flat_map(|manifest| &manifest.files);
        let named: BTreeSet<&str> = parts.map(|part| part.sha256.as_str()).collect();
        let blobs = self.root.join("blobs");
        for folder in names(&blobs)? {
            let folder = blobs.join(folder);
            for blob in names(&folder)?.iter().filter(|blob| !named.contains(blob.as_str())) {
                gone(&folder.join(blob))?;
            }
        }
        Ok((files, bytes))
    }
}

/// True for what a target holds before it has its format file.
fn is_ours(name: &str) -> bool {
    matches!(name, "blobs" | "snapshots" | "partial" | "LOCK" | "FORMAT.partial" | "journal")
}
