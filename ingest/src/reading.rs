//! Where a stream reads its topic, and whether it does: a part of its definition.
//!
//! Offsets are kept with the data; a definition says only where a partition begins of which none is
//! kept. Each beginning has a generation, a number that only grows, and an offset counts only in
//! the generation that it was read in. So `RESET`, and `DROP` and `CREATE`, need no more than a new
//! definition, and offsets of a topic that was deleted are never taken for those of the next one.

use std::collections::BTreeMap;

use everwhen_query::statements::{AlterStream, NamedPartition, ResetTo, StreamChange};
use everwhen_query::{Error as QueryError, SqlState};
use everwhen_storage::{
    Definition, DefinitionChange, DefinitionKind, Definitions, SourceAdvance, SourceFault,
    SourceStop, TxId,
};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::stream::{StreamDef, unknown_stream};

/// Where a stream reads its topic, and whether it does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reading {
    /// Where partitions begin.
    #[serde(default)]
    pub start: Start,
    /// Where those begin that were reset alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub partitions: BTreeMap<i32, Start>,
    /// Stops that were found under earlier definitions than this transaction's count no more.
    #[serde(default)]
    pub resumed_at: u64,
    #[serde(default)]
    pub paused: bool,
    /// The last `ALTER STREAM`, for the audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub altered: Option<Altered>,
}

/// A beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Start {
    /// 0 in streams that were made before there were generations.
    pub generation: u64,
    pub at: StartAt,
}

/// A place in a partition's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum StartAt {
    #[default]
    Beginning,
    End,
    Offset(i64),
    /// The first record of this time or a later one: microseconds since the Unix epoch.
    Timestamp(i64),
}

/// What an `ALTER STREAM` said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Altered {
    /// Tells two equal statements apart.
    pub number: u64,
    pub text: String,
}

/// Returns a number that no definition was made with before.
fn number(definitions: &Definitions) -> u64 {
    definitions.tx.get() + 1
}

impl Reading {
    /// Returns how a stream reads that is made now: from the beginning.
    pub fn anew(definitions: &Definitions) -> Self {
        let generation = number(definitions);
        let start = Start { generation, at: StartAt::Beginning };
        Self { start, resumed_at: generation, ..Self::default() }
    }

    /// Returns how a stream reads whose definition is replaced: from where it is; another topic,
    /// of which no offsets are kept, from its beginning.
    pub fn replaced(&self, definitions: &Definitions, same_topic: bool) -> Self {
        let mut replaced = Self { resumed_at: number(definitions), altered: None, ..self.clone() };
        if !same_topic {
            replaced.start.at = StartAt::Beginning;
            replaced.partitions.values_mut().for_each(|start| start.at = StartAt::Beginning);
        }
        replaced
    }

    /// True in streams that were made before there were generations, and not changed since.
    pub fn is_as_of_old(&self) -> bool {
        *self == Self::default()
    }

    /// Returns where a partition begins.
    pub fn start_of(&self, partition: i32) -> Start {
        self.partitions.get(&partition).copied().unwrap_or(self.start)
    }

    /// True where a stop has to be ended by a statement yet.
    pub const fn counts(&self, stop: SourceStop) -> bool {
        stop.found_at.get() >= self.resumed_at
    }

    fn changed(
        &self,
        number: u64,
        sources: &[SourceAdvance],
        change: StreamChange,
    ) -> std::result::Result<Option<Self>, QueryError> {
        let mut to = self.clone();
        to.altered = Some(Altered { number, text: text(change) });
        match change {
            StreamChange::Pause if self.paused => return Ok(None),
            StreamChange::Pause => to.paused = true,
            StreamChange::Resume => {
                to.paused = false;
                to.resumed_at = number;
            }
            StreamChange::Skip => {
                let truncated = |source: &&SourceAdvance| {
                    source.log.generation == self.start_of(source.partition).generation
                        && source.log.stop.is_some_and(|stop| {
                            stop.fault == SourceFault::Truncated && self.counts(stop)
                        })
                };
                let start = Start { generation: number, at: StartAt::Beginning };
                let skipped: Vec<i32> =
                    sources.iter().filter(truncated).map(|source| source.partition).collect();
                if skipped.is_empty() {
                    return Err(QueryError::new(
                        SqlState::ObjectNotInState,
                        "the stream has not stopped at a log that was truncated",
                    )
                    .with_hint(
                        "everwhen.streams shows its state; ALTER STREAM .. RESET TO moves it",
                    ));
                }
                to.partitions.extend(skipped.into_iter().map(|partition| (partition, start)));
                to.resumed_at = number;
            }
            StreamChange::Reset { to: place, partition } => {
                let start = Start { generation: number, at: start_at(place) };
                match partition {
                    Some(named) => {
                        check_partition(sources, named)?;
                        to.partitions.insert(named.partition, start);
                    }
                    None => {
                        to.start = start;
                        to.partitions.clear();
                    }
                }
                to.resumed_at = number;
            }
        }
        Ok(Some(to))
    }
}

fn start_at(place: ResetTo) -> StartAt {
    match place {
        ResetTo::Beginning => StartAt::Beginning,
        ResetTo::End => StartAt::End,
        ResetTo::Offset(offset) => StartAt::Offset(offset),
        ResetTo::Timestamp(at) => StartAt::Timestamp(at.micros()),
    }
}

fn text(change: StreamChange) -> String {
    match change {
        StreamChange::Pause => "PAUSE".to_owned(),
        StreamChange::Resume => "RESUME".to_owned(),
        StreamChange::Skip => "SKIP".to_owned(),
        StreamChange::Reset { to, partition } => {
            let to = match to {
                ResetTo::Beginning => "BEGINNING".to_owned(),
                ResetTo::End => "END".to_owned(),
                ResetTo::Offset(offset) => format!("OFFSET {offset}"),
                ResetTo::Timestamp(at) => format!("TIMESTAMP '{at}'"),
            };
            let partition = partition
                .map_or_else(String::new, |named| format!(" PARTITION {}", named.partition));
            format!("RESET TO {to}{partition}")
        }
    }
}

/// Refuses a partition that the topic did not have when it was last read.
fn check_partition(
    sources: &[SourceAdvance],
    named: NamedPartition,
) -> std::result::Result<(), QueryError> {
    let known = |source: &SourceAdvance| source.partition == named.partition;
    if sources.is_empty() || sources.iter().any(known) {
        return Ok(());
    }
    let last = sources.iter().map(|source| source.partition).max().unwrap_or(0);
    let message = format!("the topic has no partition {}", named.partition);
    Err(QueryError::new(SqlState::InvalidParameter, message)
        .at(named.position)
        .with_hint(format!("its partitions are 0 to {last}")))
}

/// Plans `ALTER STREAM`; `sources` is where the stream's partitions stand.
///
/// # Errors
/// 42704 where the stream does not exist, 55000 where it reads no topic or has nothing to skip,
/// 22023 for a partition that the topic does not have.
pub fn plan_alter(
    definitions: &Definitions,
    sources: &[SourceAdvance],
    statement: &AlterStream,
) -> Result<Vec<DefinitionChange>> {
    let name = &statement.name;
    let Some(definition) = definitions.get(DefinitionKind::Stream, name) else {
        if statement.if_exists {
            return Ok(Vec::new());
        }
        return Err(unknown_stream(definitions, name).at(statement.position).into());
    };
    let stream = StreamDef::read(definition)?;
    let Some(kafka) = &stream.kafka else {
        let message = format!("stream \"{name}\" reads no topic");
        return Err(QueryError::new(SqlState::ObjectNotInState, message)
            .at(statement.position)
            .with_hint(
                "its records are posted to /v1/events; CREATE STREAM .. FROM KAFKA reads one",
            )
            .into());
    };
    let of_topic = sources.iter().filter(|source| source.topic == kafka.topic);
    let of_topic: Vec<SourceAdvance> = of_topic.cloned().collect();
    let changed = stream.reading.changed(number(definitions), &of_topic, statement.change)?;
    let Some(reading) = changed else { return Ok(Vec::new()) };
    let body = serde_json::to_value(StreamDef { reading, ..stream })
        .map_err(|error| QueryError::internal(format!("stream to JSON: {error}")))?;
    let (kind, name) = (DefinitionKind::Stream, name.clone());
    Ok(vec![DefinitionChange::Put(Definition { kind, name, body, tx: TxId::ZERO })])
}

#[cfg(test)]
mod tests;
