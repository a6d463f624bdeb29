//! Checking snapshots where they are: every hash, and that their files make a database.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::Watch;
use super::create::Described;
use super::files::content;
use super::manifest::{Manifest, Part};
use super::parallel::{Meter, each};
use super::target::Target;
use crate::disk::io_error;
use crate::error::{Error, Result};

/// What was found out about one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    pub snapshot: u64,
    /// Nothing where its manifest is damaged.
    pub manifest: Option<Manifest>,
    /// What is wrong with it, in words for people; empty for a good one.
    pub problems: Vec<String>,
}

/// Checks one snapshot or all of them, oldest first. Each blob is read once.
///
/// `scratch` is an empty folder that links are made in. Blocking: reads every byte.
///
/// # Errors
/// [`Error::Snapshot`] where there is no such target or snapshot, [`Error::Stopped`] by `watch`,
/// [`Error::Io`]; damage stands in the answer.
pub fn check(
    target: &Target,
    snapshot: Option<u64>,
    scratch: &Path,
    watch: Watch<'_>,
) -> Result<Vec<Checked>> {
    target.check_format()?;
    let _held = target.share()?;
    let mut listed = target.listed()?;
    if let Some(wanted) = snapshot {
        listed.retain(|listed| listed.snapshot == wanted);
        if listed.is_empty() {
            return Err(target.error(format!("there is no snapshot {wanted}")));
        }
    }
    let manifests = listed.iter().filter_map(|listed| listed.manifest.as_ref().ok());
    let blobs: BTreeMap<&str, &Part> = manifests
        .flat_map(|manifest| &manifest.files)
        .map(|part| (part.sha256.as_str(), part))
        .collect();
    let blobs: Vec<&Part> = blobs.into_values().collect();
    let bytes = blobs.iter().map(|part| part.bytes).sum();
    let meter = Meter::new("verifying", blobs.len() as u64, bytes, watch);
    meter.add(0, 0)?;
    let found = each(&blobs, |part| {
        let problem = blob_problem(target, part, &meter)?;
        meter.add(1, 0)?;
        Ok((part.sha256.as_str(), problem))
    })?;
    let found: BTreeMap<&str, Option<String>> = found.into_iter().collect();
    listed
        .iter()
        .map(|listed| {
            let (manifest, problems) = match &listed.manifest {
                Err(why) => (None, vec![format!("its manifest: {why}")]),
                Ok(manifest) => {
                    (Some(manifest.clone()), problems(target, manifest, &found, scratch)?)
                }
            };
            Ok(Checked { snapshot: listed.snapshot, manifest, problems })
        })
        .collect()
}

fn problems(
    target: &Target,
    manifest: &Manifest,
    found: &BTreeMap<&str, Option<String>>,
    scratch: &Path,
) -> Result<Vec<String>> {
    let of_part = |part: &Part| {
        let problem = found.get(part.sha256.as_str())?.as_ref()?;
        Some(format!("{}: {problem}", part.name))
    };
    let problems: Vec<String> = manifest.files.iter().filter_map(of_part).collect();
    if !problems.is_empty() {
        return Ok(problems);
    }
    let folder = scratch.join(manifest.snapshot.to_string());
    std::fs::create_dir(&folder).map_err(|source| io_error(&folder, source))?;
    let root = std::path::absolute(target.root()).map_err(|e| io_error(target.root(), e))?;
    let absolute = Target::at(&root.to_string_lossy())?;
    for part in &manifest.files {
        let link = folder.join(&part.name);
        symlink(absolute.blob(&part.sha256), &link).map_err(|source| io_error(&link, source))?;
    }
    let described = Described::of(&folder);
    std::fs::remove_dir_all(&folder).map_err(|source| io_error(&folder, source))?;
    match described {
        Ok(described) => Ok(described.differs_from(manifest).into_iter().collect()),
        Err(error @ Error::Io { .. }) => Err(error),
        Err(error) => Ok(vec![format!("its files do not open: {error}")]),
    }
}

/// Says what is wrong with a blob; nothing for a good one.
fn blob_problem(target: &Target, part: &Part, meter: &Meter<'_>) -> Result<Option<String>> {
    let path = target.blob(&part.sha256);
    if !path.exists() {
        return Ok(Some(format!("its blob {} is missing", part.sha256)));
    }
    let content = content(&path, |piece| meter.add(0, piece.len() as u64))?;
    Ok(difference(part, content.bytes, &content.sha256))
}

/// Says how what was read differs from what a manifest names.
pub(super) fn difference(part: &Part, bytes: u64, sha256: &str) -> Option<String> {
    if bytes != part.bytes {
        let blob = &part.sha256;
        return Some(format!("its blob {blob} has {bytes} bytes instead of {}", part.bytes));
    }
    (sha256 != part.sha256)
        .then(|| format!("its blob {} holds other content: damaged or tampered with", part.sha256))
}
