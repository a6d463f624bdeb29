//! Texts and tokens that clients send, under fuzzing: the corpus is the statements of `tests/slt`
//! and the examples of `docs/sql.md`.

use std::path::Path;

use everwhen_fuzz::Fuzz;
use everwhen_storage::ColumnType;
use serde_json::{Value as Json, json};

use super::kit::Kit;
use crate::columns::json::{json_of_value, json_to_value, kind_of_json, named};
use crate::columns::text::{parse_instant, parse_value, text_of};
use crate::dialect::{ParseLimits, parse, split};
use crate::{Params, QUERY_STACK_BYTES, basis_token, parse_basis};

/// Words of the dialect, some of which the corpus has seldom.
const WORDS: &[&str] = &[
    "FOR",
    "VALID_TIME",
    "SYSTEM_TIME",
    "AS OF",
    "FROM",
    "TO",
    "BETWEEN",
    "ONLY",
    "ALL",
    "SETTING",
    "DEFAULT",
    "SNAPSHOT_TOKEN",
    "CLOCK_TIME",
    "PORTION OF",
    "PATCH INTO",
    "ERASE FROM",
    "ASSERT",
    "RECORDS",
    "RETURNING",
    "CONTAINS",
    "OVERLAPS",
    "PRECEDES",
    "STRICTLY",
    "IMMEDIATELY",
    "LATERAL",
    "WITH",
    "RECURSIVE",
    "CREATE",
    "STREAM",
    "MAPPING",
    "PROJECTION",
    "KEY",
    "INTO",
    "EXPLAIN",
    "ANALYZE",
    "BEGIN",
    "READ ONLY",
    "READ WRITE",
    "COMMIT",
    "INTERVAL",
    "TIMESTAMP",
    "UNNEST",
    "GROUP BY",
    "ORDER BY",
    "LIMIT",
    "UNION ALL",
    "CASE",
    "WHEN",
    "EXISTS",
    "IN",
    "IS NULL",
    "VALUES",
];

/// Returns the statements of the suite's files and of the manual.
fn statements() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    let mut files: Vec<_> = std::fs::read_dir(root.join("tests/slt"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        for record in text.split("\n\n") {
            let lines = record.lines().filter(|line| !line.starts_with('#'));
            let head = |line: &&str| {
                ["statement ", "query ", "let ", "onlyif "]
                    .iter()
                    .any(|word| line.starts_with(word))
            };
            let body: Vec<_> = lines.skip_while(head).take_while(|line| *line != "----").collect();
            found.push(body.join("\n"));
        }
    }
    let manual = std::fs::read_to_string(root.join("docs/sql.md")).unwrap();
    for block in manual.split("```sql").skip(1) {
        let (_, block) = block.split_once('\n').unwrap();
        let text = block.split("```").next().unwrap();
        found.extend(text.split_inclusive(";\n").map(|one| one.trim().to_owned()));
    }
    found.retain(|text| !text.is_empty() && text.len() < 4_000);
    assert!(found.len() > 1_000, "{} statements were found", found.len());
    found
}

fn params() -> [Params; 2] {
    let values = [json!(1), json!("x"), json!("2026-01-05T00:00:00Z"), Json::Null, json!([1])];
    let named = [("name", json!(1.5)), ("at", json!("2026-01-05"))];
    let named = named.map(|(name, value)| (name.to_owned(), value));
    [Params::Positional(values.to_vec()), Params::Named(named.into_iter().collect())]
}

#[test]
fn statements_are_parsed_or_refused() {
    let (limits, params) = (ParseLimits::default(), params());
    Fuzz::text("statements", statements()).words(WORDS).stack(QUERY_STACK_BYTES).run_text(|text| {
        match parse(text, &limits) {
            Ok(statements) => {
                for mut statement in statements {
                    for params in &params {
                        let _ = params.bind_statement(&mut statement);
                    }
                }
                true
            }
            Err(error) => {
                // A place is one of the text, or just after it.
                let most = text.chars().count() + 1;
                let at = error.position();
                assert!(at.is_none_or(|at| (1..=most).contains(&at)), "{at:?} of {most}: {error}");
                false
            }
        }
    });
}

/// On the stack of the threads that serve connections: the Postgres wire cuts its messages there.
#[test]
fn texts_are_cut_into_statements() {
    let limits = ParseLimits::default();
    Fuzz::text("statements to cut", statements()).words(WORDS).run_text(|text| {
        let Ok(parts) = split(text, &limits) else { return false };
        let (mut rest, mut at) = (text.chars(), 1);
        for (position, part) in parts {
            assert!(at <= position, "{part:?} at {position} comes before {at}");
            rest.by_ref().take(position - at).for_each(drop);
            at = position;
            assert!(rest.as_str().starts_with(&part), "{part:?} is not at {position}");
        }
        true
    });
}

fn kinds() -> Vec<ColumnType> {
    use ColumnType::{
        Bool, Bytes, Date, Decimal, Float64, Int64, Json, List, Struct, Text, Time, Timestamp, Uuid,
    };
    let list = |item: ColumnType| List(Box::new(item));
    let fields = vec![("a".to_owned(), Text), ("b".to_owned(), list(Int64))];
    let scalars = [Bool, Int64, Float64, Decimal, Text, Uuid, Bytes, Date, Time, Timestamp, Json];
    let nested = [list(Timestamp), list(list(Decimal)), Struct(fields)];
    scalars.into_iter().chain(nested).collect()
}

const JSON: &[&str] = &[
    "null",
    "true",
    "-5",
    "1.5e300",
    "\"x\"",
    "\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"",
    "\"2026-01-05T09:00:00.123456Z\"",
    "\"2026-01-05\"",
    "\"23:59:59.999999\"",
    "\"12345678901234567890.123456789\"",
    "\"NaN\"",
    "\"AAH/\"",
    "[1, null]",
    "[\"2026-01-05\", \"-0001-01-01T00:00:00Z\"]",
    "[[\"1.5\"], []]",
    "{\"a\": \"x\", \"b\": [1]}",
    "{\"from\": null, \"to\": \"9999-12-31T23:59:59Z\"}",
    "9223372036854775807",
    "0.1",
];

#[test]
fn json_values_are_read_or_refused() {
    let kinds = kinds();
    Fuzz::text("JSON values", JSON.iter().copied()).run_text(|text| {
        let Ok(json) = serde_json::from_str::<Json>(text) else { return false };
        let _ = kind_of_json(&json);
        for kind in &kinds {
            if let Ok(value) = json_to_value(&json, kind) {
                let _ = (text_of(&value), named(&value, kind), json_of_value(&value));
            }
        }
        true
    });
}

#[test]
fn texts_of_values_are_read_or_refused() {
    let kinds = kinds();
    let texts = JSON.iter().map(|text| text.trim_matches('"'));
    let more = ["t", "1E-9", "+7.", "inf", "-00:00", "2026-02-29", "2026-01-05 10:00:00+05:30"];
    Fuzz::text("texts of values", texts.chain(more)).run_text(|text| {
        let mut accepted = false;
        let _ = parse_instant(text);
        for kind in &kinds {
            if let Ok(value) = parse_value(text, kind) {
                let _ = (text_of(&value), named(&value, kind));
                accepted |= *kind != ColumnType::Text;
            }
        }
        accepted
    });
}

#[test]
fn tokens_are_read_or_refused() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let kit = Kit::new();
    let token = basis_token(&kit.store, kit.store.latest());
    let inner = String::from_utf8(URL_SAFE_NO_PAD.decode(&token).unwrap()).unwrap();
    Fuzz::text("basis tokens", [token]).run_text(|text| parse_basis(&kit.store, text).is_ok());
    Fuzz::text("what is in basis tokens", [inner])
        .run_text(|text| parse_basis(&kit.store, &URL_SAFE_NO_PAD.encode(text)).is_ok());
}

#[test]
fn selects_of_mappings_are_checked() {
    let selects = [
        "SELECT id AS _id, employee, site, at AS _valid_from, at + INTERVAL '1 day' AS _valid_to WHERE id <> ''",
        "SELECT payload->>'id' AS _id, (payload->'n')::bigint AS n, _timestamp AS _valid_from",
        "SELECT CASE WHEN a > 1 THEN 'x' ELSE coalesce(b, 'y') END AS _id, [1, 2] AS tags",
    ];
    let mapping = Fuzz::text("selects of mappings", selects).words(WORDS).stack(QUERY_STACK_BYTES);
    mapping.run_text(|text| crate::records::RecordProgram::check_form(text).is_ok());
}
