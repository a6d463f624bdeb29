//! The cross-crate suites, one module each, in one binary: linking the engine is slow.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on panics")]

mod alter;
mod bad_input;
mod corruption;
mod crash;
mod docs;
mod end_to_end;
mod erase;
mod faults;
mod model;
mod projections;
mod replay;
mod scenario;
mod sinks;
mod snapshots;
mod tidy;
