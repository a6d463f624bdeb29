//! Which queries can be kept up to date, how, and why not (continuous.md 3.9).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use everwhen_query::columns::field_type;
use everwhen_query::dialect::Positions;
use everwhen_query::functions::columns_in_order;
use everwhen_query::plan::{Continuous, plan_projection};
use everwhen_query::table::{TemporalTable, ValidClause};
use everwhen_storage::{ColumnId, ColumnType, Definitions, Store, TableDef, TableId};

use super::compile::{Compiler, Stop};
use super::definition::OutputColumn;
use super::full::Full;
use super::node::{Kind, Node, Output};
use super::prove;
use super::residual::instant_column;
use crate::error::{Error, Result};

/// A query ready to run, once per generation.
#[derive(Debug)]
pub struct Program {
    /// The planned query, for the check from scratch and the fallback.
    pub plan: LogicalPlan,
    /// Where characters of the query's text are.
    positions: Positions,
    /// How it is computed.
    pub way: Way,
    /// Its columns with their types; the key's are not nullable.
    pub columns: Vec<OutputColumn>,
    /// Places of the key's columns.
    pub key: Vec<usize>,
    /// No two rows can have one key, whatever the data.
    pub unique: bool,
    /// The tables it reads, as they were when it was planned.
    pub tables: BTreeMap<TableId, Arc<TableDef>>,
    /// Those of them that are read as of now.
    pub clocked: BTreeSet<TableId>,
    /// A tenant may have rows before anything is written for it, such as a total of nothing.
    pub from_nothing: bool,
}

/// How a projection's changes are computed.
#[derive(Debug)]
pub enum Way {
    /// By the delta of each operator.
    Delta(Node),
    /// By comparing full results, because of this.
    Compare(String),
}

impl Program {
    /// Plans a query and checks that it can be kept up to date.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason; [`Error::Query`] where the text is wrong.
    pub fn new(
        store: &Store,
        definitions: &Definitions,
        query: &str,
        key: &[String],
    ) -> Result<Self> {
        let Continuous { plan, positions } = plan_projection(store, definitions, query)?;
        let in_key = |field: &Field| key.contains(field.name());
        // A sink has one row for both zeros, which the query tells apart where it shows them.
        let plan = columns_in_order(plan, in_key).map_err(everwhen_query::Error::from)?.data;
        check_expressions(&plan)?;
        check_operators(&plan)?;
        let columns = output_columns(&plan, key)?;
        let places: Vec<usize> =
            key.iter().filter_map(|name| columns.iter().position(|c| c.name == *name)).collect();
        let way = match Compiler::default().root(&plan) {
            Ok(node) => Way::Delta(node),
            Err(Stop::Error(error)) => return Err(error),
            Err(Stop::Fallback(why)) => {
                check_fallback(&plan)?;
                Way::Compare(why)
            }
        };
        let unique = match &way {
            Way::Delta(node) => {
                node.unique.iter().any(|set| set.iter().all(|column| places.contains(column)))
            }
            Way::Compare(_) => false,
        };
        let mut tables = BTreeMap::new();
        let mut clocked = BTreeSet::new();
        for table in tables_of(&plan)? {
            if matches!(table.valid, ValidClause::Now) {
                clocked.insert(table.def.id);
            }
            tables.insert(table.def.id, Arc::clone(&table.def));
        }
        let from_nothing = match &way {
            Way::Delta(node) => yields_from_nothing(node),
            Way::Compare(_) => true,
        };
        Ok(Self {
            plan,
            positions,
            way,
            columns,
            key: places,
            unique,
            tables,
            clocked,
            from_nothing,
        })
    }

    /// Shows that the query can be computed, whatever rows come: none that is admitted stalls later
    /// by its form. Blocking; reads nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] or a query's 0A000, with what cannot be computed.
    pub fn prove(&self, store: &Store, full: &Full) -> Result<()> {
        match &self.way {
            Way::Delta(root) => prove::prove(root)?,
            Way::Compare(_) => {
                let (plan, positions) = (self.plan.clone(), self.positions.clone());
                full.prove(store, &Continuous { plan, positions })?;
            }
        }
        prove::prove_outputs(self.plan.schema().inner(), &self.columns)
    }

    /// Returns the indexes that restricted evaluation asks for: table and columns.
    pub fn indexes(&self) -> BTreeSet<(TableId, Vec<ColumnId>)> {
        let mut wanted = BTreeSet::new();
        if let Way::Delta(root) = &self.way {
            if !self.unique {
                want(root, &self.key, &mut wanted);
            }
            want_below(root, &mut wanted);
        }
        wanted
    }
}

/// True where a node may have rows over empty tables.
fn yields_from_nothing(node: &Node) -> bool {
    match &node.kind {
        Kind::Constant(rows) => rows.num_rows() > 0,
        Kind::Aggregate(aggregate) if aggregate.group.is_empty() => true,
        _ => node.inputs().into_iter().any(yields_from_nothing),
    }
}

/// Adds the indexes for the restrictions that the deltas of a node and those below make.
fn want_below(node: &Node, wanted: &mut BTreeSet<(TableId, Vec<ColumnId>)>) {
    match &node.kind {
        Kind::Join(join) => {
            let (left, right): (Vec<usize>, Vec<usize>) = join.on.iter().copied().unzip();
            let bounds = join.overlap();
            let instant = bounds.and_then(|overlap| instant_column(&overlap.left));
            want_at(&join.left, &left, instant, wanted);
            let instant = bounds.and_then(|overlap| instant_column(&overlap.right));
            want_at(&join.right, &right, instant, wanted);
        }
        Kind::Aggregate(aggregate) => want(&aggregate.input, &aggregate.group, wanted),
        Kind::Window(window) => want(&window.input, &window.partition, wanted),
        _ => {}
    }
    for input in node.inputs() {
        want_below(input, wanted);
    }
}

/// Adds the indexes for one restriction of a node.
fn want(node: &Node, columns: &[usize], wanted: &mut BTreeSet<(TableId, Vec<ColumnId>)>) {
    want_at(node, columns, None, wanted);
}

/// Adds the indexes for a restriction by values and ranges of instants.
fn want_at(
    node: &Node,
    columns: &[usize],
    instant: Option<usize>,
    wanted: &mut BTreeSet<(TableId, Vec<ColumnId>)>,
) {
    if columns.is_empty() && instant.is_none() {
        return;
    }
    let through = |map: &dyn Fn(usize) -> Option<usize>| -> Vec<usize> {
        columns.iter().filter_map(|at| map(*at)).collect()
    };
    match &node.kind {
        Kind::Constant(_) | Kind::Top(_) => {}
        Kind::Scan(scan) => {
            let in_time = instant.and_then(|at| scan.time_index_for(columns, at));
            if let Some(ids) = in_time.or_else(|| scan.index_for(columns)) {
                wanted.insert((scan.table.def.id, ids));
            }
        }
        Kind::Filter(filter) => want_at(&filter.input, columns, instant, wanted),
        Kind::Project(project) => {
            let source = |at: usize| project.outputs.get(at).and_then(Output::source);
            let below = through(&source);
            // Without all of the values the times do not come through either.
            let instant = instant.filter(|_| below.len() == columns.len()).and_then(source);
            want_at(&project.input, &below, instant, wanted);
        }
        Kind::Union(inputs) => {
            for input in inputs {
                want_at(input, columns, instant, wanted);
            }
        }
        Kind::Aggregate(aggregate) => {
            want(&aggregate.input, &through(&|at| aggregate.group.get(at).copied()), wanted);
        }
        Kind::Window(window) => {
            let below = through(&|at| window.partition.contains(&at).then_some(at));
            want(&window.input, &below, wanted);
        }
        Kind::Join(join) => {
            // The join's own keys are asked for by `want_below`.
            let left = through(&|at| join.side_column(at, false));
            let instant = instant.filter(|_| left.len() == columns.len());
            if let Some(instant) = instant.and_then(|at| join.side_column(at, false)) {
                want_at(&join.left, &left, Some(instant), wanted);
            } else if left.is_empty() {
                want(&join.right, &through(&|at| join.side_column(at, true)), wanted);
            } else {
                want(&join.left, &left, wanted);
            }
        }
    }
}

/// Returns the query's columns.
fn output_columns(plan: &LogicalPlan, key: &[String]) -> Result<Vec<OutputColumn>> {
    let mut columns = Vec::new();
    for field in plan.schema().fields() {
        let kind =
            if field.data_type().is_null() { Some(ColumnType::Text) } else { field_type(field) };
        let Some(kind) = kind else {
            return Err(Error::refused_with(
                format!("column \"{}\" has type {}", field.name(), field.data_type()),
                "cast it to a type that columns have",
            ));
        };
        let nullable = !key.contains(field.name());
        columns.push(OutputColumn { name: field.name().clone(), kind, nullable });
    }
    Ok(columns)
}

/// Refuses functions whose value is not given by their arguments.
fn check_expressions(plan: &LogicalPlan) -> Result<()> {
    let mut refused = None;
    let walked = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if refused.is_none() {
                    refused = refusal(part);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    walked?;
    refused.map_or(Ok(()), Err)
}

fn refusal(expr: &Expr) -> Option<Error> {
    let (name, volatility) = match expr {
        Expr::ScalarFunction(function) => {
            (function.func.name(), function.func.signature().volatility)
        }
        Expr::AggregateFunction(function) => {
            (function.func.name(), function.func.signature().volatility)
        }
        _ => return None,
    };
    match volatility {
        Volatility::Immutable => None,
        Volatility::Stable => Some(Error::refused_with(
            format!("{name}() changes with the clock in every row of a projection"),
            "tables are read as of now without it; a future row appears when its time comes",
        )),
        Volatility::Volatile => {
            Some(Error::refused(format!("{name}() gives another value at every evaluation")))
        }
    }
}

/// Refuses operators that are known to the query engine alone.
fn check_operators(plan: &LogicalPlan) -> Result<()> {
    let mut refused = false;
    let walked = plan.apply_with_subqueries(|node| {
        refused |= matches!(node, LogicalPlan::Extension(_));
        Ok(TreeNodeRecursion::Continue)
    });
    walked?;
    if refused {
        return Err(Error::refused_with(
            "GROUP BY CONSTANT_INTERVAL is not kept up to date by a projection",
            "keep the rows with their periods, and group them where they are read",
        ));
    }
    Ok(())
}

/// Refuses what cannot even be compared as a whole: results that may differ over the same data.
fn check_fallback(plan: &LogicalPlan) -> Result<()> {
    let mut refused = None;
    let walked = plan.apply_with_subqueries(|node| {
        let limit = match node {
            LogicalPlan::Limit(_) => true,
            LogicalPlan::Sort(sort) => sort.fetch.is_some(),
            _ => false,
        };
        if limit {
            refused = Some("LIMIT beside an operator without a rule of its own");
        }
        if matches!(node, LogicalPlan::Distinct(datafusion::logical_expr::Distinct::On(_))) {
            refused = Some("DISTINCT ON without a provably total order");
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked?;
    refused.map_or(Ok(()), |what| {
        Err(Error::refused(format!("{what} could keep other rows at every evaluation")))
    })
}

/// Returns the table references of a plan, sub-queries included.
fn tables_of(plan: &LogicalPlan) -> Result<Vec<TemporalTable>> {
    let mut tables = Vec::new();
    let mut foreign = None;
    let walked = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let provider = source_as_provider(&scan.source)?;
            match provider.downcast_ref::<TemporalTable>() {
                Some(table) => tables.push(table.clone()),
                // A recursive query's own rows.
                None if provider.is::<CteWorkTable>() => {}
                None => foreign = Some(scan.table_name.to_string()),
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked?;
    foreign.map_or(Ok(tables), |name| {
        Err(Error::refused(format!("a projection cannot read \"{name}\", which keeps no history")))
    })
}
