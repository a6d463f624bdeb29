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
//! made whole under another name, then written in place and not synced: being behind only makes it
//! say less. Where a write in place fails, it is made anew, or taken away: a half of it would look
//! like damage.

use std::fs::{self, File};
use std::io::Write as _;
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
    /// Nothing where it could not be written.
    file: Option<File>,
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
        let made = make(&path, &Testimony { incarnation, sequence });
        let file = made.map_err(|source| Error::Io { path: path.display().to_string(), source })?;
        let state = State { file: Some(file), incarnation, sequence, told: false };
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
        let in_place = state.file.as_ref().map(|file| file.write_all_at(&testimony.to_bytes(), 0));
        if matches!(in_place, Some(Ok(()))) {
            state.told = false;
            return;
        }
        state.file = None;
        match make(&self.path, &testimony) {
            Ok(file) => state.file = Some(file),
            Err(error) => {
                let removed = fs::remove_file(&self.path);
                let path = self.path.display();
                if !std::mem::replace(&mut state.told, true) {
                    tracing::warn!(%error, ?removed, %path, "how far the data is durable was not noted");
                }
            }
        }
    }
}

/// Writes the file whole and durably, in place of the one there may be, and returns it open.
fn make(path: &Path, testimony: &Testimony) -> std::io::Result<File> {
    let partial = path.with_extension("partial");
    let mut file = File::create(&partial)?;
    file.write_all(&testimony.to_bytes())?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())?;
    Ok(file)
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
    fn a_file_that_cannot_be_written_in_place_is_made_anew_or_taken_away() {
        let folder = crate::testing::Directory::new();
        fs::create_dir_all(&folder.0).unwrap();
        let witness = Witness::open(&folder.0, [7; 16], 1).unwrap();
        let unwritable = || File::open(path_in(&folder.0)).unwrap();
        witness.state.lock().file = Some(unwritable());
        witness.note(2);
        let said = |sequence| Some(Testimony { incarnation: [7; 16], sequence });
        assert_eq!(read(&folder.0).unwrap(), said(2));
        witness.state.lock().file = Some(unwritable());
        let in_the_way = path_in(&folder.0).with_extension("partial");
        fs::create_dir(&in_the_way).unwrap();
        witness.note(3);
        assert_eq!(read(&folder.0).unwrap(), None);
        fs::remove_dir(&in_the_way).unwrap();
        witness.note(4);
        assert_eq!(read(&folder.0).unwrap(), said(4));
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
