//! Source records to write batches: streams, mappings, and the loops that run them.
//!
//! ```text
//! kafka, emit -> batch (raw bytes) -> decode (Arrow columns) -> apply (mappings to writes) -> store
//! ```
//!
//! A stream says where records come from and how they are decoded ([`stream`]); a mapping says
//! what they assert ([`mapping`]). [`plan`] compiles both from the definitions in force, [`commit`]
//! brings a prepared batch into the store, [`pipeline`] overlaps the two. A record that cannot be
//! processed becomes a dead letter and delays nothing.

mod apply;
mod batch;
mod columns;
mod commit;
mod dead_letter;
mod decode;
mod emit;
mod error;
mod file;
mod ingest;
mod kafka;
mod mapping;
mod metrics;
pub mod mock;
mod pipeline;
mod plan;
mod position;
mod reading;
mod replay;
mod signal;
mod status;
mod stream;
#[cfg(test)]
mod testing;

pub use batch::BatchLimits;
pub use emit::{EmitAnswer, EmitEvent};
pub use error::{Error, Result};
pub use file::{FileLoad, Rejects, load_file};
pub use ingest::{Ingest, IngestOptions};
pub use mapping::{MappingDef, Verb, plan_mapping};
pub use metrics::StreamMetrics;
pub use reading::plan_alter;
pub use replay::{ReplayOptions, Replayed, replay};
pub use status::StreamStatus;
pub use stream::{KafkaTopic, StreamColumn, StreamDef, plan_drop, plan_stream};
