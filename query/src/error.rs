//! What can go wrong with a statement, each with its SQLSTATE and, where known, its place.

use arrow::error::ArrowError;
use datafusion::common::Diagnostic;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::tokenizer::Location;

use crate::dialect::Positions;

/// The result of work on a statement.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The SQLSTATE codes that statements answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SqlState {
    /// 0A000: a form that is not built, or refused in this place.
    FeatureNotSupported,
    /// 0B000: a basis that the server has not reached, or of another store.
    UnreachedBasis,
    /// 21000: a scalar sub-query or key with more than one row.
    CardinalityViolation,
    /// 22003: a number that its type cannot hold.
    NumericOutOfRange,
    /// 22004: NULL where it means nothing.
    NullNotAllowed,
    /// 22008: an instant finer than a microsecond, or a date that does not exist.
    DatetimeOverflow,
    /// 22012: division by zero.
    DivisionByZero,
    /// 22023: inverted or empty bounds, or a wrong option value.
    InvalidParameter,
    /// 22P02: text that is no value of its type.
    InvalidText,
    /// 23502: NULL in a column that is NOT NULL.
    NotNullViolation,
    /// 25006: a write in a read transaction.
    ReadOnlyTransaction,
    /// 25P01: COMMIT or ROLLBACK outside a transaction.
    NoActiveTransaction,
    /// 2BP01: others depend on what is dropped.
    DependentObjects,
    /// 3D000: a tenant that does not exist.
    UnknownTenant,
    /// 40001: a write that lost against others for as long as it may try.
    SerializationFailure,
    /// 42601: text that is no statement.
    SyntaxError,
    /// 42701: a column named twice.
    DuplicateColumn,
    /// 42702: a column name that several tables have.
    AmbiguousColumn,
    /// 42703: a column that does not exist.
    UndefinedColumn,
    /// 42704: a stream, mapping, projection, type or option that does not exist.
    UndefinedObject,
    /// 42710: a stream, mapping or projection that exists already.
    DuplicateObject,
    /// 42712: two tables of one FROM under one name.
    DuplicateAlias,
    /// 42803: a column outside GROUP BY that is in no aggregate.
    GroupingError,
    /// 42804: a value or expression of the wrong type.
    DatatypeMismatch,
    /// 42846: a type that does not hold another's values.
    CannotCoerce,
    /// 42883: a function or operator that does not exist.
    UndefinedFunction,
    /// 42P01: a table that does not exist.
    UndefinedTable,
    /// 42P02: a parameter that was not given.
    UndefinedParameter,
    /// 42P07: a table that exists already.
    DuplicateTable,
    /// 42P10: a column reference that is not allowed where it stands.
    InvalidColumnReference,
    /// 42P17: an index that cannot be.
    InvalidObjectDefinition,
    /// 42P16: a table declaration that contradicts itself.
    InvalidTableDefinition,
    /// 53200: over the memory budget.
    OutOfMemory,
    /// 53100: there is no room on the server's disk.
    DiskFull,
    /// 54000: over a limit on the size of a statement or an answer.
    LimitExceeded,
    /// 54001: a statement nested too deeply or chained too long.
    StatementTooComplex,
    /// 55000: the object is not in a state for this.
    ObjectNotInState,
    /// 57014: cancelled, or past its time limit.
    QueryCanceled,
    /// 57P03: the server is shutting down.
    CannotConnectNow,
    /// 58030: a file of the server's could not be read or written.
    IoError,
    /// P0004: an ASSERT that did not hold.
    AssertFailure,
    /// XX000: a fault of ours.
    Internal,
    /// XX001: stored bytes are damaged.
    DataCorrupted,
}

impl SqlState {
    /// Returns the five characters.
    pub const fn code(self) -> &'static str {
        match self {
            Self::FeatureNotSupported => "0A000",
            Self::UnreachedBasis => "0B000",
            Self::CardinalityViolation => "21000",
            Self::NumericOutOfRange => "22003",
            Self::NullNotAllowed => "22004",
            Self::DatetimeOverflow => "22008",
            Self::DivisionByZero => "22012",
            Self::InvalidParameter => "22023",
            Self::InvalidText => "22P02",
            Self::NotNullViolation => "23502",
            Self::ReadOnlyTransaction => "25006",
            Self::NoActiveTransaction => "25P01",
            Self::DependentObjects => "2BP01",
            Self::UnknownTenant => "3D000",
            Self::SerializationFailure => "40001",
            Self::SyntaxError => "42601",
            Self::DuplicateColumn => "42701",
            Self::AmbiguousColumn => "42702",
            Self::UndefinedColumn => "42703",
            Self::UndefinedObject => "42704",
            Self::DuplicateObject => "42710",
            Self::DuplicateAlias => "42712",
            Self::GroupingError => "42803",
            Self::DatatypeMismatch => "42804",
            Self::CannotCoerce => "42846",
            Self::UndefinedFunction => "42883",
            Self::UndefinedTable => "42P01",
            Self::UndefinedParameter => "42P02",
            Self::DuplicateTable => "42P07",
            Self::InvalidColumnReference => "42P10",
            Self::InvalidTableDefinition => "42P16",
            Self::InvalidObjectDefinition => "42P17",
            Self::DiskFull => "53100",
            Self::OutOfMemory => "53200",
            Self::LimitExceeded => "54000",
            Self::StatementTooComplex => "54001",
            Self::ObjectNotInState => "55000",
            Self::QueryCanceled => "57014",
            Self::CannotConnectNow => "57P03",
            Self::IoError => "58030",
            Self::AssertFailure => "P0004",
            Self::Internal => "XX000",
            Self::DataCorrupted => "XX001",
        }
    }
}

/// A statement's error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The statement is wrong, or refused: change it.
    #[error("{message}")]
    Statement {
        state: SqlState,
        message: String,
        /// 1-based character in the statement's text.
        position: Option<usize>,
        hint: Option<String>,
    },
    /// The store refused or failed.
    #[error(transparent)]
    Storage(#[from] everwhen_storage::Error),
    /// Planning or running failed in a way that no other variant names.
    #[error("{}", plain_text(.0))]
    Engine(DataFusionError),
    /// A column could not be built or cast.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

impl Error {
    /// Builds the error of a wrong statement.
    pub fn new(state: SqlState, message: impl Into<String>) -> Self {
        Self::Statement { state, message: message.into(), position: None, hint: None }
    }

    /// Builds a syntax error.
    pub fn syntax(message: impl Into<String>) -> Self {
        Self::new(SqlState::SyntaxError, message)
    }

    /// Builds the error of a form that is not supported.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(SqlState::FeatureNotSupported, message)
    }

    /// Builds the error of a table that does not exist.
    pub fn unknown_table(name: &str) -> Self {
        Self::new(SqlState::UndefinedTable, format!("table \"{name}\" does not exist"))
    }

    /// Builds the error of a column that does not exist.
    pub fn unknown_column(name: &str) -> Self {
        Self::new(SqlState::UndefinedColumn, format!("column \"{name}\" does not exist"))
    }

    /// Builds the error of a fault of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(SqlState::Internal, message)
    }

    /// Adds the place (1-based character of the statement's text) where none is known yet.
    #[must_use]
    pub fn at(mut self, place: impl Into<Option<usize>>) -> Self {
        if let Self::Statement { position, .. } = &mut self {
            *position = position.or(place.into());
        }
        self
    }

    /// Says within what a statement's error was found: another text than the statement's, so its
    /// place goes.
    #[must_use]
    pub fn within(self, what: &str) -> Self {
        let (state, hint) = (self.state(), self.hint().map(str::to_owned));
        let message = format!("{what}: {self}");
        Self::Statement { state, message, position: None, hint }
    }

    /// Returns the engine's planning error as a wrong statement, with its place where the engine
    /// knows it.
    #[must_use]
    pub fn placed(self, positions: &Positions) -> Self {
        let Self::Engine(error) = &self else { return self };
        let span = diagnostic(error).and_then(|diagnostic| diagnostic.span);
        let position = span.and_then(|span| {
            let (line, column) = (span.start.line, span.start.column);
            positions.character(Location { line, column })
        });
        let state = self.state();
        if state == SqlState::Internal {
            return self;
        }
        Self::Statement { state, message: self.to_string(), position, hint: None }
    }

    /// Adds advice.
    #[must_use]
    pub fn with_hint(mut self, advice: impl Into<String>) -> Self {
        if let Self::Statement { hint, .. } = &mut self {
            *hint = Some(advice.into());
        }
        self
    }

    /// Returns the SQLSTATE.
    pub fn sqlstate(&self) -> &'static str {
        self.state().code()
    }

    /// Returns the kind of error.
    pub fn state(&self) -> SqlState {
        match self {
            Self::Statement { state, .. } => *state,
            Self::Storage(error) => storage_state(error),
            Self::Engine(error) => engine_state(error),
            Self::Arrow(error) => arrow_state(error),
        }
    }

    /// Returns the place in the statement's text: a 1-based character.
    pub fn position(&self) -> Option<usize> {
        match self {
            Self::Statement { position, .. } => *position,
            _ => None,
        }
    }

    /// Returns advice, where there is some.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Statement { hint, .. } => hint.as_deref(),
            _ => None,
        }
    }

    /// True where the statement would have succeeded over other values.
    pub fn is_of_values(&self) -> bool {
        use SqlState::{
            CardinalityViolation, DatetimeOverflow, DivisionByZero, InvalidParameter, InvalidText,
            NullNotAllowed, NumericOutOfRange,
        };
        let of_values = matches!(
            self.state(),
            CardinalityViolation
                | DatetimeOverflow
                | DivisionByZero
                | InvalidParameter
                | InvalidText
                | NullNotAllowed
                | NumericOutOfRange
        );
        // The engine has no kind of its own for types that a kernel lacks.
        let text = self.to_string().to_lowercase();
        let of_forms = ["support", "not implemented", "invalid arithmetic operation"];
        of_values && !of_forms.iter().any(|words| text.contains(words))
    }

    /// True where the same statement may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Storage(error) => error.is_retryable(),
            _ => matches!(
                self.state(),
                SqlState::SerializationFailure
                    | SqlState::UnreachedBasis
                    | SqlState::DiskFull
                    | SqlState::OutOfMemory
                    | SqlState::CannotConnectNow
            ),
        }
    }
}

impl From<DataFusionError> for Error {
    /// Gives back an error of ours that went through the engine.
    fn from(error: DataFusionError) -> Self {
        match error {
            DataFusionError::External(source) => match source.downcast::<Self>() {
                Ok(ours) => *ours,
                Err(source) => Self::Engine(DataFusionError::External(source)),
            },
            DataFusionError::Context(context, inner) => match Self::from(*inner) {
                Self::Engine(inner) => {
                    Self::Engine(DataFusionError::Context(context, Box::new(inner)))
                }
                ours => ours,
            },
            DataFusionError::Diagnostic(diagnostic, inner) => match Self::from(*inner) {
                Self::Engine(inner) => {
                    Self::Engine(DataFusionError::Diagnostic(diagnostic, Box::new(inner)))
                }
                ours => ours,
            },
            DataFusionError::ArrowError(source, trace) => match *source {
                ArrowError::ExternalError(source) if source.is::<Self>() => {
                    Self::from(DataFusionError::External(source))
                }
                ArrowError::IoError(text, source) => match source.downcast::<Self>() {
                    Ok(ours) => ours,
                    Err(source) => {
                        let source = Box::new(ArrowError::IoError(text, source));
                        Self::Engine(DataFusionError::ArrowError(source, trace))
                    }
                },
                source => Self::Engine(DataFusionError::ArrowError(Box::new(source), trace)),
            },
            other => Self::Engine(other),
        }
    }
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        match error {
            Error::Engine(error) => error,
            other => Self::External(Box::new(other)),
        }
    }
}

/// Returns an engine's text without what names its parts, in our form.
fn plain_text(error: &DataFusionError) -> String {
    let text = error.strip_backtrace();
    let plain = [
        "Error during planning: ",
        "Execution error: ",
        "Schema error: ",
        "Arrow error: ",
        "External error: ",
        "This feature is not implemented: ",
        "Optimizer rule failed: ",
    ];
    let mut text = text.trim();
    while let Some(rest) = plain.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        text = rest.trim();
    }
    let text = text.trim_end_matches('.');
    let mut characters = text.chars();
    let second_is_upper = text.chars().nth(1).is_some_and(char::is_uppercase);
    match characters.next() {
        Some(first) if !second_is_upper => first.to_lowercase().chain(characters).collect(),
        _ => text.to_owned(),
    }
}

fn storage_state(error: &everwhen_storage::Error) -> SqlState {
    use everwhen_storage::Error as Storage;
    match error {
        Storage::BadInstant { .. } => SqlState::DatetimeOverflow,
        Storage::EmptyPeriod { .. } | Storage::BadTenant { .. } | Storage::Refused { .. } => {
            SqlState::InvalidParameter
        }
        Storage::ClockNotManual | Storage::ClockBackwards { .. } => SqlState::ObjectNotInState,
        Storage::Unreached { .. } => SqlState::UnreachedBasis,
        Storage::Forgotten { .. } => SqlState::InvalidParameter,
        Storage::Closed => SqlState::CannotConnectNow,
        Storage::DiskFull { .. } => SqlState::DiskFull,
        error if error.is_damage() => SqlState::DataCorrupted,
        error if error.is_io() => SqlState::IoError,
        _ => SqlState::Internal,
    }
}

/// Returns the diagnostic that the planner attached to an error.
fn diagnostic(error: &DataFusionError) -> Option<&Diagnostic> {
    match error {
        DataFusionError::Diagnostic(diagnostic, _) => Some(diagnostic),
        DataFusionError::Context(_, inner) => diagnostic(inner),
        _ => None,
    }
}

fn engine_state(error: &DataFusionError) -> SqlState {
    use datafusion::common::SchemaError;
    match error.find_root() {
        DataFusionError::NotImplemented(_) => SqlState::FeatureNotSupported,
        DataFusionError::ResourcesExhausted(_) => SqlState::OutOfMemory,
        DataFusionError::SQL(..) => SqlState::SyntaxError,
        DataFusionError::SchemaError(error, _) => match error.as_ref() {
            SchemaError::AmbiguousReference { .. } => SqlState::AmbiguousColumn,
            SchemaError::FieldNotFound { .. } => SqlState::UndefinedColumn,
            _ => SqlState::DuplicateColumn,
        },
        // The planner tells unknown functions from wrong types by its text alone.
        DataFusionError::Plan(text) if text.starts_with("Invalid function") => {
            SqlState::UndefinedFunction
        }
        DataFusionError::Plan(_) => SqlState::DatatypeMismatch,
        DataFusionError::ArrowError(error, _) => arrow_state(error),
        DataFusionError::External(source) => {
            let of_regex =
                || is_of_regex(&source.to_string()).then_some(SqlState::InvalidParameter);
            let ours = source.downcast_ref::<Error>().map(Error::state);
            ours.or_else(of_regex).unwrap_or(SqlState::Internal)
        }
        DataFusionError::Execution(_) => SqlState::InvalidParameter,
        _ => SqlState::Internal,
    }
}

/// True for what the engine says of a regular expression that is none; it has no kind of its own.
fn is_of_regex(text: &str) -> bool {
    let text = text.to_lowercase();
    ["regex parse error", "regular expression did not compile", "compiled regex exceeds"]
        .iter()
        .any(|start| text.starts_with(start))
}

fn arrow_state(error: &ArrowError) -> SqlState {
    match error {
        ArrowError::ComputeError(text) if is_of_regex(text) => SqlState::InvalidParameter,
        ArrowError::ComputeError(text) if text == "Timestamp out of range" => {
            SqlState::DatetimeOverflow
        }
        ArrowError::InvalidArgumentError(text) if text.starts_with("Unable to represent") => {
            SqlState::DatetimeOverflow
        }
        ArrowError::ExternalError(source) if is_of_regex(&source.to_string()) => {
            SqlState::InvalidParameter
        }
        ArrowError::DivideByZero => SqlState::DivisionByZero,
        ArrowError::ArithmeticOverflow(_) => SqlState::NumericOutOfRange,
        ArrowError::CastError(_) | ArrowError::ParseError(_) => SqlState::InvalidText,
        ArrowError::NotYetImplemented(_) => SqlState::FeatureNotSupported,
        _ => SqlState::Internal,
    }
}
