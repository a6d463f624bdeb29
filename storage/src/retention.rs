//! Retention: belief that was superseded longer ago than a table's policy says is deleted.
//!
//! Each table has a *horizon*, the oldest transaction that it can be read at. It is raised first,
//! durably and for all readers, and what only older reads need is deleted after; so a read finds
//! its answer whole or is told that it is gone. Change records name the superseded pieces, so a
//! sweep costs by what it deletes. The horizon never passes a [`Hold`] nor what projections need.
//!
//! Latest belief, assertions, event ids, index entries and the journal are never swept.

use std::collections::BTreeMap;
use std::sync::Arc;

use rocksdb::WriteBatch;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::families::Family;
use crate::journal;
use crate::key::{self, Fork};
use crate::row::{self, ChangeValue};
use crate::schema::TableId;
use crate::state::State;
use crate::time::{SystemTime, ValidTime};
use crate::tx::TxId;

const HORIZON: &[u8] = b"horizon\0";
/// Change records, or bounds, that one write deletes.
const RECORDS_PER_WRITE: usize = 1_000;
/// Those that one sweep deletes of a table.
const RECORDS_MAX: usize = 20_000;

/// By table the oldest transaction that it can be read at.
pub(crate) type Horizons = BTreeMap<TableId, TxId>;

/// What projections still read: nothing from before either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needed {
    pub tx: TxId,
    pub now: ValidTime,
}

/// What one call of [`crate::Store::sweep`] deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Superseded pieces.
    pub pieces: usize,
    /// Change records.
    pub changes: usize,
    /// Valid bounds in the past.
    pub boundaries: usize,
    /// There is more to delete: call again.
    pub more: bool,
}

/// Keeps belief as of a transaction from being deleted while it lives.
#[derive(Debug)]
pub struct Hold {
    state: Arc<State>,
    tx: TxId,
}

impl Hold {
    pub(crate) fn new(state: &Arc<State>, tx: TxId) -> Self {
        *state.holds.lock().entry(tx).or_default() += 1;
        Self { state: Arc::clone(state), tx }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut holds = self.state.holds.lock();
        if let Some(count) = holds.get_mut(&self.tx) {
            *count -= 1;
            if *count == 0 {
                holds.remove(&self.tx);
            }
        }
    }
}

/// Reads the horizons of all tables that have one.
pub(crate) fn horizons(engine: &Engine) -> Result<Horizons> {
    let mut horizons = Horizons::new();
    engine.each_from(Family::Meta, HORIZON, HORIZON, |key, mut value| {
        let damaged = |_| Error::Corrupt { what: "horizon", why: "wrong key length".to_owned() };
        let table = key[HORIZON.len()..].try_into().map(u32::from_be_bytes).map_err(damaged)?;
        row::take_format(&mut value)?;
        let tx = u64::from_le_bytes(row::take_array(&mut value)?);
        horizons.insert(TableId(table), TxId::new(tx));
        Ok(true)
    })?;
    Ok(horizons)
}

/// Raises the horizon of every table with a policy and deletes, in parts, what lies before it.
pub(crate) fn sweep(engine: &Engine, state: &State, needed: Needed) -> Result<Swept> {
    let mut swept = Swept::default();
    let now = state.basis().now;
    let latest = state.latest().0;
    for (table, micros) in &state.definitions().retention {
        let oldest = ValidTime::from_micros(now.micros().saturating_sub(*micros));
        let system_time = SystemTime::from_micros(oldest.micros());
        let target = journal::tx_at(engine, system_time, latest)?.min(needed.tx);
        let horizon = raise(engine, state, TableId(*table), target)?;
        delete_history(engine, TableId(*table), horizon, &mut swept)?;
        delete_boundaries(engine, TableId(*table), oldest.min(needed.now), &mut swept)?;
    }
    Ok(swept)
}

/// Raises a table's horizon as far as nothing is held before it, and returns where it stands.
fn raise(engine: &Engine, state: &State, table: TableId, target: TxId) -> Result<TxId> {
    // Locked until readers know: whoever holds later finds the horizon raised.
    let holds = state.holds.lock();
    let target = holds.keys().next().map_or(target, |held| target.min(*held));
    let known = state.horizons().get(&table).copied().unwrap_or(TxId::ZERO);
    if target <= known {
        return Ok(known);
    }
    let mut value = vec![row::FORMAT];
    value.extend_from_slice(&target.get().to_le_bytes());
    let mut writes = WriteBatch::default();
    let key = [HORIZON, &table.0.to_be_bytes()].concat();
    writes.put_cf(engine.family(Family::Meta), key, value);
    engine.write(writes, true)?;
    state.set_horizon(table, target);
    Ok(target)
}

fn delete_history(engine: &Engine, table: TableId, horizon: TxId, swept: &mut Swept) -> Result<()> {
    let (archive, changes) = (engine.family(Family::Archive), engine.family(Family::Changes));
    let first = key::changes_prefix(table, TxId::ZERO);
    let mut writes = WriteBatch::default();
    let mut records = 0;
    let mut piece = Vec::new();
    engine.each_from(Family::Changes, &first[..4], &first, |entry, value| {
        let (_, tx, tenant, row_key) = key::split_change(entry)?;
        if tx > horizon {
            return Ok(false);
        }
        if records == RECORDS_MAX {
            swept.more = true;
            return Ok(false);
        }
        let prefix = key::row_prefix(&tenant, table, &row_key);
        for period in &ChangeValue::read(value)?.replaced {
            key::archive_into(&mut piece, &prefix, Fork::of(period), tx);
            writes.delete_cf(archive, &piece);
            swept.pieces += 1;
        }
        writes.delete_cf(changes, entry);
        records += 1;
        // Pieces and the record that names them go together: a crash leaves none behind.
        if records % RECORDS_PER_WRITE == 0 {
            engine.write(std::mem::take(&mut writes), false)?;
        }
        Ok(true)
    })?;
    swept.changes += records;
    engine.write(writes, false)
}

fn delete_boundaries(
    engine: &Engine,
    table: TableId,
    through: ValidTime,
    swept: &mut Swept,
) -> Result<()> {
    let family = engine.family(Family::Boundaries);
    let prefix = table.0.to_be_bytes();
    let mut writes = WriteBatch::default();
    let mut found = 0;
    engine.each_from(Family::Boundaries, &prefix, &prefix, |entry, _| {
        if key::split_boundary(entry)?.1 > through {
            return Ok(false);
        }
        if found == RECORDS_MAX {
            swept.more = true;
            return Ok(false);
        }
        writes.delete_cf(family, entry);
        found += 1;
        if found % RECORDS_PER_WRITE == 0 {
            engine.write(std::mem::take(&mut writes), false)?;
        }
        Ok(true)
    })?;
    swept.boundaries += found;
    engine.write(writes, false)
}
