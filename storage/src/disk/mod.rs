//! The files of RocksDB as they lie on disk, checked without RocksDB: what it would pass over in
//! silence (a hole in a log, a log that lost its end) is found here first.
//!
//! Read next: `docs/decisions/0005-snapshots.md`.

mod crc;
mod log;
mod manifest;
pub(crate) mod witness;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

use self::crc::Crc;
use self::log::Reading;
use self::manifest::Manifest;

pub(crate) use self::manifest::TableFile;

/// A file that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Its name below `rocks/`.
    pub(crate) file: String,
    pub(crate) why: String,
}

/// What the logs of a database say.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    /// Live table files.
    pub(crate) tables: Vec<TableFile>,
    /// Records in the write-ahead logs that are still needed.
    pub(crate) records: u64,
    /// Names of the files read.
    pub(crate) read: Vec<String>,
    pub(crate) damaged: Vec<Finding>,
}

/// Reads `CURRENT`, the manifest and the write-ahead logs that are still needed.
///
/// Without `checksums` the checksums of write-ahead records are left to RocksDB, which compares
/// them while it opens; their structure and the manifest are checked all the same.
///
/// # Errors
/// [`Error::Io`]; damage stands in the answer.
pub(crate) fn logs(rocks: &Path, checksums: bool) -> Result<Logs> {
    let mut logs = Logs::default();
    let names = names(rocks)?;
    let Some(manifest) = manifest(rocks, &names, &mut logs)? else { return Ok(logs) };
    let needed = needed(&names, &manifest);
    logs.tables = manifest.files.into_values().collect();
    let mut torn: Option<&String> = None;
    for name in needed {
        let read = log::read(open(&rocks.join(name))?, Reading { checksums, records: false });
        logs.read.push(name.clone());
        match read.map_err(|source| io_error(&rocks.join(name), source))? {
            Err(damage) => logs.damage(name, &format!("{} at byte {}", damage.why, damage.at)),
            Ok(log) => {
                logs.records += log.count;
                // A log that was opened anew after a kill, and killed again, may be empty.
                if let Some(before) = torn.take_if(|_| log.count > 0) {
                    logs.damage(before, "it ends within a record, and a later log goes on");
                }
                if log.torn {
                    torn = Some(name);
                }
            }
        }
    }
    // So it is for a moment while a database is made: nothing was ever written to it then.
    let is_being_made = logs.records == 0 && !names.iter().any(|name| name.ends_with(".sst"));
    if manifest.families.is_empty() && !manifest.torn && !is_being_made {
        logs.damage("CURRENT", "it leads to a manifest without families");
    }
    Ok(logs)
}

/// Refuses a database that RocksDB would open with a hole, or make anew.
///
/// # Errors
/// [`Error::Corrupt`], naming the first file found damaged.
pub(crate) fn refuse_damaged(rocks: &Path) -> Result<()> {
    let corrupt = |why: String| Error::Corrupt { what: "data directory", why };
    if !rocks.join("CURRENT").exists() {
        let lost = names(rocks)?.into_iter().find(|n| n.ends_with(".sst") || n.ends_with(".log"));
        return lost.map_or(Ok(()), |name| {
            Err(corrupt(format!("rocks/CURRENT is missing, but there is rocks/{name}")))
        });
    }
    match logs(rocks, false)?.damaged.first() {
        None => Ok(()),
        Some(Finding { file, why }) => {
            let advice = "`everwhen verify` says what else is, then restore a snapshot";
            Err(corrupt(format!("rocks/{file}: {why}; {advice}")))
        }
    }
}

/// Cuts the last write-ahead log before a record that is damaged, where nobody was ever told that
/// the record was there: everything up to `durable` stands before it. So ends a write that was under
/// way when the machine lost power. Answers whether something was cut.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn cut_unfinished(rocks: &Path, durable: u64) -> Result<bool> {
    let names = names(rocks)?;
    let Some(manifest) = manifest(rocks, &names, &mut Logs::default())? else { return Ok(false) };
    let mut reached = manifest.last_sequence;
    let mut damaged = None;
    for name in needed(&names, &manifest) {
        let path = rocks.join(name);
        let read = log::read(open(&path)?, Reading { checksums: true, records: false });
        match read.map_err(|source| io_error(&path, source))? {
            Ok(log) if log.count == 0 => {}
            // Later logs go on: this is damage to what was there.
            _ if damaged.is_some() => return Ok(false),
            Ok(log) => reached = reached.max(log.last_sequence.unwrap_or(0)),
            Err(damage) => {
                reached = reached.max(damage.last_sequence.unwrap_or(0));
                damaged = Some((path, damage.good));
            }
        }
    }
    let Some((path, good)) = damaged.filter(|_| reached >= durable) else { return Ok(false) };
    let cut = File::options().write(true).open(&path).and_then(|file| {
        file.set_len(good as u64)?;
        file.sync_all()
    });
    cut.map_err(|source| io_error(&path, source))?;
    tracing::warn!(path = %path.display(), bytes = good, "a log was cut before an unfinished write");
    Ok(true)
}

/// Returns the names of the write-ahead logs that are still needed, oldest first.
fn needed<'n>(names: &'n [String], manifest: &Manifest) -> Vec<&'n String> {
    let mut needed: Vec<(u64, &String)> = names
        .iter()
        .filter_map(|name| Some((name.strip_suffix(".log")?.parse().ok()?, name)))
        .filter(|(number, _)| *number >= manifest.log_number_min)
        .collect();
    needed.sort_unstable();
    needed.into_iter().map(|(_, name)| name).collect()
}

/// Compares a table file with its size and checksum as the manifest has them; `None` is good.
///
/// # Errors
/// [`Error::Io`] where it cannot be read, but not where it is missing.
pub(crate) fn check_table(rocks: &Path, table: &TableFile) -> Result<Option<Finding>> {
    let name = table.name();
    let path = rocks.join(&name);
    let finding = |why: String| Ok(Some(Finding { file: name.clone(), why }));
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return finding("it is missing".to_owned());
        }
        Err(source) => return Err(io_error(&path, source)),
    };
    let mut crc = Crc::default();
    let mut bytes = 0_u64;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(|source| io_error(&path, source))?;
        if read == 0 {
            break;
        }
        crc.add(&buffer[..read]);
        bytes += read as u64;
    }
    if bytes != table.bytes {
        return finding(format!("it has {bytes} bytes instead of {}", table.bytes));
    }
    if table.crc.is_some_and(|expected| expected != crc.value()) {
        return finding("its checksum does not match".to_owned());
    }
    Ok(None)
}

impl Logs {
    fn damage(&mut self, file: &str, why: &str) {
        self.damaged.push(Finding { file: file.to_owned(), why: why.to_owned() });
    }
}

fn manifest(rocks: &Path, names: &[String], logs: &mut Logs) -> Result<Option<Manifest>> {
    let path = rocks.join("CURRENT");
    let mut current = Vec::new();
    open(&path)?.read_to_end(&mut current).map_err(|source| io_error(&path, source))?;
    logs.read.push("CURRENT".to_owned());
    let named = std::str::from_utf8(&current).ok().and_then(|text| text.strip_suffix('\n'));
    let Some(name) = named.filter(|name| names.iter().any(|there| there == name)) else {
        logs.damage("CURRENT", "it does not name a manifest that is there");
        return Ok(None);
    };
    let path = rocks.join(name);
    logs.read.push(name.to_owned());
    match manifest::read(open(&path)?).map_err(|source| io_error(&path, source))? {
        Ok(manifest) => Ok(Some(manifest)),
        Err(damage) => {
            logs.damage(name, &format!("{} at byte {}", damage.why, damage.at));
            Ok(None)
        }
    }
}

/// Returns the names of the files in a folder, in order; none where there is no such folder.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(io_error(folder, source)),
        Ok(entries) => {
            for entry in entries {
                let name = entry.map_err(|source| io_error(folder, source))?.file_name();
                names.push(name.to_string_lossy().into_owned());
            }
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Reads a small text file, with a mark in place of what is no UTF-8; nothing where it is missing.
pub(crate) fn text(path: &Path) -> Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io_error(path, source)),
    }
}

/// Opens a file for reading.
pub(crate) fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|source| io_error(path, source))
}

/// Makes what a folder lists durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    open(folder)?.sync_all().map_err(|source| io_error(folder, source))
}

/// Writes a small file so that it is there wholly or not at all, whatever happens.
pub(crate) fn write_whole(file: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    let partial: PathBuf = file.with_extension("partial");
    let written = File::create(&partial)
        .and_then(|mut out| {
            out.write_all(text.as_bytes())?;
            out.sync_all()
        })
        .and_then(|()| fs::rename(&partial, file));
    written.map_err(|source| io_error(file, source))?;
    file.parent().map_or(Ok(()), sync_folder)
}

pub(crate) fn io_error(path: &Path, source: io::Error) -> Error {
    Error::Io { path: path.display().to_string(), source }
}
