//! Room on disk for what statements cannot hold in memory: sorted runs and partial aggregates.
//!
//! The files have no names: they are gone with the statement that made them, and with the process,
//! however it ends. So nothing of them is left to clean up, nor for an erasure to miss.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::{SpillFile, SpillWriter, TempFileFactory};
use futures::{Stream, StreamExt as _, stream};

use crate::error::{Error, Result, SqlState};

/// Bytes of one read.
const READ_BYTES: u64 = 256 << 10;
/// The room left on the disk is asked for once in so many bytes.
const CHECKED_BYTES: u64 = 4 << 20;

/// Where statements may put what they cannot hold in memory, and how much of it.
#[derive(Debug, Clone)]
pub struct Spilling {
    /// A directory on the disk to use, which exists. No file of it gets a name.
    pub directory: PathBuf,
    /// Bytes of all running statements together.
    pub bytes_max: u64,
    /// Bytes of the disk that are left to others.
    pub keep_free_bytes: u64,
}

/// Makes the files, and counts what is in them.
pub(crate) struct Room {
    spilling: Spilling,
    used: AtomicU64,
}

impl Room {
    pub(crate) fn new(spilling: Spilling) -> Arc<Self> {
        Arc::new(Self { spilling, used: AtomicU64::new(0) })
    }

    /// Takes room for more bytes, which are the first ones of a file or cross a multiple of
    /// [`CHECKED_BYTES`] where `is_checked`.
    fn take(&self, more: u64, is_checked: bool) -> Result<()> {
        let used = self.used.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        let refused = self.refusal(used, more, is_checked);
        if refused.is_some() {
            self.give_back(more);
        }
        refused.map_or(Ok(()), Err)
    }

    fn refusal(&self, used: u64, more: u64, is_checked: bool) -> Option<Error> {
        let Spilling { directory, bytes_max, keep_free_bytes } = &self.spilling;
        if used > *bytes_max {
            let message = format!(
                "running statements need more than the {bytes_max} bytes on disk that they may \
                 use beyond their memory (query_spill_bytes_max)"
            );
            let advice = "ask for less at once, or try again when fewer statements run";
            return Some(Error::new(SqlState::OutOfMemory, message).with_hint(advice));
        }
        if !is_checked {
            return None;
        }
        match fs4::available_space(directory) {
            Ok(free) if free < keep_free_bytes.saturating_add(more) => {
                let message = format!(
                    "the statement needs room on disk, and what is left ({} MiB) is kept for writes",
                    free >> 20
                );
                Some(Error::new(SqlState::DiskFull, message))
            }
            _ => None,
        }
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Returns the bytes in use.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes", self.used_bytes(), self.spilling.bytes_max)
    }
}

/// The factory that the engine asks.
pub(crate) struct Files(pub(crate) Arc<Room>);

impl TempFileFactory for Files {
    fn create_temp_file(&self, _: &str) -> DataFusionResult<Arc<dyn SpillFile>> {
        let file =
            tempfile::tempfile_in(&self.0.spilling.directory).map_err(|error| failed(&error))?;
        let spilled = Spilled { file, length: AtomicU64::new(0), room: Arc::clone(&self.0) };
        Ok(Arc::new(Handle(Arc::new(spilled))))
    }
}

/// Returns the error of a file operation.
fn failed(error: &io::Error) -> Error {
    let state = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SqlState::DiskFull,
        _ => SqlState::IoError,
    };
    Error::new(state, format!("a file for what memory does not hold: {error}"))
}

/// A file without a name. Its room is free again when nobody reads it any more.
struct Spilled {
    file: File,
    length: AtomicU64,
    room: Arc<Room>,
}

impl Spilled {
    fn append(&self, bytes: &[u8]) -> Result<()> {
        let more = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let length = self.length.load(Ordering::Relaxed);
        let after = length.saturating_add(more);
        let is_checked = length == 0 || length / CHECKED_BYTES != after / CHECKED_BYTES;
        self.room.take(more, is_checked)?;
        if let Err(error) = self.file.write_all_at(bytes, length) {
            self.room.give_back(more);
            return Err(failed(&error));
        }
        self.length.store(after, Ordering::Relaxed);
        Ok(())
    }

    /// Returns the next bytes; nothing at the end.
    fn read(&self, from: u64) -> Result<Option<Bytes>> {
        let left = self.length.load(Ordering::Relaxed).saturating_sub(from);
        if left == 0 {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(left.min(READ_BYTES)).unwrap_or_default()];
        self.file.read_exact_at(&mut bytes, from).map_err(|error| failed(&error))?;
        Ok(Some(bytes.into()))
    }
}

impl Drop for Spilled {
    fn drop(&mut self) {
        self.room.give_back(self.length.load(Ordering::Relaxed));
    }
}

/// What the engine holds of a file.
struct Handle(Arc<Spilled>);

impl SpillFile for Handle {
    fn size(&self) -> Option<u64> {
        Some(self.0.length.load(Ordering::Relaxed))
    }

    fn read_stream(
        &self,
    ) -> DataFusionResult<Pin<Box<dyn Stream<Item = DataFusionResult<Bytes>> + Send>>> {
        let chunks = stream::try_unfold((Arc::clone(&self.0), 0), |(file, from)| async move {
            let chunk = file.read(from)?;
            Ok(chunk.map(|bytes| {
                let next = from.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                (bytes, (file, next))
            }))
        });
        Ok(chunks.boxed())
    }

    fn open_writer(&self) -> DataFusionResult<Box<dyn SpillWriter>> {
        Ok(Box::new(Appending(Arc::clone(&self.0))))
    }
}

/// Writes at the end of a file.
struct Appending(Arc<Spilled>);

impl Write for Appending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.append(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SpillWriter for Appending {
    fn finish(&mut self) -> DataFusionResult<()> {
        Ok(())
    }
}
