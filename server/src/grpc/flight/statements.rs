//! Statements: run when their info is asked for, read by ticket.

use std::pin::Pin;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{
    ActionCreatePreparedStatementResult, ProstMessageExt, TicketStatementQuery,
};
use arrow_flight::{
    FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, SchemaAsIpc, Ticket,
};
use bytes::Bytes;
use everwhen_query::Params;
use everwhen_query::columns::{field_of, timestamp_type};
use everwhen_storage::ColumnType;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use prost::Message as _;
use tonic::Status;

use super::Flight;
use super::catalog::internal;
use super::prepared::Prepared;
use super::session::Session;
use super::tickets::Taken;
use crate::failure::{Answered, Failure};
use crate::service::query::{Answer, Rows, Statement, describe, run};
use crate::service::tenant_of;
use crate::service::write::Written;

/// Bytes of a message of rows, about.
const MESSAGE_BYTES: usize = 1 << 20;

/// The rows of an answer as they leave.
pub type Messages = Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send>>;

impl Flight {
    /// Runs a statement and returns where its rows are to be had. A write is done by then.
    pub(super) async fn info(
        &self,
        session: &Session,
        statement: Statement,
        descriptor: FlightDescriptor,
    ) -> Answered<FlightInfo> {
        let services = &self.services;
        let tenant = tenant_of(session.tenant.as_deref())?;
        let mut again = statement.clone();
        let now = services.monotonic();
        let (handle, schema, basis) = match run(services, statement).await? {
            Answer::Rows(rows) => {
                let (schema, basis) = (Arc::clone(&rows.schema), rows.basis.clone());
                again.basis = Some(basis.clone());
                (self.tickets.keep_rows(now, tenant, rows, again), schema, basis)
            }
            Answer::Written(written) => {
                let basis = written.basis.clone();
                let (schema, batches) = rows_of(written)?;
                let kept = self.tickets.keep_written(now, tenant, Arc::clone(&schema), batches);
                (kept, schema, basis)
            }
        };
        let ticket = TicketStatementQuery { statement_handle: Bytes::from(handle) };
        let info = described(descriptor, &ticket, &schema)?;
        Ok(info.with_app_metadata(basis))
    }

    /// Keeps a statement under a handle, and tells what it takes and answers where that is known.
    pub(super) async fn prepare(
        &self,
        statement: Prepared,
    ) -> Answered<ActionCreatePreparedStatementResult> {
        let asked = statement.session.statement(&statement.sql);
        let described = describe(&self.services, asked).await?;
        let handle = self.prepared.create(self.services.monotonic(), statement)?;
        let dataset_schema = match &described.columns {
            Some(shape) => schema_bytes(&shape.schema)?,
            None => Bytes::new(),
        };
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: Bytes::from(handle),
            dataset_schema,
            parameter_schema: schema_bytes(&parameters_schema(&described.parameters))?,
        })
    }

    /// Returns the columns of a statement's rows in Arrow's form; nothing where it answers none.
    pub(super) async fn columns_of(&self, session: &Session, sql: &str) -> Answered<Option<Bytes>> {
        let described = describe(&self.services, session.statement(sql)).await?;
        described.columns.map(|shape| schema_bytes(&shape.schema)).transpose()
    }

    /// Returns the rows of a ticket.
    pub(super) async fn rows(&self, session: &Session, handle: &[u8]) -> Answered<Messages> {
        let tenant = tenant_of(session.tenant.as_deref())?;
        let handle = std::str::from_utf8(handle).unwrap_or_default();
        match self.tickets.take(self.services.monotonic(), &tenant, handle)? {
            Taken::Rows(rows) => Ok(messages(*rows)),
            Taken::Again(statement) => match run(&self.services, *statement).await? {
                Answer::Rows(rows) => Ok(messages(rows)),
                Answer::Written(_) => Err(Failure::internal(&"a query became a write")),
            },
            Taken::Written(schema, batches) => Ok(at_hand(schema, batches)),
        }
    }

    /// Runs a statement for its effect; returns how many rows it wrote, -1 for a query.
    pub(super) async fn update(&self, statement: Statement) -> Answered<i64> {
        match run(&self.services, statement).await? {
            Answer::Written(written) => Ok(i64::try_from(written.rows).unwrap_or(i64::MAX)),
            // A query for its effect alone has none.
            Answer::Rows(_) => Ok(-1),
        }
    }

    /// Runs a prepared statement once for each bound row, all in one transaction: its own, or the
    /// one that it was prepared in.
    pub(super) async fn update_prepared(&self, prepared: &Prepared) -> Answered<i64> {
        if let Some(id) = &prepared.transaction {
            return self.add(&prepared.session, id, &prepared.sql, prepared.runs()?).await;
        }
        let mut runs = prepared.runs()?.into_iter();
        // Bound to nothing at all: there is nothing to run.
        let Some(params) = runs.next() else { return Ok(0) };
        let then = runs.map(|params| (prepared.sql.clone(), params)).collect();
        self.update(Statement { params, then, ..prepared.session.statement(&prepared.sql) }).await
    }
}

impl Flight {
    /// Opens a transaction and returns its id.
    pub(super) fn begin(&self, session: &Session) -> Answered<String> {
        let tenant = tenant_of(session.tenant.as_deref())?;
        self.transactions.begin(self.services.monotonic(), tenant)
    }

    /// Keeps a write, once for each of its parameters, until the transaction is committed. How
    /// many rows it writes is known then: -1.
    pub(super) async fn add(
        &self,
        session: &Session,
        id: &[u8],
        sql: &str,
        runs: Vec<Params>,
    ) -> Answered<i64> {
        let described = describe(&self.services, session.statement(sql)).await?;
        if !described.kind.writes() {
            let detail = "a transaction over several calls takes writes alone";
            return Err(Failure::of_sqlstate("0A000", detail.to_owned())
                .with_hint("queries and definitions go without the transaction's id"));
        }
        let tenant = tenant_of(session.tenant.as_deref())?;
        let writes = runs.into_iter().map(|params| (sql.to_owned(), params)).collect();
        self.transactions.add(self.services.monotonic(), &tenant, id, writes)?;
        Ok(-1)
    }

    /// Ends a transaction: its writes are one, or are not done.
    pub(super) async fn end(&self, session: &Session, id: &[u8], commit: bool) -> Answered<()> {
        let tenant = tenant_of(session.tenant.as_deref())?;
        let mut writes = self.transactions.end(&tenant, id)?.into_iter();
        if let (true, Some((sql, params))) = (commit, writes.next()) {
            let then = writes.collect();
            self.update(Statement { params, then, ..session.statement(sql) }).await?;
        }
        Ok(())
    }
}

/// Returns the statement of a prepared query, with its one row of parameters.
///
/// # Errors
/// 0A000 where several rows are bound.
pub fn prepared_query(prepared: &Prepared, session: &Session) -> Answered<Statement> {
    let mut runs = prepared.runs()?;
    if runs.len() > 1 {
        let detail = format!("a query takes one row of parameters, {} are bound", runs.len());
        return Err(Failure::of_sqlstate("0A000", detail)
            .with_hint("run it once for each row; a write takes any number of rows"));
    }
    let params = runs.pop().unwrap_or(Params::None);
    Ok(Statement { params, ..session.statement(&prepared.sql) })
}

/// Returns the columns of a statement's parameters, named by their numbers; text where the
/// statement does not tell.
fn parameters_schema(kinds: &[Option<ColumnType>]) -> Schema {
    let field = |(number, kind): (usize, &Option<ColumnType>)| {
        field_of(&number.to_string(), kind.as_ref().unwrap_or(&ColumnType::Text))
    };
    Schema::new((1..).zip(kinds).map(field).collect::<Vec<_>>())
}

fn schema_bytes(schema: &Schema) -> Answered<Bytes> {
    let options = IpcWriteOptions::default();
    let message = IpcMessage::try_from(SchemaAsIpc::new(schema, &options)).map_err(internal)?;
    Ok(message.0)
}

/// Returns the rows of a write: those of RETURNING, or its place.
fn rows_of(written: Written) -> Answered<(SchemaRef, Vec<RecordBatch>)> {
    if let Some(batches) = written.returning {
        let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
        return Ok((schema, batches));
    }
    let tx = i64::try_from(written.tx.get()).unwrap_or(i64::MAX);
    let at = arrow::array::TimestampMicrosecondArray::from(vec![written.system_time.micros()])
        .with_data_type(timestamp_type());
    let columns: [(&str, ArrayRef); 3] = [
        ("tx", Arc::new(Int64Array::from(vec![tx]))),
        ("system_time", Arc::new(at)),
        ("basis", Arc::new(StringArray::from(vec![written.basis]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).map_err(internal)?;
    Ok((batch.schema(), vec![batch]))
}

/// Returns the info of rows that are to be had at this server for a ticket.
pub fn described(
    descriptor: FlightDescriptor,
    ticket: &impl ProstMessageExt,
    schema: &Schema,
) -> Answered<FlightInfo> {
    let ticket = Ticket::new(ticket.as_any().encode_to_vec());
    let info = FlightInfo::new().try_with_schema(schema).map_err(internal)?;
    Ok(info.with_descriptor(descriptor).with_endpoint(FlightEndpoint::new().with_ticket(ticket)))
}

/// Returns a query's rows as messages; the first one holds the schema and the basis.
fn messages(rows: Rows) -> Messages {
    let (schema, basis) = (Arc::clone(&rows.schema), Bytes::from(rows.basis.clone()));
    let batches = rows.map(|batch| batch.map_err(|failure| Status::from(failure).into()));
    let encoder = FlightDataEncoderBuilder::new()
        .with_schema(schema)
        .with_metadata(basis)
        .with_max_flight_data_size(MESSAGE_BYTES);
    Box::pin(encoder.build(batches).map_err(Status::from))
}

/// Returns rows that are at hand as messages.
pub fn at_hand(schema: SchemaRef, batches: Vec<RecordBatch>) -> Messages {
    let batches = futures::stream::iter(batches.into_iter().map(Ok::<_, FlightError>));
    let encoder = FlightDataEncoderBuilder::new()
        .with_schema(schema)
        .with_max_flight_data_size(MESSAGE_BYTES);
    Box::pin(encoder.build(batches).map_err(Status::from))
}
