//! `everwhen restore`: makes a data directory of a snapshot, or nothing.

use std::io::Write as _;
use std::path::PathBuf;

use everwhen_storage::snapshot::{self, Asked, Manifest, Progress, Restored, Target};
use everwhen_storage::{SystemTime, TxId};

use super::progress::{Bar, size};
use crate::service::snapshot::last_recorded;

/// What to restore, and where to.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Directory of snapshots.
    #[arg(long, value_name = "DIR")]
    from: String,
    /// Data directory to make: it must not exist, or be empty.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// This snapshot [default: the newest].
    #[arg(long, value_name = "N")]
    snapshot: Option<u64>,
    /// The newest one that ends at or before this transaction.
    #[arg(long, value_name = "N")]
    tx: Option<u64>,
    /// The newest one that ends at or before this instant of system time.
    #[arg(long, value_name = "INSTANT", conflicts_with = "tx")]
    system_time: Option<String>,
}

/// Restores.
///
/// # Errors
/// Why nothing was restored.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let target = Target::at(&arguments.from)?;
    let system_time = arguments.system_time.as_deref().map(SystemTime::parse).transpose()?;
    let asked =
        Asked { snapshot: arguments.snapshot, tx: arguments.tx.map(TxId::new), system_time };
    let data = std::path::absolute(&arguments.data)?;
    let into = data.clone();
    let restored = tokio::task::spawn_blocking(move || {
        let bar = Bar::new();
        let watch = |progress: &Progress| bar.show(progress);
        snapshot::prepare(&target, &into, asked, &watch)?.publish()
    })
    .await??;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "restored snapshot {} to {}: {}",
        restored.manifest.snapshot,
        data.display(),
        size(restored.manifest.bytes())
    )?;
    for line in loss(&restored, asked) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// Says in plain words what the directory holds and what it does not.
fn loss(restored: &Restored, asked: Asked) -> Vec<String> {
    let Restored { manifest, tx, .. } = restored;
    let mut lines = vec![format!(
        "It holds everything up to transaction {tx}, recorded at {}.",
        last_recorded(manifest)
    )];
    if let Some(wanted) = asked.tx.filter(|wanted| wanted > tx) {
        lines.push(format!(
            "Transactions {} to {wanted} are not in it: no snapshot ends between.",
            tx.plus(1)
        ));
    }
    lines.extend(sources(manifest));
    lines.push(format!(
        "Lost is what clients wrote by SQL or events after transaction {tx}: erasures too, which \
         must be asked for again. Projections start anew and bring their sinks in line."
    ));
    lines
}

fn sources(manifest: &Manifest) -> Option<String> {
    if manifest.sources.is_empty() {
        return None;
    }
    let offsets: Vec<String> = manifest
        .sources
        .iter()
        .map(|s| format!("{}/{} from offset {}", s.topic, s.partition, s.next_offset))
        .collect();
    Some(format!(
        "Records of these topics come again once it is served, if the brokers still have them: {}.",
        offsets.join(", ")
    ))
}
