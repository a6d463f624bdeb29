//! The client of a topic: its settings, what it tells about itself, and where logs end.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;

use super::topic_id;
use crate::stream::{KafkaTopic, RECEIVABLE_BYTES_MAX};

/// A client that polls.
pub(super) type Client = BaseConsumer<Context>;

/// Builds the client of a stream.
///
/// # Errors
/// Where the client refuses a setting.
pub(super) fn client(topic: &KafkaTopic, stream: &str) -> Result<Client, KafkaError> {
    let mut config = ClientConfig::new();
    let receivable = (RECEIVABLE_BYTES_MAX + (1 << 20)).to_string();
    for (name, value) in [
        ("client.id", "everwhen"),
        ("queued.min.messages", "10000"),
        ("queued.max.messages.kbytes", "16384"),
        ("fetch.queue.backoff.ms", "5"),
        ("fetch.wait.max.ms", "100"),
        // A single larger record is sent whole nevertheless.
        ("fetch.message.max.bytes", "2097152"),
        ("fetch.max.bytes", "33554432"),
        ("receive.message.max.bytes", receivable.as_str()),
        ("reconnect.backoff.ms", "50"),
        ("reconnect.backoff.max.ms", "1000"),
        ("socket.keepalive.enable", "true"),
        ("topic.metadata.refresh.interval.ms", "30000"),
        ("isolation.level", "read_committed"),
    ] {
        config.set(name, value);
    }
    config.set("group.id", format!("everwhen-{stream}"));
    for (name, value) in &topic.options {
        config.set(name, value);
    }
    // These are what reading exactly once rests on.
    for (name, value) in [
        ("bootstrap.servers", topic.brokers.as_str()),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "error"),
        ("allow.auto.create.topics", "false"),
        ("enable.partition.eof", "true"),
        ("statistics.interval.ms", "500"),
    ] {
        config.set(name, value);
    }
    // Topics' ids are told in the log alone.
    config.set("debug", "topic");
    config.set_log_level(RDKafkaLogLevel::Debug);
    config.create_with_context(Context::new(&topic.topic))
}

/// Returns the topic's id as the client has learned it with the metadata; nothing where the broker
/// does not tell it. Only for a client without an assignment: log lines come by polls.
pub(super) fn topic_id(consumer: &Client, partitions: usize) -> Option<[u8; 16]> {
    // Each poll takes one line, of which there are a few for each partition.
    for _ in 0..256 + 16 * partitions {
        if let Some(id) = consumer.context().seen.lock().topic_id {
            return Some(id);
        }
        let _none = consumer.poll(Duration::ZERO);
    }
    None
}

/// What the client told about itself, from its own threads.
#[derive(Debug)]
pub(super) struct Seen {
    /// The last thing that went wrong with a connection.
    pub(super) trouble: Option<String>,
    /// The topic's id.
    pub(super) topic_id: Option<[u8; 16]>,
    /// Some broker is connected.
    pub(super) is_up: bool,
    /// The end of each partition that was reached while nothing was queued.
    pub(super) ends: BTreeMap<i32, i64>,
}

/// Where the client's threads put what they see.
pub(super) struct Context {
    topic: String,
    pub(super) seen: Mutex<Seen>,
}

impl Context {
    fn new(topic: &str) -> Self {
        let seen = Seen { trouble: None, topic_id: None, is_up: true, ends: BTreeMap::new() };
        Self { topic: topic.to_owned(), seen: Mutex::new(seen) }
    }
}

impl ClientContext for Context {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        if let Some(id) = topic_id::told(&self.topic, facility, message) {
            self.seen.lock().topic_id = Some(id);
        }
        tracing::debug!(facility, message, "librdkafka");
    }

    fn stats(&self, statistics: Statistics) {
        let mut seen = self.seen.lock();
        if !statistics.brokers.is_empty() {
            seen.is_up = statistics.brokers.values().any(|broker| broker.state == "UP");
        }
        for topic in statistics.topics.into_values() {
            for (id, partition) in topic.partitions {
                // With nothing queued, whatever lies before that end has been polled.
                if id >= 0 && partition.fetchq_cnt == 0 && partition.eof_offset > 0 {
                    let end = seen.ends.entry(id).or_insert(0);
                    *end = (*end).max(partition.eof_offset);
                }
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
        self.seen.lock().trouble = Some(reason.to_owned());
    }
}

impl ConsumerContext for Context {}

/// The means to ask the broker where a topic's partitions end, while its client lives.
#[derive(Clone)]
pub struct Watermarks {
    consumer: Weak<Client>,
    topic: String,
}

impl std::fmt::Debug for Watermarks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "watermarks of {}", self.topic)
    }
}

/// How long those who ask for a stream's state wait for the broker.
const ASK: Duration = Duration::from_millis(250);

impl Watermarks {
    /// Asks by way of a client, for as long as it lives.
    pub(super) fn new(consumer: &Arc<Client>, topic: &str) -> Self {
        Self { consumer: Arc::downgrade(consumer), topic: topic.to_owned() }
    }

    /// Returns the ends of partitions, as many as answer in time.
    pub fn ask(&self, partitions: &[i32]) -> Vec<(i32, i64)> {
        match self.consumer.upgrade() {
            Some(consumer) => Self::of(&consumer, &self.topic, partitions.iter()),
            None => Vec::new(),
        }
    }

    /// Returns the ends of partitions, as many as answer in time.
    pub(super) fn of<'p>(
        consumer: &Client,
        topic: &str,
        partitions: impl Iterator<Item = &'p i32>,
    ) -> Vec<(i32, i64)> {
        let mut ends = Vec::new();
        for partition in partitions {
            match consumer.fetch_watermarks(topic, *partition, ASK) {
                Ok((_, high)) => ends.push((*partition, high)),
                // One that does not answer is enough waiting.
                Err(_) => break,
            }
        }
        ends
    }
}
