//! Reading the change feed: which periods of which keys some transactions changed.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::families::Family;
use crate::key;
use crate::row::ChangeValue;
use crate::scan::reader::{Current, Reader};
use crate::schema::{RowKey, TableId, Tenant};
use crate::time::{Period, ValidTime};
use crate::tx::TxId;
use crate::view::KeyChange;

/// Returns what transactions `(after, through]` changed in a table, in tenant and key order, and
/// the last transaction that is wholly included.
///
/// It stops before a transaction that would make the change records more than `limit`, but takes
/// the first one that changed anything whatever its size.
pub(crate) fn between(
    reader: &Reader<'_>,
    table: TableId,
    after: TxId,
    through: TxId,
    limit: usize,
) -> Result<(Vec<KeyChange>, TxId)> {
    let mut records: Vec<(Tenant, RowKey, TxId, ChangeValue)> = Vec::new();
    let mut reached = through;
    let end = key::changes_prefix(table, through.plus(1));
    let mut cursor = reader.cursor(Family::Changes, Some(end));
    cursor.seek(key::changes_prefix(table, after.plus(1)));
    while let Some((found, value)) = cursor.item() {
        let (_, tx, tenant, key) = key::split_change(found)?;
        if records.len() >= limit.max(1)
            && let Some(first) = records.first().map(|(.., tx, _)| *tx)
            && tx != first
        {
            // The transaction this record is of may have begun before the limit.
            let begun = records.iter().rposition(|(.., of, _)| *of != tx);
            records.truncate(begun.map_or(0, |at| at + 1));
            reached = TxId::new(tx.get() - 1);
            break;
        }
        records.push((tenant, key, tx, ChangeValue::read(value)?));
        cursor.next();
    }
    cursor.status()?;
    let mut changes: BTreeMap<(Tenant, RowKey), Vec<Period<ValidTime>>> = BTreeMap::new();
    for (tenant, key, tx, value) in records {
        if reader.hides_erased() && erased(reader, table, &tenant, &key)? >= tx {
            continue;
        }
        changes.entry((tenant, key)).or_default().extend(value.changed);
    }
    let change = |((tenant, key), changed)| KeyChange { tenant, key, changed: joined(changed) };
    Ok((changes.into_iter().map(change).collect(), reached))
}

/// Returns the transaction that erased a key, whose past is not purged yet.
fn erased(reader: &Reader<'_>, table: TableId, tenant: &Tenant, key: &RowKey) -> Result<TxId> {
    match reader.current(&key::row_prefix(tenant, table, key))? {
        Some(value) => Ok(Current::read(&value)?.erased),
        None => Ok(TxId::ZERO),
    }
}

/// Sorts periods and joins those that overlap or touch.
fn joined(mut periods: Vec<Period<ValidTime>>) -> Vec<Period<ValidTime>> {
    if periods.len() > 1 {
        periods.sort_unstable();
        periods.dedup_by(|next, last| {
            let touch = last.touches(next);
            if touch {
                *last = last.hull(next);
            }
            touch
        });
    }
    periods
}
