//! Answers as text, in the form asked for.

use serde_json::Value;

use super::{Form, table};

/// Returns an answer as text; rows of a table under each other where `expanded`.
pub(super) fn shown(answer: &Value, form: Form, expanded: bool) -> String {
    let mut out = String::new();
    if answer["columns"].is_array() {
        let names: Vec<String> = column_texts(answer, "name");
        let rows = answer["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
        match form {
            Form::Json | Form::Csv | Form::Ndjson => out.push_str(&objects(&names, rows)),
            Form::Table | Form::Markdown => {
                let right: Vec<bool> = column_texts(answer, "type")
                    .iter()
                    .map(|kind| {
                        ["int64", "float64"].contains(&kind.as_str()) || kind.starts_with("dec")
                    })
                    .collect();
                let cells: Vec<Vec<String>> = rows.iter().map(row_cells).collect();
                if form == Form::Table && expanded {
                    out.push_str(&table::expanded(&names, &cells));
                } else if form == Form::Table {
                    out.push_str(&table::draw(&names, &cells, &right));
                    let s = if rows.len() == 1 { "" } else { "s" };
                    out.push_str(&format!("({} row{s})\n", rows.len()));
                } else {
                    out.push_str(&table::markdown(&names, &cells, &right));
                }
            }
        }
    }
    if let (Form::Table, Some(tx)) = (form, answer["tx"].as_u64()) {
        let at = answer["system_time"].as_str().unwrap_or_default();
        out.push_str(&format!("tx {tx} at {at}\n"));
        let warnings = answer["warnings"].as_array().map(Vec::as_slice).unwrap_or_default();
        for warning in warnings.iter().filter_map(Value::as_str) {
            out.push_str(&format!("WARNING: {}\n", harmless(warning)));
        }
    }
    out
}

fn column_texts(answer: &Value, field: &str) -> Vec<String> {
    let columns = answer["columns"].as_array().map(Vec::as_slice).unwrap_or_default();
    columns.iter().map(|column| column[field].as_str().unwrap_or_default().to_owned()).collect()
}

fn row_cells(row: &Value) -> Vec<String> {
    let cells = row.as_array().map(Vec::as_slice).unwrap_or_default();
    cells
        .iter()
        .map(|cell| match cell {
            Value::Null => "NULL".to_owned(),
            Value::String(text) => harmless(text),
            other => other.to_string(),
        })
        .collect()
}

/// Returns a text for a terminal: with its lines, but without what would move the cursor.
fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.trim_end_matches('\n').chars() {
        match character {
            '\n' => out.push('\n'),
            control if control.is_control() => out.extend(control.escape_default()),
            other => out.push(other),
        }
    }
    out
}

/// Writes rows as a list of objects, one a line. Names may repeat, so no map is built.
fn objects(names: &[String], rows: &[Value]) -> String {
    let object = |row: &Value| {
        let cells = row.as_array().map(Vec::as_slice).unwrap_or_default();
        let fields: Vec<_> = names
            .iter()
            .zip(cells)
            .map(|(name, cell)| format!("{}: {cell}", Value::from(name.as_str())))
            .collect();
        format!("{{{}}}", fields.join(", "))
    };
    let objects: Vec<_> = rows.iter().map(object).collect();
    format!("[{}]\n", objects.join(",\n "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer() -> Value {
        json!({
            "columns": [{"name": "id", "type": "int64"}, {"name": "name", "type": "text"}],
            "rows": [[1, "a"], [2, null]],
        })
    }

    #[test]
    fn what_would_move_the_cursor_is_escaped() {
        assert_eq!(harmless("a\tb\x1b[2J\nc\n"), "a\\tb\\u{1b}[2J\nc");
    }

    #[test]
    fn table_ends_with_the_number_of_rows() {
        let text = shown(&answer(), Form::Table, false);
        assert_eq!(text, " id | name\n----+------\n  1 | a\n  2 | NULL\n(2 rows)\n");
    }

    #[test]
    fn expanded_rows_stand_under_each_other() {
        let text = shown(&answer(), Form::Table, true);
        let expected = "-[ row 1 ]-\n id   | 1\n name | a\n-[ row 2 ]-\n id   | 2\n name | NULL\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn json_is_a_list_of_objects() {
        let text = shown(&answer(), Form::Json, false);
        let parsed: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed, json!([{"id": 1, "name": "a"}, {"id": 2, "name": null}]));
    }

    #[test]
    fn writes_say_their_transaction_to_people_alone() {
        let written = json!({"tx": 7, "system_time": "2026-01-05T00:00:00Z", "basis": "b"});
        assert_eq!(shown(&written, Form::Table, false), "tx 7 at 2026-01-05T00:00:00Z\n");
        assert_eq!(shown(&written, Form::Json, false), "");
        let warned = json!({"tx": 7, "system_time": "T", "basis": "b", "warnings": ["look out"]});
        assert_eq!(shown(&warned, Form::Table, false), "tx 7 at T\nWARNING: look out\n");
    }
}
