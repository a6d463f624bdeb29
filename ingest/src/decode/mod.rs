//! Raw records to typed columns: one file per format, and what they share.

pub mod cells;
pub mod json;
pub mod text;
