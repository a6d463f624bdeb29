//! `everwhen journal export`: the journal of a stopped data directory as files.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use everwhen_storage::{Options, RealClock, Store, TxId};

/// What to do with the journal.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Writes the journal of a data directory that no process has open.
    Export(Export),
}

#[derive(Debug, clap::Args)]
struct Export {
    /// Data directory.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// A file, or a directory to which what it lacks is added as one more segment.
    #[arg(long, value_name = "FILE|DIR")]
    to: PathBuf,
    /// The first transaction wanted, the first of its batch; for a file alone.
    #[arg(long, value_name = "N")]
    from_tx: Option<u64>,
}

/// Writes the journal.
///
/// # Errors
/// Where the directory is in use, or the target is of another history.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Action::Export(export) = &arguments.action;
    anyhow::ensure!(
        export.data.join("FORMAT").is_file(),
        "{} is no data directory",
        export.data.display()
    );
    let store = open_store(&export.data)?;
    let mut out = std::io::stdout();
    if export.to.is_dir() {
        anyhow::ensure!(export.from_tx.is_none(), "--from-tx is for a file: a directory goes on");
        match store.ship_journal(&export.to)? {
            Some(path) => writeln!(out, "wrote {}", path.display())?,
            None => writeln!(out, "{} lacks nothing", export.to.display())?,
        }
    } else {
        let after = TxId::new(export.from_tx.unwrap_or(1).saturating_sub(1));
        let partial = export.to.with_extension("partial");
        let shown = partial.display().to_string();
        let file = File::create(&partial).with_context(|| format!("cannot write {shown}"))?;
        let mut segment = BufWriter::with_capacity(1 << 20, file);
        let end = store.export_journal(after, &shown, &mut segment)?;
        segment.flush()?;
        segment.get_ref().sync_all()?;
        std::fs::rename(&partial, &export.to)?;
        writeln!(out, "wrote {}: up to transaction {}", export.to.display(), end.last.0)?;
    }
    store.close()?;
    Ok(())
}

/// Opens the store of a data directory for a command that serves nobody.
///
/// # Errors
/// Where another process has it open.
pub(super) fn open_store(data: &Path) -> anyhow::Result<Store> {
    Ok(Store::open(Options {
        path: data.to_owned(),
        clock: Arc::new(RealClock),
        sync: true,
        block_cache_bytes: 256 << 20,
    })?)
}
