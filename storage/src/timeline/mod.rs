//! What follows from what was said: existing segments and assertions in, segments out. Pure.
//!
//! [`recorded`] applies one assertion over segments; [`effective`] folds assertions in their own
//! order; [`Change::between`] compares a key before and after a transaction.
//!
//! ```text
//! before   |----- A (tx 1) -----------------------|
//! put             [ B )
//! after    |- A 1 -|- B 2 -|------- A 1 ----------|      the untouched parts keep their tx
//! archive          |- A 1..2 |                           what was believed there until tx 2
//! ```

use crate::assertion::{Op, Position};
use crate::row::Document;
use crate::time::{Period, ValidTime};
use crate::tx::TxId;

pub(crate) mod effective;
pub(crate) mod recorded;

/// A part of a key's latest belief.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) valid: Period<ValidTime>,
    /// The transaction that made the state.
    pub(crate) tx_from: TxId,
    pub(crate) document: Document,
}

impl Segment {
    /// Returns the segment over another period.
    fn over(&self, valid: Period<ValidTime>) -> Self {
        Self { valid, tx_from: self.tx_from, document: self.document.clone() }
    }
}

/// An assertion as it is folded: resolved period, encoded fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) at: Position,
    pub(crate) op: Op,
    pub(crate) valid: Period<ValidTime>,
    /// Without NULLs for a put, with those that were sent for a patch, empty for a delete.
    pub(crate) fields: Document,
}

impl Said {
    /// True where whatever stands before it in the order shows nowhere in `period`.
    pub(crate) fn hides(&self, period: &Period<ValidTime>) -> bool {
        !matches!(self.op, Op::Patch { .. })
            && self.valid.from() <= period.from()
            && period.to() <= self.valid.to()
    }
}

/// The effect of one transaction on one key, within a window of valid time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Change {
    /// Disjoint periods in which the state changed, in order, none touching the next.
    pub(crate) changed: Vec<Period<ValidTime>>,
    /// What was believed there before, in order.
    pub(crate) replaced: Vec<Segment>,
    /// What is believed in the window now, in order; what did not change keeps its `tx_from`.
    pub(crate) segments: Vec<Segment>,
}

impl Change {
    /// Compares the segments of one window before transaction `tx` and after its operations.
    pub(crate) fn between(before: &[Segment], after: &[Segment], tx: TxId) -> Self {
        let mut change = Self::default();
        let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
        let mut at = ValidTime::BEGIN;
        loop {
            while before.next_if(|segment| segment.valid.to() <= at).is_some() {}
            while after.next_if(|segment| segment.valid.to() <= at).is_some() {}
            let (old, new) = (before.peek().copied(), after.peek().copied());
            let Some(end) = [old, new].into_iter().flatten().map(|s| next_bound(s, at)).min()
            else {
                return change;
            };
            if let Some(period) = Period::nonempty(at, end) {
                let here = |segment: &&Segment| segment.valid.from() <= at;
                change.add(period, old.filter(here), new.filter(here), tx);
            }
            at = end;
        }
    }

    fn add(
        &mut self,
        period: Period<ValidTime>,
        old: Option<&Segment>,
        new: Option<&Segment>,
        tx: TxId,
    ) {
        match (old, new) {
            (None, None) => return,
            (Some(old), Some(new)) if old.document == new.document => {
                append(&mut self.segments, old.over(period));
                return;
            }
            _ => {}
        }
        if let Some(old) = old {
            append(&mut self.replaced, old.over(period));
        }
        if let Some(new) = new {
            append(&mut self.segments, Segment { tx_from: tx, ..new.over(period) });
        }
        match self.changed.last_mut() {
            Some(last) if last.to() == period.from() => *last = last.hull(&period),
            _ => self.changed.push(period),
        }
    }
}

/// Returns the first bound of a segment after `at`.
fn next_bound(segment: &Segment, at: ValidTime) -> ValidTime {
    if segment.valid.from() > at { segment.valid.from() } else { segment.valid.to() }
}

/// Appends a segment, as one with the last where they meet and are equal in all else.
fn append(segments: &mut Vec<Segment>, next: Segment) {
    if let Some(last) = segments.last_mut()
        && last.valid.to() == next.valid.from()
        && last.tx_from == next.tx_from
        && last.document == next.document
    {
        last.valid = last.valid.hull(&next.valid);
    } else {
        segments.push(next);
    }
}

#[cfg(test)]
mod tests;
