//! `everwhen serve`.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;

use super::signals::StopSignals;
use crate::app::{App, clock_of};
use crate::config::{Config, environment, unknown_variables};
use crate::telemetry;

/// What `serve` and `config` are told: a file, and keys that win over it.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Data directory; made where it does not exist.
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Configuration file (TOML); see `everwhen config print`.
    #[arg(long, value_name = "FILE", env = "EVERWHEN_CONFIG")]
    config: Option<PathBuf>,
    /// HTTP address HOST:PORT; port 0 picks one, "off" turns it off [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDRESS")]
    http_listen: Option<String>,
    /// gRPC address, likewise [default: 127.0.0.1:8081].
    #[arg(long, value_name = "ADDRESS")]
    grpc_listen: Option<String>,
    /// Postgres wire address, likewise [default: 127.0.0.1:5432].
    #[arg(long, value_name = "ADDRESS")]
    postgres_listen: Option<String>,
    /// Address of health end points and metrics, likewise [default: 127.0.0.1:9090].
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<String>,
    /// Delivers projections from inside the server, with this delivery configuration.
    #[arg(long, value_name = "FILE")]
    projector: Option<String>,
    /// Starts a manual clock at this instant, for tests: POST /v1/test/clock moves it.
    #[arg(long, value_name = "INSTANT")]
    test_clock: Option<String>,
    /// Log filter: error, warn, info, debug, trace [default: info].
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

impl Arguments {
    /// Builds the configuration from file, environment and flags.
    ///
    /// # Errors
    /// What is wrong, and where it stands.
    pub(super) fn load(&self) -> anyhow::Result<Config> {
        let flags: Vec<(&str, String)> = [
            ("data", &self.data),
            ("http_listen", &self.http_listen),
            ("grpc_listen", &self.grpc_listen),
            ("postgres_listen", &self.postgres_listen),
            ("admin_listen", &self.admin_listen),
            ("projector", &self.projector),
            ("test_clock", &self.test_clock),
            ("log", &self.log),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.clone()?)))
        .collect();
        Ok(Config::load(self.config.as_deref(), &environment(), &flags)?)
    }
}

/// Runs the server until it is told to stop.
///
/// # Errors
/// Where it cannot start, or a part of it fails.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let config = arguments.load()?;
    config.check()?;
    telemetry::init(&config.log);
    for name in unknown_variables(&environment()) {
        tracing::warn!(variable = name, "environment variable names no configuration key");
    }
    let mut signals = StopSignals::listen().context("cannot listen for signals")?;
    let clock = clock_of(&config);
    let starting = App::start(config, clock);
    let mut app = tokio::select! {
        app = starting => app?,
        () = signals.wait() => return Ok(()),
    };
    // Whoever started the server may have gone: that is no reason to stop.
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{}", app.endpoints.ready_line()).and_then(|()| out.flush());
    let failure = tokio::select! {
        () = signals.wait() => None,
        error = app.failed() => Some(error),
    };
    if let Some(error) = &failure {
        tracing::error!(%error, "a part of the server failed: stopping");
    }
    tokio::select! {
        stopped = app.shutdown() => stopped?,
        () = signals.wait() => anyhow::bail!("stopped at once by a second signal"),
    }
    failure.map_or(Ok(()), |error| Err(error.into()))
}
