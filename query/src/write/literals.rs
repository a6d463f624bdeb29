//! Values of rows that are literals: read off the tree, without planning a query.

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, ExactNumberInfo, Expr, Query, SetExpr, TimezoneInfo, UnaryOperator,
    Value as Literal, ValueWithSpan,
};
use everwhen_storage::{ColumnType, Value};

use crate::columns::parse_decimal;
use crate::columns::text::parse_value;
use crate::error::Result;

/// Returns the rows of a plain VALUES of literals; nothing for any other query. A number in a
/// decimal column keeps all its digits.
///
/// # Errors
/// 22P02 or 22008 for a typed literal that is none.
pub fn rows(query: &Query, kinds: &[Option<ColumnType>]) -> Result<Option<Vec<Vec<Value>>>> {
    let plain = query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none();
    let SetExpr::Values(values) = query.body.as_ref() else { return Ok(None) };
    if !plain {
        return Ok(None);
    }
    let mut rows = Vec::with_capacity(values.rows.len());
    for exprs in &values.rows {
        let exprs = &exprs.content;
        let mut row = Vec::with_capacity(exprs.len());
        for (at, expr) in exprs.iter().enumerate() {
            let kind = kinds.get(at).and_then(Option::as_ref);
            match literal(expr, kind)? {
                Some(value) => row.push(value),
                None => return Ok(None),
            }
        }
        rows.push(row);
    }
    let width = rows.first().map_or(0, Vec::len);
    // Rows of several widths are for the planner to report.
    Ok(rows.iter().all(|row| row.len() == width).then_some(rows))
}

/// Gives the texts of a VALUES their column's type where it is one of time and a row beside them
/// computes its value: the rows of a VALUES are of one type.
pub fn typed(query: &mut Query, kinds: &[Option<ColumnType>]) {
    let SetExpr::Values(values) = query.body.as_mut() else { return };
    for (at, kind) in kinds.iter().enumerate() {
        let data_type = match kind {
            Some(ColumnType::Timestamp) => DataType::Timestamp(None, TimezoneInfo::WithTimeZone),
            Some(ColumnType::Date) => DataType::Date,
            _ => continue,
        };
        let mut cells: Vec<&mut Expr> =
            values.rows.iter_mut().filter_map(|row| row.content.get_mut(at)).collect();
        if cells.iter().all(|cell| is_text(cell)) {
            continue;
        }
        for cell in cells.iter_mut().filter(|cell| is_text(cell)) {
            let text = std::mem::replace(&mut **cell, Expr::value(Literal::Null));
            **cell = Expr::Cast {
                kind: CastKind::Cast,
                expr: Box::new(text),
                data_type: data_type.clone(),
                array: false,
                format: None,
            };
        }
    }
}

fn is_text(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(ValueWithSpan { value: Literal::SingleQuotedString(_), .. }))
}

/// Returns the value of a literal, for a column of a type; nothing for any other expression.
///
/// # Errors
/// 22P02, 22003 or 22008 for a text that is no value of the type that it is cast to.
pub(crate) fn literal(expr: &Expr, kind: Option<&ColumnType>) -> Result<Option<Value>> {
    Ok(match expr {
        Expr::Value(ValueWithSpan { value, .. }) => plain(value, "", kind),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match expr.as_ref() {
            Expr::Value(ValueWithSpan { value: value @ Literal::Number(..), .. }) => {
                plain(value, "-", kind)
            }
            _ => None,
        },
        Expr::Nested(inner) => literal(inner, kind)?,
        Expr::TypedString(typed) => match (&typed.value.value, named_type(&typed.data_type)) {
            (Literal::SingleQuotedString(text), Some(kind)) => Some(parse_value(text, &kind)?),
            _ => None,
        },
        Expr::Cast { expr: inner, data_type, .. } => {
            match (inner.as_ref(), named_type(data_type)) {
                // NULL of any type is NULL.
                (Expr::Value(ValueWithSpan { value: Literal::Null, .. }), _) => Some(Value::Null),
                (
                    Expr::Value(ValueWithSpan { value: Literal::SingleQuotedString(text), .. }),
                    Some(kind),
                ) => Some(parse_value(text, &kind)?),
                _ => None,
            }
        }
        Expr::Array(array) => {
            let item = match kind {
                Some(ColumnType::List(item)) => Some(item.as_ref()),
                _ => None,
            };
            let mut values = Vec::with_capacity(array.elem.len());
            for element in &array.elem {
                match literal(element, item)? {
                    Some(value) => values.push(value),
                    None => return Ok(None),
                }
            }
            Some(Value::List(values))
        }
        _ => None,
    })
}

fn plain(value: &Literal, sign: &str, kind: Option<&ColumnType>) -> Option<Value> {
    match value {
        Literal::Null => Some(Value::Null),
        Literal::Boolean(value) => Some(Value::Bool(*value)),
        Literal::SingleQuotedString(text) | Literal::EscapedStringLiteral(text) => {
            Some(Value::Text(text.clone()))
        }
        Literal::Number(digits, _) => {
            let text = format!("{sign}{digits}");
            if kind == Some(&ColumnType::Decimal) {
                return parse_decimal(&text).map(Value::Decimal);
            }
            let integer = text.parse().map(Value::Int).ok();
            // A float literal is never one of the names of NaN and the infinities.
            integer.or_else(|| text.parse().ok().filter(|f: &f64| f.is_finite()).map(Value::Float))
        }
        Literal::HexStringLiteral(digits) => hex(digits).map(Value::Bytes),
        _ => None,
    }
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) || !digits.is_ascii() {
        return None;
    }
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok())
        .collect()
}

fn named_type(sql: &DataType) -> Option<ColumnType> {
    Some(match sql {
        DataType::Timestamp(..) => ColumnType::Timestamp,
        DataType::Date => ColumnType::Date,
        DataType::Time(..) => ColumnType::Time,
        DataType::JSON | DataType::JSONB => ColumnType::Json,
        DataType::Double(_) | DataType::DoublePrecision => ColumnType::Float64,
        DataType::Decimal(ExactNumberInfo::None) => ColumnType::Decimal,
        DataType::Uuid => ColumnType::Uuid,
        DataType::Text | DataType::Varchar(None) => ColumnType::Text,
        _ => return None,
    })
}
