//! The places rows can go to, one module each.

pub mod bigquery;
pub mod memory;
pub mod sqlite;
