//! EFFECTIVE precedence: what takes effect later wins, in the order of [`crate::assertion::Position`].
//!
//! An assertion that is not the last in the order changes nothing outside its *window*: from its
//! `valid_from` to the first later put or delete that covers the rest of its period. There the
//! state is folded again from the live assertions that overlap.

use crate::assertion::Position;
use crate::error::Result;
use crate::time::{Period, ValidTime};
use crate::tx::TxId;

use super::{Said, Segment, recorded};

/// Folds assertions within a window; they may come in any order and lie outside it.
pub(crate) fn fold(said: &mut [Said], window: Period<ValidTime>, tx: TxId) -> Result<Vec<Segment>> {
    said.sort_unstable_by_key(|said| said.at);
    // Only what follows the last one that hides the whole window shows.
    let first = said.iter().rposition(|said| said.hides(&window)).unwrap_or(0);
    let mut segments = Vec::new();
    for said in &said[first..] {
        if let Some(valid) = said.valid.intersect(&window) {
            recorded::apply_within(&mut segments, said, valid, tx)?;
        }
    }
    Ok(segments)
}

/// Returns where the window of an assertion ends because of a later one; nothing where that does
/// not cover the rest.
pub(crate) fn end_by(later: &Said, at: &Position, valid: &Period<ValidTime>) -> Option<ValidTime> {
    let from = later.valid.from().max(valid.from());
    let rest = Period::nonempty(from, valid.to())?;
    (later.at > *at && later.hides(&rest)).then_some(from)
}

/// Cuts a period at `bounds` that lie within it; the parts in order.
pub(crate) fn cut(period: Period<ValidTime>, mut bounds: Vec<ValidTime>) -> Vec<Period<ValidTime>> {
    bounds.push(period.to());
    bounds.sort_unstable();
    let mut parts = Vec::with_capacity(bounds.len());
    let mut from = period.from();
    for to in bounds.into_iter().filter(|at| *at <= period.to()) {
        if let Some(part) = Period::nonempty(from, to) {
            parts.push(part);
            from = to;
        }
    }
    parts
}
