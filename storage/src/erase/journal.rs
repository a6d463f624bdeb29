//! Taking erased keys out of the operations that the journal keeps for a replay.
//!
//! Transactions stay, with their numbers and times; what they did to the keys goes. The erasure itself
//! stays as a hash, since a replay reads the topics again, where the keys may still be: it finds by
//! the hash what it must erase, and comes to the same state.

use std::collections::HashSet;

use rocksdb::WriteBatch;

use crate::assertion::EventId;
use crate::batch::{Batch, Tx, Write, WriteKind};
use crate::engine::Engine;
use crate::erase::{Erased, hash_under};
use crate::error::Result;
use crate::families::Family;
use crate::journal::{self, Depth, JournalEntry};
use crate::key;
use crate::schema::{RowKey, TableId, Tenant};
use crate::tx::TxId;

/// Says whether what a transaction did to a row, by its prefix, goes.
pub(super) trait Doom {
    /// True where everything up to `tx` about the row is to go.
    fn is_doomed(&self, prefix: &[u8], table: TableId, tx: TxId) -> bool;

    /// The last transaction that can hold anything of them.
    fn last_tx(&self) -> TxId;
}

/// Events whose assertions went: retractions of them go too.
type Events = HashSet<(Tenant, TableId, EventId)>;

/// Rewrites the entries that hold operations on doomed keys. Cost: reads the journal up to the last
/// of the erasures.
pub(super) fn forget(engine: &Engine, doom: &impl Doom) -> Result<()> {
    let erased = Erased::load(engine)?;
    let mut events = Events::new();
    let mut writes = WriteBatch::default();
    let last = doom.last_tx();
    engine.each_from(Family::Transactions, &[], &[], |entry_key, value| {
        if key::split_number(entry_key)? > last.get() {
            return Ok(false);
        }
        let mut entry = JournalEntry::read(entry_key, value, Depth::Whole)?;
        let Some(mut detail) = entry.replay.take() else { return Ok(true) };
        let mut changed = false;
        for (place, tx) in (0..).zip(&mut detail.txs) {
            changed |= forget_in(tx, entry.first_tx.plus(place), doom, &erased, &mut events);
        }
        if changed {
            let mut operations = Vec::new();
            for tx in &detail.txs {
                journal::put_operation(&mut operations, tx.writes.iter());
            }
            let mut rewritten = Vec::with_capacity(value.len());
            let count = detail.txs.len() as u64;
            entry.put(&detail, (count, &operations), &mut rewritten);
            writes.put_cf(engine.family(Family::Transactions), entry_key, rewritten);
        }
        Ok(true)
    })?;
    engine.write(writes, false)
}

fn forget_in(
    tx: &mut Tx,
    id: TxId,
    doom: &impl Doom,
    erased: &Erased,
    events: &mut Events,
) -> bool {
    let before = tx.writes.len();
    let mut hashed = false;
    for write in &mut tx.writes {
        let WriteKind::Erase { key } = &write.kind else { continue };
        let prefix = key::row_prefix(&write.tenant, write.table, key);
        if doom.is_doomed(&prefix, write.table, id)
            && let (Some(secret), Some(hash)) = (erased.secret(), erased.hash(&prefix))
        {
            write.kind = WriteKind::EraseHashed { secret: *secret, hash };
            hashed = true;
        }
    }
    tx.writes.retain(|write| match &write.kind {
        WriteKind::Assert { key, event, .. } => {
            let prefix = key::row_prefix(&write.tenant, write.table, key);
            let gone = doom.is_doomed(&prefix, write.table, id);
            if gone && let Some(event) = event {
                events.insert((write.tenant.clone(), write.table, event.id.clone()));
            }
            !gone
        }
        WriteKind::Retract { event_id } => {
            !events.contains(&(write.tenant.clone(), write.table, event_id.clone()))
        }
        WriteKind::Erase { .. } | WriteKind::EraseHashed { .. } => true,
    });
    hashed || tx.writes.len() != before
}

/// Gives erasures by hash the keys that the store has under those hashes; without one an erasure has
/// nothing to do and goes. Cost: reads the keys of the tables concerned.
pub(crate) fn name_keys(engine: &Engine, batch: &mut Batch) -> Result<()> {
    for tx in &mut batch.txs {
        let mut named = Vec::with_capacity(tx.writes.len());
        for write in tx.writes.drain(..) {
            let WriteKind::EraseHashed { secret, hash } = write.kind else {
                named.push(write);
                continue;
            };
            let Write { tenant, table, .. } = write;
            let of_table = key::table_prefix(&tenant, table);
            engine.each_from(Family::Current, &of_table, &of_table, |prefix, _| {
                let found = hash_under(&secret, prefix) == hash;
                if found {
                    let kind = WriteKind::Erase { key: RowKey(prefix[of_table.len()..].to_vec()) };
                    named.push(Write { tenant: tenant.clone(), table, kind });
                }
                Ok(!found)
            })?;
        }
        tx.writes = named;
    }
    Ok(())
}
