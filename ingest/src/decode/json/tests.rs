use std::collections::BTreeSet;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType,
};
use everwhen_storage::ColumnType;

use super::{Decoded, JsonDecoder};
use crate::batch::{Record, Records};
use crate::reading::Reading;
use crate::stream::{KafkaTopic, StreamColumn, StreamDef};
use crate::testing::{record, records};

fn stream(columns: &[(&str, ColumnType)]) -> StreamDef {
    let columns = columns.iter().map(|(name, kind)| StreamColumn {
        name: (*name).to_owned(),
        kind: kind.clone(),
        not_null: false,
    });
    StreamDef {
        kafka: None,
        columns: Some(columns.collect()),
        record_bytes_max: None,
        reading: Reading::default(),
        sql: String::new(),
    }
}

fn all(stream: &StreamDef) -> BTreeSet<String> {
    stream.schema().fields().iter().map(|field| field.name().clone()).collect()
}

fn decode(stream: &StreamDef, values: &[&str]) -> Decoded {
    JsonDecoder::new(stream, &all(stream), 1 << 20).decode(&records(values)).expect("decodes")
}

fn every_type() -> StreamDef {
    stream(&[
        ("t", ColumnType::Text),
        ("i", ColumnType::Int64),
        ("f", ColumnType::Float64),
        ("b", ColumnType::Bool),
        ("at", ColumnType::Timestamp),
        ("d", ColumnType::Date),
        ("j", ColumnType::Json),
        ("m", ColumnType::Decimal),
        ("u", ColumnType::Uuid),
    ])
}

#[test]
fn every_type_is_decoded_as_declared() {
    let value = r#"{"t":"a\"b","i":-5,"f":1,"b":true,"at":"2026-01-05T09:00:00.5Z",
        "d":"1970-01-02","j":{"x": [1, 2]},"m":12.345,
        "u":"A0EEBC999C0B4EF8BB6D6BB9BD380A11", "other": {"ignored": [true]}}"#;
    let decoded = decode(&every_type(), &[value]);
    assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
    let column = |name: &str| decoded.batch.column_by_name(name).expect("a column").clone();
    assert_eq!(column("t").as_string::<i32>().value(0), "a\"b");
    assert_eq!(column("i").as_primitive::<Int64Type>().value(0), -5);
    assert!((column("f").as_primitive::<Float64Type>().value(0) - 1.0).abs() < f64::EPSILON);
    assert!(column("b").as_boolean().value(0));
    let at = column("at").as_primitive::<TimestampMicrosecondType>().value(0);
    assert_eq!(at, 1_767_603_600_500_000);
    assert_eq!(column("d").as_primitive::<Date32Type>().value(0), 1);
    assert_eq!(column("j").as_string::<i32>().value(0), r#"{"x": [1, 2]}"#);
    assert_eq!(column("m").as_primitive::<Decimal128Type>().value(0), 12_345_000_000);
    let uuid = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    assert_eq!(column("u").as_string::<i32>().value(0), uuid);
}

#[test]
fn absent_and_null_fields_differ_in_their_presence_bit_alone() {
    let decoded = decode(&every_type(), &[r#"{"i":null}"#, "{}", r#"{"m":null,"j":null}"#]);
    assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
    for name in ["t", "i", "f", "b", "at", "d", "j", "m"] {
        assert_eq!(decoded.batch.column_by_name(name).expect("a column").null_count(), 3);
    }
    let sent = |name: &str, row| {
        decoded
            .batch
            .column_by_name(&format!("__sent_{name}"))
            .expect("bits")
            .as_boolean()
            .value(row)
    };
    assert!(sent("i", 0) && !sent("i", 1) && !sent("t", 0));
    assert!(sent("m", 2) && sent("j", 2));
}

#[test]
fn bad_records_are_rejected_and_leave_the_others_whole() {
    let bad = [
        r#"{"i":"#,
        "[1]",
        "7",
        "null",
        "",
        r#"{"i":"many"}"#,
        r#"{"i":1.5}"#,
        r#"{"i":9223372036854775808}"#,
        r#"{"t":5}"#,
        r#"{"t":"x","b":"true"}"#,
        r#"{"at":"yesterday"}"#,
        r#"{"at":1767604800}"#,
        r#"{"at":"2026-02-30T00:00:00Z"}"#,
        r#"{"d":"2026-1-1"}"#,
        r#"{"m":"1.2.3"}"#,
        r#"{"u":"a0eebc99"}"#,
        r#"{"u":7}"#,
        r#"{"t":{"a":1}}"#,
        r#"{"t":"a"} x"#,
        "{\"t\":\"\u{1}\"}",
    ];
    let mut values = Vec::new();
    for value in bad {
        values.push(r#"{"t":"good","i":1}"#);
        values.push(value);
    }
    let decoded = decode(&every_type(), &values);
    let rejected: Vec<usize> = decoded.rejected.iter().map(|(index, _)| *index).collect();
    assert_eq!(rejected, (0..bad.len()).map(|n| n * 2 + 1).collect::<Vec<_>>());
    assert_eq!(decoded.rows, (0..bad.len()).map(|n| n * 2).collect::<Vec<_>>());
    let texts = decoded.batch.column_by_name("t").expect("a column").clone();
    assert!(texts.as_string::<i32>().iter().all(|text| text == Some("good")));
    let reason = &decoded.rejected[5].1.reason;
    assert!(reason.contains("field \"i\"") && reason.contains("int64"), "{reason}");
}

#[test]
fn not_null_fields_must_be_sent() {
    let mut stream = stream(&[("id", ColumnType::Text)]);
    stream.columns.as_mut().expect("columns")[0].not_null = true;
    let decoded = decode(&stream, &[r#"{"id":"a"}"#, "{}", r#"{"id":null}"#]);
    assert_eq!((decoded.rows, decoded.rejected.len()), (vec![0], 2));
}

#[test]
fn without_columns_the_document_is_payload() {
    let stream = StreamDef { columns: None, ..stream(&[]) };
    let decoded = decode(&stream, &[r#" {"a": 1} "#, "[1,", "3"]);
    assert_eq!(decoded.rows, vec![0, 2]);
    let payload = decoded.batch.column_by_name("payload").expect("a column").clone();
    assert_eq!(payload.as_string::<i32>().value(0), r#"{"a": 1}"#);
}

#[test]
fn columns_about_the_record_are_built_where_wanted() {
    let mut stream = stream(&[("id", ColumnType::Text)]);
    stream.kafka = Some(KafkaTopic {
        brokers: "b".to_owned(),
        topic: "orders".to_owned(),
        options: std::collections::BTreeMap::new(),
    });
    let mut records = Records::default();
    let full = Record {
        key: Some(b"k"),
        headers: Some(br#"{"h":"1"}"#),
        place: Some((3, 42)),
        ..record(r#"{"id":"a"}"#)
    };
    records.push(&full, 1 << 20);
    records.push(&Record { value: None, size: 0, ..full }, 1 << 20);
    records.push(&Record { key: Some(&[0xff]), ..full }, 1 << 20);
    records.push(&full, 5);
    let decoder = JsonDecoder::new(&stream, &all(&stream), 5);
    let decoded = decoder.decode(&records).expect("decodes");
    let text = |name: &str, row: usize| {
        let column = decoded.batch.column_by_name(name).expect("a column").clone();
        let texts = column.as_string::<i32>();
        texts.is_valid(row).then(|| texts.value(row).to_owned())
    };
    assert_eq!(text("_key", 0).as_deref(), Some("k"));
    assert_eq!(text("_value", 0).as_deref(), Some(r#"{"id":"a"}"#));
    assert_eq!(text("_headers", 0).as_deref(), Some(r#"{"h":"1"}"#));
    assert_eq!(text("_topic", 0).as_deref(), Some("orders"));
    let offsets = decoded.batch.column_by_name("_offset").expect("a column").clone();
    assert_eq!(offsets.as_primitive::<Int64Type>().value(0), 42);
    // A tombstone has a key and neither value nor fields.
    assert_eq!((text("_value", 1), text("id", 1)), (None, None));
    let reasons: Vec<&str> =
        decoded.rejected.iter().map(|(_, rejection)| rejection.reason.as_str()).collect();
    assert!(reasons[0].contains("UTF-8") && reasons[1].contains("record_bytes_max = 5"));
}

#[test]
fn fuzzed_records_are_rows_or_rejections() {
    let corpus = [
        r#"{"t":"a\"b","i":-5,"f":1e300,"b":true,"at":"2026-01-05T09:00:00.5Z","d":"1970-01-02"}"#,
        r#"{"j":{"x":[1,{"y":null}]},"m":12.345,"other":{"x":[true]},"t":"\u00e9\ud83e\udd80"}"#,
        r#"{"i":9223372036854775807,"f":"NaN","m":"-0.000000001","at":null,"d":"2026-02-28"}"#,
    ];
    let whole = StreamDef { columns: None, ..every_type() };
    for (name, stream) in [("records of columns", every_type()), ("records of a payload", whole)] {
        let decoder = JsonDecoder::new(&stream, &all(&stream), 1 << 20);
        let words = ["t", "i", "f", "b", "at", "d", "j", "m"];
        let fuzz = everwhen_fuzz::Fuzz::text(name, corpus).words(&words);
        fuzz.run_text(|text| {
            let decoded = decoder.decode(&records(&[text, "{}"])).expect("decodes");
            assert_eq!(decoded.rows.len() + decoded.rejected.len(), 2);
            decoded.rejected.is_empty()
        });
        let bytes = corpus.map(|record| record.as_bytes().to_vec());
        everwhen_fuzz::Fuzz::bytes(name, bytes).run(|bytes| {
            let mut batch = records(&["{}"]);
            batch.push(&Record { value: Some(bytes), ..record("") }, 1 << 20);
            decoder.decode(&batch).expect("decodes").rejected.is_empty()
        });
    }
}
