//! What DataFusion reports, as an error of the statement: SQLSTATE, place and plain words.

use arrow::error::ArrowError;
use datafusion::common::{Location as DataFusionLocation, SchemaError};
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::tokenizer::Location;

use crate::dialect::Positions;
use crate::error::{Error, Result, SqlState};
use crate::rewrite::without_marks;

/// Adds what a statement's text tells to the errors of its planning and running.
pub trait Diagnose<T> {
    /// Turns the error into one of the statement, with its place where one is known.
    ///
    /// # Errors
    /// The same, in other words.
    fn diagnosed(self, positions: &Positions) -> Result<T>;
}

impl<T, E: Into<Error>> Diagnose<T> for std::result::Result<T, E> {
    fn diagnosed(self, positions: &Positions) -> Result<T> {
        self.map_err(|error| diagnose(error.into(), positions))
    }
}

/// Turns an error into one of the statement.
pub fn diagnose(error: Error, positions: &Positions) -> Error {
    let error = match error {
        Error::Engine(error) => match ours(error) {
            Ok(error) => return error,
            Err(error) => error,
        },
        Error::Arrow(error) => DataFusionError::from(error),
        other => return other,
    };
    let place = place_of(&error, positions);
    let (state, message) = describe(error.find_root());
    let state = state.unwrap_or_else(|| Error::Engine(error).state());
    Error::new(state, message).at(place)
}

/// Takes our own error out of what carried it through DataFusion.
fn ours(error: DataFusionError) -> std::result::Result<Error, DataFusionError> {
    match error {
        DataFusionError::External(source) => match source.downcast::<Error>() {
            Ok(error) => Ok(*error),
            Err(source) => Err(DataFusionError::External(source)),
        },
        DataFusionError::Context(context, inner) => {
            ours(*inner).map_err(|inner| DataFusionError::Context(context, Box::new(inner)))
        }
        DataFusionError::Diagnostic(diagnostic, inner) => {
            ours(*inner).map_err(|inner| DataFusionError::Diagnostic(diagnostic, Box::new(inner)))
        }
        DataFusionError::ArrowError(arrow, trace) => match *arrow {
            ArrowError::ExternalError(source) => match source.downcast::<DataFusionError>() {
                Ok(error) => ours(*error),
                Err(source) => match source.downcast::<Error>() {
                    Ok(error) => Ok(*error),
                    Err(source) => Err(DataFusionError::External(source)),
                },
            },
            arrow => Err(DataFusionError::ArrowError(Box::new(arrow), trace)),
        },
        other => Err(other),
    }
}

fn place_of(error: &DataFusionError, positions: &Positions) -> Option<usize> {
    let character =
        |at: DataFusionLocation| positions.character(Location { line: at.line, column: at.column });
    if let Some(span) = error.diagnostic().and_then(|diagnostic| diagnostic.span) {
        return character(span.start);
    }
    match error.find_root() {
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { field, .. }
            | SchemaError::AmbiguousReference { field } => {
                field.spans.first().and_then(|span| character(span.start))
            }
            _ => None,
        },
        _ => None,
    }
}

/// Returns the words of a root error, and its state where the words alone tell it.
fn describe(error: &DataFusionError) -> (Option<SqlState>, String) {
    match error {
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { field, .. } => {
                let name = shown(&field.flat_name());
                (Some(SqlState::UndefinedColumn), format!("column \"{name}\" does not exist"))
            }
            SchemaError::AmbiguousReference { field } => {
                let message = format!("column \"{}\" is of several tables", shown(&field.name));
                (Some(SqlState::AmbiguousColumn), message)
            }
            other => (None, first_line(&other.to_string())),
        },
        DataFusionError::Plan(message) => (plan_state(message), first_line(message)),
        DataFusionError::ArrowError(arrow, _) => (arrow_state(arrow), arrow_message(arrow)),
        DataFusionError::Execution(message) => (execution_state(message), first_line(message)),
        other => (None, first_line(&other.message())),
    }
}

/// DataFusion tells these apart by their words alone.
fn plan_state(message: &str) -> Option<SqlState> {
    if message.starts_with("Invalid function") {
        Some(SqlState::UndefinedFunction)
    } else if message.starts_with("table '") && message.contains("not found") {
        Some(SqlState::UndefinedTable)
    } else if message.contains("must appear in the GROUP BY clause")
        || message.contains("must be in GROUP BY")
    {
        Some(SqlState::GroupingError)
    } else if message.starts_with("Unsupported") || message.contains("not supported") {
        Some(SqlState::FeatureNotSupported)
    } else if message.starts_with("Projections require unique expression names") {
        Some(SqlState::DuplicateColumn)
    } else {
        None
    }
}

fn execution_state(message: &str) -> Option<SqlState> {
    let state = SqlState::CardinalityViolation;
    message.to_ascii_lowercase().starts_with("scalar subquery returned more than").then_some(state)
}

fn arrow_state(error: &ArrowError) -> Option<SqlState> {
    match error {
        ArrowError::ParseError(text) | ArrowError::CastError(text)
            if text.contains("parsing timestamp") || text.contains("Date32") =>
        {
            Some(instant_state(text))
        }
        ArrowError::CastError(text) if text.contains("out of range") => {
            Some(SqlState::NumericOutOfRange)
        }
        _ => None,
    }
}

/// Tells a text that looks like an instant but is none that exists from any other text.
fn instant_state(message: &str) -> SqlState {
    let quoted = message.split_once('\'').map_or("", |(_, quoted)| quoted);
    match quoted.bytes().take_while(u8::is_ascii_digit).count() {
        4 => SqlState::DatetimeOverflow,
        _ => SqlState::InvalidText,
    }
}

fn arrow_message(error: &ArrowError) -> String {
    match error {
        ArrowError::DivideByZero => "division by zero".to_owned(),
        ArrowError::ParseError(text)
        | ArrowError::CastError(text)
        | ArrowError::ComputeError(text)
        | ArrowError::InvalidArgumentError(text)
        | ArrowError::ArithmeticOverflow(text) => first_line(text),
        other => first_line(&other.to_string()),
    }
}

/// Cuts what helps only those who read DataFusion's source, and the marks of our unique names.
fn first_line(message: &str) -> String {
    let line = message.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or(message);
    let line = line.lines().next().unwrap_or("the statement failed").trim_end_matches('.');
    let mut letters = line.chars();
    let head = match letters.next() {
        Some(first) if letters.clone().next().is_some_and(char::is_lowercase) => {
            format!("{}{}", first.to_lowercase(), letters.as_str())
        }
        _ => line.to_owned(),
    };
    shown(&head)
}

/// Replaces the unique names of table references (`visits#2`) by the tables' names.
pub fn shown(text: &str) -> String {
    let text = without_marks(text);
    let mut out = String::with_capacity(text.len());
    let mut parts = text.split('#');
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            out.push('#');
        }
        out.push_str(&part[digits..]);
    }
    out.replace('"', "")
}
