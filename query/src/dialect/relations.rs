//! Relations between periods as infix operators: `a CONTAINS b`, `a IMMEDIATELY PRECEDES b`, ..
//!
//! They become calls of the functions in [`crate::functions::periods`]. An operand may be written
//! `(from, to)`, as in SQL:2011.

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident,
    ObjectName,
};
use datafusion::sql::sqlparser::dialect::{Dialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::postgres::TEMPORAL;
use crate::functions::periods::Relation;

/// An operator, and of how many words it is.
struct Operator {
    relation: Option<Relation>,
    words: usize,
}

/// Returns the precedence of the operator that comes next, if it is one of these.
pub(super) fn next_precedence(parser: &Parser<'_>) -> Option<u8> {
    next(parser).map(|_| precedence())
}

/// Reads the operator that comes next and its right side, if it is one of these.
pub(super) fn read(parser: &mut Parser<'_>, left: &Expr) -> Option<Result<Expr, ParserError>> {
    let Operator { relation, words } = next(parser)?;
    let Some(relation) = relation else {
        let message = "STRICTLY OVERLAPS has two meanings: write LEADS or LAGS for periods that \
                       overlap in part, or b STRICTLY CONTAINS a";
        return Some(Err(ParserError::ParserError(message.to_owned())));
    };
    for _ in 0..words {
        parser.advance_token();
    }
    let right = match parser.parse_subexpr(precedence()) {
        Ok(right) => right,
        Err(error) => return Some(Err(error)),
    };
    let args = vec![operand(left.clone()), operand(right)];
    Some(Ok(call(relation.function(), args)))
}

/// True for a word that may be a relation; two words have one of these second.
pub(super) fn may_relate(word: &str) -> bool {
    ["CONTAINS", "EQUALS", "PRECEDES", "SUCCEEDS", "LEADS", "LAGS"]
        .iter()
        .any(|relation| word.eq_ignore_ascii_case(relation))
}

/// As comparisons: tighter than NOT, AND and OR.
fn precedence() -> u8 {
    TEMPORAL.prec_value(Precedence::Like)
}

fn next(parser: &Parser<'_>) -> Option<Operator> {
    let word = |at| match &parser.peek_nth_token_ref(at).token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_ascii_uppercase()),
        _ => None,
    };
    let first = word(0)?;
    let second = || word(1);
    let found = |relation, words| Operator { relation: Some(relation), words };
    let operator = match first.as_str() {
        "CONTAINS" => found(Relation::Contains, 1),
        "OVERLAPS" => found(Relation::Overlaps, 1),
        "EQUALS" => found(Relation::Equals, 1),
        "PRECEDES" => found(Relation::Precedes, 1),
        "SUCCEEDS" => found(Relation::Succeeds, 1),
        "LEADS" => found(Relation::Leads, 1),
        "LAGS" => found(Relation::Lags, 1),
        "STRICTLY" => match second()?.as_str() {
            "CONTAINS" => found(Relation::StrictlyContains, 2),
            "PRECEDES" => found(Relation::StrictlyPrecedes, 2),
            "SUCCEEDS" => found(Relation::StrictlySucceeds, 2),
            // No bound is shared as it is.
            "LEADS" => found(Relation::Leads, 2),
            "LAGS" => found(Relation::Lags, 2),
            "OVERLAPS" => Operator { relation: None, words: 2 },
            _ => return None,
        },
        "IMMEDIATELY" => match second()?.as_str() {
            "PRECEDES" => found(Relation::ImmediatelyPrecedes, 2),
            "SUCCEEDS" => found(Relation::ImmediatelySucceeds, 2),
            "LEADS" => found(Relation::ImmediatelyLeads, 2),
            "LAGS" => found(Relation::ImmediatelyLags, 2),
            _ => return None,
        },
        _ => return None,
    };
    // An alias of that name has no operand behind it.
    begins_operand(&parser.peek_nth_token_ref(operator.words).token).then_some(operator)
}

fn begins_operand(token: &Token) -> bool {
    match token {
        Token::Word(word) => {
            word.quote_style.is_some()
                || !matches!(
                    word.keyword,
                    Keyword::AS
                        | Keyword::FROM
                        | Keyword::WHERE
                        | Keyword::GROUP
                        | Keyword::HAVING
                        | Keyword::ORDER
                        | Keyword::LIMIT
                        | Keyword::OFFSET
                        | Keyword::FETCH
                        | Keyword::UNION
                        | Keyword::EXCEPT
                        | Keyword::INTERSECT
                        | Keyword::AND
                        | Keyword::OR
                        | Keyword::ASC
                        | Keyword::DESC
                        | Keyword::NULLS
                        | Keyword::THEN
                        | Keyword::ELSE
                        | Keyword::END
                        | Keyword::WHEN
                        | Keyword::IS
                )
        }
        Token::LParen
        | Token::Placeholder(_)
        | Token::SingleQuotedString(_)
        | Token::EscapedStringLiteral(_) => true,
        _ => false,
    }
}

/// Returns an operand; a pair of instants is the period between them.
fn operand(expr: Expr) -> Expr {
    match expr {
        Expr::Tuple(bounds) if bounds.len() == 2 => call("period", bounds),
        other => other,
    }
}

/// Builds the call of a function.
pub(crate) fn call(name: &str, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg)));
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: args.collect(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}
