//! Who delivers a projection: at most one worker at a time, fenced by a number that only grows.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// A lease that was given.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The fencing number.
    pub number: u64,
    /// Who holds it.
    pub worker: String,
    /// When it ends unless renewed, by the monotonic clock.
    pub until: Instant,
}

/// The lease of one projection.
#[derive(Debug, Default)]
pub struct Leasing {
    current: Option<Lease>,
}

impl Leasing {
    /// True where nobody holds a lease.
    pub fn is_free(&self, now: Instant) -> bool {
        self.current.as_ref().is_none_or(|lease| lease.until <= now)
    }

    /// Gives a lease; an earlier one is fenced.
    pub fn give(&mut self, number: u64, worker: &str, now: Instant, length: Duration) {
        self.current = Some(Lease { number, worker: worker.to_owned(), until: now + length });
    }

    /// Checks that a number is the one in force and not over, and renews it.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] otherwise.
    pub fn renew(
        &mut self,
        projection: &str,
        number: u64,
        now: Instant,
        length: Duration,
    ) -> Result<()> {
        match &mut self.current {
            Some(lease) if lease.number == number && lease.until > now => {
                lease.until = now + length;
                Ok(())
            }
            _ => Err(Error::LeaseLost { projection: projection.to_owned(), lease: number }),
        }
    }

    /// Takes the lease back.
    pub fn end(&mut self) {
        self.current = None;
    }

    /// Takes the lease back where a worker holds it.
    pub fn release(&mut self, worker: &str) -> bool {
        let held = self.current.as_ref().is_some_and(|lease| lease.worker == worker);
        if held {
            self.current = None;
        }
        held
    }

    /// Returns who holds the lease.
    pub fn holder(&self, now: Instant) -> Option<&str> {
        self.current.as_ref().filter(|lease| lease.until > now).map(|lease| lease.worker.as_str())
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any instant will do to count from")]
mod tests {
    use super::*;

    #[test]
    fn a_newer_lease_fences_the_older() {
        let now = Instant::now();
        let length = Duration::from_secs(10);
        let mut leasing = Leasing::default();
        leasing.give(1, "a", now, length);
        assert!(!leasing.is_free(now));
        let later = now + Duration::from_secs(11);
        assert!(leasing.is_free(later), "a lease that is not renewed ends");
        leasing.give(2, "b", later, length);
        assert!(leasing.renew("p", 1, later, length).is_err());
        assert!(leasing.renew("p", 2, later, length).is_ok());
        assert_eq!(leasing.holder(later), Some("b"));
    }

    #[test]
    fn a_released_lease_is_free_at_once() {
        let now = Instant::now();
        let mut leasing = Leasing::default();
        leasing.give(1, "a", now, Duration::from_secs(10));
        assert!(!leasing.release("b"));
        assert!(leasing.release("a"));
        assert!(leasing.is_free(now));
    }
}
