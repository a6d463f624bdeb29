//! The SQLite sink: the suite, the forms of values, tables that were there before.

use everwhen_proto::v1::{Chunk, Lease, RowChange, SinkColumn};

use super::*;

#[tokio::test]
async fn passes_the_suite() {
    let folder = tempfile::tempdir().unwrap();
    let sink = SqliteSink::open("warehouse", &folder.path().join("new/warehouse.db")).unwrap();
    crate::deliver::suite::check(&sink, "suite").await.unwrap();
}

fn lease(metadata: bool) -> Lease {
    let column = |name: &str, kind: &str| SinkColumn {
        name: name.into(),
        r#type: kind.into(),
        nullable: true,
    };
    Lease {
        projection: "p".into(),
        lease: 1,
        generation: 1,
        table: "t".into(),
        columns: vec![
            column("id", "text"),
            column("flag", "bool"),
            column("at", "timestamptz"),
            column("ratio", "float64"),
        ],
        key: vec!["id".into()],
        metadata,
        incarnation: "i".into(),
        ..Lease::default()
    }
}

fn step(target: &Target, row: &str) -> Step {
    let change = RowChange { row_json: row.into(), delete: false };
    let chunk =
        Chunk { generation: 1, tx: 7, first_change: 1, changes: vec![change], ..Chunk::default() };
    Step::from_chunk(target, chunk).unwrap()
}

#[tokio::test]
async fn values_have_the_forms_of_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("warehouse.db");
    let sink = SqliteSink::open("warehouse", &path).unwrap();
    let target = Target::from_lease(&lease(true)).unwrap();
    sink.prepare(&target).await.unwrap();
    let row = r#"{"id": "a", "flag": true, "at": "2026-11-21T08:00:00Z", "ratio": "NaN"}"#;
    sink.write(&target, &step(&target, row)).await.unwrap();
    let reader = Connection::open(&path).unwrap();
    let sql = "SELECT typeof(flag), flag, at, ratio, _generation, _tx, _change FROM t";
    let found: (String, i64, String, String, i64, i64, i64) = reader
        .query_row(sql, [], |row| {
            Ok((
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
                row.get(5)?,
                row.get(6)?,
            ))
        })
        .unwrap();
    let at = "2026-11-21T08:00:00.000000Z";
    assert_eq!(found, ("integer".into(), 1, at.into(), "NaN".into(), 1, 7, 1));
}

#[tokio::test]
async fn a_table_of_somebody_else_keeps_its_other_columns() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("warehouse.db");
    let mine = Connection::open(&path).unwrap();
    mine.execute_batch(
        "CREATE TABLE t (id TEXT, flag INTEGER, at TEXT, ratio REAL, note TEXT DEFAULT 'mine');
         INSERT INTO t (id) VALUES ('a');",
    )
    .unwrap();
    let sink = SqliteSink::open("warehouse", &path).unwrap();
    let target = Target::from_lease(&lease(false)).unwrap();
    sink.prepare(&target).await.unwrap();
    sink.write(&target, &step(&target, r#"{"id": "a", "ratio": 2.5}"#)).await.unwrap();
    let sql = "SELECT ratio, note FROM t";
    let found: (f64, String) =
        mine.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(found, (2.5, "mine".into()));
}

#[tokio::test]
async fn a_table_that_does_not_fit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("warehouse.db");
    Connection::open(&path).unwrap().execute("CREATE TABLE t (id TEXT)", []).unwrap();
    let sink = SqliteSink::open("warehouse", &path).unwrap();
    let target = Target::from_lease(&lease(true)).unwrap();
    let error = sink.prepare(&target).await.unwrap_err();
    assert!(error.to_string().contains("has not the columns"), "{error}");
}
