//! Random numbers for histories that follow from a seed.

/// A generator that needs no more than this (Knuth's linear congruence, MMIX).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Returns a number below a bound.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    /// The same, as a place in a list.
    pub(crate) fn place(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(u64::try_from(bound).unwrap())).unwrap()
    }

    /// The same, as a value.
    pub(crate) fn value(&mut self, bound: u64) -> i64 {
        i64::try_from(self.below(bound)).unwrap()
    }
}
