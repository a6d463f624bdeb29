//! Snapshots: a consistent copy of the whole data directory in another place, taken while the
//! store serves, and what leads back from it.
//!
//! ```text
//! checkpoint (hard links) -> new files to blobs, by their hash -> manifest last, if absent
//! blobs -> a folder beside the data directory, every hash compared -> opened and counted -> renamed
//! ```
//!
//! A snapshot exists once its manifest does; whatever ends before leaves blobs that no manifest
//! names, which the next create or prune removes. `docs/format.md` draws a target's layout,
//! `docs/decisions/0005-snapshots.md` says why. Read next: [`create`], [`restore`].

mod again;
mod bucket;
mod check;
mod check_journal;
mod create;
mod directory;
mod erasures;
mod files;
mod journal;
mod lease;
mod manifest;
mod parallel;
mod place;
mod prune;
mod restore;
mod sealed;
mod ship;
mod target;

use std::ops::ControlFlow;

pub use again::ErasedAgain;
pub use check::{Checked, check};
pub use check_journal::{CheckedJournal, check_erasures, check_journals};
pub use create::{Created, create, proof_name};
pub use manifest::{Ancestor, FamilyCount, Manifest, Part, Source};
pub use prune::{Keep, Pruned, prune};
pub use restore::{Asked, Fetched, Prepared, Restored, prepare};
pub use ship::{Shipped, Shipper};
pub use target::{Listed, Target, list};

/// How far long work is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What is being done, as a verb form: `uploading`, `restoring`, ...
    pub doing: &'static str,
    pub files_done: u64,
    pub files: u64,
    pub bytes_done: u64,
    pub bytes: u64,
}

/// Called now and then by long work, from several threads; `Break` stops it with
/// [`crate::Error::Stopped`].
pub type Watch<'w> = &'w (dyn Fn(&Progress) -> ControlFlow<()> + Sync);

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

#[cfg(test)]
mod bucket_tests;
#[cfg(test)]
mod ship_tests;
