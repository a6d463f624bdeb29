//! `x IN (SELECT ..)` in a select list: the planner has it in conditions alone, so it becomes counts there.

use std::convert::Infallible;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, Expr, Ident, Query, Select, SelectItem, SetExpr, TableAlias,
    TableAliasColumnDef, TableFactor, TableWithJoins, Value, Visit, Visitor,
};

use super::outermost;
use super::twice::holds_query;
use crate::dialect::{call, empty_select, query_of};

/// The name of the column that a value is looked for in.
const VALUE: &str = "__value";

/// Puts in the place of every IN over a sub-query of a select list what it means (ISO/IEC 9075-2, 8.4 and 8.9): true
/// where a row is equal, else unknown where one might be, else false. The sub-queries have their tables
/// already, so they may stand there more than once.
///
/// Returns how many tables and SELECTs came to stand there more than before.
pub fn count_instead(projection: &mut Vec<SelectItem>) -> u64 {
    let mut copied = 0_u64;
    let ControlFlow::Continue(()) = outermost::each::<_, Infallible>(projection, |expr| {
        if let Expr::InSubquery { expr: value, subquery, negated } = expr
            // What stands in the place of one has sub-queries too, so that copies of copies never come about.
            && !holds_query(value)
        {
            let mut size = Size(0);
            let ControlFlow::Continue(()) = Visit::visit(&**subquery, &mut size);
            copied = copied.saturating_add(2 * size.0);
            *expr = counted(value, subquery, *negated);
        }
        ControlFlow::Continue(())
    });
    copied
}

/// Tables and SELECTs.
struct Size(u64);

impl Visitor for Size {
    type Break = Infallible;

    fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<Infallible> {
        self.0 += 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, _table: &TableFactor) -> ControlFlow<Infallible> {
        self.0 += 1;
        ControlFlow::Continue(())
    }
}

fn counted(value: &Expr, rows: &Query, negated: bool) -> Expr {
    let column = || Expr::Identifier(Ident::with_quote('"', VALUE));
    let value = || Box::new(Expr::Nested(Box::new(value.clone())));
    let equal = Expr::BinaryOp { left: Box::new(column()), op: BinaryOperator::Eq, right: value() };
    let unknown = Expr::IsNull(Box::new(column()));
    let when = |condition: Expr, result: Value| CaseWhen {
        condition,
        result: Expr::Value(result.with_empty_span()),
    };
    let no_value = Expr::BinaryOp {
        left: Box::new(Expr::IsNull(value())),
        op: BinaryOperator::And,
        right: Box::new(any_of(rows, None)),
    };
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![
            when(any_of(rows, Some(equal)), Value::Boolean(!negated)),
            when(no_value, Value::Null),
            when(any_of(rows, Some(unknown)), Value::Null),
        ],
        else_result: Some(Box::new(Expr::Value(Value::Boolean(negated).with_empty_span()))),
    }
}

/// Returns `(SELECT count(1) > 0 FROM (rows) AS "set" ("__value") WHERE ..)`.
fn any_of(rows: &Query, selection: Option<Expr>) -> Expr {
    let number = |text: &str| Expr::Value(Value::Number(text.to_owned(), false).with_empty_span());
    let column = TableAliasColumnDef { name: Ident::with_quote('"', VALUE), data_type: None };
    let name = Ident::with_quote('"', "set#in");
    let alias = TableAlias { explicit: true, name, columns: vec![column], at: None };
    let subquery = Box::new(rows.clone());
    let relation =
        TableFactor::Derived { lateral: false, subquery, alias: Some(alias), sample: None };
    let is_any = Expr::BinaryOp {
        left: Box::new(call("count", vec![number("1")])),
        op: BinaryOperator::Gt,
        right: Box::new(number("0")),
    };
    let select = Select {
        projection: vec![SelectItem::UnnamedExpr(is_any)],
        from: vec![TableWithJoins { relation, joins: Vec::new() }],
        selection,
        ..empty_select()
    };
    Expr::Subquery(Box::new(query_of(SetExpr::Select(Box::new(select)))))
}
