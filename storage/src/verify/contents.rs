//! Decoding every entry, and what must hold between families.

use std::collections::{BTreeMap, BTreeSet};

use super::{Report, families, tell};
use crate::assertions;
use crate::definitions::{DefinitionChange, Definitions};
use crate::engine::{DbIterator, Engine};
use crate::error::{Error, Result};
use crate::event_ids::EventEntry;
use crate::families::Family;
use crate::journal::{Depth, JournalEntry};
use crate::key::{self, ARCHIVE_SUFFIX, ASSERTION_SUFFIX, Fork, TIMELINE_SUFFIX};
use crate::meta;
use crate::row::{ArchiveHeader, ChangeValue, CurrentHeader, DocumentView, TimelineHeader};
use crate::schema::{ColumnType, TableId};
use crate::sizes;
use crate::snapshot::{Progress, Watch};
use crate::source::SourcePlace;
use crate::time::{SystemTime, ValidTime};
use crate::tx::TxId;

/// Entries after which whoever watches is told.
const ENTRIES_PER_STEP: u64 = 65_536;

/// Reads every family; what is wrong goes into the report.
pub(super) fn check(engine: &Engine, report: &mut Report, watch: Watch<'_>) -> Result<()> {
    let mut checker = match Checker::new(engine) {
        Ok(checker) => checker,
        Err(error) => return told(error, "meta", report),
    };
    let mut before = 0;
    for family in families() {
        if !engine.has(family) {
            continue;
        }
        let mut entries = 0;
        let mut iterator = engine.iterator(family);
        iterator.seek_to_first();
        while let Some((key, value)) = iterator.item() {
            entries += 1;
            report.key_bytes += key.len() as u64;
            report.value_bytes += value.len() as u64;
            if let Err(error) = checker.entry(family, key, value) {
                let name = family.name();
                told(error, &format!("{name} {}", shown(key)), report)?;
            }
            if entries % ENTRIES_PER_STEP == 0 {
                tell(watch, &reading(before + entries))?;
            }
            iterator.next();
        }
        if let Err(source) = iterator.status() {
            report.problem(format!("{}: {source}", family.name()));
        }
        before += entries;
        tell(watch, &reading(before))?;
        report.families.push((family.name(), entries));
    }
    report.tx = checker.next_tx - 1;
    Ok(())
}

/// How far it is: entries stand in place of files.
fn reading(entries: u64) -> Progress {
    let doing = "reading entries";
    Progress { doing, files_done: entries, files: entries, bytes_done: 0, bytes: 0 }
}

/// Adds damage to the report; other errors end the work.
fn told(error: Error, place: &str, report: &mut Report) -> Result<()> {
    match error {
        Error::Io { .. } | Error::Closed => Err(error),
        error => {
            report.problem(format!("{place}: {error}"));
            Ok(())
        }
    }
}

/// The first bytes of a key, as hex digits: keys may name people, so no more than a place to look.
fn shown(key: &[u8]) -> String {
    let hex: String = key.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    let more = if key.len() > 12 { ".." } else { "" };
    format!("key {hex}{more}")
}

fn wrong<T>(what: &'static str, why: impl Into<String>) -> Result<T> {
    Err(Error::Corrupt { what, why: why.into() })
}

struct Checker<'e> {
    engine: &'e Engine,
    /// Types of the key columns of every table there ever was.
    keys: BTreeMap<TableId, Vec<ColumnType>>,
    /// Ids of every index there ever was.
    indexes: BTreeSet<u32>,
    /// Over `current`, beside the family that is read.
    current: DbIterator<'e>,
    /// The row prefix that was read last, and what `current` has of it.
    header: Option<(Vec<u8>, CurrentHeader)>,
    /// The last timeline segment read of that prefix ends here.
    segment_end: ValidTime,
    last_tx: TxId,
    /// The journal goes on with this transaction.
    next_tx: u64,
    last_time: Option<SystemTime>,
}

impl<'e> Checker<'e> {
    fn new(engine: &'e Engine) -> Result<Self> {
        let mut keys = BTreeMap::new();
        let mut indexes = BTreeSet::new();
        for definitions in meta::definitions(engine)?.values() {
            note(definitions, &mut keys, &mut indexes);
        }
        let last = crate::journal::last(engine)?;
        Ok(Self {
            engine,
            keys,
            indexes,
            current: engine.iterator(Family::Current),
            header: None,
            segment_end: ValidTime::BEGIN,
            last_tx: last.map_or(TxId::ZERO, |entry| entry.last_tx()),
            next_tx: 1,
            last_time: None,
        })
    }

    fn entry(&mut self, family: Family, key: &[u8], value: &[u8]) -> Result<()> {
        match family {
            Family::Current => self.current(key, value),
            Family::Timeline => self.timeline(key, value),
            Family::Archive => self.archive(key, value),
            Family::Assertions => self.assertion(key, value),
            Family::EventIds => self.event_id(key, value),
            Family::Changes => self.change(key, value),
            Family::Boundaries => self.boundary(key, value),
            Family::Transactions => self.transaction(key, value),
            Family::Indexes => self.index(key),
            Family::Meta => meta_entry(key, value),
            Family::DeadLetters => key::split_number(key).and_then(|_| meta::check_letter(value)),
            // The projector's own.
            Family::Cursors => Ok(()),
        }
    }

    fn current(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.row_key(key)?;
        let (header, document) = CurrentHeader::read(value)?;
        if header.tombstone && !document.is_empty() {
            return wrong("current", "a tombstone with a document");
        }
        self.reached(header.tx_from)?;
        decoded(document)
    }

    fn timeline(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let prefix = key::without_suffix(key, TIMELINE_SUFFIX)?;
        let from = key::timeline_from(key)?;
        let is_new = self.header.as_ref().is_none_or(|(of, _)| of != prefix);
        let of = self.header_of(prefix)?;
        if is_new {
            self.row_key(prefix)?;
            self.segment_end = ValidTime::BEGIN;
        }
        if !of.timeline {
            return wrong("timeline", "a segment of a key that has no timeline");
        }
        let (header, document) = TimelineHeader::read(value)?;
        if from >= header.valid_to {
            return wrong("timeline", "a segment over no time");
        }
        if from < self.segment_end {
            return wrong("timeline", "segments that overlap");
        }
        self.segment_end = header.valid_to;
        if header.valid_to > of.valid_from {
            return wrong("timeline", "a segment that overlaps the open-ended one");
        }
        self.reached(header.tx_from)?;
        decoded(document)
    }

    fn archive(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let prefix = key::without_suffix(key, ARCHIVE_SUFFIX)?;
        let (fork, tx_to) = key::split_archive(key)?;
        let (header, document) = ArchiveHeader::read(value)?;
        if Fork::of(&header.valid) != fork {
            return wrong("archive", "a piece filed under another period's place");
        }
        if header.tx_from >= tx_to {
            return wrong("archive", "a piece superseded before it was recorded");
        }
        self.reached(tx_to)?;
        if !self.header_of(prefix)?.archive.iter().any(|level| level == fork.level) {
            return wrong("archive", "a piece on a level that its key does not name");
        }
        decoded(document)
    }

    fn assertion(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let prefix = key::without_suffix(key, ASSERTION_SUFFIX)?;
        let suffix = &key[prefix.len()..];
        let (class, at) = key::split_assertion_suffix(suffix)?;
        let said = assertions::read(suffix, value)?;
        if key::duration_class(&said.valid) != class {
            return wrong("assertions", "an assertion filed under another class");
        }
        self.reached(at.tx)?;
        let Some(asserted) = self.header_of(prefix)?.asserted else {
            return wrong("assertions", "an assertion on a key that names none");
        };
        if !asserted.classes.iter().any(|known| known == class) {
            return wrong("assertions", "an assertion of a class that its key does not name");
        }
        if (at.valid_from, at.order) > asserted.last {
            return wrong("assertions", "an assertion after the last one that its key names");
        }
        decoded(said.fields.as_bytes())
    }

    fn event_id(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let (tenant, table, _) = key::split_row_prefix(key)?;
        let entry = EventEntry::read(value)?;
        for (row_key, suffix) in &entry.assertions {
            let mut at = key::row_prefix(&tenant, table, row_key);
            at.extend_from_slice(suffix);
            if self.engine.get(Family::Assertions, &at)?.is_none() {
                return wrong("event_ids", "an event id whose assertion is missing");
            }
        }
        Ok(())
    }

    fn change(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let (table, tx, _, row_key) = key::split_change(key)?;
        self.is_key(table, &row_key.0)?;
        self.reached(tx)?;
        let changed = ChangeValue::read(value)?.changed;
        if changed.windows(2).any(|pair| pair[0].to() > pair[1].from()) {
            return wrong("changes", "periods that overlap");
        }
        Ok(())
    }

    fn boundary(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let (table, _, _, row_key) = key::split_boundary(key)?;
        self.is_key(table, &row_key.0)?;
        if value.is_empty() { Ok(()) } else { wrong("boundaries", "an entry with a value") }
    }

    fn transaction(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let entry = JournalEntry::read(key, value, Depth::Whole)?;
        let expected = std::mem::replace(&mut self.next_tx, entry.last_tx().get() + 1);
        let last_time = self.last_time.replace(entry.system_time_of(entry.last_tx()));
        if entry.count == 0 {
            return wrong("journal", "an entry without transactions");
        }
        if entry.first_tx.get() != expected {
            let why = format!("transaction {expected} is missing before {}", entry.first_tx);
            return wrong("journal", why);
        }
        if last_time.is_some_and(|last| last >= entry.system_time) {
            return wrong("journal", "system time that does not grow");
        }
        Ok(())
    }

    fn index(&self, entry: &[u8]) -> Result<()> {
        let id = entry.first_chunk().map(|id| u32::from_be_bytes(*id));
        if id.is_some_and(|id| self.indexes.contains(&id)) {
            return Ok(());
        }
        wrong("indexes", "an entry of no index")
    }

    fn row_key(&self, prefix: &[u8]) -> Result<()> {
        let (_, table, row_key) = key::split_row_prefix(prefix)?;
        self.is_key(table, &row_key.0)
    }

    fn is_key(&self, table: TableId, row_key: &[u8]) -> Result<()> {
        match self.keys.get(&table) {
            None => wrong("key", format!("table {} was never defined", table.0)),
            Some(kinds) if key::is_key_of(row_key, kinds) => Ok(()),
            Some(_) => wrong("key", "not of its table's key types"),
        }
    }

    fn reached(&self, tx: TxId) -> Result<()> {
        if tx <= self.last_tx {
            return Ok(());
        }
        wrong("row", format!("transaction {tx} is later than the last of the journal"))
    }

    /// Returns what `current` has of a key: prefixes come in order, in every family.
    fn header_of(&mut self, prefix: &[u8]) -> Result<CurrentHeader> {
        if let Some((of, header)) = &self.header
            && of == prefix
        {
            return Ok(*header);
        }
        self.header = None;
        self.current.seek(prefix);
        let found = self.current.item().filter(|(key, _)| *key == prefix);
        let header = found.map(|(_, value)| CurrentHeader::read(value)).transpose()?;
        self.current.status()?;
        let Some((header, _)) = header else {
            return wrong("row", "the key is missing in current");
        };
        self.header = Some((prefix.to_vec(), header));
        Ok(header)
    }
}

fn note(
    definitions: &Definitions,
    keys: &mut BTreeMap<TableId, Vec<ColumnType>>,
    indexes: &mut BTreeSet<u32>,
) {
    for table in definitions.tables.values() {
        let kind_of = |id| table.columns.iter().find(|c| c.id == id).map(|c| c.kind.clone());
        keys.insert(table.id, table.key.iter().filter_map(|id| kind_of(*id)).collect());
    }
    indexes.extend(definitions.indexes.keys());
}

fn decoded(document: &[u8]) -> Result<()> {
    DocumentView::read(document)?.row(None).map(drop)
}

fn meta_entry(key: &[u8], value: &[u8]) -> Result<()> {
    if key.starts_with(b"definitions\0") {
        let read: std::result::Result<Vec<DefinitionChange>, _> = serde_json::from_slice(value);
        return read.map(drop).or_else(|error| wrong("meta", error.to_string()));
    }
    if key.starts_with(b"size\0") {
        return sizes::read(value).map(drop);
    }
    if key.starts_with(b"source\0") {
        return SourcePlace::read(value).map(drop);
    }
    let kinds: [&[u8]; 6] =
        [b"tenant\0", b"horizon\0", b"erased\0", b"erasing\0", b"erasure\0", b"filler\0"];
    let single: [&[u8]; 3] = [b"now", b"load", b"erase_secret"];
    if kinds.iter().any(|kind| key.starts_with(kind)) || single.contains(&key) {
        Ok(())
    } else {
        wrong("meta", "an entry of unknown kind")
    }
}
