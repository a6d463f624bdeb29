//! The ledger of erasures in the `meta` family: what was asked, and how far it is.
//!
//! ```text
//! erasing 00 | tx 8 | ordinal 4     format 1 | step 1 | requested_at 8 | hash 16 | table 4
//!                                   | tenant (varint length, bytes) | row key
//! erasure 00 | tx 8 | ordinal 4     format 1 | requested_at 8 | purged_at 8 | hash 16 | table 4
//!                                   | tenant (varint length, bytes)
//! ```
//!
//! An entry under `erasing` has the key's plain bytes until its rows' bytes are gone, then none;
//! it moves to `erasure` when the ledger's own old bytes are gone too.

use rocksdb::WriteBatch;

use crate::engine::Engine;
use crate::erase::{Erasure, ErasureState};
use crate::error::{Error, Result};
use crate::families::Family;
use crate::key;
use crate::row;
use crate::schema::{RowKey, TableId, Tenant};
use crate::time::SystemTime;
use crate::tx::TxId;

/// What all entries of erasures under way start with.
pub(crate) const ERASING: &[u8] = b"erasing\0";
const ERASURE: &[u8] = b"erasure\0";

/// What has been done of an erasure under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// It is hidden from queries.
    Hidden = 1,
    /// Its rows are deleted.
    Purged = 2,
    /// The bytes of its rows are gone; those of the ledger's own entry are not.
    Compacted = 3,
}

/// An erasure under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) tx: TxId,
    pub(crate) ordinal: u32,
    pub(crate) step: Step,
    pub(crate) requested_at: SystemTime,
    pub(crate) hash: u128,
    pub(crate) tenant: Tenant,
    pub(crate) table: TableId,
    /// Empty from [`Step::Compacted`] on.
    pub(crate) key: RowKey,
}

fn damaged(why: &str) -> Error {
    Error::Corrupt { what: "erasure", why: why.to_owned() }
}

fn place(prefix: &[u8], tx: TxId, ordinal: u32) -> Vec<u8> {
    [prefix, &key::number(tx.get()), &ordinal.to_be_bytes()].concat()
}

fn read_place(prefix: &[u8], key: &[u8]) -> Result<(TxId, u32)> {
    let rest = key.strip_prefix(prefix).unwrap_or_default();
    let (tx, ordinal) = rest.split_first_chunk::<8>().ok_or_else(|| damaged("key too short"))?;
    let ordinal = ordinal.try_into().map_err(|_| damaged("wrong key length"))?;
    Ok((TxId::new(u64::from_be_bytes(*tx)), u32::from_be_bytes(ordinal)))
}

fn put_owner(out: &mut Vec<u8>, hash: u128, table: TableId, tenant: &Tenant) {
    out.extend_from_slice(&hash.to_le_bytes());
    out.extend_from_slice(&table.0.to_le_bytes());
    row::put_varint(out, tenant.as_str().len() as u64);
    out.extend_from_slice(tenant.as_str().as_bytes());
}

fn take_owner(bytes: &mut &[u8]) -> Result<(u128, TableId, Tenant)> {
    let hash = u128::from_le_bytes(row::take_array(bytes)?);
    let table = TableId(u32::from_le_bytes(row::take_array(bytes)?));
    let length = row::take_length(bytes)?;
    let tenant = std::str::from_utf8(row::take_slice(bytes, length)?);
    Ok((hash, table, Tenant::new(tenant.map_err(|_| damaged("tenant is no text"))?)?))
}

fn take_time(bytes: &mut &[u8]) -> Result<SystemTime> {
    Ok(SystemTime::from_micros(i64::from_le_bytes(row::take_array(bytes)?)))
}

impl Entry {
    /// Returns the prefix of the key's rows.
    pub(crate) fn prefix(&self) -> Vec<u8> {
        key::row_prefix(&self.tenant, self.table, &self.key)
    }

    /// Adds the entry to a batch, in place of an older one.
    pub(crate) fn put(&self, engine: &Engine, writes: &mut WriteBatch) {
        let step = match self.step {
            Step::Hidden => 1,
            Step::Purged => 2,
            Step::Compacted => 3,
        };
        let mut value = vec![row::FORMAT, step];
        value.extend_from_slice(&self.requested_at.micros().to_le_bytes());
        put_owner(&mut value, self.hash, self.table, &self.tenant);
        value.extend_from_slice(self.key.as_bytes());
        writes.put_cf(engine.family(Family::Meta), place(ERASING, self.tx, self.ordinal), value);
    }

    /// Adds that everything is done.
    pub(crate) fn finish(&self, engine: &Engine, writes: &mut WriteBatch, at: SystemTime) {
        let family = engine.family(Family::Meta);
        writes.delete_cf(family, place(ERASING, self.tx, self.ordinal));
        let mut value = vec![row::FORMAT];
        value.extend_from_slice(&self.requested_at.micros().to_le_bytes());
        value.extend_from_slice(&at.micros().to_le_bytes());
        put_owner(&mut value, self.hash, self.table, &self.tenant);
        writes.put_cf(family, place(ERASURE, self.tx, self.ordinal), value);
    }

    fn read(key: &[u8], mut value: &[u8]) -> Result<Self> {
        let (tx, ordinal) = read_place(ERASING, key)?;
        row::take_format(&mut value)?;
        let step = match row::take_byte(&mut value)? {
            1 => Step::Hidden,
            2 => Step::Purged,
            3 => Step::Compacted,
            _ => return Err(damaged("a step that is not known")),
        };
        let requested_at = take_time(&mut value)?;
        let (hash, table, tenant) = take_owner(&mut value)?;
        let key = RowKey(value.to_vec());
        Ok(Self { tx, ordinal, step, requested_at, hash, tenant, table, key })
    }
}

/// Returns the erasures under way, in order of their transactions.
pub(crate) fn under_way(engine: &Engine) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    engine.each_from(Family::Meta, ERASING, ERASING, |key, value| {
        entries.push(Entry::read(key, value)?);
        Ok(true)
    })?;
    Ok(entries)
}

/// Returns the erasures under way without their keys, in order of their transactions.
pub(crate) fn shown_under_way(engine: &Engine) -> Result<Vec<Erasure>> {
    let shown = |entry: Entry| {
        let hidden = entry.step == Step::Hidden;
        let state = if hidden { ErasureState::Hidden } else { ErasureState::Purged };
        Erasure {
            tenant: entry.tenant,
            table: entry.table,
            tx: entry.tx,
            requested_at: entry.requested_at,
            key_hash: entry.hash,
            state,
            purged_at: None,
        }
    };
    Ok(under_way(engine)?.into_iter().map(shown).collect())
}

/// Returns all erasures, in order of their transactions.
pub(crate) fn all(engine: &Engine) -> Result<Vec<Erasure>> {
    let mut found = shown_under_way(engine)?;
    engine.each_from(Family::Meta, ERASURE, ERASURE, |key, mut value| {
        let (tx, _) = read_place(ERASURE, key)?;
        row::take_format(&mut value)?;
        let requested_at = take_time(&mut value)?;
        let purged_at = Some(take_time(&mut value)?);
        let (key_hash, table, tenant) = take_owner(&mut value)?;
        let state = ErasureState::Erased;
        found.push(Erasure { tenant, table, tx, requested_at, key_hash, state, purged_at });
        Ok(true)
    })?;
    found.sort_by_key(|erasure| erasure.tx);
    Ok(found)
}
