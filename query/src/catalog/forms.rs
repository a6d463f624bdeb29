//! Forms of Postgres that DataFusion has none of, written in words that it has.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Query, Value as Literal,
    visit_expressions_mut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

/// Rewrites a query's expressions: `generate_subscripts(array, 1)` as the places of the array's
/// items, in rows, LIKE with another escape than a backslash as one with it, and sub-queries for
/// what there is none of as NULL: defaults, sequences, collations.
pub fn rewrite(query: &mut Query) {
    let _ = visit_expressions_mut(query, |expr| {
        if let Some(parsed) = in_other_words(expr).and_then(|sql| parse(&sql)) {
            *expr = parsed;
        }
        ControlFlow::<()>::Continue(())
    });
}

fn in_other_words(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Function(function)
            if function.name.to_string().to_lowercase().ends_with("generate_subscripts") =>
        {
            let FunctionArguments::List(list) = &function.args else { return None };
            let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(array))) = list.args.first() else {
                return None;
            };
            Some(format!(
                "unnest(range(1, CAST(coalesce(array_length({array}), 0) AS BIGINT) + 1))"
            ))
        }
        Expr::Like { negated, expr, pattern, escape_char: Some(escape), any: false } => {
            let Literal::SingleQuotedString(text) = &escape.value else { return None };
            let escape = match text.as_str() {
                "\\" | "" => return None,
                escape => escape.replace('\'', "''"),
            };
            let not = if *negated { "NOT " } else { "" };
            Some(format!("{expr} {not}LIKE replace({pattern}, '{escape}', '\\')"))
        }
        Expr::Subquery(query) => {
            let text = query.to_string().to_lowercase();
            let nothing = ["pg_attrdef", "pg_sequence", "pg_collation"];
            let none =
                nothing.iter().any(|table| text.contains(&format!("from pg_catalog.{table}")));
            if text.starts_with("select pg_catalog.pg_type.typcollation ") {
                return Some("CAST(NULL AS INT)".to_owned());
            }
            none.then(|| "CAST(NULL AS TEXT)".to_owned())
        }
        _ => None,
    }
}

fn parse(sql: &str) -> Option<Expr> {
    let parser = Parser::new(&PostgreSqlDialect {}).try_with_sql(sql);
    parser.and_then(|mut parser| parser.parse_expr()).ok()
}
