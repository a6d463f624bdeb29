//! Taking snapshots for a client.
//!
//! A client names a directory of the server's machine or a bucket, and the server writes there. So
//! that nobody gets more by it than they have, a target is either in the configuration or shown to
//! be the client's own: a directory that holds a file by a name that the client chose and tells in
//! its request, which only somebody can make who may write there without the server.

use std::path::Path;

use everwhen_storage::snapshot::{self, Manifest, Target, Watch};
use everwhen_storage::{Error, ValidTime};
use serde_json::{Value, json};
use tokio::sync::OwnedMutexGuard;

use super::Services;
use crate::code::Code;
use crate::failure::{Answered, Failure};

/// A target that the client may use, for as long as this is held the only one at work.
pub struct Granted {
    target: Target,
    _turn: OwnedMutexGuard<()>,
}

/// Grants a target to a client.
///
/// # Errors
/// `invalid_value` for a relative path or an unknown kind of URL, `forbidden` for a target that is
/// neither configured nor shown to be the client's, `too_many_requests` while another snapshot is
/// taken.
pub fn grant(services: &Services, to: &str, proof: Option<&str>) -> Answered<Granted> {
    let target = Target::at(to)
        .map_err(|error| Failure::new(Code::InvalidValue, format!("\"to\": {error}")))?;
    if target.folder().is_some_and(|folder| !folder.is_absolute()) {
        let detail = "\"to\" must be an absolute path on the server's machine, or a URL";
        return Err(Failure::new(Code::InvalidValue, detail));
    }
    let is_proven = target.folder().is_some_and(|folder| is_proven(folder, proof));
    if !is_proven && !is_configured(&services.snapshot_targets, &target) {
        return Err(forbidden(&target));
    }
    let busy = || Failure::new(Code::Busy, "another snapshot is being taken");
    let turn = services.snapshotting.clone().try_lock_owned().map_err(|_| busy())?;
    Ok(Granted { target, _turn: turn })
}

fn forbidden(target: &Target) -> Failure {
    if target.folder().is_none() {
        let detail = "the bucket is not in \"snapshot_targets\"";
        let hint = "have the URL put into the server's configuration";
        return Failure::new(Code::Forbidden, detail).with_hint(hint);
    }
    let detail = "the directory is not in \"snapshot_targets\", and the client has not shown that it \
                  may write there";
    let hint = "use `everwhen snapshot create` on the server's machine, or have the directory put into \
                the server's configuration";
    Failure::new(Code::Forbidden, detail).with_hint(hint)
}

/// Takes the snapshot and describes it. Blocking.
///
/// # Errors
/// `wrong_state` for a directory that cannot be used or written, `cancelled` where `watch` ends it.
pub fn create(services: &Services, granted: &Granted, watch: Watch<'_>) -> Answered<Value> {
    let created = snapshot::create(&services.store, &granted.target, watch);
    let outcome = if created.is_ok() { "taken" } else { "failed" };
    services.metrics.add("everwhen_snapshots_total", &[("outcome", outcome)], 1);
    let created = created.map_err(|error| told(&granted.target, error))?;
    let manifest = &created.manifest;
    tracing::info!(
        snapshot = manifest.snapshot,
        tx = manifest.tx,
        bytes = manifest.bytes(),
        new_bytes = created.new_bytes,
        "a snapshot was taken"
    );
    let mut described = describe(manifest);
    described["new_files"] = created.new_files.into();
    described["new_bytes"] = created.new_bytes.into();
    Ok(described)
}

/// Tells what went wrong with files below the target, which the client named.
fn told(target: &Target, error: Error) -> Failure {
    match &error {
        Error::Io { path, .. }
            if target.folder().is_some_and(|folder| Path::new(path).starts_with(folder)) =>
        {
            Failure::new(Code::WrongState, error.to_string())
        }
        _ => error.into(),
    }
}

/// Describes a snapshot.
pub fn describe(manifest: &Manifest) -> Value {
    let system_time = (manifest.tx > 0).then(|| manifest.system_time().to_string());
    json!({
        "snapshot": manifest.snapshot,
        "tx": manifest.tx,
        "system_time": system_time,
        "taken_at": ValidTime::from_micros(manifest.taken_at).to_string(),
        "incarnation": manifest.incarnation,
        "files": manifest.files.len(),
        "bytes": manifest.bytes(),
    })
}

/// Returns the system time of a snapshot's last transaction for people.
pub fn last_recorded(manifest: &Manifest) -> String {
    match manifest.tx {
        0 => "nothing".to_owned(),
        _ => manifest.system_time().to_string(),
    }
}

fn is_configured(configured: &[String], target: &Target) -> bool {
    let plain = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let is_same = |named: &String| match target.folder() {
        Some(folder) => plain(Path::new(named)) == plain(folder),
        None => named.trim_end_matches('/') == target.shown(),
    };
    configured.iter().any(is_same)
}

fn is_proven(root: &Path, proof: Option<&str>) -> bool {
    let name = proof.and_then(snapshot::proof_name);
    let file = name.and_then(|name| std::fs::symlink_metadata(root.join(name)).ok());
    file.is_some_and(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &Path) -> String {
        path.display().to_string()
    }

    #[test]
    fn only_who_can_write_there_has_proof() {
        let directory = tempfile::tempdir().unwrap();
        let token = "0123456789abcdef".repeat(2);
        assert!(!is_proven(directory.path(), Some(&token)));
        let file = directory.path().join(format!("proof-{token}"));
        std::fs::write(&file, "").unwrap();
        assert!(is_proven(directory.path(), Some(&token)));
        assert!(!is_proven(directory.path(), None));
        assert!(!is_proven(directory.path(), Some("../x")));
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &file).unwrap();
        assert!(!is_proven(directory.path(), Some(&token)), "a link is no file made there");
    }

    #[test]
    fn configured_targets_are_compared_as_places() {
        let directory = tempfile::tempdir().unwrap();
        let configured =
            [text(&directory.path().join(".")), "/not/there".into(), "s3://bucket/x/".into()];
        let is_configured = |place: &str| is_configured(&configured, &Target::at(place).unwrap());
        assert!(is_configured(&text(directory.path())));
        assert!(is_configured("/not/there"));
        assert!(!is_configured("/not"));
        assert!(is_configured("s3://bucket/x"));
        for other in ["s3://bucket", "s3://bucket/x/y", "gs://bucket/x", "s3://bucket/../x"] {
            assert!(Target::at(other).map_or(true, |t| !super::is_configured(&configured, &t)));
        }
    }
}
