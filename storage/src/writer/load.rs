//! A load in the writer's turn: from rows to files, key by key, by the fold of every other write.

use std::collections::BTreeSet;
use std::path::Path;

use rocksdb::Options;

use crate::batch::{Committed, Origin, Write, WriteKind};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::families::{self, Family};
use crate::journal::{self, JournalEntry, ReplayDetail};
use crate::key;
use crate::load::files::Files;
use crate::load::{self, Intent, Job, Load, LoadProgress, LoadRow};
use crate::schema::{TableId, Tenant};
use crate::sizes;
use crate::sort::{Merge, Sorter};
use crate::time::SystemTime;
use crate::tx::TxId;

use super::Writer;
use super::group::Group;
use super::key_state::KeyState;
use super::resolve::{KeyOp, Resolving};

/// Transactions of one journal entry at most.
const ENTRY_TXS_MAX: u64 = 1_000;
/// Rows between two words about how far the load has come.
const PROGRESS_EVERY: u64 = 100_000;
/// Rows that are folded before what follows from them is handed on.
const FOLD_ROWS: usize = 8_192;

/// Families whose keys begin as rows do: what follows from keys in order is in order too.
const BY_ROW: [Family; 4] =
    [Family::Current, Family::Timeline, Family::Archive, Family::Assertions];

/// Everything prepared of a load.
struct Prepared {
    files: Vec<(Family, Vec<std::path::PathBuf>)>,
    tenants: BTreeSet<Tenant>,
    /// Entries of [`sizes`].
    sizes: Vec<(Vec<u8>, u64)>,
    last_tx: TxId,
    last_time: SystemTime,
}

impl Writer {
    /// Loads a history into an empty table.
    pub(super) fn load(&mut self, job: Job) -> Result<Committed> {
        self.engine.keeper().check()?;
        let engine = std::sync::Arc::clone(&self.engine);
        let definitions = self.state.definitions();
        let table = job.load.table;
        self.tables.get(table)?;
        load::check_empty(&engine, &definitions, table, self.tenants.iter())?;
        let directory = load::work_directory(&engine)?;
        let done = self.prepare(job, &directory).and_then(|prepared| {
            if prepared.last_tx == self.last_tx {
                return Ok(());
            }
            let of_table = definitions.indexes.values().filter(|index| index.table == table);
            let intent = Intent {
                table,
                indexes: of_table.map(|index| index.id).collect(),
                tenants: prepared.tenants.iter().map(ToString::to_string).collect(),
                after: self.last_tx,
            };
            // Snapshots may hold it from here on.
            self.state.announce(prepared.last_tx);
            load::publish(&engine, &intent, &prepared.files, &prepared.sizes)?;
            self.sizes.forget();
            (self.last_tx, self.last_time) = (prepared.last_tx, prepared.last_time);
            let new: BTreeSet<Tenant> =
                prepared.tenants.difference(&self.tenants).cloned().collect();
            self.tenants.extend(new.iter().cloned());
            self.state.publish(self.last_tx, self.last_time, None, new);
            Ok(())
        });
        load::remove(&directory)?;
        done?;
        let (last_tx, system_time) = (self.last_tx, self.last_time);
        Ok(Committed { outcomes: Vec::new(), last_tx, system_time })
    }

    /// Reads, sorts and folds all rows into files.
    fn prepare(&self, job: Job, directory: &Path) -> Result<Prepared> {
        let Job { load: Load { table, sort_bytes_max, mut progress }, rows } = job;
        let options: Vec<(Family, Options)> = Family::ALL
            .into_iter()
            .map(|family| (family, families::file_options(family)))
            .collect();
        let files = |family: Family| {
            let of_family = options.iter().find(|(of, _)| *of == family);
            of_family.map(|(_, options)| Files::new(family, options, directory))
        };
        let mut read = Reading {
            writer: self,
            table,
            sorter: Sorter::new(directory, sort_bytes_max),
            journal: files(Family::Transactions),
            entry: None,
            operations: Vec::new(),
            last: (self.last_tx, self.last_time),
            given: self.last_time,
            clock: SystemTime::from_micros(self.state.clock().now_micros()),
            now: self.next_time(),
            tenants: BTreeSet::new(),
            rows: 0,
        };
        for row in rows {
            read.row(row?)?;
            if read.rows.is_multiple_of(PROGRESS_EVERY) {
                progress(LoadProgress::Read(read.rows));
            }
        }
        read.close_entry()?;
        let Reading { sorter, journal, last, tenants, rows, .. } = read;
        let mut done = Vec::new();
        if let Some(journal) = journal {
            done.push(journal.finish()?);
        }
        let elsewhere = [Family::Changes, Family::Boundaries, Family::Indexes];
        let mut folding = Folding {
            by_row: BY_ROW.into_iter().filter_map(files).collect(),
            elsewhere: elsewhere.map(|family| (family, Sorter::new(directory, sort_bytes_max / 4))),
            firsts: Sorter::new(directory, sort_bytes_max / 4),
        };
        folding.all(self, sorter.finish()?, rows, &mut *progress)?;
        for files in folding.by_row {
            done.push(files.finish()?);
        }
        for (family, sorter) in folding.elsewhere {
            let Some(mut files) = files(family) else { continue };
            let mut merge = sorter.finish()?;
            while let Some((key, value)) = merge.next_entry()? {
                files.add(key, Some(value))?;
            }
            done.push(files.finish()?);
        }
        progress(LoadProgress::Publishing);
        let sizes = counted(&self.engine, folding.firsts.finish()?)?;
        let (last_tx, last_time) = last;
        Ok(Prepared { files: done, tenants, sizes, last_tx, last_time })
    }
}

/// The first pass: transactions and times in the order of the rows, the journal, and the sort.
struct Reading<'w, 'o> {
    writer: &'w Writer,
    table: TableId,
    sorter: Sorter,
    journal: Option<Files<'o>>,
    entry: Option<JournalEntry>,
    /// The encoded transactions of the entry.
    operations: Vec<u8>,
    last: (TxId, SystemTime),
    /// The system time given with the last row, at first that of the last transaction.
    given: SystemTime,
    clock: SystemTime,
    /// For rows that give none.
    now: SystemTime,
    tenants: BTreeSet<Tenant>,
    rows: u64,
}

impl Reading<'_, '_> {
    fn row(&mut self, row: LoadRow) -> Result<()> {
        self.rows += 1;
        let number = self.rows;
        let numbered = |error: Error| {
            let reason = match error {
                Error::Refused { reason } => reason,
                error @ Error::EmptyPeriod { .. } => error.to_string(),
                other => return other,
            };
            Error::Refused { reason: format!("row {number}: {reason}") }
        };
        let system_time = self.time_of(row.system_time).map_err(numbered)?;
        let LoadRow { tenant, key, assertion, .. } = row;
        let mut sort_key = key::row_prefix(&tenant, self.table, &key);
        let kind = WriteKind::Assert { key, assertion, event: None };
        if !self.tenants.contains(&tenant) {
            self.tenants.insert(tenant.clone());
        }
        let write = Write { tenant, table: self.table, kind };
        self.writer.tables.get(self.table)?.check(&write, system_time).map_err(numbered)?;
        self.last = (self.last.0.plus(1), system_time);
        sort_key.extend_from_slice(&self.last.0.get().to_be_bytes());
        self.open_entry()?;
        let start = self.operations.len();
        journal::put_operation(&mut self.operations, std::iter::once(&write));
        let mut value = system_time.micros().to_le_bytes().to_vec();
        value.extend_from_slice(&self.operations[start..]);
        self.sorter.add(&sort_key, &value)
    }

    /// Returns a row's own system time: rows recorded at one instant follow each other by a
    /// microsecond, and may so run into the times of those after.
    fn time_of(&mut self, given: Option<SystemTime>) -> Result<SystemTime> {
        let refused = |reason| Err(Error::Refused { reason });
        if let Some(given) = given.filter(|given| *given > self.clock) {
            let clock = self.clock;
            return refused(format!(
                "system time {given} is later than the clock, which says {clock}"
            ));
        }
        let given = given.unwrap_or(self.now);
        if given < self.given {
            let before = if self.rows == 1 { "the last transaction" } else { "the row before" };
            return refused(format!(
                "system time {given} lies before that of {before}, {}",
                self.given
            ));
        }
        self.given = given;
        Ok(match self.last {
            (TxId::ZERO, _) => given,
            (_, last) => given.max(last.saturating_add(1)),
        })
    }

    /// Sees that the entry that is open takes the last transaction, as it follows in time, or opens
    /// the next one.
    fn open_entry(&mut self) -> Result<()> {
        let (first_tx, system_time) = self.last;
        if let Some(entry) = &mut self.entry
            && entry.count < ENTRY_TXS_MAX
            && entry.system_time_of(first_tx) == system_time
        {
            entry.count += 1;
            return Ok(());
        }
        self.close_entry()?;
        let (origin, positions) = (Origin::Import, Vec::new());
        let entry =
            JournalEntry { first_tx, count: 1, system_time, origin, positions, replay: None };
        self.entry = Some(entry);
        Ok(())
    }

    fn close_entry(&mut self) -> Result<()> {
        let Some(entry) = self.entry.take() else { return Ok(()) };
        let detail = ReplayDetail {
            last_dead_letter: self.writer.last_dead_letter,
            ..ReplayDetail::default()
        };
        let mut value = Vec::with_capacity(self.operations.len() + 32);
        entry.put(&detail, (entry.count, &self.operations), &mut value);
        self.operations.clear();
        match &mut self.journal {
            Some(files) => files.add(&key::number(entry.first_tx.get()), Some(&value)),
            None => Ok(()),
        }
    }
}

/// The second pass: key by key.
struct Folding<'o> {
    by_row: Vec<Files<'o>>,
    /// Families of another order.
    elsewhere: [(Family, Sorter); 3],
    /// The hash, tenant and table of each key, by the first transaction with an effect on it.
    firsts: Sorter,
}

impl Folding<'_> {
    fn all(
        &mut self,
        writer: &Writer,
        mut rows: Merge,
        count: u64,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<()> {
        let known = &writer.tenants;
        let before = (TxId::ZERO, SystemTime::BEGIN);
        let Writer { engine, tables, erased, sizes, .. } = writer;
        let start = || Group::new(engine, tables, known, erased, sizes, before);
        let mut group = start();
        let mut last_prefix = Vec::new();
        let (mut folded, mut of_group) = (0, 0);
        while let Some((sort_key, value)) = rows.next_entry()? {
            let prefix = key::without_suffix(sort_key, 8)?;
            if prefix != last_prefix {
                if of_group >= FOLD_ROWS {
                    self.take(&mut group)?;
                    group = start();
                    of_group = 0;
                }
                last_prefix = prefix.to_vec();
                let (tenant, table, _) = key::split_row_prefix(prefix)?;
                group.states.push(KeyState::new(tenant, table, prefix.to_vec(), None)?);
            }
            let tx = TxId::new(key::split_number(&sort_key[prefix.len()..])?);
            if group.fold_loaded(tx, value)? {
                let mut first = sizes::hash(prefix).to_le_bytes().to_vec();
                let state = &group.states[group.states.len() - 1];
                first.extend_from_slice(&key::table_prefix(&state.tenant, state.table));
                self.firsts.add(&key::number(tx.get()), &first)?;
            }
            folded += 1;
            of_group += 1;
            if folded % PROGRESS_EVERY == 0 {
                progress(LoadProgress::Folded(folded, count));
            }
        }
        self.take(&mut group)
    }

    fn take(&mut self, group: &mut Group<'_>) -> Result<()> {
        let mut failed = None;
        group.drain(|family, key, value| {
            let taken = match BY_ROW.iter().position(|of| *of == family) {
                Some(at) => self.by_row[at].add(key, value),
                None => self.add_elsewhere(family, key, value),
            };
            if let Err(error) = taken {
                failed.get_or_insert(error);
            }
        });
        failed.map_or(Ok(()), Err)
    }

    fn add_elsewhere(&mut self, family: Family, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let sorter = self.elsewhere.iter_mut().find(|(of, _)| *of == family);
        match (sorter, value) {
            (Some((_, sorter)), Some(value)) => sorter.add(key, value),
            _ => {
                Err(Error::Corrupt { what: "load", why: format!("an entry of {}", family.name()) })
            }
        }
    }
}

impl Group<'_> {
    /// Folds one sorted row into the key that was begun last; true where it is the first with an effect
    /// on it.
    fn fold_loaded(&mut self, tx: TxId, mut value: &[u8]) -> Result<bool> {
        let micros = i64::from_le_bytes(crate::row::take_array(&mut value)?);
        let system_time = SystemTime::from_micros(micros);
        let operation = journal::take_operation(&mut value)?;
        let place = self.states.len() - 1;
        let was_there = self.states[place].dirty;
        for write in operation.writes {
            let WriteKind::Assert { assertion, .. } = &write.kind else { continue };
            let said = Resolving::new(tx, system_time, false).said(assertion);
            let Some(said) = said else { continue };
            let op = KeyOp::Say { said, exact: assertion.exact, event_id: None };
            self.change_key(&[(place, op)], tx, system_time)?;
        }
        Ok(self.states[place].dirty && !was_there)
    }
}

/// Counts keys in the order of their first transactions.
fn counted(engine: &Engine, mut firsts: Merge) -> Result<Vec<(Vec<u8>, u64)>> {
    let mut counting = sizes::Counting::new(engine);
    while let Some((tx, mut first)) = firsts.next_entry()? {
        let tx = TxId::new(key::split_number(tx)?);
        let hash = u64::from_le_bytes(crate::row::take_array(&mut first)?);
        counting.add(first, hash, tx)?;
    }
    Ok(counting.entries)
}
