//! Aggregates over valid time: `GROUP BY .., CONSTANT_INTERVAL(period)` gives a row for every interval
//! in which the same rows are valid (Kline and Snodgrass, "Computing temporal aggregates", ICDE 1995).
//!
//! [`rule`] finds the marker in a plan's aggregates and puts a [`node`] there, over a projection of keys,
//! bounds and arguments; [`planner`] makes that the operator of [`exec`], whose input is sorted by keys
//! and by where periods begin. A [`sweep`] over that order keeps the rows that are valid at its place;
//! [`states`] keep each aggregate's value over them.

mod exec;
mod node;
mod planner;
mod rule;
mod states;
mod stream;
mod sweep;

use std::fmt;

pub use planner::Planner;
pub use rule::ConstantIntervals;

/// An aggregate that can follow rows as they come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Function {
    Count,
    Sum,
    Avg,
    Min,
    Max,
    BoolAnd,
    BoolOr,
}

impl Function {
    /// Returns the function of a name; nothing for those that have no form here.
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "count" => Self::Count,
            "sum" => Self::Sum,
            "avg" => Self::Avg,
            "min" => Self::Min,
            "max" => Self::Max,
            "bool_and" => Self::BoolAnd,
            "bool_or" => Self::BoolOr,
            _ => return None,
        })
    }
}

/// One aggregate of the operator.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Call {
    function: Function,
    /// Place among the arguments; none where every row counts. NULL takes no part.
    argument: Option<usize>,
    /// As the query has it.
    name: String,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Joins what is shown of several things.
fn listed<T: fmt::Display>(all: &[T]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
