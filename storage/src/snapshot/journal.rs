//! The journals that servers shipped to a target: one for each data directory, by its incarnation.
//!
//! ```text
//! journal/INCARNATION/LINEAGE                  where the directory came from, and since when
//! journal/INCARNATION/FIRST-LAST.journal       a segment; the next begins where it ends
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::manifest::{Ancestor, Manifest};
use super::place::Found;
use super::sealed::{Kind, seal, unseal};
use super::target::Target;
use crate::error::{Error, Result};
use crate::journal::ship::parse_name;
use crate::tx::TxId;

const KIND: Kind = Kind { word: "history", format: 1, what: "lineage of a journal" };

/// What is known of a data directory whose journal is shipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lineage {
    pub(super) incarnation: String,
    /// The directories that it was restored from, the first one first.
    pub(super) ancestors: Vec<Ancestor>,
    /// The server's clock when shipping began: microseconds since the Unix epoch.
    pub(super) began_at: i64,
}

/// A segment of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) first: TxId,
    pub(super) last: TxId,
    pub(super) found: Found,
}

/// A journal: its segments in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Journal {
    pub(super) lineage: Lineage,
    pub(super) segments: Vec<Segment>,
}

/// A stretch of a journal that leads on from a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) incarnation: String,
    pub(super) segments: Vec<Segment>,
    /// The last transaction of it that counts; nothing where all do.
    pub(super) until: Option<TxId>,
}

/// Returns the folder of a journal.
pub(super) fn folder(incarnation: &str) -> String {
    format!("journal/{incarnation}")
}

impl Lineage {
    /// Says once in a target where a data directory came from.
    pub(super) fn put(&self, target: &Target) -> Result<()> {
        let text = seal(&KIND, self).map_err(|why| target.error(why))?;
        let name = format!("{}/LINEAGE", folder(&self.incarnation));
        target.place().create(&name, text.as_bytes()).map(|_| ())
    }

    /// True where a snapshot is of this directory's past, or of itself.
    pub(super) fn has(&self, manifest: &Manifest) -> bool {
        let shared = |ancestor: &Ancestor| {
            ancestor.incarnation == manifest.incarnation && manifest.tx <= ancestor.tx
        };
        self.incarnation == manifest.incarnation || self.ancestors.iter().any(shared)
    }
}

/// Returns the segments among files of one journal, in their order.
///
/// # Errors
/// [`Error::Segment`] where one does not begin where the one before ends.
pub(super) fn segments(target: &Target, found: Vec<Found>) -> Result<Vec<Segment>> {
    let segment = |found: Found| {
        let (first, last) = parse_name(found.name.rsplit('/').next()?)?;
        Some(Segment { first, last, found })
    };
    let mut segments: Vec<Segment> = found.into_iter().filter_map(segment).collect();
    segments.sort_by_key(|segment| segment.first);
    for pair in segments.windows(2) {
        if pair[1].first != pair[0].last.plus(1) {
            let path = target.place().shown(&pair[1].found.name);
            let why = format!("it does not follow the segment that ends with {}", pair[0].last);
            return Err(Error::Segment { path, why });
        }
    }
    Ok(segments)
}

/// Returns all journals of a target, by incarnation.
///
/// # Errors
/// [`Error::Snapshot`] where a lineage is damaged, [`Error::Segment`].
pub(super) fn journals(target: &Target) -> Result<BTreeMap<String, Journal>> {
    let mut folders: BTreeMap<String, Vec<Found>> = BTreeMap::new();
    for found in target.place().list("journal")? {
        if let Some(incarnation) = found.name.split('/').nth(1) {
            folders.entry(incarnation.to_owned()).or_default().push(found);
        }
    }
    let mut journals = BTreeMap::new();
    for (incarnation, found) in folders {
        let name = format!("{}/LINEAGE", folder(&incarnation));
        // Without one it is no journal yet.
        let Some(bytes) = target.place().whole(&name)? else { continue };
        let lineage: Lineage = unseal(&KIND, &bytes).map_err(|why| {
            let place = target.place().shown(&name);
            Error::Snapshot { place, why }
        })?;
        let segments = segments(target, found)?;
        journals.insert(incarnation, Journal { lineage, segments });
    }
    Ok(journals)
}

/// Returns the stretches of journals that lead on from a snapshot in the history that is asked for:
/// by default that which began to be shipped last.
///
/// # Errors
/// [`Error::Snapshot`] where the history is not there or does not follow the snapshot, or there is a
/// gap between the two.
pub(super) fn following(
    target: &Target,
    manifest: &Manifest,
    history: Option<&str>,
) -> Result<Vec<Stretch>> {
    let journals = journals(target)?;
    let mut candidates: Vec<&Journal> =
        journals.values().filter(|journal| journal.lineage.has(manifest)).collect();
    candidates.sort_by_key(|journal| journal.lineage.began_at);
    let chosen = match history {
        None => candidates.last(),
        Some(asked) => {
            let found = candidates.iter().find(|journal| journal.lineage.incarnation == asked);
            if found.is_none() {
                let names: Vec<&str> =
                    candidates.iter().map(|j| j.lineage.incarnation.as_str()).collect();
                let why = format!(
                    "no journal of the history {asked} follows snapshot {}; there are: {}",
                    manifest.snapshot,
                    names.join(", ")
                );
                return Err(target.error(why));
            }
            found
        }
    };
    let Some(leaf) = chosen else { return Ok(Vec::new()) };
    let past = leaf.lineage.ancestors.iter().skip_while(|a| a.incarnation != manifest.incarnation);
    let path = past
        .map(|ancestor| (ancestor.incarnation.as_str(), Some(TxId::new(ancestor.tx))))
        .chain([(leaf.lineage.incarnation.as_str(), None)]);
    let mut reached = manifest.tx();
    let mut stretches = Vec::new();
    for (incarnation, until) in path {
        let segments = journals.get(incarnation).map_or(&[][..], |journal| &journal.segments);
        let wanted = |segment: &&Segment| {
            segment.last > reached && until.is_none_or(|until| segment.first <= until)
        };
        let segments: Vec<Segment> = segments.iter().filter(wanted).cloned().collect();
        let is_reached = until.is_some_and(|until| until <= reached);
        let begins = segments.first().map(|segment| segment.first);
        let has_gap = match begins {
            Some(first) => first > reached.plus(1),
            None => until.is_some() && !is_reached,
        };
        if has_gap {
            let why = format!(
                "the journal that follows transaction {reached} is not there (history \
                 {incarnation}): `--no-journal` restores the snapshot alone"
            );
            return Err(target.error(why));
        }
        if let Some(last) = segments.last().map(|segment| segment.last) {
            reached = until.map_or(last, |until| until.min(last));
        }
        stretches.push(Stretch { incarnation: incarnation.to_owned(), segments, until });
    }
    Ok(stretches)
}

/// Returns the files of journals that no kept snapshot needs. The last segment of each stays, so
/// that shipping goes on from it, but for those of directories that are not served any more.
pub(super) fn unneeded(target: &Target, kept: &[Manifest]) -> Result<Vec<Found>> {
    let mut gone = Vec::new();
    for journal in journals(target)?.into_values() {
        let lineage = &journal.lineage;
        let first = kept.iter().filter(|manifest| lineage.has(manifest)).map(Manifest::tx).min();
        let is_past = |ancestor: &Ancestor| ancestor.incarnation == lineage.incarnation;
        let (needed_after, spared) = match first {
            Some(first) => (first, 1),
            None if kept.iter().any(|m| m.ancestors.iter().any(is_past)) => (TxId::END, 0),
            None => continue,
        };
        let count = journal.segments.len().saturating_sub(spared);
        let old = journal.segments.into_iter().take(count).filter(|s| s.last <= needed_after);
        gone.extend(old.map(|segment| segment.found));
    }
    Ok(gone)
}
