//! The version of one key at one instant.
//!
//! At the latest belief that is one segment. At a past one it is a stored piece and what was cut off
//! it since: the pieces beside it are read, one step of the cursor each, for as long as they are of
//! the same transaction and row.

use crate::error::Result;
use crate::key::Fork;
use crate::scan::gather::{self, Target};
use crate::scan::merge::Believed;
use crate::scan::reader::{Reader, Walk};
use crate::time::{Period, ValidTime};
use crate::tx::TxId;

/// Pieces that are joined step by step; of a version that was cut more often, windows are read.
const JOINED_MAX: usize = 12;

/// A version's times, its row bytes apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) valid: Period<ValidTime>,
    pub(crate) tx_from: TxId,
}

/// Calls `each` with the version of a key at an instant as believed at the reader's transaction.
///
/// Where the latest belief is what is read, it costs at most one seek past the `current` entry. Of a past
/// one, the version's period may be a part of it unless it is to be `whole`.
pub(crate) fn point<T>(
    reader: &Reader<'_>,
    target: &Target<'_>,
    at: ValidTime,
    whole: bool,
    each: impl FnOnce(Found, &[u8]) -> Result<T>,
) -> Result<Option<T>> {
    let tx = reader.tx();
    let Some(instant) = Period::nonempty(at, at.saturating_add(1)) else { return Ok(None) };
    let believed = Believed::at(tx);
    if reader.shown(&target.current, believed).is_none() {
        return Ok(None);
    }
    if target.unchanged || target.current.archive.is_empty() || reader.is_latest(tx) {
        return latest(reader, target, at, each);
    }
    if !whole && reader.is_in_order() {
        return near(reader, target, at, each);
    }
    let mut past = Past { reader, target, walk: reader.walk(target.prefix) };
    let mut row = Vec::new();
    let Some(mut found) = past.piece(at, &mut row)? else { return Ok(None) };
    if !whole || past.join(&mut found, &row)? {
        return each(found, &row).map(Some);
    }
    drop(past);
    let mut pieces = reader.pieces();
    gather::versions(reader, target, instant, believed, &mut pieces)?;
    let found = pieces.iter().find(|piece| piece.valid.contains(at));
    let answer = found.map(|piece| {
        let found = Found { valid: piece.valid, tx_from: piece.tx_from };
        each(found, pieces.row(piece))
    });
    answer.transpose()
}

/// Calls `each` with the row of a key at an instant as believed at the reader's transaction, and
/// the transaction that made it, without looking for the version's bounds.
pub(crate) fn row_at<T>(
    reader: &Reader<'_>,
    target: &Target<'_>,
    at: ValidTime,
    each: impl FnOnce(TxId, &[u8]) -> Result<T>,
) -> Result<Option<T>> {
    if reader.shown(&target.current, Believed::at(reader.tx())).is_none() {
        return Ok(None);
    }
    let mut past = Past { reader, target, walk: reader.walk(target.prefix) };
    let mut row = Vec::new();
    let found = past.piece(at, &mut row)?;
    found.map(|found| each(found.tx_from, &row)).transpose()
}

/// Calls `each` with the stored piece that holds an instant, of rows that are read in order.
fn near<T>(
    reader: &Reader<'_>,
    target: &Target<'_>,
    at: ValidTime,
    each: impl FnOnce(Found, &[u8]) -> Result<T>,
) -> Result<Option<T>> {
    let mut row = Vec::new();
    let found = match settled(target, at, reader.tx(), &mut row) {
        Settled::Answer(answer) => answer,
        Settled::Open { timeline } => {
            let take = |found: Found, bytes: &[u8]| {
                row.extend_from_slice(bytes);
                Ok(found)
            };
            match if timeline { reader.timeline_at(target.prefix, at, take)? } else { None } {
                Some(found) => Some(found),
                None => match reader.superseded_near(target.prefix, at, &mut row)? {
                    Some(answer) => answer,
                    None => superseded(reader, target, at, &mut row)?,
                },
            }
        }
    };
    found.map(|found| each(found, &row)).transpose()
}

/// What the `current` entry says of an instant.
enum Settled {
    Answer(Option<Found>),
    /// The answer lies elsewhere, perhaps in the timeline.
    Open {
        timeline: bool,
    },
}

/// Returns what a `current` entry says of an instant as believed at a transaction, the row in `row`.
fn settled(target: &Target<'_>, at: ValidTime, tx: TxId, row: &mut Vec<u8>) -> Settled {
    let current = &target.current;
    if at < current.valid_from {
        return Settled::Open { timeline: current.timeline };
    }
    if current.tx_from > tx {
        return Settled::Open { timeline: false };
    }
    let valid = Period::nonempty(current.valid_from, ValidTime::END);
    let (Some(valid), Some(bytes)) = (valid, current.row) else { return Settled::Answer(None) };
    row.extend_from_slice(bytes);
    Settled::Answer(Some(Found { valid, tx_from: current.tx_from }))
}

/// A read of what one key was believed to be.
struct Past<'a, 'db> {
    reader: &'a Reader<'db>,
    target: &'a Target<'a>,
    walk: Walk<'a, 'db>,
}

impl Past<'_, '_> {
    /// Returns the stored piece that holds an instant, its row in `row`.
    fn piece(&mut self, at: ValidTime, row: &mut Vec<u8>) -> Result<Option<Found>> {
        let tx = self.reader.tx();
        row.clear();
        match settled(self.target, at, tx, row) {
            Settled::Answer(answer) => return Ok(answer),
            Settled::Open { timeline: true } => {
                if let Some((found, bytes)) = self.walk.at(at)?
                    && found.tx_from <= tx
                {
                    row.extend_from_slice(bytes);
                    return Ok(Some(found));
                }
            }
            Settled::Open { timeline: false } => {}
        }
        superseded(self.reader, self.target, at, row)
    }

    /// Makes a piece the whole version, by the pieces beside it; false where they are too many.
    fn join(&mut self, version: &mut Found, row: &[u8]) -> Result<bool> {
        let mut other = Vec::new();
        let mut joined = 0;
        while version.valid.from() != ValidTime::BEGIN {
            let before = self.piece(gather::before(version.valid.from()), &mut other)?;
            match before.filter(|before| before.tx_from == version.tx_from && other == row) {
                Some(_) if joined == JOINED_MAX => return Ok(false),
                Some(before) => version.valid = version.valid.hull(&before.valid),
                None => break,
            }
            joined += 1;
        }
        while version.valid.to() != ValidTime::END {
            let after = self.piece(version.valid.to(), &mut other)?;
            match after.filter(|after| after.tx_from == version.tx_from && other == row) {
                Some(_) if joined == JOINED_MAX => return Ok(false),
                Some(after) => version.valid = version.valid.hull(&after.valid),
                None => break,
            }
            joined += 1;
        }
        Ok(true)
    }
}

/// Returns the piece of superseded belief that holds an instant: one seek a level in use.
fn superseded(
    reader: &Reader<'_>,
    target: &Target<'_>,
    at: ValidTime,
    row: &mut Vec<u8>,
) -> Result<Option<Found>> {
    let (tx, prefix) = (reader.tx(), target.prefix);
    if reader.is_latest(tx) {
        return Ok(None);
    }
    reader.with_archive(|archive| {
        // What is superseded is most often without an end, and such pieces stand in high levels.
        for level in target.current.archive.iter_down() {
            let fork = Fork::containing(at, level);
            archive.seek(prefix, fork, tx.plus(1));
            if let Some(piece) = archive.piece(prefix)?
                && piece.fork == fork
                && piece.tx_from <= tx
                && piece.valid.contains(at)
            {
                row.extend_from_slice(piece.row);
                return Ok(Some(Found { valid: piece.valid, tx_from: piece.tx_from }));
            }
        }
        Ok(None)
    })
}

/// The latest belief alone: where nothing newer is stored, or nothing was ever superseded.
fn latest<T>(
    reader: &Reader<'_>,
    target: &Target<'_>,
    at: ValidTime,
    each: impl FnOnce(Found, &[u8]) -> Result<T>,
) -> Result<Option<T>> {
    let Target { prefix, current, .. } = target;
    if at < current.valid_from {
        if !current.timeline {
            return Ok(None);
        }
        return reader.timeline_at(prefix, at, each);
    }
    let tx_from = current.tx_from;
    match (current.row, Period::nonempty(current.valid_from, ValidTime::END)) {
        (Some(row), Some(valid)) if tx_from <= reader.tx() => {
            each(Found { valid, tx_from }, row).map(Some)
        }
        _ => Ok(None),
    }
}
