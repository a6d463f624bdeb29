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
//! - it may deliver a record twice after a leader changed: offsets below the expected one are dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use everwhen_storage::Store;
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

mod again;
mod client;
mod session;

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
        self.board.watch(Some(Watermarks::new(&consumer, &self.topic.topic)));
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
        while !self.stop.wait(MAPPING) {
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

#[cfg(test)]
mod tests;
