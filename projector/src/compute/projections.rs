//! All projections of a server: made, leased, computed, delivered, listed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use everwhen_query::statements::{
    AlterProjection, CreateProjection, DropDefinition, ExplainProjection,
};
use everwhen_storage::{
    Basis, Definition, DefinitionChange, DefinitionKind, Definitions, IndexDef, IndexId, Store,
    SystemTime, Tenant, TxId, ValidTime,
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admit::Program;
use super::cursor::{encode, lease_key, read};
use super::definition::{Body, OutputColumn};
use super::explain;
use super::full::Full;
use super::memory::Memory;
use super::projection::{Chunk, Projection, ProjectionStatus, Tools, forget};
use super::refusal::{Acked, RefusedRow};
use super::workers::{Workers, sink_of};
use super::zset::ZSet;
use crate::error::{Error, Result};

/// Steps that are computed at one time, beside one load.
const STEPS_MAX: usize = 8;
/// A step that takes longer is noted while it runs.
const LONG_STEP: Duration = Duration::from_millis(300);
/// How often to look for tenants that a projection does not cover.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How projections are run.
#[derive(Debug, Clone)]
pub struct ProjectionOptions {
    /// Changes in one chunk at most.
    pub chunk_rows: usize,
    /// Bytes of the rows in one chunk, about.
    pub chunk_bytes: usize,
    /// Change records that one step reads, about: more are left to the next step.
    pub step_records: usize,
    /// Rows of a first load that are computed before the first of them leaves, about.
    pub load_rows: usize,
    /// Bytes that all projections may hold in memory while they are computed.
    pub memory_bytes_max: usize,
    /// Bytes that one sort of them holds before it goes over to files.
    pub sort_bytes_max: usize,
    /// Rows that travel from operator to operator together, about.
    pub part_rows: usize,
    /// Where they put what they cannot hold; the files have no names.
    pub spill_directory: PathBuf,
    /// How long a lease holds without a sign of its worker.
    pub lease: Duration,
    /// How often the clock is looked at.
    pub poll: Duration,
}

impl Default for ProjectionOptions {
    fn default() -> Self {
        Self {
            chunk_rows: 4_000,
            chunk_bytes: 1 << 20,
            step_records: 16_384,
            load_rows: 50_000,
            memory_bytes_max: 512 << 20,
            sort_bytes_max: 64 << 20,
            part_rows: 8_192,
            spill_directory: std::env::temp_dir(),
            lease: Duration::from_secs(10),
            poll: Duration::from_millis(20),
        }
    }
}

/// A lease on a projection, with what a sink must know to write its rows.
#[derive(Debug, Clone)]
pub struct LeaseGrant {
    /// The projection.
    pub projection: String,
    /// The fencing number.
    pub lease: u64,
    /// Its generation.
    pub generation: u64,
    /// The sink's name in the worker's configuration.
    pub sink: String,
    /// The sink's table.
    pub table: String,
    /// The table's columns without the metadata ones.
    pub columns: Vec<OutputColumn>,
    /// Names of the key's columns, in key order.
    pub key: Vec<String>,
    /// Rows carry `_generation`, `_tx`, `_change`.
    pub metadata: bool,
    /// The last change acknowledged.
    pub acked_change: u64,
    /// How long the lease holds without renewal, in milliseconds.
    pub lease_ms: u64,
    /// Identity of the data directory.
    pub incarnation: String,
}

/// A key in quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectionError {
    /// The projection.
    pub projection: String,
    /// Whose key.
    pub tenant: Tenant,
    /// The key's values as a JSON array.
    pub key: String,
    /// Why its row in the sink is held.
    pub reason: String,
    /// Since when.
    pub since: Option<SystemTime>,
    /// The transaction of the step that found it.
    pub tx: u64,
}

/// The projections of a store.
pub struct Projections {
    store: Store,
    options: ProjectionOptions,
    full: Full,
    memory: Memory,
    /// One load is computed at a time, so that late events never wait for several.
    loads: Semaphore,
    /// So many steps are computed at a time, as each has parts of its own in memory.
    steps: Semaphore,
    workers: Workers,
    defined: Mutex<Defined>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Default)]
struct Defined {
    seen: Option<Arc<Definitions>>,
    projections: BTreeMap<String, Arc<Projection>>,
    /// Ends the task of a projection.
    ends: BTreeMap<String, CancellationToken>,
    /// Tasks are wanted.
    started: bool,
}

impl Projections {
    /// Takes up all projections that are defined. Blocking: reads their state.
    pub fn new(store: Store, options: ProjectionOptions) -> Result<Arc<Self>> {
        let memory = Memory::new(options.memory_bytes_max, options.spill_directory.clone())
            .with_sort_bytes(options.sort_bytes_max)
            .with_part_rows(options.part_rows);
        let workers = Workers::new(store.clock().monotonic(), options.lease);
        let projections = Arc::new(Self {
            store,
            options,
            full: Full::new(),
            memory,
            loads: Semaphore::new(1),
            steps: Semaphore::new(STEPS_MAX),
            workers,
            defined: Mutex::new(Defined::default()),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        projections.refresh()?;
        Ok(projections)
    }

    /// Begins to compute steps as transactions commit and the clock moves. Needs a runtime.
    pub fn start(self: &Arc<Self>) {
        {
            let mut defined = self.defined.lock();
            defined.started = true;
            let names: Vec<String> = defined.projections.keys().cloned().collect();
            for name in names {
                self.spawn(&mut defined, &name);
            }
        }
        let this = Arc::clone(self);
        self.tasks.spawn(async move { this.follow_definitions().await });
    }

    /// Ends all tasks and waits for them; steps under way are finished first.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Follows the definitions in force: takes up new ones, drops those that are gone.
    pub fn refresh(self: &Arc<Self>) -> Result<()> {
        let definitions = self.store.definitions();
        let mut defined = self.defined.lock();
        if defined.seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &definitions)) {
            return Ok(());
        }
        let gone: Vec<String> = defined
            .projections
            .iter()
            .filter(|(name, projection)| {
                definitions
                    .get(DefinitionKind::Projection, name)
                    .is_none_or(|now| now.tx.get() != projection.definition_tx)
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            if let Some(end) = defined.ends.remove(&name) {
                end.cancel();
            }
            if let Some(projection) = defined.projections.remove(&name) {
                projection.end();
            }
            if definitions.get(DefinitionKind::Projection, &name).is_none() {
                forget(&self.store, &name)?;
            }
        }
        for definition in definitions.all(DefinitionKind::Projection) {
            if defined.projections.contains_key(&definition.name) {
                continue;
            }
            let body = Body::of(definition)?;
            let tx = definition.tx.get();
            let projection = Projection::open(&self.store, &definition.name, body, tx)?;
            defined.projections.insert(definition.name.clone(), Arc::new(projection));
            if defined.started {
                self.spawn(&mut defined, &definition.name);
            }
        }
        defined.seen = Some(definitions);
        Ok(())
    }

    fn spawn(self: &Arc<Self>, defined: &mut Defined, name: &str) {
        let Some(projection) = defined.projections.get(name).cloned() else { return };
        let end = self.stop.child_token();
        defined.ends.insert(name.to_owned(), end.clone());
        let this = Arc::clone(self);
        self.tasks.spawn(async move { this.follow(projection, end).await });
    }

    async fn follow_definitions(self: Arc<Self>) {
        let mut commits = self.store.watch_tx();
        loop {
            let this = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || this.refresh()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!(%error, "definitions of projections cannot be followed");
                }
                Err(error) => tracing::error!(%error, "definitions were not followed"),
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                changed = commits.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Computes one projection's steps until it ends.
    async fn follow(self: Arc<Self>, projection: Arc<Projection>, end: CancellationToken) {
        self.complete_indexes(&projection).await;
        let mut commits = self.store.watch_tx();
        let mut ticks = tokio::time::interval(self.options.poll);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut looked: Option<Instant> = None;
        loop {
            let monotonic = self.store.clock().monotonic();
            if looked.is_none_or(|at| monotonic.saturating_duration_since(at) >= LOOK_EVERY) {
                looked = Some(monotonic);
                let this = Arc::clone(&self);
                let of = Arc::clone(&projection);
                // Logs the tenants that have appeared; no step waits for it.
                self.tasks.spawn_blocking(move || of.count_uncovered(&this.store));
            }
            if projection.is_due(self.store.latest(), monotonic) {
                self.advance_watched(&projection).await;
            }
            tokio::select! {
                () = end.cancelled() => return,
                changed = commits.changed() => if changed.is_err() { return },
                () = projection.wake.notified() => {}
                _ = ticks.tick() => {}
            }
        }
    }

    /// Makes indexes that a projection of an earlier version of the server was made without.
    async fn complete_indexes(self: &Arc<Self>, projection: &Arc<Projection>) {
        let (this, of) = (Arc::clone(self), Arc::clone(projection));
        let made = tokio::task::spawn_blocking(move || -> Result<()> {
            let definitions = this.store.definitions();
            let program = of.program(&this.store, &definitions)?;
            this.make_indexes(&program, &definitions)
        });
        if let Ok(Err(error)) = made.await {
            let name = &projection.name;
            tracing::warn!(projection = name, %error, "an index of a projection was not made");
        }
    }

    /// Makes the indexes that restricted evaluation asks for and that are not there.
    fn make_indexes(&self, program: &Program, definitions: &Definitions) -> Result<()> {
        for (table, columns) in program.indexes() {
            if definitions.index_on(table, &columns).is_none() {
                let id = IndexId(definitions.next_index);
                self.store.ensure_index(IndexDef { id, table, columns, ready: false })?;
            }
        }
        Ok(())
    }

    /// Computes one step. Where it takes its time that is noted, so that the next process knows of it should
    /// this one end.
    async fn advance_watched(self: &Arc<Self>, projection: &Arc<Projection>) {
        let turns = if projection.is_loading() { &self.loads } else { &self.steps };
        let _turn = turns.acquire().await;
        let (this, of) = (Arc::clone(self), Arc::clone(projection));
        let mut step = tokio::task::spawn_blocking(move || of.advance(&this.tools()));
        let mut is_noted = false;
        let done = match tokio::time::timeout(LONG_STEP, &mut step).await {
            Ok(done) => done,
            Err(_) => {
                is_noted = self.note(projection, true).await;
                step.await
            }
        };
        if let Err(error) = done {
            tracing::error!(projection = %projection.name, %error, "a step did not end");
        }
        if is_noted {
            self.note(projection, false).await;
        }
    }

    async fn note(self: &Arc<Self>, projection: &Arc<Projection>, running: bool) -> bool {
        let (this, of) = (Arc::clone(self), Arc::clone(projection));
        let noted = tokio::task::spawn_blocking(move || of.note_attempt(&this.store, running));
        match noted.await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::debug!(projection = %projection.name, %error, "a step was not noted");
                false
            }
            Err(_) => false,
        }
    }

    fn tools(&self) -> Tools<'_> {
        Tools {
            store: &self.store,
            full: &self.full,
            chunk_rows: self.options.chunk_rows,
            chunk_bytes: self.options.chunk_bytes,
            records_max: self.options.step_records,
            load_rows: self.options.load_rows,
            memory: &self.memory,
        }
    }

    /// Returns how many bytes the computing of projections holds, and the most that it held.
    pub fn memory_bytes(&self) -> (usize, usize) {
        (self.memory.used_bytes(), self.memory.most_bytes())
    }

    /// Carries out ALTER PROJECTION: computes nothing more of it, or goes on. What is computed is delivered
    /// either way. Blocking.
    ///
    /// # Errors
    /// [`Error::Unknown`], and those of the store.
    pub fn alter(self: &Arc<Self>, alter: &AlterProjection) -> Result<()> {
        self.refresh()?;
        match self.named(&alter.name) {
            Ok(projection) if alter.pause => projection.pause(&self.store),
            Ok(projection) => projection.resume(&self.store),
            Err(Error::Unknown { .. }) if alter.if_exists => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn named(&self, name: &str) -> Result<Arc<Projection>> {
        let defined = self.defined.lock();
        let found = defined.projections.get(name).cloned();
        found.ok_or_else(|| Error::Unknown { name: name.to_owned() })
    }

    fn all(&self) -> Vec<Arc<Projection>> {
        self.defined.lock().projections.values().cloned().collect()
    }

    /// Plans CREATE PROJECTION: checks that the query can be kept up to date and makes the indexes
    /// that it needs. Blocking: an index over a big table takes its time.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason, [`Error::Exists`], [`Error::TableTaken`], [`Error::Query`].
    pub fn plan_create(&self, statement: &CreateProjection) -> Result<Vec<DefinitionChange>> {
        let definitions = self.store.definitions();
        if definitions.get(DefinitionKind::Projection, &statement.name).is_some() {
            if statement.if_not_exists {
                return Ok(Vec::new());
            }
            if !statement.or_replace {
                return Err(Error::Exists { name: statement.name.clone() });
            }
        }
        let program = self.program_of(&definitions, statement)?;
        let body = Body::new(statement, program.columns.clone())?;
        body.check_table(&statement.name, &definitions)?;
        self.make_indexes(&program, &definitions)?;
        let body = serde_json::to_value(&body)
            .map_err(|error| Error::internal(format!("a definition is JSON: {error}")))?;
        Ok(vec![DefinitionChange::Put(Definition {
            kind: DefinitionKind::Projection,
            name: statement.name.clone(),
            body,
            tx: TxId::ZERO,
        })])
    }

    fn program_of(
        &self,
        definitions: &Definitions,
        statement: &CreateProjection,
    ) -> Result<Program> {
        let offset = statement.query_position.saturating_sub(1);
        let program = self.proven(definitions, &statement.query, &statement.key, offset)?;
        // Refuses a key that is no column before anything else is made of it.
        Body::new(statement, program.columns.clone())?;
        Ok(program)
    }

    /// Plans a query that stands so many characters into a statement, and shows that it runs.
    fn proven(
        &self,
        definitions: &Definitions,
        query: &str,
        key: &[String],
        offset: usize,
    ) -> Result<Program> {
        let program = Program::new(&self.store, definitions, query, key)
            .and_then(|program| program.prove(&self.store, &self.full).map(|()| program));
        program.map_err(|error| moved(error, offset))
    }

    /// Plans DROP PROJECTION. The sink's table stays as it is.
    pub fn plan_drop(&self, statement: &DropDefinition) -> Result<Vec<DefinitionChange>> {
        let definitions = self.store.definitions();
        if definitions.get(DefinitionKind::Projection, &statement.name).is_some() {
            let name = statement.name.clone();
            return Ok(vec![DefinitionChange::Drop(DefinitionKind::Projection, name)]);
        }
        if statement.if_exists {
            return Ok(Vec::new());
        }
        Err(Error::Unknown { name: statement.name.clone() })
    }

    /// Says how a projection is, or would be, computed: one line an operator. Blocking.
    pub fn explain(&self, statement: &ExplainProjection) -> Result<String> {
        let definitions = self.store.definitions();
        match statement {
            ExplainProjection::Named { name, .. } => {
                let definition = definitions
                    .get(DefinitionKind::Projection, name)
                    .ok_or_else(|| Error::Unknown { name: name.clone() })?;
                let body = Body::of(definition)?;
                let program = Program::new(&self.store, &definitions, &body.query, &body.key)?;
                Ok(explain::text(&program, &definitions))
            }
            ExplainProjection::Query { key, query, query_position } => {
                let offset = query_position.saturating_sub(1);
                let program = self.proven(&definitions, query, key, offset)?;
                Ok(explain::text(&program, &definitions))
            }
            ExplainProjection::Create(statement) => {
                let program = self.program_of(&definitions, statement)?;
                Ok(explain::text(&program, &definitions))
            }
        }
    }

    /// Gives a worker leases on the projections of its sinks that nobody holds.
    pub fn lease(self: &Arc<Self>, worker: &str, sinks: &[String]) -> Result<Vec<LeaseGrant>> {
        self.refresh()?;
        let now = self.store.clock().monotonic();
        self.workers.seen(worker, sinks, now);
        let mut grants = Vec::new();
        for projection in self.all() {
            let Some(sink) = sink_of(&projection.body, sinks) else { continue };
            if !projection.leasing(|leasing, _| leasing.is_free(now)) {
                continue;
            }
            let name = &projection.name;
            let key = lease_key(name);
            let number = read::<u64>(&self.store, name, &key)?.unwrap_or(0) + 1;
            // Durable first: a number is never given twice.
            self.store.put_cursors(&[(key, Some(encode(name, &number)?))], true)?;
            let (generation, acked_change) = projection.leasing(|leasing, state| {
                leasing.give(number, worker, now, self.options.lease);
                (state.generation, state.acked_change)
            });
            let body = &projection.body;
            grants.push(LeaseGrant {
                projection: name.clone(),
                lease: number,
                generation,
                sink: sink.to_owned(),
                table: body.table.clone(),
                columns: body.sink_columns(),
                key: body.sink_key(),
                metadata: body.metadata,
                acked_change,
                lease_ms: u64::try_from(self.options.lease.as_millis()).unwrap_or(u64::MAX),
                incarnation: self.store.incarnation(),
            });
        }
        Ok(grants)
    }

    fn renewed(&self, name: &str, lease: u64) -> Result<Arc<Projection>> {
        let lost = || Error::LeaseLost { projection: name.to_owned(), lease };
        let projection = self.named(name).map_err(|_| lost())?;
        let now = self.store.clock().monotonic();
        let length = self.options.lease;
        projection.leasing(|leasing, _| leasing.renew(name, lease, now, length))?;
        Ok(projection)
    }

    /// Waits for the next chunk and renews the lease; the same chunk until it is acknowledged.
    ///
    /// # Errors
    /// [`Error::LeaseLost`]: lease again.
    pub async fn next(&self, name: &str, lease: u64, wait: Duration) -> Result<Option<Chunk>> {
        // The call renews the lease when it begins, so it must not outlast it.
        let wait = wait.min(self.options.lease / 2);
        let deadline = tokio::time::Instant::from_std(self.store.clock().monotonic()) + wait;
        loop {
            let projection = self.renewed(name, lease)?;
            let offered = projection.offered.notified();
            tokio::pin!(offered);
            offered.as_mut().enable();
            if let Some(chunk) = projection.chunk(&self.store)? {
                return Ok(Some(chunk));
            }
            tokio::select! {
                () = &mut offered => {}
                () = self.stop.cancelled() => return Ok(None),
                ended = tokio::time::timeout_at(deadline, std::future::pending::<()>()) => {
                    if ended.is_err() {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Takes note that the sink has everything up to a change of the generation leased.
    ///
    /// # Errors
    /// [`Error::LeaseLost`]: somebody else delivers now, or a new generation has begun.
    pub fn ack(&self, name: &str, lease: u64, change: u64) -> Result<()> {
        self.ack_rows(name, lease, &Acked { change, ..Acked::default() })
    }

    /// As [`Projections::ack`], for a sink that may have refused rows.
    pub fn ack_rows(&self, name: &str, lease: u64, acked: &Acked) -> Result<()> {
        let projection = self.renewed(name, lease)?;
        projection.settle(&self.store, acked)?;
        projection.acknowledge(&self.store, acked.change)
    }

    /// Holds the keys of rows of the chunk under way that the sink refuses because of their values;
    /// durable when it returns.
    ///
    /// # Errors
    /// [`Error::LeaseLost`]: lease again.
    pub fn refuse_rows(&self, name: &str, lease: u64, rows: &[RefusedRow]) -> Result<()> {
        tracing::warn!(projection = name, rows = rows.len(), "the sink refuses rows");
        self.renewed(name, lease)?.refuse_rows(&self.store, rows)
    }

    /// Returns what whoever made a projection is to be warned of. Blocking.
    pub fn warnings(&self, name: &str) -> Vec<String> {
        self.named(name).map(|projection| projection.warnings(&self.store)).unwrap_or_default()
    }

    /// Takes note that the sink refuses, or with an empty text that it does no more; `reload` asks for all rows again, in a new generation.
    pub fn fail(&self, name: &str, lease: u64, error: &str, reload: bool) -> Result<()> {
        let projection = self.renewed(name, lease)?;
        if !error.is_empty() {
            tracing::warn!(projection = name, error, reload, "the sink refuses");
        }
        projection.refuse(error);
        if reload {
            projection.reload(&self.store)?;
        }
        Ok(())
    }

    /// Takes back all leases of a worker.
    pub fn release(&self, worker: &str) {
        self.workers.gone(worker);
        for projection in self.all() {
            projection.leasing(|leasing, _| leasing.release(worker));
        }
    }

    /// Returns how far every projection is, by name.
    pub fn status(&self) -> Vec<ProjectionStatus> {
        let latest = self.store.latest();
        let monotonic = self.store.clock().monotonic();
        let of = |projection: &Arc<Projection>| {
            let mut status = projection.status(latest, monotonic);
            projection.complete(&mut status, &self.store, &self.workers, monotonic);
            status
        };
        self.all().iter().map(of).collect()
    }

    /// Returns the keys whose rows in the sink are held: in quarantine, or refused by the sink.
    pub fn errors(&self) -> Vec<ProjectionError> {
        let mut errors = Vec::new();
        for projection in self.all() {
            for ((tenant, key), held) in projection.held().iter() {
                errors.push(ProjectionError {
                    projection: projection.name.clone(),
                    tenant: tenant.clone(),
                    key: key.clone(),
                    reason: held.reason.clone(),
                    since: self.store.system_time(TxId::new(held.tx)).ok(),
                    tx: held.tx,
                });
            }
            for (tenant, refused) in projection.refusals.all() {
                errors.push(ProjectionError {
                    projection: projection.name.clone(),
                    tenant,
                    key: refused.key,
                    reason: refused.reason,
                    since: Some(SystemTime::from_micros(refused.since)),
                    tx: refused.tx,
                });
            }
        }
        errors
    }

    /// Returns what every projection has passed: nothing from before is read for it again. `None`
    /// where one has not delivered its first load.
    ///
    /// # Errors
    /// Where definitions cannot be followed.
    pub fn passed(self: &Arc<Self>) -> Result<Option<Basis>> {
        self.refresh()?;
        let mut passed = Basis { tx: TxId::END, now: ValidTime::END };
        for projection in self.all() {
            let Some(delivered) = projection.delivered() else { return Ok(None) };
            passed.tx = passed.tx.min(delivered.tx);
            passed.now = passed.now.min(delivered.now);
        }
        Ok(Some(passed))
    }

    /// Has every projection that has not passed a transaction load all rows anew: what it has under
    /// way is dropped and its sink is reconciled. Returns their names.
    ///
    /// # Errors
    /// Where the new generation cannot be made durable.
    pub fn reload_behind(self: &Arc<Self>, tx: TxId) -> Result<Vec<String>> {
        self.refresh()?;
        let mut names = Vec::new();
        for projection in self.all() {
            if projection.delivered().is_none_or(|delivered| delivered.tx < tx) {
                projection.reload(&self.store)?;
                names.push(projection.name.clone());
            }
        }
        Ok(names)
    }

    /// Computes one step of a projection towards the latest basis, where one is due. Blocking.
    /// What the background does by itself once [`Projections::start`] is called.
    pub fn advance(self: &Arc<Self>, name: &str) -> Result<bool> {
        self.refresh()?;
        self.named(name)?.advance(&self.tools())
    }

    /// Returns the chunk that waits to be acknowledged, without a lease: for tests and tools.
    pub fn outstanding(&self, name: &str) -> Result<Option<Chunk>> {
        self.named(name)?.chunk(&self.store)
    }

    /// Acknowledges without a lease: for tests and tools.
    pub fn acknowledge(&self, name: &str, change: u64) -> Result<()> {
        let projection = self.named(name)?;
        projection.settle(&self.store, &Acked { change, ..Acked::default() })?;
        projection.acknowledge(&self.store, change)
    }

    /// Returns the query's rows from scratch at a basis, for one tenant. Blocking.
    pub fn full(&self, name: &str, basis: Basis, tenant: &Tenant) -> Result<ZSet> {
        let projection = self.named(name)?;
        let program = projection.program(&self.store, &self.store.definitions())?;
        self.full.rows(&self.store, &program.plan, basis, tenant)
    }
}

/// Moves an error's place from the query's text to the statement's.
fn moved(error: Error, offset: usize) -> Error {
    match error {
        Error::Query(everwhen_query::Error::Statement { state, message, position, hint }) => {
            let position = position.map(|at| at + offset);
            Error::Query(everwhen_query::Error::Statement { state, message, position, hint })
        }
        other => other,
    }
}
