//! Looking for values in every file below a directory: as they are, in hex of either case (which is
//! how RocksDB's log names keys), in base64, all three in compressed blocks, too, and in what
//! RocksDB shows of its entries.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use rocksdb::{DB, IteratorMode, Options};

use super::blocks;

/// The places of values that stand in files.
#[derive(Debug, Default)]
pub struct Found {
    /// In the bytes of a file.
    pub plain: BTreeSet<usize>,
    /// In what a block of a file holds once decompressed.
    pub compressed: BTreeSet<usize>,
}

impl Found {
    pub fn all(&self) -> BTreeSet<usize> {
        self.plain.union(&self.compressed).copied().collect()
    }
}

/// Bytes at the start of a spelling that need not be there.
const SHARED: usize = 4;

/// The bytes that each of some values may stand as.
pub struct Wanted {
    /// By four bytes: what follows from there on, and which value it is of.
    spellings: HashMap<[u8; 4], Vec<(Vec<u8>, usize)>>,
    count: usize,
}

impl Wanted {
    /// Looks for values of at least four bytes.
    pub fn new(values: &[[u8; 32]]) -> Self {
        let mut spellings: HashMap<[u8; 4], Vec<(Vec<u8>, usize)>> = HashMap::new();
        for (at, value) in values.iter().enumerate() {
            let (lower, text) = (hex(value), base64(value));
            // A value that is text stands in hex of that text.
            let texts = [lower.clone(), lower.to_uppercase(), hex(text.as_bytes())];
            let upper = texts[2].to_uppercase();
            let texts = texts.into_iter().chain([upper, text]).map(String::into_bytes);
            for spelling in texts.chain([value.to_vec()]) {
                // In a table a key leaves out what it shares with the one before.
                let rest = spelling[SHARED..].to_vec();
                let head = [rest[0], rest[1], rest[2], rest[3]];
                spellings.entry(head).or_default().push((rest, at));
            }
        }
        Self { spellings, count: values.len() }
    }

    fn look(&self, bytes: &[u8], found: &mut BTreeSet<usize>) {
        for (start, head) in bytes.windows(4).enumerate() {
            let Some(all) = self.spellings.get(head) else { continue };
            for (spelling, at) in all {
                if bytes[start..].starts_with(spelling) {
                    found.insert(*at);
                }
            }
        }
    }

    /// Returns which of the values stand in a file below a directory. Files of a running server may go while
    /// they are looked through, and others have come for them then: the look begins anew.
    pub fn in_files(&self, directory: &Path) -> Found {
        const LOOKS_MAX: usize = 50;
        for _ in 0..LOOKS_MAX {
            match self.in_files_there(directory) {
                Ok(found) => return found,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => panic!("{}: {error}", directory.display()),
            }
        }
        panic!("{}: files go faster than they can be read", directory.display())
    }

    fn in_files_there(&self, directory: &Path) -> std::io::Result<Found> {
        let mut found = Found::default();
        let mut open = vec![directory.to_owned()];
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory)? {
                let path = entry?.path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    let file = std::fs::read(&path)?;
                    self.look(&file, &mut found.plain);
                    blocks::each(&file, |block| self.look(block, &mut found.compressed));
                }
            }
        }
        Ok(found)
    }

    /// Returns which of the values stand in an entry of a database that nobody has open.
    pub fn in_entries(&self, database: &Path) -> BTreeSet<usize> {
        let options = Options::default();
        let families = DB::list_cf(&options, database).unwrap();
        let db = DB::open_cf_for_read_only(&options, database, &families, false).unwrap();
        let mut found = BTreeSet::new();
        for family in &families {
            let handle = db.cf_handle(family).unwrap();
            for entry in db.iterator_cf(&handle, IteratorMode::Start) {
                let (key, value) = entry.unwrap();
                // Text in a key stands between terminators, so as one run of bytes.
                self.look(&key, &mut found);
                self.look(&value, &mut found);
            }
        }
        found
    }

    /// Returns the places of all values.
    pub fn all(&self) -> BTreeSet<usize> {
        (0..self.count).collect()
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns base64 with its padding left off: 32 bytes are 43 digits.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let at = |place: usize| u32::from(chunk.get(place).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..=chunk.len() {
            out.push(char::from(DIGITS[usize::try_from((bits >> (18 - 6 * digit)) & 63).unwrap()]));
        }
    }
    out
}
