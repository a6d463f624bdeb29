//! The SQLite sink: the suite, the forms of values, tables that were there before.

use everwhen_proto::v1::{Chunk, Lease, RowChange, SinkColumn};

use super::*;
use crate::deliver::suite;

#[tokio::test]
async fn passes_the_suite() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/warehouse.db");
    let sink = SqliteSink::open("warehouse", &path).unwrap();
    suite::check(&sink, "suite").await.unwrap();
    suite::check_beside_others(&sink, &User(path), "beside").await.unwrap();
}

/// Somebody who opens the file with SQLite itself.
struct User(PathBuf);

impl User {
    fn execute(&self, sql: &str, values: &[&dyn ToSql]) -> Result<()> {
        let done = Connection::open(&self.0).and_then(|file| file.execute(sql, values));
        done.map(drop).map_err(|error| Fault::from(error).into_error("user"))
    }
}

#[async_trait]
impl suite::Outsider for User {
    async fn make_table(&self, target: &Target) -> Result<()> {
        let metadata = if target.metadata { ", _generation, _tx, _change" } else { "" };
        let columns: Vec<String> = target.columns.iter().map(|c| c.name.clone()).collect();
        let sql = format!("CREATE TABLE {} ({}{metadata})", target.table, columns.join(", "));
        self.execute(&sql, &[])
    }

    async fn insert(&self, target: &Target, row: Vec<Cell>) -> Result<()> {
        let columns: Vec<String> = target.columns.iter().map(|c| c.name.clone()).collect();
        let values: Vec<&dyn ToSql> = row.iter().map(|cell| cell as &dyn ToSql).collect();
        let places = vec!["?"; columns.len()].join(", ");
        let table = &target.table;
        let columns = columns.join(", ");
        self.execute(&format!("INSERT INTO {table} ({columns}) VALUES ({places})"), &values)
    }
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
    assert!(error.to_string().contains("lacks the columns flag, at, ratio"), "{error}");
}

#[tokio::test]
async fn a_wider_query_keeps_the_index_and_the_column_that_somebody_added() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("warehouse.db");
    let sink = SqliteSink::open("warehouse", &path).unwrap();
    let narrow = Lease { columns: lease(true).columns[..2].to_vec(), ..lease(true) };
    sink.prepare(&Target::from_lease(&narrow).unwrap()).await.unwrap();
    let user = Connection::open(&path).unwrap();
    user.execute_batch("CREATE INDEX mine ON t (flag); ALTER TABLE t ADD COLUMN note TEXT")
        .unwrap();
    let wide = Lease { lease: 2, generation: 2, ..lease(true) };
    let wide = Target::from_lease(&wide).unwrap();
    sink.prepare(&wide).await.unwrap();
    let names = "SELECT group_concat(name) FROM pragma_table_info('t')";
    let found: String = user.query_row(names, [], |row| row.get(0)).unwrap();
    assert_eq!(found, "id,flag,_generation,_tx,_change,note,at,ratio");
    let index = "SELECT count(*) FROM sqlite_master WHERE name = 'mine'";
    assert_eq!(user.query_row(index, [], |row| row.get::<_, i64>(0)).unwrap(), 1);
    sink.prepare(&wide).await.unwrap();
}

#[tokio::test]
async fn a_table_that_somebody_made_in_place_of_ours_is_not_altered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("warehouse.db");
    let sink = SqliteSink::open("warehouse", &path).unwrap();
    sink.prepare(&Target::from_lease(&lease(false)).unwrap()).await.unwrap();
    let user = Connection::open(&path).unwrap();
    user.execute_batch("DROP TABLE t; CREATE TABLE t (id TEXT, flag INTEGER)").unwrap();
    let error = sink.prepare(&Target::from_lease(&lease(false)).unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("lacks the columns at, ratio"), "{error}");
}

#[tokio::test]
async fn a_dropped_table_frees_its_name_for_another_projection() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("warehouse.db");
    let sink = SqliteSink::open("warehouse", &path).unwrap();
    sink.prepare(&Target::from_lease(&lease(true)).unwrap()).await.unwrap();
    let other = Lease { projection: "q".into(), table: "T".into(), ..lease(true) };
    let other = Target::from_lease(&other).unwrap();
    let error = sink.prepare(&other).await.unwrap_err();
    assert!(error.to_string().contains("belongs to projection \"p\""), "{error}");
    Connection::open(&path).unwrap().execute("DROP TABLE t", []).unwrap();
    sink.prepare(&other).await.unwrap();
}

#[tokio::test]
async fn a_projection_that_comes_back_to_a_table_finds_its_rows_there() {
    for metadata in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("warehouse.db");
        let sink = SqliteSink::open("warehouse", &path).unwrap();
        let at = |table: &str, lease: Lease| {
            Target::from_lease(&Lease { table: table.into(), ..lease }).unwrap()
        };
        let first = at("t", lease(metadata));
        sink.prepare(&first).await.unwrap();
        sink.write(&first, &step(&first, r#"{"id": "old"}"#)).await.unwrap();
        sink.prepare(&at("u", Lease { lease: 2, generation: 2, ..lease(metadata) })).await.unwrap();
        let back = at("t", Lease { lease: 3, generation: 3, ..lease(metadata) });
        sink.prepare(&back).await.unwrap();
        let mut reload = step(&back, r#"{"id": "new"}"#);
        (reload.generation, reload.reload_begin, reload.reload_end) = (3, true, true);
        sink.write(&back, &reload).await.unwrap();
        let rows = sink.rows(&back).await.unwrap();
        assert_eq!(rows.len(), 1, "{rows:?}");
        let other = Lease { projection: "q".into(), ..lease(metadata) };
        assert!(sink.prepare(&at("u", other)).await.is_err(), "the other table is still its own");
    }
}

#[tokio::test]
async fn rows_stay_known_when_metadata_is_turned_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("warehouse.db");
    let sink = SqliteSink::open("warehouse", &path).unwrap();
    let off = Target::from_lease(&lease(false)).unwrap();
    sink.prepare(&off).await.unwrap();
    sink.write(&off, &step(&off, r#"{"id": "old"}"#)).await.unwrap();
    let user = Connection::open(&path).unwrap();
    user.execute("INSERT INTO t (id) VALUES ('theirs')", []).unwrap();
    let on = Target::from_lease(&Lease { lease: 2, generation: 2, ..lease(true) }).unwrap();
    sink.prepare(&on).await.unwrap();
    let mut reload = step(&on, r#"{"id": "new"}"#);
    (reload.generation, reload.reload_begin, reload.reload_end) = (2, true, true);
    sink.write(&on, &reload).await.unwrap();
    let ids = "SELECT group_concat(id) FROM (SELECT id FROM t ORDER BY id)";
    let found: String = user.query_row(ids, [], |row| row.get(0)).unwrap();
    assert_eq!(found, "new,theirs");
}

#[tokio::test]
async fn rows_that_a_constraint_refuses_are_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("warehouse.db");
    let user = Connection::open(&path).unwrap();
    user.execute_batch(
        "CREATE TABLE t (id TEXT PRIMARY KEY, flag INTEGER, at TEXT NOT NULL,
         ratio REAL UNIQUE CHECK (ratio > 0))",
    )
    .unwrap();
    let sink = SqliteSink::open("warehouse", &path).unwrap();
    let target = Target::from_lease(&lease(false)).unwrap();
    sink.prepare(&target).await.unwrap();
    let row = |id: &str, ratio: f64| {
        let at = "2026-11-21T08:00:00Z";
        let row_json = serde_json::json!({"id": id, "at": at, "ratio": ratio}).to_string();
        RowChange { row_json, delete: false }
    };
    let no_at = RowChange { row_json: r#"{"id": "c", "ratio": 3.0}"#.into(), delete: false };
    let changes = vec![row("a", 1.0), row("b", -1.0), no_at, row("d", 4.0)];
    let chunk = Chunk { generation: 1, tx: 7, first_change: 1, changes, ..Chunk::default() };
    let mut step = Step::from_chunk(&target, chunk).unwrap();
    let refused = sink.write(&target, &step).await;
    let Err(Error::Rows { rows, .. }) = refused else { panic!("{refused:?}") };
    let changes: Vec<u64> = rows.iter().map(|row| row.change).collect();
    assert_eq!(changes, [2, 3]);
    assert!(rows[0].reason.contains("CHECK constraint failed"), "{rows:?}");
    assert!(rows[1].reason.contains("NOT NULL constraint failed: t.at"), "{rows:?}");
    assert!(sink.rows(&target).await.unwrap().is_empty(), "nothing before it is reported");
    step.refused.extend(changes);
    sink.write(&target, &step).await.unwrap();
    assert_eq!(sink.rows(&target).await.unwrap().len(), 2);
    // Two rows that swap a unique value: the first is accepted once the second has given way.
    let swap = vec![row("a", 4.0), row("d", 5.0)];
    let chunk = Chunk { generation: 1, tx: 8, first_change: 5, changes: swap, ..Chunk::default() };
    sink.write(&target, &Step::from_chunk(&target, chunk).unwrap()).await.unwrap();
    assert_eq!(sink.prepare(&target).await.unwrap().change, 6);
}

#[tokio::test]
async fn a_locked_file_is_no_refusal_of_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("warehouse.db");
    let sink = SqliteSink::open("warehouse", &path).unwrap();
    let target = Target::from_lease(&lease(true)).unwrap();
    sink.prepare(&target).await.unwrap();
    let user = Connection::open(&path).unwrap();
    user.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = sink.write(&target, &step(&target, r#"{"id": "a"}"#)).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_file_of_an_older_version_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("warehouse.db");
    let user = Connection::open(&path).unwrap();
    user.execute_batch(
        r#"CREATE TABLE everwhen_control (projection TEXT PRIMARY KEY, sink_table TEXT NOT NULL,
             incarnation TEXT NOT NULL, generation INTEGER NOT NULL, lease INTEGER NOT NULL,
             change INTEGER NOT NULL, reloading INTEGER NOT NULL);
           INSERT INTO everwhen_control VALUES ('p', 't', 'i', 1, 1, 2, 0);
           CREATE TABLE "t" ("id" TEXT, "flag" INTEGER, PRIMARY KEY ("id"));
           INSERT INTO t VALUES ('old', 1), ('a', 1);
           CREATE TABLE "everwhen_seen_t" ("id" TEXT);"#,
    )
    .unwrap();
    let sink = SqliteSink::open("warehouse", &path).unwrap();
    let target = Target::from_lease(&Lease { generation: 2, ..lease(false) }).unwrap();
    assert_eq!(sink.prepare(&target).await.unwrap().change, 2);
    let chunk = Chunk {
        generation: 2,
        tx: 9,
        first_change: 1,
        changes: vec![RowChange { row_json: r#"{"id": "a"}"#.into(), delete: false }],
        reload_begin: true,
        reload_end: true,
        ..Chunk::default()
    };
    sink.write(&target, &Step::from_chunk(&target, chunk).unwrap()).await.unwrap();
    assert_eq!(sink.rows(&target).await.unwrap().len(), 1, "the row that is gone was ours");
}
