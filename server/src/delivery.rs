//! Delivery run inside the server, for one machine: the same loop as the separate process, over
//! the server's own gRPC listener.

use std::path::Path;
use std::time::Duration;

use everwhen_projector::deliver::{self, DeliverConfig};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::app::Error;

/// A delivery loop under way.
pub struct Delivery {
    stop: CancellationToken,
    task: JoinHandle<deliver::Result<()>>,
}

/// Reads a delivery configuration for the server at `server`.
///
/// # Errors
/// [`Error::Delivery`] with what is wrong in the file.
pub fn configuration(file: &Path, server: &str) -> Result<DeliverConfig, Error> {
    let told = |why: String| Error::Delivery(format!("{}: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| told(error.to_string()))?;
    let mut config = DeliverConfig::from_toml(&text).map_err(|error| told(chain(&error)))?;
    server.clone_into(&mut config.server);
    Ok(config)
}

impl Delivery {
    /// Begins to deliver.
    pub fn start(config: DeliverConfig) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(deliver::run(config, stop.clone()));
        Self { stop, task }
    }

    /// Waits until it ends by itself.
    pub async fn failed(&mut self) -> Error {
        match (&mut self.task).await {
            Ok(Ok(())) => Error::Delivery("it ended by itself".to_owned()),
            Ok(Err(error)) => Error::Delivery(chain(&error)),
            Err(error) => Error::Delivery(error.to_string()),
        }
    }

    /// Lets it end what it writes and give its leases back, at most for `drain`.
    pub async fn stop(mut self, drain: Duration) {
        self.stop.cancel();
        if self.task.is_finished() {
            return;
        }
        if tokio::time::timeout(drain, &mut self.task).await.is_err() {
            tracing::warn!("delivery was cut off: the drain time is over");
            self.task.abort();
        }
    }
}

/// Prints an error and its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let told = inner.to_string();
        if !text.contains(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        cause = inner.source();
    }
    text
}
