//! The clock, as a constructor argument: real in service, manual in tests.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant as Monotonic;

use crate::error::{Error, Result};

/// Tells the time. `now` may be manual; `monotonic` is always real (leases, retries, liveness).
pub trait Clock: Send + Sync + 'static {
    /// Returns microseconds since the Unix epoch, UTC.
    fn now_micros(&self) -> i64;

    /// Returns a reading that only serves to measure durations.
    fn monotonic(&self) -> Monotonic;

    /// Moves a manual clock to `micros`; the same time is allowed, going back is not.
    ///
    /// # Errors
    /// [`Error::ClockNotManual`] on a real clock, [`Error::ClockBackwards`] for an earlier time.
    fn set(&self, micros: i64) -> Result<()>;

    /// True for a clock that is moved by hand, so that its jumps mean nothing.
    fn is_manual(&self) -> bool {
        false
    }
}

/// The machine's clock.
#[derive(Debug, Default)]
pub struct RealClock;

impl Clock for RealClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now_micros(&self) -> i64 {
        jiff::Timestamp::now().as_microsecond()
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn monotonic(&self) -> Monotonic {
        Monotonic::now()
    }

    fn set(&self, _micros: i64) -> Result<()> {
        Err(Error::ClockNotManual)
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// Starts at `micros` since the Unix epoch.
    pub const fn at(micros: i64) -> Self {
        Self(AtomicI64::new(micros))
    }
}

impl Clock for ManualClock {
    fn now_micros(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    #[expect(clippy::disallowed_methods, reason = "durations are real under a manual clock too")]
    fn monotonic(&self) -> Monotonic {
        Monotonic::now()
    }

    fn set(&self, micros: i64) -> Result<()> {
        let before = self.0.fetch_max(micros, Ordering::SeqCst);
        if before > micros {
            return Err(Error::ClockBackwards { clock_micros: before, asked_micros: micros });
        }
        Ok(())
    }

    fn is_manual(&self) -> bool {
        true
    }
}
