//! The version of one key at one instant.

use crate::error::Result;
use crate::scan::gather::{self, Target};
use crate::scan::merge::Believed;
use crate::scan::reader::Reader;
use crate::time::{Period, ValidTime};
use crate::tx::TxId;

/// A version's times, its row bytes apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) valid: Period<ValidTime>,
    pub(crate) tx_from: TxId,
}

/// Calls `each` with the version of a key at an instant as believed at the reader's transaction.
///
/// Where the latest belief is what is read, it costs at most one seek past the `current` entry.
pub(crate) fn point<T>(
    reader: &Reader<'_>,
    target: &Target<'_>,
    at: ValidTime,
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
    let mut pieces = reader.pieces();
    gather::versions(reader, target, instant, believed, &mut pieces)?;
    let found = pieces.iter().find(|piece| piece.valid.contains(at));
    let answer = found.map(|piece| {
        let found = Found { valid: piece.valid, tx_from: piece.tx_from };
        each(found, pieces.row(piece))
    });
    answer.transpose()
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
