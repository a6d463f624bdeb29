//! A few threads over a list of files, with progress.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::{Progress, Watch};
use crate::error::{Error, Result};

/// Files worked on at once: enough to keep a disk busy beside the hashing, few enough to serve.
const THREADS: usize = 2;

/// Counts what is done and tells of it.
pub(super) struct Meter<'w> {
    progress: Mutex<Progress>,
    watch: Watch<'w>,
}

impl<'w> Meter<'w> {
    /// Starts at nothing of `files` and `bytes`.
    pub(super) fn new(doing: &'static str, files: u64, bytes: u64, watch: Watch<'w>) -> Self {
        let progress = Progress { doing, files_done: 0, files, bytes_done: 0, bytes };
        Self { progress: Mutex::new(progress), watch }
    }

    /// Adds what was done since.
    ///
    /// # Errors
    /// [`Error::Stopped`] where whoever watches wants no more.
    pub(super) fn add(&self, files: u64, bytes: u64) -> Result<()> {
        let now = {
            let mut progress = self.progress.lock();
            progress.files_done += files;
            progress.bytes_done += bytes;
            progress.clone()
        };
        match (self.watch)(&now) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Stopped),
        }
    }
}

/// Calls `work` for every item, on a few threads; answers in the order of the items.
///
/// # Errors
/// The first that happens; items not begun by then are left.
pub(super) fn each<I: Sync, O: Send>(
    items: &[I],
    work: impl Fn(&I) -> Result<O> + Sync,
) -> Result<Vec<O>> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, O)>> = Mutex::new(Vec::with_capacity(items.len()));
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..THREADS.min(items.len()) {
            scope.spawn(|| {
                while failed.lock().is_none() {
                    let at = next.fetch_add(1, Ordering::SeqCst);
                    let Some(item) = items.get(at) else { return };
                    match work(item) {
                        Ok(answer) => done.lock().push((at, answer)),
                        Err(error) => {
                            failed.lock().get_or_insert(error);
                        }
                    }
                }
            });
        }
    });
    if let Some(error) = failed.into_inner() {
        return Err(error);
    }
    let mut done = done.into_inner();
    done.sort_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, answer)| answer).collect())
}
