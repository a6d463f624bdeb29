//! The second phase of erasing: from hidden rows to files without their bytes, step by step.
//!
//! Every step is written to the ledger before the next begins and may be repeated, so a crash at
//! any point resumes it. Deleting what only the past of a key holds (superseded pieces, change
//! records, dead letters) needs no turn of the writer: nothing adds to it. What a new life of the
//! key may share (its entry in `current`, bounds, index entries) is deleted by the writer.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crossbeam_channel::Sender;
use rocksdb::WriteBatch;

use crate::engine::Engine;
use crate::erase::EraseProgress;
use crate::erase::bytes::{self, Range};
use crate::erase::journal::{self, Doom};
use crate::erase::ledger::{self, Entry, Step};
use crate::erase::letters::{self, Wanted};
use crate::error::{Error, Result};
use crate::failpoint;
use crate::families::Family;
use crate::key;
use crate::schema::{ColumnId, ColumnType, TableId, Tenant};
use crate::state::State;
use crate::time::SystemTime;
use crate::tx::TxId;
use crate::writer::{self, Request};

/// Entries deleted by one write.
const DELETES_MAX: usize = 10_000;
/// Beyond this many keys of one table its files are rewritten as one range, not key by key.
const RANGES_MAX: usize = 64;

/// A key whose past is to go, for the writer.
pub(crate) struct Doomed {
    pub(crate) prefix: Vec<u8>,
    pub(crate) table: TableId,
    /// Everything up to this transaction goes.
    pub(crate) tx: TxId,
    /// Entries of `boundaries` and `indexes` that name the key.
    pub(crate) boundaries: Vec<Vec<u8>>,
    pub(crate) indexes: Vec<Vec<u8>>,
}

/// What erasing works with.
pub(crate) struct Tools<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) state: &'a State,
    pub(crate) requests: &'a Sender<Request>,
}

/// Carries erasures on; one call at a time.
#[derive(Default)]
pub(crate) struct Eraser {
    /// Erasures whose dead letters were looked for already while they wait.
    letters_seen: BTreeSet<(TxId, u32)>,
    /// No snapshot from before this may be held when files are rewritten.
    sequence: Option<u64>,
    /// Files that must go before some entries get on.
    leaving: Option<Leaving>,
}

struct Leaving {
    entries: Vec<Entry>,
    files: BTreeSet<String>,
    /// How often they were found to be there still.
    looks: u32,
}

/// Looks after which RocksDB is asked again to delete what nobody uses.
const LOOKS_PER_NUDGE: u32 = 25;

impl Eraser {
    /// Carries on every erasure up to transaction `passed` as far as it goes without waiting.
    pub(crate) fn advance(&mut self, tools: &Tools<'_>, passed: TxId) -> Result<EraseProgress> {
        let mut progress = EraseProgress::default();
        let under_way = ledger::under_way(tools.engine)?;
        if under_way.is_empty() {
            return Ok(progress);
        }
        let is_hidden = |entry: &Entry| entry.step == Step::Hidden;
        let (due, waiting): (Vec<Entry>, Vec<Entry>) =
            under_way.into_iter().filter(is_hidden).partition(|entry| entry.tx <= passed);
        progress.hidden = waiting.len();
        self.letters_of(tools, &waiting)?;
        if !due.is_empty() {
            self.purge(tools, &due)?;
            progress.purged = due.len();
        }
        self.rewrite(tools, &mut progress)?;
        Ok(progress)
    }

    /// Empties the dead letters of keys that wait, once.
    fn letters_of(&mut self, tools: &Tools<'_>, entries: &[Entry]) -> Result<()> {
        let seen = &self.letters_seen;
        let fresh: Vec<&Entry> =
            entries.iter().filter(|entry| !seen.contains(&(entry.tx, entry.ordinal))).collect();
        letters::empty(tools.engine, &wanted(tools, fresh.iter().copied())?)?;
        self.letters_seen.extend(fresh.iter().map(|entry| (entry.tx, entry.ordinal)));
        Ok(())
    }

    /// Deletes all that names the keys or came of them.
    fn purge(&mut self, tools: &Tools<'_>, due: &[Entry]) -> Result<()> {
        failpoint::pass("erase.ledger");
        let engine = tools.engine;
        letters::empty(engine, &wanted(tools, due.iter())?)?;
        let mut deletes = Deletes { engine, writes: WriteBatch::default() };
        let mut keys = Keys::of(due);
        for doomed in keys.doomed.values() {
            delete_pieces(&mut deletes, doomed)?;
        }
        keys.delete_changes(&mut deletes)?;
        deletes.flush()?;
        journal::forget(engine, &keys)?;
        keys.gather_boundaries(engine)?;
        keys.gather_indexes(tools)?;
        writer::ask_purge(tools.requests, keys.doomed.into_values().collect())?;
        let mut writes = WriteBatch::default();
        for entry in due {
            Entry { step: Step::Purged, ..entry.clone() }.put(engine, &mut writes);
            self.letters_seen.remove(&(entry.tx, entry.ordinal));
        }
        engine.write(writes, true)?;
        self.sequence = Some(engine.db().latest_sequence_number());
        failpoint::pass("erase.purged");
        Ok(())
    }

    /// Rewrites files until something must be waited for, or nothing is left to do.
    fn rewrite(&mut self, tools: &Tools<'_>, progress: &mut EraseProgress) -> Result<()> {
        loop {
            if let Some(leaving) = &mut self.leaving {
                if !bytes::are_gone(tools.engine, &leaving.files)? {
                    progress.waiting = leaving.entries.len();
                    leaving.looks += 1;
                    if leaving.looks.is_multiple_of(LOOKS_PER_NUDGE) {
                        bytes::nudge(tools.engine)?;
                    }
                    return Ok(());
                }
                progress.erased += settle(tools, &leaving.entries)?;
                self.leaving = None;
            }
            let entries = ledger::under_way(tools.engine)?;
            let of = |step: Step| entries.iter().filter(move |entry| entry.step == step).cloned();
            let compacted: Vec<Entry> = of(Step::Compacted).collect();
            let purged: Vec<Entry> = of(Step::Purged).collect();
            if !compacted.is_empty() {
                let files = rewrite_ledger(tools.engine)?;
                self.leaving = Some(Leaving { entries: compacted, files, looks: 0 });
            } else if purged.is_empty() {
                return Ok(());
            } else {
                let latest = || tools.engine.db().latest_sequence_number();
                let sequence = *self.sequence.get_or_insert_with(latest);
                if !bytes::is_dropped_by_compaction(tools.engine, sequence)? {
                    progress.waiting = purged.len();
                    return Ok(());
                }
                let mut files = bytes::flush(tools.engine)?;
                files.extend(bytes::compact(tools.engine, &ranges(tools, &purged))?);
                failpoint::pass("erase.compacted");
                self.leaving = Some(Leaving { entries: purged, files, looks: 0 });
            }
        }
    }
}

/// Writes down that the files of some entries are gone; returns how many are done with.
fn settle(tools: &Tools<'_>, entries: &[Entry]) -> Result<usize> {
    let now = SystemTime::from_micros(tools.state.clock().now_micros());
    let mut writes = WriteBatch::default();
    let mut done = 0;
    for entry in entries {
        if entry.step == Step::Compacted {
            entry.finish(tools.engine, &mut writes, now);
            let (tx, table) = (entry.tx, entry.table.0);
            tracing::info!(%tx, table, hash = %format!("{:032x}", entry.hash), "erased");
            done += 1;
        } else {
            let key = crate::schema::RowKey(Vec::new());
            let next = Entry { step: Step::Compacted, key, ..entry.clone() };
            next.put(tools.engine, &mut writes);
        }
    }
    tools.engine.write(writes, true)?;
    Ok(done)
}

/// Rewrites what held the ledger's own entries, and the manifest; returns the files that must go.
fn rewrite_ledger(engine: &Engine) -> Result<BTreeSet<String>> {
    let mut files = bytes::flush(engine)?;
    files.extend(bytes::compact(engine, &[bytes::under(Family::Meta, ledger::ERASING.to_vec())])?);
    files.extend(bytes::renew_manifest(engine)?);
    // The end of a flush is when RocksDB deletes what is not in use.
    bytes::flush(engine)?;
    Ok(files)
}

/// Returns what to look for in dead letters.
fn wanted<'e>(tools: &Tools<'_>, entries: impl Iterator<Item = &'e Entry>) -> Result<Vec<Wanted>> {
    let mut wanted = Vec::new();
    for entry in entries {
        let definitions = tools.state.definitions_at(entry.tx);
        let Some(table) = definitions.table_by_id(entry.table) else { continue };
        let columns = table.key.iter().filter_map(|id| table.column_by_id(*id));
        let kinds: Vec<&ColumnType> = columns.map(|column| &column.kind).collect();
        wanted.extend(Wanted::of(&entry.tenant, &entry.key.decode(&kinds)?));
    }
    Ok(wanted)
}

/// Deletes of several families, written in parts.
struct Deletes<'a> {
    engine: &'a Engine,
    writes: WriteBatch,
}

impl Deletes<'_> {
    fn add(&mut self, family: Family, key: &[u8]) -> Result<()> {
        self.writes.delete_cf(self.engine.family(family), key);
        if self.writes.len() >= DELETES_MAX { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.engine.write(std::mem::take(&mut self.writes), false)
    }
}

fn delete_pieces(deletes: &mut Deletes<'_>, doomed: &Doomed) -> Result<()> {
    let engine = deletes.engine;
    engine.each_from(Family::Archive, &doomed.prefix, &doomed.prefix, |key, _| {
        if key::split_archive(key)?.1 <= doomed.tx {
            deletes.add(Family::Archive, key)?;
        }
        Ok(true)
    })
}

/// What follows the table and instant, or transaction, in a key: the tenant and the row's key.
type Owner = (TableId, Vec<u8>);

/// The keys of one purge, found again in families that are not ordered by key.
struct Keys {
    doomed: HashMap<Owner, Doomed>,
    tenants: BTreeMap<Owner, (Tenant, Vec<u8>)>,
    tables: BTreeSet<TableId>,
    by_prefix: HashMap<Vec<u8>, Owner>,
}

impl Keys {
    fn of(due: &[Entry]) -> Self {
        let mut keys = Self {
            doomed: HashMap::new(),
            tenants: BTreeMap::new(),
            tables: BTreeSet::new(),
            by_prefix: HashMap::new(),
        };
        for entry in due {
            let mut suffix = Vec::new();
            key::put_tenant(&mut suffix, &entry.tenant);
            suffix.extend_from_slice(entry.key.as_bytes());
            let owner = (entry.table, suffix);
            let named = (entry.tenant.clone(), entry.key.as_bytes().to_vec());
            keys.tenants.insert(owner.clone(), named);
            keys.tables.insert(entry.table);
            keys.by_prefix.insert(entry.prefix(), owner.clone());
            let doomed = keys.doomed.entry(owner).or_insert_with(|| Doomed {
                prefix: entry.prefix(),
                table: entry.table,
                tx: entry.tx,
                boundaries: Vec::new(),
                indexes: Vec::new(),
            });
            doomed.tx = doomed.tx.max(entry.tx);
        }
        keys
    }

    fn delete_changes(&self, deletes: &mut Deletes<'_>) -> Result<()> {
        let engine = deletes.engine;
        for table in &self.tables {
            let first = key::changes_prefix(*table, TxId::ZERO);
            engine.each_from(Family::Changes, &first[..4], &first, |key, _| {
                let (_, tx, ..) = key::split_change(key)?;
                let owner = (*table, key[12..].to_vec());
                if self.doomed.get(&owner).is_some_and(|doomed| tx <= doomed.tx) {
                    deletes.add(Family::Changes, key)?;
                }
                Ok(true)
            })?;
        }
        Ok(())
    }

    fn gather_boundaries(&mut self, engine: &Engine) -> Result<()> {
        for table in &self.tables {
            let prefix = table.0.to_be_bytes();
            engine.each_from(Family::Boundaries, &prefix, &prefix, |key, _| {
                let owner = (*table, key.get(12..).unwrap_or_default().to_vec());
                if let Some(doomed) = self.doomed.get_mut(&owner) {
                    doomed.boundaries.push(key.to_vec());
                }
                Ok(true)
            })?;
        }
        Ok(())
    }

    fn gather_indexes(&mut self, tools: &Tools<'_>) -> Result<()> {
        let definitions = tools.state.definitions();
        let tenants = tools.state.tenants();
        let lengths: BTreeSet<usize> = self.doomed.keys().map(|(_, suffix)| suffix.len()).collect();
        for index in definitions.indexes.values() {
            let Some(table) = definitions.table_by_id(index.table) else { continue };
            if !self.tables.contains(&index.table) {
                continue;
            }
            let kind_of = |id: &ColumnId| match *id {
                ColumnId::VALID_FROM => Some(&ColumnType::Timestamp),
                id => table.column_by_id(id).map(|column| &column.kind),
            };
            let kinds: Vec<&ColumnType> = index.columns.iter().filter_map(kind_of).collect();
            let prefix = index.id.0.to_be_bytes();
            tools.engine.each_from(Family::Indexes, &prefix, &prefix, |entry, _| {
                for length in &lengths {
                    let Some(at) = entry.len().checked_sub(*length) else { continue };
                    let owner = (index.table, entry[at..].to_vec());
                    if self.doomed.contains_key(&owner)
                        && self.is_of(&owner, entry, &tenants, &kinds)
                        && let Some(doomed) = self.doomed.get_mut(&owner)
                    {
                        doomed.indexes.push(entry.to_vec());
                    }
                }
                Ok(true)
            })?;
        }
        Ok(())
    }

    /// True where an index entry that ends like an owner is the owner's: the values before it may
    /// run into a tenant's name, so where a longer name would fit too, they are taken apart.
    fn is_of(
        &self,
        owner: &Owner,
        entry: &[u8],
        tenants: &[Tenant],
        kinds: &[&ColumnType],
    ) -> bool {
        let Some((tenant, row_key)) = self.tenants.get(owner) else { return false };
        let fits = |other: &Tenant| {
            let name = other.as_str();
            let longer = name.len() > tenant.as_str().len() && name.ends_with(tenant.as_str());
            longer && entry.ends_with(&[name.as_bytes(), b"\0", row_key].concat())
        };
        !tenants.iter().any(fits)
            || key::after_index_values(entry, kinds) == Some(owner.1.as_slice())
    }
}

impl Doom for Keys {
    fn is_doomed(&self, prefix: &[u8], table: TableId, tx: TxId) -> bool {
        let doomed = self.by_prefix.get(prefix).and_then(|owner| self.doomed.get(owner));
        doomed.is_some_and(|doomed| doomed.table == table && tx <= doomed.tx)
    }

    fn last_tx(&self) -> TxId {
        self.doomed.values().map(|doomed| doomed.tx).max().unwrap_or(TxId::ZERO)
    }
}

/// The erased keys of one table and tenant.
#[derive(Default)]
struct OfTable {
    prefixes: BTreeSet<Vec<u8>>,
    /// The last erasure.
    last: TxId,
}

/// Returns the ranges of keys that hold, or held, anything of the erased keys.
fn ranges(tools: &Tools<'_>, entries: &[Entry]) -> Vec<Range> {
    let mut ranges = Vec::new();
    let mut tables: BTreeMap<(&Tenant, TableId), OfTable> = BTreeMap::new();
    for entry in entries {
        let of_table = tables.entry((&entry.tenant, entry.table)).or_default();
        of_table.prefixes.insert(entry.prefix());
        of_table.last = of_table.last.max(entry.tx);
    }
    let definitions = tools.state.definitions();
    for ((tenant, table), OfTable { prefixes, last }) in tables {
        for family in [Family::Current, Family::Timeline, Family::Archive, Family::Assertions] {
            match (prefixes.first(), prefixes.last()) {
                (Some(first), Some(end)) if prefixes.len() > RANGES_MAX => {
                    ranges.push((family, first.clone(), key::prefix_end(end)));
                }
                _ => ranges
                    .extend(prefixes.iter().map(|prefix| bytes::under(family, prefix.clone()))),
            }
        }
        ranges.push(bytes::under(Family::EventIds, key::table_prefix(tenant, table)));
        let changes = key::changes_prefix(table, TxId::ZERO);
        ranges.push((Family::Changes, changes, Some(key::changes_prefix(table, last.plus(1)))));
        ranges.push(bytes::under(Family::Boundaries, table.0.to_be_bytes().to_vec()));
        for index in definitions.indexes.values().filter(|index| index.table == table) {
            ranges.push(bytes::under(Family::Indexes, index.id.0.to_be_bytes().to_vec()));
        }
    }
    // The journal up to the last of them holds the operations of clients.
    let last = entries.iter().map(|entry| entry.tx).max().unwrap_or(TxId::ZERO);
    ranges.push((Family::Transactions, Vec::new(), Some(key::number(last.get() + 1).to_vec())));
    // Small: what projections have under way, and letters, which have no key.
    ranges.push((Family::Cursors, Vec::new(), None));
    ranges.push((Family::DeadLetters, Vec::new(), None));
    ranges
}

impl From<crossbeam_channel::RecvError> for Error {
    fn from(_: crossbeam_channel::RecvError) -> Self {
        Self::Closed
    }
}
