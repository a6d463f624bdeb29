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

/// Says what is wrong with the ledgers of a target.
pub(super) fn problems(target: &Target) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for found in target.place().list("erasures")? {
        if let Some(bytes) = target.place().whole(&found.name)?
            && let Err(why) = unseal::<Ledger>(&KIND, &bytes)
        {
            problems.push(format!("{}: {why}", target.place().shown(&found.name)));
        }
    }
    Ok(problems)
}

/// Returns the erasures after a snapshot that the target knows of directories with its past, in the
/// order of their times; `has` says which of their transactions the restored directory has.
pub(super) fn since(
    target: &Target,
    manifest: &Manifest,
    has: impl Fn(&str, TxId) -> bool,
) -> Result<Vec<Again>> {
    let mut all = Vec::new();
    for (name, ledger) in ledgers(target, manifest)? {
        let secret = hex(target, &name, &ledger.secret)?.to_be_bytes();
        for line in ledger.erasures {
            let tx = TxId::new(line.tx);
            if ledger.incarnation == manifest.incarnation && tx <= manifest.tx() {
                continue;
            }
            all.push(Again {
                secret,
                hash: hex(target, &name, &line.hash)?,
                tenant: Tenant::new(&line.tenant)?,
                table: TableId(line.table),
                table_name: line.table_name,
                at: SystemTime::from_micros(line.at),
                is_new: !has(&ledger.incarnation, tx),
            });
        }
    }
    all.sort_by_key(|again| again.at);
    Ok(all)
}

/// Returns the secret that directories with a snapshot's past hash under, if they erased anything.
pub(super) fn secret(target: &Target, manifest: &Manifest) -> Result<Option<[u8; 16]>> {
    match ledgers(target, manifest)?.first() {
        Some((name, ledger)) => Ok(Some(hex(target, name, &ledger.secret)?.to_be_bytes())),
        None => Ok(None),
    }
}

/// Returns the ledgers of directories with a snapshot's past, with the names of their files.
fn ledgers(target: &Target, manifest: &Manifest) -> Result<Vec<(String, Ledger)>> {
    let mut all = Vec::new();
    for found in target.place().list("erasures")? {
        let Some(bytes) = target.place().whole(&found.name)? else { continue };
        let ledger: Ledger =
            unseal(&KIND, &bytes).map_err(|why| damaged(target, &found.name, &why))?;
        let lineage = Lineage {
            incarnation: ledger.incarnation.clone(),
            ancestors: ledger.ancestors.clone(),
            began_at: 0,
        };
        if lineage.has(manifest) {
            all.push((found.name, ledger));
        }
    }
    Ok(all)
}

fn damaged(target: &Target, name: &str, why: &str) -> Error {
    let why = format!("{why}; without it what was erased could come back");
    Error::Snapshot { place: target.place().shown(name), why }
}

fn hex(target: &Target, name: &str, text: &str) -> Result<u128> {
    u128::from_str_radix(text, 16).map_err(|_| damaged(target, name, "a hash is none"))
}
