//! `GET /v1/tables`: the tables in force, with their columns and keys.

use axum::extract::State;
use axum::response::Response;
use serde_json::Value;

use super::Shared;
use crate::failure::Answered;
use crate::service::{blocking, tables};

pub(super) async fn get_tables(State(services): State<Shared>) -> Answered<Response> {
    let document = blocking(move || Ok(tables::list_json(&services))).await?;
    let basis = document.get("basis").and_then(Value::as_str).unwrap_or_default();
    Ok(super::with_basis(super::json(&document), basis))
}
