//! Opening the data directory: lock, format number, incarnation id; access to the families.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use fs4::fs_std::FileExt as _;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    Cache, ColumnFamily, DBRawIteratorWithThreadMode, DBWithThreadMode, ErrorKind, ReadOptions,
    SingleThreaded, SnapshotWithThreadMode, WriteBatch, WriteBufferManager, WriteOptions,
    properties,
};

use crate::disk::witness::{self, Witness};
use crate::disk::{self, io_error, write_whole};
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
/// What the names of checkpoint folders within a data directory start with.
const CHECKPOINT: &str = "checkpoint-";

/// The open data directory.
pub(crate) struct Engine {
    db: Db,
    path: PathBuf,
    /// Where the database's files are.
    rocks: PathBuf,
    cache: Cache,
    cache_bytes_max: usize,
    memtables: WriteBufferManager,
    keeper: Keeper,
    incarnation: String,
    /// Told of every synced write; nothing where the directory is only read.
    witness: Option<Witness>,
    /// Held for as long as the directory is open.
    _lock: Option<File>,
}

impl Engine {
    /// As [`Engine::open_tuned`], with the defaults.
    pub(crate) fn open(path: &Path, block_cache_bytes: usize) -> Result<Self> {
        Self::open_tuned(path, block_cache_bytes, &Tuning::default())
    }

    /// Opens or makes a data directory.
    ///
    /// # Errors
    /// [`Error::InUse`] and [`Error::Format`]; [`Error::Corrupt`] where what was durable is not
    /// there as it was; besides those of the file system and the engine.
    pub(crate) fn open_tuned(
        path: &Path,
        block_cache_bytes: usize,
        tuning: &Tuning,
    ) -> Result<Self> {
        fs::create_dir_all(path).map_err(|source| io_error(path, source))?;
        let lock = lock(path)?;
        remove_checkpoints(path)?;
        check_format(path)?;
        let said = witness::read(path)?;
        let incarnation = incarnation(path)?;
        let id = id_of(&incarnation)?;
        let rocks = path.join("rocks");
        if said.as_ref().is_some_and(|said| said.sequence > 0) && !rocks.join("CURRENT").exists() {
            let why = "rocks/CURRENT is missing, but there had been data; restore a snapshot";
            return Err(Error::Corrupt { what: "data directory", why: why.to_owned() });
        }
        let cache = Cache::new_hyper_clock_cache(block_cache_bytes, 0);
        let memtables =
            WriteBufferManager::new_write_buffer_manager(tuning.memtable_bytes_max, false);
        let open = || -> Result<Db> {
            disk::refuse_damaged(&rocks)?;
            let options = database_options(tuning, &memtables)?;
            let families = descriptors(&cache);
            Db::open_cf_descriptors(&options, &rocks, families).map_err(not_opened)
        };
        let db = match (open(), &said) {
            (Err(Error::Corrupt { .. }), Some(said))
                if disk::cut_unfinished(&rocks, said.sequence)? =>
            {
                open()?
            }
            (opened, _) => opened?,
        };
        let sequence = db.latest_sequence_number();
        if let Some(said) = &said {
            witness::check(said, id, sequence)?;
        }
        let witness = Some(Witness::open(path, id, sequence)?);
        Ok(Self {
            db,
            path: path.to_owned(),
            rocks,
            cache,
            cache_bytes_max: block_cache_bytes,
            memtables,
            keeper: Keeper::new(path, tuning.disk_reserve_bytes),
            incarnation,
            witness,
            _lock: Some(lock),
        })
    }

    /// Returns who knows whether writes are taken.
    pub(crate) const fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// Opens a data directory that nobody uses, to read it: nothing of it is changed but RocksDB's
    /// own `LOG`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and those of the engine.
    pub(crate) fn open_read_only(path: &Path) -> Result<Self> {
        let incarnation = incarnation(path)?;
        let engine = Self::open_database(&path.join("rocks"))?;
        if let Some(said) = witness::read(path)? {
            witness::check(&said, id_of(&incarnation)?, engine.db.latest_sequence_number())?;
        }
        Ok(Self { incarnation, path: path.to_owned(), ..engine })
    }

    /// Keeps others from opening a data directory, which is to be read with
    /// [`Engine::open_read_only`] while this is held.
    ///
    /// # Errors
    /// [`Error::Format`] where it is no data directory, [`Error::InUse`].
    pub(crate) fn lock_for_reading(path: &Path) -> Result<File> {
        if !path.join("FORMAT").exists() || !path.join("rocks").exists() {
            let (path, found) = (path.display().to_string(), "none".to_owned());
            return Err(Error::Format { path, found, known: FORMAT });
        }
        let lock = lock(path)?;
        check_format(path)?;
        Ok(lock)
    }

    /// Opens a bare database to read it, such as a checkpoint; its incarnation is empty.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and those of the engine.
    pub(crate) fn open_database(rocks: &Path) -> Result<Self> {
        const CACHE_BYTES: usize = 8 << 20;
        let cache = Cache::new_hyper_clock_cache(CACHE_BYTES, 0);
        let memtables = WriteBufferManager::new_write_buffer_manager(CACHE_BYTES, false);
        let options = database_options(&Tuning::default(), &memtables)?;
        let there = Db::list_cf(&options, rocks).map_err(not_opened)?;
        let families = descriptors(&cache)
            .into_iter()
            .filter(|family| there.iter().any(|name| name == family.name()));
        let db = Db::open_cf_descriptors_read_only(&options, rocks, families, false)
            .map_err(not_opened)?;
        Ok(Self {
            db,
            path: rocks.to_owned(),
            rocks: rocks.to_owned(),
            cache,
            cache_bytes_max: CACHE_BYTES,
            memtables,
            keeper: Keeper::new(rocks, 0),
            incarnation: String::new(),
            witness: None,
            _lock: None,
        })
    }

    /// Takes a checkpoint: a second folder of the same files, at one instant, while writes go on.
    ///
    /// # Errors
    /// Those of the engine.
    pub(crate) fn checkpoint(&self) -> Result<CheckpointFolder> {
        let folder = self.path.join(format!("{CHECKPOINT}{}", uuid::Uuid::new_v4().simple()));
        let taken = CheckpointFolder(folder);
        Checkpoint::new(&self.db)?.create_checkpoint(&taken.0)?;
        Ok(taken)
    }

    /// True where the open database has a family: one made by an older program may lack some.
    pub(crate) fn has(&self, family: Family) -> bool {
        self.db.cf_handle(family.name()).is_some()
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
        &self.rocks
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

    /// Returns a raw iterator over a snapshot of a family.
    pub(crate) fn iterator_in<'s>(
        &self,
        snapshot: &'s DbSnapshot<'_>,
        family: Family,
    ) -> DbIterator<'s> {
        snapshot.raw_iterator_cf_opt(self.family(family), in_total_order())
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
        // Others may write meanwhile: the batch ends here or later.
        let ends = self.db.latest_sequence_number() + batch.len() as u64;
        self.db.write_opt(batch, &options).map_err(|error| self.keeper.fault(&error))?;
        self.keeper.wrote();
        if let Some(witness) = self.witness.as_ref().filter(|_| sync) {
            witness.note(ends);
        }
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

    fn number(&self, family: Family, name: &properties::PropName) -> u64 {
        let value = self.db.property_int_value_cf(self.family(family), name);
        value.ok().flatten().unwrap_or(0)
    }

    /// Returns how many files of a family are as they were flushed, and the bytes of all its files.
    pub(crate) fn files_of(&self, family: Family) -> (u64, u64) {
        let flushed = self.number(family, &properties::num_files_at_level(0));
        (flushed, self.number(family, properties::LIVE_SST_FILES_SIZE))
    }

    /// Returns what the engine says of itself. Reads a directory and asks the engine some dozens of
    /// questions, each of which takes its lock for a moment.
    pub(crate) fn metrics(&self) -> EngineMetrics {
        // These are the whole database's, whichever family is asked.
        let all = |name| self.number(Family::Meta, name);
        let families = Family::ALL.map(|family| {
            let of = |name| self.number(family, name);
            let (level0_files, sst_bytes) = self.files_of(family);
            FamilyMetrics {
                name: family.name(),
                level0_files,
                memtable_bytes: of(properties::CUR_SIZE_ALL_MEM_TABLES),
                sst_bytes,
                pending_compaction_bytes: of(properties::ESTIMATE_PENDING_COMPACTION_BYTES),
                keys: of(properties::ESTIMATE_NUM_KEYS),
            }
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

/// A checkpoint's folder, removed with this.
pub(crate) struct CheckpointFolder(PathBuf);

impl CheckpointFolder {
    /// Returns where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for CheckpointFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "a checkpoint was not removed");
        }
    }
}

/// Removes checkpoints that a killed process left.
fn remove_checkpoints(path: &Path) -> Result<()> {
    for name in disk::names(path)? {
        if name.starts_with(CHECKPOINT) {
            let folder = path.join(name);
            fs::remove_dir_all(&folder).map_err(|source| io_error(&folder, source))?;
        }
    }
    Ok(())
}

/// Says of a database that is damaged what to do about it.
fn not_opened(source: rocksdb::Error) -> Error {
    if source.kind() == ErrorKind::Corruption {
        let advice = "`everwhen verify` says what else is, then restore a snapshot";
        let why = format!("{}; {advice}", source.into_string());
        return Error::Corrupt { what: "data directory", why };
    }
    Error::Engine { source }
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
    match disk::text(&file)? {
        Some(text) if text == format!("{FORMAT}\n") => Ok(()),
        Some(text) => Err(wrong(text.trim())),
        None if path.join("rocks").exists() => Err(wrong("none")),
        None => write_whole(&file, &format!("{FORMAT}\n")),
    }
}

fn incarnation(path: &Path) -> Result<String> {
    let file = path.join("INCARNATION");
    if let Some(text) = disk::text(&file)? {
        let id = text.strip_suffix('\n').unwrap_or_default();
        return id_of(id).map(|_| id.to_owned());
    }
    if path.join("rocks").exists() {
        let why = "the file INCARNATION is missing".to_owned();
        return Err(Error::Corrupt { what: "data directory", why });
    }
    let id = new_incarnation();
    write_whole(&file, &format!("{id}\n"))?;
    Ok(id)
}

/// Returns an incarnation id that was never given before.
pub(crate) fn new_incarnation() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// Returns the bytes of an incarnation id.
pub(crate) fn id_of(incarnation: &str) -> Result<[u8; 16]> {
    let id = uuid::Uuid::try_parse(incarnation).ok();
    let id = id.filter(|id| id.simple().to_string() == incarnation);
    id.map(uuid::Uuid::into_bytes).ok_or_else(|| Error::Corrupt {
        what: "file INCARNATION",
        why: "it does not hold 32 hex digits".to_owned(),
    })
}

/// Makes the files of a data directory around the database that lies in its `rocks` folder.
pub(crate) fn adopt(path: &Path, incarnation: &str, sequence: u64) -> Result<()> {
    write_whole(&path.join("INCARNATION"), &format!("{incarnation}\n"))?;
    Witness::open(path, id_of(incarnation)?, sequence)?;
    write_whole(&path.join("FORMAT"), &format!("{FORMAT}\n"))
}
