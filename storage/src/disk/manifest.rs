//! What RocksDB's manifest says: live files with their checksums, logs still needed.
//!
//! Source: `db/version_edit.cc` of RocksDB 11. Tags above 8192 carry their length and can be passed over.

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::log::{self, Damage, Log, Reading};

/// A live table file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableFile {
    pub(crate) number: u64,
    pub(crate) bytes: u64,
    /// CRC-32C of the whole file, where it was recorded.
    pub(crate) crc: Option<u32>,
}

impl TableFile {
    /// Returns the file's name.
    pub(crate) fn name(&self) -> String {
        format!("{:06}.sst", self.number)
    }
}

/// The state a manifest leads to.
#[derive(Debug, Default)]
pub(crate) struct Manifest {
    /// Live table files by family id and number.
    pub(crate) files: BTreeMap<(u64, u64), TableFile>,
    /// Family names by id.
    pub(crate) families: BTreeMap<u64, String>,
    /// Logs below this number are not needed any more.
    pub(crate) log_number_min: u64,
    /// The greatest sequence number in the table files.
    pub(crate) last_sequence: u64,
    /// The manifest ends within a record.
    pub(crate) torn: bool,
}

/// The name RocksDB gives a CRC-32C of a file.
const CRC_NAME: &[u8] = b"FileChecksumCrc32c";

/// Reads a manifest. The outer error is that of the file, the inner one says where it is damaged.
///
/// # Errors
/// [`Damage`] where a record is damaged or says something this program does not know.
pub(crate) fn read(from: impl Read) -> io::Result<Result<Manifest, Damage>> {
    let log = log::read(from, Reading { checksums: true, records: true })?;
    Ok(log.and_then(of_log))
}

fn of_log(log: Log) -> Result<Manifest, Damage> {
    let mut manifest = Manifest { torn: log.torn, ..Manifest::default() };
    let mut needed: BTreeMap<u64, u64> = BTreeMap::new();
    for record in &log.records {
        let why = "a record of the manifest cannot be read";
        let edit = edit(record).ok_or(Damage { at: 0, why, good: 0, last_sequence: None })?;
        if let Some(name) = edit.added {
            manifest.families.insert(edit.family, name);
        }
        if edit.dropped {
            manifest.families.remove(&edit.family);
            manifest.files.retain(|(family, _), _| *family != edit.family);
            needed.remove(&edit.family);
            continue;
        }
        for number in edit.deleted {
            manifest.files.remove(&(edit.family, number));
        }
        for file in edit.new {
            manifest.files.insert((edit.family, file.number), file);
        }
        if let Some(number) = edit.log_number {
            needed.insert(edit.family, number);
        }
        manifest.last_sequence = manifest.last_sequence.max(edit.last_sequence);
        let keep = edit.log_number_to_keep.unwrap_or(0);
        manifest.log_number_min = manifest.log_number_min.max(keep);
    }
    let unflushed = needed.values().min().copied().unwrap_or(0);
    manifest.log_number_min = manifest.log_number_min.max(unflushed);
    Ok(manifest)
}

#[derive(Default)]
struct Edit {
    family: u64,
    added: Option<String>,
    dropped: bool,
    log_number: Option<u64>,
    log_number_to_keep: Option<u64>,
    last_sequence: u64,
    deleted: Vec<u64>,
    new: Vec<TableFile>,
}

fn edit(mut bytes: &[u8]) -> Option<Edit> {
    let mut edit = Edit::default();
    let rest = &mut bytes;
    while !rest.is_empty() {
        match varint(rest)? {
            2 => edit.log_number = Some(varint(rest)?),
            10 => edit.log_number_to_keep = Some(varint(rest)?),
            4 => edit.last_sequence = varint(rest)?,
            // Next file, previous log, greatest family id, place in a group.
            3 | 9 | 203 | 300 => drop(varint(rest)?),
            5 => {
                varint(rest)?;
                slice(rest)?;
            }
            6 => {
                varint(rest)?;
                edit.deleted.push(varint(rest)?);
            }
            103 => edit.new.push(new_file(rest)?),
            200 => edit.family = varint(rest)?,
            201 => edit.added = Some(String::from_utf8(slice(rest)?.to_vec()).ok()?),
            202 => edit.dropped = true,
            // The comparator, and what carries its length.
            1 | 8_193.. => drop(slice(rest)?),
            _ => return None,
        }
    }
    Some(edit)
}

fn new_file(rest: &mut &[u8]) -> Option<TableFile> {
    varint(rest)?;
    let number = varint(rest)?;
    let bytes = varint(rest)?;
    slice(rest)?;
    slice(rest)?;
    varint(rest)?;
    varint(rest)?;
    let (mut sum, mut name) = (None, None);
    loop {
        match varint(rest)? {
            1 => break,
            7 => sum = Some(slice(rest)?),
            8 => name = Some(slice(rest)?),
            _ => drop(slice(rest)?),
        }
    }
    let crc = sum.filter(|_| name == Some(CRC_NAME)).and_then(|sum| sum.try_into().ok());
    Some(TableFile { number, bytes, crc: crc.map(u32::from_be_bytes) })
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    crate::row::take_varint(rest).ok()
}

fn slice<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint(rest)?).ok()?;
    crate::row::take_slice(rest, length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzzed_edits_are_read_or_refused() {
        let file = include_bytes!("../fixtures/format-1/rocks/MANIFEST-000017").as_slice();
        let how = Reading { checksums: true, records: true };
        let records: Vec<Vec<u8>> = log::read(file, how).unwrap().unwrap().records;
        everwhen_fuzz::Fuzz::bytes("edits of a manifest", records.clone()).run(|bytes| {
            let edits = [&[bytes.to_vec()][..], &records].concat();
            let log = Log { records: edits, ..log::read(&[][..], how).unwrap().unwrap() };
            of_log(log).is_ok()
        });
    }
}
