//! Loading a history into an empty table at once: sorted files in place of one commit a batch.
//!
//! ```text
//! rows -> check, tx, system time -> journal file
//!                                -> sort by key -> fold key by key -> files of every family
//!      -> intent (synced) -> files into the database -> last write (synced): intent gone, tenants
//! ```
//!
//! Nobody sees any of it before the last write, as its transactions are later than the last
//! published one. A process that ends before that leaves the intent behind; the next opening takes
//! everything of the table out again, which is all that there can be, as the table was empty.
//! [`crate::writer`] runs it in its own turn: nothing else commits meanwhile.

use std::fs;
use std::path::{Path, PathBuf};

use rocksdb::{IngestExternalFileOptions, WriteBatch};
use serde::{Deserialize, Serialize};

use crate::assertion::Assertion;
use crate::definitions::Definitions;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::failpoint;
use crate::families::Family;
use crate::key;
use crate::meta;
use crate::schema::{IndexId, RowKey, TableId, Tenant};
use crate::sizes;
use crate::time::SystemTime;
use crate::tx::TxId;

pub(crate) mod files;

/// One row of a history: a transaction of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadRow {
    pub tenant: Tenant,
    pub key: RowKey,
    pub assertion: Assertion,
    /// When it was recorded: not before that of the row before. Nothing: at the time of loading.
    pub system_time: Option<SystemTime>,
}

/// How far a load has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadProgress {
    /// Rows read, checked and sorted in part.
    Read(u64),
    /// Of all rows, those folded into their keys' versions.
    Folded(u64, u64),
    /// All is prepared; the files are taken over.
    Publishing,
}

/// How to load.
pub struct Load {
    pub table: TableId,
    /// Memory for sorting; more is spilled to files in the data directory.
    pub sort_bytes_max: usize,
    /// Told now and then, on the writer's thread.
    pub progress: Box<dyn FnMut(LoadProgress) + Send>,
}

impl Load {
    /// A load of a table with 256 MiB for sorting, and silent.
    pub fn into_table(table: TableId) -> Self {
        Self { table, sort_bytes_max: 256 << 20, progress: Box::new(|_| {}) }
    }
}

/// The rows of a load; an error ends it, with nothing loaded.
pub type LoadRows = Box<dyn Iterator<Item = Result<LoadRow>> + Send>;

/// A load, for the writer.
pub(crate) struct Job {
    pub(crate) load: Load,
    pub(crate) rows: LoadRows,
}

/// What a load is about to put into the database; stands in `meta` until all of it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Intent {
    pub(crate) table: TableId,
    pub(crate) indexes: Vec<IndexId>,
    pub(crate) tenants: Vec<String>,
    /// The last transaction before the load.
    pub(crate) after: TxId,
}

/// Returns the directory for runs and files, empty.
pub(crate) fn work_directory(engine: &Engine) -> Result<PathBuf> {
    let directory = engine.path().join("load");
    remove(&directory)?;
    fs::create_dir_all(&directory).map_err(|source| io(&directory, source))?;
    Ok(directory)
}

/// Removes a directory that may be there.
pub(crate) fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(io(directory, source)),
        _ => Ok(()),
    }
}

pub(crate) fn io(path: &Path, source: std::io::Error) -> Error {
    Error::Io { path: path.display().to_string(), source }
}

/// Checks that no tenant ever had a row in a table.
///
/// # Errors
/// [`Error::Refused`] where one had.
pub(crate) fn check_empty<'t>(
    engine: &Engine,
    definitions: &Definitions,
    table: TableId,
    tenants: impl Iterator<Item = &'t Tenant>,
) -> Result<()> {
    let def = definitions.table_by_id(table);
    let name = def.map_or_else(|| table.0.to_string(), |def| def.name.clone());
    for tenant in tenants {
        let prefix = key::table_prefix(tenant, table);
        let mut is_empty = true;
        engine.each_from(Family::Current, &prefix, &prefix, |_, _| {
            is_empty = false;
            Ok(false)
        })?;
        if !is_empty {
            let reason =
                format!("table {name} is not empty: a history is loaded into an empty one");
            return Err(Error::Refused { reason });
        }
    }
    Ok(())
}

/// Puts the files of a load into the database and makes them the state, or takes all of it back.
///
/// # Errors
/// [`Error::Refused`] where it was taken back; after any other what the log holds is not known.
pub(crate) fn publish(
    engine: &Engine,
    intent: &Intent,
    files: &[(Family, Vec<PathBuf>)],
    sizes: &[(Vec<u8>, u64)],
) -> Result<()> {
    let mut writes = WriteBatch::default();
    meta::put_load_intent(engine, &mut writes, Some(intent))?;
    engine.write(writes, true)?;
    failpoint::pass("load.intended");
    if let Err(error) = take_over(engine, files) {
        undo(engine, intent)?;
        let reason = format!("the load was taken back, as its files were not taken over: {error}");
        return Err(Error::Refused { reason });
    }
    let mut writes = WriteBatch::default();
    for tenant in &intent.tenants {
        meta::put_tenant(engine, &mut writes, &Tenant::new(tenant)?);
    }
    for (entry, count) in sizes {
        sizes::put(engine, &mut writes, entry, *count);
    }
    meta::put_load_intent(engine, &mut writes, None)?;
    failpoint::pass("load.before_publish");
    engine.write(writes, true)?;
    failpoint::pass("load.published");
    Ok(())
}

fn take_over(engine: &Engine, files: &[(Family, Vec<PathBuf>)]) -> Result<()> {
    let mut options = IngestExternalFileOptions::default();
    options.set_move_files(true);
    for (family, paths) in files.iter().filter(|(_, paths)| !paths.is_empty()) {
        let handle = engine.family(*family);
        engine.db().ingest_external_file_cf_opts(handle, &options, paths.iter().collect())?;
        failpoint::pass("load.family");
    }
    Ok(())
}

/// Takes out what a load left behind that was not finished, where there is one.
pub(crate) fn recover(engine: &Engine) -> Result<()> {
    if let Some(intent) = meta::load_intent(engine)? {
        tracing::warn!(table = intent.table.0, "a load was not finished: it is taken out again");
        undo(engine, &intent)?;
    }
    remove(&engine.path().join("load"))
}

fn undo(engine: &Engine, intent: &Intent) -> Result<()> {
    let mut writes = WriteBatch::default();
    let mut clear = |family: Family, start: Vec<u8>, prefix: &[u8]| {
        // A prefix of ids and names is never all FF.
        if let Some(end) = key::prefix_end(prefix) {
            writes.delete_range_cf(engine.family(family), start, end);
        }
    };
    for tenant in &intent.tenants {
        let prefix = key::table_prefix(&Tenant::new(tenant)?, intent.table);
        for family in [Family::Current, Family::Timeline, Family::Archive, Family::Assertions] {
            clear(family, prefix.clone(), &prefix);
        }
    }
    let first = intent.after.plus(1);
    let table = intent.table.0.to_be_bytes();
    clear(Family::Changes, key::changes_prefix(intent.table, first), &table);
    clear(Family::Boundaries, table.to_vec(), &table);
    for index in &intent.indexes {
        clear(Family::Indexes, index.0.to_be_bytes().to_vec(), &index.0.to_be_bytes());
    }
    let (first, end) = (key::number(first.get()), key::number(u64::MAX));
    writes.delete_range_cf(engine.family(Family::Transactions), first, end);
    meta::put_load_intent(engine, &mut writes, None)?;
    engine.write(writes, true)
}
