//! `ProjectionService`: delivery's end of every projection.

use std::sync::Arc;
use std::time::Duration;

use everwhen_projector::compute::{Acked, Chunk, LeaseGrant, ProjectionStatus, RefusedRow};
use everwhen_proto::v1 as proto;
use everwhen_proto::v1::projection_service_server::ProjectionService;
use tonic::{Request, Response, Status};

use super::{Shared, told};
use crate::service::project::{self, Refusal};

pub(super) struct Delivery(pub(super) Shared);

#[tonic::async_trait]
impl ProjectionService for Delivery {
    async fn list(
        &self,
        _request: Request<proto::ListProjectionsRequest>,
    ) -> Result<Response<proto::ListProjectionsResponse>, Status> {
        let services = Arc::clone(&self.0);
        let listed = crate::service::blocking(move || Ok(project::list(&services))).await;
        let answer = listed.map(|projections| proto::ListProjectionsResponse {
            projections: projections.into_iter().map(status_message).collect(),
        });
        told(&self.0, "Projection/List", answer)
    }

    async fn lease(
        &self,
        request: Request<proto::LeaseRequest>,
    ) -> Result<Response<proto::LeaseResponse>, Status> {
        let request = request.into_inner();
        let leases = project::lease(&self.0, request.worker, request.sinks).await;
        let answer = leases.map(|leases| proto::LeaseResponse {
            leases: leases.into_iter().map(lease_message).collect(),
        });
        told(&self.0, "Projection/Lease", answer)
    }

    async fn next(
        &self,
        request: Request<proto::NextRequest>,
    ) -> Result<Response<proto::NextResponse>, Status> {
        let request = request.into_inner();
        let wait = Duration::from_millis(request.wait_ms);
        let chunk = project::next(&self.0, &request.projection, request.lease, wait).await;
        let answer = chunk.map(|chunk| proto::NextResponse { chunk: chunk.map(chunk_message) });
        told(&self.0, "Projection/Next", answer)
    }

    async fn ack(
        &self,
        request: Request<proto::AckRequest>,
    ) -> Result<Response<proto::AckResponse>, Status> {
        let proto::AckRequest { projection, lease, change, refused, decided_from } =
            request.into_inner();
        let acked = Acked { change, refused, decided_from };
        let done = project::ack(&self.0, projection, lease, acked).await;
        told(&self.0, "Projection/Ack", done.map(|()| proto::AckResponse {}))
    }

    async fn fail(
        &self,
        request: Request<proto::FailRequest>,
    ) -> Result<Response<proto::FailResponse>, Status> {
        let proto::FailRequest { projection, lease, error, reload, refused } = request.into_inner();
        let row = |row: proto::RefusedChange| RefusedRow { change: row.change, reason: row.reason };
        let rows = refused.into_iter().map(row).collect();
        let refusal = Refusal { projection, lease, error, reload, rows };
        let done = project::fail(&self.0, refusal).await;
        told(&self.0, "Projection/Fail", done.map(|()| proto::FailResponse {}))
    }

    async fn release(
        &self,
        request: Request<proto::ReleaseRequest>,
    ) -> Result<Response<proto::ReleaseResponse>, Status> {
        project::release(&self.0, &request.into_inner().worker);
        told(&self.0, "Projection/Release", Ok(proto::ReleaseResponse {}))
    }
}

fn status_message(status: ProjectionStatus) -> proto::ProjectionStatus {
    proto::ProjectionStatus {
        projection: status.projection,
        generation: status.generation,
        state: status.state,
        delivered_tx: status.delivered_tx,
        delivered_now: status.delivered_now.map(|now| now.to_string()).unwrap_or_default(),
        latest_tx: status.latest_tx,
        pending_keys: status.pending_keys,
        error: status.error.unwrap_or_default(),
        held_keys: status.held_keys,
        uncovered_tenants: status.uncovered_tenants,
    }
}

fn lease_message(grant: LeaseGrant) -> proto::Lease {
    let column = |column: everwhen_projector::compute::OutputColumn| proto::SinkColumn {
        name: column.name,
        r#type: column.kind.to_string(),
        nullable: column.nullable,
    };
    proto::Lease {
        projection: grant.projection,
        lease: grant.lease,
        generation: grant.generation,
        sink: grant.sink,
        table: grant.table,
        columns: grant.columns.into_iter().map(column).collect(),
        key: grant.key,
        metadata: grant.metadata,
        acked_change: grant.acked_change,
        lease_ms: grant.lease_ms,
        incarnation: grant.incarnation,
    }
}

fn chunk_message(chunk: Chunk) -> proto::Chunk {
    let change = |change: &everwhen_projector::compute::RowChange| proto::RowChange {
        row_json: change.row_json.clone(),
        delete: change.delete,
    };
    proto::Chunk {
        projection: chunk.projection,
        generation: chunk.generation,
        tx: chunk.tx,
        first_change: chunk.first_change,
        changes: chunk.changes.iter().map(change).collect(),
        last: chunk.last,
        reload_begin: chunk.reload_begin,
        reload_end: chunk.reload_end,
    }
}
