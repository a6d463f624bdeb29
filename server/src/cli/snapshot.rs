//! `everwhen snapshot`: create asks a server; the others read the target themselves.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use everwhen_storage::snapshot::{self, Keep, Listed, Progress, Target};
use everwhen_storage::{Clock as _, RealClock, ValidTime};
use futures::StreamExt as _;
use serde_json::{Value, json};

use super::progress::{Bar, size};
use super::sql::table;
use super::{DEFAULT_URL, Told};
use crate::service::snapshot::last_recorded;

/// What to do with snapshots.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Takes a snapshot of a server that runs, into a directory of its machine or a bucket.
    Create {
        /// Where snapshots are: a directory, made where it does not exist, or s3:// or gs:// with
        /// bucket and prefix.
        #[arg(long, value_name = "DIR|URL")]
        to: String,
        /// URL of the server's HTTP listener.
        #[arg(long, env = "EVERWHEN_URL", default_value = DEFAULT_URL)]
        url: String,
    },
    /// Lists snapshots, damaged ones too.
    List {
        /// Where snapshots are: a directory, or s3:// or gs:// with bucket and prefix.
        #[arg(long, value_name = "DIR|URL")]
        from: String,
        /// Prints a JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Checks every byte of snapshots, and that they open.
    Verify {
        /// Where snapshots are: a directory, or s3:// or gs:// with bucket and prefix.
        #[arg(long, value_name = "DIR|URL")]
        from: String,
        /// Only this one.
        #[arg(long, value_name = "N")]
        snapshot: Option<u64>,
    },
    /// Removes old snapshots, and files that no snapshot needs. The newest one always stays.
    Prune {
        /// Where snapshots are: a directory, or s3:// or gs:// with bucket and prefix.
        #[arg(long, value_name = "DIR|URL")]
        from: String,
        /// Keeps the newest so many.
        #[arg(long, value_name = "N")]
        keep_last: Option<u64>,
        /// Keeps those of the last so many days.
        #[arg(long, value_name = "N")]
        keep_days: Option<u32>,
    },
}

/// Does it.
///
/// # Errors
/// What went wrong; damage found is an error.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.action {
        Action::Create { to, url } => create(&to, &url).await,
        Action::List { from, json } => {
            let target = Target::at(&from)?;
            tokio::task::spawn_blocking(move || list(&target, json)).await?
        }
        Action::Verify { from, snapshot } => {
            let target = Target::at(&from)?;
            tokio::task::spawn_blocking(move || verify(&target, snapshot)).await?
        }
        Action::Prune { from, keep_last, keep_days } => {
            let target = Target::at(&from)?;
            tokio::task::spawn_blocking(move || prune(&target, keep_last, keep_days)).await?
        }
    }
}

/// Shows the server that whoever runs this may write to the target. Goes with this.
struct Proof {
    file: PathBuf,
    token: String,
}

impl Proof {
    fn leave(to: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
        let token = uuid::Uuid::new_v4().simple().to_string();
        let name = snapshot::proof_name(&token).unwrap_or_default();
        let file = to.join(name);
        std::fs::write(&file, "").with_context(|| format!("cannot write into {}", to.display()))?;
        Ok(Self { file, token })
    }
}

impl Drop for Proof {
    fn drop(&mut self) {
        // The server's own tidying may have been first.
        let _ = std::fs::remove_file(&self.file);
    }
}

async fn create(to: &str, url: &str) -> anyhow::Result<()> {
    let (to, proof) = match Target::at(to)?.folder() {
        // Only its own credentials say where the server may write.
        None => (to.to_owned(), Ok(None)),
        Some(folder) => {
            let folder = std::path::absolute(folder).context("cannot find the directory")?;
            // Where this machine cannot write, the server's configuration decides.
            (folder.to_string_lossy().into_owned(), Proof::leave(&folder).map(Some))
        }
    };
    let token = proof.as_ref().ok().and_then(Option::as_ref).map(|proof| proof.token.as_str());
    let body = json!({ "to": to, "proof": token });
    let sent = reqwest::Client::new()
        .post(format!("{}/v1/snapshots", url.trim_end_matches('/')))
        .json(&body)
        .send()
        .await
        .with_context(|| format!("no server answers at {url}"))?;
    if !sent.status().is_success() {
        let problem: Value = sent.json().await.context("the answer is no JSON")?;
        if let Err(error) = proof {
            return Err(error.context(told(&problem)));
        }
        bail!(told(&problem));
    }
    let bar = Bar::new();
    let mut pieces = sent.bytes_stream();
    let mut rest = Vec::new();
    let mut end = None;
    while let Some(piece) = pieces.next().await {
        rest.extend_from_slice(&piece.context("the server broke off: no snapshot was taken")?);
        while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=at).collect();
            let line: Value = serde_json::from_slice(&line).context("the answer is no JSON")?;
            if let Some(progress) = line.get("progress") {
                let _ = bar.show(&progress_of(progress));
            } else {
                end = Some(line);
            }
        }
    }
    drop(bar);
    let end = end.context("the server broke off: no snapshot was taken")?;
    if let Some(problem) = end.get("error") {
        bail!(told(problem));
    }
    let taken = &end["snapshot"];
    let whole = |name: &str| taken[name].as_u64().unwrap_or(0);
    writeln!(
        std::io::stdout(),
        "snapshot {} of transaction {}: {} in {} files, {} new",
        whole("snapshot"),
        whole("tx"),
        size(whole("bytes")),
        whole("files"),
        size(whole("new_bytes"))
    )?;
    Ok(())
}

fn progress_of(value: &Value) -> Progress {
    let whole = |name: &str| value[name].as_u64().unwrap_or(0);
    Progress {
        doing: "uploading",
        files_done: whole("files_done"),
        files: whole("files"),
        bytes_done: whole("bytes_done"),
        bytes: whole("bytes"),
    }
}

/// Returns a problem's detail and hint.
fn told(problem: &Value) -> String {
    let detail = problem["detail"].as_str().unwrap_or("the server gave no reason");
    problem["hint"].as_str().map_or_else(|| detail.to_owned(), |hint| format!("{detail}; {hint}"))
}

fn list(target: &Target, as_json: bool) -> anyhow::Result<()> {
    let listed = snapshot::list(target)?;
    let mut out = std::io::stdout();
    if as_json {
        let all: Vec<Value> = listed.iter().map(described).collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&json!({ "snapshots": all }))?)?;
        return Ok(());
    }
    let names = ["snapshot", "transaction", "recorded up to", "taken at", "size", "state"];
    let rows: Vec<Vec<String>> = listed
        .iter()
        .map(|listed| match &listed.manifest {
            Ok(manifest) => vec![
                listed.snapshot.to_string(),
                manifest.tx.to_string(),
                last_recorded(manifest),
                ValidTime::from_micros(manifest.taken_at).to_string(),
                size(manifest.bytes()),
                "good".to_owned(),
            ],
            Err(why) => {
                let number = listed.snapshot.to_string();
                let empty = String::new;
                vec![number, empty(), empty(), empty(), empty(), format!("damaged: {why}")]
            }
        })
        .collect();
    let names: Vec<String> = names.map(ToOwned::to_owned).to_vec();
    out.write_all(table::draw(&names, &rows, &[]).as_bytes())?;
    Ok(())
}

fn described(listed: &Listed) -> Value {
    match &listed.manifest {
        Ok(manifest) => crate::service::snapshot::describe(manifest),
        Err(why) => json!({ "snapshot": listed.snapshot, "error": why }),
    }
}

fn verify(target: &Target, snapshot: Option<u64>) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let bar = Bar::new();
    let watch = |progress: &Progress| bar.show(progress);
    let checked = snapshot::check(target, snapshot, scratch.path(), &watch)?;
    let (journals, ledgers) = match snapshot {
        Some(_) => (Vec::new(), Vec::new()),
        None => {
            let journals = snapshot::check_journals(target, scratch.path(), &watch)?;
            (journals, snapshot::check_erasures(target)?)
        }
    };
    drop(bar);
    let mut out = std::io::stdout();
    let mut bad = 0;
    for one in &checked {
        let bytes = one.manifest.as_ref().map_or(0, snapshot::Manifest::bytes);
        let what = format!("snapshot {}", one.snapshot);
        bad += tell(&mut out, &what, &size(bytes), &one.problems)?;
    }
    let mut beside = 0;
    for one in &journals {
        let what = format!("journal of {}", one.incarnation);
        let reach = format!("{} segments up to transaction {}", one.segments, one.last);
        beside += tell(&mut out, &what, &reach, &one.problems)?;
    }
    if !ledgers.is_empty() {
        beside += tell(&mut out, "erasures", "", &ledgers)?;
    }
    let advice = match (bad, beside) {
        (0, 0) => return Ok(()),
        (0, _) => "what stands beside the snapshots is damaged: bring back the files named above \
                   from a copy, or restore with --no-journal where it is a journal"
            .to_owned(),
        _ => format!(
            "{bad} of {} snapshots are damaged: remove the blobs named above and take a snapshot \
             again while the server still has its files, or remove the manifests",
            checked.len()
        ),
    };
    Err(Told(format!("error: {advice}")).into())
}

/// Prints what was found out about one thing; 1 where it is damaged.
fn tell(
    out: &mut std::io::Stdout,
    what: &str,
    good: &str,
    problems: &[String],
) -> anyhow::Result<usize> {
    if problems.is_empty() {
        writeln!(out, "{what}: good, {good}")?;
        return Ok(0);
    }
    writeln!(out, "{what}: DAMAGED")?;
    for problem in problems {
        writeln!(out, "  {problem}")?;
    }
    Ok(1)
}

fn prune(target: &Target, last: Option<u64>, days: Option<u32>) -> anyhow::Result<()> {
    let day_micros = 24 * 3_600 * 1_000_000;
    let since = days.map(|days| RealClock.now_micros() - i64::from(days) * day_micros);
    let pruned = snapshot::prune(target, Keep { last, since })?;
    let list = |numbers: &[u64]| match numbers {
        [] => "none".to_owned(),
        some => some.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
    };
    writeln!(
        std::io::stdout(),
        "removed {}; kept {}; {} files, {} freed",
        list(&pruned.removed),
        list(&pruned.kept),
        pruned.files,
        size(pruned.bytes)
    )?;
    Ok(())
}
