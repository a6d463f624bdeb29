//! A batch of raw records: one arena of bytes, filled by a source up to a size and an age.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use everwhen_storage::{LastRecord, SourceLog};
use xxhash_rust::xxh3::Xxh3;

use crate::stream::KafkaTopic;

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
    origin: Option<Arc<ReadFrom>>,
}

/// The topic that records were read from, and what its partitions' logs are known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadFrom {
    pub topic: KafkaTopic,
    pub logs: BTreeMap<i32, SourceLog>,
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

impl Record<'_> {
    /// Hashes what a record is recognised by when it is read again: key, value and timestamp.
    ///
    /// The hash is stored, so its input's form is fixed. Of a large value the beginning and the
    /// size count, as no more may be kept of it.
    pub fn hash(&self) -> u128 {
        let mut hasher = Xxh3::new();
        let mut number = |number: i64| hasher.update(&number.to_le_bytes());
        let length = |bytes: Option<&[u8]>| bytes.map_or(-1, |bytes| size_of_slice(bytes.len()));
        let value = self.value.map(|value| &value[..value.len().min(KEPT_BYTES_MAX)]);
        number(self.timestamp.unwrap_or(i64::MIN));
        number(size_of_slice(self.size));
        number(length(self.key));
        number(length(value));
        hasher.update(self.key.unwrap_or_default());
        hasher.update(value.unwrap_or_default());
        hasher.digest128()
    }
}

fn size_of_slice(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

impl Records {
    /// Begins a batch of a topic's records.
    pub fn from_topic(origin: Arc<ReadFrom>) -> Self {
        Self { origin: Some(origin), ..Self::default() }
    }

    /// Returns what the records were read from, where that is a topic.
    pub fn origin(&self) -> Option<&Arc<ReadFrom>> {
        self.origin.as_ref()
    }

    /// Returns what a partition's log is known by.
    pub fn log(&self, partition: i32) -> SourceLog {
        let log = self.origin.as_ref().and_then(|origin| origin.logs.get(&partition));
        log.copied().unwrap_or_default()
    }

    /// Returns the last record of each partition.
    pub fn lasts(&self) -> BTreeMap<i32, LastRecord> {
        let mut places = BTreeMap::new();
        for (index, entry) in self.entries.iter().enumerate() {
            if let Some((partition, offset)) = entry.place {
                places.insert(partition, (offset, index));
            }
        }
        let last = |(partition, (offset, index))| {
            let hash = self.get(index).hash();
            (partition, LastRecord { offset, hash })
        };
        places.into_iter().map(last).collect()
    }

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
        let mut part = Self { origin: self.origin.clone(), ..Self::default() };
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
    use everwhen_storage::LastRecord;

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

    /// Stores hold these hashes: the same record must have the same one for ever.
    #[test]
    fn the_hash_of_a_record_is_fixed_and_of_all_that_it_is_recognised_by() {
        let first = record(b"value", 1);
        assert_eq!(first.hash(), 331_200_910_104_121_545_191_430_721_861_990_302_075);
        assert_eq!(record(b"value", 2).hash(), first.hash(), "the offset does not count");
        let others = [
            record(b"valuf", 1),
            Record { value: None, ..first },
            Record { value: Some(b""), size: 0, ..first },
            Record { value: None, size: 0, ..first },
            Record { key: None, ..first },
            Record { key: Some(b"kv"), value: Some(b"alue"), ..first },
            Record { timestamp: None, ..first },
            Record { timestamp: Some(2), ..first },
            Record { size: 6, ..first },
        ];
        let mut hashes: Vec<u128> = others.iter().map(Record::hash).collect();
        hashes.push(first.hash());
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), others.len() + 1);
        // What is kept of a large value is enough.
        let large = vec![b'x'; 200_000];
        let mut records = Records::default();
        records.push(&record(&large, 7), 100_000);
        records.push(&record(b"value", 3), 100_000);
        records.push(&record(b"value", 9), 100_000);
        assert_eq!(records.get(0).hash(), record(&large, 7).hash());
        let last = LastRecord { offset: 9, hash: first.hash() };
        assert_eq!(records.lasts().into_iter().collect::<Vec<_>>(), [(0, last)]);
    }
}
