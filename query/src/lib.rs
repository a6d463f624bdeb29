//! SQL at a basis: the temporal dialect, its statements, and their planning and running.

pub mod columns;
pub mod dialect;
mod error;
pub mod records;
pub mod rewrite;
pub mod statements;

pub use error::{Error, Result, SqlState};
