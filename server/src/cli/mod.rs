//! The command line: one file a subcommand.

mod config;
pub mod demo;
mod ingest;
mod journal;
mod progress;
mod projector;
mod replay;
mod restore;
mod serve;
mod signals;
mod snapshot;
mod sql;
mod status;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A bitemporal database: Kafka in, SQL as of any point of both time axes, warehouses kept right.
#[derive(Debug, Parser)]
#[command(name = "everwhen", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the server.
    Serve(serve::Arguments),
    /// Delivers projections to sinks, as a process of its own.
    Projector(projector::Arguments),
    /// Runs SQL against a server: a command, a file, standard input, or a prompt.
    Sql(sql::Arguments),
    /// Shows how a server's streams and projections stand.
    Status(status::Arguments),
    /// Takes snapshots of a server's data, lists, verifies and removes them.
    Snapshot(snapshot::Arguments),
    /// Makes a data directory of a snapshot.
    Restore(restore::Arguments),
    /// Checks a data directory that no server uses, to the last byte.
    Verify(verify::Arguments),
    /// Shows or checks the server's configuration.
    Config(config::Arguments),
    /// Loads a history from a file into an empty table of a stopped data directory.
    Ingest(ingest::Arguments),
    /// Exports the journal of a stopped data directory.
    Journal(journal::Arguments),
    /// Rebuilds a data directory from an exported journal and the topics it names.
    Replay(replay::Arguments),
    /// Plays a week of late and corrected events, with nothing installed.
    Demo(demo::Arguments),
}

/// The URL of a server's HTTP listener, for commands that are clients.
const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// Runs the program with the process's arguments. 0 is success, 1 a failure, 2 a wrong command.
pub fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_stack_size(everwhen_query::QUERY_STACK_BYTES)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return complain(&anyhow::Error::new(error)),
    };
    let done = runtime.block_on(async {
        match command {
            Command::Serve(arguments) => serve::run(arguments).await,
            Command::Projector(arguments) => projector::run(arguments).await,
            Command::Sql(arguments) => sql::run(arguments).await,
            Command::Status(arguments) => status::run(&arguments).await,
            Command::Snapshot(arguments) => snapshot::run(arguments).await,
            Command::Restore(arguments) => restore::run(arguments).await,
            Command::Verify(arguments) => verify::run(arguments).await,
            Command::Config(arguments) => config::run(&arguments),
            Command::Ingest(arguments) => ingest::run(arguments).await,
            Command::Journal(arguments) => journal::run(&arguments),
            Command::Replay(arguments) => replay::run(arguments).await,
            Command::Demo(arguments) => demo::run(arguments).await,
        }
    });
    // Whatever still runs is not waited for: all that matters has ended in order.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error),
    }
}

/// Says what went wrong, with its causes, on standard error.
fn complain(error: &anyhow::Error) -> ExitCode {
    if let Some(told) = error.downcast_ref::<Told>() {
        eprintln!("{}", told.0);
    } else {
        eprintln!("error: {}", chain(error));
    }
    ExitCode::FAILURE
}

/// Prints an error and its causes, leaving out what an outer text has said already.
fn chain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// An error whose text is complete as it is.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Told(String);

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn arguments_are_declared_without_contradiction() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn causes_are_told_once() {
        let inner = anyhow::anyhow!("disk full");
        let error = inner.context("cannot write x").context("cannot start: cannot write x");
        assert_eq!(chain(&error), "cannot start: cannot write x: disk full");
    }
}
