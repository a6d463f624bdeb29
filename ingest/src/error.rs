//! What can go wrong between a source's records and the store.

/// The result of an ingest operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An ingest error. A record that cannot be processed is none: it becomes a dead letter.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A definition is wrong or refused: change the statement.
    #[error(transparent)]
    Statement(#[from] everwhen_query::Error),
    /// The store refused or failed.
    #[error(transparent)]
    Storage(#[from] everwhen_storage::Error),
    /// Events were posted to a stream that is not defined.
    #[error("stream \"{stream}\" does not exist")]
    UnknownStream { stream: String },
    /// Events were posted to a stream that nothing reads.
    #[error("stream \"{stream}\" has no mapping, so its events would be lost")]
    NoMapping { stream: String },
    /// Records were on their way when their stream was reset, replaced or dropped: they are read
    /// again if they are still wanted.
    #[error("stream \"{stream}\" has begun anew since the records were read")]
    Moved { stream: String },
    /// The journal cannot be followed: put right what it names, then go on.
    #[error("the replay stands at transaction {last}: {why}")]
    Replay { last: everwhen_storage::TxId, why: String },
    /// A file of history cannot be loaded as it is.
    #[error("file {path}: {why}")]
    File { path: String, why: String },
    /// Too many events are on their way already: send again later.
    #[error("too many events are being written")]
    Busy,
    /// The server is shutting down: send to another one, or later.
    #[error("ingest is shutting down")]
    Stopped,
}

impl Error {
    /// Returns the SQLSTATE.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::Statement(error) => error.sqlstate(),
            Self::Storage(everwhen_storage::Error::Closed) | Self::Stopped => "57P03",
            Self::Storage(everwhen_storage::Error::Refused { .. }) => "22023",
            Self::Storage(everwhen_storage::Error::DiskFull { .. }) => "53100",
            Self::Storage(error) if error.is_damage() => "XX001",
            Self::Storage(error) if error.is_io() => "58030",
            Self::Storage(_) => "XX000",
            Self::UnknownStream { .. } => "42704",
            Self::NoMapping { .. } | Self::Moved { .. } | Self::Replay { .. } => "55000",
            Self::File { .. } => "22023",
            Self::Busy => "53300",
        }
    }

    /// Returns the place in the statement's text: a 1-based character.
    pub fn position(&self) -> Option<usize> {
        match self {
            Self::Statement(error) => error.position(),
            _ => None,
        }
    }

    /// Returns advice, where there is some.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Statement(error) => error.hint(),
            Self::NoMapping { .. } => Some("CREATE MAPPING .. ON the stream first"),
            _ => None,
        }
    }

    /// True where the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Statement(error) => error.is_retryable(),
            Self::Storage(error) => error.is_retryable(),
            Self::Busy | Self::Moved { .. } | Self::Stopped => true,
            Self::UnknownStream { .. }
            | Self::NoMapping { .. }
            | Self::Replay { .. }
            | Self::File { .. } => false,
        }
    }
}
