//! What a transaction's own earlier statements make of a key, before anything is committed. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use everwhen_storage::{
    Assertion, Basis, Op, Period, Row, RowKey, TableId, Tenant, TxId, ValidBound, ValidTime,
    Version, Write, WriteKind,
};

/// The assertions of one table by key, in statement order.
type OfTable = BTreeMap<RowKey, Vec<Assertion>>;

/// The uncommitted writes of the transaction that a statement is part of.
#[derive(Debug, Clone, Default)]
pub struct Pending(Arc<BTreeMap<TableId, OfTable>>);

impl Pending {
    /// Gathers the writes of one tenant's transaction.
    pub fn of(writes: &[Write]) -> Self {
        let mut tables: BTreeMap<TableId, OfTable> = BTreeMap::new();
        for write in writes {
            if let WriteKind::Assert { key, assertion, .. } = &write.kind {
                let of_key = tables.entry(write.table).or_default().entry(key.clone());
                of_key.or_default().push(assertion.clone());
            }
        }
        Self(Arc::new(tables))
    }

    /// Returns the keys of a table that were written.
    pub fn keys(&self, table: TableId) -> Option<&BTreeMap<RowKey, Vec<Assertion>>> {
        self.0.get(&table)
    }
}

/// Returns the transaction that pending writes will be.
pub fn pending_tx(basis: Basis) -> TxId {
    basis.tx.plus(1)
}

/// Returns a key's versions after its pending assertions: those of `before` that were all of its
/// versions at the basis, changed as later-recorded wins.
pub fn applied(
    tenant: &Tenant,
    key: &RowKey,
    before: Vec<Version>,
    assertions: &[Assertion],
    basis: Basis,
) -> Vec<Version> {
    let mut versions = before;
    for assertion in assertions {
        let Some(period) = assertion.period(basis.now.micros()) else { continue };
        versions = one(tenant, key, versions, assertion, period, basis);
    }
    versions.sort_by_key(|version| version.valid.from());
    versions
}

fn one(
    tenant: &Tenant,
    key: &RowKey,
    before: Vec<Version>,
    assertion: &Assertion,
    period: Period<ValidTime>,
    basis: Basis,
) -> Vec<Version> {
    let version = |valid, row| Version {
        tenant: tenant.clone(),
        key: key.clone(),
        valid,
        tx_from: pending_tx(basis),
        tx_to: None,
        row,
    };
    let mut after = Vec::with_capacity(before.len() + 2);
    let mut gaps = vec![period];
    for old in before {
        let Some(shared) = old.valid.intersect(&period) else {
            after.push(old);
            continue;
        };
        gaps = gaps.into_iter().flat_map(|gap| without(&gap, &shared)).collect();
        for kept in without(&old.valid, &shared) {
            after.push(Version { valid: kept, ..old.clone() });
        }
        if let Op::Patch { set_nulls } = assertion.op {
            after.push(version(shared, patched(old.row, &assertion.fields, set_nulls)));
        }
    }
    match assertion.op {
        Op::Put => after.push(version(period, assertion.fields.clone().without_nulls())),
        Op::Patch { .. } => {
            for gap in gaps {
                after.push(version(gap, assertion.fields.clone().without_nulls()));
            }
        }
        Op::Delete => {}
    }
    after
}

fn patched(mut row: Row, fields: &Row, set_nulls: bool) -> Row {
    for (column, value) in fields.fields() {
        match (value.is_null(), set_nulls) {
            (false, _) => row.set(*column, value.clone()),
            (true, true) => row.unset(*column),
            (true, false) => {}
        }
    }
    row
}

/// Returns the parts of `whole` outside `hole`.
fn without(whole: &Period<ValidTime>, hole: &Period<ValidTime>) -> Vec<Period<ValidTime>> {
    if !whole.overlaps(hole) {
        return vec![*whole];
    }
    let before = Period::nonempty(whole.from(), hole.from());
    let after = Period::nonempty(hole.to(), whole.to());
    before.into_iter().chain(after).collect()
}

/// True where a version is among those that a bound reads.
pub fn in_bound(version: &Version, bound: ValidBound) -> bool {
    match bound {
        ValidBound::AsOf(at) => version.valid.contains(at),
        ValidBound::Overlapping(period) => version.valid.overlaps(&period),
    }
}
