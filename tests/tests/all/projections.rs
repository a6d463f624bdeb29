//! Projections against the query from scratch: random histories, and the rules by name.
//!
//! One store and one set of projections for all histories, a tenant for each, so that plans are
//! cached. `EVERWHEN_HISTORIES` sets how many histories run, `EVERWHEN_SEED` the seed of the first.

mod delivery;
mod edges;
mod forms;
mod named;
mod rig;
mod shapes;
mod values;

use edges::{EDGE_SHAPES, Expected, FAILING_SHAPES};
use everwhen_projector::compute::ProjectionOptions;
use everwhen_storage::{Clock, Tenant, Write};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rig::{HOUR, Rig, Shape};
use shapes::{SHAPES, random_write, tables};

use everwhen_tests::seed;

/// Histories of one store, before the next store is begun.
const EPISODE: u64 = 125;

fn histories() -> u64 {
    std::env::var("EVERWHEN_HISTORIES").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000)
}

#[test]
fn projections_equal_the_query_from_scratch_on_random_histories() {
    let first = seed();
    let count = histories();
    let mut rig = None;
    for number in 0..count {
        let seed = first.wrapping_add(number);
        if number % EPISODE == 0 {
            rig = Some(begin(number / EPISODE));
        }
        let rig = rig.as_mut().unwrap();
        if let Err(problem) = history(rig, seed, number) {
            panic!("EVERWHEN_SEED={seed} EVERWHEN_HISTORIES=1: {problem}");
        }
    }
    println!("{count} histories x {} shapes from seed {first}: 0 wrong", shapes().count());
}

fn shapes() -> impl Iterator<Item = &'static Shape> {
    SHAPES.iter().chain(EDGE_SHAPES)
}

fn drawn(random: &mut StdRng) -> &'static Shape {
    let at = random.random_range(0..SHAPES.len() + EDGE_SHAPES.len());
    SHAPES.get(at).unwrap_or_else(|| &EDGE_SHAPES[at - SHAPES.len()])
}

fn begin(episode: u64) -> Rig {
    // Small chunks and steps, so that both end within a history.
    let mut options =
        ProjectionOptions { chunk_rows: 3, step_records: 6, load_rows: 2, ..Default::default() };
    // Every other time rows travel by ones and twos, and every sort is one in files.
    if episode % 2 == 1 {
        options.part_rows = 2;
        options.sort_bytes_max = 100;
    }
    let mut rig = Rig::new(&tables(), options);
    for shape in shapes() {
        rig.create(shape);
    }
    rig
}

/// Plays one history and compares every shape at its end, some on the way.
fn history(rig: &mut Rig, seed: u64, number: u64) -> Result<(), String> {
    let mut random = StdRng::seed_from_u64(seed);
    let tables = tables();
    let tenant = Tenant::new(&format!("h{number}")).unwrap();
    for round in 0..random.random_range(3..8) {
        // A tenant is made by its first write.
        match if round == 0 { 0 } else { random.random_range(0..30) } {
            0..=20 => {
                for _ in 0..random.random_range(1..5) {
                    let count = random.random_range(1..4);
                    let writes =
                        (0..count).map(|_| random_write(&mut random, &tenant, &tables)).collect();
                    rig.write(writes);
                }
            }
            21..=27 => {
                let to = rig.clock.now_micros() + random.random_range(1..HOUR * 3);
                rig.clock.set(to).unwrap();
            }
            28 => rig.restart(),
            _ => {
                // A crash after the sink has a chunk and before the server knows.
                let shape = drawn(&mut random);
                rig.step_unacknowledged(shape.name);
                rig.restart();
            }
        }
        for shape in shapes() {
            if random.random_bool(0.3) {
                rig.drain(shape.name);
                if random.random_bool(0.15) {
                    rig.check(shape.name, &tenant)?;
                }
            }
        }
    }
    if random.random_bool(0.02) {
        rig.reload(drawn(&mut random).name);
    }
    for shape in shapes() {
        rig.drain(shape.name);
        rig.check(shape.name, &tenant)?;
    }
    Ok(())
}

/// A row whose expression fails holds its key, and no other.
#[test]
fn rows_whose_expressions_fail_are_held_and_all_others_are_right() {
    let first = seed();
    let count = histories() / 10 + 1;
    let mut rig = Rig::new(&tables(), ProjectionOptions { chunk_rows: 3, ..Default::default() });
    for failing in FAILING_SHAPES {
        rig.create(&failing.shape);
    }
    for number in 0..count {
        let seed = first.wrapping_add(number);
        let mut random = StdRng::seed_from_u64(seed);
        let tenant = Tenant::new(&format!("h{number}")).unwrap();
        for _ in 0..random.random_range(2..8) {
            let write = |random: &mut StdRng| random_write(random, &tenant, &tables());
            let writes: Vec<Write> =
                (0..random.random_range(1..6)).map(|_| write(&mut random)).collect();
            rig.write(writes);
            let edges = rig.ask("SELECT * FROM edge", &tenant).unwrap();
            let visits = rig.ask("SELECT * FROM visit", &tenant).unwrap();
            for failing in FAILING_SHAPES {
                let name = failing.shape.name;
                rig.drain(name);
                let wrong = held_wrong(&rig, name, &tenant, &(failing.expected)(&edges, &visits));
                assert!(wrong.is_empty(), "EVERWHEN_SEED={seed} {name}: {wrong:#?}");
            }
        }
    }
}

/// Compares a tenant's rows and held keys with what they should be.
fn held_wrong(rig: &Rig, name: &str, tenant: &Tenant, expected: &Expected) -> Vec<String> {
    let errors = rig.projections.errors().into_iter();
    let held: Vec<String> = errors
        .filter(|error| error.projection == name && error.tenant == *tenant)
        .map(|error| error.key)
        .collect();
    let mut wrong = Vec::new();
    for key in expected.held.iter().filter(|key| !held.contains(key)) {
        wrong.push(format!("{key} should be held: {held:?}"));
    }
    let reasonless = held.iter().filter(|key| !expected.held.contains(*key));
    if !expected.without_key {
        wrong.extend(reasonless.map(|key| format!("{key} is held without reason")));
    } else if held.is_empty() {
        wrong.push("what fails without a key is told of nowhere".to_owned());
    }
    let rows = rig.rows_of(name, tenant);
    for (key, row) in &expected.rows {
        if rows.get(key) != Some(row) {
            wrong.push(format!("{key} should be {row}, is {:?}", rows.get(key)));
        }
    }
    let known = |key: &String| expected.rows.contains_key(key) || expected.held.contains(key);
    let gone = rows.keys().filter(|key| !known(key));
    wrong.extend(gone.map(|key| format!("{key} should be gone")));
    wrong
}
