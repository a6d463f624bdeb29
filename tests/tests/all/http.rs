//! The HTTP interface beyond plain statements: forms of answers, compression, pages, running
//! statements, and the description held against what is served.

use std::io::Read as _;
use std::time::{Duration, Instant};

use everwhen_tests::http::eventually;
use everwhen_tests::one_at_a_time;
use everwhen_tests::process::Server;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

const MANY: &str = "SELECT n, 'text ' || n AS t FROM (SELECT unnest(range(0, 200000)) AS n) x";
/// Runs for minutes.
const ENDLESS: &str = "SELECT count(*) FROM (SELECT unnest(range(0, 300000)) AS a) x, \
                       (SELECT unnest(range(0, 300000)) AS b) y WHERE a * b = -1";

async fn server(dir: &tempfile::TempDir) -> Server {
    Server::start(&dir.path().join("data"), Some("2026-01-10T00:00:00Z")).await.unwrap()
}

fn request(server: &Server, method: Method, path: &str) -> RequestBuilder {
    reqwest::Client::new().request(method, format!("{}{path}", server.http))
}

fn sql(server: &Server, body: &Value) -> RequestBuilder {
    request(server, Method::POST, "/v1/sql").json(body)
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_come_as_parquet_and_compressed() {
    let _turn = one_at_a_time();
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let asked = sql(&server, &json!({"sql": MANY}));
    let answer =
        asked.header("accept", "application/vnd.apache.parquet").header("accept-encoding", "gzip");
    let answer = answer.send().await.unwrap();
    assert_eq!(header(&answer, "content-type"), "application/vnd.apache.parquet");
    assert_eq!(header(&answer, "content-encoding"), "", "Parquet is compressed within");
    assert!(!header(&answer, "everwhen-basis").is_empty());
    let file = ParquetRecordBatchReaderBuilder::try_new(answer.bytes().await.unwrap()).unwrap();
    assert!(file.metadata().num_row_groups() > 1, "it came in pieces");
    let rows: usize = file.build().unwrap().map(|batch| batch.unwrap().num_rows()).sum();
    assert_eq!(rows, 200_000);

    let ndjson = |coding: &'static str| {
        let asked = sql(&server, &json!({"sql": format!("{MANY} ORDER BY n")}));
        asked.header("accept", "application/x-ndjson").header("accept-encoding", coding).send()
    };
    let plain = ndjson("identity").await.unwrap();
    assert_eq!(header(&plain, "vary"), "accept-encoding");
    let plain = plain.bytes().await.unwrap();
    for coding in ["gzip", "zstd"] {
        let answer = ndjson(coding).await.unwrap();
        assert_eq!(header(&answer, "content-encoding"), coding);
        let bytes = answer.bytes().await.unwrap();
        assert!(bytes.len() * 4 < plain.len(), "{coding}: {} of {}", bytes.len(), plain.len());
        let mut read = Vec::new();
        match coding {
            "gzip" => flate2::read::GzDecoder::new(&*bytes).read_to_end(&mut read).unwrap(),
            _ => zstd::stream::read::Decoder::new(&*bytes).unwrap().read_to_end(&mut read).unwrap(),
        };
        assert!(read == plain, "{coding} reads back");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_bodies_are_taken_and_bounded() {
    let _turn = one_at_a_time();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server =
        Server::start_with_env(&data, None, &[], &[("EVERWHEN_BODY_BYTES_MAX", "1048576")])
            .await
            .unwrap();
    let post = |body: &str, coding: &'static str| {
        let bytes = zstd::stream::encode_all(body.as_bytes(), 1).unwrap();
        let asked = request(&server, Method::POST, "/v1/sql").body(bytes);
        asked.header("content-type", "application/json").header("content-encoding", coding).send()
    };
    let answer = post(r#"{"sql": "SELECT 1"}"#, "zstd").await.unwrap();
    let document: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(document["rows"], json!([[1]]));
    let bomb = format!(r#"{{"sql": "SELECT '{}'"}}"#, "x".repeat(20 << 20));
    assert_eq!(post(&bomb, "zstd").await.unwrap().status(), 413);
    assert_eq!(post("{}", "br").await.unwrap().status(), 415);
    assert_eq!(post("{}", "gzip").await.unwrap().status(), 400, "it is no gzip");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_at_one_basis_make_up_the_whole() {
    let _turn = one_at_a_time();
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    server.client.sql("CREATE TABLE t (_id BIGINT PRIMARY KEY, k BIGINT)").await.unwrap();
    let insert =
        "INSERT INTO t (_id, k) SELECT n, n % 3 FROM (SELECT unnest(range(0, 1000)) AS n) x";
    server.client.sql(insert).await.unwrap();
    // Ties, no order at all, an order by what is not selected, a limit.
    for (text, rows) in [
        ("SELECT _id, k FROM t ORDER BY k", 1000_usize),
        ("SELECT _id, k FROM t", 1000),
        ("SELECT k FROM t ORDER BY _id % 7", 1000),
        ("SELECT _id FROM t ORDER BY k DESC LIMIT 450", 450),
        ("SELECT k, count(*) AS n FROM t GROUP BY k", 3),
        ("SELECT _id FROM t WHERE _id < 0", 0),
    ] {
        let mut all: Vec<Value> = Vec::new();
        let mut body = json!({"sql": text, "page_size": 100});
        let mut pages = 0;
        loop {
            let answer = sql(&server, &body).send().await.unwrap();
            let told = header(&answer, "everwhen-next").to_owned();
            let document: Value = answer.json().await.unwrap();
            let page = document["rows"].as_array().unwrap_or_else(|| panic!("{document}"));
            assert!(page.len() <= 100);
            all.extend(page.iter().cloned());
            pages += 1;
            // What is written meanwhile is of another basis.
            let write = format!("INSERT INTO t (_id, k) VALUES ({}, 0)", 100_000 + pages);
            server.client.sql(&write).await.unwrap();
            let Some(next) = document["next"].as_str() else { break };
            assert_eq!(told, next);
            body["page"] = json!(next);
        }
        assert_eq!((all.len(), pages), (rows, rows.div_ceil(100).max(1)), "{text}");
        if text.contains("_id") && !text.contains("_id % 7") {
            let distinct: std::collections::BTreeSet<String> =
                all.iter().map(|row| row[0].to_string()).collect();
            assert_eq!(distinct.len(), rows, "{text}: no row twice");
        }
        server.client.sql("DELETE FROM t WHERE _id >= 100000").await.unwrap();
    }
    let answer = sql(&server, &json!({"sql": "SELECT 1", "page": "x"})).send().await.unwrap();
    assert_eq!(answer.status(), 400);
    let write = json!({"sql": "INSERT INTO t (_id) VALUES (1)", "page_size": 5});
    assert_eq!(sql(&server, &write).send().await.unwrap().status(), 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_statement_is_listed_and_cancelled() {
    let _turn = one_at_a_time();
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    server.client.sql("CREATE TABLE t (_id TEXT PRIMARY KEY)").await.unwrap();
    let other = json!({"sql": "INSERT INTO t (_id) VALUES ('x')", "tenant": "other"});
    assert_eq!(server.client.post("/v1/sql", &other).await.unwrap().status, 200);
    let client = server.client.clone();
    let running =
        tokio::spawn(
            async move { client.post("/v1/sql", &json!({"sql": ENDLESS})).await.unwrap() },
        );
    let listed = || async {
        let answer = server.client.get("/v1/queries").await.unwrap();
        answer.body["queries"].as_array().cloned().unwrap_or_default()
    };
    eventually("the statement to be listed", || async { Ok(listed().await.len() == 1) })
        .await
        .unwrap();
    let one = listed().await.remove(0);
    assert_eq!(one["sql"], ENDLESS);
    assert_eq!(one["tenant"], "default");
    let seen = server.client.rows("SELECT sql FROM everwhen.queries ORDER BY started").await;
    assert_eq!(seen.unwrap()[0][0], ENDLESS);
    let elsewhere = server.client.get("/v1/queries?tenant=other").await.unwrap();
    assert_eq!(elsewhere.body["queries"], json!([]));

    let id = one["id"].as_str().unwrap();
    let delete = |path: String| request(&server, Method::DELETE, &path).send();
    let path = format!("/v1/queries/{id}");
    assert_eq!(delete(format!("{path}?tenant=other")).await.unwrap().status(), 404);
    assert_eq!(delete(path.clone()).await.unwrap().status(), 200);
    let answer = running.await.unwrap();
    assert_eq!(answer.body["sqlstate"], "57014");
    assert!(answer.body["detail"].as_str().unwrap().contains("cancelled"));
    assert_eq!(delete(path).await.unwrap().status(), 404);
    assert!(listed().await.is_empty());
}

/// Returns the processor time that the server has used, in ticks of 10 ms.
fn ticks(server: &Server) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_ends_its_statement_within_200_ms() {
    let _turn = one_at_a_time();
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    for (text, accept) in [
        (ENDLESS, "application/json"),
        // Rows under way.
        (
            "SELECT a, b FROM (SELECT unnest(range(0, 100000)) AS a) x, \
          (SELECT unnest(range(0, 100000)) AS b) y",
            "application/x-ndjson",
        ),
    ] {
        let asked = sql(&server, &json!({"sql": text})).header("accept", accept);
        let mut sending = tokio::spawn(async move {
            let mut answer = asked.send().await.unwrap();
            while answer.chunk().await.unwrap().is_some() {}
        });
        let before = ticks(&server);
        eventually("the statement to run", || async { Ok(ticks(&server) > before + 20) })
            .await
            .unwrap();
        assert!(!sending.is_finished());
        sending.abort();
        let _ = (&mut sending).await;
        let gone = Instant::now();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (then, from) = (ticks(&server), gone.elapsed());
        tokio::time::sleep(Duration::from_millis(500)).await;
        let used = ticks(&server) - then;
        println!("{accept}: {used} ticks of 10 ms in the 500 ms from {from:?} on");
        assert!(used <= 10, "{accept}: the work goes on: {used} ticks");
        let answer = server.client.get("/v1/queries").await.unwrap();
        assert_eq!(answer.body["queries"], json!([]), "{accept}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plans_and_tables_are_told() {
    let _turn = one_at_a_time();
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    server.client.sql("CREATE TABLE t (_id TEXT PRIMARY KEY, n BIGINT NOT NULL)").await.unwrap();
    let explain = |text: &str| {
        let body = json!({ "sql": text });
        let client = server.client.clone();
        async move { client.post("/v1/sql/explain", &body).await.unwrap() }
    };
    let plan = explain("SELECT n FROM t WHERE _id = 'a'").await;
    assert_eq!(plan.status, 200, "{}", plan.body);
    let parts: Vec<&str> =
        plan.body["plan"].as_array().unwrap().iter().filter_map(|p| p["part"].as_str()).collect();
    assert_eq!(parts, ["logical_plan", "physical_plan"]);
    let wrong = explain("SELECT m FROM t").await;
    assert_eq!(
        (wrong.body["sqlstate"].as_str(), wrong.body["position"].as_u64()),
        (Some("42703"), Some(8))
    );
    let tables = server.client.get("/v1/tables").await.unwrap();
    let expected = json!([{
        "name": "t", "precedence": "recorded", "declared": true, "key": ["_id"],
        "columns": [
            {"name": "_id", "type": "text", "nullable": false},
            {"name": "n", "type": "int64", "nullable": false},
        ],
    }]);
    assert_eq!(tables.body["tables"], expected);
}

/// Every operation described is served, and no method that is not described.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_description_is_what_is_served() {
    let _turn = one_at_a_time();
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let document = server.client.get("/openapi.json").await.unwrap().body;
    assert_eq!(document["openapi"], "3.1.0");
    let mut operations = 0;
    for (path, described) in document["paths"].as_object().unwrap() {
        let at = path.replace("{table}", "t").replace("{id}", "x");
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let name = method.as_str().to_lowercase();
            let answer = request(&server, method, &at).body("{}").send().await.unwrap();
            let status = answer.status().as_u16();
            let text = answer.text().await.unwrap();
            if described.get(&name).is_some() {
                operations += 1;
                assert!(status != 405 && !text.contains("there is nothing at"), "{name} {path}");
            } else {
                assert_eq!(status, 405, "{name} {path} is not described: {text}");
            }
        }
    }
    assert!(operations >= 18, "{operations}");
    let page = request(&server, Method::GET, "/docs").send().await.unwrap();
    assert!(header(&page, "content-type").starts_with("text/html"));
    assert!(header(&page, "content-security-policy").contains("default-src 'none'"));
}
