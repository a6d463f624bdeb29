//! Reads of one key answer without a plan as they do with one.

use serde_json::{Value as Json, json};

use super::kit::Kit;
use crate::{Outcome, Params, Request};

async fn desks() -> Kit {
    let kit = Kit::new();
    kit.write(
        "CREATE TABLE desks (_id TEXT PRIMARY KEY, room TEXT, n INT, doc JSON, at TIMESTAMPTZ, d DECIMAL)",
    )
    .await;
    kit.write("CREATE TABLE shifts (site UUID, day INT, lead TEXT, PRIMARY KEY (site, day))").await;
    for (day, room) in [("2025-01-01", "A"), ("2025-03-01", "B"), ("2025-02-01", "C")] {
        kit.clock_forward();
        let sql = format!(
            "INSERT INTO desks (_id, room, n, doc, at, d, _valid_from) VALUES \
             ('d1', '{room}', 7, '{{\"a\": 1}}', '{day}', 1.5, '{day}'), \
             ('d2', '{room}', NULL, NULL, NULL, NULL, '{day}')"
        );
        kit.write(&sql).await;
    }
    let site = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    kit.write(&format!("INSERT INTO shifts VALUES ('{site}', 1, 'Ada'), ('{site}', -2, 'Bob')"))
        .await;
    kit
}

/// What a request answers: its columns and rows, or its error.
async fn said(kit: &Kit, request: Request) -> Json {
    match kit.run(request.clone()).await {
        Ok(Outcome::Rows(rows)) => {
            let kinds: Vec<_> = rows.columns.iter().map(|(n, k)| format!("{n} {k}")).collect();
            json!([kinds, kit.rows_of(request).await])
        }
        Ok(_) => panic!("no query"),
        Err(error) => json!([error.sqlstate(), error.to_string()]),
    }
}

#[tokio::test]
async fn with_a_plan_and_without_the_answers_are_equal() {
    let kit = desks().await;
    let site = "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11";
    for sql in [
        "SELECT * FROM desks WHERE _id = 'd1'".to_owned(),
        "SELECT * FROM desks d WHERE 'd2' = d._id".to_owned(),
        "SELECT *, _tx FROM desks WHERE _id = 'd1'".to_owned(),
        "SELECT room, n AS \"N\", desks.doc, at, d FROM desks WHERE (_id = 'd1')".to_owned(),
        "SELECT _valid_from, _valid_to, _system_from, _system_to, _tx, _valid_time, _system_time \
         FROM desks WHERE _id = 'd1'"
            .to_owned(),
        "SELECT room, _valid_from FROM desks FOR ALL VALID_TIME WHERE _id = 'd1'".to_owned(),
        "SELECT * FROM desks FOR ALL VALID_TIME FOR ALL SYSTEM_TIME WHERE _id = 'd1'".to_owned(),
        "SELECT room, _valid_from, _valid_to FROM desks FOR VALID_TIME ONLY FROM '2025-01-15' \
         TO '2025-02-15' WHERE _id = 'd1'"
            .to_owned(),
        "SELECT room FROM desks FOR VALID_TIME AS OF '2025-02-15' WHERE _id = 'd1'".to_owned(),
        "SELECT room FROM desks FOR VALID_TIME AS OF DATE '2025-02-15' + INTERVAL '1 day' WHERE _id = 'd1'"
            .to_owned(),
        "SELECT room FROM desks FOR SYSTEM_TIME AS OF '2026-01-01T00:02:30Z' WHERE _id = 'd2'"
            .to_owned(),
        "SETTING DEFAULT VALID_TIME AS OF '2025-01-02' SELECT room FROM desks WHERE _id = 'd1'"
            .to_owned(),
        "SELECT room FROM desks FOR ALL VALID_TIME WHERE _id = 'd1' LIMIT 2".to_owned(),
        "SELECT room FROM desks WHERE _id = 'd1' LIMIT 0".to_owned(),
        "SELECT room FROM desks WHERE _id = 'nobody'".to_owned(),
        "SELECT room FROM desks WHERE _id = ''".to_owned(),
        format!("SELECT * FROM shifts WHERE site = '{site}' AND day = 1"),
        format!("SELECT lead FROM shifts WHERE day = -2 AND site = '{site}'::uuid"),
        format!("SELECT lead FROM shifts WHERE site = '{site}'"),
        // Not of one key, or no names alone.
        "SELECT room FROM desks WHERE _id = 'd1' AND room = 'B'".to_owned(),
        "SELECT room FROM desks WHERE _id = 'd1' AND _id = 'd2'".to_owned(),
        "SELECT room FROM desks WHERE _id = 'd1' OR _id = 'd2' ORDER BY 1".to_owned(),
        "SELECT DISTINCT room FROM desks FOR ALL VALID_TIME WHERE _id = 'd1' ORDER BY 1".to_owned(),
        "SELECT count(*) FROM desks WHERE _id = 'd1'".to_owned(),
        "SELECT room FROM desks WHERE _id = 'd1' GROUP BY room".to_owned(),
        "SELECT room FROM desks FOR ALL VALID_TIME WHERE _id = 'd1' LIMIT 1 OFFSET 1".to_owned(),
        "SELECT room FROM desks FOR ALL VALID_TIME WHERE _id = 'd1' ORDER BY room".to_owned(),
        "SELECT x.a FROM desks AS x (a) WHERE x.a = 'd1'".to_owned(),
        "SELECT * EXCLUDE (doc) FROM desks WHERE _id = 'd1'".to_owned(),
        // Errors.
        "SELECT nope FROM desks WHERE _id = 'd1'".to_owned(),
        "SELECT other.room FROM desks WHERE _id = 'd1'".to_owned(),
        "SELECT room FROM desks WHERE nope = 'd1'".to_owned(),
        "SELECT room FROM nowhere WHERE _id = 'd1'".to_owned(),
        "SELECT room, room FROM desks WHERE _id = 'd1'".to_owned(),
        "SELECT room FROM desks WHERE _id = NULL".to_owned(),
        "SELECT room FROM desks FOR VALID_TIME AS OF 'soon' WHERE _id = 'd1'".to_owned(),
        "SELECT room FROM desks FOR VALID_TIME AS OF NULL WHERE _id = 'd1'".to_owned(),
        "SELECT lead FROM shifts WHERE site = 'rubbish' AND day = 1".to_owned(),
        format!("SELECT lead FROM shifts WHERE site = '{site}' AND day = 1.5"),
        format!("SELECT lead FROM shifts WHERE site = '{site}' AND day = '1'"),
        "SELECT tx FROM everwhen.transactions WHERE tx = 1".to_owned(),
    ] {
        let planned = Request { limit: Some(1_000), ..Request::new(sql.as_str()) };
        let planned = said(&kit, planned).await;
        assert_eq!(said(&kit, Request::new(sql.as_str())).await, planned, "{sql}");
    }
}

#[tokio::test]
async fn what_a_request_asks_for_holds() {
    let kit = desks().await;
    let before = kit.answer(Request::new("SELECT 1")).await.basis;
    let sql = "SELECT room FROM desks WHERE _id = $1";
    let mut request = Request::new(sql);
    request.params = Params::Positional(vec![json!("d1")]);
    assert_eq!(kit.rows_of(request.clone()).await, json!([["C"]]));
    request.valid_time = Some(everwhen_storage::ValidTime::parse("2025-01-15").unwrap());
    assert_eq!(kit.rows_of(request.clone()).await, json!([["A"]]));
    kit.write("UPDATE desks SET room = 'Z' WHERE _id = 'd1'").await;
    let now = kit.answer(Request::new("SELECT room FROM desks WHERE _id = 'd1'")).await;
    assert_ne!(now.basis, before);
    let then = Request {
        basis: Some(before.clone()),
        ..Request::new("SELECT room FROM desks WHERE _id = 'd1'")
    };
    let answer = kit.answer(then.clone()).await;
    assert_eq!(answer.basis, before);
    assert_eq!(kit.rows_of(then).await, json!([["C"]]));
    let other = Request {
        tenant: everwhen_storage::Tenant::new("nobody").unwrap(),
        ..Request::new("SELECT room FROM desks WHERE _id = 'd1'")
    };
    assert_eq!(kit.run(other).await.err().unwrap().sqlstate(), "3D000");
}
