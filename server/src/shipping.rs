//! Ships the journal to a snapshot target as it grows, so that a lost machine loses little.
//!
//! A failure is logged and tried again: it never stops the server, nor holds up a write.

use std::sync::Arc;
use std::time::Duration;

use everwhen_storage::snapshot::{Shipped, Shipper, Target};
use everwhen_storage::{Store, TxId};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The task under way.
pub struct Shipping {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// How shipping stands. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ShippingStatus(Arc<Mutex<Option<Standing>>>);

/// How far the journal is shipped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// The last transaction that the target has, as far as is known.
    pub tx: TxId,
    pub segments: u64,
    pub bytes: u64,
    pub failures: u64,
    /// Why the last try failed; nothing where it did not.
    pub error: Option<String>,
}

impl ShippingStatus {
    /// Returns how shipping stands; nothing where it is off.
    pub fn standing(&self) -> Option<Standing> {
        self.0.lock().clone()
    }

    fn note(&self, reached: Option<TxId>, outcome: &Result<Option<Shipped>, String>) {
        let mut standing = self.0.lock();
        let standing = standing.get_or_insert_default();
        standing.tx = reached.unwrap_or(standing.tx);
        match outcome {
            Ok(shipped) => {
                standing.error = None;
                if let Some(shipped) = shipped {
                    standing.segments += 1;
                    standing.bytes += shipped.bytes;
                }
            }
            Err(why) => {
                standing.failures += 1;
                standing.error = Some(why.clone());
            }
        }
    }
}

impl Shipping {
    /// Begins. Needs a runtime.
    pub fn start(store: Store, target: Target, every: Duration, status: ShippingStatus) -> Self {
        let stop = CancellationToken::new();
        *status.0.lock() = Some(Standing::default());
        let shown = target.shown();
        let shipper = Arc::new(Mutex::new(Shipper::new(store, target)));
        let task = tokio::spawn(run(shipper, shown, every, status, stop.clone()));
        Self { stop, task }
    }

    /// Ships what is left and ends, at most after `drain`: what is left then is shipped at the next
    /// start.
    pub async fn stop(mut self, drain: Duration) {
        self.stop.cancel();
        if tokio::time::timeout(drain, &mut self.task).await.is_err() {
            tracing::warn!("the end of the journal was not shipped: the drain time is over");
            self.task.abort();
        }
    }
}

async fn run(
    shipper: Arc<Mutex<Shipper>>,
    target: String,
    every: Duration,
    status: ShippingStatus,
    stop: CancellationToken,
) {
    let mut failed: u64 = 0;
    loop {
        let is_last = stop.is_cancelled();
        let this = Arc::clone(&shipper);
        let done = tokio::task::spawn_blocking(move || {
            let mut shipper = this.lock();
            let outcome = shipper.ship().map_err(|error| error.to_string());
            (shipper.reached(), outcome)
        });
        let (reached, outcome) = match done.await {
            Ok(done) => done,
            Err(error) => (None, Err(error.to_string())),
        };
        match &outcome {
            Ok(shipped) => {
                if failed > 0 {
                    tracing::info!(target_name = %target, "the journal is shipped again");
                }
                failed = 0;
                if let Some(Shipped { first, last, bytes, .. }) = shipped {
                    tracing::debug!(first = first.get(), last = last.get(), bytes, "shipped");
                }
            }
            Err(error) => {
                failed += 1;
                // Not at every try of a long outage.
                if failed.is_power_of_two() {
                    tracing::warn!(%error, failed, "the journal was not shipped, tried again");
                }
            }
        }
        status.note(reached, &outcome);
        if is_last {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(every) => {}
        }
    }
}
