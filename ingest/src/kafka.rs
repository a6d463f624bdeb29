//! Records of a Kafka topic: one client and one polling thread a stream.
//!
//! All partitions are assigned at the offsets stored with the data; the broker keeps none for us
//! and no group is joined, so nothing is ever rebalanced. Whatever is away is waited out: a session
//! with the broker ends with a reason, the reason is shown, and after a pause the next one begins.
//! Only this file names the client library; its known faults and what is done about each:
//!
//! - it may stop delivering while it goes on keeping its connections: [`Session`] watches progress
//!   and makes a new client;
//! - its queue grows where the reader is slower than the broker: small queues, and the default
//!   pause of a full queue (1 s) would stall, so it is 5 ms;
//! - it may deliver a record twice after a leader changed: offsets below the expected one are dropped.

use std::collections::BTreeMap;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use everwhen_storage::{Clock, Store};
use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use crate::batch::{BatchLimits, Record};
use crate::commit::Committer;
use crate::error::Error;
use crate::metrics::{Counters, Tally};
use crate::pipeline::{self, Work};
use crate::plan::StreamPlan;
use crate::signal::StopSignal;
use crate::status::{Board, State};
use crate::stream::{KafkaTopic, RECEIVABLE_BYTES_MAX};

/// How long a poll waits for the first record of a batch.
const POLL: Duration = Duration::from_millis(100);
/// How long a poll waits while a batch is at hand that the pipeline does not take yet.
const POLL_BUSY: Duration = Duration::from_millis(1);
/// How often a session looks up from its records.
const UPKEEP: Duration = Duration::from_millis(250);
/// How often new partitions are looked for.
const NEW_PARTITIONS: Duration = Duration::from_secs(5);
/// How long a broker may take to answer.
const ANSWER: Duration = Duration::from_secs(3);
/// Silence with records outstanding after which the client is made anew.
const STALLED: Duration = Duration::from_secs(30);
/// Pauses between sessions.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// Records between two looks at the clock while records keep coming.
const UPKEEP_RECORDS: u32 = 4_096;

/// What a Kafka stream runs with.
pub struct Worker {
    pub store: Store,
    pub topic: KafkaTopic,
    pub committer: Arc<Committer>,
    pub board: Arc<Board>,
    pub counters: Arc<Counters>,
    pub stop: Arc<StopSignal>,
    pub limits: BatchLimits,
}

/// How a session with the broker ended.
enum Ended {
    /// Asked to stop.
    Stopped,
    /// Definitions or partitions have changed: begin anew at once.
    Changed,
    /// Something outside is away: begin anew after a pause.
    Waiting(String),
    /// A person has to put something right: look again after a pause.
    Held(String),
}

impl Worker {
    /// Runs until asked to stop. Blocks; give it a thread of its own.
    pub fn run(&self) {
        let mut pause = PAUSE_MIN;
        while !self.stop.is_set() {
            let began = self.store.clock().monotonic();
            let (state, reason) = match self.session() {
                Ended::Stopped => return,
                Ended::Changed => {
                    pause = PAUSE_MIN;
                    continue;
                }
                Ended::Waiting(reason) => (State::Waiting, reason),
                Ended::Held(reason) => (State::Stopped, reason),
            };
            self.tell(state, reason);
            if self.store.clock().monotonic() - began > STALLED {
                pause = PAUSE_MIN;
            }
            if self.stop.wait(pause) {
                return;
            }
            pause = (pause * 2).min(PAUSE_MAX);
            self.counters.restarted();
        }
    }

    /// Shows a state, and logs it where it is news.
    fn tell(&self, state: State, reason: String) {
        let (stream, topic) = (self.committer.stream(), self.topic.topic.as_str());
        if self.board.set(state, Some(reason.clone())) {
            tracing::warn!(stream, topic, ?state, reason, "stream is not running");
        }
    }

    fn session(&self) -> Ended {
        let plan = match self.committer.plan() {
            Ok(plan) => plan,
            Err(Error::UnknownStream { .. }) => return Ended::Stopped,
            Err(error) => return Ended::Held(error.to_string()),
        };
        let consumer = match client(&self.topic, self.committer.stream()) {
            Ok(consumer) => Arc::new(consumer),
            Err(error) => return Ended::Held(format!("Kafka client: {error}")),
        };
        let partitions = match self.partitions(&consumer) {
            Ok(partitions) if partitions.is_empty() => return self.no_topic(),
            Ok(partitions) => partitions,
            Err(ended) => return ended,
        };
        let starts = match self.starts(&consumer, &partitions) {
            Ok(starts) => starts,
            Err(ended) => return ended,
        };
        let watermarks =
            Watermarks { consumer: Arc::downgrade(&consumer), topic: self.topic.topic.clone() };
        self.board.watch(Some(watermarks));
        let ended = if plan.is_idle() {
            self.board.set(State::NoMapping, None);
            self.await_mapping()
        } else {
            self.read(&plan, &consumer, starts)
        };
        self.board.watch(None);
        ended
    }

    /// Waits until something reads the stream: records taken before that would be lost to it.
    fn await_mapping(&self) -> Ended {
        while !self.stop.wait(UPKEEP / 10) {
            match self.committer.plan() {
                Ok(plan) if plan.is_idle() => {}
                _ => return Ended::Changed,
            }
        }
        Ended::Stopped
    }

    fn no_topic(&self) -> Ended {
        Ended::Waiting(format!("topic \"{}\" does not exist", self.topic.topic))
    }

    /// Returns the topic's partitions; none where the topic does not exist.
    fn partitions(&self, consumer: &Client) -> Result<Vec<i32>, Ended> {
        let topic = &self.topic.topic;
        let metadata = match consumer.fetch_metadata(Some(topic), ANSWER) {
            Ok(metadata) => metadata,
            Err(error) if error.rdkafka_error_code() == Some(UNKNOWN_TOPIC) => {
                return Ok(Vec::new());
            }
            Err(error) => {
                let brokers = &self.topic.brokers;
                // What went wrong with the connection is an event, which only a poll delivers.
                let _none = consumer.poll(Duration::ZERO);
                let why = consumer
                    .context()
                    .seen
                    .lock()
                    .trouble
                    .take()
                    .unwrap_or_else(|| error.to_string());
                return Err(Ended::Waiting(format!("broker {brokers} is away: {why}")));
            }
        };
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let partitions = found.iter().flat_map(|found| found.partitions());
        Ok(partitions.map(|partition| partition.id()).collect())
    }

    /// Returns the offset each partition is read from, after a check against the broker's log.
    fn starts(&self, consumer: &Client, partitions: &[i32]) -> Result<BTreeMap<i32, i64>, Ended> {
        let stored = self.store.source_offsets(self.committer.stream());
        let stored = stored.map_err(|error| Ended::Held(error.to_string()))?;
        let mut starts = BTreeMap::new();
        for partition in partitions {
            let (low, high) = consumer
                .fetch_watermarks(&self.topic.topic, *partition, ANSWER)
                .map_err(|error| Ended::Waiting(format!("partition {partition}: {error}")))?;
            let next = stored
                .iter()
                .find(|(topic, of, _)| *topic == self.topic.topic && of == partition)
                .map(|(.., next)| *next);
            if let Some(next) = next {
                if next < low {
                    return Err(Ended::Held(format!(
                        "log truncated below the stored offset: partition {partition} of \
                         \"{}\" begins at {low}, the next offset to read is {next}",
                        self.topic.topic
                    )));
                }
                if next > high {
                    return Err(Ended::Held(format!(
                        "log ends before the stored offset: partition {partition} of \"{}\" \
                         ends at {high}, the next offset to read is {next}; was the topic made \
                         anew?",
                        self.topic.topic
                    )));
                }
            }
            self.board.ends(*partition, high);
            self.board.reached(*partition, next.unwrap_or(low));
            starts.insert(*partition, next.unwrap_or(low));
        }
        Ok(starts)
    }

    fn read(&self, plan: &StreamPlan, consumer: &Client, starts: BTreeMap<i32, i64>) -> Ended {
        let mut assignment = TopicPartitionList::with_capacity(starts.len());
        for (partition, offset) in &starts {
            let at = Offset::Offset(*offset);
            if let Err(error) = assignment.add_partition_offset(&self.topic.topic, *partition, at) {
                return Ended::Waiting(error.to_string());
            }
        }
        if let Err(error) = consumer.assign(&assignment) {
            return Ended::Waiting(error.to_string());
        }
        let (sender, receiver) = sync_channel(1);
        let (committer, board) = (Arc::clone(&self.committer), Arc::clone(&self.board));
        let pipeline = match pipeline::spawn(committer, receiver, board) {
            Ok(pipeline) => pipeline,
            Err(error) => return Ended::Waiting(format!("no thread: {error}")),
        };
        self.board.set(State::Running, None);
        tracing::info!(
            stream = self.committer.stream(),
            topic = self.topic.topic,
            partitions = starts.len(),
            "stream is running"
        );
        let mut session = Session::new(self, plan, consumer, starts, sender);
        let ended = session.run(&pipeline);
        drop(session);
        match (pipeline::join(pipeline), ended) {
            (Ok(()), ended) => ended,
            (Err(_), Ended::Stopped) => Ended::Stopped,
            (Err(Error::NoMapping { .. } | Error::UnknownStream { .. }), _) => Ended::Changed,
            (Err(error @ Error::Statement(_)), _) => Ended::Held(error.to_string()),
            (Err(error), _) => Ended::Waiting(error.to_string()),
        }
    }
}

const UNKNOWN_TOPIC: RDKafkaErrorCode = RDKafkaErrorCode::UnknownTopicOrPartition;

/// One stretch of reading, from an assignment to the reason for its end.
struct Session<'a> {
    worker: &'a Worker,
    consumer: &'a Client,
    clock: Arc<dyn Clock>,
    sender: SyncSender<Work>,
    work: Work,
    /// The offset expected next of each partition.
    next: BTreeMap<i32, i64>,
    record_bytes_max: usize,
    wants_headers: bool,
    headers: Vec<u8>,
    got_record: bool,
    last_record: Instant,
    last_upkeep: Instant,
    last_metadata: Instant,
}

impl<'a> Session<'a> {
    fn new(
        worker: &'a Worker,
        plan: &StreamPlan,
        consumer: &'a Client,
        next: BTreeMap<i32, i64>,
        sender: SyncSender<Work>,
    ) -> Self {
        let clock = Arc::clone(worker.store.clock());
        let now = clock.monotonic();
        Self {
            worker,
            consumer,
            clock,
            sender,
            work: Work::default(),
            next,
            record_bytes_max: plan.record_bytes_max,
            wants_headers: plan.wants_headers(),
            headers: Vec::new(),
            got_record: false,
            last_record: now,
            last_upkeep: now,
            last_metadata: now,
        }
    }

    /// Reads until there is a reason to stop; the pipeline's end is one.
    fn run(&mut self, pipeline: &JoinHandle<crate::Result<()>>) -> Ended {
        let mut since_upkeep = 0;
        let mut busy = false;
        loop {
            let wait = match (self.work.records.is_empty(), busy) {
                (true, _) => POLL,
                (false, true) => POLL_BUSY,
                (false, false) => Duration::ZERO,
            };
            let polled = self.consumer.poll(wait);
            let idle = polled.is_none();
            match polled {
                Some(Ok(message)) => {
                    self.push(&message);
                    since_upkeep += 1;
                }
                Some(Err(error)) => {
                    if let Some(ended) = self.fault(&error) {
                        return ended;
                    }
                }
                None => {}
            }
            let full = self.work.records.is_full(&self.worker.limits);
            if full || (idle && !self.work.records.is_empty()) {
                match self.hand_over(full) {
                    Some(taken) => busy = !taken,
                    None => return Ended::Changed,
                }
            }
            if idle || full || since_upkeep >= UPKEEP_RECORDS {
                since_upkeep = 0;
                if pipeline.is_finished() {
                    return Ended::Changed;
                }
                if let Some(ended) = self.upkeep() {
                    return ended;
                }
            }
        }
    }

    fn seen(&self) -> &Mutex<Seen> {
        &self.consumer.context().seen
    }

    /// Gives what is at hand to the pipeline; waits for it only where `wait`. False where it is
    /// not ready, nothing where it has ended.
    fn hand_over(&mut self, wait: bool) -> Option<bool> {
        let work = std::mem::take(&mut self.work);
        let sent = if wait {
            self.sender.send(work).map_err(|error| TrySendError::Disconnected(error.0))
        } else {
            self.sender.try_send(work)
        };
        match sent {
            Ok(()) => Some(true),
            Err(TrySendError::Full(work)) => {
                self.work = work;
                Some(false)
            }
            Err(TrySendError::Disconnected(_)) => None,
        }
    }

    fn push(&mut self, message: &BorrowedMessage<'_>) {
        let (partition, offset) = (message.partition(), message.offset());
        let expected = self.next.entry(partition).or_insert(offset);
        if offset < *expected {
            self.worker.counters.add(&Tally { records: 1, passed: 1, ..Tally::default() });
            return;
        }
        *expected = offset + 1;
        self.got_record = true;
        let value = message.payload();
        let headers = self.wants_headers && write_headers(message, &mut self.headers);
        let record = Record {
            key: message.key(),
            value,
            headers: headers.then_some(self.headers.as_slice()),
            timestamp: message.timestamp().to_millis().and_then(|ms| ms.checked_mul(1_000)),
            place: Some((partition, offset)),
            size: value.map_or(0, <[u8]>::len),
            truncated: false,
        };
        self.work.records.push(&record, self.record_bytes_max);
    }

    /// Returns how the session ends over a fault of the client, if it does.
    fn fault(&self, error: &KafkaError) -> Option<Ended> {
        let code = match error {
            KafkaError::PartitionEOF(_) => return None,
            KafkaError::MessageConsumption(code) | KafkaError::Global(code) => *code,
            KafkaError::MessageConsumptionFatal(_) => {
                return Some(Ended::Waiting(format!("Kafka client: {error}")));
            }
            _ => error.rdkafka_error_code()?,
        };
        match code {
            RDKafkaErrorCode::PartitionEOF => None,
            // The next session's check of the log's ends names the trouble.
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
                Some(Ended::Waiting("the stored offset lies outside the topic's log".to_owned()))
            }
            UNKNOWN_TOPIC | RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownPartition => {
                Some(self.worker.no_topic())
            }
            RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SaslAuthenticationFailed => {
                Some(Ended::Waiting(format!("broker refused: {error}")))
            }
            RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::Resolve => {
                let why = self.seen().lock().trouble.clone().unwrap_or_else(|| error.to_string());
                let brokers = &self.worker.topic.brokers;
                self.worker.tell(State::Waiting, format!("broker {brokers} is away: {why}"));
                self.seen().lock().is_up = false;
                None
            }
            _ => {
                tracing::warn!(stream = self.worker.committer.stream(), %error, "Kafka client");
                None
            }
        }
    }

    fn upkeep(&mut self) -> Option<Ended> {
        let now = self.clock.monotonic();
        if self.worker.stop.is_set() {
            return Some(Ended::Stopped);
        }
        if now - self.last_upkeep < UPKEEP {
            return None;
        }
        self.last_upkeep = now;
        if std::mem::take(&mut self.got_record) {
            self.last_record = now;
        }
        if let Some(ended) = self.take_up_plan() {
            return Some(ended);
        }
        self.pass_markers();
        let is_up = self.seen().lock().is_up;
        if is_up && self.worker.board.state() == State::Waiting {
            self.worker.board.set(State::Running, None);
            tracing::info!(stream = self.worker.committer.stream(), "broker is back");
        }
        if is_up && now - self.last_metadata >= NEW_PARTITIONS {
            self.last_metadata = now;
            match self.worker.partitions(self.consumer) {
                Ok(partitions) if partitions.is_empty() => {
                    return Some(self.worker.no_topic());
                }
                Ok(partitions) if partitions.iter().any(|id| !self.next.contains_key(id)) => {
                    return Some(Ended::Changed);
                }
                // A broker that is away tells so by itself.
                _ => {}
            }
        }
        self.stalled(now)
    }

    /// Follows changes of the definitions; ends the session where nothing can be mapped now.
    fn take_up_plan(&mut self) -> Option<Ended> {
        match self.worker.committer.plan() {
            Ok(plan) if plan.is_idle() => Some(Ended::Changed),
            Ok(plan) => {
                self.record_bytes_max = plan.record_bytes_max;
                self.wants_headers = plan.wants_headers();
                None
            }
            Err(Error::UnknownStream { .. }) => Some(Ended::Changed),
            Err(error) => Some(Ended::Held(error.to_string())),
        }
    }

    /// Notes partitions whose end was reached over offsets that held no record.
    fn pass_markers(&mut self) {
        let ends = self.seen().lock().ends.clone();
        for (partition, end) in ends {
            let Some(next) = self.next.get_mut(&partition) else { continue };
            if end > *next {
                *next = end;
                self.work.reached.push((partition, end));
            }
        }
        if !self.work.reached.is_empty() && self.work.records.is_empty() {
            let _taken = self.hand_over(false);
        }
    }

    /// Makes a new client where records are outstanding but none has come for long.
    fn stalled(&mut self, now: Instant) -> Option<Ended> {
        if now - self.last_record < STALLED {
            return None;
        }
        self.last_record = now;
        if !self.seen().lock().is_up {
            return None;
        }
        let watermarks = Watermarks::of(self.consumer, &self.worker.topic.topic, self.next.keys());
        let behind = watermarks
            .iter()
            .find(|(partition, high)| self.next.get(partition).is_some_and(|next| next < high));
        let (partition, high) = behind?;
        Some(Ended::Waiting(format!(
            "nothing came from partition {partition} for {} s although it goes on to {high}; \
             made a new client",
            STALLED.as_secs()
        )))
    }
}

/// Writes a message's headers as a JSON object; false where it has none.
fn write_headers(message: &BorrowedMessage<'_>, into: &mut Vec<u8>) -> bool {
    let Some(headers) = message.headers() else { return false };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let object: serde_json::Map<String, serde_json::Value> = headers
        .iter()
        .map(|header| (header.key.to_owned(), header.value.map(text).into()))
        .collect();
    into.clear();
    serde_json::to_writer(into, &object).is_ok()
}

type Client = BaseConsumer<Context>;

/// Builds the client of a stream.
///
/// # Errors
/// Where the client refuses a setting.
fn client(topic: &KafkaTopic, stream: &str) -> Result<Client, KafkaError> {
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
    config.set_log_level(RDKafkaLogLevel::Warning);
    config.create_with_context(Context::default())
}

/// What the client told about itself, from its own threads.
#[derive(Debug)]
struct Seen {
    /// The last thing that went wrong with a connection.
    trouble: Option<String>,
    /// Some broker is connected.
    is_up: bool,
    /// The end of each partition that was reached while nothing was queued.
    ends: BTreeMap<i32, i64>,
}

struct Context {
    seen: Mutex<Seen>,
}

impl Default for Context {
    fn default() -> Self {
        let seen = Seen { trouble: None, is_up: true, ends: BTreeMap::new() };
        Self { seen: Mutex::new(seen) }
    }
}

impl ClientContext for Context {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
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
    /// Returns the ends of partitions, as many as answer in time.
    pub fn ask(&self, partitions: &[i32]) -> Vec<(i32, i64)> {
        match self.consumer.upgrade() {
            Some(consumer) => Self::of(&consumer, &self.topic, partitions.iter()),
            None => Vec::new(),
        }
    }

    fn of<'p>(
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

#[cfg(test)]
mod tests;
