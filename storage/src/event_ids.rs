//! What each event id says now.
//!
//! ```text
//! value   format 1 | content hash 16 | order varint | count varint
//!         | per assertion: row key (varint length, bytes), assertion suffix 29
//! ```

use crate::assertions::Suffix;
use crate::error::Result;
use crate::row;
use crate::schema::RowKey;

/// The assertions that an event id stands for, and how they are recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventEntry {
    pub(crate) content_hash: u128,
    /// The greatest order of its assertions.
    pub(crate) order: i64,
    pub(crate) assertions: Vec<(RowKey, Suffix)>,
}

impl EventEntry {
    /// Appends the value.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.push(row::FORMAT);
        out.extend_from_slice(&self.content_hash.to_le_bytes());
        row::put_varint(out, row::zigzag(self.order));
        row::put_varint(out, self.assertions.len() as u64);
        for (key, suffix) in &self.assertions {
            row::put_varint(out, key.0.len() as u64);
            out.extend_from_slice(&key.0);
            out.extend_from_slice(suffix);
        }
    }

    /// Reads a value.
    pub(crate) fn read(mut bytes: &[u8]) -> Result<Self> {
        row::take_format(&mut bytes)?;
        let content_hash = u128::from_le_bytes(row::take_array(&mut bytes)?);
        let order = row::unzigzag(row::take_varint(&mut bytes)?);
        let count = row::take_length(&mut bytes)?;
        let mut assertions = Vec::with_capacity(count.min(bytes.len()));
        for _ in 0..count {
            let length = row::take_length(&mut bytes)?;
            let key = RowKey(row::take_slice(&mut bytes, length)?.to_vec());
            assertions.push((key, row::take_array(&mut bytes)?));
        }
        Ok(Self { content_hash, order, assertions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_round_trips() {
        let entry = EventEntry {
            content_hash: u128::MAX - 1,
            order: -4,
            assertions: vec![(RowKey(vec![1, 0, 2]), [7; 29]), (RowKey(Vec::new()), [0; 29])],
        };
        let mut bytes = Vec::new();
        entry.put(&mut bytes);
        assert_eq!(EventEntry::read(&bytes).unwrap(), entry);
        assert!(EventEntry::read(&bytes[..bytes.len() - 1]).is_err());
    }
}
