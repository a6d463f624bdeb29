//! Reading the boundary index: what the passing of time will change.

use crate::error::Result;
use crate::families::Family;
use crate::key;
use crate::scan::reader::Reader;
use crate::schema::{RowKey, TableId, Tenant};
use crate::time::ValidTime;

/// Returns keys with a valid bound in `(after, through]` in order of the bound, at most `limit`.
///
/// Bounds that have gone since stand there too.
pub(crate) fn between(
    reader: &Reader<'_>,
    table: TableId,
    after: ValidTime,
    through: ValidTime,
    limit: usize,
) -> Result<Vec<(ValidTime, Tenant, RowKey)>> {
    let mut found = Vec::new();
    if after >= through {
        return Ok(found);
    }
    // Past the table's last bound there is none at the open end to be left out.
    let end = key::boundaries_prefix(table, through.saturating_add(1));
    let mut cursor = reader.cursor(Family::Boundaries, Some(end));
    cursor.seek(key::boundaries_prefix(table, after.saturating_add(1)));
    while let Some(entry) = cursor.key() {
        if found.len() >= limit {
            return Ok(found);
        }
        let (_, at, tenant, key) = key::split_boundary(entry)?;
        found.push((at, tenant, key));
        cursor.next();
    }
    cursor.status()?;
    Ok(found)
}
