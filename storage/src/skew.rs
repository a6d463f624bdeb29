//! Clocks that jump: system time goes on regardless, people are told.

use std::time::Instant as Monotonic;

use crate::clock::Clock;
use crate::metrics::Recorder;
use crate::time::SystemTime;

/// From here on a difference is told, in microseconds.
const TOLD_MICROS: i64 = 2_000_000;

/// What the writer has seen of the clock.
#[derive(Debug, Default)]
pub(crate) struct Skew {
    last: Option<(i64, Monotonic)>,
    behind: bool,
}

impl Skew {
    /// Looks at the clock before a commit; `last_time` is the last system time given out.
    pub(crate) fn look(&mut self, clock: &dyn Clock, last_time: SystemTime, recorder: &Recorder) {
        let (now, monotonic) = (clock.now_micros(), clock.monotonic());
        if !clock.is_manual()
            && let Some((then, before)) = self.last
        {
            let passed = monotonic.saturating_duration_since(before).as_micros();
            let passed = i64::try_from(passed).unwrap_or(i64::MAX);
            let jumped_micros = now.saturating_sub(then).saturating_sub(passed);
            if jumped_micros.saturating_abs() > TOLD_MICROS {
                recorder.jumped();
                tracing::warn!(jumped_micros, "the machine's clock jumped");
            }
        }
        self.last = Some((now, monotonic));
        let ahead_micros = last_time.micros().saturating_sub(now).max(0);
        recorder.behind(ahead_micros);
        let behind = ahead_micros > TOLD_MICROS;
        if behind && !self.behind {
            tracing::warn!(
                ahead_micros,
                "the clock is behind the last transaction: system time goes on by the microsecond"
            );
        }
        self.behind = behind;
    }
}
