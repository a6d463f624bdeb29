//! Entering into a new index the rows that were there before it, and emptying one that is dropped.

use rocksdb::WriteBatch;

use crate::definitions::{Definitions, IndexDef};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::families::Family;
use crate::key;
use crate::row::{ArchiveHeader, CurrentHeader, DocumentView, TimelineHeader};
use crate::schema::{IndexId, Tenant};
use crate::time::ValidTime;
use crate::writer::tables::Tables;

/// Entries written at once.
const ENTRIES_MAX: usize = 10_000;

/// Enters every row of the index's table, of all tenants and all times; entering one twice does no
/// harm. Cost: reads the table's whole history.
pub(crate) fn fill(
    engine: &Engine,
    definitions: &Definitions,
    tenants: &[Tenant],
    index: &IndexDef,
) -> Result<()> {
    let tables = Tables::new(definitions);
    let table = tables.get(index.table)?;
    let into = engine.family(Family::Indexes);
    for tenant in tenants {
        let prefix = key::table_prefix(tenant, index.table);
        let mut writes = WriteBatch::default();
        let mut enter = |row_key: &[u8], from: ValidTime, document: &[u8]| -> Result<bool> {
            let document = DocumentView::read(document)?;
            if let Some(mut entry) = table.index_prefix(index, row_key, from, &document)? {
                key::put_tenant(&mut entry, tenant);
                entry.extend_from_slice(row_key);
                writes.put_cf(into, entry, []);
            }
            if writes.len() >= ENTRIES_MAX {
                engine.write(std::mem::take(&mut writes), false)?;
            }
            Ok(true)
        };
        for (family, suffix) in [
            (Family::Current, 0),
            (Family::Timeline, key::TIMELINE_SUFFIX),
            (Family::Archive, key::ARCHIVE_SUFFIX),
        ] {
            engine.each_from(family, &prefix, &prefix, |key, value| {
                let row_key = key::without_suffix(&key[prefix.len()..], suffix)?;
                match family {
                    Family::Current => match CurrentHeader::read(value)? {
                        (header, _) if header.tombstone => Ok(true),
                        (header, document) => enter(row_key, header.valid_from, document),
                    },
                    Family::Timeline => {
                        let from = key::timeline_from(key)?;
                        enter(row_key, from, TimelineHeader::read(value)?.1)
                    }
                    Family::Archive => {
                        let (header, document) = ArchiveHeader::read(value)?;
                        enter(row_key, header.valid.from(), document)
                    }
                    _ => Err(Error::Corrupt { what: "index", why: "no row family".to_owned() }),
                }
            })?;
        }
        engine.write(writes, false)?;
    }
    // The batch that marks the index ready is synced after these, in the same log.
    Ok(())
}

/// Deletes every entry of an index.
pub(crate) fn empty(engine: &Engine, index: IndexId) -> Result<()> {
    let start = index.0.to_be_bytes();
    let mut writes = WriteBatch::default();
    let end = key::prefix_end(&start).unwrap_or_else(|| vec![0xFF; 5]);
    writes.delete_range_cf(engine.family(Family::Indexes), start.to_vec(), end);
    engine.write(writes, false)
}
