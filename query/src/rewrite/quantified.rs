//! `x < ANY (SELECT ..)` and `x < ALL (SELECT ..)`: the planner compares `x` with the sub-query's
//! column by their names, so a sub-query over a table name of the query around it gets another.

use std::convert::Infallible;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Query, Select, SelectItem, SetExpr, TableAlias, TableAliasColumnDef, TableFactor,
    TableWithJoins,
};

use super::outermost;
use crate::dialect::{empty_select, normal, query_of};
use crate::error::{Error, Result};

/// The name of the column that a sub-query is compared by.
const VALUE: &str = "__value";

/// Names the sub-queries of ANY and ALL in a query's conditions; `next` counts the names given.
///
/// # Errors
/// 0A000 where one stands in the select list, which the planner does not have.
pub fn name_apart(select: &mut Select, next: &mut usize) -> Result<()> {
    let outer = names(&select.from).unwrap_or_default();
    let listed = outermost::each(&mut select.projection, |expr| match quantified(expr) {
        Some(_) => ControlFlow::Break(()),
        None => ControlFlow::Continue(()),
    });
    if listed.is_break() {
        let message = "ANY and ALL of a sub-query are not supported in a select list";
        return Err(Error::unsupported(message).with_hint("compare with its min or max there"));
    }
    let mut named = |expr: &mut Expr| {
        if let Some(query) = quantified(expr)
            && !are_apart(query, &outer)
        {
            *next += 1;
            let name = Ident::with_quote('"', format!("set#{next}"));
            let inner = std::mem::replace(query, Box::new(query_of(nothing())));
            **query = query_of(SetExpr::Select(Box::new(values_of(inner, name))));
        }
        ControlFlow::<Infallible>::Continue(())
    };
    let ControlFlow::Continue(()) = outermost::each(&mut select.from, &mut named);
    let ControlFlow::Continue(()) = outermost::each(&mut select.selection, &mut named);
    let ControlFlow::Continue(()) = outermost::each(&mut select.having, &mut named);
    let ControlFlow::Continue(()) = outermost::each(&mut select.qualify, &mut named);
    Ok(())
}

/// Returns the sub-query that an expression compares with by ANY or ALL.
fn quantified(expr: &mut Expr) -> Option<&mut Box<Query>> {
    match expr {
        Expr::AnyOp { right, .. } | Expr::AllOp { right, .. } => match right.as_mut() {
            Expr::Subquery(query) => Some(query),
            _ => None,
        },
        _ => None,
    }
}

/// True where no table of a sub-query has one of these names.
fn are_apart(query: &Query, outer: &[String]) -> bool {
    let SetExpr::Select(select) = query.body.as_ref() else { return false };
    names(&select.from).is_some_and(|inner| inner.iter().all(|name| !outer.contains(name)))
}

/// Returns the names of the tables of a FROM; nothing where there are other things in it.
fn names(from: &[TableWithJoins]) -> Option<Vec<String>> {
    let joined = from.iter().flat_map(|tables| tables.joins.iter().map(|join| &join.relation));
    from.iter().map(|tables| &tables.relation).chain(joined).map(name).collect()
}

fn name(table: &TableFactor) -> Option<String> {
    match table {
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. } => Some(normal(&alias.name)),
        TableFactor::Table { name, .. } => name.0.last()?.as_ident().map(normal),
        _ => None,
    }
}

fn nothing() -> SetExpr {
    SetExpr::Select(Box::new(empty_select()))
}

/// Returns `SELECT "name"."__value" FROM (query) AS "name" ("__value")`.
fn values_of(query: Box<Query>, name: Ident) -> Select {
    let value = Ident::with_quote('"', VALUE);
    let column = TableAliasColumnDef { name: value.clone(), data_type: None };
    let alias = TableAlias { explicit: true, name: name.clone(), columns: vec![column], at: None };
    let relation =
        TableFactor::Derived { lateral: false, subquery: query, alias: Some(alias), sample: None };
    Select {
        projection: vec![SelectItem::UnnamedExpr(Expr::CompoundIdentifier(vec![name, value]))],
        from: vec![TableWithJoins { relation, joins: Vec::new() }],
        ..empty_select()
    }
}
