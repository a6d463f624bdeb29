//! The form in which the journal leaves its directory: a file of consecutive entries.
//!
//! ```text
//! segment   head | its xxh3-64 8 | frame ..
//! head      "EVERWHEN JOURNAL" | format 1 | incarnation 32 | after tx 8 | its system time 8
//! frame     length of the body 4 | xxh3-64 of kind and body 8 | kind 1 | body
//!  letter 1 | dead letter id 8 | value as in `dead_letters`
//!  entry  2 | first tx 8 | definitions (length varint, JSON; none: 0) | value as in `transactions`
//!  end    3 | last tx 8 | its system time 8 | sources as in an entry of format 2
//!  end    4 | the same with sources as in an entry of format 3
//! ```
//!
//! Integers are little-endian. Dead letters stand before the entry they were durable with; those
//! after the last entry, and how far sources had been read then, come at the end. A segment without
//! an end was cut off.

use std::io::{Read, Write};

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::batch::{DeadLetter, SourceAdvance};
use crate::definitions::DefinitionChange;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::families::Family;
use crate::key;
use crate::meta;
use crate::row;
use crate::time::SystemTime;
use crate::tx::TxId;

use super::{Depth, JournalEntry, has_logs, put_sources, take_sources};

const MAGIC: &[u8; 16] = b"EVERWHEN JOURNAL";
const FORMAT: u8 = 1;
const INCARNATION_BYTES: usize = 32;
const HEAD_BYTES: usize = MAGIC.len() + 1 + INCARNATION_BYTES + 16;
/// Bytes of a head with its hash: what [`SegmentReader::open`] reads.
pub(crate) const HEAD_BYTES_WHOLE: u64 = HEAD_BYTES as u64 + 8;

const LETTER: u8 = 1;
const ENTRY: u8 = 2;
const END: u8 = 3;
const END_WITH_LOGS: u8 = 4;

/// What a segment says of itself before its first entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentHead {
    /// The data directory it is of.
    pub incarnation: String,
    /// The last transaction before its first one, and its system time.
    pub after: (TxId, SystemTime),
}

/// A part of a segment.
#[derive(Debug, Clone, PartialEq)]
pub enum SegmentPart {
    /// A dead letter that was durable with the entry, or the end, that follows.
    Letter(DeadLetter),
    /// A batch, with the definitions that its first transaction made.
    Entry(Box<JournalEntry>, Vec<DefinitionChange>),
    End(SegmentEnd),
}

/// How things stood when the segment was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentEnd {
    /// The last transaction and its system time.
    pub last: (TxId, SystemTime),
    /// How far every source had been read.
    pub sources: Vec<SourceAdvance>,
}

fn io(path: &str, source: std::io::Error) -> Error {
    Error::Io { path: path.to_owned(), source }
}

/// Writes all entries after a transaction, which must be the last of its own, to `out`; answers
/// with the last one. `path` names the place in errors.
///
/// # Errors
/// [`Error::Unreached`], [`Error::Refused`] for a transaction in the middle of an entry.
pub(crate) fn write(
    engine: &Engine,
    after: TxId,
    path: &str,
    out: &mut dyn Write,
) -> Result<SegmentEnd> {
    // One snapshot: the sources at the end are those of the last entry or later records without any.
    let snapshot = engine.db().snapshot();
    let (after_time, mut letter) = start_of(engine, after)?;
    let mut head = MAGIC.to_vec();
    head.push(FORMAT);
    head.extend_from_slice(engine.incarnation().as_bytes());
    head.extend_from_slice(&after.get().to_le_bytes());
    head.extend_from_slice(&after_time.micros().to_le_bytes());
    head.extend_from_slice(&xxh3_64(&head).to_le_bytes());
    out.write_all(&head).map_err(|source| io(path, source))?;

    let mut last = (after, after_time);
    let mut body = Vec::new();
    let mut entries = engine.iterator_in(&snapshot, Family::Transactions);
    entries.seek(key::number(after.plus(1).get()));
    while let Some((stored, value)) = entries.item() {
        let entry = JournalEntry::read(stored, value, Depth::Whole)?;
        if let Some(detail) = &entry.replay {
            letter = letters(&snapshot, engine, (letter, detail.last_dead_letter), path, out)?;
        }
        body.clear();
        body.extend_from_slice(&entry.first_tx.get().to_le_bytes());
        let definitions = meta::stored_definitions(&snapshot, engine, entry.first_tx)?;
        row::put_varint(&mut body, definitions.len() as u64);
        body.extend_from_slice(&definitions);
        body.extend_from_slice(value);
        frame(out, ENTRY, &body).map_err(|source| io(path, source))?;
        last = (entry.last_tx(), entry.system_time_of(entry.last_tx()));
        entries.next();
    }
    entries.status()?;
    letters(&snapshot, engine, (letter, u64::MAX), path, out)?;
    let sources = meta::sources_in(&snapshot, engine)?;
    let sources = super::advances(&sources.into_iter().collect());
    body.clear();
    body.extend_from_slice(&last.0.get().to_le_bytes());
    body.extend_from_slice(&last.1.micros().to_le_bytes());
    let has_logs = has_logs(&sources);
    put_sources(&mut body, &sources, has_logs);
    frame(out, if has_logs { END_WITH_LOGS } else { END }, &body)
        .map_err(|source| io(path, source))?;
    Ok(SegmentEnd { last, sources })
}

/// Returns the system time of the transaction to start after, and the last dead letter before it.
fn start_of(engine: &Engine, after: TxId) -> Result<(SystemTime, u64)> {
    if after == TxId::ZERO {
        return Ok((SystemTime::BEGIN, 0));
    }
    let unreached = || {
        let latest = super::last(engine).ok().flatten().map_or(0, |last| last.last_tx().get());
        Error::Unreached { asked: after.get(), latest }
    };
    let entry = super::entry_at(engine, after, Depth::Whole)?.ok_or_else(unreached)?;
    if entry.last_tx() != after {
        let reason = format!(
            "transaction {after} is in the middle of a batch: the journal parts after {}",
            entry.last_tx()
        );
        return Err(Error::Refused { reason });
    }
    let letter = entry.replay.as_ref().map_or(0, |detail| detail.last_dead_letter);
    Ok((entry.system_time_of(after), letter))
}

/// Writes dead letters after the first id up to the second; answers with the last one known.
fn letters(
    snapshot: &crate::engine::DbSnapshot<'_>,
    engine: &Engine,
    (after, through): (u64, u64),
    path: &str,
    out: &mut dyn Write,
) -> Result<u64> {
    if through <= after {
        return Ok(after);
    }
    let mut stored = engine.iterator_in(snapshot, Family::DeadLetters);
    stored.seek(key::number(after + 1));
    let mut body = Vec::new();
    while let Some((key, value)) = stored.item() {
        let id = key::split_number(key)?;
        if id > through {
            break;
        }
        body.clear();
        body.extend_from_slice(&id.to_le_bytes());
        body.extend_from_slice(value);
        frame(out, LETTER, &body).map_err(|source| io(path, source))?;
        stored.next();
    }
    stored.status()?;
    Ok(through)
}

fn frame(out: &mut dyn Write, kind: u8, body: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(body.len()).map_err(std::io::Error::other)?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(&hash(kind, body).to_le_bytes())?;
    out.write_all(&[kind])?;
    out.write_all(body)
}

fn hash(kind: u8, body: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(&[kind]);
    hasher.update(body);
    hasher.digest()
}

/// Reads a segment part by part.
pub struct SegmentReader<R> {
    input: R,
    path: String,
    head: SegmentHead,
    last: (TxId, SystemTime),
    ended: bool,
}

impl<R: Read> SegmentReader<R> {
    /// Reads the head; `path` names the segment in errors.
    ///
    /// # Errors
    /// [`Error::Segment`] where it is none, or of a format that is not known.
    pub fn open(mut input: R, path: &str) -> Result<Self> {
        let mut head = [0; HEAD_BYTES + 8];
        input.read_exact(&mut head).map_err(|source| short(path, source))?;
        let mut bytes = head.as_slice();
        let wrong = |why: &str| Error::Segment { path: path.to_owned(), why: why.to_owned() };
        if row::take_array::<16>(&mut bytes)? != *MAGIC {
            return Err(wrong("it is no journal segment"));
        }
        let format = row::take_byte(&mut bytes)?;
        if format != FORMAT {
            return Err(wrong(&format!("format {format} is not known")));
        }
        let incarnation: [u8; INCARNATION_BYTES] = row::take_array(&mut bytes)?;
        let incarnation = String::from_utf8(incarnation.to_vec())
            .map_err(|_| wrong("its incarnation is no text"))?;
        let after = take_place(&mut bytes)?;
        if xxh3_64(&head[..HEAD_BYTES]).to_le_bytes() != head[HEAD_BYTES..] {
            return Err(wrong("its head is damaged"));
        }
        let head = SegmentHead { incarnation, after };
        Ok(Self { input, path: path.to_owned(), last: after, head, ended: false })
    }

    /// Returns what stands before the first part.
    pub const fn head(&self) -> &SegmentHead {
        &self.head
    }

    /// Returns the next part; nothing after the end.
    ///
    /// # Errors
    /// [`Error::Segment`] for bytes that are damaged or cut off, with the transaction before them.
    #[expect(clippy::should_implement_trait, reason = "it fails, as an iterator cannot end")]
    pub fn next(&mut self) -> Result<Option<SegmentPart>> {
        if self.ended {
            let mut more = [0];
            return match self.input.read(&mut more) {
                Ok(0) => Ok(None),
                Ok(_) => Err(self.damaged("bytes follow its end")),
                Err(source) => Err(io(&self.path, source)),
            };
        }
        let (kind, body) = self.frame()?;
        let part = take_part(kind, &body).map_err(|error| self.damaged(&error.to_string()))?;
        match &part {
            SegmentPart::Letter(_) => {}
            SegmentPart::Entry(entry, _) => {
                if entry.first_tx != self.last.0.plus(1) {
                    return Err(self.damaged("transactions are missing"));
                }
                self.last = (entry.last_tx(), entry.system_time_of(entry.last_tx()));
            }
            SegmentPart::End(end) => {
                if end.last != self.last {
                    return Err(self.damaged("its end is of another segment"));
                }
                self.ended = true;
            }
        }
        Ok(Some(part))
    }

    fn frame(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut head = [0; 13];
        self.input.read_exact(&mut head).map_err(|source| self.cut_off(source))?;
        let mut bytes = head.as_slice();
        let length = u64::from(u32::from_le_bytes(row::take_array(&mut bytes)?));
        let expected = u64::from_le_bytes(row::take_array(&mut bytes)?);
        let kind = row::take_byte(&mut bytes)?;
        // Grows with what is there: a damaged length must not claim memory.
        let mut body = Vec::new();
        let read = (&mut self.input).take(length).read_to_end(&mut body);
        read.map_err(|source| io(&self.path, source))?;
        if body.len() as u64 != length {
            return Err(self.cut_off(std::io::ErrorKind::UnexpectedEof.into()));
        }
        if hash(kind, &body) != expected {
            return Err(self.damaged("its bytes are not those that were written"));
        }
        Ok((kind, body))
    }

    fn damaged(&self, why: &str) -> Error {
        let why = format!("damaged after transaction {}: {why}", self.last.0);
        Error::Segment { path: self.path.clone(), why }
    }

    fn cut_off(&self, source: std::io::Error) -> Error {
        match source.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                let why = format!("it is cut off after transaction {}", self.last.0);
                Error::Segment { path: self.path.clone(), why }
            }
            _ => io(&self.path, source),
        }
    }
}

fn short(path: &str, source: std::io::Error) -> Error {
    match source.kind() {
        std::io::ErrorKind::UnexpectedEof => {
            Error::Segment { path: path.to_owned(), why: "it is no journal segment".to_owned() }
        }
        _ => io(path, source),
    }
}

fn take_place(bytes: &mut &[u8]) -> Result<(TxId, SystemTime)> {
    let tx = TxId::new(u64::from_le_bytes(row::take_array(bytes)?));
    let at = SystemTime::from_micros(i64::from_le_bytes(row::take_array(bytes)?));
    Ok((tx, at))
}

fn take_part(kind: u8, mut body: &[u8]) -> Result<SegmentPart> {
    let bytes = &mut body;
    match kind {
        LETTER => {
            let id = u64::from_le_bytes(row::take_array(bytes)?);
            let letter = meta::read_dead_letter(bytes)?;
            if letter.id != id {
                return Err(super::damaged("a dead letter of another number"));
            }
            Ok(SegmentPart::Letter(letter))
        }
        ENTRY => {
            let first = u64::from_le_bytes(row::take_array(bytes)?);
            let length = row::take_length(bytes)?;
            let definitions = row::take_slice(bytes, length)?;
            let changes = match definitions {
                [] => Vec::new(),
                json => serde_json::from_slice(json)
                    .map_err(|error| super::damaged(&format!("definitions: {error}")))?,
            };
            let entry = JournalEntry::read(&key::number(first), bytes, Depth::Whole)?;
            Ok(SegmentPart::Entry(Box::new(entry), changes))
        }
        END | END_WITH_LOGS => {
            let last = take_place(bytes)?;
            let sources = take_sources(bytes, kind == END_WITH_LOGS)?;
            Ok(SegmentPart::End(SegmentEnd { last, sources }))
        }
        kind => Err(super::damaged(&format!("a part of unknown kind {kind}"))),
    }
}
