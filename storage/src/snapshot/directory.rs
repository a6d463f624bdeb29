//! A target in a directory: everything is synced, and locks are those of files.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use fs4::fs_std::FileExt as _;

use super::files::{Content, copy, remove, write_new};
use super::manifest::Part;
use super::place::{For, Found, Held, Hold, Pieces, Place, Told, blob_name, is_ours};
use super::target::PROOF;
use crate::disk::{io_error, names, open, sync_folder, write_whole};
use crate::error::{Error, Result};

/// A directory that holds snapshots.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
}

/// A lock that is an open file.
struct FileLock(#[expect(dead_code, reason = "the lock is the open file")] File);

impl Hold for FileLock {
    fn renew(&self) -> Result<()> {
        Ok(())
    }
}

impl Directory {
    pub(super) const fn at(root: PathBuf) -> Self {
        Self { root }
    }

    fn partial(&self) -> PathBuf {
        self.root.join("partial").join(uuid::Uuid::new_v4().simple().to_string())
    }

    /// Gives what was written its name, unless that is taken; false where it is.
    fn link(&self, partial: &Path, name: &str) -> Result<bool> {
        let path = self.root.join(name);
        let folder = path.parent().unwrap_or(&self.root);
        if !folder.exists() {
            fs::create_dir_all(folder).map_err(|source| io_error(folder, source))?;
            sync_folder(folder.parent().unwrap_or(&self.root))?;
            sync_folder(&self.root)?;
        }
        // A link is made whole or not at all, and never over what is there.
        let linked = fs::hard_link(partial, &path);
        remove(partial)?;
        match linked {
            Ok(()) => sync_folder(folder).map(|()| true),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
            Err(source) => Err(io_error(&path, source)),
        }
    }

    fn list_into(&self, folder: &str, found: &mut Vec<Found>) -> Result<()> {
        for name in names(&self.root.join(folder))? {
            let name = format!("{folder}/{name}");
            let path = self.root.join(&name);
            let data = match fs::symlink_metadata(&path) {
                Ok(data) => data,
                // Somebody has removed it meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(source) => return Err(io_error(&path, source)),
            };
            if data.is_dir() {
                self.list_into(&name, found)?;
            } else {
                found.push(Found { name, bytes: data.len() });
            }
        }
        Ok(())
    }

    fn open(&self, name: &str) -> Result<Option<File>> {
        let path = self.root.join(name);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(io_error(&path, source)),
        }
    }
}

impl Place for Directory {
    fn shown(&self, name: &str) -> String {
        let path = if name.is_empty() { self.root.clone() } else { self.root.join(name) };
        path.display().to_string()
    }

    fn folder(&self) -> Option<&Path> {
        Some(&self.root)
    }

    fn make(&self, format: &str) -> Result<()> {
        let strange =
            |name: &String| !name.starts_with(PROOF) && name != "lost+found" && !is_ours(name);
        if let Some(name) = names(&self.root)?.iter().find(|name| strange(name)) {
            let why = format!("it is no snapshot target and not empty (it holds {name:?})");
            return Err(Error::Snapshot { place: self.shown(""), why });
        }
        for folder in ["blobs", "snapshots", "partial"].map(|name| self.root.join(name)) {
            fs::create_dir_all(&folder).map_err(|source| io_error(&folder, source))?;
        }
        let lock = self.root.join("LOCK");
        let made = File::options().create(true).truncate(false).write(true).open(&lock);
        made.map_err(|source| io_error(&lock, source))?;
        // Last: a directory without it is not a target yet.
        write_whole(&self.root.join("FORMAT"), format)
    }

    fn whole(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.root.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(io_error(&path, source)),
        }
    }

    fn read(&self, name: &str, each: Pieces<'_>) -> Result<bool> {
        let path = self.root.join(name);
        if !path.exists() {
            return Ok(false);
        }
        super::files::pieces(&path, each)?;
        Ok(true)
    }

    fn start(&self, name: &str, bytes: u64) -> Result<Option<Vec<u8>>> {
        use std::io::Read as _;
        let Some(file) = self.open(name)? else { return Ok(None) };
        let mut start = Vec::new();
        let read = file.take(bytes).read_to_end(&mut start);
        read.map_err(|source| io_error(&self.root.join(name), source))?;
        Ok(Some(start))
    }

    fn bytes_of(&self, name: &str) -> Result<Option<u64>> {
        Ok(fs::metadata(self.root.join(name)).ok().filter(fs::Metadata::is_file).map(|f| f.len()))
    }

    fn list(&self, folder: &str) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        self.list_into(folder, &mut found)?;
        found.sort();
        Ok(found)
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        let partial = self.partial();
        write_new(&partial, bytes)?;
        self.link(&partial, name)
    }

    fn put_file(&self, from: &Path, name: &str) -> Result<bool> {
        let partial = self.partial();
        let copied = copy(from, &partial, |_| Ok(())).and_then(|_| self.link(&partial, name));
        if copied.is_err() {
            remove(&partial)?;
        }
        copied
    }

    fn put_blob(&self, from: &Path, told: Told<'_>) -> Result<Content> {
        let partial = self.partial();
        let content = copy(from, &partial, told).and_then(|content| {
            let blob = self.root.join(blob_name(&content.sha256));
            let folder = blob.parent().unwrap_or(&self.root);
            fs::create_dir_all(folder).map_err(|source| io_error(folder, source))?;
            fs::rename(&partial, &blob).map_err(|source| io_error(&blob, source))?;
            Ok(content)
        });
        if content.is_err() {
            remove(&partial)?;
        }
        content
    }

    fn settle(&self, parts: &[Part]) -> Result<()> {
        let folders: BTreeSet<&str> = parts.iter().filter_map(|p| p.sha256.get(..2)).collect();
        for folder in folders {
            sync_folder(&self.root.join("blobs").join(folder))?;
        }
        sync_folder(&self.root.join("blobs"))
    }

    fn remove(&self, names: &[String]) -> Result<()> {
        let mut folders = BTreeSet::new();
        for name in names {
            let path = self.root.join(name);
            remove(&path)?;
            folders.extend(path.parent().map(Path::to_owned));
        }
        folders.iter().try_for_each(|folder| sync_folder(folder))
    }

    fn leftovers(&self) -> Result<Vec<Found>> {
        let mut left = self.list("partial")?;
        for name in names(&self.root)? {
            if name.starts_with(PROOF) {
                left.push(Found { name, bytes: 0 });
            }
        }
        Ok(left)
    }

    fn share(&self, _: For) -> Result<Option<Held>> {
        let path = self.root.join("LOCK");
        let file = open(&path)?;
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Held(Box::new(FileLock(file))))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(io_error(&path, source)),
        }
    }

    fn claim(&self) -> Result<Option<Held>> {
        let path = self.root.join("LOCK");
        let file = open(&path)?;
        match file.try_lock_exclusive() {
            Ok(held) => Ok(held.then(|| Held(Box::new(FileLock(file))))),
            Err(source) => Err(io_error(&path, source)),
        }
    }
}
