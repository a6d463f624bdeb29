//! From DataFusion's logical plan to our own [`Node`]s, once per generation.
//!
//! Our own plan, so that an upgrade of the planner cannot change what a delta is. Every node gets
//! just the columns that something above it reads, split by how they are read: as values, or only
//! to ask whether a period contains an instant. What has no rule here makes the whole query fall
//! back to comparing full results ([`Stop::Fallback`]).

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, NullArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::TableProviderFilterPushDown::Exact;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan};
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use everwhen_query::table::{SystemClause, TableColumn, TemporalTable, ValidClause};
use everwhen_storage::Period;

use super::contained::{Containment, containments};
use super::node::{Filter, Kind, Node, Output, Project, Scan, UniqueAtInstant};
use super::zset::batch_of;
use crate::error::Error;

/// Why a query has no plan of ours.
#[derive(Debug)]
pub enum Stop {
    /// It must be computed as a whole, by comparing full results.
    Fallback(String),
    /// It cannot be a projection at all.
    Error(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// The result of compiling one operator.
pub type Compiled<T> = std::result::Result<T, Stop>;

/// Columns of a plan that something above reads, by their place in its schema.
#[derive(Debug, Clone, Default)]
pub struct Need {
    /// Read as values.
    pub values: BTreeSet<usize>,
    /// Read only as a bound of a period that contains an instant.
    pub contained: BTreeSet<usize>,
}

impl Need {
    /// Asks for columns as values.
    pub fn of_values(columns: impl IntoIterator<Item = usize>) -> Self {
        Self { values: columns.into_iter().collect(), contained: BTreeSet::new() }
    }

    /// Returns all columns that are read in some way.
    pub fn all(&self) -> BTreeSet<usize> {
        self.values.union(&self.contained).copied().collect()
    }

    /// True where a column is read as a bound only.
    pub fn only_contained(&self, column: usize) -> bool {
        self.contained.contains(&column) && !self.values.contains(&column)
    }
}

/// A node, and which column of the logical plan each of its first columns is.
///
/// A node has a column even where nothing above reads one, so that its rows can be counted: such a
/// column comes after those of the plan and has no place there.
#[derive(Debug)]
pub struct Built {
    /// The node.
    pub node: Node,
    /// Places in the logical plan's schema.
    pub columns: Vec<usize>,
}

impl Built {
    /// Returns the node's column for one of the plan's.
    pub fn place(&self, column: usize) -> Compiled<usize> {
        self.columns
            .iter()
            .position(|at| *at == column)
            .ok_or_else(|| Error::internal("a needed column is put out").into())
    }

    /// Leaves out columns that are not among `wanted`, and puts them in that order.
    pub fn trimmed(self, wanted: &[usize]) -> Compiled<Self> {
        if wanted.is_empty() {
            return Ok(Self { node: self.node, columns: Vec::new() });
        }
        if self.columns == wanted && self.node.schema.fields().len() == wanted.len() {
            return Ok(self);
        }
        let places: Compiled<Vec<usize>> = wanted.iter().map(|at| self.place(*at)).collect();
        let places = places?;
        let schema = Schema::new(
            places.iter().map(|at| self.node.schema.field(*at).clone()).collect::<Vec<_>>(),
        );
        let outputs = places.into_iter().map(Output::Column).collect();
        let node = project(self.node, outputs, Arc::new(schema));
        Ok(Self { node, columns: wanted.to_vec() })
    }
}

/// Compiles plans. Holds what expression planning asks for.
#[derive(Default)]
pub struct Compiler {
    props: ExecutionProps,
    context: PhysicalPlanningContext,
}

impl Compiler {
    /// Compiles a whole query: all its columns, in their order.
    pub fn root(&self, plan: &LogicalPlan) -> Compiled<Node> {
        let columns: Vec<usize> = (0..plan.schema().fields().len()).collect();
        let built = self.compile(plan, &Need::of_values(columns.clone()))?;
        Ok(built.trimmed(&columns)?.node)
    }

    /// Compiles one operator and what is below it.
    pub fn compile(&self, plan: &LogicalPlan, need: &Need) -> Compiled<Built> {
        match plan {
            LogicalPlan::TableScan(_) => self.scan(plan, need),
            LogicalPlan::Filter(filter) => self.filter(&filter.input, &filter.predicate, need),
            LogicalPlan::Projection(_) => self.projection(plan, need),
            LogicalPlan::SubqueryAlias(alias) => self.compile(&alias.input, need),
            LogicalPlan::Subquery(query) => self.compile(&query.subquery, need),
            LogicalPlan::Repartition(part) => self.compile(&part.input, need),
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => self.compile(&sort.input, need),
            LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => self.top(plan, need),
            LogicalPlan::Join(join) => self.join(join, need),
            LogicalPlan::Union(_) => self.union(plan, need),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate, need),
            LogicalPlan::Distinct(Distinct::All(input)) => self.distinct(input),
            LogicalPlan::Window(window) => self.window(window, need),
            LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => self.constant(plan, need),
            LogicalPlan::Distinct(Distinct::On(_)) => fall_back("DISTINCT ON"),
            LogicalPlan::RecursiveQuery(_) => fall_back("a recursive query"),
            LogicalPlan::Unnest(_) => fall_back("UNNEST"),
            other => fall_back(&other.display().to_string()),
        }
    }

    /// Plans an expression over a node's columns.
    pub fn physical(
        &self,
        expr: &Expr,
        plan: &LogicalPlan,
        columns: &[usize],
    ) -> Compiled<Arc<dyn PhysicalExpr>> {
        self.physical_over(expr, &qualified(plan.schema(), columns)?)
    }

    /// Plans an expression over columns with their qualified names.
    pub fn physical_over(&self, expr: &Expr, over: &DFSchema) -> Compiled<Arc<dyn PhysicalExpr>> {
        if expr.exists(|part| Ok(matches!(part, Expr::ScalarSubquery(_)))).is_ok_and(|found| found)
        {
            return fall_back("a sub-query for one value, which all rows depend on");
        }
        create_physical_expr(expr, over, &self.props, &self.context)
            .map_err(|error| Stop::Fallback(format!("expression {expr}: {error}")))
    }

    /// Returns what expression planning asks for.
    pub const fn planning(&self) -> (&ExecutionProps, &PhysicalPlanningContext) {
        (&self.props, &self.context)
    }

    fn scan(&self, plan: &LogicalPlan, need: &Need) -> Compiled<Built> {
        let LogicalPlan::TableScan(scan) = plan else {
            return fall_back("a scan");
        };
        let provider = source_as_provider(&scan.source).map_err(|e| Stop::Error(e.into()))?;
        let Some(table) = provider.downcast_ref::<TemporalTable>() else {
            return Err(Error::refused(format!(
                "a projection reads tables of this database, \"{}\" is none",
                scan.table_name
            ))
            .into());
        };
        // From here on columns are places in the table reference's own schema.
        let own = |at: usize| scan.projection.as_ref().map_or(at, |of| of[at]);
        let wanted = Need {
            values: need.values.iter().map(|at| own(*at)).collect(),
            contained: need.contained.iter().map(|at| own(*at)).collect(),
        };
        let schema =
            DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())
                .map_err(|e| Stop::Error(e.into()))?;
        // Filters that only narrow what is read stand above the scan too.
        let all: Vec<&Expr> = scan.filters.iter().collect();
        let pushed = provider.supports_filters_pushdown(&all).map_err(|e| Stop::Error(e.into()))?;
        let exact = all.into_iter().zip(pushed).filter(|(_, how)| *how == Exact);
        let exact: Vec<&Expr> = exact.map(|(filter, _)| filter).collect();
        let mut below = wanted.clone();
        for filter in &exact {
            add_filter_columns(&mut below, filter, &schema)?;
        }
        let mut built = read_of(table, &below, &schema)?;
        for filter in exact {
            let over = qualified(&schema, &built.columns)?;
            built.node = filtered(built.node, self.physical_over(filter, &over)?, filter);
        }
        let shown: Vec<usize> = need.all().into_iter().collect();
        let wanted: Vec<usize> = shown.iter().map(|at| own(*at)).collect();
        let built = built.trimmed(&wanted)?;
        Ok(Built { node: built.node, columns: shown })
    }

    fn filter(&self, input: &LogicalPlan, predicate: &Expr, need: &Need) -> Compiled<Built> {
        let mut below = need.clone();
        add_filter_columns(&mut below, predicate, input.schema())?;
        let built = self.compile(input, &below)?;
        let expr = self.physical(predicate, input, &built.columns)?;
        let columns = built.columns;
        let node = filtered(built.node, expr, predicate);
        let wanted: Vec<usize> = need.all().into_iter().collect();
        Built { node, columns }.trimmed(&wanted)
    }

    /// Compiles a projection.
    pub fn projection(&self, plan: &LogicalPlan, need: &Need) -> Compiled<Built> {
        let LogicalPlan::Projection(projection) = plan else {
            return fall_back("a projection");
        };
        let input = projection.input.as_ref();
        let wanted: Vec<usize> = need.all().into_iter().collect();
        if wanted.is_empty() {
            return self.compile(input, need)?.trimmed(&wanted);
        }
        let mut below = Need::default();
        for at in &wanted {
            let expr = &projection.expr[*at];
            match plain_column(expr, input.schema()) {
                Some(column) if need.only_contained(*at) => below.contained.insert(column),
                Some(column) => below.values.insert(column),
                None => {
                    below.values.extend(column_places(expr, input.schema())?);
                    true
                }
            };
        }
        let built = self.compile(input, &below)?;
        let mut outputs = Vec::with_capacity(wanted.len());
        for at in &wanted {
            outputs.push(self.output(&projection.expr[*at], input, &built)?);
        }
        let schema = arrow_schema(plan.schema(), &wanted);
        Ok(Built { node: project(built.node, outputs, schema), columns: wanted })
    }

    /// Compiles one expression of a projection.
    pub fn output(&self, expr: &Expr, input: &LogicalPlan, built: &Built) -> Compiled<Output> {
        let bare = expr.clone().unalias();
        if let Some(column) = plain_column(&bare, input.schema()) {
            return Ok(Output::Column(built.place(column)?));
        }
        let physical = self.physical(&bare, input, &built.columns)?;
        if let Expr::Cast(cast) = &bare
            && let Some(column) = plain_column(&cast.expr, input.schema())
        {
            let place = built.place(column)?;
            let from = built.node.schema.field(place).data_type();
            if keeps_apart(from, cast.field.data_type()) {
                return Ok(Output::Cast(place, physical));
            }
        }
        Ok(Output::Computed(physical))
    }

    fn union(&self, plan: &LogicalPlan, need: &Need) -> Compiled<Built> {
        let wanted: Vec<usize> = need.all().into_iter().collect();
        let mut inputs = Vec::new();
        for input in plan.inputs() {
            let built = self.compile(input, &Need::of_values(wanted.clone()))?;
            inputs.push(built.trimmed(&wanted)?);
        }
        Ok(union_of(inputs, arrow_schema(plan.schema(), &wanted), wanted))
    }

    fn constant(&self, plan: &LogicalPlan, need: &Need) -> Compiled<Built> {
        let mut columns: Vec<usize> = need.all().into_iter().collect();
        let rows = match plan {
            LogicalPlan::EmptyRelation(empty) if columns.is_empty() => {
                let schema = Arc::new(Schema::new(vec![Field::new("", DataType::Null, true)]));
                let count = usize::from(empty.produce_one_row);
                let nulls: ArrayRef = Arc::new(NullArray::new(count));
                batch_of(&schema, vec![nulls], count)?
            }
            LogicalPlan::EmptyRelation(empty) if !empty.produce_one_row => {
                RecordBatch::new_empty(arrow_schema(plan.schema(), &columns))
            }
            LogicalPlan::Values(values) => {
                if columns.is_empty() {
                    columns.push(0);
                }
                self.values(plan, &values.values, &columns)?
            }
            _ => return fall_back("a constant"),
        };
        let node = Node {
            schema: rows.schema(),
            kind: Kind::Constant(rows),
            unique: Vec::new(),
            instants: Vec::new(),
            tables: BTreeSet::new(),
        };
        Ok(Built { node, columns })
    }

    fn values(
        &self,
        plan: &LogicalPlan,
        rows: &[Vec<Expr>],
        columns: &[usize],
    ) -> Compiled<RecordBatch> {
        let schema = arrow_schema(plan.schema(), columns);
        let one: ArrayRef = Arc::new(NullArray::new(1));
        let dummy = Arc::new(Schema::new(vec![Field::new("", DataType::Null, true)]));
        let dummy = batch_of(&dummy, vec![one], 1)?;
        let mut batches = Vec::with_capacity(rows.len());
        for row in rows {
            let mut values = Vec::with_capacity(columns.len());
            for at in columns {
                let expr = self.physical_over(&row[*at], &DFSchema::empty())?;
                values.push(
                    expr.evaluate(&dummy)
                        .and_then(|value| value.into_array(1))
                        .map_err(Error::from)?,
                );
            }
            batches.push(batch_of(&schema, values, 1)?);
        }
        let all = arrow::compute::concat_batches(&schema, &batches).map_err(Error::from)?;
        Ok(all)
    }
}

/// Ends compiling: the query has no plan of ours.
pub fn fall_back<T>(what: &str) -> Compiled<T> {
    Err(Stop::Fallback(what.to_owned()))
}

/// Returns the rows of all inputs, each of whose columns are those of the schema.
pub fn union_of(inputs: Vec<Built>, schema: SchemaRef, columns: Vec<usize>) -> Built {
    let counted = columns.is_empty();
    let schema = if counted {
        Arc::new(Schema::new(vec![Field::new("", DataType::Boolean, true)]))
    } else {
        schema
    };
    let outputs = || -> Vec<Output> {
        if counted {
            return vec![Output::Computed(Arc::new(Literal::new(ScalarValue::from(true))))];
        }
        (0..columns.len()).map(Output::Column).collect()
    };
    let inputs: Vec<Node> = inputs
        .into_iter()
        .map(|input| project(input.node, outputs(), Arc::clone(&schema)))
        .collect();
    let tables = inputs.iter().flat_map(|input| input.tables.iter().copied()).collect();
    let (unique, instants) = (Vec::new(), Vec::new());
    let node = Node { schema, kind: Kind::Union(inputs), unique, instants, tables };
    Built { node, columns }
}

/// Builds the read of a table reference.
fn read_of(table: &TemporalTable, need: &Need, schema: &DFSchema) -> Compiled<Built> {
    let mut columns: Vec<usize> = need.all().into_iter().collect();
    if columns.is_empty() {
        columns.push(0);
    }
    let kind = |at: usize| table.columns.get(at);
    let is_bound = |at: usize| {
        matches!(
            kind(at),
            Some(
                TableColumn::ValidFrom
                    | TableColumn::ValidTo
                    | TableColumn::ValidPeriod
                    | TableColumn::RawFrom
                    | TableColumn::RawTo
            )
        )
    };
    let bounded = columns.iter().any(|at| need.only_contained(*at) && is_bound(*at));
    let bounds_shown = need.values.iter().any(|at| is_bound(*at));
    let whole = matches!(&table.valid, ValidClause::Overlapping(period) if *period == Period::ALL);
    let latest = matches!(table.system, SystemClause::Basis);
    let place = |wanted: &dyn Fn(&TableColumn) -> bool| {
        columns.iter().position(|at| kind(*at).is_some_and(wanted))
    };
    let key: Option<Vec<usize>> = table
        .def
        .key
        .iter()
        .map(|id| place(&|column| matches!(column, TableColumn::Stored(of) if of == id)))
        .collect();
    let mut unique = Vec::new();
    let mut instants = Vec::new();
    if let (Some(key), true) = (key, latest || matches!(table.system, SystemClause::AsOf(_))) {
        let from = place(&|column| matches!(column, TableColumn::RawFrom));
        let to = place(&|column| matches!(column, TableColumn::RawTo));
        let shown_from = from.or_else(|| place(&|column| matches!(column, TableColumn::ValidFrom)));
        if let ValidClause::Overlapping(_) = table.valid {
            if let (Some(from), Some(to)) = (from, to) {
                instants.push(UniqueAtInstant { from, to, columns: key.clone() });
            }
            unique.extend(shown_from.map(|from| [key.as_slice(), &[from]].concat()));
        } else {
            unique.push(key);
        }
    }
    let scan = Scan {
        table: Arc::new(table.clone()),
        columns: columns.clone(),
        pointwise: whole && latest && !bounds_shown && bounded,
        bounds_shown,
    };
    let node = Node {
        schema: arrow_schema(schema, &columns),
        kind: Kind::Scan(scan),
        unique,
        instants,
        tables: BTreeSet::from([table.def.id]),
    };
    Ok(Built { node, columns })
}

/// Puts a filter over a node.
pub fn filtered(input: Node, predicate: Arc<dyn PhysicalExpr>, text: &Expr) -> Node {
    Node {
        schema: Arc::clone(&input.schema),
        unique: input.unique.clone(),
        instants: input.instants.clone(),
        tables: input.tables.clone(),
        kind: Kind::Filter(Filter { input: Box::new(input), predicate, text: text.to_string() }),
    }
}

/// Puts a projection over a node; what is unique stays so where its columns are put out.
pub fn project(input: Node, outputs: Vec<Output>, schema: SchemaRef) -> Node {
    let place = |at: usize| outputs.iter().position(|output| output.source() == Some(at));
    let places = |columns: &Vec<usize>| -> Option<Vec<usize>> {
        columns.iter().map(|at| place(*at)).collect()
    };
    let unique = input.unique.iter().filter_map(places).collect();
    let instants = input
        .instants
        .iter()
        .filter_map(|instant| {
            Some(UniqueAtInstant {
                from: place(instant.from)?,
                to: place(instant.to)?,
                columns: places(&instant.columns)?,
            })
        })
        .collect();
    Node {
        schema,
        unique,
        instants,
        tables: input.tables.clone(),
        kind: Kind::Project(Project { input: Box::new(input), outputs }),
    }
}

/// Adds the columns of a predicate: as bounds where they only ask for containment, else as values.
fn add_filter_columns(need: &mut Need, predicate: &Expr, schema: &DFSchema) -> Compiled<()> {
    let Containment { periods, rest, instants } = containments(predicate, schema);
    for (from, to) in periods {
        need.contained.extend([from, to]);
    }
    for expr in rest.iter().chain(&instants) {
        need.values.extend(column_places(expr, schema)?);
    }
    Ok(())
}

/// Returns the places of an expression's columns.
pub fn column_places(expr: &Expr, schema: &DFSchema) -> Compiled<BTreeSet<usize>> {
    expr.column_refs()
        .into_iter()
        .map(|column| {
            schema.maybe_index_of_column(column).ok_or_else(|| {
                Stop::Fallback(format!("a sub-query that stays correlated (by {column})"))
            })
        })
        .collect()
}

/// Returns the place of a bare column, aliases aside.
pub fn plain_column(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    match expr {
        Expr::Column(column) => schema.maybe_index_of_column(column),
        Expr::Alias(alias) => plain_column(&alias.expr, schema),
        _ => None,
    }
}

/// Returns a schema of some columns under their qualified names.
pub fn qualified(schema: &DFSchema, columns: &[usize]) -> Compiled<DFSchema> {
    let fields = columns
        .iter()
        .filter(|at| **at < schema.fields().len())
        .map(|at| {
            let (qualifier, field) = schema.qualified_field(*at);
            (qualifier.cloned(), Arc::clone(field))
        })
        .collect();
    DFSchema::new_with_metadata(fields, std::collections::HashMap::new())
        .map_err(|e| Stop::Error(e.into()))
}

/// Returns the Arrow schema of some columns; each may be NULL.
pub fn arrow_schema(schema: &DFSchema, columns: &[usize]) -> SchemaRef {
    let fields: Vec<Field> =
        columns.iter().map(|at| schema.field(*at).as_ref().clone().with_nullable(true)).collect();
    Arc::new(Schema::new(fields))
}

/// True for a cast that maps different values to different values and can be cast back.
fn keeps_apart(from: &DataType, to: &DataType) -> bool {
    use DataType::{Int8, Int16, Int32, Int64, LargeUtf8, Timestamp, Utf8, Utf8View};
    matches!(
        (from, to),
        (Utf8 | Utf8View | LargeUtf8, Utf8 | Utf8View | LargeUtf8)
            | (Int8 | Int16 | Int32, Int64)
            | (Int8 | Int16, Int32)
            | (Int8, Int16)
            | (Timestamp(TimeUnit::Microsecond, _), Timestamp(TimeUnit::Microsecond, _))
    )
}
