//! Grouping, DISTINCT, windows and ORDER BY .. LIMIT of the logical plan as nodes of ours.
//!
//! Here are also the rules on order: a result that depends on which of several equal rows comes
//! first could differ between two evaluations of the same data, so it is refused.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::logical_expr::expr::{AggregateFunction, WindowFunction};
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{
    Aggregate as LogicalAggregate, Expr, ExprSchemable, FetchType, Limit, LogicalPlan, Projection,
    SkipType, SortExpr, Window as LogicalWindow, WindowFrameUnits, WindowFunctionDefinition,
};
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;
use datafusion::physical_planner::create_window_expr;
use everwhen_query::functions::ordered_float;

use super::compile::{
    Built, Compiled, Compiler, Need, Stop, arrow_schema, column_places, fall_back, plain_column,
    project, qualified,
};
use super::node::{Aggregate, Call, Kind, Node, Output, Top, Window};
use crate::error::Error;

/// A node's input with further columns for expressions, and the names of all of them.
struct Extended {
    node: Node,
    names: DFSchema,
    /// The column of each expression.
    places: Vec<usize>,
}

impl Compiler {
    /// DISTINCT: a group by all columns.
    pub fn distinct(&self, input: &LogicalPlan) -> Compiled<Built> {
        let columns: Vec<usize> = (0..input.schema().fields().len()).collect();
        if columns.is_empty() {
            return fall_back("DISTINCT over rows without columns");
        }
        let built = self.compile(input, &Need::of_values(columns.clone()))?.trimmed(&columns)?;
        let schema = Arc::clone(&built.node.schema);
        let aggregate = Aggregate {
            group: columns.clone(),
            calls: Vec::new(),
            ordered: false,
            input: built.node,
        };
        let unique = columns.clone();
        Ok(Built { node: aggregate_node(aggregate, schema, unique), columns })
    }

    /// GROUP BY with any aggregate functions.
    pub fn aggregate(&self, aggregate: &LogicalAggregate, need: &Need) -> Compiled<Built> {
        let input = aggregate.input.as_ref();
        let schema = input.schema();
        if aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_))) {
            return fall_back("GROUPING SETS, ROLLUP or CUBE");
        }
        // The plan's schema has a column for each different expression, however often it is named.
        let group_exprs = grouping_set_to_exprlist(&aggregate.group_expr).map_err(Error::from)?;
        let groups = group_exprs.len();
        let mut wanted: Vec<usize> = (0..groups).collect();
        wanted.extend(need.all().into_iter().filter(|at| *at >= groups));
        if wanted.is_empty() {
            wanted.push(0);
        }
        let calls: Vec<&Expr> = wanted
            .iter()
            .filter_map(|at| aggregate.aggr_expr.get(at.checked_sub(groups)?))
            .collect();
        let mut below = Need::default();
        for expr in group_exprs.iter().chain(&calls) {
            below.values.extend(column_places(expr, schema)?);
        }
        let built = self.compile(input, &below)?;
        let extended = self.extended(input, built, &group_exprs)?;
        let mut compiled = Vec::with_capacity(calls.len());
        let mut ordered = false;
        for call in calls {
            ordered |= depends_on_order(call, schema)?;
            check_order(call, &extended)?;
            compiled.push(self.call(call, &extended.names)?);
        }
        let out = arrow_schema(&aggregate.schema, &wanted);
        let aggregate =
            Aggregate { input: extended.node, group: extended.places, calls: compiled, ordered };
        // A constant keeps no groups apart.
        let apart = |at: &usize| !matches!(group_exprs[*at].clone().unalias(), Expr::Literal(..));
        let unique = (0..groups).filter(apart).collect();
        Ok(Built { node: aggregate_node(aggregate, out, unique), columns: wanted })
    }

    fn call(&self, expr: &Expr, names: &DFSchema) -> Compiled<Call> {
        let (props, context) = self.planning();
        let lowered = LoweredAggregateBuilder::new(expr, names, names.as_arrow(), props, context)
            .build()
            .map_err(|error| Stop::Fallback(format!("aggregate {expr}: {error}")))?;
        let mut arguments = lowered.aggregate.expressions();
        arguments.extend(lowered.order_bys.iter().map(|order| Arc::clone(&order.expr)));
        Ok(Call {
            function: lowered.aggregate,
            arguments,
            filter: lowered.filter,
            order: lowered.order_bys,
        })
    }

    /// Adds a column for each expression that is no plain column already.
    fn extended(&self, input: &LogicalPlan, built: Built, exprs: &[&Expr]) -> Compiled<Extended> {
        let schema = input.schema();
        let names = qualified(schema, &built.columns)?;
        let width = built.node.schema.fields().len();
        let mut outputs: Vec<Output> = (0..width).map(Output::Column).collect();
        let mut fields: Vec<Field> =
            built.node.schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        let mut named: Vec<_> =
            names.iter().map(|(of, field)| (of.cloned(), Arc::clone(field))).collect();
        let mut places = Vec::with_capacity(exprs.len());
        for (at, expr) in exprs.iter().enumerate() {
            if let Some(column) = plain_column(expr, schema) {
                places.push(built.place(column)?);
                continue;
            }
            let kind = expr.get_type(schema.as_ref()).map_err(Error::from)?;
            let field = Field::new(format!("__group_{at}"), kind, true);
            places.push(outputs.len());
            outputs.push(self.output(expr, input, &built)?);
            if named.len() == fields.len() {
                named.push((None, Arc::new(field.clone())));
            }
            fields.push(field);
        }
        let names = DFSchema::new_with_metadata(named, std::collections::HashMap::new())
            .map_err(Error::from)?;
        let node = if outputs.len() == width {
            built.node
        } else {
            project(built.node, outputs, Arc::new(Schema::new(fields)))
        };
        Ok(Extended { node, names, places })
    }

    /// Window functions, partition by partition.
    pub fn window(&self, window: &LogicalWindow, need: &Need) -> Compiled<Built> {
        let input = window.input.as_ref();
        let schema = input.schema();
        let width = schema.fields().len();
        let wanted = need.all();
        let mut below = Need::of_values(wanted.iter().copied().filter(|at| *at < width));
        let places: Vec<usize> =
            (0..window.window_expr.len()).filter(|at| wanted.contains(&(width + at))).collect();
        for at in &places {
            below.values.extend(column_places(&window.window_expr[*at], schema)?);
        }
        let built = self.compile(input, &below)?;
        let names = qualified(schema, &built.columns)?;
        let (props, context) = self.planning();
        let mut calls = Vec::with_capacity(places.len());
        let mut common: Option<BTreeSet<usize>> = None;
        for at in &places {
            let expr = &window.window_expr[*at];
            let bare = expr.clone().unalias();
            let Expr::WindowFunction(function) = &bare else {
                return fall_back(&format!("window expression {expr}"));
            };
            let partition: BTreeSet<usize> = function
                .params
                .partition_by
                .iter()
                .filter_map(|expr| built.place(plain_column(expr, schema)?).ok())
                .collect();
            check_window(function, &built, schema)?;
            common = Some(match common {
                Some(so_far) => so_far.intersection(&partition).copied().collect(),
                None => partition,
            });
            let call = create_window_expr(expr, &names, props, context)
                .map_err(|error| Stop::Fallback(format!("window {expr}: {error}")))?;
            calls.push(call);
        }
        let mut fields = built.node.schema.fields().to_vec();
        let called: Vec<usize> = places.iter().map(|at| width + at).collect();
        fields.extend(arrow_schema(&window.schema, &called).fields().iter().cloned());
        let input_width = built.node.schema.fields().len();
        let node = Node {
            schema: Arc::new(Schema::new(fields)),
            unique: built.node.unique.clone(),
            instants: Vec::new(),
            tables: built.node.tables.clone(),
            kind: Kind::Window(Box::new(Window {
                input: built.node,
                partition: common.unwrap_or_default().into_iter().collect(),
                calls,
            })),
        };
        let keep: Vec<usize> = wanted.into_iter().collect();
        let mut columns = built.columns;
        let mut outputs: Vec<usize> = (0..columns.len()).collect();
        outputs.extend(input_width..input_width + called.len());
        columns.extend(called);
        if outputs.is_empty() || columns.len() == node.schema.fields().len() {
            return Built { node, columns }.trimmed(&keep);
        }
        // The input has a column for its rows alone, before those of the functions.
        let schema = Arc::new(node.schema.project(&outputs).map_err(Error::from)?);
        let outputs = outputs.into_iter().map(Output::Column).collect();
        Built { node: project(node, outputs, schema), columns }.trimmed(&keep)
    }

    /// ORDER BY .. LIMIT .. OFFSET.
    pub fn top(&self, plan: &LogicalPlan, need: &Need) -> Compiled<Built> {
        let (skip, fetch, below) = match plan {
            LogicalPlan::Limit(limit) => {
                if let LogicalPlan::Projection(above) = limit.input.as_ref() {
                    return self.projection(&limit_below(limit, above), need);
                }
                let skip = limit.get_skip_type().map_err(Error::from)?;
                let fetch = limit.get_fetch_type().map_err(Error::from)?;
                let (SkipType::Literal(skip), FetchType::Literal(fetch)) = (skip, fetch) else {
                    return Err(Error::refused("a LIMIT that is no constant").into());
                };
                (skip, fetch, limit.input.as_ref())
            }
            LogicalPlan::Sort(sort) => (0, sort.fetch, plan),
            _ => return fall_back("a limit"),
        };
        let Some((order, input)) = order_below(below) else {
            return Err(limit_refused());
        };
        let mut need = Need::of_values(need.all());
        for sort in order {
            need.values.extend(column_places(&sort.expr, input.schema())?);
        }
        // The input's own keys prove the order total, so they are kept.
        let everything = Need::of_values(0..input.schema().fields().len());
        let built = self.compile(input, &everything)?;
        let by: BTreeSet<usize> = order
            .iter()
            .filter_map(|sort| built.place(ordered_column(&sort.expr, input.schema())?).ok())
            .collect();
        if !built.node.unique.iter().any(|key| key.iter().all(|column| by.contains(column))) {
            return Err(limit_refused());
        }
        let mut sorts = Vec::with_capacity(order.len());
        for sort in order {
            let expr = self.physical(&sort.expr, input, &built.columns)?;
            let options = SortOptions { descending: !sort.asc, nulls_first: sort.nulls_first };
            sorts.push((expr, options));
        }
        let node = Node {
            schema: Arc::clone(&built.node.schema),
            unique: built.node.unique.clone(),
            instants: Vec::new(),
            tables: built.node.tables.clone(),
            kind: Kind::Top(Box::new(Top { input: built.node, order: sorts, skip, fetch })),
        };
        let wanted: Vec<usize> = need.all().into_iter().collect();
        Built { node, columns: built.columns }.trimmed(&wanted)
    }
}

/// Takes a limit below the projection that it is of: which rows are taken is the same.
fn limit_below(limit: &Limit, above: &Projection) -> LogicalPlan {
    let limit = Limit { input: Arc::clone(&above.input), ..limit.clone() };
    let mut above = above.clone();
    above.input = Arc::new(LogicalPlan::Limit(limit));
    LogicalPlan::Projection(above)
}

/// Returns the ORDER BY that a limit takes from, and what is ordered.
fn order_below(plan: &LogicalPlan) -> Option<(&[SortExpr], &LogicalPlan)> {
    match plan {
        LogicalPlan::Sort(sort) => Some((&sort.expr, &sort.input)),
        _ => None,
    }
}

/// Returns what an expression orders by: a float goes through a function of its own.
fn ordered(expr: &Expr) -> &Expr {
    ordered_float(expr).unwrap_or(expr)
}

fn ordered_column(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    plain_column(ordered(expr), schema)
}

fn limit_refused() -> Stop {
    Error::refused_with(
        "LIMIT without a total order could keep other rows at every evaluation",
        "order by columns that are unique together, such as a key, last",
    )
    .into()
}

fn aggregate_node(aggregate: Aggregate, schema: SchemaRef, unique: Vec<usize>) -> Node {
    Node {
        schema,
        unique: vec![unique],
        instants: Vec::new(),
        tables: aggregate.input.tables.clone(),
        kind: Kind::Aggregate(Box::new(aggregate)),
    }
}

fn function_of(expr: &Expr) -> Option<&AggregateFunction> {
    match expr {
        Expr::Alias(alias) => function_of(&alias.expr),
        Expr::AggregateFunction(function) => Some(function),
        _ => None,
    }
}

/// True where rows must be fed in one order for the same bits: floats, and ordered aggregates.
fn depends_on_order(call: &Expr, schema: &DFSchema) -> Compiled<bool> {
    let Some(function) = function_of(call) else {
        return Ok(true);
    };
    if !function.params.order_by.is_empty() {
        return Ok(true);
    }
    for argument in &function.params.args {
        if argument.get_type(schema).map_err(Error::from)?.is_floating() {
            return Ok(true);
        }
    }
    // Averages and the like may go over to floats inside.
    Ok(call.get_type(schema).map_err(Error::from)?.is_floating())
}

/// Refuses aggregates whose result depends on which of several rows comes first.
fn check_order(call: &Expr, input: &Extended) -> Compiled<()> {
    const ORDERED: [&str; 5] =
        ["array_agg", "string_agg", "first_value", "last_value", "nth_value"];
    let Some(function) = function_of(call) else {
        return fall_back(&format!("aggregate {call}"));
    };
    let name = function.func.name();
    if name.starts_with("approx_percentile") || name == "approx_median" {
        return Err(Error::refused_with(
            format!("{name} depends on the order in which rows are met"),
            "use an exact aggregate",
        )
        .into());
    }
    if !ORDERED.contains(&name) {
        return Ok(());
    }
    let order = &function.params.order_by;
    let by: BTreeSet<usize> = order
        .iter()
        .filter_map(|sort| ordered_column(&sort.expr, &input.names))
        .chain(input.places.iter().copied())
        .collect();
    let ordered_by_itself = function
        .params
        .args
        .first()
        .is_some_and(|argument| order.iter().any(|sort| *ordered(&sort.expr) == *argument));
    let total = input.node.unique.iter().any(|key| key.iter().all(|column| by.contains(column)));
    if !order.is_empty() && (ordered_by_itself || total) {
        return Ok(());
    }
    Err(Error::refused_with(
        format!("{name} without a total order could give another result at every evaluation"),
        format!("write {name}(.. ORDER BY ..) with its own argument or a key last"),
    )
    .into())
}

/// Refuses window functions whose result depends on the order of rows that tie.
fn check_window(function: &WindowFunction, built: &Built, schema: &DFSchema) -> Compiled<()> {
    let params = &function.params;
    let by: BTreeSet<usize> = params
        .partition_by
        .iter()
        .chain(params.order_by.iter().map(|sort| &sort.expr))
        .filter_map(|expr| built.place(ordered_column(expr, schema)?).ok())
        .collect();
    if built.node.unique.iter().any(|key| key.iter().all(|column| by.contains(column))) {
        return Ok(());
    }
    let name = function.fun.name();
    let peers = match &function.fun {
        WindowFunctionDefinition::WindowUDF(_) => {
            matches!(name, "rank" | "dense_rank" | "percent_rank" | "cume_dist")
        }
        WindowFunctionDefinition::AggregateUDF(_) => {
            let frame = &params.window_frame;
            let whole = frame.start_bound.is_unbounded() && frame.end_bound.is_unbounded();
            (whole || frame.units != WindowFrameUnits::Rows)
                && !matches!(name, "array_agg" | "string_agg" | "first_value" | "last_value")
        }
    };
    if peers {
        return Ok(());
    }
    Err(Error::refused_with(
        format!("{name} OVER (..) without a total order could differ at every evaluation"),
        "order by columns that are unique within the partition, such as a key, last",
    )
    .into())
}
