//! The compressed blocks of table files, found without the engine and without an index of the file:
//! whatever decompresses at any place counts, so that a block that no index names is seen, too.
//!
//! ```text
//! varint: bytes once decompressed | LZ4 block, or zstd frame | 1 byte: 4 or 7 | 4 bytes: checksum
//! ```
//!
//! Source: RocksDB's `format.md` and `util/compression.h`; the LZ4 block format.

use std::io::Read as _;

/// More than any block takes.
const BLOCK_BYTES_MAX: usize = 16 << 20;
const LZ4: u8 = 4;
const ZSTD: u8 = 7;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// Hands on what each compressed block of a file holds.
pub fn each(file: &[u8], mut take: impl FnMut(&[u8])) {
    let mut at = 0;
    while at < file.len() {
        // Bytes that look like an LZ4 block by chance may reach over the start of a real one.
        at += match block(&file[at..]) {
            Some((plain, length)) => {
                take(&plain);
                if is_certain(&file[at..]) { length } else { 1 }
            }
            None => 1,
        };
    }
}

/// Returns what the block at the start of some bytes holds, and the bytes it takes.
fn block(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (length, head) = varint(bytes)?;
    let packed = &bytes[head..];
    let is_zstd = packed.starts_with(&ZSTD_MAGIC);
    let (plain, used) = if is_zstd { zstd(packed, length)? } else { lz4(packed, length)? };
    let marked = *packed.get(used)? == if is_zstd { ZSTD } else { LZ4 };
    marked.then_some((plain, head + used + 1))
}

/// True at a zstd frame, which nothing else looks like.
fn is_certain(bytes: &[u8]) -> bool {
    varint(bytes).is_some_and(|(_, head)| bytes[head..].starts_with(&ZSTD_MAGIC))
}

fn varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (place, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * place);
        if byte & 0x80 == 0 {
            return (1..=BLOCK_BYTES_MAX).contains(&value).then_some((value, place + 1));
        }
    }
    None
}

fn zstd(packed: &[u8], length: usize) -> Option<(Vec<u8>, usize)> {
    let mut rest = packed;
    let mut plain = Vec::new();
    let decoder = zstd::stream::read::Decoder::with_buffer(&mut rest).ok()?.single_frame();
    decoder.take(u64::try_from(length).ok()? + 1).read_to_end(&mut plain).ok()?;
    (plain.len() == length).then_some((plain, packed.len() - rest.len()))
}

/// Decompresses sequences of literals and matches until all bytes are there.
fn lz4(packed: &[u8], length: usize) -> Option<(Vec<u8>, usize)> {
    let mut plain: Vec<u8> = Vec::new();
    let mut at = 0;
    loop {
        let token = usize::from(*packed.get(at)?);
        at += 1;
        let literals = run_length(token >> 4, packed, &mut at)?;
        plain.extend_from_slice(packed.get(at..at.checked_add(literals)?)?);
        at += literals;
        if plain.len() >= length {
            return (plain.len() == length).then_some((plain, at));
        }
        let back = usize::from(u16::from_le_bytes([*packed.get(at)?, *packed.get(at + 1)?]));
        at += 2;
        let matched = run_length(token & 15, packed, &mut at)? + 4;
        let from = plain.len().checked_sub(back).filter(|_| back > 0)?;
        // A block ends with literals, so a match never reaches its end.
        if plain.len() + matched >= length {
            return None;
        }
        for place in from..from + matched {
            plain.push(plain[place]);
        }
    }
}

fn run_length(short: usize, packed: &[u8], at: &mut usize) -> Option<usize> {
    let mut length = short;
    let mut more = short == 15;
    while more {
        let byte = *packed.get(*at)?;
        *at += 1;
        length += usize::from(byte);
        more = byte == 255;
    }
    Some(length)
}

#[test]
fn blocks_of_both_kinds_are_found_wherever_they_lie() {
    use rocksdb::{BlockBasedOptions, DBCompressionType, Options, SstFileWriter};
    for kind in [DBCompressionType::Lz4, DBCompressionType::Zstd] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.sst");
        let mut options = Options::default();
        options.set_compression_type(kind);
        options.set_block_based_table_factory(&BlockBasedOptions::default());
        let mut writer = SstFileWriter::create(&options);
        writer.open(&path).unwrap();
        let value = |n: u32| format!("value {n} {}", "and so on, ".repeat(20));
        for n in 0..2_000_u32 {
            writer.put(n.to_be_bytes(), value(n)).unwrap();
        }
        writer.finish().unwrap();
        let file = std::fs::read(&path).unwrap();
        let mut plain = Vec::new();
        each(&file, |block| plain.push(block.to_vec()));
        let holds = |bytes: &[u8], wanted: &str| {
            bytes.windows(wanted.len()).any(|window| window == wanted.as_bytes())
        };
        for n in (0..2_000).step_by(97) {
            let wanted = format!("value {n} and so on, and so on");
            assert!(!holds(&file, &wanted), "{kind:?} leaves {n} as it is");
            assert!(plain.iter().any(|block| holds(block, &wanted)), "{kind:?}: {n}");
        }
    }
}
