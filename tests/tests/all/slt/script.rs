//! The form of the files: records parted by blank lines, `#` before a remark.
//!
//! ```text
//! clock 2026-01-11T00:00:00Z           moves the test clock
//! tenant acme                          changes to another tenant
//! let name                             keeps the one value of a query; {name} stands for it later
//! SELECT ..
//! statement ok                         a statement that works; several parted by `;` are one request
//! INSERT ..
//! statement error 22023 [text]         one that fails with this SQLSTATE, and this in its message
//! SELECT ..
//! query TI [rowsort]                   one that answers these types of columns and these rows
//! SELECT ..
//! ----
//! a 1
//! ```
//!
//! Types: T text, I int64, R float64 and decimals, B bool, P timestamptz, D date, ? all others.
//! With `rowsort` the order of rows is of no account. An empty text is shown as `(empty)`. A line
//! `onlyif http` or `onlyif postgres` before a record keeps it to that protocol: for what only one
//! of them has, or both have otherwise by their own rules.

use std::fmt::Write as _;
use std::path::Path;

use super::transport::Outcome;

/// What a line or a record of a file asks for.
#[derive(Clone)]
pub enum Step {
    Clock(String),
    Tenant(String),
    Let { name: String, sql: String },
    Record(Record),
}

/// What a statement must answer.
#[derive(Clone)]
enum Expected {
    Done,
    Error { state: String, text: String },
    Rows { kinds: String, sorted: bool, rows: Vec<String> },
}

/// A statement and what it must answer.
#[derive(Clone)]
pub struct Record {
    pub sql: String,
    expected: Expected,
}

/// A step, and where and for whom it stands.
#[derive(Clone)]
pub struct Placed {
    pub line: usize,
    /// The protocol that alone has it.
    only: Option<String>,
    pub step: Step,
}

impl Placed {
    /// True where a protocol is to take the step.
    pub fn is_for(&self, protocol: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == protocol)
    }
}

/// A file: its steps, and its remarks by the step they precede.
pub struct Script {
    pub name: String,
    pub steps: Vec<Placed>,
    remarks: Vec<Vec<String>>,
}

impl Script {
    /// Reads a file.
    pub fn read(path: &Path) -> Self {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(path).unwrap();
        let mut script = Self { name, steps: Vec::new(), remarks: vec![Vec::new()] };
        let mut lines = text.lines().enumerate().peekable();
        while let Some((index, line)) = lines.next() {
            if line.starts_with('#') {
                script.remarks.last_mut().unwrap().push(line.to_owned());
            } else if line.is_empty() {
                // A blank line between remarks parts them.
                let remarks = script.remarks.last_mut().unwrap();
                if !remarks.is_empty() {
                    remarks.push(String::new());
                }
            } else {
                let mut body = Vec::new();
                while let Some((_, line)) = lines.next_if(|(_, line)| !line.is_empty()) {
                    body.push(line);
                }
                let place = format!("{}:{}", script.name, index + 1);
                let (only, head, body) = match line.strip_prefix("onlyif ") {
                    Some(protocol) => (Some(protocol.to_owned()), body[0], &body[1..]),
                    None => (None, line, body.as_slice()),
                };
                script.steps.push(Placed { line: index + 1, only, step: step(head, body, &place) });
                script.remarks.push(Vec::new());
            }
        }
        script
    }

    /// Writes the file with what its records expect now.
    pub fn write(&self, path: &Path) {
        let mut text = String::new();
        for (index, remarks) in self.remarks.iter().enumerate() {
            for line in remarks {
                let _ = writeln!(text, "{line}");
            }
            if let Some(Placed { only, step, .. }) = self.steps.get(index) {
                if let Some(protocol) = only {
                    let _ = writeln!(text, "onlyif {protocol}");
                }
                let _ = writeln!(text, "{}\n", step_text(step));
            }
        }
        std::fs::write(path, format!("{}\n", text.trim_end())).unwrap();
    }
}

fn step(head: &str, body: &[&str], place: &str) -> Step {
    let words: Vec<&str> = head.split_whitespace().collect();
    let at = body.iter().position(|line| *line == "----");
    let sql = body[..at.unwrap_or(body.len())].join("\n");
    let rows: Vec<String> =
        at.map_or(&[][..], |at| &body[at + 1..]).iter().map(|row| (*row).to_owned()).collect();
    let expected = match words.as_slice() {
        ["clock", instant] => return Step::Clock((*instant).to_owned()),
        ["tenant", name] => return Step::Tenant((*name).to_owned()),
        ["let", name] => return Step::Let { name: (*name).to_owned(), sql },
        ["statement", "ok"] => Expected::Done,
        ["statement", "error", state, text @ ..] => {
            Expected::Error { state: (*state).to_owned(), text: text.join(" ") }
        }
        ["query", kinds] => Expected::Rows { kinds: (*kinds).to_owned(), sorted: false, rows },
        ["query", kinds, "rowsort"] => {
            Expected::Rows { kinds: (*kinds).to_owned(), sorted: true, rows }
        }
        _ => panic!("{place}: what is \"{head}\"?"),
    };
    assert!(!sql.is_empty(), "{place}: there is no statement");
    Step::Record(Record { sql, expected })
}

fn step_text(step: &Step) -> String {
    match step {
        Step::Clock(at) => format!("clock {at}"),
        Step::Tenant(name) => format!("tenant {name}"),
        Step::Let { name, sql } => format!("let {name}\n{sql}"),
        Step::Record(Record { sql, expected }) => match expected {
            Expected::Done => format!("statement ok\n{sql}"),
            Expected::Error { state, text } => {
                format!("{}\n{sql}", format!("statement error {state} {text}").trim_end())
            }
            Expected::Rows { kinds, sorted, rows } => {
                let order = if *sorted { " rowsort" } else { "" };
                let rows: String = rows.iter().map(|row| format!("\n{row}")).collect();
                format!("query {kinds}{order}\n{sql}\n----{rows}")
            }
        },
    }
}

impl Record {
    /// True where an outcome is the expected one.
    pub fn agrees(&self, found: &Outcome) -> bool {
        match (&self.expected, found) {
            (Expected::Done, Outcome::Done) => true,
            (Expected::Error { state, text }, Outcome::Error { state: found, message }) => {
                state == found && message.contains(text.as_str())
            }
            (
                Expected::Rows { kinds, rows, .. },
                Outcome::Rows { kinds: found_kinds, rows: found },
            ) => kinds == found_kinds && self.in_order(rows.clone()) == self.lines(found),
            _ => false,
        }
    }

    /// Returns the record with an outcome's rows in place of its own; nothing where either has none.
    pub fn with_rows_of(&self, found: &Outcome) -> Option<Self> {
        let (Expected::Rows { sorted, .. }, Outcome::Rows { kinds, rows }) =
            (&self.expected, found)
        else {
            return None;
        };
        let expected =
            Expected::Rows { kinds: kinds.clone(), sorted: *sorted, rows: self.lines(rows) };
        Some(Self { sql: self.sql.clone(), expected })
    }

    pub fn expected_text(&self) -> String {
        match &self.expected {
            Expected::Done => "no rows and no error".to_owned(),
            Expected::Error { state, text } => format!("error {state} {text}"),
            Expected::Rows { kinds, rows, .. } => {
                format!("{kinds}\n{}", self.in_order(rows.clone()).join("\n"))
            }
        }
    }

    pub fn found_text(&self, found: &Outcome) -> String {
        match found {
            Outcome::Rows { kinds, rows } => format!("{kinds}\n{}", self.lines(rows).join("\n")),
            other => other.to_string(),
        }
    }

    fn lines(&self, rows: &[Vec<String>]) -> Vec<String> {
        self.in_order(rows.iter().map(|row| row.join(" ")).collect())
    }

    fn in_order(&self, mut lines: Vec<String>) -> Vec<String> {
        if matches!(self.expected, Expected::Rows { sorted: true, .. }) {
            lines.sort();
        }
        lines
    }
}
