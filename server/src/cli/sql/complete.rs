//! Completion at the prompt: words of SQL, names of tables and columns, commands.

use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

use super::client::Client;
use super::commands;

const WORDS: &[&str] = &[
    "ALL",
    "ALTER PROJECTION",
    "ALTER STREAM",
    "ALTER TABLE",
    "AND",
    "AS",
    "AS OF",
    "ASC",
    "ASSERT",
    "BEGIN",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "COALESCE_PERIODS",
    "COMMIT",
    "CONTAINS",
    "COUNT",
    "CREATE",
    "CROSS JOIN",
    "CURRENT_DATE",
    "DEFAULT",
    "DELETE FROM",
    "DESC",
    "DISTINCT",
    "DROP",
    "ELSE",
    "END",
    "EQUALS",
    "ERASE FROM",
    "EXISTS",
    "EXPLAIN",
    "FOR",
    "FROM",
    "FULL JOIN",
    "GROUP BY",
    "HAVING",
    "IMMEDIATELY",
    "IN",
    "INNER JOIN",
    "INSERT INTO",
    "INTERVAL",
    "IS",
    "JOIN",
    "LAGS",
    "LATERAL",
    "LEADS",
    "LEFT JOIN",
    "LIKE",
    "LIMIT",
    "MAPPING",
    "NOT",
    "NULL",
    "OFFSET",
    "ON",
    "ONLY",
    "OR",
    "ORDER BY",
    "OVERLAPS",
    "PATCH INTO",
    "PERIOD",
    "PORTION OF",
    "PRECEDES",
    "PRIMARY KEY",
    "PROJECTION",
    "RANGE_BINS",
    "RECORDS",
    "RETURNING",
    "RIGHT JOIN",
    "SELECT",
    "SET",
    "SETTING",
    "SHOW",
    "STREAM",
    "STRICTLY",
    "SUCCEEDS",
    "SYSTEM_TIME",
    "TABLE",
    "THEN",
    "TIMESTAMP",
    "UNION",
    "UPDATE",
    "USING",
    "VALID_TIME",
    "VALUES",
    "VIEW",
    "WHEN",
    "WHERE",
    "WITH",
];

/// What can be completed.
#[derive(Default)]
pub(super) struct Names {
    /// Tables, views, columns and hidden columns.
    names: Vec<String>,
}

impl Names {
    /// Asks the server for its names; none where it does not answer.
    pub(super) async fn of(client: &Client) -> Self {
        let sql = "SELECT DISTINCT \"table\" AS name FROM everwhen.columns \
                   UNION SELECT \"column\" FROM everwhen.columns \
                   UNION SELECT view FROM everwhen.views";
        let hidden = ["_valid_from", "_valid_to", "_valid_time", "_system_from", "_system_to"];
        let mut names: Vec<String> = hidden.map(str::to_owned).to_vec();
        if let Ok(answer) = client.ask(sql).await {
            let rows = answer["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
            names.extend(rows.iter().filter_map(|row| Some(row[0].as_str()?.to_owned())));
        }
        names.extend(["everwhen.".to_owned(), "_system_time".to_owned(), "_tx".to_owned()]);
        names.sort_unstable();
        names.dedup();
        Self { names }
    }

    fn completions(&self, line: &str, position: usize) -> (usize, Vec<String>) {
        let before = line.get(..position).unwrap_or_default();
        if before.trim_start().starts_with('\\') && !before.trim_start().contains(' ') {
            let start = before.len() - before.trim_start().len();
            let typed = before.trim_start();
            let found = commands::NAMES.iter().filter(|name| name.starts_with(typed));
            return (start, found.map(|name| (*name).to_owned()).collect());
        }
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let start = before
            .rfind(|c| !is_part(c))
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        let typed = &before[start..];
        if typed.is_empty() {
            return (position, Vec::new());
        }
        let upper = typed.to_uppercase();
        let is_lower = typed.chars().next().is_some_and(char::is_lowercase);
        let words = WORDS.iter().filter(|word| word.starts_with(&upper));
        let words =
            words.map(|word| if is_lower { word.to_lowercase() } else { (*word).to_owned() });
        let names = self.names.iter().filter(|name| name.starts_with(typed)).cloned();
        (start, names.chain(words).collect())
    }
}

impl Completer for Names {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.completions(line, position))
    }
}

impl Hinter for Names {
    type Hint = String;
}

impl Highlighter for Names {}
impl Validator for Names {}
impl Helper for Names {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_names_and_commands_are_completed_in_the_case_that_was_begun() {
        let names = Names { names: vec!["sites".to_owned(), "size".to_owned()] };
        let at_end = |line: &str| names.completions(line, line.len());
        assert_eq!(at_end("SEL"), (0, vec!["SELECT".to_owned()]));
        assert_eq!(at_end("select * from si"), (14, vec!["sites".to_owned(), "size".to_owned()]));
        assert_eq!(at_end("select 1 uni"), (9, vec!["union".to_owned()]));
        assert_eq!(at_end("\\tim"), (0, vec!["\\timing".to_owned()]));
        assert_eq!(at_end("é.si").0, 3);
        assert!(at_end("SELECT ").1.is_empty());
    }
}
