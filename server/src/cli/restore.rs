//! `everwhen restore`: makes a data directory of a snapshot and the journal shipped since, or nothing.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use everwhen_ingest::{ReplayOptions, Replayed, replay};
use everwhen_projector::compute::drop_deliveries;
use everwhen_storage::snapshot::{
    self, Asked, ErasedAgain, Manifest, Prepared, Progress, Restored, Target,
};
use everwhen_storage::{RealClock, SystemTime, TxId};

use super::journal::open_store;
use super::progress::{Bar, Counter, size};
use crate::service::snapshot::last_recorded;
use crate::telemetry;

/// What to restore, and where to.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where snapshots are: a directory, or s3:// or gs:// with bucket and prefix.
    #[arg(long, value_name = "DIR|URL")]
    from: String,
    /// Data directory to make: it must not exist, or be empty.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// This snapshot [default: the newest]; without --tx, --system-time or --history it alone.
    #[arg(long, value_name = "N")]
    snapshot: Option<u64>,
    /// Up to this transaction at most: the newest snapshot before it, and the journal.
    #[arg(long, visible_alias = "to-tx", value_name = "N")]
    tx: Option<u64>,
    /// Up to this instant of system time at most.
    #[arg(long, visible_alias = "to-time", value_name = "INSTANT", conflicts_with = "tx")]
    system_time: Option<String>,
    /// Leaves the shipped journal out: the snapshot alone.
    #[arg(long)]
    no_journal: bool,
    /// Follows the journal of this incarnation [default: that which began last].
    #[arg(long, value_name = "ID", conflicts_with = "no_journal")]
    history: Option<String>,
    /// Brokers in place of those that the streams name, for records that the journal names.
    #[arg(long, value_name = "HOST:PORT,..")]
    brokers: Option<String>,
    /// Log filter: error, warn, info, debug, trace.
    #[arg(long, value_name = "FILTER", env = "EVERWHEN_LOG", default_value = "warn")]
    log: String,
}

/// What came of a restore.
struct Outcome {
    restored: Restored,
    /// How far the journal led; nothing where none was shipped, or it was left out.
    followed: Option<Followed>,
    erased: ErasedAgain,
}

/// How a journal was followed.
struct Followed {
    replayed: Replayed,
    /// The last transaction that was shipped.
    shipped: TxId,
    /// The data directory that shipped it.
    history: String,
}

/// Restores.
///
/// # Errors
/// Why nothing was restored.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    telemetry::check_filter(&arguments.log).map_err(anyhow::Error::msg)?;
    telemetry::init(&arguments.log);
    let system_time = arguments.system_time.as_deref().map(SystemTime::parse).transpose()?;
    let asked =
        Asked { snapshot: arguments.snapshot, tx: arguments.tx.map(TxId::new), system_time };
    let data = std::path::absolute(&arguments.data)?;
    let into = data.clone();
    let outcome = tokio::task::spawn_blocking(move || restore(&arguments, &into, asked)).await??;
    let manifest = &outcome.restored.manifest;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "restored snapshot {} to {}: {}",
        manifest.snapshot,
        data.display(),
        size(manifest.bytes())
    )?;
    for line in told(&outcome, asked) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn restore(arguments: &Arguments, data: &std::path::Path, asked: Asked) -> anyhow::Result<Outcome> {
    let target = Target::at(&arguments.from)?;
    let mut prepared = {
        let bar = Bar::new();
        snapshot::prepare(&target, data, asked, &|progress: &Progress| bar.show(progress))?
    };
    // Whoever names a snapshot and nothing else means that one.
    let is_exact = asked.snapshot.is_some()
        && asked.tx.is_none()
        && asked.system_time.is_none()
        && arguments.history.is_none();
    let followed = match arguments.no_journal || is_exact {
        true => None,
        false => follow(&mut prepared, arguments, asked)?,
    };
    let erased = prepared.erase_again(Arc::new(RealClock))?;
    Ok(Outcome { restored: prepared.publish()?, followed, erased })
}

/// Replays what was shipped since the snapshot, as far as it is asked for.
fn follow(
    prepared: &mut Prepared,
    arguments: &Arguments,
    asked: Asked,
) -> anyhow::Result<Option<Followed>> {
    let fetched = {
        let bar = Bar::new();
        let watch = |progress: &Progress| bar.show(progress);
        prepared.fetch_journal(arguments.history.as_deref(), &watch)?
    };
    let Some(last) = fetched.last() else { return Ok(None) };
    let (history, shipped) = (last.incarnation.clone(), last.last.max(prepared.manifest().tx()));
    let store = open_store(prepared.directory())?;
    // Every projection starts anew.
    drop_deliveries(&store)?;
    let mut replayed = None;
    let mut counter = Counter::new("transactions");
    for stretch in &fetched {
        let most = [asked.tx, stretch.until].into_iter().flatten().min();
        let options = ReplayOptions {
            brokers: arguments.brokers.clone(),
            through: None,
            at_most: most,
            at_most_time: asked.system_time,
        };
        let done = replay(&store, &stretch.segments, &options, &mut |done| {
            counter.at("replayed", done.transactions, None);
        });
        let reached = done.with_context(|| {
            format!(
                "the journal cannot be followed beyond transaction {}: `--tx N` restores up to an \
                 earlier one, `--no-journal` the snapshot alone",
                store.latest().tx
            )
        })?;
        let before = replayed.map_or(0, |before: Replayed| before.transactions);
        replayed = Some(Replayed { transactions: before + reached.transactions, ..reached });
        if stretch.until.is_some_and(|until| reached.last_tx < until) {
            break;
        }
    }
    drop(counter);
    store.close()?;
    Ok(replayed.map(|replayed| {
        prepared.reach(replayed.last_tx);
        Followed { replayed, shipped, history }
    }))
}

/// Says in plain words what the directory holds and what it does not.
fn told(outcome: &Outcome, asked: Asked) -> Vec<String> {
    let Outcome { restored: Restored { manifest, tx, .. }, followed, erased } = outcome;
    let mut lines = Vec::new();
    let mut recorded = last_recorded(manifest);
    if let Some(Followed { replayed, history, .. }) = followed {
        recorded = replayed.system_time.to_string();
        lines.push(format!(
            "Then {} transactions of the shipped journal (history {history}) were replayed, {} \
             records of topics read again.",
            replayed.transactions, replayed.records
        ));
    }
    lines.push(format!("It holds everything up to transaction {tx}, recorded at {recorded}."));
    if let Some(wanted) = asked.tx.filter(|wanted| wanted > tx) {
        let why = match followed {
            Some(followed) if followed.shipped > *tx => "a batch is never parted",
            Some(_) => "they were not shipped",
            None => "no snapshot ends between",
        };
        lines.push(format!("Transactions {} to {wanted} are not in it: {why}.", tx.plus(1)));
    }
    if erased.erasures > 0 {
        lines.push(format!(
            "{} erasures that were made later were made again: {} keys had come back and are gone.",
            erased.erasures, erased.keys
        ));
    }
    if erased.unmarked > 0 {
        lines.push(format!(
            "Late records of {} of them will not be known as such: look through what topics bring.",
            erased.unmarked
        ));
    }
    if erased.unfinished {
        lines.push("Bytes of erased keys are still in its files: the server goes on.".to_owned());
    }
    lines.extend(sources(manifest).filter(|_| followed.is_none()));
    lines.push(loss(outcome, &recorded));
    lines
}

/// Says what is lost.
fn loss(outcome: &Outcome, recorded: &str) -> String {
    let tx = outcome.restored.tx;
    let anew = "Projections start anew and bring their sinks in line.";
    match &outcome.followed {
        Some(followed) if followed.shipped > tx => format!(
            "Left out is what the journal has beyond it, up to transaction {}. {anew}",
            followed.shipped
        ),
        Some(_) => format!(
            "Lost is what clients wrote after {recorded} and was not shipped by then. Records of \
             topics come again once it is served. {anew}"
        ),
        None => format!(
            "Lost is what clients wrote by SQL or events after transaction {tx}; no journal of it \
             was used. {anew}"
        ),
    }
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
