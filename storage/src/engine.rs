//! Opening the data directory: lock, format number, incarnation id; access to the families.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use fs4::fs_std::FileExt as _;
use rocksdb::{
    Cache, ColumnFamily, DBRawIteratorWithThreadMode, DBWithThreadMode, ReadOptions,
    SingleThreaded, SnapshotWithThreadMode, WriteBatch, WriteOptions,
};

use crate::error::{Error, Result};
use crate::families::{Family, database_options, descriptors};

/// The database: all families are opened at once, so a handle needs no lock.
pub(crate) type Db = DBWithThreadMode<SingleThreaded>;
/// A snapshot of all families.
pub(crate) type DbSnapshot<'db> = SnapshotWithThreadMode<'db, Db>;
/// A raw iterator over one family.
pub(crate) type DbIterator<'db> = DBRawIteratorWithThreadMode<'db, Db>;

/// The number in the file `FORMAT`.
const FORMAT: u32 = 1;

/// The open data directory.
pub(crate) struct Engine {
    db: Db,
    /// Where the database's files are.
    files: PathBuf,
    path: PathBuf,
    incarnation: String,
    /// Held for as long as the directory is open.
    _lock: File,
}

impl Engine {
    /// Opens or makes a data directory.
    ///
    /// # Errors
    /// [`Error::InUse`] and [`Error::Format`], besides those of the file system and the engine.
    pub(crate) fn open(path: &Path, block_cache_bytes: usize) -> Result<Self> {
        fs::create_dir_all(path).map_err(|source| io_error(path, source))?;
        let lock = lock(path)?;
        check_format(path)?;
        let incarnation = incarnation(path)?;
        let cache = Cache::new_hyper_clock_cache(block_cache_bytes, 0);
        let rocks = path.join("rocks");
        let db = Db::open_cf_descriptors(&database_options(), &rocks, descriptors(&cache))?;
        Ok(Self { db, files: rocks, path: path.to_owned(), incarnation, _lock: lock })
    }

    /// Returns the directory's incarnation id.
    pub(crate) fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// Returns the data directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the database itself.
    pub(crate) const fn db(&self) -> &Db {
        &self.db
    }

    /// Returns the directory of the database's files.
    pub(crate) fn files(&self) -> &Path {
        &self.files
    }

    /// Returns a family's handle.
    #[expect(clippy::expect_used, reason = "every family is opened with the database")]
    pub(crate) fn family(&self, family: Family) -> &ColumnFamily {
        self.db.cf_handle(family.name()).expect("family is open")
    }

    /// Reads one key of the latest state.
    pub(crate) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.db.get_cf(self.family(family), key)?)
    }

    /// Returns a raw iterator over the latest state of a family.
    pub(crate) fn iterator(&self, family: Family) -> DbIterator<'_> {
        self.db.raw_iterator_cf_opt(self.family(family), ReadOptions::default())
    }

    /// Calls `each` with the entries whose key starts with `prefix`, in order, from `start` on (at
    /// least `prefix`), until it answers false.
    pub(crate) fn each_from(
        &self,
        family: Family,
        prefix: &[u8],
        start: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<()> {
        let mut entries = self.iterator(family);
        entries.seek(start.max(prefix));
        while let Some((key, value)) = entries.item() {
            if !key.starts_with(prefix) || !each(key, value)? {
                return Ok(());
            }
            entries.next();
        }
        Ok(entries.status()?)
    }

    /// Writes atomically.
    pub(crate) fn write(&self, batch: WriteBatch, sync: bool) -> Result<()> {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        Ok(self.db.write_opt(batch, &options)?)
    }

    /// Makes everything written so far durable.
    pub(crate) fn flush(&self) -> Result<()> {
        Ok(self.db.flush_wal(true)?)
    }
}

fn io_error(path: &Path, source: std::io::Error) -> Error {
    Error::Io { path: path.display().to_string(), source }
}

fn lock(path: &Path) -> Result<File> {
    let file = path.join("LOCK");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&file)
        .map_err(|source| io_error(&file, source))?;
    match lock.try_lock_exclusive() {
        Ok(true) => Ok(lock),
        Ok(false) => Err(Error::InUse { path: path.display().to_string() }),
        Err(source) => Err(io_error(&file, source)),
    }
}

fn check_format(path: &Path) -> Result<()> {
    let file = path.join("FORMAT");
    let wrong = |found: &str| Error::Format {
        path: path.display().to_string(),
        found: found.to_owned(),
        known: FORMAT,
    };
    match fs::read_to_string(&file) {
        Ok(text) if text.trim() == FORMAT.to_string() => Ok(()),
        Ok(text) => Err(wrong(text.trim())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if path.join("rocks").exists() {
                return Err(wrong("none"));
            }
            write_whole(&file, &format!("{FORMAT}\n"))
        }
        Err(source) => Err(io_error(&file, source)),
    }
}

fn incarnation(path: &Path) -> Result<String> {
    let file = path.join("INCARNATION");
    match fs::read_to_string(&file) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let id = uuid::Uuid::new_v4().simple().to_string();
            write_whole(&file, &format!("{id}\n"))?;
            Ok(id)
        }
        Err(source) => Err(io_error(&file, source)),
    }
}

/// Writes a small file so that it is there wholly or not at all, whatever happens.
fn write_whole(file: &Path, text: &str) -> Result<()> {
    let partial: PathBuf = file.with_extension("partial");
    let written = File::create(&partial)
        .and_then(|mut out| {
            out.write_all(text.as_bytes())?;
            out.sync_all()
        })
        .and_then(|()| fs::rename(&partial, file))
        .and_then(|()| file.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all()));
    written.map_err(|source| io_error(file, source))
}
