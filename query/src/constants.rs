//! Constant expressions of temporal bounds: literals at once, the rest by DataFusion's simplifier.

use datafusion::common::ScalarValue;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr as PlanExpr, LogicalPlan};
use datafusion::sql::parser::Statement as DataFusionStatement;
use datafusion::sql::sqlparser::ast::{
    self, Expr, SelectItem, SetExpr, Statement, Value as Literal, ValueWithSpan,
};
use everwhen_storage::{ColumnType, ValidTime};

use crate::columns::text::parse_instant;
use crate::columns::{column_type, value_of_scalar};
use crate::diagnose::Diagnose;
use crate::dialect::{BoundExpr, Positions};
use crate::error::{Error, Result, SqlState};
use crate::session::{StatementContext, planning_session, session_state};

/// What constant expressions are computed with: a statement's context, or none, without a now.
pub struct Constants<'a> {
    ctx: Option<&'a StatementContext>,
}

impl<'a> Constants<'a> {
    /// Computes at a statement's basis.
    pub const fn at(ctx: &'a StatementContext) -> Self {
        Self { ctx: Some(ctx) }
    }

    /// Computes at no basis: what depends on `now()` is not constant.
    pub const fn timeless() -> Self {
        Self { ctx: None }
    }

    /// Returns the instant of a bound; nothing for NULL.
    ///
    /// # Errors
    /// 22008 for what is no instant, 42804 for another type, 0A000 for what is not constant.
    pub fn instant(&self, bound: &BoundExpr) -> Result<Option<ValidTime>> {
        let found = match literal_instant(self.ctx.map(|ctx| ctx.basis.now), &bound.expr) {
            Some(found) => found,
            // A session costs more than most instants, so it is made where one needs it.
            None => match self.ctx {
                Some(ctx) => session_state(ctx).and_then(|state| computed(&state, bound)),
                None => planning_session(Vec::new()).and_then(|state| computed(&state, bound)),
            },
        };
        found.map_err(|error| error.at(bound.position))
    }
}

/// True for a plain call of `now()`.
pub fn is_now(expr: &Expr) -> bool {
    match expr {
        Expr::Function(function) => {
            let name = function.name.to_string().to_lowercase();
            let bare = match &function.args {
                ast::FunctionArguments::None => true,
                ast::FunctionArguments::List(list) => list.args.is_empty(),
                ast::FunctionArguments::Subquery(_) => false,
            };
            bare && matches!(name.as_str(), "now" | "current_timestamp" | "localtimestamp")
        }
        Expr::Nested(inner) => is_now(inner),
        _ => false,
    }
}

fn literal_instant(now: Option<ValidTime>, expr: &Expr) -> Option<Result<Option<ValidTime>>> {
    match expr {
        Expr::Value(ValueWithSpan { value: Literal::Null, .. }) => Some(Ok(None)),
        Expr::Value(ValueWithSpan { value: Literal::SingleQuotedString(text), .. }) => {
            Some(parse_instant(text).map(Some))
        }
        Expr::TypedString(typed) if is_time_type(&typed.data_type) => match &typed.value.value {
            Literal::SingleQuotedString(text) => Some(parse_instant(text).map(Some)),
            _ => None,
        },
        Expr::Cast { expr: inner, data_type, .. } if is_time_type(data_type) => {
            match inner.as_ref() {
                Expr::Value(ValueWithSpan { value: Literal::SingleQuotedString(text), .. }) => {
                    Some(parse_instant(text).map(Some))
                }
                _ => None,
            }
        }
        Expr::Nested(inner) => literal_instant(now, inner),
        _ if is_now(expr) => now.map(|now| Ok(Some(now))),
        _ => None,
    }
}

fn is_time_type(sql: &ast::DataType) -> bool {
    matches!(sql, ast::DataType::Timestamp(..) | ast::DataType::Datetime(_) | ast::DataType::Date)
}

fn computed(state: &SessionState, bound: &BoundExpr) -> Result<Option<ValidTime>> {
    let scalar = fold(state, bound.expr.clone())?.ok_or_else(|| {
        Error::unsupported("an instant of a time clause must be constant or of a table to its left")
    })?;
    if scalar.is_null() {
        return Ok(None);
    }
    let kind = column_type(&scalar.data_type());
    if !matches!(kind, Some(ColumnType::Timestamp | ColumnType::Date | ColumnType::Text)) {
        let message = format!("an instant was expected, not a {}", scalar.data_type());
        return Err(Error::new(SqlState::DatatypeMismatch, message));
    }
    match value_of_scalar(&scalar, &ColumnType::Timestamp)? {
        everwhen_storage::Value::Timestamp(micros) => Ok(Some(ValidTime::from_micros(micros))),
        _ => Ok(None),
    }
}

/// Computes a constant expression; nothing where it does not come down to a literal.
///
/// # Errors
/// Whatever its planning or computing reports.
fn fold(state: &SessionState, expr: Expr) -> Result<Option<ScalarValue>> {
    let positions = Positions::default();
    let statement =
        DataFusionStatement::Statement(Box::new(Statement::Query(Box::new(select_of(vec![
            SelectItem::UnnamedExpr(expr),
        ])))));
    // The session has no table whose lookup could wait, so this never blocks.
    let planned = futures::executor::block_on(state.statement_to_plan(statement));
    let plan = state.optimize(&planned.diagnosed(&positions)?).diagnosed(&positions)?;
    let literal = |expr: &PlanExpr| match expr.clone().unalias() {
        PlanExpr::Literal(scalar, _) => Some(scalar),
        _ => None,
    };
    Ok(match &plan {
        LogicalPlan::Projection(projection) => projection.expr.first().and_then(literal),
        LogicalPlan::Values(values) => {
            values.values.first().and_then(|row| row.first()).and_then(literal)
        }
        _ => None,
    })
}

/// Builds `SELECT items` without a FROM.
fn select_of(items: Vec<SelectItem>) -> ast::Query {
    crate::dialect::query_of(SetExpr::Select(Box::new(ast::Select {
        projection: items,
        ..crate::dialect::empty_select()
    })))
}
