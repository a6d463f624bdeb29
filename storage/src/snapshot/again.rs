//! Erasing again what was erased since the snapshot, before a restored directory is used.

use std::path::Path;
use std::sync::Arc;

use super::erasures::since;
use super::restore::Prepared;
use crate::clock::Clock;
use crate::erase::again::{Again, erase, finish, mark, retain_known};
use crate::error::Result;
use crate::failpoint;
use crate::store::{Options, Store};

const CACHE_BYTES: usize = 64 << 20;

/// What came of erasing again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ErasedAgain {
    /// Erasures that the directory lacked.
    pub erasures: usize,
    /// Keys of them that it had.
    pub keys: usize,
    /// Keys whose late records will not be known as such: they were erased under another secret.
    pub unmarked: usize,
    /// Erasures that the server must still finish.
    pub unfinished: bool,
}

impl Prepared {
    /// Makes again what was erased after what the directory holds, as far as the target knows, and
    /// waits until the bytes are gone from it. Call it once the journal is replayed. Blocking.
    ///
    /// # Errors
    /// Those of opening and writing a store; [`crate::Error::Snapshot`] for a damaged ledger.
    pub fn erase_again(&mut self, clock: Arc<dyn Clock>) -> Result<ErasedAgain> {
        let mut erasures: Vec<Again> =
            since(self.target(), self.manifest(), |incarnation, tx| self.has(incarnation, tx))?;
        if erasures.is_empty() && !self.is_replayed() {
            return Ok(ErasedAgain::default());
        }
        let store = open(self.directory(), &clock)?;
        retain_known(&store, &mut erasures);
        let unmarked = mark(&store, &erasures)?;
        store.close()?;
        let store = open(self.directory(), &clock)?;
        let keys = erase(&store, &erasures)?;
        let unfinished = !finish(&store)?;
        store.close()?;
        failpoint::pass("restore.erased");
        let new = erasures.iter().filter(|again| again.is_new).count();
        Ok(ErasedAgain { erasures: new, keys, unmarked, unfinished })
    }
}

fn open(directory: &Path, clock: &Arc<dyn Clock>) -> Result<Store> {
    Store::open(Options {
        path: directory.to_owned(),
        clock: Arc::clone(clock),
        sync: true,
        block_cache_bytes: CACHE_BYTES,
    })
}
