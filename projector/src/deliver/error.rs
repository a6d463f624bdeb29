//! What can go wrong between the server's changes and the sink's rows.

/// A row that a sink does not accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRow {
    /// The number of the change.
    pub change: u64,
    /// Why, in the sink's words.
    pub reason: String,
}

/// The error of delivery.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot work; the process ends.
    #[error("configuration of {what}: {detail}")]
    Config {
        /// The setting or sink.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A newer lease, generation or another database owns the sink's table; this lease is over.
    #[error("fenced at the sink of projection \"{projection}\": {detail}")]
    Fenced {
        /// The projection.
        projection: String,
        /// Who owns the table now.
        detail: String,
    },
    /// The sink does not stand where the chunk begins: an earlier chunk is missing in it.
    #[error(
        "the sink of projection \"{projection}\" is at change {at}, the chunk begins at {first}"
    )]
    OutOfOrder {
        /// The projection.
        projection: String,
        /// The last change the sink has.
        at: u64,
        /// The first change of the chunk.
        first: u64,
    },
    /// The sink refuses for a reason that waiting alone does not cure; retried slowly.
    #[error("sink \"{sink}\" refuses ({code}): {detail}")]
    Refused {
        /// The sink.
        sink: String,
        /// The sink's own code.
        code: String,
        /// The sink's own words.
        detail: String,
    },
    /// The sink refuses rows because of their values, and wrote nothing of the step. Only for what the
    /// sink itself says about a row: never for a table, an account, a lock or a full disk.
    #[error("the sink refuses rows of projection \"{projection}\": {detail}")]
    Rows {
        /// The projection.
        projection: String,
        /// The rows, if the sink can name them; empty if it only knows that there are some.
        rows: Vec<RefusedRow>,
        /// The sink's words about the first of them.
        detail: String,
    },
    /// The sink cannot be reached or is overloaded; retried with backoff.
    #[error("sink \"{sink}\" is unavailable ({code}): {detail}")]
    Unavailable {
        /// The sink.
        sink: String,
        /// The sink's own code.
        code: String,
        /// The sink's own words.
        detail: String,
    },
    /// A row from the server does not have the form its column types promise.
    #[error("column \"{column}\" of type {kind}: {detail}")]
    Value {
        /// The column.
        column: String,
        /// Its type in the contract's words.
        kind: String,
        /// What is wrong with the value.
        detail: String,
    },
    /// The server answered a call with an error.
    #[error("server: {}", .0.message())]
    Server(#[from] Box<tonic::Status>),
    /// The server's address cannot be used.
    #[error("server address")]
    Address(#[from] tonic::transport::Error),
}

impl Error {
    /// Says whether trying the same again soon may work.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::Server(status) => matches!(
                status.code(),
                tonic::Code::Unavailable
                    | tonic::Code::DeadlineExceeded
                    | tonic::Code::ResourceExhausted
                    | tonic::Code::Unknown
                    | tonic::Code::Cancelled
            ),
            _ => false,
        }
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        Self::Server(Box::new(status))
    }
}

/// The result of delivery.
pub type Result<T, E = Error> = std::result::Result<T, E>;
