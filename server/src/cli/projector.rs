//! `everwhen projector`: delivery as a process of its own. Stateless: the server keeps the cursor.

use std::path::PathBuf;

use anyhow::Context as _;
use everwhen_projector::deliver;
use tokio_util::sync::CancellationToken;

use super::signals::StopSignals;
use crate::{delivery, telemetry};

/// Which server to lease from, and where its sinks are configured.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// URL of the server's gRPC listener.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8081")]
    server: String,
    /// Delivery configuration (TOML): `[sinks.NAME]` with type and place.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Log filter: error, warn, info, debug, trace.
    #[arg(long, value_name = "FILTER", env = "EVERWHEN_LOG", default_value = "info")]
    log: String,
}

/// Delivers until it is told to stop. The server may be away at the start and at any time.
///
/// # Errors
/// Where the configuration cannot work.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    telemetry::check_filter(&arguments.log).map_err(anyhow::Error::msg)?;
    let config = delivery::configuration(&arguments.config, &arguments.server)?;
    telemetry::init(&arguments.log);
    let mut signals = StopSignals::listen().context("cannot listen for signals")?;
    let stop = CancellationToken::new();
    let delivering = deliver::run(config, stop.clone());
    tokio::pin!(delivering);
    tokio::select! {
        ended = &mut delivering => return Ok(ended?),
        () = signals.wait() => stop.cancel(),
    }
    tokio::select! {
        ended = &mut delivering => Ok(ended?),
        () = signals.wait() => anyhow::bail!("stopped at once by a second signal"),
    }
}
