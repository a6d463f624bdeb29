//! RocksDB's log format, that of write-ahead logs and manifests, read more strictly than RocksDB does.
//!
//! ```text
//! block 32768   record .. | fewer than 7 zeros |
//! record        crc 4 | length 2 | type 1 | (log number 4, types 5 to 8) | bytes |
//!                 type: 1 whole, 2 first, 3 middle, 4 last of a record cut over blocks
//! ```
//!
//! RocksDB skips the rest of a block from a header of zeros on, in every recovery mode, and opens
//! with a hole. Here zeros are the end of the log or damage. What was being written when the
//! process ended is torn, and no damage: nobody had been told that it was there.
//! Source: `db/log_format.h` and `db/log_reader.cc` of RocksDB 11.

use std::io::{self, Read};

use super::crc::{Crc, unmasked};

const BLOCK: usize = 32_768;
const HEADER: usize = 7;
const HEADER_RECYCLABLE: usize = 11;
/// Sequence number 8, count 4.
const WRITE_HEADER: usize = 12;

/// What a log holds.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// The bytes of each whole record, where they were asked for.
    pub(crate) records: Vec<Vec<u8>>,
    /// Whole records.
    pub(crate) count: u64,
    /// The greatest sequence number in a write-ahead log; nothing where it has no records.
    pub(crate) last_sequence: Option<u64>,
    /// The log ends within a record.
    pub(crate) torn: bool,
}

/// Where a log is damaged, and how.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Bytes from the start of the file.
    pub(crate) at: usize,
    pub(crate) why: &'static str,
    /// Bytes from the start of the file to the end of the last whole record.
    pub(crate) good: usize,
    /// As of a [`Log`], of the records before.
    pub(crate) last_sequence: Option<u64>,
}

/// How to read a log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    /// Compare every checksum; without, only the structure is checked.
    pub(crate) checksums: bool,
    /// Keep the records.
    pub(crate) records: bool,
}

/// Reads a whole log. The outer error is that of the file, the inner one says where it is damaged.
///
/// # Errors
/// [`Damage`] where a record is not as it was written.
pub(crate) fn read(mut from: impl Read, how: Reading) -> io::Result<Result<Log, Damage>> {
    let mut parsing = Parsing::new(how);
    loop {
        let mut block = Vec::with_capacity(BLOCK);
        from.by_ref().take(BLOCK as u64).read_to_end(&mut block)?;
        if let Err(damage) = parsing.block(&block) {
            return Ok(Err(damage));
        }
        if block.len() < BLOCK {
            break;
        }
        parsing.block_at += BLOCK;
    }
    parsing.log.torn |= parsing.open.is_some();
    Ok(Ok(parsing.log))
}

struct Parsing {
    how: Reading,
    log: Log,
    /// What there is so far of a record that is cut over blocks.
    open: Option<Vec<u8>>,
    /// The end of the last whole record.
    good: usize,
    block_at: usize,
    /// From here on there are zeros.
    ended: Option<usize>,
}

/// One physical record.
struct Piece<'a> {
    /// 1 to 4, or 9 and more.
    kind: u8,
    bytes: &'a [u8],
    /// Its length with its header.
    length: usize,
}

impl Parsing {
    const fn new(how: Reading) -> Self {
        let log = Log { records: Vec::new(), count: 0, last_sequence: None, torn: false };
        Self { how, log, open: None, good: 0, block_at: 0, ended: None }
    }

    const fn damage(&self, at: usize, why: &'static str) -> Damage {
        Damage { at, why, good: self.good, last_sequence: self.log.last_sequence }
    }

    /// Reads a block; one that is short ends the log.
    fn block(&mut self, block: &[u8]) -> Result<(), Damage> {
        let mut place = 0;
        while place < block.len() {
            let rest = &block[place..];
            let at = self.block_at + place;
            let zeros = rest.iter().all(|byte| *byte == 0);
            if let Some(at) = self.ended {
                let damage = self.damage(at, "zeros in place of a record");
                return if zeros { Ok(()) } else { Err(damage) };
            }
            if zeros && rest.len() >= HEADER {
                self.ended = Some(at);
                return Ok(());
            }
            let is_short = block.len() < BLOCK;
            if rest.len() < HEADER {
                self.log.torn |= is_short && !zeros;
                let damage = self.damage(at, "a block that is not filled with zeros");
                return if is_short || zeros { Ok(()) } else { Err(damage) };
            }
            let read = piece(rest, self.how.checksums);
            let piece = read.map_err(|why| self.damage(at, why))?;
            let Some(piece) = piece else {
                self.log.torn = true;
                let damage = self.damage(at, "a record longer than its block");
                return if is_short { Ok(()) } else { Err(damage) };
            };
            let added = self.add(&piece);
            added.map_err(|why| self.damage(at, why))?;
            place += piece.length;
            if self.open.is_none() {
                self.good = self.block_at + place;
            }
        }
        Ok(())
    }

    fn add(&mut self, piece: &Piece<'_>) -> Result<(), &'static str> {
        // A write begins with its sequence number and its count.
        let kept = if self.how.records {
            piece.bytes
        } else if matches!(piece.kind, 1 | 2) {
            &piece.bytes[..piece.bytes.len().min(WRITE_HEADER)]
        } else {
            &[]
        };
        let whole = match (piece.kind, self.open.take()) {
            (1, None) => kept.to_vec(),
            (2, None) => {
                self.open = Some(kept.to_vec());
                return Ok(());
            }
            (kind @ (3 | 4), Some(mut so_far)) => {
                so_far.extend_from_slice(kept);
                if kind == 3 {
                    self.open = Some(so_far);
                    return Ok(());
                }
                so_far
            }
            // What says something of the log itself, between records.
            (9.., so_far) => {
                self.open = so_far;
                return Ok(());
            }
            (1 | 2, Some(_)) => return Err("a record without its end"),
            _ => return Err("the rest of a record without its start"),
        };
        self.log.count += 1;
        if let Some(last) = last_sequence(&whole) {
            self.log.last_sequence = self.log.last_sequence.max(Some(last));
        }
        if self.how.records {
            self.log.records.push(whole);
        }
        Ok(())
    }
}

/// Returns the last sequence number of a write.
fn last_sequence(write: &[u8]) -> Option<u64> {
    let first = u64::from_le_bytes(*write.first_chunk()?);
    let count = u32::from_le_bytes(*write.get(8..)?.first_chunk()?);
    first.checked_add(u64::from(count))?.checked_sub(1)
}

/// Reads the physical record that a block goes on with; nothing where the block ends within it.
fn piece(rest: &[u8], checksums: bool) -> Result<Option<Piece<'_>>, &'static str> {
    let Some((header, _)) = rest.split_first_chunk::<HEADER>() else { return Ok(None) };
    let [c0, c1, c2, c3, l0, l1, kind] = *header;
    let is_recyclable = (5..=8).contains(&kind) || kind == 11 || kind == 131;
    let start = if is_recyclable { HEADER_RECYCLABLE } else { HEADER };
    let length = start + usize::from(u16::from_le_bytes([l0, l1]));
    if kind == 0 && length == HEADER {
        return Err("zeros in place of a record");
    }
    let Some(bytes) = rest.get(start..length) else { return Ok(None) };
    if checksums {
        let mut crc = Crc::default();
        crc.add(&rest[HEADER - 1..length]);
        if crc.value() != unmasked(u32::from_le_bytes([c0, c1, c2, c3])) {
            return Err("the checksum of a record does not match");
        }
    }
    let kind = if (5..=8).contains(&kind) { kind - 4 } else { kind };
    if kind == 0 { Err("a record of no kind") } else { Ok(Some(Piece { kind, bytes, length })) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Reading = Reading { checksums: true, records: true };

    fn parse(bytes: &[u8], how: Reading) -> Result<Log, Damage> {
        read(bytes, how).unwrap()
    }

    fn masked(crc: u32) -> u32 {
        crc.rotate_right(15).wrapping_add(0xA282_EAD8)
    }

    /// Writes records as RocksDB does.
    fn log(records: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for record in records {
            let (mut rest, mut begun) = (record.as_slice(), false);
            loop {
                let left = BLOCK - out.len() % BLOCK;
                if left < HEADER {
                    out.resize(out.len() + left, 0);
                    continue;
                }
                let (now, later) = rest.split_at(rest.len().min(left - HEADER));
                let kind = match (begun, later.is_empty()) {
                    (false, true) => 1,
                    (false, false) => 2,
                    (true, false) => 3,
                    (true, true) => 4,
                };
                let mut crc = Crc::default();
                crc.add(&[kind]);
                crc.add(now);
                out.extend_from_slice(&masked(crc.value()).to_le_bytes());
                out.extend_from_slice(&u16::try_from(now.len()).unwrap().to_le_bytes());
                out.push(kind);
                out.extend_from_slice(now);
                (rest, begun) = (later, true);
                if rest.is_empty() {
                    break;
                }
            }
        }
        out
    }

    fn records() -> Vec<Vec<u8>> {
        [10, 0, 40_000, 32_754, 3, 100_000, 7]
            .into_iter()
            .map(|length: usize| (0..length).map(|at| at.to_le_bytes()[0] | 1).collect())
            .collect()
    }

    #[test]
    fn records_of_any_length_are_read() {
        let read = parse(&log(&records()), ALL).unwrap();
        assert_eq!(read.records, records());
        assert!(!read.torn);
    }

    #[test]
    fn an_end_anywhere_is_torn_and_no_damage() {
        let bytes = log(&records());
        let whole = |length: usize| {
            let ends = (0..=records().len()).map(|n| log(&records()[..n]).len());
            ends.filter(|end| *end <= length).count() - 1
        };
        for cut in (0..bytes.len()).step_by(97) {
            let read = parse(&bytes[..cut], ALL).unwrap();
            assert_eq!(read.records, records()[..whole(cut)], "cut at {cut}");
        }
    }

    #[test]
    fn zeros_behind_the_end_are_no_damage_and_zeros_before_it_are() {
        let mut bytes = log(&records());
        let end = bytes.len();
        bytes.resize(end + 50_000, 0);
        assert_eq!(parse(&bytes, ALL).unwrap().records, records());
        bytes[..100].fill(0);
        assert_eq!(parse(&bytes, ALL).unwrap_err().why, "zeros in place of a record");
        let structure = Reading { checksums: false, records: false };
        assert_eq!(parse(&bytes, structure).unwrap_err().at, 0);
    }

    #[test]
    fn every_changed_byte_is_found_or_ends_the_log() {
        let bytes = log(&records());
        for at in (0..bytes.len()).step_by(61) {
            let mut changed = bytes.clone();
            changed[at] ^= 0x40;
            if let Ok(read) = parse(&changed, ALL) {
                assert!(read.torn, "a change at {at} went unseen");
                assert_eq!(read.records, records()[..read.records.len()]);
            }
        }
    }

    #[test]
    fn fuzzed_logs_are_read_or_refused() {
        let write = |first: u64, count: u32, more: usize| {
            let body = vec![7; more];
            [&first.to_le_bytes()[..], &count.to_le_bytes()[..], &body].concat()
        };
        let corpus = [
            log(&[write(1, 2, 20), write(3, 1, 0)]),
            include_bytes!("../fixtures/format-1/rocks/000016.log").to_vec(),
        ];
        let bare = Reading { checksums: false, records: true };
        everwhen_fuzz::Fuzz::bytes("logs", corpus.clone()).run(|bytes| parse(bytes, bare).is_ok());
        everwhen_fuzz::Fuzz::bytes("logs with checksums", corpus)
            .run(|bytes| parse(bytes, ALL).is_ok());
    }
}
