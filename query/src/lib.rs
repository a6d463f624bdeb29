//! SQL at a basis: the temporal dialect, its statements, and their planning and running.
//!
//! A statement goes through [`dialect`] (text to tree), [`rewrite`] (every table reference gets
//! its bounds), `read` (a plan over [`table`]s) and [`engine`] (runs it). Writes are in `write`.

mod answer;
pub mod basis;
mod bounds;
mod catalog;
pub mod columns;
mod constants;
mod describe;
mod diagnose;
pub mod dialect;
pub mod engine;
mod error;
pub mod functions;
mod in_order;
mod indexes;
mod interrupt;
mod key_read;
mod microseconds;
mod overlay;
mod page;
mod params;
mod period_aggregate;
pub mod period_join;
pub mod plan;
mod prove;
mod read;
pub mod records;
pub mod rewrite;
pub mod scan_exec;
pub mod session;
mod short;
mod spill;
pub mod statements;
pub mod system_tables;
pub mod table;
mod transaction;
pub mod versions;
mod views;
mod write;

pub use answer::{RowsAnswer, Shape};
pub use basis::{basis_token, parse_basis};
pub use catalog::{Names, SERVER_VERSION};
pub use describe::{Described, StatementKind};
pub use engine::{Engine, EngineOptions, Outcome, QUERY_STACK_BYTES, Request, WriteAnswer};
pub use error::{Error, Result, SqlState};
pub use interrupt::{Interrupt, InterruptOnDrop};
pub use page::Page;
pub use params::Params;
pub use prove::prove;
pub use spill::Spilling;
pub use system_tables::SystemTable;
pub use views::TemporaryViews;
pub use write::{alter_table, create_index, drop_index};

#[cfg(test)]
mod tests;
