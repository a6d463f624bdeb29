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
    /// A file of the journal that cannot be read, or is of another store.
    #[error("journal segment {path}: {why}")]
    Segment { path: String, why: String },
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
    /// What was believed then is no longer kept.
    #[error(
        "the history of table \"{table}\" is kept from transaction {oldest_tx} ({oldest}) on, \
         {asked} lies before"
    )]
    Forgotten { table: String, asked: u64, oldest_tx: u64, oldest: String },
    #[error("the store is shutting down")]
    Closed,
    /// There is no room for what is to be written: nothing of it is durable, reads go on.
    #[error("the disk is full: {why}")]
    DiskFull { why: String },
    /// A write or a sync has failed: what was not answered may be durable or not, and nothing more
    /// is written until the store is opened again.
    #[error("the store takes no more writes: {why}")]
    Failed { why: String },
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
        matches!(self, Self::Unreached { .. } | Self::DiskFull { .. })
    }

    /// True where a file could not be read or written.
    pub fn is_io(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Failed { .. } => true,
            Self::Engine { source } => source.kind() == rocksdb::ErrorKind::IOError,
            _ => false,
        }
    }

    /// True where stored bytes are not what was written.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Corrupt { .. } => true,
            Self::Engine { source } => source.kind() == rocksdb::ErrorKind::Corruption,
            _ => false,
        }
    }
}
