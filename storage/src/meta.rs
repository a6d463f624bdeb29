//! The `meta` family: definitions by version, source offsets, tenants, the floor of `now`.
//!
//! ```text
//! definitions 00 | tx 8                                     changes made by the tx, JSON
//! source 00 | stream 00 | topic 00 | partition 4            next offset 8, and see `source`
//! tenant 00 | name                                          -
//! now                                                       instant 8
//! horizon 00 | table 4                                      see `retention`
//! erase_secret, erased 00, erasing 00, erasure 00           see `erase` and its `ledger`
//! load                                                      what a load is putting in, JSON
//! size 00 | tenant 00 | table 4 | tx 8                      see `sizes`
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rocksdb::WriteBatch;

use crate::batch::{DeadLetter, SourceAdvance};
use crate::definitions::{DefinitionChange, Definitions};
use crate::engine::{DbSnapshot, Engine};
use crate::error::{Error, Result};
use crate::families::Family;
use crate::journal::SourceOffsets;
use crate::key;
use crate::load::Intent;
use crate::row;
use crate::schema::Tenant;
use crate::source::SourcePlace;
use crate::time::ValidTime;
use crate::tx::TxId;

const DEFINITIONS: &[u8] = b"definitions\0";
const SOURCE: &[u8] = b"source\0";
const TENANT: &[u8] = b"tenant\0";
const NOW: &[u8] = b"now";
const LOAD: &[u8] = b"load";

/// All versions of the definitions, by the transaction that made them.
pub(crate) type DefinitionVersions = BTreeMap<TxId, Arc<Definitions>>;

fn damaged(why: impl std::fmt::Display) -> Error {
    Error::Corrupt { what: "meta", why: why.to_string() }
}

/// Reads every version of the definitions; the first, before any transaction, is empty.
pub(crate) fn definitions(engine: &Engine) -> Result<DefinitionVersions> {
    let mut versions = DefinitionVersions::new();
    let mut last = Arc::new(Definitions::default());
    versions.insert(TxId::ZERO, Arc::clone(&last));
    engine.each_from(Family::Meta, DEFINITIONS, DEFINITIONS, |key, value| {
        let tx = TxId::new(key::split_number(&key[DEFINITIONS.len()..])?);
        let changes: Vec<DefinitionChange> = serde_json::from_slice(value).map_err(damaged)?;
        last = Arc::new(last.with(&changes, tx));
        versions.insert(tx, Arc::clone(&last));
        Ok(true)
    })?;
    Ok(versions)
}

/// Adds changes of the definitions by a transaction.
pub(crate) fn put_definitions(
    engine: &Engine,
    batch: &mut WriteBatch,
    tx: TxId,
    changes: &[DefinitionChange],
) -> Result<()> {
    let key = [DEFINITIONS, &key::number(tx.get())].concat();
    let value = serde_json::to_vec(changes)
        .map_err(|source| Error::Refused { reason: format!("definition: {source}") })?;
    batch.put_cf(engine.family(Family::Meta), key, value);
    Ok(())
}

/// Returns the changes of the definitions by a transaction as they are stored, JSON; no bytes where
/// it made none.
pub(crate) fn stored_definitions(
    snapshot: &DbSnapshot<'_>,
    engine: &Engine,
    tx: TxId,
) -> Result<Vec<u8>> {
    let key = [DEFINITIONS, &key::number(tx.get())].concat();
    Ok(snapshot.get_cf(engine.family(Family::Meta), key)?.unwrap_or_default())
}

/// Reads the next offsets of all sources.
pub(crate) fn sources(engine: &Engine) -> Result<SourceOffsets> {
    sources_in(&engine.db().snapshot(), engine)
}

/// Reads the next offsets of all sources as of a snapshot.
pub(crate) fn sources_in(snapshot: &DbSnapshot<'_>, engine: &Engine) -> Result<SourceOffsets> {
    let mut offsets = SourceOffsets::new();
    let mut entries = engine.iterator_in(snapshot, Family::Meta);
    entries.seek(SOURCE);
    while let Some((key, value)) = entries.item() {
        if !key.starts_with(SOURCE) {
            break;
        }
        let mut parts = key[SOURCE.len()..].splitn(3, |byte| *byte == 0);
        let mut text = || {
            let part = parts.next().ok_or_else(|| damaged("source key too short"))?;
            Ok::<_, Error>(part)
        };
        let (stream, topic, partition) = (text()?, text()?, text()?);
        let name = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(damaged);
        let partition = i32::from_be_bytes(partition.try_into().map_err(damaged)?);
        let place = SourcePlace::read(value)?;
        offsets.insert((name(stream)?, name(topic)?, partition), place);
        entries.next();
    }
    entries.status()?;
    Ok(offsets)
}

/// Adds the next offset of a source.
pub(crate) fn put_source(engine: &Engine, batch: &mut WriteBatch, source: &SourceAdvance) {
    let mut key = SOURCE.to_vec();
    for name in [&source.stream, &source.topic] {
        key.extend_from_slice(name.as_bytes());
        key.push(0);
    }
    key.extend_from_slice(&source.partition.to_be_bytes());
    let place = SourcePlace { next_offset: source.next_offset, log: source.log };
    batch.put_cf(engine.family(Family::Meta), key, place.value());
}

/// Reads the tenants that have been written to.
pub(crate) fn tenants(engine: &Engine) -> Result<BTreeSet<Tenant>> {
    let mut tenants = BTreeSet::new();
    engine.each_from(Family::Meta, TENANT, TENANT, |key, _| {
        let name = std::str::from_utf8(&key[TENANT.len()..]).map_err(damaged)?;
        tenants.insert(Tenant::new(name)?);
        Ok(true)
    })?;
    Ok(tenants)
}

/// Adds a tenant.
pub(crate) fn put_tenant(engine: &Engine, batch: &mut WriteBatch, tenant: &Tenant) {
    let key = [TENANT, tenant.as_str().as_bytes()].concat();
    batch.put_cf(engine.family(Family::Meta), key, []);
}

/// Reads what a load was putting in when the process ended; nothing where none was.
pub(crate) fn load_intent(engine: &Engine) -> Result<Option<Intent>> {
    let stored = engine.get(Family::Meta, LOAD)?;
    stored.map(|json| serde_json::from_slice(&json).map_err(damaged)).transpose()
}

/// Adds what a load is about to put in, or that it is done.
pub(crate) fn put_load_intent(
    engine: &Engine,
    batch: &mut WriteBatch,
    intent: Option<&Intent>,
) -> Result<()> {
    let family = engine.family(Family::Meta);
    match intent {
        Some(intent) => {
            let json = serde_json::to_vec(intent)
                .map_err(|source| Error::Refused { reason: format!("load: {source}") })?;
            batch.put_cf(family, LOAD, json);
        }
        None => batch.delete_cf(family, LOAD),
    }
    Ok(())
}

/// Reads what `now` may not go below.
pub(crate) fn now_floor(engine: &Engine) -> Result<ValidTime> {
    match engine.get(Family::Meta, NOW)? {
        Some(bytes) => row::take_instant(&mut bytes.as_slice()),
        None => Ok(ValidTime::BEGIN),
    }
}

/// Adds what `now` may not go below after the next start.
pub(crate) fn put_now_floor(engine: &Engine, batch: &mut WriteBatch, now: ValidTime) {
    batch.put_cf(engine.family(Family::Meta), NOW, now.micros().to_le_bytes());
}

/// Adds a dead letter: its description as JSON, then its raw bytes.
pub(crate) fn put_dead_letter(
    engine: &Engine,
    batch: &mut WriteBatch,
    mut letter: DeadLetter,
) -> Result<()> {
    let raw = std::mem::take(&mut letter.value);
    let described = serde_json::to_vec(&letter)
        .map_err(|source| Error::Refused { reason: format!("dead letter: {source}") })?;
    let mut value = vec![row::FORMAT];
    row::put_varint(&mut value, described.len() as u64);
    value.extend_from_slice(&described);
    value.extend_from_slice(&raw);
    batch.put_cf(engine.family(Family::DeadLetters), key::number(letter.id), value);
    Ok(())
}

/// Refuses the value of a dead letter that cannot be read.
pub(crate) fn check_letter(value: &[u8]) -> Result<()> {
    read_dead_letter(value).map(drop)
}

/// Returns dead letters with ids above `after`, in order, at most `limit`.
pub(crate) fn dead_letters(engine: &Engine, after: u64, limit: usize) -> Result<Vec<DeadLetter>> {
    let mut found = Vec::new();
    if limit == 0 {
        return Ok(found);
    }
    let start = key::number(after.saturating_add(1));
    engine.each_from(Family::DeadLetters, &[], &start, |_, value| {
        found.push(read_dead_letter(value)?);
        Ok(found.len() < limit)
    })?;
    Ok(found)
}

/// Reads the value of a dead letter.
pub(crate) fn read_dead_letter(mut value: &[u8]) -> Result<DeadLetter> {
    row::take_format(&mut value)?;
    let length = row::take_length(&mut value)?;
    let described = row::take_slice(&mut value, length)?;
    let mut letter: DeadLetter = serde_json::from_slice(described).map_err(damaged)?;
    letter.value = value.to_vec();
    Ok(letter)
}

/// Returns the id of the last dead letter; 0 where there is none.
pub(crate) fn last_dead_letter(engine: &Engine) -> Result<u64> {
    let mut letters = engine.iterator(Family::DeadLetters);
    letters.seek_to_last();
    let last = letters.key().map(key::split_number).transpose()?;
    letters.status()?;
    Ok(last.unwrap_or(0))
}
