//! The settings of a session: what SET takes, SHOW tells and statements are run with.

use std::collections::BTreeMap;
use std::time::Duration;

use everwhen_query::SERVER_VERSION;
use everwhen_storage::{SystemTime, ValidTime};

use crate::failure::{Answered, Failure};
use crate::service::instant_of;
use crate::service::query::Statement;

/// Settings of Postgres that make no difference here, with what they are without a SET.
const HARMLESS: &[(&str, &str)] = &[
    ("application_name", ""),
    ("array_nulls", "on"),
    ("backslash_quote", "safe_encoding"),
    ("check_function_bodies", "on"),
    ("client_min_messages", "notice"),
    ("default_tablespace", ""),
    ("default_transaction_deferrable", "off"),
    ("default_transaction_isolation", "serializable"),
    ("escape_string_warning", "on"),
    ("extra_float_digits", "1"),
    ("geqo", "on"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    ("jit", "off"),
    ("lc_messages", "C"),
    ("lc_monetary", "C"),
    ("lc_numeric", "C"),
    ("lc_time", "C"),
    ("lock_timeout", "0"),
    ("log_statement", "none"),
    ("max_identifier_length", "63"),
    ("max_index_keys", "32"),
    ("row_security", "on"),
    ("search_path", "public"),
    ("session_authorization", "everwhen"),
    ("synchronous_commit", "on"),
    ("transaction_deferrable", "off"),
    ("transaction_isolation", "serializable"),
    ("work_mem", "4MB"),
    ("xmloption", "content"),
];

/// Settings that have one value, however it is written.
const FIXED: &[(&str, &str, &[&str])] = &[
    ("bytea_output", "hex", &["hex"]),
    ("client_encoding", "UTF8", &["utf8", "utf-8", "unicode"]),
    ("datestyle", "ISO, MDY", &["iso", "iso, mdy", "iso, dmy", "iso, ymd"]),
    ("integer_datetimes", "on", &["on"]),
    ("intervalstyle", "postgres", &["postgres", "iso_8601"]),
    ("server_encoding", "UTF8", &["utf8"]),
    ("server_version", SERVER_VERSION, &[]),
    ("server_version_num", "160006", &[]),
    ("standard_conforming_strings", "on", &["on", "true", "1"]),
    ("is_superuser", "on", &[]),
    (
        "timezone",
        "UTC",
        &[
            "utc",
            "gmt",
            "z",
            "0",
            "+00",
            "00:00",
            "+00:00",
            "etc/utc",
            "etc/gmt",
            "universal",
            "zulu",
        ],
    ),
];

/// The settings of a session.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    set: BTreeMap<String, String>,
    /// `None` for the server's own; zero for no limit.
    statement_timeout: Option<Duration>,
    valid_time: Option<ValidTime>,
    system_time: Option<SystemTime>,
    snapshot_token: Option<String>,
    /// Of transactions that do not say.
    pub read_only: bool,
}

impl Settings {
    /// Takes a setting; `None` for its default.
    ///
    /// # Errors
    /// 42704 for one that is not known, 22023 or 0A000 for a value that is not taken.
    pub fn set(&mut self, name: &str, value: Option<&str>) -> Answered<()> {
        let value = value.filter(|value| !(value.is_empty() && is_time(name)));
        match name {
            "statement_timeout" => {
                self.statement_timeout = value.map(duration).transpose()?;
            }
            "valid_time" => {
                self.valid_time = value.map(|text| instant_of(&name, text)).transpose()?;
            }
            "system_time" => {
                self.system_time = value.map(|text| instant_of(&name, text)).transpose()?;
            }
            "snapshot_token" => self.snapshot_token = value.map(str::to_owned),
            "default_transaction_read_only" | "transaction_read_only" => {
                self.read_only = value.map_or(Ok(false), |value| truth(name, value))?;
            }
            _ => return self.set_other(name, value),
        }
        Ok(())
    }

    fn set_other(&mut self, name: &str, value: Option<&str>) -> Answered<()> {
        if let Some((_, fixed, also)) = FIXED.iter().find(|(known, ..)| *known == name) {
            let taken = value.is_none_or(|value| {
                let value = value.trim().to_lowercase();
                also.contains(&value.as_str()) || value == fixed.to_lowercase()
            });
            let detail = format!("{name} is always {fixed}");
            return if taken { Ok(()) } else { Err(Failure::of_sqlstate("0A000", detail)) };
        }
        // Names with a dot belong to whoever makes them up.
        if !HARMLESS.iter().any(|(known, _)| *known == name) && !name.contains('.') {
            return Err(unknown(name));
        }
        const SET_MAX: usize = 200;
        match value {
            None => drop(self.set.remove(name)),
            Some(_) if self.set.len() >= SET_MAX && !self.set.contains_key(name) => {
                let detail = "a session has too many settings";
                return Err(Failure::of_sqlstate("54000", detail.to_owned()));
            }
            Some(value) => {
                let short = value.chars().take(1_000).collect();
                self.set.insert(name.to_owned(), short);
            }
        }
        Ok(())
    }

    /// Forgets a setting, or all.
    ///
    /// # Errors
    /// 42704 for one that is not known.
    pub fn reset(&mut self, name: Option<&str>) -> Answered<()> {
        match name {
            None => *self = Self::default(),
            Some(name) => self.set(name, None)?,
        }
        Ok(())
    }

    /// Returns the value of a setting.
    ///
    /// # Errors
    /// 42704 for one that is not known.
    pub fn get(&self, name: &str) -> Answered<String> {
        let time = |at: Option<String>| at.unwrap_or_default();
        if let Some(value) = self.set.get(name) {
            return Ok(value.clone());
        }
        Ok(match name {
            "statement_timeout" => match self.statement_timeout {
                None => "default".to_owned(),
                Some(limit) => format!("{}ms", limit.as_millis()),
            },
            "valid_time" => time(self.valid_time.map(|at| at.to_string())),
            "system_time" => time(self.system_time.map(|at| at.to_string())),
            "default_transaction_read_only" | "transaction_read_only" => {
                if self.read_only { "on" } else { "off" }.to_owned()
            }
            _ => {
                let fixed = FIXED.iter().map(|(known, value, _)| (known, value));
                let mut all = fixed.chain(HARMLESS.iter().map(|(known, value)| (known, value)));
                match all.find(|(known, _)| **known == name) {
                    Some((_, value)) => (*value).to_owned(),
                    None => return Err(unknown(name)),
                }
            }
        })
    }

    /// Returns all settings and their values, by name.
    pub fn all(&self) -> Vec<(String, String)> {
        let own =
            ["default_transaction_read_only", "statement_timeout", "system_time", "valid_time"];
        let known =
            FIXED.iter().map(|(name, ..)| *name).chain(HARMLESS.iter().map(|(name, _)| *name));
        let mut names: Vec<String> = known.chain(own).map(str::to_owned).collect();
        names.extend(self.set.keys().cloned());
        names.sort_unstable();
        names.dedup();
        names
            .into_iter()
            .filter_map(|name| self.get(&name).ok().map(|value| (name, value)))
            .collect()
    }

    /// Returns what a client is told when it connects.
    pub fn told(&self) -> Vec<(&'static str, String)> {
        let name = |shown: &'static str, name: &str| (shown, self.get(name).unwrap_or_default());
        vec![
            (
                "server_version",
                format!("{SERVER_VERSION} (Everwhen {})", env!("CARGO_PKG_VERSION")),
            ),
            name("server_encoding", "server_encoding"),
            name("client_encoding", "client_encoding"),
            name("DateStyle", "datestyle"),
            name("IntervalStyle", "intervalstyle"),
            name("TimeZone", "timezone"),
            name("integer_datetimes", "integer_datetimes"),
            name("standard_conforming_strings", "standard_conforming_strings"),
            name("application_name", "application_name"),
            name("default_transaction_read_only", "default_transaction_read_only"),
            name("is_superuser", "is_superuser"),
            name("session_authorization", "session_authorization"),
        ]
    }

    /// Gives a query what the session reads at; `basis` is that of its transaction.
    pub fn read_with(&self, statement: &mut Statement, basis: Option<&str>) {
        statement.valid_time = self.valid_time;
        statement.system_time = self.system_time;
        statement.basis = basis.map(str::to_owned).or_else(|| self.snapshot_token.clone());
    }

    /// Returns the token that the session reads at.
    pub fn snapshot_token(&self) -> Option<&str> {
        self.snapshot_token.as_deref()
    }

    /// Gives a statement the session's time limit.
    pub fn time_limit(&self, statement: &mut Statement) {
        const NO_LIMIT: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
        statement.timeout = self.statement_timeout.map(|limit| match limit.is_zero() {
            true => NO_LIMIT,
            false => limit,
        });
    }
}

/// True for the settings that an empty text unsets.
fn is_time(name: &str) -> bool {
    matches!(name, "valid_time" | "system_time" | "snapshot_token")
}

fn unknown(name: &str) -> Failure {
    Failure::of_sqlstate("42704", format!("there is no setting \"{name}\""))
}

fn truth(name: &str, value: &str) -> Answered<bool> {
    match value.trim().to_ascii_lowercase().as_str() {
        "on" | "true" | "1" | "yes" => Ok(true),
        "off" | "false" | "0" | "no" => Ok(false),
        _ => Err(Failure::of_sqlstate("22023", format!("{name} is on or off"))),
    }
}

/// Reads `500`, in milliseconds, or `30s`, `5min`, `1h`.
fn duration(text: &str) -> Answered<Duration> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let millis: Option<u64> = match unit.trim() {
        "" | "ms" => Some(1),
        "s" => Some(1_000),
        "min" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let count: Option<u64> = digits.parse().ok();
    match count.zip(millis).and_then(|(count, millis)| count.checked_mul(millis)) {
        Some(millis) => Ok(Duration::from_millis(millis)),
        None => {
            let detail = format!("\"{text}\" is no length of time");
            Err(Failure::of_sqlstate("22023", detail).with_hint("write 500ms, 30s or 5min"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_set_is_taken() {
        let mut settings = Settings::default();
        for (name, value) in [
            ("extra_float_digits", "3"),
            ("application_name", "psql"),
            ("client_encoding", "'utf-8'".trim_matches('\'')),
            ("datestyle", "ISO"),
            ("timezone", "Etc/UTC"),
            ("standard_conforming_strings", "on"),
            ("my.own", "x"),
        ] {
            assert_eq!(settings.set(name, Some(value)), Ok(()), "{name}");
        }
        assert_eq!(settings.get("application_name").unwrap(), "psql");
        assert_eq!(settings.get("timezone").unwrap(), "UTC");
        for (name, value, state) in [
            ("timezone", "Europe/Berlin", "0A000"),
            ("client_encoding", "LATIN1", "0A000"),
            ("nonsense", "1", "42704"),
            ("statement_timeout", "soon", "22023"),
            ("valid_time", "yesterday", "22008"),
        ] {
            assert_eq!(settings.set(name, Some(value)).unwrap_err().sqlstate, state, "{name}");
        }
        settings.reset(None).unwrap();
        assert_eq!(settings.get("application_name").unwrap(), "");
    }

    #[test]
    fn times_and_limits_go_with_statements() {
        let mut settings = Settings::default();
        settings.set("valid_time", Some("2026-01-05")).unwrap();
        settings.set("statement_timeout", Some("2s")).unwrap();
        let mut statement = Statement::new("SELECT 1");
        settings.read_with(&mut statement, Some("token"));
        settings.time_limit(&mut statement);
        assert_eq!(statement.valid_time.unwrap().to_string(), "2026-01-05T00:00:00Z");
        assert_eq!(statement.basis.as_deref(), Some("token"));
        assert_eq!(statement.timeout, Some(Duration::from_secs(2)));
        settings.set("valid_time", Some("")).unwrap();
        assert_eq!(settings.get("valid_time").unwrap(), "");
    }
}
