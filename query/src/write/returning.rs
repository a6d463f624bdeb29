//! RETURNING: the rows that a write touches, through the statement's own select list.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema};
use datafusion::catalog::MemTable;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::sql::sqlparser::ast::{self, Ident, SelectItem, SetExpr, TableWithJoins};
use everwhen_storage::{ColumnId, ColumnType, TableDef, ValidTime, Value};

use crate::answer::Shape;
use crate::columns::{ColumnBuilder, field_of, period_field, period_type};
use crate::diagnose::Diagnose;
use crate::dialect::{
    Delete, Insert, Positions, Update, empty_select, normal, query_of, table_factor,
};
use crate::error::Result;
use crate::read::plan_query;
use crate::rewrite::{Relation, name_apart};
use crate::session::{StatementContext, session_with};

/// A row that a write touches.
pub struct Affected {
    pub key: Vec<Value>,
    /// Of two values for one column the later counts.
    pub fields: Vec<(ColumnId, Value)>,
    pub from: ValidTime,
    pub to: ValidTime,
}

/// The rows and the select list of a RETURNING.
pub struct Returning {
    items: Vec<SelectItem>,
    table: TableDef,
    target: Ident,
    alias: Option<Ident>,
    positions: Positions,
    rows: Vec<Affected>,
}

/// A statement that writes to one table.
pub trait Writes {
    /// Returns the table's name and alias and the places of the statement's text.
    fn target(&self) -> (&Ident, Option<&Ident>, &Positions);
}

impl Writes for Insert {
    fn target(&self) -> (&Ident, Option<&Ident>, &Positions) {
        (&self.table.ident, None, self.source.clauses.positions())
    }
}

impl Writes for Update {
    fn target(&self) -> (&Ident, Option<&Ident>, &Positions) {
        (&self.table.ident, self.alias.as_ref(), self.clauses.positions())
    }
}

impl Writes for Delete {
    fn target(&self) -> (&Ident, Option<&Ident>, &Positions) {
        (&self.table.ident, self.alias.as_ref(), self.clauses.positions())
    }
}

impl Returning {
    /// Starts gathering rows, where the statement asks for them.
    pub fn new(
        items: &Option<Vec<SelectItem>>,
        table: &TableDef,
        statement: &impl Writes,
    ) -> Option<Self> {
        let (target, alias, positions) = statement.target();
        let items = items.clone()?;
        let star = || {
            table.star().into_iter().map(|column| {
                let name = Ident::with_quote('"', column.name.as_str());
                SelectItem::UnnamedExpr(ast::Expr::Identifier(name))
            })
        };
        let mut expanded = Vec::with_capacity(items.len());
        for item in items {
            match item {
                SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => {
                    expanded.extend(star());
                }
                other => expanded.push(other),
            }
        }
        Some(Self {
            items: expanded,
            table: table.clone(),
            target: target.clone(),
            alias: alias.cloned(),
            positions: positions.clone(),
            rows: Vec::new(),
        })
    }

    /// Adds a row.
    pub fn push(&mut self, row: Affected) {
        self.rows.push(row);
    }

    /// Computes the select list over the rows. The period is there under its names but not in `*`.
    ///
    /// # Errors
    /// Whatever is wrong with the select list.
    pub async fn rows(&self, ctx: &StatementContext) -> Result<Vec<RecordBatch>> {
        let (physical, task) = self.plan(ctx).await?;
        let shape = Shape::of(&physical.schema())?;
        let batches = collect(physical, task).await.diagnosed(&self.positions)?;
        if batches.is_empty() {
            return Ok(vec![RecordBatch::new_empty(shape.schema)]);
        }
        batches.iter().map(|batch| shape.cast(batch)).collect()
    }

    /// Returns the columns that the rows will have.
    ///
    /// # Errors
    /// As [`Self::rows`].
    pub async fn shape(&self, ctx: &StatementContext) -> Result<Shape> {
        Shape::of(&self.plan(ctx).await?.0.schema())
    }

    async fn plan(
        &self,
        ctx: &StatementContext,
    ) -> Result<(Arc<dyn ExecutionPlan>, Arc<TaskContext>)> {
        let names_period = format!("{:?}", self.items).contains("_valid_");
        let batch = self.batch(names_period)?;
        let provider = MemTable::try_new(batch.schema(), vec![vec![batch]])?;
        let name = normal(&self.target);
        let state = session_with(ctx, vec![(name, Arc::new(provider))], Vec::new())?;
        let alias = self.alias.clone().map(|name| ast::TableAlias {
            explicit: true,
            name,
            columns: Vec::new(),
            at: None,
        });
        let columns = self.table.star().iter().map(|column| column.name.clone()).collect();
        let known = self.alias.as_ref().unwrap_or(&self.target);
        let relation = Relation::plain(known.clone(), normal(known), Some(columns));
        let mut projection = self.items.clone();
        name_apart(&mut projection, &[relation], Some(&HashSet::new()));
        let select = ast::Select {
            projection,
            from: vec![TableWithJoins {
                relation: table_factor(self.target.clone(), alias),
                joins: Vec::new(),
            }],
            ..empty_select()
        };
        let query = Box::new(query_of(SetExpr::Select(Box::new(select))));
        let plan = plan_query(&state, query, &self.positions).await?;
        let physical = state.create_physical_plan(&plan).await.diagnosed(&self.positions)?;
        Ok((physical, state.task_ctx()))
    }

    fn batch(&self, with_period: bool) -> Result<RecordBatch> {
        let mut fields = Vec::new();
        let mut arrays = Vec::new();
        for column in self.table.star() {
            let mut builder = ColumnBuilder::new(&column.kind, self.rows.len());
            let place = self.table.key.iter().position(|id| *id == column.id);
            for row in &self.rows {
                let value = match place {
                    Some(place) => row.key.get(place),
                    None => {
                        let found = row.fields.iter().rev().find(|(id, _)| *id == column.id);
                        found.map(|(_, value)| value)
                    }
                };
                builder.append(value.unwrap_or(&Value::Null));
            }
            fields.push(field_of(&column.name, &column.kind));
            arrays.push(builder.finish());
        }
        if with_period {
            type Cell = fn(&Affected) -> Value;
            let time = |name| field_of(name, &ColumnType::Timestamp);
            let cells: [(Field, ColumnType, Cell); 3] = [
                (time("_valid_from"), ColumnType::Timestamp, |row| bound(row.from)),
                (time("_valid_to"), ColumnType::Timestamp, |row| bound(row.to)),
                (period_field("_valid_time"), period_type(), |row| {
                    Value::Struct(vec![bound(row.from), bound(row.to)])
                }),
            ];
            for (field, kind, cell) in cells {
                let mut builder = ColumnBuilder::new(&kind, self.rows.len());
                self.rows.iter().for_each(|row| builder.append(&cell(row)));
                fields.push(field);
                arrays.push(builder.finish());
            }
        }
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
    }
}

/// Returns a bound of a period as it is shown: NULL where it is open.
fn bound(at: ValidTime) -> Value {
    if at.is_open() { Value::Null } else { Value::Timestamp(at.micros()) }
}
