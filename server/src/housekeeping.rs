//! What the server does on its own: carries erasures on, sweeps history that is kept no longer and
//! merges small files.
//!
//! The first two need to know how far projections are, which storage does not: so they are driven
//! from here.

use std::sync::Arc;
use std::time::Duration;

use everwhen_projector::compute::Projections;
use everwhen_storage::{ErasureState, Needed, Store, TxId};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Between two looks at what is due.
const TICK: Duration = Duration::from_millis(250);
/// While files are waited for.
const WAITING_TICK: Duration = Duration::from_millis(50);
/// Looks between two sweeps.
const TICKS_PER_SWEEP: u32 = 4;

/// The task under way.
pub struct Housekeeping {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// What one look works with.
struct Duties {
    store: Store,
    projections: Arc<Projections>,
    /// How long an erasure waits for projections, in microseconds.
    erase_deadline: i64,
}

impl Housekeeping {
    /// Begins. Needs a runtime.
    pub fn start(store: Store, projections: Arc<Projections>, erase_deadline: Duration) -> Self {
        let erase_deadline = i64::try_from(erase_deadline.as_micros()).unwrap_or(i64::MAX);
        let duties = Arc::new(Duties { store, projections, erase_deadline });
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(duties, stop.clone()));
        Self { stop, task }
    }

    /// Ends once what is under way has ended, at most after `drain`: it is resumed at the next
    /// start.
    pub async fn stop(mut self, drain: Duration) {
        self.stop.cancel();
        if tokio::time::timeout(drain, &mut self.task).await.is_err() {
            tracing::warn!("erasing goes on at the next start: the drain time is over");
            self.task.abort();
        }
    }
}

async fn run(duties: Arc<Duties>, stop: CancellationToken) {
    let mut told = String::new();
    for look in 0_u32.. {
        let this = Arc::clone(&duties);
        let sweeps = look.is_multiple_of(TICKS_PER_SWEEP);
        let done = tokio::task::spawn_blocking(move || this.look(sweeps)).await;
        let (again, failure) = match done {
            Ok(Ok(waiting)) => (if waiting { WAITING_TICK } else { TICK }, String::new()),
            Ok(Err(error)) => (TICK, error.to_string()),
            Err(error) => (TICK, error.to_string()),
        };
        if !failure.is_empty() && failure != told {
            tracing::warn!(error = %failure, "erasing or sweeping failed and is tried again");
        }
        told = failure;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(again) => {}
        }
    }
}

impl Duties {
    /// Does what is due; true where files are waited for.
    fn look(&self, sweeps: bool) -> Result<bool, everwhen_projector::Error> {
        let passed = self.projections.passed()?;
        let waiting = self.erase(passed.map(|basis| basis.tx))?;
        if sweeps {
            self.store.tidy()?;
        }
        if sweeps && let Some(passed) = passed {
            let needed = Needed { tx: passed.tx, now: passed.now };
            let swept = self.store.sweep(needed)?;
            if swept.pieces + swept.changes + swept.boundaries > 0 {
                let (pieces, changes) = (swept.pieces, swept.changes);
                tracing::debug!(pieces, changes, "history that is kept no longer was deleted");
            }
        }
        Ok(waiting)
    }

    fn erase(&self, passed: Option<TxId>) -> Result<bool, everwhen_projector::Error> {
        let mut passed = passed.unwrap_or(TxId::ZERO);
        if let Some(overdue) = self.overdue()?
            && overdue > passed
        {
            let behind = self.projections.reload_behind(overdue)?;
            tracing::warn!(
                tx = overdue.get(),
                projections = ?behind,
                "an erasure waits no longer: projections that have not passed it load anew"
            );
            passed = overdue;
        }
        let progress = self.store.advance_erasures(passed)?;
        if progress.purged + progress.erased > 0 {
            let (purged, erased, hidden) = (progress.purged, progress.erased, progress.hidden);
            tracing::info!(purged, erased, hidden, "erasures went on");
        }
        Ok(progress.waiting > 0)
    }

    /// Returns the last erasure that has waited for projections long enough.
    fn overdue(&self) -> Result<Option<TxId>, everwhen_projector::Error> {
        let now = self.store.clock().now_micros();
        let erasures = self.store.erasures_under_way()?;
        let hidden = erasures.into_iter().filter(|one| one.state == ErasureState::Hidden);
        let late = hidden
            .filter(|one| now.saturating_sub(one.requested_at.micros()) >= self.erase_deadline);
        Ok(late.map(|one| one.tx).max())
    }
}
