//! Forms of Postgres that DataFusion has none of, written in words that it has.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Query, SetExpr, Statement, TableFactor,
    Value as Literal, VisitMut, VisitorMut, visit_expressions_mut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

/// Rewrites a query's expressions: `generate_subscripts(array, 1)` as the places of the array's
/// items, in rows, IN over a sub-query within a CASE as a search in an array, LIKE with another escape than a backslash as one with it, and sub-queries for
/// what there is none of as NULL: defaults, sequences, collations.
pub fn rewrite(query: &mut Query) {
    let _ = visit_expressions_mut(query, |expr| {
        if let Expr::Case { .. } = expr {
            among_rows(expr);
        }
        if let Some(parsed) = in_other_words(expr).and_then(|sql| parse(&sql)) {
            *expr = parsed;
        }
        ControlFlow::<()>::Continue(())
    });
}

/// Rewrites IN over a sub-query as a search in the array of its rows, which may stand in a CASE.
fn among_rows(expr: &mut Expr) {
    let _ = visit_expressions_mut(expr, |part| {
        if let Expr::InSubquery { expr, subquery, negated } = part {
            let not = if *negated { "NOT " } else { "" };
            let array = format!("SELECT array_agg(item) FROM ({subquery}) AS rows(item)");
            let text = format!(
                "CASE WHEN {expr} IS NOT NULL \
                 THEN {not}coalesce(array_has(({array}), {expr}), false) END"
            );
            if let Some(parsed) = parse(&text) {
                *part = parsed;
            }
        }
        ControlFlow::<()>::Continue(())
    });
}

/// Functions that answer one value, which Postgres takes for a table of one row.
const SCALARS: [&str; 4] = ["string_to_array", "parse_ident", "current_setting", "current_schemas"];

/// Returns a text in which functions that stand in FROM are sub-queries: a column of the alias's name
/// has what they answer. Nothing where there are none, or the text is none of queries.
pub fn without_functions_in_from(sql: &str) -> Option<String> {
    let lower = sql.to_lowercase();
    if !SCALARS.iter().any(|name| lower.contains(name)) {
        return None;
    }
    let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).ok()?;
    let mut rewriting = FromFunctions { found: false };
    let _ = statements.visit(&mut rewriting);
    let texts: Vec<_> = statements.iter().map(ToString::to_string).collect();
    rewriting.found.then(|| texts.join("; "))
}

struct FromFunctions {
    found: bool,
}

impl VisitorMut for FromFunctions {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let query = one_row(factor).or_else(|| series(factor));
        if let Some((query, alias)) = query {
            let text = format!("SELECT * FROM ({query}) AS {alias}");
            let Ok(parsed) = Parser::parse_sql(&PostgreSqlDialect {}, &text) else {
                return ControlFlow::Continue(());
            };
            if let Some(derived) = first_factor(parsed) {
                *factor = derived;
                self.found = true;
            }
        }
        ControlFlow::Continue(())
    }
}

fn first_factor(statements: Vec<Statement>) -> Option<TableFactor> {
    let [Statement::Query(query)] = <[Statement; 1]>::try_from(statements).ok()? else {
        return None;
    };
    let SetExpr::Select(select) = *query.body else { return None };
    select.from.into_iter().next().map(|table| table.relation)
}

/// Returns the name, arguments and alias of a function in FROM.
fn function(factor: &TableFactor) -> Option<(String, &[FunctionArg], String)> {
    let (name, args, alias) = match factor {
        TableFactor::Table { name, args: Some(args), alias: Some(alias), .. } => {
            (name, args.args.as_slice(), alias)
        }
        TableFactor::Function { name, args, alias: Some(alias), .. } => {
            (name, args.as_slice(), alias)
        }
        _ => return None,
    };
    let name = name.0.last()?.as_ident()?.value.to_lowercase();
    alias.columns.is_empty().then(|| (name, args, alias.name.to_string()))
}

fn one_row(factor: &TableFactor) -> Option<(String, String)> {
    let (name, args, alias) = function(factor)?;
    let args: Vec<_> = args.iter().map(ToString::to_string).collect();
    let is_scalar = SCALARS.contains(&name.as_str());
    is_scalar.then(|| (format!("SELECT {name}({}) AS {alias}", args.join(", ")), alias))
}

/// The column of a series has the name of its alias.
fn series(factor: &TableFactor) -> Option<(String, String)> {
    let (name, args, alias) = function(factor)?;
    let [first, last] = args else { return None };
    let query = format!(
        "SELECT unnest(range(CAST({first} AS BIGINT), CAST({last} AS BIGINT) + 1)) AS {alias}"
    );
    (name == "generate_series").then_some((query, alias))
}

fn in_other_words(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Function(function)
            if matches!(function.args, FunctionArguments::None)
                && function.name.to_string().eq_ignore_ascii_case("user") =>
        {
            Some("session_user()".to_owned())
        }
        // Nothing has a comment: what it would be of need not be found.
        Expr::Function(function)
            if function.name.to_string().to_lowercase().ends_with("_description") =>
        {
            Some("CAST(NULL AS TEXT)".to_owned())
        }
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
