//! Checking what stands beside the snapshots: shipped journals and ledgers of erasures.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use super::Watch;
use super::erasures;
use super::journal::{Segment, journals};
use super::parallel::Meter;
use super::place::For;
use super::target::Target;
use crate::disk::io_error;
use crate::error::{Error, Result};
use crate::journal::segment::{SegmentPart, SegmentReader};
use crate::tx::TxId;

/// What was found out about the journal of one data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedJournal {
    pub incarnation: String,
    pub segments: usize,
    /// The last transaction in it.
    pub last: TxId,
    /// What is wrong with it, in words for people; empty for a good one.
    pub problems: Vec<String>,
}

/// Reads every shipped journal to its end. `scratch` is a folder for the segments of a bucket, one
/// at a time. Blocking.
///
/// # Errors
/// [`Error::Snapshot`] where there is no target or a lineage is damaged, [`Error::Segment`] where a
/// segment is missing between others, [`Error::Stopped`] by `watch`, [`Error::Io`]; damage of
/// segments stands in the answer.
pub fn check_journals(
    target: &Target,
    scratch: &Path,
    watch: Watch<'_>,
) -> Result<Vec<CheckedJournal>> {
    target.check_format()?;
    let _held = target.share(For::Reading)?;
    let journals = journals(target)?;
    let all = || journals.values().flat_map(|journal| &journal.segments);
    let bytes = all().map(|segment| segment.found.bytes).sum();
    let meter = Meter::new("verifying the journal", all().count() as u64, bytes, watch);
    let mut checked = Vec::new();
    for (incarnation, journal) in &journals {
        let mut problems = Vec::new();
        for segment in &journal.segments {
            problems.extend(problem(target, incarnation, segment, scratch)?);
            meter.add(1, segment.found.bytes)?;
        }
        checked.push(CheckedJournal {
            incarnation: incarnation.clone(),
            segments: journal.segments.len(),
            last: journal.segments.last().map_or(TxId::ZERO, |segment| segment.last),
            problems,
        });
    }
    Ok(checked)
}

/// Reads every ledger of erasures and says what is wrong with them; nothing where all are good.
///
/// # Errors
/// [`Error::Snapshot`] where there is no target, [`Error::Io`].
pub fn check_erasures(target: &Target) -> Result<Vec<String>> {
    target.check_format()?;
    erasures::problems(target)
}

fn problem(
    target: &Target,
    incarnation: &str,
    segment: &Segment,
    scratch: &Path,
) -> Result<Option<String>> {
    let name = &segment.found.name;
    let shown = target.place().shown(name);
    let path = match target.folder() {
        Some(folder) => folder.join(name),
        None => {
            let path: PathBuf = scratch.join("segment");
            if path.exists() {
                fs::remove_file(&path).map_err(|source| io_error(&path, source))?;
            }
            if target.fetch(name, &path, |_| Ok(()))?.is_none() {
                return Ok(Some(format!("{shown}: it is missing")));
            }
            path
        }
    };
    let file = File::open(&path).map_err(|source| io_error(&path, source))?;
    match read(BufReader::with_capacity(1 << 20, file), &shown, incarnation, segment) {
        Ok(()) => Ok(None),
        Err(error @ Error::Io { .. }) => Err(error),
        Err(error) => Ok(Some(error.to_string())),
    }
}

fn read(input: BufReader<File>, shown: &str, incarnation: &str, segment: &Segment) -> Result<()> {
    let wrong = |why: &str| Error::Segment { path: shown.to_owned(), why: why.to_owned() };
    let mut reader = SegmentReader::open(input, shown)?;
    if reader.head().incarnation != incarnation {
        return Err(wrong("it is of another data directory"));
    }
    if reader.head().after.0.plus(1) != segment.first {
        return Err(wrong("it begins with another transaction than its name says"));
    }
    let mut last = TxId::ZERO;
    while let Some(part) = reader.next()? {
        if let SegmentPart::End(end) = part {
            last = end.last.0;
        }
    }
    match last == segment.last {
        true => Ok(()),
        false => Err(wrong("it ends with another transaction than its name says")),
    }
}
