//! `QueryService`: rows as pieces of one Arrow IPC stream, then a summary.

use std::pin::Pin;
use std::time::Duration;

use everwhen_proto::v1::execute_response::Part;
use everwhen_proto::v1::query_service_server::QueryService;
use everwhen_proto::v1::{ExecuteRequest, ExecuteResponse, Summary};
use everwhen_query::Params;
use everwhen_storage::time::Instant;
use futures::{Stream, StreamExt as _};
use serde_json::Value;
use tonic::{Request, Response, Status};

use super::{Shared, given, told};
use crate::encode::{Encoder, Format, Integers, Tail};
use crate::failure::{Answered, Failure};
use crate::service::instant_of;
use crate::service::query::{Answer, Rows, Statement, run};
use crate::service::write::Written;

/// Bytes of Arrow in one message at most.
const PIECE_BYTES: usize = 1 << 20;

/// An Arrow stream ends in nothing of its own: the summary follows as a message.
const NO_TAIL: Tail<'static> = Tail { basis: "", next: None, stats: &Value::Null };

pub(super) struct Queries(pub(super) Shared);

type Pieces = Pin<Box<dyn Stream<Item = Result<ExecuteResponse, Status>> + Send>>;

#[tonic::async_trait]
impl QueryService for Queries {
    type ExecuteStream = Pieces;

    async fn execute(
        &self,
        request: Request<ExecuteRequest>,
    ) -> Result<Response<Self::ExecuteStream>, Status> {
        let answer = self.answer(request.into_inner()).await;
        told(&self.0, "Query/Execute", answer)
    }
}

impl Queries {
    async fn answer(&self, request: ExecuteRequest) -> Answered<Pieces> {
        match run(&self.0, decode(request)?).await? {
            Answer::Rows(rows) => Ok(Box::pin(Sending::new(rows)?.pieces())),
            Answer::Written(written) => {
                let pieces = written_pieces(&written)?;
                Ok(Box::pin(futures::stream::iter(pieces.into_iter().map(Ok))))
            }
        }
    }
}

fn decode(request: ExecuteRequest) -> Answered<Statement> {
    let mut statement = Statement::new(request.sql);
    if !request.params_json.is_empty() {
        statement.params = match serde_json::from_str(&request.params_json) {
            Ok(Value::Array(values)) => Params::Positional(values),
            Ok(Value::Object(fields)) => Params::Named(fields),
            _ => {
                let detail = "\"params_json\" must be a JSON list for $1.. or object for $name";
                return Err(Failure::request(detail));
            }
        };
    }
    statement.tenant = given(request.tenant);
    statement.valid_time = instant("valid_time", &request.valid_time)?;
    statement.system_time = instant("system_time", &request.system_time)?;
    statement.basis = given(request.basis);
    statement.limit = (request.limit > 0).then_some(request.limit);
    statement.timeout = (request.timeout_ms > 0).then(|| Duration::from_millis(request.timeout_ms));
    Ok(statement)
}

fn instant<A>(name: &str, text: &str) -> Answered<Option<Instant<A>>> {
    (!text.is_empty()).then(|| instant_of(&name, text)).transpose()
}

/// An answer under way.
struct Sending {
    rows: Rows,
    encoder: Encoder,
    /// Encoded and not yet sent.
    pending: Vec<u8>,
    count: u64,
    state: State,
}

enum State {
    Rows,
    Summary,
    Done,
}

impl Sending {
    fn new(rows: Rows) -> Answered<Self> {
        let columns = rows.columns.clone();
        let mut encoder = Encoder::new(Format::Arrow, Integers::Numbers, columns, &rows.schema)?;
        let mut pending = Vec::new();
        encoder.begin(&mut pending)?;
        Ok(Self { rows, encoder, pending, count: 0, state: State::Rows })
    }

    fn pieces(self) -> impl Stream<Item = Result<ExecuteResponse, Status>> {
        futures::stream::unfold(self, |mut sending| async move {
            let piece = sending.next().await?;
            Some((piece.map_err(Status::from), sending))
        })
    }

    async fn next(&mut self) -> Option<Answered<ExecuteResponse>> {
        loop {
            match self.state {
                State::Rows if self.pending.len() >= PIECE_BYTES => return Some(Ok(self.piece())),
                State::Rows => {
                    if let Err(failure) = self.step().await {
                        self.state = State::Done;
                        return Some(Err(failure));
                    }
                }
                State::Summary if !self.pending.is_empty() => return Some(Ok(self.piece())),
                State::Summary => {
                    self.state = State::Done;
                    let basis = self.rows.basis.clone();
                    let summary = Summary { basis, rows: self.count, ..Summary::default() };
                    return Some(Ok(part(Part::Summary(summary))));
                }
                State::Done => return None,
            }
        }
    }

    async fn step(&mut self) -> Answered<()> {
        match self.rows.next().await {
            Some(batch) => {
                let batch = batch?;
                self.count += u64::try_from(batch.num_rows()).unwrap_or(u64::MAX);
                self.encoder.batch(&batch, &mut self.pending)
            }
            None => {
                self.state = State::Summary;
                self.encoder.end(&NO_TAIL, &mut self.pending)
            }
        }
    }

    fn piece(&mut self) -> ExecuteResponse {
        let rest = self.pending.split_off(self.pending.len().min(PIECE_BYTES));
        part(Part::ArrowIpc(std::mem::replace(&mut self.pending, rest)))
    }
}

fn written_pieces(written: &Written) -> Answered<Vec<ExecuteResponse>> {
    let mut pieces = Vec::new();
    let mut rows = 0;
    if let Some([first, rest @ ..]) = written.returning.as_deref() {
        let schema = first.schema();
        let mut encoder = Encoder::new(Format::Arrow, Integers::Numbers, Vec::new(), &schema)?;
        let mut bytes = Vec::new();
        encoder.begin(&mut bytes)?;
        for batch in std::iter::once(first).chain(rest) {
            rows += u64::try_from(batch.num_rows()).unwrap_or(u64::MAX);
            encoder.batch(batch, &mut bytes)?;
        }
        encoder.end(&NO_TAIL, &mut bytes)?;
        let cut = bytes.chunks(PIECE_BYTES).map(|piece| part(Part::ArrowIpc(piece.to_vec())));
        pieces.extend(cut);
    }
    pieces.push(part(Part::Summary(Summary {
        basis: written.basis.clone(),
        rows,
        tx: written.tx.get(),
        system_time: written.system_time.to_string(),
    })));
    Ok(pieces)
}

const fn part(part: Part) -> ExecuteResponse {
    ExecuteResponse { part: Some(part) }
}
