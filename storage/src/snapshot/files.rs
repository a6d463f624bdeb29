//! Reading, hashing and copying files of this machine, durably.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;

use ring::digest::{Context, Digest, SHA256};

use crate::disk::{io_error, open};
use crate::error::Result;

/// Bytes read at once.
const BUFFER: usize = 1 << 20;

/// What a copy turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

/// Returns the SHA-256 of bytes as hex digits.
pub(super) fn sha256_of(bytes: &[u8]) -> String {
    hex(&ring::digest::digest(&SHA256, bytes))
}

/// Hashes and counts a file's pieces in their order.
pub(super) struct Hashing {
    context: Context,
    bytes: u64,
}

impl Hashing {
    pub(super) fn new() -> Self {
        Self { context: Context::new(&SHA256), bytes: 0 }
    }

    pub(super) fn add(&mut self, piece: &[u8]) {
        self.context.update(piece);
        self.bytes += piece.len() as u64;
    }

    pub(super) fn end(self) -> Content {
        Content { bytes: self.bytes, sha256: hex(&self.context.finish()) }
    }
}

fn hex(digest: &Digest) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a file, hands each piece to `each`, and returns what it holds.
///
/// # Errors
/// [`crate::Error::Io`], and what `each` answers.
pub(super) fn content(path: &Path, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<Content> {
    let mut hashing = Hashing::new();
    pieces(path, |piece| {
        hashing.add(piece);
        each(piece)
    })?;
    Ok(hashing.end())
}

/// Reads a file and hands each piece to `each`.
///
/// # Errors
/// [`crate::Error::Io`], and what `each` answers.
pub(super) fn pieces(path: &Path, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut from = open(path)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).map_err(|source| io_error(path, source))?;
        if read == 0 {
            return Ok(());
        }
        each(&buffer[..read])?;
    }
}

/// Copies a file to a new one, synced; `each` is told the bytes of every piece.
///
/// # Errors
/// [`crate::Error::Io`], and what `each` answers; what was written by then is left.
pub(super) fn copy(
    from: &Path,
    to: &Path,
    mut each: impl FnMut(u64) -> Result<()>,
) -> Result<Content> {
    let failed = |source| io_error(to, source);
    let mut out = File::options().write(true).create_new(true).open(to).map_err(failed)?;
    let content = content(from, |piece| {
        out.write_all(piece).map_err(failed)?;
        each(piece.len() as u64)
    })?;
    out.sync_all().map_err(failed)?;
    Ok(content)
}

/// Writes a whole new file, synced.
///
/// # Errors
/// [`crate::Error::Io`].
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = File::options().write(true).create_new(true).open(path).and_then(|mut out| {
        out.write_all(bytes)?;
        out.sync_all()
    });
    written.map_err(|source| io_error(path, source))
}

/// Removes a file; one that is not there is good.
///
/// # Errors
/// [`crate::Error::Io`].
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error(path, error)),
        _ => Ok(()),
    }
}
