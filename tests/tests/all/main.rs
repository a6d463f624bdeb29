//! The cross-crate suites, one module each, in one binary: linking the engine is slow.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on panics")]
#![allow(clippy::disallowed_methods, reason = "tests wait for real processes")]
#![allow(
    clippy::await_holding_lock,
    reason = "one heavy suite at a time, each on a thread of its own"
)]

mod alter;
mod bad_input;
mod bombs;
mod buckets;
mod clients;
mod corruption;
mod crash;
mod differential;
mod docs;
mod end_to_end;
mod erase;
mod faults;
mod flight;
mod held;
mod http;
mod model;
mod pipeline;
mod postgres;
mod projections;
mod replay;
mod scale;
mod scenario;
mod shipping;
mod sinks;
mod slt;
mod snapshots;
mod tidy;
mod tools;
mod topics;
