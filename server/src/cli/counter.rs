//! How far a long command has come: one line that changes on a terminal, lines now and then
//! elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use everwhen_storage::Clock;

/// Between two looks on a terminal, and between two lines elsewhere.
const REDRAW: Duration = Duration::from_millis(100);
const LINE: Duration = Duration::from_secs(10);
/// Cells of the bar.
const CELLS: u64 = 30;

/// Shows the progress of one command on standard error.
pub(super) struct Progress {
    clock: Arc<dyn Clock>,
    unit: &'static str,
    began: Instant,
    shown: Option<Instant>,
    is_terminal: bool,
}

impl Progress {
    /// Begins to count `unit`.
    pub(super) fn new(clock: &Arc<dyn Clock>, unit: &'static str) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let began = clock.monotonic();
        Self { clock: Arc::clone(clock), unit, began, shown: None, is_terminal }
    }

    /// Shows how many are done, of how many where that is known, unless it was shown just now.
    pub(super) fn at(&mut self, what: &str, done: u64, of: Option<u64>) {
        let now = self.clock.monotonic();
        let every = if self.is_terminal { REDRAW } else { LINE };
        if now - self.shown.unwrap_or(self.began) < every {
            return;
        }
        self.shown = Some(now);
        let line = line(what, done, of, self.unit, now - self.began);
        let mut out = std::io::stderr();
        // Whoever reads it may have gone: the work goes on.
        let _ = if self.is_terminal {
            write!(out, "\r\x1b[2K{line}").and_then(|()| out.flush())
        } else {
            writeln!(out, "{line}")
        };
    }

    /// Removes the line that changes.
    pub(super) fn end(&mut self) {
        if self.is_terminal && self.shown.take().is_some() {
            let mut out = std::io::stderr();
            let _ = write!(out, "\r\x1b[2K").and_then(|()| out.flush());
        }
    }
}

fn line(what: &str, done: u64, of: Option<u64>, unit: &str, took: Duration) -> String {
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = done.saturating_mul(1_000) / millis;
    match of.filter(|of| *of > 0) {
        None => format!("{what} {done} {unit}, {rate} a second"),
        Some(of) => {
            let cells = (done.min(of).saturating_mul(CELLS) / of).min(CELLS);
            let full = "#".repeat(usize::try_from(cells).unwrap_or(0));
            let rest = ".".repeat(usize::try_from(CELLS - cells).unwrap_or(0));
            format!("{what} [{full}{rest}] {done} of {of} {unit}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_drawn_where_the_whole_is_known() {
        let second = Duration::from_secs(2);
        assert_eq!(line("read", 10, None, "rows", second), "read 10 rows, 5 a second");
        let half = line("folded", 50, Some(100), "rows", second);
        assert_eq!(half, "folded [###############...............] 50 of 100 rows");
        assert!(line("folded", 200, Some(100), "rows", second).contains("######]"));
    }
}
