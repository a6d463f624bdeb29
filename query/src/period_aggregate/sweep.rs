//! A sweep over the bounds of periods: which rows come and go, and which intervals lie between.
//!
//! ```text
//! a  |--------------|            open a, [open b] ...
//! b       |----|
//! c            |---------|
//!    ^    ^    ^    ^    ^
//!    a    ab   ac   c             an interval between any two bounds, with its rows
//! ```
//!
//! Rows come by group and by where their period begins. Those that are open lie in a heap by where
//! they end, so the memory is that of the most rows of one group that are valid at one instant. What
//! happens is written down as [`Step`]s, for each aggregate to go through on its own.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use arrow::array::{Array, PrimitiveArray};
use arrow::datatypes::TimestampMicrosecondType;

use crate::functions::periods::END;

/// Steps that are written down before they are gone through.
const STEPS_MAX: usize = 32_768;

/// What happens at a place of the sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A row of the batch comes, and is known by its slot until it goes.
    Open { row: u32, slot: u32 },
    /// The row of a slot goes.
    Close { slot: u32 },
    /// All rows that are left go.
    Clear,
    /// An interval with the rows that are open ends here.
    Emit,
}

/// A batch of the input.
#[derive(Debug)]
pub struct Rows {
    /// Where periods begin and end; a row in which either is NULL takes part in nothing.
    pub from: PrimitiveArray<TimestampMicrosecondType>,
    pub to: PrimitiveArray<TimestampMicrosecondType>,
    /// Rows that begin a group, in order.
    pub starts: Vec<u32>,
}

impl Rows {
    fn len(&self) -> usize {
        self.from.len()
    }

    /// Returns a row's period if it holds an instant.
    fn period(&self, row: usize) -> Option<(i64, i64)> {
        let present = self.from.is_valid(row) && self.to.is_valid(row);
        let (from, to) = (self.from.values()[row], self.to.values()[row]);
        (present && from < to).then_some((from, to))
    }
}

/// What happened in some part of the sweep.
#[derive(Debug, Default)]
pub struct Script {
    pub steps: Vec<Step>,
    /// The intervals that were put out: their bounds, and where their group began: 0 before the
    /// batch, else one more than the row.
    pub from: Vec<i64>,
    pub to: Vec<i64>,
    pub groups: Vec<u32>,
}

impl Script {
    /// Forgets everything.
    pub fn clear(&mut self) {
        let Self { steps, from, to, groups } = self;
        steps.clear();
        from.clear();
        to.clear();
        groups.clear();
    }

    const fn is_full(&self, room: usize) -> bool {
        self.from.len() >= room || self.steps.len() >= STEPS_MAX
    }
}

/// The sweep at a place.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Where open rows end, the earliest first, with their slots.
    ends: BinaryHeap<Reverse<(i64, u32)>>,
    /// Slots below `slots` that nobody has.
    free: Vec<u32>,
    slots: u32,
    /// The latest bound.
    at: i64,
    /// The next row of the batch, and the next of its starts.
    row: usize,
    start: usize,
    /// Where the present group began: as in [`Script::groups`].
    group: u32,
}

impl Sweep {
    /// Goes on with a batch until it is through, or until the script has no room for another
    /// interval or step. Returns whether the batch is through.
    pub fn advance(&mut self, rows: &Rows, room: usize, script: &mut Script) -> bool {
        while self.row < rows.len() {
            let row = u32::try_from(self.row).unwrap_or(u32::MAX);
            if rows.starts.get(self.start) == Some(&row) {
                if !self.drain(room, script) {
                    return false;
                }
                self.start += 1;
                self.group = row.saturating_add(1);
            }
            if let Some((from, to)) = rows.period(self.row) {
                if !self.move_to(from, room, script) || script.is_full(room) {
                    return false;
                }
                if !self.ends.is_empty() && self.at < from {
                    self.emit(from, script);
                }
                self.at = from;
                let slot = self.slot();
                self.ends.push(Reverse((to, slot)));
                script.steps.push(Step::Open { row, slot });
            }
            self.row += 1;
        }
        true
    }

    /// Returns where the present group began, and begins with another batch.
    pub fn begin(&mut self) -> Option<usize> {
        (self.row, self.start) = (0, 0);
        let group = std::mem::take(&mut self.group);
        group.checked_sub(1).and_then(|row| usize::try_from(row).ok())
    }

    /// Closes everything that is open. Returns whether it came to the end, as [`Self::advance`].
    pub fn drain(&mut self, room: usize, script: &mut Script) -> bool {
        self.move_to(END, room, script)
    }

    /// Closes the rows that end by an instant.
    fn move_to(&mut self, until: i64, room: usize, script: &mut Script) -> bool {
        while let Some(Reverse((end, slot))) = self.ends.peek().copied() {
            if end > until {
                break;
            }
            if script.is_full(room) {
                return false;
            }
            if self.at < end {
                self.emit(end, script);
            }
            if end == END {
                // Nothing ends later, so this is all that is left.
                self.ends.clear();
            } else {
                self.ends.pop();
                self.free.push(slot);
                script.steps.push(Step::Close { slot });
            }
            if self.ends.is_empty() {
                script.steps.push(Step::Clear);
                self.free.clear();
                self.slots = 0;
            }
        }
        true
    }

    fn emit(&mut self, to: i64, script: &mut Script) {
        script.steps.push(Step::Emit);
        script.from.push(self.at);
        script.to.push(to);
        script.groups.push(self.group);
        self.at = to;
    }

    fn slot(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        })
    }

    /// Returns about how many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.ends.capacity() * size_of::<Reverse<(i64, u32)>>()
            + self.free.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::TimestampMicrosecondArray;

    use super::*;
    use crate::functions::periods::BEGIN;

    fn rows(periods: &[(i64, i64)], starts: &[u32]) -> Rows {
        Rows {
            from: TimestampMicrosecondArray::from_iter_values(periods.iter().map(|one| one.0)),
            to: TimestampMicrosecondArray::from_iter_values(periods.iter().map(|one| one.1)),
            starts: starts.to_vec(),
        }
    }

    /// Returns the intervals with the count of open rows and the group, put out in portions.
    fn intervals(batches: &[Rows], room: usize) -> Vec<(i64, i64, usize, u32)> {
        let (mut sweep, mut open, mut found) = (Sweep::default(), 0_usize, Vec::new());
        let mut take = |script: &mut Script| {
            let mut emitted = 0;
            for step in &script.steps {
                match step {
                    Step::Open { .. } => open += 1,
                    Step::Close { .. } => open -= 1,
                    Step::Clear => open = 0,
                    Step::Emit => {
                        let (from, to) = (script.from[emitted], script.to[emitted]);
                        found.push((from, to, open, script.groups[emitted]));
                        emitted += 1;
                    }
                }
            }
            assert!(emitted <= room, "{emitted} of {room}");
            script.clear();
        };
        let mut script = Script::default();
        for rows in batches {
            sweep.begin();
            while !sweep.advance(rows, room, &mut script) {
                take(&mut script);
            }
            take(&mut script);
        }
        sweep.begin();
        while !sweep.drain(room, &mut script) {
            take(&mut script);
        }
        take(&mut script);
        found
    }

    #[test]
    fn intervals_lie_between_any_two_bounds() {
        let batch = [rows(&[(1, 10), (3, 5), (5, 12)], &[0])];
        // What is open at the end began before whatever comes.
        let expected = [(1, 3, 1, 1), (3, 5, 2, 1), (5, 10, 2, 0), (10, 12, 1, 0)];
        for room in [1, 2, 100] {
            assert_eq!(intervals(&batch, room), expected);
        }
    }

    #[test]
    fn gaps_are_no_intervals_and_meeting_periods_are_two() {
        let batch = [rows(&[(1, 2), (2, 3), (5, 6)], &[0])];
        assert_eq!(intervals(&batch, 9), [(1, 2, 1, 1), (2, 3, 1, 1), (5, 6, 1, 0)]);
    }

    #[test]
    fn groups_do_not_mix_and_may_go_on_in_the_next_batch() {
        let batches = [rows(&[(1, 4), (2, 4), (0, 9)], &[0, 2]), rows(&[(3, 5), (1, 2)], &[1])];
        for room in [1, 2, 100] {
            assert_eq!(
                intervals(&batches, room),
                [
                    (1, 2, 1, 1),
                    (2, 4, 2, 1),
                    (0, 3, 1, 0),
                    (3, 5, 2, 0),
                    (5, 9, 1, 0),
                    (1, 2, 1, 0)
                ]
            );
        }
    }

    #[test]
    fn open_ends_are_the_ends_of_time() {
        let batch = [rows(&[(BEGIN, END), (BEGIN, 3), (2, END), (2, 2)], &[0])];
        assert_eq!(intervals(&batch, 9), [(BEGIN, 2, 2, 1), (2, 3, 3, 0), (3, END, 2, 0)]);
    }
}
