//! The Postgres wire: one message of the simple protocol a request, the database the tenant.

use everwhen_tests::postgres::{Refusal, Table, Wire};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::transport::{Outcome, Transport};

/// A client of the Postgres wire.
pub struct Postgres {
    address: String,
    tenant: String,
    /// Nothing until it is needed, and after what a session would remember.
    wire: Option<Wire>,
}

impl Postgres {
    pub fn new(address: &str) -> Self {
        Self { address: address.to_owned(), tenant: "default".to_owned(), wire: None }
    }

    async fn answer(&mut self, sql: &str) -> Result<Vec<Table>, Refusal> {
        let mut wire = match self.wire.take() {
            Some(wire) => wire,
            None => Wire::open(&self.address, "slt", Some(&self.tenant)).await?,
        };
        let (answer, idle) = wire.query(sql).await;
        // A request over HTTP leaves nothing behind: no transaction either.
        self.wire = idle.then_some(wire);
        answer
    }
}

impl Transport for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn set_tenant(&mut self, name: &str) {
        name.clone_into(&mut self.tenant);
        self.wire = None;
    }

    fn run<'a>(&'a mut self, sql: &'a str) -> BoxFuture<'a, Outcome> {
        async move {
            match self.answer(sql).await {
                Err(Refusal { state, message }) => Outcome::Error { state, message },
                Ok(mut tables) => tables.pop().map_or(Outcome::Done, |table| rows_of(&table)),
            }
        }
        .boxed()
    }
}

fn rows_of(table: &Table) -> Outcome {
    let kind = |oid: u32| Kind::of(oid);
    let kinds: Vec<Kind> = table.fields.iter().map(|field| kind(field.oid)).collect();
    let row = |row: &Vec<Option<String>>| {
        let cells = kinds.iter().zip(row);
        cells.map(|(kind, text)| shown(*kind, text.as_deref())).collect()
    };
    Outcome::Rows {
        kinds: kinds.iter().map(|kind| kind.letter()).collect(),
        rows: table.rows.iter().map(row).collect(),
    }
}

/// What a type is to the text form of its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Whole,
    Float,
    Decimal,
    Bool,
    Instant,
    Date,
    Json,
    Period,
    /// A list of what has this number.
    List(u32),
    Other,
}

impl Kind {
    fn of(oid: u32) -> Self {
        match oid {
            16 => Self::Bool,
            20 | 21 | 23 => Self::Whole,
            18 | 19 | 25 | 1043 | 2950 => Self::Text,
            114 => Self::Json,
            701 => Self::Float,
            1082 => Self::Date,
            1184 => Self::Instant,
            1700 => Self::Decimal,
            3910 => Self::Period,
            1000 => Self::List(16),
            1001 => Self::List(17),
            1009 => Self::List(25),
            1016 => Self::List(20),
            199 => Self::List(114),
            1022 => Self::List(701),
            1182 => Self::List(1082),
            1183 => Self::List(1083),
            1185 => Self::List(1184),
            1231 => Self::List(1700),
            _ => Self::Other,
        }
    }

    fn letter(self) -> char {
        match self {
            Self::Text => 'T',
            Self::Whole => 'I',
            Self::Float | Self::Decimal => 'R',
            Self::Bool => 'B',
            Self::Instant => 'P',
            Self::Date => 'D',
            Self::Json | Self::Period | Self::List(_) | Self::Other => '?',
        }
    }
}

/// Returns a value as the files show it.
fn shown(kind: Kind, text: Option<&str>) -> String {
    let Some(text) = text else { return "NULL".to_owned() };
    match kind {
        Kind::Instant => instant(text),
        Kind::Float => text.parse::<f64>().map_or(text.to_owned(), |value| {
            if value.is_finite() { value.to_string() } else { text.to_owned() }
        }),
        Kind::Json => serde_json::from_str::<Value>(text).unwrap().to_string(),
        Kind::List(item) => list(text, Kind::of(item)).to_string(),
        Kind::Period => period(text),
        _ if text.is_empty() => "(empty)".to_owned(),
        _ => text.to_owned(),
    }
}

/// Returns `2026-01-05 10:30:00.25+00` as `2026-01-05T10:30:00.250Z`.
fn instant(text: &str) -> String {
    let Some((date, time)) = text.split_once(' ') else { return text.to_owned() };
    let (time, era) = time.split_once("+00").expect("instants are in UTC");
    let time = match time.split_once('.') {
        Some((time, fraction)) => {
            let digits = if fraction.len() <= 3 { 3 } else { 6 };
            format!("{time}.{fraction:0<digits$}")
        }
        None => time.to_owned(),
    };
    match era {
        "" => format!("{date}T{time}Z"),
        _ => {
            // The year before 1 AD is 1 BC there and 0 here.
            let (year, day) = date.split_once('-').unwrap();
            let before = year.parse::<i32>().unwrap() - 1;
            let sign = if before > 0 { "-" } else { "" };
            format!("{sign}{before:04}-{day}T{time}Z")
        }
    }
}

/// Returns `["a","b")` with its bounds as instants.
fn period(text: &str) -> String {
    let (from, to) = text[1..text.len() - 1].split_once(',').expect("a period has two ends");
    let bound = |text: &str| match text.trim_matches('"') {
        "" => String::new(),
        at => instant(at),
    };
    format!("{}{},{})", &text[..1], bound(from), bound(to))
}

/// Returns `{1,NULL,"a b"}` as JSON.
fn list(text: &str, kind: Kind) -> Value {
    let mut items = Vec::new();
    let (mut item, mut quoted, mut was_quoted) = (String::new(), false, false);
    let mut characters = text[1..].chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => item.extend(characters.next()),
            '"' => (quoted, was_quoted) = (!quoted, true),
            ',' | '}' if !quoted => {
                let empty = item.is_empty() && !was_quoted;
                let null = item == "NULL" && !was_quoted;
                let item = std::mem::take(&mut item);
                was_quoted = false;
                match (empty, null) {
                    (true, _) => {}
                    (_, true) => items.push(Value::Null),
                    _ => items.push(json_of(kind, item)),
                }
            }
            other => item.push(other),
        }
    }
    Value::Array(items)
}

/// Returns an item in the JSON that HTTP has for it.
fn json_of(kind: Kind, text: String) -> Value {
    match kind {
        Kind::Bool => json!(text == "t"),
        Kind::Whole => json!(text.parse::<i64>().unwrap()),
        Kind::Float => text.parse::<f64>().map_or(json!(text), |value| json!(value)),
        Kind::Json => serde_json::from_str(&text).unwrap(),
        Kind::Instant => json!(instant(&text)),
        _ => json!(text),
    }
}
