//! Which values may stand in which columns, and how columns of undeclared tables widen.

use everwhen_storage::{ColumnType, Value};

use crate::columns::json::named;
use crate::columns::text::{DECIMAL_ONE, MICROS_PER_DAY, float_text, parse_value};
use crate::columns::{parse_decimal, widen};
use crate::error::{Error, Result, SqlState};

/// Returns the type that a value shows by itself; nothing for NULL.
pub fn kind_of(value: &Value) -> Option<ColumnType> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(_) => ColumnType::Bool,
        Value::Int(_) => ColumnType::Int64,
        Value::Float(_) => ColumnType::Float64,
        Value::Decimal(_) => ColumnType::Decimal,
        Value::Text(_) => ColumnType::Text,
        Value::Uuid(_) => ColumnType::Uuid,
        Value::Bytes(_) => ColumnType::Bytes,
        Value::Date(_) => ColumnType::Date,
        Value::Time(_) => ColumnType::Time,
        Value::Timestamp(_) => ColumnType::Timestamp,
        Value::Json(_) => ColumnType::Json,
        Value::List(items) => {
            let kinds = items.iter().filter_map(kind_of);
            let item = kinds.reduce(|a, b| wider(&a, &b)).unwrap_or(ColumnType::Text);
            ColumnType::List(Box::new(item))
        }
        Value::Struct(_) => ColumnType::Json,
    })
}

/// Returns a value as one of a column's type, where SQL lets it stand there: numbers widen, text
/// reads as an instant, a decimal or JSON, everything can be JSON.
///
/// # Errors
/// 42804 for another type, 22P02, 22003 or 22008 for text that is no such value.
pub fn assign(value: Value, from: Option<&ColumnType>, to: &ColumnType) -> Result<Value> {
    if to.admits(&value) {
        return Ok(value);
    }
    Ok(match (to, &value) {
        (ColumnType::Float64, Value::Int(_) | Value::Decimal(_))
        | (ColumnType::Decimal, Value::Int(_)) => widen(&value, to),
        (ColumnType::Decimal, Value::Float(float)) => {
            let text = float_text(*float);
            Value::Decimal(parse_decimal(&text).ok_or_else(|| mismatch(&value, to))?)
        }
        (ColumnType::Int64, Value::Decimal(units)) if units % DECIMAL_ONE == 0 => {
            let whole = i64::try_from(units / DECIMAL_ONE);
            Value::Int(whole.map_err(|_| mismatch(&value, to))?)
        }
        (ColumnType::Timestamp, Value::Date(days)) => {
            Value::Timestamp(i64::from(*days) * MICROS_PER_DAY)
        }
        (
            ColumnType::Uuid
            | ColumnType::Timestamp
            | ColumnType::Date
            | ColumnType::Time
            | ColumnType::Decimal
            | ColumnType::Json
            | ColumnType::List(_)
            | ColumnType::Struct(_),
            Value::Text(text) | Value::Json(text),
        ) => parse_value(text, to)?,
        (ColumnType::Text, Value::Json(text)) => Value::Text(text.clone()),
        (ColumnType::Text, Value::Uuid(_)) => widen(&value, to),
        (ColumnType::Json, _) => match from {
            Some(from) => Value::Json(named(&value, from).to_string()),
            None => widen(&value, to),
        },
        (ColumnType::List(item), Value::List(values)) => Value::List(
            values.iter().map(|value| assign(value.clone(), None, item)).collect::<Result<_>>()?,
        ),
        (ColumnType::Struct(fields), Value::Struct(values)) if fields.len() == values.len() => {
            let cast = fields.iter().zip(values).map(|((_, to), v)| assign(v.clone(), None, to));
            Value::Struct(cast.collect::<Result<_>>()?)
        }
        _ => return Err(mismatch(&value, to)),
    })
}

fn mismatch(value: &Value, to: &ColumnType) -> Error {
    let found = kind_of(value).map_or_else(|| "null".to_owned(), |kind| kind.to_string());
    Error::new(SqlState::DatatypeMismatch, format!("a value of type {found} is no {to}"))
}

/// Returns the narrowest type that holds the values of both.
pub fn wider(a: &ColumnType, b: &ColumnType) -> ColumnType {
    use ColumnType::{Bytes, Date, Decimal, Float64, Int64, Json, List, Struct, Text, Timestamp};
    match (a, b) {
        _ if a == b => a.clone(),
        (Int64, Float64) | (Float64, Int64) => Float64,
        // A float may be too great or too fine for a decimal: those two meet in text.
        (Int64, Decimal) | (Decimal, Int64) => Decimal,
        (Date, Timestamp) | (Timestamp, Date) => Timestamp,
        (List(a), List(b)) => List(Box::new(wider(a, b))),
        (Json | List(_) | Struct(_) | Bytes, _) | (_, Json | List(_) | Struct(_) | Bytes) => Json,
        _ => Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The store refuses a column that becomes what it does not widen to.
    #[test]
    fn columns_of_undeclared_tables_widen_as_the_store_allows() {
        use ColumnType::{
            Bool, Bytes, Date, Decimal, Float64, Int64, Json, List, Text, Time, Timestamp, Uuid,
        };
        let scalars =
            [Bool, Int64, Float64, Decimal, Text, Uuid, Bytes, Date, Time, Timestamp, Json];
        let lists = scalars.iter().map(|item| List(Box::new(item.clone())));
        let all: Vec<ColumnType> = scalars.iter().cloned().chain(lists).collect();
        for a in &all {
            for b in &all {
                let both = wider(a, b);
                assert_eq!(both, wider(b, a), "{a} and {b}");
                assert!(a.widens_to(&both) && b.widens_to(&both), "{a} and {b} to {both}");
            }
        }
    }

    #[test]
    fn a_widened_value_is_of_the_wider_type() {
        for (value, kind, wide) in [
            (Value::Int(7), ColumnType::Float64, Value::Float(7.0)),
            (Value::Int(7), ColumnType::Decimal, Value::Decimal(7 * DECIMAL_ONE)),
            (Value::Int(7), ColumnType::Text, Value::Text("7".to_owned())),
            (Value::Date(1), ColumnType::Timestamp, Value::Timestamp(MICROS_PER_DAY)),
            (Value::Bool(true), ColumnType::Json, Value::Json("true".to_owned())),
            (Value::Text("a".to_owned()), ColumnType::Json, Value::Json("\"a\"".to_owned())),
            (Value::Json("[1]".to_owned()), ColumnType::Text, Value::Text("[1]".to_owned())),
            (Value::Float(0.5), ColumnType::Text, Value::Text("0.5".to_owned())),
        ] {
            assert!(kind_of(&value).unwrap().widens_to(&kind), "{value:?} to {kind}");
            assert_eq!(widen(&value, &kind), wide);
        }
    }
}
