//! The keys of a table with their `current` entries, in tenant and key order.
//!
//! `current` has an entry for every key that ever had anything, so it lists the keys of any read.

use crate::error::Result;
use crate::families::Family;
use crate::key;
use crate::scan::gather::Target;
use crate::scan::range::KeyRange;
use crate::scan::reader::{Current, LATER_OF_ALL, LATER_OF_SOME, Reader};
use crate::schema::{RowKey, TableId, Tenant};

/// One row that a scan comes upon.
pub(crate) struct Entry<'a> {
    pub(crate) tenant: &'a Tenant,
    pub(crate) target: Target<'a>,
    /// How long the part of the prefix before the row's key is.
    pub(crate) table_prefix: usize,
}

impl<'a> Entry<'a> {
    /// Returns the bytes of the row's key.
    pub(crate) fn key_bytes(&self) -> &'a [u8] {
        &self.target.prefix[self.table_prefix..]
    }
}

/// Calls `each` for every row of a range, of one tenant or of all, until it answers false.
pub(crate) fn within(
    reader: &Reader<'_>,
    table: TableId,
    tenant: Option<&Tenant>,
    range: &KeyRange,
    each: &mut dyn FnMut(&Entry<'_>) -> Result<bool>,
) -> Result<()> {
    match tenant {
        Some(tenant) => of_tenant(reader, table, tenant, range, each).map(|_| ()),
        None => {
            for tenant in tenants(reader)? {
                if !of_tenant(reader, table, &tenant, range, each)? {
                    break;
                }
            }
            Ok(())
        }
    }
}

/// Returns the tenants that have any row, in the order of their keys: one seek each.
pub(crate) fn tenants(reader: &Reader<'_>) -> Result<Vec<Tenant>> {
    let mut cursor = reader.cursor(Family::Current, None);
    let mut tenants = Vec::new();
    cursor.seek_to_first();
    while let Some(found) = cursor.key() {
        let tenant = key::split_row_prefix(found)?.0;
        let mut past = tenant.as_str().as_bytes().to_vec();
        past.push(1);
        cursor.seek(past);
        tenants.push(tenant);
    }
    cursor.status()?;
    Ok(tenants)
}

fn of_tenant(
    reader: &Reader<'_>,
    table: TableId,
    tenant: &Tenant,
    range: &KeyRange,
    each: &mut dyn FnMut(&Entry<'_>) -> Result<bool>,
) -> Result<bool> {
    let table_prefix = key::table_prefix(tenant, table).len();
    let (from, to) = range.bounds(tenant, table);
    if to.as_ref().is_some_and(|to| *to <= from) {
        return Ok(true);
    }
    let mut cursor = reader.cursor(Family::Current, to);
    cursor.seek(&from);
    while let Some((prefix, value)) = cursor.item() {
        let current = Current::read(value)?;
        let unchanged = reader.is_unchanged(table, prefix, LATER_OF_ALL)?;
        let target = Target { prefix, current, unchanged };
        if !each(&Entry { tenant, target, table_prefix })? {
            return Ok(false);
        }
        cursor.next();
    }
    cursor.status()?;
    Ok(true)
}

/// Calls `each` for those of `keys` that have a row, in key order, until it answers false.
pub(crate) fn among(
    reader: &Reader<'_>,
    table: TableId,
    tenant: Option<&Tenant>,
    keys: &[RowKey],
    each: &mut dyn FnMut(&Entry<'_>) -> Result<bool>,
) -> Result<()> {
    let mut ordered: Vec<&RowKey> = keys.iter().collect();
    ordered.sort_unstable();
    ordered.dedup();
    let every = if tenant.is_none() { tenants(reader)? } else { Vec::new() };
    for tenant in tenant.into_iter().chain(&every) {
        let mut prefix = key::table_prefix(tenant, table);
        let table_prefix = prefix.len();
        for key in &ordered {
            prefix.truncate(table_prefix);
            prefix.extend_from_slice(key.as_bytes());
            let Some(value) = reader.current(&prefix)? else { continue };
            let current = Current::read(&value)?;
            let unchanged = reader.is_unchanged(table, &prefix, LATER_OF_SOME)?;
            let target = Target { prefix: &prefix, current, unchanged };
            if !each(&Entry { tenant, target, table_prefix })? {
                return Ok(());
            }
        }
    }
    Ok(())
}
