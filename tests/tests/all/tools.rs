//! What DBeaver, Grafana and Metabase ask when they connect and browse (`clients/tools.sql`), by the
//! simple protocol: each statement answers without an error, and the essential ones what is there.

use std::path::Path;

use everwhen_tests::postgres::{Table, Wire};
use everwhen_tests::process::Server;

/// Returns the statements: who asks for what, and the text.
fn statements() -> Vec<(String, String)> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/tools.sql");
    let text = std::fs::read_to_string(file).unwrap();
    let blocks = text.split("\n\n").filter(|block| block.contains(';'));
    let one = |block: &str| {
        let (head, sql) = block.split_once('\n').unwrap();
        (head.trim_start_matches("-- ").to_owned(), sql.trim().to_owned())
    };
    blocks.filter(|block| !block.starts_with("-- What")).map(one).collect()
}

async fn rows(wire: &mut Wire, sql: &str) -> Result<Vec<Vec<Option<String>>>, String> {
    let (answer, _) = wire.query(sql).await;
    let tables = answer.map_err(|refusal| format!("{} {}", refusal.state, refusal.message))?;
    Ok(tables.into_iter().next_back().map_or(Vec::new(), |Table { rows, .. }| rows))
}

fn has(rows: &[Vec<Option<String>>], text: &str) -> bool {
    rows.iter().flatten().any(|cell| cell.as_deref() == Some(text))
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_connect_and_browse() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("data"), None).await.unwrap();
    let mut wire = Wire::open(&server.postgres, "ada", Some("tools")).await.unwrap();
    let columns = "_id TEXT PRIMARY KEY, name TEXT NOT NULL, length FLOAT, at TIMESTAMPTZ";
    for sql in [
        format!("CREATE TABLE boats ({columns})"),
        "INSERT INTO boats (_id, name, length, at) VALUES ('b1', 'Ada', 7.5, '2026-03-01')".into(),
        "CREATE VIEW long_boats AS SELECT name FROM boats WHERE length > 7".into(),
    ] {
        rows(&mut wire, &sql).await.unwrap();
    }
    let number =
        "SELECT c.oid, c.relnamespace FROM pg_catalog.pg_class c WHERE c.relname = 'boats'";
    let number = rows(&mut wire, number).await.unwrap().remove(0);
    let [boats, public] = [0, 1].map(|at| number[at].clone().unwrap());

    let (mut asked, mut failed) = (0, Vec::new());
    let found = [
        ("dbeaver: database", "tools"),
        ("dbeaver: databases", "tools"),
        ("dbeaver: schemas", "public"),
        ("dbeaver: tables", "boats"),
        ("dbeaver: columns", "length"),
        ("dbeaver: constraints", "boats"),
        ("grafana: schemas", "public"),
        ("grafana: tables", "boats"),
        ("grafana: tables by search path", "boats"),
        ("grafana: columns", "timestamp with time zone"),
        ("grafana: a panel", "7.5"),
        ("metabase: schemas", "public"),
        ("metabase: tables", "boats"),
        ("metabase: fields", "timestamptz"),
        ("metabase: privileges", "boats"),
        ("metabase: a question", "7.5"),
        ("metabase: a sample", "Ada"),
    ];
    for (name, sql) in statements() {
        asked += 1;
        let sql = sql.replace("{boats}", &boats).replace("{public}", &public);
        let expected = found.iter().find(|(of, _)| *of == name).map(|(_, text)| *text);
        match rows(&mut wire, &sql).await {
            Err(error) => failed.push(format!("{name}: {error}")),
            Ok(rows) if expected.is_some_and(|text| !has(&rows, text)) => {
                failed.push(format!("{name}: {rows:?}"));
            }
            Ok(_) => {}
        }
    }
    println!("{asked} statements, {} failed", failed.len());
    assert!(asked > 40 && failed.is_empty(), "{}", failed.join("\n"));
    server.stop().unwrap();
}
