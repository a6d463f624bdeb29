//! Delivery: leases projections from a server, writes their changes into sinks, acknowledges.
//!
//! Stateless, so it can run in a process of its own, be killed at any moment and be started again:
//! the server keeps the cursor, and the sink keeps a control row that every write checks and moves
//! in its own transaction. It knows nothing of storage and queries, only the gRPC contract.
//! [`sink`] says what a sink must do, [`suite`] checks it, [`run`](run()) is the loop.

pub mod client;
pub mod config;
pub mod error;
pub mod kind;
pub mod retry;
mod rows;
mod run;
pub mod sink;
pub mod sinks;
pub mod step;
pub mod suite;
pub mod target;

pub use config::{DeliverConfig, SinkConfig};
pub use error::{Error, Result};
pub use run::{run, run_with};
pub use sink::Sink;
