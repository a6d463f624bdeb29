//! Writes a workload to a store, batch by batch, and says what became of each: the process that
//! the fault suites kill, starve and lie to.
//!
//! `everwhen-store-driver DIR SEED COUNT RESERVE [SNAPSHOTS]`: COUNT batches of the workload of SEED, from
//! where the store in DIR stands, with RESERVE bytes of the disk left alone; now and then a snapshot
//! into SNAPSHOTS. Prints `opened N`, `acked N` once N batches are durable, `full N` while they are
//! refused, `snapshot S of N`, `unreadable` for a read that failed, `done`. Exit status: 0 done, 3
//! not opened, 4 the store holds something else, 5 a promise was broken, 6 no more writes.

#![allow(clippy::unwrap_used, reason = "a driver that cannot go on panics, which its suite sees")]

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use everwhen_storage::snapshot::{self, Target};
use everwhen_storage::{Batch, Committed, Error, ManualClock, Options, Store, Tuning};
use everwhen_tests::workload::{CLOCK, Unequal, Workload};

const NOT_OPENED: u8 = 3;
const FOREIGN: u8 = 4;
const BROKEN: u8 = 5;
const STOPPED: u8 = 6;

/// So often a refused batch is tried again, with a pause.
const TRIES: usize = 300;
const PAUSE: Duration = Duration::from_millis(100);
/// Batches between two snapshots.
const SNAPSHOT_EVERY: usize = 10;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, seed, count, reserve, snapshots @ ..] = arguments.as_slice() else {
        eprintln!("usage: everwhen-store-driver DIR SEED COUNT RESERVE [SNAPSHOTS]");
        return ExitCode::from(2);
    };
    let workload = Workload::new(seed.parse().unwrap(), count.parse().unwrap());
    let target = snapshots.first().map(|place| Target::at(place).unwrap());
    match run(&workload, dir.into(), reserve.parse().unwrap(), target.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(code) => ExitCode::from(code),
    }
}

fn run(
    workload: &Workload,
    path: PathBuf,
    disk_reserve_bytes: u64,
    target: Option<&Target>,
) -> Result<(), u8> {
    let clock = Arc::new(ManualClock::at(CLOCK));
    let options = Options { path, clock, sync: true, block_cache_bytes: 8 << 20 };
    // Little memory, so that flushes and compactions are under way all the time.
    let tuning = Tuning { memtable_bytes_max: 4 << 20, disk_reserve_bytes, ..Tuning::default() };
    let store = Store::open_tuned(options, &tuning).map_err(|error| {
        say(&format!("not opened: {error}"));
        NOT_OPENED
    })?;
    let mut place = position(workload, &store)?;
    say(&format!("opened {place}"));
    let mut last_snapshot = place;
    // A read that fails refuses one group of writes, not the next: what is handed in together could
    // overtake it.
    let alone = std::env::var("EVERWHEN_FAULT").is_ok_and(|fault| fault.starts_with("read"));
    while place < workload.batches.len() {
        // Several at once now and then, for a shared sync.
        let others = if alone { 0 } else { place % 3 };
        let until = workload.batches.len().min(place + 1 + others);
        let group = &workload.batches[place..until];
        match write(&store, group) {
            Ok(_) => {
                place = until;
                say(&format!("acked {place}"));
            }
            Err(error @ (Error::DiskFull { .. } | Error::Engine { .. })) => {
                go_on(workload, &store, &mut place, &error)?;
            }
            Err(error) => {
                say(&format!("stopped: {error}"));
                return Err(after_failure(&store, group));
            }
        }
        if place % 7 == 0 {
            keep_cursor(&store, place)?;
        }
        if place >= last_snapshot + SNAPSHOT_EVERY || place == workload.batches.len() {
            last_snapshot = place;
            target.iter().for_each(|target| take_snapshot(&store, target, place));
        }
    }
    compare(workload, &store)?;
    store.close().map_err(|error| {
        say(&format!("not closed: {error}"));
        STOPPED
    })?;
    say("done");
    Ok(())
}

fn position(workload: &Workload, store: &Store) -> Result<usize, u8> {
    workload.position(store).map_err(|why| {
        say(&why.to_string());
        match why {
            Unequal::Differs(_) => FOREIGN,
            Unequal::Unreadable(_) => STOPPED,
        }
    })
}

/// Compares all that can be read with the model. A read that fails is no wrong answer.
fn compare(workload: &Workload, store: &Store) -> Result<(), u8> {
    match workload.compare(store) {
        Ok(()) => Ok(()),
        Err(Unequal::Unreadable(why)) => {
            say(&format!("unreadable: {why}"));
            Ok(())
        }
        Err(Unequal::Differs(why)) => {
            say(&why);
            Err(BROKEN)
        }
    }
}

fn take_snapshot(store: &Store, target: &Target, place: usize) {
    match snapshot::create(store, target, &|_| ControlFlow::Continue(())) {
        Ok(created) => say(&format!("snapshot {} of {place}", created.manifest.snapshot)),
        Err(error) => say(&format!("no snapshot: {error}")),
    }
}

/// Hands all batches in, then waits for each; the first error counts.
fn write(store: &Store, batches: &[Batch]) -> Result<Vec<Committed>, Error> {
    let waiting: Vec<_> =
        batches.iter().map(|batch| store.submit(batch.clone())).collect::<Result<_, _>>()?;
    let answers: Vec<_> =
        waiting.into_iter().map(|answer| answer.blocking_recv().unwrap()).collect();
    answers.into_iter().collect()
}

/// Tries the next batch until it is taken. Nothing that was refused may be there.
fn go_on(workload: &Workload, store: &Store, place: &mut usize, why: &Error) -> Result<(), u8> {
    let found = position(workload, store)?;
    if found < *place {
        say(&format!("{place} batches were acknowledged, {found} are there"));
        return Err(BROKEN);
    }
    *place = found;
    say(&format!("refused at {place}: {why}"));
    let Some(batch) = workload.batches.get(*place) else { return Ok(()) };
    for attempt in 0..TRIES {
        // Reads go on whatever becomes of writes.
        if attempt % 20 == 0 {
            compare(workload, store)?;
        }
        match write(store, std::slice::from_ref(batch)) {
            Ok(_) => {
                *place += 1;
                say(&format!("acked {place}"));
                return Ok(());
            }
            Err(Error::DiskFull { .. } | Error::Engine { .. }) => std::thread::sleep(PAUSE),
            Err(error) => {
                say(&format!("stopped: {error}"));
                return Err(after_failure(store, std::slice::from_ref(batch)));
            }
        }
    }
    say("it was refused for too long");
    Err(STOPPED)
}

fn keep_cursor(store: &Store, place: usize) -> Result<(), u8> {
    let entry = (b"place".to_vec(), Some(place.to_string().into_bytes()));
    match store.put_cursors(&[entry], true) {
        Ok(()) | Err(Error::DiskFull { .. }) => Ok(()),
        Err(error) => {
            say(&format!("stopped: {error}"));
            Err(STOPPED)
        }
    }
}

/// Nothing may be taken after a failed write.
fn after_failure(store: &Store, group: &[Batch]) -> u8 {
    for _ in 0..3 {
        if write(store, group).is_ok() {
            say("a write was taken after one had failed");
            return BROKEN;
        }
    }
    STOPPED
}

/// Prints a line. The suites make writes fail, this one too: then it is printed again.
fn say(line: &str) {
    let text = format!("{line}\n");
    for _ in 0..3 {
        let mut out = std::io::stdout().lock();
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok() {
            return;
        }
    }
}
