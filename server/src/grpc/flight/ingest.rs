//! Bulk ingest: a stream of batches into a table that is there, or is made for it.

use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::error::FlightError;
use arrow_flight::sql::server::PeekableFlightDataStream;
use arrow_flight::sql::{CommandStatementIngest, TableExistsOption, TableNotExistOption};
use everwhen_query::columns::field_type;
use everwhen_storage::ColumnType;
use futures::StreamExt as _;

use super::batches_of;
use super::catalog::SCHEMA;
use super::session::Session;
use crate::failure::{Answered, Failure};
use crate::service::append::Append;
use crate::service::query::run;
use crate::service::{Services, tenant_of};

/// The columns that say when a row holds; a table does not declare them.
const PERIOD: [&str; 2] = ["_valid_from", "_valid_to"];
/// The key of a table that is made for a load.
const ID: &str = "_id";

/// Puts the rows of a stream into the table that the command names; returns how many.
///
/// # Errors
/// What the command or the rows are refused with.
pub async fn ingest(
    services: &Services,
    session: &Session,
    command: CommandStatementIngest,
    stream: PeekableFlightDataStream,
) -> Answered<i64> {
    let tenant = tenant_of(session.tenant.as_deref())?;
    let is_there = check(services, &command, &tenant.to_string())?;
    let mut batches = batches_of(stream);
    // The schema comes before the first batch.
    let mut first = batches.next().await.transpose().map_err(refused)?;
    if !is_there {
        let schema = match (&first, batches.schema()) {
            (Some(batch), _) => batch.schema(),
            (None, Some(schema)) => SchemaRef::clone(schema),
            (None, None) => return Err(Failure::request("the stream has no schema")),
        };
        let statement = session.statement(create_table(&command.table, &schema)?);
        run(services, statement).await?;
    }
    let mut append = Append::begin(services, tenant, command.table).await?;
    loop {
        let batch = match first.take() {
            Some(batch) => batch,
            None => {
                match append.or_cancelled(batches.next()).await?.transpose().map_err(refused)? {
                    Some(batch) => batch,
                    None => break,
                }
            }
        };
        append.push(services, batch).await?;
    }
    let (rows, _) = append.finish(services).await?;
    Ok(i64::try_from(rows).unwrap_or(i64::MAX))
}

/// Refuses what is not possible, and tells whether the table is there.
fn check(services: &Services, command: &CommandStatementIngest, tenant: &str) -> Answered<bool> {
    let refuse = |detail: &str| Err(Failure::of_sqlstate("0A000", detail.to_owned()));
    if command.table.is_empty() {
        return Err(Failure::request("the load names no table"));
    }
    if command.temporary {
        return refuse("there are no temporary tables");
    }
    if command.transaction_id.as_ref().is_some_and(|id| !id.is_empty()) {
        return refuse("a load is not part of a transaction: each 10000 rows are one of their own");
    }
    if command.schema.as_deref().is_some_and(|schema| !schema.is_empty() && schema != SCHEMA) {
        return refuse("tables are in the schema \"public\" alone");
    }
    if command.catalog.as_deref().is_some_and(|name| !name.is_empty() && name != tenant) {
        return refuse("the one catalog is the tenant: name it by the header x-everwhen-tenant");
    }
    let options = command.table_definition_options.unwrap_or_default();
    let is_there = services.store.definitions().table(&command.table).is_some();
    let table = &command.table;
    match (is_there, options.if_exists(), options.if_not_exist()) {
        (_, TableExistsOption::Replace, _) => {
            Err(Failure::of_sqlstate("0A000", "a load does not replace a table".to_owned())
                .with_hint("history is kept: DELETE what no longer holds, or ERASE it, and append"))
        }
        (true, TableExistsOption::Fail, _) => {
            Err(Failure::of_sqlstate("42P07", format!("table \"{table}\" exists already")))
        }
        (false, _, TableNotExistOption::Create) | (true, ..) => Ok(is_there),
        (false, ..) => {
            Err(Failure::of_sqlstate("42P01", format!("table \"{table}\" does not exist")))
        }
    }
}

/// Returns the declaration of a table for rows of a schema, keyed by `_id`.
fn create_table(table: &str, schema: &Schema) -> Answered<String> {
    if schema.index_of(ID).is_err() {
        let detail = format!("a table is made with the key \"{ID}\", and no column is called that");
        return Err(Failure::of_sqlstate("42P16", detail)
            .with_hint("add the column, or create the table with a PRIMARY KEY and append"));
    }
    let mut columns = Vec::new();
    for field in schema.fields().iter().filter(|field| !PERIOD.contains(&field.name().as_str())) {
        let kind = field_type(field).and_then(|kind| sql_type(&kind)).ok_or_else(|| {
            let name = field.name();
            let detail = format!("column \"{name}\" is of type {}", field.data_type());
            Failure::of_sqlstate("0A000", detail)
                .with_hint("create the table first, or cast the column to another type")
        })?;
        let key = if field.name() == ID { " PRIMARY KEY" } else { "" };
        columns.push(format!("{} {kind}{key}", quoted(field.name())));
    }
    Ok(format!("CREATE TABLE {} ({})", quoted(table), columns.join(", ")))
}

/// Returns the name of a column's type in a declaration.
fn sql_type(kind: &ColumnType) -> Option<String> {
    Some(match kind {
        ColumnType::Bool => "BOOLEAN".to_owned(),
        ColumnType::Int64 => "BIGINT".to_owned(),
        ColumnType::Float64 => "DOUBLE PRECISION".to_owned(),
        ColumnType::Decimal => "DECIMAL(38, 9)".to_owned(),
        ColumnType::Text => "TEXT".to_owned(),
        ColumnType::Uuid => "UUID".to_owned(),
        ColumnType::Bytes => "BYTEA".to_owned(),
        ColumnType::Date => "DATE".to_owned(),
        ColumnType::Time => "TIME".to_owned(),
        ColumnType::Timestamp => "TIMESTAMPTZ".to_owned(),
        ColumnType::Json => "JSON".to_owned(),
        ColumnType::List(item) => format!("{}[]", sql_type(item)?),
        ColumnType::Struct(_) => return None,
    })
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Returns the failure of a stream that is none of Arrow's.
fn refused(error: FlightError) -> Failure {
    match error {
        FlightError::Tonic(status) => Failure::request(status.message().to_owned()),
        other => Failure::request(format!("the stream of batches is wrong: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, TimeUnit};

    use super::*;

    #[test]
    fn a_table_is_declared_for_the_rows_that_come() {
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let schema = Schema::new(vec![
            Field::new("_id", DataType::LargeUtf8, false),
            Field::new("na\"me", DataType::Utf8View, true),
            Field::new("n", DataType::Int32, true),
            Field::new_list("tags", Field::new("item", DataType::Utf8, true), true),
            Field::new("_valid_from", utc, true),
        ]);
        assert_eq!(
            create_table("t", &schema).unwrap(),
            "CREATE TABLE \"t\" (\"_id\" TEXT PRIMARY KEY, \"na\"\"me\" TEXT, \"n\" BIGINT, \
             \"tags\" TEXT[])"
        );
        let keyless = Schema::new(vec![Field::new("n", DataType::Int32, true)]);
        assert_eq!(create_table("t", &keyless).unwrap_err().sqlstate, "42P16");
    }
}
