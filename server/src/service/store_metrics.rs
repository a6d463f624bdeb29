//! The figures of the store and of running queries on the metrics page.

use everwhen_storage::Standing;
use everwhen_storage::metrics::{EngineMetrics, StoreMetrics, WriterMetrics};

use super::Services;
use super::admin::approximate;
use crate::metrics::{Gauge, render_counter, render_distribution, render_gauge};

/// Adds what the store says of itself; nothing once it is closed.
pub fn add(services: &Services, page: &mut String) {
    let Ok(StoreMetrics { standing, writer, engine }) = services.store.metrics() else { return };
    let is = |standing: bool| one(if standing { 1.0 } else { 0.0 });
    let full = matches!(standing, Standing::Full { .. });
    render_gauge(page, "everwhen_store_disk_full", &is(full));
    let failed = matches!(standing, Standing::Failed { .. });
    render_gauge(page, "everwhen_store_failed", &is(failed));
    of_queries(services, page);
    of_shipping(services, page);
    of_writer(&writer, page);
    of_engine(&engine, page);
    of_families(&engine, page);
}

/// Adds what running queries hold.
fn of_queries(services: &Services, page: &mut String) {
    let (memory, disk) = services.engine.held_bytes();
    let memory = approximate(u64::try_from(memory).unwrap_or(u64::MAX));
    render_gauge(page, "everwhen_query_memory_bytes", &one(memory));
    render_gauge(page, "everwhen_query_spill_bytes", &one(approximate(disk)));
}

/// Adds how far the journal is shipped; nothing where that is off.
fn of_shipping(services: &Services, page: &mut String) {
    let Some(standing) = services.shipping.standing() else { return };
    let behind = services.store.latest().tx.get().saturating_sub(standing.tx.get());
    render_gauge(page, "everwhen_journal_ship_lag_tx", &one(approximate(behind)));
    let failing = if standing.error.is_some() { 1.0 } else { 0.0 };
    render_gauge(page, "everwhen_journal_ship_failing", &one(failing));
    let counters = [
        ("everwhen_journal_shipped_segments_total", standing.segments),
        ("everwhen_journal_shipped_bytes_total", standing.bytes),
        ("everwhen_journal_ship_failures_total", standing.failures),
    ];
    for (name, value) in counters {
        render_counter(page, name, &one(approximate(value)));
    }
}

fn one(value: f64) -> Vec<Gauge> {
    vec![(Vec::new(), value)]
}

fn of_writer(writer: &WriterMetrics, page: &mut String) {
    let count = |count: usize| one(approximate(u64::try_from(count).unwrap_or(u64::MAX)));
    render_gauge(page, "everwhen_store_queue_depth", &count(writer.queue_depth));
    render_gauge(page, "everwhen_store_queue_depth_max", &count(writer.queue_depth_max));
    render_gauge(page, "everwhen_store_callers_held", &count(writer.callers_held));
    let behind = writer.clock_behind.as_secs_f64();
    render_gauge(page, "everwhen_store_clock_behind_seconds", &one(behind));
    let counters = [
        ("everwhen_store_transactions_total", writer.transactions),
        ("everwhen_store_log_syncs_total", writer.log_syncs),
        ("everwhen_store_clock_jumps_total", writer.clock_jumps),
    ];
    for (name, value) in counters {
        render_counter(page, name, &one(approximate(value)));
    }
    render_distribution(page, "everwhen_store_wait_seconds", &writer.wait_seconds);
    render_distribution(page, "everwhen_store_commit_seconds", &writer.commit_seconds);
    render_distribution(page, "everwhen_store_group_batches", &writer.group_batches);
}

fn of_engine(engine: &EngineMetrics, page: &mut String) {
    let gauges = [
        ("everwhen_store_write_stopped", u64::from(engine.write_stopped)),
        ("everwhen_store_delayed_write_bytes_per_second", engine.delayed_write_bytes_per_second),
        ("everwhen_store_running_flushes", engine.running_flushes),
        ("everwhen_store_running_compactions", engine.running_compactions),
        ("everwhen_store_background_errors", engine.background_errors),
        ("everwhen_store_log_bytes", engine.wal_bytes),
        ("everwhen_store_memtable_bytes", engine.memtable_bytes),
        ("everwhen_store_memtable_bytes_max", engine.memtable_bytes_max),
        ("everwhen_store_cache_bytes", engine.cache_bytes),
        ("everwhen_store_cache_bytes_max", engine.cache_bytes_max),
    ];
    for (name, value) in gauges {
        render_gauge(page, name, &one(approximate(value)));
    }
    if let Some(free) = engine.disk_free_bytes {
        render_gauge(page, "everwhen_store_disk_free_bytes", &one(approximate(free)));
    }
}

fn of_families(engine: &EngineMetrics, page: &mut String) {
    type Figure = fn(&everwhen_storage::metrics::FamilyMetrics) -> u64;
    let figures: [(&'static str, Figure); 5] = [
        ("everwhen_store_family_level0_files", |family| family.level0_files),
        ("everwhen_store_family_memtable_bytes", |family| family.memtable_bytes),
        ("everwhen_store_family_sst_bytes", |family| family.sst_bytes),
        ("everwhen_store_family_pending_compaction_bytes", |f| f.pending_compaction_bytes),
        ("everwhen_store_family_keys", |family| family.keys),
    ];
    for (name, figure) in figures {
        let line = |family| {
            let labels = vec![("family", family_name(family))];
            (labels, approximate(figure(family)))
        };
        render_gauge(page, name, &engine.families.iter().map(line).collect::<Vec<_>>());
    }
}

fn family_name(family: &everwhen_storage::metrics::FamilyMetrics) -> String {
    family.name.to_owned()
}
