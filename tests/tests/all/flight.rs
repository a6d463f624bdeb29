//! Flight SQL: Python's ADBC driver reads, writes, loads and looks around; what it does not ask for
//! is asked by the Rust client.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow_flight::sql::EndTransaction;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{
    Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightClient, FlightInfo,
};
use everwhen_tests::http::eventually;
use everwhen_tests::process::Server;
use everwhen_tests::{cache_dir, one_at_a_time};
use futures::TryStreamExt as _;
use serde_json::json;
use tokio::process::Command;
use tonic::transport::{Channel, Endpoint};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_adbc_driver_reads_writes_and_loads() {
    let _turn = one_at_a_time();
    let dir = tempfile::tempdir().unwrap();
    let server =
        Server::start(&dir.path().join("data"), Some("2026-01-10T00:00:00Z")).await.unwrap();
    let python = cache_dir().join("flight/bin/python");
    assert!(python.is_file(), "no client at {}: run scripts/setup test", python.display());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("flight/client.py");
    let running = Command::new(python)
        .arg(script)
        .arg(&server.grpc)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let said = tokio::time::timeout(Duration::from_secs(120), running).await.unwrap().unwrap();
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    println!("{out}");
    assert!(said.status.success(), "{out}\n{err}");
}

type Client = FlightSqlServiceClient<Channel>;

async fn start(dir: &tempfile::TempDir) -> (Server, Channel) {
    let server =
        Server::start(&dir.path().join("data"), Some("2026-01-10T00:00:00Z")).await.unwrap();
    let channel = Endpoint::from_shared(server.grpc.clone()).unwrap().connect().await.unwrap();
    (server, channel)
}

async fn read(client: &mut Client, info: &FlightInfo) -> anyhow::Result<Vec<RecordBatch>> {
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    Ok(client.do_get(ticket).await?.try_collect().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_of_a_transaction_are_done_together_or_not_at_all() {
    let _turn = one_at_a_time();
    let dir = tempfile::tempdir().unwrap();
    let (server, channel) = start(&dir).await;
    let mut client = Client::new(channel);
    server.client.sql("CREATE TABLE t (_id TEXT PRIMARY KEY, n BIGINT)").await.unwrap();
    let insert = |id: &str| format!("INSERT INTO t (_id, n) VALUES ('{id}', 1)");

    let open = client.begin_transaction().await.unwrap();
    assert_eq!(client.execute_update(insert("a"), Some(open.clone())).await.unwrap(), -1);
    let mut prepared = client.prepare(insert("b"), Some(open.clone())).await.unwrap();
    prepared.execute_update().await.unwrap();
    let update = "UPDATE t SET n = n + 1".to_owned();
    client.execute_update(update, Some(open.clone())).await.unwrap();
    assert_eq!(server.client.one("SELECT count(*) FROM t").await.unwrap(), json!(0));
    let refused = client.execute("SELECT 1".to_owned(), Some(open.clone())).await;
    assert!(refused.unwrap_err().to_string().contains("updates alone"));
    client.end_transaction(open.clone(), EndTransaction::Commit).await.unwrap();
    let sum = "SELECT sum(n), count(DISTINCT _tx) FROM t";
    assert_eq!(server.client.rows(sum).await.unwrap(), [[json!(4), json!(1)]]);
    assert!(client.end_transaction(open, EndTransaction::Commit).await.is_err(), "it has ended");

    for (end, failing) in [(EndTransaction::Rollback, false), (EndTransaction::Commit, true)] {
        let open = client.begin_transaction().await.unwrap();
        client.execute_update(insert("c"), Some(open.clone())).await.unwrap();
        if failing {
            let zero = "UPDATE t SET n = 1 / (n - 2)".to_owned();
            client.execute_update(zero, Some(open.clone())).await.unwrap();
        }
        assert_eq!(client.end_transaction(open, end).await.is_err(), failing);
        assert_eq!(server.client.one("SELECT count(*) FROM t").await.unwrap(), json!(2));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_reads_the_same_again_and_a_flight_is_cancelled() {
    let _turn = one_at_a_time();
    let dir = tempfile::tempdir().unwrap();
    let (server, channel) = start(&dir).await;
    let mut client = Client::new(channel.clone());
    server.client.sql("CREATE TABLE t (_id BIGINT PRIMARY KEY)").await.unwrap();
    server.client.sql("INSERT INTO t (_id) VALUES (1), (2)").await.unwrap();
    let info = client.execute("SELECT _id FROM t ORDER BY _id".to_owned(), None).await.unwrap();
    assert!(!info.app_metadata.is_empty(), "it tells the basis");
    let first = read(&mut client, &info).await.unwrap();
    server.client.sql("INSERT INTO t (_id) VALUES (3)").await.unwrap();
    assert_eq!(read(&mut client, &info).await.unwrap(), first, "again at the same basis");

    let endless = "SELECT count(*) FROM (SELECT unnest(range(0, 300000)) AS a) x, \
                   (SELECT unnest(range(0, 300000)) AS b) y WHERE a * b = -1";
    let info = client.execute(endless.to_owned(), None).await.unwrap();
    let listed = || async {
        let answer = server.client.get("/v1/queries").await?;
        Ok(answer.body["queries"].as_array().is_some_and(|list| !list.is_empty()))
    };
    assert!(listed().await.is_ok_and(|listed| listed), "it runs");
    let mut plain = FlightClient::new(channel);
    let cancelled = plain.cancel_flight_info(CancelFlightInfoRequest::new(info.clone())).await;
    assert_eq!(
        cancelled.unwrap(),
        CancelFlightInfoResult { status: CancelStatus::Cancelled.into() }
    );
    eventually("the statement to end", || async { listed().await.map(|listed| !listed) })
        .await
        .unwrap();
    assert!(read(&mut client, &info).await.is_err(), "its ticket is gone");
    assert!(plain.do_action(Action::new("Nonsense", "")).await.is_err());
}
