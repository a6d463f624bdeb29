//! Making a data directory of a snapshot: beside where it is to be, checked, then renamed.
//!
//! ```text
//! prepare   every blob copied and compared with its hash -> opened, counted -> [`Prepared`]
//!           (here shipped journals are replayed into `Prepared::directory`, and erasures made again)
//! publish   a new incarnation, one rename
//! ```
//!
//! Until the rename there is nothing at the data directory; a killed restore leaves a folder beside
//! it that the next one removes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use fs4::fs_std::FileExt as _;
use serde::{Deserialize, Serialize};

use super::Watch;
use super::create::{Described, refuse_hollow};
use super::erasures;
use super::journal::{Segment, Stretch, following};
use super::manifest::{Ancestor, Manifest, Part};
use super::parallel::{Meter, each};
use super::place::{For, Held, blob_name};
use super::target::{Listed, Target, problem};
use crate::disk::{self, io_error, names, sync_folder, write_whole};
use crate::engine::{Engine, adopt, new_incarnation};
use crate::erase::again::adopt_secret;
use crate::error::{Error, Result};
use crate::failpoint;
use crate::time::SystemTime;
use crate::tx::TxId;

/// The file that lists where a data directory comes from.
const ANCESTORS: &str = "ANCESTORS";

/// Which snapshot to restore: the newest that all of these admit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked {
    /// This one.
    pub snapshot: Option<u64>,
    /// One that ends at or before this transaction.
    pub tx: Option<TxId>,
    /// One that ends at or before this instant.
    pub system_time: Option<SystemTime>,
}

/// A data directory that is whole, but not yet where it is to be. Removed if it is dropped.
pub struct Prepared {
    manifest: Manifest,
    incarnation: String,
    /// The last transaction in it: the snapshot's, or that of a journal replayed since.
    reached: TxId,
    work: Work,
    data: PathBuf,
    target: Target,
    /// The directories whose journals lead to it, each with the last transaction that counts.
    path: Vec<(String, Option<TxId>)>,
    _held: Held,
}

/// A stretch of a shipped journal, on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The data directory it is of.
    pub incarnation: String,
    /// Its segments, in their order.
    pub segments: Vec<PathBuf>,
    /// The last transaction of it that counts; nothing where all do.
    pub until: Option<TxId>,
    /// The last transaction that it holds.
    pub last: TxId,
}

/// A restored data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    pub manifest: Manifest,
    /// The directory's new incarnation.
    pub incarnation: String,
    /// The last transaction in it.
    pub tx: TxId,
}

/// The folder that is worked in, and the lock that keeps others from it.
struct Work {
    folder: PathBuf,
    _lock: File,
    is_published: bool,
}

/// Copies a snapshot into a folder beside `data`, comparing every hash, opens it and compares what
/// it holds with the manifest.
///
/// Blocking: reads and writes the whole snapshot.
///
/// # Errors
/// [`Error::Snapshot`] where there is no such snapshot, it is torn, foreign or tampered with, or
/// `data` is not empty; [`Error::InUse`] while another restore is at work
/// there; [`Error::Stopped`] by `watch`; [`Error::Io`].
pub fn prepare(target: &Target, data: &Path, asked: Asked, watch: Watch<'_>) -> Result<Prepared> {
    refuse_used(data)?;
    target.check_format()?;
    let held = target.share(For::Reading)?;
    let manifest = choose(target, target.listed()?, asked)?;
    let unusable =
        |why: String| target.error(format!("snapshot {} is refused: {why}", manifest.snapshot));
    refuse_hollow(&manifest).map_err(unusable)?;
    let work = Work::begin(data)?;
    let rocks = work.folder.join("rocks");
    fs::create_dir(&rocks).map_err(|source| io_error(&rocks, source))?;
    let meter = Meter::new("restoring", manifest.files.len() as u64, manifest.bytes(), watch);
    meter.add(0, 0)?;
    each(&manifest.files, |part| {
        failpoint::pass("restore.file");
        fetch(target, part, &rocks, &meter)?
            .map_or(Ok(()), |problem| Err(unusable(format!("{}: {problem}", part.name))))
    })?;
    sync_folder(&rocks)?;
    match Described::of(&rocks) {
        Ok(found) => found.differs_from(&manifest).map_or(Ok(()), |why| Err(unusable(why)))?,
        Err(error @ Error::Io { .. }) => return Err(error),
        Err(error) => return Err(unusable(format!("its files do not open: {error}"))),
    }
    let incarnation = new_incarnation();
    adopt(&work.folder, &incarnation, manifest.sequence)?;
    failpoint::pass("restore.prepared");
    Ok(Prepared {
        reached: manifest.tx(),
        data: data.to_owned(),
        target: target.clone(),
        path: vec![(manifest.incarnation.clone(), None)],
        manifest,
        incarnation,
        work,
        _held: held,
    })
}

impl Prepared {
    /// Returns the snapshot's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the data directory as it is now, to be opened and closed again before it is
    /// published: where journals shipped since the snapshot are replayed.
    pub fn directory(&self) -> &Path {
        &self.work.folder
    }

    /// Fetches the shipped journal that leads on from the snapshot, in the order of replaying it;
    /// nothing where none was shipped. `history` names the data directory, by its incarnation, in
    /// whose history to go on: by default that whose journal began last.
    ///
    /// Blocking: reads the journal.
    ///
    /// # Errors
    /// [`Error::Snapshot`] where there is a gap or no such history, [`Error::Segment`],
    /// [`Error::Stopped`] by `watch`, [`Error::Io`].
    pub fn fetch_journal(
        &mut self,
        history: Option<&str>,
        watch: Watch<'_>,
    ) -> Result<Vec<Fetched>> {
        let stretches = following(&self.target, &self.manifest, history)?;
        if stretches.is_empty() {
            return Ok(Vec::new());
        }
        let folder = self.work.folder.join(JOURNAL);
        fs::create_dir_all(&folder).map_err(|source| io_error(&folder, source))?;
        let all: Vec<&Segment> = stretches.iter().flat_map(|stretch| &stretch.segments).collect();
        let bytes = all.iter().map(|segment| segment.found.bytes).sum();
        let meter = Meter::new("fetching the journal", all.len() as u64, bytes, watch);
        let local = |segment: &Segment| folder.join(segment.found.name.replace('/', "-"));
        each(&all, |segment| {
            let name = &segment.found.name;
            let found = self.target.fetch(name, &local(segment), |bytes| meter.add(0, bytes))?;
            meter.add(1, 0)?;
            found.map(|_| ()).ok_or_else(|| Error::Segment {
                path: self.target.place().shown(name),
                why: "it is missing".to_owned(),
            })
        })?;
        // Before the replay: what it erases gets the hashes that the ledgers have.
        if let Some(secret) = erasures::secret(&self.target, &self.manifest)? {
            adopt_secret(&Engine::open(&self.work.folder, CACHE_BYTES)?, secret)?;
        }
        self.path = stretches.iter().map(|s| (s.incarnation.clone(), s.until)).collect();
        let fetched = |stretch: Stretch| Fetched {
            segments: stretch.segments.iter().map(local).collect(),
            last: stretch.segments.last().map_or(TxId::ZERO, |segment| segment.last),
            incarnation: stretch.incarnation,
            until: stretch.until,
        };
        Ok(stretches.into_iter().map(fetched).collect())
    }

    /// Returns the target that it is restored from.
    pub(super) const fn target(&self) -> &Target {
        &self.target
    }

    /// True where more was replayed than the snapshot has.
    pub(super) fn is_replayed(&self) -> bool {
        self.reached > self.manifest.tx()
    }

    /// True where a transaction of another directory is in this one, too.
    pub(super) fn has(&self, incarnation: &str, tx: TxId) -> bool {
        let until = |until: &Option<TxId>| until.map_or(self.reached, |u| u.min(self.reached));
        let shared = self.manifest.ancestors.iter().map(|a| (&a.incarnation, TxId::new(a.tx)));
        let replayed = self.path.iter().map(|(incarnation, at)| (incarnation, until(at)));
        shared.chain(replayed).any(|(of, last)| of == incarnation && tx <= last)
    }

    /// Notes up to which transaction it is the same as the directory that the snapshot is of.
    pub fn reach(&mut self, tx: TxId) {
        self.reached = self.reached.max(tx);
    }

    /// Renames it to where it is to be.
    ///
    /// # Errors
    /// [`Error::Io`], also where something came to be at the data directory meanwhile.
    pub fn publish(mut self) -> Result<Restored> {
        let mut ancestors = self.manifest.ancestors.clone();
        for (incarnation, until) in &self.path {
            let is_last = until.is_none_or(|until| self.reached <= until);
            let tx = until.filter(|_| !is_last).unwrap_or(self.reached).get();
            ancestors.push(Ancestor { incarnation: incarnation.clone(), tx });
            if is_last {
                break;
            }
        }
        let lineage = Lineage { format: 1, ancestors };
        let text = serde_json::to_string_pretty(&lineage)
            .map_err(|error| Error::Refused { reason: error.to_string() })?;
        write_whole(&self.work.folder.join(ANCESTORS), &format!("{text}\n"))?;
        let journal = self.work.folder.join(JOURNAL);
        if journal.exists() {
            fs::remove_dir_all(&journal).map_err(|source| io_error(&journal, source))?;
        }
        let marker = self.work.folder.join(MARKER);
        fs::remove_file(&marker).map_err(|source| io_error(&marker, source))?;
        sync_folder(&self.work.folder)?;
        failpoint::pass("restore.before_rename");
        // Replaces an empty directory, and nothing else.
        let renamed = fs::rename(&self.work.folder, &self.data);
        renamed.map_err(|source| io_error(&self.data, source))?;
        self.work.is_published = true;
        failpoint::pass("restore.after_rename");
        sync_folder(parent_of(&self.data))?;
        Ok(Restored {
            manifest: self.manifest.clone(),
            incarnation: self.incarnation.clone(),
            tx: self.reached,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Lineage {
    format: u32,
    ancestors: Vec<Ancestor>,
}

/// Returns the directories that a data directory was restored from, the first one first.
pub(super) fn ancestors(directory: &Path) -> Result<Vec<Ancestor>> {
    let path = directory.join(ANCESTORS);
    let Some(text) = disk::text(&path)? else { return Ok(Vec::new()) };
    let damaged = |why: String| Error::Corrupt { what: "file ANCESTORS", why };
    let lineage: Lineage = serde_json::from_str(&text).map_err(|e| damaged(e.to_string()))?;
    if lineage.format != 1 {
        return Err(damaged(format!("format {} is not known", lineage.format)));
    }
    Ok(lineage.ancestors)
}

/// Chooses among the snapshots of the newest one's history.
fn choose(target: &Target, listed: Vec<Listed>, asked: Asked) -> Result<Manifest> {
    if listed.is_empty() {
        return Err(target.error("there are no snapshots yet"));
    }
    let damaged = |snapshot: u64, why: &str| {
        let advice = "another one may be good: `everwhen snapshot verify` says which, \
                      `--snapshot N` restores it";
        target.error(format!("snapshot {snapshot} is refused: its manifest: {why}; {advice}"))
    };
    let fits = |manifest: &Manifest| {
        asked.tx.is_none_or(|tx| manifest.tx() <= tx)
            && asked.system_time.is_none_or(|at| manifest.system_time() <= at)
    };
    if let Some(number) = asked.snapshot {
        let found = listed.into_iter().find(|listed| listed.snapshot == number);
        let found = found.ok_or_else(|| target.error(format!("there is no snapshot {number}")))?;
        let manifest = found.manifest.map_err(|why| damaged(number, &why))?;
        if !fits(&manifest) {
            let why = format!(
                "snapshot {number} ends at transaction {}, {}, which is later than asked for",
                manifest.tx,
                manifest.system_time()
            );
            return Err(target.error(why));
        }
        return Ok(manifest);
    }
    // A damaged one is not passed over in silence: it may be what was wanted.
    let mut manifests = Vec::with_capacity(listed.len());
    for listed in listed {
        manifests.push(listed.manifest.map_err(|why| damaged(listed.snapshot, &why))?);
    }
    let newest = manifests.last().cloned();
    let of_history = |manifest: &Manifest| {
        newest.as_ref().is_some_and(|newest| {
            let shared = |ancestor: &Ancestor| {
                ancestor.incarnation == manifest.incarnation && manifest.tx <= ancestor.tx
            };
            newest.incarnation == manifest.incarnation || newest.ancestors.iter().any(shared)
        })
    };
    let first = manifests.first().map(|first| (first.tx, first.system_time()));
    let chosen = manifests.into_iter().rev().find(|m| of_history(m) && fits(m));
    chosen.ok_or_else(|| {
        let (tx, at) = first.unwrap_or((0, SystemTime::BEGIN));
        target.error(format!(
            "no snapshot ends at or before what was asked for; the first one ends at transaction \
             {tx}, {at}"
        ))
    })
}

/// Copies one file; answers with what is wrong with its blob.
fn fetch(target: &Target, part: &Part, rocks: &Path, meter: &Meter<'_>) -> Result<Option<String>> {
    let to = rocks.join(&part.name);
    let content = target.fetch(&blob_name(&part.sha256), &to, |bytes| meter.add(0, bytes))?;
    meter.add(1, 0)?;
    Ok(problem(part, content.as_ref()))
}

fn refuse_used(data: &Path) -> Result<()> {
    if let Some(name) = names(data)?.first() {
        let why = format!("it is not empty (it holds {name:?}); restore into a new directory");
        return Err(Error::Snapshot { place: data.display().to_string(), why });
    }
    Ok(())
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Enough to write one entry.
const CACHE_BYTES: usize = 8 << 20;
/// The folder that the journal is fetched to.
const JOURNAL: &str = "journal";

/// Its name says that the folder is no data directory yet.
const MARKER: &str = "RESTORING";

impl Work {
    /// Makes the folder that a directory is prepared in, in place of what a killed restore left.
    fn begin(data: &Path) -> Result<Self> {
        let name = data.file_name().ok_or_else(|| Error::Refused {
            reason: format!("{} names no directory", data.display()),
        })?;
        let parent = parent_of(data);
        fs::create_dir_all(parent).map_err(|source| io_error(parent, source))?;
        let folder = parent.join(format!(".{}.restoring", name.to_string_lossy()));
        let in_use = || Error::InUse { path: folder.display().to_string() };
        let marker = folder.join(MARKER);
        if folder.exists() {
            if let Ok(left) = File::open(&marker)
                && !left.try_lock_exclusive().map_err(|source| io_error(&marker, source))?
            {
                return Err(in_use());
            }
            fs::remove_dir_all(&folder).map_err(|source| io_error(&folder, source))?;
        }
        fs::create_dir(&folder).map_err(|source| io_error(&folder, source))?;
        let lock = File::create_new(&marker).map_err(|source| io_error(&marker, source))?;
        if !lock.try_lock_exclusive().map_err(|source| io_error(&marker, source))? {
            return Err(in_use());
        }
        Ok(Self { folder, _lock: lock, is_published: false })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if self.is_published {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::warn!(%error, path = %self.folder.display(), "a folder was not removed");
        }
    }
}
