//! Whether the server has started, works and takes requests; and the signal to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio_util::sync::CancellationToken;

const STARTING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;

/// The state that health end points report. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Health {
    state: Arc<AtomicU8>,
    stop: CancellationToken,
}

impl Health {
    /// Says that everything is up.
    pub fn set_ready(&self) {
        self.state.store(READY, Ordering::SeqCst);
    }

    /// Says that the server is going to stop.
    pub fn set_draining(&self) {
        self.state.store(DRAINING, Ordering::SeqCst);
    }

    /// Takes no more requests, and wakes whatever waits on [`Health::stopping`].
    pub fn stop_requests(&self) {
        self.stop.cancel();
    }

    /// True once everything has been up, also while stopping.
    pub fn has_started(&self) -> bool {
        self.state.load(Ordering::SeqCst) != STARTING
    }

    /// True while requests are taken.
    pub fn is_ready(&self) -> bool {
        self.state.load(Ordering::SeqCst) == READY
    }

    /// Returns the token that is cancelled when no more requests are taken.
    pub const fn stopping(&self) -> &CancellationToken {
        &self.stop
    }
}
