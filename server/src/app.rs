//! The whole server: built in dependency order, stopped in reverse.
//!
//! Usable from a process of its own (`everwhen serve`), from tests and from the demo.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use everwhen_ingest::{Ingest, IngestOptions};
use everwhen_projector::compute::{ProjectionOptions, Projections};
use everwhen_query::{Engine, EngineOptions, Spilling};
use everwhen_storage::snapshot::Target;
use everwhen_storage::{Clock, ManualClock, Options, RealClock, Standing, Store, Tuning};
use serde::{Deserialize, Serialize};

use crate::config::{Config, ConfigError, WalSync};
use crate::delivery::{self, Delivery};
use crate::health::Health;
use crate::housekeeping::Housekeeping;
use crate::limits::Limits;
use crate::listeners::Listeners;
use crate::metrics::Metrics;
use crate::service::Services;
use crate::service::lane::{Lane, Lanes};
use crate::service::running::Running;
use crate::service::system_tables::{
    ProjectionErrorsTable, ProjectionsTable, QueriesTable, StreamsTable,
};
use crate::shipping::{Shipping, ShippingStatus};
use crate::threads::Threads;

/// Why the server could not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] everwhen_storage::Error),
    #[error("cannot start projections: {0}")]
    Projections(#[from] everwhen_projector::Error),
    #[error("cannot listen for {name} on {address}: {source}")]
    Listen { name: &'static str, address: String, source: std::io::Error },
    #[error("cannot write {path}: {source}")]
    Endpoints { path: String, source: std::io::Error },
    #[error("delivery: {0}")]
    Delivery(String),
    #[error("cannot start the threads that run queries: {0}")]
    Threads(std::io::Error),
    #[error("the {name} listener stopped: {why}")]
    Stopped { name: &'static str, why: String },
    #[error("the store takes no more writes: {0}")]
    StoreFailed(String),
    #[error("cannot describe the gRPC services: {0}")]
    Describe(#[from] tonic_reflection::server::Error),
}

/// Where a running server can be reached; null where a listener is off or not built.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    pub http: Option<String>,
    pub grpc: Option<String>,
    pub postgres: Option<String>,
    pub admin: Option<String>,
}

impl Endpoints {
    /// Returns the line that says the server is ready.
    pub fn ready_line(&self) -> String {
        let shown = |endpoint: &Option<String>| endpoint.clone().unwrap_or_else(|| "off".into());
        format!(
            "ready http={} grpc={} postgres={} admin={}",
            shown(&self.http),
            shown(&self.grpc),
            shown(&self.postgres),
            shown(&self.admin)
        )
    }
}

/// Longer than any statement runs.
const NO_TIMEOUT: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Starts servers.
pub struct App;

/// A server that is up. End it with [`RunningApp::shutdown`].
pub struct RunningApp {
    pub endpoints: Endpoints,
    services: Arc<Services>,
    listeners: Listeners,
    delivery: Option<Delivery>,
    endpoints_file: PathBuf,
    housekeeping: Housekeeping,
    shipping: Option<Shipping>,
    drain: Duration,
    _threads: [Threads; 3],
}

/// Returns the clock that a configuration asks for.
pub fn clock_of(config: &Config) -> Arc<dyn Clock> {
    match config.test_clock {
        Some(at) => Arc::new(ManualClock::at(at.micros())),
        None => Arc::new(RealClock),
    }
}

impl App {
    /// Starts a server and answers when it takes requests.
    ///
    /// `clock` is what [`clock_of`] returns, or a manual clock that the caller keeps; the requests
    /// that move it are served where the configuration has a `test_clock`.
    ///
    /// # Errors
    /// [`Error`]; whatever had started by then is stopped again.
    pub async fn start(config: Config, clock: Arc<dyn Clock>) -> Result<RunningApp, Error> {
        config.check()?;
        let store = open_store(&config, clock).await?;
        match Self::start_over(&config, store.clone()).await {
            Ok(app) => Ok(app),
            Err(error) => {
                close(store).await;
                Err(error)
            }
        }
    }

    async fn start_over(config: &Config, store: Store) -> Result<RunningApp, Error> {
        let endpoints_file = config.data.join("endpoints.json");
        // Left behind by a process that was killed: whoever waits for it must not read it.
        if endpoints_file.exists() {
            std::fs::remove_file(&endpoints_file)
                .map_err(|source| endpoints_error(&endpoints_file, source))?;
        }
        let start = |name, count, nice| Threads::start(name, count, nice).map_err(Error::Threads);
        let threads = [
            start("everwhen-query", config.query_threads, config.query_nice)?,
            start("everwhen-short", config.query_threads, 0)?,
            start("everwhen-events", 2, 0)?,
        ];
        let lane = |threads: &Threads| Lane::new(threads.handle(), config.statements_max);
        let [queries, short, events] = threads.each_ref().map(lane);
        let services = build_services(config, store, Lanes { queries, short, events })?;
        let mut listeners = Listeners::bind(config).await?;
        let endpoints = listeners.endpoints();
        let delivery = match (&config.projector, &endpoints.grpc) {
            (Some(file), Some(grpc)) => Some(delivery::configuration(file, grpc)?),
            _ => None,
        };
        listeners.serve(&services).await?;
        services.ingest.start();
        services.projections.start();
        let (store, projections) = (services.store.clone(), Arc::clone(&services.projections));
        let housekeeping = Housekeeping::start(store, projections, config.erase_deadline);
        let shipping =
            config.journal_ship_to.as_deref().map(Target::at).transpose()?.map(|target| {
                let (store, status) = (services.store.clone(), services.shipping.clone());
                Shipping::start(store, target, config.journal_ship_interval, status)
            });
        let delivery = delivery.map(Delivery::start);
        services.health.set_ready();
        let app = RunningApp {
            endpoints,
            services,
            listeners,
            delivery,
            endpoints_file,
            housekeeping,
            shipping,
            drain: config.drain,
            _threads: threads,
        };
        if let Err(error) = write_endpoints(&app.endpoints_file, &app.endpoints) {
            app.stop_parts().await;
            return Err(error);
        }
        let latest = app.services.store.latest();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            data = %config.data.display(),
            http = app.endpoints.http,
            grpc = app.endpoints.grpc,
            postgres = app.endpoints.postgres,
            admin = app.endpoints.admin,
            latest_tx = latest.tx.get(),
            test_clock = app.services.test_clock,
            "server is ready"
        );
        Ok(app)
    }
}

impl RunningApp {
    /// Returns the parts of the server.
    pub fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// Returns the store.
    pub fn store(&self) -> &Store {
        &self.services.store
    }

    /// Waits until a part that must run stops by itself, or the store takes no more writes.
    pub async fn failed(&mut self) -> Error {
        let mut standing = self.services.store.watch_standing();
        let store = async move {
            match standing.wait_for(|now| matches!(now, Standing::Failed { .. })).await.as_deref() {
                Ok(Standing::Failed { why }) => Error::StoreFailed(why.clone()),
                // The store was closed, by whoever stops the server.
                _ => std::future::pending().await,
            }
        };
        let delivery = async {
            match &mut self.delivery {
                Some(delivery) => delivery.failed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            error = self.listeners.failed() => error,
            error = delivery => error,
            error = store => error,
        }
    }

    /// Stops in order: no new requests, delivery ends, requests under way end (or are cut off when
    /// the drain time is over), ingest ends with its last batch, the store is flushed and closed.
    ///
    /// # Errors
    /// Where the store does not close cleanly.
    pub async fn shutdown(self) -> Result<(), Error> {
        tracing::info!("server is draining");
        let store = self.services.store.clone();
        let endpoints_file = self.endpoints_file.clone();
        self.stop_parts().await;
        let closed = tokio::task::spawn_blocking(move || store.close()).await;
        if let Err(error) = std::fs::remove_file(&endpoints_file) {
            tracing::warn!(%error, "endpoints.json was not removed");
        }
        match closed {
            Ok(result) => result?,
            Err(error) => tracing::error!(%error, "closing the store failed"),
        }
        tracing::info!("server has stopped");
        Ok(())
    }

    async fn stop_parts(self) {
        self.services.health.set_draining();
        if let Some(delivery) = self.delivery {
            delivery.stop(self.drain).await;
        }
        self.services.health.stop_requests();
        self.listeners.stop(self.drain).await;
        self.housekeeping.stop(self.drain).await;
        self.services.projections.stop().await;
        self.services.ingest.stop().await;
        // Last: it takes along what the others wrote at their end.
        if let Some(shipping) = self.shipping {
            shipping.stop(self.drain).await;
        }
    }
}

async fn open_store(config: &Config, clock: Arc<dyn Clock>) -> Result<Store, Error> {
    let options = Options {
        path: config.data.clone(),
        clock,
        sync: config.wal_sync == WalSync::PerBatch,
        block_cache_bytes: config.block_cache_bytes,
    };
    let tuning = Tuning {
        sync_interval: (config.wal_sync == WalSync::Interval).then_some(config.wal_sync_interval),
        memtable_bytes_max: config.memtable_bytes_max,
        background_jobs: config.background_jobs,
        background_bytes_per_second: bytes(config.background_bytes_per_second),
        disk_reserve_bytes: bytes(config.disk_reserve_bytes),
    };
    match tokio::task::spawn_blocking(move || Store::open_tuned(options, &tuning)).await {
        Ok(store) => Ok(store?),
        Err(error) => Err(Error::Threads(std::io::Error::other(error))),
    }
}

async fn close(store: Store) {
    if let Ok(Err(error)) = tokio::task::spawn_blocking(move || store.close()).await {
        tracing::warn!(%error, "the store did not close cleanly");
    }
}

fn bytes(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// What queries put on disk lies beside the data, and leaves the room that writes need.
fn spilling(config: &Config) -> Option<Spilling> {
    (config.query_spill_bytes_max > 0).then(|| Spilling {
        directory: config.data.clone(),
        bytes_max: bytes(config.query_spill_bytes_max),
        keep_free_bytes: bytes(config.disk_reserve_bytes + config.memtable_bytes_max),
    })
}

fn build_services(config: &Config, store: Store, lanes: Lanes) -> Result<Arc<Services>, Error> {
    let mut engine_options = EngineOptions {
        memory_bytes_max: config.query_memory_bytes_max,
        spilling: spilling(config),
        timeout: config.query_timeout.unwrap_or(NO_TIMEOUT),
        ..EngineOptions::default()
    };
    engine_options.parse.bytes_max = config.sql_bytes_max;
    let engine = Engine::new(store.clone(), engine_options);
    let ingest_options =
        IngestOptions { record_bytes_max: config.record_bytes_max, ..IngestOptions::default() };
    let ingest = Ingest::new(store.clone(), ingest_options);
    let projection_options = ProjectionOptions {
        memory_bytes_max: config.projection_memory_bytes_max,
        spill_directory: config.data.clone(),
        ..ProjectionOptions::default()
    };
    let projections = Projections::new(store.clone(), projection_options)?;
    engine.add_system_table(Arc::new(StreamsTable(Arc::clone(&ingest))));
    engine.add_system_table(Arc::new(ProjectionsTable(Arc::clone(&projections))));
    engine.add_system_table(Arc::new(ProjectionErrorsTable(Arc::clone(&projections))));
    let running = Running::default();
    engine.add_system_table(Arc::new(QueriesTable::new(running.clone(), store.clone())));
    let limits = Limits {
        body_bytes_max: config.body_bytes_max,
        sql_bytes_max: config.sql_bytes_max,
        statement_timeout: config.query_timeout,
    };
    let started = store.clock().monotonic();
    Ok(Arc::new(Services {
        store,
        engine,
        ingest,
        projections,
        health: Health::default(),
        metrics: Metrics::default(),
        limits,
        running,
        defining: tokio::sync::Mutex::new(()),
        snapshotting: Arc::default(),
        snapshot_targets: config.snapshot_targets.clone(),
        shipping: ShippingStatus::default(),
        lanes,
        started,
        test_clock: config.test_clock.is_some(),
    }))
}

fn endpoints_error(path: &Path, source: std::io::Error) -> Error {
    Error::Endpoints { path: path.display().to_string(), source }
}

/// Writes the file whole or not at all, so that nobody reads half of it.
fn write_endpoints(path: &Path, endpoints: &Endpoints) -> Result<(), Error> {
    let failed = |source| endpoints_error(path, source);
    let text = serde_json::to_string(endpoints).map_err(|e| failed(e.into()))?;
    let beside = path.with_extension("json.new");
    std::fs::write(&beside, text + "\n").map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_line_names_every_listener() {
        let endpoints = Endpoints {
            http: Some("http://127.0.0.1:8080".to_owned()),
            grpc: None,
            postgres: None,
            admin: Some("http://127.0.0.1:9090".to_owned()),
        };
        assert_eq!(
            endpoints.ready_line(),
            "ready http=http://127.0.0.1:8080 grpc=off postgres=off admin=http://127.0.0.1:9090"
        );
    }

    #[test]
    fn endpoints_that_are_off_are_null() {
        let text = serde_json::to_string(&Endpoints::default()).unwrap();
        assert_eq!(text, r#"{"http":null,"grpc":null,"postgres":null,"admin":null}"#);
    }
}
