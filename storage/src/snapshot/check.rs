//! Checking snapshots where they are: every hash, and that their files make a database.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::Watch;
use super::create::Described;
use super::manifest::{Manifest, Part};
use super::parallel::{Meter, each};
use super::place::{For, blob_name};
use super::target::{Target, problem};
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
/// `scratch` is an empty folder: links are made in it, and the blobs of a bucket are kept there.
/// Blocking: reads every byte.
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
    let _held = target.share(For::Reading)?;
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
        let problem = blob_problem(target, part, scratch, &meter)?;
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
    for part in &manifest.files {
        let link = folder.join(&part.name);
        let blob = local(target, part, scratch)?;
        symlink(blob, &link).map_err(|source| io_error(&link, source))?;
    }
    let described = Described::of(&folder);
    std::fs::remove_dir_all(&folder).map_err(|source| io_error(&folder, source))?;
    match described {
        Ok(described) => Ok(described.differs_from(manifest).into_iter().collect()),
        Err(error @ Error::Io { .. }) => Err(error),
        Err(error) => Ok(vec![format!("its files do not open: {error}")]),
    }
}

/// Reads a blob and says what is wrong with it; nothing for a good one. One of a bucket is kept in
/// the scratch folder, to be opened from there.
fn blob_problem(
    target: &Target,
    part: &Part,
    scratch: &Path,
    meter: &Meter<'_>,
) -> Result<Option<String>> {
    let told = |bytes| meter.add(0, bytes);
    let content = match target.folder() {
        Some(_) => target.content(&part.sha256, told)?,
        None => target.fetch(&blob_name(&part.sha256), &scratch.join(&part.sha256), told)?,
    };
    Ok(problem(part, content.as_ref()))
}

/// Returns where on this machine a blob is that was read.
fn local(target: &Target, part: &Part, scratch: &Path) -> Result<PathBuf> {
    let path = match target.folder() {
        Some(folder) => folder.join(blob_name(&part.sha256)),
        None => scratch.join(&part.sha256),
    };
    std::path::absolute(&path).map_err(|source| io_error(&path, source))
}
