//! Calls to the system that fail, one by one: the first, the second, and so on until a run of the
//! driver makes fewer. Whatever fails, no answer is wrong, nothing acknowledged is lost and no
//! listed snapshot is bad.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use everwhen_storage::snapshot::{self, Asked, Target};
use everwhen_tests::workload::Workload;
use everwhen_tests::{seed, soak};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::{Run, Victim, open};

const EIO: &str = "5";
const EMFILE: &str = "24";
const ENOSPC: &str = "28";
const EDQUOT: &str = "122";

/// Kinds of calls, and how they may fail (`tests/faults/inject.c`).
const FAULTS: [(&str, &str); 19] = [
    ("open", EIO),
    ("open", ENOSPC),
    ("open", EMFILE),
    ("write", EIO),
    ("write", ENOSPC),
    ("write", EDQUOT),
    ("write", "short"),
    ("write", "torn"),
    ("sync", EIO),
    ("sync", ENOSPC),
    ("read", EIO),
    ("read", "short"),
    ("rename", EIO),
    ("rename", ENOSPC),
    ("truncate", ENOSPC),
    ("allocate", ENOSPC),
    ("unlink", EIO),
    ("link", ENOSPC),
    ("mkdir", ENOSPC),
];

/// How many failing calls an ordinary run tries, and the highest of their numbers.
const SAMPLE: usize = 16;
const SAMPLE_AT_MOST: usize = 120;

/// Runs at a time: a disk that was full is looked at every 5 s, so that most of the time is waiting.
const WORKERS: usize = 12;

/// What a fault meets.
struct Scene {
    name: &'static str,
    workload: Arc<Workload>,
    seed: u64,
    /// A directory to begin with, and the batches acknowledged in it.
    begun: Option<(tempfile::TempDir, usize)>,
}

impl Scene {
    /// A directory that is yet to be made.
    fn fresh(seed: u64) -> Self {
        let workload = Arc::new(Workload::new(seed, 12));
        Self { name: "fresh", workload, seed, begun: None }
    }

    /// A directory that a few killed processes left, each with a log to read again and a file of
    /// each family, so that compactions are due.
    fn standing(seed: u64) -> Self {
        let workload = Arc::new(Workload::new(seed, 28));
        let mut victim = Victim::with(seed, Arc::clone(&workload));
        for _ in 0..6 {
            let mut command = victim.driver();
            command.env("EVERWHEN_FAILPOINTS", "writer.answered=abort@2");
            let run = victim.run(command, None);
            assert!(run.code.is_none(), "{run:?}");
        }
        let Victim { folder, acked, .. } = victim;
        Self { name: "standing", workload, seed, begun: Some((folder, acked)) }
    }

    fn victim(&self) -> Victim {
        let mut victim = Victim::in_folder(memory(), self.seed, Arc::clone(&self.workload));
        if let Some((folder, acked)) = &self.begun {
            let mut copying = Command::new("cp");
            copying.arg("-r").arg(folder.path().join("data")).arg(victim.data());
            assert!(copying.status().unwrap().success());
            victim.acked = *acked;
        }
        victim
    }
}

/// Makes a folder in memory where there is such a place: thousands of runs would wait for syncs
/// most of the time, and a process that goes on loses nothing that was not synced.
pub fn memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// Returns the library that lets calls fail, compiled once.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = LIBRARY.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inject.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("faults/inject.c");
        let mut command = Command::new("cc");
        command.args(["-std=gnu11", "-O1", "-shared", "-fPIC", "-o"]).arg(&path);
        let status = command.arg(source).arg("-ldl").status().unwrap();
        assert!(status.success(), "{command:?}");
        (folder, path)
    });
    path
}

/// Lets calls of a command on files below a folder fail: `fault` is KIND:FAULT:N. Returns a file
/// that is there once one did.
pub fn inject(command: &mut Command, below: &Path, fault: &str) -> PathBuf {
    let mark = below.join("mark");
    command.env("LD_PRELOAD", library());
    command.env("EVERWHEN_FAULT_DIR", below);
    command.env("EVERWHEN_FAULT_MARK", &mark);
    command.env("EVERWHEN_FAULT", fault);
    mark
}

/// Lets the `n`-th call of a kind fail; answers whether there was one.
fn fail_call(scene: &Scene, (kind, how): (&str, &str), n: usize) -> bool {
    let fault = format!("{kind}:{how}:{n}");
    let what = format!("{} {fault}", scene.name);
    let mut victim = scene.victim();
    let mut command = victim.driver();
    command.arg(victim.snapshots());
    let mark = inject(&mut command, victim.folder.path(), &fault);
    let run = victim.run(command, None);
    let is_touched = mark.exists();
    assert!(run.is_orderly(), "seed {}, {what}: {run:?}", victim.seed);
    // Half of what was asked for is a good answer of the system: all goes on.
    if !is_touched || how == "short" {
        assert!(run.is_done(), "seed {}, {what}: {run:?}", victim.seed);
        assert!(!run.said.contains("unreadable"), "seed {}, {what}: {run:?}", victim.seed);
    }
    victim.check(&what);
    let rest = victim.run_free(|victim| {
        let mut again = victim.driver();
        again.arg(victim.snapshots());
        again
    });
    let all = victim.workload.batches.len();
    assert!(rest.is_done(), "seed {}, after {what}: {run:?}, then {rest:?}", victim.seed);
    assert_eq!(victim.check(&format!("written to its end after {what}")), all);
    check_snapshots(&victim, &[run, rest], &what);
    is_touched
}

/// All listed snapshots are good, all acknowledged ones are listed, and each holds what it held when
/// it was taken.
fn check_snapshots(victim: &Victim, runs: &[Run], what: &str) {
    let what = format!("seed {}, {what}", victim.seed);
    let lines = runs.iter().flat_map(|run| run.said.lines());
    let said: Vec<(u64, usize)> = lines
        .filter_map(|line| line.strip_prefix("snapshot ")?.split_once(" of "))
        .map(|(snapshot, place)| (snapshot.parse().unwrap(), place.parse().unwrap()))
        .collect();
    if said.is_empty() && !victim.snapshots().join("FORMAT").exists() {
        return;
    }
    let target = Target::at(&victim.snapshots().display().to_string()).unwrap();
    let listed = snapshot::list(&target).unwrap_or_else(|error| panic!("{what}: {error}"));
    for (taken, _) in &said {
        let is_listed = listed.iter().any(|listed| listed.snapshot == *taken);
        assert!(is_listed, "{what}: snapshot {taken} was acknowledged, it is not listed");
    }
    for listed in listed {
        let number = listed.snapshot;
        let what = format!("{what}: snapshot {number}");
        let data = victim.folder.path().join(format!("restored{number}"));
        let asked = Asked { snapshot: Some(number), ..Asked::default() };
        let restored = snapshot::prepare(&target, &data, asked, &|_| ControlFlow::Continue(()))
            .and_then(snapshot::Prepared::publish);
        restored.unwrap_or_else(|error| panic!("{what}: {error}"));
        let store = open(&data);
        let place = victim.workload.position(&store).unwrap_or_else(|why| panic!("{what}: {why}"));
        victim.workload.compare(&store).unwrap_or_else(|why| panic!("{what}: {why}"));
        if let Some((_, then)) = said.iter().find(|(taken, _)| *taken == number) {
            assert_eq!(place, *then, "{what}");
        }
        store.close().unwrap();
    }
}

/// Runs work for 1, 2, 3, ... on several threads until it answers false; returns how many answered
/// true before, and what panicked.
pub fn walk(work: impl Fn(usize) -> bool + Sync, until: usize) -> (usize, Vec<String>) {
    let (next, end) = (AtomicUsize::new(1), AtomicUsize::new(until));
    let failures = Mutex::new(Vec::new());
    let walker = || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= end.load(Ordering::Relaxed) {
                return;
            }
            match catch_unwind(AssertUnwindSafe(|| work(n))) {
                Ok(true) => {}
                Ok(false) => {
                    end.fetch_min(n, Ordering::Relaxed);
                }
                Err(panicked) => {
                    let why = panicked.downcast_ref::<String>().cloned().unwrap_or_default();
                    failures.lock().unwrap().push(why);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(walker);
        }
    });
    (end.into_inner() - 1, failures.into_inner().unwrap())
}

#[test]
fn a_failing_call_is_an_error_or_harmless_and_never_a_wrong_answer() {
    let first = seed();
    println!("seed {first}");
    let scenes = [Scene::fresh(first), Scene::standing(first)];
    let mut failures = Vec::new();
    if soak() > 1 {
        let (began, mut all) = (Instant::now(), 0);
        // One kind of calls alone, where it is named.
        let kind = std::env::var("EVERWHEN_FAULT_KIND").ok();
        for fault in FAULTS.iter().filter(|(of, _)| kind.as_deref().is_none_or(|one| one == *of)) {
            for scene in &scenes {
                let (reached, wrong) = walk(|n| fail_call(scene, *fault, n), usize::MAX);
                let (name, wrongs, at) = (scene.name, wrong.len(), began.elapsed().as_secs());
                println!("{name} {fault:?}: {reached} failed one by one, {wrongs} wrong, {at} s");
                all += reached;
                failures.extend(wrong);
            }
        }
        println!("{all} calls failed in {:?}, {} wrong", began.elapsed(), failures.len());
    } else {
        let mut random = StdRng::seed_from_u64(first);
        let tries: Vec<(usize, (&str, &str), usize)> = (0..SAMPLE)
            .map(|_| {
                let (scene, fault) =
                    (random.random_range(0..2), random.random_range(0..FAULTS.len()));
                let n = random.random_range(1..=SAMPLE_AT_MOST);
                // Small numbers more often: few kinds of calls are made so many times.
                (scene, FAULTS[fault], n.min(random.random_range(1..=SAMPLE_AT_MOST)))
            })
            .collect();
        let touched = AtomicUsize::new(0);
        let tried = |n: usize| {
            let (scene, fault, n) = tries[n - 1];
            touched.fetch_add(usize::from(fail_call(&scenes[scene], fault, n)), Ordering::Relaxed);
            true
        };
        failures = walk(tried, SAMPLE + 1).1;
        let touched = touched.into_inner();
        assert!(touched >= SAMPLE / 4, "only {touched} of {SAMPLE} calls were made at all");
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
