//! About how many keys a tenant has in a table, at any transaction: what joins are ordered by.
//!
//! ```text
//! size 00 | tenant 00 | table 4 | tx 8                      keys about 8
//! ```
//!
//! An entry stays as it is once its transaction is committed, so whoever reads at that transaction again is told
//! the same. It is a Morris counter (R. Morris, Counting large numbers of events in small
//! registers, CACM 21(10), 1978): from a count of *c* it goes on by `1 + c / 8` at one new key in as
//! many, chosen by the key's hash. Counts up to eight are exact, later ones off by a quarter in the standard deviation,
//! and ten million keys leave some 120 entries. Keys that are deleted or erased still count.

use std::collections::HashMap;

use parking_lot::Mutex;
use rocksdb::WriteBatch;
use xxhash_rust::xxh3::xxh3_64;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::families::Family;
use crate::key;
use crate::schema::{TableId, Tenant};
use crate::tx::TxId;

const SIZE: &[u8] = b"size\0";
/// The count over which its share is a step.
const SHARE: u64 = 8;
/// Counts that the writer keeps at hand from one group to the next.
const KNOWN_MAX: usize = 1 << 16;

/// The counts that the writer goes on from.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    /// By tenant and table; none where rows were there before counting began.
    known: Mutex<HashMap<Vec<u8>, Option<u64>>>,
}

impl Sizes {
    /// Counts a key that a transaction wrote for the first time.
    ///
    /// # Errors
    /// Whatever reading reports.
    pub(crate) fn add(
        &self,
        engine: &Engine,
        writes: &mut WriteBatch,
        (tenant, table): (&Tenant, TableId),
        row_prefix: &[u8],
        tx: TxId,
    ) -> Result<()> {
        let of_table = key::table_prefix(tenant, table);
        let mut known = self.known.lock();
        let count = match known.get(&of_table) {
            Some(count) => *count,
            None => standing(engine, &of_table)?,
        };
        let next = count.and_then(|count| after(count, hash(row_prefix)));
        if let Some(next) = next {
            put(engine, writes, &entry_key(&of_table, tx), next);
        }
        known.insert(of_table, next.or(count));
        Ok(())
    }

    /// Looks counts up again where too many are at hand. Not while some are in no entry yet.
    pub(crate) fn bound(&self) {
        let mut known = self.known.lock();
        if known.len() > KNOWN_MAX {
            known.clear();
        }
    }

    /// Looks counts up again before going on from them.
    pub(crate) fn forget(&self) {
        self.known.lock().clear();
    }
}

/// The counts of tenants in a table that was empty, from its keys in the order of their first transactions;
/// keys that were erased from it count.
pub(crate) struct Counting<'e> {
    engine: &'e Engine,
    counts: HashMap<Vec<u8>, u64>,
    /// Keys and counts.
    pub(crate) entries: Vec<(Vec<u8>, u64)>,
}

impl<'e> Counting<'e> {
    /// Starts from what is stored.
    pub(crate) fn new(engine: &'e Engine) -> Self {
        Self { engine, counts: HashMap::new(), entries: Vec::new() }
    }

    /// Counts a key, of which the hash is given.
    ///
    /// # Errors
    /// Whatever reading reports.
    pub(crate) fn add(&mut self, of_table: &[u8], hash: u64, tx: TxId) -> Result<()> {
        let count = match self.counts.get(of_table) {
            Some(count) => *count,
            None => entry_at(self.engine, of_table, TxId::END)?.unwrap_or(0),
        };
        let next = after(count, hash);
        if let Some(next) = next {
            self.entries.push((entry_key(of_table, tx), next));
        }
        self.counts.insert(of_table.to_vec(), next.unwrap_or(count));
        Ok(())
    }
}

/// Returns what a new key is chosen by.
pub(crate) fn hash(row_prefix: &[u8]) -> u64 {
    xxh3_64(row_prefix)
}

/// Returns the count that a new key leads to, where it is one that counts.
const fn after(count: u64, hash: u64) -> Option<u64> {
    let step = 1 + count / SHARE;
    if hash.is_multiple_of(step) { Some(count + step) } else { None }
}

/// Returns the count to go on from; nothing where rows are there that were never counted.
fn standing(engine: &Engine, of_table: &[u8]) -> Result<Option<u64>> {
    let counted = entry_at(engine, of_table, TxId::END)?;
    if counted.is_some() {
        return Ok(counted);
    }
    let mut is_empty = true;
    engine.each_from(Family::Current, of_table, of_table, |_, _| {
        is_empty = false;
        Ok(false)
    })?;
    Ok(is_empty.then_some(0))
}

/// Returns about how many keys a tenant had in a table at a transaction; nothing where they were not
/// counted.
///
/// # Errors
/// Whatever reading reports.
pub(crate) fn keys_at(
    engine: &Engine,
    table: TableId,
    tenant: &Tenant,
    tx: TxId,
) -> Result<Option<u64>> {
    entry_at(engine, &key::table_prefix(tenant, table), tx)
}

fn entry_at(engine: &Engine, of_table: &[u8], tx: TxId) -> Result<Option<u64>> {
    let start = entry_key(of_table, tx);
    let mut entries = engine.iterator(Family::Meta);
    entries.seek_for_prev(&start);
    let of_table = &start[..start.len() - 8];
    let count = match entries.item() {
        Some((key, value)) if key.starts_with(of_table) => Some(read(value)?),
        _ => None,
    };
    entries.status()?;
    Ok(count)
}

/// Adds an entry.
pub(crate) fn put(engine: &Engine, writes: &mut WriteBatch, entry: &[u8], count: u64) {
    writes.put_cf(engine.family(Family::Meta), entry, count.to_le_bytes());
}

/// Reads the value of an entry.
pub(crate) fn read(value: &[u8]) -> Result<u64> {
    let bytes = value.try_into().map_err(|_| Error::Corrupt {
        what: "meta",
        why: format!("{} bytes for a count of keys", value.len()),
    })?;
    Ok(u64::from_le_bytes(bytes))
}

fn entry_key(of_table: &[u8], tx: TxId) -> Vec<u8> {
    [SIZE, of_table, &key::number(tx.get())].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assertion::{AssertedFrom, Assertion, Op};
    use crate::batch::{Batch, Tx, Write, WriteKind};
    use crate::schema::RowKey;
    use crate::store::Store;
    use crate::testing::{Directory, define, open, submit};
    use crate::time::ValidTime;
    use crate::value::{Row, Value};

    const TABLE: TableId = TableId(1);

    /// Writes a key of each number, in a transaction of its own each.
    fn put(store: &Store, tenant: &Tenant, numbers: std::ops::Range<u32>) -> TxId {
        let txs = numbers.map(|number| {
            let assertion = Assertion {
                op: Op::Put,
                from: AssertedFrom::At(ValidTime::from_micros(1)),
                to: ValidTime::END,
                order: 0,
                fields: Row::default(),
                exact: false,
            };
            let key = RowKey::encode(&[Value::Text(format!("k{number}"))]).unwrap();
            let kind = WriteKind::Assert { key, assertion, event: None };
            Tx {
                writes: vec![Write { tenant: tenant.clone(), table: TABLE, kind }],
                position: None,
            }
        });
        submit(store, Batch { txs: txs.collect(), ..Batch::default() }).last_tx
    }

    #[test]
    fn keys_are_counted_once_and_a_count_stays_what_it_was() {
        let directory = Directory::new();
        let mut store = open(&directory.0).unwrap();
        define(&store);
        let before = store.latest().tx;
        let [some, none] = ["some", "none"].map(|name| Tenant::new(name).unwrap());
        let at = |store: &Store, tx| store.keys_at(TABLE, &some, tx).unwrap();
        assert_eq!(at(&store, before), None);
        let mut told = Vec::new();
        for (first, last) in [(0, 3), (3, 8), (8, 500), (0, 500), (500, 9_000), (4_000, 20_000)] {
            let tx = put(&store, &some, first..last);
            let count = at(&store, tx).unwrap();
            let real = u64::from(last.max(told.last().map_or(0, |(_, _, real)| *real)));
            told.push((tx, count, u32::try_from(real).unwrap()));
            assert!(count <= 2 * real && real <= 2 * count, "{count} for {real}");
            assert!(real > 8 || count == real, "{count} for {real}");
            // It goes on from there, whoever opens it.
            store.close().unwrap();
            store = open(&directory.0).unwrap();
        }
        for (tx, count, _) in &told {
            assert_eq!(at(&store, *tx), Some(*count));
        }
        assert_eq!(told[2].1, told[3].1, "keys that were there count no second time");
        assert_eq!(store.keys_at(TABLE, &none, store.latest().tx).unwrap(), None);
        assert_eq!(store.keys_at(TableId(2), &some, store.latest().tx).unwrap(), None);
    }

    #[test]
    fn what_was_counted_and_not_written_is_forgotten() {
        let directory = Directory::new();
        let store = open(&directory.0).unwrap();
        define(&store);
        store.close().unwrap();
        let engine = Engine::open(&directory.0, 8 << 20).unwrap();
        let (sizes, tenant, tx) = (Sizes::default(), Tenant::default(), TxId::new(9));
        let add = |writes: &mut WriteBatch, key: &[u8]| {
            sizes.add(&engine, writes, (&tenant, TABLE), key, tx).unwrap();
        };
        let mut refused = WriteBatch::default();
        for key in [b"a", b"b", b"c"] {
            add(&mut refused, key);
        }
        drop(refused);
        sizes.forget();
        let mut writes = WriteBatch::default();
        add(&mut writes, b"a");
        add(&mut writes, b"b");
        engine.write(writes, true).unwrap();
        assert_eq!(keys_at(&engine, TABLE, &tenant, tx).unwrap(), Some(2));
    }

    #[test]
    fn rows_that_were_never_counted_have_no_size() {
        let directory = Directory::new();
        let store = open(&directory.0).unwrap();
        define(&store);
        let tenant = Tenant::default();
        put(&store, &tenant, 0..50);
        store.close().unwrap();
        // As a version without counts left it.
        let engine = Engine::open(&directory.0, 8 << 20).unwrap();
        let mut writes = WriteBatch::default();
        let family = engine.family(Family::Meta);
        writes.delete_range_cf(family, SIZE.to_vec(), b"size\x01".to_vec());
        engine.write(writes, true).unwrap();
        drop(engine);
        let store = open(&directory.0).unwrap();
        let tx = put(&store, &tenant, 50..100);
        assert_eq!(store.keys_at(TABLE, &tenant, tx).unwrap(), None);
        let others = Tenant::new("new").unwrap();
        let tx = put(&store, &others, 0..5);
        assert_eq!(store.keys_at(TABLE, &others, tx).unwrap(), Some(5));
    }
}
