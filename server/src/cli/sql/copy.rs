//! `\\copy`: rows to a file, and rows of a file into a table.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Map, Value};

use super::Form;
use super::client::Client;
use super::session::Session;
use crate::cli::progress::Counter;

/// Rows of one INSERT.
const ROWS_MAX: usize = 500;

/// Runs what follows `\\copy`.
///
/// # Errors
/// What is wrong with it, with the file, or with the rows: those before stay.
pub(super) async fn run(session: &mut Session, argument: &str) -> anyhow::Result<()> {
    let usage = "\\copy takes: T to FILE [F], (QUERY) to FILE [F] or T from FILE [csv|ndjson]";
    let (what, rest) = subject(argument).context(usage)?;
    let mut words = rest.split_whitespace();
    let (direction, file) = (words.next().context(usage)?, words.next().context(usage)?);
    let file = Path::new(file.trim_matches('\''));
    let form = match words.next() {
        Some(name) => {
            <Form as clap::ValueEnum>::from_str(name, true).map_err(anyhow::Error::msg)?
        }
        None if file.extension().is_some_and(|ending| ending == "csv") => Form::Csv,
        None => Form::Ndjson,
    };
    match direction.to_ascii_lowercase().as_str() {
        "to" => {
            let sql = match what.strip_prefix('(').and_then(|query| query.strip_suffix(')')) {
                Some(query) => query.to_owned(),
                None => format!("SELECT * FROM {what}"),
            };
            let before = std::mem::replace(&mut session.form, form);
            session.send_to(Some(file))?;
            let ran = session.run(&sql).await;
            session.form = before;
            session.send_to(None)?;
            ran
        }
        "from" => {
            let rows = load(&session.client, what, file, form).await?;
            println!("{rows} rows");
            Ok(())
        }
        _ => bail!("{usage}"),
    }
}

/// Splits off the table or the query in parentheses.
fn subject(argument: &str) -> Option<(&str, &str)> {
    if !argument.starts_with('(') {
        return argument.split_once(char::is_whitespace);
    }
    let mut depth = 0_usize;
    let mut quoted = false;
    for (at, c) in argument.char_indices() {
        match c {
            '\'' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(argument.split_at(at + 1));
                }
            }
            _ => {}
        }
    }
    None
}

async fn load(client: &Client, table: &str, file: &Path, form: Form) -> anyhow::Result<u64> {
    let kinds = kinds(client, table).await?;
    let open = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let rows: Box<dyn Iterator<Item = anyhow::Result<Map<String, Value>>>> = match form {
        Form::Csv => csv_rows(open, kinds)?,
        Form::Ndjson => Box::new(json_rows(BufReader::new(open))),
        _ => bail!("\\copy reads csv and ndjson"),
    };
    let mut counter = Counter::new("rows");
    let mut batch: Vec<Map<String, Value>> = Vec::new();
    let mut count = 0;
    for row in rows {
        let row = row.with_context(|| format!("row {} of {}", count + 1, file.display()))?;
        // One INSERT has one list of columns.
        let differs = batch.first().is_some_and(|first| !first.keys().eq(row.keys()));
        if differs || batch.len() == ROWS_MAX {
            insert(client, table, &batch).await?;
            batch.clear();
        }
        batch.push(row);
        count += 1;
        counter.at("copied", count, None);
    }
    insert(client, table, &batch).await?;
    Ok(count)
}

async fn insert(client: &Client, table: &str, rows: &[Map<String, Value>]) -> anyhow::Result<()> {
    let Some(first) = rows.first() else { return Ok(()) };
    let quoted = |name: &String| format!("\"{}\"", name.replace('"', "\"\""));
    let columns: Vec<_> = first.keys().map(quoted).collect();
    let mut number = 0;
    let mut tuples = Vec::with_capacity(rows.len());
    for row in rows {
        let places: Vec<_> = row
            .values()
            .map(|_| {
                number += 1;
                format!("${number}")
            })
            .collect();
        tuples.push(format!("({})", places.join(", ")));
    }
    let sql = format!("INSERT INTO {table} ({}) VALUES {}", columns.join(", "), tuples.join(", "));
    let params = rows.iter().flat_map(|row| row.values().cloned()).collect();
    client.ask_with(&sql, params).await?;
    Ok(())
}

/// Returns the types of a table's columns by name; none where there is no such table yet.
async fn kinds(client: &Client, table: &str) -> anyhow::Result<HashMap<String, String>> {
    let sql = "SELECT \"column\", type FROM everwhen.columns WHERE \"table\" = $1";
    let answer = client.ask_with(sql, vec![Value::from(table)]).await?;
    let rows = answer["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
    let pair = |row: &Value| Some((row[0].as_str()?.to_owned(), row[1].as_str()?.to_owned()));
    Ok(rows.iter().filter_map(pair).collect())
}

fn json_rows(
    lines: impl std::io::BufRead,
) -> impl Iterator<Item = anyhow::Result<Map<String, Value>>> {
    lines
        .lines()
        .filter(|line| !matches!(line, Ok(line) if line.trim().is_empty()))
        .map(|line| serde_json::from_str(&line?).context("this is no JSON object"))
}

type Rows = Box<dyn Iterator<Item = anyhow::Result<Map<String, Value>>>>;

fn csv_rows(
    file: impl std::io::Read + 'static,
    kinds: HashMap<String, String>,
) -> anyhow::Result<Rows> {
    let mut reader = csv::ReaderBuilder::new().from_reader(file);
    let names: Vec<String> = reader.headers()?.iter().map(str::to_owned).collect();
    ensure!(!names.is_empty(), "the first line of a CSV file names its columns");
    Ok(Box::new(reader.into_records().map(move |record| {
        let record = record?;
        let cells = names.iter().zip(record.iter());
        Ok(cells.map(|(name, cell)| (name.clone(), value_of(cell, kinds.get(name)))).collect())
    })))
}

/// Returns a cell as a value of its column's type; an empty one is NULL.
fn value_of(cell: &str, kind: Option<&String>) -> Value {
    let parsed = match kind.map(String::as_str) {
        _ if cell.is_empty() => Some(Value::Null),
        Some("int64" | "float64" | "bool") => serde_json::from_str(cell).ok(),
        _ => None,
    };
    parsed.unwrap_or_else(|| Value::from(cell))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_told_from_what_follows() {
        assert_eq!(subject("t to x.csv"), Some(("t", "to x.csv")));
        let query = "(SELECT ')' FROM (SELECT 1) y)";
        assert_eq!(subject(&format!("{query} to x")), Some((query, " to x")));
        assert_eq!(subject("(SELECT 1"), None);
    }

    #[test]
    fn cells_become_values_of_their_columns() {
        let int = "int64".to_owned();
        assert_eq!(value_of("", Some(&int)), Value::Null);
        assert_eq!(value_of("7", Some(&int)), Value::from(7));
        assert_eq!(value_of("x", Some(&int)), Value::from("x"));
        assert_eq!(value_of("7", None), Value::from("7"));
        let kinds = HashMap::from([("n".to_owned(), int)]);
        let text: &[u8] = b"n,name\n1,\"a,b\"\n,c\n";
        let rows: Vec<_> = csv_rows(text, kinds).unwrap().map(Result::unwrap).collect();
        let expected = [r#"{"n":1,"name":"a,b"}"#, r#"{"n":null,"name":"c"}"#];
        let shown: Vec<_> = rows.into_iter().map(|row| Value::Object(row).to_string()).collect();
        assert_eq!(shown, expected);
    }
}
