//! A request to stop that threads can wait on.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Set once, never cleared.
#[derive(Debug, Default)]
pub struct StopSignal {
    set: Mutex<bool>,
    changed: Condvar,
}

impl StopSignal {
    /// Asks everyone to stop.
    pub fn set(&self) {
        *self.set.lock() = true;
        self.changed.notify_all();
    }

    /// True once asked to stop.
    pub fn is_set(&self) -> bool {
        *self.set.lock()
    }

    /// Waits until asked to stop or until the time is over; true where asked. Blocks.
    pub fn wait(&self, at_most: Duration) -> bool {
        let mut set = self.set.lock();
        if !*set {
            self.changed.wait_for(&mut set, at_most);
        }
        *set
    }
}
