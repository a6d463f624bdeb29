//! Where the partitions of a topic are read from, and what is kept of that.

use std::collections::BTreeMap;

use everwhen_storage::{
    Batch, LastRecord, Origin, SourceAdvance, SourceFault, SourceLog, SourcePlace, SourceStop,
};
use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};

use super::client::{Client, topic_id};
use super::{ANSWER, Ended, Worker};
use crate::plan::StreamPlan;
use crate::position::{Decision, Known, Log, explain, is_begun, missing};
use crate::reading::StartAt;

/// Where a partition is read from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beginning {
    pub(super) place: SourcePlace,
    /// The last record that was read, where the log should have it still: it is read again first,
    /// and only a log with the same one is gone on with.
    pub(super) check: Option<LastRecord>,
}

impl Beginning {
    /// Returns the offset to read first.
    pub(super) fn first(&self) -> i64 {
        self.check.map_or(self.place.next_offset, |last| last.offset)
    }
}

/// What the partitions of a topic come to.
#[derive(Default)]
struct Found {
    beginnings: BTreeMap<i32, Beginning>,
    /// What is to be kept where all partitions can be read.
    begun: Vec<SourceAdvance>,
    /// What is to be kept where some cannot.
    stops: Vec<SourceAdvance>,
    /// Why the first one cannot.
    reason: Option<String>,
}

impl Worker {
    /// Returns where each partition is read from, after a check against the broker's logs.
    pub(super) fn starts(
        &self,
        plan: &StreamPlan,
        consumer: &Client,
        partitions: &[i32],
    ) -> Result<BTreeMap<i32, Beginning>, Ended> {
        let mut sources = self.sources().map_err(|error| Ended::Held(error.to_string()))?;
        sources.sort_by_key(|source| source.partition);
        let reading = &plan.stream.reading;
        let is_begun = is_begun(reading, &sources);
        let topic_id = topic_id(consumer, partitions.len());
        let mut found = Found::default();
        for partition in partitions {
            let (low, high) = consumer
                .fetch_watermarks(&self.topic.topic, *partition, ANSWER)
                .map_err(|error| Ended::Waiting(format!("partition {partition}: {error}")))?;
            let stored = sources.iter().find(|source| source.partition == *partition);
            let stored = stored
                .map(|source| SourcePlace { next_offset: source.next_offset, log: source.log });
            let log = Log { topic_id, low, high };
            let stored = stored.as_ref();
            let known = Known { reading, partition: *partition, stored, is_begun, log };
            let timed = match known.time() {
                Some(at) => self.offset_at(consumer, *partition, at)?,
                None => None,
            };
            self.board.ends(*partition, high);
            self.note(plan, &known, known.decide(timed), &mut found);
        }
        if found.reason.is_none() {
            found.reason = self.missing(plan, &sources, partitions);
        }
        if let Some(reason) = found.reason {
            self.keep(found.stops)?;
            return Err(Ended::Held(reason));
        }
        self.keep(found.begun)?;
        Ok(found.beginnings)
    }

    /// Says which partition that was read is no longer there: a topic never loses one.
    fn missing(
        &self,
        plan: &StreamPlan,
        sources: &[SourceAdvance],
        partitions: &[i32],
    ) -> Option<String> {
        let gone = sources.iter().find(|source| {
            let generation = plan.stream.reading.start_of(source.partition).generation;
            source.log.generation == generation && !partitions.contains(&source.partition)
        })?;
        Some(missing(self.committer.stream(), &self.topic.topic, gone.partition))
    }

    /// Returns where the topic's partitions stand, in all generations.
    pub(super) fn sources(&self) -> everwhen_storage::Result<Vec<SourceAdvance>> {
        let mut sources = self.store.sources(self.committer.stream())?;
        sources.retain(|source| source.topic == self.topic.topic);
        Ok(sources)
    }

    fn note(&self, plan: &StreamPlan, known: &Known<'_>, decision: Decision, found: &mut Found) {
        let partition = known.partition;
        let (before, reading) = (known.place().copied(), known.reading);
        let start = reading.start_of(partition);
        let last = before.and_then(|place| place.log.last);
        if let Some(place) = before {
            self.board.reached(partition, place.next_offset);
        }
        match decision {
            Decision::Read(next_offset) => {
                let told = before.and_then(|place| place.log.topic_id);
                let topic_id = known.log.topic_id.or(told);
                let log = SourceLog { generation: start.generation, topic_id, last, stop: None };
                let place = SourcePlace { next_offset, log };
                // Without a mapping nothing is taken yet, nor is it when the log loses its start.
                let waits = plan.is_idle() && before.is_none() && start.at == StartAt::Beginning;
                if before != Some(place) && !waits {
                    found.begun.push(self.advance(partition, place));
                }
                let is_there = |last: &LastRecord| {
                    known.log.low <= last.offset && last.offset < next_offset.min(known.log.high)
                };
                self.board.reached(partition, next_offset);
                let check = last.filter(is_there);
                found.beginnings.insert(partition, Beginning { place, check });
                return;
            }
            Decision::Stop(fault) => {
                let is_known = |stop: SourceStop| stop.fault == fault && reading.counts(stop);
                if let Some(place) = before
                    && !place.log.stop.is_some_and(is_known)
                {
                    found.stops.push(self.stop_at(plan, partition, place, fault));
                }
            }
            Decision::StopAsBefore(_) | Decision::Outside(_) => {}
        }
        let (stream, topic) = (self.committer.stream(), &self.topic.topic);
        found.reason.get_or_insert_with(|| explain(stream, topic, known, decision));
    }

    /// Returns what is kept of a partition that is not read on before a statement says so.
    pub(super) fn stop_at(
        &self,
        plan: &StreamPlan,
        partition: i32,
        place: SourcePlace,
        fault: SourceFault,
    ) -> SourceAdvance {
        let stop = Some(SourceStop { fault, found_at: plan.defined_at });
        let log = SourceLog { stop, ..place.log };
        self.advance(partition, SourcePlace { log, ..place })
    }

    fn advance(&self, partition: i32, place: SourcePlace) -> SourceAdvance {
        SourceAdvance {
            stream: self.committer.stream().to_owned(),
            topic: self.topic.topic.clone(),
            partition,
            next_offset: place.next_offset,
            log: place.log,
        }
    }

    /// Makes durable where partitions stand; blocks until it is.
    pub(super) fn keep(&self, sources: Vec<SourceAdvance>) -> Result<(), Ended> {
        if sources.is_empty() {
            return Ok(());
        }
        let origin = Origin::Kafka { stream: self.committer.stream().to_owned() };
        let answer = self.store.submit(Batch { sources, origin, ..Batch::default() });
        let kept = answer.and_then(|answer| {
            answer.blocking_recv().unwrap_or(Err(everwhen_storage::Error::Closed))
        });
        kept.map(drop).map_err(|error| Ended::Waiting(error.to_string()))
    }

    /// Returns the offset of the first record of a time or later; nothing where none is that late.
    fn offset_at(
        &self,
        consumer: &Client,
        partition: i32,
        micros: i64,
    ) -> Result<Option<i64>, Ended> {
        let said = |error: String| Ended::Waiting(format!("partition {partition}: {error}"));
        let millis = micros.div_euclid(1_000) + i64::from(micros.rem_euclid(1_000) > 0);
        let mut asked = TopicPartitionList::new();
        let at = Offset::Offset(millis.max(0));
        asked
            .add_partition_offset(&self.topic.topic, partition, at)
            .map_err(|error| said(error.to_string()))?;
        let answer =
            consumer.offsets_for_times(asked, ANSWER).map_err(|error| said(error.to_string()))?;
        let found = answer.find_partition(&self.topic.topic, partition).map(|one| one.offset());
        match found {
            Some(Offset::Offset(offset)) => Ok(Some(offset)),
            Some(Offset::End) => Ok(None),
            other => Err(said(format!("the broker says {other:?} of a time"))),
        }
    }
}
