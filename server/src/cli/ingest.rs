//! `everwhen ingest`: a history from a file into an empty table of a stopped data directory.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::ensure;
use everwhen_ingest::{FileLoad, Rejects, load_file};
use everwhen_storage::{LoadProgress, Tenant};

use super::journal::open_store;
use super::progress::Counter;
use crate::telemetry;

/// What to load, and into which table.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Data directory, which no process has open.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The table: it must exist and never have had a row.
    #[arg(long, value_name = "NAME")]
    table: String,
    /// One JSON object a line: the table's columns, and perhaps _valid_from, _valid_to,
    /// _system_from, _order and _op (put, patch, delete).
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// The tenant that the rows belong to.
    #[arg(long, value_name = "NAME", default_value = "default")]
    tenant: String,
    /// Loads what can be loaded and writes the other lines here. Without it one bad line is enough
    /// for nothing to be loaded.
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Memory for sorting, in MiB.
    #[arg(long, value_name = "N", default_value_t = 256)]
    sort_mib: usize,
    /// Log filter: error, warn, info, debug, trace.
    #[arg(long, value_name = "FILTER", env = "EVERWHEN_LOG", default_value = "warn")]
    log: String,
}

/// Loads the file, all of it or nothing.
///
/// # Errors
/// What is wrong with the table or with which lines.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    telemetry::check_filter(&arguments.log).map_err(anyhow::Error::msg)?;
    telemetry::init(&arguments.log);
    tokio::task::spawn_blocking(move || load(&arguments)).await?
}

fn show(counter: &mut Option<Counter>, what: &str, done: u64, of: Option<u64>) {
    if let Some(counter) = counter {
        counter.at(what, done, of);
    }
}

fn load(arguments: &Arguments) -> anyhow::Result<()> {
    let data = &arguments.data;
    ensure!(data.join("FORMAT").is_file(), "{} is no data directory", data.display());
    let store = open_store(data)?;
    let load = FileLoad {
        path: arguments.file.clone(),
        table: arguments.table.clone(),
        tenant: Tenant::new(&arguments.tenant)?,
        rejects: arguments.rejects.clone().map_or(Rejects::Refuse, Rejects::Write),
        sort_bytes_max: arguments.sort_mib.max(1) << 20,
    };
    let mut progress = Some(Counter::new("rows"));
    let told = Box::new(move |at| match at {
        LoadProgress::Read(rows) => show(&mut progress, "read", rows, None),
        LoadProgress::Folded(rows, all) => show(&mut progress, "folded", rows, Some(all)),
        LoadProgress::Publishing => progress = None,
    });
    let loaded = load_file(&store, &load, told);
    store.close()?;
    let loaded = loaded?;
    let mut out = std::io::stdout();
    write!(out, "loaded {} rows into {}", loaded.rows, arguments.table)?;
    if let Some(rejects) = &arguments.rejects {
        write!(out, ", {} lines rejected ({})", loaded.rejected, rejects.display())?;
    }
    writeln!(out, "; the last is transaction {}", loaded.committed.last_tx)?;
    Ok(())
}
