//! What a commit answers, whoever made it.

use arrow::array::RecordBatch;
use everwhen_query::WriteAnswer;
use everwhen_query::basis_token;
use everwhen_storage::{Basis, Committed, Store, SystemTime, TxId, ValidTime};

/// The answer to a write or a definition: its place, and how to read its effects.
#[derive(Debug, Clone)]
pub struct Written {
    pub tx: TxId,
    pub system_time: SystemTime,
    /// Reads the write's own effects, with now = its system time.
    pub basis: String,
    /// The rows written, each key once a statement.
    pub rows: u64,
    /// The same of each statement.
    pub statement_rows: Vec<u64>,
    /// Rows of a `RETURNING`.
    pub returning: Option<Vec<RecordBatch>>,
    /// What whoever wrote it should know; it was done all the same.
    pub warnings: Vec<String>,
}

impl From<WriteAnswer> for Written {
    fn from(answer: WriteAnswer) -> Self {
        Self {
            tx: answer.tx,
            system_time: answer.system_time,
            basis: answer.basis,
            rows: answer.rows,
            statement_rows: answer.statement_rows,
            returning: answer.returning,
            warnings: Vec::new(),
        }
    }
}

impl Written {
    /// Builds the answer of a batch that is durable.
    pub fn of_commit(store: &Store, committed: &Committed) -> Self {
        Self::at(store, committed.last_tx, committed.system_time)
    }

    /// Builds the answer of something that changed nothing: where the store stands.
    pub fn unchanged(store: &Store) -> Self {
        let latest = store.latest();
        let system_time = store
            .system_time(latest.tx)
            .unwrap_or_else(|_| SystemTime::from_micros(latest.now.micros()));
        Self::at(store, latest.tx, system_time)
    }

    fn at(store: &Store, tx: TxId, system_time: SystemTime) -> Self {
        let now = ValidTime::from_micros(system_time.micros());
        let basis = basis_token(store, Basis { tx, now });
        Self {
            tx,
            system_time,
            basis,
            rows: 0,
            statement_rows: Vec::new(),
            returning: None,
            warnings: Vec::new(),
        }
    }
}
