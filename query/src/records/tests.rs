use std::sync::Arc;

use arrow::array::{
    Array, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use everwhen_storage::ColumnType;

use super::{RecordProgram, is_json, record_field};

fn input() -> SchemaRef {
    Arc::new(Schema::new(vec![
        record_field("id", &ColumnType::Text),
        record_field("n", &ColumnType::Int64),
        record_field("at", &ColumnType::Timestamp),
        record_field("payload", &ColumnType::Json),
        Field::new("__sent_n", DataType::Boolean, false),
    ]))
}

fn batch() -> RecordBatch {
    RecordBatch::try_new(
        input(),
        vec![
            Arc::new(StringArray::from(vec![Some("a"), Some(""), None, Some("d")])),
            Arc::new(Int64Array::from(vec![Some(1), Some(0), Some(3), None])),
            Arc::new(TimestampMicrosecondArray::from(vec![0, 1, 2, 3]).with_timezone("UTC")),
            Arc::new(StringArray::from(vec![r#"{"x":"1","y":{"z":2}}"#, "{}", "{}", "{}"])),
            Arc::new(arrow::array::BooleanArray::from(vec![true, true, true, false])),
        ],
    )
    .expect("a batch of the input schema")
}

fn run(sql: &str) -> super::Computed {
    let program = RecordProgram::compile(sql, input()).expect("compiles");
    program.run(&batch()).expect("runs")
}

#[test]
fn where_keeps_rows_and_says_which() {
    let computed = run("SELECT id AS _id, n WHERE id <> ''");
    assert_eq!(computed.rows, vec![0, 3]);
    assert_eq!(computed.batch.column(0).as_string::<i32>().value(1), "d");
    assert!(computed.batch.column(1).is_null(1));
}

#[test]
fn rows_the_where_drops_reach_no_expression() {
    let computed = run("SELECT 10 / n AS share WHERE n <> 0");
    assert_eq!(computed.batch.column(0).as_primitive::<Int64Type>().values(), &[10, 3]);
}

#[test]
fn intervals_shift_instants() {
    let computed = run("SELECT at + INTERVAL '1 day' AS _valid_to");
    let shifted = computed.batch.column(0).as_primitive::<TimestampMicrosecondType>();
    assert_eq!(shifted.value(1), 86_400_000_001);
}

#[test]
fn json_paths_read_text_and_documents() {
    let computed =
        run("SELECT payload->>'x' AS x, payload->'y' AS y, (payload->>'x')::BIGINT AS n");
    assert_eq!(computed.batch.column(0).as_string::<i32>().value(0), "1");
    assert_eq!(computed.batch.column(1).as_string::<i32>().value(0), r#"{"z":2}"#);
    assert!(is_json(computed.batch.schema().field(1)));
    assert_eq!(computed.batch.column(2).as_primitive::<Int64Type>().value(0), 1);
}

#[test]
fn star_is_the_declared_columns() {
    let program = RecordProgram::compile("SELECT *", input()).expect("compiles");
    let names: Vec<_> =
        program.output_schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["id", "n", "at", "payload"]);
    assert!(is_json(program.output_schema().field(3)));
}

#[test]
fn presence_follows_columns_and_json_paths() {
    let sent = |name: &str| (name == "n").then(|| "__sent_n".to_owned());
    let sql = "SELECT n + 1 AS n, payload->>'x' AS x, 'c' AS c, id AS id";
    let program = RecordProgram::compile_tracking(sql, input(), &sent).expect("compiles");
    let computed = program.run(&batch()).expect("runs");
    let sent_n = computed.sent[0].as_ref().expect("tracked");
    assert!(sent_n.value(2) && !sent_n.value(3));
    let sent_x = computed.sent[1].as_ref().expect("tracked");
    assert!(sent_x.value(0) && !sent_x.value(1));
    assert!(computed.sent[2].is_none() && computed.sent[3].is_none());
}

#[test]
fn inputs_names_what_is_read() {
    let program =
        RecordProgram::compile("SELECT n AS x WHERE id = 'a'", input()).expect("compiles");
    assert_eq!(program.inputs().into_iter().collect::<Vec<_>>(), ["id", "n"]);
}

#[test]
fn impure_functions_and_other_clauses_are_refused() {
    for sql in [
        "SELECT now() AS x",
        "SELECT current_date AS x",
        "SELECT random() AS x",
        "SELECT count(id) AS x",
        "SELECT row_number() OVER () AS x",
        "SELECT (SELECT 1) AS x",
        "SELECT id FROM t",
        "SELECT DISTINCT id",
        "SELECT id ORDER BY id",
        "SELECT id LIMIT 1",
        "SELECT id GROUP BY id",
        "SELECT 1 AS x UNION SELECT 2 AS x",
    ] {
        let error = RecordProgram::compile(sql, input()).expect_err(sql);
        assert_eq!(error.sqlstate(), "0A000", "{sql}: {error}");
    }
}

#[test]
fn wrong_names_and_text_have_their_codes() {
    for (sql, state) in [
        ("SELECT nothing AS x", "42703"),
        ("SELECT id AS x, n AS x", "42701"),
        ("SELECT n + 1", "42601"),
        ("SELECT id id id", "42601"),
        ("SELECT id WHERE n", "42804"),
    ] {
        let error = RecordProgram::compile(sql, input()).expect_err(sql);
        assert_eq!(error.sqlstate(), state, "{sql}: {error}");
    }
}
