//! Takes connections, knows which of them can be cancelled, and ends them in order.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::connection;
use crate::service::Services;

/// The running statements of all connections, by what their clients were told to cancel with.
#[derive(Debug, Default)]
pub struct Running {
    next: AtomicU32,
    statements: Mutex<HashMap<(u32, u32), CancellationToken>>,
}

/// A connection's place among those that can be cancelled.
#[derive(Debug)]
pub struct Place {
    running: Arc<Running>,
    pub process: u32,
    pub secret: u32,
}

impl Running {
    /// Gives a connection its number and secret.
    pub fn place(self: &Arc<Self>) -> Place {
        let process = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = uuid::Uuid::new_v4().into_bytes();
        let secret = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        Place { running: Arc::clone(self), process, secret }
    }

    /// Cancels the statement of a connection, where it runs one.
    pub fn cancel(&self, process: u32, secret: u32) {
        if let Some(statement) = self.statements.lock().get(&(process, secret)) {
            statement.cancel();
        }
    }
}

impl Place {
    /// Returns what is cancelled for as long as the guard lives.
    pub fn begin(&self) -> (CancellationToken, Statement<'_>) {
        let token = CancellationToken::new();
        self.running.statements.lock().insert((self.process, self.secret), token.clone());
        (token, Statement(self))
    }
}

/// A statement that can be cancelled until this is dropped.
#[derive(Debug)]
pub struct Statement<'a>(&'a Place);

impl Drop for Statement<'_> {
    fn drop(&mut self) {
        self.0.running.statements.lock().remove(&(self.0.process, self.0.secret));
    }
}

/// Serves connections until `stop`, then lets their statements end.
///
/// # Errors
/// Where no more connections can be taken.
pub async fn serve(
    listener: TcpListener,
    services: Arc<Services>,
    connections_max: usize,
    stop: CancellationToken,
) -> Result<(), String> {
    let running = Arc::new(Running::default());
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a Postgres connection ended in an unforeseen way");
                }
                continue;
            }
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            // A connection that was gone again, or no more file handles for a while.
            Err(error) => {
                tracing::warn!(%error, "a Postgres connection was not taken");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let full = connections.len() >= connections_max;
        let (services, running) = (Arc::clone(&services), Arc::clone(&running));
        let stop = stop.clone();
        connections.spawn(async move {
            connection::serve(stream, services, running, full, stop).await;
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    Ok(())
}
