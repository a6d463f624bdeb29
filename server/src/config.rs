//! The server's configuration: defaults, then a TOML file, then `EVERWHEN_*`, then flags.
//!
//! Every key stands once, in [`KEYS`], with its meaning, its default and how it is read and shown.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use everwhen_storage::ValidTime;

use crate::telemetry;
use crate::threads::NICE_MAX;

/// What the server is told at start.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The data directory.
    pub data: PathBuf,
    pub http_listen: Listen,
    pub grpc_listen: Listen,
    pub postgres_listen: Listen,
    pub admin_listen: Listen,
    /// Configuration of a delivery process to run inside the server.
    pub projector: Option<PathBuf>,
    /// Where a manual clock starts; `None` for the real one.
    pub test_clock: Option<ValidTime>,
    /// Log filter directives.
    pub log: String,
    pub wal_sync: WalSync,
    /// How often the store's log is synced under [`WalSync::Interval`].
    pub wal_sync_interval: Duration,
    pub block_cache_bytes: usize,
    pub memtable_bytes_max: usize,
    pub background_jobs: usize,
    pub background_bytes_per_second: usize,
    pub disk_reserve_bytes: usize,
    pub query_memory_bytes_max: usize,
    /// Bytes that the computing of all projections may hold.
    pub projection_memory_bytes_max: usize,
    /// Bytes of disk that running queries may use beyond their memory; 0: none.
    pub query_spill_bytes_max: usize,
    pub query_threads: usize,
    /// How far they stand back for others, 0 to 19.
    pub query_nice: u8,
    /// `None` for no limit.
    pub query_timeout: Option<Duration>,
    pub statements_max: usize,
    pub postgres_connections_max: usize,
    pub sql_bytes_max: usize,
    pub body_bytes_max: usize,
    pub record_bytes_max: usize,
    /// Directories and buckets that any client may have snapshots taken into.
    pub snapshot_targets: Vec<String>,
    /// Where the journal is shipped to as it grows; `None` for nowhere.
    pub journal_ship_to: Option<String>,
    pub journal_ship_interval: Duration,
    /// How long requests may go on once the server stops.
    pub drain: Duration,
    /// How long an erasure waits for projections.
    pub erase_deadline: Duration,
}

/// When the store's log is synced to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalSync {
    /// Before a batch of writes is answered.
    PerBatch,
    /// At intervals; answers do not wait for it.
    Interval,
    /// When the operating system does.
    Off,
}

/// Where a front end listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    Off,
    /// `HOST:PORT`; port 0 lets the system choose.
    At(String),
}

/// A mistake in the configuration: what, where, and often what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read configuration file {path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("configuration file {path} is no TOML: {why}")]
    Parse { path: String, why: String },
    #[error("{origin}: unknown key \"{key}\"{hint}")]
    UnknownKey { origin: String, key: String, hint: String },
    #[error("{origin}: \"{key}\": {why}")]
    BadValue { origin: String, key: &'static str, why: String },
    #[error("no data directory given: use --data DIR, EVERWHEN_DATA or the key \"data\"")]
    NoData,
}

/// A value as it was written down.
#[derive(Debug, Clone, PartialEq)]
pub enum Raw {
    /// From the environment or a flag: text whatever the key's type.
    Text(String),
    /// From the file: of the key's own type.
    Toml(toml::Value),
}

/// One key of the configuration.
pub struct Key {
    pub name: &'static str,
    /// What it means, units included.
    pub doc: &'static str,
    set: fn(&mut Config, &Raw) -> Result<(), String>,
    /// The value as TOML; `None` where unset.
    show: fn(&Config) -> Option<String>,
}

/// Every key, in the order of `everwhen config print`.
pub const KEYS: &[Key] = &[
    Key {
        name: "data",
        doc: "data directory; made where it does not exist",
        set: |c, raw| text(raw).map(|v| c.data = v.into()),
        show: |c| (!c.data.as_os_str().is_empty()).then(|| quoted(&c.data.to_string_lossy())),
    },
    Key {
        name: "http_listen",
        doc: "HTTP address HOST:PORT; port 0 picks one, \"off\" turns it off",
        set: |c, raw| listen(raw).map(|v| c.http_listen = v),
        show: |c| Some(quoted(c.http_listen.as_text())),
    },
    Key {
        name: "grpc_listen",
        doc: "gRPC address, likewise",
        set: |c, raw| listen(raw).map(|v| c.grpc_listen = v),
        show: |c| Some(quoted(c.grpc_listen.as_text())),
    },
    Key {
        name: "postgres_listen",
        doc: "address of the Postgres wire protocol, likewise",
        set: |c, raw| listen(raw).map(|v| c.postgres_listen = v),
        show: |c| Some(quoted(c.postgres_listen.as_text())),
    },
    Key {
        name: "admin_listen",
        doc: "address of health end points and metrics, likewise",
        set: |c, raw| listen(raw).map(|v| c.admin_listen = v),
        show: |c| Some(quoted(c.admin_listen.as_text())),
    },
    Key {
        name: "projector",
        doc: "configuration file of a delivery process to run inside the server",
        set: |c, raw| text(raw).map(|v| c.projector = Some(v.into())),
        show: |c| c.projector.as_ref().map(|v| quoted(&v.to_string_lossy())),
    },
    Key {
        name: "test_clock",
        doc: "instant at which a manual clock starts; for tests of models and scenarios alone",
        set: |c, raw| {
            let at = text(raw)?;
            ValidTime::parse(&at).map(|v| c.test_clock = Some(v)).map_err(|e| e.to_string())
        },
        show: |c| c.test_clock.map(|v| quoted(&v.to_string())),
    },
    Key {
        name: "log",
        doc: "log filter: error, warn, info, debug or trace, also by crate (info,everwhen_ingest=debug)",
        set: |c, raw| {
            let filter = text(raw)?;
            telemetry::check_filter(&filter)?;
            c.log = filter;
            Ok(())
        },
        show: |c| Some(quoted(&c.log)),
    },
    Key {
        name: "wal_sync",
        doc: "when the store's log is synced: per-batch, before writes are answered; interval or off lose the last ones at a power failure",
        set: |c, raw| WalSync::parse(&text(raw)?).map(|v| c.wal_sync = v),
        show: |c| Some(quoted(c.wal_sync.as_text())),
    },
    Key {
        name: "wal_sync_interval_ms",
        doc: "how often it is synced with wal_sync = \"interval\"",
        set: |c, raw| {
            let interval = millis(raw)?;
            if interval.is_zero() {
                return Err("must be at least 1".to_owned());
            }
            c.wal_sync_interval = interval;
            Ok(())
        },
        show: |c| Some(c.wal_sync_interval.as_millis().to_string()),
    },
    Key {
        name: "block_cache_bytes",
        doc: "memory for the store's block cache",
        set: |c, raw| whole(raw, 1 << 20).map(|v| c.block_cache_bytes = v),
        show: |c| Some(c.block_cache_bytes.to_string()),
    },
    Key {
        name: "memtable_bytes_max",
        doc: "memory for what is written and not yet flushed to sorted files",
        set: |c, raw| whole(raw, 16 << 20).map(|v| c.memtable_bytes_max = v),
        show: |c| Some(c.memtable_bytes_max.to_string()),
    },
    Key {
        name: "background_jobs",
        doc: "threads that flush and compact; 0 for one a core, at least 4",
        set: |c, raw| whole(raw, 0).map(|v| c.background_jobs = v),
        show: |c| Some(c.background_jobs.to_string()),
    },
    Key {
        name: "background_bytes_per_second",
        doc: "what flushes and compactions may write in a second; 0 for no limit",
        set: |c, raw| whole(raw, 0).map(|v| c.background_bytes_per_second = v),
        show: |c| Some(c.background_bytes_per_second.to_string()),
    },
    Key {
        name: "disk_reserve_bytes",
        doc: "room kept free on the disk: writes are refused before it is used up, reads go on",
        set: |c, raw| whole(raw, 0).map(|v| c.disk_reserve_bytes = v),
        show: |c| Some(c.disk_reserve_bytes.to_string()),
    },
    Key {
        name: "query_memory_bytes_max",
        doc: "memory that all running queries may hold together",
        set: |c, raw| whole(raw, 1 << 20).map(|v| c.query_memory_bytes_max = v),
        show: |c| Some(c.query_memory_bytes_max.to_string()),
    },
    Key {
        name: "projection_memory_bytes_max",
        doc: "memory that all projections may use while they are computed; larger sorts use temporary files",
        set: |c, raw| whole(raw, 16 << 20).map(|v| c.projection_memory_bytes_max = v),
        show: |c| Some(c.projection_memory_bytes_max.to_string()),
    },
    Key {
        name: "query_spill_bytes_max",
        doc: "disk that sorts and aggregates of all running queries may use beyond their memory; 0 for none",
        set: |c, raw| whole(raw, 0).map(|v| c.query_spill_bytes_max = v),
        show: |c| Some(c.query_spill_bytes_max.to_string()),
    },
    Key {
        name: "query_threads",
        doc: "threads that run queries; 0 for one a core",
        set: |c, raw| whole(raw, 0).map(|v| c.query_threads = v),
        show: |c| Some(c.query_threads.to_string()),
    },
    Key {
        name: "query_nice",
        doc: "how far threads that run queries stand back for all others, as `nice` does: 0 to 19",
        set: |c, raw| {
            let nice = whole(raw, 0)?;
            let nice = u8::try_from(nice).ok().filter(|nice| *nice <= NICE_MAX);
            c.query_nice = nice.ok_or_else(|| format!("must be from 0 to {NICE_MAX}"))?;
            Ok(())
        },
        show: |c| Some(c.query_nice.to_string()),
    },
    Key {
        name: "query_timeout_ms",
        doc: "longest run of a statement that asks for no timeout of its own; 0 for no limit",
        set: |c, raw| millis(raw).map(|v| c.query_timeout = (!v.is_zero()).then_some(v)),
        show: |c| Some(c.query_timeout.unwrap_or_default().as_millis().to_string()),
    },
    Key {
        name: "statements_max",
        doc: "statements that run at once; more wait a few seconds and are then refused (53300)",
        set: |c, raw| whole(raw, 1).map(|v| c.statements_max = v),
        show: |c| Some(c.statements_max.to_string()),
    },
    Key {
        name: "postgres_connections_max",
        doc: "connections over the Postgres wire at once; more are refused (53300)",
        set: |c, raw| whole(raw, 1).map(|v| c.postgres_connections_max = v),
        show: |c| Some(c.postgres_connections_max.to_string()),
    },
    Key {
        name: "sql_bytes_max",
        doc: "longest statement text",
        set: |c, raw| whole(raw, 1).map(|v| c.sql_bytes_max = v),
        show: |c| Some(c.sql_bytes_max.to_string()),
    },
    Key {
        name: "body_bytes_max",
        doc: "largest request body over HTTP, largest message over gRPC",
        set: |c, raw| whole(raw, 1024).map(|v| c.body_bytes_max = v),
        show: |c| Some(c.body_bytes_max.to_string()),
    },
    Key {
        name: "record_bytes_max",
        doc: "largest record of a stream; a larger one becomes a dead letter",
        set: |c, raw| whole(raw, 1).map(|v| c.record_bytes_max = v),
        show: |c| Some(c.record_bytes_max.to_string()),
    },
    Key {
        name: "snapshot_targets",
        doc: "directories (absolute) and buckets (s3://, gs://) that any client may have snapshots taken into: a list; in the environment parted by ':'",
        set: |c, raw| targets(raw).map(|v| c.snapshot_targets = v),
        show: |c| {
            let shown: Vec<String> = c.snapshot_targets.iter().map(|v| quoted(v)).collect();
            Some(format!("[{}]", shown.join(", ")))
        },
    },
    Key {
        name: "journal_ship_to",
        doc: "snapshot target (an absolute directory, s3:// or gs://) that the journal is shipped to as it grows",
        set: |c, raw| {
            let place = text(raw)?;
            check_target(&place)?;
            c.journal_ship_to = Some(place);
            Ok(())
        },
        show: |c| c.journal_ship_to.as_deref().map(quoted),
    },
    Key {
        name: "journal_ship_interval_ms",
        doc: "how often what is new of it is shipped: what a lost machine may lose",
        set: |c, raw| {
            let interval = millis(raw)?;
            if interval.is_zero() {
                return Err("must be at least 1".to_owned());
            }
            c.journal_ship_interval = interval;
            Ok(())
        },
        show: |c| Some(c.journal_ship_interval.as_millis().to_string()),
    },
    Key {
        name: "drain_ms",
        doc: "how long requests may go on once the server was told to stop",
        set: |c, raw| millis(raw).map(|v| c.drain = v),
        show: |c| Some(c.drain.as_millis().to_string()),
    },
    Key {
        name: "erase_deadline_ms",
        doc: "how long an erasure waits for projections; those that are behind then load anew",
        set: |c, raw| millis(raw).map(|v| c.erase_deadline = v),
        show: |c| Some(c.erase_deadline.as_millis().to_string()),
    },
];

impl Default for Config {
    fn default() -> Self {
        let at = |port: u16| Listen::At(format!("127.0.0.1:{port}"));
        Self {
            data: PathBuf::new(),
            http_listen: at(8080),
            grpc_listen: at(8081),
            postgres_listen: at(5432),
            admin_listen: at(9090),
            projector: None,
            test_clock: None,
            log: "info".to_owned(),
            wal_sync: WalSync::PerBatch,
            wal_sync_interval: Duration::from_millis(100),
            block_cache_bytes: 256 << 20,
            memtable_bytes_max: 512 << 20,
            background_jobs: 0,
            background_bytes_per_second: 0,
            disk_reserve_bytes: 64 << 20,
            query_memory_bytes_max: 1 << 30,
            projection_memory_bytes_max: 512 << 20,
            query_spill_bytes_max: 4 << 30,
            query_threads: 0,
            query_nice: 5,
            query_timeout: Some(Duration::from_secs(300)),
            statements_max: 64,
            postgres_connections_max: 500,
            sql_bytes_max: 1 << 20,
            body_bytes_max: 64 << 20,
            record_bytes_max: 1 << 20,
            snapshot_targets: Vec::new(),
            journal_ship_to: None,
            journal_ship_interval: Duration::from_secs(10),
            drain: Duration::from_secs(10),
            erase_deadline: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

impl Config {
    /// Returns a configuration for a server inside a test or the demo: free ports on loopback, no
    /// Postgres wire, over the given data directory.
    pub fn in_process(data: impl Into<PathBuf>) -> Self {
        let any = || Listen::At("127.0.0.1:0".to_owned());
        Self {
            data: data.into(),
            http_listen: any(),
            grpc_listen: any(),
            postgres_listen: Listen::Off,
            admin_listen: any(),
            ..Self::default()
        }
    }

    /// Builds the configuration from its layers, later ones winning.
    ///
    /// `environment` holds variables of any name; only `EVERWHEN_` and a key's name in capitals
    /// count. `flags` are (key, text).
    ///
    /// # Errors
    /// [`ConfigError`], naming the layer and the key.
    pub fn load(
        file: Option<&Path>,
        environment: &BTreeMap<String, String>,
        flags: &[(&str, String)],
    ) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        if let Some(path) = file {
            config.apply_file(path)?;
        }
        for key in KEYS {
            let variable = variable_of(key.name);
            if let Some(value) = environment.get(&variable) {
                config.apply(key.name, &Raw::Text(value.clone()), &variable)?;
            }
        }
        for (name, value) in flags {
            let flag = format!("--{}", name.replace('_', "-"));
            config.apply(name, &Raw::Text(value.clone()), &flag)?;
        }
        Ok(config)
    }

    /// Refuses a configuration that cannot be served.
    ///
    /// # Errors
    /// [`ConfigError::NoData`] without a data directory, [`ConfigError::BadValue`] where keys
    /// exclude each other.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.data.as_os_str().is_empty() {
            return Err(ConfigError::NoData);
        }
        if self.projector.is_some() && self.grpc_listen == Listen::Off {
            return Err(ConfigError::BadValue {
                origin: "configuration".to_owned(),
                key: "projector",
                why: "delivery inside the server needs grpc_listen, which is off".to_owned(),
            });
        }
        Ok(())
    }

    /// Returns the configuration as a commented TOML file.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        for key in KEYS {
            let line = match (key.show)(self) {
                Some(value) => format!("{} = {value}", key.name),
                None => format!("# {} =", key.name),
            };
            // Writing to a String cannot fail.
            let _ = writeln!(out, "# {}\n{line}\n", key.doc);
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
        out
    }

    fn apply_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let origin = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: origin.clone(), source })?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            ConfigError::Parse { path: origin.clone(), why: error.to_string().trim().to_owned() }
        })?;
        for (name, value) in table {
            self.apply(&name, &Raw::Toml(value), &origin)?;
        }
        Ok(())
    }

    fn apply(&mut self, name: &str, raw: &Raw, origin: &str) -> Result<(), ConfigError> {
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            let hint = nearest(name)
                .map_or_else(String::new, |near| format!(", perhaps \"{near}\" is meant"));
            return Err(ConfigError::UnknownKey {
                origin: origin.to_owned(),
                key: name.to_owned(),
                hint,
            });
        };
        (key.set)(self, raw).map_err(|why| ConfigError::BadValue {
            origin: origin.to_owned(),
            key: key.name,
            why,
        })
    }
}

impl WalSync {
    const ALL: [Self; 3] = [Self::PerBatch, Self::Interval, Self::Off];

    /// Returns the setting's word.
    pub const fn as_text(self) -> &'static str {
        match self {
            Self::PerBatch => "per-batch",
            Self::Interval => "interval",
            Self::Off => "off",
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|setting| setting.as_text() == text);
        found.ok_or_else(|| format!("expected per-batch, interval or off, got \"{text}\""))
    }
}

impl Listen {
    /// Returns the address, or `off`.
    pub fn as_text(&self) -> &str {
        match self {
            Self::Off => "off",
            Self::At(address) => address,
        }
    }
}

/// Returns the `EVERWHEN_*` variables that name no key, which are likely mistakes.
pub fn unknown_variables(environment: &BTreeMap<String, String>) -> Vec<&str> {
    /// Read by other parts than the server, or by its tests.
    const OTHERS: &[&str] = &["EVERWHEN_CONFIG", "EVERWHEN_URL", "EVERWHEN_TENANT"];
    environment
        .keys()
        .map(String::as_str)
        .filter(|name| name.starts_with("EVERWHEN_") && !OTHERS.contains(name))
        .filter(|name| !name.starts_with("EVERWHEN_TEST_") || *name == "EVERWHEN_TEST_CLOCK")
        .filter(|name| KEYS.iter().all(|key| variable_of(key.name) != *name))
        .collect()
}

/// Returns the process's environment as [`Config::load`] takes it.
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn variable_of(key: &str) -> String {
    format!("EVERWHEN_{}", key.to_uppercase())
}

fn nearest(name: &str) -> Option<&'static str> {
    let shared = |key: &str| {
        let ours: Vec<char> = key.chars().collect();
        name.chars().filter(|c| ours.contains(c)).count()
    };
    KEYS.iter()
        .map(|key| key.name)
        .filter(|key| {
            let close = key.len().abs_diff(name.len()) <= 2 && shared(key) + 2 >= name.len();
            close || key.contains(name) || name.contains(key)
        })
        .max_by_key(|key| shared(key))
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn text(raw: &Raw) -> Result<String, String> {
    match raw {
        Raw::Text(text) | Raw::Toml(toml::Value::String(text)) if text.is_empty() => {
            Err("must not be empty".to_owned())
        }
        Raw::Text(text) | Raw::Toml(toml::Value::String(text)) => Ok(text.clone()),
        Raw::Toml(other) => Err(format!("expected text, got {}", other.type_str())),
    }
}

fn targets(raw: &Raw) -> Result<Vec<String>, String> {
    let named: Vec<String> = match raw {
        Raw::Text(text) => parted(text),
        Raw::Toml(toml::Value::Array(items)) => items
            .iter()
            .map(|item| match item {
                toml::Value::String(text) => Ok(text.clone()),
                other => Err(format!("expected a list of texts, got {}", other.type_str())),
            })
            .collect::<Result<_, _>>()?,
        Raw::Toml(other) => return Err(format!("expected a list, got {}", other.type_str())),
    };
    named.iter().try_for_each(|place| check_target(place))?;
    Ok(named)
}

/// Parts a text at each `:` but those within URLs.
fn parted(text: &str) -> Vec<String> {
    let mut named: Vec<String> = Vec::new();
    for part in text.split(':').filter(|part| !part.is_empty()) {
        match named.last_mut() {
            Some(last) if part.starts_with("//") && !last.contains('/') => {
                last.push(':');
                last.push_str(part);
            }
            _ => named.push(part.to_owned()),
        }
    }
    named
}

fn check_target(place: &str) -> Result<(), String> {
    let is_bucket = ["s3://", "gs://"].iter().any(|scheme| place.starts_with(scheme));
    if is_bucket || Path::new(place).is_absolute() {
        return Ok(());
    }
    Err(format!("{place} is neither an absolute path nor an s3:// or gs:// URL"))
}

fn whole(raw: &Raw, least: usize) -> Result<usize, String> {
    let number = match raw {
        Raw::Text(text) => {
            text.parse::<usize>().map_err(|_| format!("expected a whole number, got \"{text}\""))?
        }
        Raw::Toml(toml::Value::Integer(number)) => usize::try_from(*number)
            .map_err(|_| format!("expected a number from {least}, got {number}"))?,
        Raw::Toml(other) => {
            return Err(format!("expected a whole number, got {}", other.type_str()));
        }
    };
    if number < least {
        return Err(format!("must be at least {least}, is {number}"));
    }
    Ok(number)
}

fn millis(raw: &Raw) -> Result<Duration, String> {
    let number = whole(raw, 0)?;
    u64::try_from(number).map(Duration::from_millis).map_err(|error| error.to_string())
}

fn listen(raw: &Raw) -> Result<Listen, String> {
    let text = text(raw)?;
    if text == "off" {
        return Ok(Listen::Off);
    }
    let port = text.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()));
    match port {
        Some((host, Ok(_))) if !host.is_empty() => Ok(Listen::At(text)),
        _ => Err(format!("expected HOST:PORT or \"off\", got \"{text}\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn defaults_are_loopback_and_the_four_ports() {
        let config = Config::load(None, &env(&[]), &[]).unwrap();
        assert_eq!(config.http_listen.as_text(), "127.0.0.1:8080");
        assert_eq!(config.grpc_listen.as_text(), "127.0.0.1:8081");
        assert_eq!(config.postgres_listen.as_text(), "127.0.0.1:5432");
        assert_eq!(config.admin_listen.as_text(), "127.0.0.1:9090");
        assert_eq!(config.record_bytes_max, 1 << 20);
        assert!(matches!(config.check(), Err(ConfigError::NoData)));
    }

    #[test]
    fn flags_win_over_environment_and_environment_over_file() {
        let file =
            file("http_listen = \"127.0.0.1:1\"\ngrpc_listen = \"127.0.0.1:2\"\nlog = \"warn\"");
        let environment = env(&[
            ("EVERWHEN_HTTP_LISTEN", "127.0.0.1:3"),
            ("EVERWHEN_GRPC_LISTEN", "127.0.0.1:4"),
        ]);
        let flags = [("http_listen", "off".to_owned())];
        let config = Config::load(Some(file.path()), &environment, &flags).unwrap();
        assert_eq!(config.http_listen, Listen::Off);
        assert_eq!(config.grpc_listen.as_text(), "127.0.0.1:4");
        assert_eq!(config.log, "warn");
    }

    #[test]
    fn unknown_key_is_refused_with_file_and_likely_name() {
        let file = file("http_listn = \"127.0.0.1:1\"");
        let error = Config::load(Some(file.path()), &env(&[]), &[]).unwrap_err().to_string();
        assert!(error.contains("unknown key \"http_listn\""), "{error}");
        assert!(error.contains("\"http_listen\""), "{error}");
    }

    #[test]
    fn wrong_type_names_key_and_origin() {
        let file = file("record_bytes_max = \"big\"");
        let error = Config::load(Some(file.path()), &env(&[]), &[]).unwrap_err().to_string();
        assert!(error.contains("record_bytes_max") && error.contains("whole number"), "{error}");
        let environment = env(&[("EVERWHEN_WAL_SYNC", "maybe")]);
        let error = Config::load(None, &environment, &[]).unwrap_err().to_string();
        assert!(error.starts_with("EVERWHEN_WAL_SYNC") && error.contains("maybe"), "{error}");
    }

    #[test]
    fn listen_needs_host_and_port() {
        for bad in ["8080", ":8080", "localhost", "127.0.0.1:http", ""] {
            let flags = [("http_listen", bad.to_owned())];
            assert!(Config::load(None, &env(&[]), &flags).is_err(), "{bad}");
        }
        for good in ["localhost:0", "[::1]:8080", "off"] {
            let flags = [("http_listen", good.to_owned())];
            assert!(Config::load(None, &env(&[]), &flags).is_ok(), "{good}");
        }
    }

    #[test]
    fn printed_configuration_loads_back_as_the_same() {
        let flags = [
            ("data", "/tmp/with \"quotes\"".to_owned()),
            ("test_clock", "2026-01-05T09:00:00Z".to_owned()),
            ("query_timeout_ms", "0".to_owned()),
            ("wal_sync", "interval".to_owned()),
            ("wal_sync_interval_ms", "20".to_owned()),
        ];
        let config = Config::load(None, &env(&[]), &flags).unwrap();
        let printed = file(&config.to_toml());
        assert_eq!(Config::load(Some(printed.path()), &env(&[]), &[]).unwrap(), config);
    }

    #[test]
    fn delivery_inside_needs_the_grpc_listener() {
        let flags = [
            ("data", "d".to_owned()),
            ("grpc_listen", "off".to_owned()),
            ("projector", "p.toml".to_owned()),
        ];
        let config = Config::load(None, &env(&[]), &flags).unwrap();
        assert!(config.check().unwrap_err().to_string().contains("grpc_listen"));
    }

    #[test]
    fn snapshot_targets_are_a_list_of_absolute_paths_and_urls() {
        let listed = file("snapshot_targets = [\"/a\", \"/b c\", \"gs://d/e\"]\n");
        let config = Config::load(Some(listed.path()), &env(&[]), &[]).unwrap();
        assert_eq!(config.snapshot_targets, ["/a", "/b c", "gs://d/e"]);
        let variable = env(&[("EVERWHEN_SNAPSHOT_TARGETS", "/x:s3://b/p:/y:gs://c")]);
        let config = Config::load(Some(listed.path()), &variable, &[]).unwrap();
        assert_eq!(config.snapshot_targets, ["/x", "s3://b/p", "/y", "gs://c"]);
        for bad in ["[\"a\"]", "[1]", "\"relative\"", "7", "[\"ftp://x\"]"] {
            let bad = file(&format!("snapshot_targets = {bad}\n"));
            assert!(Config::load(Some(bad.path()), &env(&[]), &[]).is_err());
        }
    }

    #[test]
    fn variables_that_name_no_key_are_told() {
        let environment =
            env(&[("EVERWHEN_HTP_LISTEN", "x"), ("EVERWHEN_DATA", "d"), ("HOME", "h")]);
        assert_eq!(unknown_variables(&environment), ["EVERWHEN_HTP_LISTEN"]);
    }
}
