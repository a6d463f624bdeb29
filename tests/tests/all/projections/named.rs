//! The rules of projections by name, each on a small story.

use everwhen_projector::Error;
use everwhen_projector::compute::ProjectionOptions;
use everwhen_query::statements::{AlterProjection, ExplainProjection};
use everwhen_storage::{Clock, ColumnType, Op, Precedence, TableDef, Tenant, Value, Write};

use super::rig::{HOUR, Rig, START, Shape, assertion, statement, table, text};

/// Writes a row for all of valid time after the start.
fn put(table: &TableDef, key: i64, fields: &[(u32, i64)]) -> Write {
    let fields = fields.iter().map(|(id, value)| (*id, Value::Int(*value))).collect();
    assertion(&Tenant::default(), table, Value::Int(key), Op::Put, (START - HOUR, None), fields)
}

fn delete(table: &TableDef, key: i64) -> Write {
    let key = Value::Int(key);
    assertion(&Tenant::default(), table, key, Op::Delete, (START - HOUR, None), Vec::new())
}

fn ints(id: u32, name: &str, columns: &[&str]) -> TableDef {
    let columns: Vec<_> = columns.iter().map(|name| (*name, ColumnType::Int64)).collect();
    table(id, name, Precedence::Recorded, &columns)
}

fn check(rig: &Rig, name: &str) {
    rig.check(name, &Tenant::default()).unwrap_or_else(|problem| panic!("{problem}"));
}

/// continuous.md 3.5: two non-linear blocks that feed a join, both sides changed in one batch.
/// Pushing removed rows at m and added rows at n, united only at the root, misses group 1.
#[test]
fn groups_that_appear_on_both_sides_of_a_join_in_one_batch_are_found() {
    let tables = [
        ints(1, "t", &["_id", "g", "k"]),
        ints(2, "s", &["_id"]),
        ints(3, "u", &["_id", "g", "k"]),
        ints(4, "w", &["_id"]),
    ];
    let [t, s, u, w] = &tables;
    let mut rig = Rig::new(&tables, ProjectionOptions::default());
    let shape = Shape {
        name: "both",
        key: &["g"],
        query: "SELECT a.g, a.n AS left_n, b.n AS right_n FROM \
                (SELECT t.g, count(*) AS n FROM t JOIN s ON s._id = t.k GROUP BY t.g \
                 HAVING count(*) < 3) a JOIN \
                (SELECT u.g, count(*) AS n FROM u JOIN w ON w._id = u.k GROUP BY u.g \
                 HAVING count(*) < 3) b ON a.g = b.g",
    };
    let mut writes = Vec::new();
    for k in 1..=3 {
        writes.extend([put(t, k, &[(1, 1), (2, k)]), put(u, k, &[(1, 1), (2, k)])]);
        writes.extend([put(s, k, &[]), put(w, k, &[])]);
    }
    rig.write(writes);
    rig.create_with(&shape, &[("tenant_column", "none")], false);
    rig.drain("both");
    assert!(rig.sinks["both"].rows.is_empty(), "both counts are 3");
    rig.write(vec![delete(t, 3), delete(u, 3), delete(s, 3), delete(w, 3)]);
    rig.drain("both");
    check(&rig, "both");
    assert_eq!(rig.sinks["both"].rows.len(), 1, "group 1 appears");
}

fn presence() -> [TableDef; 2] {
    let fact =
        [("_id", ColumnType::Text), ("who", ColumnType::Text), ("at", ColumnType::Timestamp)];
    let dim = [("_id", ColumnType::Text), ("department", ColumnType::Text)];
    [
        table(1, "presence", Precedence::Effective, &fact),
        table(2, "employee", Precedence::Effective, &dim),
    ]
}

const AS_OF: Shape = Shape {
    name: "report",
    key: &["_id"],
    query: "SELECT p._id, p.at, e.department FROM presence FOR ALL VALID_TIME AS p \
            LEFT JOIN employee FOR VALID_TIME AS OF p.at AS e ON e._id = p.who",
};

fn seen(table: &TableDef, id: &str, who: &str, at: i64) -> Write {
    let fields = vec![(1, text(who)), (2, Value::Timestamp(at))];
    assertion(&Tenant::default(), table, text(id), Op::Put, (at, Some(at + HOUR)), fields)
}

fn moved(table: &TableDef, who: &str, department: &str, from: i64) -> Write {
    let fields = vec![(1, text(department))];
    assertion(&Tenant::default(), table, text(who), Op::Put, (from, None), fields)
}

#[test]
fn a_late_dimension_row_changes_just_the_facts_in_its_period() {
    let tables = presence();
    let [presence, employee] = &tables;
    let mut rig = Rig::new(&tables, ProjectionOptions::default());
    rig.create_with(&AS_OF, &[("tenant_column", "none")], false);
    rig.write(vec![moved(employee, "ann", "Finance", START)]);
    let days: Vec<Write> = (0..5)
        .map(|day| seen(presence, &format!("d{day}"), "ann", START + day * 24 * HOUR + HOUR))
        .collect();
    rig.write(days);
    rig.drain("report");
    check(&rig, "report");
    let before = rig.sinks["report"].changes;
    // From the third day on she was in Accounting, as is recorded only now.
    rig.write(vec![moved(employee, "ann", "Accounting", START + 48 * HOUR)]);
    rig.drain("report");
    check(&rig, "report");
    assert_eq!(rig.sinks["report"].changes - before, 3, "the last three days and no other");
}

#[test]
fn a_crash_between_sink_and_server_sends_the_same_changes_again() {
    let tables = presence();
    let [presence, employee] = &tables;
    let mut rig = Rig::new(&tables, ProjectionOptions { chunk_rows: 2, ..Default::default() });
    rig.create_with(&AS_OF, &[("tenant_column", "none")], false);
    rig.drain("report");
    rig.write((0..5).map(|n| seen(presence, &format!("p{n}"), "bob", START)).collect());
    rig.step_unacknowledged("report");
    let first = rig.projections.outstanding("report").unwrap().unwrap();
    // What comes in meanwhile must not leak into numbers that have left.
    rig.write(vec![moved(employee, "bob", "Sales", START - HOUR)]);
    rig.restart();
    let again = rig.projections.outstanding("report").unwrap().unwrap();
    assert_eq!(first.first_change, again.first_change);
    assert_eq!(first.changes, again.changes);
    assert_eq!((first.tx, first.generation), (again.tx, again.generation));
    rig.drain("report");
    check(&rig, "report");
}

#[test]
fn future_rows_appear_and_go_when_their_time_comes() {
    let tables = presence();
    let [_, employee] = &tables;
    let mut rig = Rig::new(&tables, ProjectionOptions::default());
    let now = Shape { name: "now", key: &["_id"], query: "SELECT _id, department FROM employee" };
    rig.create_with(&now, &[("tenant_column", "none")], false);
    let fields = vec![(1, text("Sales"))];
    let period = (START + HOUR, Some(START + 3 * HOUR));
    rig.write(vec![assertion(&Tenant::default(), employee, text("cem"), Op::Put, period, fields)]);
    rig.drain("now");
    assert!(rig.sinks["now"].rows.is_empty());
    let status = rig.projections.status().remove(0);
    assert_eq!(status.delivered_tx, status.latest_tx);
    for (hours, rows) in [(1, 1), (2, 1), (3, 0)] {
        rig.clock.set(START + hours * HOUR).unwrap();
        rig.drain("now");
        check(&rig, "now");
        assert_eq!(rig.sinks["now"].rows.len(), rows, "after {hours} hours");
        let status = rig.projections.status().remove(0);
        assert_eq!(status.delivered_now.unwrap().micros(), START + hours * HOUR);
    }
}

#[test]
fn a_key_with_two_rows_is_held_and_comes_back_when_it_has_one() {
    let tables = [ints(1, "t", &["_id", "g", "n"])];
    let [t] = &tables;
    let mut rig = Rig::new(&tables, ProjectionOptions::default());
    let shape = Shape { name: "keyed", key: &["g"], query: "SELECT g, n FROM t" };
    rig.create_with(&shape, &[("tenant_column", "none")], false);
    rig.write(vec![put(t, 1, &[(1, 7), (2, 10)]), put(t, 2, &[(1, 8), (2, 20)])]);
    rig.drain("keyed");
    check(&rig, "keyed");
    assert_eq!(rig.sinks["keyed"].rows.len(), 2);
    rig.write(vec![put(t, 3, &[(1, 7), (2, 30)]), put(t, 2, &[(1, 8), (2, 21)])]);
    rig.drain("keyed");
    check(&rig, "keyed");
    let errors = rig.projections.errors();
    assert_eq!((errors[0].key.as_str(), errors.len()), ("[7]", 1));
    assert_eq!(rig.sinks["keyed"].rows["[7]"]["n"], 10, "the sink's row is held");
    assert_eq!(rig.sinks["keyed"].rows["[8]"]["n"], 21, "the rest goes on");
    rig.restart();
    rig.write(vec![delete(t, 1)]);
    rig.drain("keyed");
    check(&rig, "keyed");
    assert!(rig.projections.errors().is_empty());
    assert_eq!(rig.sinks["keyed"].rows["[7]"]["n"], 30);
}

#[test]
fn a_replaced_query_starts_a_generation_and_removes_rows_that_are_gone() {
    let tables = [ints(1, "t", &["_id", "g"])];
    let [t] = &tables;
    let mut rig = Rig::new(&tables, ProjectionOptions { chunk_rows: 2, ..Default::default() });
    let all = Shape { name: "p", key: &["_id"], query: "SELECT _id, g FROM t" };
    let some = Shape { name: "p", key: &["_id"], query: "SELECT _id, g FROM t WHERE g > 2" };
    rig.create_with(&all, &[("tenant_column", "none")], false);
    rig.write((0..5).map(|n| put(t, n, &[(1, n)])).collect());
    rig.drain("p");
    assert_eq!(rig.sinks["p"].rows.len(), 5);
    rig.create_with(&some, &[("tenant_column", "none")], true);
    rig.drain("p");
    check(&rig, "p");
    assert_eq!(rig.sinks["p"].rows.len(), 2);
    assert_eq!(rig.sinks["p"].generation, 2);
    let again = rig.projections.plan_create(&statement(&all, &[], false));
    assert!(matches!(again, Err(Error::Exists { .. })));
}

#[test]
fn a_newer_lease_fences_the_older_and_a_new_generation_ends_both() {
    let tables = [ints(1, "t", &["_id", "g"])];
    let mut rig = Rig::new(&tables, ProjectionOptions::default());
    let all = Shape { name: "p", key: &["_id"], query: "SELECT _id, g FROM t" };
    rig.create_with(&all, &[("tenant_column", "none")], false);
    let sinks = vec!["memory".to_owned()];
    assert!(rig.projections.lease("a", &["other".to_owned()]).unwrap().is_empty());
    let first = rig.projections.lease("a", &sinks).unwrap().remove(0);
    assert!(rig.projections.lease("b", &sinks).unwrap().is_empty(), "one at a time");
    rig.projections.release("a");
    let second = rig.projections.lease("b", &sinks).unwrap().remove(0);
    assert!(second.lease > first.lease);
    assert!(matches!(rig.projections.ack("p", first.lease, 0), Err(Error::LeaseLost { .. })));
    rig.projections.fail("p", second.lease, "table is gone", true).unwrap();
    assert!(matches!(rig.projections.ack("p", second.lease, 0), Err(Error::LeaseLost { .. })));
    let third = rig.projections.lease("b", &sinks).unwrap().remove(0);
    assert_eq!((third.generation, third.acked_change), (second.generation + 1, 0));
}

#[test]
fn queries_that_could_differ_over_the_same_data_are_refused_with_a_reason() {
    let tables = [ints(1, "t", &["_id", "g", "n"])];
    let rig = Rig::new(&tables, ProjectionOptions::default());
    let _entered = rig.entered();
    let refused = [
        ("SELECT _id, random() AS r FROM t", "random"),
        ("SELECT _id, now() AS r FROM t", "clock"),
        ("SELECT _id, g FROM t ORDER BY g LIMIT 3", "total order"),
        ("SELECT g AS _id, array_agg(n) AS all_n FROM t GROUP BY g", "total order"),
        (
            "SELECT g AS _id, sum(n) AS n FROM t FOR ALL VALID_TIME GROUP BY g, CONSTANT_INTERVAL(_valid_time)",
            "CONSTANT_INTERVAL",
        ),
        ("SELECT _id, row_number() OVER (ORDER BY g) AS place FROM t", "total order"),
        ("SELECT _id, g AS _generation FROM t", "two columns"),
        ("SELECT g FROM t", "no column of the query"),
    ];
    for (query, reason) in refused {
        let statement = statement(&Shape { name: "p", key: &["_id"], query }, &[], false);
        let error = rig.projections.plan_create(&statement).err().map(|e| e.to_string());
        assert!(error.as_ref().is_some_and(|e| e.contains(reason)), "{query}: {error:?}");
    }
    let fine = [
        "SELECT _id, g FROM t ORDER BY g, _id LIMIT 3",
        "SELECT g AS _id, array_agg(n ORDER BY n) AS all_n FROM t GROUP BY g",
        "SELECT _id, row_number() OVER (ORDER BY g, _id) AS place FROM t",
        "SELECT _id, rank() OVER (PARTITION BY g ORDER BY n) AS place FROM t",
    ];
    for query in fine {
        let statement = statement(&Shape { name: "p", key: &["_id"], query }, &[], false);
        rig.projections.plan_create(&statement).unwrap_or_else(|e| panic!("{query}: {e}"));
    }
}

#[test]
fn explain_says_what_is_found_by_index_and_what_is_read_whole() {
    let tables = presence();
    let mut rig = Rig::new(&tables, ProjectionOptions::default());
    rig.create_with(&AS_OF, &[("tenant_column", "none")], false);
    let _entered = rig.entered();
    let named = ExplainProjection::Named { name: "report".to_owned(), position: 1 };
    let text = rig.projections.explain(&named).unwrap();
    assert!(text.contains("as of one instant"), "{text}");
    assert!(text.contains("finds the right by key"), "{text}");
    assert!(text.contains("finds the left by an index on (who, at)"), "{text}");
    let grouping = ExplainProjection::Query {
        key: vec!["department".to_owned()],
        query: "SELECT department, count(*) AS n FROM employee GROUP BY ROLLUP (department)"
            .to_owned(),
        query_position: 1,
    };
    let text = rig.projections.explain(&grouping).unwrap();
    assert!(text.contains("comparing full results"), "{text}");
}

/// A key that the query does not prove, a column that is cast on its way out, and one value that does not
/// fit: each row was compared with, and cast beside, all others.
#[test]
fn a_load_takes_time_in_proportion_to_its_rows() {
    let tables = [ints(1, "t", &["_id", "n"])];
    let [t] = &tables;
    let mut rig = Rig::new(&tables, ProjectionOptions::default());
    let shape = Shape {
        name: "unproven",
        key: &["k"],
        query: "SELECT _id + 0 AS k, CAST(n AS VARCHAR) AS word, n / 3.0 AS third FROM t",
    };
    let mut timed = |first: i64, rows: i64| {
        rig.write((first..rows).map(|k| put(t, k, &[(1, k % 7)])).collect());
        rig.create_with(&shape, &[("tenant_column", "none")], first > 0);
        let started = std::time::Instant::now();
        rig.drain("unproven");
        assert_eq!(rig.sinks["unproven"].rows.len(), usize::try_from(rows).unwrap());
        started.elapsed()
    };
    let small = timed(0, 4_000);
    let large = timed(4_000, 32_000);
    let most = 20 * small + std::time::Duration::from_secs(2);
    assert!(large < most, "eight times the rows took {large:?}, after {small:?}");
}

/// What one step brings to a side of a join must be in memory together: here a tenth of it fits.
#[test]
fn what_does_not_fit_in_one_step_comes_in_several() {
    let tables = presence();
    let [presence, employee] = &tables;
    let options = ProjectionOptions { memory_bytes_max: 40_000, ..Default::default() };
    let mut rig = Rig::new(&tables, options);
    rig.create_with(&AS_OF, &[("tenant_column", "none")], false);
    let at = |n: i64| START + n * 40 * HOUR;
    rig.write((0..50).map(|n| seen(presence, &format!("p{n}"), "ann", at(n))).collect());
    rig.drain("report");
    let chunks = rig.sinks["report"].chunks;
    for n in 0..2_000 {
        rig.write(vec![moved(employee, "ann", &format!("department {n}"), START + n * HOUR)]);
    }
    rig.drain("report");
    check(&rig, "report");
    assert!(rig.sinks["report"].chunks > chunks + 1, "it took several steps");
}

#[test]
fn a_projection_whose_step_ended_two_processes_is_paused_until_it_is_resumed() {
    let tables = presence();
    let [presence, _] = &tables;
    let mut rig = Rig::new(&tables, ProjectionOptions::default());
    rig.create_with(&AS_OF, &[("tenant_column", "none")], false);
    rig.drain("report");
    // What a step that takes its time leaves behind when the process ends in it.
    let running = |rig: &Rig, ended: u32| {
        let sign = format!("{{\"running\":true,\"ended\":{ended}}}").into_bytes();
        rig.store.put_cursors(&[(b"p\0report\0a".to_vec(), Some(sign))], true).unwrap();
    };
    running(&rig, 0);
    rig.restart();
    assert_eq!(rig.projections.status()[0].state, "live", "one end may have any reason");
    rig.write(vec![seen(presence, "p0", "ann", START)]);
    rig.drain("report");
    let sign = |rig: &Rig| rig.store.cursor(b"p\0report\0a").unwrap();
    assert!(sign(&rig).is_none(), "a step that succeeds makes an end good");
    running(&rig, 1);
    rig.restart();
    let status = &rig.projections.status()[0];
    assert_eq!(status.state, "paused");
    assert!(status.error.as_ref().unwrap().contains("ALTER PROJECTION report RESUME"));
    rig.write(vec![seen(presence, "p1", "ann", START)]);
    let _entered = rig.entered();
    assert!(!rig.projections.advance("report").unwrap(), "nothing is computed while paused");
    let alter = |pause, name: &str| AlterProjection {
        name: name.to_owned(),
        if_exists: false,
        pause,
        position: 1,
    };
    rig.projections.alter(&alter(false, "report")).unwrap();
    assert_ne!(rig.projections.status()[0].state, "paused");
    rig.projections.alter(&alter(true, "report")).unwrap();
    drop(_entered);
    rig.restart();
    assert_eq!(rig.projections.status()[0].state, "paused", "a pause outlasts a restart");
    let _entered = rig.entered();
    rig.projections.alter(&alter(false, "report")).unwrap();
    assert!(rig.projections.alter(&alter(true, "no_such")).is_err());
    drop(_entered);
    rig.drain("report");
    check(&rig, "report");
}

#[test]
fn what_has_no_rule_is_compared_as_a_whole_and_stays_right() {
    let tables = [ints(1, "t", &["_id", "g", "n"])];
    let [t] = &tables;
    let mut rig = Rig::new(&tables, ProjectionOptions::default());
    let shape = Shape {
        name: "rolled",
        key: &["level", "g"],
        query: "SELECT grouping(g) AS level, coalesce(g, -1) AS g, sum(n) AS n FROM t \
                GROUP BY ROLLUP (g)",
    };
    rig.create_with(&shape, &[("tenant_column", "none")], false);
    for round in 0..4 {
        rig.write((0..3).map(|k| put(t, k, &[(1, k % 2), (2, round)])).collect());
        rig.drain("rolled");
        check(&rig, "rolled");
    }
    rig.write(vec![delete(t, 1)]);
    rig.drain("rolled");
    check(&rig, "rolled");
    assert!(rig.clock.now_micros() >= START);
}

#[test]
fn a_worker_gets_a_commit_as_a_chunk_and_the_cursor_follows_its_acknowledgement() {
    let tables = [ints(1, "t", &["_id", "g"])];
    let [t] = &tables;
    let mut rig = Rig::new(&tables, ProjectionOptions::default());
    let all = Shape { name: "p", key: &["_id"], query: "SELECT _id, g FROM t" };
    rig.create_with(&all, &[("tenant_column", "none")], false);
    let projections = rig.projections.clone();
    let wait = std::time::Duration::from_secs(4);
    rig.block_on(async {
        projections.start();
        let sinks = vec!["memory".to_owned()];
        let lease = projections.lease("w", &sinks).unwrap().remove(0);
        let load = projections.next("p", lease.lease, wait).await.unwrap().unwrap();
        assert!(load.reload_begin && load.reload_end && load.changes.is_empty());
        projections.ack("p", lease.lease, 0).unwrap();
        rig.write_async(vec![put(t, 1, &[(1, 5)])]).await;
        let chunk = projections.next("p", lease.lease, wait).await.unwrap().unwrap();
        assert_eq!((chunk.first_change, chunk.changes.len(), chunk.last), (1, 1, true));
        assert_eq!(chunk.changes[0].row_json, r#"{"_id":1,"g":5}"#);
        assert!(projections.status()[0].delivered_tx < chunk.tx, "not before it is acknowledged");
        projections.ack("p", lease.lease, 1).unwrap();
        let status = projections.status().remove(0);
        assert_eq!((status.delivered_tx, status.state.as_str()), (chunk.tx, "live"));
        projections.stop().await;
        assert!(projections.next("p", lease.lease, wait).await.unwrap().is_none());
    });
}

#[test]
fn a_column_that_a_table_gains_later_is_not_in_the_rows_of_a_star() {
    let tables = [ints(1, "t", &["_id", "g"])];
    let [t] = &tables;
    let mut rig = Rig::new(&tables, ProjectionOptions::default());
    let all = Shape { name: "p", key: &["_id"], query: "SELECT * FROM t" };
    rig.create_with(&all, &[("tenant_column", "none")], false);
    rig.write(vec![put(t, 1, &[(1, 5)])]);
    rig.drain("p");
    let wider = ints(1, "t", &["_id", "g", "n"]);
    rig.define(&wider);
    rig.write(vec![put(&wider, 2, &[(1, 6), (2, 7)])]);
    rig.drain("p");
    rig.restart();
    rig.write(vec![put(&wider, 3, &[(2, 8)])]);
    rig.drain("p");
    check(&rig, "p");
    let rows: Vec<String> = rig.sinks["p"].rows.values().map(ToString::to_string).collect();
    assert_eq!(rows, [r#"{"_id":1,"g":5}"#, r#"{"_id":2,"g":6}"#, r#"{"_id":3,"g":null}"#]);
}

/// A float sum has the same bits whether its group changed alone or was loaded with all others.
#[test]
fn float_sums_have_the_same_bits_step_by_step_and_from_a_load() {
    let columns =
        [("_id", ColumnType::Int64), ("g", ColumnType::Int64), ("x", ColumnType::Float64)];
    let tables = [table(1, "t", Precedence::Recorded, &columns)];
    let [t] = &tables;
    let mut rig = Rig::new(&tables, ProjectionOptions::default());
    let query = "SELECT g, sum(x) AS total, avg(x) AS mean FROM t GROUP BY g";
    let stepped = Shape { name: "stepped", key: &["g"], query };
    rig.create_with(&stepped, &[("tenant_column", "none")], false);
    for key in (0..40_i32).rev() {
        let fields = vec![
            (1, Value::Int(i64::from(key % 3))),
            (2, Value::Float(0.1 + f64::from(key) / 3.0)),
        ];
        let key = Value::Int(i64::from(key * 7 % 40));
        let period = (START - HOUR, None);
        rig.write(vec![assertion(&Tenant::default(), t, key, Op::Put, period, fields)]);
        rig.drain("stepped");
    }
    let loaded = Shape { name: "loaded", key: &["g"], query };
    rig.create_with(&loaded, &[("tenant_column", "none")], false);
    rig.drain("loaded");
    assert_eq!(rig.sinks["stepped"].rows.len(), 3);
    assert_eq!(rig.sinks["stepped"].rows, rig.sinks["loaded"].rows);
}
