//! The Postgres wire below any driver: what the protocol says of wrong messages and of the end.

use everwhen_tests::postgres::{Wire, sqlstate};
use everwhen_tests::process::Server;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn open(server: &Server) -> Wire {
    Wire::open(&server.postgres, "ada", None).await.unwrap()
}

async fn server(dir: &tempfile::TempDir) -> Server {
    Server::start(&dir.path().join("data"), None).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_ends_nothing_but_its_connection() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = server(&dir).await;
    let nonsense: [&[u8]; 5] = [
        b"P\0\0\0\x08s\0\0\0",
        b"B\0\0\0\x0ap\0s\0\xff\xff",
        b"Q\x7f\xff\xff\xff",
        b"\0\0\0\0\0\0\0\0",
        b"D\0\0\0\x05X",
    ];
    for bytes in nonsense {
        let mut wire = open(&server).await;
        wire.send_raw(bytes).await;
        let (kind, error) = wire.message().await.unwrap();
        assert_eq!(kind, b'E');
        assert!(["08P01", "54000"].contains(&sqlstate(&error).as_str()), "{error:?}");
        assert!(wire.message().await.is_none(), "the connection ends");
    }
    for start in [&b"\0\0\0\x08\0\x02\0\0"[..], b"\xff\xff\xff\xff", b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = TcpStream::connect(&server.postgres).await.unwrap();
        stream.write_all(start).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok();
        assert_eq!(answer.first(), Some(&b'E'), "{answer:?}");
    }
    let mut wire = open(&server).await;
    wire.send(b'Q', b"SELECT 1\0").await;
    assert_eq!(wire.until(b'Z').await.0, "TDCZ");
    server.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failure_messages_are_passed_over_until_sync() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = server(&dir).await;
    let mut wire = open(&server).await;
    wire.send(b'P', b"\0SELECT nope FROM nothing\0\0\0").await;
    wire.send(b'B', b"\0\0\0\0\0\0\0\0").await;
    wire.send(b'D', b"P\0").await;
    wire.send(b'E', b"\0\0\0\0\0").await;
    wire.send(b'S', b"").await;
    let (kinds, status) = wire.until(b'Z').await;
    assert_eq!((kinds.as_str(), status), ("12EZ", vec![b'I']));
    // A portal gives its rows in pieces; an empty statement has none.
    wire.send(b'P', b"\0SELECT * FROM generate_series(1, 5)\0\0\0").await;
    wire.send(b'B', b"\0\0\0\0\0\0\0\0").await;
    wire.send(b'E', b"\0\0\0\0\x02").await;
    wire.send(b'E', b"\0\0\0\0\x02").await;
    wire.send(b'E', b"\0\0\0\0\0").await;
    wire.send(b'S', b"").await;
    assert_eq!(wire.until(b'Z').await.0, "12DDsDDsDCZ");
    wire.send(b'Q', b"\0").await;
    assert_eq!(wire.until(b'Z').await.0, "IZ");
    wire.send(b'Q', b"SELECT 1; SELECT nope; SELECT 2\0").await;
    assert_eq!(wire.until(b'Z').await.0, "TDCEZ");
    server.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_server_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = server(&dir).await;
    let mut idle = open(&server).await;
    let mut busy = open(&server).await;
    busy.send(b'Q', b"SELECT count(*) FROM generate_series(1, 20000000)\0").await;
    server.stop().unwrap();
    let (kind, error) = idle.message().await.unwrap();
    assert_eq!((kind, sqlstate(&error).as_str()), (b'E', "57P01"));
    assert!(idle.message().await.is_none());
    assert_eq!(busy.until(b'Z').await.0, "TDCZ", "what runs is let to its end");
}
