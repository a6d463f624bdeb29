//! The kit of the cross-crate suites: processes, a real broker, the emulator, the oracle.
//!
//! The suites themselves are modules of one test binary, `tests/all`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on panics")]
#![allow(clippy::disallowed_methods, reason = "tests wait for real processes")]

pub mod buckets;
pub mod emulator;
pub mod fanout;
pub mod http;
pub mod judge;
pub mod kafka;
pub mod model;
pub mod postgres;
pub mod process;
pub mod warehouse;
pub mod workload;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock};

use emulator::Emulator;
use kafka::Broker;

/// Where `scripts/setup` keeps what tests need beyond the build.
pub fn cache_dir() -> PathBuf {
    std::env::var_os("EVERWHEN_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/everwhen"),
        PathBuf::from,
    )
}

/// The broker that tests share; topics keep them apart. Suites that kill a broker start their own.
pub fn shared_broker() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    BROKER.get_or_init(|| Broker::start().unwrap())
}

/// The BigQuery emulator that tests share; datasets keep them apart.
pub fn shared_emulator() -> &'static Emulator {
    static EMULATOR: OnceLock<Emulator> = OnceLock::new();
    EMULATOR.get_or_init(|| Emulator::start().unwrap())
}

/// Lets one heavy suite run at a time: two cores are few for several servers and their deadlines.
pub fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The seed of this run: `EVERWHEN_SEED`, or a fixed one that keeps runs equal.
pub fn seed() -> u64 {
    std::env::var("EVERWHEN_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_121)
}

/// How much longer than usual the seeded suites run: `EVERWHEN_SOAK`, 1 by default.
pub fn soak() -> u64 {
    std::env::var("EVERWHEN_SOAK").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}
