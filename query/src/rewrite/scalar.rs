//! Scalar sub-queries that look up one row by its key, as joins.
//!
//! `(SELECT d.room FROM desks FOR VALID_TIME AS OF b.starts d WHERE d._id = b.desk)` has one row at
//! most, since a key has one version at an instant. The planner cannot know that and would refuse
//! it, so it becomes `LEFT JOIN LATERAL (..) AS "lookup#1" ON true` beside the tables of its query.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, Ident, Join, JoinConstraint, JoinOperator, Query, Select, SelectItem,
    SetExpr, TableAlias, TableFactor, TableWithJoins, Value, VisitMut, Visitor, VisitorMut,
    visit_expressions,
};

use super::scope::Relation;
use super::{BoundSpec, Rewriter, TableRef};
use crate::dialect::{equalities, normal};

/// The name of a looked-up value.
const VALUE: &str = "__value";

/// Functions that make one row of many: they are the planner's.
const AGGREGATES: [&str; 16] = [
    "count",
    "sum",
    "min",
    "max",
    "avg",
    "mean",
    "median",
    "array_agg",
    "string_agg",
    "bool_and",
    "bool_or",
    "first_value",
    "last_value",
    "stddev",
    "var",
    "approx_distinct",
];

/// Turns the look-ups of a query's select list and condition into joins; returns the tables that
/// this adds, none of which `*` shows.
pub fn lift(rewriter: &mut Rewriter<'_>, select: &mut Select) -> Vec<Relation> {
    let has_groups = match &select.group_by {
        GroupByExpr::Expressions(expressions, _) => !expressions.is_empty(),
        GroupByExpr::All(_) => true,
    };
    if has_groups || select.from.is_empty() {
        return Vec::new();
    }
    let mut lifter = Lifter {
        tables: &rewriter.tables,
        next: &mut rewriter.lookups,
        depth: 0,
        joins: Vec::new(),
        relations: Vec::new(),
    };
    for item in &mut select.projection {
        let name = match item {
            SelectItem::UnnamedExpr(Expr::Subquery(query)) => output_name(query),
            _ => None,
        };
        let before = lifter.joins.len();
        let ControlFlow::Continue(()) = item.visit(&mut lifter);
        if let (Some(alias), SelectItem::UnnamedExpr(expr)) = (name, &mut *item)
            && lifter.joins.len() > before
        {
            let expr = std::mem::replace(expr, Expr::value(Value::Null));
            *item = SelectItem::ExprWithAlias { expr, alias };
        }
    }
    let ControlFlow::Continue(()) = select.selection.visit(&mut lifter);
    let Lifter { joins, relations, .. } = lifter;
    if !joins.is_empty() {
        one_chain(&mut select.from);
        if let Some(first) = select.from.first_mut() {
            first.joins.extend(joins);
        }
    }
    relations
}

struct Lifter<'a> {
    tables: &'a [TableRef],
    next: &'a mut usize,
    depth: usize,
    joins: Vec<Join>,
    relations: Vec<Relation>,
}

impl VisitorMut for Lifter<'_> {
    type Break = std::convert::Infallible;

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Self::Break> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Self::Break> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        if self.depth == 0
            && let Expr::Subquery(query) = expr
            && is_lookup(query, self.tables)
        {
            *self.next += 1;
            let ident = Ident::with_quote('"', format!("lookup#{}", self.next));
            let value = Ident::with_quote('"', VALUE);
            let column = Expr::CompoundIdentifier(vec![ident.clone(), value]);
            if let Expr::Subquery(query) = std::mem::replace(expr, column) {
                self.joins.push(lateral(query, ident.clone()));
                let name = normal(&ident);
                let mut relation = Relation::plain(ident, name, Some(vec![VALUE.to_owned()]));
                (relation.is_shown, relation.has_hidden) = (false, true);
                self.relations.push(relation);
            }
        }
        ControlFlow::Continue(())
    }
}

fn lateral(mut query: Box<Query>, name: Ident) -> Join {
    if let SetExpr::Select(select) = query.body.as_mut()
        && let Some(item) = select.projection.first_mut()
        && let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item
    {
        let expr = std::mem::replace(expr, Expr::value(Value::Null));
        *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', VALUE) };
    }
    let alias = TableAlias { explicit: true, name, columns: Vec::new(), at: None };
    let truth = Expr::value(Value::Boolean(true));
    Join {
        relation: TableFactor::Derived {
            lateral: true,
            subquery: query,
            alias: Some(alias),
            sample: None,
        },
        global: false,
        join_operator: JoinOperator::Left(JoinConstraint::On(truth)),
    }
}

/// Makes one chain of joins of a comma list, so that what is joined sees all of its tables.
fn one_chain(from: &mut Vec<TableWithJoins>) {
    let mut rest = from.split_off(1).into_iter();
    let Some(first) = from.first_mut() else { return };
    for tables in &mut rest {
        let relation = if tables.joins.is_empty() {
            tables.relation
        } else {
            TableFactor::NestedJoin { table_with_joins: Box::new(tables), alias: None }
        };
        let join_operator = JoinOperator::CrossJoin(JoinConstraint::None);
        first.joins.push(Join { relation, global: false, join_operator });
    }
}

/// True for a query that finds one row at most by its key, from values of the query around it.
fn is_lookup(query: &Query, tables: &[TableRef]) -> bool {
    if query.with.is_some()
        || query.order_by.is_some()
        || query.limit_clause.is_some()
        || query.fetch.is_some()
    {
        return false;
    }
    let SetExpr::Select(select) = query.body.as_ref() else { return false };
    let [TableWithJoins { relation: TableFactor::Table { name, alias, .. }, joins }] =
        select.from.as_slice()
    else {
        return false;
    };
    let unique = name.0.last().and_then(|part| part.as_ident()).map(|ident| &ident.value);
    let table = tables.iter().find(|table| Some(&table.unique_name) == unique);
    let (Some(table), Some(alias), Some(condition)) = (table, alias, &select.selection) else {
        return false;
    };
    let one_instant = |spec: &BoundSpec| {
        matches!(spec, BoundSpec::Default | BoundSpec::AsOf(_) | BoundSpec::Correlated)
    };
    let one_item = match select.projection.as_slice() {
        [SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }] => {
            !aggregates(expr)
        }
        _ => false,
    };
    joins.is_empty()
        && alias.columns.is_empty()
        && one_item
        && select.distinct.is_none()
        && select.having.is_none()
        && matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty())
        && one_instant(&table.valid)
        && one_instant(&table.system)
        && Key { table, alias: normal(&alias.name) }.is_fixed_by(condition)
}

/// The key of a table under its alias.
struct Key<'a> {
    table: &'a TableRef,
    alias: String,
}

impl Key<'_> {
    /// True where a condition sets every column of the key equal to a value of other tables.
    fn is_fixed_by(&self, condition: &Expr) -> bool {
        let equalities = equalities(condition);
        let fixed = |column: &str| {
            equalities.iter().any(|(left, right)| {
                (self.is_column(left, column) && !self.has_own(right))
                    || (self.is_column(right, column) && !self.has_own(left))
            })
        };
        let depends = equalities.iter().any(|(left, right)| {
            (self.has_own(left) && has_columns(right) && !self.has_own(right))
                || (self.has_own(right) && has_columns(left) && !self.has_own(left))
        });
        let mut key = self.table.def.key.iter();
        depends
            && key.all(|id| {
                self.table.def.column_by_id(*id).is_some_and(|column| fixed(&column.name))
            })
    }

    fn is_column(&self, expr: &Expr, name: &str) -> bool {
        match expr {
            Expr::Identifier(ident) => normal(ident) == name,
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [table, column] => normal(table) == self.alias && normal(column) == name,
                _ => false,
            },
            Expr::Nested(inner) => self.is_column(inner, name),
            _ => false,
        }
    }

    /// True where an expression names a column of the table itself, or may do so.
    fn has_own(&self, expr: &Expr) -> bool {
        let found = visit_expressions(expr, |part| {
            let own = match part {
                Expr::Identifier(ident) => self.table.def.column(&normal(ident)).is_some(),
                Expr::CompoundIdentifier(parts) => {
                    parts.first().is_some_and(|table| normal(table) == self.alias)
                }
                Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => true,
                _ => false,
            };
            if own { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        found.is_break()
    }
}

fn has_columns(expr: &Expr) -> bool {
    crate::dialect::first_column(expr).is_some()
}

fn aggregates(expr: &Expr) -> bool {
    struct Finder;
    impl Visitor for Finder {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
            let name = function.name.0.last().and_then(|part| part.as_ident()).map(normal);
            let known = |name: &str| AGGREGATES.iter().any(|known| name.starts_with(known));
            if function.over.is_some() || name.is_some_and(|name| known(&name)) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        }
    }
    datafusion::sql::sqlparser::ast::Visit::visit(expr, &mut Finder).is_break()
}

/// Returns the name that a sub-query's value has as a column.
fn output_name(query: &Query) -> Option<Ident> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    match select.projection.first()? {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.clone()),
        SelectItem::UnnamedExpr(Expr::Identifier(ident)) => Some(ident.clone()),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last().cloned(),
        _ => Some(Ident::with_quote('"', "value")),
    }
}
