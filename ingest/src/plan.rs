//! A stream ready to run: its decoder and its mappings, compiled from the definitions in force.

use std::collections::BTreeSet;

use everwhen_storage::{
    Batch, DeadLetter, DefinitionKind, Definitions, LastRecord, Origin, SourceAdvance, SourceLog,
    SourcePosition, Tx, TxId,
};

use crate::apply::{Assembly, TenantRule, join_event_hashes};
use crate::batch::Records;
use crate::dead_letter::{Rejection, Source, dead_letter};
use crate::decode::json::JsonDecoder;
use crate::error::{Error, Result};
use crate::mapping::{CompiledMapping, MappingDef};
use crate::metrics::Tally;
use crate::stream::StreamDef;

/// A stream's decoder and mappings under one version of the definitions.
#[derive(Debug)]
pub struct StreamPlan {
    pub name: String,
    pub stream: StreamDef,
    pub mappings: Vec<CompiledMapping>,
    /// The largest value that is processed.
    pub record_bytes_max: usize,
    /// The transaction of the definitions that it was compiled from.
    pub defined_at: TxId,
    decoder: JsonDecoder,
    /// Some mapping names event ids, so a record's assertions may have to be joined.
    has_events: bool,
}

/// What a batch of records comes to.
#[derive(Debug)]
pub struct Prepared {
    pub batch: Batch,
    /// Records turned away, with the reason; each is a dead letter of the batch.
    pub rejected: Vec<(usize, String)>,
    /// The record of each of the batch's transactions.
    pub tx_records: Vec<usize>,
    pub tally: Tally,
}

impl StreamPlan {
    /// Compiles a stream as defined; its own `record_bytes_max` wins over the given one.
    ///
    /// # Errors
    /// [`Error::UnknownStream`], and what a mapping answers that no longer fits its table.
    pub fn compile(definitions: &Definitions, name: &str, record_bytes_max: usize) -> Result<Self> {
        let definition = definitions
            .get(DefinitionKind::Stream, name)
            .ok_or_else(|| Error::UnknownStream { stream: name.to_owned() })?;
        let stream = StreamDef::read(definition)?;
        let defined = MappingDef::all_of(definitions, name)?;
        // Compiled twice: first to see which columns are read, then over those alone.
        let mut wanted = BTreeSet::new();
        for (mapping, def) in &defined {
            let whole = CompiledMapping::compile(definitions, mapping, def, &stream)?;
            wanted.extend(whole.program.inputs().into_iter().map(str::to_owned));
        }
        let record_bytes_max = stream.record_bytes_max.unwrap_or(record_bytes_max);
        let decoder = JsonDecoder::new(&stream, &wanted, record_bytes_max);
        let mut mappings = Vec::new();
        for (mapping, def) in &defined {
            let schema = decoder.schema().clone();
            let over = CompiledMapping::compile_over(definitions, mapping, def, &stream, schema)?;
            mappings.push(over);
        }
        let has_events = mappings.len() > 1
            && mappings.iter().any(|mapping| {
                mapping.columns.iter().any(|column| column.role == crate::mapping::Role::EventId)
            });
        let name = name.to_owned();
        let defined_at = definitions.tx;
        Ok(Self { name, stream, mappings, record_bytes_max, defined_at, decoder, has_events })
    }

    /// Decodes and maps a batch of records to what the writer is given.
    ///
    /// One transaction for each record that asserts something, one dead letter for each that is
    /// turned away; where the records are of a topic, each partition's next offset as well.
    ///
    /// # Errors
    /// [`Error::Moved`] for records that the stream is not to have any more, else only for a fault
    /// of ours: records that cannot be processed become dead letters.
    pub fn prepare(&self, records: &Records, tenants: TenantRule<'_>) -> Result<Prepared> {
        if !self.wants(records) {
            return Err(Error::Moved { stream: self.name.clone() });
        }
        let decoded = self.decoder.decode(records).map_err(everwhen_query::Error::from)?;
        let mut assembly = Assembly::new(records.len());
        for mapping in &self.mappings {
            mapping.apply(&decoded, records, tenants, &mut assembly);
        }
        for (record, rejection) in decoded.rejected {
            assembly.reject(record, rejection);
        }
        let topic = self.stream.kafka.as_ref().map(|kafka| kafka.topic.as_str());
        let mut prepared = Prepared {
            batch: Batch::default(),
            rejected: Vec::new(),
            tx_records: Vec::with_capacity(records.len()),
            tally: Tally { records: records.len(), ..Tally::default() },
        };
        prepared.batch.txs.reserve(records.len());
        let outcomes = assembly.writes.into_iter().zip(assembly.rejected);
        for (index, (mut writes, rejection)) in outcomes.enumerate() {
            let record = records.get(index);
            prepared.tally.bytes += u64::try_from(record.size).unwrap_or(u64::MAX);
            if let Some(rejection) = rejection {
                let topic = topic.filter(|_| record.place.is_some());
                let source = Source { stream: &self.name, topic, tenant: tenants.tenant };
                prepared.reject(index, dead_letter(source, &record, &rejection), rejection);
                continue;
            }
            if writes.is_empty() {
                prepared.tally.unmatched += 1;
                continue;
            }
            if self.has_events && writes.len() > 1 {
                join_event_hashes(&mut writes);
            }
            let position = topic.zip(record.place).map(|(topic, (partition, offset))| {
                SourcePosition { topic: topic.to_owned(), partition, offset }
            });
            prepared.batch.txs.push(Tx { writes, position });
            prepared.tx_records.push(index);
        }
        prepared.batch.sources = self.advances(records);
        prepared.batch.mapped_at = self.defined_at;
        prepared.batch.origin = match topic {
            Some(_) if records.iter().any(|record| record.place.is_some()) => {
                Origin::Kafka { stream: self.name.clone() }
            }
            _ => Origin::Events { stream: self.name.clone() },
        };
        Ok(prepared)
    }

    /// True where the records were read from what the stream reads as it is defined.
    fn wants(&self, records: &Records) -> bool {
        let Some(origin) = records.origin() else { return true };
        let mut logs = origin.logs.iter();
        let reading = &self.stream.reading;
        self.stream.kafka.as_ref() == Some(&origin.topic)
            && !reading.paused
            && logs
                .all(|(partition, log)| reading.start_of(*partition).generation == log.generation)
    }

    /// Returns the next offset of each partition after these records.
    fn advances(&self, records: &Records) -> Vec<SourceAdvance> {
        let Some(kafka) = &self.stream.kafka else { return Vec::new() };
        let advance = |(partition, last): (i32, LastRecord)| SourceAdvance {
            stream: self.name.clone(),
            topic: kafka.topic.clone(),
            partition,
            next_offset: last.offset + 1,
            log: SourceLog { last: Some(last), ..records.log(partition) },
        };
        records.lasts().into_iter().map(advance).collect()
    }

    /// Turns the records' writes into dead letters: what is left when the writer refuses them.
    pub fn refuse(&self, records: &Records, tenants: TenantRule<'_>, reason: &str) -> Prepared {
        let topic = self.stream.kafka.as_ref().map(|kafka| kafka.topic.as_str());
        let mut prepared = Prepared {
            batch: Batch { sources: self.advances(records), ..Batch::default() },
            rejected: Vec::new(),
            tx_records: Vec::new(),
            tally: Tally { records: records.len(), ..Tally::default() },
        };
        for (index, record) in records.iter().enumerate() {
            prepared.tally.bytes += u64::try_from(record.size).unwrap_or(u64::MAX);
            let topic = topic.filter(|_| record.place.is_some());
            let source = Source { stream: &self.name, topic, tenant: tenants.tenant };
            let rejection = Rejection::new(reason);
            prepared.reject(index, dead_letter(source, &record, &rejection), rejection);
        }
        prepared.batch.origin = match topic {
            Some(_) => Origin::Kafka { stream: self.name.clone() },
            None => Origin::Events { stream: self.name.clone() },
        };
        prepared
    }

    /// True where some mapping reads the records' headers.
    pub fn wants_headers(&self) -> bool {
        self.decoder.schema().column_with_name("_headers").is_some()
    }

    /// True where no mapping reads the stream.
    pub fn is_idle(&self) -> bool {
        self.mappings.is_empty()
    }
}

impl Prepared {
    fn reject(&mut self, index: usize, letter: DeadLetter, rejection: Rejection) {
        self.batch.dead_letters.push(letter);
        self.rejected.push((index, rejection.reason));
        self.tally.dead_letters += 1;
    }
}

#[cfg(test)]
mod tests;
