//! How far a partition of a source was read, and what its log was known by.
//!
//! ```text
//! log     generation varint | flags 1 | topic id 16 | last offset 8 | last hash 16
//!         | stop 1 | tx varint
//! flags   1 a topic id follows, 2 a last record, 4 a stop; what has no flag is left out
//! ```

use crate::error::{Error, Result};
use crate::row;
use crate::tx::TxId;

/// The next offset to read of a partition, and of which log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SourcePlace {
    pub next_offset: i64,
    pub log: SourceLog,
}

/// What a partition's log is known by, so that another log is told apart from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SourceLog {
    /// Grows whenever the stream begins anew: an offset says nothing about other generations.
    pub generation: u64,
    /// Kafka's id of the topic; nothing where the broker does not tell it.
    pub topic_id: Option<[u8; 16]>,
    /// The last record that was read.
    pub last: Option<LastRecord>,
    /// Why reading stopped, where a person has to decide how it goes on.
    pub stop: Option<SourceStop>,
}

/// A record by which a log is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastRecord {
    pub offset: i64,
    /// Over its key, value and timestamp.
    pub hash: u128,
}

/// A stop that only a statement about the stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceStop {
    pub fault: SourceFault,
    /// The transaction of the definitions under which it was found.
    pub found_at: TxId,
}

/// What is wrong with a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceFault {
    /// The topic has another id, or another record at the offset of the last one.
    Remade,
    /// The log begins after the next offset.
    Truncated,
    /// The log ends before the next offset.
    Shorter,
}

const TOPIC_ID: u8 = 1;
const LAST: u8 = 2;
const STOP: u8 = 4;

impl SourceFault {
    const fn tag(self) -> u8 {
        match self {
            Self::Remade => 1,
            Self::Truncated => 2,
            Self::Shorter => 3,
        }
    }

    fn of_tag(tag: u8) -> Result<Self> {
        match tag {
            1 => Ok(Self::Remade),
            2 => Ok(Self::Truncated),
            3 => Ok(Self::Shorter),
            _ => Err(damaged("a fault of unknown kind")),
        }
    }
}

impl SourceLog {
    /// True where nothing is known: such a log is not written at all.
    pub(crate) fn is_unknown(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        row::put_varint(out, self.generation);
        let flag = |is_there, flag| if is_there { flag } else { 0 };
        out.push(
            flag(self.topic_id.is_some(), TOPIC_ID)
                | flag(self.last.is_some(), LAST)
                | flag(self.stop.is_some(), STOP),
        );
        if let Some(topic_id) = self.topic_id {
            out.extend_from_slice(&topic_id);
        }
        if let Some(last) = self.last {
            out.extend_from_slice(&last.offset.to_le_bytes());
            out.extend_from_slice(&last.hash.to_le_bytes());
        }
        if let Some(stop) = self.stop {
            out.push(stop.fault.tag());
            row::put_varint(out, stop.found_at.get());
        }
    }

    pub(crate) fn take(bytes: &mut &[u8]) -> Result<Self> {
        let generation = row::take_varint(bytes)?;
        let flags = row::take_byte(bytes)?;
        if flags & !(TOPIC_ID | LAST | STOP) != 0 {
            return Err(damaged("a flag that is not known"));
        }
        let topic_id = match flags & TOPIC_ID {
            0 => None,
            _ => Some(row::take_array(bytes)?),
        };
        let last = match flags & LAST {
            0 => None,
            _ => Some(LastRecord {
                offset: i64::from_le_bytes(row::take_array(bytes)?),
                hash: u128::from_le_bytes(row::take_array(bytes)?),
            }),
        };
        let stop = match flags & STOP {
            0 => None,
            _ => Some(SourceStop {
                fault: SourceFault::of_tag(row::take_byte(bytes)?)?,
                found_at: TxId::new(row::take_varint(bytes)?),
            }),
        };
        Ok(Self { generation, topic_id, last, stop })
    }
}

impl SourcePlace {
    /// Returns the value in the `meta` family: the next offset alone where the log is not known.
    pub(crate) fn value(&self) -> Vec<u8> {
        let mut value = self.next_offset.to_be_bytes().to_vec();
        if !self.log.is_unknown() {
            self.log.put(&mut value);
        }
        value
    }

    /// Reads the value in the `meta` family.
    pub(crate) fn read(mut bytes: &[u8]) -> Result<Self> {
        let next_offset = i64::from_be_bytes(row::take_array(&mut bytes)?);
        let log = match bytes {
            [] => SourceLog::default(),
            _ => SourceLog::take(&mut bytes)?,
        };
        if !bytes.is_empty() {
            return Err(damaged("bytes after its end"));
        }
        Ok(Self { next_offset, log })
    }
}

fn damaged(why: &str) -> Error {
    Error::Corrupt { what: "source", why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> SourcePlace {
        let log = SourceLog {
            generation: 300,
            topic_id: Some([7; 16]),
            last: Some(LastRecord { offset: 8, hash: 1 << 120 }),
            stop: Some(SourceStop { fault: SourceFault::Truncated, found_at: TxId::new(5) }),
        };
        SourcePlace { next_offset: 9, log }
    }

    #[test]
    fn a_place_without_a_log_has_the_eight_bytes_that_it_always_had() {
        let place = SourcePlace { next_offset: 258, ..SourcePlace::default() };
        assert_eq!(place.value(), [0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(SourcePlace::read(&place.value()).unwrap(), place);
    }

    #[test]
    fn the_bytes_of_a_place_are_fixed() {
        let mut expected = vec![0, 0, 0, 0, 0, 0, 0, 9, 0xAC, 0x02, 7];
        expected.extend([7; 16]);
        expected.extend([8, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([0; 15]);
        expected.extend([1, 2, 5]);
        assert_eq!(whole().value(), expected);
    }

    #[test]
    fn places_round_trip_and_cut_ones_are_refused() {
        let mut logs = vec![whole().log, SourceLog { generation: 1, ..SourceLog::default() }];
        logs.push(SourceLog { topic_id: None, ..whole().log });
        logs.push(SourceLog { last: None, stop: None, ..whole().log });
        for log in logs {
            let place = SourcePlace { next_offset: -1, log };
            let bytes = place.value();
            assert_eq!(SourcePlace::read(&bytes).unwrap(), place);
            for length in (0..bytes.len()).filter(|length| *length != 8) {
                assert!(SourcePlace::read(&bytes[..length]).is_err(), "{length} bytes");
            }
        }
        assert!(SourcePlace::read(&[whole().value(), vec![0]].concat()).is_err());
    }
}
