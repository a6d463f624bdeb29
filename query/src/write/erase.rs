//! ERASE: the keys of all rows that match at any time, and keys that are named whether or not
//! anything is left of them.

use std::collections::BTreeSet;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::sql::sqlparser::ast::{Expr, Ident, SelectItem};
use everwhen_storage::{RowKey, TableDef, Value, Write, WriteKind};

use super::draft::Draft;
use super::{Writing, rows_of_plan};
use crate::bounds;
use crate::columns::value_at;
use crate::dialect::{Axis, Clause, ClauseKind, Delete, ParsedQuery};
use crate::error::Result;
use crate::session::StatementContext;

/// Adds the erasures of an ERASE.
pub async fn erase(
    writing: &Writing<'_>,
    ctx: &StatementContext,
    draft: &mut Draft,
    erase: &Delete,
) -> Result<()> {
    let table = draft.table(&erase.table)?;
    let query = matching(&table, erase);
    let reading = writing.reading(ctx, &draft.definitions);
    let planned = reading.plan(&query).await?;
    let mut keys = BTreeSet::new();
    if erase.using.is_empty() {
        keys.extend(named(&table, &planned.plan)?);
    }
    let (shape, batches) = rows_of_plan(draft, planned, &query).await?;
    for batch in &batches {
        for row in 0..batch.num_rows() {
            let mut values: Vec<Value> = Vec::with_capacity(shape.columns.len());
            for ((_, kind), array) in shape.columns.iter().zip(batch.columns()) {
                values.push(value_at(array, row, kind)?);
            }
            keys.insert(RowKey::encode(&values)?);
        }
    }
    for key in keys {
        let kind = WriteKind::Erase { key };
        draft.push(table.precedence, Write { tenant: draft.tenant.clone(), table: table.id, kind });
    }
    Ok(())
}

/// Returns the query for the keys of what matches at any valid and system time.
fn matching(table: &TableDef, erase: &Delete) -> ParsedQuery {
    let target = erase.alias.as_ref().unwrap_or(&erase.table.ident);
    let columns = table.key.iter().filter_map(|id| table.column_by_id(*id)).enumerate();
    let item = |(at, column): (usize, &everwhen_storage::ColumnDef)| SelectItem::ExprWithAlias {
        expr: Expr::CompoundIdentifier(vec![
            target.clone(),
            Ident::with_quote('"', column.name.as_str()),
        ]),
        alias: Ident::with_quote('"', format!("key {at}")),
    };
    let mut query = erase.reading(columns.map(item).collect(), ClauseKind::All);
    query.clauses.list.push(Clause {
        axis: Axis::System,
        kind: ClauseKind::All,
        portion: false,
        anchor: erase.table.ident.span.end,
        position: erase.table.position,
    });
    query
}

/// Returns the keys that the condition names, where it does nothing else: they are erased also
/// where no version is left to be found.
fn named(table: &TableDef, plan: &LogicalPlan) -> Result<Vec<RowKey>> {
    let mut keys = None;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Filter(filter) = node {
            keys = bounds::named_keys(table, &split_conjunction(&filter.predicate));
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(keys.unwrap_or_default())
}
