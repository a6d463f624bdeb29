//! The pass over a query's tree that gives every table reference its own temporal bounds.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast;
use everwhen_storage::{ColumnId, Definitions, TableDef};

use crate::dialect::ParsedQuery;
use crate::error::Result;

/// What the pass must know about the store and the request.
pub struct RewriteInput<'a> {
    pub definitions: &'a Definitions,
    /// True for a system table or view, by its full name in lower case (`everwhen.transactions`).
    pub is_system_table: &'a dyn Fn(&str) -> bool,
}

/// A query over unique table names, and what stands behind each.
#[derive(Debug, Clone)]
pub struct Rewritten {
    pub query: Box<ast::Query>,
    /// In order of appearance.
    pub tables: Vec<TableRef>,
    /// Full names of the system tables used, left in place under these names.
    pub system_tables: Vec<String>,
}

/// One table reference of a query.
#[derive(Debug, Clone)]
pub struct TableRef {
    /// The name under which the query's tree has it: one bare identifier, to be registered as is.
    pub unique_name: String,
    pub def: Arc<TableDef>,
    pub valid: BoundSpec,
    pub system: BoundSpec,
    /// Columns to expose, in this order.
    pub columns: Vec<ExposedColumn>,
    /// 1-based character of the name in the statement's text.
    pub position: usize,
}

/// The bounds of one table reference on one axis; expressions are constant: literals, parameters,
/// `now()` and what is computed of them.
#[derive(Debug, Clone, PartialEq)]
pub enum BoundSpec {
    /// The request's default: now, or the basis.
    Default,
    All,
    /// NULL is an error (22004).
    AsOf(BoundExpr),
    /// `[from, to)`; NULL is the open end; from >= to is an error (22023).
    FromTo(BoundExpr, BoundExpr),
    /// `[from, to]`; NULL is the open end; from > to is an error (22023).
    Between(BoundExpr, BoundExpr),
    /// All versions: containment of the instant is already a predicate of the query.
    Correlated,
}

/// A constant expression of a bound.
#[derive(Debug, Clone, PartialEq)]
pub struct BoundExpr {
    pub expr: ast::Expr,
    /// 1-based character of its start.
    pub position: usize,
}

/// A column that a table reference shows to the planner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExposedColumn {
    Stored(ColumnId),
    /// `_valid_from`, an open start reads NULL.
    ValidFrom,
    /// `_valid_to`, an open end reads NULL.
    ValidTo,
    SystemFrom,
    SystemTo,
    /// `_tx`.
    Tx,
    /// `_valid_time`, the period.
    ValidPeriod,
    /// `_system_time`, the period.
    SystemPeriod,
    /// `__valid_from`: the least timestamp where open; never NULL.
    RawValidFrom,
    /// `__valid_to`: the greatest timestamp where open; never NULL.
    RawValidTo,
    RawSystemFrom,
    RawSystemTo,
}

/// Gives every table of a query its unique name and bounds.
///
/// # Errors
/// Unknown tables (42P01), clauses on what has no versions (0A000), ambiguous names (42702).
pub fn rewrite(_parsed: &ParsedQuery, _input: &RewriteInput<'_>) -> Result<Rewritten> {
    Err(crate::error::Error::internal("not yet"))
}
