//! Where work runs apart from the threads that serve connections, and how much of it at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::code::Code;
use crate::failure::{Answered, Failure};

/// How long a statement waits for a place before it is refused.
const PLACE_WAIT: Duration = Duration::from_secs(5);

/// Threads of one kind of work, with a number of places.
#[derive(Debug, Clone)]
pub struct Lane {
    threads: Handle,
    places: Arc<Semaphore>,
}

/// The kinds of work, none of which waits for another's threads.
#[derive(Debug, Clone)]
pub struct Lanes {
    /// Statements that may hold a thread for long.
    pub queries: Lane,
    /// Statements that are short by their form.
    pub short: Lane,
    /// Events on their way to a stream's mappings.
    pub events: Lane,
}

impl Lane {
    /// Builds a lane for so much at a time.
    pub fn new(threads: Handle, places: usize) -> Self {
        Self { threads, places: Arc::new(Semaphore::new(places)) }
    }

    /// Takes a place, waiting a little.
    ///
    /// # Errors
    /// [`Code::Busy`] where none comes free in time: try again later.
    pub async fn place(&self) -> Answered<OwnedSemaphorePermit> {
        let wait = tokio::time::timeout(PLACE_WAIT, Arc::clone(&self.places).acquire_owned());
        match wait.await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(Failure::stopping()),
            Err(_) => Err(Failure::new(Code::Busy, "too many statements run at once")
                .with_hint("try again later, or raise statements_max")),
        }
    }

    /// Starts work on the lane's threads. It goes on when the handle is dropped.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.threads.spawn(work)
    }
}
