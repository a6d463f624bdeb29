//! SQL at a basis: the temporal dialect, its statements, and their planning and running.

mod bounds;
pub mod columns;
pub mod dialect;
mod error;
pub mod functions;
pub mod records;
pub mod rewrite;
pub mod scan_exec;
pub mod session;
pub mod statements;
pub mod table;

pub use error::{Error, Result, SqlState};
