//! The gRPC front end: SQL as Arrow, Flight SQL, events, delivery of projections, health and
//! reflection.
//!
//! Decodes, calls a service, encodes; nothing else.

mod events;
mod flight;
mod projections;
mod query;

use std::sync::Arc;

use arrow_flight::flight_service_server::FlightServiceServer;
use everwhen_proto::v1 as proto;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::service::Routes;
use tonic::{Code as Grpc, Status};

use crate::failure::Failure;
use crate::service::Services;

/// The state every service has.
type Shared = Arc<Services>;

/// Builds all services of the gRPC listener.
///
/// # Errors
/// Where the descriptors for reflection cannot be read.
pub async fn routes(services: Arc<Services>) -> Result<Routes, tonic_reflection::server::Error> {
    use proto::event_service_server::EventServiceServer;
    use proto::projection_service_server::ProjectionServiceServer;
    use proto::query_service_server::QueryServiceServer;

    let bytes_max = services.limits.body_bytes_max;
    let query = query::Queries(Arc::clone(&services));
    let query = QueryServiceServer::new(query).max_decoding_message_size(bytes_max);
    let events = events::Events(Arc::clone(&services));
    let events = EventServiceServer::new(events).max_decoding_message_size(bytes_max);
    let flight = flight::Front(flight::Flight::new(Arc::clone(&services)));
    let flight = FlightServiceServer::new(flight).max_decoding_message_size(bytes_max);
    let projections = ProjectionServiceServer::new(projections::Delivery(services));

    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<QueryServiceServer<query::Queries>>().await;
    health.set_serving::<EventServiceServer<events::Events>>().await;
    health.set_serving::<FlightServiceServer<flight::Front>>().await;
    health.set_serving::<ProjectionServiceServer<projections::Delivery>>().await;

    let describe = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(Routes::new(query)
        .add_service(events)
        .add_service(flight)
        .add_service(projections)
        .add_service(health_service)
        .add_service(describe().build_v1()?)
        .add_service(describe().build_v1alpha()?))
}

/// Counts a call's outcome and turns a failure into a status.
fn told<T>(
    services: &Services,
    method: &'static str,
    answer: Result<T, Failure>,
) -> Result<tonic::Response<T>, Status> {
    let code = answer.as_ref().err().map_or(Grpc::Ok, |failure| failure.code.entry().grpc);
    let code = format!("{code:?}");
    let labels = [("method", method), ("code", code.as_str())];
    services.metrics.add("everwhen_grpc_requests_total", &labels, 1);
    match answer {
        Ok(message) => Ok(tonic::Response::new(message)),
        Err(failure) => {
            let labels = [("code", failure.code.entry().name)];
            services.metrics.add("everwhen_errors_total", &labels, 1);
            Err(failure.into())
        }
    }
}

impl From<Failure> for Status {
    /// Puts what has no field of its own in metadata: `everwhen-code`, `sqlstate`, `position`,
    /// `hint`.
    fn from(failure: Failure) -> Self {
        let entry = failure.code.entry();
        let mut metadata = MetadataMap::new();
        let mut tell = |name: &'static str, value: &str| {
            if let Ok(value) = MetadataValue::try_from(value) {
                metadata.insert(name, value);
            }
        };
        tell("everwhen-code", entry.name);
        tell("sqlstate", &failure.sqlstate);
        if let Some(position) = failure.position {
            tell("position", &position.to_string());
        }
        if let Some(hint) = &failure.hint {
            tell("hint", hint);
        }
        Self::with_metadata(entry.grpc, failure.detail, metadata)
    }
}

/// Takes a proto3 text: empty is absent.
fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
