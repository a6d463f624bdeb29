//! ALTER TABLE: what is stored stays readable, answers at past bases stay what they were.

use everwhen_storage::{Batch, Definition, DefinitionChange, DefinitionKind, TxId};
use serde_json::{Value as Json, json};

use super::kit::Kit;
use super::random::Random;
use crate::Request;

async fn with_table(kit: &Kit) {
    kit.write("CREATE TABLE t (_id TEXT PRIMARY KEY, n INT, d DATE, s TEXT NOT NULL)").await;
    kit.write("INSERT INTO t (_id, n, d, s) VALUES ('a', 1, DATE '2026-01-02', 'x')").await;
}

#[tokio::test]
async fn an_added_column_is_null_in_older_rows() {
    let kit = Kit::new();
    with_table(&kit).await;
    kit.alter("ALTER TABLE t ADD COLUMN extra BIGINT").await.unwrap();
    kit.write("INSERT INTO t (_id, s, extra) VALUES ('b', 'y', 7)").await;
    let rows = kit.rows("SELECT _id, extra FROM t ORDER BY _id").await;
    assert_eq!(rows, json!([["a", null], ["b", 7]]));
    kit.alter("ALTER TABLE t ADD IF NOT EXISTS extra TEXT").await.unwrap();
    assert_eq!(kit.rows("SELECT extra + 1 FROM t WHERE _id = 'b'").await, json!([[8]]));
}

#[tokio::test]
async fn a_dropped_column_is_gone_and_does_not_come_back_under_its_name() {
    let kit = Kit::new();
    with_table(&kit).await;
    let before = kit.answer(Request::new("SELECT n FROM t")).await.basis;
    kit.alter("ALTER TABLE t DROP COLUMN n").await.unwrap();
    assert_eq!(kit.error("SELECT n FROM t").await.sqlstate(), "42703");
    assert_eq!(
        kit.error("INSERT INTO t (_id, n, s) VALUES ('b', 1, 'x')").await.sqlstate(),
        "42703"
    );
    assert_eq!(kit.rows("SELECT * FROM t").await, json!([["a", "2026-01-02", "x"]]));
    kit.alter("ALTER TABLE t ADD COLUMN n TEXT").await.unwrap();
    assert_eq!(kit.rows("SELECT n FROM t").await, json!([[null]]));
    let then = Request { basis: Some(before), ..Request::new("SELECT * FROM t") };
    assert_eq!(kit.rows_of(then).await, json!([["a", 1, "2026-01-02", "x"]]));
    kit.alter("ALTER TABLE t DROP IF EXISTS nothing").await.unwrap();
}

#[tokio::test]
async fn a_dropped_columns_id_is_not_reused_by_undeclared_tables_either() {
    let kit = Kit::new();
    kit.write("INSERT INTO u (_id, a, b) VALUES ('x', 1, 2)").await;
    kit.alter("ALTER TABLE u DROP COLUMN b").await.unwrap();
    kit.write("INSERT INTO u (_id, c) VALUES ('y', 3)").await;
    let rows = kit.rows("SELECT * FROM u ORDER BY _id").await;
    assert_eq!(rows, json!([["x", 1, null], ["y", null, 3]]));
}

#[tokio::test]
async fn a_renamed_column_keeps_its_values() {
    let kit = Kit::new();
    with_table(&kit).await;
    kit.alter("ALTER TABLE t RENAME COLUMN n TO number").await.unwrap();
    kit.write("UPDATE t SET number = number + 1").await;
    assert_eq!(kit.rows("SELECT number FROM t").await, json!([[2]]));
    assert_eq!(kit.error("SELECT n FROM t").await.sqlstate(), "42703");
}

#[tokio::test]
async fn stored_values_are_read_as_the_wider_type() {
    let kit = Kit::new();
    with_table(&kit).await;
    kit.alter("ALTER TABLE t ALTER COLUMN n TYPE DOUBLE PRECISION").await.unwrap();
    kit.alter("ALTER TABLE t ALTER d SET DATA TYPE TIMESTAMPTZ").await.unwrap();
    kit.write("INSERT INTO t (_id, n, d, s) VALUES ('b', 1.5, '2026-01-02T10:00:00Z', 'y')").await;
    let rows = kit.rows("SELECT n * 2, d FROM t ORDER BY _id").await;
    assert_eq!(rows, json!([[2.0, "2026-01-02T00:00:00Z"], [3.0, "2026-01-02T10:00:00Z"]]));
    assert_eq!(kit.rows("SELECT _id FROM t WHERE n = 1").await, json!([["a"]]));
    kit.alter("ALTER TABLE t ALTER COLUMN s TYPE JSON").await.unwrap();
    assert_eq!(kit.rows("SELECT s FROM t ORDER BY _id").await, json!([["x"], ["y"]]));
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_the_reason() {
    let kit = Kit::new();
    with_table(&kit).await;
    kit.alter("ALTER TABLE t ADD w INT").await.unwrap();
    kit.alter("ALTER TABLE t ALTER w TYPE FLOAT").await.unwrap();
    for (sql, state, says) in [
        ("ALTER TABLE missing ADD x INT", "42P01", "missing"),
        ("ALTER TABLE t DROP missing", "42703", "missing"),
        ("ALTER TABLE t ADD n INT", "42701", "exists already"),
        ("ALTER TABLE t ADD _x INT", "42P16", "_x"),
        ("ALTER TABLE t RENAME n TO s", "42701", "exists already"),
        ("ALTER TABLE t RENAME n TO _n", "42P16", "underscore"),
        ("ALTER TABLE t DROP _id", "42P16", "key column"),
        ("ALTER TABLE t ALTER _id TYPE JSON", "42P16", "key column"),
        ("ALTER TABLE t ALTER _id DROP NOT NULL", "42P16", "key column"),
        ("ALTER TABLE t ALTER s TYPE INT", "42846", "is text, which is no int64"),
        ("ALTER TABLE t ALTER w TYPE TEXT", "42846", "was int64 before"),
    ] {
        let error = kit.alter(sql).await.expect_err(sql);
        assert_eq!(error.sqlstate(), state, "{sql}: {error}");
        assert!(error.to_string().contains(says), "{sql}: {error}");
        assert!(error.position().is_some(), "{sql}: {error}");
    }
    for (sql, state) in [
        ("ALTER TABLE t RENAME TO u", "0A000"),
        ("ALTER TABLE t ADD CONSTRAINT c CHECK (n > 1)", "0A000"),
        ("ALTER TABLE t ADD a INT, ADD b INT", "0A000"),
        ("ALTER TABLE t ALTER n TYPE TEXT USING n::text", "0A000"),
        ("ALTER INDEX i", "0A000"),
        ("ALTER TABLE t ALTER n", "42601"),
        ("ALTER TABLE t", "42601"),
        ("ALTER TABLE t ADD x INT; INSERT INTO t (_id, s) VALUES ('q', 'q')", "0A000"),
    ] {
        assert_eq!(kit.error(sql).await.sqlstate(), state, "{sql}");
    }
    kit.alter("ALTER TABLE IF EXISTS missing ADD x INT").await.unwrap();
}

#[tokio::test]
async fn not_null_holds_for_the_rows_written_from_then_on() {
    let kit = Kit::new();
    with_table(&kit).await;
    kit.write("INSERT INTO t (_id, s) VALUES ('b', 'x')").await;
    kit.alter("ALTER TABLE t ALTER n SET NOT NULL").await.unwrap();
    assert_eq!(kit.error("INSERT INTO t (_id, s) VALUES ('c', 'x')").await.sqlstate(), "23502");
    assert_eq!(kit.rows("SELECT n FROM t WHERE _id = 'b'").await, json!([[null]]));
    kit.alter("ALTER TABLE t ALTER n DROP NOT NULL").await.unwrap();
    kit.write("INSERT INTO t (_id, s) VALUES ('c', 'x')").await;
    kit.alter("ALTER TABLE t ADD must TEXT NOT NULL").await.unwrap();
    assert_eq!(kit.error("INSERT INTO t (_id, s) VALUES ('d', 'x')").await.sqlstate(), "23502");
}

/// Puts a definition in place as its owner would.
async fn define(kit: &Kit, kind: DefinitionKind, name: &str, body: Json) {
    let definition = Definition { kind, name: name.to_owned(), body, tx: TxId::ZERO };
    let definitions = vec![DefinitionChange::Put(definition)];
    kit.store.write(Batch { definitions, ..Batch::default() }).await.unwrap();
}

#[tokio::test]
async fn what_projections_and_mappings_rest_on_stays() {
    let kit = Kit::new();
    with_table(&kit).await;
    kit.alter("ALTER TABLE t ADD free INT").await.unwrap();
    let query = json!({"query": "SELECT _id, x FROM (SELECT _id, n AS x, d FROM t) AS t2"});
    define(&kit, DefinitionKind::Projection, "p", query).await;
    let stream = json!({"columns": [{"name": "s"}, {"name": "free"}]});
    define(&kit, DefinitionKind::Stream, "st", stream).await;
    let select = "SELECT _key AS _id, *";
    let mapping = json!({"stream": "st", "table": "t", "verb": "put", "select": select});
    define(&kit, DefinitionKind::Mapping, "m", mapping).await;
    for (sql, says) in [
        ("ALTER TABLE t DROP n", "read by projection \"p\""),
        ("ALTER TABLE t ALTER n TYPE FLOAT", "read by projection \"p\""),
        ("ALTER TABLE t DROP s", "written by mapping \"m\""),
        ("ALTER TABLE t RENAME s TO t", "written by mapping \"m\""),
        ("ALTER TABLE t ALTER s TYPE JSON", "written by mapping \"m\""),
        ("ALTER TABLE t ALTER n SET NOT NULL", "mapping \"m\" does not compute"),
        ("ALTER TABLE t ADD must INT NOT NULL", "mapping \"m\" does not compute"),
    ] {
        let error = kit.alter(sql).await.expect_err(sql);
        assert_eq!(error.sqlstate(), "2BP01", "{sql}: {error}");
        assert!(error.to_string().contains(says) && error.hint().is_some(), "{sql}: {error}");
    }
    assert_eq!(kit.error("DROP TABLE t").await.sqlstate(), "2BP01");
    // A projection goes on under the names it was made with; what it does not read is free, and a
    // mapping's numbers fit into the wider type as they are.
    for sql in [
        "ALTER TABLE t RENAME n TO number",
        "ALTER TABLE t ALTER free TYPE FLOAT",
        "ALTER TABLE t DROP d",
        "ALTER TABLE t ALTER s SET NOT NULL",
    ] {
        kit.alter(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    kit.write("CREATE TABLE other (_id TEXT PRIMARY KEY)").await;
    kit.write("DROP TABLE other").await;
}

/// What a column of the random histories holds, in the order in which its types widen.
#[derive(Debug, Clone)]
struct Column {
    name: String,
    kind: &'static str,
    /// What each row holds, as it reads now.
    values: Vec<Json>,
}

/// Returns a value of a type as SQL and as it reads.
fn value(kind: &str, n: usize) -> (String, Json) {
    match kind {
        "INT" => (n.to_string(), json!(n)),
        "FLOAT" => (format!("{n}.5"), json!(f64::from(u32::try_from(n).unwrap()) + 0.5)),
        "BOOL" => (n.is_multiple_of(2).to_string(), json!(n.is_multiple_of(2))),
        "DATE" => {
            (format!("DATE '2026-01-0{}'", n % 9 + 1), json!(format!("2026-01-0{}", n % 9 + 1)))
        }
        "TIMESTAMPTZ" => {
            let text = format!("2026-02-0{}T01:02:03Z", n % 9 + 1);
            (format!("TIMESTAMP '{text}'"), json!(text))
        }
        "TEXT" => (format!("'t{n}'"), json!(format!("t{n}"))),
        _ => (format!("'{{\"n\":{n}}}'"), json!({"n": n})),
    }
}

/// Returns how a value that was there before reads under a wider type.
fn widened(value: &Json, kind: &str) -> Json {
    match (value, kind) {
        (Json::Null, _) => Json::Null,
        (Json::Number(n), "FLOAT") => json!(n.as_f64()),
        (Json::String(text), "TIMESTAMPTZ") => json!(format!("{text}T00:00:00Z")),
        (Json::String(_), _) | (_, "JSON") => value.clone(),
        (value, _) => json!(value.to_string()),
    }
}

#[tokio::test]
async fn answers_at_every_past_basis_stay_as_they_were() {
    for seed in 0..6 {
        history(seed).await;
    }
}

/// A table under random changes and what it must show.
struct Table {
    kit: Kit,
    random: Random,
    columns: Vec<Column>,
    rows: usize,
}

impl Table {
    async fn new(seed: u64) -> Self {
        let kit = Kit::new();
        let precedence = if seed.is_multiple_of(2) { "recorded" } else { "effective" };
        let options = format!("WITH (precedence = '{precedence}')");
        kit.write(&format!("CREATE TABLE t (_id INT PRIMARY KEY) {options}")).await;
        Self { kit, random: Random(seed), columns: Vec::new(), rows: 0 }
    }

    async fn alter(&self, change: &str) {
        self.kit.alter(&format!("ALTER TABLE t {change}")).await.unwrap();
    }

    async fn step(&mut self, step: usize) {
        let what = self.random.place(10);
        let at = self.random.place(self.columns.len().max(1));
        match what {
            _ if self.columns.is_empty() => self.add(step).await,
            0 => self.add(step).await,
            1 => {
                let gone = self.columns.remove(at);
                self.alter(&format!("DROP {}", gone.name)).await;
            }
            2 => {
                let name = format!("r{step}");
                self.alter(&format!("RENAME {} TO {name}", self.columns[at].name)).await;
                self.columns[at].name = name;
            }
            3 | 4 => self.widen(at).await,
            5 | 6 if self.rows > 0 => {
                let row = self.random.place(self.rows);
                let (sql, shown) = value(self.columns[at].kind, step);
                let name = &self.columns[at].name;
                self.kit.write(&format!("UPDATE t SET {name} = {sql} WHERE _id = {row}")).await;
                self.columns[at].values[row] = shown;
            }
            _ => self.insert(step).await,
        }
    }

    async fn add(&mut self, step: usize) {
        let kind = ["INT", "BOOL", "DATE", "TEXT", "JSON"][self.random.place(5)];
        let name = format!("c{step}");
        self.alter(&format!("ADD {name} {kind}")).await;
        self.columns.push(Column { name, kind, values: vec![Json::Null; self.rows] });
    }

    async fn widen(&mut self, at: usize) {
        let wider: &[&str] = match self.columns[at].kind {
            "INT" => &["FLOAT", "TEXT", "JSON"],
            "BOOL" => &["TEXT", "JSON"],
            "DATE" => &["TIMESTAMPTZ"],
            _ => return,
        };
        let kind = wider[self.random.place(wider.len())];
        self.alter(&format!("ALTER {} TYPE {kind}", self.columns[at].name)).await;
        self.columns[at].values.iter_mut().for_each(|value| *value = widened(value, kind));
        self.columns[at].kind = kind;
    }

    async fn insert(&mut self, step: usize) {
        let mut names = vec!["_id".to_owned()];
        let mut values = vec![self.rows.to_string()];
        for column in &mut self.columns {
            let (sql, shown) = value(column.kind, step);
            names.push(column.name.clone());
            values.push(sql);
            column.values.push(shown);
        }
        let (names, values) = (names.join(", "), values.join(", "));
        self.kit.write(&format!("INSERT INTO t ({names}) VALUES ({values})")).await;
        self.rows += 1;
    }

    /// Returns the names of the columns and all rows, as they must be now.
    fn expected(&self) -> (Vec<String>, Json) {
        let id = std::iter::once("_id".to_owned());
        let names = id.chain(self.columns.iter().map(|column| column.name.clone())).collect();
        let row = |row: usize| {
            let id = std::iter::once(json!(row));
            let values = self.columns.iter().map(|column| column.values[row].clone());
            id.chain(values).collect::<Json>()
        };
        (names, (0..self.rows).map(row).collect())
    }
}

async fn history(seed: u64) {
    let mut table = Table::new(seed).await;
    let mut answers: Vec<(String, Json)> = Vec::new();
    for step in 0..40 {
        table.step(step).await;
        let answer = table.kit.answer(Request::new("SELECT * FROM t ORDER BY _id")).await;
        let basis = answer.basis.clone();
        let names: Vec<_> = answer.columns.iter().map(|(name, _)| name.clone()).collect();
        let found = super::kit::collect(answer).await.unwrap();
        assert_eq!((names, &found), (table.expected().0, &table.expected().1), "{seed}: {step}");
        answers.push((basis, found));
        table.kit.clock_forward();
    }
    for (step, (basis, then)) in answers.iter().enumerate() {
        let request =
            Request { basis: Some(basis.clone()), ..Request::new("SELECT * FROM t ORDER BY _id") };
        assert_eq!(table.kit.rows_of(request).await, *then, "seed {seed}, basis of step {step}");
    }
}
