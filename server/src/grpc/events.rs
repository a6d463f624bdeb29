//! `EventService`: records for a stream's mappings.

use everwhen_ingest::EmitEvent;
use everwhen_proto::v1::event_service_server::EventService;
use everwhen_proto::v1::{EmitRequest, EmitResponse, Event, Rejection};
use tonic::{Request, Response, Status};

use super::{Shared, given, told};
use crate::failure::Answered;
use crate::service::events::emit;
use crate::service::instant_of;

pub(super) struct Events(pub(super) Shared);

#[tonic::async_trait]
impl EventService for Events {
    async fn emit(&self, request: Request<EmitRequest>) -> Result<Response<EmitResponse>, Status> {
        let answer = self.answer(request.into_inner()).await;
        told(&self.0, "Event/Emit", answer)
    }
}

impl Events {
    async fn answer(&self, request: EmitRequest) -> Answered<EmitResponse> {
        let tenant = given(request.tenant);
        let events = request.events.into_iter().enumerate().map(|(index, e)| event(index, e));
        let events = events.collect::<Answered<_>>()?;
        let emitted = emit(&self.0, &request.stream, tenant.as_deref(), events).await?;
        let rejected = emitted.rejected.into_iter().map(|(index, reason)| Rejection {
            index: u64::try_from(index).unwrap_or(u64::MAX),
            reason,
        });
        Ok(EmitResponse {
            tx: emitted.tx.get(),
            accepted: emitted.accepted,
            rejected: rejected.collect(),
            basis: emitted.basis,
        })
    }
}

fn event(index: usize, event: Event) -> Answered<EmitEvent> {
    let place = format!("events[{index}].timestamp");
    let timestamp = given(event.timestamp).map(|text| instant_of(&place, &text)).transpose()?;
    Ok(EmitEvent {
        key: (!event.key.is_empty()).then_some(event.key),
        value: event.value,
        timestamp,
        headers: event
            .headers
            .into_iter()
            .map(|(name, value)| (name, value.into_bytes()))
            .collect(),
    })
}
