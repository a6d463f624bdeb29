//! The pass over a query's tree that gives every table reference its own temporal bounds.

mod correlate;
mod exists;
mod from;
mod hidden;
mod membership;
mod outermost;
mod quantified;
mod scalar;
mod scope;
mod twice;
mod views;
mod wildcard;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{self, VisitMut, VisitorMut};
use everwhen_storage::{ColumnId, Definitions, TableDef};

use self::from::FromList;
use self::hidden::HiddenNames;
use self::scope::{Cte, Scope};
use crate::dialect::{BoundExpr, Clauses, ParsedQuery, normal, unclaimed};
use crate::error::{Error, Result, SqlState};

pub(crate) use self::scope::Relation;
pub(crate) use self::twice::{is_twice, name_apart, shown_name, without_marks};

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
    /// As `FromTo`, with the valid bounds that rows show cut to the window.
    Only(BoundExpr, BoundExpr),
    /// All versions: containment of the instant is already a predicate of the query.
    Correlated,
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
/// 42P01 for a table that does not exist, 42601 for a clause that stands at no table, 0A000 for
/// one at what has no versions, 42702, 42703 and 42P10 for the columns of correlated instants.
pub fn rewrite(parsed: &ParsedQuery, input: &RewriteInput<'_>) -> Result<Rewritten> {
    let mut query = parsed.query.clone();
    let mut rewriter = Rewriter {
        input,
        clauses: parsed.clauses.clone(),
        hidden: HiddenNames::of(&query, &parsed.clauses),
        tables: Vec::new(),
        system_tables: Vec::new(),
        lookups: 0,
        ordered: HashSet::new(),
        depth: 0,
        in_stored_view: false,
        written_out: 0,
    };
    rewriter.query(&mut query, &Scope::default())?;
    if let Some(clause) = rewriter.clauses.list.first() {
        return Err(unclaimed(clause));
    }
    let Rewriter { tables, system_tables, .. } = rewriter;
    Ok(Rewritten { query, tables, system_tables })
}

/// Output columns of a query in order, where they are known; unnamed ones are empty.
type Columns = Option<Vec<String>>;

struct Rewriter<'a> {
    input: &'a RewriteInput<'a>,
    /// Those that no table has claimed yet.
    clauses: Clauses,
    hidden: HiddenNames,
    tables: Vec<TableRef>,
    system_tables: Vec<String>,
    /// Look-ups made into joins, and sub-queries of ANY and ALL named, so far.
    lookups: usize,
    /// Names that the ORDER BY of the statement, or of the view that is rewritten, refers to.
    ordered: HashSet<String>,
    /// Views around the place that is rewritten.
    depth: usize,
    /// One of them is stored, so that names in it mean nothing of the session.
    in_stored_view: bool,
    /// Tables and SELECTs of the query once WITH queries and views stand in the places that name them.
    written_out: u64,
}

/// Tables and SELECTs of a query at most: the planner takes time and memory for each.
const TABLES_MAX: u64 = 2_000;

impl Rewriter<'_> {
    fn query(&mut self, query: &mut ast::Query, outer: &Scope<'_>) -> Result<Columns> {
        refuse_query_forms(query)?;
        let mut scope = Scope { parent: Some(outer), ..Scope::default() };
        if let Some(with) = &mut query.with {
            for cte in &mut with.cte_tables {
                let name = normal(&cte.alias.name);
                let declared: Vec<_> =
                    cte.alias.columns.iter().map(|column| normal(&column.name)).collect();
                if with.recursive {
                    let columns = (!declared.is_empty()).then(|| declared.clone());
                    scope.ctes.push(Cte { name: name.clone(), columns, tables: 1 });
                }
                let before = self.written_out;
                let mut columns = self.query(&mut cte.query, &scope)?;
                if !declared.is_empty() {
                    columns = Some(declared);
                }
                // It counts where it is named.
                let tables = self.written_out - before;
                self.written_out = before;
                scope.ctes.push(Cte { name, columns, tables });
            }
        }
        if outer.parent.is_none() {
            self.ordered = twice::ordered(query.order_by.as_ref());
        }
        let (relations, columns) = self.body(&mut query.body, &scope)?;
        let inner = Scope { parent: Some(&scope), relations, ..Scope::default() };
        self.expressions(&mut query.order_by, &inner)?;
        self.expressions(&mut query.limit_clause, &inner)?;
        self.expressions(&mut query.fetch, &inner)?;
        Ok(columns)
    }

    /// Counts what stands in the place of a name.
    fn count_tables(&mut self, tables: u64) -> Result<()> {
        self.written_out = self.written_out.saturating_add(tables);
        if self.written_out <= TABLES_MAX {
            return Ok(());
        }
        let message = "the query has too many tables and SELECTs, with those of WITH and views each \
                       time that they are named";
        Err(Error::new(SqlState::StatementTooComplex, message)
            .with_hint(format!("at most {TABLES_MAX} are allowed")))
    }

    fn body(
        &mut self,
        body: &mut ast::SetExpr,
        scope: &Scope<'_>,
    ) -> Result<(Vec<Relation>, Columns)> {
        match body {
            ast::SetExpr::Select(select) => self.select(select, scope),
            ast::SetExpr::Query(query) => Ok((Vec::new(), self.query(query, scope)?)),
            ast::SetExpr::SetOperation { left, right, .. } => {
                let (_, columns) = self.body(left, scope)?;
                self.body(right, scope)?;
                Ok((Vec::new(), columns))
            }
            ast::SetExpr::Values(values) => {
                self.expressions(values, scope)?;
                Ok((Vec::new(), None))
            }
            ast::SetExpr::Table(_) => Err(Error::unsupported("TABLE as a query is not supported")
                .with_hint("write SELECT * FROM")),
            ast::SetExpr::Insert(_)
            | ast::SetExpr::Update(_)
            | ast::SetExpr::Delete(_)
            | ast::SetExpr::Merge(_) => {
                Err(Error::unsupported("a write cannot be part of a query"))
            }
        }
    }

    fn select(
        &mut self,
        select: &mut ast::Select,
        scope: &Scope<'_>,
    ) -> Result<(Vec<Relation>, Columns)> {
        refuse_select_forms(select)?;
        self.count_tables(1)?;
        quantified::name_apart(select, &mut self.lookups)?;
        let mut from = FromList::default();
        for tables in &mut select.from {
            self.tables_with_joins(tables, scope, &mut from)?;
        }
        for predicate in from.conditions {
            select.selection = Some(match select.selection.take() {
                None => predicate,
                Some(condition) => and(condition, predicate),
            });
        }
        let mut inner =
            Scope { parent: Some(scope), relations: from.relations, ..Scope::default() };
        exists::count_instead(&mut select.projection);
        self.expressions(&mut select.projection, &inner)?;
        let copied = membership::count_instead(&mut select.projection);
        self.count_tables(copied)?;
        self.expressions(&mut select.selection, &inner)?;
        self.expressions(&mut select.distinct, &inner)?;
        self.expressions(&mut select.group_by, &inner)?;
        self.expressions(&mut select.having, &inner)?;
        self.expressions(&mut select.named_window, &inner)?;
        self.expressions(&mut select.qualify, &inner)?;
        inner.relations.extend(scalar::lift(self, select));
        let columns = wildcard::expand(&mut select.projection, &inner.relations, &self.clauses)?;
        // Nobody but its ORDER BY refers to the names of a statement or a view.
        let is_outermost = scope.parent.is_some_and(|outer| outer.parent.is_none());
        let ordered = is_outermost.then_some(&self.ordered);
        name_apart(&mut select.projection, &inner.relations, ordered);
        Ok((inner.relations, columns))
    }

    /// Does the same for every sub-query of some expressions.
    fn expressions<V: VisitMut>(&mut self, part: &mut V, scope: &Scope<'_>) -> Result<()> {
        let mut visitor = SubQueries { rewriter: self, scope, depth: 0 };
        match part.visit(&mut visitor) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(*error),
        }
    }
}

/// Finds the outermost queries of a piece of tree; theirs are found when they are walked.
struct SubQueries<'r, 'a, 's> {
    rewriter: &'r mut Rewriter<'a>,
    scope: &'r Scope<'s>,
    depth: usize,
}

impl VisitorMut for SubQueries<'_, '_, '_> {
    type Break = Box<Error>;

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<Self::Break> {
        if self.depth == 0
            && let Err(error) = self.rewriter.query(query, self.scope)
        {
            return ControlFlow::Break(Box::new(error));
        }
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut ast::Query) -> ControlFlow<Self::Break> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
}

/// What the planner would ignore is refused.
fn refuse_query_forms(query: &ast::Query) -> Result<()> {
    if !query.locks.is_empty() {
        return Err(Error::unsupported("FOR UPDATE and FOR SHARE are not supported")
            .with_hint("reads lock nothing: they see the database at one transaction"));
    }
    if query.for_clause.is_some() || query.settings.is_some() || query.format_clause.is_some() {
        return Err(Error::unsupported("FOR XML, SETTINGS and FORMAT are not supported"));
    }
    Ok(())
}

fn refuse_select_forms(select: &ast::Select) -> Result<()> {
    if select.into.is_some() {
        return Err(Error::unsupported("SELECT INTO is not supported")
            .with_hint("use CREATE TABLE and INSERT INTO .. SELECT"));
    }
    Ok(())
}

/// Returns `left AND right`; what binds looser is put in parentheses.
fn and(left: ast::Expr, right: ast::Expr) -> ast::Expr {
    ast::Expr::BinaryOp {
        left: Box::new(ast::Expr::Nested(Box::new(left))),
        op: ast::BinaryOperator::And,
        right: Box::new(right),
    }
}
