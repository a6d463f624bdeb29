//! `everwhen config print` and `everwhen config check`.

use std::io::Write as _;

use super::serve;
use crate::config::{environment, unknown_variables};

/// What to do with the configuration.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Prints the configuration in force as a commented TOML file.
    Print(serve::Arguments),
    /// Says whether `serve` would take the configuration.
    Check(serve::Arguments),
}

/// Prints or checks what `serve` would be told by the same file, environment and flags.
///
/// # Errors
/// What is wrong with the configuration.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    match &arguments.action {
        Action::Print(given) => out.write_all(given.load()?.to_toml().as_bytes())?,
        Action::Check(given) => {
            given.load()?.check()?;
            for name in unknown_variables(&environment()) {
                eprintln!("warning: environment variable {name} names no configuration key");
            }
            writeln!(out, "the configuration is good")?;
        }
    }
    Ok(())
}
