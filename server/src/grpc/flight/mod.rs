//! Arrow Flight SQL: statements, prepared statements, bulk ingest and the catalog, for ADBC, JDBC
//! and ODBC drivers.
//!
//! Decodes, calls a service, encodes; nothing else. `session` reads headers, `statements` runs,
//! `tickets`, `prepared` and `transactions` keep what outlives a call, `catalog` and `facts` tell what there is.

mod catalog;
mod facts;
mod front;
mod ingest;
mod prepared;
mod service;
mod session;
mod statements;
mod tickets;
mod transactions;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::sql::server::PeekableFlightDataStream;
use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use arrow_flight::{
    Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightDescriptor,
    FlightInfo, Ticket,
};
use everwhen_storage::Tenant;
use futures::TryStreamExt as _;
use prost::Message as _;
use tokio::task::JoinSet;
use tonic::{Request, Response, Status};

pub use self::front::Front;
use self::prepared::PreparedStatements;
use self::session::Session;
use self::statements::{Messages, at_hand, described};
use self::tickets::Tickets;
use self::transactions::Transactions;
use super::{Shared, told};
use crate::failure::{Answered, Failure};
use crate::service::{blocking, tenant_of};

/// How often tickets are looked through for those that nobody came for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(2);
/// Bytes of parameters that one call binds at most.
const BOUND_BYTES_MAX: usize = 64 << 20;

/// The Flight SQL service.
pub struct Flight {
    services: Shared,
    tickets: Tickets,
    prepared: PreparedStatements,
    transactions: Transactions,
    /// Sweeps the tickets for as long as the service is there.
    _sweeping: JoinSet<()>,
}

impl Flight {
    /// Builds the service, and begins to sweep its tickets.
    pub fn new(services: Shared) -> Self {
        let tickets = Tickets::default();
        let mut sweeping = JoinSet::new();
        let (swept, clock) = (tickets.clone(), Arc::clone(&services));
        sweeping.spawn(async move {
            let mut interval = tokio::time::interval(SWEEP_INTERVAL);
            loop {
                interval.tick().await;
                swept.sweep(clock.monotonic());
            }
        });
        let (prepared, transactions) = (PreparedStatements::default(), Transactions::default());
        Self { services, tickets, prepared, transactions, _sweeping: sweeping }
    }

    /// Answers the info of rows that do not depend on a statement.
    fn fixed(
        &self,
        command: &impl ProstMessageExt,
        schema: &Schema,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let info = described(request.into_inner(), command, schema);
        told(&self.services, "Flight/GetFlightInfo", info)
    }

    /// Answers rows that are computed at once, off the async threads.
    async fn computed(
        &self,
        request: Request<Ticket>,
        rows: impl FnOnce(&Shared, &Tenant) -> Answered<RecordBatch> + Send + 'static,
    ) -> Result<Response<Messages>, Status> {
        let tenant = Session::of(request.metadata())
            .and_then(|session| tenant_of(session.tenant.as_deref()));
        let services = Arc::clone(&self.services);
        let answer = match tenant {
            Ok(tenant) => blocking(move || rows(&services, &tenant)).await,
            Err(failure) => Err(failure),
        };
        let answer = answer.map(|batch| at_hand(batch.schema(), vec![batch]));
        told(&self.services, "Flight/DoGet", answer)
    }

    /// Binds the parameters of a stream to a prepared statement.
    async fn bind(&self, handle: &[u8], stream: PeekableFlightDataStream) -> Answered<()> {
        let mut batches = batches_of(stream);
        let (mut bound, mut bytes) = (Vec::new(), 0);
        while let Some(batch) = batches.try_next().await.map_err(wrong_stream)? {
            bytes += batch.get_array_memory_size();
            if bytes > BOUND_BYTES_MAX {
                let detail = format!("more than {BOUND_BYTES_MAX} bytes of parameters");
                return Err(Failure::of_sqlstate("54000", detail)
                    .with_hint("bind fewer rows at a time, or load them in bulk"));
            }
            if batch.num_rows() > 0 && batch.num_columns() > 0 {
                bound.push(batch);
            }
        }
        self.prepared.bind(self.services.monotonic(), handle, bound)
    }

    /// Takes a flight back, whether or not its rows are under way.
    fn cancel(&self, session: &Session, info: Option<&FlightInfo>) -> Answered<CancelStatus> {
        let tenant = tenant_of(session.tenant.as_deref())?;
        let tickets = info.into_iter().flat_map(|info| &info.endpoint);
        let handle = tickets
            .filter_map(|endpoint| endpoint.ticket.as_ref())
            .find_map(statement_handle)
            .ok_or_else(|| Failure::request("the flight's info holds no ticket of a statement"))?;
        let Some(query) = self.tickets.cancel(&tenant, &handle)? else {
            return Ok(CancelStatus::NotCancellable);
        };
        // One that has ended by itself is as good as cancelled.
        let _ = self.services.running.cancel(&tenant, &query);
        Ok(CancelStatus::Cancelled)
    }

    fn cancel_flight_info(&self, request: &Request<Action>) -> Answered<CancelFlightInfoResult> {
        let session = Session::of(request.metadata())?;
        let wrong = |_| Failure::request("the action holds no CancelFlightInfoRequest");
        let asked = CancelFlightInfoRequest::decode(&*request.get_ref().body).map_err(wrong)?;
        let status = self.cancel(&session, asked.info.as_ref())?;
        Ok(CancelFlightInfoResult { status: i32::from(status) })
    }
}

/// Returns the batches of a stream. A message may hold nothing but the command that it is for.
fn batches_of(stream: PeekableFlightDataStream) -> FlightRecordBatchStream {
    let messages = stream
        .try_filter(|message| std::future::ready(!message.data_header.is_empty()))
        .map_err(FlightError::from);
    FlightRecordBatchStream::new_from_flight_data(messages)
}

/// Returns the handle within a statement's ticket.
fn statement_handle(ticket: &Ticket) -> Option<String> {
    let any = arrow_flight::sql::Any::decode(&*ticket.ticket).ok()?;
    let ticket = any.unpack::<TicketStatementQuery>().ok()??;
    String::from_utf8(ticket.statement_handle.to_vec()).ok()
}

fn wrong_stream(error: FlightError) -> Failure {
    match error {
        FlightError::Tonic(status) => Failure::request(status.message().to_owned()),
        other => Failure::request(format!("the stream of parameters is wrong: {other}")),
    }
}
