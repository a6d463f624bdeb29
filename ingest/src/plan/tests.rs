use everwhen_query::statements::MappingVerb;
use everwhen_storage::{
    AssertedFrom, Assertion, ColumnDef, ColumnType, DefinitionChange, Op, Precedence, RowKey,
    TableDef, TableId, Tenant, ValidTime, Value, WriteKind,
};

use super::{Prepared, StreamPlan};
use crate::apply::TenantRule;
use crate::testing::{Defined, NOW, defined, mapping, orders, records};

const PUT: MappingVerb = MappingVerb::Put;

/// The assertions of all transactions, in order.
fn assertions(prepared: &Prepared) -> Vec<(&RowKey, &Assertion)> {
    let writes = prepared.batch.txs.iter().flat_map(|tx| &tx.writes);
    writes
        .filter_map(|write| match &write.kind {
            WriteKind::Assert { key, assertion, .. } => Some((key, assertion)),
            WriteKind::Retract { .. } | WriteKind::Erase { .. } | WriteKind::EraseHashed { .. } => {
                None
            }
        })
        .collect()
}

fn hashes(prepared: &Prepared) -> Vec<u128> {
    let writes = prepared.batch.txs.iter().flat_map(|tx| &tx.writes);
    writes
        .filter_map(|write| match &write.kind {
            WriteKind::Assert { event: Some(event), .. } => Some(event.content_hash),
            _ => None,
        })
        .collect()
}

fn at(text: &str) -> ValidTime {
    ValidTime::parse(text).expect("an instant")
}

#[test]
fn a_put_states_its_key_fields_and_period() {
    let defined =
        defined(PUT, "SELECT id AS _id, n, at AS _valid_from, until AS _valid_to WHERE id <> 'no'");
    let prepared = defined.prepare(
        "orders",
        &[
            r#"{"id":"a","n":1,"at":"2026-01-01T00:00:00Z","until":"2026-01-02T00:00:00Z"}"#,
            r#"{"id":"no"}"#,
            r#"{"id":"b","at":"2026-01-01T00:00:00Z"}"#,
        ],
    );
    assert_eq!(prepared.tx_records, [0, 2]);
    assert_eq!((prepared.tally.unmatched, prepared.tally.dead_letters), (1, 0));
    let made = assertions(&prepared);
    assert_eq!(*made[0].0, RowKey::encode(&[Value::Text("a".to_owned())]).expect("a key"));
    assert_eq!(made[0].1.op, Op::Put);
    assert_eq!(made[0].1.from, AssertedFrom::At(at("2026-01-01T00:00:00Z")));
    assert_eq!(made[0].1.to, at("2026-01-02T00:00:00Z"));
    assert_eq!(made[0].1.fields.fields().len(), 1);
    assert_eq!((made[1].1.to, made[1].1.fields.fields().len()), (ValidTime::END, 0));
}

#[test]
fn without_valid_from_the_records_time_counts() {
    let defined = defined(PUT, "SELECT id AS _id, n");
    let prepared = defined.prepare("orders", &[r#"{"id":"a"}"#]);
    let from = AssertedFrom::At(ValidTime::from_micros(NOW));
    assert_eq!(assertions(&prepared)[0].1.from, from);
}

#[test]
fn what_must_not_be_null_or_empty_is_a_dead_letter() {
    let defined = defined(PUT, "SELECT id AS _id, n, at AS _valid_from, until AS _valid_to");
    let prepared = defined.prepare(
        "orders",
        &[
            r#"{"n":1,"at":"2026-01-01T00:00:00Z"}"#,
            r#"{"id":"a"}"#,
            r#"{"id":"a","at":"2026-01-01T00:00:00Z","until":"2026-01-01T00:00:00Z"}"#,
            "no JSON",
            r#"{"id":"good","at":"2026-01-01T00:00:00Z"}"#,
        ],
    );
    assert_eq!(prepared.tx_records, [4]);
    let reasons: Vec<&str> = prepared.rejected.iter().map(|(_, why)| why.as_str()).collect();
    assert!(reasons[0].contains("_id is NULL"), "{reasons:?}");
    assert!(reasons[1].contains("_valid_from is NULL"), "{reasons:?}");
    assert!(reasons[2].contains("is not before valid_to"), "{reasons:?}");
    assert_eq!(prepared.batch.dead_letters[3].value, b"no JSON");
    assert_eq!(prepared.batch.dead_letters.len(), 4);
}

#[test]
fn a_failing_expression_costs_its_own_records_alone() {
    let defined = defined(PUT, "SELECT id AS _id, 100 / n AS share");
    let values: Vec<String> =
        (0..1000).map(|n| format!(r#"{{"id":"k{n}","n":{}}}"#, n % 100)).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let prepared = defined.prepare("orders", &values);
    let failed: Vec<usize> = prepared.rejected.iter().map(|(index, _)| *index).collect();
    assert_eq!(failed, (0..10).map(|n| n * 100).collect::<Vec<_>>());
    assert_eq!(prepared.batch.txs.len(), 990);
    assert!(prepared.rejected[0].1.contains("ordered"), "{:?}", prepared.rejected[0]);
}

#[test]
fn a_text_that_is_no_uuid_costs_its_own_record_alone() {
    let mut defined = Defined::default();
    defined.stream(&orders()).expect("a stream");
    let id = ColumnDef { nullable: false, ..ColumnDef::new(0, "_id", ColumnType::Uuid) };
    defined.apply(&[DefinitionChange::Table(TableDef {
        id: TableId(7),
        name: "declared".to_owned(),
        precedence: Precedence::Effective,
        key: vec![id.id],
        columns: vec![id, ColumnDef::new(1, "n", ColumnType::Int64)],
        declared: true,
    })]);
    let select = "SELECT id AS _id, n";
    defined.mapping(&mapping("m", "orders", PUT, "declared", select)).expect("fits");
    let uuid = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    let sent = [uuid.to_uppercase(), "a0eebc99".to_owned(), uuid.replace('-', "")];
    let values = sent.map(|id| format!(r#"{{"id":"{id}","n":1}}"#));
    let key = RowKey::encode(&[Value::Uuid(uuid.parse().expect("a UUID"))]).expect("a key");
    let takes = |defined: &Defined| {
        let prepared = defined.prepare("orders", &values.each_ref().map(String::as_str));
        assert_eq!(prepared.tx_records, [0, 2]);
        assert!(prepared.rejected[0].1.to_lowercase().contains("uuid"), "{:?}", prepared.rejected);
        assert!(assertions(&prepared).iter().all(|(of, _)| **of == key));
    };
    takes(&defined);
    // A cast is as strict, also where nothing but it makes the value a UUID, and compares as one.
    let casts = format!(
        "SELECT CAST(id AS UUID) AS _id, CAST(id AS UUID) AS same, n \
         WHERE CAST(id AS UUID) = '{}'",
        uuid.to_uppercase()
    );
    let mut casting = Defined::default();
    casting.stream(&orders()).expect("a stream");
    casting.mapping(&mapping("c", "orders", PUT, "made", &casts)).expect("makes its table");
    takes(&casting);
}

#[test]
fn all_mappings_of_a_record_are_one_transaction_or_one_dead_letter() {
    let mut defined = defined(PUT, "SELECT id AS _id, n");
    let second = "SELECT id AS _id, 10 / n AS share WHERE n < 5";
    defined.mapping(&mapping("second", "orders", PUT, "shares", second)).expect("a mapping");
    let prepared = defined
        .prepare("orders", &[r#"{"id":"a","n":1}"#, r#"{"id":"b","n":9}"#, r#"{"id":"c","n":0}"#]);
    let writes: Vec<usize> = prepared.batch.txs.iter().map(|tx| tx.writes.len()).collect();
    assert_eq!(writes, [2, 1]);
    assert_eq!(prepared.rejected.len(), 1);
}

#[test]
fn a_patch_keeps_sent_nulls_only_when_told_to() {
    let select = "SELECT id AS _id, n, at AS seen";
    let values = [r#"{"id":"a","n":null}"#, r#"{"id":"a","n":1,"at":null}"#];
    let keep = defined(MappingVerb::Patch { set_nulls: false }, select);
    let prepared = keep.prepare("orders", &values);
    assert!(assertions(&prepared)[0].1.fields.fields().is_empty());
    let set = defined(MappingVerb::Patch { set_nulls: true }, select);
    let prepared = set.prepare("orders", &values);
    let made = assertions(&prepared);
    let nulls = |at: usize| -> Vec<bool> {
        made[at].1.fields.fields().iter().map(|(_, value)| value.is_null()).collect()
    };
    assert_eq!(nulls(0), [true], "only n was sent");
    assert_eq!(nulls(1), [false, true], "n and at were sent");
}

#[test]
fn content_is_what_the_event_says_not_what_was_defaulted() {
    let named = "SELECT id AS _id, n, id AS _event_id, at AS _valid_from";
    let base = r#"{"id":"a","n":1,"at":"2026-01-01T00:00:00Z"}"#;
    let other_time = r#"{"id":"a","n":1,"at":"2026-01-01T00:00:01Z"}"#;
    let other_field = r#"{"id":"a","n":2,"at":"2026-01-01T00:00:00Z"}"#;
    let with_extra = r#"{"extra":true,"n":1,"id":"a","at":"2026-01-01T01:00:00+01:00"}"#;
    let prepared =
        defined(PUT, named).prepare("orders", &[base, other_time, other_field, with_extra]);
    let [a, b, c, d] = hashes(&prepared)[..] else { unreachable!("four events") };
    assert!(a != b && a != c && a == d);
    let unnamed = "SELECT id AS _id, n, id AS _event_id";
    let defined = defined(PUT, unnamed);
    let plan = StreamPlan::compile(&defined.0, "orders", 1 << 20).expect("compiles");
    let tenant = Tenant::default();
    let rule = TenantRule { tenant: &tenant, bound: false };
    let hash_at = |timestamp| {
        let mut later = crate::batch::Records::default();
        let record = crate::testing::record(base);
        later.push(&crate::batch::Record { timestamp: Some(timestamp), ..record }, 1 << 20);
        hashes(&plan.prepare(&later, rule).expect("prepares"))
    };
    assert_eq!(hash_at(NOW), hash_at(NOW + 5));
}

#[test]
fn assertions_under_one_event_id_share_the_hash_of_all() {
    let select = "SELECT id AS _id, n, id AS _event_id";
    let mut defined = defined(PUT, select);
    let second = "SELECT id || '-2' AS _id, at AS seen, id AS _event_id";
    let patch = MappingVerb::Patch { set_nulls: false };
    defined.mapping(&mapping("second", "orders", patch, "orders", second)).expect("a mapping");
    let values = [r#"{"id":"a","n":1}"#, r#"{"id":"a","n":1,"at":"2026-01-01T00:00:00Z"}"#];
    let [a, b, c, d] = hashes(&defined.prepare("orders", &values))[..] else {
        unreachable!("two events of two assertions")
    };
    assert!(a == b && c == d && a != c);
}

#[test]
fn tenants_come_from_the_record_and_bind_a_session() {
    let defined = defined(PUT, "SELECT id AS _id, n, id AS _tenant");
    let values = [r#"{"id":"acme"}"#, r#"{"id":"Not A Name"}"#, r#"{"n":1}"#, r#"{"id":"other"}"#];
    let prepared = defined.prepare("orders", &values);
    assert_eq!(prepared.tx_records, [0, 3]);
    assert_eq!(prepared.batch.txs[0].writes[0].tenant.as_str(), "acme");
    let plan = StreamPlan::compile(&defined.0, "orders", 1 << 20).expect("compiles");
    let tenant = Tenant::new("acme").expect("a name");
    let bound = TenantRule { tenant: &tenant, bound: true };
    let prepared = plan.prepare(&records(&values), bound).expect("prepares");
    assert_eq!(prepared.tx_records, [0]);
    assert_eq!(prepared.batch.dead_letters[0].tenant, "acme");
}

#[test]
fn payload_paths_are_cast_to_what_their_columns_hold() {
    let mut defined = crate::testing::Defined::default();
    defined.stream(&crate::testing::stream("docs", None)).expect("a stream");
    let select = "SELECT payload->>'id' AS _id, (payload->>'n')::BIGINT AS n, \
                  payload->'doc' AS doc, payload->>'at' AS _valid_from";
    defined.mapping(&mapping("m", "docs", PUT, "docs", select)).expect("a mapping");
    let table = defined.0.table("docs").expect("made");
    let kind = |name: &str| table.column(name).map(|column| column.kind.to_string());
    assert_eq!((kind("n").as_deref(), kind("doc").as_deref()), (Some("int64"), Some("json")));
    let prepared = defined.prepare(
        "docs",
        &[
            r#"{"id":"a","n":"5","doc":{"x": 1},"at":"2026-01-01T00:00:00Z"}"#,
            r#"{"id":"b","n":"five","at":"2026-01-01T00:00:00Z"}"#,
            r#"{"id":"c","at":"not a time"}"#,
            r#"{"id":"d","at":"2026-01-01T00:00:00Z"}"#,
        ],
    );
    assert_eq!(prepared.tx_records, [0, 3], "{:?}", prepared.rejected);
    let made = assertions(&prepared);
    let values: Vec<&Value> = made[0].1.fields.fields().iter().map(|(_, value)| value).collect();
    assert_eq!(values, [&Value::Int(5), &Value::Json(r#"{"x": 1}"#.to_owned())]);
}
