//! The ledger of erasures beside the snapshots: an older snapshot holds what was erased since, so a
//! restore of it must erase again.
//!
//! ```text
//! erasures/INCARNATION/FIRST-LAST.json   those of transactions FIRST to LAST, keys as keyed hashes
//! ```

use serde::{Deserialize, Serialize};

use super::journal::Lineage;
use super::manifest::{Ancestor, Manifest};
use super::sealed::{Kind, seal, unseal};
use super::target::Target;
use crate::erase::again::Again;
use crate::error::{Error, Result};
use crate::schema::{TableId, Tenant};
use crate::store::Store;
use crate::time::SystemTime;
use crate::tx::TxId;

const KIND: Kind = Kind { word: "erasures", format: 1, what: "ledger of erasures" };

/// Some erasures of one data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Ledger {
    incarnation: String,
    /// Of the directory; an erasure in one of them is an erasure in the other.
    ancestors: Vec<Ancestor>,
    /// The key of the hashes, 32 hex digits.
    secret: String,
    erasures: Vec<Line>,
}

/// One erasure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    tx: u64,
    /// Its system time, in microseconds since the Unix epoch.
    at: i64,
    tenant: String,
    table: u32,
    /// A table of another history may have the same number.
    table_name: String,
    /// The keyed hash, 32 hex digits.
    hash: String,
}

fn folder(incarnation: &str) -> String {
    format!("erasures/{incarnation}")
}

/// Returns the last erasure of a data directory that the target knows.
pub(super) fn last(target: &Target, incarnation: &str) -> Result<Option<TxId>> {
    let found = target.place().list(&folder(incarnation))?;
    let last = |name: &str| -> Option<TxId> {
        let (_, last) = name.strip_suffix(".json")?.rsplit_once('-')?;
        Some(TxId::new(last.parse().ok()?))
    };
    Ok(found.iter().filter_map(|found| last(&found.name)).max())
}

/// Writes a store's erasures after a transaction into the ledger; answers with the last one in it.
pub(super) fn put(store: &Store, target: &Target, after: TxId) -> Result<TxId> {
    let mut new = store.erasures()?;
    new.retain(|erasure| erasure.tx > after);
    let (Some(first), Some(last)) = (new.first(), new.last()) else { return Ok(after) };
    let (first, last) = (first.tx, last.tx);
    let definitions = store.definitions();
    let secret = store.erase_secret()?;
    let lines = new.iter().map(|erasure| Line {
        tx: erasure.tx.get(),
        at: erasure.requested_at.micros(),
        tenant: erasure.tenant.as_str().to_owned(),
        table: erasure.table.0,
        table_name: definitions
            .table_by_id(erasure.table)
            .map_or_else(String::new, |table| table.name.clone()),
        hash: format!("{:032x}", erasure.key_hash),
    });
    let ledger = Ledger {
        incarnation: store.incarnation(),
        ancestors: super::restore::ancestors(store.engine()?.path())?,
        secret: format!("{:032x}", u128::from_be_bytes(secret.unwrap_or_default())),
        erasures: lines.collect(),
    };
    let text = seal(&KIND, &ledger).map_err(|why| target.error(why))?;
    let folder = folder(&ledger.incarnation);
    let name = format!("{folder}/{:020}-{:020}.json", first.get(), last.get());
    // One of this name says the same.
    target.place().create(&name, text.as_bytes())?;
    Ok(last)
}

/// Returns the erasures that a restored directory may lack: all that the target knows of directories
/// that have the snapshot's past, in the order of their times, but those that `has` says it has.
pub(super) fn since(
    target: &Target,
    manifest: &Manifest,
    has: impl Fn(&str, TxId) -> bool,
) -> Result<Vec<Again>> {
    let mut all = Vec::new();
    for found in target.place().list("erasures")? {
        let damaged = |why: String| {
            let why = format!("{why}; without it what was erased could come back");
            Error::Snapshot { place: target.place().shown(&found.name), why }
        };
        let Some(bytes) = target.place().whole(&found.name)? else { continue };
        let ledger: Ledger = unseal(&KIND, &bytes).map_err(damaged)?;
        let lineage = Lineage {
            incarnation: ledger.incarnation.clone(),
            ancestors: ledger.ancestors,
            began_at: 0,
        };
        if !lineage.has(manifest) {
            continue;
        }
        let hex = |text: &str| {
            u128::from_str_radix(text, 16).map_err(|_| damaged("a hash is none".to_owned()))
        };
        let secret = hex(&ledger.secret)?.to_be_bytes();
        for line in ledger.erasures {
            if has(&ledger.incarnation, TxId::new(line.tx)) {
                continue;
            }
            all.push(Again {
                secret,
                hash: hex(&line.hash)?,
                tenant: Tenant::new(&line.tenant)?,
                table: TableId(line.table),
                table_name: line.table_name,
                at: SystemTime::from_micros(line.at),
            });
        }
    }
    all.sort_by_key(|again| again.at);
    Ok(all)
}
