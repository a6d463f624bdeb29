//! What can go wrong in the store, grouped by what a caller can do about it.

/// The result of a storage operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A storage error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("\"{text}\" is no instant: {why}")]
    BadInstant { text: String, why: String },
    #[error("valid period is empty: {from} is not before {to}")]
    EmptyPeriod { from: String, to: String },
    #[error("tenant name \"{name}\" is not of the form [a-z0-9_-]{{1,63}}")]
    BadTenant { name: String },
    #[error("the server's clock is the real one and cannot be set")]
    ClockNotManual,
    #[error("the clock stands at {clock_micros} us and cannot go back to {asked_micros} us")]
    ClockBackwards { clock_micros: i64, asked_micros: i64 },
    /// The caller handed over something the contract of [`crate::Batch`] excludes.
    #[error("write refused: {reason}")]
    Refused { reason: String },
    /// Another process has the directory open.
    #[error("data directory {path} is in use by another process")]
    InUse { path: String },
    /// The directory is from another format or kind of program.
    #[error("data directory {path} has format {found}, this program reads {known}")]
    Format { path: String, found: String, known: u32 },
    #[error("stored bytes of {what} are damaged: {why}")]
    Corrupt { what: &'static str, why: String },
    /// A snapshot, or a place to take or restore one, cannot be used as asked: choose another, or
    /// do what the text says.
    #[error("{place}: {why}")]
    Snapshot { place: String, why: String },
    /// Whoever asked for long work wants it no more.
    #[error("stopped on request")]
    Stopped,
    /// A basis later than the store.
    #[error("transaction {asked} has not been reached, the store is at {latest}")]
    Unreached { asked: u64, latest: u64 },
    #[error("the store is shutting down")]
    Closed,
    #[error("storage engine: {source}")]
    Engine {
        #[from]
        source: rocksdb::Error,
    },
    #[error("file {path}: {source}")]
    Io { path: String, source: std::io::Error },
}

impl Error {
    /// True where the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreached { .. })
    }
}
