//! Which delivery processes are connected, and which sinks they offer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::definition::Body;

/// How long a server without any delivery process waits before it says so.
const WITHOUT_WORKER: Duration = Duration::from_secs(3);

/// The delivery processes that have asked for leases.
#[derive(Debug)]
pub struct Workers {
    by_name: Mutex<BTreeMap<String, Worker>>,
    started: Instant,
    /// How long a process counts as connected after it last asked.
    connected: Duration,
}

#[derive(Debug)]
struct Worker {
    sinks: Vec<String>,
    seen: Instant,
}

impl Workers {
    /// Starts without any.
    pub const fn new(started: Instant, connected: Duration) -> Self {
        Self { by_name: Mutex::new(BTreeMap::new()), started, connected }
    }

    /// Takes note that a process has asked for leases.
    pub fn seen(&self, name: &str, sinks: &[String], now: Instant) {
        let mut workers = self.by_name.lock();
        workers.retain(|_, worker| now.saturating_duration_since(worker.seen) < self.connected);
        workers.insert(name.to_owned(), Worker { sinks: sinks.to_vec(), seen: now });
    }

    /// Takes note that a process has given its leases back.
    pub fn gone(&self, name: &str) {
        self.by_name.lock().remove(name);
    }

    /// Says why nobody delivers a projection, if no process that is connected has its sink.
    pub fn missing(&self, body: &Body, now: Instant) -> Option<String> {
        let workers = self.by_name.lock();
        let connected: Vec<&Worker> = workers
            .values()
            .filter(|worker| now.saturating_duration_since(worker.seen) < self.connected)
            .collect();
        if connected.is_empty() {
            let patient = now.saturating_duration_since(self.started) < WITHOUT_WORKER;
            return (!patient).then(|| "no delivery process is connected".to_owned());
        }
        if connected.iter().any(|worker| sink_of(body, &worker.sinks).is_some()) {
            return None;
        }
        let offered: BTreeSet<&str> =
            connected.iter().flat_map(|worker| &worker.sinks).map(String::as_str).collect();
        let offered: Vec<&str> = offered.into_iter().collect();
        let offered = if offered.is_empty() { "none".to_owned() } else { offered.join(", ") };
        Some(match &body.sink {
            Some(sink) => format!("no delivery process offers sink \"{sink}\"; offered: {offered}"),
            None => format!(
                "the projection names no sink, and no delivery process offers sink \"default\" or \
                 a single one; offered: {offered}"
            ),
        })
    }
}

/// Returns the worker's sink for a projection: the one it names; without a name `default`, or the
/// worker's only one.
pub fn sink_of<'a>(body: &'a Body, sinks: &'a [String]) -> Option<&'a str> {
    let has = |name: &str| sinks.iter().any(|sink| sink == name);
    match &body.sink {
        Some(name) => has(name).then_some(name.as_str()),
        None if has("default") => Some("default"),
        None => match sinks {
            [only] => Some(only.as_str()),
            _ => None,
        },
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any instant will do to count from")]
mod tests {
    use super::*;

    fn body(sink: Option<&str>) -> Body {
        let json = serde_json::json!({
            "sql": "", "query": "", "key": ["id"], "sink": sink, "table": "t", "metadata": true,
            "tenant_column": null, "columns": [],
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_sink_that_nobody_offers_is_named_with_those_offered() {
        let now = Instant::now();
        let workers = Workers::new(now, Duration::from_secs(10));
        let named = body(Some("nosink"));
        assert_eq!(workers.missing(&named, now), None, "a process may just be starting");
        let later = now + Duration::from_secs(4);
        let none = workers.missing(&named, later);
        assert_eq!(none.as_deref(), Some("no delivery process is connected"));
        workers.seen("a", &["warehouse".to_owned(), "lake".to_owned()], later);
        let text = "no delivery process offers sink \"nosink\"; offered: lake, warehouse";
        assert_eq!(workers.missing(&named, later).as_deref(), Some(text));
        assert!(workers.missing(&body(None), later).is_some_and(|text| text.contains("default")));
        assert_eq!(workers.missing(&body(Some("lake")), later), None);
        workers.seen("b", &["nosink".to_owned()], later);
        assert_eq!(workers.missing(&named, later), None, "it comes");
        workers.gone("b");
        assert_eq!(workers.missing(&named, later).as_deref(), Some(text), "it goes");
        let end = later + Duration::from_secs(11);
        assert_eq!(workers.missing(&named, end), none, "a process that says nothing is away");
    }
}
