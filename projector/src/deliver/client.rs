//! The server's projection service, as a worker sees it. The channel reconnects by itself.

use std::time::Duration;

use everwhen_proto::v1::projection_service_client::ProjectionServiceClient;
use everwhen_proto::v1::{
    AckRequest, Chunk, FailRequest, Lease, LeaseRequest, NextRequest, RefusedChange, ReleaseRequest,
};
use tonic::transport::{Channel, Endpoint};

use super::error::{RefusedRow, Result};
use super::target::Target;

/// A chunk of rows is far below this; a few large rows may come near it.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// How long a call may take beyond the wait it asks for.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// What an acknowledgement says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ack {
    /// The last change that is durable.
    pub change: u64,
    /// Changes of the chunk that were passed over.
    pub refused: Vec<u64>,
    /// The first change whose fate is known; 0 if nothing was decided.
    pub decided_from: u64,
}

/// A connection to the server; clones share it.
#[derive(Clone)]
pub struct Client {
    service: ProjectionServiceClient<Channel>,
    worker: String,
}

impl Client {
    /// Prepares a connection to `server`, which is made with the first call.
    ///
    /// # Errors
    /// [`Error::Address`](super::Error::Address) if `server` is no address.
    pub fn connect(server: &str, worker: &str) -> Result<Self> {
        let channel = Endpoint::from_shared(server.to_owned())?
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(10))
            .connect_lazy();
        let service = ProjectionServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Self { service, worker: worker.to_owned() })
    }

    /// Takes leases on projections into `sinks` that nobody holds.
    ///
    /// # Errors
    /// What the server or the network says.
    pub async fn lease(&self, sinks: Vec<String>) -> Result<Vec<Lease>> {
        let request = timed(LeaseRequest { worker: self.worker.clone(), sinks }, Duration::ZERO);
        Ok(self.service.clone().lease(request).await?.into_inner().leases)
    }

    /// Waits up to `wait` for the next chunk; renews the lease.
    ///
    /// # Errors
    /// What the server or the network says.
    pub async fn next(&self, target: &Target, wait: Duration) -> Result<Option<Chunk>> {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let projection = target.projection.clone();
        let request = timed(NextRequest { projection, lease: target.lease, wait_ms }, wait);
        Ok(self.service.clone().next(request).await?.into_inner().chunk)
    }

    /// Says that everything up to `ack.change` is durable or passed over.
    ///
    /// # Errors
    /// What the server or the network says.
    pub async fn ack(&self, target: &Target, ack: Ack) -> Result<()> {
        let projection = target.projection.clone();
        let Ack { change, refused, decided_from } = ack;
        let request = AckRequest { projection, lease: target.lease, change, refused, decided_from };
        self.service.clone().ack(timed(request, Duration::ZERO)).await?;
        Ok(())
    }

    /// Says what the sink refuses; with `reload`, that it lost rows and needs all of them again.
    ///
    /// # Errors
    /// What the server or the network says.
    pub async fn fail(&self, target: &Target, error: String, reload: bool) -> Result<()> {
        let projection = target.projection.clone();
        let refused = Vec::new();
        let request = FailRequest { projection, lease: target.lease, error, reload, refused };
        self.service.clone().fail(timed(request, Duration::ZERO)).await?;
        Ok(())
    }

    /// Says which rows of the chunk under way the sink refuses. When it returns, the server holds
    /// their keys durably.
    ///
    /// # Errors
    /// What the server or the network says.
    pub async fn refuse(&self, target: &Target, rows: &[RefusedRow]) -> Result<()> {
        let of =
            |row: &RefusedRow| RefusedChange { change: row.change, reason: row.reason.clone() };
        let request = FailRequest {
            projection: target.projection.clone(),
            lease: target.lease,
            refused: rows.iter().map(of).collect(),
            ..FailRequest::default()
        };
        self.service.clone().fail(timed(request, Duration::ZERO)).await?;
        Ok(())
    }

    /// Gives all leases back.
    ///
    /// # Errors
    /// What the server or the network says.
    pub async fn release(&self) -> Result<()> {
        let request = ReleaseRequest { worker: self.worker.clone() };
        self.service.clone().release(timed(request, Duration::ZERO)).await?;
        Ok(())
    }
}

fn timed<T>(message: T, beyond: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_TIMEOUT + beyond);
    request
}
