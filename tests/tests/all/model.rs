//! The store against the naive model: random histories, and the edge rules by name.
//!
//! `EVERWHEN_HISTORIES` sets how many histories run, `EVERWHEN_SEED` the seed of the first; history
//! `i` has seed `first + i`, and reading it draws from a seed of its own. A failure prints the
//! smallest history found that still fails.

mod compare;
mod edges;
mod retention;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use everwhen_storage::{
    Batch, DefinitionChange, IndexDef, IndexId, ManualClock, Options, Precedence, Store, TableDef,
    Tenant, TxId, TxOutcome,
};
use everwhen_tests::model::Model;
use everwhen_tests::model::history::{FLAG, History, NUMBER, Shape, Step, TEXT, tables};
use everwhen_tests::{seed, soak};

/// Histories of one store, before the next store is begun.
const EPISODE: u64 = 250;

/// A time in 2026, in microseconds.
const START: i64 = 1_767_600_000_000_000;

/// A store in a directory of its own, with the two tables of histories and an index on each.
struct Bench {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    store: Option<Store>,
    tables: [TableDef; 2],
    indexes: [IndexId; 2],
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(START));
        let store = open(&folder, &clock);
        let tables = tables(1);
        let changes = tables.iter().cloned().map(DefinitionChange::Table).collect();
        commit(&store, Batch { definitions: changes, ..Batch::default() });
        let index = |table: &TableDef, columns: Vec<_>| {
            let next = IndexId(store.definitions().next_index);
            store
                .ensure_index(IndexDef { id: next, table: table.id, columns, ready: false })
                .unwrap()
        };
        let indexes = [index(&tables[0], vec![TEXT]), index(&tables[1], vec![NUMBER, FLAG])];
        Self { folder, clock, store: Some(store), tables, indexes }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn restart(&mut self) {
        // The old store must be gone before its directory can be opened again.
        if let Some(store) = self.store.take() {
            store.close().unwrap();
        }
        self.store = Some(open(&self.folder, &self.clock));
    }

    /// Purges all that was erased, bytes included.
    fn purge(&self) -> Result<(), String> {
        for _ in 0..10_000 {
            let progress = self.store().advance_erasures(TxId::END);
            if progress.map_err(|error| format!("purge: {error}"))?.waiting == 0 {
                let left = self.store().erasures_under_way().map_err(|e| format!("purge: {e}"))?;
                return if left.is_empty() { Ok(()) } else { Err(format!("left: {left:?}")) };
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Err("purged files are never gone".to_owned())
    }

    fn index_of(&self, table: &TableDef) -> IndexId {
        match table.precedence {
            Precedence::Recorded => self.indexes[0],
            Precedence::Effective => self.indexes[1],
        }
    }

    fn model(&self) -> Model {
        let last = self.store().latest().tx;
        let mut model = Model::starting_after(last, self.store().system_time(last).unwrap());
        for table in &self.tables {
            model.table(table.id, table.precedence);
        }
        model
    }

    /// Applies one step to both sides; an error is a difference between them.
    fn step(&mut self, model: &mut Model, step: &Step, clock: &mut i64) -> Result<(), String> {
        match step {
            Step::Clock(time) => {
                *clock = (*clock).max(*time);
                everwhen_storage::Clock::set(&*self.clock, *clock).unwrap();
            }
            Step::Restart => self.restart(),
            Step::Purge => self.purge()?,
            Step::Commit(txs) => {
                let expected: Vec<TxOutcome> =
                    txs.iter().map(|tx| model.apply(tx, *clock)).collect();
                let batch = Batch { txs: txs.clone(), ..Batch::default() };
                let answer = self.store().submit(batch).unwrap().blocking_recv().unwrap();
                let committed = answer.map_err(|error| format!("commit refused: {error}"))?;
                if committed.outcomes != expected {
                    let found = committed.outcomes;
                    return Err(format!("outcomes {found:?}, expected {expected:?}"));
                }
            }
        }
        Ok(())
    }

    /// Plays a history and compares at random places; in full where `thorough`.
    fn play(&mut self, history: &History, thorough: bool) -> Result<(), String> {
        let mut model = self.model();
        let mut clock = everwhen_storage::Clock::now_micros(&*self.clock);
        let base = model.last_tx();
        for step in &history.steps {
            self.step(&mut model, step, &mut clock)?;
        }
        let place = compare::Place { store: self.store(), model: &model, history, base };
        let index = self.index_of(&history.table);
        if thorough { place.everything(index) } else { place.samples(index) }
    }
}

fn open(folder: &tempfile::TempDir, clock: &Arc<ManualClock>) -> Store {
    Store::open(Options {
        path: folder.path().join("data"),
        clock: Arc::clone(clock) as _,
        sync: false,
        block_cache_bytes: 16 << 20,
    })
    .unwrap()
}

fn commit(store: &Store, batch: Batch) -> TxId {
    store.submit(batch).unwrap().blocking_recv().unwrap().unwrap().last_tx
}

/// The history of a seed in an episode's store.
fn history(bench: &Bench, seed: u64, index: u64) -> History {
    let table = bench.tables[usize::from(index % 2 == 1)].clone();
    let tenants = ["", "-b"].map(|end| Tenant::new(&format!("h{index}{end}")).unwrap());
    let start = everwhen_storage::Clock::now_micros(&*bench.clock);
    let restart = if index.is_multiple_of(100) { 0.2 } else { 0.0 };
    let (erase, purge) = (0.08, if index.is_multiple_of(25) { 0.5 } else { 0.0 });
    let tenants_of = tenants.to_vec();
    let shape = Shape { table, tenants: tenants_of, start, txs_max: 14, restart, erase, purge };
    History::random(seed, &shape)
}

/// Drops steps and transactions as long as what remains still fails in a store of its own.
fn smallest(failing: &History) -> (History, String) {
    let fails = |history: &History| {
        let mut bench = Bench::new();
        let start = history.origin - history.scale - 1;
        everwhen_storage::Clock::set(&*bench.clock, start).unwrap();
        bench.play(history, true).err()
    };
    let Some(mut why) = fails(failing) else {
        return (failing.clone(), "does not fail in a store of its own".to_owned());
    };
    let mut best = failing.clone();
    // One transaction a commit is easier to read, where the failure survives it.
    let mut split = best.clone();
    split.steps.clear();
    for step in &best.steps {
        match step {
            Step::Commit(txs) => {
                split.steps.extend(txs.iter().map(|tx| Step::Commit(vec![tx.clone()])));
            }
            other => split.steps.push(other.clone()),
        }
    }
    if let Some(said) = fails(&split) {
        (best, why) = (split, said);
    }
    loop {
        let shorter = (0..best.steps.len()).find_map(|at| {
            let mut shorter = best.clone();
            shorter.steps.remove(at);
            fails(&shorter).map(|said| (shorter, said))
        });
        let Some(found) = shorter else { return (best, why) };
        (best, why) = found;
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn random_histories_read_like_the_naive_model() {
    let histories = number("EVERWHEN_HISTORIES").unwrap_or(10_000 * soak());
    let seed = seed();
    println!("EVERWHEN_SEED={seed} EVERWHEN_HISTORIES={histories}");
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let first = next.fetch_add(EPISODE, Ordering::SeqCst);
                    if first >= histories {
                        return;
                    }
                    episode(seed, first, histories.min(first + EPISODE));
                }
            });
        }
    });
}

fn episode(seed: u64, first: u64, end: u64) {
    let mut bench = Bench::new();
    for index in first..end {
        let own_seed = seed.wrapping_add(index);
        let history = history(&bench, own_seed, index);
        if let Err(why) = bench.play(&history, false) {
            let (smallest, small_why) = smallest(&history);
            panic!(
                "history {index} of EVERWHEN_SEED={seed}: {why}\n\
                 smallest that fails: {small_why}\n{smallest:#?}"
            );
        }
        let clock = &*bench.clock;
        let now = everwhen_storage::Clock::now_micros(clock).max(history.end());
        everwhen_storage::Clock::set(clock, now).unwrap();
    }
}
