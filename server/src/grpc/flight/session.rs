//! What the headers of a call say of the statements that it carries.

use std::time::Duration;

use everwhen_storage::time::Instant;
use everwhen_storage::{SystemTime, ValidTime};
use tonic::metadata::MetadataMap;

use crate::failure::{Answered, Failure};
use crate::service::instant_of;
use crate::service::query::Statement;

const TENANT: &str = "x-everwhen-tenant";
const VALID_TIME: &str = "x-everwhen-valid-time";
const SYSTEM_TIME: &str = "x-everwhen-system-time";
const BASIS: &str = "x-everwhen-basis";
const TIMEOUT_MS: &str = "x-everwhen-timeout-ms";

/// The tenant and the instants that a call's statements are read at.
#[derive(Debug, Clone, Default)]
pub struct Session {
    pub tenant: Option<String>,
    valid_time: Option<ValidTime>,
    system_time: Option<SystemTime>,
    basis: Option<String>,
    timeout: Option<Duration>,
}

impl Session {
    /// Takes a call's headers.
    ///
    /// # Errors
    /// `invalid_instant` or `invalid_request` for one that is not of its form.
    pub fn of(headers: &MetadataMap) -> Answered<Self> {
        Ok(Self {
            tenant: text(headers, TENANT)?,
            valid_time: instant(headers, VALID_TIME)?,
            system_time: instant(headers, SYSTEM_TIME)?,
            basis: text(headers, BASIS)?,
            timeout: match text(headers, TIMEOUT_MS)?.map(|millis| millis.parse()) {
                None => None,
                Some(Ok(millis @ 1..)) => Some(Duration::from_millis(millis)),
                Some(_) => {
                    let detail = format!("\"{TIMEOUT_MS}\" must be a whole number from 1");
                    return Err(Failure::request(detail));
                }
            },
        })
    }

    /// Returns what is given here, and by `earlier` where nothing is.
    #[must_use]
    pub fn or(self, earlier: &Self) -> Self {
        let earlier = earlier.clone();
        Self {
            tenant: self.tenant.or(earlier.tenant),
            valid_time: self.valid_time.or(earlier.valid_time),
            system_time: self.system_time.or(earlier.system_time),
            basis: self.basis.or(earlier.basis),
            timeout: self.timeout.or(earlier.timeout),
        }
    }

    /// Builds a statement of the session.
    pub fn statement(&self, sql: impl Into<String>) -> Statement {
        Statement {
            tenant: self.tenant.clone(),
            valid_time: self.valid_time,
            system_time: self.system_time,
            basis: self.basis.clone(),
            timeout: self.timeout,
            ..Statement::new(sql)
        }
    }
}

fn text(headers: &MetadataMap, name: &'static str) -> Answered<Option<String>> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let value =
        value.to_str().map_err(|_| Failure::request(format!("\"{name}\" must be plain text")))?;
    Ok((!value.is_empty()).then(|| value.to_owned()))
}

fn instant<A>(headers: &MetadataMap, name: &'static str) -> Answered<Option<Instant<A>>> {
    text(headers, name)?.map(|text| instant_of(&name, &text)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(pairs: &[(&'static str, &str)]) -> Answered<Session> {
        let mut headers = MetadataMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        Session::of(&headers)
    }

    #[test]
    fn headers_say_what_statements_are_read_at() {
        let session = session(&[
            (TENANT, "acme"),
            (VALID_TIME, "2026-01-05"),
            (SYSTEM_TIME, "2026-01-06T00:00:00Z"),
            (BASIS, "token"),
            (TIMEOUT_MS, "1500"),
        ]);
        let statement = session.unwrap().statement("SELECT 1");
        assert_eq!(statement.tenant.as_deref(), Some("acme"));
        assert_eq!(statement.valid_time.unwrap().to_string(), "2026-01-05T00:00:00Z");
        assert_eq!(statement.system_time.unwrap().to_string(), "2026-01-06T00:00:00Z");
        assert_eq!(statement.basis.as_deref(), Some("token"));
        assert_eq!(statement.timeout, Some(Duration::from_millis(1500)));
    }

    #[test]
    fn a_call_wins_over_what_it_follows() {
        let earlier = session(&[(TENANT, "acme"), (BASIS, "old")]).unwrap();
        let now = session(&[(BASIS, "new")]).unwrap().or(&earlier);
        assert_eq!(now.tenant.as_deref(), Some("acme"));
        assert_eq!(now.basis.as_deref(), Some("new"));
    }

    #[test]
    fn wrong_headers_are_named() {
        assert!(session(&[(VALID_TIME, "yesterday")]).unwrap_err().detail.contains(VALID_TIME));
        assert!(session(&[(TIMEOUT_MS, "0")]).unwrap_err().detail.contains(TIMEOUT_MS));
    }
}
