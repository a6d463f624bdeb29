//! A file that remembers how far the directory was synced, so that an older state is not taken for
//! the latest.
//!
//! ```text
//! DIR/WITNESS   "EWWITN01" | incarnation 16 | sequence number 8 | xxh3 of what is before 8 |
//! ```
//!
//! A log that lost its end, and a manifest that did, look like those of a process that was killed.
//! Here stands, written after every synced write, up to which of RocksDB's sequence numbers all is
//! durable: a directory that opens below it has lost what somebody was told to be there. It is
//! written in place and not synced: being behind only makes it say less.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};

const MAGIC: [u8; 8] = *b"EWWITN01";
const LENGTH: usize = 40;

/// What a witness says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Testimony {
    pub(crate) incarnation: [u8; 16],
    /// Everything up to this sequence number is durable.
    pub(crate) sequence: u64,
}

/// The open file.
pub(crate) struct Witness {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    file: File,
    incarnation: [u8; 16],
    sequence: u64,
    /// A failed write was logged.
    told: bool,
}

impl Testimony {
    fn to_bytes(&self) -> [u8; LENGTH] {
        let mut out = [0; LENGTH];
        out[..8].copy_from_slice(&MAGIC);
        out[8..24].copy_from_slice(&self.incarnation);
        out[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        let hash = xxh3_64(&out[..32]);
        out[32..].copy_from_slice(&hash.to_le_bytes());
        out
    }

    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LENGTH] = bytes.try_into().ok()?;
        let incarnation = *bytes[8..].first_chunk()?;
        let sequence = u64::from_le_bytes(*bytes[24..].first_chunk()?);
        let testimony = Self { incarnation, sequence };
        (testimony.to_bytes() == *bytes).then_some(testimony)
    }
}

/// Returns the file's path in a data directory.
pub(crate) fn path_in(directory: &Path) -> PathBuf {
    directory.join("WITNESS")
}

/// Reads what the witness of a data directory says; nothing where there is none.
///
/// # Errors
/// [`Error::Corrupt`] where the file is damaged.
pub(crate) fn read(directory: &Path) -> Result<Option<Testimony>> {
    let path = path_in(directory);
    match std::fs::read(&path) {
        Ok(bytes) => Testimony::of_bytes(&bytes).map(Some).ok_or_else(|| Error::Corrupt {
            what: "file WITNESS",
            why: "it is not as it was written; where `everwhen verify` finds nothing else, \
                  remove it"
                .to_owned(),
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { path: path.display().to_string(), source }),
    }
}

/// Refuses a directory that is behind what its witness says, or of another incarnation.
///
/// # Errors
/// [`Error::Corrupt`].
pub(crate) fn check(said: &Testimony, incarnation: [u8; 16], sequence: u64) -> Result<()> {
    if said.incarnation != incarnation {
        let why = "the files INCARNATION and WITNESS are of different directories".to_owned();
        return Err(Error::Corrupt { what: "data directory", why });
    }
    if sequence < said.sequence {
        let why = format!(
            "it ends at write {sequence}, but everything up to write {} had been made durable: \
             a log or manifest has lost its end; restore a snapshot",
            said.sequence
        );
        return Err(Error::Corrupt { what: "data directory", why });
    }
    Ok(())
}

impl Witness {
    /// Opens or makes the file, which then says `sequence`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn open(directory: &Path, incarnation: [u8; 16], sequence: u64) -> Result<Self> {
        let path = path_in(directory);
        let opened = || -> std::io::Result<File> {
            let file = File::options().create(true).truncate(false).write(true).open(&path)?;
            file.write_all_at(&Testimony { incarnation, sequence }.to_bytes(), 0)?;
            // From here on it has its length and is only written in place.
            file.sync_all()?;
            File::open(directory)?.sync_all()?;
            Ok(file)
        };
        let file =
            opened().map_err(|source| Error::Io { path: path.display().to_string(), source })?;
        let state = State { file, incarnation, sequence, told: false };
        Ok(Self { path, state: Mutex::new(state) })
    }

    /// Notes that everything up to `sequence` is durable.
    pub(crate) fn note(&self, sequence: u64) {
        let mut state = self.state.lock();
        if sequence <= state.sequence {
            return;
        }
        state.sequence = sequence;
        let testimony = Testimony { incarnation: state.incarnation, sequence };
        match state.file.write_all_at(&testimony.to_bytes(), 0) {
            Ok(()) => state.told = false,
            Err(error) if !state.told => {
                state.told = true;
                let path = self.path.display();
                tracing::warn!(%error, %path, "how far the data is durable was not noted");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_byte_is_seen() {
        let good = Testimony { incarnation: [7; 16], sequence: 1 << 40 };
        assert_eq!(Testimony::of_bytes(&good.to_bytes()), Some(good.clone()));
        for at in 0..LENGTH {
            let mut bytes = good.to_bytes();
            bytes[at] ^= 1;
            assert_eq!(Testimony::of_bytes(&bytes), None, "byte {at}");
        }
        assert_eq!(Testimony::of_bytes(&good.to_bytes()[..39]), None);
    }

    #[test]
    fn a_directory_that_is_behind_is_refused() {
        let said = Testimony { incarnation: [7; 16], sequence: 10 };
        check(&said, [7; 16], 10).unwrap();
        check(&said, [7; 16], 11).unwrap();
        assert!(check(&said, [7; 16], 9).unwrap_err().to_string().contains("restore"));
        assert!(check(&said, [8; 16], 10).is_err());
    }
}
