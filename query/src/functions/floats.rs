//! Floats as PostgreSQL compares them: `-0` equals `0`, NaN equals NaN and is greater than every number.
//!
//! The engine's kernels compare bits in IEEE 754's total order, in which `-0` is less than `0` and a NaN
//! has a sign. So what is compared, joined, grouped, made distinct or ordered goes through
//! [`in_order`], which knows one zero and one NaN; on its values both orders are the same. Values that
//! a query shows keep their sign.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowPrimitiveType, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float32Type, Float64Type};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{
    AggregateFunctionParams, GroupingSet, InList, InSubquery, SetComparison, WindowFunctionParams,
};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Between, BinaryExpr, ColumnarValue, Distinct, Expr, ExprSchemable, Filter, LogicalPlan,
    Operator, Projection, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    SortExpr, Subquery, Volatility, WindowFunctionDefinition,
};
use datafusion::optimizer::AnalyzerRule;

/// The one zero and the one NaN of what is compared.
pub(super) fn canonical(value: f64) -> f64 {
    // -0 + 0 is 0.
    if value.is_nan() { f64::NAN } else { value + 0.0 }
}

/// Runs after DataFusion has made the types of both sides equal.
#[derive(Debug)]
pub struct FloatsInOrder;

impl AnalyzerRule for FloatsInOrder {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|node| {
            let schema = merge_schema(&node.inputs());
            let names = NamePreserver::new(&node);
            let node = node.map_expressions(|expr| {
                let name = names.save(&expr);
                let compared = expr.transform_up(|part| comparison(part, &schema))?;
                Ok(compared.update_data(|expr| name.restore(expr)))
            })?;
            node.transform_data(|node| keys(node, &schema))
        })?;
        Ok(plan.data)
    }

    fn name(&self) -> &'static str {
        "floats_in_order"
    }
}

/// Returns what an expression puts in order, where it is a call of this module's.
pub fn ordered_float(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::ScalarFunction(call) if call.func.inner().is::<InOrder>() => call.args.first(),
        Expr::Alias(alias) => ordered_float(&alias.expr),
        _ => None,
    }
}

/// Returns a plan's rows with one zero and one NaN in some of its columns of floats.
///
/// # Errors
/// XX000 where the plan cannot be built.
pub fn columns_in_order(
    plan: LogicalPlan,
    chosen: impl Fn(&Field) -> bool,
) -> Result<Transformed<LogicalPlan>> {
    let taken = |field: &Field| is_float(field.data_type()) && chosen(field);
    if !plan.schema().fields().iter().any(|field| taken(field)) {
        return Ok(Transformed::no(plan));
    }
    let columns = plan.schema().iter().map(|(qualifier, field)| {
        let column = Expr::Column(Column::from((qualifier, field)));
        match taken(field) {
            true => call(column).alias_qualified(qualifier.cloned(), field.name()),
            false => column,
        }
    });
    let columns = columns.collect();
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(plan))?)))
}

const fn is_float(kind: &DataType) -> bool {
    matches!(kind, DataType::Float64 | DataType::Float32)
}

fn float(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|kind| is_float(&kind))
}

/// Puts an expression in order, if it is a float.
fn in_order(expr: Expr, schema: &DFSchema) -> Expr {
    match &expr {
        _ if ordered_float(&expr).is_some() || !float(&expr, schema) => expr,
        Expr::Literal(ScalarValue::Float64(Some(value)), metadata) => {
            let value = ScalarValue::Float64(Some(canonical(*value)));
            Expr::Literal(value, metadata.clone())
        }
        _ => call(expr),
    }
}

fn call(expr: Expr) -> Expr {
    let signature = Signature::any(1, Volatility::Immutable);
    ScalarUDF::from(InOrder { signature }).call(vec![expr])
}

/// True for what has one form already, so that equality with it needs no other.
fn is_plain(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(ScalarValue::Float64(Some(value)), _) => *value != 0.0 && !value.is_nan(),
        _ => false,
    }
}

/// Puts in order what an expression compares, all but what its plan does with it.
fn comparison(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let ordered = |expr: Box<Expr>| Box::new(in_order(*expr, schema));
    Ok(Transformed::yes(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if compares(op) && (float(&left, schema) || float(&right, schema)) =>
        {
            if is_equality(op) && (is_plain(&left) || is_plain(&right)) {
                return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
            }
            Expr::BinaryExpr(BinaryExpr { left: ordered(left), op, right: ordered(right) })
        }
        Expr::Between(Between { expr, negated, low, high }) if float(&expr, schema) => {
            let [expr, low, high] = [expr, low, high].map(ordered);
            Expr::Between(Between { expr, negated, low, high })
        }
        Expr::InList(InList { expr, list, negated })
            if float(&expr, schema) && !list.iter().all(is_plain) =>
        {
            let list = list.into_iter().map(|item| in_order(item, schema)).collect();
            Expr::InList(InList { expr: ordered(expr), list, negated })
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated }) if float(&expr, schema) => {
            let (expr, subquery) = (ordered(expr), members(subquery)?);
            Expr::InSubquery(InSubquery { expr, subquery, negated })
        }
        Expr::SetComparison(SetComparison { expr, subquery, op, quantifier })
            if float(&expr, schema) =>
        {
            let (expr, subquery) = (ordered(expr), members(subquery)?);
            Expr::SetComparison(SetComparison { expr, subquery, op, quantifier })
        }
        Expr::Case(mut case) => match case.expr.take_if(|expr| float(expr, schema)) {
            None => return Ok(Transformed::no(Expr::Case(case))),
            Some(expr) => {
                case.expr = Some(ordered(expr));
                for (when, _) in &mut case.when_then_expr {
                    *when = ordered(std::mem::take(when));
                }
                Expr::Case(case)
            }
        },
        Expr::AggregateFunction(mut function) => {
            let name = function.func.name();
            let AggregateFunctionParams { args, distinct, order_by, .. } = &mut function.params;
            if *distinct || is_extreme(name) {
                all_in_order(args, schema);
            }
            sorts_in_order(order_by, schema);
            Expr::AggregateFunction(function)
        }
        Expr::WindowFunction(mut function) => {
            let of_extreme = matches!(&function.fun, WindowFunctionDefinition::AggregateUDF(of)
                if is_extreme(of.name()));
            let WindowFunctionParams { args, partition_by, order_by, distinct, .. } =
                &mut function.params;
            if *distinct || of_extreme {
                all_in_order(args, schema);
            }
            all_in_order(partition_by, schema);
            sorts_in_order(order_by, schema);
            Expr::WindowFunction(function)
        }
        other => return Ok(Transformed::no(other)),
    }))
}

fn is_extreme(name: &str) -> bool {
    matches!(name, "min" | "max")
}

fn all_in_order(exprs: &mut [Expr], schema: &DFSchema) {
    for expr in exprs {
        *expr = in_order(std::mem::take(expr), schema);
    }
}

fn sorts_in_order(sorts: &mut [SortExpr], schema: &DFSchema) {
    for sort in sorts {
        sort.expr = in_order(std::mem::take(&mut sort.expr), schema);
    }
}

/// Returns a sub-query whose rows are compared with a value.
fn members(subquery: Subquery) -> Result<Subquery> {
    let Subquery { subquery, outer_ref_columns, spans } = subquery;
    let rows = columns_in_order(Arc::unwrap_or_clone(subquery), |_| true)?.data;
    Ok(Subquery { subquery: Arc::new(rows), outer_ref_columns, spans })
}

/// Puts in order what a node joins, groups, makes distinct or sorts by.
fn keys(node: LogicalPlan, schema: &DFSchema) -> Result<Transformed<LogicalPlan>> {
    Ok(match node {
        LogicalPlan::Join(mut join) if !join.on.is_empty() => {
            for (left, right) in &mut join.on {
                *left = in_order(std::mem::take(left), schema);
                *right = in_order(std::mem::take(right), schema);
            }
            Transformed::yes(LogicalPlan::Join(join))
        }
        LogicalPlan::Sort(mut sort) => {
            sorts_in_order(&mut sort.expr, schema);
            Transformed::yes(LogicalPlan::Sort(sort))
        }
        LogicalPlan::Filter(filter) if filter.predicate.contains_outer() => {
            Transformed::yes(LogicalPlan::Filter(correlated(filter)?))
        }
        LogicalPlan::Aggregate(mut aggregate) => {
            for expr in &mut aggregate.group_expr {
                *expr = group(std::mem::take(expr), schema);
            }
            Transformed::yes(LogicalPlan::Aggregate(aggregate))
        }
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let rows = columns_in_order(Arc::unwrap_or_clone(input), |_| true)?;
            rows.update_data(|rows| LogicalPlan::Distinct(Distinct::All(Arc::new(rows))))
        }
        LogicalPlan::Distinct(Distinct::On(mut on)) => {
            all_in_order(&mut on.on_expr, schema);
            sorts_in_order(on.sort_expr.as_deref_mut().unwrap_or_default(), schema);
            Transformed::yes(LogicalPlan::Distinct(Distinct::On(on)))
        }
        other => Transformed::no(other),
    })
}

/// Puts the columns of a sub-query in order below its condition: the planner turns it into a join
/// where a bare column is equal to one of the query around it, and not where a call is.
fn correlated(filter: Filter) -> Result<Filter> {
    let Filter { predicate, input, .. } = filter;
    let mut bare = HashSet::new();
    let predicate = predicate.transform_down(|part| {
        Ok(match ordered_float(&part) {
            Some(Expr::Column(column)) => {
                bare.insert(column.name.clone());
                Transformed::yes(Expr::Column(column.clone()))
            }
            _ => Transformed::no(part),
        })
    })?;
    let of_bare = |field: &Field| bare.contains(field.name());
    let input = columns_in_order(Arc::unwrap_or_clone(input), of_bare)?.data;
    Filter::try_new(predicate.data, Arc::new(input))
}

/// Puts an expression of GROUP BY in order, under the name that it had.
fn group(expr: Expr, schema: &DFSchema) -> Expr {
    let all = |exprs: Vec<Expr>| exprs.into_iter().map(|expr| group(expr, schema)).collect();
    match expr {
        Expr::GroupingSet(GroupingSet::Rollup(exprs)) => {
            Expr::GroupingSet(GroupingSet::Rollup(all(exprs)))
        }
        Expr::GroupingSet(GroupingSet::Cube(exprs)) => {
            Expr::GroupingSet(GroupingSet::Cube(all(exprs)))
        }
        Expr::GroupingSet(GroupingSet::GroupingSets(sets)) => {
            let sets = sets.into_iter().map(all).collect();
            Expr::GroupingSet(GroupingSet::GroupingSets(sets))
        }
        expr if float(&expr, schema) && ordered_float(&expr).is_none() => {
            let (relation, name) = match &expr {
                Expr::Alias(alias) => (alias.relation.clone(), alias.name.clone()),
                other => other.qualified_name(),
            };
            in_order(expr.unalias(), schema).alias_qualified(relation, name)
        }
        other => other,
    }
}

const fn compares(op: Operator) -> bool {
    use Operator::{Gt, GtEq, Lt, LtEq};
    is_equality(op) || matches!(op, Lt | LtEq | Gt | GtEq)
}

const fn is_equality(op: Operator) -> bool {
    use Operator::{Eq, IsDistinctFrom, IsNotDistinctFrom, NotEq};
    matches!(op, Eq | NotEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// See the module.
#[derive(Debug, PartialEq, Eq, Hash)]
struct InOrder {
    signature: Signature,
}

impl ScalarUDFImpl for InOrder {
    fn name(&self) -> &'static str {
        "float_in_order"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments.first().cloned().unwrap_or(DataType::Float64))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let of = args.arg_fields.first();
        let kind = of.map_or(DataType::Float64, |field| field.data_type().clone());
        let nullable = of.is_none_or(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), kind, nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value] = <[ColumnarValue; 1]>::try_from(args.args).map_err(|_| {
            datafusion::error::DataFusionError::Internal("one float is put in order".to_owned())
        })?;
        Ok(match value {
            ColumnarValue::Array(array) => ColumnarValue::Array(ordered(&array)),
            ColumnarValue::Scalar(scalar) => {
                let one = ordered(&scalar.to_array()?);
                ColumnarValue::Scalar(ScalarValue::try_from_array(&one, 0)?)
            }
        })
    }
}

fn ordered(values: &ArrayRef) -> ArrayRef {
    fn each<T: ArrowPrimitiveType>(
        values: &ArrayRef,
        canonical: impl Fn(T::Native) -> T::Native,
    ) -> ArrayRef {
        Arc::new(values.as_primitive::<T>().unary::<_, T>(canonical))
    }
    match values.data_type() {
        DataType::Float64 => each::<Float64Type>(values, canonical),
        DataType::Float32 => each::<Float32Type>(values, |value| match value.is_nan() {
            true => f32::NAN,
            false => value + 0.0,
        }),
        _ => Arc::clone(values),
    }
}
