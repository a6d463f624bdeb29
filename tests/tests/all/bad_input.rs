//! Every input can be bad: each gets its own clear error or dead letter, and nothing else is lost or
//! delayed by it (F23, NF15, O22).

use std::time::Duration;

use anyhow::{Result, ensure};
use everwhen_tests::http::eventually;
use everwhen_tests::kafka::{Broker, Record};
use everwhen_tests::process::{Process, Server};
use everwhen_tests::{one_at_a_time, shared_broker};
use serde_json::{Value, json};

const STREAM: &str = "
CREATE STREAM orders FROM KAFKA (brokers = '${brokers}', topic = '${topic}')
FORMAT JSON (id TEXT, amount BIGINT, starts TIMESTAMPTZ, ends TIMESTAMPTZ);
CREATE MAPPING ordered ON orders AS PUT INTO orders
SELECT id AS _id, amount, starts AS _valid_from, ends AS _valid_to;
";

async fn server(dir: &tempfile::TempDir) -> Server {
    Server::start(&dir.path().join("data"), Some("2026-01-10T00:00:00Z")).await.unwrap()
}

fn good(id: &str) -> Record {
    Record::new(format!(r#"{{"id":"{id}","amount":1,"starts":"2026-01-01T00:00:00Z"}}"#))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_record_costs_one_dead_letter_and_nothing_else() {
    let _turn = one_at_a_time();
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let topic = format!("bad_{}", std::process::id());
    shared_broker().create_topic(&topic, 1, &[("max.message.bytes", "10000000")]).await.unwrap();
    let model =
        STREAM.replace("${brokers}", &shared_broker().bootstrap()).replace("${topic}", &topic);
    server.client.script(&model).await.unwrap();

    let huge = format!(r#"{{"id":"huge","amount":1,"pad":"{}"}}"#, "x".repeat(5_000_000));
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("broken JSON", br#"{"id":"a","amount":"#.to_vec()),
        ("not an object", b"[1,2]".to_vec()),
        ("wrong type", br#"{"id":"b","amount":"many","starts":"2026-01-01T00:00:00Z"}"#.to_vec()),
        ("no such date", br#"{"id":"c","amount":1,"starts":"2026-02-30T00:00:00Z"}"#.to_vec()),
        ("missing id", br#"{"amount":1,"starts":"2026-01-01T00:00:00Z"}"#.to_vec()),
        ("missing valid_from", br#"{"id":"d","amount":1}"#.to_vec()),
        (
            "empty period",
            br#"{"id":"e","amount":1,"starts":"2026-01-02T00:00:00Z","ends":"2026-01-02T00:00:00Z"}"#
                .to_vec(),
        ),
        ("not UTF-8", vec![0xff, 0xfe, 0x00]),
        ("5 MB", huge.into_bytes()),
    ];
    let mut records = vec![good("first")];
    for (n, (_, value)) in bad.iter().enumerate() {
        records.push(Record::new(value.clone()));
        records.push(good(&format!("between {n}")));
    }
    shared_broker().produce(&topic, &records).unwrap();
    server.client.wait_ingested("orders", i64::try_from(records.len()).unwrap()).await.unwrap();

    let count = server.client.one("SELECT count(*) FROM orders").await.unwrap();
    assert_eq!(count, json!(bad.len() + 1), "the good records are all in");
    let letters = server
        .client
        .rows(
            "SELECT \"offset\", reason, octet_length(encode(value, 'hex')) / 2 FROM everwhen.dead_letters \
             WHERE stream = 'orders' ORDER BY \"offset\"",
        )
        .await
        .unwrap();
    assert_eq!(letters.len(), bad.len(), "{letters:?}");
    for ((n, (what, _)), letter) in bad.iter().enumerate().zip(&letters) {
        assert_eq!(letter[0], json!(2 * n + 1), "{what} has its position");
        assert!(letter[1].as_str().is_some_and(|reason| reason.len() > 5), "{what}: {letter:?}");
        println!("{what}: {}", letter[1]);
    }
    assert_eq!(letters[bad.len() - 1][2], json!(65_536), "of a huge record the first 64 KiB stay");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_sql_says_what_where_and_how() {
    let _turn = one_at_a_time();
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    server.client.sql("CREATE TABLE t (_id TEXT PRIMARY KEY, n BIGINT)").await.unwrap();
    server.client.sql("INSERT INTO t (_id, n) VALUES ('a', 1)").await.unwrap();
    // (statement, SQLSTATE, 1-based position where it must be known)
    let wrong: Vec<(&str, &str, Option<u64>)> = vec![
        ("SELEC 1", "42601", Some(1)),
        ("SELECT * FROM t WHERE", "42601", None),
        ("SELECT * FROM missing", "42P01", Some(15)),
        ("SELECT wrong FROM t", "42703", Some(8)),
        ("INSERT INTO t (_id, wrong) VALUES ('b', 1)", "42703", None),
        ("INSERT INTO t (_id, n) VALUES ('b', 'many')", "42804", None),
        (
            "INSERT INTO t (_id, n, _valid_from, _valid_to) VALUES ('b', 1, TIMESTAMP '2026-01-02', TIMESTAMP '2026-01-02')",
            "22023",
            None,
        ),
        ("INSERT INTO t (n) VALUES (1)", "23502", None),
        ("SELECT * FROM t FOR VALID_TIME AS OF NULL", "22004", None),
        (
            "SELECT * FROM t FOR VALID_TIME FROM TIMESTAMP '2026-01-02' TO TIMESTAMP '2026-01-01'",
            "22023",
            None,
        ),
        (
            "SELECT * FROM t FOR VALID_TIME BETWEEN TIMESTAMP '2026-01-02' AND TIMESTAMP '2026-01-01'",
            "22023",
            None,
        ),
        ("SELECT * FROM (SELECT 1 AS x) FOR VALID_TIME AS OF now() AS d", "", None),
        (
            "WITH c AS (SELECT 1 AS x) SELECT * FROM c FOR SYSTEM_TIME AS OF TIMESTAMP '2026-01-01'",
            "",
            None,
        ),
        ("SELECT * FROM everwhen.streams FOR VALID_TIME AS OF now()", "", None),
        ("CREATE PROJECTION p KEY (nope) INTO w.p AS SELECT _id FROM t", "", None),
        ("CREATE MAPPING m ON nowhere AS PUT INTO t SELECT 1 AS _id", "", None),
    ];
    for (sql, state, position) in wrong {
        let answer = server.client.sql_error(sql).await.unwrap();
        let problem = &answer.body;
        assert!((400..500).contains(&answer.status), "{sql}: {answer:?}");
        assert!(problem["detail"].as_str().is_some_and(|d| !d.is_empty()), "{sql}: {problem}");
        if !state.is_empty() {
            assert_eq!(problem["sqlstate"], state, "{sql}: {problem}");
        }
        if position.is_some() {
            assert_eq!(problem["position"].as_u64(), position, "{sql}: {problem}");
        }
    }
    let rows = server.client.rows("SELECT _id, n FROM t").await.unwrap();
    assert_eq!(rows, vec![vec![json!("a"), json!(1)]], "nothing was disturbed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_ends_the_server() {
    let _turn = one_at_a_time();
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    for sql in [
        format!("SELECT {}1", "1 + ".repeat(900)),
        format!("SELECT {}1", "1 + ".repeat(20_000)),
        format!("SELECT 1 WHERE {}true", "true OR ".repeat(900)),
        format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000)),
        format!("{}SELECT 1 AS x{}", "SELECT * FROM (".repeat(30), ") y".repeat(30)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(300)),
        format!("SELECT {}1{}", "CASE WHEN true THEN ".repeat(60), " END".repeat(60)),
        format!("SELECT {} 1", "NOT ".repeat(120)),
    ] {
        let answer = server.client.post("/v1/sql", &json!({ "sql": sql })).await.unwrap();
        assert!(answer.status < 500, "{}: {answer:?}", &sql[..20]);
    }
    assert_eq!(server.client.one("SELECT 1").await.unwrap(), json!(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_request_body_is_refused_with_what_and_where() {
    let _turn = one_at_a_time();
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    for body in
        [json!({}), json!({ "sql": 1 }), json!({ "sql": "SELECT 1", "wrong": 1 }), json!([])]
    {
        let answer = server.client.post("/v1/sql", &body).await.unwrap();
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
    }
    let answer = server.client.get("/v1/nowhere").await.unwrap();
    assert_eq!(answer.status, 404);
    let event = json!({ "stream": "nowhere", "events": [{ "value": {} }] });
    let answer = server.client.post("/v1/events", &event).await.unwrap();
    assert!((400..500).contains(&answer.status), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_topic_and_an_absent_broker_are_waited_out_and_shown() {
    let _turn = one_at_a_time();
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let topic = format!("late_{}", std::process::id());
    let mut away = Broker::reserve().unwrap();
    let absent = STREAM
        .replace("orders", "absent")
        .replace("ordered", "absent_ordered")
        .replace("${brokers}", &away.bootstrap())
        .replace("${topic}", "absent");
    server.client.script(&absent).await.unwrap();
    let model =
        STREAM.replace("${brokers}", &shared_broker().bootstrap()).replace("${topic}", &topic);
    server.client.script(&model).await.unwrap();

    for stream in ["orders", "absent"] {
        let sql = format!("SELECT state, error FROM everwhen.streams WHERE stream = '{stream}'");
        eventually(&format!("{stream} to show why it waits"), || async {
            let rows = server.client.rows(&sql).await?;
            Ok(rows.iter().any(|row| row[1].as_str().is_some_and(|error| !error.is_empty())))
        })
        .await
        .unwrap();
        println!("{stream}: {:?}", server.client.rows(&sql).await.unwrap());
    }
    // Both come back by themselves, and queries were never in their way.
    assert_eq!(server.client.one("SELECT 1").await.unwrap(), json!(1));
    shared_broker().create_topic(&topic, 1, &[]).await.unwrap();
    shared_broker().produce(&topic, &[good("a")]).unwrap();
    server.client.wait_ingested("orders", 1).await.unwrap();
    away.boot().unwrap();
    away.create_topic("absent", 1, &[]).await.unwrap();
    away.produce("absent", &[good("a"), good("b")]).unwrap();
    server.client.wait_ingested("absent", 2).await.unwrap();
    assert_eq!(server.client.one("SELECT count(*) FROM absent").await.unwrap(), json!(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_on_the_same_directory_is_refused() {
    let _turn = one_at_a_time();
    let dir = tempfile::tempdir().unwrap();
    let mut first = server(&dir).await;
    let args: Vec<String> = [
        "serve",
        "--data",
        &first.data.display().to_string(),
        "--http-listen",
        "127.0.0.1:0",
        "--grpc-listen",
        "off",
        "--postgres-listen",
        "off",
        "--admin-listen",
        "off",
    ]
    .map(ToOwned::to_owned)
    .to_vec();
    let log = dir.path().join("second.log");
    let mut second = Process::start(&args, &log).unwrap();
    let status = second.wait(Duration::from_secs(20)).unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(second.log_text().contains("in use"), "{}", second.log_text());
    assert_eq!(first.client.one("SELECT 1").await.unwrap(), json!(1), "the first goes on");
    assert!(first.data.join("endpoints.json").is_file(), "the first keeps its endpoints");
    first.stop().unwrap();
    assert!(!first.data.join("endpoints.json").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posted_events_are_rejected_one_by_one() {
    let _turn = one_at_a_time();
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    check_posted_events(&server).await.unwrap();
}

async fn check_posted_events(server: &Server) -> Result<()> {
    server.client.sql("CREATE STREAM seen FORMAT JSON (id TEXT, n BIGINT, at TIMESTAMPTZ)").await?;
    server
        .client
        .sql("CREATE MAPPING seen_once ON seen AS PUT INTO seen SELECT id AS _id, n, at AS _valid_from")
        .await?;
    let event = |id: Value, n: Value| json!({ "value": { "id": id, "n": n, "at": "2026-01-01T00:00:00Z" } });
    let events = json!({ "stream": "seen", "events": [
        event(json!("a"), json!(1)), event(Value::Null, json!(2)), event(json!("c"), json!("x")),
        event(json!("d"), json!(4)),
    ]});
    let answer = server.client.post("/v1/events", &events).await?;
    ensure!(answer.status == 200, "{answer:?}");
    ensure!(answer.body["accepted"] == 2, "{answer:?}");
    let rejected: Vec<u64> = answer.body["rejected"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| one["index"].as_u64())
        .collect();
    ensure!(rejected == [1, 2], "{answer:?}");
    let letters = server.client.one("SELECT count(*) FROM everwhen.dead_letters").await?;
    ensure!(letters == json!(2), "{letters}");
    Ok(())
}
