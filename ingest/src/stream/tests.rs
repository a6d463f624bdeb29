use std::collections::BTreeMap;

use everwhen_query::statements::{DropDefinition, MappingVerb};
use everwhen_storage::{ColumnType, DefinitionKind};

use crate::mapping::MappingDef;
use crate::reading::Reading;
use crate::stream::{KafkaTopic, StreamColumn, StreamDef, plan_drop};
use crate::testing::{Defined, column, defined, from_topic, mapping, orders, stream};

fn state(result: crate::Result<()>) -> &'static str {
    result.expect_err("refused").sqlstate()
}

#[test]
fn a_stream_that_exists_is_replaced_only_when_asked() {
    let mut defined = Defined::default();
    defined.stream(&orders()).expect("made");
    assert_eq!(state(defined.stream(&orders())), "42710");
    let mut again = orders();
    again.if_not_exists = true;
    defined.stream(&again).expect("left as it is");
    again.or_replace = true;
    again.columns = Some(vec![column("id", ColumnType::Text)]);
    defined.stream(&again).expect("replaced");
}

#[test]
fn a_replaced_stream_must_still_fit_its_mappings() {
    let mut defined = defined(MappingVerb::Put, "SELECT id AS _id, n");
    let mut narrower = orders();
    narrower.or_replace = true;
    narrower.columns = Some(vec![column("id", ColumnType::Text)]);
    assert_eq!(state(defined.stream(&narrower)), "42703");
    narrower.columns =
        Some(vec![column("id", ColumnType::Text), column("n", ColumnType::Timestamp)]);
    assert_eq!(state(defined.stream(&narrower)), "42804");
}

#[test]
fn wrong_columns_and_options_are_refused() {
    let columns = |list: Vec<(&str, ColumnType)>| {
        let list = list.into_iter().map(|(name, kind)| column(name, kind)).collect();
        Defined::default().stream(&stream("s", Some(list)))
    };
    let text = || ColumnType::Text;
    assert_eq!(state(columns(vec![("a", text()), ("a", text())])), "42701");
    assert_eq!(state(columns(vec![("_key", text())])), "42P16");
    let list = ColumnType::List(Box::new(text()));
    assert_eq!(state(columns(vec![("a", list)])), "0A000");
    let mut options = stream("s", None);
    options.options = BTreeMap::from([("wrong".to_owned(), "1".to_owned())]);
    assert_eq!(state(Defined::default().stream(&options)), "22023");
    options.options = BTreeMap::from([("record_bytes_max".to_owned(), "0".to_owned())]);
    assert_eq!(state(Defined::default().stream(&options)), "22023");
    options.options = BTreeMap::from([("record_bytes_max".to_owned(), "5000".to_owned())]);
    Defined::default().stream(&options).expect("a stream with its own limit");
}

#[test]
fn client_settings_that_reach_files_or_move_offsets_are_refused() {
    for name in [
        "plugin.library.paths",
        "ssl.ca.location",
        "sasl.kerberos.kinit.cmd",
        "enable.auto.commit",
        "auto.offset.reset",
        "bootstrap.servers",
    ] {
        let mut statement = from_topic(stream("s", None), "localhost:9092", "t");
        let kafka = statement.kafka.as_mut().expect("a topic");
        kafka.options.insert(name.to_owned(), "x".to_owned());
        assert_eq!(state(Defined::default().stream(&statement)), "22023", "{name}");
    }
    let mut statement = from_topic(stream("s", None), "localhost:9092", "t");
    let kafka = statement.kafka.as_mut().expect("a topic");
    for name in ["security.protocol", "sasl.password", "ssl.ca.pem", "socket.timeout.ms"] {
        kafka.options.insert(name.to_owned(), "x".to_owned());
    }
    Defined::default().stream(&statement).expect("settings of the connection");
}

#[test]
fn a_stream_with_mappings_is_not_dropped() {
    let mut defined = defined(MappingVerb::Put, "SELECT id AS _id, n");
    let drop = |kind, name: &str, if_exists| DropDefinition {
        kind,
        name: name.to_owned(),
        if_exists,
        position: 1,
    };
    let stream = drop(DefinitionKind::Stream, "orders", false);
    let error = plan_drop(&defined.0, &stream).expect_err("mapped");
    assert_eq!(error.sqlstate(), "2BP01");
    let changes = plan_drop(&defined.0, &drop(DefinitionKind::Mapping, "ordered", false));
    defined.apply(&changes.expect("a mapping is dropped"));
    let changes = plan_drop(&defined.0, &stream).expect("nothing reads it now");
    defined.apply(&changes);
    let error = plan_drop(&defined.0, &stream).expect_err("gone");
    assert_eq!(error.sqlstate(), "42704");
    let lenient = drop(DefinitionKind::Stream, "orders", true);
    assert!(plan_drop(&defined.0, &lenient).expect("nothing to do").is_empty());
    let _unused = mapping("m", "orders", MappingVerb::Put, "t", "SELECT 1");
}

/// Stores that exist hold these forms: another one must still read them.
#[test]
fn stored_definitions_stay_as_they_are() {
    let stream = StreamDef {
        kafka: Some(KafkaTopic {
            brokers: "b:9092".to_owned(),
            topic: "t".to_owned(),
            options: BTreeMap::from([("client.id".to_owned(), "c".to_owned())]),
        }),
        columns: Some(vec![StreamColumn {
            name: "n".to_owned(),
            kind: ColumnType::List(Box::new(ColumnType::Int64)),
            not_null: true,
        }]),
        record_bytes_max: Some(9),
        reading: Reading::default(),
        sql: "CREATE STREAM".to_owned(),
    };
    let stored = serde_json::json!({
        "kafka": {"brokers": "b:9092", "topic": "t", "options": {"client.id": "c"}},
        "columns": [{"name": "n", "kind": {"list": "int64"}, "not_null": true}],
        "record_bytes_max": 9,
        "sql": "CREATE STREAM",
    });
    assert_eq!(serde_json::to_value(&stream).unwrap(), stored);
    assert_eq!(serde_json::from_value::<StreamDef>(stored).unwrap(), stream);

    let mapping = MappingDef {
        stream: "s".to_owned(),
        verb: crate::mapping::Verb::Patch { set_nulls: true },
        table: "t".to_owned(),
        select: "SELECT 1".to_owned(),
        sql: "CREATE MAPPING".to_owned(),
    };
    let stored = serde_json::json!({
        "stream": "s",
        "verb": {"patch": {"set_nulls": true}},
        "table": "t",
        "select": "SELECT 1",
        "sql": "CREATE MAPPING",
    });
    assert_eq!(serde_json::to_value(&mapping).unwrap(), stored);
    assert_eq!(serde_json::from_value::<MappingDef>(stored).unwrap(), mapping);
    assert_eq!(serde_json::to_value(crate::mapping::Verb::Put).unwrap(), "put");
}
