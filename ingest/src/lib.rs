//! Source records to write batches: streams, mappings, and the loops that run them.

mod apply;
mod batch;
mod columns;
mod dead_letter;
mod decode;
mod error;
mod mapping;
mod metrics;
mod plan;
mod stream;

pub use error::{Error, Result};
