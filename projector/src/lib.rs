//! Continuous queries to sinks: what a projection's rows are, and how they reach a warehouse.
//!
//! [`compute`] runs in the server: it turns what changed in the store into numbered changes of a
//! query's rows. Delivery is its own stateless process that writes them to a sink.

pub mod compute;
pub mod deliver;
mod error;

pub use error::{Error, Result};
