//! Runs every expression of a compiled query once over no row and once over a row of NULLs.
//!
//! Types that an operator has no kernel for show then, at CREATE, and not when the first rows come.
//! What only some values make fail, such as a division by zero, is none of its business.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::SchemaRef;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr_common::physical_expr::fmt_sql;
use everwhen_query::columns::cast_column;

use super::definition::OutputColumn;
use super::fault::evaluated;
use super::node::{Call, Kind, Node, Output};
use super::zset::{batch_of, row_bytes};
use crate::error::{Error, Result};

/// Runs the expressions of a node and of those below.
///
/// # Errors
/// [`Error::Refused`] with the expression that cannot be computed.
pub fn prove(root: &Node) -> Result<()> {
    for input in root.inputs() {
        prove(input)?;
    }
    for count in [0, 1] {
        own(root, count)?;
        let rows = nulls(&root.schema, count)?;
        let told_apart = row_bytes(rows.columns()).map(drop);
        let names: Vec<&str> =
            root.schema.fields().iter().map(|field| field.name().as_str()).collect();
        judged(told_apart, || format!("telling rows of ({}) apart", names.join(", ")))?;
    }
    Ok(())
}

/// Shows that a result's columns have forms in a sink.
///
/// # Errors
/// [`Error::Refused`] with the column that has none.
pub fn prove_outputs(schema: &SchemaRef, columns: &[OutputColumn]) -> Result<()> {
    let rows = nulls(schema, 1)?;
    for (values, column) in rows.columns().iter().zip(columns) {
        let cast = cast_column(values, &column.kind).map(drop).map_err(Error::from);
        judged(cast, || format!("column \"{}\" as {}", column.name, column.kind))?;
    }
    Ok(())
}

fn own(node: &Node, count: usize) -> Result<()> {
    let below = |input: &Node| nulls(&input.schema, count);
    match &node.kind {
        Kind::Constant(_) | Kind::Scan(_) | Kind::Union(_) => Ok(()),
        Kind::Filter(filter) => {
            let rows = below(&filter.input)?;
            judged(truth_of(&filter.predicate, &rows), || text(&filter.predicate))
        }
        Kind::Project(project) => {
            let rows = below(&project.input)?;
            for (at, output) in project.outputs.iter().enumerate() {
                if let Output::Cast(_, expr) | Output::Computed(expr) = output {
                    let values = array_of(expr, &rows);
                    let fits = values.and_then(|values| fits(&node.schema, at, values, count));
                    judged(fits, || text(expr))?;
                }
            }
            Ok(())
        }
        Kind::Join(join) => match &join.residual {
            None => Ok(()),
            Some(residual) => {
                let rows = nulls(&residual.schema, count)?;
                judged(truth_of(&residual.expr, &rows), || text(&residual.expr))
            }
        },
        Kind::Aggregate(aggregate) => {
            let rows = below(&aggregate.input)?;
            for (call, at) in aggregate.calls.iter().zip(aggregate.group.len()..) {
                let value = value_of(call, &rows);
                let fits = value.and_then(|value| fits(&node.schema, at, value, 1));
                judged(fits, || call.function.name().to_owned())?;
            }
            Ok(())
        }
        Kind::Window(window) => {
            let rows = below(&window.input)?;
            for (call, at) in window.calls.iter().zip(rows.num_columns()..) {
                // No partition is empty.
                if count > 0 {
                    let values = call.evaluate(&rows).map_err(Error::from);
                    let fits = values.and_then(|values| fits(&node.schema, at, values, count));
                    judged(fits, || call.name().to_owned())?;
                }
            }
            Ok(())
        }
        Kind::Top(top) => {
            let rows = below(&top.input)?;
            for (expr, _) in &top.order {
                judged(array_of(expr, &rows).map(drop), || text(expr))?;
            }
            Ok(())
        }
    }
}

/// Aggregates some rows.
fn value_of(call: &Call, rows: &RecordBatch) -> Result<ArrayRef> {
    let mut arguments = Vec::with_capacity(call.arguments.len());
    for argument in &call.arguments {
        arguments.push(array_of(argument, rows)?);
    }
    if let Some(filter) = &call.filter {
        truth_of(filter, rows)?;
    }
    let mut accumulator = call.function.create_accumulator()?;
    if rows.num_rows() > 0 {
        accumulator.update_batch(&arguments)?;
    }
    Ok(accumulator.evaluate()?.to_array()?)
}

/// Brings values to the type that their column has.
fn fits(schema: &SchemaRef, at: usize, values: ArrayRef, count: usize) -> Result<()> {
    let column = Arc::new(schema.project(&[at])?);
    batch_of(&column, vec![values], count).map(drop)
}

fn nulls(schema: &SchemaRef, count: usize) -> Result<RecordBatch> {
    let columns = schema.fields().iter().map(|field| new_null_array(field.data_type(), count));
    let fields: Vec<_> =
        schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let schema = Arc::new(arrow::datatypes::Schema::new(fields));
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    Ok(RecordBatch::try_new_with_options(schema, columns.collect(), &options)?)
}

fn array_of(expr: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<ArrayRef> {
    Ok(evaluated(expr, rows)?)
}

fn truth_of(expr: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<()> {
    match array_of(expr, rows)?.as_boolean_opt() {
        Some(_) => Ok(()),
        None => Err(Error::internal("a predicate is true, false or NULL")),
    }
}

fn text(expr: &Arc<dyn PhysicalExpr>) -> String {
    fmt_sql(expr.as_ref()).to_string()
}

fn judged(done: Result<()>, what: impl Fn() -> String) -> Result<()> {
    let error = match done {
        Ok(()) => return Ok(()),
        Err(Error::Evaluate { source }) => everwhen_query::Error::from(*source),
        Err(Error::Query(error)) => error,
        Err(other) => return Err(other),
    };
    if error.is_of_values() {
        return Ok(());
    }
    Err(Error::refused_with(
        format!("a projection cannot compute {}: {error}", what()),
        "cast its arguments to other types, or use another function",
    ))
}
