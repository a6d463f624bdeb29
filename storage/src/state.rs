//! What the writer publishes and readers look at: the last transaction, definitions, tenants, now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::definitions::Definitions;
use crate::error::Result;
use crate::meta::DefinitionVersions;
use crate::retention::Horizons;
use crate::schema::{TableId, Tenant};
use crate::time::{SystemTime, ValidTime};
use crate::tx::{Basis, TxId};

/// Shared between the writer and all readers.
pub(crate) struct State {
    clock: Arc<dyn Clock>,
    latest: RwLock<(TxId, SystemTime)>,
    /// A transaction that may be in a snapshot already, though not published yet.
    announced: AtomicU64,
    /// The latest `now` that was given out.
    now: AtomicI64,
    definitions: RwLock<DefinitionVersions>,
    tenants: RwLock<BTreeSet<Tenant>>,
    horizons: RwLock<Arc<Horizons>>,
    /// How often belief as of a transaction is held; see [`crate::retention`].
    pub(crate) holds: Mutex<BTreeMap<TxId, usize>>,
    commits: watch::Sender<TxId>,
    /// The last transactions at instants that were asked for, before the latest one.
    past: Mutex<BTreeMap<SystemTime, TxId>>,
}

/// Instants whose transactions are kept: reports ask at the same few again and again.
const PAST_MAX: usize = 1_024;

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("latest", &self.latest()).finish_non_exhaustive()
    }
}

impl State {
    /// Starts from what is stored.
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        latest: (TxId, SystemTime),
        now_floor: ValidTime,
        definitions: DefinitionVersions,
        tenants: BTreeSet<Tenant>,
        horizons: Horizons,
    ) -> Self {
        Self {
            clock,
            latest: RwLock::new(latest),
            announced: AtomicU64::new(latest.0.get()),
            now: AtomicI64::new(now_floor.micros().max(latest.1.micros())),
            definitions: RwLock::new(definitions),
            tenants: RwLock::new(tenants),
            horizons: RwLock::new(Arc::new(horizons)),
            holds: Mutex::default(),
            commits: watch::Sender::new(latest.0),
            past: Mutex::default(),
        }
    }

    pub(crate) const fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Returns the last transaction and its system time.
    pub(crate) fn latest(&self) -> (TxId, SystemTime) {
        *self.latest.read()
    }

    /// Returns the last transaction and the present instant, which never goes back.
    pub(crate) fn basis(&self) -> Basis {
        let (tx, system_time) = self.latest();
        let floor = self.clock.now_micros().max(system_time.micros());
        let now = self.now.fetch_max(floor, Ordering::SeqCst).max(floor);
        Basis { tx, now: ValidTime::from_micros(now) }
    }

    /// Returns the latest `now` that was given out.
    pub(crate) fn now(&self) -> ValidTime {
        ValidTime::from_micros(self.now.load(Ordering::SeqCst))
    }

    /// Returns a transaction that no snapshot taken before the call goes beyond.
    pub(crate) fn newest(&self) -> TxId {
        TxId::new(self.announced.load(Ordering::SeqCst))
    }

    /// Returns the last transaction at or before an instant: the latest, or what `search` finds up to it,
    /// which stays right for ever.
    pub(crate) fn tx_at(
        &self,
        at: SystemTime,
        search: impl FnOnce(TxId) -> Result<TxId>,
    ) -> Result<TxId> {
        let (latest, latest_at) = self.latest();
        if at >= latest_at {
            return Ok(latest);
        }
        if let Some(known) = self.past.lock().get(&at) {
            return Ok(*known);
        }
        let found = search(latest)?;
        let mut past = self.past.lock();
        if past.len() >= PAST_MAX {
            past.clear();
        }
        past.insert(at, found);
        Ok(found)
    }

    /// Returns the definitions in force.
    pub(crate) fn definitions(&self) -> Arc<Definitions> {
        let versions = self.definitions.read();
        versions.last_key_value().map(|(_, last)| Arc::clone(last)).unwrap_or_default()
    }

    /// Returns the definitions in force at a transaction.
    pub(crate) fn definitions_at(&self, tx: TxId) -> Arc<Definitions> {
        let versions = self.definitions.read();
        versions.range(..=tx).next_back().map(|(_, at)| Arc::clone(at)).unwrap_or_default()
    }

    /// Returns every version of the definitions, in order.
    pub(crate) fn definitions_history(&self) -> Vec<Arc<Definitions>> {
        self.definitions.read().values().cloned().collect()
    }

    /// Returns the tenants that have been written to, in order.
    pub(crate) fn tenants(&self) -> Vec<Tenant> {
        self.tenants.read().iter().cloned().collect()
    }

    /// Returns the oldest transactions that tables can be read at.
    pub(crate) fn horizons(&self) -> Arc<Horizons> {
        Arc::clone(&self.horizons.read())
    }

    /// Raises a table's horizon for all readers.
    pub(crate) fn set_horizon(&self, table: TableId, tx: TxId) {
        let mut horizons = self.horizons.write();
        Arc::make_mut(&mut horizons).insert(table, tx);
    }

    /// Returns a receiver that wakes on every commit.
    pub(crate) fn watch(&self) -> watch::Receiver<TxId> {
        self.commits.subscribe()
    }

    /// Says, before a write, how far it goes.
    pub(crate) fn announce(&self, tx: TxId) {
        self.announced.fetch_max(tx.get(), Ordering::SeqCst);
    }

    /// Makes a commit visible.
    pub(crate) fn publish(
        &self,
        tx: TxId,
        system_time: SystemTime,
        definitions: Option<(TxId, Arc<Definitions>)>,
        tenants: BTreeSet<Tenant>,
    ) {
        if let Some((at, definitions)) = definitions {
            self.definitions.write().insert(at, definitions);
        }
        if !tenants.is_empty() {
            self.tenants.write().extend(tenants);
        }
        *self.latest.write() = (tx, system_time);
        self.commits.send_replace(tx);
    }
}
