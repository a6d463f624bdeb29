//! Stored pieces joined to versions: maximal periods with equal values and equal system times.

use std::ops::Range;

use crate::time::{Period, ValidTime};
use crate::tx::TxId;

/// The transactions between which belief is read, both inclusive; one where they are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Believed {
    pub(crate) from: TxId,
    pub(crate) to: TxId,
}

impl Believed {
    pub(crate) const fn at(tx: TxId) -> Self {
        Self { from: tx, to: tx }
    }

    pub(crate) fn is_one_tx(&self) -> bool {
        self.from == self.to
    }
}

/// A stored rectangle: one row over a period of valid time and a period of transactions.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Piece {
    pub(crate) valid: Period<ValidTime>,
    pub(crate) tx_from: TxId,
    /// Nothing where it was superseded after what is read.
    pub(crate) tx_to: Option<TxId>,
    row: Range<usize>,
}

/// Pieces of one key with their row bytes in one buffer, used again from key to key.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    pieces: Vec<Piece>,
    bytes: Vec<u8>,
}

impl Pieces {
    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
        self.bytes.clear();
    }

    pub(crate) fn push(
        &mut self,
        valid: Period<ValidTime>,
        tx_from: TxId,
        tx_to: Option<TxId>,
        row: &[u8],
    ) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(row);
        self.pieces.push(Piece { valid, tx_from, tx_to, row: start..self.bytes.len() });
    }

    /// Returns the row bytes of one of these pieces.
    pub(crate) fn row(&self, piece: &Piece) -> &[u8] {
        &self.bytes[piece.row.clone()]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Piece> {
        self.pieces.iter()
    }

    /// Joins pieces of equal rows and system times that meet, then sorts by `valid_from` and
    /// `tx_from`. Pieces must be disjoint rectangles; one may be there more than once.
    pub(crate) fn coalesce(&mut self) {
        if self.pieces.len() > 1 {
            self.pieces.sort_unstable_by_key(|p| (p.tx_from, p.tx_to, p.valid.from()));
            let bytes = &self.bytes;
            self.pieces.dedup_by(|next, last| {
                let together = last.tx_from == next.tx_from && last.tx_to == next.tx_to;
                // The same piece again, perhaps as part of what it was joined to.
                let again = together && next.valid.from() < last.valid.to();
                let joined = together
                    && last.valid.to() == next.valid.from()
                    && bytes[last.row.clone()] == bytes[next.row.clone()];
                if joined {
                    last.valid = last.valid.hull(&next.valid);
                }
                again || joined
            });
            self.pieces.sort_unstable_by_key(|p| (p.valid.from(), p.tx_from));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn period(from: i64, to: i64) -> Period<ValidTime> {
        Period::new(ValidTime::from_micros(from), ValidTime::from_micros(to)).unwrap()
    }

    fn joined(pieces: &[(i64, i64, u64, Option<u64>, &str)]) -> Vec<(i64, i64, u64)> {
        let mut all = Pieces::default();
        for (from, to, tx_from, tx_to, row) in pieces {
            let tx_to = tx_to.map(TxId::new);
            all.push(period(*from, *to), TxId::new(*tx_from), tx_to, row.as_bytes());
        }
        all.coalesce();
        let shown = |p: &Piece| (p.valid.from().micros(), p.valid.to().micros(), p.tx_from.get());
        all.iter().map(shown).collect()
    }

    #[test]
    fn neighbours_of_one_transaction_and_row_are_one_version() {
        let pieces = [(4, 6, 1, None, "a"), (0, 4, 1, None, "a"), (6, 9, 1, None, "a")];
        assert_eq!(joined(&pieces), [(0, 9, 1)]);
    }

    #[test]
    fn rows_of_different_transactions_stay_apart_though_equal() {
        assert_eq!(joined(&[(0, 4, 1, None, "a"), (4, 9, 2, None, "a")]), [(0, 4, 1), (4, 9, 2)]);
    }

    #[test]
    fn a_piece_that_is_there_twice_counts_once() {
        let pieces = [(0, 4, 1, None, "a"), (4, 6, 1, None, "a"), (4, 6, 1, None, "a")];
        assert_eq!(joined(&pieces), [(0, 6, 1)]);
    }

    #[test]
    fn a_gap_or_another_row_or_end_of_belief_parts_versions() {
        assert_eq!(joined(&[(0, 4, 1, None, "a"), (5, 9, 1, None, "a")]).len(), 2);
        assert_eq!(joined(&[(0, 4, 1, None, "a"), (4, 9, 1, None, "b")]).len(), 2);
        assert_eq!(joined(&[(0, 4, 1, Some(3), "a"), (4, 9, 1, None, "a")]).len(), 2);
    }
}
