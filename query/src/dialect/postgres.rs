//! The SQL dialect: Postgres with a few forms more, posing as Postgres to the parser.

use std::any::TypeId;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

use super::relations;

const POSTGRES: PostgreSqlDialect = PostgreSqlDialect {};

/// Expressions that the parser may begin to read, for each token of a text: it reads one or two, and
/// more only where it goes back to try something else.
const STEPS_PER_TOKEN: u64 = 16;
/// And for any text.
const STEPS_LEAST: u64 = 10_000;

/// Postgres, and relations between periods, `* EXCLUDE (..)`, `{'a': 1}` structs and trailing commas in select lists.
///
/// Table versions (`AT(..)`, `FOR SYSTEM_TIME ..`) stay off: our clauses never reach the parser,
/// and one that did would be ignored by the planner.
///
/// A dialect is good for one text: it counts what the parser does, and ends it where that is too
/// much. Going back, the parser can read an expression twice for every call or parenthesis that it
/// stands within, which a statement of a hundred characters makes a matter of hours.
#[derive(Debug)]
pub struct TemporalDialect {
    steps_left: AtomicU64,
    /// Takes `f(expression => value)`, whose first part is read twice; nobody writes that.
    takes_expression_names: bool,
}

/// The dialect for whoever reads no expressions.
pub static TEMPORAL: TemporalDialect =
    TemporalDialect { steps_left: AtomicU64::new(u64::MAX), takes_expression_names: false };

impl TemporalDialect {
    /// Builds the dialect for a text of so many tokens.
    pub fn of_tokens(count: usize) -> Self {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let steps = count.saturating_mul(STEPS_PER_TOKEN).saturating_add(STEPS_LEAST);
        Self { steps_left: AtomicU64::new(steps), takes_expression_names: false }
    }

    /// The same, where the parser is to go as far as it does with Postgres' own dialect.
    pub fn as_postgres(count: usize) -> Self {
        Self { takes_expression_names: true, ..Self::of_tokens(count) }
    }

    /// Notes that an expression is begun; false where it was the last.
    fn step(&self) -> bool {
        let left = self.steps_left.load(Ordering::Relaxed);
        self.steps_left.store(left.saturating_sub(1), Ordering::Relaxed);
        left > 0
    }
}

impl Dialect for TemporalDialect {
    fn dialect(&self) -> TypeId {
        TypeId::of::<PostgreSqlDialect>()
    }

    fn supports_select_wildcard_exclude(&self) -> bool {
        true
    }

    fn supports_dictionary_syntax(&self) -> bool {
        true
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        POSTGRES.identifier_quote_style(identifier)
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        POSTGRES.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        POSTGRES.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        POSTGRES.is_identifier_part(ch)
    }

    fn supports_unicode_string_literal(&self) -> bool {
        POSTGRES.supports_unicode_string_literal()
    }

    fn is_reserved_for_identifier(&self, keyword: Keyword) -> bool {
        POSTGRES.is_reserved_for_identifier(keyword)
    }

    fn is_custom_operator_part(&self, ch: char) -> bool {
        POSTGRES.is_custom_operator_part(ch)
    }

    fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Result<u8, ParserError>> {
        match relations::next_precedence(parser) {
            Some(precedence) => Some(Ok(precedence)),
            None => POSTGRES.get_next_precedence(parser),
        }
    }

    fn parse_infix(
        &self,
        parser: &mut Parser<'_>,
        left: &Expr,
        _precedence: u8,
    ) -> Option<Result<Expr, ParserError>> {
        relations::read(parser, left)
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        POSTGRES.prec_value(precedence)
    }

    fn parse_prefix(&self, parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        if !self.step() {
            // The one error that the parser does not take for a reason to try something else.
            return Some(Err(ParserError::RecursionLimitExceeded));
        }
        POSTGRES.parse_prefix(parser)
    }

    fn supports_filter_during_aggregation(&self) -> bool {
        POSTGRES.supports_filter_during_aggregation()
    }

    fn supports_group_by_expr(&self) -> bool {
        POSTGRES.supports_group_by_expr()
    }

    fn allow_extract_custom(&self) -> bool {
        POSTGRES.allow_extract_custom()
    }

    fn allow_extract_single_quotes(&self) -> bool {
        POSTGRES.allow_extract_single_quotes()
    }

    fn supports_explain_with_utility_options(&self) -> bool {
        POSTGRES.supports_explain_with_utility_options()
    }

    fn supports_factorial_operator(&self) -> bool {
        POSTGRES.supports_factorial_operator()
    }

    fn supports_bitwise_shift_operators(&self) -> bool {
        POSTGRES.supports_bitwise_shift_operators()
    }

    fn supports_named_fn_args_with_colon_operator(&self) -> bool {
        POSTGRES.supports_named_fn_args_with_colon_operator()
    }

    fn supports_named_fn_args_with_expr_name(&self) -> bool {
        self.takes_expression_names
    }

    fn supports_empty_projections(&self) -> bool {
        POSTGRES.supports_empty_projections()
    }

    fn supports_nested_comments(&self) -> bool {
        POSTGRES.supports_nested_comments()
    }

    fn supports_string_escape_constant(&self) -> bool {
        POSTGRES.supports_string_escape_constant()
    }

    fn supports_numeric_literal_underscores(&self) -> bool {
        POSTGRES.supports_numeric_literal_underscores()
    }

    fn supports_array_typedef_with_brackets(&self) -> bool {
        POSTGRES.supports_array_typedef_with_brackets()
    }

    fn supports_notnull_operator(&self) -> bool {
        POSTGRES.supports_notnull_operator()
    }

    fn supports_interval_options(&self) -> bool {
        POSTGRES.supports_interval_options()
    }

    fn supports_insert_table_alias(&self) -> bool {
        POSTGRES.supports_insert_table_alias()
    }

    fn supports_comma_separated_trim(&self) -> bool {
        POSTGRES.supports_comma_separated_trim()
    }
}
