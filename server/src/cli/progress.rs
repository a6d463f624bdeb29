//! Telling a person how far long work is: a bar on a terminal, now and then a line elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use everwhen_storage::snapshot::Progress;
use everwhen_storage::{Clock as _, RealClock};
use parking_lot::Mutex;

const BAR_WIDTH: u64 = 30;
/// A bar is drawn anew this often at most.
const REDRAWN: Duration = Duration::from_millis(100);
/// A line is printed this often at most.
const PRINTED: Duration = Duration::from_secs(5);

/// Draws on standard error. Whatever is drawn goes when this does.
pub(super) struct Bar {
    is_terminal: bool,
    shown: Mutex<Shown>,
}

struct Shown {
    at: Instant,
    /// A bar stands on the line.
    drawn: bool,
    doing: String,
}

impl Bar {
    /// Begins without drawing anything.
    pub(super) fn new() -> Self {
        let shown = Shown { at: RealClock.monotonic(), drawn: false, doing: String::new() };
        Self { is_terminal: std::io::stderr().is_terminal(), shown: Mutex::new(shown) }
    }

    /// Shows how far it is; never asks to stop.
    pub(super) fn show(&self, progress: &Progress) -> ControlFlow<()> {
        let mut shown = self.shown.lock();
        let now = RealClock.monotonic();
        let is_new = shown.doing != progress.doing;
        let pause = if self.is_terminal { REDRAWN } else { PRINTED };
        if !is_new && now.saturating_duration_since(shown.at) < pause {
            return ControlFlow::Continue(());
        }
        shown.at = now;
        progress.doing.clone_into(&mut shown.doing);
        let text = text(progress);
        let mut out = std::io::stderr();
        // Nobody reads it: no reason to stop.
        let _ = if self.is_terminal {
            shown.drawn = true;
            write!(out, "\r\x1b[2K{} {text}", bar(progress)).and_then(|()| out.flush())
        } else {
            writeln!(out, "{text}")
        };
        ControlFlow::Continue(())
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.shown.lock().drawn {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
        }
    }
}

fn bar(progress: &Progress) -> String {
    let (done, all) = match progress.bytes {
        0 => (progress.files_done, progress.files.max(1)),
        bytes => (progress.bytes_done, bytes),
    };
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
        assert_eq!(bar(&at(0, 10)), "░".repeat(30));
        assert_eq!(bar(&at(5, 10)), "█".repeat(15) + &"░".repeat(15));
        assert_eq!(bar(&at(20, 10)), "█".repeat(30));
        assert_eq!(bar(&at(0, 0)), "█".repeat(15) + &"░".repeat(15));
        assert_eq!(text(&at(2_048, 4_096)), "uploading: 1 of 2 files, 2.0 KiB of 4.0 KiB");
    }
}
