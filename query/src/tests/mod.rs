//! Statements against a real store under a manual clock.

mod alter;
mod append;
mod audit;
mod catalog;
mod constant_intervals;
mod describe;
mod erase;
mod errors;
mod fuzz;
mod key_reads;
mod kit;
mod period_joins;
mod periods;
pub(crate) mod random;
mod reads;
mod scans;
mod select_lists;
mod settings;
mod short;
mod spilling;
mod transactions;
mod uuids;
mod views;
mod writes;
