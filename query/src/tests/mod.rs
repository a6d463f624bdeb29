//! Statements against a real store under a manual clock.

mod alter;
mod errors;
mod kit;
mod reads;
mod writes;
