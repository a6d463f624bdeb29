//! `POST /v1/events`: records for a stream's mappings.

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use everwhen_ingest::EmitEvent;
use everwhen_storage::ValidTime;
use serde_json::json;
use serde_json::value::RawValue;

use super::Shared;
use super::body::{self, Object};
use crate::code::Code;
use crate::failure::Answered;
use crate::service::events::emit;

pub(super) async fn post_events(
    State(services): State<Shared>,
    headers: HeaderMap,
    body: Body,
) -> Answered<Response> {
    let bytes = body::read(&headers, body, services.limits.body_bytes_max).await?;
    let posted = decode(&bytes)?;
    let emitted = emit(&services, &posted.stream, posted.tenant.as_deref(), posted.events).await;
    let emitted = emitted.map_err(|failure| match failure.code {
        Code::UndefinedObject => failure.as_code(Code::NotFound),
        _ => failure,
    })?;
    let rejected: Vec<_> = emitted
        .rejected
        .iter()
        .map(|(index, reason)| json!({"index": index, "reason": reason}))
        .collect();
    let answer = json!({
        "tx": emitted.tx.get(),
        "accepted": emitted.accepted,
        "rejected": rejected,
        "basis": emitted.basis,
    });
    Ok(super::with_basis(super::json(&answer), &emitted.basis))
}

struct Posted {
    stream: String,
    tenant: Option<String>,
    events: Vec<EmitEvent>,
}

fn decode(bytes: &[u8]) -> Answered<Posted> {
    let mut body = Object::parse(bytes)?;
    let stream = body.text("stream")?.ok_or_else(|| body.missing("stream"))?;
    let events = body.list("events")?.ok_or_else(|| body.missing("events"))?;
    let tenant = body.text("tenant")?;
    body.finish()?;
    let events = events
        .iter()
        .enumerate()
        .map(|(index, raw)| event(format!("events[{index}]"), raw))
        .collect::<Answered<_>>()?;
    Ok(Posted { stream, tenant, events })
}

fn event(path: String, raw: &RawValue) -> Answered<EmitEvent> {
    let mut event = Object::nested(path, raw)?;
    // The value goes on as it was written, so that no digit of a number is lost.
    let value = event.raw_or_null("value").ok_or_else(|| event.missing("value"))?;
    let key = event.raw("key").map(|key| key_bytes(&key));
    let timestamp: Option<ValidTime> = event.instant("timestamp")?;
    let headers = event.texts("headers")?;
    event.finish()?;
    Ok(EmitEvent {
        key,
        value: value.get().as_bytes().to_vec(),
        timestamp,
        headers: headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect(),
    })
}

/// Returns a text key's own bytes, any other key's JSON.
fn key_bytes(raw: &RawValue) -> Vec<u8> {
    serde_json::from_str::<String>(raw.get())
        .map_or_else(|_| raw.get().as_bytes().to_vec(), String::into_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_keeps_every_digit() {
        let posted = decode(
            br#"{"stream": "s", "events": [{"value": {"n": 12345678901234567890.10}, "key": "k"}]}"#,
        )
        .unwrap();
        assert_eq!(posted.events[0].value, br#"{"n": 12345678901234567890.10}"#);
        assert_eq!(posted.events[0].key.as_deref(), Some(b"k".as_slice()));
    }

    #[test]
    fn faults_name_the_event() {
        let fault = |text: &str| decode(text.as_bytes()).map(|_| ()).unwrap_err().detail;
        assert_eq!(fault(r#"{"events": []}"#), "\"stream\" is missing");
        assert_eq!(fault(r#"{"stream": "s"}"#), "\"events\" is missing");
        let missing = r#"{"stream": "s", "events": [{"value": 1}, {"key": "k"}]}"#;
        assert_eq!(fault(missing), "\"events[1].value\" is missing");
        let wrong = r#"{"stream": "s", "events": [{"value": 1, "timestamp": 5}]}"#;
        assert!(fault(wrong).contains("\"events[0].timestamp\" must be text"));
        let wrong = r#"{"stream": "s", "events": [7]}"#;
        assert!(fault(wrong).contains("\"events[0]\" must be an object"));
    }

    #[test]
    fn null_is_a_value() {
        let posted = decode(br#"{"stream": "s", "events": [{"value": null}]}"#).unwrap();
        assert_eq!(posted.events[0].value, b"null");
    }

    #[test]
    fn fuzzed_events_are_read_or_refused() {
        let bodies = [
            r#"{"stream": "s", "events": [{"value": {"n": 1.10}, "key": "k"}, {"value": null}]}"#,
            r#"{"stream": "s", "tenant": "t", "events": [{"value": "AAH/", "key": {"a": [1]},
                "timestamp": "2026-01-05T00:00:00Z", "headers": {"h": "v"}}]}"#,
        ];
        let words = ["stream", "events", "value", "key", "timestamp", "headers", "tenant"];
        everwhen_fuzz::Fuzz::text("posted events", bodies)
            .words(&words)
            .run_text(|text| decode(text.as_bytes()).is_ok());
    }
}
