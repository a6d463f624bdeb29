//! Shipping the journal to a target as it grows.
//!
//! What is shipped is durable in the store first, so a journal never says more than the directory
//! that it is of. Erasures go along in a ledger of their own ([`super::erasures`]).

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};

use super::erasures;
use super::journal::{Lineage, folder, segments};
use super::restore::ancestors;
use super::target::Target;
use crate::disk::io_error;
use crate::error::{Error, Result};
use crate::journal::segment::{self, HEAD_BYTES_WHOLE, SegmentReader};
use crate::journal::ship::segment_name;
use crate::store::Store;
use crate::time::SystemTime;
use crate::tx::TxId;
use crate::{failpoint, journal};

/// Ships a store's journal to a target, again and again.
pub struct Shipper {
    store: Store,
    target: Target,
    /// What the target has; nothing while that is not known.
    shipped: Option<Reached>,
}

#[derive(Debug, Clone, Copy)]
struct Reached {
    tx: TxId,
    /// The last erasure in the ledger.
    erasure: TxId,
}

/// A segment that was shipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shipped {
    pub first: TxId,
    pub last: TxId,
    /// The system time of the last transaction.
    pub system_time: SystemTime,
    pub bytes: u64,
}

impl Shipper {
    /// Prepares to ship; touches nothing.
    pub const fn new(store: Store, target: Target) -> Self {
        Self { store, target, shipped: None }
    }

    /// Returns the last transaction that the target is known to have.
    pub fn reached(&self) -> Option<TxId> {
        self.shipped.map(|shipped| shipped.tx)
    }

    /// Ships what the target lacks as one more segment; nothing where it lacks nothing. Durable when
    /// it answers. The target is made where it is missing. Blocking.
    ///
    /// # Errors
    /// [`Error::Segment`] where the target's journal goes beyond this store, [`Error::Snapshot`]
    /// where a bucket does not answer or the place is no target, [`Error::Io`]; a later call goes on.
    pub fn ship(&mut self) -> Result<Option<Shipped>> {
        let mut reached = match self.shipped {
            Some(reached) => reached,
            None => self.begin()?,
        };
        if self.store.latest().tx <= reached.tx {
            self.shipped = Some(reached);
            return Ok(None);
        }
        // Should anything fail, the target is asked again.
        self.shipped = None;
        let shipped = self.segment(reached.tx)?;
        reached.tx = shipped.last;
        reached.erasure = erasures::put(&self.store, &self.target, reached.erasure)?;
        self.shipped = Some(reached);
        Ok(Some(shipped))
    }

    /// Finds out what the target has.
    fn begin(&self) -> Result<Reached> {
        self.target.make()?;
        let engine = self.store.engine()?;
        let incarnation = self.store.incarnation();
        let ancestors = ancestors(engine.path())?;
        let forked = ancestors.last().map_or(TxId::ZERO, |ancestor| TxId::new(ancestor.tx));
        let began_at = self.store.clock().now_micros();
        Lineage { incarnation: incarnation.clone(), ancestors, began_at }.put(&self.target)?;
        let found = self.target.place().list(&folder(&incarnation))?;
        let last = segments(&self.target, found)?.pop();
        if let Some(last) = &last {
            self.check_ours(last.last, &last.found.name)?;
        }
        let tx = last.map_or(forked, |last| last.last);
        let erasure = erasures::last(&self.target, &incarnation)?.unwrap_or(forked);
        Ok(Reached { tx, erasure })
    }

    /// Checks that a segment is of this store's own past: a copy of the directory may have gone on.
    fn check_ours(&self, last: TxId, name: &str) -> Result<()> {
        let path = self.target.place().shown(name);
        let wrong = |why: &str| Error::Segment { path: path.clone(), why: why.to_owned() };
        let engine = self.store.engine()?;
        let time = |tx: TxId| -> Result<Option<SystemTime>> {
            Ok(journal::entry_of(&engine, tx)?.map(|entry| entry.system_time_of(tx)))
        };
        let head = self.target.place().start(name, HEAD_BYTES_WHOLE)?.unwrap_or_default();
        let (after, at) = SegmentReader::open(head.as_slice(), &path)?.head().after;
        if after != TxId::ZERO && time(after)? != Some(at) {
            return Err(wrong("it is of another history: ship to another place"));
        }
        match time(last)? {
            Some(_) => Ok(()),
            None => Err(wrong("it goes beyond this store: ship to another place")),
        }
    }

    fn segment(&self, after: TxId) -> Result<Shipped> {
        let engine = self.store.engine()?;
        let folder_here = engine.path().join("ship");
        fs::create_dir_all(&folder_here).map_err(|source| io_error(&folder_here, source))?;
        let spool = folder_here.join("segment");
        let failed = |source| io_error(&spool, source);
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&spool).map_err(failed)?);
        let end = segment::write(&engine, after, &spool.display().to_string(), &mut out)?;
        out.flush().map_err(failed)?;
        let bytes = out.get_ref().metadata().map_err(failed)?.len();
        drop(out);
        // All that is in it was committed by now; with this it is durable.
        engine.flush()?;
        failpoint::pass("ship.written");
        let (first, last) = (after.plus(1), end.last.0);
        let name = format!("{}/{}", folder(&self.store.incarnation()), segment_name(first, last));
        if !self.target.place().put_file(&spool, &name)? {
            let path = self.target.place().shown(&name);
            let why = "another process has shipped it: one data directory must be served once";
            return Err(Error::Segment { path, why: why.to_owned() });
        }
        failpoint::pass("ship.put");
        fs::remove_file(&spool).map_err(failed)?;
        Ok(Shipped { first, last, system_time: end.last.1, bytes })
    }
}
