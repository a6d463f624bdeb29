//! `everwhen sql`: statements to a server, one by one, and their rows in the form asked for.

mod client;
mod repl;
mod split;
pub(super) mod table;

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::Value;

use super::DEFAULT_URL;
use client::Client;

/// What to run, where, and how to show it.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// URL of the server's HTTP listener.
    #[arg(long, env = "EVERWHEN_URL", default_value = DEFAULT_URL)]
    url: String,
    /// Runs this text and ends.
    #[arg(short, long, value_name = "SQL", conflicts_with = "file")]
    command: Option<String>,
    /// Runs a file and ends; "-" is standard input.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// How rows are printed.
    #[arg(long, value_enum, default_value_t = Form::Table)]
    format: Form,
    /// The tenant to work for [default: default].
    #[arg(long, env = "EVERWHEN_TENANT")]
    tenant: Option<String>,
}

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Form {
    /// Columns under each other, for people.
    Table,
    /// Comma-separated values with a line of names; NULL is nothing, empty text is "".
    Csv,
    /// A list of objects.
    Json,
    /// One object a line.
    Ndjson,
    /// A Markdown table.
    Markdown,
}

/// Runs statements, or a prompt where standard input is a terminal.
///
/// # Errors
/// The first statement that fails ends it.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let client = Client::new(&arguments.url, arguments.tenant)?;
    let text = match (&arguments.command, &arguments.file) {
        (Some(command), _) => command.clone(),
        (None, Some(file)) if file.as_os_str() != "-" => std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?,
        (None, None) if std::io::stdin().is_terminal() => {
            return repl::run(&client, &arguments.url, arguments.format).await;
        }
        _ => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
            text
        }
    };
    for piece in split::statements(&text) {
        run_one(&client, piece.text, arguments.format).await?;
    }
    Ok(())
}

/// Runs one statement and prints its answer.
async fn run_one(client: &Client, sql: &str, form: Form) -> anyhow::Result<()> {
    if matches!(form, Form::Csv | Form::Ndjson) {
        return client.copy(sql, form).await;
    }
    let answer = client.ask(sql).await?;
    let shown = shown(&answer, form);
    let mut out = std::io::stdout();
    out.write_all(shown.as_bytes()).and_then(|()| out.flush()).context("cannot print")?;
    Ok(())
}

/// Returns an answer as text.
fn shown(answer: &Value, form: Form) -> String {
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
                if form == Form::Table {
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
            Value::String(text) => text.replace('\n', "\\n"),
            other => other.to_string(),
        })
        .collect()
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
    fn table_ends_with_the_number_of_rows() {
        let text = shown(&answer(), Form::Table);
        assert_eq!(text, " id | name\n----+------\n  1 | a\n  2 | NULL\n(2 rows)\n");
    }

    #[test]
    fn json_is_a_list_of_objects() {
        let text = shown(&answer(), Form::Json);
        let parsed: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed, json!([{"id": 1, "name": "a"}, {"id": 2, "name": null}]));
    }

    #[test]
    fn writes_say_their_transaction_to_people_alone() {
        let written = json!({"tx": 7, "system_time": "2026-01-05T00:00:00Z", "basis": "b"});
        assert_eq!(shown(&written, Form::Table), "tx 7 at 2026-01-05T00:00:00Z\n");
        assert_eq!(shown(&written, Form::Json), "");
    }
}
