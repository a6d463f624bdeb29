//! Whether the store takes writes: a full disk pauses them, any other failed write ends them.
//!
//! ```text
//! well ──(no room)──> full ──(a write succeeds)──> well
//!   └──(a write or sync fails)──> failed: until the store is opened anew
//! ```
//!
//! A file whose sync failed may have lost what it held while the next sync of it succeeds, so
//! nothing is ever tried again on it: the process must end and the store be opened again.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use crate::error::{Error, Result};

/// Whether the store takes writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Well,
    /// The disk has no room: reads go on, writes are refused until there is some.
    Full {
        why: String,
    },
    /// A write failed: reads may go on, the store must be opened anew.
    Failed {
        why: String,
    },
}

/// What is written to find out whether a quota is no longer exceeded.
const PROBE_BYTES: usize = 1 << 20;

/// Keeps the standing of one open engine.
pub(crate) struct Keeper {
    directory: PathBuf,
    reserve_bytes: u64,
    standing: watch::Sender<Standing>,
    /// The engine cannot take up writing by itself: true after a quota was exceeded.
    stuck: AtomicBool,
}

impl Keeper {
    /// Starts well.
    pub(crate) fn new(directory: &Path, reserve_bytes: u64) -> Self {
        Self {
            directory: directory.to_owned(),
            reserve_bytes,
            standing: watch::Sender::new(Standing::Well),
            stuck: AtomicBool::new(false),
        }
    }

    /// Returns a receiver that tells every change.
    pub(crate) fn watch(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// True while writes are refused for want of room.
    pub(crate) fn is_full(&self) -> bool {
        matches!(*self.standing.borrow(), Standing::Full { .. })
    }

    /// Returns how it stands.
    #[cfg(test)]
    pub(crate) fn now(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Returns the room on the disk for others than root; `None` where the system does not say.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        fs4::available_space(&self.directory).ok()
    }

    /// Refuses a write after a failure.
    pub(crate) fn check(&self) -> Result<()> {
        match &*self.standing.borrow() {
            Standing::Failed { why } => Err(Error::Failed { why: why.clone() }),
            Standing::Well | Standing::Full { .. } => Ok(()),
        }
    }

    /// Refuses a write after a failure, and where less room is left than the reserve and what is
    /// still to be written out of memory.
    pub(crate) fn admit(&self, unflushed_bytes: u64) -> Result<()> {
        self.check()?;
        if self.stuck.load(Ordering::SeqCst) && self.probe() {
            let why = "a disk quota was exceeded and no longer is: open the store again";
            return Err(self.fail(why.to_owned()));
        }
        if self.reserve_bytes == 0 {
            return Ok(());
        }
        let needed = self.reserve_bytes.saturating_add(unflushed_bytes);
        match self.free_bytes() {
            Some(free) if free < needed => {
                let mib = |bytes: u64| bytes >> 20;
                let why = format!("{} MiB are free, {} MiB are needed", mib(free), mib(needed));
                Err(self.full(why))
            }
            _ => Ok(()),
        }
    }

    /// Notes a write that succeeded.
    pub(crate) fn wrote(&self) {
        let resumed = self.standing.send_if_modified(|standing| {
            let was_full = matches!(standing, Standing::Full { .. });
            if was_full {
                *standing = Standing::Well;
            }
            was_full
        });
        if resumed {
            tracing::info!("there is room on the disk again: writes go on");
        }
    }

    /// Notes a write that failed and returns its error.
    pub(crate) fn fault(&self, error: &rocksdb::Error) -> Error {
        match Fault::of(error.as_ref()) {
            Fault::NoSpace => self.full("the disk refused a write".to_owned()),
            Fault::Quota => {
                self.stuck.store(true, Ordering::SeqCst);
                self.full("the disk quota is exceeded".to_owned())
            }
            Fault::Lasting => self.fail(error.to_string()),
        }
    }

    fn full(&self, why: String) -> Error {
        let news = self.standing.send_if_modified(|standing| {
            let well = *standing == Standing::Well;
            if well {
                *standing = Standing::Full { why: why.clone() };
            }
            well
        });
        if news {
            tracing::error!(why, "the disk is full: writes are refused until there is room");
        }
        Error::DiskFull { why }
    }

    fn fail(&self, why: String) -> Error {
        let news = self.standing.send_if_modified(|standing| {
            let first = !matches!(standing, Standing::Failed { .. });
            if first {
                *standing = Standing::Failed { why: why.clone() };
            }
            first
        });
        if news {
            tracing::error!(why, "a write failed: the store takes no more of them");
        }
        Error::Failed { why }
    }

    /// True where a file can be written again.
    fn probe(&self) -> bool {
        let path = self.directory.join("PROBE");
        let written = File::create(&path)
            .and_then(|mut file| file.write_all(&vec![0; PROBE_BYTES]).and(file.sync_all()));
        let _ = fs::remove_file(&path);
        written.is_ok()
    }
}

/// What a failed write says about those that would follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The engine takes up writing in new files once there is room.
    NoSpace,
    /// It would, but does not know this error.
    Quota,
    /// What the files hold is not known.
    Lasting,
}

impl Fault {
    /// Reads the engine's text: it hands on the system's reason in no other form.
    fn of(text: &str) -> Self {
        let sync = ["While fdatasync", "While fsync", "While sync_file_range", "While fcntl"];
        if sync.iter().any(|context| text.contains(context)) {
            Self::Lasting
        } else if text.contains("No space left on device") {
            Self::NoSpace
        } else if text.contains("Disk quota exceeded") {
            Self::Quota
        } else {
            Self::Lasting
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_sync_is_lasting_whatever_its_reason() {
        for (text, fault) in [
            (
                "IO error: No space left on device: While appending to file: /d/000004.log: \
                 No space left on device",
                Fault::NoSpace,
            ),
            ("IO error: No space left on device: While fdatasync: /d/000004.log", Fault::Lasting),
            ("IO error: While appending to file: /d/1.log: Disk quota exceeded", Fault::Quota),
            ("IO error: While fdatasync: /d/000004.log: Input/output error", Fault::Lasting),
            ("Corruption: bad entry in block", Fault::Lasting),
        ] {
            assert_eq!(Fault::of(text), fault, "{text}");
        }
    }

    #[test]
    fn too_little_room_refuses_and_a_write_resumes() {
        let keeper = Keeper::new(&std::env::temp_dir(), u64::MAX / 2);
        let refused = keeper.admit(0).unwrap_err();
        assert!(matches!(refused, Error::DiskFull { .. }) && refused.is_retryable(), "{refused}");
        assert!(matches!(keeper.now(), Standing::Full { .. }));
        keeper.check().unwrap();
        keeper.wrote();
        assert_eq!(keeper.now(), Standing::Well);
    }

    #[test]
    fn a_failure_stays() {
        let keeper = Keeper::new(&std::env::temp_dir(), 0);
        keeper.admit(u64::MAX).unwrap();
        let failed = keeper.fail("a sync failed".to_owned());
        assert!(!failed.is_retryable());
        keeper.wrote();
        keeper.full("later".to_owned());
        assert!(matches!(keeper.now(), Standing::Failed { why } if why == "a sync failed"));
        assert!(matches!(keeper.admit(0), Err(Error::Failed { .. })));
    }

    #[test]
    fn an_exceeded_quota_ends_with_a_fresh_start() {
        let directory = std::env::temp_dir();
        let keeper = Keeper::new(&directory, 0);
        keeper.stuck.store(true, Ordering::SeqCst);
        assert!(matches!(keeper.admit(0), Err(Error::Failed { .. })));
        assert!(!directory.join("PROBE").exists());
    }
}
