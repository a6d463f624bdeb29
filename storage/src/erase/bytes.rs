//! Making deleted bytes leave the files: flush, forced compaction, and what RocksDB keeps besides.
//!
//! A deleted key still stands in older tables, in the write-ahead logs that brought it, and as the
//! bound of a table in the manifest. Each is replaced and waited for; nothing here sleeps: a call
//! that finds old files still held by a reader says so, and is made again later.

use std::collections::BTreeSet;
use std::fs;

use rocksdb::{BottommostLevelCompaction, CompactOptions, WriteBatch};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::families::Family;
use crate::key;

/// A range of keys in one family: from, to (exclusive; nothing for the family's end).
pub(crate) type Range = (Family, Vec<u8>, Option<Vec<u8>>);

/// Bytes of the key that makes the manifest grow.
const FILLER_BYTES: usize = 512 << 10;
/// So often it is written before giving up: enough for a manifest of gigabytes.
const FILLERS_MAX: usize = 10_000;
const FILLER: &[u8] = b"filler\0";

/// Returns the range of all keys that start with `prefix`.
pub(crate) fn under(family: Family, prefix: Vec<u8>) -> Range {
    let end = key::prefix_end(&prefix);
    (family, prefix, end)
}

/// True where no reader holds a snapshot from before `sequence`: compaction then drops what was
/// deleted up to there.
pub(crate) fn is_dropped_by_compaction(engine: &Engine, sequence: u64) -> Result<bool> {
    let oldest = engine.db().property_int_value("rocksdb.oldest-snapshot-sequence")?.unwrap_or(0);
    Ok(oldest == 0 || oldest >= sequence)
}

/// Writes all memtables to tables, which ends the present write-ahead log, and returns the names
/// of the files that must go: the logs up to here.
pub(crate) fn flush(engine: &Engine) -> Result<BTreeSet<String>> {
    let logs = names(engine, |name| name.ends_with(".log"))?;
    for family in Family::ALL {
        engine.db().flush_cf(engine.family(family))?;
    }
    Ok(logs)
}

/// Rewrites every table that holds a key of one of the ranges, deleted or not, and returns the
/// names of the files that must go: the tables that are no longer in use.
///
/// # Errors
/// [`Error::Engine`]; [`Error::Refused`] where rewriting failed, which makes later writes fail too.
pub(crate) fn compact(engine: &Engine, ranges: &[Range]) -> Result<BTreeSet<String>> {
    let errors = background_errors(engine)?;
    let before = names(engine, |name| name.ends_with(".sst"))?;
    let mut options = CompactOptions::default();
    options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
    options.set_exclusive_manual_compaction(false);
    for (family, from, to) in ranges {
        let family = engine.family(*family);
        engine.db().compact_range_cf_opt(family, Some(from), to.as_ref(), &options);
    }
    // The call above reports nothing.
    if background_errors(engine)? != errors {
        let reason = "files could not be rewritten: see the disk and the engine's log".to_owned();
        return Err(Error::Refused { reason });
    }
    let used: BTreeSet<String> = engine
        .db()
        .live_files()?
        .into_iter()
        .map(|table| table.name.trim_start_matches('/').to_owned())
        .collect();
    Ok(before.into_iter().filter(|name| !used.contains(name)).collect())
}

fn background_errors(engine: &Engine) -> Result<u64> {
    Ok(engine.db().property_int_value("rocksdb.background-errors")?.unwrap_or(0))
}

/// Begins a new manifest, without the bounds of tables that are gone, and returns the name of the
/// old one.
///
/// RocksDB begins one when the present one has outgrown its limit; keys of half a megabyte as
/// bounds of a table make it grow.
///
/// # Errors
/// [`Error::Engine`]; [`Error::Refused`] where the manifest never ended.
pub(crate) fn renew_manifest(engine: &Engine) -> Result<BTreeSet<String>> {
    let family = engine.family(Family::Meta);
    let old = manifest(engine)?;
    let filler = [FILLER, &vec![0; FILLER_BYTES]].concat();
    for _ in 0..FILLERS_MAX {
        if manifest(engine)? != old {
            let mut writes = WriteBatch::default();
            writes.delete_cf(family, &filler);
            engine.write(writes, false)?;
            return Ok(BTreeSet::from([old]));
        }
        let mut writes = WriteBatch::default();
        writes.put_cf(family, &filler, []);
        engine.write(writes, false)?;
        engine.db().flush_cf(family)?;
    }
    Err(Error::Refused { reason: "the manifest could not be renewed".to_owned() })
}

/// Has RocksDB delete files that are no longer in use: it does so at the end of a flush, and a file that
/// was in use then stays until the next, which may not come for long where nobody writes.
pub(crate) fn nudge(engine: &Engine) -> Result<()> {
    let family = engine.family(Family::Meta);
    let mut writes = WriteBatch::default();
    writes.put_cf(family, FILLER, []);
    writes.delete_cf(family, FILLER);
    engine.write(writes, false)?;
    engine.db().flush_cf(family)?;
    Ok(())
}

/// True where none of these files is there any more.
pub(crate) fn are_gone(engine: &Engine, files: &BTreeSet<String>) -> Result<bool> {
    Ok(names(engine, |name| files.contains(name))?.is_empty())
}

fn manifest(engine: &Engine) -> Result<String> {
    let path = engine.files().join("CURRENT");
    let text = fs::read_to_string(&path)
        .map_err(|source| Error::Io { path: path.display().to_string(), source })?;
    Ok(text.trim().to_owned())
}

fn names(engine: &Engine, wanted: impl Fn(&str) -> bool) -> Result<BTreeSet<String>> {
    let directory = engine.files();
    let failed = |source| Error::Io { path: directory.display().to_string(), source };
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if wanted(&name) {
            found.insert(name);
        }
    }
    Ok(found)
}
