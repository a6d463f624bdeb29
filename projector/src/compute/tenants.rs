//! Tenants with rows in the tables of a projection that does not cover them.

use std::collections::BTreeSet;

use everwhen_storage::{Keys, Scan, Store, SystemBound, TableDef, Tenant, TxId, ValidBound};
use parking_lot::Mutex;

use super::definition::Body;
use crate::error::Result;

/// The uncovered tenants of one projection, as far as the store was looked through.
#[derive(Debug, Default)]
pub struct Uncovered {
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    through: Option<TxId>,
    tenants: BTreeSet<Tenant>,
}

impl Uncovered {
    /// Counts the tenants, and logs those that have appeared since the last look. Cheap as long as no
    /// transaction comes; then a look-up for each tenant and table that had no rows so far.
    ///
    /// # Errors
    /// Those of the store.
    pub fn count(
        &self,
        store: &Store,
        projection: &str,
        body: &Body,
        tables: impl FnOnce() -> Result<Vec<TableDef>>,
    ) -> Result<usize> {
        let mut found = self.found.lock();
        let latest = store.latest().tx;
        if found.through == Some(latest) {
            return Ok(found.tenants.len());
        }
        let is_new = |tenant: &Tenant| !body.covers(tenant) && !found.tenants.contains(tenant);
        let candidates: Vec<Tenant> = store.tenants().into_iter().filter(is_new).collect();
        if !candidates.is_empty() {
            let appeared = with_rows(store, latest, &tables()?, candidates)?;
            if let Some(first) = appeared.first() {
                tracing::warn!(
                    projection,
                    tenants = appeared.len(),
                    first = %first,
                    "tenants have rows that the projection does not cover"
                );
            }
            found.tenants.extend(appeared);
        }
        found.through = Some(latest);
        Ok(found.tenants.len())
    }
}

/// Returns those of the tenants that have rows in one of the tables.
fn with_rows(
    store: &Store,
    tx: TxId,
    tables: &[TableDef],
    tenants: Vec<Tenant>,
) -> Result<Vec<Tenant>> {
    let mut having = Vec::new();
    for tenant in tenants {
        for table in tables {
            if has_rows(store, tx, table, &tenant)? {
                having.push(tenant);
                break;
            }
        }
    }
    Ok(having)
}

fn has_rows(store: &Store, tx: TxId, table: &TableDef, tenant: &Tenant) -> Result<bool> {
    if let Some(keys) = store.keys_at(table.id, tenant, tx)? {
        return Ok(keys > 0);
    }
    // Not counted: either there are none, or an earlier version wrote them.
    let mut any = false;
    store.read_unerased(tx, |view| {
        let scan = Scan {
            table,
            tenant: Some(tenant),
            keys: Keys::All,
            valid: ValidBound::ALL,
            system: SystemBound::Latest,
            columns: Some(&[]),
            whole: true,
        };
        view.scan_borrowed(&scan, &mut |_| {
            any = true;
            Ok(false)
        })
    })?;
    Ok(any)
}
