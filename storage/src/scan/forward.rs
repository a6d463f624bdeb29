//! Cursors of a scan that goes through rows in order: to the next row by steps where it is near, which
//! costs a tenth of a seek. Where rows have so many pieces that steps do not get there, seeks take over for
//! some rows.

use std::cmp::Ordering;

use crate::engine::DbIterator;
use crate::error::Result;
use crate::key;
use crate::row::{ArchiveHeader, TimelineHeader};
use crate::scan::point::Found;
use crate::time::{Period, ValidTime};
use crate::tx::TxId;

/// Steps to the next row, and within a row; few where tests are to come to their end.
const STEPS_MAX: usize = if cfg!(test) { 3 } else { 12 };
/// Rows that are sought once steps did not suffice.
const ROWS_SOUGHT: u32 = if cfg!(test) { 5 } else { 64 };

/// What steps came to.
pub(crate) enum Stepped<'a> {
    /// The piece with its row.
    Found(Found, &'a [u8]),
    Nothing,
    /// Too far: seek.
    TooFar,
}

/// A cursor that stands at the first entry that no earlier row needs.
pub(crate) struct Forward<'db> {
    cursor: DbIterator<'db>,
    /// The last row that was asked for; empty where the cursor stands nowhere.
    row: Vec<u8>,
    /// How many rows more are sought.
    sought: u32,
    bytes: Vec<u8>,
}

impl<'db> Forward<'db> {
    /// Wraps a cursor over all keys of a family.
    pub(crate) const fn new(cursor: DbIterator<'db>) -> Self {
        Self { cursor, row: Vec::new(), sought: 0, bytes: Vec::new() }
    }

    /// Returns the segment of a row's timeline that begins last by an instant.
    pub(crate) fn segment(&mut self, prefix: &[u8], at: ValidTime) -> Result<Stepped<'_>> {
        if !self.go_to(prefix)? {
            return Ok(Stepped::TooFar);
        }
        let mut found = None;
        for _ in 0..STEPS_MAX {
            let Some((key, value)) = self.cursor.item().filter(|(key, _)| key.starts_with(prefix))
            else {
                self.cursor.status()?;
                return Ok(self.answer(found));
            };
            let from = key::timeline_from(key)?;
            if from > at {
                return Ok(self.answer(found));
            }
            let (header, row) = TimelineHeader::read(value)?;
            let valid = Period::new(from, header.valid_to)?;
            found = Some(Found { valid, tx_from: header.tx_from });
            self.bytes.clear();
            self.bytes.extend_from_slice(row);
            self.cursor.next();
        }
        Ok(self.too_far())
    }

    /// Returns the superseded piece of a row that held an instant as believed at a transaction.
    pub(crate) fn piece(&mut self, prefix: &[u8], at: ValidTime, tx: TxId) -> Result<Stepped<'_>> {
        if !self.go_to(prefix)? {
            return Ok(Stepped::TooFar);
        }
        for _ in 0..STEPS_MAX {
            let Some((key, value)) = self.cursor.item().filter(|(key, _)| key.starts_with(prefix))
            else {
                self.cursor.status()?;
                return Ok(Stepped::Nothing);
            };
            let (_, tx_to) = key::split_archive(key)?;
            let (ArchiveHeader { valid, tx_from }, row) = ArchiveHeader::read(value)?;
            if tx_from <= tx && tx < tx_to && valid.contains(at) {
                self.bytes.clear();
                self.bytes.extend_from_slice(row);
                return Ok(self.answer(Some(Found { valid, tx_from })));
            }
            self.cursor.next();
        }
        Ok(self.too_far())
    }

    fn answer(&self, found: Option<Found>) -> Stepped<'_> {
        found.map_or(Stepped::Nothing, |found| Stepped::Found(found, &self.bytes))
    }

    fn too_far(&mut self) -> Stepped<'_> {
        self.sought = ROWS_SOUGHT;
        self.row.clear();
        Stepped::TooFar
    }

    /// Goes to the first entry of a row, which lies after the last one; false where rows are sought.
    fn go_to(&mut self, prefix: &[u8]) -> Result<bool> {
        if self.sought > 0 {
            self.sought -= 1;
            return Ok(false);
        }
        let is_after = !self.row.is_empty() && self.row.as_slice() < prefix;
        self.row.clear();
        self.row.extend_from_slice(prefix);
        if is_after {
            for _ in 0..STEPS_MAX {
                match self.cursor.key().map(|key| key.cmp(prefix)) {
                    Some(Ordering::Less) => self.cursor.next(),
                    Some(_) => return Ok(true),
                    None => {
                        self.cursor.status()?;
                        return Ok(true);
                    }
                }
            }
        }
        self.cursor.seek(prefix);
        Ok(true)
    }
}
