//! Parameters: `$1`.. and `$name` become literals of the tree before it is planned.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Array, CastKind, DataType, Expr, Ident, Query, SelectItem, SetExpr, Value as Literal,
    ValueWithSpan, VisitMut, visit_expressions_mut,
};
use everwhen_storage::{ColumnType, Value};
use serde_json::Value as Json;

use crate::columns::json::{json_to_value, named};
use crate::columns::text::{float_text, text_of};
use crate::dialect::{BoundExpr, Clauses, ParsedQuery, ParsedStatement, Portion, Positions};
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
    /// `$1`, `$2`, .. in the JSON forms of their types; one without a type is as in `Positional`.
    Typed(Vec<(Json, Option<ColumnType>)>),
}

impl Params {
    /// Fills the parameters of a query or a write; other statements have none.
    ///
    /// # Errors
    /// 42P02 for one that was not given, 42804, 22P02, 22003 or 22008 for one that is no value of
    /// its type.
    pub fn bind_statement(&self, statement: &mut ParsedStatement) -> Result<()> {
        match statement {
            ParsedStatement::Query(query) | ParsedStatement::Explain { query, .. } => {
                self.bind_query(query)
            }
            ParsedStatement::Insert(insert) => {
                let positions = insert.source.clauses.positions().clone();
                self.bind_query(&mut insert.source)?;
                self.bind_portion(&mut insert.portion, &positions)?;
                self.bind(&mut insert.returning, &positions)
            }
            ParsedStatement::Update(update) => {
                let positions = update.clauses.positions().clone();
                self.bind_clauses(&mut update.clauses)?;
                self.bind_portion(&mut update.portion, &positions)?;
                for (_, value) in &mut update.assignments {
                    self.bind(value, &positions)?;
                }
                self.bind(&mut update.from, &positions)?;
                self.bind(&mut update.selection, &positions)?;
                self.bind(&mut update.returning, &positions)
            }
            ParsedStatement::Delete(delete) | ParsedStatement::Erase(delete) => {
                let positions = delete.clauses.positions().clone();
                self.bind_clauses(&mut delete.clauses)?;
                self.bind_portion(&mut delete.portion, &positions)?;
                self.bind(&mut delete.using, &positions)?;
                self.bind(&mut delete.selection, &positions)?;
                self.bind(&mut delete.returning, &positions)
            }
            ParsedStatement::Assert(assert) => self.bind_query(&mut assert.query),
            _ => Ok(()),
        }
    }

    /// Fills the parameters of a query and of its temporal clauses.
    ///
    /// # Errors
    /// 42P02 for one that was not given.
    pub fn bind_query(&self, parsed: &mut ParsedQuery) -> Result<()> {
        name_parameters(&mut parsed.query);
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
            let Expr::Value(ValueWithSpan { value: Literal::Placeholder(name), span }) = expr
            else {
                return ControlFlow::Continue(());
            };
            let at = positions.start(*span);
            let bound = match self.get(name) {
                Some((json, None)) => {
                    Ok(Expr::Value(ValueWithSpan { value: literal_of(json), span: *span }))
                }
                Some((json, Some(kind))) => typed(json, kind),
                None => {
                    let message = format!("parameter {name} was not given");
                    Err(Error::new(SqlState::UndefinedParameter, message))
                }
            };
            match bound {
                Ok(bound) => {
                    *expr = bound;
                    ControlFlow::Continue(())
                }
                Err(error) => ControlFlow::Break(error.at(at)),
            }
        });
        match outcome {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }

    fn get(&self, placeholder: &str) -> Option<(&Json, Option<&ColumnType>)> {
        let name = placeholder.strip_prefix('$')?;
        let at = || name.parse::<usize>().ok()?.checked_sub(1);
        match self {
            Self::None => None,
            Self::Positional(values) => Some((values.get(at()?)?, None)),
            Self::Named(values) => Some((values.get(name)?, None)),
            Self::Typed(values) => values.get(at()?).map(|(json, kind)| (json, kind.as_ref())),
        }
    }
}

/// Names the columns that are nothing but a parameter after it, so that equal values make no two
/// columns of one name.
pub fn name_parameters(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    for item in &mut select.projection {
        let SelectItem::UnnamedExpr(outer) = item else { continue };
        let inner: &Expr = match &*outer {
            Expr::Cast { expr, .. } => expr,
            plain => plain,
        };
        let Expr::Value(ValueWithSpan { value: Literal::Placeholder(name), .. }) = inner else {
            continue;
        };
        let alias = Ident::with_quote('"', name.as_str());
        *item = SelectItem::ExprWithAlias { expr: outer.clone(), alias };
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

fn typed(json: &Json, kind: &ColumnType) -> Result<Expr> {
    let value = json_to_value(json, kind)?;
    Ok(expr_of(&value, kind))
}

/// Returns an expression that is a value of a type wherever it stands.
pub fn expr_of(value: &Value, kind: &ColumnType) -> Expr {
    let text = |text: String| Expr::value(Literal::SingleQuotedString(text));
    match (value, kind) {
        (Value::Null, _) => match sql_type(kind) {
            Some(sql) => cast(Expr::value(Literal::Null), sql),
            None => Expr::value(Literal::Null),
        },
        (Value::Bool(value), _) => Expr::value(Literal::Boolean(*value)),
        (Value::Int(value), _) => Expr::value(Literal::Number(value.to_string(), false)),
        (Value::Float(value), _) if value.is_finite() => {
            let digits = float_text(*value);
            // Digits alone would be an integer.
            let whole = digits.bytes().all(|b| b.is_ascii_digit() || b == b'-');
            let digits = if whole { format!("{digits}.0") } else { digits };
            Expr::value(Literal::Number(digits, false))
        }
        (Value::Bytes(bytes), _) => {
            let digits = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            Expr::value(Literal::HexStringLiteral(digits))
        }
        (Value::Text(value), _) => text(value.clone()),
        (Value::List(values), ColumnType::List(item)) if !values.is_empty() => {
            let elem = values.iter().map(|value| expr_of(value, item)).collect();
            Expr::Array(Array { elem, named: true })
        }
        (Value::List(_), _) => match sql_type(kind) {
            Some(sql) => cast(Expr::Array(Array { elem: Vec::new(), named: true }), sql),
            None => text(named(value, kind).to_string()),
        },
        (Value::Struct(_), _) => text(named(value, kind).to_string()),
        (value, _) => match sql_type(kind) {
            Some(sql) => cast(text(text_of(value)), sql),
            None => text(text_of(value)),
        },
    }
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    let (kind, expr) = (CastKind::Cast, Box::new(expr));
    Expr::Cast { kind, expr, data_type, array: false, format: None }
}

/// Returns the SQL name of a type; structs have none.
fn sql_type(kind: &ColumnType) -> Option<DataType> {
    use datafusion::sql::sqlparser::ast::{ArrayElemTypeDef, ExactNumberInfo, TimezoneInfo};
    Some(match kind {
        ColumnType::Bool => DataType::Boolean,
        ColumnType::Int64 => DataType::BigInt(None),
        ColumnType::Float64 => DataType::Double(ExactNumberInfo::None),
        ColumnType::Decimal => DataType::Decimal(ExactNumberInfo::None),
        ColumnType::Text => DataType::Text,
        ColumnType::Uuid => DataType::Uuid,
        ColumnType::Bytes => DataType::Bytea,
        ColumnType::Date => DataType::Date,
        ColumnType::Time => DataType::Time(None, TimezoneInfo::None),
        ColumnType::Timestamp => DataType::Timestamp(None, TimezoneInfo::Tz),
        ColumnType::Json => DataType::JSON,
        ColumnType::List(item) => {
            let item = Box::new(sql_type(item)?);
            DataType::Array(ArrayElemTypeDef::SquareBracket(item, None))
        }
        ColumnType::Struct(_) => return None,
    })
}
