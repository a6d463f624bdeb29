//! RECORDED precedence: what is said later wins over its whole period.

use crate::assertion::Op;
use crate::error::Result;
use crate::row::Document;
use crate::time::{Period, ValidTime};
use crate::tx::TxId;

use super::{Said, Segment};

/// Applies an assertion over disjoint segments in order; what it makes has `tx_from` = `tx`.
///
/// Cost: a binary search and the segments it overlaps.
pub(crate) fn apply(segments: &mut Vec<Segment>, said: &Said, tx: TxId) -> Result<()> {
    apply_within(segments, said, said.valid, tx)
}

/// As [`apply`], over `valid` instead of the assertion's own period.
pub(super) fn apply_within(
    segments: &mut Vec<Segment>,
    said: &Said,
    valid: Period<ValidTime>,
    tx: TxId,
) -> Result<()> {
    let first = segments.partition_point(|segment| segment.valid.to() <= valid.from());
    let end = first + segments[first..].partition_point(|s| s.valid.from() < valid.to());
    let covered = &segments[first..end];
    let mut made = Vec::with_capacity(covered.len() + 3);
    if let Some(cut) = covered.first()
        && let Some(head) = Period::nonempty(cut.valid.from(), valid.from())
    {
        made.push(cut.over(head));
    }
    match said.op {
        Op::Put => {
            made.push(Segment { valid, tx_from: tx, document: said.fields.clone() });
        }
        Op::Delete => {}
        Op::Patch { set_nulls } => patch(&mut made, covered, said, set_nulls, valid, tx)?,
    }
    if let Some(cut) = covered.last()
        && let Some(tail) = Period::nonempty(valid.to(), cut.valid.to())
    {
        made.push(cut.over(tail));
    }
    segments.splice(first..end, made);
    Ok(())
}

/// Puts `made`, which lie within `window`, in the place of what is there.
pub(crate) fn replace(segments: &mut Vec<Segment>, window: Period<ValidTime>, made: Vec<Segment>) {
    let first = segments.partition_point(|segment| segment.valid.to() <= window.from());
    let end = first + segments[first..].partition_point(|s| s.valid.from() < window.to());
    let head = segments[first..end].first().and_then(|cut| {
        Period::nonempty(cut.valid.from(), window.from()).map(|head| cut.over(head))
    });
    let tail = segments[first..end]
        .last()
        .and_then(|cut| Period::nonempty(window.to(), cut.valid.to()).map(|tail| cut.over(tail)));
    segments.splice(first..end, head.into_iter().chain(made).chain(tail));
}

/// Patches each covered segment, and nothing where there is none.
fn patch(
    made: &mut Vec<Segment>,
    covered: &[Segment],
    said: &Said,
    set_nulls: bool,
    valid: Period<ValidTime>,
    tx: TxId,
) -> Result<()> {
    let mut push = |valid: Period<ValidTime>, base: Option<&Document>| -> Result<()> {
        let document = Document::patched(base, &said.fields, set_nulls)?;
        made.push(Segment { valid, tx_from: tx, document });
        Ok(())
    };
    let mut at = valid.from();
    for segment in covered {
        let Some(shared) = segment.valid.intersect(&valid) else { continue };
        if let Some(gap) = Period::nonempty(at, shared.from()) {
            push(gap, None)?;
        }
        push(shared, Some(&segment.document))?;
        at = shared.to();
    }
    Period::nonempty(at, valid.to()).map_or(Ok(()), |gap| push(gap, None))
}
