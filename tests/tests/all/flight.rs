//! The real client of Flight SQL: Python's ADBC driver reads, writes, loads and looks around.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use everwhen_tests::process::Server;
use everwhen_tests::{cache_dir, one_at_a_time};
use tokio::process::Command;

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
