//! What a prompt keeps between statements: a client, the form of answers, and where they go.

use std::fs::File;
use std::io::{IsTerminal as _, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use everwhen_storage::{Clock as _, RealClock};

use super::client::Client;
use super::{Form, print, split};
use crate::cli::Told;
use crate::cli::progress::Elapsed;

/// Runs statements one by one and prints their answers.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) form: Form,
    /// Rows of tables stand under each other.
    pub(super) expanded: bool,
    /// The time that each statement takes is shown.
    pub(super) timing: bool,
    /// The last statement that was run.
    pub(super) last: String,
    /// Where answers go instead of standard output.
    file: Option<File>,
}

impl Session {
    pub(super) fn new(client: Client, form: Form) -> Self {
        Self { client, form, expanded: false, timing: false, last: String::new(), file: None }
    }

    /// Sends answers to a file from now on, or to standard output again.
    ///
    /// # Errors
    /// Where the file cannot be made.
    pub(super) fn send_to(&mut self, path: Option<&Path>) -> anyhow::Result<()> {
        self.file = match path {
            None => None,
            Some(path) => Some(
                File::create(path).with_context(|| format!("cannot write {}", path.display()))?,
            ),
        };
        Ok(())
    }

    /// Runs the statements of a text, up to the first that fails.
    ///
    /// # Errors
    /// That one's.
    pub(super) async fn run_all(&mut self, text: &str) -> anyhow::Result<()> {
        for piece in split::statements(text) {
            self.run(piece.text).await?;
        }
        Ok(())
    }

    /// Runs one statement and prints its answer. Ctrl-C at a prompt cancels it.
    ///
    /// # Errors
    /// The server's refusal, or that none answers.
    pub(super) async fn run(&mut self, sql: &str) -> anyhow::Result<()> {
        sql.clone_into(&mut self.last);
        let started = RealClock.monotonic();
        let is_attended = std::io::stdin().is_terminal();
        let ran = {
            let running = self.answer(sql);
            if is_attended {
                tokio::select! {
                    ran = running => ran,
                    _ = tokio::signal::ctrl_c() => Err(Told("cancelled".to_owned()).into()),
                }
            } else {
                running.await
            }
        };
        let took = RealClock.monotonic().saturating_duration_since(started);
        if self.timing {
            println!("time: {}", shown_time(took));
        }
        ran
    }

    async fn answer(&mut self, sql: &str) -> anyhow::Result<()> {
        let mut standard = std::io::stdout();
        let out: &mut dyn Write = match &mut self.file {
            Some(file) => file,
            None => &mut standard,
        };
        if matches!(self.form, Form::Csv | Form::Ndjson) {
            return self.client.copy(sql, self.form, out).await;
        }
        let elapsed = Elapsed::start();
        let answer = self.client.ask(sql).await?;
        drop(elapsed);
        let shown = print::shown(&answer, self.form, self.expanded);
        out.write_all(shown.as_bytes()).and_then(|()| out.flush()).context("cannot print")
    }
}

fn shown_time(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1_000.0)
}
