//! Waiting between tries: longer each time, never in step with others.

use std::time::Duration;

use serde::Deserialize;
use tokio_util::sync::CancellationToken;

/// How long to wait between tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryConfig {
    /// Before the second try; doubled for each further one.
    pub first_ms: u64,
    /// At most this long after an error that passes by itself.
    pub most_ms: u64,
    /// At least this long after a refusal that somebody must cure.
    pub refused_ms: u64,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { first_ms: 100, most_ms: 10_000, refused_ms: 15_000 }
    }
}

/// Counts the tries of one piece of work.
#[derive(Debug)]
pub struct Backoff {
    config: RetryConfig,
    tries: u32,
}

impl Backoff {
    /// Starts before the first try.
    pub const fn new(config: RetryConfig) -> Self {
        Self { config, tries: 0 }
    }

    /// Returns how long to wait now: between half and all of the doubled wait.
    pub fn next_wait(&mut self, refused: bool) -> Duration {
        let factor = 1_u64.checked_shl(self.tries).unwrap_or(u64::MAX);
        self.tries = self.tries.saturating_add(1);
        let grown = self.config.first_ms.saturating_mul(factor).min(self.config.most_ms);
        let whole = if refused { grown.max(self.config.refused_ms) } else { grown };
        Duration::from_millis(jitter(whole))
    }

    /// Waits; returns false if `shutdown` came first.
    pub async fn wait(&mut self, refused: bool, shutdown: &CancellationToken) -> bool {
        let wait = self.next_wait(refused);
        tokio::time::timeout(wait, shutdown.cancelled()).await.is_err()
    }

    /// Forgets the tries so far.
    pub const fn reset(&mut self) {
        self.tries = 0;
    }
}

/// Returns a number between half of `whole` and `whole`.
fn jitter(whole: u64) -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    // Fresh hash keys are randomness enough to keep workers from retrying in step.
    let random = RandomState::new().hash_one(whole);
    let half = whole / 2;
    half + random % (whole - half + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: RetryConfig = RetryConfig { first_ms: 100, most_ms: 1_000, refused_ms: 5_000 };

    #[test]
    fn waits_double_up_to_the_bound() {
        let mut backoff = Backoff::new(CONFIG);
        for whole in [100, 200, 400, 800, 1_000, 1_000] {
            let wait = backoff.next_wait(false);
            assert!(wait >= Duration::from_millis(whole / 2), "{wait:?} of {whole}");
            assert!(wait <= Duration::from_millis(whole), "{wait:?} of {whole}");
        }
        for _ in 0..100 {
            backoff.next_wait(false);
        }
        backoff.reset();
        assert!(backoff.next_wait(false) <= Duration::from_millis(100));
    }

    #[test]
    fn refusals_are_retried_slowly() {
        assert!(Backoff::new(CONFIG).next_wait(true) >= Duration::from_millis(2_500));
    }
}
