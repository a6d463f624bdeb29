//! The files of `tests/slt`: SQL statements with the rows or the error that each must answer. Each
//! file runs over every protocol, each time in an empty database of its own, and must answer the same;
//! `script` has the form of the files, `transport` the ways to a server and the text form of values,
//! which is the same on all of them.
//!
//! `EVERWHEN_SLT=name` runs the files whose names contain it; `EVERWHEN_SLT_UPDATE=1` writes the
//! rows that were found into the files, for whoever then reads them through.

mod script;
mod transport;
mod wire;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use everwhen_tests::one_at_a_time;
use everwhen_tests::process::Server;

use script::{Record, Script, Step};
use transport::{Http, Outcome, Transport};
use wire::Postgres;

/// What the clock of every file's server says at its beginning.
const CLOCK: &str = "2026-01-10T12:00:00Z";
/// Over both protocols together.
const STATEMENTS_MIN: usize = 1_200;
const PROTOCOLS: [&str; 2] = ["http", "postgres"];
const MISMATCHES_SHOWN_MAX: usize = 100;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("slt")
}

fn files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).unwrap();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "slt"))
        .collect();
    files.sort();
    files
}

/// What running files came to.
#[derive(Default)]
struct Tally {
    statements: usize,
    mismatches: Vec<String>,
}

/// Runs the steps of one file over one transport.
struct Run<'a> {
    server: &'a Server,
    transport: &'a mut dyn Transport,
    script: &'a mut Script,
    names: BTreeMap<String, String>,
}

impl Run<'_> {
    async fn all(mut self, tally: &mut Tally) {
        for index in 0..self.script.steps.len() {
            let placed = self.script.steps[index].clone();
            if !placed.is_for(self.transport.name()) {
                continue;
            }
            match placed.step {
                Step::Clock(at) => self.server.client.set_clock(&at).await.unwrap(),
                Step::Tenant(name) => self.transport.set_tenant(&name),
                Step::Let { name, sql } => {
                    let value = match self.transport.run(&self.filled(&sql)).await {
                        Outcome::Rows { rows, .. } if rows.len() == 1 => rows[0].join(" "),
                        found => format!("no value: {found}"),
                    };
                    self.names.insert(name, value);
                }
                Step::Record(record) => {
                    tally.statements += 1;
                    let sql = self.filled(&record.sql);
                    let found = self.transport.run(&sql).await;
                    if let Some(mismatch) = self.checked(index, &record, &found) {
                        let (name, over) = (&self.script.name, self.transport.name());
                        let place = format!("{name}:{} over {over}", placed.line);
                        tally.mismatches.push(format!("{place}\n{sql}\n{mismatch}"));
                    }
                }
            }
        }
    }

    /// Puts what `let` has named into a statement.
    fn filled(&self, sql: &str) -> String {
        let names = self.names.iter();
        names.fold(sql.to_owned(), |sql, (name, value)| sql.replace(&format!("{{{name}}}"), value))
    }

    /// Says how an outcome differs from what a record expects; in update mode rows do not differ.
    fn checked(&mut self, index: usize, record: &Record, found: &Outcome) -> Option<String> {
        if record.agrees(found) {
            return None;
        }
        if let (true, Some(found)) = (updating(), record.with_rows_of(found)) {
            self.script.steps[index].step = Step::Record(found);
            return None;
        }
        Some(format!("expected {}\nfound {}", record.expected_text(), record.found_text(found)))
    }
}

fn updating() -> bool {
    std::env::var_os("EVERWHEN_SLT_UPDATE").is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_statement_answers_what_its_file_says() {
    let _turn = one_at_a_time();
    let only = std::env::var("EVERWHEN_SLT").unwrap_or_default();
    let mut tally = Tally::default();
    for path in files() {
        let mut script = Script::read(&path);
        if !script.name.contains(&only) {
            continue;
        }
        for over in PROTOCOLS {
            run_over(over, &mut script, &mut tally).await;
        }
        if updating() {
            script.write(&path);
        }
    }
    println!("{} statements", tally.statements);
    assert!(tally.mismatches.is_empty(), "{}", report(&tally));
    assert!(
        !only.is_empty() || tally.statements >= STATEMENTS_MIN,
        "only {} statements were found",
        tally.statements
    );
}

/// Runs a file over one protocol.
async fn run_over(protocol: &str, script: &mut Script, tally: &mut Tally) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), Some(CLOCK)).await.unwrap();
    let mut transport: Box<dyn Transport> = match protocol {
        "http" => Box::new(Http::new(server.client.clone())),
        _ => Box::new(Postgres::new(&server.postgres)),
    };
    assert_eq!(transport.name(), protocol);
    let names = BTreeMap::new();
    Run { server: &server, transport: transport.as_mut(), script, names }.all(tally).await;
}

fn report(tally: &Tally) -> String {
    let count = tally.mismatches.len();
    let mut text = format!("{count} of {} statements answered otherwise\n", tally.statements);
    for mismatch in tally.mismatches.iter().take(MISMATCHES_SHOWN_MAX) {
        let _ = write!(text, "\n{mismatch}\n");
    }
    text
}
