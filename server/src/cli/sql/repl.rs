//! The prompt: statements of several lines, history, and a few commands that begin with `\`.

use std::path::PathBuf;
use std::time::Duration;

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::client::Client;
use super::{Form, run_one, split};
use crate::cli::complain;

const HELP: &str = "\
Statements end with a semicolon and may take several lines.
  \\d          lists tables
  \\d NAME     lists a table's columns
  \\ds         lists streams
  \\dp         lists projections
  \\format F   prints rows as table, csv, json, ndjson or markdown
  \\timing     turns the time each statement takes on or off
  \\q          ends (so does Ctrl-D)";

struct Prompt<'a> {
    client: &'a Client,
    form: Form,
    timing: bool,
}

/// Reads and runs statements until the end of input.
///
/// # Errors
/// Where the terminal cannot be read. Statements that fail are told and do not end it.
pub(super) async fn run(client: &Client, url: &str, form: Form) -> anyhow::Result<()> {
    let mut editor = DefaultEditor::new()?;
    let history = history_file();
    if let Some(file) = &history {
        // There is none the first time.
        let _ = editor.load_history(file);
    }
    println!("Everwhen at {url}. \\? helps, \\q ends.");
    let mut prompt = Prompt { client, form, timing: false };
    let mut pending = String::new();
    loop {
        let mark = if pending.is_empty() { "everwhen> " } else { "     ...> " };
        match editor.readline(mark) {
            Ok(line) => {
                if pending.is_empty() && line.trim_start().starts_with('\\') {
                    let _ = editor.add_history_entry(line.trim());
                    if !prompt.command(line.trim()).await {
                        break;
                    }
                    continue;
                }
                pending.push_str(&line);
                pending.push('\n');
                if prompt.run_ended(&mut pending, &mut editor).await.is_err() {
                    break;
                }
            }
            Err(ReadlineError::Interrupted) => pending.clear(),
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(file) = &history {
        let _ = editor.save_history(file);
    }
    Ok(())
}

impl Prompt<'_> {
    /// Runs what is pending once it ends with a semicolon.
    async fn run_ended(
        &self,
        pending: &mut String,
        editor: &mut DefaultEditor,
    ) -> anyhow::Result<()> {
        let pieces = split::statements(pending);
        if pieces.iter().any(|piece| !piece.ended) {
            return Ok(());
        }
        let text = std::mem::take(pending);
        let _ = editor.add_history_entry(text.trim());
        for piece in split::statements(&text) {
            self.run(piece.text).await;
        }
        Ok(())
    }

    async fn run(&self, sql: &str) {
        let clock = everwhen_storage::RealClock;
        let started = everwhen_storage::Clock::monotonic(&clock);
        if let Err(error) = run_one(self.client, sql, self.form).await {
            complain(&error);
        }
        let took = everwhen_storage::Clock::monotonic(&clock).saturating_duration_since(started);
        if self.timing {
            println!("time: {}", shown_time(took));
        }
    }

    /// Runs a command; false ends the prompt.
    async fn command(&mut self, line: &str) -> bool {
        let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let argument = argument.trim().trim_end_matches(';');
        match name {
            "\\q" | "\\quit" => return false,
            "\\d" | "\\dt" if argument.is_empty() => {
                self.run("SELECT * FROM everwhen.tables").await;
            }
            "\\d" => {
                let table = argument.replace('\'', "''");
                self.run(&format!("SELECT * FROM everwhen.columns WHERE \"table\" = '{table}'"))
                    .await;
            }
            "\\ds" => self.run("SELECT * FROM everwhen.streams").await,
            "\\dp" => self.run("SELECT * FROM everwhen.projections").await,
            "\\timing" => {
                self.timing = !self.timing;
                println!("timing is {}", if self.timing { "on" } else { "off" });
            }
            "\\format" => match <Form as clap::ValueEnum>::from_str(argument, true) {
                Ok(form) => self.form = form,
                Err(_) => println!("formats are: table, csv, json, ndjson, markdown"),
            },
            _ => println!("{HELP}"),
        }
        true
    }
}

fn shown_time(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1_000.0)
}

fn history_file() -> Option<PathBuf> {
    Some(PathBuf::from(std::env::var_os("HOME")?).join(".everwhen_history"))
}
