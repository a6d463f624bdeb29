//! Erasing keys: out of sight at one transaction, their bytes gone soon after.
//!
//! ```text
//! ERASE (writer)      belief ends over all of valid time, assertions and event ids go, the header
//!                     of `current` says since when; readers see nothing from before
//! projections pass    they read the key as it was, so that their sinks delete what came of it
//! purge               rows, changes, bounds, index entries and dead letters are deleted
//! compaction          deleted bytes leave every file: tables, logs, the manifest
//! ```
//!
//! A keyed hash of the key stays and meets records that a stream brings again. The ledger
//! ([`ledger`]) says how far each erasure is; a crash resumes it. No key stands in a file name, in
//! the log or in the ledger's finished part.

pub(crate) mod again;
pub(crate) mod bytes;
pub(crate) mod journal;
pub(crate) mod ledger;
pub(crate) mod letters;
pub(crate) mod purge;

use std::collections::HashMap;

use rocksdb::WriteBatch;
use siphasher::sip128::SipHasher24;

use crate::batch::Batch;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::families::Family;
use crate::row;
use crate::schema::{TableId, Tenant};
use crate::time::{SystemTime, ValidTime};
use crate::tx::TxId;

/// Under it stands, per keyed hash, when the key was erased.
const ERASED: &[u8] = b"erased\0";
/// Under it stands the key of the hash.
const SECRET: &[u8] = b"erase_secret";

/// How far an erasure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErasureState {
    /// No query sees the key any more; projections take it out of their sinks.
    Hidden,
    /// Its rows are deleted; files are rewritten without their bytes.
    Purged,
    /// Its bytes are gone from the data directory.
    Erased,
}

impl ErasureState {
    /// Returns the word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hidden => "hidden",
            Self::Purged => "purged",
            Self::Erased => "erased",
        }
    }
}

/// One key that was erased, without the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    pub tenant: Tenant,
    pub table: TableId,
    /// The transaction from which on nothing shows the key.
    pub tx: TxId,
    /// Its system time.
    pub requested_at: SystemTime,
    /// SipHash-2-4-128 of tenant, table and key, under a secret of the data directory.
    pub key_hash: u128,
    pub state: ErasureState,
    /// When the bytes were gone.
    pub purged_at: Option<SystemTime>,
}

/// What one call of [`crate::Store::advance_erasures`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EraseProgress {
    /// Keys whose rows were deleted by this call.
    pub purged: usize,
    /// Keys whose bytes were found gone by this call.
    pub erased: usize,
    /// Keys that are hidden and wait for projections.
    pub hidden: usize,
    /// Keys that wait until no reader holds the old files; call again.
    pub waiting: usize,
}

/// Returns the hash of a row prefix (tenant, table, key) under a secret.
fn hash_under(secret: &[u8; 16], prefix: &[u8]) -> u128 {
    SipHasher24::new_with_key(secret).hash(prefix).as_u128()
}

/// The keyed hashes of all keys that were erased; about 50 bytes of memory each.
#[derive(Debug, Default)]
pub(crate) struct Erased {
    secret: Option<[u8; 16]>,
    /// The system time of the last erasure, by hash.
    at: HashMap<u128, SystemTime>,
}

impl Erased {
    /// Reads what is stored.
    pub(crate) fn load(engine: &Engine) -> Result<Self> {
        let damaged = |why: &str| Error::Corrupt { what: "erasure", why: why.to_owned() };
        let secret = match engine.get(Family::Meta, SECRET)? {
            Some(bytes) => {
                Some(bytes.try_into().map_err(|_| damaged("the secret is not 16 bytes"))?)
            }
            None => None,
        };
        let mut at = HashMap::new();
        engine.each_from(Family::Meta, ERASED, ERASED, |key, mut value| {
            let hash = key[ERASED.len()..].try_into().map_err(|_| damaged("hash length"))?;
            row::take_format(&mut value)?;
            let micros = i64::from_le_bytes(row::take_array(&mut value)?);
            at.insert(u128::from_be_bytes(hash), SystemTime::from_micros(micros));
            Ok(true)
        })?;
        if !at.is_empty() && secret.is_none() {
            return Err(damaged("hashes without their secret"));
        }
        Ok(Self { secret, at })
    }

    /// Makes the secret where there is none and batches erase; it is stored with each erasure.
    pub(crate) fn prepare(&mut self, batches: &[Batch]) {
        if self.secret.is_none() && batches.iter().any(Batch::erases) {
            let (one, two) = (uuid::Uuid::new_v4().into_bytes(), uuid::Uuid::new_v4().into_bytes());
            // The few bits that a UUID fixes stand elsewhere in the other one.
            self.secret = Some(std::array::from_fn(|at| one[at] ^ two[(at + 5) % 16]));
        }
    }

    /// Returns the keyed hash of a row prefix (tenant, table, key); nothing without a secret.
    pub(crate) fn hash(&self, prefix: &[u8]) -> Option<u128> {
        Some(hash_under(self.secret.as_ref()?, prefix))
    }

    /// Returns when a key was erased last, by its hash.
    pub(crate) fn mark(&self, hash: u128) -> Option<SystemTime> {
        self.at.get(&hash).copied()
    }

    /// Returns the secret, where there is one.
    pub(crate) const fn secret(&self) -> Option<&[u8; 16]> {
        self.secret.as_ref()
    }

    /// True for a key that was erased at or after `valid_from`: what a stream says of it then is
    /// what was to be forgotten.
    pub(crate) fn hides(&self, prefix: &[u8], valid_from: ValidTime) -> bool {
        if self.at.is_empty() {
            return false;
        }
        let at = self.hash(prefix).and_then(|hash| self.at.get(&hash));
        at.is_some_and(|at| valid_from.micros() <= at.micros())
    }

    /// Takes over erasures that are durable: keyed hashes with their system times.
    pub(crate) fn extend(&mut self, erased: Vec<(u128, SystemTime)>) {
        self.at.extend(erased);
    }

    /// Adds an erasure to a batch, with the secret.
    pub(crate) fn put(&self, engine: &Engine, writes: &mut WriteBatch, hash: u128, at: SystemTime) {
        let family = engine.family(Family::Meta);
        if let Some(secret) = &self.secret {
            writes.put_cf(family, SECRET, secret);
        }
        let mut value = vec![row::FORMAT];
        value.extend_from_slice(&at.micros().to_le_bytes());
        writes.put_cf(family, [ERASED, &hash.to_be_bytes()].concat(), value);
    }
}
