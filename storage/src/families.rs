//! Column families and the RocksDB options of each.

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType,
    DBRecoveryMode, LogLevel, Options, SliceTransform, WriteBufferManager,
};

use crate::error::Result;
use crate::key;
use crate::tuning::Tuning;

/// A column family; keys and values are those of `key.rs` and `row.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// One entry for every key that ever had anything: its open-ended segment, or that it has none.
    Current,
    /// The other segments of the latest belief.
    Timeline,
    /// Superseded belief.
    Archive,
    /// What events said (EFFECTIVE tables).
    Assertions,
    /// What each event id says now.
    EventIds,
    /// What each transaction changed.
    Changes,
    /// Valid bounds later than their recording: what the passing of time will change.
    Boundaries,
    /// The journal: tx id, system time, source position.
    Transactions,
    /// Look-ups by value; a superset.
    Indexes,
    /// Definitions, source offsets, tenants, ids.
    Meta,
    /// Rejected records.
    DeadLetters,
    /// The projector's durable state.
    Cursors,
}

impl Family {
    /// All of them.
    pub(crate) const ALL: [Self; 12] = [
        Self::Current,
        Self::Timeline,
        Self::Archive,
        Self::Assertions,
        Self::EventIds,
        Self::Changes,
        Self::Boundaries,
        Self::Transactions,
        Self::Indexes,
        Self::Meta,
        Self::DeadLetters,
        Self::Cursors,
    ];

    /// Returns the name on disk.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Timeline => "timeline",
            Self::Archive => "archive",
            Self::Assertions => "assertions",
            Self::EventIds => "event_ids",
            Self::Changes => "changes",
            Self::Boundaries => "boundaries",
            Self::Transactions => "transactions",
            Self::Indexes => "indexes",
            Self::Meta => "meta",
            Self::DeadLetters => "dead_letters",
            Self::Cursors => "cursors",
        }
    }

    /// True where single keys are asked for that are often not there.
    const fn is_probed(self) -> bool {
        matches!(self, Self::Current | Self::EventIds | Self::Cursors)
    }

    /// True where all that is asked for, but for whole walks, is within one row: a filter on rows
    /// then spares most files. Not where seeks go backwards, which such filters do not bear.
    const fn is_probed_by_row(self) -> bool {
        matches!(self, Self::Archive)
    }

    /// True where every event leaves something.
    const fn is_busy(self) -> bool {
        !matches!(self, Self::Meta | Self::DeadLetters | Self::Cursors | Self::Transactions)
    }

    /// True where most of what lies at the bottom is seldom read: it is packed tightly there.
    const fn is_cold_below(self) -> bool {
        !matches!(self, Self::Current | Self::Meta | Self::Cursors)
    }
}

/// Returns the options of the whole database.
///
/// # Errors
/// Those of the engine, where it does not know an option.
pub(crate) fn database_options(tuning: &Tuning, memtables: &WriteBufferManager) -> Result<Options> {
    // Each table file's checksum as a whole goes into the manifest, for `verify`; the crate has no
    // setter for it.
    let mut options = Options::default()
        .get_options_from_string("file_checksum_gen_factory=FileChecksumGenCrc32cFactory")?;
    // A damaged log is refused. The default would open with what stands before the damage; only
    // what was being written when the process ended is passed over.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_background_jobs(background_jobs(tuning));
    options.set_write_buffer_manager(memtables);
    // Bounds what a start after a crash has to read again.
    options.set_max_total_wal_size(512 << 20);
    // Written pages go to the disk as they come, so that no sync has to wait for very many.
    options.set_bytes_per_sync(1 << 20);
    options.set_max_open_files(4096);
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(16 << 20);
    // Below this level the engine's own log names keys, such as the bounds of a compaction.
    options.set_log_level(LogLevel::Warn);
    // The manifest holds the bounds of tables: an erasure must be able to have it begun anew.
    options.set_max_manifest_file_size(1 << 20);
    // A reader that ends does not stop to delete the files that only it still needed.
    options.set_avoid_unnecessary_blocking_io(true);
    // One thread writes nearly everything: the concurrent memtable only costs it atomics.
    options.set_allow_concurrent_memtable_write(false);
    options.set_enable_write_thread_adaptive_yield(false);
    if tuning.background_bytes_per_second > 0 {
        let rate = i64::try_from(tuning.background_bytes_per_second).unwrap_or(i64::MAX);
        options.set_ratelimiter(rate, 100_000, 10);
    }
    Ok(options)
}

fn background_jobs(tuning: &Tuning) -> i32 {
    let cores = || std::thread::available_parallelism().map_or(4, usize::from).clamp(4, 16);
    let jobs = if tuning.background_jobs == 0 { cores() } else { tuning.background_jobs };
    i32::try_from(jobs).unwrap_or(i32::MAX)
}

/// Returns what to open: every family with its options, over one block cache.
pub(crate) fn descriptors(cache: &Cache) -> Vec<ColumnFamilyDescriptor> {
    let families = Family::ALL.into_iter();
    families
        .map(|family| ColumnFamilyDescriptor::new(family.name(), family_options(family, cache)))
        .collect()
}

/// Returns the options that a family's files are written with outside the database.
pub(crate) fn file_options(family: Family) -> Options {
    family_options(family, &Cache::new_lru_cache(8 << 20))
}

fn family_options(family: Family, cache: &Cache) -> Options {
    let mut options = Options::default();
    options.set_block_based_table_factory(&table_options(family, cache));
    options.set_compression_type(DBCompressionType::Lz4);
    if family.is_cold_below() {
        options.set_bottommost_compression_type(DBCompressionType::Zstd);
    }
    options.set_write_buffer_size(if family.is_busy() { 64 << 20 } else { 16 << 20 });
    options.set_arena_block_size(1 << 20);
    options.set_max_write_buffer_number(4);
    options.set_min_write_buffer_number_to_merge(1);
    options.set_target_file_size_base(64 << 20);
    options.set_max_bytes_for_level_base(512 << 20);
    options.set_level_compaction_dynamic_level_bytes(true);
    // Bursts are taken in first and compacted after: reads of many files are the lesser evil.
    options.set_level_zero_file_num_compaction_trigger(6);
    options.set_level_zero_slowdown_writes_trigger(48);
    options.set_level_zero_stop_writes_trigger(96);
    options.set_soft_pending_compaction_bytes_limit(256 << 30);
    options.set_hard_pending_compaction_bytes_limit(512 << 30);
    if family.is_probed() {
        options.set_memtable_prefix_bloom_ratio(0.02);
        options.set_memtable_whole_key_filtering(true);
    }
    if family.is_probed_by_row() {
        options.set_prefix_extractor(SliceTransform::create("everwhen.row", archive_row, None));
        options.set_memtable_prefix_bloom_ratio(0.02);
    }
    options
}

fn table_options(family: Family, cache: &Cache) -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(8 << 10);
    table.set_format_version(6);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_optimize_filters_for_memory(true);
    if family.is_busy() {
        // Indexes and filters come into the cache piece by piece, only their tops stay in it.
        table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        table.set_partition_filters(true);
        table.set_metadata_block_size(4 << 10);
        table.set_pin_top_level_index_and_filter(true);
    }
    if family.is_probed() || family.is_probed_by_row() {
        table.set_bloom_filter(10.0, false);
        table.set_whole_key_filtering(family.is_probed());
    }
    table
}

/// Returns the row prefix of an `archive` key.
fn archive_row(key: &[u8]) -> &[u8] {
    &key[..key.len().saturating_sub(key::ARCHIVE_SUFFIX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_key_without_its_suffix_is_the_row() {
        let mut archived = Vec::new();
        let fork = key::Fork::of(&crate::time::Period::ALL);
        key::archive_into(&mut archived, b"row prefix", fork, crate::tx::TxId::new(7));
        assert_eq!(archive_row(&archived), b"row prefix");
        assert_eq!(archive_row(b"short"), b"");
    }

    #[test]
    fn background_jobs_follow_the_setting_or_the_cores() {
        let by_cores = background_jobs(&Tuning::default());
        assert!((4..=16).contains(&by_cores));
        let set = Tuning { background_jobs: 2, ..Tuning::default() };
        assert_eq!(background_jobs(&set), 2);
    }
}
