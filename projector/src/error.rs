//! What can go wrong with a projection, grouped by what a caller can do about it.

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;

/// The result of work on a projection.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A projection's error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The query, its key or an option cannot be kept up to date: change the statement.
    #[error("{reason}")]
    Refused {
        /// What is refused, and why.
        reason: String,
        /// What to write instead.
        hint: Option<String>,
    },
    /// There is no projection of that name.
    #[error("projection \"{name}\" does not exist")]
    Unknown {
        /// The name asked for.
        name: String,
    },
    /// There is a projection of that name already.
    #[error("projection \"{name}\" exists already")]
    Exists {
        /// The name asked for.
        name: String,
    },
    /// Another projection writes the sink's table: name another table.
    #[error("projection \"{projection}\" already writes table \"{table}\" of the sink")]
    TableTaken {
        /// The table asked for.
        table: String,
        /// The projection that has it.
        projection: String,
        /// What to write instead.
        hint: String,
    },
    /// The lease was given to another worker, ran out, or is of an older generation: lease again.
    #[error("lease {lease} on projection \"{projection}\" is no longer held")]
    LeaseLost {
        /// The projection.
        projection: String,
        /// The lease that was shown.
        lease: u64,
    },
    /// The text of a query is wrong, or it cannot be planned or run.
    #[error(transparent)]
    Query(#[from] everwhen_query::Error),
    /// The store refused or failed.
    #[error(transparent)]
    Storage(#[from] everwhen_storage::Error),
    /// An expression failed on a row.
    #[error("evaluating an expression of the projection: {source}")]
    Evaluate {
        /// What the expression engine says.
        source: Box<DataFusionError>,
    },
    /// Rows that must be in memory together do not fit: raise the limit, or keep fewer together.
    #[error(
        "not enough memory for {what}: projections may use {bytes_max} bytes \
         (projection_memory_bytes_max)"
    )]
    TooLarge {
        /// Which rows.
        what: String,
        /// The limit, in bytes.
        bytes_max: usize,
    },
    /// Durable state of a projection cannot be read.
    #[error("stored state of projection \"{projection}\" is damaged: {why}")]
    Corrupt {
        /// The projection.
        projection: String,
        /// What does not fit.
        why: String,
    },
    /// A rule of the computation itself does not hold: a fault of ours.
    #[error("projection rule broken: {what}")]
    Internal {
        /// The rule.
        what: String,
    },
}

impl Error {
    /// Builds the refusal of a query form.
    pub fn refused(reason: impl Into<String>) -> Self {
        Self::Refused { reason: reason.into(), hint: None }
    }

    /// Builds a refusal with advice.
    pub fn refused_with(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused { reason: reason.into(), hint: Some(hint.into()) }
    }

    /// Builds the error of a fault of ours.
    pub fn internal(what: impl Into<String>) -> Self {
        Self::Internal { what: what.into() }
    }

    /// Returns the SQLSTATE that fits.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "0A000",
            Self::Unknown { .. } => "42704",
            Self::Exists { .. } | Self::TableTaken { .. } => "42710",
            Self::LeaseLost { .. } => "55000",
            Self::Query(error) => error.sqlstate(),
            Self::Storage(everwhen_storage::Error::DiskFull { .. }) => "53100",
            Self::Storage(_) | Self::Corrupt { .. } | Self::Internal { .. } => "XX000",
            Self::Evaluate { .. } => "22000",
            Self::TooLarge { .. } => "53200",
        }
    }

    /// Returns advice, where there is some.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Refused { hint, .. } => hint.as_deref(),
            Self::TableTaken { hint, .. } => Some(hint),
            Self::Query(error) => error.hint(),
            _ => None,
        }
    }

    /// Returns the place in the query's text: a 1-based character.
    pub fn position(&self) -> Option<usize> {
        match self {
            Self::Query(error) => error.position(),
            _ => None,
        }
    }

    /// True where the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::LeaseLost { .. } | Self::TooLarge { .. } => true,
            Self::Query(error) => error.is_retryable(),
            Self::Storage(error) => error.is_retryable(),
            _ => false,
        }
    }
}

impl From<DataFusionError> for Error {
    fn from(source: DataFusionError) -> Self {
        Self::Evaluate { source: Box::new(source) }
    }
}

impl From<ArrowError> for Error {
    fn from(source: ArrowError) -> Self {
        Self::Evaluate { source: Box::new(DataFusionError::ArrowError(Box::new(source), None)) }
    }
}
