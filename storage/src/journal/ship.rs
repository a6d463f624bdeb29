//! Keeping a directory of journal segments up to date with a store.
//!
//! Files are `<first tx>-<last tx>.journal`, both of 20 digits; each is there wholly or not at all,
//! and the next begins where it ends.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::time::SystemTime;
use crate::tx::TxId;

use super::segment::{self, SegmentReader};

/// The end of a segment's file name.
const EXTENSION: &str = "journal";

/// Returns the file name of a segment.
pub fn segment_name(first: TxId, last: TxId) -> String {
    format!("{:020}-{:020}.{EXTENSION}", first.get(), last.get())
}

/// Returns the segments in a directory, in order: first and last transaction and path. Other files
/// are left alone.
///
/// # Errors
/// [`Error::Io`]; [`Error::Segment`] where one does not begin where the one before ends.
pub fn segments(directory: &Path) -> Result<Vec<(TxId, TxId, PathBuf)>> {
    let failed = |source| io(directory, source);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some((first, last)) = parse_name(name) {
            found.push((first, last, path));
        }
    }
    found.sort();
    for pair in found.windows(2) {
        if pair[1].0 != pair[0].1.plus(1) {
            let why = format!("it does not follow the segment that ends with {}", pair[0].1);
            return Err(Error::Segment { path: pair[1].2.display().to_string(), why });
        }
    }
    Ok(found)
}

/// Reads a segment's file name; nothing for another one.
pub(crate) fn parse_name(name: &str) -> Option<(TxId, TxId)> {
    let (first, last) = name.strip_suffix(EXTENSION)?.strip_suffix('.')?.split_once('-')?;
    let number = |text: &str| (text.len() == 20).then(|| text.parse().ok()).flatten();
    Some((TxId::new(number(first)?), TxId::new(number(last)?)))
}

/// Writes what a directory lacks of the journal as one more segment; nothing where it lacks
/// nothing. The file is durable when this answers.
pub(crate) fn ship(engine: &Engine, directory: &Path) -> Result<Option<PathBuf>> {
    fs::create_dir_all(directory).map_err(|source| io(directory, source))?;
    let after = match segments(directory)?.pop() {
        Some((_, last, path)) => {
            check_ours(engine, last, &path)?;
            last
        }
        None => TxId::ZERO,
    };
    let latest = super::last(engine)?.map_or(TxId::ZERO, |entry| entry.last_tx());
    if latest <= after {
        return Ok(None);
    }
    let partial = directory.join("segment.partial");
    let shown = partial.display().to_string();
    let file = File::create(&partial).map_err(|source| io(&partial, source))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let end = segment::write(engine, after, &shown, &mut out)?;
    let whole = directory.join(segment_name(after.plus(1), end.last.0));
    let written = out
        .flush()
        .and_then(|()| out.get_ref().sync_all())
        .and_then(|()| fs::rename(&partial, &whole))
        .and_then(|()| File::open(directory)?.sync_all());
    written.map_err(|source| io(&whole, source))?;
    Ok(Some(whole))
}

/// Checks that a segment is of this store's own past.
fn check_ours(engine: &Engine, last: TxId, path: &Path) -> Result<()> {
    let shown = path.display().to_string();
    let foreign = |why: &str| Error::Segment { path: shown.clone(), why: why.to_owned() };
    let file = File::open(path).map_err(|source| io(path, source))?;
    let reader = SegmentReader::open(BufReader::new(file), &shown)?;
    let (after, at) = reader.head().after;
    let time = |tx: TxId| -> Result<Option<SystemTime>> {
        Ok(super::entry_of(engine, tx)?.map(|entry| entry.system_time_of(tx)))
    };
    if after != TxId::ZERO && time(after)? != Some(at) {
        return Err(foreign("it is of another history"));
    }
    match time(last)? {
        Some(_) => Ok(()),
        None => Err(foreign("it goes beyond this store: ship to another directory")),
    }
}

fn io(path: &Path, source: std::io::Error) -> Error {
    Error::Io { path: path.display().to_string(), source }
}
