//! Taking and restoring a snapshot, each beside `cp -r` of the same bytes and a sync.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use everwhen_storage::Precedence;
use everwhen_storage::snapshot::{self, Asked, Progress, Target};

use crate::fixture::{History, backfill, open_with, table};
use crate::report::{Report, median, verdict};

const HISTORY: History = History { keys: 500_000, versions: 10 };
const ROUNDS: usize = 5;
const GO_ON: snapshot::Watch<'static> = &|_: &Progress| ControlFlow::Continue(());

/// Runs both sides in turn and reports medians.
pub fn run(report: &mut Report) {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(&dir.path().join("data"), &table(Precedence::Effective));
    backfill(&store, HISTORY);
    let [mut created, mut restored, mut copied] = [const { Vec::new() }; 3];
    let mut bytes = 0;
    for round in 0..=ROUNDS {
        let place = dir.path().join("snapshots");
        let target = Target::at(&place.display().to_string()).unwrap();
        let seconds = time(|| {
            bytes = snapshot::create(&store, &target, GO_ON).unwrap().new_bytes;
        });
        let (data, copy) = (dir.path().join("restored"), dir.path().join("copy"));
        let copying = time(|| copy_synced(&place, &copy));
        let restoring = time(|| {
            let prepared = snapshot::prepare(&target, &data, Asked::default(), GO_ON).unwrap();
            prepared.publish().unwrap();
        });
        // The first round warms the page cache.
        if round > 0 {
            created.push(seconds);
            copied.push(copying);
            restored.push(restoring);
        }
        for folder in [place, data, copy] {
            fs::remove_dir_all(folder).unwrap();
        }
        Command::new("sync").arg("-f").arg(dir.path()).status().unwrap();
    }
    store.close().unwrap();
    let rate = |seconds: &[f64]| bytes as f64 / 1e6 / median(seconds);
    let copy = rate(&copied);
    for (what, seconds) in [("taking", created), ("restoring", restored)] {
        let ours = rate(&seconds);
        report.row(
            &format!("{what} a snapshot of {} MB", bytes / 1_000_000),
            format!("{ours:.0} MB/s"),
            format!("`cp -r` and a sync {copy:.0} MB/s"),
            format!("{:.2}x, goal >= 0.7x: {}", ours / copy, verdict(ours / copy >= 0.7)),
        );
    }
}

fn time(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// Copies a folder and waits until all of it is on the disk.
fn copy_synced(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap().success());
    let mut sync = Command::new("sync");
    assert!(sync.arg("-f").arg(to).status().unwrap().success());
}
