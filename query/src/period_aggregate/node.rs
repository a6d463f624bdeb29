//! The operator in a logical plan. Its columns are those of the aggregate that it stands for.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use datafusion::common::{Column, DFSchemaRef, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};

use super::{Call, listed};

/// Aggregates over the constant intervals of groups.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeriodAggregate {
    /// Gives the columns below, and nothing else.
    pub input: Arc<LogicalPlan>,
    pub keys: Vec<Column>,
    /// Where a row's period begins and ends; open ends are the ends of time, and NULL is no period.
    pub from: Column,
    pub to: Column,
    pub arguments: Vec<Column>,
    pub calls: Vec<Call>,
    /// Place of the interval among the keys in what is put out.
    pub period_at: usize,
    /// The period as the query has it.
    pub period: String,
    /// The keys with the interval in its place, then the calls.
    pub schema: DFSchemaRef,
}

impl PartialOrd for PeriodAggregate {
    /// Nodes have no order.
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for PeriodAggregate {
    fn name(&self) -> &str {
        "PeriodAggregate"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let bounds = [&self.from, &self.to];
        let columns = self.keys.iter().chain(bounds).chain(&self.arguments);
        columns.cloned().map(Expr::Column).collect()
    }

    /// A filter may go below where it asks for keys alone that have the same name there.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let input = self.input.schema();
        let is_free = |at: usize| {
            let (qualifier, field) = self.schema.qualified_field(at);
            let column = Column::from((qualifier, field));
            self.keys.contains(&column) && input.has_column(&column)
        };
        let all = 0..self.schema.fields().len();
        all.filter(|at| !is_free(*at)).map(|at| self.schema.field(at).name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (keys, calls) = (listed(&self.keys), listed(&self.calls));
        write!(f, "PeriodAggregate: keys=[{keys}], period={}, aggregates=[{calls}]", self.period)
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let mut columns = Vec::with_capacity(exprs.len());
        for expr in exprs {
            match expr {
                Expr::Column(column) => columns.push(column),
                other => return internal_err!("{other} is no column of the input"),
            }
        }
        let Ok([input]) = <[LogicalPlan; 1]>::try_from(inputs) else {
            return internal_err!("an aggregate has one input");
        };
        if columns.len() != self.keys.len() + 2 + self.arguments.len() {
            return internal_err!("an aggregate keeps its columns");
        }
        let arguments = columns.split_off(self.keys.len() + 2);
        let bounds = columns.split_off(self.keys.len());
        Ok(Self {
            input: Arc::new(input),
            keys: columns,
            from: bounds[0].clone(),
            to: bounds[1].clone(),
            arguments,
            ..self.clone()
        })
    }
}
