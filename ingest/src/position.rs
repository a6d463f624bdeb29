//! Where a partition is read from: pure, from what is stored of it and what the broker says.

use everwhen_storage::{LastRecord, SourceAdvance, SourceFault, SourcePlace};

use crate::reading::{Reading, StartAt};

/// What the broker says of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// The topic's id; nothing where the broker does not tell it.
    pub topic_id: Option<[u8; 16]>,
    /// The first offset that is there.
    pub low: i64,
    /// The offset after the last one.
    pub high: i64,
}

/// How a partition goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Read from this offset.
    Read(i64),
    /// Read nothing: the log is not, or no longer, what was read.
    Stop(SourceFault),
    /// Read nothing: such a fault was found before, of which nothing shows now.
    StopAsBefore(SourceFault),
    /// Read nothing: the log does not have the offset that it is to begin at.
    Outside(i64),
}

/// What is known of a partition before it is read.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    pub reading: &'a Reading,
    pub partition: i32,
    /// Where it stands, whatever the generation.
    pub stored: Option<&'a SourcePlace>,
    /// Partitions of the stream's generation, or a later one, were begun already.
    pub is_begun: bool,
    pub log: Log,
}

impl<'a> Known<'a> {
    /// Returns where the partition stands in its present generation; nothing before it begins.
    pub fn place(&self) -> Option<&'a SourcePlace> {
        let generation = self.reading.start_of(self.partition).generation;
        self.stored.filter(|place| place.log.generation == generation)
    }

    /// Returns the last record that was read.
    fn last(&self) -> Option<LastRecord> {
        self.place().and_then(|place| place.log.last)
    }

    /// Returns the time that the partition is to begin at, where its offset has to be asked for.
    pub fn time(&self) -> Option<i64> {
        match self.reading.start_of(self.partition).at {
            StartAt::Timestamp(at) if self.begins() => Some(at),
            _ => None,
        }
    }

    /// True where the partition begins as its definition says. One that is added to a topic
    /// whose others are being read has only records that came since, so it is read whole.
    fn begins(&self) -> bool {
        let is_reset_alone = self.reading.partitions.contains_key(&self.partition);
        self.place().is_none() && (is_reset_alone || !self.is_begun)
    }

    /// Decides how the partition goes on; `timed` is the offset at [`Self::time`], nothing where
    /// no record is that late.
    pub fn decide(&self, timed: Option<i64>) -> Decision {
        let Log { low, high, .. } = self.log;
        if let Some(place) = self.place() {
            if let Some(fault) = self.fault(place) {
                return Decision::Stop(fault);
            }
            return match place.log.stop.filter(|stop| self.reading.counts(*stop)) {
                Some(stop) => Decision::StopAsBefore(stop.fault),
                None => Decision::Read(place.next_offset),
            };
        }
        if !self.begins() {
            return Decision::Read(low);
        }
        match self.reading.start_of(self.partition).at {
            StartAt::Beginning => Decision::Read(low),
            StartAt::End => Decision::Read(high),
            StartAt::Timestamp(_) => Decision::Read(timed.unwrap_or(high)),
            StartAt::Offset(offset) if low <= offset && offset <= high => Decision::Read(offset),
            StartAt::Offset(offset) => Decision::Outside(offset),
        }
    }

    /// Returns what the log itself shows to be wrong.
    fn fault(&self, place: &SourcePlace) -> Option<SourceFault> {
        let ids = place.log.topic_id.zip(self.log.topic_id);
        if ids.is_some_and(|(read, now)| read != now) {
            return Some(SourceFault::Remade);
        }
        if place.next_offset < self.log.low {
            return Some(SourceFault::Truncated);
        }
        (place.next_offset > self.log.high).then_some(SourceFault::Shorter)
    }
}

/// True where partitions of a stream's generation, or of a later one, were begun.
pub fn is_begun(reading: &Reading, sources: &[SourceAdvance]) -> bool {
    sources.iter().any(|source| source.log.generation >= reading.start.generation)
}

/// Says why a partition is not read, and which statements go on.
pub fn explain(stream: &str, topic: &str, known: &Known<'_>, decision: Decision) -> String {
    let (partition, Log { low, high, .. }) = (known.partition, known.log);
    let next = known.place().map_or(low, |place| place.next_offset);
    let alter = format!("ALTER STREAM {}", quoted(stream));
    match decision {
        Decision::Read(_) => String::new(),
        Decision::Stop(SourceFault::Remade) => remade(stream, topic),
        Decision::Stop(SourceFault::Truncated) => format!(
            "log truncated below the stored offset: partition {partition} of \"{topic}\" begins at \
             {low}, the next offset to read is {next}; {alter} SKIP goes on at {low} without the \
             records in between"
        ),
        Decision::Stop(SourceFault::Shorter) => format!(
            "log ends before the stored offset: partition {partition} of \"{topic}\" ends at \
             {high}, the next offset to read is {next}; the topic was made anew or has lost \
             records; {alter} RESET TO BEGINNING reads what it has now, RESET TO END only what \
             comes"
        ),
        Decision::StopAsBefore(fault) => {
            let was = match fault {
                SourceFault::Remade => return differs(stream, topic, partition, known.last()),
                SourceFault::Truncated => "was truncated below the stored offset",
                SourceFault::Shorter => "ended before the stored offset",
            };
            format!(
                "partition {partition} of \"{topic}\" {was} when it was last looked at, and shows \
                 nothing of it now; {alter} RESUME goes on at offset {next}, RESET TO elsewhere"
            )
        }
        Decision::Outside(offset) => format!(
            "partition {partition} of \"{topic}\" begins at {low} and ends at {high}: it cannot be \
             read from offset {offset}; {alter} RESET TO OFFSET takes one from {low} to {high}"
        ),
    }
}

/// Says that a topic is another one than that which was read.
fn remade(stream: &str, topic: &str) -> String {
    format!(
        "topic \"{topic}\" was deleted and made anew: it is not the one that was read; ALTER STREAM \
         {} RESET TO BEGINNING reads the new one whole, RESET TO END only what comes",
        quoted(stream)
    )
}

/// Says that a partition that was read is no longer there.
pub fn missing(stream: &str, topic: &str, partition: i32) -> String {
    format!(
        "topic \"{topic}\" no longer has partition {partition}, which was read: it was made anew; \
         ALTER STREAM {} RESET TO BEGINNING reads what it has now, RESET TO END only what comes",
        quoted(stream)
    )
}

/// Says that a log has another record where the last one that was read should be.
pub fn differs(stream: &str, topic: &str, partition: i32, last: Option<LastRecord>) -> String {
    let at = last.map_or_else(String::new, |last| format!(" at offset {}", last.offset));
    format!(
        "partition {partition} of \"{topic}\" has another record{at} than the one that was read: the \
         topic was made anew, or its log was cut back and written again; ALTER STREAM {0} RESET TO \
         BEGINNING reads what it has now, RESET TO END only what comes, RESUME compares again",
        quoted(stream)
    )
}

/// Returns a name as a statement has it.
fn quoted(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.chars().all(is_plain) && !name.starts_with(|c: char| c.is_ascii_digit()) {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests;
