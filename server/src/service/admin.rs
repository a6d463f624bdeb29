//! How things stand: the status document, the test clock and the gauges of the metrics page.

use everwhen_query::basis_token;
use everwhen_storage::{Standing, ValidTime};
use serde_json::{Value, json};

use super::Services;
use crate::failure::{Answered, Failure};
use crate::metrics::{Gauge, render_counter, render_gauge};

/// How far the test clock is to be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockMove {
    Set(ValidTime),
    AdvanceMillis(u64),
}

/// Returns the status document: version, place in the order of transactions, streams, projections.
///
/// # Errors
/// Where the store cannot be read.
pub fn status(services: &Services) -> Answered<Value> {
    let latest = services.store.latest();
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "incarnation": services.store.incarnation(),
        "state": if services.health.is_ready() { "ready" } else { "draining" },
        "writes": writes(services),
        "journal": journal(services),
        "uptime_ms": u64::try_from(services.since(services.started).as_millis()).unwrap_or(0),
        "clock": if services.test_clock { "manual" } else { "real" },
        "now": latest.now.to_string(),
        "latest_tx": latest.tx.get(),
        "basis": basis_token(&services.store, latest),
        "tenants": services.store.tenants().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "streams": streams(services),
        "projections": super::project::list_json(services),
    }))
}

/// Returns whether writes are taken, and why not where they are not.
fn writes(services: &Services) -> Value {
    match services.store.standing() {
        Standing::Well => json!({"state": "taken", "why": null}),
        Standing::Full { why } => json!({"state": "disk full", "why": why}),
        Standing::Failed { .. } => json!({"state": "failed", "why": "the log says why"}),
    }
}

/// Returns how far the journal is shipped, and whether it is.
fn journal(services: &Services) -> Value {
    let Some(standing) = services.shipping.standing() else {
        return json!({"state": "not shipped", "shipped_tx": null, "why": null});
    };
    let (state, why) = match standing.error {
        None => ("shipped", None),
        Some(_) => ("failing", Some("the log says why")),
    };
    json!({"state": state, "shipped_tx": standing.tx.get(), "why": why})
}

/// Returns what `everwhen.streams` shows, as JSON objects.
fn streams(services: &Services) -> Vec<Value> {
    let row = |s: everwhen_ingest::StreamStatus| {
        json!({
            "stream": s.stream,
            "topic": s.topic,
            "partition": s.partition,
            "next_offset": s.next_offset,
            "high_watermark": s.high_watermark,
            "lag": s.lag,
            "state": s.state,
            "error": s.error,
        })
    };
    services.ingest.status().into_iter().map(row).collect()
}

/// Moves the manual clock and returns where it stands.
///
/// # Errors
/// `invalid_value` for a time before the one it has.
pub fn move_clock(services: &Services, by: ClockMove) -> Answered<ValidTime> {
    let clock = services.store.clock();
    let micros = match by {
        ClockMove::Set(at) => at.micros(),
        ClockMove::AdvanceMillis(millis) => i64::try_from(millis)
            .ok()
            .and_then(|millis| millis.checked_mul(1_000))
            .and_then(|micros| clock.now_micros().checked_add(micros))
            .ok_or_else(|| Failure::request("advance_ms is too large"))?,
    };
    if let Err(error @ everwhen_storage::Error::ClockBackwards { .. }) = clock.set(micros) {
        let stands = ValidTime::from_micros(clock.now_micros());
        let asked = ValidTime::from_micros(micros);
        tracing::debug!(%error, "test clock not moved");
        let detail = format!("the clock stands at {stands} and cannot go back to {asked}");
        return Err(Failure::new(crate::code::Code::InvalidValue, detail));
    }
    Ok(ValidTime::from_micros(clock.now_micros()))
}

/// Returns the metrics page.
pub fn metrics_page(services: &Services) -> String {
    let mut page = String::new();
    services.metrics.render(&mut page);
    let one = |value: f64| -> Vec<Gauge> { vec![(Vec::new(), value)] };
    let latest = services.store.latest();
    render_gauge(&mut page, "everwhen_latest_tx", &one(approximate(latest.tx.get())));
    let uptime = services.since(services.started).as_secs_f64();
    render_gauge(&mut page, "everwhen_uptime_seconds", &one(uptime));
    let ready = if services.health.is_ready() { 1.0 } else { 0.0 };
    render_gauge(&mut page, "everwhen_ready", &one(ready));
    stream_gauges(services, &mut page);
    stream_counters(services, &mut page);
    super::project::gauges(services, &mut page);
    super::store_metrics::add(services, &mut page);
    page
}

fn stream_gauges(services: &Services, page: &mut String) {
    let streams = services.ingest.status();
    let labels = |s: &everwhen_ingest::StreamStatus| {
        vec![
            ("stream", s.stream.clone()),
            ("partition", s.partition.map_or_else(String::new, |p| p.to_string())),
        ]
    };
    let of = |value: &dyn Fn(&everwhen_ingest::StreamStatus) -> Option<f64>| -> Vec<Gauge> {
        streams.iter().filter_map(|s| Some((labels(s), value(s)?))).collect()
    };
    render_gauge(page, "everwhen_stream_lag", &of(&|s| s.lag.map(approximate_signed)));
    let next = of(&|s| s.next_offset.map(approximate_signed));
    render_gauge(page, "everwhen_stream_next_offset", &next);
    let is_running = |s: &everwhen_ingest::StreamStatus| s.error.is_none() && s.state != "paused";
    let running = of(&|s| Some(if is_running(s) { 1.0 } else { 0.0 }));
    render_gauge(page, "everwhen_stream_running", &running);
}

fn stream_counters(services: &Services, page: &mut String) {
    let streams = services.ingest.metrics();
    let mut records: Vec<Gauge> = Vec::new();
    for (stream, counts) in &streams {
        let fates = [
            ("applied", counts.applied),
            ("duplicate", counts.duplicates),
            ("stale", counts.stale),
            ("erased", counts.erased),
            ("unmatched", counts.unmatched),
            ("dead_letter", counts.dead_letters),
            ("passed", counts.passed),
        ];
        records.extend(fates.map(|(fate, count)| {
            let labels = vec![("stream", stream.clone()), ("fate", fate.to_owned())];
            (labels, approximate(count))
        }));
    }
    render_counter(page, "everwhen_stream_records_total", &records);
    let of = |value: fn(&everwhen_ingest::StreamMetrics) -> u64| -> Vec<Gauge> {
        let line = |(stream, counts): &(String, everwhen_ingest::StreamMetrics)| {
            (vec![("stream", stream.clone())], approximate(value(counts)))
        };
        streams.iter().map(line).collect()
    };
    render_counter(page, "everwhen_stream_bytes_total", &of(|counts| counts.bytes));
    render_counter(page, "everwhen_stream_batches_total", &of(|counts| counts.batches));
    render_counter(page, "everwhen_stream_restarts_total", &of(|counts| counts.restarts));
}

/// Returns a count as Prometheus has it: exact up to 2^53.
#[expect(clippy::as_conversions, reason = "a gauge is a float; exact up to 2^53")]
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; exact up to 2^53")]
pub const fn approximate(count: u64) -> f64 {
    count as f64
}

fn approximate_signed(count: i64) -> f64 {
    approximate(u64::try_from(count).unwrap_or(0))
}
