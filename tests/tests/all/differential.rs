//! Random temporal queries over random histories, answered three times: by the engine, by the naive
//! model, and by DuckDB over flattened tables. `history` makes the histories, `query` the queries;
//! `everwhen`, `naive` and `duck` each answer one in their own way.
//!
//! Beside that: an answer at a past basis never changes (stability), and the rows of the parts of a
//! period, put together, are those of the whole (the partition law).
//!
//! `EVERWHEN_SEED` is the seed of the first episode; episode `i` has seed `first + i`.

mod duck;
mod everwhen;
mod history;
mod naive;
mod query;

use std::sync::Arc;

use everwhen_query::columns::value_at;
use everwhen_query::{Engine, EngineOptions, Outcome, Request};
use everwhen_storage::{ManualClock, Options, Store, Value};
use everwhen_tests::{seed, soak};
use futures::StreamExt as _;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use duck::Duck;
use history::{DAY, TABLES, Told, Version, instant_text};
use naive::Cell;
use query::{Maker, Scan, Window};

/// Queries of one run; a soak has [`QUERIES_SOAKED`] at its usual ten.
const QUERIES: usize = 500;
const QUERIES_SOAKED: usize = 2_000;
const ROUNDS: usize = 3;
const TRANSACTIONS: usize = 16;
const QUERIES_A_ROUND: usize = 20;
/// Answers that each round keeps, to be asked for again.
const KEPT: usize = 4;

/// A time in 2026, in microseconds.
const START: i64 = 1_767_600_000_000_000;

type Rows = Vec<Vec<Cell>>;

/// An empty database with the two tables.
struct Database {
    engine: Arc<Engine>,
    store: Store,
    _dir: tempfile::TempDir,
}

/// An answer at a basis, to be the same for ever.
struct Kept {
    request: Request,
    rows: Rows,
}

impl Database {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            path: dir.path().join("data"),
            clock: Arc::new(ManualClock::at(START)),
            sync: false,
            block_cache_bytes: 1 << 20,
        };
        let store = Store::open(options).unwrap();
        let engine = Engine::new(store.clone(), EngineOptions::default());
        let database = Self { engine, store, _dir: dir };
        let columns = "_id TEXT PRIMARY KEY, g TEXT, v INT, at TIMESTAMPTZ";
        for (table, precedence) in TABLES.into_iter().zip(["recorded", "effective"]) {
            let sql =
                format!("CREATE TABLE {table} ({columns}) WITH (precedence = '{precedence}')");
            database.run(Request::new(sql)).await.unwrap();
        }
        database
    }

    /// Runs a request; returns its rows as they come, and the token to read at again.
    async fn run(&self, request: Request) -> Result<(Rows, String), String> {
        let text = |error: everwhen_query::Error| format!("{} {error}", error.sqlstate());
        match self.engine.execute(request).await.map_err(text)? {
            Outcome::Rows(mut answer) => {
                let mut rows = Vec::new();
                while let Some(batch) = answer.stream.next().await {
                    let batch = batch.map_err(text)?;
                    for row in 0..batch.num_rows() {
                        let cells = batch.columns().iter().zip(&answer.columns);
                        let cells = cells.map(|(array, (_, kind))| {
                            match value_at(array.as_ref(), row, kind).unwrap() {
                                Value::Null => Cell::Null,
                                Value::Int(value) | Value::Timestamp(value) => Cell::Int(value),
                                Value::Text(text) => Cell::Text(text),
                                other => panic!("{other:?} is in no query"),
                            }
                        });
                        rows.push(cells.collect());
                    }
                }
                Ok((rows, answer.basis))
            }
            Outcome::Written(written) => Ok((Vec::new(), written.basis)),
            Outcome::Define(_) => panic!("nothing here is defined elsewhere"),
        }
    }

    async fn sorted(&self, request: Request) -> Result<(Rows, String), String> {
        let (mut rows, basis) = self.run(request).await?;
        rows.sort();
        Ok((rows, basis))
    }

    /// Returns all that is kept of a table.
    async fn versions(&self, table: &str) -> Vec<Version> {
        let sql = format!(
            "SELECT _id, g, v, at, _valid_from, _valid_to, _system_from, _system_to, _tx \
             FROM {table} FOR ALL VALID_TIME FOR ALL SYSTEM_TIME"
        );
        let (rows, _) = self.sorted(Request::new(sql)).await.unwrap();
        rows.into_iter().map(version_of).collect()
    }
}

fn version_of(row: Vec<Cell>) -> Version {
    let mut row = row.into_iter();
    let mut text = || match row.next().unwrap() {
        Cell::Text(text) => Some(text),
        _ => None,
    };
    let (id, g) = (text().unwrap(), text());
    let mut number = || match row.next().unwrap() {
        Cell::Int(number) => Some(number),
        _ => None,
    };
    Version {
        id,
        g,
        v: number(),
        at: number(),
        valid_from: number().unwrap(),
        valid_to: number(),
        system_from: number().unwrap(),
        system_to: number(),
        tx: number().unwrap(),
    }
}

/// One history and what is asked of it.
struct Episode<'a> {
    seed: u64,
    rng: StdRng,
    database: Database,
    told: Told,
    duck: &'a mut Duck,
    kept: Vec<Kept>,
}

/// What was compared.
#[derive(Debug, Default)]
struct Tally {
    queries: usize,
    /// Those whose answer had more than nothing, counts of nothing and NULLs.
    with_rows: usize,
    rows: usize,
    asked_again: usize,
    parted: usize,
}

impl<'a> Episode<'a> {
    async fn new(seed: u64, duck: &'a mut Duck) -> Self {
        let database = Database::new().await;
        let last = database.store.latest().tx;
        let time = database.store.system_time(last).unwrap();
        let told = Told::after(last, time, START);
        Self { seed, rng: StdRng::seed_from_u64(seed), database, told, duck, kept: Vec::new() }
    }

    fn wrong(&self, what: &str) -> ! {
        panic!("EVERWHEN_SEED={}\n{}\n{what}", self.seed, self.told.log.join("\n"))
    }

    async fn run(&mut self, tally: &mut Tally) {
        for _ in 0..ROUNDS {
            for _ in 0..TRANSACTIONS {
                self.write().await;
            }
            self.flatten().await;
            for index in 0..QUERIES_A_ROUND {
                self.ask(index < KEPT, tally).await;
            }
            self.part(tally).await;
            self.ask_again(tally).await;
        }
    }

    async fn write(&mut self) {
        if self.rng.random_bool(0.4) {
            self.told.clock += DAY * self.rng.random_range(0..=2) + self.rng.random_range(0..=1);
            self.database.store.clock().set(self.told.clock).unwrap();
        }
        let before = self.database.store.latest().tx;
        let (sql, spends) = self.told.transaction(&mut self.rng);
        if let Err(error) = self.database.run(Request::new(sql)).await {
            self.wrong(&format!("was refused: {error}"));
        }
        let after = self.database.store.latest().tx;
        if (after != before) != spends || after != self.told.model.last_tx() {
            self.wrong(&format!("spent {before:?} to {after:?}, which the model does not"));
        }
    }

    /// Compares all versions of both axes with the model's, and gives them to DuckDB.
    async fn flatten(&mut self) {
        let mut tables = [Vec::new(), Vec::new()];
        for (table, name) in TABLES.into_iter().enumerate() {
            tables[table] = self.database.versions(name).await;
            let mut expected = self.told.versions(table, i64::MIN, i64::MAX);
            expected.sort();
            if tables[table] != expected {
                let found = &tables[table];
                self.wrong(&format!("{name} has\n{found:#?}\nexpected\n{expected:#?}"));
            }
        }
        self.duck.load(&tables);
    }

    async fn ask(&mut self, keep: bool, tally: &mut Tally) {
        let query = Maker { told: &self.told, rng: &mut self.rng }.query();
        let request = everwhen::request(&query, &mut self.rng);
        let shown = format!("{query:?}\n{}\n{:?}", request.sql, request.params);
        let at = request.valid_time.map(|at| at.to_string());
        let (found, basis) = match self.database.sorted(request.clone()).await {
            Ok(answer) => answer,
            Err(error) => self.wrong(&format!("{shown}\nvalid_time {at:?}\nfailed: {error}")),
        };
        let naive = naive::answer(&query, &self.told);
        let sql = duck::text(&query, self.told.now());
        let duck = self.duck.answer(&sql);
        if found != naive || duck.as_ref() != Ok(&naive) {
            self.wrong(&format!(
                "{shown}\nvalid_time {at:?}, now {}\nEverwhen {found:?}\nmodel    {naive:?}\n\
                 DuckDB   {duck:?}\n{sql}",
                instant_text(self.told.now())
            ));
        }
        tally.queries += 1;
        tally.rows += found.len();
        let nothing = |row: &Vec<Cell>| row.iter().all(|c| matches!(c, Cell::Null | Cell::Int(0)));
        tally.with_rows += usize::from(!found.iter().all(nothing));
        if keep {
            let request = Request { basis: Some(basis), ..request };
            self.kept.push(Kept { request, rows: found });
        }
    }

    async fn ask_again(&mut self, tally: &mut Tally) {
        for Kept { request, rows } in &self.kept {
            let again = self.database.sorted(request.clone()).await;
            if again.as_ref().map(|(rows, _)| rows) != Ok(rows) {
                let sql = &request.sql;
                self.wrong(&format!("{sql}\nat an old basis\nfirst {rows:?}\nthen  {again:?}"));
            }
            tally.asked_again += 1;
        }
    }

    /// Reads a period whole and in parts.
    async fn part(&mut self, tally: &mut Tally) {
        let mut ends: Vec<i64> = (0..5).map(|_| self.told.instant(&mut self.rng)).collect();
        ends.sort_unstable();
        ends.dedup();
        let mut ends: Vec<Option<i64>> = ends.into_iter().map(Some).collect();
        ends.insert(0, None);
        ends.push(None);
        let system =
            [Window::Now, Window::At(self.told.system_instant(&mut self.rng)), Window::All];
        let system = system[self.rng.random_range(0..3)];
        let scan = Scan { table: self.rng.random_range(0..2), valid: Window::All, system };
        let mut pieces = Vec::new();
        for pair in ends.windows(2) {
            pieces.extend(self.clamped(&scan, pair[0], pair[1]).await);
        }
        let whole = self.clamped(&scan, None, None).await;
        let expected = naive::scan(&scan, &self.told);
        let (whole, pieces) = (joined(whole), joined(pieces));
        if whole != pieces || whole != joined(expected) {
            self.wrong(&format!("{scan:?} {ends:?}\nwhole {whole:#?}\nin parts {pieces:#?}"));
        }
        tally.parted += 1;
    }

    async fn clamped(&self, scan: &Scan, from: Option<i64>, to: Option<i64>) -> Vec<Version> {
        let bound = |at: Option<i64>| {
            at.map_or("NULL".to_owned(), |at| format!("TIMESTAMP '{}'", instant_text(at)))
        };
        let system = match scan.system {
            Window::At(at) => format!(" FOR SYSTEM_TIME AS OF {}", bound(Some(at))),
            Window::All => " FOR ALL SYSTEM_TIME".to_owned(),
            _ => String::new(),
        };
        let sql = format!(
            "SELECT _id, g, v, at, _valid_from, _valid_to, _system_from, _system_to, _tx FROM {} \
             FOR VALID_TIME ONLY FROM {} TO {}{system}",
            TABLES[scan.table],
            bound(from),
            bound(to)
        );
        match self.database.run(Request::new(sql.clone())).await {
            Ok((rows, _)) => rows.into_iter().map(version_of).collect(),
            Err(error) => self.wrong(&format!("{sql}\nfailed: {error}")),
        }
    }
}

/// Joins versions of one transaction with equal values that meet.
fn joined(mut versions: Vec<Version>) -> Vec<Version> {
    let place = |v: &Version| (v.id.clone(), v.tx, v.system_to, v.valid_from);
    versions.sort_by_key(place);
    let mut whole: Vec<Version> = Vec::new();
    for version in versions {
        match whole.last_mut() {
            Some(last)
                if last.valid_to == Some(version.valid_from)
                    && *last
                        == (Version {
                            valid_from: last.valid_from,
                            valid_to: last.valid_to,
                            ..version.clone()
                        }) =>
            {
                last.valid_to = version.valid_to;
            }
            _ => whole.push(version),
        }
    }
    whole
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn temporal_queries_answer_like_the_model_and_duckdb() {
    let soak = usize::try_from(soak()).unwrap();
    let count = if soak == 1 { QUERIES } else { QUERIES_SOAKED * soak };
    let (seed, mut duck, mut tally) = (seed(), Duck::start(), Tally::default());
    println!("EVERWHEN_SEED={seed}, {count} queries");
    let mut episode = 0;
    while tally.queries < count {
        Episode::new(seed.wrapping_add(episode), &mut duck).await.run(&mut tally).await;
        episode += 1;
    }
    println!("{tally:?}");
    // Queries that find nothing compare little.
    assert!(tally.with_rows * 2 > tally.queries, "{tally:?}");
}
