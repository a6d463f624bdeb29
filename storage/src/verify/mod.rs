//! `everwhen verify`: is a data directory as it was written, to the last byte that matters?
//!
//! ```text
//! files      CURRENT, manifest, write-ahead logs: every record; table files: every byte, by the
//!            checksum that the manifest has of each
//! contents   every key and value of every family decoded; what must hold between families
//! ```
//!
//! Not looked at, because no answer comes from them: RocksDB's `LOG`, `LOCK`, `IDENTITY`, its
//! `OPTIONS-*` (the program gives its own), and logs older than the manifest says are needed.

mod contents;

use std::ops::ControlFlow;
use std::path::Path;

use crate::disk::{self, Finding};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::families::Family;
use crate::snapshot::{Progress, Watch};

/// Problems that are told; more are only counted.
const PROBLEMS_MAX: usize = 100;

/// What was found out about a data directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Files of the database that were read.
    pub files: u64,
    pub bytes: u64,
    /// Table files whose checksum is not recorded: written by an older program; their blocks were
    /// checked as they were read.
    pub unsummed: u64,
    /// Files of the database that no answer comes from, which were not read.
    pub passed_over: Vec<String>,
    /// Entries of each family.
    pub families: Vec<(&'static str, u64)>,
    /// Bytes of all keys, and of all values, before compression.
    pub key_bytes: u64,
    pub value_bytes: u64,
    /// The last transaction.
    pub tx: u64,
    /// What is damaged, in words for people; at most 100.
    pub problems: Vec<String>,
    /// How much is damaged.
    pub problem_count: u64,
}

impl Report {
    /// True where nothing is damaged.
    pub fn is_good(&self) -> bool {
        self.problem_count == 0
    }

    fn problem(&mut self, text: String) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(text);
        }
    }
}

/// Reads a data directory that no process uses, every byte of it, and changes nothing of it but
/// RocksDB's own `LOG`.
///
/// Where files are damaged their contents are not decoded: what they say could not be trusted.
///
/// # Errors
/// [`Error::Format`] where it is no data directory of this format, [`Error::InUse`],
/// [`Error::Stopped`] by `watch`, [`Error::Io`]; damage stands in the answer.
pub fn directory(path: &Path, watch: Watch<'_>) -> Result<Report> {
    let mut report = Report::default();
    let _lock = Engine::lock_for_reading(path)?;
    let rocks = path.join("rocks");
    files(&rocks, &mut report, watch)?;
    if !report.is_good() {
        return Ok(report);
    }
    match Engine::open_read_only(path) {
        Ok(engine) => contents::check(&engine, &mut report, watch)?,
        Err(error @ (Error::Io { .. } | Error::Format { .. } | Error::InUse { .. })) => {
            return Err(error);
        }
        Err(error) => report.problem(error.to_string()),
    }
    Ok(report)
}

fn files(rocks: &Path, report: &mut Report, watch: Watch<'_>) -> Result<()> {
    let logs = disk::logs(rocks, true)?;
    report.files += logs.read.len() as u64;
    for Finding { file, why } in &logs.damaged {
        report.problem(format!("rocks/{file}: {why}"));
    }
    let bytes: u64 = logs.tables.iter().map(|table| table.bytes).sum();
    let files = logs.tables.len() as u64;
    let mut progress =
        Progress { doing: "reading files", files_done: 0, files, bytes_done: 0, bytes };
    tell(watch, &progress)?;
    for table in &logs.tables {
        if let Some(Finding { file, why }) = disk::check_table(rocks, table)? {
            report.problem(format!("rocks/{file}: {why}"));
        }
        report.unsummed += u64::from(table.crc.is_none());
        progress.files_done += 1;
        progress.bytes_done += table.bytes;
        tell(watch, &progress)?;
    }
    report.files += files;
    report.bytes += bytes;
    let is_read = |name: &String| {
        logs.read.contains(name) || logs.tables.iter().any(|table| table.name() == *name)
    };
    report.passed_over = disk::names(rocks)?.into_iter().filter(|name| !is_read(name)).collect();
    Ok(())
}

fn tell(watch: Watch<'_>, progress: &Progress) -> Result<()> {
    match watch(progress) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Stopped),
    }
}

/// Families in the order that they are read.
const fn families() -> [Family; 12] {
    Family::ALL
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
