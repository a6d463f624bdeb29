//! Finds, in a condition, the pairs of conjuncts that ask for one instant within a period.
//!
//! `__valid_from <= x AND x < __valid_to` over the two raw bounds of one table reference: of
//! such a pair only the instants count at which something changed, not where versions are cut.

use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, Operator};

/// The name of [`everwhen_query::table::TableColumn::RawFrom`].
const RAW_FROM: &str = "__valid_from";
/// The name of [`everwhen_query::table::TableColumn::RawTo`].
const RAW_TO: &str = "__valid_to";

/// A condition taken apart.
#[derive(Debug, Default)]
pub struct Containment {
    /// Places of the bounds: from, to.
    pub periods: Vec<(usize, usize)>,
    /// The instants asked for.
    pub instants: Vec<Expr>,
    /// All other conjuncts.
    pub rest: Vec<Expr>,
}

/// Takes a condition apart.
pub fn containments(predicate: &Expr, schema: &DFSchema) -> Containment {
    let mut found = Containment::default();
    let mut open: Vec<Option<&Expr>> = split_conjunction(predicate).into_iter().map(Some).collect();
    for at in 0..open.len() {
        let Some((start, instant)) = open[at].and_then(lower_bound) else {
            continue;
        };
        if instant.column_refs().iter().any(|column| is_bound_of(column, start)) {
            continue;
        }
        let end = (0..open.len()).find(|other| {
            open[*other]
                .and_then(upper_bound)
                .is_some_and(|(end, same)| end.relation == start.relation && same == instant)
        });
        let Some(other) = end else { continue };
        let Some((end, _)) = open[other].and_then(upper_bound) else { continue };
        let (from, to) = (schema.maybe_index_of_column(start), schema.maybe_index_of_column(end));
        if let (Some(from), Some(to)) = (from, to) {
            found.periods.push((from, to));
            found.instants.push(instant.clone());
            open[at] = None;
            open[other] = None;
        }
    }
    found.rest = open.into_iter().flatten().cloned().collect();
    found
}

/// `from <= x` or `x >= from`.
fn lower_bound(expr: &Expr) -> Option<(&Column, &Expr)> {
    let Expr::BinaryExpr(binary) = expr else { return None };
    match (binary.left.as_ref(), binary.op, binary.right.as_ref()) {
        (Expr::Column(column), Operator::LtEq, instant)
        | (instant, Operator::GtEq, Expr::Column(column))
            if column.name == RAW_FROM =>
        {
            Some((column, instant))
        }
        _ => None,
    }
}

/// `x < to` or `to > x`.
fn upper_bound(expr: &Expr) -> Option<(&Column, &Expr)> {
    let Expr::BinaryExpr(binary) = expr else { return None };
    match (binary.left.as_ref(), binary.op, binary.right.as_ref()) {
        (Expr::Column(column), Operator::Gt, instant)
        | (instant, Operator::Lt, Expr::Column(column))
            if column.name == RAW_TO =>
        {
            Some((column, instant))
        }
        _ => None,
    }
}

fn is_bound_of(column: &Column, start: &Column) -> bool {
    column.relation == start.relation && (column.name == RAW_FROM || column.name == RAW_TO)
}
