//! One projection while the server runs: its program, its state, and steps over them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use everwhen_storage::{
    Basis, Definitions, Hold, RowKey, Store, SystemTime, TableDef, Tenant, TxId, ValidTime,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::admit::Program;
use super::chunks::ChunkWriter;
use super::cursor::{
    Delivered, Entries, Held, Loading, Outstanding, RowChange, State, chunk_key, chunks_prefix,
    decode, decode_chunk, encode, held_key, held_prefix, met_key, met_prefix, prefix, read,
    state_key,
};
use super::definition::Body;
use super::full::Full;
use super::lease::Leasing;
use super::memory::Memory;
use super::refusal::Refusals;
use super::step::{HeldKeys, LoadPlace, Step, Work, next_boundary};
use super::tenants::Uncovered;
use crate::error::{Error, Result};

/// Chunks of a load that may wait for the sink while more of it is computed.
const LOAD_CHUNKS_MAX: usize = 64;

/// A projection that is defined now.
pub struct Projection {
    /// Its name.
    pub name: String,
    /// Its definition.
    pub body: Body,
    /// The transaction that made the definition.
    pub definition_tx: u64,
    /// Held while a step is computed.
    pub(super) computing: Mutex<()>,
    /// A process before this one ended in a step, and none has succeeded since.
    ended_before: AtomicBool,
    /// Dropped or replaced: the durable state is another's now. Held while that is written.
    ended: Mutex<bool>,
    /// With the definitions under which it was found to be right.
    program: Mutex<Option<(Arc<Definitions>, Arc<Program>)>>,
    pub(super) shared: Mutex<Shared>,
    /// Keys whose rows the sink did not accept.
    pub refusals: Refusals,
    /// Tenants that it does not cover.
    pub uncovered: Uncovered,
    /// Wakes who waits for a chunk, or for the lease to end.
    pub offered: Notify,
    /// Wakes the projection's own task.
    pub wake: Notify,
}

/// What the computing, the delivering and the listing half know of a projection.
pub(super) struct Shared {
    pub(super) state: State,
    held: Arc<HeldKeys>,
    /// See [`Work::known`].
    known: Arc<BTreeSet<Tenant>>,
    leasing: Leasing,
    /// What went wrong last, and until when not to try again.
    pub(super) failure: Option<Failure>,
    /// What the sink refused last.
    refused: Option<String>,
    /// When the clock next changes something, as known at the delivered basis.
    boundary: Option<ValidTime>,
    boundary_known: bool,
    first_chunk: Option<(u64, Arc<Vec<RowChange>>)>,
    /// Keeps what a load reads between its parts.
    pin: Option<Hold>,
    /// So many times is what a step reads halved, since more did not fit in memory.
    halved: u32,
}

/// An error, and until when the step is not tried again.
pub(super) struct Failure {
    text: String,
    retry_at: Instant,
    at: Basis,
}

/// A chunk of changes on its way to a sink.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// The projection.
    pub projection: String,
    /// Its generation.
    pub generation: u64,
    /// The transaction the step leads to.
    pub tx: u64,
    /// The number of the first change.
    pub first_change: u64,
    /// The changes, numbered from there.
    pub changes: Arc<Vec<RowChange>>,
    /// The step is complete with this chunk.
    pub last: bool,
    /// The first chunk of a load of all rows.
    pub reload_begin: bool,
    /// The last one.
    pub reload_end: bool,
}

/// Everything a step needs from outside.
pub struct Tools<'a> {
    /// The store.
    pub store: &'a Store,
    /// Runs full queries.
    pub full: &'a Full,
    /// Changes in one chunk.
    pub chunk_rows: usize,
    /// Bytes in one chunk, about.
    pub chunk_bytes: usize,
    /// Change records read by one step, about.
    pub records_max: usize,
    /// Rows of a load that are computed at once, about.
    pub load_rows: usize,
    /// What may be held in memory.
    pub memory: &'a Memory,
}

/// What everwhen.projections shows.
#[derive(Debug, Clone)]
pub struct ProjectionStatus {
    /// The name.
    pub projection: String,
    /// Counts the definitions and reloads under the name.
    pub generation: u64,
    /// `loading`, `delivering`, `live`, `stalled`, `paused`; `incomplete`, where it is live but for keys
    /// that are held; `waiting`, where no delivery process offers its sink.
    pub state: String,
    /// The sink holds the query's rows as of this transaction; 0 before the first load.
    pub delivered_tx: u64,
    /// And this instant of the clock; nothing before the first load.
    pub delivered_now: Option<ValidTime>,
    /// The store's last transaction.
    pub latest_tx: u64,
    /// Changes computed and not yet acknowledged.
    pub pending_keys: u64,
    /// Keys whose rows in the sink are held: in quarantine, or refused by the sink.
    pub held_keys: u64,
    /// Since when the first of them.
    pub held_since: Option<SystemTime>,
    /// Tenants with rows in its tables that it does not cover.
    pub uncovered_tenants: u64,
    /// What went wrong last.
    pub error: Option<String>,
    /// How far the sink has been compared with the query; nothing compares it so far.
    pub verified_through: Option<u64>,
    /// The worker that holds the lease.
    pub worker: Option<String>,
}

impl Projection {
    /// Takes a definition up: goes on from its state, or starts a generation.
    pub fn open(store: &Store, name: &str, body: Body, definition_tx: u64) -> Result<Self> {
        let kept: Option<State> = read(store, name, &state_key(name))?;
        let state = match kept {
            Some(state)
                if state.definition_tx == definition_tx
                    && state.incarnation == store.incarnation() =>
            {
                state
            }
            older => {
                let generation = older.map_or(0, |state| state.generation) + 1;
                let state = State::new(generation, definition_tx, store.incarnation());
                store.put_cursors(&generation_entries(store, name, &state)?, true)?;
                state
            }
        };
        drop_strays(store, name, &state)?;
        let (state, ended_before) = super::attempts::after_end(store, name, state)?;
        let pin = state.load.as_ref().map(|load| store.hold(Basis::from(load.to).tx));
        let mut held = HeldKeys::new();
        for (_, bytes) in store.cursors(&held_prefix(name), usize::MAX)? {
            let entry: Held = decode(name, &bytes)?;
            held.insert((Tenant::new(&entry.tenant)?, entry.key.clone()), entry);
        }
        let met = met_prefix(name);
        let mut known = BTreeSet::new();
        for (key, _) in store.cursors(&met, usize::MAX)? {
            let tenant = String::from_utf8_lossy(&key[met.len()..]).into_owned();
            known.insert(Tenant::new(&tenant)?);
        }
        Ok(Self {
            name: name.to_owned(),
            body,
            definition_tx,
            computing: Mutex::new(()),
            ended_before: AtomicBool::new(ended_before),
            ended: Mutex::new(false),
            program: Mutex::new(None),
            shared: Mutex::new(Shared {
                state,
                held: Arc::new(held),
                known: Arc::new(known),
                leasing: Leasing::default(),
                failure: None,
                refused: None,
                boundary: None,
                boundary_known: false,
                first_chunk: None,
                pin,
                halved: 0,
            }),
            refusals: Refusals::open(store, name)?,
            uncovered: Uncovered::default(),
            offered: Notify::new(),
            wake: Notify::new(),
        })
    }

    /// Returns the compiled query, compiled anew where a table it reads was declared otherwise.
    pub fn program(&self, store: &Store, now: &Arc<Definitions>) -> Result<Arc<Program>> {
        let mut kept = self.program.lock();
        if let Some((under, program)) = kept.as_ref()
            && Arc::ptr_eq(under, now)
        {
            return Ok(Arc::clone(program));
        }
        let pinned = self.pinned(store, now);
        if let Some((under, program)) = kept.as_mut() {
            let same = program.tables.iter().all(|(id, def)| {
                pinned.table(&def.name).is_some_and(|now| now.id == *id && **now == **def)
            });
            if same {
                *under = Arc::clone(now);
                return Ok(Arc::clone(program));
            }
        }
        let body = &self.body;
        let mut program = Program::new(store, &pinned, &body.query, &body.key)?;
        if program.columns.len() != body.columns.len() {
            return Err(Error::internal("a query keeps the columns that it was made with"));
        }
        // Output types were fixed at CREATE.
        program.columns.clone_from(&body.columns);
        let program = Arc::new(program);
        *kept = Some((Arc::clone(now), Arc::clone(&program)));
        Ok(program)
    }

    /// Returns the tables as the query was made over them: a column that came later is not in its
    /// `*`. Only types are those of now, as they widen.
    fn pinned(&self, store: &Store, now: &Definitions) -> Definitions {
        let mut pinned = store.definitions_at(TxId::new(self.definition_tx)).as_ref().clone();
        for (name, table) in &mut pinned.tables {
            let Some(current) = now.table(name).filter(|current| current.id == table.id) else {
                continue;
            };
            let mut def = table.as_ref().clone();
            for column in &mut def.columns {
                if let Some(now) = current.column_by_id(column.id) {
                    column.kind = now.kind.clone();
                }
            }
            *table = Arc::new(def);
        }
        let same = |table: &Arc<TableDef>| now.table_by_id(table.id).is_some();
        pinned.tables.retain(|_, table| same(table));
        pinned.indexes.clone_from(&now.indexes);
        pinned
    }

    /// True where a step could be due: something committed, or the clock passed a boundary.
    pub fn is_due(&self, latest: Basis, monotonic: Instant) -> bool {
        let shared = self.shared.lock();
        let State { step, load, delivered, paused, .. } = &shared.state;
        if paused.is_some() {
            return false;
        }
        if let Some(failure) = &shared.failure
            && failure.at.tx == latest.tx
            && failure.retry_at > monotonic
        {
            return false;
        }
        if load.is_some() {
            let waiting = step.as_ref().map_or(0, |step| step.open.len());
            return waiting < LOAD_CHUNKS_MAX;
        }
        if step.is_some() {
            return false;
        }
        let Some(delivered) = *delivered else { return true };
        let at = Basis::from(delivered);
        at.tx < latest.tx
            || !shared.boundary_known
            || shared.boundary.is_some_and(|boundary| boundary <= latest.now && at.now < latest.now)
    }

    /// True while all rows are being loaded.
    pub fn is_loading(&self) -> bool {
        self.shared.lock().state.delivered.is_none()
    }

    /// Computes one step towards the latest basis and makes it durable. Blocking.
    ///
    /// Returns true where the projection has moved or a step now waits to be delivered.
    pub fn advance(&self, tools: &Tools<'_>) -> Result<bool> {
        let _computing = self.computing.lock();
        let latest = tools.store.latest();
        let monotonic = tools.store.clock().monotonic();
        if !self.is_due(latest, monotonic) {
            return Ok(false);
        }
        let mut result = self.advance_to(tools, latest);
        // What does not fit in memory may in smaller steps, down to single transactions.
        while let Err(Error::TooLarge { .. }) = &result {
            let mut shared = self.shared.lock();
            if shared.state.delivered.is_none() || tools.records_max >> shared.halved <= 1 {
                break;
            }
            shared.halved += 3;
            drop(shared);
            result = self.advance_to(tools, latest);
        }
        if result.is_ok() && self.ended_before.swap(false, Ordering::Relaxed) {
            self.note_attempt(tools.store, false)?;
        }
        let mut shared = self.shared.lock();
        match &result {
            Ok(_) => {
                shared.failure = None;
                shared.halved = shared.halved.saturating_sub(1);
            }
            Err(error) => {
                let text = error.to_string();
                if shared.failure.as_ref().is_none_or(|failure| failure.text != text) {
                    tracing::warn!(projection = %self.name, error = %text, "projection stalled");
                }
                let retry_at = monotonic + Duration::from_secs(1);
                shared.failure = Some(Failure { text, retry_at, at: latest });
            }
        }
        result
    }

    fn advance_to(&self, tools: &Tools<'_>, latest: Basis) -> Result<bool> {
        let (state, held, known, halved) = {
            let shared = self.shared.lock();
            let known = Arc::clone(&shared.known);
            (shared.state.clone(), Arc::clone(&shared.held), known, shared.halved)
        };
        let load = match (&state.load, state.delivered) {
            (Some(load), _) => Some(load.clone()),
            (None, None) => {
                Some(Loading { to: latest.into(), tenant: None, after: None, tail: None })
            }
            (None, Some(_)) => None,
        };
        // Nothing that the step reads is swept meanwhile.
        let from = load.as_ref().map(|load| load.to).or(state.delivered);
        let hold = tools.store.hold(from.map_or(latest.tx, |from| Basis::from(from).tx));
        let definitions = tools.store.definitions();
        let program = self.program(tools.store, &definitions)?;
        let work = Work {
            store: tools.store,
            definitions: &definitions,
            program: &program,
            body: &self.body,
            held: &held,
            known: &known,
            full: tools.full,
            memory: tools.memory,
            records_max: (tools.records_max >> halved).max(1),
            load_rows: tools.load_rows,
        };
        let mut chunks = ChunkWriter::new(self, tools, &state);
        let mut out = |rows| chunks.add(rows);
        if let Some(load) = load {
            out(load.tail.iter().cloned().collect())?;
            let (step, rest) = work.load(load.to.into(), place_of(&load)?, &mut out)?;
            let boundary = next_boundary(tools.store, &program, step.to.tx, step.to.now)?;
            let rest = rest.map(|place| Loading {
                to: load.to,
                tenant: Some(place.tenant.as_str().to_owned()),
                after: place.after.map(|key| key.as_bytes().to_vec()),
                tail: chunks.take_last(),
            });
            chunks.close(rest.is_none())?;
            self.keep_load(&held, step, chunks, rest, boundary, hold)?;
            return Ok(true);
        }
        let Some(delivered) = state.delivered else { return Ok(false) };
        let step = work.step(delivered.into(), latest, &mut out)?;
        let boundary = next_boundary(tools.store, &program, step.to.tx, step.to.now)?;
        let moved = state.delivered != Some(step.to.into());
        chunks.close(false)?;
        self.keep(state, &held, step, chunks, boundary)?;
        Ok(moved)
    }

    /// Makes a part of a load durable, then lets it be seen. The parts before may be on their way.
    fn keep_load(
        &self,
        held: &Arc<HeldKeys>,
        step: Step,
        chunks: ChunkWriter<'_>,
        rest: Option<Loading>,
        boundary: Option<ValidTime>,
        hold: Hold,
    ) -> Result<()> {
        let name = &self.name;
        let ChunkWriter { tools, mut entries, open, first, next_change, .. } = chunks;
        let held = self.keep_found(&mut entries, held, &step)?;
        let mut shared = self.shared.lock();
        let mut state = shared.state.clone();
        let to: Delivered = step.to.into();
        let before = state.step.take();
        let nothing = Outstanding { to, reload: true, chunks: 0, open: Vec::new() };
        let mut outstanding = before.unwrap_or(nothing);
        outstanding.chunks += open.len();
        outstanding.open.extend(open);
        state.step = Some(outstanding);
        state.next_change = next_change;
        state.load = rest;
        entries.push((state_key(name), Some(encode(name, &state)?)));
        self.put(tools.store, &entries, true)?;
        shared.pin = state.load.is_some().then_some(hold);
        if shared.first_chunk.is_none() {
            shared.first_chunk = first;
        }
        shared.move_to(state, held, step.met, boundary);
        drop(shared);
        self.offered.notify_waiters();
        Ok(())
    }

    /// Makes a step durable, then lets it be seen.
    fn keep(
        &self,
        mut state: State,
        held: &Arc<HeldKeys>,
        step: Step,
        chunks: ChunkWriter<'_>,
        boundary: Option<ValidTime>,
    ) -> Result<()> {
        let name = &self.name;
        let ChunkWriter { tools, mut entries, open, first, next_change, .. } = chunks;
        // With the state and not before: without it they would say what has not been sent.
        let held = self.keep_found(&mut entries, held, &step)?;
        let leaves = !open.is_empty();
        if leaves {
            let to = step.to.into();
            state.next_change = next_change;
            state.step = Some(Outstanding { to, reload: false, chunks: open.len(), open });
        } else {
            state.delivered = Some(step.to.into());
        }
        entries.push((state_key(name), Some(encode(name, &state)?)));
        // A step must be durable before a byte of it leaves; a mere advance may be lost.
        self.put(tools.store, &entries, leaves)?;
        let mut shared = self.shared.lock();
        shared.move_to(state, held, step.met, boundary);
        shared.first_chunk = first;
        drop(shared);
        if leaves {
            self.offered.notify_waiters();
        }
        Ok(())
    }

    /// Adds what a step found to what is written: tenants that it met, and keys in quarantine, which are
    /// returned.
    fn keep_found(
        &self,
        entries: &mut Entries,
        held: &Arc<HeldKeys>,
        step: &Step,
    ) -> Result<Arc<HeldKeys>> {
        for tenant in &step.met {
            entries.push((met_key(&self.name, tenant), Some(Vec::new())));
        }
        if step.held.is_empty() {
            return Ok(Arc::clone(held));
        }
        let mut now = held.as_ref().clone();
        for ((tenant, key), entry) in &step.held {
            let at = held_key(&self.name, tenant, key);
            match entry {
                Some(entry) => {
                    entries.push((at, Some(encode(&self.name, entry)?)));
                    now.insert((tenant.clone(), key.clone()), entry.clone());
                }
                None => {
                    entries.push((at, None));
                    now.remove(&(tenant.clone(), key.clone()));
                }
            }
        }
        Ok(Arc::new(now))
    }

    /// Returns the first chunk that is not acknowledged: the same bytes every time.
    pub fn chunk(&self, store: &Store) -> Result<Option<Chunk>> {
        let mut shared = self.shared.lock();
        let generation = shared.state.generation;
        let Some(step) = &shared.state.step else { return Ok(None) };
        let Some(head) = step.open.first().copied() else { return Ok(None) };
        // A load that is computed to its end has one more chunk: it ends with that.
        let last = step.open.len() == 1 && shared.state.load.is_none();
        let reload_begin = step.reload && head.first_change == 1;
        let reload_end = step.reload && last;
        let tx = step.to.tx;
        let changes = match &shared.first_chunk {
            Some((first, changes)) if *first == head.first_change => Arc::clone(changes),
            _ => {
                let key = chunk_key(&self.name, generation, head.first_change);
                let kept = store.cursor(&key)?.ok_or_else(|| Error::Corrupt {
                    projection: self.name.clone(),
                    why: format!("the chunk from change {} is missing", head.first_change),
                })?;
                let changes = Arc::new(decode_chunk(&self.name, &kept)?);
                shared.first_chunk = Some((head.first_change, Arc::clone(&changes)));
                changes
            }
        };
        Ok(Some(Chunk {
            projection: self.name.clone(),
            generation,
            tx,
            first_change: head.first_change,
            changes,
            last,
            reload_begin,
            reload_end,
        }))
    }

    /// Takes note that the sink has everything up to a change; a repetition does nothing.
    pub fn acknowledge(&self, store: &Store, change: u64) -> Result<()> {
        let mut shared = self.shared.lock();
        // Whoever acknowledges, even what is known, has a sink that works.
        shared.refused = None;
        let mut state = shared.state.clone();
        let Some(step) = &mut state.step else { return Ok(()) };
        let mut entries: Entries = Vec::new();
        while let Some(head) = step.open.first().copied() {
            if head.last_change() > change {
                break;
            }
            step.open.remove(0);
            let key = chunk_key(&self.name, state.generation, head.first_change);
            entries.push((key, None));
            state.acked_change = head.last_change();
        }
        if entries.is_empty() {
            return Ok(());
        }
        if step.open.is_empty() && state.load.is_none() {
            state.delivered = Some(step.to);
            state.step = None;
        }
        entries.push((state_key(&self.name), Some(encode(&self.name, &state)?)));
        // If this is lost, the chunk is sent again and the sink knows its numbers.
        self.put(store, &entries, false)?;
        let complete = state.step.is_none();
        let wanted = complete || state.load.is_some();
        shared.state = state;
        drop(shared);
        if wanted {
            self.wake.notify_one();
        }
        if !complete {
            self.offered.notify_waiters();
        }
        Ok(())
    }

    /// Returns the basis that the sink has reached; nothing before the first load is delivered.
    pub fn delivered(&self) -> Option<Basis> {
        self.shared.lock().state.delivered.map(Basis::from)
    }

    /// Starts a new generation of the same definition: all rows are loaded again.
    pub fn reload(&self, store: &Store) -> Result<()> {
        let _computing = self.computing.lock();
        let mut shared = self.shared.lock();
        let state =
            State::new(shared.state.generation + 1, self.definition_tx, store.incarnation());
        self.put(store, &generation_entries(store, &self.name, &state)?, true)?;
        shared.state = state;
        shared.held = Arc::default();
        self.refusals.clear();
        shared.known = Arc::default();
        shared.first_chunk = None;
        shared.pin = None;
        shared.leasing.end();
        drop(shared);
        self.offered.notify_waiters();
        self.wake.notify_one();
        Ok(())
    }

    /// Writes durable state, unless it is another's by now.
    pub fn put(&self, store: &Store, entries: &Entries, sync: bool) -> Result<()> {
        let ended = self.ended.lock();
        if *ended {
            return Err(Error::Unknown { name: self.name.clone() });
        }
        store.put_cursors(entries, sync)?;
        Ok(())
    }

    /// Ends the projection: it writes nothing from here on, and a step under way comes to nothing.
    pub fn end(&self) {
        *self.ended.lock() = true;
        self.shared.lock().leasing.end();
        self.offered.notify_waiters();
    }

    /// Works on the lease.
    pub fn leasing<T>(&self, work: impl FnOnce(&mut Leasing, &State) -> T) -> T {
        let mut shared = self.shared.lock();
        let Shared { leasing, state, .. } = &mut *shared;
        work(leasing, state)
    }

    /// Takes note that the sink refuses; without a text, that it does no more.
    pub fn refuse(&self, error: &str) {
        self.shared.lock().refused = (!error.is_empty()).then(|| error.to_owned());
    }

    /// Returns the keys in quarantine.
    pub fn held(&self) -> Arc<HeldKeys> {
        Arc::clone(&self.shared.lock().held)
    }

    /// Returns how far the projection is.
    pub fn status(&self, latest: Basis, monotonic: Instant) -> ProjectionStatus {
        let shared = self.shared.lock();
        let state = &shared.state;
        let failed = shared.failure.as_ref().map(|failure| failure.text.clone());
        let word = match (&failed, &state.step, state.delivered) {
            _ if state.paused.is_some() => "paused",
            (Some(_), ..) => "stalled",
            (None, Some(step), _) if !step.reload => "delivering",
            (None, None, Some(_)) => "live",
            _ => "loading",
        };
        let failed = state.paused.clone().or(failed);
        let pending = state.step.iter().flat_map(|step| &step.open).map(|head| head.count).sum();
        ProjectionStatus {
            projection: self.name.clone(),
            generation: state.generation,
            state: word.to_owned(),
            delivered_tx: state.delivered.map_or(0, |delivered| delivered.tx),
            delivered_now: shared.delivered_now(latest),
            latest_tx: latest.tx.get(),
            pending_keys: pending,
            held_keys: u64::try_from(shared.held.len()).unwrap_or(u64::MAX),
            held_since: None,
            uncovered_tenants: 0,
            error: failed.or_else(|| shared.refused.clone()),
            verified_through: None,
            worker: shared.leasing.holder(monotonic).map(ToOwned::to_owned),
        }
    }
}

impl Shared {
    /// Takes over what a step made durable.
    fn move_to(
        &mut self,
        state: State,
        held: Arc<HeldKeys>,
        met: Vec<Tenant>,
        boundary: Option<ValidTime>,
    ) {
        self.state = state;
        self.held = held;
        if !met.is_empty() {
            Arc::make_mut(&mut self.known).extend(met);
        }
        self.boundary = boundary;
        self.boundary_known = true;
    }

    /// Returns the instant up to which the clock has changed nothing that is not delivered.
    fn delivered_now(&self, latest: Basis) -> Option<ValidTime> {
        let delivered: Delivered = self.state.delivered?;
        let at = Basis::from(delivered);
        let current = self.state.step.is_none()
            && at.tx == latest.tx
            && self.boundary_known
            && self.boundary.is_none_or(|boundary| boundary > latest.now);
        Some(if current { at.now.max(latest.now) } else { at.now })
    }
}

/// Returns where a load goes on.
fn place_of(load: &Loading) -> Result<Option<LoadPlace>> {
    let Some(tenant) = &load.tenant else { return Ok(None) };
    let after = load.after.clone().map(RowKey::from_bytes);
    Ok(Some(LoadPlace { tenant: Tenant::new(tenant)?, after }))
}

/// Deletes chunks that a crash left behind before the step that was to name them was durable.
fn drop_strays(store: &Store, name: &str, state: &State) -> Result<()> {
    let open = state.step.iter().flat_map(|step| &step.open);
    let named: BTreeSet<Vec<u8>> =
        open.map(|head| chunk_key(name, state.generation, head.first_change)).collect();
    let chunks = store.cursors(&chunks_prefix(name), usize::MAX)?;
    let strays: Entries = chunks
        .into_iter()
        .filter(|(key, _)| !named.contains(key))
        .map(|(key, _)| (key, None))
        .collect();
    if !strays.is_empty() {
        store.put_cursors(&strays, false)?;
    }
    Ok(())
}

/// Returns the state of a new generation in place of everything an older one left.
fn generation_entries(store: &Store, name: &str, state: &State) -> Result<Entries> {
    let mut entries = forgotten(store, name)?;
    entries.push((state_key(name), Some(encode(name, state)?)));
    Ok(entries)
}

/// Returns the removal of all that a projection has under way; its numbers stay.
fn forgotten(store: &Store, name: &str) -> Result<Entries> {
    let kept = BTreeMap::from([(state_key(name), ()), (super::cursor::lease_key(name), ())]);
    let all = store.cursors(&prefix(name), usize::MAX)?;
    Ok(all
        .into_iter()
        .filter(|(key, _)| !kept.contains_key(key))
        .map(|(key, _)| (key, None))
        .collect())
}

/// Forgets a projection that was dropped; its generation and lease numbers are never given again.
pub fn forget(store: &Store, name: &str) -> Result<()> {
    let mut entries = forgotten(store, name)?;
    if let Some(state) = read::<State>(store, name, &state_key(name))? {
        let ended = State::new(state.generation, 0, store.incarnation());
        entries.push((state_key(name), Some(encode(name, &ended)?)));
    }
    store.put_cursors(&entries, false)?;
    Ok(())
}
