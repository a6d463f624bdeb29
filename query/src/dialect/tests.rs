//! Statements and what they are read as, right and wrong ones.

use everwhen_storage::{ColumnType, DefinitionKind, Precedence};

use super::*;
use crate::statements::*;

fn one(sql: &str) -> ParsedStatement {
    let mut statements = parse(sql, &ParseLimits::default())
        .unwrap_or_else(|error| panic!("{sql}: {error} at {:?}", error.position()));
    assert_eq!(statements.len(), 1, "{sql}");
    statements.remove(0)
}

fn define(sql: &str) -> DefinitionStatement {
    match one(sql) {
        ParsedStatement::Define(define) => define,
        other => panic!("{sql}: {other:?}"),
    }
}

fn create_table(sql: &str) -> CreateTable {
    match one(sql) {
        ParsedStatement::CreateTable(table) => table,
        other => panic!("{sql}: {other:?}"),
    }
}

#[track_caller]
fn fails(sql: &str, sqlstate: &str, place: &str) {
    let error = parse(sql, &ParseLimits::default()).expect_err(sql);
    assert_eq!(error.sqlstate(), sqlstate, "{sql}: {error}");
    let expected = match place {
        "" => Some(sql.chars().count() + 1),
        place => sql.find(place).map(|byte| sql[..byte].chars().count() + 1),
    };
    assert_eq!(error.position(), expected, "{sql}: {error}");
}

#[test]
fn statements_are_parted_by_semicolons_and_empty_ones_left_out() {
    let sql = ";; SELECT 1 ; -- a comment; with one\n BEGIN; COMMIT;";
    let statements = parse(sql, &ParseLimits::default()).unwrap();
    assert!(matches!(
        statements.as_slice(),
        [
            ParsedStatement::Query(_),
            ParsedStatement::Begin { read_only: None, .. },
            ParsedStatement::Commit
        ]
    ));
    assert!(parse("  /* nothing */ ", &ParseLimits::default()).unwrap().is_empty());
}

#[test]
fn syntax_errors_say_where_in_the_whole_text() {
    fails("SELECT 1;\nSELEC 2", "42601", "SELEC 2");
    fails("SELECT 1 FROM", "42601", "");
    fails("SELECT 'ünterminated", "42601", "'ün");
    fails("SELECT (1", "42601", "");
    fails("SELECT 1 2", "42601", "2");
    fails("MERGE INTO t USING s ON true", "0A000", "MERGE");
    fails("SETTING DEFAULT TIME ALL SELECT 1", "42601", "TIME");
    fails("ERASE FROM t WHERE x = 1 RETURNING x", "0A000", "ERASE");
    fails("ERASE FROM t FOR PORTION OF VALID_TIME FROM '2026-01-01' WHERE x = 1", "42601", "t FOR");
    fails("ERASE t WHERE x = 1", "42601", "t");
    fails("CREATE ROLE r", "0A000", "ROLE");
    fails("DROP ROLE r", "0A000", "ROLE");
    fails("SHOW nonsense", "42704", "nonsense");
    fails("BEGIN READ WRITE WITH (SNAPSHOT_TOKEN = 'x')", "42601", "WITH");
    fails("BEGIN WITH (CLOCK_TIME = '2026-01-05', SYSTEM_TIME = '2026-01-05')", "42601", "WITH");
    fails("BEGIN WITH (SYSTEM_TIME = 'soon')", "22008", "'soon");
    fails("BEGIN WITH (COLOUR = 'red')", "42704", "COLOUR");
    fails("BEGIN ISOLATION LEVEL nonsense", "42601", "nonsense");
}

#[test]
fn limits_hold_before_anything_is_parsed() {
    let limits = ParseLimits { bytes_max: 100, tokens_max: 20, nesting_max: 5, chain_max: 6 };
    let state = |sql: &str| parse(sql, &limits).map_err(|error| error.sqlstate()).err();
    assert_eq!(state(&format!("SELECT '{}'", "x".repeat(100))), Some("54000"));
    assert_eq!(state(&"SELECT 1;".repeat(8)), Some("54000"));
    assert_eq!(state("SELECT ((((((1))))))"), Some("54001"));
    assert_eq!(state("SELECT 1+1+1+1+1+1+1+1"), Some("54001"));
    assert_eq!(state("SELECT 1 OR 1 OR 1 OR 1 OR 1 OR 1 OR 1 OR 1"), Some("54001"));
    assert_eq!(state("SELECT 1+1+1, 1+1+1, 1+1+1"), None);
    let roomy = ParseLimits { bytes_max: 1_000, tokens_max: 500, nesting_max: 5, chain_max: 6 };
    for relation in ["EQUALS", "contains", "STRICTLY LEADS"] {
        let state = |times| {
            let sql = format!("SELECT a{}", format!(" {relation} a").repeat(times));
            parse(&sql, &roomy).map_err(|error| error.sqlstate()).err()
        };
        assert_eq!((state(7), state(1)), (Some("54001"), None), "{relation}");
    }
}

#[test]
fn hostile_texts_neither_hang_nor_end_the_process() {
    for sql in [
        "(".repeat(100_000),
        "SELECT ".repeat(50_000),
        format!("SELECT {}", "-".to_owned() + &"- ".repeat(60_000) + "1"),
        format!("SELECT 1{}", "::int".repeat(60_000)),
        format!("SELECT x{}", "[1]".repeat(60_000)),
        format!("SELECT {}1", "NOT ".repeat(60_000)),
        format!("SELECT 1{}", " UNION SELECT 1, 2".repeat(30_000)),
        format!("SELECT 1 FROM t{}", " JOIN t ON true".repeat(30_000)),
        format!("SELECT {}1{}", "CASE WHEN ".repeat(20_000), " THEN 1 END".repeat(20_000)),
        format!("SELECT 1 FROM t{}", " FOR ALL VALID_TIME".repeat(30_000)),
        "FOR VALID_TIME AS OF ".repeat(10_000),
        format!("CREATE TABLE t (a int{})", "[]".repeat(90_000)),
        format!("CREATE TABLE t (a {}int", "list<".repeat(90_000)),
        "\u{0}\u{feff}𝕊ELECT".to_owned(),
    ] {
        let _either = parse(&sql, &ParseLimits::default());
    }
}

#[test]
fn a_table_declares_columns_key_and_precedence() {
    let table = create_table(
        "CREATE TABLE IF NOT EXISTS Desks (Site TEXT, no BIGINT NOT NULL, \"Label\" varchar, \
         price decimal(10, 2), tags text[], at list<struct<a: int, b: list<date>>>, \
         seen timestamp with time zone, PRIMARY KEY (site, no)) WITH (precedence = 'effective')",
    );
    assert_eq!(table.name, "desks");
    assert!(table.if_not_exists);
    assert_eq!(table.key, ["site", "no"]);
    assert_eq!(table.precedence, Precedence::Effective);
    let shown: Vec<_> = table
        .columns
        .iter()
        .map(|c| format!("{} {}{}", c.name, c.kind, if c.not_null { "!" } else { "" }))
        .collect();
    assert_eq!(
        shown,
        [
            "site text!",
            "no int64!",
            "Label text",
            "price decimal(38,9)",
            "tags list<text>",
            "at list<struct<a: int64, b: list<date>>>",
            "seen timestamptz",
        ]
    );
}

#[test]
fn a_table_without_a_key_has_the_text_column_id() {
    let table = create_table("CREATE TABLE t (a int)");
    assert_eq!(table.key, ["_id"]);
    assert_eq!(table.columns[0].kind, ColumnType::Text);
    assert!(table.columns[0].not_null);
    let table = create_table("CREATE TABLE t (a int, _id bigint)");
    assert_eq!(table.columns.len(), 2);
    assert!(table.columns[1].not_null);
    assert_eq!(create_table("CREATE TABLE t (a int PRIMARY KEY)").key, ["a"]);
}

#[test]
fn wrong_tables_say_where() {
    fails("CREATE TABLE t (a int, a text)", "42701", "a text");
    fails("CREATE TABLE t (a int, PRIMARY KEY (b))", "42703", "b))");
    fails("CREATE TABLE t (a int PRIMARY KEY, PRIMARY KEY (a))", "42P16", "PRIMARY KEY (a)");
    fails("CREATE TABLE t (a float PRIMARY KEY)", "42P16", "a float");
    fails("CREATE TABLE t (a nope)", "42704", "nope");
    fails("CREATE TABLE t (a decimal(40, 2))", "22023", "decimal");
    fails("CREATE TABLE t (a timestamp without time zone)", "0A000", "timestamp");
    fails("CREATE TABLE t (a int DEFAULT 1)", "0A000", "DEFAULT");
    fails("CREATE TABLE t (_valid_from timestamptz)", "42P16", "_valid_from");
    fails("CREATE TABLE t (a int) WITH (precedence = 'x')", "22023", "precedence");
    fails("CREATE TABLE t (a int) WITH (colour = 'x')", "42704", "colour");
    fails("CREATE TABLE t (a int", "42601", "");
    fails("CREATE TABLE t", "42601", "");
    fails("CREATE OR REPLACE TABLE t (a int)", "0A000", "OR REPLACE");
    fails("CREATE TABLE everwhen.t (a int)", "0A000", "everwhen");
}

#[test]
fn a_stream_has_a_source_a_format_and_columns() {
    let sql = "CREATE STREAM presence FROM KAFKA (brokers = 'localhost:9092', topic = 'presence', \
               'security.protocol' = 'ssl', fetch.min.bytes = 10) \
               FORMAT JSON (id TEXT NOT NULL, at TIMESTAMPTZ)";
    let DefinitionStatement::CreateStream(stream) = define(sql) else { panic!() };
    assert_eq!(stream.name, "presence");
    assert_eq!(stream.sql, sql);
    let kafka = stream.kafka.unwrap();
    assert_eq!((kafka.brokers.as_str(), kafka.topic.as_str()), ("localhost:9092", "presence"));
    let options: Vec<_> = kafka.options.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(options, ["fetch.min.bytes=10", "security.protocol=ssl"]);
    let columns = stream.columns.unwrap();
    assert!(columns[0].not_null && !columns[1].not_null);

    let DefinitionStatement::CreateStream(stream) = define("CREATE OR REPLACE STREAM s") else {
        panic!()
    };
    assert!(stream.kafka.is_none() && stream.columns.is_none() && stream.or_replace);
    fails("CREATE STREAM s FROM KAFKA (topic = 'x')", "22023", "KAFKA");
    fails("CREATE STREAM s FORMAT AVRO", "0A000", "AVRO");
    fails("CREATE STREAM s FORMAT nope", "42704", "nope");
    fails("CREATE STREAM s FROM FILE", "42601", "FILE");
}

#[test]
fn a_mapping_keeps_its_select() {
    let sql = "CREATE MAPPING seen ON presence AS PUT INTO visits \
               SELECT id AS _id, at AS _valid_from WHERE id <> '' ; ";
    let DefinitionStatement::CreateMapping(mapping) = define(sql) else { panic!() };
    assert_eq!(mapping.stream, "presence");
    assert_eq!(mapping.table, "visits");
    assert_eq!(mapping.verb, MappingVerb::Put);
    assert_eq!(mapping.select, "SELECT id AS _id, at AS _valid_from WHERE id <> ''");
    assert_eq!(Some(mapping.select_position), sql.find("SELECT").map(|byte| byte + 1));
    for (text, verb) in [
        ("PATCH INTO t", MappingVerb::Patch { set_nulls: false }),
        ("PATCH INTO t SET NULLS", MappingVerb::Patch { set_nulls: true }),
        ("DELETE FROM t", MappingVerb::Delete),
        ("RETRACT FROM t", MappingVerb::Retract),
    ] {
        let sql =
            format!("CREATE OR REPLACE MAPPING m ON s AS {text} SELECT payload->>'id' AS _id");
        let DefinitionStatement::CreateMapping(mapping) = define(&sql) else { panic!() };
        assert_eq!(mapping.verb, verb);
        assert!(mapping.or_replace);
    }
    fails("CREATE MAPPING m ON s AS PUT INTO t SELECT x FROM y", "0A000", "y");
    fails("CREATE MAPPING m ON s AS PUT INTO t SELECT x ORDER BY 1", "0A000", "SELECT");
    fails("CREATE MAPPING m ON s AS PUT INTO t", "42601", "");
    fails("CREATE MAPPING m ON s AS UPSERT INTO t SELECT 1", "42601", "UPSERT");
    fails("CREATE MAPPING m ON s AS PUT INTO t SELECT (1", "42601", "");
}

#[test]
fn a_projection_has_a_key_a_sink_and_a_query() {
    let sql = "CREATE PROJECTION by_room KEY (Room, day) INTO warehouse.\"Rooms\" \
               WITH (metadata = false) AS SELECT room, d.day FROM desks FOR VALID_TIME AS OF $1 d";
    let DefinitionStatement::CreateProjection(projection) = define(sql) else { panic!() };
    assert_eq!(projection.key, ["room", "day"]);
    assert_eq!(projection.sink.as_deref(), Some("warehouse"));
    assert_eq!(projection.sink_table.as_deref(), Some("Rooms"));
    assert_eq!(projection.options.get("metadata").map(String::as_str), Some("false"));
    assert!(projection.query.starts_with("SELECT room") && projection.query.ends_with("$1 d"));
    let DefinitionStatement::CreateProjection(projection) = define(
        "CREATE OR REPLACE PROJECTION p KEY (a) INTO lake AS WITH x AS (SELECT 1 AS a) SELECT a FROM x",
    ) else {
        panic!()
    };
    assert_eq!(projection.sink_table, None);
    fails("CREATE PROJECTION p AS SELECT 1", "42601", "AS");
    fails("CREATE PROJECTION p KEY () AS SELECT 1", "42601", ") AS");
    fails("CREATE PROJECTION p KEY (a, a) AS SELECT 1", "42701", "a) AS");
    fails("CREATE PROJECTION p KEY (a) AS SELECT a FROM (t", "42601", "");
    fails("CREATE PROJECTION p KEY (a) AS INSERT INTO t VALUES (1)", "42601", "INSERT");
    fails("CREATE PROJECTION p KEY (a) AS SELECT a FROM t FOR VALID_TIME AS nope", "42601", "nope");
}

#[test]
fn drops_and_explanations_name_what_they_mean() {
    let DefinitionStatement::Drop(drop) = define("DROP PROJECTION IF EXISTS p") else { panic!() };
    assert_eq!((drop.kind, drop.if_exists, drop.position), (DefinitionKind::Projection, true, 27));
    assert!(matches!(one("DROP TABLE t"), ParsedStatement::DropTable(drop) if !drop.if_exists));
    assert!(matches!(
        define("EXPLAIN PROJECTION p"),
        DefinitionStatement::ExplainProjection(ExplainProjection::Named { name, .. }) if name == "p"
    ));
    assert!(matches!(
        define("EXPLAIN PROJECTION KEY (a) AS SELECT a FROM t"),
        DefinitionStatement::ExplainProjection(ExplainProjection::Query { query, .. })
            if query == "SELECT a FROM t"
    ));
    assert!(matches!(
        define("EXPLAIN CREATE PROJECTION p KEY (a) AS SELECT a FROM t"),
        DefinitionStatement::ExplainProjection(ExplainProjection::Create(create))
            if create.sql == "CREATE PROJECTION p KEY (a) AS SELECT a FROM t"
    ));
    assert!(matches!(
        one("EXPLAIN ANALYZE VERBOSE SELECT 1"),
        ParsedStatement::Explain { analyze: true, verbose: true, .. }
    ));
    fails("EXPLAIN INSERT INTO t VALUES (1)", "0A000", "INSERT");
    fails("DROP TABLE t, u", "42601", ", u");
}

fn insert(sql: &str) -> Insert {
    match one(sql) {
        ParsedStatement::Insert(insert) => insert,
        other => panic!("{sql}: {other:?}"),
    }
}

#[test]
fn inserts_and_patches_are_read() {
    let read = insert("INSERT INTO T (_id, \"A\") VALUES (1, $1), (2, NULL) RETURNING _id");
    assert_eq!((read.table.name.as_str(), read.table.position), ("t", 13));
    assert_eq!(read.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["_id", "A"]);
    assert_eq!(read.returning.map(|items| items.len()), Some(1));
    assert_eq!(read.verb, InsertVerb::Put);
    let read = insert("INSERT INTO t SELECT * FROM u FOR ALL VALID_TIME");
    assert_eq!(read.source.clauses.list.len(), 1);
    assert!(read.columns.is_empty());

    let read = insert(
        "PATCH INTO t FOR PORTION OF VALID_TIME FROM $1 TO NULL SET NULLS (_id, a) VALUES (1, 2)",
    );
    assert_eq!(read.verb, InsertVerb::Patch { set_nulls: true });
    assert!(matches!(read.portion, Portion::Between { .. }));
    let read = insert("PATCH INTO t FOR ALL VALID_TIME SELECT 1 AS _id");
    assert!(matches!(read.portion, Portion::All));
}

#[test]
fn records_become_columns_and_rows() {
    let read =
        insert("INSERT INTO t RECORDS {_id: 'a', n: 1}, {_id: 'b', 'M': {x: [1]}} RETURNING _id");
    assert_eq!(read.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["_id", "n", "M"]);
    assert_eq!(read.source.query.to_string(), "VALUES ('a', 1, NULL), ('b', NULL, {x: [1]})");
    assert!(read.returning.is_some());
    fails("INSERT INTO t RECORDS {a: 1, a: 2}", "42701", "a: 2");
    fails("INSERT INTO t RECORDS $1", "42601", "$1");
    fails("INSERT INTO t RECORDS {a: }", "42601", "}");
}

#[test]
fn wrong_inserts_say_where() {
    fails("INSERT INTO t (a, a) VALUES (1, 2)", "42701", "a) VALUES");
    fails("INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", "0A000", "INSERT");
    fails("INSERT INTO everwhen.tables VALUES (1)", "0A000", "everwhen");
    fails("INSERT INTO t FOR PORTION OF VALID_TIME FROM $1 TO $2 VALUES (1)", "42601", "t FOR");
    fails("INSERT INTO t DEFAULT VALUES", "0A000", "INSERT");
    fails("PATCH INTO t FOR SYSTEM_TIME AS OF $1 VALUES (1)", "42601", "FOR SYSTEM");
    fails("INSERT t VALUES", "42601", "");
}

fn update(sql: &str) -> Update {
    match one(sql) {
        ParsedStatement::Update(update) => update,
        other => panic!("{sql}: {other:?}"),
    }
}

#[test]
fn updates_and_deletes_have_a_window() {
    let read = update(
        "UPDATE t FOR PORTION OF VALID_TIME FROM $1 TO now() AS x SET a = 1, \"B\" = y.b FROM y \
         WHERE x._id = y._id RETURNING a",
    );
    assert_eq!(read.alias.as_ref().map(|alias| alias.value.as_str()), Some("x"));
    assert!(matches!(&read.portion, Portion::Between { to: Some(_), .. }));
    assert_eq!(read.assignments[1].0.name, "B");
    assert_eq!(read.from.len(), 1);
    let Portion::Between { from, .. } = read.portion.clone() else { panic!() };
    let reading = read.reading(Vec::new(), ClauseKind::FromTo(from, None));
    assert_eq!(reading.query.to_string(), "SELECT FROM t AS x, y WHERE x._id = y._id");
    assert_eq!(reading.clauses.list.len(), 1);

    assert!(matches!(update("UPDATE t SET a = 1").portion, Portion::Default));
    assert!(matches!(update("UPDATE t FOR ALL VALID_TIME SET a = 1").portion, Portion::All));
    assert!(matches!(
        update("UPDATE t FOR VALID_TIME FROM NULL SET a = 1").portion,
        Portion::Between { to: None, .. }
    ));
    let ParsedStatement::Delete(delete) =
        one("DELETE FROM t FOR VALID_TIME ALL x USING y WHERE x._id = y._id")
    else {
        panic!()
    };
    assert!(matches!(delete.portion, Portion::All));
    assert_eq!(delete.using.len(), 1);
}

#[test]
fn wrong_updates_and_deletes_say_where() {
    fails("UPDATE t FOR VALID_TIME AS OF $1 SET a = 1", "42601", "FOR VALID");
    fails("UPDATE t FOR SYSTEM_TIME ALL SET a = 1", "42601", "FOR SYSTEM");
    fails("UPDATE t FOR PORTION OF VALID_TIME FROM a TO $1 SET a = 1", "42P10", "a TO");
    fails("UPDATE t SET a = 1, a = 2", "42701", "a = 2");
    fails("UPDATE t SET (a, b) = (1, 2)", "0A000", "a, b)");
    fails("UPDATE t JOIN u ON true SET a = 1", "0A000", "u ON");
    fails(
        "DELETE FROM t FOR ALL VALID_TIME FOR VALID_TIME FROM $1",
        "42601",
        "FOR VALID_TIME FROM",
    );
    fails("DELETE FROM t WHERE", "42601", "");
}

#[test]
fn for_in_functions_is_no_clause() {
    for sql in [
        "SELECT substring('abc' FROM 1 FOR 2)",
        "SELECT substring(x FROM 1 FOR valid_time) FROM t",
        "SELECT overlay('abc' PLACING 'x' FROM 1 FOR 1)",
    ] {
        assert!(matches!(one(sql), ParsedStatement::Query(_)), "{sql}");
    }
}

/// Going back, the parser read what stands within each call twice: twenty of them took seconds.
#[test]
fn calls_within_calls_are_read_once() {
    let nested = |open: &str, inner: &str, close: &str| {
        format!("SELECT {}{inner}{}", open.repeat(50), close.repeat(50))
    };
    let limits = ParseLimits::default();
    assert!(parse(&nested("coalesce(", "n", ", 1)"), &limits).is_ok());
    assert!(parse(&nested("abs(", "n", ")"), &limits).is_ok());
    for wrong in [
        nested("count( ", "*) FROM t", ""),
        nested("CAST(", "1", " AS"),
        nested("CASE WHEN ", "1", " THEN"),
        nested("EXTRACT(YEAR FROM ", "1", ""),
        nested("(", "1", ",)"),
        nested("a[", "1", ""),
        nested("f(x => ", "1", ""),
        nested("{'a': ", "1", ""),
    ] {
        let state = parse(&wrong, &limits).unwrap_err().sqlstate();
        assert!(["42601", "54001"].contains(&state.to_string().as_str()), "{wrong}: {state}");
        // It is a matter of time alone whether this comes back.
        drop(check_cost(&wrong, &limits));
    }
    // Postgres' own dialect goes back at every call: that is found out first, and soon.
    let deep = check_cost(&nested("abs(", "n", ")"), &limits).unwrap_err();
    assert_eq!(deep.sqlstate().to_string(), "54001");
    assert!(
        check_cost("SELECT pg_catalog.format_type(a, abs(abs(abs(b)))) FROM x", &limits).is_ok()
    );
}
