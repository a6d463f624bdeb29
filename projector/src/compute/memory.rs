//! What the computing of all projections may hold in memory: one account, and room on disk beyond.
//!
//! Rows travel in parts of a few thousand, which are not counted. Whatever grows with the data is:
//! sorts, which go over to files, and rows that an operator must have together, which end the step
//! with an error where they do not fit. The process goes on either way.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result};

/// Bytes that one sort holds before it goes over to files.
const SORT_BYTES_MAX: usize = 64 << 20;
/// Rows that travel together at most, about.
const PART_ROWS: usize = 8_192;

/// The account of all projections of a server.
#[derive(Debug)]
pub struct Memory {
    bytes_max: usize,
    used: AtomicUsize,
    most: AtomicUsize,
    /// Where sorts put what they cannot hold; the files have no names.
    directory: PathBuf,
    sort_bytes_max: usize,
    part_rows: usize,
}

impl Memory {
    /// Opens an account of `bytes_max` bytes.
    pub fn new(bytes_max: usize, directory: PathBuf) -> Self {
        let (used, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let sort_bytes_max = SORT_BYTES_MAX.min(bytes_max / 4);
        Self { bytes_max, used, most, directory, sort_bytes_max, part_rows: PART_ROWS }
    }

    /// Sorts hold so many bytes at most.
    #[must_use]
    pub fn with_sort_bytes(self, sort_bytes_max: usize) -> Self {
        Self { sort_bytes_max: sort_bytes_max.min(self.sort_bytes_max), ..self }
    }

    /// Rows travel so many together.
    #[must_use]
    pub fn with_part_rows(self, part_rows: usize) -> Self {
        Self { part_rows: part_rows.max(1), ..self }
    }

    /// Returns how many rows travel together at most, about.
    pub const fn part_rows(&self) -> usize {
        self.part_rows
    }

    /// Returns the bytes in use.
    pub fn used_bytes(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Returns the most bytes that were in use at one time.
    pub fn most_bytes(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// Returns where sorts put what they cannot hold.
    pub const fn directory(&self) -> &PathBuf {
        &self.directory
    }

    /// Returns how many bytes one sort may hold.
    pub const fn sort_bytes_max(&self) -> usize {
        self.sort_bytes_max
    }

    /// Opens an entry of no bytes.
    pub const fn entry(&self) -> Held<'_> {
        Held { memory: self, bytes: 0 }
    }
}

/// Bytes taken from the account until this is dropped.
#[derive(Debug)]
pub struct Held<'m> {
    memory: &'m Memory,
    bytes: usize,
}

impl Held<'_> {
    /// Takes more bytes; false where they are not there.
    pub fn try_grow(&mut self, more: usize) -> bool {
        let Memory { bytes_max, used, most, .. } = self.memory;
        let before = used.fetch_add(more, Ordering::Relaxed);
        if before.saturating_add(more) > *bytes_max {
            used.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        most.fetch_max(before + more, Ordering::Relaxed);
        self.bytes += more;
        true
    }

    /// Takes more bytes for rows that must be in memory together.
    ///
    /// # Errors
    /// [`Error::TooLarge`] where they are not there: the step is tried again later.
    pub fn grow(&mut self, more: usize, what: &str) -> Result<()> {
        if self.try_grow(more) {
            return Ok(());
        }
        let bytes_max = self.memory.bytes_max;
        Err(Error::TooLarge { what: what.to_owned(), bytes_max })
    }

    /// Gives all bytes back.
    pub fn free(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = 0;
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.free();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_free_again() {
        let memory = Memory::new(100, std::env::temp_dir());
        let mut one = memory.entry();
        assert!(one.try_grow(60));
        let mut other = memory.entry();
        assert!(!other.try_grow(60));
        let error = other.grow(60, "the rows of a window").unwrap_err();
        assert!(error.to_string().contains("projection_memory_bytes_max"), "{error}");
        drop(one);
        assert!(other.try_grow(60));
        assert_eq!((memory.used_bytes(), memory.most_bytes()), (60, 60));
        drop(other);
        assert_eq!((memory.used_bytes(), memory.most_bytes()), (0, 60));
    }
}
