//! Which keys a scan must read, from the filters above it. Pure.
//!
//! All answers are supersets: the filters still apply.

use datafusion::common::ScalarValue;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use everwhen_storage::{ColumnDef, ColumnId, ColumnType, KeyRange, RowKey, TableDef, Value};

use crate::columns::{column_type, text_of, value_of_scalar};
use crate::functions::ordered_float;

/// More keys than this are read by a scan of the table.
const KEYS_MAX: usize = 4_096;

/// Returns the keys that can satisfy all filters, where they bind every column of the key by
/// equality or IN; `None` where they do not.
pub fn keys_of(def: &TableDef, filters: &[Expr]) -> Option<Vec<RowKey>> {
    let keys = tuples_of(def, &def.key, filters, KEYS_MAX)?;
    let mut encoded =
        keys.iter().map(|values| RowKey::encode(values).ok()).collect::<Option<Vec<_>>>()?;
    encoded.sort_unstable();
    encoded.dedup();
    Some(encoded)
}

/// Returns the combinations of values of these columns that can satisfy all filters, where equality or
/// IN bind every one of them, to `most` combinations at most.
pub fn tuples_of(
    def: &TableDef,
    columns: &[ColumnId],
    filters: &[Expr],
    most: usize,
) -> Option<Vec<Vec<Value>>> {
    let mut tuples: Vec<Vec<Value>> = vec![Vec::new()];
    for id in columns {
        let values = values_for(def.column_by_id(*id)?, filters)?;
        if tuples.len().saturating_mul(values.len()) > most {
            return None;
        }
        tuples = tuples
            .iter()
            .flat_map(|head| values.iter().map(move |value| [head, &[value.clone()][..]].concat()))
            .collect();
    }
    Some(tuples)
}

/// Returns the range of the keys that can satisfy all filters: what equalities say of the key's
/// first columns, and comparisons of the next one.
pub fn range_of(def: &TableDef, filters: &[Expr]) -> KeyRange {
    let mut equal: Vec<Value> = Vec::new();
    for id in &def.key {
        let Some(column) = def.column_by_id(*id) else { break };
        match values_for(column, filters).as_deref() {
            Some([value]) => equal.push(value.clone()),
            _ => return between(column, &equal, filters),
        }
    }
    KeyRange::of(&equal, None, None).unwrap_or(KeyRange::ALL)
}

/// Returns the range of the keys whose first columns are equal to values, and whose next one passes
/// its comparisons.
fn between(column: &ColumnDef, equal: &[Value], filters: &[Expr]) -> KeyRange {
    let whole = KeyRange::of(equal, None, None).unwrap_or(KeyRange::ALL);
    let mut comparisons = Vec::new();
    filters.iter().for_each(|filter| comparisons_of(column, filter, &mut comparisons));
    comparisons.iter().fold(whole, |range, comparison| {
        let further = match comparison {
            Comparison::AtLeast(value) => KeyRange::of(equal, Some(value), None),
            Comparison::AtMost(value) => KeyRange::of(equal, None, Some(value)),
            Comparison::StartsWith(start) => KeyRange::starting_with(equal, start),
        };
        further.map_or_else(|_| range.clone(), |further| range.intersection(&further))
    })
}

/// What a conjunct says of a column, its bound included.
enum Comparison {
    AtLeast(Value),
    AtMost(Value),
    StartsWith(String),
}

fn comparisons_of(column: &ColumnDef, filter: &Expr, into: &mut Vec<Comparison>) {
    let value = |expr: &Expr| literal(column, expr).and_then(|mut values| values.pop());
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            comparisons_of(column, left, into);
            comparisons_of(column, right, into);
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (of_value, op) = if is_column(column, left) {
                (value(right), Some(*op))
            } else if is_column(column, right) {
                (value(left), op.swap())
            } else {
                return;
            };
            match (of_value, op) {
                (Some(value), Some(Operator::Gt | Operator::GtEq)) => {
                    into.push(Comparison::AtLeast(value));
                }
                (Some(value), Some(Operator::Lt | Operator::LtEq)) => {
                    into.push(Comparison::AtMost(value));
                }
                _ => {}
            }
        }
        Expr::Between(between) if !between.negated && is_column(column, &between.expr) => {
            into.extend(value(&between.low).map(Comparison::AtLeast));
            into.extend(value(&between.high).map(Comparison::AtMost));
        }
        Expr::Like(like)
            if !like.negated
                && !like.case_insensitive
                && like.escape_char.is_none()
                && is_column(column, &like.expr) =>
        {
            if let Some(Value::Text(pattern)) = value(&like.pattern) {
                let start = pattern.split(['%', '_', '\\']).next().unwrap_or_default();
                into.push(Comparison::StartsWith(start.to_owned()));
            }
        }
        _ => {}
    }
}

/// Returns the keys that a condition names, where it says nothing else: its conjuncts are one
/// equality or IN for each column of the key. Exact, unlike [`keys_of`].
pub fn named_keys(def: &TableDef, conjuncts: &[&Expr]) -> Option<Vec<RowKey>> {
    let columns = def.key.iter().filter_map(|id| def.column_by_id(*id));
    let names_one = |filter: &&&Expr| !has_and(filter);
    let exact = conjuncts.len() == def.key.len() && conjuncts.iter().all(|f| names_one(&f));
    let bound = columns.map(|column| {
        conjuncts.iter().filter(|filter| values_of(column, filter).is_some()).count()
    });
    if !exact || !bound.into_iter().all(|count| count == 1) {
        return None;
    }
    let filters: Vec<Expr> = conjuncts.iter().map(|filter| (*filter).clone()).collect();
    keys_of(def, &filters)
}

fn has_and(filter: &Expr) -> bool {
    match filter {
        Expr::BinaryExpr(BinaryExpr { op: Operator::And, .. }) => true,
        Expr::BinaryExpr(BinaryExpr { left, right, .. }) => has_and(left) || has_and(right),
        _ => false,
    }
}

/// Returns the only values that the filters let through for a column, none of them NULL, where
/// equality or IN says so.
fn values_for(column: &ColumnDef, filters: &[Expr]) -> Option<Vec<Value>> {
    filters.iter().filter_map(|filter| values_of(column, filter)).min_by_key(Vec::len)
}

/// True where a filter says something about which keys to read: of a column that an index may have, or
/// of the key.
pub fn narrows(def: &TableDef, filter: &Expr) -> bool {
    let is_compared = |column: &ColumnDef| {
        let mut comparisons = Vec::new();
        comparisons_of(column, filter, &mut comparisons);
        !comparisons.is_empty()
    };
    def.columns.iter().any(|column| {
        values_of(column, filter).is_some() || (def.is_key(column.id) && is_compared(column))
    })
}

/// Returns the only values that a filter lets through for a column, none of them NULL.
fn values_of(column: &ColumnDef, filter: &Expr) -> Option<Vec<Value>> {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            equal_to(column, left, right).or_else(|| equal_to(column, right, left))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            Some([values_of(column, left)?, values_of(column, right)?].concat())
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            values_of(column, left).or_else(|| values_of(column, right))
        }
        Expr::InList(list) if !list.negated && is_column(column, &list.expr) => {
            let mut values = Vec::with_capacity(list.list.len());
            for item in &list.list {
                values.extend(literal(column, item)?);
            }
            Some(values)
        }
        _ => None,
    }
}

fn equal_to(column: &ColumnDef, side: &Expr, other: &Expr) -> Option<Vec<Value>> {
    if is_column(column, side) { literal(column, other) } else { None }
}

fn is_column(column: &ColumnDef, expr: &Expr) -> bool {
    // Keys and indexes know one zero and one NaN.
    let expr = ordered_float(expr).unwrap_or(expr);
    matches!(expr, Expr::Column(named) if named.name == column.name)
}

/// Returns a literal as values of the column: none for NULL, which equals nothing.
fn literal(column: &ColumnDef, expr: &Expr) -> Option<Vec<Value>> {
    let Expr::Literal(scalar, _) = expr else { return None };
    if scalar.is_null() {
        return Some(Vec::new());
    }
    // A literal of another type would compare by other rules than the key's bytes do.
    let same = column_type(&scalar.data_type()).as_ref() == Some(&column.kind)
        && !matches!(scalar, ScalarValue::TimestampNanosecond(..));
    // So would a UUID that is not in the one form that all have as text.
    let is_uuid = matches!((&column.kind, scalar), (ColumnType::Uuid, ScalarValue::Utf8(_)));
    if !same && !is_uuid {
        return None;
    }
    let value = value_of_scalar(scalar, &column.kind).ok()?;
    let is_of_form = !is_uuid || *scalar == ScalarValue::Utf8(Some(text_of(&value)));
    is_of_form.then(|| vec![value])
}
