//! The tables in force, with their columns and keys.

use everwhen_query::basis_token;
use everwhen_storage::TableDef;
use serde_json::{Value, json};

use super::Services;

/// Returns `{"tables": [{"name", "precedence", "declared", "key", "columns"}], "basis"}`.
pub fn list_json(services: &Services) -> Value {
    let basis = services.store.latest();
    let definitions = services.store.definitions_at(basis.tx);
    let tables: Vec<_> = definitions.tables.values().map(|table| table_json(table)).collect();
    json!({"tables": tables, "basis": basis_token(&services.store, basis)})
}

fn table_json(table: &TableDef) -> Value {
    let columns: Vec<_> = table
        .star()
        .into_iter()
        .map(|column| {
            let nullable = column.nullable && !table.is_key(column.id);
            json!({"name": column.name, "type": column.kind.to_string(), "nullable": nullable})
        })
        .collect();
    json!({
        "name": table.name,
        "precedence": table.precedence.word(),
        "declared": table.declared,
        "key": key_names(table),
        "columns": columns,
    })
}

/// Returns the names of a table's key columns, in key order.
pub fn key_names(table: &TableDef) -> Vec<&str> {
    let columns = table.key.iter().filter_map(|id| table.column_by_id(*id));
    columns.map(|column| column.name.as_str()).collect()
}
