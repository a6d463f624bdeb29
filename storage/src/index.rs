//! Look-ups of keys by value: supersets, to be verified on the rows themselves.

use crate::error::Result;
use crate::families::Family;
use crate::key;
use crate::scan::reader::Reader;
use crate::schema::{IndexId, RowKey, Tenant};
use crate::value::Value;

/// Returns keys that have or had a version with these values, in tenant and key order.
pub(crate) fn lookup(
    reader: &Reader<'_>,
    index: IndexId,
    values: &[Value],
    tenant: Option<&Tenant>,
) -> Result<Vec<(Tenant, RowKey)>> {
    let Some(mut prefix) = key::index_prefix(index, values)? else { return Ok(Vec::new()) };
    let values_end = prefix.len();
    if let Some(tenant) = tenant {
        key::put_tenant(&mut prefix, tenant);
    }
    let mut cursor = reader.cursor(Family::Indexes, key::prefix_end(&prefix));
    cursor.seek(&prefix);
    let mut found = Vec::new();
    while let Some(entry) = cursor.key() {
        found.push(key::split_index_suffix(&entry[values_end..])?);
        cursor.next();
    }
    cursor.status()?;
    Ok(found)
}
