//! Parameters: `$1`.. and `$name` become literals of the tree before it is planned.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Value as Literal, ValueWithSpan, VisitMut, visit_expressions_mut,
};
use serde_json::Value as Json;

use crate::dialect::{BoundExpr, Clauses, ParsedQuery, Portion, Positions};
use crate::error::{Error, Result, SqlState};

/// A statement's parameters.
#[derive(Debug, Clone, Default)]
pub enum Params {
    #[default]
    None,
    /// `$1`, `$2`, ..
    Positional(Vec<Json>),
    /// `$name`.
    Named(serde_json::Map<String, Json>),
}

impl Params {
    /// Fills the parameters of a query and of its temporal clauses.
    ///
    /// # Errors
    /// 42P02 for one that was not given.
    pub fn bind_query(&self, parsed: &mut ParsedQuery) -> Result<()> {
        self.bind(&mut parsed.query, &parsed.clauses.positions)?;
        self.bind_clauses(&mut parsed.clauses)
    }

    /// Fills the parameters of temporal clauses.
    ///
    /// # Errors
    /// 42P02 for one that was not given.
    pub fn bind_clauses(&self, clauses: &mut Clauses) -> Result<()> {
        let positions = clauses.positions.clone();
        let bind = |bound: &mut BoundExpr| self.bind(&mut bound.expr, &positions);
        if let Some(now) = &mut clauses.settings.clock_time {
            bind(now)?;
        }
        clauses.all_mut().flat_map(|clause| clause.kind.bounds_mut()).try_for_each(bind)
    }

    /// Fills the parameters of a write's window.
    ///
    /// # Errors
    /// 42P02 for one that was not given.
    pub fn bind_portion(&self, portion: &mut Portion, positions: &Positions) -> Result<()> {
        if let Portion::Between { from, to } = portion {
            self.bind(&mut from.expr, positions)?;
            if let Some(to) = to {
                self.bind(&mut to.expr, positions)?;
            }
        }
        Ok(())
    }

    /// Fills the parameters of any part of a tree.
    ///
    /// # Errors
    /// 42P02 for one that was not given.
    pub fn bind(&self, tree: &mut impl VisitMut, positions: &Positions) -> Result<()> {
        let outcome = visit_expressions_mut(tree, |expr: &mut Expr| {
            let Expr::Value(ValueWithSpan { value, span }) = expr else {
                return ControlFlow::Continue(());
            };
            let Literal::Placeholder(name) = value else {
                return ControlFlow::Continue(());
            };
            match self.get(name) {
                Some(json) => {
                    *value = literal_of(json);
                    ControlFlow::Continue(())
                }
                None => {
                    let message = format!("parameter {name} was not given");
                    let error = Error::new(SqlState::UndefinedParameter, message);
                    ControlFlow::Break(error.at(positions.start(*span)))
                }
            }
        });
        match outcome {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }

    fn get(&self, placeholder: &str) -> Option<&Json> {
        let name = placeholder.strip_prefix('$')?;
        match self {
            Self::None => None,
            Self::Positional(values) => {
                let number: usize = name.parse().ok()?;
                values.get(number.checked_sub(1)?)
            }
            Self::Named(values) => values.get(name),
        }
    }
}

/// Returns the literal of a JSON value; lists and objects are JSON text.
fn literal_of(json: &Json) -> Literal {
    match json {
        Json::Null => Literal::Null,
        Json::Bool(value) => Literal::Boolean(*value),
        Json::Number(number) => Literal::Number(number.to_string(), false),
        Json::String(text) => Literal::SingleQuotedString(text.clone()),
        Json::Array(_) | Json::Object(_) => Literal::SingleQuotedString(json.to_string()),
    }
}
