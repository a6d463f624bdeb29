//! `GET /v1/entities/{table}/{id}` and its history.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::Value;

use super::Shared;
use super::query_string::{Extracted, Parameters};
use crate::failure::{Answered, Failure};
use crate::service::entity::{self, EntityRequest};

type Place = Result<Path<(String, String)>, PathRejection>;

pub(super) async fn get_state(
    State(services): State<Shared>,
    place: Place,
    query: Extracted,
) -> Answered<Response> {
    let (table, id) = place_of(place)?;
    let mut parameters = Parameters::new(query)?;
    let request = EntityRequest {
        table,
        id,
        tenant: parameters.text("tenant"),
        valid_time: parameters.instant("valid_time")?,
        system_time: parameters.instant("system_time")?,
        basis: parameters.text("basis"),
    };
    parameters.finish()?;
    Ok(answer(&entity::state(&services, request).await?))
}

pub(super) async fn get_history(
    State(services): State<Shared>,
    place: Place,
    query: Extracted,
) -> Answered<Response> {
    let (table, id) = place_of(place)?;
    let mut parameters = Parameters::new(query)?;
    let request = EntityRequest {
        table,
        id,
        tenant: parameters.text("tenant"),
        valid_time: None,
        system_time: None,
        basis: parameters.text("basis"),
    };
    parameters.finish()?;
    Ok(answer(&entity::history(&services, request).await?))
}

fn place_of(place: Place) -> Answered<(String, String)> {
    let Path(place) =
        place.map_err(|error| Failure::request(format!("the path is wrong: {error}")))?;
    Ok(place)
}

fn answer(document: &Value) -> Response {
    let basis = document.get("basis").and_then(Value::as_str).unwrap_or_default();
    super::with_basis(super::json(document), basis)
}
