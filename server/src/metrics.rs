//! Counters, and their text form for Prometheus. Holds no view of the store: gauges are read when
//! the page is asked for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use everwhen_storage::metrics::Distribution;
use parking_lot::Mutex;

/// Upper bounds of the duration buckets, in seconds.
const BUCKETS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Everything counted since the server started. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    /// By metric name, then by labels in text form.
    counters: BTreeMap<&'static str, BTreeMap<String, u64>>,
    durations: BTreeMap<&'static str, BTreeMap<String, Histogram>>,
}

#[derive(Debug, Default, Clone)]
struct Histogram {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum_seconds: f64,
}

/// One line of a gauge: labels and value.
pub type Gauge = (Vec<(&'static str, String)>, f64);

impl Metrics {
    /// Adds to a counter.
    pub fn add(&self, name: &'static str, labels: &[(&'static str, &str)], n: u64) {
        let mut counts = self.0.lock();
        *counts.counters.entry(name).or_default().entry(labels_text(labels)).or_default() += n;
    }

    /// Enters how long something took.
    pub fn observe(&self, name: &'static str, labels: &[(&'static str, &str)], took: Duration) {
        let seconds = took.as_secs_f64();
        let mut counts = self.0.lock();
        let histogram =
            counts.durations.entry(name).or_default().entry(labels_text(labels)).or_default();
        for (bucket, bound) in histogram.buckets.iter_mut().zip(BUCKETS) {
            if seconds <= bound {
                *bucket += 1;
            }
        }
        histogram.count += 1;
        histogram.sum_seconds += seconds;
    }

    /// Writes all counters and durations in Prometheus' text form.
    pub fn render(&self, out: &mut String) {
        let counts = self.0.lock();
        for (name, lines) in &counts.counters {
            put(out, format_args!("# HELP {name} {}\n# TYPE {name} counter\n", help(name)));
            for (labels, value) in lines {
                put(out, format_args!("{name}{} {value}\n", braced(labels)));
            }
        }
        for (name, lines) in &counts.durations {
            put(out, format_args!("# HELP {name} {}\n# TYPE {name} histogram\n", help(name)));
            for (labels, histogram) in lines {
                render_histogram(out, name, labels, histogram);
            }
        }
    }
}

fn render_histogram(out: &mut String, name: &str, labels: &str, histogram: &Histogram) {
    let comma = if labels.is_empty() { "" } else { "," };
    for (count, bound) in histogram.buckets.iter().zip(BUCKETS) {
        put(out, format_args!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}\n"));
    }
    put(out, format_args!("{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {}\n", histogram.count));
    put(out, format_args!("{name}_sum{} {}\n", braced(labels), histogram.sum_seconds));
    put(out, format_args!("{name}_count{} {}\n", braced(labels), histogram.count));
}

/// Writes one gauge with its lines.
pub fn render_gauge(out: &mut String, name: &'static str, lines: &[Gauge]) {
    render_lines(out, name, "gauge", lines);
}

/// Writes one counter that is kept elsewhere, with its lines.
pub fn render_counter(out: &mut String, name: &'static str, lines: &[Gauge]) {
    render_lines(out, name, "counter", lines);
}

/// Writes a histogram that is kept elsewhere.
pub fn render_distribution(out: &mut String, name: &'static str, values: &Distribution) {
    put(out, format_args!("# HELP {name} {}\n# TYPE {name} histogram\n", help(name)));
    let mut within = 0;
    for (count, bound) in values.counts.iter().zip(values.bounds) {
        within += count;
        put(out, format_args!("{name}_bucket{{le=\"{bound}\"}} {within}\n"));
    }
    let count = values.count();
    put(out, format_args!("{name}_bucket{{le=\"+Inf\"}} {count}\n"));
    put(out, format_args!("{name}_sum {}\n{name}_count {count}\n", values.sum));
}

fn render_lines(out: &mut String, name: &'static str, kind: &str, lines: &[Gauge]) {
    if lines.is_empty() {
        return;
    }
    put(out, format_args!("# HELP {name} {}\n# TYPE {name} {kind}\n", help(name)));
    for (labels, value) in lines {
        let borrowed: Vec<_> = labels.iter().map(|(k, v)| (*k, v.as_str())).collect();
        put(out, format_args!("{name}{} {value}\n", braced(&labels_text(&borrowed))));
    }
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(text);
}

fn labels_text(labels: &[(&'static str, &str)]) -> String {
    let quoted = labels.iter().map(|(name, value)| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        format!("{name}=\"{value}\"")
    });
    quoted.collect::<Vec<_>>().join(",")
}

fn braced(labels: &str) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{labels}}}") }
}

fn help(name: &str) -> &'static str {
    match name {
        "everwhen_postgres_connections_total" => "Connections taken over the Postgres wire.",
        "everwhen_store_disk_full" => "1 while writes are refused because the disk is full.",
        "everwhen_store_failed" => "1 once a write has failed and no more are taken.",
        "everwhen_store_queue_depth" => "Requests that wait for the writer.",
        "everwhen_store_queue_depth_max" => "Requests that its queue holds.",
        "everwhen_store_callers_held" => "Callers that wait because the queue is full.",
        "everwhen_store_clock_behind_seconds" => "How far system time is ahead of the clock.",
        "everwhen_store_clock_jumps_total" => "Times the clock moved by more than time passed.",
        "everwhen_store_transactions_total" => "Transactions committed since the start.",
        "everwhen_store_log_syncs_total" => "Syncs of the log since the start.",
        "everwhen_store_wait_seconds" => "From the call to the writer's taking up a batch.",
        "everwhen_store_commit_seconds" => "Writing and syncing a group of batches.",
        "everwhen_store_group_batches" => "Batches that shared one write and sync.",
        "everwhen_store_write_stopped" => "1 while the engine stops writes.",
        "everwhen_store_delayed_write_bytes_per_second" => {
            "What the engine slows writes down to; 0 where it does not."
        }
        "everwhen_store_running_flushes" => "Flushes under way.",
        "everwhen_store_running_compactions" => "Compactions under way.",
        "everwhen_store_background_errors" => "Flushes and compactions that failed.",
        "everwhen_store_log_bytes" => "Size of the write-ahead logs.",
        "everwhen_store_memtable_bytes" => "Memory of what is not yet flushed.",
        "everwhen_store_memtable_bytes_max" => "Memory it may take.",
        "everwhen_store_cache_bytes" => "Block cache in use.",
        "everwhen_store_cache_bytes_max" => "Size of the block cache.",
        "everwhen_store_disk_free_bytes" => "Room on the disk of the data directory.",
        "everwhen_store_family_level0_files" => "Files not yet sorted into levels, by family.",
        "everwhen_store_family_memtable_bytes" => "Memory of what is not yet flushed, by family.",
        "everwhen_store_family_sst_bytes" => "Size of the sorted files, by family.",
        "everwhen_store_family_pending_compaction_bytes" => "What waits for compaction, by family.",
        "everwhen_store_family_keys" => "About how many keys there are, by family.",
        "everwhen_query_memory_bytes" => "Memory that operators of running queries hold.",
        "everwhen_query_spill_bytes" => "Disk that running queries use beyond their memory.",
        "everwhen_http_requests_total" => "HTTP requests answered, by route, method and status.",
        "everwhen_http_request_seconds" => "Time until the head of an HTTP answer, by route.",
        "everwhen_grpc_requests_total" => "gRPC calls answered, by method and code.",
        "everwhen_statements_total" => "SQL statements, by kind and outcome.",
        "everwhen_statement_seconds" => "Time until a statement's first rows or its commit.",
        "everwhen_rows_total" => "Rows sent to clients.",
        "everwhen_errors_total" => "Requests refused or failed, by code.",
        "everwhen_snapshots_total" => "Snapshots asked for, by outcome.",
        "everwhen_journal_ship_lag_tx" => "Transactions that are not shipped yet.",
        "everwhen_journal_ship_failing" => "1 while the journal cannot be shipped.",
        "everwhen_journal_shipped_segments_total" => "Segments of the journal shipped.",
        "everwhen_journal_shipped_bytes_total" => "Bytes of the journal shipped.",
        "everwhen_journal_ship_failures_total" => "Tries to ship the journal that failed.",
        "everwhen_events_total" => "Events posted, by stream and fate.",
        "everwhen_latest_tx" => "The last committed transaction.",
        "everwhen_uptime_seconds" => "Seconds since the server started.",
        "everwhen_ready" => "1 while requests are taken.",
        "everwhen_stream_lag" => "Records between a stream's next offset and the topic's end.",
        "everwhen_stream_next_offset" => "Next offset to read of a stream's partition.",
        "everwhen_stream_running" => "1 while a stream's partition is read without error.",
        "everwhen_stream_records_total" => "Records taken, by stream and fate.",
        "everwhen_stream_bytes_total" => "Bytes of the records taken.",
        "everwhen_stream_batches_total" => "Batches of records committed.",
        "everwhen_stream_restarts_total" => "Source clients made anew after a failure.",
        name => help_of_projections(name),
    }
}

fn help_of_projections(name: &str) -> &'static str {
    match name {
        "everwhen_projection_delivered_tx" => "Transaction a projection's sink has reached.",
        "everwhen_projection_lag_tx" => "Transactions a projection's sink is behind.",
        "everwhen_projection_pending_keys" => "Keys of a projection computed and not delivered.",
        "everwhen_projection_held_keys" => "Keys of a projection whose sink row is held.",
        "everwhen_projection_held_seconds" => "For how long the first of these keys is held.",
        "everwhen_projection_uncovered_tenants" => "Tenants with rows that it does not cover.",
        "everwhen_projection_failing" => "1 while a projection has an error.",
        "everwhen_projection_memory_bytes" => {
            "Memory that projections use while they are computed."
        }
        "everwhen_projection_memory_peak_bytes" => {
            "Peak of the memory that projections use while computed."
        }
        _ => "Counted by Everwhen.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_render_with_labels_and_escapes() {
        let metrics = Metrics::default();
        metrics.add("everwhen_errors_total", &[("code", "a\"b")], 2);
        metrics.add("everwhen_errors_total", &[("code", "a\"b")], 1);
        let mut page = String::new();
        metrics.render(&mut page);
        assert!(page.contains("# TYPE everwhen_errors_total counter"), "{page}");
        assert!(page.contains("everwhen_errors_total{code=\"a\\\"b\"} 3"), "{page}");
    }

    #[test]
    fn durations_render_as_cumulative_buckets() {
        let metrics = Metrics::default();
        metrics.observe("everwhen_statement_seconds", &[], Duration::from_millis(3));
        metrics.observe("everwhen_statement_seconds", &[], Duration::from_millis(300));
        let mut page = String::new();
        metrics.render(&mut page);
        assert!(page.contains("everwhen_statement_seconds_bucket{le=\"0.005\"} 1"), "{page}");
        assert!(page.contains("everwhen_statement_seconds_bucket{le=\"0.5\"} 2"), "{page}");
        assert!(page.contains("everwhen_statement_seconds_bucket{le=\"+Inf\"} 2"), "{page}");
        assert!(page.contains("everwhen_statement_seconds_count 2"), "{page}");
    }

    #[test]
    fn distributions_render_as_cumulative_buckets() {
        let values = Distribution { bounds: &[1.0, 2.0], counts: vec![3, 0, 2], sum: 23.5 };
        let mut page = String::new();
        render_distribution(&mut page, "everwhen_store_group_batches", &values);
        for line in ["bucket{le=\"1\"} 3", "bucket{le=\"2\"} 3", "bucket{le=\"+Inf\"} 5"] {
            assert!(page.contains(line), "{page}");
        }
        assert!(page.contains("_sum 23.5") && page.contains("_count 5"), "{page}");
    }
}
