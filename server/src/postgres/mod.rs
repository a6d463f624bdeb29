//! The Postgres wire protocol: psql, drivers and tools connect as to a Postgres server.
//!
//! `listen` takes connections, `connection` reads messages and answers them, with `input` and
//! `output` for the bytes. `command` tells statements of the session (`settings`, `transaction`)
//! from those of the database, which `session` hands to [`crate::service::query`] like every front
//! end; `extended` keeps prepared statements and portals, `copy` the COPY of rows. `types`,
//! `values` and `parameters` are the forms of values. Database names are tenants.

mod command;
mod connection;
mod copy;
mod extended;
mod input;
mod listen;
mod output;
mod parameters;
mod session;
mod settings;
mod transaction;
mod types;
mod values;
mod words;

pub use listen::serve;
