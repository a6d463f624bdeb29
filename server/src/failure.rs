//! The one form in which an error reaches a client, whatever the protocol.

use std::borrow::Cow;

use crate::code::Code;

/// An answer that says no: what every front end turns into its own kind of error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    pub sqlstate: Cow<'static, str>,
    /// For people; shows nothing of the server's inside.
    pub detail: String,
    /// 1-based character in the SQL text.
    pub position: Option<usize>,
    pub hint: Option<String>,
}

/// The result of a service call.
pub type Answered<T> = std::result::Result<T, Failure>;

impl Failure {
    /// Builds a failure with the code's own SQLSTATE.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            sqlstate: Cow::Borrowed(code.entry().sqlstate),
            detail: detail.into(),
            position: None,
            hint: None,
        }
    }

    /// Builds the failure of a request that is not of the form asked for.
    pub fn request(detail: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest, detail)
    }

    /// Builds a failure from a SQLSTATE and a public text. An internal one is logged and its text
    /// kept from the client.
    pub fn of_sqlstate(sqlstate: &str, detail: String) -> Self {
        let code = Code::of_sqlstate(sqlstate);
        if code.is_internal() {
            return Self::kept_back(code, &detail);
        }
        Self { sqlstate: Cow::Owned(sqlstate.to_owned()), ..Self::new(code, detail) }
    }

    /// Logs what happened inside and builds the failure that tells the client no more than that.
    pub fn internal(private: &dyn std::fmt::Display) -> Self {
        Self::kept_back(Code::Internal, private)
    }

    fn kept_back(code: Code, private: &dyn std::fmt::Display) -> Self {
        tracing::error!(error = %private, code = code.entry().name, "internal error");
        Self::new(
            code,
            match code {
                Code::Corrupt => "stored data is damaged; the server's log says where",
                Code::IoFailed => {
                    "a file of the server could not be read or written; its log says more"
                }
                _ => "internal error; the server's log says more",
            },
        )
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Gives it another code, keeping the SQLSTATE and text.
    #[must_use]
    pub fn as_code(mut self, code: Code) -> Self {
        self.code = code;
        self
    }

    /// The failure of anything asked while the server stops.
    pub fn stopping() -> Self {
        Self::new(Code::Unavailable, "the server is shutting down")
    }

    /// Returns the document of RFC 9457.
    pub fn problem(&self) -> serde_json::Value {
        let entry = self.code.entry();
        let mut problem = serde_json::json!({
            "status": entry.http,
            "code": entry.name,
            "sqlstate": self.sqlstate,
            "detail": self.detail,
        });
        if let Some(fields) = problem.as_object_mut() {
            if let Some(position) = self.position {
                fields.insert("position".to_owned(), position.into());
            }
            if let Some(hint) = &self.hint {
                fields.insert("hint".to_owned(), hint.clone().into());
            }
        }
        problem
    }
}

impl From<everwhen_storage::Error> for Failure {
    fn from(error: everwhen_storage::Error) -> Self {
        use everwhen_storage::Error as E;
        let text = error.to_string();
        match error {
            E::BadInstant { .. } => Self::new(Code::InvalidInstant, text),
            E::EmptyPeriod { .. } | E::BadTenant { .. } => Self::new(Code::InvalidValue, text),
            E::ClockNotManual => Self::new(Code::NotFound, text),
            E::ClockBackwards { .. } => Self::new(Code::InvalidValue, text),
            E::Unreached { .. } => Self::new(Code::Unreached, text),
            E::Forgotten { .. } => Self::new(Code::InvalidValue, text),
            E::Closed => Self::stopping(),
            E::DiskFull { .. } => {
                Self::new(Code::DiskFull, text).with_hint("reads go on; send the write again later")
            }
            // Told to whoever asked about these very files.
            E::Snapshot { .. } => Self::new(Code::WrongState, text),
            E::Stopped => Self::new(Code::Cancelled, text),
            error if error.is_damage() => Self::kept_back(Code::Corrupt, &text),
            error if error.is_io() => Self::kept_back(Code::IoFailed, &text),
            _ => Self::internal(&text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problem_has_position_and_hint_only_where_known() {
        let plain = Failure::new(Code::Syntax, "no").problem();
        assert_eq!(
            plain,
            serde_json::json!({"status": 400, "code": "syntax_error", "sqlstate": "42601", "detail": "no"})
        );
        let mut full = Failure::new(Code::Syntax, "no").with_hint("try");
        full.position = Some(3);
        assert_eq!(full.problem()["position"], 3);
        assert_eq!(full.problem()["hint"], "try");
    }

    #[test]
    fn internal_text_stays_inside() {
        let failure = Failure::of_sqlstate("XX000", "secret path".to_owned());
        assert!(!failure.detail.contains("secret"));
        assert_eq!(failure.code, Code::Internal);
    }

    #[test]
    fn own_sqlstate_is_kept_where_the_code_comes_from_its_class() {
        let failure = Failure::of_sqlstate("22012", "division by zero".to_owned());
        assert_eq!((failure.code, failure.sqlstate.as_ref()), (Code::InvalidValue, "22012"));
    }

    #[test]
    fn a_full_disk_is_told_and_a_failed_one_only_to_the_log() {
        use everwhen_storage::Error;
        let full = Failure::from(Error::DiskFull { why: "1 MiB is free".to_owned() });
        assert_eq!((full.code, full.sqlstate.as_ref()), (Code::DiskFull, "53100"));
        assert!(full.detail.contains("1 MiB") && full.hint.is_some(), "{full:?}");
        let failed = Failure::from(Error::Failed { why: "/secret/000004.log".to_owned() });
        assert_eq!((failed.code, failed.sqlstate.as_ref()), (Code::IoFailed, "58030"));
        assert!(!failed.detail.contains("secret"), "{failed:?}");
        let why = "/secret".to_owned();
        let damaged = Failure::from(Error::Corrupt { what: "row", why });
        assert_eq!(damaged.sqlstate, "XX001");
        assert!(!damaged.detail.contains("secret"), "{damaged:?}");
    }
}
