//! Writes of one family, put in key order before they reach the engine.
//!
//! A memtable takes ascending keys at a fraction of the cost of scattered ones: it goes on from
//! where the last one went (RocksDB, `InlineSkipList::seq_splice_`).

/// Puts and deletes of one family; of several for one key the last counts.
#[derive(Default)]
pub(super) struct Sorted {
    /// Keys and values, one after the other.
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    key: usize,
    value: usize,
    end: usize,
    is_delete: bool,
}

impl Sorted {
    /// Adds a put; the key is the parts joined.
    pub(super) fn put(&mut self, key: &[&[u8]], value: &[u8]) {
        self.add(key, value, false);
    }

    /// Adds a delete; the key is the parts joined.
    pub(super) fn delete(&mut self, key: &[&[u8]]) {
        self.add(key, &[], true);
    }

    fn add(&mut self, key_parts: &[&[u8]], value: &[u8], is_delete: bool) {
        let key = self.bytes.len();
        for part in key_parts {
            self.bytes.extend_from_slice(part);
        }
        let value_at = self.bytes.len();
        self.bytes.extend_from_slice(value);
        let end = self.bytes.len();
        self.entries.push(Entry { key, value: value_at, end, is_delete });
    }

    /// Calls `each` with everything in key order, without a value for a delete.
    pub(super) fn drain(&mut self, mut each: impl FnMut(&[u8], Option<&[u8]>)) {
        let bytes = &self.bytes;
        // Stable: operations on one key keep their order.
        self.entries.sort_by(|a, b| bytes[a.key..a.value].cmp(&bytes[b.key..b.value]));
        for entry in &self.entries {
            let value = (!entry.is_delete).then(|| &bytes[entry.value..entry.end]);
            each(&bytes[entry.key..entry.value], value);
        }
    }
}
