//! Aggregates that only count: rows, values, and what is true among them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use datafusion::error::Result;

use super::super::sweep::Step;
use super::{Following, Slots, State};

/// `count(*)`.
#[derive(Debug, Default)]
pub struct Rows {
    open: i64,
    found: Vec<i64>,
}

impl State for Rows {
    fn begin(&mut self, _argument: &ArrayRef) -> Result<()> {
        Ok(())
    }

    fn replay(&mut self, steps: &[Step]) -> Result<()> {
        for step in steps {
            match step {
                Step::Open { .. } => self.open += 1,
                Step::Close { .. } => self.open -= 1,
                Step::Clear => self.open = 0,
                Step::Emit => self.found.push(self.open),
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from(std::mem::take(&mut self.found))))
    }

    fn bytes(&self) -> usize {
        self.found.capacity() * size_of::<i64>()
    }
}

/// What is made of the counts.
#[derive(Debug, Clone, Copy)]
pub enum Rule {
    Count,
    And,
    Or,
}

/// `count(x)`, `bool_and(x)` and `bool_or(x)`.
#[derive(Debug)]
pub struct Counted {
    rule: Rule,
    slots: Slots<bool>,
    open: i64,
    true_count: i64,
    found: Vec<(i64, i64)>,
}

impl Counted {
    /// Builds the state of one of them.
    pub const fn new(rule: Rule) -> Self {
        Self { rule, slots: Slots(Vec::new()), open: 0, true_count: 0, found: Vec::new() }
    }
}

impl Following for Counted {
    /// Which rows have a value, and in which it is true.
    type Column = (Option<NullBuffer>, Option<BooleanBuffer>);

    fn column(&self, argument: &ArrayRef) -> Result<Self::Column> {
        let truth = argument.as_boolean_opt().map(|array| array.values().clone());
        Ok((argument.logical_nulls(), truth))
    }

    fn open(&mut self, (nulls, truth): &Self::Column, row: usize, slot: usize) {
        let present = nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
        let value = present.then(|| truth.as_ref().is_some_and(|truth| truth.value(row)));
        self.open += i64::from(present);
        self.true_count += i64::from(value == Some(true));
        self.slots.put(slot, value);
    }

    fn close(&mut self, slot: usize) {
        if let Some(value) = self.slots.take(slot) {
            self.open -= 1;
            self.true_count -= i64::from(value);
        }
    }

    fn clear(&mut self) {
        (self.open, self.true_count) = (0, 0);
    }

    fn emit(&mut self) -> Result<()> {
        self.found.push((self.open, self.true_count));
        Ok(())
    }

    fn take(&mut self) -> Result<ArrayRef> {
        let found = std::mem::take(&mut self.found).into_iter();
        let of = |truth: fn(i64, i64) -> bool| {
            move |(open, true_count): (i64, i64)| (open > 0).then(|| truth(open, true_count))
        };
        Ok(match self.rule {
            Rule::Count => Arc::new(Int64Array::from_iter_values(found.map(|(open, _)| open))),
            Rule::And => Arc::new(found.map(of(|all, yes| all == yes)).collect::<BooleanArray>()),
            Rule::Or => Arc::new(found.map(of(|_, yes| yes > 0)).collect::<BooleanArray>()),
        })
    }

    fn size(&self) -> usize {
        self.slots.bytes() + self.found.capacity() * size_of::<(i64, i64)>()
    }
}
