//! What there is: catalogs, schemas, tables, table types and primary keys, as Flight SQL asks.
//!
//! The one catalog is the session's tenant; `public` holds its tables, `everwhen` the system's.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::GetCatalogsBuilder;
use arrow_flight::sql::{
    CommandGetDbSchemas, CommandGetPrimaryKeys, CommandGetTableTypes, CommandGetTables,
};
use everwhen_query::columns::field_of;
use everwhen_storage::{TableDef, Tenant};

use crate::failure::{Answered, Failure};
use crate::service::Services;
use crate::service::tables::key_names;

/// The schema of tables.
pub const SCHEMA: &str = "public";
/// The schema of system tables.
const SYSTEM_SCHEMA: &str = "everwhen";
const TABLE: &str = "TABLE";
const SYSTEM_TABLE: &str = "SYSTEM TABLE";

/// The name of a column's type, in its field's metadata.
const TYPE_NAME: &str = "ARROW:FLIGHT:SQL:TYPE_NAME";

/// Returns the one catalog.
pub fn catalogs(tenant: &Tenant) -> Answered<RecordBatch> {
    let mut builder = GetCatalogsBuilder::new();
    builder.append(tenant.to_string());
    builder.build().map_err(internal)
}

/// Returns the schemas that a command asks for.
pub fn schemas(tenant: &Tenant, command: CommandGetDbSchemas) -> Answered<RecordBatch> {
    let mut builder = command.into_builder();
    builder.append(tenant.to_string(), SYSTEM_SCHEMA);
    builder.append(tenant.to_string(), SCHEMA);
    builder.build().map_err(internal)
}

/// Returns the kinds of tables.
pub fn table_types() -> Answered<RecordBatch> {
    let mut builder = CommandGetTableTypes {}.into_builder();
    builder.append(SYSTEM_TABLE);
    builder.append(TABLE);
    builder.build().map_err(internal)
}

/// Returns the tables that a command asks for.
pub fn tables(
    services: &Services,
    tenant: &Tenant,
    command: CommandGetTables,
) -> Answered<RecordBatch> {
    let tenant = tenant.to_string();
    let mut builder = command.into_builder();
    for table in services.store.definitions().tables.values() {
        builder
            .append(&tenant, SCHEMA, &table.name, TABLE, &table_schema(table))
            .map_err(internal)?;
    }
    for (name, schema) in services.engine.system_tables() {
        builder.append(&tenant, SYSTEM_SCHEMA, &name, SYSTEM_TABLE, &schema).map_err(internal)?;
    }
    builder.build().map_err(internal)
}

/// Returns a table's columns as `*` gives them.
fn table_schema(table: &TableDef) -> Schema {
    let field = |column: &everwhen_storage::ColumnDef| {
        let field = field_of(&column.name, &column.kind);
        let mut metadata: HashMap<String, String> = field.metadata().clone();
        metadata.insert(TYPE_NAME.to_owned(), column.kind.to_string());
        let nullable = column.nullable && !table.is_key(column.id);
        field.with_metadata(metadata).with_nullable(nullable)
    };
    Schema::new(table.star().into_iter().map(field).collect::<Vec<_>>())
}

/// Returns the columns of [`primary_keys`].
pub fn primary_keys_schema() -> SchemaRef {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    Arc::new(Schema::new(vec![
        text("catalog_name", true),
        text("db_schema_name", true),
        text("table_name", false),
        text("column_name", false),
        text("key_name", true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
}

/// Returns the columns of a table's key, in key order.
///
/// # Errors
/// 42P01 for a table that does not exist.
pub fn primary_keys(
    services: &Services,
    tenant: &Tenant,
    command: &CommandGetPrimaryKeys,
) -> Answered<RecordBatch> {
    let definitions = services.store.definitions();
    let is_ours = command.db_schema.as_deref().is_none_or(|schema| schema == SCHEMA);
    let table = definitions.table(&command.table).filter(|_| is_ours).ok_or_else(|| {
        Failure::of_sqlstate("42P01", format!("table \"{}\" does not exist", command.table))
    })?;
    let names = key_names(table);
    let same = |value: &str| -> ArrayRef {
        Arc::new(StringArray::from(vec![Some(value.to_owned()); names.len()]))
    };
    let places = (1..).take(names.len()).collect::<Int32Array>();
    let columns: Vec<ArrayRef> = vec![
        same(tenant.to_string().as_str()),
        same(SCHEMA),
        same(&table.name),
        Arc::new(StringArray::from(names.clone())),
        Arc::new(StringArray::from(vec![None::<&str>; names.len()])),
        Arc::new(places),
    ];
    RecordBatch::try_new(primary_keys_schema(), columns).map_err(internal)
}

/// Returns the columns of keys that lead to other tables; there are none.
pub fn references_schema() -> SchemaRef {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    let small = |name: &str| Field::new(name, DataType::UInt8, false);
    Arc::new(Schema::new(vec![
        text("pk_catalog_name", true),
        text("pk_db_schema_name", true),
        text("pk_table_name", false),
        text("pk_column_name", false),
        text("fk_catalog_name", true),
        text("fk_db_schema_name", true),
        text("fk_table_name", false),
        text("fk_column_name", false),
        Field::new("key_sequence", DataType::Int32, false),
        text("fk_key_name", true),
        text("pk_key_name", true),
        small("update_rule"),
        small("delete_rule"),
    ]))
}

/// Returns the keys that lead to other tables: none are declared.
pub fn no_references() -> RecordBatch {
    RecordBatch::new_empty(references_schema())
}

/// Returns the failure of what cannot be put into Arrow's form.
pub fn internal(error: impl Into<FlightError>) -> Failure {
    Failure::internal(&error.into())
}
