//! Rows that a sink does not accept: their keys are held until a later change of theirs is accepted.
//!
//! The delivery process reports a row before the sink's control row moves past it, and a report is
//! durable before it is answered: so whatever crashes, a row that the sink lacks is known as held.

use std::collections::BTreeMap;

use everwhen_storage::{Store, Tenant};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::cursor::{Entries, decode, encode, refused_key, refused_prefix};
use super::projection::{Chunk, Projection};
use crate::error::{Error, Result};

/// The longest reason that is kept, in characters.
const REASON_CHARS_MAX: usize = 500;

/// A key whose last change the sink did not accept. Kept as JSON in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Whose key.
    pub tenant: String,
    /// The key's values as a JSON array.
    pub key: String,
    /// Why, in the sink's words.
    pub reason: String,
    /// The transaction of the step with the change.
    pub tx: u64,
    /// The number of the change.
    pub change: u64,
    /// Since when the key is held, in microseconds.
    pub since: i64,
}

/// A row that a sink does not accept, as the delivery process reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRow {
    /// The number of the change.
    pub change: u64,
    /// Why, in the sink's words.
    pub reason: String,
}

/// What a delivery process acknowledges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acked {
    /// The last change that is durable in the sink, or was passed over.
    pub change: u64,
    /// The changes of the chunk that were passed over.
    pub refused: Vec<u64>,
    /// The first change that the process has seen decided itself; 0 where it does not say.
    pub decided_from: u64,
}

/// The keys of a projection that are held for the sink.
#[derive(Debug, Default)]
pub struct Refusals {
    by_key: Mutex<ByKey>,
}

type ByKey = BTreeMap<(Tenant, String), Refused>;

impl Refusals {
    /// Reads what is kept.
    pub fn open(store: &Store, projection: &str) -> Result<Self> {
        let mut by_key = BTreeMap::new();
        for (_, bytes) in store.cursors(&refused_prefix(projection), usize::MAX)? {
            let entry: Refused = decode(projection, &bytes)?;
            by_key.insert((Tenant::new(&entry.tenant)?, entry.key.clone()), entry);
        }
        Ok(Self { by_key: Mutex::new(by_key) })
    }

    /// Returns all, in order of tenant and key.
    pub fn all(&self) -> Vec<(Tenant, Refused)> {
        let by_key = self.by_key.lock();
        by_key.iter().map(|((tenant, _), entry)| (tenant.clone(), entry.clone())).collect()
    }

    /// Returns how many keys are held, and since when the first of them.
    pub fn extent(&self) -> (usize, Option<i64>) {
        let by_key = self.by_key.lock();
        (by_key.len(), by_key.values().map(|entry| entry.since).min())
    }

    /// Forgets all: a new generation writes every row anew.
    pub fn clear(&self) {
        self.by_key.lock().clear();
    }
}

impl Projection {
    /// Holds the keys of rows of the chunk under way; durable when it returns.
    ///
    /// # Errors
    /// Those of the store.
    pub fn refuse_rows(&self, store: &Store, rows: &[RefusedRow]) -> Result<()> {
        let Some(chunk) = self.chunk(store)? else { return Ok(()) };
        let now = store.clock().now_micros();
        self.of_generation(&chunk, |by_key| {
            let mut entries: Entries = Vec::new();
            let mut held = Vec::new();
            for row in rows {
                let Some(id) = self.key_of(&chunk, row.change)? else {
                    let change = row.change;
                    tracing::warn!(projection = %self.name, change, "a row that is not on its way");
                    continue;
                };
                let entry = Refused {
                    tenant: id.0.as_str().to_owned(),
                    key: id.1.clone(),
                    reason: row.reason.chars().take(REASON_CHARS_MAX).collect(),
                    tx: chunk.tx,
                    change: row.change,
                    since: by_key.get(&id).map_or(now, |entry| entry.since),
                };
                let at = refused_key(&self.name, &id.0, &id.1);
                entries.push((at, Some(encode(&self.name, &entry)?)));
                held.push((id, entry));
            }
            if !entries.is_empty() {
                self.put(store, &entries, true)?;
                by_key.extend(held);
            }
            Ok(())
        })
    }

    /// Releases the keys of which the acknowledged chunk holds a change that the sink accepted. To be
    /// called before the chunk is dropped.
    ///
    /// # Errors
    /// Those of the store.
    pub fn settle(&self, store: &Store, acked: &Acked) -> Result<()> {
        if self.refusals.extent().0 == 0 {
            return Ok(());
        }
        let Some(chunk) = self.chunk(store)? else { return Ok(()) };
        self.of_generation(&chunk, |by_key| {
            let mut entries: Entries = Vec::new();
            for (change, _) in (chunk.first_change..=acked.change).zip(chunk.changes.iter()) {
                let Some(id) = self.key_of(&chunk, change)? else { continue };
                let Some(entry) = by_key.get(&id) else { continue };
                // A change from before the lease may have been passed over: only a later one tells.
                let decided = acked.decided_from > 0 && change >= acked.decided_from;
                let accepted = change > entry.change || (decided && change == entry.change);
                if accepted && !acked.refused.contains(&change) {
                    entries.push((refused_key(&self.name, &id.0, &id.1), None));
                    by_key.remove(&id);
                }
            }
            if !entries.is_empty() {
                // If this is lost, so is the acknowledgement, and both come again.
                self.put(store, &entries, false)?;
            }
            Ok(())
        })
    }

    /// Works on the keys held, unless a new generation has begun since the chunk was read.
    fn of_generation(
        &self,
        chunk: &Chunk,
        work: impl FnOnce(&mut ByKey) -> Result<()>,
    ) -> Result<()> {
        // The state is locked first here and where a generation begins.
        self.leasing(|_, state| {
            if state.generation != chunk.generation {
                return Ok(());
            }
            work(&mut self.refusals.by_key.lock())
        })
    }

    /// Returns tenant and key of a change of a chunk, the key as a JSON array.
    fn key_of(&self, chunk: &Chunk, change: u64) -> Result<Option<(Tenant, String)>> {
        let place = change.checked_sub(chunk.first_change).and_then(|at| usize::try_from(at).ok());
        let Some(row) = place.and_then(|at| chunk.changes.get(at)) else { return Ok(None) };
        let corrupt = |why: String| Error::Corrupt { projection: self.name.clone(), why };
        let row: Map<String, Json> =
            serde_json::from_str(&row.row_json).map_err(|error| corrupt(error.to_string()))?;
        let values = self.body.key.iter().map(|name| row.get(name).cloned().unwrap_or(Json::Null));
        let key = Json::Array(values.collect()).to_string();
        let tenant = match &self.body.tenant_column {
            Some(name) => match row.get(name) {
                Some(Json::String(tenant)) => Tenant::new(tenant)?,
                _ => return Err(corrupt(format!("change {change} names no tenant"))),
            },
            None => self.body.only_tenant(),
        };
        Ok(Some((tenant, key)))
    }
}
