//! What a target needs of where its files are: a directory or a bucket.
//!
//! Names are relative to the target and parted by `/`. A file is there wholly or not at all, and is
//! durable once the call that wrote it answers (blobs: once [`Place::settle`] does).

use std::fmt;
use std::path::Path;

use super::files::Content;
use super::manifest::Part;
use crate::error::Result;

/// Told the bytes of every piece that was copied; its error ends the copying.
pub(super) type Told<'a> = &'a mut dyn FnMut(u64) -> Result<()>;
/// Handed the pieces of a file in their order; its error ends the reading.
pub(super) type Pieces<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

/// A file of a target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    pub(super) name: String,
    pub(super) bytes: u64,
}

/// What a target is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// Reading alone: goes on without a lock where it may not write one.
    Reading,
    Writing,
}

/// Where a target's files are. Everything blocks.
pub(super) trait Place: fmt::Debug + Send + Sync {
    /// Returns the whole name of a file, or of the place for an empty name, for people.
    fn shown(&self, name: &str) -> String;

    /// Returns the folder of this machine that it is, if it is one.
    fn folder(&self) -> Option<&Path>;

    /// Makes it ready to be written to, `FORMAT` last, with this text.
    ///
    /// # Errors
    /// [`crate::Error::Snapshot`] where it holds something else.
    fn make(&self, format: &str) -> Result<()>;

    /// Returns a small file; nothing where there is none.
    fn whole(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// Reads a file; false where there is none.
    fn read(&self, name: &str, each: Pieces<'_>) -> Result<bool>;

    /// Returns the first bytes of a file, at most so many; nothing where there is none.
    fn start(&self, name: &str, bytes: u64) -> Result<Option<Vec<u8>>>;

    /// Returns the size of a file; nothing where there is none.
    fn bytes_of(&self, name: &str) -> Result<Option<u64>>;

    /// Returns all files below a folder in the order of their names.
    fn list(&self, folder: &str) -> Result<Vec<Found>>;

    /// Makes a small file; false where the name is taken.
    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool>;

    /// Copies a file of this machine under a name; false where the name is taken.
    fn put_file(&self, from: &Path, name: &str) -> Result<bool>;

    /// Copies a file of this machine into the blobs, unless it is there.
    fn put_blob(&self, from: &Path, told: Told<'_>) -> Result<Content>;

    /// Makes sure that blobs are there for good.
    fn settle(&self, parts: &[Part]) -> Result<()>;

    /// Removes files, durably; one that is not there is good.
    fn remove(&self, names: &[String]) -> Result<()>;

    /// Returns what killed processes may have left, blobs apart.
    fn leftovers(&self) -> Result<Vec<Found>>;

    /// Keeps others from removing anything; nothing where somebody is removing.
    fn share(&self, what_for: For) -> Result<Option<Held>>;

    /// Keeps others from using it; nothing where somebody does.
    fn claim(&self) -> Result<Option<Held>>;
}

/// A lock on a target.
pub(super) trait Hold: Send + Sync {
    /// Makes sure that nobody took the lock away meanwhile.
    ///
    /// # Errors
    /// [`crate::Error::Snapshot`] where somebody did.
    fn renew(&self) -> Result<()>;
}

/// Held while a target is used; given back with this.
pub(super) struct Held(pub(super) Box<dyn Hold>);

impl Held {
    /// Makes sure that it is still held: before what must not be done without.
    pub(super) fn renew(&self) -> Result<()> {
        self.0.renew()
    }
}

/// Returns the name of a blob.
pub(super) fn blob_name(sha256: &str) -> String {
    let folder = sha256.get(..2).unwrap_or("00");
    format!("blobs/{folder}/{sha256}")
}

/// True for what a target holds before it has its format file.
pub(super) fn is_ours(name: &str) -> bool {
    let first = name.split('/').next().unwrap_or_default();
    let ours =
        ["blobs", "snapshots", "partial", "LOCK", "FORMAT.partial", "journal", "erasures", "locks"];
    ours.contains(&first)
}
