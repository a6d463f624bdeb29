//! What rests on a table: the mappings that write it and the projections that read it.
//!
//! Their definitions are their owners'; read here are the few fields that say so: `stream`, `verb`,
//! `table` and `select` of a mapping, `columns` of a stream, `query` of a projection.

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::LogicalPlan;
use everwhen_storage::{ColumnId, Definition, DefinitionKind, Definitions, Store, TableDef};
use serde_json::Value as Json;

use crate::error::Result;
use crate::plan::plan_projection;
use crate::records::RecordProgram;
use crate::table::{TableColumn, TemporalTable};

/// A mapping that writes to a table.
#[derive(Debug)]
pub struct Writer {
    pub name: String,
    /// It makes whole rows, so NOT NULL columns must be among its own.
    pub puts: bool,
    /// Names of the columns that it computes.
    pub columns: Vec<String>,
}

/// Returns the mappings that write to a table.
///
/// # Errors
/// Where a stored mapping does not parse.
pub fn writers(definitions: &Definitions, table: &TableDef) -> Result<Vec<Writer>> {
    let text = |definition: &Definition, field: &str| {
        definition.body.get(field).and_then(Json::as_str).unwrap_or_default().to_owned()
    };
    let mut writers = Vec::new();
    for mapping in definitions.all(DefinitionKind::Mapping) {
        if text(mapping, "table") != table.name {
            continue;
        }
        let stream = definitions.get(DefinitionKind::Stream, &text(mapping, "stream"));
        let declared = stream.and_then(|stream| stream.body.get("columns")?.as_array());
        let record: Vec<String> = match declared {
            Some(columns) => columns
                .iter()
                .filter_map(|column| column.get("name")?.as_str().map(str::to_owned))
                .collect(),
            None => vec!["payload".to_owned()],
        };
        writers.push(Writer {
            name: mapping.name.clone(),
            puts: text(mapping, "verb") == "put",
            columns: RecordProgram::output_names(&text(mapping, "select"), &record)?,
        });
    }
    Ok(writers)
}

/// Returns the name of a projection that reads a table, or a column of it where one is given.
pub fn reader(
    store: &Store,
    definitions: &Definitions,
    table: &TableDef,
    column: Option<ColumnId>,
) -> Option<String> {
    let projections = definitions.all(DefinitionKind::Projection);
    projections
        .into_iter()
        .find(|projection| reads(store, projection, table, column))
        .map(|projection| projection.name.clone())
}

/// True where a projection reads the table or column, and where that cannot be told.
fn reads(
    store: &Store,
    projection: &Definition,
    table: &TableDef,
    column: Option<ColumnId>,
) -> bool {
    // A projection is over the tables as they were when it was made.
    let made = store.definitions_at(projection.tx);
    let query = projection.body.get("query").and_then(Json::as_str);
    let plan = query.and_then(|query| plan_projection(store, &made, query).ok());
    plan.is_none_or(|query| scans(&query.plan, table, column).unwrap_or(true))
}

fn scans(plan: &LogicalPlan, table: &TableDef, column: Option<ColumnId>) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(read) = source_as_provider(&scan.source)?.downcast_ref::<TemporalTable>()
            && read.def.id == table.id
        {
            let shown = |at: &usize| match read.columns.get(*at) {
                Some(TableColumn::Stored(id)) => column.is_none_or(|column| *id == column),
                _ => false,
            };
            found |= column.is_none()
                || match &scan.projection {
                    Some(places) => places.iter().any(shown),
                    None => (0..read.columns.len()).any(|at| shown(&at)),
                };
        }
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}
