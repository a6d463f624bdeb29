//! What the pass makes of queries: the text of the new tree, and what stands behind each table.

use std::sync::Arc;

use everwhen_storage::{
    ColumnDef, ColumnId, ColumnType, Definitions, Precedence, TableDef, TableId,
};

use super::{BoundSpec, ExposedColumn, RewriteInput, Rewritten, rewrite};
use crate::dialect::{ParseLimits, parse_query};
use crate::error::Error;

fn table(id: u32, name: &str, columns: &[&str]) -> (String, Arc<TableDef>) {
    let columns = (0_u32..).zip(columns).map(|(id, name)| ColumnDef {
        id: ColumnId(id),
        name: (*name).to_owned(),
        kind: ColumnType::Text,
        nullable: id > 0,
    });
    let def = TableDef {
        id: TableId(id),
        name: name.to_owned(),
        precedence: Precedence::Recorded,
        key: vec![ColumnId(0)],
        columns: columns.collect(),
        declared: true,
    };
    (name.to_owned(), Arc::new(def))
}

fn run(sql: &str) -> Result<Rewritten, Error> {
    let definitions = Definitions {
        tables: [
            table(1, "desks", &["_id", "room"]),
            table(2, "bookings", &["_id", "desk", "starts"]),
            table(3, "people", &["_id", "name", "starts"]),
            table(4, "Odd Name", &["_id", "x"]),
        ]
        .into(),
        ..Definitions::default()
    };
    let input = RewriteInput {
        definitions: &definitions,
        is_system_table: &|name| name == "everwhen.transactions" || name == "everwhen.tables",
    };
    rewrite(&parse_query(sql, &ParseLimits::default())?, &input)
}

fn bound(spec: &BoundSpec) -> String {
    match spec {
        BoundSpec::Default => "-".to_owned(),
        BoundSpec::All => "all".to_owned(),
        BoundSpec::AsOf(at) => format!("at {}", at.expr),
        BoundSpec::FromTo(from, to) => format!("[{}, {})", from.expr, to.expr),
        BoundSpec::Between(from, to) => format!("[{}, {}]", from.expr, to.expr),
        BoundSpec::Only(from, to) => format!("[{}, {}]", from.expr, to.expr),
        BoundSpec::Correlated => "other".to_owned(),
    }
}

/// Each table as `valid / system + hidden columns`.
fn tables(rewritten: &Rewritten) -> Vec<String> {
    let describe = |table: &super::TableRef| {
        let mut text =
            format!("{} {} / {}", table.unique_name, bound(&table.valid), bound(&table.system));
        for name in table.columns.iter().filter_map(|column| column.hidden_name()) {
            text.push_str(" +");
            text.push_str(name);
        }
        text
    };
    rewritten.tables.iter().map(describe).collect()
}

#[track_caller]
fn gives(sql: &str, expected: &str, expected_tables: &[&str]) {
    let rewritten = run(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    assert_eq!(rewritten.query.to_string(), expected, "{sql}");
    assert_eq!(tables(&rewritten), expected_tables, "{sql}");
}

#[track_caller]
fn bounds(sql: &str, expected: &[&str]) {
    let rewritten = run(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    assert_eq!(tables(&rewritten), expected, "{sql}");
}

#[track_caller]
fn fails(sql: &str, sqlstate: &str, place: &str) {
    let error = run(sql).map(|done| done.query.to_string()).expect_err(sql);
    assert_eq!(error.sqlstate(), sqlstate, "{sql}: {error}");
    let expected = match place {
        "" => Some(sql.chars().count() + 1),
        place => sql.find(place).map(|byte| sql[..byte].chars().count() + 1),
    };
    assert_eq!(error.position(), expected, "{sql}: {error}");
}

#[test]
fn a_plain_table_reads_at_the_defaults_under_its_own_name() {
    gives("SELECT room FROM desks", "SELECT room FROM \"desks#1\" AS desks", &["desks#1 - / -"]);
    bounds("SELECT x FROM \"Odd Name\"", &["Odd Name#1 - / -"]);
    bounds("SELECT * FROM public.DESKS", &["desks#1 - / -"]);
}

#[test]
fn clauses_stand_before_or_after_the_alias_in_either_order() {
    let both = &["desks#1 at $1 / at $2"];
    for sql in [
        "SELECT * FROM desks FOR VALID_TIME AS OF $1 FOR SYSTEM_TIME AS OF $2",
        "SELECT * FROM desks FOR SYSTEM_TIME AS OF $2 FOR VALID_TIME AS OF $1 d",
        "SELECT * FROM desks FOR VALID_TIME AS OF $1 AS d FOR SYSTEM_TIME AS OF $2",
        "SELECT * FROM desks AS d FOR SYSTEM_TIME AS OF $2 FOR VALID_TIME AS OF $1",
        "SELECT * FROM desks d for valid_time as of $1 for system_time as of $2 WHERE d.room = 'x'",
    ] {
        bounds(sql, both);
    }
}

#[test]
fn every_form_of_a_clause_is_read() {
    for (clause, expected) in [
        ("FOR VALID_TIME AS OF now() - INTERVAL '1 day'", "at now() - INTERVAL '1 day' / -"),
        ("FOR VALID_TIME AS OF TIMESTAMP '2026-01-01'", "at TIMESTAMP '2026-01-01' / -"),
        ("FOR VALID_TIME FROM $1 TO $2", "[$1, $2) / -"),
        (
            "FOR VALID_TIME FROM now() - INTERVAL '1 day' TO now()",
            "[now() - INTERVAL '1 day', now()) / -",
        ),
        ("FOR VALID_TIME FROM NULL TO NULL", "[NULL, NULL) / -"),
        ("FOR VALID_TIME BETWEEN $from AND $to", "[$from, $to] / -"),
        ("FOR VALID_TIME ALL", "all / -"),
        ("FOR ALL VALID_TIME", "all / -"),
        (
            "FOR ALL SYSTEM_TIME FOR VALID_TIME AS OF CURRENT_TIMESTAMP",
            "at CURRENT_TIMESTAMP / all",
        ),
        ("FOR SYSTEM_TIME FROM '2026-01-01' TO '2026-01-02'", "- / ['2026-01-01', '2026-01-02')"),
        (
            "FOR SYSTEM_TIME BETWEEN $1 AND $2 + INTERVAL '1' HOUR",
            "- / [$1, $2 + INTERVAL '1' HOUR]",
        ),
    ] {
        let expected = format!("desks#1 {expected}");
        bounds(&format!("SELECT * FROM desks {clause}"), &[&expected]);
        bounds(
            &format!("SELECT * FROM desks d {clause} WHERE d.room = 'a' AND 1 = 1"),
            &[&expected],
        );
        bounds(&format!("WITH x AS (SELECT * FROM desks {clause}) SELECT * FROM x"), &[&expected]);
        bounds(&format!("SELECT (SELECT max(room) FROM desks {clause})"), &[&expected]);
    }
}

#[test]
fn each_reference_has_its_own_bounds() {
    gives(
        "SELECT a.room, b.room FROM desks FOR VALID_TIME AS OF $1 a, desks b ORDER BY 1",
        "SELECT a.room, b.room FROM \"desks#1\" AS a, \"desks#2\" AS b ORDER BY 1",
        &["desks#1 at $1 / -", "desks#2 - / -"],
    );
    bounds(
        "SELECT 1 FROM bookings WHERE EXISTS (SELECT 1 FROM desks FOR ALL VALID_TIME d \
         WHERE d._id = desk AND d.room IN (SELECT name FROM people FOR SYSTEM_TIME ALL)) \
         UNION ALL SELECT 2 FROM people",
        &["bookings#1 - / -", "desks#2 all / -", "people#3 - / all", "people#4 - / -"],
    );
}

#[test]
fn a_query_of_with_shadows_a_table_from_where_it_is_named() {
    gives(
        "WITH desks AS (SELECT * FROM desks FOR ALL VALID_TIME) SELECT * FROM desks",
        "WITH desks AS (SELECT * FROM \"desks#1\" AS desks) SELECT * FROM desks",
        &["desks#1 all / -"],
    );
    bounds(
        "WITH a AS (SELECT 1), b AS (SELECT * FROM a) SELECT * FROM b, desks",
        &["desks#1 - / -"],
    );
    bounds(
        "WITH RECURSIVE r AS (SELECT room FROM desks UNION ALL SELECT room FROM r) SELECT * FROM r",
        &["desks#1 - / -"],
    );
    bounds(
        "SELECT * FROM desks WHERE room IN (WITH desks AS (SELECT 1 AS x) SELECT x FROM desks)",
        &["desks#1 - / -"],
    );
}

#[test]
fn a_clause_on_what_has_no_versions_is_an_error() {
    fails("WITH x AS (SELECT 1) SELECT * FROM x FOR VALID_TIME AS OF $1", "0A000", "FOR VALID");
    fails("SELECT * FROM (SELECT 1) AS d FOR ALL VALID_TIME", "0A000", "FOR ALL");
    fails("SELECT * FROM (SELECT 1) FOR ALL VALID_TIME AS d", "42601", "FOR ALL");
    fails("SELECT * FROM everwhen.transactions FOR ALL VALID_TIME", "0A000", "FOR ALL");
    fails("SELECT * FROM range(3) AS r FOR ALL VALID_TIME", "0A000", "FOR ALL");
    fails("SELECT * FROM range(3) FOR ALL VALID_TIME", "42601", "FOR ALL");
    fails("SELECT room FOR ALL VALID_TIME FROM desks", "42601", "FOR ALL");
    fails("SELECT * FROM desks WHERE room = 'x' FOR VALID_TIME AS OF $1", "42601", "FOR VALID");
    fails("SELECT * FROM desks JOIN people USING (_id) FOR ALL VALID_TIME", "42601", "FOR ALL");
}

#[test]
fn wrong_clauses_say_where() {
    fails("SELECT * FROM desks FOR VALID_TIME AS OF", "42601", "");
    fails("SELECT * FROM desks FOR VALID_TIME WHERE 1 = 1", "42601", "WHERE");
    fails("SELECT * FROM desks FOR VALID_TIME FROM $1", "42601", "FOR VALID");
    fails("SELECT * FROM desks FOR VALID_TIME BETWEEN $1 OR $2", "42601", "OR $2");
    fails("SELECT * FROM desks FOR VALID_TIME ONLY AS OF $1", "42601", "AS OF");
    fails(
        "SELECT * FROM desks FOR VALID_TIME AS OF $1 FOR VALID_TIME ALL",
        "42601",
        "FOR VALID_TIME ALL",
    );
    fails("SELECT * FROM desks FOR PORTION OF VALID_TIME FROM $1 TO $2", "42601", "FOR PORTION");
    fails("SELECT * FROM desks FOR VALID_TIME FROM room TO $2", "0A000", "room");
    fails("SELECT * FROM desks FOR VALID_TIME AS OF (SELECT now())", "0A000", "(SELECT");
    fails("SELECT * FROM desks FOR UPDATE", "0A000", "nowhere");
}

#[test]
fn an_unknown_table_is_named_with_its_place() {
    fails("SELECT *\nFROM desk", "42P01", "desk");
    fails("SELECT * FROM desks, other.desks", "42P01", "other.desks");
    fails("SELECT * FROM DESKS WHERE room = (SELECT 'ü' FROM nope)", "42P01", "nope");
    fails("SELECT * FROM \"Desks\"", "42P01", "\"Desks\"");
    fails("SELECT 1 FROM WHERE x", "42601", "WHERE");
    let error = run("SELECT * FROM transactions").unwrap_err();
    assert_eq!(error.hint(), Some("there is a system table everwhen.transactions"));
}

#[test]
fn system_tables_stay_under_their_names() {
    let done = run("SELECT * FROM everwhen.transactions t JOIN everwhen.tables ON true").unwrap();
    assert_eq!(done.system_tables, ["everwhen.transactions", "everwhen.tables"]);
    assert!(done.tables.is_empty());
}

#[test]
fn an_instant_of_a_table_to_the_left_becomes_containment_in_on() {
    gives(
        "SELECT b._id, d.room FROM bookings b JOIN desks FOR VALID_TIME AS OF b.starts d \
         ON d._id = b.desk",
        "SELECT b._id, d.room FROM \"bookings#1\" AS b JOIN \"desks#2\" AS d ON (d._id = b.desk) \
         AND d.\"__valid_from\" <= (b.starts) AND (b.starts) < d.\"__valid_to\"",
        &["bookings#1 - / -", "desks#2 other / - +__valid_from +__valid_to"],
    );
    gives(
        "SELECT 1 FROM bookings LEFT JOIN desks FOR VALID_TIME AS OF starts ON desks._id = desk",
        "SELECT 1 FROM \"bookings#1\" AS bookings LEFT JOIN \"desks#2\" AS desks ON \
         (desks._id = desk) AND desks.\"__valid_from\" <= (bookings.starts) AND \
         (bookings.starts) < desks.\"__valid_to\"",
        &["bookings#1 - / -", "desks#2 other / - +__valid_from +__valid_to"],
    );
    gives(
        "SELECT 1 FROM bookings b CROSS JOIN desks FOR VALID_TIME AS OF b.starts + INTERVAL '1 hour' d",
        "SELECT 1 FROM \"bookings#1\" AS b INNER JOIN \"desks#2\" AS d ON \
         d.\"__valid_from\" <= (b.starts + INTERVAL '1 hour') AND \
         (b.starts + INTERVAL '1 hour') < d.\"__valid_to\"",
        &["bookings#1 - / -", "desks#2 other / - +__valid_from +__valid_to"],
    );
}

#[test]
fn an_instant_in_a_comma_join_or_a_sub_query_becomes_containment_in_where() {
    gives(
        "SELECT 1 FROM bookings b, desks FOR VALID_TIME AS OF b.starts d WHERE d._id = b.desk OR 1 = 2",
        "SELECT 1 FROM \"bookings#1\" AS b, \"desks#2\" AS d WHERE (d._id = b.desk OR 1 = 2) AND \
         d.\"__valid_from\" <= (b.starts) AND (b.starts) < d.\"__valid_to\"",
        &["bookings#1 - / -", "desks#2 other / - +__valid_from +__valid_to"],
    );
    gives(
        "SELECT (SELECT d.room FROM desks FOR VALID_TIME AS OF starts d WHERE d.room <> desk) \
         FROM bookings b",
        "SELECT (SELECT d.room FROM \"desks#2\" AS d WHERE (d.room <> desk) AND \
         d.\"__valid_from\" <= (b.starts) AND (b.starts) < d.\"__valid_to\") \
         FROM \"bookings#1\" AS b",
        &["bookings#1 - / -", "desks#2 other / - +__valid_from +__valid_to"],
    );
    gives(
        "SELECT x.room FROM bookings b, LATERAL (SELECT room FROM desks FOR VALID_TIME AS OF b.starts \
         WHERE _id = b.desk) x",
        "SELECT x.room FROM \"bookings#1\" AS b, LATERAL (SELECT room FROM \"desks#2\" AS desks WHERE \
         (_id = b.desk) AND desks.\"__valid_from\" <= (b.starts) AND \
         (b.starts) < desks.\"__valid_to\") x",
        &["bookings#1 - / -", "desks#2 other / - +__valid_from +__valid_to"],
    );
}

#[test]
fn a_scalar_look_up_by_the_whole_key_becomes_a_join() {
    gives(
        "SELECT *, (SELECT room FROM desks WHERE _id = b.desk) FROM bookings b",
        "SELECT b.\"_id\", b.\"desk\", b.\"starts\", \"lookup#1\".\"__value\" AS room FROM \
         \"bookings#1\" AS b LEFT JOIN LATERAL (SELECT room AS \"__value\" FROM \"desks#2\" AS desks \
         WHERE _id = b.desk) AS \"lookup#1\" ON true",
        &["bookings#1 - / -", "desks#2 - / -"],
    );
    for (query, why) in [
        ("(SELECT room FROM desks WHERE room = b.desk)", "no key"),
        ("(SELECT room FROM desks FOR ALL VALID_TIME WHERE _id = b.desk)", "several versions"),
        ("(SELECT count(*) FROM desks WHERE _id = b.desk)", "an aggregate"),
        ("(SELECT room FROM desks WHERE _id = 'd1')", "nothing of the query around"),
        ("(SELECT room FROM desks WHERE _id = b.desk OR true)", "no conjunct"),
        ("(SELECT room FROM desks WHERE _id = desks.room)", "its own column"),
    ] {
        let text = run(&format!("SELECT {query} FROM bookings b")).unwrap().query.to_string();
        assert!(!text.contains("LATERAL"), "{why}: {text}");
    }
}

#[test]
fn an_unqualified_instant_belongs_to_the_left_even_where_the_table_has_the_column_too() {
    gives(
        "SELECT 1 FROM bookings JOIN people FOR VALID_TIME AS OF starts ON true",
        "SELECT 1 FROM \"bookings#1\" AS bookings JOIN \"people#2\" AS people ON (true) AND \
         people.\"__valid_from\" <= (bookings.starts) AND (bookings.starts) < people.\"__valid_to\"",
        &["bookings#1 - / -", "people#2 other / - +__valid_from +__valid_to"],
    );
    fails(
        "SELECT 1 FROM bookings b JOIN people p ON true JOIN desks FOR VALID_TIME AS OF starts ON true",
        "42702",
        "starts ON",
    );
    fails("SELECT 1 FROM bookings JOIN desks FOR VALID_TIME AS OF nope ON true", "42703", "nope");
    fails(
        "SELECT 1 FROM bookings b JOIN desks FOR VALID_TIME AS OF b.nope ON true",
        "42703",
        "nope",
    );
    fails("SELECT 1 FROM bookings b JOIN desks FOR VALID_TIME AS OF c.at ON true", "42P01", "c.at");
    fails("SELECT 1 FROM people FOR VALID_TIME AS OF people.starts", "42P10", "people.starts");
    fails("SELECT 1 FROM people FOR VALID_TIME AS OF starts", "42703", "starts");
}

#[test]
fn instants_of_derived_tables_and_hidden_columns_are_found() {
    bounds(
        "WITH b AS (SELECT desk, starts AS at FROM bookings) \
         SELECT 1 FROM b JOIN desks FOR VALID_TIME AS OF at d ON d._id = b.desk",
        &["bookings#1 - / -", "desks#2 other / - +__valid_from +__valid_to"],
    );
    bounds(
        "SELECT 1 FROM bookings FOR ALL VALID_TIME b JOIN desks FOR VALID_TIME AS OF b._valid_from d \
         ON d._id = b.desk",
        &["bookings#1 all / - +_valid_from", "desks#2 other / - +__valid_from +__valid_to"],
    );
}

#[test]
fn places_where_an_instant_has_no_right_answer_are_refused() {
    for kind in ["RIGHT", "FULL"] {
        let sql = format!(
            "SELECT 1 FROM bookings b {kind} JOIN desks FOR VALID_TIME AS OF b.starts d ON true"
        );
        fails(&sql, "0A000", "b.starts");
    }
    fails(
        "SELECT 1 FROM bookings b LEFT JOIN desks FOR VALID_TIME AS OF b.starts d USING (_id)",
        "0A000",
        "b.starts",
    );
    fails(
        "SELECT 1 FROM bookings b, desks FOR VALID_TIME AS OF b.starts d FULL JOIN people p ON true",
        "0A000",
        "b.starts",
    );
    fails(
        "SELECT 1 FROM bookings b, people p LEFT JOIN desks FOR VALID_TIME AS OF b.starts d ON true",
        "0A000",
        "b.starts",
    );
}

#[test]
fn a_system_instant_of_another_table_needs_one_valid_instant() {
    gives(
        "SELECT 1 FROM bookings b JOIN desks FOR SYSTEM_TIME AS OF b.starts d ON true",
        "SELECT 1 FROM \"bookings#1\" AS b JOIN \"desks#2\" AS d ON (true) AND \
         d.\"__system_from\" <= (b.starts) AND (b.starts) < d.\"__system_to\"",
        &["bookings#1 - / -", "desks#2 - / other +__system_from +__system_to"],
    );
    fails(
        "SELECT 1 FROM bookings b JOIN desks FOR ALL VALID_TIME FOR SYSTEM_TIME AS OF b.starts d ON true",
        "0A000",
        "desks",
    );
    fails(
        "SELECT d._valid_to FROM bookings b JOIN desks FOR SYSTEM_TIME AS OF b.starts d ON true",
        "0A000",
        "desks",
    );
}

#[test]
fn hidden_columns_are_exposed_where_they_are_named() {
    bounds("SELECT *, _valid_from FROM desks", &["desks#1 - / - +_valid_from"]);
    bounds(
        "SELECT d._tx FROM desks d JOIN people p ON true",
        &["desks#1 - / - +_tx", "people#2 - / -"],
    );
    bounds(
        "SELECT 1 FROM desks WHERE _SYSTEM_TO IS NULL ORDER BY _valid_time",
        &["desks#1 - / - +_system_to +_valid_time"],
    );
    bounds(
        "SELECT 1 FROM desks JOIN people USING (_valid_from)",
        &["desks#1 - / - +_valid_from", "people#2 - / - +_valid_from"],
    );
}

#[test]
fn a_star_never_shows_hidden_columns() {
    gives(
        "SELECT *, _valid_from FROM desks",
        "SELECT desks.\"_id\", desks.\"room\", _valid_from FROM \"desks#1\" AS desks",
        &["desks#1 - / - +_valid_from"],
    );
    gives(
        "SELECT d.*, d._tx, p.* FROM desks d, people p",
        "SELECT d.\"_id\", d.\"room\", d._tx, p.* FROM \"desks#1\" AS d, \"people#2\" AS p",
        &["desks#1 - / - +_tx", "people#2 - / -"],
    );
    gives(
        "SELECT * FROM bookings JOIN desks FOR VALID_TIME AS OF starts USING (_id)",
        "SELECT bookings.\"_id\", bookings.\"desk\", bookings.\"starts\", desks.\"room\" FROM \
         \"bookings#1\" AS bookings JOIN \"desks#2\" AS desks USING(_id) WHERE \
         desks.\"__valid_from\" <= (bookings.starts) AND (bookings.starts) < desks.\"__valid_to\"",
        &["bookings#1 - / -", "desks#2 other / - +__valid_from +__valid_to"],
    );
    gives(
        "SELECT * EXCLUDE (room), _tx FROM desks d JOIN (SELECT 1 AS one) x ON true",
        "SELECT d.\"_id\", x.\"one\", _tx FROM \"desks#1\" AS d JOIN (SELECT 1 AS one) x ON true",
        &["desks#1 - / - +_tx"],
    );
    fails("SELECT * EXCLUDE (nope), _tx FROM desks", "42703", "nope");
}

#[test]
fn column_aliases_of_a_table_leave_the_hidden_columns_their_names() {
    gives(
        "SELECT x.*, _tx FROM desks AS x (a, b)",
        "SELECT x.\"a\", x.\"b\", _tx FROM \"desks#1\" AS x (a, b, \"_tx\")",
        &["desks#1 - / - +_tx"],
    );
}

#[test]
fn a_system_column_is_no_reason_to_expose_valid_ones() {
    let done = run("SELECT _system_from FROM desks").unwrap();
    assert_eq!(done.tables[0].columns.last(), Some(&ExposedColumn::SystemFrom));
}

#[test]
fn two_tables_of_one_name_are_refused() {
    fails("SELECT 1 FROM desks JOIN desks ON true", "42712", "desks ON");
}

#[test]
fn writes_inside_of_queries_are_refused() {
    fails(
        "WITH x AS (INSERT INTO desks VALUES (1) RETURNING *) SELECT * FROM x",
        "0A000",
        "nowhere",
    );
}

#[test]
fn long_chains_and_deep_queries_are_walked_within_the_limits() {
    let chain = vec!["room = 'x'"; 450].join(" OR ");
    assert!(run(&format!("SELECT 1 FROM desks WHERE {chain}")).is_ok());
    let deep = format!("{}SELECT * FROM desks{}", "SELECT * FROM (".repeat(25), ") x".repeat(25));
    assert!(run(&deep).is_ok());
}
