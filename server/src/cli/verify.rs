//! `everwhen verify`: checks a data directory that no server uses.

use std::io::Write as _;
use std::path::PathBuf;

use everwhen_storage::snapshot::Progress;
use everwhen_storage::verify::{self, Report};

use super::Told;
use super::progress::{Bar, size};

/// What to check.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Data directory.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

/// Reads every byte and prints what was found.
///
/// # Errors
/// Damage, and whatever kept the directory from being read.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let data = arguments.data.clone();
    let report = tokio::task::spawn_blocking(move || {
        let bar = Bar::new();
        verify::directory(&data, &|progress: &Progress| bar.show(progress))
    })
    .await??;
    let mut out = std::io::stdout();
    writeln!(out, "{} files, {} of tables", report.files, size(report.bytes))?;
    for (family, entries) in &report.families {
        writeln!(out, "  {family:<14} {entries:>12}")?;
    }
    if report.unsummed > 0 {
        let count = report.unsummed;
        writeln!(out, "{count} table files have no checksum as a whole: checked block by block")?;
    }
    if report.is_good() {
        writeln!(out, "good: everything up to transaction {}", report.tx)?;
        return Ok(());
    }
    for problem in &report.problems {
        writeln!(out, "DAMAGED {problem}")?;
    }
    Err(Told(advice(&report)).into())
}

fn advice(report: &Report) -> String {
    let count = report.problem_count;
    let things = if count == 1 { "1 thing is".to_owned() } else { format!("{count} things are") };
    format!(
        "error: {things} damaged. Keep this directory as it is; restore a snapshot into a new one \
         (`everwhen restore --from SNAPSHOTS --data NEW`) and serve that: what came since is read \
         again from the topics."
    )
}
