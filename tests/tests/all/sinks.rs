//! Sinks and the delivery loop against a hostile world: a server that repeats, reorders and forgets, two
//! workers that both believe they hold the lease, and a BigQuery that answers 403, 429 and 500, before
//! and after it did what was asked. Only the sink's control row keeps the table right.
//!
//! Part of `make soak`: it runs for minutes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response as HttpResponse};
use everwhen_projector::deliver::config::BigQueryConfig;
use everwhen_projector::deliver::kind::Cell;
use everwhen_projector::deliver::retry::RetryConfig;
use everwhen_projector::deliver::sinks::bigquery::BigQuerySink;
use everwhen_projector::deliver::sinks::memory::MemorySink;
use everwhen_projector::deliver::sinks::sqlite::SqliteSink;
use everwhen_projector::deliver::step::RowStep;
use everwhen_projector::deliver::target::Target;
use everwhen_projector::deliver::{DeliverConfig, Sink, run_with, suite};
use everwhen_proto::v1 as proto;
use everwhen_proto::v1::projection_service_server::{ProjectionService, ProjectionServiceServer};
use everwhen_tests::{seed, shared_emulator, soak};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

const RETRY: RetryConfig = RetryConfig { first_ms: 2, most_ms: 20, refused_ms: 10 };

fn dataset(endpoint: &str, dataset: &str) -> BigQueryConfig {
    BigQueryConfig {
        project: "test".into(),
        dataset: dataset.into(),
        location: None,
        credentials: None,
        endpoint: Some(endpoint.into()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bigquery_passes_the_suite_on_the_emulator() {
    let config = dataset(&shared_emulator().rest, "suite");
    let sink = BigQuerySink::open("lake", &config).await.unwrap();
    suite::check(&sink, "suite").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_server_and_two_workers_cannot_make_a_table_wrong() {
    for n in 0..4 * soak() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("warehouse.db");
        // Two processes, two connections to one file.
        let first = Arc::new(SqliteSink::open("warehouse", &path).unwrap());
        let second = Arc::new(SqliteSink::open("warehouse", &path).unwrap());
        let history = History::random(seed() + n, 60);
        play(history, vec![first, second], 20).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_bigquery_ends_right_and_says_what_it_refuses() {
    let proxy = Proxy::start(shared_emulator().rest.clone(), seed()).await.unwrap();
    let config = dataset(&format!("http://{}", proxy.address), "hostile");
    let first = Arc::new(BigQuerySink::open("warehouse", &config).await.unwrap());
    let second = Arc::new(BigQuerySink::open("warehouse", &config).await.unwrap());
    let history = History::random(seed(), 24);
    // A takeover is several requests: a lease must last longer than that.
    let fails = play(history, vec![first, second], 500).await.unwrap();
    let injected = proxy.injected.lock().clone();
    for status in [403, 429, 500] {
        assert!(injected.contains_key(&status), "no {status} was sent, seed {}", seed());
    }
    let said = |code: &str| fails.iter().any(|fail| fail.contains(code));
    assert!(said("403 accessDenied"), "{fails:?}");
    assert!(said("429") && said("500"), "{fails:?}");
}

/// Says whether the sink of [`rows_that_a_sink_refuses_hold_up_nothing`] refuses a value.
const fn is_refused(n: i64) -> bool {
    n % 5 == 0
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_sink_refuses_hold_up_nothing() {
    for n in 0..8 * soak() {
        let constraint = |row: &RowStep| match row.row.as_ref()?.get(1)? {
            Cell::Int(n) if is_refused(*n) => Some("not of fives".to_owned()),
            _ => None,
        };
        let sink = Arc::new(MemorySink::constrained(constraint, n % 2 == 0));
        let mut history = History::random(seed() + n, 60);
        history.rows = history.accepted();
        play(history, vec![Arc::clone(&sink) as Arc<dyn Sink>, sink], 20).await.unwrap();
    }
}

/// Delivers a history by one worker per sink and compares the table with the history's end.
/// Workers ask for leases, and steal them, every `lease_poll_ms`. Returns what they reported as failures.
async fn play(
    history: History,
    sinks: Vec<Arc<dyn Sink>>,
    lease_poll_ms: u64,
) -> Result<Vec<String>> {
    let expected = history.rows.clone();
    let server = HostileServer::new(history);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let service = ProjectionServiceServer::from_arc(Arc::clone(&server));
    let ended = stop.clone();
    tasks.spawn(async move {
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let router = tonic::transport::Server::builder().add_service(service);
        router.serve_with_incoming_shutdown(incoming, ended.cancelled_owned()).await.ok();
    });
    let workers = CancellationToken::new();
    let mut running = JoinSet::new();
    for (n, sink) in sinks.iter().enumerate() {
        let config = DeliverConfig {
            server: format!("http://{address}"),
            worker: format!("worker {n}"),
            sinks: BTreeMap::new(),
            retry: RETRY,
            lease_poll_ms,
        };
        let sinks = BTreeMap::from([("warehouse".to_owned(), Arc::clone(sink))]);
        running.spawn(run_with(config, sinks, workers.clone()));
    }
    let deadline = tokio::time::Duration::from_secs(300);
    let seed = server.state.lock().seed;
    let done = async {
        while !server.state.lock().is_done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(deadline, done).await.is_ok();
    workers.cancel();
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    stop.cancel();
    tasks.join_all().await;
    let state = server.state.lock();
    ensure!(state.lost.is_empty(), "passed over without a report: {:?}, seed {seed}", state.lost);
    ensure!(in_time, "stuck at {} of {}, seed {seed}", state.acked, state.chunks.len());
    let target = Target::from_lease(&state.lease())?;
    let fails = state.fails.clone();
    drop(state);
    let sink = sinks.first().expect("there is a sink");
    let mut found = loop {
        // Reading goes through the same faults.
        match sink.rows(&target).await {
            Err(error) if error.is_retryable() || error.to_string().contains("on purpose") => {}
            read => break read?,
        }
    };
    found.sort_by_key(|row| row[0].as_str().map(str::to_owned));
    let expected: Vec<Vec<Value>> =
        expected.iter().map(|(id, n)| vec![json!(id), json!(n)]).collect();
    ensure!(found == expected, "seed {seed}: {found:?} instead of {expected:?}");
    Ok(fails)
}

/// Chunks of two generations and the rows they lead to.
struct History {
    seed: u64,
    chunks: Vec<proto::Chunk>,
    rows: BTreeMap<String, i64>,
}

impl History {
    fn random(seed: u64, chunks: usize) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut history = Self { seed, chunks: Vec::new(), rows: BTreeMap::new() };
        let mut next_change = 1;
        for place in 0..chunks {
            let generation = if place < chunks / 2 { 1 } else { 2 };
            let begins = place == 0 || place == chunks / 2;
            if begins {
                // A reload writes all rows anew; here it begins with a few and goes on.
                history.rows.clear();
                next_change = 1;
            }
            let ends = place == 2 || place == chunks / 2 + 2;
            let mut chunk = proto::Chunk {
                projection: "p".into(),
                generation,
                tx: place as u64 + 1,
                first_change: next_change,
                last: true,
                reload_begin: begins,
                reload_end: ends,
                ..proto::Chunk::default()
            };
            // The end of a reload must not be acknowledged by what came before it.
            for _ in 0..random.random_range(usize::from(ends)..5) {
                let id = format!("k{}", random.random_range(0..12));
                let row = if random.random_bool(0.3) {
                    history.rows.remove(&id);
                    (json!({ "id": id }), true)
                } else {
                    let n = random.random_range(0..1000);
                    history.rows.insert(id.clone(), n);
                    (json!({ "id": id, "n": n }), false)
                };
                chunk.changes.push(proto::RowChange { row_json: row.0.to_string(), delete: row.1 });
                next_change += 1;
            }
            history.chunks.push(chunk);
        }
        history
    }
}

impl History {
    /// The rows that a sink ends with that refuses those [`is_refused`].
    fn accepted(&self) -> BTreeMap<String, i64> {
        let mut rows = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for chunk in &self.chunks {
            if chunk.reload_begin {
                seen.clear();
            }
            for change in &chunk.changes {
                let row: Value = serde_json::from_str(&change.row_json).unwrap();
                let id = row["id"].as_str().unwrap().to_owned();
                match row["n"].as_i64() {
                    Some(n) if is_refused(n) => continue,
                    Some(n) => rows.insert(id.clone(), n),
                    None => rows.remove(&id),
                };
                seen.insert(id);
            }
            if chunk.reload_end {
                rows.retain(|id, _| seen.contains(id));
            }
        }
        rows
    }
}

/// A projection server that keeps no promise but one: it offers a chunk again until it is acknowledged.
struct HostileServer {
    state: Mutex<ServerState>,
}

struct ServerState {
    seed: u64,
    random: StdRng,
    chunks: Vec<proto::Chunk>,
    acked: usize,
    leases: u64,
    fails: Vec<String>,
    /// Refused changes that were reported, with their generation.
    reported: BTreeSet<(u64, u64)>,
    /// Refused changes that were acknowledged as passed over and never reported.
    lost: Vec<u64>,
}

impl ServerState {
    fn is_done(&self) -> bool {
        self.acked == self.chunks.len()
    }

    fn lease(&self) -> proto::Lease {
        let column = |name: &str, kind: &str| proto::SinkColumn {
            name: name.into(),
            r#type: kind.into(),
            nullable: true,
        };
        let at = self.acked.min(self.chunks.len() - 1);
        proto::Lease {
            projection: "p".into(),
            lease: self.leases,
            generation: self.chunks[at].generation,
            sink: "warehouse".into(),
            table: "hostile".into(),
            columns: vec![column("id", "text"), column("n", "int64")],
            key: vec!["id".into()],
            metadata: !self.seed.is_multiple_of(2),
            acked_change: 0,
            lease_ms: 200,
            incarnation: "one".into(),
        }
    }
}

impl HostileServer {
    fn new(history: History) -> Arc<Self> {
        let History { seed, chunks, .. } = history;
        let random = StdRng::seed_from_u64(seed ^ 0x5eed);
        let state = ServerState {
            seed,
            random,
            chunks,
            acked: 0,
            leases: 0,
            fails: Vec::new(),
            reported: BTreeSet::new(),
            lost: Vec::new(),
        };
        Arc::new(Self { state: Mutex::new(state) })
    }
}

#[tonic::async_trait]
impl ProjectionService for HostileServer {
    async fn list(
        &self,
        _request: Request<proto::ListProjectionsRequest>,
    ) -> Result<Response<proto::ListProjectionsResponse>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn lease(
        &self,
        _request: Request<proto::LeaseRequest>,
    ) -> Result<Response<proto::LeaseResponse>, Status> {
        let mut state = self.state.lock();
        // Leases are stolen now and then, also from oneself.
        if state.leases > 0 && !state.random.random_bool(0.2) {
            return Ok(Response::new(proto::LeaseResponse::default()));
        }
        state.leases += 1;
        Ok(Response::new(proto::LeaseResponse { leases: vec![state.lease()] }))
    }

    async fn next(
        &self,
        _request: Request<proto::NextRequest>,
    ) -> Result<Response<proto::NextResponse>, Status> {
        let chunk = {
            let mut state = self.state.lock();
            let (acked, all) = (state.acked, state.chunks.len());
            // Nobody is told that the lease is over: the sink must find out.
            let place = match state.random.random_range(0..10) {
                0 => return Err(Status::unavailable("on purpose")),
                1 if acked > 0 => state.random.random_range(0..acked),
                2 => acked + 1,
                3 => all,
                _ => acked,
            };
            state.chunks.get(place).cloned()
        };
        if chunk.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(Response::new(proto::NextResponse { chunk }))
    }

    async fn ack(
        &self,
        request: Request<proto::AckRequest>,
    ) -> Result<Response<proto::AckResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state.lock();
        let roll = state.random.random_range(0..10);
        if roll == 0 {
            return Err(Status::unavailable("dropped before it counts"));
        }
        // Acknowledgements of older leases do not count, as they may be of another generation.
        let (acked, leases) = (state.acked, state.leases);
        if request.lease == leases
            && let Some(chunk) = state.chunks.get(acked)
        {
            let count = chunk.changes.len() as u64;
            let last = (chunk.first_change + count).saturating_sub(1);
            let of_this_generation = acked == 0 || request.change >= chunk.first_change - 1;
            if last <= request.change && of_this_generation {
                let generation = chunk.generation;
                let reported = |change: &u64| state.reported.contains(&(generation, *change));
                let lost: Vec<u64> =
                    request.refused.into_iter().filter(|change| !reported(change)).collect();
                state.lost.extend(lost);
                state.acked += 1;
                // A new generation needs a new lease.
                if state.chunks.get(state.acked).is_some_and(|next| next.generation != generation) {
                    state.leases += 1;
                }
            }
        }
        if roll == 1 {
            return Err(Status::unavailable("lost after it counted"));
        }
        Ok(Response::new(proto::AckResponse {}))
    }

    async fn fail(
        &self,
        request: Request<proto::FailRequest>,
    ) -> Result<Response<proto::FailResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state.lock();
        if request.refused.is_empty() {
            state.fails.push(request.error);
            return Ok(Response::new(proto::FailResponse {}));
        }
        let roll = state.random.random_range(0..10);
        if roll == 0 {
            return Err(Status::unavailable("dropped before it counts"));
        }
        let generation = state.lease().generation;
        state.reported.extend(request.refused.iter().map(|row| (generation, row.change)));
        if roll == 1 {
            return Err(Status::unavailable("lost after it counted"));
        }
        Ok(Response::new(proto::FailResponse {}))
    }

    async fn release(
        &self,
        _request: Request<proto::ReleaseRequest>,
    ) -> Result<Response<proto::ReleaseResponse>, Status> {
        Ok(Response::new(proto::ReleaseResponse {}))
    }
}

/// Stands before the emulator and breaks some requests, before or after they took effect.
struct Proxy {
    address: SocketAddr,
    injected: Arc<Mutex<BTreeMap<u16, usize>>>,
    _tasks: JoinSet<()>,
}

#[derive(Clone)]
struct ProxyState {
    emulator: String,
    http: reqwest::Client,
    faults: Arc<Mutex<Deck>>,
    injected: Arc<Mutex<BTreeMap<u16, usize>>>,
}

impl Proxy {
    async fn start(emulator: String, seed: u64) -> Result<Self> {
        let injected = Arc::new(Mutex::new(BTreeMap::new()));
        let state = ProxyState {
            emulator,
            http: reqwest::Client::builder().pool_max_idle_per_host(0).build()?,
            faults: Arc::new(Mutex::new(Deck::new(seed))),
            injected: Arc::clone(&injected),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        let router = Router::new().fallback(pass_on).with_state(state);
        tasks.spawn(async move {
            axum::serve(listener, router).await.ok();
        });
        Ok(Self { address, injected, _tasks: tasks })
    }
}

/// What a request is answered with instead: status, reason, and whether it was passed on before.
type Fault = (u16, &'static str, bool);

/// Faults in random order, each as often as it should be in every twenty requests.
struct Deck {
    random: StdRng,
    cards: Vec<Option<Fault>>,
}

impl Deck {
    fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), cards: Vec::new() }
    }

    fn draw(&mut self) -> Option<Fault> {
        if self.cards.is_empty() {
            let faults = [
                (403, "accessDenied", false),
                (429, "rateLimitExceeded", false),
                (500, "backendError", false),
                (500, "backendError", true),
                (500, "backendError", true),
                (503, "", true),
            ];
            self.cards.extend(faults.map(Some));
            self.cards.resize(20, None);
            self.cards.shuffle(&mut self.random);
        }
        self.cards.pop().flatten()
    }
}

async fn pass_on(
    State(state): State<ProxyState>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> HttpResponse {
    let fault = state.faults.lock().draw();
    let answer = match fault {
        Some((_, _, false)) => None,
        _ => {
            let url = format!("{}{uri}", state.emulator);
            let mut request = state.http.request(method, url).body(body);
            if let Some(kind) = headers.get("content-type") {
                request = request.header("content-type", kind);
            }
            request.send().await.ok()
        }
    };
    if let Some((status, reason, _)) = fault {
        *state.injected.lock().entry(status).or_default() += 1;
        let status = StatusCode::from_u16(status).unwrap_or_default();
        if reason.is_empty() {
            // As a load balancer would say it.
            return (status, "<html>try again</html>").into_response();
        }
        let error = json!({ "error": {
            "code": status.as_u16(), "message": "on purpose",
            "errors": [{ "reason": reason, "message": "on purpose", "domain": "global" }],
            "status": "ON_PURPOSE",
        }});
        return (status, axum::Json(error)).into_response();
    }
    let Some(answer) = answer else { return StatusCode::BAD_GATEWAY.into_response() };
    let status = answer.status();
    let body = answer.bytes().await.unwrap_or_default();
    (status, [("content-type", "application/json")], body).into_response()
}
