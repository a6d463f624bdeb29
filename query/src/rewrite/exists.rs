//! EXISTS in a select list: the planner has it in conditions alone, so it becomes a count there.

use std::convert::Infallible;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, GroupByExpr, Query, Select, SelectItem, SetExpr, Value,
};

use super::outermost;
use crate::dialect::call;

/// Puts `(SELECT count(*) > 0 ..)` in the place of every EXISTS of a select list.
pub fn count_instead(projection: &mut Vec<SelectItem>) {
    let ControlFlow::Continue(()) = outermost::each::<_, Infallible>(projection, |expr| {
        if let Expr::Exists { subquery, negated } = expr
            && let Some(select) = plain(subquery)
        {
            let operator = if *negated { BinaryOperator::Eq } else { BinaryOperator::Gt };
            let counted = Expr::BinaryOp {
                left: Box::new(call("count", vec![number("1")])),
                op: operator,
                right: Box::new(number("0")),
            };
            select.projection = vec![SelectItem::UnnamedExpr(counted)];
            *expr = Expr::Subquery(subquery.clone());
        }
        ControlFlow::Continue(())
    });
}

fn number(text: &str) -> Expr {
    Expr::Value(Value::Number(text.to_owned(), false).with_empty_span())
}

/// Returns the select of a query whose rows can be counted by its list alone.
fn plain(query: &mut Query) -> Option<&mut Select> {
    let is_whole = query.limit_clause.is_none() && query.fetch.is_none();
    match query.body.as_mut() {
        SetExpr::Select(select) if is_whole => {
            let is_grouped =
                !matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty());
            let is_plain = !is_grouped && select.having.is_none() && select.qualify.is_none();
            query.order_by = None;
            is_plain.then_some(select)
        }
        _ => None,
    }
}
