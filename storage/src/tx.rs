//! Places in the one total order of transactions, and the basis a statement reads at.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::ValidTime;

/// The place of a committed transaction; consecutive in commit order, from 1. 0 is the empty store.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct TxId(u64);

impl TxId {
    /// The state before the first transaction.
    pub const ZERO: Self = Self(0);
    /// Later than every transaction: the open end of a version's system period.
    pub const END: Self = Self(u64::MAX);

    /// Wraps a number.
    pub const fn new(id: u64) -> Self {
        Self(id)
    }

    /// Returns the number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the transaction `n` places later.
    pub const fn plus(self, n: u64) -> Self {
        Self(self.0.saturating_add(n))
    }
}

impl fmt::Display for TxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a statement reads at: all transactions up to `tx`, with `now` as the present instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Basis {
    /// The last transaction that is visible.
    pub tx: TxId,
    /// What `now` means; never before the system time of `tx`.
    pub now: ValidTime,
}
