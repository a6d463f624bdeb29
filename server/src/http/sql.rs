//! `POST /v1/sql`: one statement, or several writes as one transaction; `POST /v1/sql/explain`: how
//! a query would be run.

use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use everwhen_query::Params;
use futures::StreamExt as _;
use serde_json::{Value, json};

use super::body::{self, Object};
use super::page::Paging;
use super::{NEXT_HEADER, QUERY_HEADER, Shared};
use crate::encode::{Encoder, Format, Integers, Tail, written_json};
use crate::failure::{Answered, Failure};
use crate::service::query::{Answer, Rows, Statement, run};

/// Bytes that are gathered before the answer begins, so that a failure until then is a proper one.
const HEAD_BYTES: usize = 256 << 10;
/// Bytes of a piece of the body after that.
const PIECE_BYTES: usize = 64 << 10;

pub(super) async fn post_sql(
    State(services): State<Shared>,
    headers: HeaderMap,
    body: Body,
) -> Answered<Response> {
    let started = services.monotonic();
    let format = super::accept::accepted(&headers)?;
    let bytes = body::read(&headers, body, services.limits.body_bytes_max).await?;
    let Asked { statement, integers, paging } = decode(&bytes)?;
    match run(&services, statement).await? {
        Answer::Written(written) => {
            let document = written_json(&written, integers)?;
            Ok(super::with_basis(super::json(&document), &written.basis))
        }
        Answer::Rows(rows) => {
            let form = Form { format, integers, paging };
            Sending::begin(services, rows, form, started).await
        }
    }
}

/// What stands before a query to have it explained.
const EXPLAIN: &str = "EXPLAIN ";

pub(super) async fn post_explain(
    State(services): State<Shared>,
    headers: HeaderMap,
    body: Body,
) -> Answered<Response> {
    let bytes = body::read(&headers, body, services.limits.body_bytes_max).await?;
    let Asked { mut statement, paging, .. } = decode(&bytes)?;
    if paging.is_some() {
        return Err(Failure::request("a plan has no pages"));
    }
    statement.sql.insert_str(0, EXPLAIN);
    let answer = run(&services, statement).await.map_err(|mut failure| {
        // Places are those of the text that was sent.
        failure.position = failure.position.map(|at| at.saturating_sub(EXPLAIN.len()).max(1));
        failure
    })?;
    let Answer::Rows(rows) = answer else {
        return Err(Failure::internal(&"a plan was taken for a write"));
    };
    let basis = rows.basis.clone();
    let columns = rows.columns.clone();
    let mut parts = Vec::new();
    for batch in rows.collect().await? {
        for row in 0..batch.num_rows() {
            let cell = |at: usize| {
                let (array, (_, kind)) = (batch.columns().get(at)?, columns.get(at)?);
                Some(everwhen_query::columns::json_of(array, row, kind))
            };
            parts.push(json!({"part": cell(0), "text": cell(1)}));
        }
    }
    Ok(super::with_basis(super::json(&json!({"plan": parts, "basis": basis})), &basis))
}

/// What a request asks for.
struct Asked {
    statement: Statement,
    integers: Integers,
    paging: Option<Paging>,
}

fn decode(bytes: &[u8]) -> Answered<Asked> {
    let mut body = Object::parse(bytes)?;
    let sql = body.text("sql")?.ok_or_else(|| body.missing("sql"))?;
    let mut statement = Statement::new(sql);
    if let Some(raw) = body.raw("params") {
        statement.params = match serde_json::from_str(raw.get()) {
            Ok(Value::Array(values)) => Params::Positional(values),
            Ok(Value::Object(fields)) => Params::Named(fields),
            _ => {
                let detail = "\"params\" must be a list for $1.. or an object for $name";
                return Err(Failure::request(detail));
            }
        };
    }
    statement.tenant = body.text("tenant")?;
    statement.valid_time = body.instant("valid_time")?;
    statement.system_time = body.instant("system_time")?;
    statement.basis = body.text("basis")?;
    statement.limit = body.whole("limit")?;
    statement.timeout = match body.whole("timeout_ms")? {
        Some(0) => return Err(Failure::request("\"timeout_ms\" must be at least 1")),
        millis => millis.map(Duration::from_millis),
    };
    let integers = match body.text("int64")?.as_deref() {
        None | Some("number") => Integers::Numbers,
        Some("text") => Integers::Text,
        Some(other) => {
            let detail = format!("\"int64\" must be \"number\" or \"text\", got \"{other}\"");
            return Err(Failure::request(detail));
        }
    };
    let paging = Paging::take(&mut body, &mut statement)?;
    body.finish()?;
    Ok(Asked { statement, integers, paging })
}

/// How rows are to leave.
struct Form {
    format: Format,
    integers: Integers,
    paging: Option<Paging>,
}

/// An answer under way: rows not yet read, and bytes not yet sent.
struct Sending {
    services: Shared,
    rows: Rows,
    encoder: Encoder,
    started: Instant,
    count: u64,
    paging: Option<Paging>,
    /// The token of the page after this one, where there are rows for it.
    next: Option<String>,
    pending: Vec<u8>,
    ended: bool,
}

impl Sending {
    /// Reads the first rows, and answers with them and what follows.
    async fn begin(
        services: Shared,
        rows: Rows,
        form: Form,
        started: Instant,
    ) -> Answered<Response> {
        let Form { format, integers, paging } = form;
        let basis = rows.basis.clone();
        let id = rows.id().map(str::to_owned);
        let mut encoder = Encoder::new(format, integers, rows.columns.clone(), &rows.schema)?;
        let mut pending = Vec::new();
        encoder.begin(&mut pending)?;
        let (count, next, ended) = (0, None, false);
        let mut sending =
            Self { services, rows, encoder, started, count, paging, next, pending, ended };
        while !sending.ended && sending.pending.len() < HEAD_BYTES {
            sending.step().await?;
        }
        // A page that is still under way may be the last; its reader finds that out by its length.
        let next = match sending.ended {
            true => sending.next.clone(),
            false => sending.paging.map(|paging| paging.next(&basis)),
        };
        let body = if sending.ended {
            Body::from(std::mem::take(&mut sending.pending))
        } else {
            Body::from_stream(futures::stream::unfold(sending, Self::next_piece))
        };
        let mut response = body.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        for (name, value) in [(QUERY_HEADER, id), (NEXT_HEADER, next)] {
            if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                headers.insert(name, value);
            }
        }
        Ok(super::with_basis(response, &basis))
    }

    /// Encodes one more batch, or the end.
    async fn step(&mut self) -> Answered<()> {
        match self.rows.next().await {
            Some(Ok(batch)) => {
                let batch = self.within_page(batch);
                self.count += u64::try_from(batch.num_rows()).unwrap_or(u64::MAX);
                self.encoder.batch(&batch, &mut self.pending)
            }
            Some(Err(failure)) => Err(failure),
            None => {
                self.ended = true;
                let took = self.services.since(self.started);
                let stats = json!({
                    "rows": self.count,
                    "elapsed_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                });
                let (basis, next) = (self.rows.basis.as_str(), self.next.as_deref());
                self.encoder.end(&Tail { basis, next, stats: &stats }, &mut self.pending)
            }
        }
    }

    /// Takes off the row that only tells that another page follows.
    fn within_page(&mut self, batch: RecordBatch) -> RecordBatch {
        let Some(paging) = &self.paging else { return batch };
        let room = usize::try_from(paging.rows - self.count).unwrap_or(usize::MAX);
        if batch.num_rows() <= room {
            return batch;
        }
        self.next = Some(paging.next(&self.rows.basis));
        batch.slice(0, room)
    }

    /// Returns the next piece of the body. A failure becomes the last line where the form has
    /// room for it; otherwise the connection breaks, so that nobody takes a part for the whole.
    async fn next_piece(mut self) -> Option<(Result<Bytes, std::io::Error>, Self)> {
        while !self.ended && self.pending.len() < PIECE_BYTES {
            if let Err(failure) = self.step().await {
                tracing::warn!(
                    code = failure.code.entry().name,
                    "a query failed while rows were sent"
                );
                self.ended = true;
                if !self.encoder.failure(&failure, &mut self.pending) {
                    let broken = std::io::Error::other("query failed");
                    return Some((Err(broken), self));
                }
            }
        }
        if self.pending.is_empty() {
            return None;
        }
        let piece = Bytes::from(std::mem::take(&mut self.pending));
        Some((Ok(piece), self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_the_contract_is_taken() {
        let Asked { statement, integers, paging } = decode(
            br#"{"sql": "SELECT 1", "params": [1, "a"], "valid_time": "2026-01-05T00:00:00Z",
                 "system_time": "2026-01-06", "basis": "b", "tenant": "t", "limit": 3,
                 "timeout_ms": 1500, "int64": "text", "page_size": 100}"#,
        )
        .unwrap();
        assert_eq!(statement.sql, "SELECT 1");
        assert!(matches!(&statement.params, Params::Positional(values) if values.len() == 2));
        assert_eq!(statement.valid_time.unwrap().to_string(), "2026-01-05T00:00:00Z");
        assert_eq!(statement.system_time.unwrap().to_string(), "2026-01-06T00:00:00Z");
        assert_eq!(statement.basis.as_deref(), Some("b"));
        assert_eq!(statement.tenant.as_deref(), Some("t"));
        assert_eq!(statement.limit, Some(3));
        assert_eq!(statement.timeout, Some(Duration::from_millis(1500)));
        assert_eq!(integers, Integers::Text);
        assert_eq!(paging.map(|paging| (paging.offset, paging.rows)), Some((0, 100)));
        assert_eq!(statement.page.map(|page| page.rows), Some(101));
    }

    #[test]
    fn a_page_follows_its_own_request_alone() {
        let first = decode(br#"{"sql": "SELECT 1", "page_size": 10}"#).unwrap();
        let token = first.paging.unwrap().next("basis");
        let body =
            |sql: &str, more: &str| format!(r#"{{"sql": "{sql}", "page": "{token}"{more}}}"#);
        let asked = decode(body("SELECT 1", "").as_bytes()).unwrap();
        assert_eq!(asked.statement.basis.as_deref(), Some("basis"));
        let page = asked.statement.page.unwrap();
        assert_eq!((page.offset, page.rows), (10, 11));
        let fault = |text: String| decode(text.as_bytes()).map(|_| ()).unwrap_err().detail;
        assert!(fault(body("SELECT 2", "")).contains("another request"));
        assert!(fault(body("SELECT 1", r#", "basis": "b""#)).contains("cannot stand beside"));
        assert!(fault(r#"{"sql": "x", "page": "nonsense"}"#.to_owned()).contains("no token"));
        assert!(fault(r#"{"sql": "x", "page_size": 0}"#.to_owned()).contains("at least 1"));
    }

    #[test]
    fn wrong_fields_say_what_and_where() {
        let fault = |text: &str| decode(text.as_bytes()).map(|_| ()).unwrap_err();
        assert_eq!(fault("{}").detail, "\"sql\" is missing");
        assert!(fault(r#"{"sql": ["x"]}"#).detail.contains("\"sql\" must be text, got a list"));
        assert!(fault(r#"{"sql": "x", "params": 5}"#).detail.contains("params"));
        assert!(fault(r#"{"sql": "x", "limit": "5"}"#).detail.contains("\"limit\""));
        assert!(fault(r#"{"sql": "x", "int64": "hex"}"#).detail.contains("int64"));
        assert_eq!(fault(r#"{"sql": "x", "sequel": 5}"#).detail, "unknown field \"sequel\"");
        let nanos = fault(r#"{"sql": "x", "valid_time": "2026-01-05T00:00:00.0000001Z"}"#);
        assert_eq!(nanos.sqlstate, "22008");
    }

    #[test]
    fn fuzzed_requests_are_read_or_refused() {
        let requests = [
            r#"{"sql": "SELECT 1", "params": [1, "a", null, [true], {"b": 1.5e300}], "limit": 3}"#,
            r#"{"sql": "SELECT $a", "params": {"a": "x"}, "valid_time": "2026-01-05T00:00:00Z"}"#,
            r#"{"sql": "x", "system_time": "2026-01-06", "basis": "b", "tenant": "t", "limit": 1}"#,
            r#"{"sql": "x", "int64": "text", "page_size": 100, "timeout_ms": 1500}"#,
            r#"{"sql": "x", "page": "eyJiIjoiYiIsIm8iOjEsInIiOjIsImQiOjN9"}"#,
        ];
        let words = ["sql", "params", "page", "page_size", "basis", "tenant", "limit"];
        everwhen_fuzz::Fuzz::text("requests", requests)
            .words(&words)
            .run_text(|text| decode(text.as_bytes()).is_ok());
        let bytes = requests.map(|request| request.as_bytes().to_vec());
        everwhen_fuzz::Fuzz::bytes("bytes of requests", bytes).run(|bytes| decode(bytes).is_ok());
    }

    #[test]
    fn fuzzed_page_tokens_are_read_or_refused() {
        use base64::Engine as _;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let first = decode(br#"{"sql": "x", "page_size": 10}"#).unwrap();
        let token = first.paging.unwrap().next("basis");
        let inner = String::from_utf8(URL_SAFE_NO_PAD.decode(&token).unwrap()).unwrap();
        let of = |token: &str| {
            let body = json!({"sql": "x", "page": token}).to_string();
            decode(body.as_bytes()).map(|asked| asked.paging.unwrap().next("basis")).is_ok()
        };
        everwhen_fuzz::Fuzz::text("page tokens", [token]).run_text(of);
        everwhen_fuzz::Fuzz::text("what is in page tokens", [inner])
            .run_text(|text| of(&URL_SAFE_NO_PAD.encode(text)));
    }
}
