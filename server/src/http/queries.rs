//! `GET /v1/queries`: the statements of a tenant that run; `DELETE /v1/queries/{id}`: cancels one.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::Shared;
use super::query_string::{Extracted, Parameters};
use crate::failure::{Answered, Failure};
use crate::service::running::RunningStatement;
use crate::service::tenant_of;

pub(super) async fn get_queries(
    State(services): State<Shared>,
    query: Extracted,
) -> Answered<Response> {
    let mut parameters = Parameters::new(query)?;
    let tenant = tenant_of(parameters.text("tenant").as_deref())?;
    parameters.finish()?;
    let list = services.running.list(services.monotonic(), &tenant);
    let list: Vec<Value> = list.into_iter().map(shown).collect();
    Ok(super::json(&json!({"queries": list})))
}

pub(super) async fn delete_query(
    State(services): State<Shared>,
    id: Result<Path<String>, PathRejection>,
    query: Extracted,
) -> Answered<Response> {
    let Path(id) = id.map_err(|error| Failure::request(format!("the path is wrong: {error}")))?;
    let mut parameters = Parameters::new(query)?;
    let tenant = tenant_of(parameters.text("tenant").as_deref())?;
    parameters.finish()?;
    services.running.cancel(&tenant, &id)?;
    Ok(super::json(&json!({"cancelled": id})))
}

fn shown(one: RunningStatement) -> Value {
    json!({
        "id": one.id,
        "tenant": one.tenant.to_string(),
        "started": one.started.to_string(),
        "elapsed_ms": u64::try_from(one.elapsed.as_millis()).unwrap_or(u64::MAX),
        "sql": one.sql,
        "rows": one.rows,
    })
}
