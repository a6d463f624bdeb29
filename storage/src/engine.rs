//! Opening the data directory: lock, format number, incarnation id; access to the families.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use fs4::fs_std::FileExt as _;
use rocksdb::{
    Cache, ColumnFamily, DBRawIteratorWithThreadMode, DBWithThreadMode, ReadOptions,
    SingleThreaded, SnapshotWithThreadMode, WriteBatch, WriteBufferManager, WriteOptions,
    properties,
};

use crate::error::{Error, Result};
use crate::families::{Family, database_options, descriptors};
use crate::metrics::{EngineMetrics, FamilyMetrics};
use crate::standing::Keeper;
use crate::tuning::Tuning;

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
    rocks: PathBuf,
    cache: Cache,
    cache_bytes_max: usize,
    memtables: WriteBufferManager,
    keeper: Keeper,
    incarnation: String,
    /// Held for as long as the directory is open.
    _lock: File,
}

impl Engine {
    /// As [`Engine::open_tuned`], with the defaults.
    pub(crate) fn open(path: &Path, block_cache_bytes: usize) -> Result<Self> {
        Self::open_tuned(path, block_cache_bytes, &Tuning::default())
    }

    /// Opens or makes a data directory.
    ///
    /// # Errors
    /// [`Error::InUse`] and [`Error::Format`], besides those of the file system and the engine.
    pub(crate) fn open_tuned(
        path: &Path,
        block_cache_bytes: usize,
        tuning: &Tuning,
    ) -> Result<Self> {
        fs::create_dir_all(path).map_err(|source| io_error(path, source))?;
        let lock = lock(path)?;
        check_format(path)?;
        let incarnation = incarnation(path)?;
        let cache = Cache::new_hyper_clock_cache(block_cache_bytes, 0);
        let rocks = path.join("rocks");
        let memtables =
            WriteBufferManager::new_write_buffer_manager(tuning.memtable_bytes_max, false);
        let options = database_options(tuning, &memtables);
        let db = Db::open_cf_descriptors(&options, &rocks, descriptors(&cache))?;
        let keeper = Keeper::new(path, tuning.disk_reserve_bytes);
        let cache_bytes_max = block_cache_bytes;
        Ok(Self { db, rocks, cache, cache_bytes_max, memtables, keeper, incarnation, _lock: lock })
    }

    /// Returns who knows whether writes are taken.
    pub(crate) const fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// Returns the directory's incarnation id.
    pub(crate) fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// Returns the database itself.
    pub(crate) const fn db(&self) -> &Db {
        &self.db
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
        self.db.raw_iterator_cf_opt(self.family(family), in_total_order())
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
    ///
    /// # Errors
    /// [`Error::DiskFull`]: nothing is written, the same write may succeed later.
    /// [`Error::Failed`]: it is not known whether anything is written, nothing will be any more.
    pub(crate) fn write(&self, batch: WriteBatch, sync: bool) -> Result<()> {
        let unflushed = u64::try_from(self.memtables.get_usage()).unwrap_or(u64::MAX);
        self.keeper.admit(unflushed)?;
        self.write_into_reserve(batch, sync)
    }

    /// Writes atomically, also where only the reserve of room is left: for what is small and must
    /// not be lost.
    pub(crate) fn write_into_reserve(&self, batch: WriteBatch, sync: bool) -> Result<()> {
        self.keeper.check()?;
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.db.write_opt(batch, &options).map_err(|error| self.keeper.fault(&error))?;
        self.keeper.wrote();
        Ok(())
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// [`Error::Failed`], after which nothing is written any more.
    pub(crate) fn flush(&self) -> Result<()> {
        self.keeper.check()?;
        self.db.flush_wal(true).map_err(|error| self.keeper.fault(&error))
    }

    /// Returns what the engine says of itself. Reads a directory and asks the engine some dozens of
    /// questions, each of which takes its lock for a moment.
    pub(crate) fn metrics(&self) -> EngineMetrics {
        let of = |family, name: &properties::PropName| {
            let value = self.db.property_int_value_cf(self.family(family), name);
            value.ok().flatten().unwrap_or(0)
        };
        // These are the whole database's, whichever family is asked.
        let all = |name| of(Family::Meta, name);
        let level0 = properties::num_files_at_level(0);
        let families = Family::ALL.map(|family| FamilyMetrics {
            name: family.name(),
            level0_files: of(family, &level0),
            memtable_bytes: of(family, properties::CUR_SIZE_ALL_MEM_TABLES),
            sst_bytes: of(family, properties::LIVE_SST_FILES_SIZE),
            pending_compaction_bytes: of(family, properties::ESTIMATE_PENDING_COMPACTION_BYTES),
            keys: of(family, properties::ESTIMATE_NUM_KEYS),
        });
        let bytes = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        EngineMetrics {
            write_stopped: all(properties::IS_WRITE_STOPPED) != 0,
            delayed_write_bytes_per_second: all(properties::ACTUAL_DELAYED_WRITE_RATE),
            running_flushes: all(properties::NUM_RUNNING_FLUSHES),
            running_compactions: all(properties::NUM_RUNNING_COMPACTIONS),
            background_errors: all(properties::BACKGROUND_ERRORS),
            wal_bytes: wal_bytes(&self.rocks),
            memtable_bytes: bytes(self.memtables.get_usage()),
            memtable_bytes_max: bytes(self.memtables.get_buffer_size()),
            cache_bytes: bytes(self.cache.get_usage()),
            cache_bytes_max: bytes(self.cache_bytes_max),
            disk_free_bytes: self.keeper.free_bytes(),
            families: families.to_vec(),
        }
    }
}

/// Returns options to read all keys of a family in order, whatever filters on prefixes it has.
pub(crate) fn in_total_order() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_total_order_seek(true);
    options
}

/// Returns the size of the write-ahead logs.
fn wal_bytes(rocks: &Path) -> u64 {
    let files = fs::read_dir(rocks).into_iter().flatten().flatten();
    let logs = files.filter(|file| file.path().extension().is_some_and(|ext| ext == "log"));
    logs.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
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
