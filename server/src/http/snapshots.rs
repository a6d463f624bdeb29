//! `POST /v1/snapshots`: takes a snapshot and tells how far it is, one JSON object a line.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use everwhen_storage::snapshot::Progress;
use futures::StreamExt as _;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc::error::TrySendError;
use tokio_stream::wrappers::ReceiverStream;

use super::Shared;
use super::body::{self, Object};
use crate::failure::Answered;
use crate::service::blocking;
use crate::service::snapshot::{create, grant};

/// Lines of progress come this far apart at least.
const STEP: Duration = Duration::from_millis(200);

pub(super) async fn post_snapshots(
    State(services): State<Shared>,
    headers: HeaderMap,
    body: Body,
) -> Answered<Response> {
    let bytes = body::read(&headers, body, services.limits.body_bytes_max).await?;
    let mut body = Object::parse(&bytes)?;
    let to = body.text("to")?.ok_or_else(|| body.missing("to"))?;
    let proof = body.text("proof")?;
    body.finish()?;
    let asked = Arc::clone(&services);
    let granted = blocking(move || grant(&asked, &to, proof.as_deref())).await?;

    let (lines, told) = tokio::sync::mpsc::channel::<String>(64);
    // Owned by the answer: once its receiver is gone, the next step ends the work.
    tokio::task::spawn_blocking(move || {
        let last = Mutex::new(services.monotonic());
        let watch = |progress: &Progress| {
            if services.health.stopping().is_cancelled() {
                return ControlFlow::Break(());
            }
            let mut last = last.lock();
            let is_first = progress.files_done == 0 && progress.bytes_done == 0;
            if !is_first && services.since(*last) < STEP && !lines.is_closed() {
                return ControlFlow::Continue(());
            }
            *last = services.monotonic();
            match lines.try_send(line(&json!({ "progress": shown(progress) }))) {
                Err(TrySendError::Closed(_)) => ControlFlow::Break(()),
                Ok(()) | Err(TrySendError::Full(_)) => ControlFlow::Continue(()),
            }
        };
        let end = match create(&services, &granted, &watch) {
            Ok(snapshot) => json!({ "snapshot": snapshot }),
            Err(failure) => json!({ "error": failure.problem() }),
        };
        // A client that has gone misses nothing that it could still use.
        let _ = lines.blocking_send(line(&end));
    });
    let told = ReceiverStream::new(told).map(Ok::<_, Infallible>);
    let mut response = Response::new(Body::from_stream(told));
    let kind = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}

fn shown(progress: &Progress) -> Value {
    json!({
        "doing": progress.doing,
        "files_done": progress.files_done,
        "files": progress.files,
        "bytes_done": progress.bytes_done,
        "bytes": progress.bytes,
    })
}
