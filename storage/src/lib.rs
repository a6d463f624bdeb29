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
pub mod civil;
pub mod clock;
pub mod definitions;
mod disk;
mod engine;
mod erase;
mod error;
mod event_ids;
mod failpoint;
mod families;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod histories;
mod index;
mod index_fill;
mod journal;
mod key;
pub mod load;
mod meta;
pub mod metrics;
mod retention;
mod row;
mod scan;
pub mod schema;
mod sizes;
mod skew;
pub mod snapshot;
pub mod sort;
mod source;
mod standing;
mod state;
pub mod store;
#[cfg(test)]
mod testing;
mod tidy;
pub mod time;
mod timeline;
mod tuning;
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
pub use erase::{EraseProgress, Erasure, ErasureState};
pub use error::{Error, Result};
pub use failpoint::WRITE_PATH as FAILPOINTS;
pub use load::{Load, LoadProgress, LoadRow, LoadRows};
pub use retention::{Hold, Needed, Swept};
pub use scan::range::KeyRange;
pub use schema::{
    ColumnDef, ColumnId, ColumnType, IndexId, Precedence, RowKey, TableDef, TableId, Tenant,
};
pub use source::{LastRecord, SourceFault, SourceLog, SourcePlace, SourceStop};
pub use standing::Standing;
pub use store::{
    JournalEntry, Options, ReplayDetail, SegmentEnd, SegmentHead, SegmentPart, SegmentReader,
    Store, Turn, segment_name, segments,
};
pub use time::{Period, SystemTime, ValidTime};
pub use tuning::Tuning;
pub use tx::{Basis, TxId};
pub use uuid::Uuid;
pub use value::{Row, Value, ValueRef};
pub use view::{
    KeyChange, Keys, Scan, ScanCounts, SystemBound, ValidBound, Version, VersionRef, View,
};
