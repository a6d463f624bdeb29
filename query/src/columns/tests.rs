//! Values survive the way through Arrow and JSON.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray};
use everwhen_storage::{ColumnType, Value};
use serde_json::json;

use super::{ColumnBuilder, cast_column, json_of, json_to_value, parse_decimal, value_at, widen};

fn samples() -> Vec<(ColumnType, Value, serde_json::Value)> {
    let pair = ColumnType::Struct(vec![
        ("a".to_owned(), ColumnType::Int64),
        ("b".to_owned(), ColumnType::Text),
    ]);
    vec![
        (ColumnType::Bool, Value::Bool(true), json!(true)),
        (ColumnType::Int64, Value::Int(i64::MAX), json!(i64::MAX)),
        (ColumnType::Float64, Value::Float(0.1), json!(0.1)),
        (ColumnType::Float64, Value::Float(f64::INFINITY), json!("Infinity")),
        (ColumnType::Decimal, Value::Decimal(-12_500_000_000), json!("-12.5")),
        (ColumnType::Text, Value::Text("é".to_owned()), json!("é")),
        (ColumnType::Bytes, Value::Bytes(vec![0, 255]), json!("AP8=")),
        (ColumnType::Date, Value::Date(20_458), json!("2026-01-05")),
        (ColumnType::Time, Value::Time(32_400_000_001), json!("09:00:00.000001")),
        (ColumnType::Timestamp, Value::Timestamp(1_500_000), json!("1970-01-01T00:00:01.500Z")),
        (ColumnType::Json, Value::Json("{\"z\":1}".to_owned()), json!({"z": 1})),
        (
            ColumnType::List(Box::new(ColumnType::Int64)),
            Value::List(vec![Value::Int(1), Value::Null]),
            json!([1, null]),
        ),
        (pair, Value::Struct(vec![Value::Int(1), Value::Null]), json!({"a": 1, "b": null})),
    ]
}

#[test]
fn values_pass_through_columns_and_json_unchanged() {
    for (kind, value, json) in samples() {
        let mut column = ColumnBuilder::new(&kind, 2);
        column.append(&Value::Null);
        column.append(&value);
        let column = column.finish();
        assert_eq!(column.data_type(), &kind.data_type());
        assert_eq!(value_at(&column, 0, &kind).unwrap(), Value::Null);
        assert_eq!(value_at(&column, 1, &kind).unwrap(), value);
        assert_eq!(json_of(&column, 1, &kind), json);
        assert_eq!(json_to_value(&json, &kind).unwrap(), value);
    }
}

#[test]
fn json_of_another_type_is_refused() {
    for (kind, json) in [
        (ColumnType::Int64, json!("1")),
        (ColumnType::Int64, json!(1.5)),
        (ColumnType::Text, json!(1)),
        (ColumnType::Bool, json!("true")),
    ] {
        assert_eq!(json_to_value(&json, &kind).unwrap_err().sqlstate(), "42804");
    }
}

#[test]
fn decimals_keep_nine_digits_and_refuse_more() {
    assert_eq!(parse_decimal("1"), Some(1_000_000_000));
    assert_eq!(parse_decimal("-0.000000001"), Some(-1));
    assert_eq!(parse_decimal("1.5e3"), Some(1_500_000_000_000));
    assert_eq!(parse_decimal("1.2500000000000"), Some(1_250_000_000));
    assert_eq!(parse_decimal("0.0000000001"), None);
    assert_eq!(parse_decimal(&"9".repeat(30)), None);
    assert_eq!(parse_decimal("abc"), None);
}

#[test]
fn text_becomes_an_instant_strictly() {
    let texts = |text: &str| Arc::new(StringArray::from(vec![text])) as ArrayRef;
    let at = cast_column(&texts("2026-01-05 09:00:00+02"), &ColumnType::Timestamp).unwrap();
    assert_eq!(json_of(&at, 0, &ColumnType::Timestamp), json!("2026-01-05T07:00:00Z"));
    for (text, state) in
        [("2026-02-30", "22008"), ("2026-01-01T00:00:00.0000001Z", "22008"), ("x", "22P02")]
    {
        let error = cast_column(&texts(text), &ColumnType::Timestamp).unwrap_err();
        assert_eq!(error.sqlstate(), state);
    }
}

#[test]
fn narrower_values_read_as_the_wider_type() {
    assert_eq!(widen(&Value::Int(3), &ColumnType::Float64), Value::Float(3.0));
    assert_eq!(widen(&Value::Float(0.5), &ColumnType::Text), Value::Text("0.5".to_owned()));
    let text = Value::Text("a".to_owned());
    assert_eq!(widen(&text, &ColumnType::Json), Value::Json("\"a\"".to_owned()));
}
