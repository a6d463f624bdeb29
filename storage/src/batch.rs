//! What is handed to the writer, and what it answers.

use serde::{Deserialize, Serialize};

use crate::assertion::{Assertion, EventId};
use crate::definitions::DefinitionChange;
use crate::schema::{RowKey, TableId, Tenant};
use crate::source::SourceLog;
use crate::time::SystemTime;
use crate::tx::TxId;

/// Work for one atomic commit: transactions in order, and what must become durable with them.
///
/// Every value must already be of its column's type, every stated period non-empty and every table
/// exist: the writer checks and refuses the whole batch otherwise, as a mistake of its caller.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Applied by the first transaction; a batch with definitions and no `txs` spends one.
    pub definitions: Vec<DefinitionChange>,
    pub txs: Vec<Tx>,
    pub sources: Vec<SourceAdvance>,
    pub dead_letters: Vec<DeadLetter>,
    pub origin: Origin,
    /// The transaction of the definitions that records were mapped under, for the journal: a
    /// replay maps them under the same ones.
    pub mapped_at: TxId,
    /// System time of the first transaction, for the import of a history: later than the last
    /// transaction's (an equal one becomes the next microsecond), not later than the clock.
    pub system_time: Option<SystemTime>,
}

/// One transaction: one record, event or client write.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tx {
    pub writes: Vec<Write>,
    /// Where the record stood in its source.
    pub position: Option<SourcePosition>,
}

/// One statement of a transaction about one table.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    pub tenant: Tenant,
    pub table: TableId,
    pub kind: WriteKind,
}

/// What a [`Write`] does.
#[derive(Debug, Clone, PartialEq)]
pub enum WriteKind {
    /// Asserts something about a key. All assertions of one transaction under one event id are one
    /// set, replaced as a whole; `content_hash` must then be the same in all of them.
    Assert { key: RowKey, assertion: Assertion, event: Option<Event> },
    /// Takes back what an event id says now.
    Retract { event_id: EventId },
    /// Erases a key at all times. A batch with it holds nothing but erasures, by a client.
    Erase { key: RowKey },
    /// An erasure in a journal that has forgotten the key itself: [`crate::Store::replay`] finds
    /// the key with this hash under this secret. Refused everywhere else.
    EraseHashed { secret: [u8; 16], hash: u128 },
}

impl Batch {
    /// True where the batch erases keys.
    pub(crate) fn erases(&self) -> bool {
        let mut writes = self.txs.iter().flat_map(|tx| &tx.writes);
        writes.any(|write| matches!(write.kind, WriteKind::Erase { .. }))
    }

    /// True where the batch shares its commit with no other.
    pub(crate) fn stands_alone(&self) -> bool {
        !self.definitions.is_empty() || self.system_time.is_some() || self.erases()
    }
}

/// The identity and content of the event behind an assertion (EFFECTIVE tables).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: EventId,
    /// Over verb, key, fields and the times that a mapping names, of all the event's assertions.
    pub content_hash: u128,
}

/// A place in a Kafka topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SourcePosition {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

/// The next offset to read of a partition, made durable with the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceAdvance {
    pub stream: String,
    pub topic: String,
    pub partition: i32,
    pub next_offset: i64,
    /// What the log that was read is known by.
    pub log: SourceLog,
}

/// A record that could not be processed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Given by the writer, from 1; what the sender sets is ignored.
    pub id: u64,
    pub tenant: String,
    pub stream: String,
    pub topic: Option<String>,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
    pub reason: String,
    /// Raw bytes, at most the first 64 KiB.
    pub value: Vec<u8>,
    /// The record's whole size in bytes.
    pub size: u64,
    /// System time in microseconds; given by the writer.
    pub at: i64,
}

/// Who a batch came from, for the journal.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Origin {
    /// A client's write or definition.
    #[default]
    Client,
    /// Events posted to a stream.
    Events { stream: String },
    /// Records of a Kafka topic.
    Kafka { stream: String },
    /// History loaded with its own system times.
    Import,
}

/// What became of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxOutcome {
    Applied(TxId),
    /// Its event id already says the same: no transaction spent.
    Duplicate,
    /// Its order is below that of its event id: dropped, no transaction spent.
    Stale,
    /// It says of erased keys alone what held before they were erased: dropped, no transaction
    /// spent.
    Erased,
}

/// The answer to a batch that is durable.
#[derive(Debug, Clone)]
pub struct Committed {
    /// One for each of the batch's `txs`, in order.
    pub outcomes: Vec<TxOutcome>,
    /// The last transaction of the store once the batch is in.
    pub last_tx: TxId,
    /// The system time of `last_tx`.
    pub system_time: SystemTime,
}
