//! All streams of a store: a thread for each topic, started and stopped as definitions change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use everwhen_query::QUERY_STACK_BYTES;
use everwhen_storage::{DefinitionKind, Definitions, Store, Tenant, ValidTime};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::batch::BatchLimits;
use crate::commit::Committer;
use crate::emit::{self, EmitAnswer, EmitEvent};
use crate::error::{Error, Result};
use crate::kafka::Worker;
use crate::metrics::{Counters, StreamMetrics};
use crate::signal::StopSignal;
use crate::status::{Board, StreamStatus};
use crate::stream::{KafkaTopic, RECORD_BYTES_MAX_DEFAULT, StreamDef};

/// How ingest runs.
#[derive(Debug, Clone, Copy)]
pub struct IngestOptions {
    /// The largest record of a stream that sets none of its own, in bytes.
    pub record_bytes_max: usize,
    /// How large a batch of records may grow.
    pub batch: BatchLimits,
    /// Requests with posted events that are written at one time; more are told to come again.
    pub emits_max: usize,
}

impl Default for IngestOptions {
    fn default() -> Self {
        Self {
            record_bytes_max: RECORD_BYTES_MAX_DEFAULT,
            batch: BatchLimits::default(),
            emits_max: 256,
        }
    }
}

/// The streams of a store.
pub struct Ingest {
    store: Store,
    options: IngestOptions,
    stop: Arc<StopSignal>,
    streams: Mutex<BTreeMap<String, Arc<Stream>>>,
    supervisor: Mutex<Option<JoinHandle<()>>>,
    emits: Semaphore,
}

/// What outlives a stream's threads.
struct Stream {
    committer: Arc<Committer>,
    counters: Arc<Counters>,
    board: Arc<Board>,
}

/// A running stream of a topic.
struct Running {
    topic: KafkaTopic,
    stop: Arc<StopSignal>,
    thread: JoinHandle<()>,
}

/// How often the definitions are compared with what runs.
const FOLLOW: Duration = Duration::from_millis(20);
/// How long a stop waits for the batch at hand of every stream.
const DRAIN: Duration = Duration::from_secs(15);

impl Ingest {
    /// Builds the ingest of a store. Nothing runs before [`Self::start`]; events can be posted.
    pub fn new(store: Store, options: IngestOptions) -> Arc<Self> {
        Arc::new(Self {
            store,
            options,
            stop: Arc::default(),
            streams: Mutex::default(),
            supervisor: Mutex::default(),
            emits: Semaphore::new(options.emits_max),
        })
    }

    /// Starts a thread for each stream with a topic, now and whenever definitions change.
    pub fn start(self: &Arc<Self>) {
        let mut supervisor = self.supervisor.lock();
        if supervisor.is_some() || self.stop.is_set() {
            return;
        }
        let ingest = Arc::clone(self);
        let thread =
            std::thread::Builder::new().name("ingest".to_owned()).stack_size(QUERY_STACK_BYTES);
        match thread.spawn(move || ingest.supervise()) {
            Ok(thread) => *supervisor = Some(thread),
            Err(error) => tracing::error!(%error, "ingest has no thread and does not run"),
        }
    }

    /// Stops taking records and waits until the batches at hand are durable.
    pub async fn stop(&self) {
        self.stop.set();
        self.emits.close();
        let Some(supervisor) = self.supervisor.lock().take() else { return };
        let joined = tokio::task::spawn_blocking(move || supervisor.join().is_ok());
        // A client that does not close must not keep the process.
        match tokio::time::timeout(DRAIN, joined).await {
            Ok(Ok(true)) => {}
            _ => tracing::warn!("ingest did not stop in time, its last batch may be read again"),
        }
    }

    /// Puts events through the mappings of a stream; answers when all of them are durable, each as
    /// a transaction of its own. Events that cannot be processed are dead letters.
    ///
    /// A session of another tenant than `default` is bound to it: events that a mapping gives to
    /// another tenant are rejected.
    ///
    /// # Errors
    /// [`Error::UnknownStream`], [`Error::NoMapping`]; [`Error::Busy`] and [`Error::Stopped`] to
    /// try again; [`Error::Storage`].
    pub async fn emit(
        &self,
        stream: &str,
        tenant: &Tenant,
        events: Vec<EmitEvent>,
    ) -> Result<EmitAnswer> {
        let _slot = self.emits.try_acquire().map_err(|error| match error {
            tokio::sync::TryAcquireError::NoPermits => Error::Busy,
            tokio::sync::TryAcquireError::Closed => Error::Stopped,
        })?;
        if self.store.definitions().get(DefinitionKind::Stream, stream).is_none() {
            return Err(Error::UnknownStream { stream: stream.to_owned() });
        }
        let committer = Arc::clone(&self.stream(stream).committer);
        let tenant = tenant.clone();
        let now = ValidTime::from_micros(self.store.clock().now_micros());
        let work = move || emit::emit(&committer, &tenant, now, &events);
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(Error::Stopped))
    }

    /// Returns where every stream stands, in order of stream and partition. Blocks for moments, as
    /// it asks brokers where their logs end.
    pub fn status(&self) -> Vec<StreamStatus> {
        let definitions = self.store.definitions();
        let mut rows = Vec::new();
        for definition in definitions.all(DefinitionKind::Stream) {
            let name = definition.name.as_str();
            match StreamDef::read(definition) {
                Ok(StreamDef { kafka: Some(kafka), reading, .. }) => {
                    rows.extend(self.stream(name).board.rows(name, &kafka.topic, &reading));
                }
                Ok(_) => rows.push(StreamStatus::bare(name, "events".to_owned(), None)),
                Err(error) => {
                    let state = "stopped".to_owned();
                    rows.push(StreamStatus::bare(name, state, Some(error.to_string())));
                }
            }
        }
        rows
    }

    /// Returns the counters of every stream that has been seen since the start.
    pub fn metrics(&self) -> Vec<(String, StreamMetrics)> {
        let streams = self.streams.lock();
        streams.iter().map(|(name, stream)| (name.clone(), stream.counters.read())).collect()
    }

    fn stream(&self, name: &str) -> Arc<Stream> {
        let mut streams = self.streams.lock();
        let make = || {
            let counters = Arc::<Counters>::default();
            let committer = Committer::new(
                self.store.clone(),
                name,
                self.options.record_bytes_max,
                Arc::clone(&counters),
            );
            Arc::new(Stream { committer: Arc::new(committer), counters, board: Arc::default() })
        };
        Arc::clone(streams.entry(name.to_owned()).or_insert_with(make))
    }

    fn supervise(&self) {
        let mut running = BTreeMap::<String, Running>::new();
        let mut followed: Option<Arc<Definitions>> = None;
        loop {
            let definitions = self.store.definitions();
            if followed.as_ref().is_none_or(|followed| !Arc::ptr_eq(followed, &definitions)) {
                self.follow(&definitions, &mut running);
                followed = Some(definitions);
            }
            if self.stop.wait(FOLLOW) {
                break;
            }
        }
        for stream in running.values() {
            stream.stop.set();
        }
        for (name, stream) in running {
            join(&name, stream);
        }
    }

    fn follow(&self, definitions: &Definitions, running: &mut BTreeMap<String, Running>) {
        let mut wanted = BTreeMap::new();
        for definition in definitions.all(DefinitionKind::Stream) {
            match StreamDef::read(definition) {
                Ok(StreamDef { kafka: Some(topic), .. }) => {
                    wanted.insert(definition.name.clone(), topic);
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "stream is not run"),
            }
        }
        let outdated: Vec<String> = running
            .iter()
            .filter(|(name, stream)| wanted.get(*name) != Some(&stream.topic))
            .map(|(name, _)| name.clone())
            .collect();
        for name in outdated {
            if let Some(stream) = running.remove(&name) {
                stream.stop.set();
                join(&name, stream);
                // What is read from now on is another topic's: its state starts anew.
                self.streams.lock().remove(&name);
            }
        }
        for (name, topic) in wanted {
            if running.contains_key(&name) {
                continue;
            }
            match self.run(&name, topic) {
                Ok(stream) => {
                    running.insert(name, stream);
                }
                Err(error) => tracing::error!(stream = name, %error, "stream has no thread"),
            }
        }
    }

    fn run(&self, name: &str, topic: KafkaTopic) -> std::io::Result<Running> {
        let stream = self.stream(name);
        let stop = Arc::<StopSignal>::default();
        let worker = Worker {
            store: self.store.clone(),
            topic: topic.clone(),
            committer: Arc::clone(&stream.committer),
            board: Arc::clone(&stream.board),
            counters: Arc::clone(&stream.counters),
            stop: Arc::clone(&stop),
            limits: self.options.batch,
        };
        let thread = std::thread::Builder::new()
            .name(format!("kafka-{name}"))
            .stack_size(QUERY_STACK_BYTES)
            .spawn(move || worker.run())?;
        Ok(Running { topic, stop, thread })
    }
}

fn join(name: &str, stream: Running) {
    if stream.thread.join().is_err() {
        tracing::error!(stream = name, "the stream's thread failed");
    }
}
