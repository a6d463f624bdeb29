//! Statements against a real store under a manual clock.

mod erase;
mod alter;
mod errors;
mod kit;
mod reads;
mod writes;
