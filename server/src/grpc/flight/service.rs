//! The methods of Flight SQL, each a few lines over [`Flight`]'s own.

use std::pin::Pin;

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::metadata::GetCatalogsBuilder;
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionBeginTransactionRequest, ActionBeginTransactionResult, ActionCancelQueryRequest,
    ActionCancelQueryResult, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    ActionEndTransactionRequest, CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas,
    CommandGetExportedKeys, CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetSqlInfo,
    CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo, CommandPreparedStatementQuery,
    CommandPreparedStatementUpdate, CommandStatementIngest, CommandStatementQuery,
    CommandStatementUpdate, DoPutPreparedStatementResult, EndTransaction, SqlInfo,
    TicketStatementQuery,
};
use arrow_flight::{
    Action, ActionType, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse, Ticket,
};
use bytes::Bytes;
use everwhen_query::Params;
use futures::Stream;
use prost::Message as _;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};

use super::prepared::Prepared;
use super::session::Session;
use super::statements::{Messages, prepared_query};
use super::{Flight, catalog, facts, ingest};
use crate::failure::{Answered, Failure};
use crate::grpc::told;

/// The action that takes a flight back.
const CANCEL_FLIGHT_INFO: &str = "CancelFlightInfo";

type Info = Result<Response<FlightInfo>, Status>;
type Handshakes = Pin<Box<dyn Stream<Item = Result<HandshakeResponse, Status>> + Send>>;

impl Flight {
    /// Counts a call's outcome where its answer has no headers of its own.
    fn tell<T>(&self, method: &'static str, answer: Answered<T>) -> Result<T, Status> {
        told(&self.services, method, answer).map(Response::into_inner)
    }
}

#[tonic::async_trait]
impl FlightSqlService for Flight {
    type FlightService = Self;

    /// There is no authentication yet: whoever shakes hands gets a token, and it opens nothing.
    async fn do_handshake(
        &self,
        _request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Handshakes>, Status> {
        let token = uuid::Uuid::new_v4().simple().to_string();
        let answer = HandshakeResponse { protocol_version: 0, payload: Bytes::from(token.clone()) };
        let answers: Handshakes = Box::pin(futures::stream::iter([Ok(answer)]));
        let mut response = told(&self.services, "Flight/Handshake", Ok(answers))?;
        if let Ok(bearer) = MetadataValue::try_from(format!("Bearer {token}")) {
            response.metadata_mut().insert("authorization", bearer);
        }
        Ok(response)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Info {
        let answer = async {
            refuse_query_in(given(query.transaction_id).as_ref())?;
            let session = Session::of(request.metadata())?;
            let statement = session.statement(query.query);
            self.info(&session, statement, request.into_inner()).await
        };
        told(&self.services, "Flight/GetFlightInfo", answer.await)
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Info {
        let answer = async {
            let handle = &query.prepared_statement_handle;
            let prepared = self.prepared.get(self.services.monotonic(), handle)?;
            refuse_query_in(prepared.transaction.as_ref())?;
            let session = Session::of(request.metadata())?.or(&prepared.session);
            let statement = prepared_query(&prepared, &session)?;
            self.info(&session, statement, request.into_inner()).await
        };
        told(&self.services, "Flight/GetFlightInfo", answer.await)
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Info {
        self.fixed(&query, &GetCatalogsBuilder::new().schema(), request)
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Info {
        let schema = query.clone().into_builder().schema();
        self.fixed(&query, &schema, request)
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Info {
        let schema = query.clone().into_builder().schema();
        self.fixed(&query, &schema, request)
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Info {
        self.fixed(&query, &query.into_builder().schema(), request)
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Info {
        let schema = self.tell("Flight/GetFlightInfo", facts::sql_info(query.clone()))?.schema();
        self.fixed(&query, &schema, request)
    }

    async fn get_flight_info_primary_keys(
        &self,
        query: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Info {
        self.fixed(&query, &catalog::primary_keys_schema(), request)
    }

    async fn get_flight_info_exported_keys(
        &self,
        query: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Info {
        self.fixed(&query, &catalog::references_schema(), request)
    }

    async fn get_flight_info_imported_keys(
        &self,
        query: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Info {
        self.fixed(&query, &catalog::references_schema(), request)
    }

    async fn get_flight_info_cross_reference(
        &self,
        query: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Info {
        self.fixed(&query, &catalog::references_schema(), request)
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Info {
        let schema = self.tell("Flight/GetFlightInfo", facts::type_info(query))?.schema();
        self.fixed(&query, &schema, request)
    }

    async fn do_get_statement(
        &self,
        ticket: TicketStatementQuery,
        request: Request<Ticket>,
    ) -> Result<Response<Messages>, Status> {
        let answer = async {
            let session = Session::of(request.metadata())?;
            self.rows(&session, &ticket.statement_handle).await
        };
        told(&self.services, "Flight/DoGet", answer.await)
    }

    async fn do_get_catalogs(
        &self,
        _query: CommandGetCatalogs,
        request: Request<Ticket>,
    ) -> Result<Response<Messages>, Status> {
        self.computed(request, |_, tenant| catalog::catalogs(tenant)).await
    }

    async fn do_get_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<Ticket>,
    ) -> Result<Response<Messages>, Status> {
        self.computed(request, |_, tenant| catalog::schemas(tenant, query)).await
    }

    async fn do_get_tables(
        &self,
        query: CommandGetTables,
        request: Request<Ticket>,
    ) -> Result<Response<Messages>, Status> {
        self.computed(request, |services, tenant| catalog::tables(services, tenant, query)).await
    }

    async fn do_get_table_types(
        &self,
        _query: CommandGetTableTypes,
        request: Request<Ticket>,
    ) -> Result<Response<Messages>, Status> {
        self.computed(request, |_, _| catalog::table_types()).await
    }

    async fn do_get_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<Ticket>,
    ) -> Result<Response<Messages>, Status> {
        self.computed(request, |_, _| facts::sql_info(query)).await
    }

    async fn do_get_primary_keys(
        &self,
        query: CommandGetPrimaryKeys,
        request: Request<Ticket>,
    ) -> Result<Response<Messages>, Status> {
        self.computed(request, move |services, tenant| {
            catalog::primary_keys(services, tenant, &query)
        })
        .await
    }

    async fn do_get_exported_keys(
        &self,
        _query: CommandGetExportedKeys,
        request: Request<Ticket>,
    ) -> Result<Response<Messages>, Status> {
        self.computed(request, |_, _| Ok(catalog::no_references())).await
    }

    async fn do_get_imported_keys(
        &self,
        _query: CommandGetImportedKeys,
        request: Request<Ticket>,
    ) -> Result<Response<Messages>, Status> {
        self.computed(request, |_, _| Ok(catalog::no_references())).await
    }

    async fn do_get_cross_reference(
        &self,
        _query: CommandGetCrossReference,
        request: Request<Ticket>,
    ) -> Result<Response<Messages>, Status> {
        self.computed(request, |_, _| Ok(catalog::no_references())).await
    }

    async fn do_get_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        request: Request<Ticket>,
    ) -> Result<Response<Messages>, Status> {
        self.computed(request, move |_, _| facts::type_info(query)).await
    }

    async fn do_put_statement_update(
        &self,
        command: CommandStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let answer = async {
            let session = Session::of(request.metadata())?;
            match given(command.transaction_id) {
                None => self.update(session.statement(command.query)).await,
                Some(id) => self.add(&session, &id, &command.query, vec![Params::None]).await,
            }
        };
        self.tell("Flight/DoPut", answer.await)
    }

    async fn do_put_statement_ingest(
        &self,
        command: CommandStatementIngest,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let answer = async {
            let session = Session::of(request.metadata())?;
            ingest::ingest(&self.services, &session, command, request.into_inner()).await
        };
        self.tell("Flight/DoPut", answer.await)
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let handle = query.prepared_statement_handle;
        let answer = self.bind(&handle, request.into_inner()).await;
        let prepared_statement_handle = Some(handle);
        self.tell(
            "Flight/DoPut",
            answer.map(|()| DoPutPreparedStatementResult { prepared_statement_handle }),
        )
    }

    async fn do_put_prepared_statement_update(
        &self,
        query: CommandPreparedStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let handle = query.prepared_statement_handle;
        let answer = async {
            let session = Session::of(request.metadata())?;
            self.bind(&handle, request.into_inner()).await?;
            let mut prepared = self.prepared.get(self.services.monotonic(), &handle)?;
            prepared.session = session.or(&prepared.session);
            self.update_prepared(&prepared).await
        };
        self.tell("Flight/DoPut", answer.await)
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let answer = async {
            let session = Session::of(request.metadata())?;
            let (sql, transaction) = (query.query, given(query.transaction_id));
            self.prepare(Prepared { sql, session, transaction, bound: Vec::new() }).await
        };
        self.tell("Flight/DoAction", answer.await)
    }

    async fn do_action_close_prepared_statement(
        &self,
        query: ActionClosePreparedStatementRequest,
        _request: Request<Action>,
    ) -> Result<(), Status> {
        self.prepared.close(&query.prepared_statement_handle);
        self.tell("Flight/DoAction", Ok(()))
    }

    async fn do_action_begin_transaction(
        &self,
        _query: ActionBeginTransactionRequest,
        request: Request<Action>,
    ) -> Result<ActionBeginTransactionResult, Status> {
        let answer = Session::of(request.metadata()).and_then(|session| self.begin(&session));
        let id = self.tell("Flight/DoAction", answer)?;
        Ok(ActionBeginTransactionResult { transaction_id: Bytes::from(id) })
    }

    async fn do_action_end_transaction(
        &self,
        query: ActionEndTransactionRequest,
        request: Request<Action>,
    ) -> Result<(), Status> {
        let answer = async {
            let session = Session::of(request.metadata())?;
            let commit = match query.action() {
                EndTransaction::Commit => true,
                EndTransaction::Rollback => false,
                EndTransaction::Unspecified => {
                    return Err(Failure::request("the action is neither commit nor rollback"));
                }
            };
            self.end(&session, &query.transaction_id, commit).await
        };
        self.tell("Flight/DoAction", answer.await)
    }

    async fn do_action_cancel_query(
        &self,
        query: ActionCancelQueryRequest,
        request: Request<Action>,
    ) -> Result<ActionCancelQueryResult, Status> {
        let answer = async {
            let session = Session::of(request.metadata())?;
            let info = FlightInfo::decode(&*query.info)
                .map_err(|_| Failure::request("the action holds no FlightInfo"))?;
            let status = self.cancel(&session, Some(&info))?;
            // The older action's numbers are the same.
            Ok(ActionCancelQueryResult { result: i32::from(status) })
        };
        self.tell("Flight/DoAction", answer.await)
    }

    async fn do_action_fallback(
        &self,
        request: Request<Action>,
    ) -> Result<Response<<Self as FlightService>::DoActionStream>, Status> {
        let answer = match request.get_ref().r#type.as_str() {
            CANCEL_FLIGHT_INFO => self.cancel_flight_info(&request),
            other => {
                let detail = format!("there is no action {other}");
                Err(Failure::of_sqlstate("0A000", detail))
            }
        };
        let body = self.tell("Flight/DoAction", answer)?.encode_to_vec();
        let answers = futures::stream::iter([Ok(arrow_flight::Result { body: body.into() })]);
        Ok(Response::new(Box::pin(answers)))
    }

    async fn list_custom_actions(&self) -> Option<Vec<Result<ActionType, Status>>> {
        let description = "Takes a flight back; its statement ends.\n\
                           Request Message: CancelFlightInfoRequest\n\
                           Response Message: CancelFlightInfoResult";
        let r#type = CANCEL_FLIGHT_INFO.to_owned();
        Some(vec![Ok(ActionType { r#type, description: description.to_owned() })])
    }

    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}

/// Takes an id: an empty one is absent.
fn given(id: Option<Bytes>) -> Option<Bytes> {
    id.filter(|id| !id.is_empty())
}

/// A transaction is run when it is committed, so there is nothing yet that its queries could read.
fn refuse_query_in(transaction: Option<&Bytes>) -> Answered<()> {
    if transaction.is_none() {
        return Ok(());
    }
    let detail = "a transaction over several calls takes updates alone";
    Err(Failure::of_sqlstate("0A000", detail.to_owned())
        .with_hint("run queries without the transaction's id"))
}
