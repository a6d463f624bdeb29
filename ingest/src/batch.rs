//! A batch of raw records: one arena of bytes, filled by a source up to a size and an age.

use std::ops::Range;

/// How large a batch of records may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Records in one batch.
    pub records_max: usize,
    /// Bytes of keys, values and headers in one batch; a single record may exceed it.
    pub bytes_max: usize,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { records_max: 8_192, bytes_max: 16 << 20 }
    }
}

/// Bytes of a value that are kept of a record too large to process.
pub const KEPT_BYTES_MAX: usize = 64 << 10;

/// Raw records in the order of their source.
#[derive(Debug, Clone, Default)]
pub struct Records {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    headers: Option<Range<usize>>,
    timestamp: Option<i64>,
    place: Option<(i32, i64)>,
    size: usize,
    truncated: bool,
}

/// One raw record.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    pub key: Option<&'a [u8]>,
    /// `None` for a tombstone; the first [`KEPT_BYTES_MAX`] bytes where `truncated`.
    pub value: Option<&'a [u8]>,
    /// A JSON object of text values.
    pub headers: Option<&'a [u8]>,
    /// Microseconds since the Unix epoch.
    pub timestamp: Option<i64>,
    /// Partition and offset, of a record from a topic.
    pub place: Option<(i32, i64)>,
    /// Bytes of the whole value.
    pub size: usize,
    /// The value was larger than allowed and only its beginning is here.
    pub truncated: bool,
}

impl Records {
    /// Adds a record; keeps only the beginning of a value of more than `value_bytes_max`.
    pub fn push(&mut self, record: &Record<'_>, value_bytes_max: usize) {
        let truncated = record.size > value_bytes_max;
        let value = record
            .value
            .map(|value| if truncated { &value[..value.len().min(KEPT_BYTES_MAX)] } else { value });
        let entry = Entry {
            key: record.key.map(|bytes| self.keep(bytes)),
            value: value.map(|bytes| self.keep(bytes)),
            headers: record.headers.map(|bytes| self.keep(bytes)),
            timestamp: record.timestamp,
            place: record.place,
            size: record.size,
            truncated,
        };
        self.entries.push(entry);
    }

    fn keep(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    /// Returns the number of records.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True without records.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// True once the batch has reached a limit.
    pub fn is_full(&self, limits: &BatchLimits) -> bool {
        self.entries.len() >= limits.records_max || self.bytes.len() >= limits.bytes_max
    }

    /// Returns a record.
    pub fn get(&self, index: usize) -> Record<'_> {
        let entry = &self.entries[index];
        let slice =
            |range: &Option<Range<usize>>| range.as_ref().map(|range| &self.bytes[range.clone()]);
        Record {
            key: slice(&entry.key),
            value: slice(&entry.value),
            headers: slice(&entry.headers),
            timestamp: entry.timestamp,
            place: entry.place,
            size: entry.size,
            truncated: entry.truncated,
        }
    }

    /// Returns all records in order.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Returns some of the records as a batch of their own.
    #[must_use]
    pub fn part(&self, range: Range<usize>) -> Self {
        let mut part = Self::default();
        for index in range {
            let record = self.get(index);
            let value_bytes_max = if record.truncated { record.size - 1 } else { record.size };
            part.push(&record, value_bytes_max);
        }
        part
    }
}

#[cfg(test)]
mod tests {
    use super::{BatchLimits, KEPT_BYTES_MAX, Record, Records};

    fn record(value: &[u8], offset: i64) -> Record<'_> {
        Record {
            key: Some(b"k"),
            value: Some(value),
            headers: None,
            timestamp: Some(1),
            place: Some((0, offset)),
            size: value.len(),
            truncated: false,
        }
    }

    #[test]
    fn an_oversized_value_keeps_its_beginning_and_size() {
        let large = vec![b'x'; 200_000];
        let mut records = Records::default();
        records.push(&record(&large, 7), 100_000);
        records.push(&record(b"ok", 8), 100_000);
        let first = records.get(0);
        assert!(first.truncated);
        assert_eq!((first.size, first.value.map(<[u8]>::len)), (200_000, Some(KEPT_BYTES_MAX)));
        let part = records.part(0..1);
        assert!(part.get(0).truncated);
        assert_eq!(records.get(1).value, Some(&b"ok"[..]));
    }

    #[test]
    fn limits_are_by_count_and_bytes() {
        let limits = BatchLimits { records_max: 2, bytes_max: 100 };
        let mut records = Records::default();
        records.push(&record(b"12", 1), 1_000);
        assert!(!records.is_full(&limits));
        records.push(&record(b"12", 2), 1_000);
        assert!(records.is_full(&limits));
        let mut records = Records::default();
        records.push(&record(&[b'x'; 120], 1), 1_000);
        assert!(records.is_full(&limits));
    }
}
