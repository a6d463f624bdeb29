//! Look-ups of keys by value: supersets, to be verified on the rows themselves.

use crate::error::{Error, Result};
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

/// Calls `each` with every key that has or had a version with the values `equal` in the first
/// columns and a value within `[least, most]` in the last one, until it answers false. A key may
/// come more than once. The last column must be an integer, a date or an instant: eight bytes.
pub(crate) fn lookup_between(
    reader: &Reader<'_>,
    index: IndexId,
    equal: &[Value],
    (least, most): (&Value, &Value),
    tenant: &Tenant,
    each: &mut dyn FnMut(RowKey) -> Result<bool>,
) -> Result<()> {
    let Some(prefix) = key::index_prefix(index, equal)? else { return Ok(()) };
    let bound = |value: &Value| key::index_suffixed(&prefix, value);
    let (first, last) = (bound(least)?, bound(most)?);
    let value_end = first.len();
    let mut cursor = reader.cursor(Family::Indexes, key::prefix_end(&last));
    cursor.seek(&first);
    while let Some(entry) = cursor.key() {
        if entry.len() < value_end {
            return Err(Error::Corrupt { what: "index", why: "an entry is too short".to_owned() });
        }
        let (of, key) = key::split_index_suffix(&entry[value_end..])?;
        if of == *tenant && !each(key)? {
            return Ok(());
        }
        cursor.next();
    }
    cursor.status()?;
    Ok(())
}
