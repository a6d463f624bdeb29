//! Locks on a bucket: small objects that their holders keep fresh.
//!
//! ```text
//! locks/shared-ID   somebody creates, verifies or restores
//! locks/whole       somebody removes
//! ```
//!
//! Whoever takes a lock writes its own object first and then looks for that of the others, so of two
//! at once at least one sees the other. Age is told by the store's own clock alone: by how much
//! later it wrote one's own object than the other's. What is too old was left by a dead process, and
//! is removed; a holder that was only slow finds out, since it renews by a conditional write, and
//! does so once more before what must not be done without the lock.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;

use super::bucket::Bucket;
use super::place::{For, Held, Hold, Place as _};
use crate::error::{Error, Result};

const WHOLE: &str = "locks/whole";
const SHARED: &str = "locks/shared-";
/// A holder renews its lease so many times while it lasts.
const RENEWALS: u32 = 4;

/// Which writing of an object is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) e_tag: Option<String>,
    pub(super) version: Option<String>,
}

/// What became of a conditional write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Written {
    Now(Version),
    /// Something else is there than was meant.
    Not,
    /// The credentials may not write.
    Denied,
}

/// When an object was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Milliseconds since the Unix epoch, by the store's clock.
    pub(super) written_ms: i64,
    pub(super) version: Version,
}

/// Gives out the locks of a bucket.
pub(super) struct Leases<'b> {
    bucket: &'b Bucket,
    lasts: Duration,
}

/// Nothing is locked: the credentials may only read.
struct Unlocked;

impl Hold for Unlocked {
    fn renew(&self) -> Result<()> {
        Ok(())
    }
}

/// A lease that a thread keeps fresh.
struct Lease {
    kept: Arc<Kept>,
    /// Dropped to end the thread.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What came of asking for a lease.
enum Begun {
    Held(Lease),
    Taken,
    Denied,
}

/// The object of a lease.
struct Kept {
    bucket: Bucket,
    name: String,
    /// Which writing of it is ours, and how often it was written.
    last: Mutex<(Version, u64)>,
    id: String,
}

impl<'b> Leases<'b> {
    pub(super) const fn new(bucket: &'b Bucket, lasts: Duration) -> Self {
        Self { bucket, lasts }
    }

    /// Keeps others from removing; nothing while somebody is at it.
    pub(super) fn share(&self, what_for: For) -> Result<Option<Held>> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let lease = match self.begin(format!("{SHARED}{id}"), id, None)? {
            Begun::Held(lease) => lease,
            Begun::Denied if what_for == For::Reading => {
                tracing::debug!("the credentials may not write locks: going on without");
                return Ok(Some(Held(Box::new(Unlocked))));
            }
            Begun::Denied => return Err(self.bucket.denied("locks")),
            // Its name is new.
            Begun::Taken => return Ok(None),
        };
        let now = lease.kept.written_ms()?;
        if let Some(whole) = self.bucket.stamp(WHOLE)? {
            if !self.is_over(&whole, now) {
                return Ok(None);
            }
            self.bucket.remove(&[WHOLE.to_owned()])?;
        }
        Ok(Some(Held(Box::new(lease))))
    }

    /// Keeps others from everything; nothing while somebody does anything.
    pub(super) fn claim(&self) -> Result<Option<Held>> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let mut begun = self.begin(WHOLE.to_owned(), id.clone(), None)?;
        if let Begun::Taken = begun {
            begun = self.take_over(id)?;
        }
        let lease = match begun {
            Begun::Held(lease) => lease,
            Begun::Taken => return Ok(None),
            Begun::Denied => return Err(self.bucket.denied(WHOLE)),
        };
        let now = lease.kept.written_ms()?;
        let mut left = Vec::new();
        for found in self.bucket.list("locks")? {
            if found.name.starts_with(SHARED)
                && let Some(stamp) = self.bucket.stamp(&found.name)?
            {
                if !self.is_over(&stamp, now) {
                    return Ok(None);
                }
                left.push(found.name);
            }
        }
        self.bucket.remove(&left)?;
        Ok(Some(Held(Box::new(lease))))
    }

    /// Takes the place of somebody who has not been heard of for too long.
    fn take_over(&self, id: String) -> Result<Begun> {
        let probe = format!("locks/now-{id}");
        self.bucket.create(&probe, b"")?;
        let now = self.bucket.stamp(&probe)?;
        self.bucket.remove(&[probe])?;
        match (self.bucket.stamp(WHOLE)?, now) {
            (Some(whole), Some(now)) if self.is_over(&whole, now.written_ms) => {
                self.begin(WHOLE.to_owned(), id, Some(&whole.version))
            }
            _ => Ok(Begun::Taken),
        }
    }

    fn is_over(&self, stamp: &Stamp, now_ms: i64) -> bool {
        let lasts = i64::try_from(self.lasts.as_millis()).unwrap_or(i64::MAX);
        now_ms.saturating_sub(stamp.written_ms) > lasts
    }

    /// Writes the object of a lease where `over` is what is there, and keeps it fresh.
    fn begin(&self, name: String, id: String, over: Option<&Version>) -> Result<Begun> {
        let version = match self.bucket.write_if(&name, text(&id, 0).as_bytes(), over)? {
            Written::Now(version) => version,
            Written::Not => return Ok(Begun::Taken),
            Written::Denied => return Ok(Begun::Denied),
        };
        let last = Mutex::new((version, 0));
        let kept = Arc::new(Kept { bucket: self.bucket.clone(), name, last, id });
        let mut lease = Lease { kept: Arc::clone(&kept), end: None, thread: None };
        let (end, ended) = bounded::<()>(0);
        let every = self.lasts / RENEWALS;
        let thread =
            std::thread::Builder::new().name("everwhen-lease".to_owned()).spawn(move || {
                while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                    if let Err(error) = kept.renew() {
                        tracing::warn!(%error, "a lock on a bucket was not renewed");
                    }
                }
            });
        let thread = thread
            .map_err(|source| Error::Io { path: "the thread of a lock".to_owned(), source })?;
        (lease.end, lease.thread) = (Some(end), Some(thread));
        Ok(Begun::Held(lease))
    }
}

/// Returns what the object of a lease says.
fn text(id: &str, count: u64) -> String {
    format!("{id} {count}\n")
}

impl Kept {
    fn renew(&self) -> Result<()> {
        let mut last = self.last.lock();
        let count = last.1 + 1;
        let written =
            self.bucket.write_if(&self.name, text(&self.id, count).as_bytes(), Some(&last.0))?;
        match written {
            Written::Now(version) => {
                *last = (version, count);
                Ok(())
            }
            Written::Not | Written::Denied => Err(Error::Snapshot {
                place: self.bucket.shown(&self.name),
                why: "the lock was not renewed in time and somebody took it away; try again"
                    .to_owned(),
            }),
        }
    }

    /// Removes the object, unless somebody else has taken its place.
    fn remove(&self) -> Result<()> {
        let found = self.bucket.stamp(&self.name)?.and_then(|stamp| stamp.version.e_tag);
        if found.is_some() && found == self.last.lock().0.e_tag {
            self.bucket.remove(std::slice::from_ref(&self.name))?;
        }
        Ok(())
    }

    fn written_ms(&self) -> Result<i64> {
        let stamp = self.bucket.stamp(&self.name)?;
        stamp.map(|stamp| stamp.written_ms).ok_or_else(|| Error::Snapshot {
            place: self.bucket.shown(&self.name),
            why: "the lock is gone; try again".to_owned(),
        })
    }
}

impl Hold for Lease {
    fn renew(&self) -> Result<()> {
        self.kept.renew()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of a lock panicked");
        }
        let gone = self.kept.remove();
        if let Err(error) = gone {
            tracing::warn!(%error, "a lock on a bucket was not given back: it runs out by itself");
        }
    }
}
