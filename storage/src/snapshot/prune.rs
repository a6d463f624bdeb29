//! Removing old snapshots, and what no snapshot names.

use super::journal::unneeded;
use super::manifest::Manifest;
use super::target::{Target, manifest_name};
use crate::error::Result;
use crate::failpoint;

/// Which snapshots to keep: those that either rule keeps, and always the newest good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    /// The newest so many.
    pub last: Option<u64>,
    /// Those taken at or after this instant, in microseconds since the Unix epoch.
    pub since: Option<i64>,
}

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pruned {
    /// Snapshots, oldest first.
    pub removed: Vec<u64>,
    pub kept: Vec<u64>,
    pub files: u64,
    pub bytes: u64,
}

/// Removes the good snapshots that `keep` does not keep, then every blob that none names, and the
/// shipped journal up to the oldest one that is kept.
///
/// Damaged manifests are left: while one is there, blobs are left too, since what it named is not
/// known. Without a rule nothing but leftovers is removed.
///
/// # Errors
/// [`crate::Error::Snapshot`] where it is no target, somebody is at work there, or a manifest is
/// damaged; [`crate::Error::Io`].
pub fn prune(target: &Target, keep: Keep) -> Result<Pruned> {
    target.check_format()?;
    let Some(claimed) = target.claim()? else {
        return Err(target.error("a snapshot is being taken, verified or restored; try again"));
    };
    let mut manifests: Vec<Manifest> = Vec::new();
    for listed in target.listed()? {
        match listed.manifest {
            Ok(manifest) => manifests.push(manifest),
            Err(why) => {
                let shown = target.place().shown(&manifest_name(listed.snapshot));
                let why = format!(
                    "the manifest of snapshot {} cannot be used ({why}), so what it needs is not \
                     known: remove {shown} first",
                    listed.snapshot
                );
                return Err(target.error(why));
            }
        }
    }
    let count = manifests.len() as u64;
    let is_kept = |at: u64, manifest: &Manifest| {
        let from_the_end = count - at;
        let none = keep.last.is_none() && keep.since.is_none();
        none || from_the_end == 1
            || keep.last.is_some_and(|last| from_the_end <= last)
            || keep.since.is_some_and(|since| manifest.taken_at >= since)
    };
    let mut removed = Vec::new();
    let mut kept = Vec::new();
    for (at, manifest) in (0..).zip(manifests) {
        if is_kept(at, &manifest) {
            kept.push(manifest);
        } else {
            removed.push(manifest.snapshot);
        }
    }
    // A manifest must never outlive its blobs.
    claimed.renew()?;
    let manifests: Vec<String> = removed.iter().map(|snapshot| manifest_name(*snapshot)).collect();
    target.place().remove(&manifests)?;
    failpoint::pass("prune.manifests_removed");
    let old = unneeded(target, &kept)?;
    let names: Vec<String> = old.iter().map(|found| found.name.clone()).collect();
    target.place().remove(&names)?;
    let (mut files, mut bytes) = target.sweep(&claimed, &kept)?;
    files += old.len() as u64;
    bytes += old.iter().map(|found| found.bytes).sum::<u64>();
    let kept = kept.iter().map(|manifest| manifest.snapshot).collect();
    Ok(Pruned { removed, kept, files, bytes })
}
