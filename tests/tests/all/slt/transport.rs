//! Ways to a server. All of them give values in one text form, so that one file serves all: the
//! text forms of Postgres, but instants as RFC 3339 (`2026-01-05T00:00:00Z`), also within periods
//! (`[2026-01-05T00:00:00Z,)`), and JSON, lists and structs as JSON without spaces.

use std::fmt;

use everwhen_tests::http::Client;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::{Value, json};

/// What a statement came to.
pub enum Outcome {
    /// It worked and answered no rows.
    Done,
    /// Rows, and a letter for the type of each column.
    Rows {
        kinds: String,
        rows: Vec<Vec<String>>,
    },
    Error {
        state: String,
        message: String,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => write!(f, "no rows and no error"),
            Self::Rows { kinds, rows } => write!(f, "{} rows of {kinds}", rows.len()),
            Self::Error { state, message } => write!(f, "error {state} {message}"),
        }
    }
}

/// A protocol that statements run over.
pub trait Transport: Send {
    /// Returns the protocol's name, as `onlyif` calls it.
    fn name(&self) -> &'static str;

    /// Changes to another tenant.
    fn set_tenant(&mut self, name: &str);

    /// Runs the statements of one request.
    fn run<'a>(&'a mut self, sql: &'a str) -> BoxFuture<'a, Outcome>;
}

/// `POST /v1/sql`.
pub struct Http {
    client: Client,
    tenant: String,
}

impl Http {
    pub fn new(client: Client) -> Self {
        Self { client, tenant: "default".to_owned() }
    }

    async fn answer(&self, sql: &str) -> Outcome {
        let request = json!({ "sql": sql, "tenant": self.tenant });
        let answer = self.client.post("/v1/sql", &request).await.unwrap();
        let text = |name: &str| answer.body[name].as_str().unwrap_or("none").to_owned();
        if answer.status != 200 {
            return Outcome::Error { state: text("sqlstate"), message: text("detail") };
        }
        let Some(columns) = answer.body["columns"].as_array() else { return Outcome::Done };
        let types: Vec<&str> =
            columns.iter().map(|column| column["type"].as_str().unwrap_or_default()).collect();
        let rows = answer.body["rows"].as_array().into_iter().flatten().map(|row| {
            let cells = types.iter().zip(row.as_array().unwrap());
            cells.map(|(kind, value)| value_text(kind, value)).collect()
        });
        Outcome::Rows {
            kinds: types.iter().map(|kind| letter(kind)).collect(),
            rows: rows.collect(),
        }
    }
}

impl Transport for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    fn set_tenant(&mut self, name: &str) {
        name.clone_into(&mut self.tenant);
    }

    fn run<'a>(&'a mut self, sql: &'a str) -> BoxFuture<'a, Outcome> {
        self.answer(sql).boxed()
    }
}

/// Returns the letter that stands for a type.
fn letter(kind: &str) -> char {
    match kind {
        "text" | "uuid" => 'T',
        "int64" => 'I',
        "float64" => 'R',
        "bool" => 'B',
        "timestamptz" => 'P',
        "date" => 'D',
        decimal if decimal.starts_with("decimal") => 'R',
        _ => '?',
    }
}

/// Returns the text form of a value in the JSON of an answer.
fn value_text(kind: &str, value: &Value) -> String {
    match (kind, value) {
        (_, Value::Null) => "NULL".to_owned(),
        ("bool", Value::Bool(value)) => if *value { "t" } else { "f" }.to_owned(),
        ("float64", Value::Number(number)) => number.as_f64().unwrap().to_string(),
        ("bytes", Value::String(text)) => {
            let digits: String = from_base64(text).iter().map(|b| format!("{b:02x}")).collect();
            format!("\\x{digits}")
        }
        ("period", Value::Object(bounds)) => {
            let bound = |name: &str| bounds[name].as_str().unwrap_or_default().to_owned();
            let open = if bounds["from"].is_null() { '(' } else { '[' };
            format!("{open}{},{})", bound("from"), bound("to"))
        }
        ("json", value) => value.to_string(),
        (_, Value::String(text)) if text.is_empty() => "(empty)".to_owned(),
        (_, Value::String(text)) => text.clone(),
        (_, value) => value.to_string(),
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    let (mut bits, mut held, mut bytes) = (0_u32, 0, Vec::new());
    for character in text.bytes().take_while(|character| *character != b'=') {
        let digit = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            other => panic!("{other} in base64"),
        };
        (bits, held) = ((bits << 6) | u32::from(digit), held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from((bits >> held) & 0xff).unwrap());
        }
    }
    bytes
}
