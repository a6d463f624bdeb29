//! Puts [`PeriodAggregate`] in the place of aggregates that are grouped by a constant interval.
//!
//! ```text
//! Aggregate: group=[site, constant_interval(p)], [sum(x), count(*) FILTER (WHERE y > 1)]
//!   input
//!
//! PeriodAggregate: keys=[site], period=p, aggregates=[..]
//!   Projection: site, raw from of p, raw to of p, x, CASE WHEN y > 1 THEN true END
//!     input
//! ```
//!
//! What an aggregate leaves out is NULL in its argument, so the operator knows no filters.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ScalarValue};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion::logical_expr::{
    Aggregate, Cast, Expr, ExprSchemable, Extension, LogicalPlan, Projection, lit, when,
};
use datafusion::optimizer::AnalyzerRule;

use super::node::PeriodAggregate;
use super::{Call, Function, states};
use crate::error::{Error, SqlState};
use crate::functions::periods::{End, is_constant_interval, raw_bound};

/// Qualifies the columns between the operator and its projection.
const OWN: &str = "__constant_interval";

const WHAT_WORKS: &str = "count, sum, avg, min, max, bool_and and bool_or work there";

/// Runs after types are equal, and refuses what stays of the marker.
#[derive(Debug)]
pub struct ConstantIntervals;

impl AnalyzerRule for ConstantIntervals {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        let mut found = false;
        plan.apply_with_subqueries(|node| {
            node.apply_expressions(|expr| {
                found |= expr.exists(|part| Ok(marked(part).is_some()))?;
                Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })
        })?;
        if !found {
            return Ok(plan);
        }
        let replaced = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Aggregate(aggregate) => replaced(aggregate),
            other => Ok(Transformed::no(other)),
        })?;
        refuse_rest(&replaced.data)?;
        Ok(replaced.data)
    }

    fn name(&self) -> &'static str {
        "constant_intervals"
    }
}

/// Returns the period of a call of the marker.
fn marked(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::ScalarFunction(call) if is_constant_interval(&call.func) => call.args.first(),
        Expr::Alias(alias) => marked(&alias.expr),
        _ => None,
    }
}

/// A marker that stands nowhere in GROUP BY is one too many.
fn refuse_rest(plan: &LogicalPlan) -> DataFusionResult<()> {
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            if expr.exists(|part| Ok(marked(part).is_some()))? {
                let message = "CONSTANT_INTERVAL stands in GROUP BY, on its own";
                let advice = "select or order by the same expression, or by its alias";
                let error = Error::new(SqlState::GroupingError, message).with_hint(advice);
                return Err(error.into());
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(())
}

fn unsupported<T>(message: impl Into<String>) -> DataFusionResult<T> {
    Err(Error::unsupported(message).into())
}

fn replaced(aggregate: Aggregate) -> DataFusionResult<Transformed<LogicalPlan>> {
    for expr in &aggregate.group_expr {
        if let Expr::GroupingSet(_) = expr
            && expr.exists(|part| Ok(marked(part).is_some()))?
        {
            return unsupported(
                "CONSTANT_INTERVAL stands in a plain GROUP BY, not in GROUPING SETS, ROLLUP or CUBE",
            );
        }
    }
    let places: Vec<usize> = (0..aggregate.group_expr.len())
        .filter(|at| marked(&aggregate.group_expr[*at]).is_some())
        .collect();
    let period_at = match places.as_slice() {
        [] => return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate))),
        [one] => *one,
        _ => return unsupported("one GROUP BY takes one CONSTANT_INTERVAL"),
    };
    let node = Building::default().node(&aggregate, period_at)?;
    Ok(Transformed::yes(LogicalPlan::Extension(Extension { node: Arc::new(node) })))
}

/// The columns that the operator asks for, in the making.
#[derive(Default)]
struct Building {
    keys: Vec<Expr>,
    arguments: Vec<Expr>,
}

impl Building {
    fn node(
        mut self,
        aggregate: &Aggregate,
        period_at: usize,
    ) -> DataFusionResult<PeriodAggregate> {
        let input = &aggregate.input;
        let Some(period) = marked(&aggregate.group_expr[period_at]) else {
            return unsupported("CONSTANT_INTERVAL takes one period");
        };
        for (at, expr) in aggregate.group_expr.iter().enumerate() {
            if at != period_at {
                self.key(expr);
            }
        }
        let outputs = aggregate.schema.fields().iter().skip(aggregate.group_expr.len());
        let mut calls = Vec::with_capacity(aggregate.aggr_expr.len());
        for (expr, field) in aggregate.aggr_expr.iter().zip(outputs) {
            calls.push(self.call(expr, field.name(), field.data_type(), input)?);
        }
        let mut columns = self.keys;
        let keys_count = columns.len();
        for (end, name) in [(End::Lower, "from"), (End::Upper, "to")] {
            columns.push(raw_bound(end, period).alias_qualified(Some(OWN), name));
        }
        for (at, argument) in self.arguments.into_iter().enumerate() {
            columns.push(argument.alias_qualified(Some(OWN), format!("argument_{at}")));
        }
        let projection = Projection::try_new(columns, Arc::clone(input))?;
        let mut columns: Vec<Column> = projection.schema.iter().map(Column::from).collect();
        let arguments = columns.split_off(keys_count + 2);
        let bounds = columns.split_off(keys_count);
        Ok(PeriodAggregate {
            input: Arc::new(LogicalPlan::Projection(projection)),
            keys: columns,
            from: bounds[0].clone(),
            to: bounds[1].clone(),
            arguments,
            calls,
            period_at,
            period: period.to_string(),
            schema: Arc::clone(&aggregate.schema),
        })
    }

    /// A plain column keeps its name, so that filters on it find it below.
    fn key(&mut self, expr: &Expr) {
        let key = match expr {
            Expr::Column(_) => expr.clone(),
            other => {
                let name = format!("key_{}", self.keys.len());
                other.clone().unalias().alias_qualified(Some(OWN), name)
            }
        };
        self.keys.push(key);
    }

    fn call(
        &mut self,
        expr: &Expr,
        name: &str,
        output: &DataType,
        input: &LogicalPlan,
    ) -> DataFusionResult<Call> {
        let bare = expr.clone().unalias_nested().data;
        let Expr::AggregateFunction(AggregateFunction { func, params }) = bare else {
            return unsupported(format!("{name} is no aggregate over constant intervals"));
        };
        let Some(function) = Function::of(func.name()) else {
            let message = format!("{}() has no form over constant intervals", func.name());
            return Err(Error::unsupported(message).with_hint(WHAT_WORKS).into());
        };
        let same_without = matches!(
            function,
            Function::Min | Function::Max | Function::BoolAnd | Function::BoolOr
        );
        if params.distinct && !same_without {
            let message =
                format!("{}(DISTINCT ..) has no form over constant intervals", func.name());
            return Err(Error::unsupported(message).with_hint(WHAT_WORKS).into());
        }
        let argument = match function {
            Function::Count => counted(params, input)?,
            _ => Some(valued(function, params, input)?),
        };
        let kind = argument.as_ref().map(|one| one.get_type(input.schema())).transpose()?;
        // Says whether the types have a form.
        states::state(function, kind.as_ref(), output)?;
        let argument = argument.map(|argument| self.argument(argument));
        // As it was written; the engine counts a constant.
        let name = if name == "count(Int64(1))" { "count(*)" } else { name };
        Ok(Call { function, argument, name: name.to_owned() })
    }

    /// Returns the place of an argument; aggregates of the same one share it.
    fn argument(&mut self, argument: Expr) -> usize {
        let known = self.arguments.iter().position(|one| *one == argument);
        known.unwrap_or_else(|| {
            self.arguments.push(argument);
            self.arguments.len() - 1
        })
    }
}

/// Returns what is not NULL in the rows that are counted; nothing where all are.
fn counted(params: AggregateFunctionParams, input: &LogicalPlan) -> DataFusionResult<Option<Expr>> {
    let schema = input.schema();
    let mut asked = Vec::new();
    for argument in params.args {
        if argument.nullable(schema)? {
            asked.push(argument);
        }
    }
    match (asked.as_slice(), &params.filter) {
        ([], None) => return Ok(None),
        // The column may be there for another aggregate; a text would be sorted along.
        ([one], None) if one.get_type(schema)?.is_primitive() => return Ok(Some(one.clone())),
        _ => {}
    }
    let conditions = asked.into_iter().map(Expr::is_not_null).chain(params.filter.map(|of| *of));
    let Some(condition) = conditions.reduce(Expr::and) else { return Ok(None) };
    when(condition, lit(true)).end().map(Some)
}

/// Returns the value of the rows that take part.
fn valued(
    function: Function,
    params: AggregateFunctionParams,
    input: &LogicalPlan,
) -> DataFusionResult<Expr> {
    let Ok([argument]) = <[Expr; 1]>::try_from(params.args) else {
        return unsupported("an aggregate over constant intervals takes one argument");
    };
    let argument = match argument {
        Expr::Cast(cast) if function == Function::Avg => whole(cast, input)?,
        other => other,
    };
    match params.filter {
        None => Ok(argument),
        Some(filter) => {
            let kind = argument.get_type(input.schema())?;
            when(*filter, argument).otherwise(lit(ScalarValue::try_from(&kind)?))
        }
    }
}

/// Returns integers that an average would turn into floats: their sum is exact.
fn whole(cast: Cast, input: &LogicalPlan) -> DataFusionResult<Expr> {
    let kind = cast.expr.get_type(input.schema())?;
    let is_whole = kind.is_signed_integer() && *cast.field.data_type() == DataType::Float64;
    Ok(if is_whole { *cast.expr } else { Expr::Cast(cast) })
}
