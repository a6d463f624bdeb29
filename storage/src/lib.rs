//! The bitemporal store: every byte on disk, both time axes, one writer.
//!
//! It knows no SQL and no Arrow batches; column types map to Arrow's `DataType` in [`schema`].
//! Read next: [`assertion`] (what an event says), [`timeline`] (what follows from it, pure),
//! [`writer`] (the only place that gives out tx ids and system times), [`view`] (reads at a tx).

pub mod assertion;
mod assertions;
pub mod batch;
mod boundaries;
mod changes;
pub mod clock;
pub mod definitions;
mod disk;
mod engine;
mod error;
mod event_ids;
mod failpoint;
mod families;
mod index;
mod index_fill;
mod journal;
mod key;
mod meta;
mod row;
mod scan;
pub mod schema;
pub mod snapshot;
mod state;
pub mod store;
#[cfg(test)]
mod testing;
pub mod time;
mod timeline;
pub mod tx;
pub mod value;
pub mod verify;
pub mod view;
mod writer;

pub use assertion::{AssertedFrom, Assertion, EventId, Op};
pub use batch::{
    Batch, Committed, DeadLetter, Event, Origin, SourceAdvance, SourcePosition, Tx, TxOutcome,
    Write, WriteKind,
};
pub use clock::{Clock, ManualClock, RealClock};
pub use definitions::{Definition, DefinitionChange, DefinitionKind, Definitions, IndexDef};
pub use error::{Error, Result};
pub use schema::{
    ColumnDef, ColumnId, ColumnType, IndexId, Precedence, RowKey, TableDef, TableId, Tenant,
};
pub use store::{JournalEntry, Options, Store, Turn};
pub use time::{Period, SystemTime, ValidTime};
pub use tx::{Basis, TxId};
pub use value::{Row, Value};
pub use view::{KeyChange, Keys, Scan, SystemBound, ValidBound, Version, View};
