//! The loop: lease every projection whose sink is configured, and per projection next, write, ack.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use everwhen_proto::v1::{Chunk, Lease};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::client::{Ack, Client};
use super::config::{DeliverConfig, SinkConfig};
use super::error::{Error, RefusedRow, Result};
use super::retry::{Backoff, RetryConfig};
use super::rows::{Parts, Verdict};
use super::sink::Sink;
use super::sinks::bigquery::BigQuerySink;
use super::sinks::sqlite::SqliteSink;
use super::step::Step;
use super::target::Target;

/// Sinks by name.
pub type Sinks = BTreeMap<String, Arc<dyn Sink>>;

/// The longest wait for a chunk in one call; shorter where leases are.
const NEXT_WAIT_MAX: Duration = Duration::from_secs(5);

/// Refusals in a row after which the table is prepared anew.
const REFUSALS_MAX: u32 = 2;

/// How long giving leases back may take at the end.
const RELEASE_WAIT: Duration = Duration::from_secs(2);

/// Delivers until `shutdown`, then finishes the chunks being written and gives the leases back.
///
/// The server may be away at the start and at any time.
///
/// # Errors
/// [`Error::Config`] and [`Error::Address`] before the first call; nothing later.
pub async fn run(config: DeliverConfig, shutdown: CancellationToken) -> Result<()> {
    let mut sinks = Sinks::new();
    for (name, sink) in &config.sinks {
        let sink: Arc<dyn Sink> = match sink {
            SinkConfig::Sqlite { path } => Arc::new(SqliteSink::open(name, path)?),
            SinkConfig::BigQuery(dataset) => Arc::new(BigQuerySink::open(name, dataset).await?),
        };
        sinks.insert(name.clone(), sink);
    }
    run_with(config, sinks, shutdown).await
}

/// As [`run`], with sinks made by the caller; those in `config` are not opened.
///
/// # Errors
/// [`Error::Address`] if the server's address is none.
pub async fn run_with(
    config: DeliverConfig,
    sinks: Sinks,
    shutdown: CancellationToken,
) -> Result<()> {
    let worker = if config.worker.is_empty() { made_up_name() } else { config.worker.clone() };
    let client = Client::connect(&config.server, &worker)?;
    let names: Vec<String> = sinks.keys().cloned().collect();
    tracing::info!(worker, server = config.server, sinks = names.join(","), "delivery starts");
    let mut tasks = Tasks { running: JoinSet::new(), stops: HashMap::new() };
    let mut backoff = Backoff::new(config.retry);
    while !shutdown.is_cancelled() {
        match client.lease(names.clone()).await {
            Ok(leases) => {
                backoff.reset();
                for lease in leases {
                    tasks.start(&client, &sinks, config.retry, &lease, &shutdown);
                }
                let poll = Duration::from_millis(config.lease_poll_ms);
                let _ = tokio::time::timeout(poll, shutdown.cancelled()).await;
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot lease projections, tries again");
                backoff.wait(false, &shutdown).await;
            }
        }
        tasks.reap();
    }
    tasks.running.join_all().await;
    let released = tokio::time::timeout(RELEASE_WAIT, client.release()).await;
    if !matches!(released, Ok(Ok(()))) {
        tracing::warn!("could not give the leases back, they run out by themselves");
    }
    tracing::info!(worker, "delivery has ended");
    Ok(())
}

/// The tasks that deliver, at most one per projection that is not stopped.
struct Tasks {
    running: JoinSet<()>,
    stops: HashMap<String, CancellationToken>,
}

impl Tasks {
    fn start(
        &mut self,
        client: &Client,
        sinks: &Sinks,
        retry: RetryConfig,
        lease: &Lease,
        shutdown: &CancellationToken,
    ) {
        let Some(sink) = sinks.get(&lease.sink).cloned() else { return };
        let target = match Target::from_lease(lease) {
            Ok(target) => target,
            Err(error) => {
                tracing::error!(projection = lease.projection, error = chain(&error), "bad lease");
                return;
            }
        };
        let stop = shutdown.child_token();
        // The server gives a lease anew only after the old one ran out: its task must end.
        if let Some(old) = self.stops.insert(lease.projection.clone(), stop.clone()) {
            old.cancel();
        }
        let wait = NEXT_WAIT_MAX.min(Duration::from_millis((lease.lease_ms / 3).max(50)));
        let client = client.clone();
        let worker = Delivery {
            client,
            sink,
            target,
            stop,
            retry,
            wait,
            failed: false,
            unprepared: false,
            known_change: 0,
        };
        self.running.spawn(worker.run());
    }

    fn reap(&mut self) {
        while let Some(ended) = self.running.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "a delivery task has failed");
            }
        }
    }
}

/// One projection under one lease.
struct Delivery {
    client: Client,
    sink: Arc<dyn Sink>,
    target: Target,
    stop: CancellationToken,
    retry: RetryConfig,
    wait: Duration,
    /// The server shows an error of ours that the next acknowledgement clears.
    failed: bool,
    /// It is of preparing the table.
    unprepared: bool,
    /// The last change that the sink had when the lease began, written or passed over.
    known_change: u64,
}

/// What to do after an error.
enum Next {
    Again,
    End,
}

impl Delivery {
    async fn run(mut self) {
        let (projection, lease) = (self.target.projection.clone(), self.target.lease);
        tracing::info!(projection, lease, table = self.target.table, "delivery of a projection");
        let mut backoff = Backoff::new(self.retry);
        while self.deliver(&mut backoff).await {}
        tracing::info!(projection, lease, "delivery of a projection has ended");
    }

    /// Prepares the table and delivers; returns true if that is to begin again.
    async fn deliver(&mut self, backoff: &mut Backoff) -> bool {
        let sink = Arc::clone(&self.sink);
        let control = match sink.prepare(&self.target).await {
            Ok(control) => control,
            Err(error) => {
                self.unprepared = true;
                return matches!(self.after(&error, backoff).await, Next::Again);
            }
        };
        let mut needs_reload = control.is_behind(&self.target);
        if control.generation == self.target.generation {
            self.known_change = control.change;
        }
        if std::mem::take(&mut self.unprepared) {
            self.failed = false;
            // Takes the error back; if this is lost, the next acknowledgement does.
            let _ = self.client.fail(&self.target, String::new(), false).await;
        }
        backoff.reset();
        let mut refusals = 0;
        while !self.stop.is_cancelled() {
            match self.step(&mut needs_reload).await {
                Ok(()) => {
                    backoff.reset();
                    refusals = 0;
                }
                Err(error) => {
                    if matches!(self.after(&error, backoff).await, Next::End) {
                        return false;
                    }
                    refusals += u32::from(!error.is_retryable());
                }
            }
            if refusals == REFUSALS_MAX {
                // The table may not be what it was: somebody may have dropped it.
                return true;
            }
        }
        false
    }

    /// Takes, writes and acknowledges one chunk, if there is one.
    async fn step(&mut self, needs_reload: &mut bool) -> Result<()> {
        let next = tokio::select! {
            () = self.stop.cancelled() => return Ok(()),
            next = self.client.next(&self.target, self.wait) => next?,
        };
        let Some(chunk) = next else { return Ok(()) };
        self.check_generation(&chunk)?;
        if *needs_reload && !chunk.reload_begin {
            let error = Error::OutOfOrder {
                projection: self.target.projection.clone(),
                at: 0,
                first: chunk.first_change,
            };
            let text = format!("{}: the sink has lost rows and needs a reload", chain(&error));
            self.failed = true;
            self.client.fail(&self.target, text, true).await?;
            return Err(error);
        }
        *needs_reload = false;
        self.write(chunk).await
    }

    /// A lease is for one generation. A chunk of a newer one, written before the last of this one,
    /// would fence what is still to come; one of an older generation is over.
    fn check_generation(&self, chunk: &Chunk) -> Result<()> {
        if chunk.generation == self.target.generation {
            return Ok(());
        }
        let detail = format!(
            "the lease is for generation {}, the chunk is of {}",
            self.target.generation, chunk.generation
        );
        Err(Error::Fenced { projection: self.target.projection.clone(), detail })
    }

    async fn write(&mut self, chunk: Chunk) -> Result<()> {
        let (step, undecodable) = Step::decode(&self.target, chunk);
        let mut ack = Ack {
            change: step.last_change(),
            refused: Vec::new(),
            decided_from: self.known_change.saturating_add(1),
        };
        if !undecodable.is_empty() && !self.report(undecodable, &mut ack).await? {
            return Ok(());
        }
        let mut parts = Parts::new(step);
        let mut backoff = Backoff::new(self.retry);
        while let Some(part) = parts.next() {
            match self.sink.write(&self.target, part).await {
                Ok(()) => parts.written(),
                Err(Error::Rows { projection, rows, detail }) => {
                    match parts.refused(rows, &detail) {
                        Some(Verdict::Cut) => {}
                        Some(Verdict::Report(rows)) => {
                            if !self.report(rows, &mut ack).await? {
                                return Ok(());
                            }
                        }
                        None => {
                            let rows = Vec::new();
                            return Err(Error::Rows { projection, rows, detail });
                        }
                    }
                }
                // The control row tells whether a write of unknown outcome is there.
                Err(error) if error.is_retryable() => {
                    match self.after(&error, &mut backoff).await {
                        Next::End => return Ok(()),
                        Next::Again => continue,
                    }
                }
                Err(error) => return Err(error),
            }
            backoff.reset();
        }
        let client = self.client.clone();
        let target = self.target.clone();
        if !self.until_answered(|| client.ack(&target, ack.clone())).await? {
            return Ok(());
        }
        self.target.acked_change = ack.change;
        if std::mem::take(&mut self.failed) {
            tracing::info!(projection = self.target.projection, "the sink takes rows again");
        }
        Ok(())
    }

    /// Has the server hold the keys of rows that the sink refuses; returns false if the delivery is
    /// to end before it does.
    async fn report(&self, rows: Vec<RefusedRow>, ack: &mut Ack) -> Result<bool> {
        let projection = &self.target.projection;
        if let Some(RefusedRow { change, reason }) = rows.first() {
            tracing::warn!(projection, rows = rows.len(), change, reason, "the sink refuses rows");
        }
        let held = self.until_answered(|| self.client.refuse(&self.target, &rows)).await?;
        ack.refused.extend(rows.iter().map(|row| row.change));
        Ok(held)
    }

    /// Calls the server until it has answered; returns false if the delivery is to end before.
    async fn until_answered<F>(&self, call: impl Fn() -> F) -> Result<bool>
    where
        F: Future<Output = Result<()>>,
    {
        let mut backoff = Backoff::new(self.retry);
        while let Err(error) = call().await {
            if !error.is_retryable() {
                return Err(error);
            }
            if !backoff.wait(false, &self.stop).await {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Says the error where somebody sees it, waits, and decides how to go on.
    async fn after(&mut self, error: &Error, backoff: &mut Backoff) -> Next {
        let projection = self.target.projection.clone();
        let text = chain(error);
        match error {
            Error::Fenced { .. } => {
                tracing::warn!(projection, error = text, "another process delivers it now");
                return Next::End;
            }
            Error::Server(_) if !error.is_retryable() => {
                tracing::warn!(projection, error = text, "the server ends the lease");
                return Next::End;
            }
            Error::Server(_) | Error::Address(_) => {
                tracing::warn!(projection, error = text, "the server is away, tries again");
            }
            _ => {
                tracing::error!(projection, error = text, "cannot write the sink, tries again");
                self.failed = true;
                match self.client.fail(&self.target, text, false).await {
                    Err(refusal) if !refusal.is_retryable() => return Next::End,
                    _ => {}
                }
            }
        }
        let refused = !error.is_retryable();
        if backoff.wait(refused, &self.stop).await { Next::Again } else { Next::End }
    }
}

/// The error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

fn made_up_name() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    format!("{}-{:016x}", std::process::id(), RandomState::new().hash_one(0))
}
