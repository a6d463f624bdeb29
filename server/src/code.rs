//! Neutral error codes, with what each is called in HTTP, gRPC and SQL, side by side.
//!
//! The only place that knows how an error is numbered on any protocol.

use tonic::Code as Grpc;

/// What went wrong, as a client should understand it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    InvalidRequest,
    Syntax,
    UndefinedTable,
    UndefinedColumn,
    UndefinedFunction,
    UndefinedObject,
    Duplicate,
    InvalidStatement,
    TypeMismatch,
    InvalidValue,
    InvalidInstant,
    ConstraintViolation,
    AssertionFailed,
    NotSupported,
    ReadOnly,
    InvalidTransaction,
    UnknownTenant,
    Unreached,
    Conflict,
    WrongState,
    Cancelled,
    OverLimit,
    BodyTooLarge,
    Busy,
    DiskFull,
    OutOfResources,
    Unavailable,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    UnsupportedEncoding,
    IoFailed,
    Corrupt,
    Internal,
}

/// One line of the table.
#[derive(Debug)]
pub struct Entry {
    pub code: Code,
    /// Stable name, the `code` of a problem document.
    pub name: &'static str,
    /// HTTP status.
    pub http: u16,
    pub grpc: Grpc,
    /// The SQLSTATE given where the error has none of its own.
    pub sqlstate: &'static str,
}

const fn entry(
    code: Code,
    name: &'static str,
    http: u16,
    grpc: Grpc,
    sqlstate: &'static str,
) -> Entry {
    Entry { code, name, http, grpc, sqlstate }
}

/// Every code once.
pub const TABLE: &[Entry] = &[
    entry(Code::InvalidRequest, "invalid_request", 400, Grpc::InvalidArgument, "08P01"),
    entry(Code::Syntax, "syntax_error", 400, Grpc::InvalidArgument, "42601"),
    entry(Code::UndefinedTable, "undefined_table", 400, Grpc::NotFound, "42P01"),
    entry(Code::UndefinedColumn, "undefined_column", 400, Grpc::InvalidArgument, "42703"),
    entry(Code::UndefinedFunction, "undefined_function", 400, Grpc::InvalidArgument, "42883"),
    entry(Code::UndefinedObject, "undefined_object", 400, Grpc::NotFound, "42704"),
    entry(Code::Duplicate, "already_exists", 409, Grpc::AlreadyExists, "42710"),
    entry(Code::InvalidStatement, "invalid_statement", 400, Grpc::InvalidArgument, "42000"),
    entry(Code::TypeMismatch, "type_mismatch", 400, Grpc::InvalidArgument, "42804"),
    entry(Code::InvalidValue, "invalid_value", 400, Grpc::InvalidArgument, "22023"),
    entry(Code::InvalidInstant, "invalid_instant", 400, Grpc::InvalidArgument, "22008"),
    entry(
        Code::ConstraintViolation,
        "constraint_violation",
        400,
        Grpc::FailedPrecondition,
        "23000",
    ),
    entry(Code::AssertionFailed, "assertion_failed", 409, Grpc::FailedPrecondition, "P0004"),
    entry(Code::NotSupported, "not_supported", 400, Grpc::Unimplemented, "0A000"),
    entry(Code::ReadOnly, "read_only_transaction", 400, Grpc::FailedPrecondition, "25006"),
    entry(Code::InvalidTransaction, "invalid_transaction", 400, Grpc::FailedPrecondition, "25000"),
    entry(Code::UnknownTenant, "unknown_tenant", 404, Grpc::NotFound, "3D000"),
    entry(Code::Unreached, "basis_not_reached", 409, Grpc::FailedPrecondition, "0B000"),
    entry(Code::Conflict, "conflict", 409, Grpc::Aborted, "40001"),
    entry(Code::WrongState, "wrong_state", 409, Grpc::FailedPrecondition, "55000"),
    entry(Code::Cancelled, "cancelled", 504, Grpc::DeadlineExceeded, "57014"),
    entry(Code::OverLimit, "over_limit", 400, Grpc::ResourceExhausted, "54000"),
    entry(Code::BodyTooLarge, "body_too_large", 413, Grpc::ResourceExhausted, "54000"),
    entry(Code::Busy, "too_many_requests", 429, Grpc::ResourceExhausted, "53300"),
    entry(Code::DiskFull, "disk_full", 507, Grpc::ResourceExhausted, "53100"),
    entry(Code::OutOfResources, "out_of_resources", 503, Grpc::ResourceExhausted, "53000"),
    entry(Code::Unavailable, "unavailable", 503, Grpc::Unavailable, "57P01"),
    entry(Code::Forbidden, "forbidden", 403, Grpc::PermissionDenied, "42501"),
    entry(Code::NotFound, "not_found", 404, Grpc::NotFound, "02000"),
    entry(Code::MethodNotAllowed, "method_not_allowed", 405, Grpc::Unimplemented, "08P01"),
    entry(Code::NotAcceptable, "not_acceptable", 406, Grpc::InvalidArgument, "08P01"),
    entry(Code::UnsupportedEncoding, "unsupported_encoding", 415, Grpc::InvalidArgument, "08P01"),
    entry(Code::IoFailed, "io_error", 500, Grpc::Internal, "58030"),
    entry(Code::Corrupt, "data_corrupted", 500, Grpc::DataLoss, "XX001"),
    entry(Code::Internal, "internal_error", 500, Grpc::Internal, "XX000"),
];

/// SQLSTATEs that lead to another code than their class does.
const STATES: &[(&str, Code)] = &[
    ("08P01", Code::InvalidRequest),
    ("0A000", Code::NotSupported),
    ("0B000", Code::Unreached),
    ("02000", Code::NotFound),
    ("22007", Code::InvalidInstant),
    ("22008", Code::InvalidInstant),
    ("25006", Code::ReadOnly),
    ("3D000", Code::UnknownTenant),
    ("3F000", Code::UndefinedTable),
    ("42501", Code::Forbidden),
    ("42601", Code::Syntax),
    ("42703", Code::UndefinedColumn),
    ("42704", Code::UndefinedObject),
    ("42710", Code::Duplicate),
    ("42723", Code::Duplicate),
    ("42804", Code::TypeMismatch),
    ("42846", Code::TypeMismatch),
    ("42883", Code::UndefinedFunction),
    ("42P01", Code::UndefinedTable),
    ("42P07", Code::Duplicate),
    ("53100", Code::DiskFull),
    ("53300", Code::Busy),
    ("57014", Code::Cancelled),
    ("58030", Code::IoFailed),
    ("P0004", Code::AssertionFailed),
    ("XX001", Code::Corrupt),
];

/// What the first two characters of a SQLSTATE lead to.
const CLASSES: &[(&str, Code)] = &[
    ("08", Code::InvalidRequest),
    ("21", Code::InvalidStatement),
    ("22", Code::InvalidValue),
    ("23", Code::ConstraintViolation),
    ("25", Code::InvalidTransaction),
    ("26", Code::InvalidStatement),
    ("2B", Code::WrongState),
    ("34", Code::InvalidStatement),
    ("3B", Code::InvalidTransaction),
    ("40", Code::Conflict),
    ("42", Code::InvalidStatement),
    ("53", Code::OutOfResources),
    ("54", Code::OverLimit),
    ("55", Code::WrongState),
    ("57", Code::Unavailable),
];

impl Code {
    /// Returns the code's line of the table.
    pub fn entry(self) -> &'static Entry {
        #[expect(clippy::expect_used, reason = "a test checks that every code has its line")]
        TABLE.iter().find(|entry| entry.code == self).expect("every code stands in the table")
    }

    /// Returns the code that a SQLSTATE leads to: by itself, else by its class, else internal.
    pub fn of_sqlstate(sqlstate: &str) -> Self {
        if let Some((_, code)) = STATES.iter().find(|(state, _)| *state == sqlstate) {
            return *code;
        }
        let class = sqlstate.get(..2).unwrap_or_default();
        CLASSES.iter().find(|(start, _)| *start == class).map_or(Self::Internal, |(_, code)| *code)
    }

    /// True where the fault is the server's own, so that its text is not for clients.
    pub const fn is_internal(self) -> bool {
        matches!(self, Self::Internal | Self::Corrupt | Self::IoFailed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[Code] = &[
        Code::InvalidRequest,
        Code::Syntax,
        Code::UndefinedTable,
        Code::UndefinedColumn,
        Code::UndefinedFunction,
        Code::UndefinedObject,
        Code::Duplicate,
        Code::InvalidStatement,
        Code::TypeMismatch,
        Code::InvalidValue,
        Code::InvalidInstant,
        Code::ConstraintViolation,
        Code::AssertionFailed,
        Code::NotSupported,
        Code::ReadOnly,
        Code::InvalidTransaction,
        Code::UnknownTenant,
        Code::Unreached,
        Code::Conflict,
        Code::WrongState,
        Code::Cancelled,
        Code::OverLimit,
        Code::BodyTooLarge,
        Code::Busy,
        Code::DiskFull,
        Code::OutOfResources,
        Code::Unavailable,
        Code::Forbidden,
        Code::NotFound,
        Code::MethodNotAllowed,
        Code::NotAcceptable,
        Code::UnsupportedEncoding,
        Code::IoFailed,
        Code::Corrupt,
        Code::Internal,
    ];

    #[test]
    fn every_code_has_one_line_with_its_own_name() {
        assert_eq!(ALL.len(), TABLE.len());
        for code in ALL {
            assert_eq!(TABLE.iter().filter(|entry| entry.code == *code).count(), 1, "{code:?}");
        }
        let mut names: Vec<_> = TABLE.iter().map(|entry| entry.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len());
    }

    #[test]
    fn sqlstates_are_five_characters_and_statuses_are_errors() {
        for entry in TABLE {
            assert_eq!(entry.sqlstate.len(), 5, "{}", entry.name);
            assert!((400..600).contains(&entry.http), "{}", entry.name);
        }
    }

    #[test]
    fn settled_sqlstates_lead_to_their_codes() {
        for (state, code, http) in [
            ("42P01", Code::UndefinedTable, 400),
            ("42703", Code::UndefinedColumn, 400),
            ("42601", Code::Syntax, 400),
            ("P0004", Code::AssertionFailed, 409),
            ("22023", Code::InvalidValue, 400),
            ("22004", Code::InvalidValue, 400),
            ("22008", Code::InvalidInstant, 400),
            ("0B000", Code::Unreached, 409),
            ("57014", Code::Cancelled, 504),
            ("54000", Code::OverLimit, 400),
            ("53200", Code::OutOfResources, 503),
            ("53100", Code::DiskFull, 507),
            ("58030", Code::IoFailed, 500),
            ("25006", Code::ReadOnly, 400),
            ("0A000", Code::NotSupported, 400),
            ("3D000", Code::UnknownTenant, 404),
            ("40001", Code::Conflict, 409),
            ("99999", Code::Internal, 500),
        ] {
            assert_eq!(Code::of_sqlstate(state), code, "{state}");
            assert_eq!(code.entry().http, http, "{state}");
        }
    }
}
