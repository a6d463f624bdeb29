//! The HTTP front end: routes, and what every answer has in common.
//!
//! Decodes, calls a service, encodes; nothing else. Errors are `application/problem+json`.

mod accept;
mod admin;
pub mod body;
mod compression;
mod entities;
mod events;
mod openapi;
mod page;
mod queries;
mod query_string;
mod snapshots;
mod sql;
mod tables;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use futures::FutureExt as _;

use crate::code::Code;
use crate::failure::Failure;
use crate::service::Services;

/// The state every handler gets.
pub type Shared = Arc<Services>;

/// Carries the basis of an answer, whatever its form.
const BASIS_HEADER: &str = "everwhen-basis";
/// Carries the id that a query is listed under while its rows are read.
const QUERY_HEADER: &str = "everwhen-query";
/// Carries the token of the page that follows.
const NEXT_HEADER: &str = "everwhen-next";

type Route = (&'static str, MethodRouter<Shared>);

/// Builds the routes of the HTTP listener.
pub fn router(services: Shared) -> Router {
    let routes = routes(services.test_clock).into_iter().chain(health_routes());
    finish(routes, services)
}

/// Builds the routes of the admin listener.
pub fn admin_router(services: Shared) -> Router {
    let metrics = ("/metrics", get(admin::get_metrics));
    finish(health_routes().into_iter().chain([metrics]), services)
}

/// Returns the paths of the HTTP listener but health's; `openapi.json` describes each.
fn routes(test_clock: bool) -> Vec<Route> {
    let mut routes = vec![
        ("/v1/sql", post(sql::post_sql)),
        ("/v1/sql/explain", post(sql::post_explain)),
        ("/v1/queries", get(queries::get_queries)),
        ("/v1/queries/{id}", delete(queries::delete_query)),
        ("/v1/tables", get(tables::get_tables)),
        ("/v1/events", post(events::post_events)),
        ("/v1/entities/{table}/{id}", get(entities::get_state)),
        ("/v1/entities/{table}/{id}/history", get(entities::get_history)),
        ("/v1/status", get(admin::get_status)),
        ("/v1/projections", get(admin::get_projections)),
        ("/v1/snapshots", post(snapshots::post_snapshots)),
        ("/openapi.json", get(openapi::get_document)),
        ("/docs", get(openapi::get_page)),
    ];
    if test_clock {
        routes.push(("/v1/test/clock", get(admin::get_clock).post(admin::post_clock)));
    }
    routes
}

fn health_routes() -> [Route; 3] {
    [
        ("/healthz/started", get(admin::get_started)),
        ("/healthz/alive", get(admin::get_alive)),
        ("/healthz/ready", get(admin::get_ready)),
    ]
}

fn finish(routes: impl IntoIterator<Item = Route>, services: Shared) -> Router {
    routes
        .into_iter()
        .fold(Router::new(), |router, (path, methods)| router.route(path, methods))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn(compression::compress))
        .layer(middleware::from_fn_with_state(Arc::clone(&services), around))
        .with_state(services)
}

async fn not_found(request: Request) -> Failure {
    Failure::new(Code::NotFound, format!("there is nothing at {}", request.uri().path()))
}

async fn method_not_allowed(request: Request) -> Failure {
    let detail = format!("{} does not take {}", request.uri().path(), request.method());
    Failure::new(Code::MethodNotAllowed, detail)
}

/// What happens around every request: refusal of other origins, counting, a debug line.
async fn around(State(services): State<Shared>, request: Request, next: Next) -> Response {
    let started = services.monotonic();
    let route = route_of(request.uri().path());
    let method = request.method().clone();
    let response = if is_foreign_origin(request.headers()) {
        Failure::new(Code::Forbidden, "requests from web pages of another origin are refused")
            .into_response()
    } else {
        // A fault of ours in a handler costs this one request.
        let answering = std::panic::AssertUnwindSafe(next.run(request)).catch_unwind();
        answering.await.unwrap_or_else(|_| Failure::internal(&"a handler panicked").into_response())
    };
    let status = response.status().as_u16().to_string();
    let labels = [("route", route), ("method", method.as_str()), ("status", status.as_str())];
    services.metrics.add("everwhen_http_requests_total", &labels, 1);
    let took = services.since(started);
    services.metrics.observe("everwhen_http_request_seconds", &labels[..1], took);
    if let Some(Refused(code)) = response.extensions().get::<Refused>() {
        services.metrics.add("everwhen_errors_total", &[("code", code.entry().name)], 1);
    }
    tracing::debug!(route, %method, status, micros = took.as_micros(), "http request");
    response
}

/// True for a request that a browser sends for a page of another origin than this server.
fn is_foreign_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    match (origin, host) {
        (Some((_, origin)), Some(host)) => origin != host,
        _ => true,
    }
}

/// Returns the route's name for metrics: few values, whatever is asked for.
fn route_of(path: &str) -> &'static str {
    match path {
        "/v1/sql" => "/v1/sql",
        "/v1/sql/explain" => "/v1/sql/explain",
        "/v1/tables" => "/v1/tables",
        "/v1/events" => "/v1/events",
        "/v1/status" => "/v1/status",
        "/v1/projections" => "/v1/projections",
        "/v1/snapshots" => "/v1/snapshots",
        "/v1/test/clock" => "/v1/test/clock",
        "/metrics" => "/metrics",
        "/openapi.json" | "/docs" => "/docs",
        _ if path.starts_with("/v1/queries") => "/v1/queries",
        _ if path.starts_with("/healthz/") => "/healthz",
        _ if path.starts_with("/v1/entities/") => "/v1/entities",
        _ => "other",
    }
}

/// Marks an answer that is a failure, for counting.
#[derive(Debug, Clone, Copy)]
struct Refused(Code);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.entry().http)
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = self.problem().to_string();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if matches!(self.code, Code::Busy | Code::Unavailable | Code::OutOfResources) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response.extensions_mut().insert(Refused(self.code));
        response
    }
}

/// Answers with a JSON document.
fn json(value: &serde_json::Value) -> Response {
    let mut response = value.to_string().into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Adds the basis as a header.
fn with_basis(mut response: Response, basis: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(basis) {
        response.headers_mut().insert(BASIS_HEADER, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_another_origin_are_foreign() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs
                .iter()
                .map(|(k, v)| (axum::http::HeaderName::from_static(k), HeaderValue::from_static(v)))
                .collect::<HeaderMap>()
        };
        assert!(!is_foreign_origin(&headers(&[("host", "localhost:8080")])));
        let same = [("host", "localhost:8080"), ("origin", "http://localhost:8080")];
        assert!(!is_foreign_origin(&headers(&same)));
        let other = [("host", "localhost:8080"), ("origin", "https://example.org")];
        assert!(is_foreign_origin(&headers(&other)));
        assert!(is_foreign_origin(&headers(&[("host", "localhost:8080"), ("origin", "null")])));
    }
}
