//! Request bodies, taken strictly: a wrong type or an unknown field says what and where.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use everwhen_storage::time::Instant;
use futures::StreamExt as _;
use serde_json::Value;
use serde_json::value::RawValue;

use super::compression::Coding;
use crate::code::Code;
use crate::failure::{Answered, Failure};
use crate::service::{blocking, instant_of};

/// Reads a body of at most `bytes_max` bytes, before and after it is decompressed.
///
/// # Errors
/// `body_too_large`, and `invalid_request` where the connection broke or the body cannot be
/// decompressed.
pub async fn read(headers: &HeaderMap, body: Body, bytes_max: usize) -> Answered<Vec<u8>> {
    let coding = Coding::of_request(headers)?;
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok())
        .unwrap_or(0);
    if declared > bytes_max {
        return Err(too_large(bytes_max));
    }
    let mut bytes = Vec::with_capacity(declared);
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| Failure::request("the request's body ended too early"))?;
        if bytes.len() + piece.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        bytes.extend_from_slice(&piece);
    }
    match coding {
        None => Ok(bytes),
        Some(coding) => blocking(move || coding.decompress(&bytes, bytes_max)).await,
    }
}

/// Builds the failure of a body over the limit.
pub fn too_large(bytes_max: usize) -> Failure {
    let detail = format!("the request's body is larger than {bytes_max} bytes");
    Failure::new(Code::BodyTooLarge, detail)
}

/// A JSON object whose fields are taken one by one; what is left over is unknown.
pub struct Object {
    /// Where it stands in the body: empty at the top.
    path: String,
    fields: BTreeMap<String, Box<RawValue>>,
    known: Vec<&'static str>,
}

impl Object {
    /// Parses a whole body.
    ///
    /// # Errors
    /// `invalid_request` where it is no JSON object.
    pub fn parse(bytes: &[u8]) -> Answered<Self> {
        if bytes.is_empty() {
            return Err(Failure::request("the request has no body: send a JSON object"));
        }
        match serde_json::from_slice(bytes) {
            Ok(fields) => Ok(Self { path: String::new(), fields, known: Vec::new() }),
            Err(error) if error.is_data() && serde_json::from_slice::<Value>(bytes).is_ok() => {
                let what = serde_json::from_slice(bytes).map_or("nothing", |v: Value| name_of(&v));
                Err(Failure::request(format!("the body must be a JSON object, it is {what}")))
            }
            Err(error) => Err(Failure::request(format!("the body is no JSON: {error}"))),
        }
    }

    /// Parses an object that stands within another.
    ///
    /// # Errors
    /// `invalid_request` where it is no object.
    pub fn nested(path: String, raw: &RawValue) -> Answered<Self> {
        match serde_json::from_str(raw.get()) {
            Ok(fields) => Ok(Self { path, fields, known: Vec::new() }),
            Err(_) => Err(wrong(&path, "an object", raw)),
        }
    }

    /// Takes a field as it was written; NULL counts as absent.
    pub fn raw(&mut self, name: &'static str) -> Option<Box<RawValue>> {
        self.known.push(name);
        self.fields.remove(name).filter(|raw| raw.get() != "null")
    }

    /// Takes a field as it was written, with NULL as a value.
    pub fn raw_or_null(&mut self, name: &'static str) -> Option<Box<RawValue>> {
        self.known.push(name);
        self.fields.remove(name)
    }

    /// Takes a text.
    ///
    /// # Errors
    /// `invalid_request` for another type.
    pub fn text(&mut self, name: &'static str) -> Answered<Option<String>> {
        self.typed(name, "text")
    }

    /// Takes a whole number from 0.
    ///
    /// # Errors
    /// `invalid_request` for another type or a negative number.
    pub fn whole(&mut self, name: &'static str) -> Answered<Option<u64>> {
        self.typed(name, "a whole number from 0")
    }

    /// Takes an instant written as RFC 3339 text.
    ///
    /// # Errors
    /// `invalid_request` for another type, `invalid_instant` for text that is no instant.
    pub fn instant<A>(&mut self, name: &'static str) -> Answered<Option<Instant<A>>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        instant_of(&self.path_of(name), &text).map(Some)
    }

    /// Takes a list, each item as it was written.
    ///
    /// # Errors
    /// `invalid_request` for another type.
    pub fn list(&mut self, name: &'static str) -> Answered<Option<Vec<Box<RawValue>>>> {
        self.typed(name, "a list")
    }

    /// Takes an object of texts.
    ///
    /// # Errors
    /// `invalid_request` for another type.
    pub fn texts(&mut self, name: &'static str) -> Answered<BTreeMap<String, String>> {
        Ok(self.typed(name, "an object of texts")?.unwrap_or_default())
    }

    fn typed<T: serde::de::DeserializeOwned>(
        &mut self,
        name: &'static str,
        expected: &str,
    ) -> Answered<Option<T>> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        serde_json::from_str(raw.get())
            .map(Some)
            .map_err(|_| wrong(&self.path_of(name), expected, &raw))
    }

    /// Returns where a field stands in the body.
    pub fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Builds the failure of a field that must be there.
    pub fn missing(&self, name: &str) -> Failure {
        Failure::request(format!("\"{}\" is missing", self.path_of(name)))
    }

    /// Refuses fields that nobody took.
    ///
    /// # Errors
    /// `invalid_request`, naming the field and those there are.
    pub fn finish(self) -> Answered<()> {
        let Some(unknown) = self.fields.keys().next() else { return Ok(()) };
        let detail = format!("unknown field \"{}\"", self.path_of(unknown));
        Err(Failure::request(detail).with_hint(format!("known are: {}", self.known.join(", "))))
    }
}

fn wrong(path: &str, expected: &str, raw: &RawValue) -> Failure {
    let got = serde_json::from_str(raw.get()).map_or("something else", |v: Value| name_of(&v));
    let shown: String = raw.get().chars().take(40).collect();
    let detail = match got {
        "a list" | "an object" => format!("\"{path}\" must be {expected}, got {got}"),
        _ => format!("\"{path}\" must be {expected}, got {got} ({shown})"),
    };
    Failure::request(detail)
}

const fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use everwhen_storage::ValidTime;

    use super::*;

    fn detail_of<T>(answer: Answered<T>) -> String {
        match answer {
            Ok(_) => panic!("a failure was expected"),
            Err(failure) => failure.detail,
        }
    }

    #[test]
    fn body_that_is_no_object_says_what_it_is() {
        assert!(detail_of(Object::parse(b"[1]")).contains("it is a list"));
        assert!(detail_of(Object::parse(b"")).contains("no body"));
        let broken = detail_of(Object::parse(b"{\"sql\": }"));
        assert!(broken.contains("line 1 column 9"), "{broken}");
    }

    #[test]
    fn wrong_type_says_field_and_value() {
        let mut body = Object::parse(br#"{"sql": 5, "limit": -1, "valid_time": "x"}"#).unwrap();
        assert_eq!(detail_of(body.text("sql")), "\"sql\" must be text, got a number (5)");
        assert!(detail_of(body.whole("limit")).contains("\"limit\" must be a whole number"));
        let failure = body.instant::<everwhen_storage::time::Valid>("valid_time").unwrap_err();
        assert_eq!(failure.sqlstate, "22008");
        assert!(failure.detail.contains("valid_time"), "{}", failure.detail);
    }

    #[test]
    fn unknown_field_is_refused_and_the_known_ones_named() {
        let mut body = Object::parse(br#"{"sql": "x", "sqll": 1}"#).unwrap();
        body.text("sql").unwrap();
        body.whole("limit").unwrap();
        let failure = body.finish().unwrap_err();
        assert_eq!(failure.detail, "unknown field \"sqll\"");
        assert_eq!(failure.hint.as_deref(), Some("known are: sql, limit"));
    }

    #[test]
    fn null_is_as_good_as_absent_and_nested_fields_have_paths() {
        let mut body =
            Object::parse(br#"{"limit": null, "events": [{"value": 1, "kee": 2}]}"#).unwrap();
        assert_eq!(body.whole("limit").unwrap(), None);
        let events = body.list("events").unwrap().unwrap();
        let mut event = Object::nested("events[0]".to_owned(), &events[0]).unwrap();
        assert_eq!(event.raw("value").unwrap().get(), "1");
        assert_eq!(event.finish().unwrap_err().detail, "unknown field \"events[0].kee\"");
        body.finish().unwrap();
    }

    #[test]
    fn instants_are_read_to_the_microsecond() {
        let mut body = Object::parse(br#"{"t": "2026-01-05T09:00:00.000001+01:00"}"#).unwrap();
        let at: ValidTime = body.instant("t").unwrap().unwrap();
        assert_eq!(at.to_string(), "2026-01-05T08:00:00.000001Z");
    }
}
