//! What events said, as kept for EFFECTIVE tables, and finding what bears on a window.
//!
//! ```text
//! value   format 1 | op 1 | valid_to 8 | event id (varint length, bytes) | document
//! ```
//!
//! The key holds a duration class before `valid_from`, so what covers an instant is found by one
//! bounded probe a class in use and never by walking all that came before it.

use std::collections::BTreeMap;

use crate::assertion::{Op, Position};
use crate::engine::DbIterator;
use crate::error::Result;
use crate::key::{self, ASSERTION_SUFFIX, CLASS_OPEN};
use crate::row::{self, Document, LevelSet, damaged};
use crate::time::{Period, ValidTime};
use crate::timeline::Said;
use crate::timeline::effective;
use crate::tx::TxId;

/// The part of an `assertions` key after the row prefix.
pub(crate) type Suffix = [u8; ASSERTION_SUFFIX];

/// Returns the suffix an assertion is kept under.
pub(crate) fn suffix_of(said: &Said) -> Suffix {
    key::assertion_suffix(key::duration_class(&said.valid), &said.at)
}

/// Returns the number that stands for an operation on disk.
pub(crate) const fn op_tag(op: Op) -> u8 {
    match op {
        Op::Put => 1,
        Op::Patch { set_nulls: false } => 2,
        Op::Patch { set_nulls: true } => 3,
        Op::Delete => 4,
    }
}

/// Returns the operation of an [`op_tag`].
pub(crate) fn op_of(tag: u8) -> Result<Op> {
    match tag {
        1 => Ok(Op::Put),
        2 => Ok(Op::Patch { set_nulls: false }),
        3 => Ok(Op::Patch { set_nulls: true }),
        4 => Ok(Op::Delete),
        _ => Err(damaged("an assertion of unknown kind")),
    }
}

/// Appends the value of an assertion.
pub(crate) fn put(out: &mut Vec<u8>, said: &Said, event_id: Option<&str>) {
    out.push(row::FORMAT);
    out.push(op_tag(said.op));
    row::put_instant(out, said.valid.to());
    let event_id = event_id.unwrap_or_default();
    row::put_varint(out, event_id.len() as u64);
    out.extend_from_slice(event_id.as_bytes());
    out.extend_from_slice(said.fields.as_bytes());
}

/// Reads an assertion from its key's suffix and its value.
pub(crate) fn read(suffix: &[u8], mut value: &[u8]) -> Result<Said> {
    let (_, at) = key::split_assertion_suffix(suffix)?;
    row::take_format(&mut value)?;
    let op = op_of(row::take_byte(&mut value)?)?;
    let to = row::take_instant(&mut value)?;
    let length = row::take_length(&mut value)?;
    row::take_slice(&mut value, length)?;
    let valid =
        Period::nonempty(at.valid_from, to).ok_or_else(|| damaged("an assertion over no time"))?;
    Ok(Said { at, op, valid, fields: Document::copy_from(value) })
}

/// Returns the event id in an assertion's value, if it has one.
pub(crate) fn event_id(mut value: &[u8]) -> Result<Option<&[u8]>> {
    row::take_format(&mut value)?;
    row::take_byte(&mut value)?;
    row::take_instant(&mut value)?;
    let length = row::take_length(&mut value)?;
    Ok(Some(row::take_slice(&mut value, length)?).filter(|id| !id.is_empty()))
}

/// Assertions made and retracted since the last commit, over those that are stored.
#[derive(Default)]
pub(crate) struct Overlay(BTreeMap<Suffix, Option<Box<Said>>>);

impl Overlay {
    /// Adds an assertion, or takes it back.
    pub(crate) fn set(&mut self, suffix: Suffix, said: Option<Said>) {
        self.0.insert(suffix, said.map(Box::new));
    }

    /// Returns the assertion, or `None` where it was taken back; nothing where it is not known.
    pub(crate) fn get(&self, suffix: &[u8]) -> Option<Option<&Said>> {
        self.0.get(suffix).map(Option::as_deref)
    }

    /// Returns the live ones from `low` up to but not with `high`, in order.
    fn range(&self, low: Suffix, high: Suffix) -> impl DoubleEndedIterator<Item = &Said> {
        // An empty range would be a mistake of the map's caller.
        self.0.range(low..high.max(low)).filter_map(|(_, said)| said.as_deref())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// The live assertions of one key.
pub(crate) struct Live<'a, 'db> {
    /// The key's row prefix.
    pub(crate) prefix: &'a [u8],
    /// Classes that the key has assertions of.
    pub(crate) classes: LevelSet,
    pub(crate) overlay: &'a Overlay,
    /// Over the stored assertions; nothing where the key has none.
    pub(crate) stored: Option<&'a mut DbIterator<'db>>,
}

impl Live<'_, '_> {
    /// Returns the part of `valid` in which an assertion at `at` can show, and the live assertions
    /// that start in it; nothing where it shows nowhere.
    pub(crate) fn window(
        &mut self,
        at: &Position,
        valid: &Period<ValidTime>,
    ) -> Result<Option<(Period<ValidTime>, Vec<Said>)>> {
        let mut end = valid.to();
        let mut starting = Vec::new();
        for class in self.classes_longest_first() {
            self.walk(class, valid.from(), end, Direction::Up, |said| {
                if said.valid.from() >= end {
                    return false;
                }
                if let Some(by) = effective::end_by(&said, at, valid) {
                    end = end.min(by);
                    return false;
                }
                starting.push(said);
                true
            })?;
        }
        let Some(window) = Period::nonempty(valid.from(), end) else { return Ok(None) };
        starting.retain(|said| said.valid.from() < end);
        Ok(Some((window, starting)))
    }

    /// Adds to `found`, which holds what starts in `window`, what started before and reaches in:
    /// back to the last one that hides the whole of it.
    pub(crate) fn reaching_into(
        &mut self,
        window: &Period<ValidTime>,
        found: &mut Vec<Said>,
    ) -> Result<()> {
        let hiding = found.iter().filter(|said| said.hides(window)).map(|said| said.at).max();
        if hiding.is_some() {
            return Ok(());
        }
        let mut hiding: Option<Position> = None;
        for class in self.classes_longest_first() {
            let low = earliest_start(window.from(), class);
            self.walk(class, low, window.from(), Direction::Down, |said| {
                if hiding.is_some_and(|at| said.at < at) {
                    return false;
                }
                if said.valid.to() <= window.from() {
                    return true;
                }
                let hides = said.hides(window);
                if hides {
                    hiding = Some(said.at);
                }
                found.push(said);
                !hides
            })?;
        }
        Ok(())
    }

    /// Returns every live assertion with a bound within `valid`, or that starts with it.
    pub(crate) fn bounds_within(&mut self, valid: &Period<ValidTime>) -> Result<Vec<Said>> {
        let mut found = Vec::new();
        for class in self.classes_longest_first() {
            if class != CLASS_OPEN {
                let low = earliest_start(valid.from(), class);
                self.walk(class, low, valid.from(), Direction::Down, |said| {
                    if valid.from() < said.valid.to() && said.valid.to() < valid.to() {
                        found.push(said);
                    }
                    true
                })?;
            }
            self.walk(class, valid.from(), valid.to(), Direction::Up, |said| {
                found.push(said);
                true
            })?;
        }
        Ok(found)
    }

    fn classes_longest_first(&self) -> Vec<u8> {
        let mut classes: Vec<u8> = self.classes.iter().collect();
        classes.reverse();
        classes
    }

    /// Calls `each` for the live assertions of a class with `valid_from` in `[from, to)`, in order,
    /// first those made since the last commit, then the stored ones; each run until it answers
    /// false.
    fn walk(
        &mut self,
        class: u8,
        from: ValidTime,
        to: ValidTime,
        direction: Direction,
        mut each: impl FnMut(Said) -> bool,
    ) -> Result<()> {
        let bound = |at: ValidTime| {
            let first = Position { valid_from: at, order: i64::MIN, tx: TxId::ZERO, ordinal: 0 };
            key::assertion_suffix(class, &first)
        };
        let (low, high) = (bound(from), bound(to));
        let made = self.overlay.range(low, high);
        match direction {
            Direction::Up => {
                let _ = made.cloned().all(&mut each);
            }
            Direction::Down => {
                let _ = made.rev().cloned().all(&mut each);
            }
        }
        self.walk_stored(&low, &high, direction, each)
    }

    fn walk_stored(
        &mut self,
        low: &Suffix,
        high: &Suffix,
        direction: Direction,
        mut each: impl FnMut(Said) -> bool,
    ) -> Result<()> {
        let Some(stored) = self.stored.as_deref_mut() else { return Ok(()) };
        match direction {
            Direction::Up => stored.seek([self.prefix, low].concat()),
            Direction::Down => stored.seek_for_prev([self.prefix, high].concat()),
        }
        while let Some((key, value)) = stored.item() {
            let Some(suffix) = key.strip_prefix(self.prefix) else { break };
            if suffix < low.as_slice() || suffix >= high.as_slice() {
                break;
            }
            if self.overlay.get(suffix).is_none() && !each(read(suffix, value)?) {
                break;
            }
            match direction {
                Direction::Up => stored.next(),
                Direction::Down => stored.prev(),
            }
        }
        Ok(stored.status()?)
    }
}

/// Returns how early an assertion of a class can start and still cover `instant`.
fn earliest_start(instant: ValidTime, class: u8) -> ValidTime {
    if class >= 63 {
        return ValidTime::BEGIN;
    }
    let longest = 1_u64 << (class + 1);
    ValidTime::from_micros(key::unflip(key::flip(instant.micros()).saturating_sub(longest)))
}
