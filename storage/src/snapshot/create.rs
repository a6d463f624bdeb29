//! Taking a snapshot of a store that serves.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::Watch;
use super::erasures;
use super::manifest::{FamilyCount, Manifest, Part, Source};
use super::parallel::{Meter, each};
use super::place::{For, Found, blob_name};
use super::restore::ancestors;
use super::target::{Listed, PROOF, Target};
use crate::disk::{io_error, names};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::families::Family;
use crate::store::Store;
use crate::time::SystemTime;
use crate::tx::TxId;
use crate::{failpoint, journal, meta};

/// A snapshot that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    pub manifest: Manifest,
    /// Files that the target did not have.
    pub new_files: u64,
    pub new_bytes: u64,
}

/// Takes a snapshot into a target, which is made where the place is missing or empty.
///
/// Writes go on meanwhile; what is committed before the call is in the snapshot. A table file that
/// an earlier snapshot of the same data directory has is not read again. Blocking: reads and
/// writes what is new.
///
/// # Errors
/// [`Error::Snapshot`] for a place that is no target, [`Error::Stopped`] by `watch`,
/// [`Error::Io`] and those of the engine. Whatever it was, no snapshot is listed then, and the
/// next create or prune removes what was written.
pub fn create(store: &Store, target: &Target, watch: Watch<'_>) -> Result<Created> {
    target.make()?;
    let held = target.share(For::Writing)?;
    let known = known_parts(&target.listed()?, &store.incarnation());
    let engine = store.engine()?;
    let checkpoint = engine.checkpoint()?;
    failpoint::pass("snapshot.checkpoint");
    let files = parts_in(checkpoint.path())?;
    let found = Described::of(checkpoint.path())?;

    let there: BTreeSet<Found> = target.place().list("blobs")?.into_iter().collect();
    let (mut parts, mut new) = (Vec::new(), Vec::new());
    for (name, bytes) in files {
        let is_there =
            |part: &&Part| there.contains(&Found { name: blob_name(&part.sha256), bytes });
        match known.get(&name).filter(|part| part.bytes == bytes).filter(is_there) {
            Some(part) => parts.push(part.clone()),
            None => new.push((name, bytes)),
        }
    }
    let (new_files, new_bytes) = (new.len() as u64, new.iter().map(|(_, bytes)| *bytes).sum());
    let meter = Meter::new("uploading", new_files, new_bytes, watch);
    meter.add(0, 0)?;
    parts.extend(each(&new, |(name, _)| {
        failpoint::pass("snapshot.part_put");
        let from = checkpoint.path().join(name);
        let content = target.place().put_blob(&from, &mut |bytes| meter.add(0, bytes))?;
        meter.add(1, 0)?;
        Ok(Part { name: name.clone(), bytes: content.bytes, sha256: content.sha256 })
    })?);
    parts.sort_by(|a, b| a.name.cmp(&b.name));
    target.place().settle(&parts)?;

    let mut manifest = Manifest {
        snapshot: 0,
        incarnation: store.incarnation(),
        ancestors: ancestors(engine.path())?,
        taken_at: store.clock().now_micros(),
        tx: found.tx,
        system_time: found.system_time,
        sequence: found.sequence,
        sources: found.sources,
        families: found.families,
        files: parts,
        program: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let known = erasures::last(target, &store.incarnation())?.unwrap_or(TxId::ZERO);
    erasures::put(store, target, known)?;
    failpoint::pass("snapshot.before_manifest");
    held.renew()?;
    target.publish(&mut manifest)?;
    failpoint::pass("snapshot.after_manifest");
    drop(held);
    drop(checkpoint);
    tidy_up(target)?;
    Ok(Created { manifest, new_files, new_bytes })
}

/// Returns the name of the file by which somebody shows that they may write to a target, given
/// 32 hex digits that they chose; nothing for another text.
pub fn proof_name(token: &str) -> Option<String> {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (token.len() == 32 && token.bytes().all(hex)).then(|| format!("{PROOF}{token}"))
}

/// Removes what killed creates left, unless somebody else is at work.
fn tidy_up(target: &Target) -> Result<()> {
    let Some(claimed) = target.claim()? else { return Ok(()) };
    let manifests: Result<Vec<Manifest>, String> =
        target.listed()?.into_iter().map(|listed| listed.manifest).collect();
    if let Ok(manifests) = manifests {
        target.sweep(&claimed, &manifests)?;
    }
    Ok(())
}

/// Returns the table files of the last good snapshot of this data directory, by name: numbers of
/// table files are never used twice in one directory, and the files never change.
fn known_parts(listed: &[Listed], incarnation: &str) -> BTreeMap<String, Part> {
    let good = listed.iter().rev().filter_map(|listed| listed.manifest.as_ref().ok());
    let last = good.into_iter().find(|manifest| manifest.incarnation == incarnation);
    let parts = last.into_iter().flat_map(|manifest| &manifest.files);
    let tables = parts.filter(|part| is_table(&part.name));
    tables.map(|part| (part.name.clone(), part.clone())).collect()
}

fn is_table(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "sst")
}

/// Returns the files of a checkpoint that a snapshot has, with their sizes: all but RocksDB's log.
fn parts_in(folder: &Path) -> Result<Vec<(String, u64)>> {
    let mut parts = Vec::new();
    for name in names(folder)? {
        if name.starts_with("LOG") || name == "LOCK" {
            continue;
        }
        let path = folder.join(&name);
        let bytes = std::fs::metadata(&path).map_err(|source| io_error(&path, source))?.len();
        parts.push((name, bytes));
    }
    Ok(parts)
}

/// What a database holds, as its manifest says and as a restored one must say again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) tx: u64,
    pub(super) system_time: i64,
    pub(super) sequence: u64,
    pub(super) sources: Vec<Source>,
    pub(super) families: Vec<FamilyCount>,
}

impl Described {
    /// Opens the database in a folder, to read it.
    ///
    /// # Errors
    /// Those of the engine.
    pub(super) fn of(rocks: &Path) -> Result<Self> {
        let engine = Engine::open_database(rocks)?;
        let last = journal::last(&engine)?;
        let (tx, system_time) = last.map_or((TxId::ZERO, SystemTime::BEGIN), |entry| {
            (entry.last_tx(), entry.system_time_of(entry.last_tx()))
        });
        let mut sources: Vec<Source> = meta::sources(&engine)?
            .into_iter()
            .map(|((stream, topic, partition), place)| Source {
                stream,
                topic,
                partition,
                next_offset: place.next_offset,
            })
            .collect();
        sources.sort_unstable();
        let live = engine.db().live_files()?;
        // The engine says 0 of a table file whose properties it could not read, and no more.
        if let Some(file) = live.iter().find(|file| file.num_entries == 0) {
            let why = format!("table file {} cannot be read", file.name);
            return Err(Error::Corrupt { what: "checkpoint", why });
        }
        let families = Family::ALL
            .into_iter()
            .map(|family| {
                let of: Vec<_> =
                    live.iter().filter(|file| file.column_family_name == family.name()).collect();
                FamilyCount {
                    family: family.name().to_owned(),
                    files: of.len() as u64,
                    entries: of.iter().map(|file| file.num_entries).sum(),
                    bytes: of.iter().map(|file| file.size as u64).sum(),
                }
            })
            .collect();
        let sequence = engine.db().latest_sequence_number();
        Ok(Self { tx: tx.get(), system_time: system_time.micros(), sequence, sources, families })
    }

    /// Says where a database is not what a manifest says of it; nothing where it is.
    pub(super) fn differs_from(&self, manifest: &Manifest) -> Option<String> {
        let named = |manifest: &Manifest| Self {
            tx: manifest.tx,
            system_time: manifest.system_time,
            sequence: manifest.sequence,
            sources: manifest.sources.clone(),
            families: manifest.families.clone(),
        };
        let said = named(manifest);
        if *self == said {
            return None;
        }
        let mut differ: Vec<String> = self
            .families
            .iter()
            .filter(|family| !said.families.contains(family))
            .map(|family| format!("{} entries in {}", family.entries, family.family))
            .collect();
        if self.tx != said.tx || self.system_time != said.system_time {
            differ.push(format!("last transaction {} instead of {}", self.tx, said.tx));
        }
        if self.sources != said.sources {
            differ.push("other source offsets".to_owned());
        }
        if differ.is_empty() {
            differ.push(format!("last write {} instead of {}", self.sequence, said.sequence));
        }
        Some(format!("its files do not hold what its manifest says: {}", differ.join(", ")))
    }
}

/// Refuses a manifest that names no database.
pub(super) fn refuse_hollow(manifest: &Manifest) -> Result<(), String> {
    let has = |name: &str| manifest.files.iter().any(|part| part.name.starts_with(name));
    if has("CURRENT") && has("MANIFEST-") {
        return Ok(());
    }
    Err(Error::Corrupt { what: "snapshot", why: "it names no database".to_owned() }.to_string())
}
