//! The computing half, in the server: a query at the moving basis, kept right for ever.
//!
//! No operator keeps state: the store can be asked for both ends of a step. Per step m -> n the
//! net change of each table is pushed through the query's own plan, operator by operator and
//! exactly ([`delta`]), and what comes out is grouped by key into numbered changes of the sink's
//! rows ([`step`]), made durable before the first of them leaves ([`cursor`]).
//!
//! It knows no sink and no wire format. Read next: [`node`] (the plan), [`delta`], [`projection`].
//! The reasons are in `docs/decisions/0002-projections.md`.

mod access;
mod admit;
mod aggregate;
mod attempts;
mod chunks;
mod compile;
mod compile_grouped;
mod compile_join;
mod contained;
pub mod cursor;
pub mod definition;
mod delta;
mod diff;
mod emit;
mod evaluate;
mod explain;
mod fault;
mod full;
mod join;
mod lease;
mod load;
mod memory;
mod node;
mod only;
#[cfg(test)]
mod operator_tests;
mod ordered;
mod partners;
mod projection;
mod projections;
mod prove;
mod refusal;
mod residual;
mod row_sorter;
mod source;
mod status;
mod step;
mod tenants;
mod walk;
mod workers;
mod zset;

pub use cursor::{RowChange, drop_deliveries};
pub use definition::{OutputColumn, Tenants};
pub use projection::{Chunk, ProjectionStatus};
pub use projections::{LeaseGrant, ProjectionError, ProjectionOptions, Projections};
pub use refusal::{Acked, RefusedRow};
pub use zset::ZSet;
