//! Projections against the query from scratch: random histories, and the rules by name.
//!
//! One store and one set of projections for all histories, a tenant for each, so that plans are
//! cached. `EVERWHEN_HISTORIES` sets how many histories run, `EVERWHEN_SEED` the seed of the first.

mod named;
mod rig;
mod shapes;

use everwhen_projector::compute::ProjectionOptions;
use everwhen_storage::{Clock, Tenant};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rig::{HOUR, Rig};
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
    println!("{count} histories x {} shapes from seed {first}: 0 wrong", SHAPES.len());
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
    for shape in SHAPES {
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
                let shape = &SHAPES[random.random_range(0..SHAPES.len())];
                rig.step_unacknowledged(shape.name);
                rig.restart();
            }
        }
        for shape in SHAPES {
            if random.random_bool(0.3) {
                rig.drain(shape.name);
                if random.random_bool(0.15) {
                    rig.check(shape.name, &tenant)?;
                }
            }
        }
    }
    if random.random_bool(0.02) {
        rig.reload(SHAPES[random.random_range(0..SHAPES.len())].name);
    }
    for shape in SHAPES {
        rig.drain(shape.name);
        rig.check(shape.name, &tenant)?;
    }
    Ok(())
}
