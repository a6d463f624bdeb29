//! Every decoder of stored bytes under fuzzing; the corpus is what a store of format 1 holds.

use everwhen_fuzz::Fuzz;

use crate::assertions;
use crate::definitions::DefinitionChange;
use crate::event_ids::EventEntry;
use crate::journal::segment::SegmentReader;
use crate::journal::{Depth, JournalEntry, take_operation};
use crate::key;
use crate::meta;
use crate::row::{ArchiveHeader, ChangeValue, CurrentHeader, DocumentView, TimelineHeader};
use crate::schema::{ColumnType, RowKey};

const BYTES: &str = include_str!("fixtures/format-1.bytes");

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Returns the keys and values of a family.
fn entries(family: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let lines = BYTES.lines().skip_while(|line| *line != family).skip(1);
    let own = lines.take_while(|line| line.starts_with("  "));
    let entry = |line: &str| {
        let (key, value) = line.trim().split_once(" =").unwrap();
        (unhex(key), unhex(value.trim()))
    };
    let found: Vec<_> = own.map(entry).collect();
    assert!(!found.is_empty(), "{family} holds nothing");
    found
}

fn values(families: &[&str]) -> Vec<Vec<u8>> {
    families.iter().flat_map(|family| entries(family)).map(|(_, value)| value).collect()
}

fn keys(families: &[&str]) -> Vec<Vec<u8>> {
    families.iter().flat_map(|family| entries(family)).map(|(key, _)| key).collect()
}

#[test]
fn keys_of_every_family() {
    let families =
        ["current", "timeline", "archive", "assertions", "event_ids", "changes", "boundaries"];
    let text = ColumnType::Text;
    let kinds = [
        vec![text.clone(), ColumnType::Int64, ColumnType::Date],
        vec![text],
        vec![ColumnType::Bytes, ColumnType::Bool, ColumnType::Timestamp],
    ];
    Fuzz::bytes("keys", keys(&families)).run(|bytes| {
        let whole = key::split_row_prefix(bytes);
        if let Ok((_, _, row_key)) = &whole {
            for kinds in &kinds {
                let of: Vec<&ColumnType> = kinds.iter().collect();
                let decoded = row_key.decode(&of).is_ok();
                assert!(!decoded || key::is_key_of(&row_key.0, kinds), "{row_key:?}");
            }
        }
        let _ = key::timeline_from(bytes);
        let _ = key::split_archive(bytes);
        let _ = key::split_assertion_suffix(bytes);
        let _ = key::split_change(bytes);
        let _ = key::split_boundary(bytes);
        let _ = key::split_number(bytes);
        for suffix in [key::TIMELINE_SUFFIX, key::ARCHIVE_SUFFIX, key::ASSERTION_SUFFIX] {
            let _ = key::without_suffix(bytes, suffix);
        }
        whole.is_ok()
    });
}

#[test]
fn keys_of_indexes() {
    let kinds = [
        vec![ColumnType::Text, ColumnType::Int64],
        vec![ColumnType::Decimal, ColumnType::Bytes],
        vec![ColumnType::Bool],
    ];
    Fuzz::bytes("index keys", keys(&["indexes"])).run(|bytes| {
        let mut accepted = false;
        for kinds in &kinds {
            let of: Vec<&ColumnType> = kinds.iter().collect();
            let suffix = key::after_index_values(bytes, &of);
            accepted |= suffix.is_some_and(|suffix| key::split_index_suffix(suffix).is_ok());
        }
        accepted
    });
}

fn document(bytes: &[u8]) -> bool {
    let Ok(view) = DocumentView::read(bytes) else { return false };
    let some = [crate::schema::ColumnId(2), crate::schema::ColumnId(300)];
    let _ = view.row(Some(&some));
    let _ = some.map(|column| view.get(column).map(drop));
    view.row(None).is_ok()
}

#[test]
fn rows_with_their_headers() {
    Fuzz::bytes("current rows", values(&["current"]))
        .run(|bytes| CurrentHeader::read(bytes).is_ok_and(|(_, rest)| document(rest)));
    Fuzz::bytes("timeline rows", values(&["timeline"]))
        .run(|bytes| TimelineHeader::read(bytes).is_ok_and(|(_, rest)| document(rest)));
    Fuzz::bytes("archive rows", values(&["archive"]))
        .run(|bytes| ArchiveHeader::read(bytes).is_ok_and(|(_, rest)| document(rest)));
    Fuzz::bytes("changes", values(&["changes"])).run(|bytes| ChangeValue::read(bytes).is_ok());
}

#[test]
fn assertions_and_event_ids() {
    let framed = entries("assertions").into_iter().map(|(key, value)| {
        let suffix = &key[key.len() - key::ASSERTION_SUFFIX..];
        [suffix, value.as_slice()].concat()
    });
    Fuzz::bytes("assertions", framed).run(|bytes| {
        let Some((suffix, value)) = bytes.split_at_checked(key::ASSERTION_SUFFIX) else {
            return false;
        };
        let _ = assertions::event_id(value);
        assertions::read(suffix, value).is_ok_and(|said| document(said.fields.as_bytes()))
    });
    Fuzz::bytes("event ids", values(&["event_ids"])).run(|bytes| EventEntry::read(bytes).is_ok());
}

#[test]
fn journal_entries_and_their_operations() {
    Fuzz::bytes("journal entries", values(&["transactions"])).run(|bytes| {
        let first = key::number(7);
        for depth in [Depth::Positions, Depth::Whole] {
            let Ok(entry) = JournalEntry::read(&first, bytes, depth) else { return false };
            let _ = entry.system_time_of(entry.last_tx());
        }
        true
    });
    let operations = values(&["transactions"])
        .into_iter()
        .flat_map(|value| (0..value.len()).map(move |from| value[from..].to_vec()));
    let operations = operations.filter(|bytes| take_operation(&mut bytes.as_slice()).is_ok());
    Fuzz::bytes("operations", operations).run(|mut bytes| take_operation(&mut bytes).is_ok());
}

#[test]
fn definitions_and_dead_letters() {
    let definitions =
        entries("meta").into_iter().filter(|(key, _)| key.starts_with(b"definitions"));
    let definitions = definitions.map(|(_, value)| String::from_utf8(value).unwrap());
    Fuzz::text("definitions", definitions)
        .run_text(|text| serde_json::from_str::<Vec<DefinitionChange>>(text).is_ok());
    Fuzz::bytes("dead letters", values(&["dead_letters"]))
        .run(|bytes| meta::check_letter(bytes).is_ok());
}

/// The head and the parts of a segment, each with the checksum that its bytes have now.
fn resealed(bytes: &[u8]) -> Vec<u8> {
    const HEAD: usize = 16 + 1 + 32 + 16;
    let Some((head, mut rest)) = bytes.split_at_checked(HEAD) else { return bytes.to_vec() };
    let mut out = head.to_vec();
    out.extend_from_slice(&xxhash_rust::xxh3::xxh3_64(head).to_le_bytes());
    rest = rest.get(8..).unwrap_or_default();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let Some((kind, body)) = after.get(8..).and_then(<[u8]>::split_first) else { break };
        let body = &body[..body.len().min(u32::from_le_bytes(*length) as usize)];
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        hasher.update(&[*kind]);
        hasher.update(body);
        out.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
        out.extend_from_slice(&hasher.digest().to_le_bytes());
        out.push(*kind);
        out.extend_from_slice(body);
        rest = &after[9 + body.len()..];
    }
    out
}

#[test]
fn journal_segments() {
    let read = |bytes: &[u8]| {
        let Ok(mut reader) = SegmentReader::open(bytes, "segment") else { return false };
        while let Ok(part) = reader.next() {
            if part.is_none() {
                return true;
            }
        }
        false
    };
    let corpus = || {
        let directory = crate::testing::Directory::new();
        let store = crate::testing::open(&directory.join("data")).unwrap();
        crate::testing::define(&store);
        (0..6).for_each(|n| crate::testing::record(&store, n));
        let path = store.ship_journal(&directory.join("journal")).unwrap().unwrap();
        [std::fs::read(path).unwrap()]
    };
    Fuzz::bytes("segments", corpus()).run(read);
    Fuzz::bytes("segments made whole", corpus()).run(|bytes| read(&resealed(bytes)));
}

#[test]
fn row_keys_round_trip() {
    let kinds = [&ColumnType::Text, &ColumnType::Int64];
    let values = [crate::value::Value::Text("a\0b".to_owned()), crate::value::Value::Int(-3)];
    Fuzz::bytes("row keys", [RowKey::encode(&values).unwrap().0]).run(|bytes| {
        let Ok(values) = RowKey(bytes.to_vec()).decode(&kinds) else { return false };
        assert_eq!(RowKey::encode(&values).unwrap().0, bytes);
        true
    });
}
