//! Records of a topic read a second time, at positions that the journal names.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use everwhen_storage::{Clock, SourcePosition};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::client::{Client, client, topic_id};
use super::session::{record_of, write_headers};
use super::{ANSWER, STALLED};
use crate::batch::Records;
use crate::stream::KafkaTopic;

/// How long a poll waits.
const POLL: Duration = Duration::from_millis(100);

/// Reads one topic's partitions, each forwards by a client of its own: they are read at the pace
/// of the journal, so none may run ahead of the others.
pub struct Again<'a> {
    stream: String,
    topic: KafkaTopic,
    clock: &'a dyn Clock,
    partitions: BTreeMap<i32, Partition>,
    headers: Vec<u8>,
}

struct Partition {
    client: Client,
    topic_id: Option<[u8; 16]>,
    /// The offset of the next record, or after it where some are gone.
    next: i64,
}

impl<'a> Again<'a> {
    /// Reads nothing before the first record is asked for.
    pub fn new(stream: &str, topic: KafkaTopic, clock: &'a dyn Clock) -> Self {
        let stream = stream.to_owned();
        Self { stream, topic, clock, partitions: BTreeMap::new(), headers: Vec::new() }
    }

    /// Returns the topic that is read.
    pub const fn topic(&self) -> &KafkaTopic {
        &self.topic
    }

    /// Adds the record at a position, of the topic with this id where one is given; in each
    /// partition positions only grow.
    ///
    /// # Errors
    /// Why it cannot be had, as text: it is no longer there, not yet there, the topic was made anew,
    /// or the broker is away.
    pub fn read(
        &mut self,
        position: &SourcePosition,
        topic_id: Option<[u8; 16]>,
        with_headers: bool,
        into: &mut Records,
    ) -> Result<(), String> {
        let (id, offset) = (position.partition, position.offset);
        if self.partitions.get(&id).is_none_or(|partition| partition.next > offset) {
            let partition = self.begin(position)?;
            self.partitions.insert(id, partition);
        }
        let Some(partition) = self.partitions.get_mut(&id) else {
            return Err("no partition".to_owned());
        };
        if topic_id.zip(partition.topic_id).is_some_and(|(read, now)| read != now) {
            let topic = &self.topic.topic;
            return Err(format!("topic \"{topic}\" was deleted and made anew since it was read"));
        }
        let mut silent_since: Option<Instant> = None;
        loop {
            match partition.client.poll(POLL) {
                Some(Ok(message)) => {
                    silent_since = None;
                    partition.next = message.offset() + 1;
                    if message.offset() < offset {
                        continue;
                    }
                    if message.offset() > offset {
                        return Err(gone(position));
                    }
                    let headers = with_headers && write_headers(&message, &mut self.headers);
                    into.push(&record_of(&message, headers.then_some(&self.headers)), usize::MAX);
                    return Ok(());
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    // It may tell of an end that was reached before.
                    check_holds(&partition.client, &self.topic, position)?;
                }
                Some(Err(error)) => tracing::debug!(%error, "Kafka client"),
                None => {}
            }
            let now = self.clock.monotonic();
            let since = *silent_since.get_or_insert(now);
            if now - since > STALLED {
                let brokers = &self.topic.brokers;
                return Err(format!("broker {brokers} gave nothing of partition {id} for long"));
            }
        }
    }

    fn begin(&self, position: &SourcePosition) -> Result<Partition, String> {
        let topic = self.topic.topic.as_str();
        let (id, offset) = (position.partition, position.offset);
        let said = |error: KafkaError| format!("broker {}: {error}", self.topic.brokers);
        let client = client(&self.topic, &self.stream).map_err(said)?;
        // With the metadata comes the topic's id.
        let metadata = client.fetch_metadata(Some(topic), ANSWER).map_err(said)?;
        let partitions = metadata.topics().iter().map(|topic| topic.partitions().len()).sum();
        let topic_id = topic_id(&client, partitions);
        check_holds(&client, &self.topic, position)?;
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(topic, id, Offset::Offset(offset)).map_err(said)?;
        client.assign(&assignment).map_err(said)?;
        Ok(Partition { client, topic_id, next: offset })
    }
}

/// Checks that a topic's log has a position within it.
fn check_holds(
    client: &Client,
    topic: &KafkaTopic,
    position: &SourcePosition,
) -> Result<(), String> {
    let (id, offset, name) = (position.partition, position.offset, topic.topic.as_str());
    let (low, high) = client
        .fetch_watermarks(name, id, ANSWER)
        .map_err(|error| format!("broker {}: {error}", topic.brokers))?;
    if low <= offset && offset < high {
        return Ok(());
    }
    Err(format!(
        "partition {id} of topic \"{name}\" begins at {low} and ends at {high}: offset {offset} is \
         not in it"
    ))
}

fn gone(position: &SourcePosition) -> String {
    format!("offset {} of partition {} is gone from the topic", position.offset, position.partition)
}
