//! Statements that are short by their form, so that a server can run them apart from those that may
//! hold a thread for long: a row looked up by its whole key, or a few literal rows written.

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, LimitClause, Query, Select, SelectItem, SetExpr, TableFactor, Values,
};
use everwhen_storage::{Definitions, TableDef};

use crate::dialect::{
    Clause, ClauseKind, Clauses, Insert, ParseLimits, ParsedQuery, ParsedStatement, Portion,
    equalities, normal, parse,
};

/// Bytes of a short statement's text at most: more may take long to parse.
const BYTES_MAX: usize = 4_096;
/// Depth of a plain expression at most.
const DEPTH_MAX: usize = 32;

/// True where a text is one statement that is short by its form. What it is about need not exist.
pub fn is_short(sql: &str, definitions: &Definitions, limits: &ParseLimits) -> bool {
    if sql.len() > BYTES_MAX {
        return false;
    }
    let Ok(statements) = parse(sql, limits) else { return false };
    match statements.as_slice() {
        [ParsedStatement::Query(query)] => is_lookup(query, definitions),
        [ParsedStatement::Insert(insert)] => is_literal(insert),
        _ => false,
    }
}

fn is_literal(insert: &Insert) -> bool {
    let is_plain_portion = matches!(insert.portion, Portion::Default | Portion::All);
    let SetExpr::Values(Values { rows, .. }) = insert.source.query.body.as_ref() else {
        return false;
    };
    is_plain_portion
        && insert.returning.is_none()
        && is_bare(&insert.source.query)
        && rows.iter().all(|row| row.content.iter().all(is_plain))
}

fn is_lookup(query: &ParsedQuery, definitions: &Definitions) -> bool {
    let SetExpr::Select(select) = query.query.body.as_ref() else { return false };
    is_bare(&query.query)
        && are_instants(&query.clauses)
        && table_of(select, definitions).is_some_and(|table| finds_one(select, table))
        && select.projection.iter().all(|item| match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                is_plain(expr)
            }
            SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => true,
            SelectItem::ExprWithAliases { .. } => false,
        })
}

/// True for a query with nothing around its body but a plain limit.
fn is_bare(query: &Query) -> bool {
    let is_plain_limit = match &query.limit_clause {
        None => true,
        Some(LimitClause::LimitOffset { limit, offset: None, limit_by }) => {
            limit.as_ref().is_none_or(is_plain) && limit_by.is_empty()
        }
        Some(_) => false,
    };
    query.with.is_none() && query.order_by.is_none() && query.fetch.is_none() && is_plain_limit
}

/// True where every clause reads at one instant.
fn are_instants(clauses: &Clauses) -> bool {
    clauses.settings.clock_time.is_none()
        && clauses.all().all(|clause| match clause {
            Clause { kind: ClauseKind::AsOf(at), .. } => is_constant(&at.expr),
            _ => false,
        })
}

/// Returns the one table that a select reads plainly.
fn table_of<'a>(select: &Select, definitions: &'a Definitions) -> Option<&'a TableDef> {
    let [from] = select.from.as_slice() else { return None };
    let TableFactor::Table { name, args: None, .. } = &from.relation else { return None };
    let [part] = name.0.as_slice() else { return None };
    let is_plain_select = select.distinct.is_none()
        && select.having.is_none()
        && select.qualify.is_none()
        && select.named_window.is_empty();
    if !from.joins.is_empty() || !is_plain_select {
        return None;
    }
    definitions.table(&normal(part.as_ident()?)).map(AsRef::as_ref)
}

/// True where the condition is plain and gives a value to each column of the key.
fn finds_one(select: &Select, table: &TableDef) -> bool {
    let Some(condition) = &select.selection else { return false };
    let both_ways = |(left, right)| [(left, right), (right, left)];
    let named: Vec<&Ident> = equalities(condition)
        .into_iter()
        .flat_map(both_ways)
        .filter(|(_, value)| is_constant(value))
        .filter_map(|(column, _)| column_of(column))
        .collect();
    let is_named = |column: &str| named.iter().any(|ident| normal(ident) == column);
    let mut keys = table.key.iter().filter_map(|key| table.column_by_id(*key));
    is_plain(condition) && keys.all(|column| is_named(&column.name))
}

fn column_of(expr: &Expr) -> Option<&Ident> {
    match expr {
        Expr::Identifier(ident) => Some(ident),
        Expr::CompoundIdentifier(idents) => idents.last(),
        Expr::Nested(inner) => column_of(inner),
        _ => None,
    }
}

/// True for an expression that costs a row next to nothing: no function, no sub-query.
fn is_plain(expr: &Expr) -> bool {
    is_made_of(expr, true, DEPTH_MAX)
}

/// True for a plain expression without columns.
fn is_constant(expr: &Expr) -> bool {
    is_made_of(expr, false, DEPTH_MAX)
}

fn is_made_of(expr: &Expr, columns: bool, depth: usize) -> bool {
    if depth == 0 {
        return false;
    }
    let within = |part: &Expr| is_made_of(part, columns, depth - 1);
    match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => columns,
        Expr::Value(_) | Expr::TypedString(_) => true,
        Expr::Nested(inner)
        | Expr::Cast { expr: inner, .. }
        | Expr::UnaryOp { expr: inner, .. }
        | Expr::IsNull(inner)
        | Expr::IsNotNull(inner) => within(inner),
        Expr::BinaryOp { left, right, .. } => within(left) && within(right),
        Expr::Interval(interval) => within(&interval.value),
        _ => false,
    }
}
