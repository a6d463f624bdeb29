use everwhen_query::statements::MappingVerb;
use everwhen_storage::{
    ColumnDef, ColumnId, ColumnType, DefinitionChange, Precedence, TableDef, TableId,
};

use crate::testing::{Defined, defined, mapping, orders};

const PUT: MappingVerb = MappingVerb::Put;

fn with_table(precedence: Precedence) -> Defined {
    let mut defined = Defined::default();
    defined.stream(&orders()).expect("a stream");
    let column = |id, name: &str, kind, nullable| ColumnDef {
        id: ColumnId(id),
        name: name.to_owned(),
        kind,
        nullable,
    };
    defined.apply(&[DefinitionChange::Table(TableDef {
        id: TableId(7),
        name: "declared".to_owned(),
        precedence,
        key: vec![ColumnId(0), ColumnId(1)],
        columns: vec![
            column(0, "site", ColumnType::Text, false),
            column(1, "day", ColumnType::Date, false),
            column(2, "n", ColumnType::Float64, false),
            column(3, "note", ColumnType::Text, true),
        ],
        declared: true,
    })]);
    defined
}

fn refused(defined: &mut Defined, verb: MappingVerb, table: &str, select: &str) -> crate::Error {
    defined.mapping(&mapping("m", "orders", verb, table, select)).expect_err(select)
}

#[test]
fn a_mapping_makes_its_table_from_its_output_types() {
    let defined = defined(PUT, "SELECT id AS _id, n, at AS _valid_from, n > 1 AS many, at AS seen");
    let table = defined.0.table("orders").expect("made");
    assert_eq!((table.precedence, table.declared), (Precedence::Effective, false));
    let kinds: Vec<(&str, &ColumnType, bool)> = table
        .columns
        .iter()
        .map(|column| (column.name.as_str(), &column.kind, column.nullable))
        .collect();
    assert_eq!(
        kinds,
        [
            ("_id", &ColumnType::Text, false),
            ("n", &ColumnType::Int64, true),
            ("many", &ColumnType::Bool, true),
            ("seen", &ColumnType::Timestamp, true),
        ]
    );
    assert_eq!(table.key, [table.columns[0].id]);
}

#[test]
fn a_further_mapping_adds_columns_to_an_undeclared_table() {
    let mut defined = defined(PUT, "SELECT id AS _id, n");
    let more = "SELECT id AS _id, at AS seen";
    defined
        .mapping(&mapping(
            "more",
            "orders",
            MappingVerb::Patch { set_nulls: false },
            "orders",
            more,
        ))
        .expect("a second mapping");
    let table = defined.0.table("orders").expect("there");
    assert_eq!(table.column("seen").map(|column| column.id), Some(ColumnId(2)));
    let error = refused(&mut defined, PUT, "orders", "SELECT id AS _id, at AS n");
    assert_eq!(error.sqlstate(), "42804");
}

#[test]
fn a_declared_table_is_checked_against() {
    let mut defined = with_table(Precedence::Effective);
    let good = "SELECT id AS site, '2026-01-01' AS day, n";
    defined.mapping(&mapping("good", "orders", PUT, "declared", good)).expect("fits");
    for (select, state) in [
        ("SELECT id AS site, DATE '2026-01-01' AS day, n, 1 AS other", "42703"),
        ("SELECT id AS site, n", "42703"),
        ("SELECT id AS site, DATE '2026-01-01' AS day, note_ AS note", "42703"),
        ("SELECT id AS site, DATE '2026-01-01' AS day, at AS n", "42804"),
        ("SELECT id AS site, DATE '2026-01-01' AS day", "23502"),
        ("SELECT id AS site, DATE '2026-01-01' AS day, n, at AS _valid_form", "42703"),
        ("SELECT id AS site, DATE '2026-01-01' AS day, n, now() AS _valid_from", "0A000"),
    ] {
        assert_eq!(refused(&mut defined, PUT, "declared", select).sqlstate(), state, "{select}");
    }
}

#[test]
fn event_ids_are_refused_where_later_recorded_wins() {
    let mut defined = with_table(Precedence::Recorded);
    let select = "SELECT id AS site, DATE '2026-01-01' AS day, n, id AS _event_id";
    assert_eq!(refused(&mut defined, PUT, "declared", select).sqlstate(), "0A000");
    let retract = "SELECT id AS _event_id";
    let error = refused(&mut defined, MappingVerb::Retract, "declared", retract);
    assert_eq!(error.sqlstate(), "0A000");
}

#[test]
fn each_verb_takes_its_own_columns() {
    let mut defined = defined(PUT, "SELECT id AS _id, n");
    for (verb, select, state) in [
        (PUT, "SELECT n", "42703"),
        (MappingVerb::Delete, "SELECT id AS _id, n", "42P10"),
        (MappingVerb::Retract, "SELECT id AS _id", "42703"),
        (MappingVerb::Retract, "SELECT id AS _event_id, n", "42P10"),
    ] {
        assert_eq!(refused(&mut defined, verb, "orders", select).sqlstate(), state, "{select}");
    }
    for (name, verb, select) in [
        ("d", MappingVerb::Delete, "SELECT id AS _id, at AS _valid_from"),
        ("r", MappingVerb::Retract, "SELECT id AS _event_id"),
    ] {
        defined.mapping(&mapping(name, "orders", verb, "orders", select)).expect(select);
    }
    let error = refused(&mut defined, MappingVerb::Retract, "none", "SELECT id AS _event_id");
    assert_eq!(error.sqlstate(), "42P01");
}

#[test]
fn errors_name_the_select_as_their_place() {
    let mut defined = defined(PUT, "SELECT id AS _id, n");
    let error = refused(&mut defined, PUT, "orders", "SELECT id AS _id, _id AS x ORDER BY 1");
    assert_eq!((error.sqlstate(), error.position()), ("0A000", Some(7)));
    let mut twice = mapping("ordered", "orders", PUT, "orders", "SELECT id AS _id");
    assert_eq!(defined.mapping(&twice).expect_err("exists").sqlstate(), "42710");
    twice.stream = "none".to_owned();
    twice.or_replace = true;
    assert_eq!(defined.mapping(&twice).expect_err("no stream").sqlstate(), "42704");
}
