//! One stretch of reading a topic, from an assignment to the reason for its end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use everwhen_storage::{Clock, LastRecord, SourceFault, SourceLog, SourcePlace};
use parking_lot::Mutex;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::types::RDKafkaErrorCode;

use super::client::{Client, Seen, Watermarks};
use super::starts::Beginning;
use super::{Ended, STALLED, UNKNOWN_TOPIC, Worker};
use crate::batch::{ReadFrom, Record};
use crate::error::Error;
use crate::metrics::Tally;
use crate::pipeline::{Reached, Work};
use crate::plan::StreamPlan;
use crate::position;
use crate::status::State;

/// How long a poll waits for the first record of a batch.
const POLL: Duration = Duration::from_millis(100);
/// How long a poll waits while a batch is at hand that the pipeline does not take yet.
const POLL_BUSY: Duration = Duration::from_millis(1);
/// How often a session looks up from its records.
const UPKEEP: Duration = Duration::from_millis(250);
/// How often new partitions are looked for.
const NEW_PARTITIONS: Duration = Duration::from_secs(5);
/// Records between two looks at the clock while records keep coming.
const UPKEEP_RECORDS: u32 = 4_096;

/// How far a partition was read.
struct Place {
    /// The offset expected next.
    next: i64,
    /// The last record that was read before the session.
    last: Option<LastRecord>,
    /// The record to be met first, below `next`.
    check: Option<LastRecord>,
}

/// A stretch of reading.
pub(super) struct Session<'a> {
    worker: &'a Worker,
    consumer: &'a Client,
    clock: Arc<dyn Clock>,
    sender: SyncSender<Work>,
    work: Work,
    places: BTreeMap<i32, Place>,
    origin: Arc<ReadFrom>,
    /// The stream as it was defined when the session began.
    plan: &'a StreamPlan,
    /// A partition whose log has another record than the last one that was read.
    differs: Option<i32>,
    record_bytes_max: usize,
    wants_headers: bool,
    headers: Vec<u8>,
    got_record: bool,
    last_record: Instant,
    last_upkeep: Instant,
    last_metadata: Instant,
}

impl<'a> Session<'a> {
    /// Begins at the offsets that are expected next.
    pub(super) fn new(
        worker: &'a Worker,
        plan: &'a StreamPlan,
        consumer: &'a Client,
        beginnings: &BTreeMap<i32, Beginning>,
        sender: SyncSender<Work>,
    ) -> Self {
        let clock = Arc::clone(worker.store.clock());
        let now = clock.monotonic();
        let log = |place: &SourcePlace| SourceLog { last: None, ..place.log };
        let logs = beginnings.iter().map(|(id, at)| (*id, log(&at.place))).collect();
        let origin = Arc::new(ReadFrom { topic: worker.topic.clone(), logs });
        let place = |at: &Beginning| Place {
            next: at.place.next_offset,
            last: at.place.log.last,
            check: at.check,
        };
        Self {
            worker,
            consumer,
            clock,
            sender,
            work: Work::of(&origin),
            places: beginnings.iter().map(|(id, at)| (*id, place(at))).collect(),
            origin,
            plan,
            differs: None,
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
    pub(super) fn run(&mut self, pipeline: &JoinHandle<crate::Result<()>>) -> Ended {
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
                    if let Some(partition) = self.differs {
                        return self.hold(partition);
                    }
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

    /// True where the client reads another topic by now. It logs a topic's id before it asks for
    /// records of that topic, and a poll gives log lines and records in their order: what was polled
    /// while this is false is not of another topic.
    fn is_other_topic(&self) -> bool {
        let mut logs = self.origin.logs.values();
        let now = self.seen().lock().topic_id;
        now.is_some() && logs.any(|log| log.topic_id != now)
    }

    /// Keeps that a partition's log is not the one that was read, and ends the session over it.
    fn hold(&self, partition: i32) -> Ended {
        let Some(place) = self.places.get(&partition) else { return Ended::Changed };
        let log = self.origin.logs.get(&partition).copied().unwrap_or_default();
        let log = SourceLog { last: place.last, ..log };
        let place = SourcePlace { next_offset: place.next, log };
        let stop = self.worker.stop_at(self.plan, partition, place, SourceFault::Remade);
        match self.worker.keep(vec![stop]) {
            Ok(()) => {
                let (stream, topic) = (self.worker.committer.stream(), &self.worker.topic.topic);
                Ended::Held(position::differs(stream, topic, partition, place.log.last))
            }
            Err(ended) => ended,
        }
    }

    /// Gives what is at hand to the pipeline; waits for it only where `wait`. False where it is
    /// not ready, nothing where it has ended or the work is of another topic.
    fn hand_over(&mut self, wait: bool) -> Option<bool> {
        if self.is_other_topic() {
            return None;
        }
        let work = std::mem::replace(&mut self.work, Work::of(&self.origin));
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
        // A partition that was not there when the session began is taken up by the next one.
        let Some(place) = self.places.get_mut(&partition) else { return };
        if offset < place.next {
            match place.check.take() {
                Some(last) if last.offset == offset => {
                    let hash = record_of(message, None).hash();
                    self.differs = (hash != last.hash).then_some(partition);
                }
                _ => {
                    let passed = Tally { records: 1, passed: 1, ..Tally::default() };
                    self.worker.counters.add(&passed);
                }
            }
            return;
        }
        place.next = offset + 1;
        self.got_record = true;
        let headers = self.wants_headers && write_headers(message, &mut self.headers);
        let record = record_of(message, headers.then_some(&self.headers));
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
            RDKafkaErrorCode::AutoOffsetReset
            | RDKafkaErrorCode::OffsetOutOfRange
            | RDKafkaErrorCode::LogTruncation => {
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
            RDKafkaErrorCode::AllBrokersDown => {
                let why = self.seen().lock().trouble.clone().unwrap_or_else(|| error.to_string());
                let brokers = &self.worker.topic.brokers;
                self.worker.tell(State::Waiting, format!("broker {brokers} is away: {why}"));
                self.seen().lock().is_up = false;
                None
            }
            // One broker of several may be away without harm.
            RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::Resolve => None,
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
        if self.is_other_topic() {
            return Some(Ended::Changed);
        }
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
                Ok(partitions) if partitions.iter().any(|id| !self.places.contains_key(id)) => {
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
            Ok(plan) if plan.is_idle() || plan.stream.reading != self.plan.stream.reading => {
                Some(Ended::Changed)
            }
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
            let Some(place) = self.places.get_mut(&partition) else { continue };
            if end > place.next {
                place.next = end;
                let log = self.origin.logs.get(&partition).copied().unwrap_or_default();
                let log = SourceLog { last: place.last, ..log };
                self.work.reached.push(Reached { partition, next_offset: end, log });
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
        let watermarks =
            Watermarks::of(self.consumer, &self.worker.topic.topic, self.places.keys());
        let behind = watermarks
            .iter()
            .find(|(id, high)| self.places.get(id).is_some_and(|place| place.next < *high));
        let (partition, high) = behind?;
        Some(Ended::Waiting(format!(
            "nothing came from partition {partition} for {} s although it goes on to {high}; \
             made a new client",
            STALLED.as_secs()
        )))
    }
}

/// Returns a message as a record, whole.
pub(super) fn record_of<'m>(
    message: &'m BorrowedMessage<'_>,
    headers: Option<&'m Vec<u8>>,
) -> Record<'m> {
    let value = message.payload();
    Record {
        key: message.key(),
        value,
        headers: headers.map(Vec::as_slice),
        timestamp: message.timestamp().to_millis().and_then(|ms| ms.checked_mul(1_000)),
        place: Some((message.partition(), message.offset())),
        size: value.map_or(0, <[u8]>::len),
        truncated: false,
    }
}

/// Writes a message's headers as a JSON object; false where it has none.
pub(super) fn write_headers(message: &BorrowedMessage<'_>, into: &mut Vec<u8>) -> bool {
    let Some(headers) = message.headers() else { return false };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let object: serde_json::Map<String, serde_json::Value> = headers
        .iter()
        .map(|header| (header.key.to_owned(), header.value.map(text).into()))
        .collect();
    into.clear();
    serde_json::to_writer(into, &object).is_ok()
}
