//! The delivery process's own configuration. Sinks and their credentials are named here alone: no
//! client of the database can reach a file or an account through SQL.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::error::{Error, Result};
use super::retry::RetryConfig;

/// What delivery works with.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliverConfig {
    /// The server's gRPC address, such as `http://127.0.0.1:8081`; the command line may give it.
    #[serde(default)]
    pub server: String,
    /// The process's name in leases; made up if empty. Two processes must not share one.
    #[serde(default)]
    pub worker: String,
    /// Sinks by the name that `INTO name.table` uses.
    #[serde(default)]
    pub sinks: BTreeMap<String, SinkConfig>,
    /// Waiting between tries.
    #[serde(default)]
    pub retry: RetryConfig,
    /// How often to look for projections that nobody holds.
    #[serde(default = "lease_poll_ms")]
    pub lease_poll_ms: u64,
}

const fn lease_poll_ms() -> u64 {
    200
}

/// One sink.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum SinkConfig {
    /// A SQLite file.
    Sqlite {
        /// The file; made if it is missing.
        path: PathBuf,
    },
    /// A BigQuery dataset.
    BigQuery(BigQueryConfig),
}

/// A BigQuery dataset.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BigQueryConfig {
    /// The project that owns the dataset and pays for the queries.
    pub project: String,
    /// The dataset; made if it is missing.
    pub dataset: String,
    /// Where a dataset is made: a region such as `EU`.
    pub location: Option<String>,
    /// A service account's key file. Needed unless `endpoint` is given.
    pub credentials: Option<PathBuf>,
    /// Another address of the REST API, without authentication: an emulator's.
    pub endpoint: Option<String>,
}

impl DeliverConfig {
    /// Reads a TOML text.
    ///
    /// # Errors
    /// [`Error::Config`] with the place of what is wrong, unknown keys too.
    pub fn from_toml(text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|error| Error::Config {
            what: "delivery".into(),
            detail: error.to_string().trim_end().replace('\n', " "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_sink_are_read() {
        let config = DeliverConfig::from_toml(
            r#"
            [sinks.warehouse]
            type = "sqlite"
            path = "warehouse.db"
            [sinks.lake]
            type = "bigquery"
            project = "p"
            dataset = "d"
            endpoint = "http://127.0.0.1:9050"
            "#,
        )
        .unwrap();
        let path = PathBuf::from("warehouse.db");
        assert_eq!(config.sinks.get("warehouse"), Some(&SinkConfig::Sqlite { path }));
        let Some(SinkConfig::BigQuery(lake)) = config.sinks.get("lake") else {
            unreachable!("lake is a BigQuery sink")
        };
        assert_eq!((lake.project.as_str(), lake.dataset.as_str()), ("p", "d"));
    }

    #[test]
    fn unknown_keys_are_refused() {
        for text in [
            "sink = 1",
            "[sinks.a]\ntype = \"sqlite\"\npath = \"x\"\nsize = 3",
            "[sinks.a]\ntype = \"bigquery\"\nproject = \"p\"\ndataset = \"d\"\ntable = \"t\"",
            "[sinks.a]\ntype = \"oracle\"",
        ] {
            let error = DeliverConfig::from_toml(text).unwrap_err();
            assert!(error.to_string().contains("unknown"), "{text}: {error}");
        }
    }
}
