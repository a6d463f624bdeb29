//! Clients of Postgres as people have them, unmodified, against the server's Postgres wire.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use everwhen_tests::cache_dir;
use everwhen_tests::process::Server;

/// A server, and the port of its Postgres wire.
async fn server(dir: &tempfile::TempDir) -> (Server, String) {
    let server = Server::start(&dir.path().join("data"), None).await.unwrap();
    let port = server.postgres.rsplit(':').next().unwrap().to_owned();
    (server, port)
}

fn client(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(file)
}

/// Runs a client to its end, which must be a good one.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let Output { status, stdout, stderr } = output;
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(
        status.success(),
        "{command:?} ended with {status}\n{out}\n{err}\nrun scripts/setup test"
    );
    out.into_owned() + &err
}

fn python() -> PathBuf {
    cache_dir().join("clients/venv/bin/python")
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_reads_writes_and_describes() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, port) = server(&dir).await;
    let said = run(Command::new("psql")
        .args(["-X", "-h", "127.0.0.1", "-p", &port, "-U", "ada", "-d", "postgres"])
        .args(["-v", "VERBOSITY=verbose", "-f", "psql.sql"])
        // Its messages name the file as it was given.
        .current_dir(client(".")));
    let expected = std::fs::read_to_string(client("psql.out")).unwrap();
    assert_eq!(said.trim(), expected.trim(), "what psql showed:\n{said}");
    server.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn psycopg_speaks_every_type_and_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, port) = server(&dir).await;
    run(Command::new(python()).arg(client("psycopg_client.py")).env("PGPORT", port));
    server.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlalchemy_and_pandas_find_their_way() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, port) = server(&dir).await;
    run(Command::new(python()).arg(client("alchemy_client.py")).env("PGPORT", port));
    server.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn jdbc_reads_writes_and_describes() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, port) = server(&dir).await;
    run(Command::new("java")
        .args(["-cp", "/usr/share/java/postgresql.jar"])
        .arg(client("JdbcClient.java"))
        .env("PGPORT", port));
    server.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn node_postgres_reads_and_writes() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, port) = server(&dir).await;
    // Modules are looked up from where the program stands.
    let script = cache_dir().join("clients/node_client.js");
    std::fs::copy(client("node_client.js"), &script).unwrap();
    run(Command::new("node").arg(script).env("PGPORT", port));
    server.stop().unwrap();
}
