//! What an event says, as opposed to the versions that follow from all events together.

use crate::time::{Period, ValidTime};
use crate::tx::TxId;
use crate::value::Row;

/// What an assertion does to the state it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// Replaces the document.
    Put,
    /// Merges fields; a field that is absent or NULL keeps its value, unless `set_nulls`.
    Patch {
        /// An explicit NULL overwrites.
        set_nulls: bool,
    },
    /// Clears the document.
    Delete,
}

/// Where an assertion's valid period starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AssertedFrom {
    /// At a given instant.
    At(ValidTime),
    /// At the system time of its own transaction, which only the writer knows.
    SystemTime,
}

/// One statement about a key over a valid period.
#[derive(Debug, Clone, PartialEq)]
pub struct Assertion {
    pub op: Op,
    pub from: AssertedFrom,
    /// Exclusive end; `ValidTime::END` where open.
    pub to: ValidTime,
    /// A source's own sequence, 0 where none: second in EFFECTIVE order, after `valid_from`.
    pub order: i64,
    /// Fields that were sent; NULLs that were sent stand as `Value::Null`. Key columns excluded.
    pub fields: Row,
    /// Cut at the bounds of every live assertion in its window, so that it has exactly its stated
    /// effect at once in an EFFECTIVE table too (SQL UPDATE and DELETE).
    pub exact: bool,
}

impl Assertion {
    /// Returns the period once the transaction's system time is known; nothing where it is empty.
    pub fn period(&self, system_time_micros: i64) -> Option<Period<ValidTime>> {
        let from = match self.from {
            AssertedFrom::At(at) => at,
            AssertedFrom::SystemTime => ValidTime::from_micros(system_time_micros),
        };
        Period::nonempty(from, self.to)
    }
}

/// A producer's identity of one event; holds per tenant and table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(pub String);

/// The place of an assertion in EFFECTIVE precedence: later wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub valid_from: ValidTime,
    pub order: i64,
    pub tx: TxId,
    /// Place within the transaction.
    pub ordinal: u32,
}
