//! `everwhen.tables`, `everwhen.columns` and `everwhen.views`: the definitions in force now.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use everwhen_storage::{ColumnType, DefinitionKind, Store, Tenant, Value};

use super::{SystemTable, batch_of, int, retention_text, schema_of, text};
use crate::error::Result;
use crate::indexes::Index;
use crate::views::View;

const TABLES: &[(&str, ColumnType)] = &[
    ("table", ColumnType::Text),
    ("key", ColumnType::Text),
    ("precedence", ColumnType::Text),
    ("declared", ColumnType::Bool),
    ("columns", ColumnType::Int64),
    ("history_retention", ColumnType::Text),
    ("oldest_tx", ColumnType::Int64),
];

const COLUMNS: &[(&str, ColumnType)] = &[
    ("table", ColumnType::Text),
    ("position", ColumnType::Int64),
    ("column", ColumnType::Text),
    ("type", ColumnType::Text),
    ("nullable", ColumnType::Bool),
    ("key", ColumnType::Bool),
];

const VIEWS: &[(&str, ColumnType)] = &[
    ("view", ColumnType::Text),
    ("columns", ColumnType::Text),
    ("query", ColumnType::Text),
    ("tx", ColumnType::Int64),
];

/// `everwhen.views`.
pub struct Views(pub Store);

impl SystemTable for Views {
    fn name(&self) -> &str {
        "views"
    }

    fn schema(&self) -> SchemaRef {
        schema_of(VIEWS)
    }

    fn rows(&self, _tenant: &Tenant) -> Result<RecordBatch> {
        let definitions = self.0.definitions();
        let rows = definitions.all(DefinitionKind::View).map(|definition| {
            let view = View::of(definition);
            let columns = match view.columns.is_empty() {
                true => Value::Null,
                false => text(view.columns.join(", ")),
            };
            vec![text(view.name), columns, text(view.query), int(view.tx.get())]
        });
        batch_of(VIEWS, &rows.collect::<Vec<_>>())
    }
}

/// `everwhen.indexes`.
pub struct Indexes(pub Store);

const INDEXES: &[(&str, ColumnType)] =
    &[("index", ColumnType::Text), ("table", ColumnType::Text), ("columns", ColumnType::Text)];

impl SystemTable for Indexes {
    fn name(&self) -> &str {
        "indexes"
    }

    fn schema(&self) -> SchemaRef {
        schema_of(INDEXES)
    }

    fn rows(&self, _tenant: &Tenant) -> Result<RecordBatch> {
        let definitions = self.0.definitions();
        let rows = definitions.all(DefinitionKind::Index).filter_map(|definition| {
            let index = Index::of(definition)?;
            let table = definitions.table_by_id(index.table)?;
            let columns: Vec<_> = index
                .columns
                .iter()
                .filter_map(|id| table.column_by_id(*id).map(|column| column.name.as_str()))
                .collect();
            Some(vec![text(index.name), text(&table.name), text(columns.join(", "))])
        });
        batch_of(INDEXES, &rows.collect::<Vec<_>>())
    }
}

/// `everwhen.tables`.
pub struct Tables(pub Store);

/// `everwhen.columns`.
pub struct Columns(pub Store);

impl SystemTable for Tables {
    fn name(&self) -> &str {
        "tables"
    }

    fn schema(&self) -> SchemaRef {
        schema_of(TABLES)
    }

    fn rows(&self, _tenant: &Tenant) -> Result<RecordBatch> {
        let definitions = self.0.definitions();
        let rows = definitions.tables.values().map(|table| {
            let key: Vec<_> = table
                .key
                .iter()
                .filter_map(|id| table.column_by_id(*id).map(|column| column.name.as_str()))
                .collect();
            vec![
                text(&table.name),
                text(key.join(", ")),
                text(table.precedence.word()),
                Value::Bool(table.declared),
                int(table.columns.len()),
                text(retention_text(&definitions, table.id)),
                int(self.0.horizon(table.id).get()),
            ]
        });
        batch_of(TABLES, &rows.collect::<Vec<_>>())
    }
}

impl SystemTable for Columns {
    fn name(&self) -> &str {
        "columns"
    }

    fn schema(&self) -> SchemaRef {
        schema_of(COLUMNS)
    }

    fn rows(&self, _tenant: &Tenant) -> Result<RecordBatch> {
        let definitions = self.0.definitions();
        let mut rows = Vec::new();
        for table in definitions.tables.values() {
            for (place, column) in table.star().into_iter().enumerate() {
                rows.push(vec![
                    text(&table.name),
                    int(place + 1),
                    text(&column.name),
                    text(column.kind.to_string()),
                    Value::Bool(column.nullable && !table.is_key(column.id)),
                    Value::Bool(table.is_key(column.id)),
                ]);
            }
        }
        batch_of(COLUMNS, &rows)
    }
}
