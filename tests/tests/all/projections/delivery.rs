//! What delivery and operators see of projections: whose table it is, rows that a sink refuses, sinks that
//! nobody offers, tenants that are not covered.

use everwhen_projector::Error;
use everwhen_projector::compute::{Acked, ProjectionOptions, ProjectionStatus, RefusedRow};
use everwhen_storage::{ColumnType, Op, Precedence, TableDef, Tenant, Value, Write};

use super::rig::{HOUR, Rig, START, Shape, assertion, statement, table, text};

const ALL: Shape = Shape { name: "p", key: &["_id"], query: "SELECT _id, n FROM t" };

fn t() -> TableDef {
    let columns = [("_id", ColumnType::Text), ("n", ColumnType::Int64)];
    table(1, "t", Precedence::Effective, &columns)
}

fn put(tenant: &str, id: &str, n: i64) -> Write {
    let tenant = Tenant::new(tenant).unwrap();
    let period = (START - HOUR, None);
    assertion(&tenant, &t(), text(id), Op::Put, period, vec![(1, Value::Int(n))])
}

fn status(rig: &Rig) -> ProjectionStatus {
    rig.projections.status().into_iter().find(|status| status.projection == "p").unwrap()
}

/// The keys held, with the reason.
fn held(rig: &Rig) -> Vec<(String, String, String)> {
    let errors = rig.projections.errors().into_iter();
    errors.map(|error| (error.tenant.to_string(), error.key, error.reason)).collect()
}

#[test]
fn two_projections_never_share_a_table() {
    let mut rig = Rig::new(&[t()], ProjectionOptions::default());
    rig.create_with(&ALL, &[], false);
    let _entered = rig.entered();
    let other = Shape { name: "q", ..ALL };
    let named = |sink: Option<&str>, table: Option<&str>, or_replace: bool| {
        let mut statement = statement(&other, &[], or_replace);
        statement.sink = sink.map(str::to_owned);
        statement.sink_table = table.map(str::to_owned);
        rig.projections.plan_create(&statement)
    };
    for or_replace in [false, true] {
        for sink in [Some("memory"), None] {
            let error = named(sink, Some("p"), or_replace).unwrap_err();
            assert!(matches!(error, Error::TableTaken { .. }), "{error:?}");
            assert_eq!(error.sqlstate(), "42710");
            assert!(error.to_string().contains("projection \"p\""), "{error}");
            assert!(error.hint().unwrap().contains("INTO memory.another_table"), "{error:?}");
        }
    }
    assert!(named(Some("memory"), None, false).is_ok(), "its own name");
    assert!(named(Some("other"), Some("p"), false).is_ok(), "another sink");
    assert!(rig.projections.plan_create(&statement(&ALL, &[], true)).is_ok(), "its own table");
    let reserved = named(Some("memory"), Some("everwhen_control"), false).unwrap_err();
    assert!(reserved.to_string().contains("everwhen_"), "{reserved}");
}

#[test]
fn a_refused_row_holds_its_key_and_nothing_else() {
    let mut rig = Rig::new(&[t()], ProjectionOptions::default());
    rig.create_with(&ALL, &[], false);
    rig.drain("p");
    rig.write(vec![put("default", "a", 1), put("default", "b", -1), put("default", "c", 1)]);
    rig.step_unacknowledged("p");
    {
        let _entered = rig.entered();
        let lease = rig.projections.lease("w", &["memory".to_owned()]).unwrap().remove(0).lease;
        let chunk = rig.projections.outstanding("p").unwrap().unwrap();
        let rows = chunk.changes.iter().map(|change| change.row_json.contains("-1"));
        let change = chunk.first_change + rows.take_while(|bad| !bad).count() as u64;
        let refused = [RefusedRow { change, reason: "CHECK constraint failed".to_owned() }];
        rig.projections.refuse_rows("p", lease, &refused).unwrap();
        rig.projections.refuse_rows("p", lease, &refused).unwrap();
        let expected = ("default".to_owned(), r#"["b"]"#.to_owned(), refused[0].reason.clone());
        assert_eq!(held(&rig), std::slice::from_ref(&expected));
        // The delivery process ends here; another goes on from the sink's control row.
        drop(_entered);
        rig.restart();
        let _entered = rig.entered();
        assert_eq!(held(&rig), [expected], "a report is durable");
        let lease = rig.projections.lease("v", &["memory".to_owned()]).unwrap().remove(0).lease;
        let last = chunk.first_change + chunk.changes.len() as u64 - 1;
        let acked = Acked { change: last, refused: Vec::new(), decided_from: last };
        rig.projections.ack_rows("p", lease, &acked).unwrap();
    }
    assert_eq!(held(&rig).len(), 1, "what the sink passed over before the lease stays held");
    let seen = status(&rig);
    assert_eq!((seen.state.as_str(), seen.held_keys), ("incomplete", 1));
    assert!(seen.held_since.is_some() && seen.delivered_tx == seen.latest_tx);
    // The next change of the key that is accepted releases it; changes of other keys do not.
    rig.write(vec![put("default", "a", 2)]);
    rig.drain("p");
    assert_eq!(held(&rig).len(), 1);
    rig.write(vec![put("default", "b", 2)]);
    rig.drain("p");
    assert!(held(&rig).is_empty());
    let seen = status(&rig);
    assert_eq!((seen.state.as_str(), seen.held_keys, seen.held_since), ("live", 0, None));
    rig.restart();
    assert!(held(&rig).is_empty(), "the release is durable");
}

#[test]
fn a_row_that_is_accepted_after_all_is_released() {
    let mut rig = Rig::new(&[t()], ProjectionOptions::default());
    rig.create_with(&ALL, &[], false);
    rig.write(vec![put("default", "a", 1), put("default", "b", 1)]);
    let _entered = rig.entered();
    let lease = rig.projections.lease("w", &["memory".to_owned()]).unwrap().remove(0).lease;
    rig.projections.advance("p").unwrap();
    let refused = |change| RefusedRow { change, reason: "no".to_owned() };
    rig.projections.refuse_rows("p", lease, &[refused(1), refused(2)]).unwrap();
    assert_eq!(held(&rig).len(), 2);
    // The constraint went meanwhile for one of them, and the process saw both decided.
    let acked = Acked { change: 2, refused: vec![2], decided_from: 1 };
    rig.projections.ack_rows("p", lease, &acked).unwrap();
    let keys: Vec<String> = held(&rig).into_iter().map(|(_, key, _)| key).collect();
    assert_eq!(keys, [r#"["b"]"#]);
    // A new generation writes every row anew.
    rig.projections.fail("p", lease, "the table is gone", true).unwrap();
    assert!(held(&rig).is_empty());
}

#[test]
fn a_sink_that_nobody_offers_is_said() {
    let mut rig = Rig::new(&[t()], ProjectionOptions::default());
    rig.create_with(&ALL, &[], false);
    let _entered = rig.entered();
    assert_eq!(status(&rig).state, "loading");
    rig.projections.lease("w", &["lake".to_owned(), "barn".to_owned()]).unwrap();
    let seen = status(&rig);
    let text = "no delivery process offers sink \"memory\"; offered: barn, lake";
    assert_eq!((seen.state.as_str(), seen.error.as_deref()), ("waiting", Some(text)));
    rig.projections.lease("v", &["memory".to_owned()]).unwrap();
    let seen = status(&rig);
    assert_eq!((seen.state.as_str(), seen.error), ("loading", None), "one has come");
}

#[test]
fn tenants_are_covered_as_said_and_the_others_are_counted() {
    let mut rig = Rig::new(&[t()], ProjectionOptions::default());
    rig.write(vec![put("default", "a", 1), put("x", "a", 2), put("y", "a", 3)]);
    rig.create_with(&ALL, &[], false);
    rig.drain("p");
    let rows = &rig.sinks["p"].rows;
    assert_eq!(rows.keys().collect::<Vec<_>>(), [r#"["a"]"#], "another tenant changes nothing");
    assert_eq!(status(&rig).uncovered_tenants, 2);
    let warnings = rig.projections.warnings("p");
    assert!(warnings[0].contains("2 other tenants have rows"), "{warnings:?}");
    rig.write(vec![put("z", "a", 3)]);
    assert_eq!(status(&rig).uncovered_tenants, 3);

    let some = Shape { name: "some", ..ALL };
    rig.create_with(&some, &[("tenants", "x, z, later")], false);
    rig.drain("some");
    let status_of = |rig: &Rig| {
        rig.projections.status().into_iter().find(|status| status.projection == "some").unwrap()
    };
    assert_eq!(status_of(&rig).uncovered_tenants, 2, "default and y");
    let tenants = |rig: &Rig| {
        let rows = rig.sinks["some"].rows.values();
        rows.map(|row| row["_tenant"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let only_tenant = |rig: &mut Rig| {
        rig.write(vec![put("later", "a", 1), put("y", "b", 1)]);
        let _entered = rig.entered();
        rig.projections.advance("some").unwrap();
        let chunk = rig.projections.outstanding("some").unwrap().unwrap();
        assert_eq!(chunk.changes.len(), 1, "of the tenant that is covered");
        assert!(chunk.changes[0].row_json.contains(r#""_tenant":"later""#));
    };
    only_tenant(&mut rig);
    assert_eq!(tenants(&rig).len(), 2);
}
