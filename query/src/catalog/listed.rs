//! What the catalogs list: tables and views with their columns, none of their rows.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use everwhen_storage::{Definition, DefinitionKind, TableDef};

use crate::columns::field_of;
use crate::dialect::{ParseLimits, parse_query};
use crate::read::Reading;
use crate::rewrite::shown_name;
use crate::session::{NamedTable, REFERENCES, SYSTEM_SCHEMA};
use crate::system_tables::SystemTables;
use crate::views::View;

/// A table or view that the catalogs list.
#[derive(Debug, Clone)]
pub struct Listed {
    pub schema_name: &'static str,
    pub name: String,
    pub columns: SchemaRef,
    /// The names of the key's columns, in their order.
    pub key: Vec<String>,
    /// The text of a view.
    pub view: Option<String>,
}

impl Listed {
    /// Returns it as the session's table.
    pub fn named(&self) -> NamedTable {
        (self.name.clone(), Arc::new(self.clone()))
    }
}

/// Returns the tables and views of definitions, and the system tables. A view that can no longer be
/// planned has no columns.
pub async fn all(reading: &Reading<'_>) -> Vec<Listed> {
    let definitions = reading.definitions;
    let mut all: Vec<_> = definitions.tables.values().map(|table| of_table(table)).collect();
    for definition in definitions.all(DefinitionKind::View) {
        all.push(of_view(reading, definition).await);
    }
    all.extend(of_system(reading.system_tables));
    all
}

fn of_table(table: &TableDef) -> Listed {
    // The columns that `*` gives.
    let field = |column: &&everwhen_storage::ColumnDef| -> Field {
        field_of(&column.name, &column.kind).with_nullable(column.nullable)
    };
    let key = table.key.iter().filter_map(|id| table.column_by_id(*id));
    Listed {
        schema_name: REFERENCES,
        name: table.name.clone(),
        columns: Arc::new(Schema::new(table.star().iter().map(field).collect::<Vec<_>>())),
        key: key.map(|column| column.name.clone()).collect(),
        view: None,
    }
}

async fn of_view(reading: &Reading<'_>, definition: &Definition) -> Listed {
    let view = View::of(definition);
    let star = format!("SELECT * FROM \"{}\"", view.name.replace('"', "\"\""));
    let planned = async {
        let parsed = parse_query(&star, &ParseLimits::default())?;
        reading.schema(&parsed).await
    };
    let columns = planned.await.unwrap_or_else(|_| Arc::new(Schema::empty()));
    let shown = |field: &Arc<Field>| Field::clone(field).with_name(shown_name(field.name()));
    let columns = Arc::new(Schema::new(columns.fields().iter().map(shown).collect::<Vec<_>>()));
    let (schema_name, key) = (REFERENCES, Vec::new());
    Listed { schema_name, name: view.name, columns, key, view: Some(view.query) }
}

fn of_system(tables: &SystemTables) -> impl Iterator<Item = Listed> {
    tables.list().into_iter().map(|(name, columns)| Listed {
        schema_name: SYSTEM_SCHEMA,
        name,
        columns,
        key: Vec::new(),
        view: None,
    })
}

#[async_trait]
impl TableProvider for Listed {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.columns)
    }

    fn table_type(&self) -> TableType {
        if self.view.is_some() { TableType::View } else { TableType::Base }
    }

    fn get_table_definition(&self) -> Option<&str> {
        self.view.as_deref()
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Err(DataFusionError::Internal(format!("\"{}\" has no rows among catalogs", self.name)))
    }
}
