//! Status, health, metrics and the test clock.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::Shared;
use super::body::{self, Object};
use crate::failure::{Answered, Failure};
use crate::service::admin::{self, ClockMove};
use crate::service::{blocking, project};

pub(super) async fn get_status(State(services): State<Shared>) -> Answered<Response> {
    blocking(move || admin::status(&services)).await.map(|document| super::json(&document))
}

pub(super) async fn get_projections(State(services): State<Shared>) -> Answered<Response> {
    let list = blocking(move || Ok(project::list_json(&services))).await?;
    Ok(super::json(&json!({"projections": list})))
}

pub(super) async fn get_clock(State(services): State<Shared>) -> Response {
    let micros = services.store.clock().now_micros();
    let now = everwhen_storage::ValidTime::from_micros(micros);
    super::json(&json!({"now": now.to_string()}))
}

pub(super) async fn post_clock(
    State(services): State<Shared>,
    headers: HeaderMap,
    body: Body,
) -> Answered<Response> {
    let bytes = body::read(&headers, body, services.limits.body_bytes_max).await?;
    let mut body = Object::parse(&bytes)?;
    let set = body.instant("set")?;
    let advance = body.whole("advance_ms")?;
    body.finish()?;
    let by = match (set, advance) {
        (Some(at), None) => ClockMove::Set(at),
        (None, Some(millis)) => ClockMove::AdvanceMillis(millis),
        _ => return Err(Failure::request("give either \"set\" or \"advance_ms\"")),
    };
    let now = admin::move_clock(&services, by)?;
    Ok(super::json(&json!({"now": now.to_string()})))
}

pub(super) async fn get_metrics(State(services): State<Shared>) -> Answered<Response> {
    let page = blocking(move || Ok(admin::metrics_page(&services))).await?;
    let mut response = page.into_response();
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

pub(super) async fn get_started(State(services): State<Shared>) -> Response {
    told(services.health.has_started(), "started", "starting")
}

pub(super) async fn get_alive() -> Response {
    told(true, "alive", "")
}

pub(super) async fn get_ready(State(services): State<Shared>) -> Response {
    told(services.health.is_ready(), "ready", "not ready")
}

fn told(good: bool, yes: &'static str, no: &'static str) -> Response {
    if good {
        (StatusCode::OK, yes).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, no).into_response()
    }
}
