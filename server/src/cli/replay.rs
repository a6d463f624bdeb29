//! `everwhen replay`: a data directory rebuilt from the journal and the topics it names.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use everwhen_ingest::{ReplayOptions, Replayed, replay};
use everwhen_storage::{TxId, segments};

use super::journal::open_store;
use super::progress::Counter;
use crate::telemetry;

/// What to replay, and where to.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A segment of the journal, or a directory of them.
    #[arg(long, value_name = "FILE|DIR")]
    journal: PathBuf,
    /// Data directory: made where it does not exist; one with data goes on from where it stands.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Stops with the batch that holds this transaction.
    #[arg(long, value_name = "N")]
    to_tx: Option<u64>,
    /// Brokers in place of those that the streams name.
    #[arg(long, value_name = "HOST:PORT,..")]
    brokers: Option<String>,
    /// Log filter: error, warn, info, debug, trace.
    #[arg(long, value_name = "FILTER", env = "EVERWHEN_LOG", default_value = "warn")]
    log: String,
}

/// Rebuilds a data directory. A new one appears under its name once it is whole.
///
/// # Errors
/// Where the journal cannot be followed; a second call goes on from there.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    telemetry::check_filter(&arguments.log).map_err(anyhow::Error::msg)?;
    telemetry::init(&arguments.log);
    let replayed = tokio::task::spawn_blocking(move || rebuild(&arguments)).await??;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "replayed {} transactions, {} records read again; the store stands at transaction {} of {}",
        replayed.transactions, replayed.records, replayed.last_tx, replayed.system_time
    )?;
    Ok(())
}

fn rebuild(arguments: &Arguments) -> anyhow::Result<Replayed> {
    let paths = segments_at(&arguments.journal)?;
    let (place, is_new) = place_of(&arguments.data)?;
    let store = open_store(&place)?;
    let options = ReplayOptions {
        brokers: arguments.brokers.clone(),
        through: arguments.to_tx.map(TxId::new),
        ..ReplayOptions::default()
    };
    let mut progress = Counter::new("transactions");
    let replayed = replay(&store, &paths, &options, &mut |done| {
        progress.at("replayed", done.transactions, None);
    });
    let replayed = replayed.and_then(|replayed| {
        store.close()?;
        Ok(replayed)
    });
    drop(progress);
    let replayed = replayed?;
    if is_new {
        std::fs::rename(&place, &arguments.data)
            .and_then(|()| sync_parent(&arguments.data))
            .with_context(|| format!("cannot name it {}", arguments.data.display()))?;
    }
    Ok(replayed)
}

fn segments_at(journal: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !journal.is_dir() {
        return Ok(vec![journal.to_owned()]);
    }
    let found: Vec<PathBuf> = segments(journal)?.into_iter().map(|(.., path)| path).collect();
    ensure!(!found.is_empty(), "{} holds no segment of a journal", journal.display());
    Ok(found)
}

/// Returns where to build, and whether that is beside the directory's final place.
fn place_of(data: &Path) -> anyhow::Result<(PathBuf, bool)> {
    if data.join("FORMAT").is_file() {
        return Ok((data.to_owned(), false));
    }
    if data.exists() {
        let is_empty = data.is_dir() && std::fs::read_dir(data)?.next().is_none();
        ensure!(is_empty, "{} is neither empty nor a data directory", data.display());
    }
    let Some(name) = data.file_name() else { bail!("{} names no directory", data.display()) };
    let mut beside = name.to_owned();
    beside.push(".replaying");
    Ok((data.with_file_name(beside), true))
}

fn sync_parent(path: &Path) -> std::io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    std::fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}
