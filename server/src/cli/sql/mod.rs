//! `everwhen sql`: statements to a server, one by one, and their rows in the form asked for.

mod client;
mod commands;
mod complete;
mod copy;
mod print;
mod repl;
mod session;
mod split;
pub(super) mod table;

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;

use anyhow::Context as _;

use super::DEFAULT_URL;
use client::Client;
use session::Session;

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
    let mut session = Session::new(client, arguments.format);
    let text = match (&arguments.command, &arguments.file) {
        (Some(command), _) => command.clone(),
        (None, Some(file)) if file.as_os_str() != "-" => std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?,
        (None, None) if std::io::stdin().is_terminal() => {
            return repl::run(session, &arguments.url).await;
        }
        _ => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
            text
        }
    };
    session.run_all(&text).await
}
