//! Column families and the RocksDB options of each.

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, Options,
};

use crate::error::Result;

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
        matches!(self, Self::Current | Self::EventIds | Self::Archive | Self::Cursors)
    }

    /// True where every event leaves something.
    const fn is_busy(self) -> bool {
        !matches!(self, Self::Meta | Self::DeadLetters | Self::Cursors | Self::Transactions)
    }
}

/// Returns the options of the whole database.
///
/// # Errors
/// Those of the engine, where it does not know an option.
pub(crate) fn database_options() -> Result<Options> {
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
    options.set_max_background_jobs(4);
    options.set_max_total_wal_size(1 << 30);
    options.set_bytes_per_sync(1 << 20);
    options.set_max_open_files(4096);
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(16 << 20);
    // One thread writes nearly everything: the concurrent memtable only costs it atomics.
    options.set_allow_concurrent_memtable_write(false);
    options.set_enable_write_thread_adaptive_yield(false);
    Ok(options)
}

/// Returns what to open: every family with its options, over one block cache.
pub(crate) fn descriptors(cache: &Cache) -> Vec<ColumnFamilyDescriptor> {
    Family::ALL
        .into_iter()
        .map(|family| ColumnFamilyDescriptor::new(family.name(), family_options(family, cache)))
        .collect()
}

fn family_options(family: Family, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(8 << 10);
    table.set_format_version(6);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_optimize_filters_for_memory(true);
    if family.is_probed() {
        table.set_bloom_filter(10.0, false);
        table.set_whole_key_filtering(true);
    }

    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
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
    options
}
