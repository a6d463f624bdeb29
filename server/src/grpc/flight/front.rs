//! Flight's own methods: those of Flight SQL go through, and `GetSchema` is told without running
//! the statement.

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{Any, Command};
use arrow_flight::{
    Action, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, PollInfo,
    SchemaResult, Ticket,
};
use prost::Message as _;
use tonic::{Request, Response, Status, Streaming};

use super::Flight;
use super::session::Session;
use crate::failure::{Answered, Failure};
use crate::grpc::told;

/// The service as the listener has it.
pub struct Front(pub Flight);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl FlightService for Front {
    type HandshakeStream = <Flight as FlightService>::HandshakeStream;
    type ListFlightsStream = <Flight as FlightService>::ListFlightsStream;
    type DoGetStream = <Flight as FlightService>::DoGetStream;
    type DoPutStream = <Flight as FlightService>::DoPutStream;
    type DoActionStream = <Flight as FlightService>::DoActionStream;
    type ListActionsStream = <Flight as FlightService>::ListActionsStream;
    type DoExchangeStream = <Flight as FlightService>::DoExchangeStream;

    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Answer<Self::HandshakeStream> {
        self.0.handshake(request).await
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Answer<Self::ListFlightsStream> {
        self.0.list_flights(request).await
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Answer<FlightInfo> {
        self.0.get_flight_info(request).await
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Answer<PollInfo> {
        self.0.poll_flight_info(request).await
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Answer<SchemaResult> {
        match command(request.get_ref()) {
            Some(Command::CommandStatementQuery(query)) => {
                let answer = async {
                    let session = Session::of(request.metadata())?;
                    self.0.schema_of(&session, &query.query).await
                };
                told(&self.0.services, "Flight/GetSchema", answer.await)
            }
            Some(Command::CommandPreparedStatementQuery(query)) => {
                let answer = async {
                    let handle = &query.prepared_statement_handle;
                    let prepared = self.0.prepared.get(self.0.services.monotonic(), handle)?;
                    let session = Session::of(request.metadata())?.or(&prepared.session);
                    self.0.schema_of(&session, &prepared.sql).await
                };
                told(&self.0.services, "Flight/GetSchema", answer.await)
            }
            _ => {
                let info = self.0.get_flight_info(request).await?.into_inner();
                Ok(Response::new(SchemaResult { schema: info.schema }))
            }
        }
    }

    async fn do_get(&self, request: Request<Ticket>) -> Answer<Self::DoGetStream> {
        self.0.do_get(request).await
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Answer<Self::DoPutStream> {
        self.0.do_put(request).await
    }

    async fn do_action(&self, request: Request<Action>) -> Answer<Self::DoActionStream> {
        self.0.do_action(request).await
    }

    async fn list_actions(&self, request: Request<Empty>) -> Answer<Self::ListActionsStream> {
        self.0.list_actions(request).await
    }

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Answer<Self::DoExchangeStream> {
        self.0.do_exchange(request).await
    }
}

impl Flight {
    /// Returns the columns of a statement's rows, without running it.
    async fn schema_of(&self, session: &Session, sql: &str) -> Answered<SchemaResult> {
        let schema = self.columns_of(session, sql).await?;
        let detail = "the statement answers no rows";
        let schema = schema.ok_or_else(|| Failure::of_sqlstate("0A000", detail.to_owned()))?;
        Ok(SchemaResult { schema })
    }
}

/// Returns the command of a descriptor; nothing where it is of no known kind.
fn command(descriptor: &FlightDescriptor) -> Option<Command> {
    let any = Any::decode(&*descriptor.cmd).ok()?;
    Command::try_from(any).ok()
}
