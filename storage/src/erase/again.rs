//! Making erasures again in a directory that was restored from before them.
//!
//! Of a key that was erased only its keyed hash is known: the keys that the store has are hashed and
//! compared. A key that it does not have gets the mark all the same, so that late records of it are
//! met as before.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use rocksdb::WriteBatch;

use super::{ERASED, Erased, SECRET, hash_under};
use crate::batch::{Batch, Tx, Write, WriteKind};
use crate::engine::Engine;
use crate::error::Result;
use crate::families::Family;
use crate::key;
use crate::row;
use crate::schema::{RowKey, TableId, Tenant};
use crate::store::Store;
use crate::time::SystemTime;
use crate::tx::TxId;

/// Between two looks at whether files are gone.
const PAUSE: Duration = Duration::from_millis(20);
/// So often it is looked before the server is left to go on with it.
const LOOKS_MAX: usize = 3_000;

/// An erasure that another directory with the same past has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Again {
    /// What the hash was made under.
    pub(crate) secret: [u8; 16],
    pub(crate) hash: u128,
    pub(crate) tenant: Tenant,
    pub(crate) table: TableId,
    pub(crate) table_name: String,
    /// When it was asked for.
    pub(crate) at: SystemTime,
    /// False where the directory's own history has it: then it may lack the mark alone, since a
    /// journal that has forgotten the key has none for a key that never came back.
    pub(crate) is_new: bool,
}

/// Gives a directory that has erased nothing the secret of another one with its past, so that both
/// know a key by the same hash.
pub(crate) fn adopt_secret(engine: &Engine, secret: [u8; 16]) -> Result<()> {
    if engine.get(Family::Meta, SECRET)?.is_some() {
        return Ok(());
    }
    let mut writes = WriteBatch::default();
    writes.put_cf(engine.family(Family::Meta), SECRET, secret);
    engine.write(writes, true)
}

/// Leaves out what is of tables that the store does not have.
pub(crate) fn retain_known(store: &Store, erasures: &mut Vec<Again>) {
    let definitions = store.definitions();
    erasures.retain(|again| {
        let table = definitions.table_by_id(again.table);
        table.is_some_and(|table| table.name == again.table_name)
    });
}

/// Marks keys as erased, so that records of them that come again are dropped; answers with how many
/// could not be marked, since the store hashes under another secret. The store takes the marks up
/// when it is opened next.
pub(crate) fn mark(store: &Store, erasures: &[Again]) -> Result<usize> {
    let engine = store.engine()?;
    let known = Erased::load(&engine)?;
    let mut secret = known.secret().copied();
    let family = engine.family(Family::Meta);
    let mut writes = WriteBatch::default();
    let mut others = 0;
    for again in erasures {
        let ours = *secret.get_or_insert(again.secret);
        if ours != again.secret {
            others += 1;
            continue;
        }
        writes.put_cf(family, SECRET, ours);
        if known.mark(again.hash).is_some_and(|at| again.at <= at) {
            continue;
        }
        // In order of their times: the last one stays.
        let mut value = vec![row::FORMAT];
        value.extend_from_slice(&again.at.micros().to_le_bytes());
        writes.put_cf(family, [ERASED, &again.hash.to_be_bytes()].concat(), value);
    }
    engine.write(writes, true)?;
    Ok(others)
}

/// Makes the new ones again for keys that the store has, each at the time it was erased at where that is still to
/// come in the store's history; answers with how many there were.
pub(crate) fn erase(store: &Store, erasures: &[Again]) -> Result<usize> {
    let mut writes: BTreeMap<SystemTime, Vec<Write>> = BTreeMap::new();
    for (at, write) in found(&*store.engine()?, erasures)? {
        writes.entry(at).or_default().push(write);
    }
    let mut count = 0;
    for (at, writes) in writes {
        count += writes.len();
        let last = store.system_time(store.latest().tx)?;
        let batch = Batch {
            txs: vec![Tx { writes, position: None }],
            system_time: Some(at).filter(|at| *at > last),
            ..Batch::default()
        };
        let answered = store.submit(batch)?;
        answered.blocking_recv().map_err(|_| crate::Error::Closed)??;
    }
    Ok(count)
}

/// Returns the erasures that concern keys which the store has.
fn found(engine: &Engine, erasures: &[Again]) -> Result<Vec<(SystemTime, Write)>> {
    type Wanted = HashMap<u128, SystemTime>;
    type OfTable = (Vec<u8>, [u8; 16]);
    let mut tables: BTreeMap<OfTable, (&Again, Wanted)> = BTreeMap::new();
    for again in erasures.iter().filter(|again| again.is_new) {
        let of_table = key::table_prefix(&again.tenant, again.table);
        let (_, wanted) =
            tables.entry((of_table, again.secret)).or_insert_with(|| (again, Wanted::new()));
        wanted.insert(again.hash, again.at);
    }
    let mut found = Vec::new();
    for ((of_table, secret), (again, wanted)) in tables {
        engine.each_from(Family::Current, &of_table, &of_table, |prefix, _| {
            if let Some(at) = wanted.get(&hash_under(&secret, prefix)) {
                let key = RowKey(prefix[of_table.len()..].to_vec());
                let (tenant, table) = (again.tenant.clone(), again.table);
                found.push((*at, Write { tenant, table, kind: WriteKind::Erase { key } }));
            }
            Ok(true)
        })?;
    }
    Ok(found)
}

/// Carries every erasure on until the bytes are gone; false where files were still held in the end.
pub(crate) fn finish(store: &Store) -> Result<bool> {
    for _ in 0..LOOKS_MAX {
        store.advance_erasures(TxId::END)?;
        if store.erasures_under_way()?.is_empty() {
            return Ok(true);
        }
        std::thread::sleep(PAUSE);
    }
    Ok(false)
}
