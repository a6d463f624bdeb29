//! The projector's own plan of a query: few operators, each with a rule for its delta.
//!
//! A node outputs just the columns that something above needs. All column numbers are places in
//! the node's own output. Built by [`super::compile`]; read next: [`super::delta`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::RecordBatch;
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::window::WindowExpr;
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use everwhen_query::table::{TableColumn, TemporalTable};
use everwhen_storage::TableId;

use super::residual::Residual;

/// One operator and what is below it.
#[derive(Debug)]
pub struct Node {
    /// The output's columns; every one may be NULL.
    pub schema: SchemaRef,
    /// What the operator does.
    pub kind: Kind,
    /// Sets of columns of which no two rows have the same values.
    pub unique: Vec<Vec<usize>>,
    /// Sets of columns of which no two rows have the same values at one instant.
    pub instants: Vec<UniqueAtInstant>,
    /// Tables that are read below.
    pub tables: BTreeSet<TableId>,
}

/// A key that holds among the rows whose period `[from, to)` contains an instant.
#[derive(Debug, Clone)]
pub struct UniqueAtInstant {
    /// The column of the period's start.
    pub from: usize,
    /// The column of its end.
    pub to: usize,
    /// The key.
    pub columns: Vec<usize>,
}

/// The operators.
#[derive(Debug)]
pub enum Kind {
    /// Rows that never change.
    Constant(RecordBatch),
    /// One table reference of the query.
    Scan(Scan),
    /// Rows for which a predicate is true.
    Filter(Filter),
    /// Columns kept, cast and computed, row by row.
    Project(Project),
    /// Pairs of rows, or left rows by whether they have a partner.
    Join(Box<Join>),
    /// The rows of all inputs, equal ones not merged.
    Union(Vec<Node>),
    /// GROUP BY and DISTINCT.
    Aggregate(Box<Aggregate>),
    /// Window functions.
    Window(Box<Window>),
    /// ORDER BY .. LIMIT.
    Top(Box<Top>),
}

/// A read of one table under its time clauses.
#[derive(Debug)]
pub struct Scan {
    /// The table and its clauses.
    pub table: Arc<TemporalTable>,
    /// Which of the table's columns are put out, by their place there.
    pub columns: Vec<usize>,
    /// The valid bounds matter only to what contains one instant: a delta may be cut to the
    /// periods that changed (continuous.md 3.7).
    pub pointwise: bool,
    /// The valid bounds are put out as values: a change beside a shown row may change the row.
    pub bounds_shown: bool,
}

impl Scan {
    /// Returns what stands in an output column.
    pub fn column(&self, at: usize) -> Option<&TableColumn> {
        self.table.columns.get(*self.columns.get(at)?)
    }
}

/// See [`Kind::Filter`].
#[derive(Debug)]
pub struct Filter {
    /// Where the rows come from.
    pub input: Box<Node>,
    /// Boolean over the input's columns.
    pub predicate: Arc<dyn PhysicalExpr>,
    /// The predicate's text.
    pub text: String,
}

/// See [`Kind::Project`].
#[derive(Debug)]
pub struct Project {
    /// Where the rows come from.
    pub input: Box<Node>,
    /// The output's columns, in order.
    pub outputs: Vec<Output>,
}

/// One column of a projection.
#[derive(Debug)]
pub enum Output {
    /// A column of the input as it is.
    Column(usize),
    /// A column of the input in another type that keeps every value apart.
    Cast(usize, Arc<dyn PhysicalExpr>),
    /// Anything else.
    Computed(Arc<dyn PhysicalExpr>),
}

impl Output {
    /// Returns the input's column whose values this one keeps apart.
    pub const fn source(&self) -> Option<usize> {
        match self {
            Self::Column(at) | Self::Cast(at, _) => Some(*at),
            Self::Computed(_) => None,
        }
    }
}

/// What a join makes of left rows and their partners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinKind {
    /// Every pair.
    Inner,
    /// Every pair, and left rows without partner beside NULLs.
    Left,
    /// Left rows with a partner.
    Semi,
    /// Left rows without.
    Anti,
    /// Left rows, and whether they have one.
    Mark,
}

/// See [`Kind::Join`].
#[derive(Debug)]
pub struct Join {
    /// Which rows come out.
    pub kind: JoinKind,
    /// The preserved side.
    pub left: Node,
    /// The other side.
    pub right: Node,
    /// Columns that must be equal, left and right.
    pub on: Vec<(usize, usize)>,
    /// NULL equals NULL in `on`.
    pub null_equal: bool,
    /// A further condition over pairs.
    pub residual: Option<Residual>,
    /// Output columns as places in left ++ right (++ mark).
    pub outputs: Vec<usize>,
    /// The residual asks for one instant within the right side's period.
    pub as_of: bool,
    /// The right side was found too large to be read once for all of a load.
    pub right_is_large: AtomicBool,
}

/// See [`Kind::Aggregate`].
#[derive(Debug)]
pub struct Aggregate {
    /// Where the rows come from.
    pub input: Node,
    /// The input's columns that make a group; the output begins with them.
    pub group: Vec<usize>,
    /// The functions, in output order after the group.
    pub calls: Vec<Call>,
    /// Results depend on the order of rows (float sums, ordered aggregates): sort first.
    pub ordered: bool,
}

/// One aggregate function call.
#[derive(Debug)]
pub struct Call {
    /// Makes accumulators.
    pub function: Arc<AggregateFunctionExpr>,
    /// Arguments followed by the order's expressions.
    pub arguments: Vec<Arc<dyn PhysicalExpr>>,
    /// FILTER (WHERE ..).
    pub filter: Option<Arc<dyn PhysicalExpr>>,
    /// ORDER BY within the call.
    pub order: Vec<PhysicalSortExpr>,
}

/// See [`Kind::Window`].
#[derive(Debug)]
pub struct Window {
    /// Where the rows come from; the output begins with its columns.
    pub input: Node,
    /// Columns that every function partitions by.
    pub partition: Vec<usize>,
    /// The functions, in output order.
    pub calls: Vec<Arc<dyn WindowExpr>>,
}

/// See [`Kind::Top`].
#[derive(Debug)]
pub struct Top {
    /// Where the rows come from.
    pub input: Node,
    /// The order, total over the input's rows.
    pub order: Vec<(Arc<dyn PhysicalExpr>, SortOptions)>,
    /// Rows left out at the start.
    pub skip: usize,
    /// Rows then taken; all where `None`.
    pub fetch: Option<usize>,
}

impl Node {
    /// Returns the nodes directly below.
    pub fn inputs(&self) -> Vec<&Self> {
        match &self.kind {
            Kind::Constant(_) | Kind::Scan(_) => Vec::new(),
            Kind::Filter(filter) => vec![&filter.input],
            Kind::Project(project) => vec![&project.input],
            Kind::Join(join) => vec![&join.left, &join.right],
            Kind::Union(inputs) => inputs.iter().collect(),
            Kind::Aggregate(aggregate) => vec![&aggregate.input],
            Kind::Window(window) => vec![&window.input],
            Kind::Top(top) => vec![&top.input],
        }
    }

    /// Calls `each` for every scan below, and for this one.
    pub fn scans<'a>(&'a self, each: &mut dyn FnMut(&'a Scan)) {
        if let Kind::Scan(scan) = &self.kind {
            each(scan);
        }
        for input in self.inputs() {
            input.scans(each);
        }
    }
}
