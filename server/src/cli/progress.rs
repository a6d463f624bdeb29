//! Telling a person how far long work is: one line that changes on a terminal, now and then a line
//! elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use everwhen_storage::snapshot::Progress;
use everwhen_storage::{Clock as _, RealClock};
use parking_lot::Mutex;

const BAR_WIDTH: u64 = 30;
/// The line on a terminal is drawn anew this often at most.
const REDRAWN: Duration = Duration::from_millis(100);
/// A line is printed elsewhere this often at most.
const PRINTED: Duration = Duration::from_secs(5);

/// Where progress shows, on standard error. What is drawn on a terminal goes when this does.
struct Ticker {
    is_terminal: bool,
    began: Instant,
    shown: Instant,
    /// Something stands on the line.
    drawn: bool,
}

impl Ticker {
    /// Begins without drawing anything.
    fn new() -> Self {
        let began = RealClock.monotonic();
        let is_terminal = std::io::stderr().is_terminal();
        Self { is_terminal, began, shown: began, drawn: false }
    }

    /// Shows what `text` makes of whether it is for a terminal and of the time since the beginning,
    /// unless something was shown just now and this is not `urgent`.
    fn show(&mut self, urgent: bool, text: impl FnOnce(bool, Duration) -> String) {
        let now = RealClock.monotonic();
        let pause = if self.is_terminal { REDRAWN } else { PRINTED };
        if !urgent && now.saturating_duration_since(self.shown) < pause {
            return;
        }
        self.shown = now;
        let text = text(self.is_terminal, now - self.began);
        let mut out = std::io::stderr();
        // Whoever reads it may have gone: the work goes on.
        let _ = if self.is_terminal {
            self.drawn = true;
            write!(out, "\r\x1b[2K{text}").and_then(|()| out.flush())
        } else {
            writeln!(out, "{text}")
        };
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        if self.drawn {
            let mut out = std::io::stderr();
            let _ = write!(out, "\r\x1b[2K").and_then(|()| out.flush());
        }
    }
}

/// Shows the parts of work over files.
pub(super) struct Bar(Mutex<(Ticker, String)>);

impl Bar {
    /// Begins without drawing anything.
    pub(super) fn new() -> Self {
        Self(Mutex::new((Ticker::new(), String::new())))
    }

    /// Shows how far it is; never asks to stop.
    pub(super) fn show(&self, progress: &Progress) -> ControlFlow<()> {
        let mut shown = self.0.lock();
        let (ticker, doing) = &mut *shown;
        let is_new = doing.as_str() != progress.doing;
        progress.doing.clone_into(doing);
        ticker.show(is_new, |is_terminal, _| {
            if is_terminal {
                format!("{} {}", bar_of(progress), text(progress))
            } else {
                text(progress)
            }
        });
        ControlFlow::Continue(())
    }
}

/// Counts what is done, of a known number or of an unknown one.
pub(super) struct Counter {
    ticker: Ticker,
    unit: &'static str,
}

impl Counter {
    /// Begins to count `unit`.
    pub(super) fn new(unit: &'static str) -> Self {
        Self { ticker: Ticker::new(), unit }
    }

    /// Shows how many are done, of how many where that is known, unless it was shown just now.
    pub(super) fn at(&mut self, what: &str, done: u64, of: Option<u64>) {
        let unit = self.unit;
        self.ticker.show(false, |_, took| counted(what, done, of, unit, took));
    }
}

/// Shows on a terminal for how long something has been running, from its second second on.
pub(super) struct Elapsed(Option<tokio::task::JoinHandle<()>>);

impl Elapsed {
    /// Begins to count.
    pub(super) fn start() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(None);
        }
        Self(Some(tokio::spawn(async {
            let mut ticker = Ticker::new();
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                ticker.show(true, |_, took| {
                    format!("running, {} s (Ctrl-C cancels)", took.as_secs())
                });
            }
        })))
    }
}

impl Drop for Elapsed {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

fn counted(what: &str, done: u64, of: Option<u64>, unit: &str, took: Duration) -> String {
    match of.filter(|of| *of > 0) {
        None => {
            let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
            let rate = done.saturating_mul(1_000) / millis;
            format!("{what} {done} {unit}, {rate} a second")
        }
        Some(of) => format!("{what} {} {done} of {of} {unit}", bar(done, of)),
    }
}

fn bar_of(progress: &Progress) -> String {
    match progress.bytes {
        0 => bar(progress.files_done, progress.files.max(1)),
        bytes => bar(progress.bytes_done, bytes),
    }
}

fn bar(done: u64, all: u64) -> String {
    let filled = u128::from(done.min(all)) * u128::from(BAR_WIDTH) / u128::from(all);
    let filled = usize::try_from(filled).unwrap_or(0);
    let rest = usize::try_from(BAR_WIDTH).unwrap_or(0).saturating_sub(filled);
    format!("{}{}", "█".repeat(filled), "░".repeat(rest))
}

fn text(progress: &Progress) -> String {
    let Progress { doing, files_done, files, bytes_done, bytes } = progress;
    if *bytes == 0 {
        return format!("{doing}: {files_done}");
    }
    let (done, all) = (size(*bytes_done), size(*bytes));
    format!("{doing}: {files_done} of {files} files, {done} of {all}")
}

/// Writes a number of bytes for people.
pub(super) fn size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    for (shift, unit) in units {
        if bytes >> shift > 0 {
            let tenths = (u128::from(bytes) * 10) >> shift;
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_digit_behind_the_point() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1_023), "1023 B");
        assert_eq!(size(1_536), "1.5 KiB");
        assert_eq!(size(u64::MAX), "17179869183.9 GiB");
    }

    #[test]
    fn a_bar_fills_and_never_overflows() {
        let at = |bytes_done, bytes| Progress {
            doing: "uploading",
            files_done: 1,
            files: 2,
            bytes_done,
            bytes,
        };
        assert_eq!(bar_of(&at(0, 10)), "░".repeat(30));
        assert_eq!(bar_of(&at(5, 10)), "█".repeat(15) + &"░".repeat(15));
        assert_eq!(bar_of(&at(20, 10)), "█".repeat(30));
        assert_eq!(bar_of(&at(0, 0)), "█".repeat(15) + &"░".repeat(15));
        assert_eq!(text(&at(2_048, 4_096)), "uploading: 1 of 2 files, 2.0 KiB of 4.0 KiB");
    }

    #[test]
    fn a_count_has_a_bar_where_the_whole_is_known() {
        let second = Duration::from_secs(2);
        assert_eq!(counted("read", 10, None, "rows", second), "read 10 rows, 5 a second");
        let half = counted("folded", 50, Some(100), "rows", second);
        assert_eq!(half, format!("folded {} 50 of 100 rows", "█".repeat(15) + &"░".repeat(15)));
    }
}
