//! Records of a Kafka topic: one client and one polling thread a stream.
//!
//! All partitions are assigned at the offsets stored with the data; the broker keeps none for us
//! and no group is joined, so nothing is ever rebalanced. Whatever is away is waited out: a session
//! with the broker ends with a reason, the reason is shown, and after a pause the next one begins.
//! Only this file and those below it name the client library; its known faults and what is done
//! about each:
//!
//! - it may stop delivering while it goes on keeping its connections: [`session`] watches progress
//!   and makes a new client;
//! - its queue grows where the reader is slower than the broker: small queues, and the default
//!   pause of a full queue (1 s) would stall, so it is 5 ms;
//! - it may deliver a record twice after a leader changed: those below the expected offset are
//!   dropped;
//! - it goes on at the same offset where a topic was deleted and made anew: [`topic_id`] and
//!   [`starts`] tell one topic from another, and a stream is held where it is not the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use everwhen_storage::{Definitions, Store};
use rdkafka::consumer::Consumer;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use crate::batch::BatchLimits;
use crate::commit::Committer;
use crate::error::Error;
use crate::metrics::Counters;
use crate::pipeline;
use crate::plan::StreamPlan;
use crate::signal::StopSignal;
use crate::status::{Board, State};
use crate::stream::KafkaTopic;

use client::{Client, client};
use session::Session;
use starts::Beginning;

mod again;
mod client;
mod session;
mod starts;
mod topic_id;

pub use again::Again;
pub use client::Watermarks;

/// How often a stream that nothing reads looks for a mapping.
const MAPPING: Duration = Duration::from_millis(25);
/// How long a broker may take to answer.
const ANSWER: Duration = Duration::from_secs(3);
/// Silence with records outstanding after which the client is made anew.
const STALLED: Duration = Duration::from_secs(30);
/// Pauses between sessions.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(3);

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
            let definitions = self.store.definitions();
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
            if self.pause(pause, &definitions) {
                return;
            }
            pause = (pause * 2).min(PAUSE_MAX);
            self.counters.restarted();
        }
    }

    /// Waits, less long where the definitions are no longer these; true where asked to stop.
    fn pause(&self, at_most: Duration, definitions: &Arc<Definitions>) -> bool {
        let clock = self.store.clock();
        let began = clock.monotonic();
        while !self.stop.wait(MAPPING) {
            let has_changed = !Arc::ptr_eq(definitions, &self.store.definitions());
            if has_changed || clock.monotonic() - began >= at_most {
                return false;
            }
        }
        true
    }

    /// Shows a state and its reason, and logs where it stops running or has to be put right.
    fn tell(&self, state: State, reason: String) {
        let (stream, topic) = (self.committer.stream(), self.topic.topic.as_str());
        let before = self.board.state();
        let is_news = self.board.set(state, Some(reason.clone()));
        if before != state {
            tracing::warn!(stream, topic, ?state, reason, "stream is not running");
        } else if is_news {
            tracing::debug!(stream, topic, ?state, reason, "stream is still not running");
        }
    }

    fn session(&self) -> Ended {
        let plan = match self.committer.plan() {
            Ok(plan) => plan,
            // Dropped: whoever follows the definitions stops this thread, or finds it made again.
            Err(error @ Error::UnknownStream { .. }) => return Ended::Waiting(error.to_string()),
            Err(error) => return Ended::Held(error.to_string()),
        };
        if plan.stream.kafka.as_ref() != Some(&self.topic) {
            // Whoever follows the definitions stops this thread.
            return Ended::Waiting("the stream was replaced".to_owned());
        }
        self.board.begin(&plan.stream.reading);
        if plan.stream.reading.paused {
            return self.rest(&plan);
        }
        let consumer = match client(&self.topic, self.committer.stream()) {
            Ok(consumer) => Arc::new(consumer),
            Err(error) => return Ended::Held(format!("Kafka client: {error}")),
        };
        let partitions = match self.partitions(&consumer) {
            Ok(partitions) if partitions.is_empty() => return self.no_topic(),
            Ok(partitions) => partitions,
            Err(ended) => return ended,
        };
        let starts = match self.starts(&plan, &consumer, &partitions) {
            Ok(starts) => starts,
            Err(ended) => return ended,
        };
        self.board.watch(Some(Watermarks::new(&consumer, &self.topic.topic)));
        let ended = if plan.is_idle() {
            self.board.set(State::NoMapping, None);
            // Records taken before something reads the stream would be lost to it.
            self.await_change(&plan)
        } else {
            self.read(&plan, &consumer, starts)
        };
        self.board.watch(None);
        ended
    }

    /// Shows where a paused stream stands, and waits until it is no longer paused.
    fn rest(&self, plan: &StreamPlan) -> Ended {
        let sources = match self.sources() {
            Ok(sources) => sources,
            Err(error) => return Ended::Held(error.to_string()),
        };
        for source in sources {
            let generation = plan.stream.reading.start_of(source.partition).generation;
            if source.log.generation == generation {
                self.board.reached(source.partition, source.next_offset);
            }
        }
        self.board.set(State::Paused, None);
        self.await_change(plan)
    }

    /// Waits until something begins or ceases to read the stream, or it is to be read otherwise.
    fn await_change(&self, of: &StreamPlan) -> Ended {
        while !self.stop.wait(MAPPING) {
            match self.committer.plan() {
                Ok(plan)
                    if plan.is_idle() == of.is_idle()
                        && plan.stream.reading == of.stream.reading => {}
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

    fn read(
        &self,
        plan: &StreamPlan,
        consumer: &Client,
        starts: BTreeMap<i32, Beginning>,
    ) -> Ended {
        let mut assignment = TopicPartitionList::with_capacity(starts.len());
        for (partition, beginning) in &starts {
            let at = Offset::Offset(beginning.first());
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
        let mut session = Session::new(self, plan, consumer, &starts, sender);
        let ended = session.run(&pipeline);
        drop(session);
        match (pipeline::join(pipeline), ended) {
            (Ok(()), ended) => ended,
            (Err(_), Ended::Stopped) => Ended::Stopped,
            // The session may know a reason of its own.
            (Err(_), ended @ Ended::Held(_)) => ended,
            (
                Err(Error::NoMapping { .. } | Error::UnknownStream { .. } | Error::Moved { .. }),
                _,
            ) => Ended::Changed,
            (Err(error @ Error::Statement(_)), _) => Ended::Held(error.to_string()),
            (Err(error), _) => Ended::Waiting(error.to_string()),
        }
    }
}

const UNKNOWN_TOPIC: RDKafkaErrorCode = RDKafkaErrorCode::UnknownTopicOrPartition;

#[cfg(test)]
mod tests;
