//! SQL text to statements: limits, temporal clauses, definitions, and what sqlparser does.
//!
//! Temporal clauses are taken out of the token stream before the parser sees it and kept beside
//! the syntax tree ([`Clauses`]), each anchored at the end of the token before it. The pass in
//! [`crate::rewrite`] hands every clause to the table it stands at; a clause that no table claims
//! is an error, so none is ever dropped in silence. This module knows no tables.

mod alter;
mod assert;
mod clauses;
mod cursor;
mod definitions;
mod dml;
mod indexes;
mod positions;
mod postgres;
mod projections;
mod relations;
mod retention;
mod settings;
mod streams;
mod tokens;
mod transactions;
mod types;
mod views;

#[cfg(test)]
mod tests;

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token};

use self::cursor::Cursor;
pub(crate) use self::postgres::TemporalDialect;
use self::tokens::StatementText;
use crate::error::{Error, Result, SqlState};
use crate::statements::{
    CreateTable, CreateView, DefinitionStatement, DropTable, DropView, SetRetention,
};

pub use self::clauses::{Axis, BoundExpr, Clause, ClauseKind, Clauses, Settings};
pub(crate) use self::clauses::{equalities, first_column, unclaimed};
pub use self::dml::table_factor;
pub(crate) use self::dml::{empty_select, normal, query_of};
pub use self::positions::Positions;
pub(crate) use self::relations::call;
pub use self::transactions::TransactionOptions;

/// What a statement's text may cost before it is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseLimits {
    pub bytes_max: usize,
    pub tokens_max: usize,
    /// Depth of parentheses and of nested expressions.
    pub nesting_max: usize,
    /// Operators in a row at one level, as in `a OR b OR ..`.
    pub chain_max: usize,
}

impl Default for ParseLimits {
    fn default() -> Self {
        Self { bytes_max: 1 << 20, tokens_max: 200_000, nesting_max: 64, chain_max: 1_000 }
    }
}

/// One statement of a request's text.
#[derive(Debug, Clone)]
pub enum ParsedStatement {
    Query(ParsedQuery),
    Explain {
        analyze: bool,
        verbose: bool,
        query: ParsedQuery,
    },
    Insert(Insert),
    Update(Update),
    Delete(Delete),
    /// `ERASE FROM t [USING ..] [WHERE ..]`: a DELETE without portion or RETURNING.
    Erase(Delete),
    /// `ASSERT condition [, message]`: nothing of the transaction is done unless it is true.
    Assert(Assert),
    CreateTable(CreateTable),
    DropTable(DropTable),
    CreateView(CreateView),
    DropView(DropView),
    SetRetention(SetRetention),
    Define(DefinitionStatement),
    Show(Show),
    Begin {
        read_only: Option<bool>,
        options: TransactionOptions,
    },
    Commit,
    Rollback,
}

/// A query and its temporal clauses; input of [`crate::rewrite::rewrite`].
#[derive(Debug, Clone)]
pub struct ParsedQuery {
    pub query: Box<ast::Query>,
    pub clauses: Clauses,
}

/// `INSERT INTO t [(columns)] VALUES .. | SELECT .. | RECORDS {..}, ..` and the same with PATCH.
#[derive(Debug, Clone)]
pub struct Insert {
    pub verb: InsertVerb,
    pub table: TableName,
    /// Empty where not given: all columns in the order of `*`.
    pub columns: Vec<ColumnName>,
    pub source: ParsedQuery,
    /// PATCH only.
    pub portion: Portion,
    pub returning: Option<Vec<ast::SelectItem>>,
}

/// What an insert's rows assert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InsertVerb {
    Put,
    Patch { set_nulls: bool },
}

/// `ASSERT condition [, message]`.
#[derive(Debug, Clone)]
pub struct Assert {
    /// A select of the condition, and of the message where there is one.
    pub query: ParsedQuery,
    /// The condition as it was written.
    pub text: String,
}

/// `UPDATE t [FOR PORTION OF VALID_TIME ..] SET .. [FROM ..] [WHERE ..] [RETURNING ..]`.
#[derive(Debug, Clone)]
pub struct Update {
    pub table: TableName,
    pub alias: Option<ast::Ident>,
    pub portion: Portion,
    pub assignments: Vec<(ColumnName, ast::Expr)>,
    pub from: Vec<ast::TableWithJoins>,
    pub selection: Option<ast::Expr>,
    pub returning: Option<Vec<ast::SelectItem>>,
    pub clauses: Clauses,
}

/// `DELETE FROM t [FOR PORTION OF VALID_TIME ..] [USING ..] [WHERE ..] [RETURNING ..]`.
#[derive(Debug, Clone)]
pub struct Delete {
    pub table: TableName,
    pub alias: Option<ast::Ident>,
    pub portion: Portion,
    pub using: Vec<ast::TableWithJoins>,
    pub selection: Option<ast::Expr>,
    pub returning: Option<Vec<ast::SelectItem>>,
    pub clauses: Clauses,
}

/// The window of valid time that a write touches.
#[derive(Debug, Clone, Default)]
#[expect(clippy::large_enum_variant, reason = "one per statement, matched by value")]
pub enum Portion {
    /// From now on.
    #[default]
    Default,
    /// All of valid time.
    All,
    /// `FROM a [TO b]`: constant expressions; one that is NULL, or no `to`, is an open end.
    Between { from: BoundExpr, to: Option<BoundExpr> },
}

/// A table named by a write, in its normal form.
#[derive(Debug, Clone, PartialEq)]
pub struct TableName {
    pub name: String,
    /// 1-based character in the statement's text.
    pub position: usize,
    /// The name as it stands in the tree, with its span.
    pub ident: ast::Ident,
}

/// A column named by a write, in its normal form.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnName {
    pub name: String,
    pub position: usize,
}

/// What SHOW asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    SnapshotToken,
    ClockTime,
    Tables,
    Streams,
    Mappings,
    Projections,
    Views,
    Indexes,
}

impl Show {
    /// Returns the name of the answer's one column.
    pub const fn column(self) -> &'static str {
        match self {
            Self::SnapshotToken => "snapshot_token",
            Self::ClockTime => "clock_time",
            Self::Tables => "table",
            Self::Streams => "stream",
            Self::Mappings => "mapping",
            Self::Projections => "projection",
            Self::Views => "view",
            Self::Indexes => "index",
        }
    }
}

/// Cuts a text into its statements: the 1-based character at which each begins, and its text.
///
/// # Errors
/// As [`parse`], but for what only the parser sees.
pub fn split(sql: &str, limits: &ParseLimits) -> Result<Vec<(usize, String)>> {
    let positions = Positions::new(sql);
    let statements = tokens::tokenize(sql, &positions, limits)?;
    let part =
        |text: StatementText<'_>| (text.position(0).unwrap_or(1), text.text_from(0).to_owned());
    Ok(statements.into_iter().map(part).collect())
}

/// Refuses a text that Postgres' own dialect would read for too long, as tools' queries of the
/// catalogs are read; other faults are left to that reading.
///
/// # Errors
/// 54001, and those of [`split`].
pub fn check_cost(sql: &str, limits: &ParseLimits) -> Result<()> {
    let positions = Positions::new(sql);
    for text in tokens::tokenize(sql, &positions, limits)? {
        let dialect = TemporalDialect::as_postgres(text.tokens.len());
        let mut parser = Parser::new(&dialect).with_tokens_with_locations(text.tokens.clone());
        if let Err(error @ ParserError::RecursionLimitExceeded) = parser.parse_query() {
            return Err(parser_error(&error, &positions));
        }
    }
    Ok(())
}

/// Parses a request's text: statements parted by `;`. Positions count from the text's start.
///
/// # Errors
/// Syntax (42601), forms not supported (0A000), limits (54000, 54001).
pub fn parse(sql: &str, limits: &ParseLimits) -> Result<Vec<ParsedStatement>> {
    let positions = Positions::new(sql);
    let statements = tokens::tokenize(sql, &positions, limits)?;
    statements.into_iter().map(|text| statement(text, limits)).collect()
}

/// Parses a text that is one query, such as that of a projection.
///
/// # Errors
/// As [`parse`]; 42601 also where the text is another statement, or several.
pub fn parse_query(sql: &str, limits: &ParseLimits) -> Result<ParsedQuery> {
    let mut statements = parse(sql, limits)?;
    match (statements.pop(), statements.pop()) {
        (Some(ParsedStatement::Query(query)), None) => Ok(query),
        _ => Err(Error::syntax("expected one query")),
    }
}

fn statement(text: StatementText<'_>, limits: &ParseLimits) -> Result<ParsedStatement> {
    let mut cursor = Cursor::new(&text);
    if cursor.sees(&["create"]) {
        return definitions::create(&mut cursor, limits);
    }
    if cursor.sees(&["drop"]) {
        return definitions::drop(&mut cursor);
    }
    if let Some(set) = retention::alter_table_set(&mut cursor)? {
        return Ok(ParsedStatement::SetRetention(set));
    }
    if cursor.sees(&["alter", "projection"]) {
        let alter = projections::alter_projection(&mut cursor)?;
        return Ok(ParsedStatement::Define(DefinitionStatement::AlterProjection(alter)));
    }
    if cursor.sees(&["alter", "stream"]) {
        let alter = streams::alter_stream(&mut cursor)?;
        return Ok(ParsedStatement::Define(DefinitionStatement::AlterStream(alter)));
    }
    if cursor.sees(&["alter"]) {
        let alter = alter::alter_table(&mut cursor)?;
        return Ok(ParsedStatement::Define(DefinitionStatement::AlterTable(alter)));
    }
    if cursor.accept(&["explain"]) {
        if cursor.sees(&["projection"]) || cursor.sees(&["create"]) {
            let explain = definitions::explain_projection(&mut cursor, limits)?;
            return Ok(ParsedStatement::Define(DefinitionStatement::ExplainProjection(explain)));
        }
        return explain(&mut cursor, limits);
    }
    if cursor.accept(&["show"]) {
        return show(&mut cursor);
    }
    if let Some(transaction) = transactions::read(&mut cursor)? {
        return Ok(transaction);
    }
    match cursor.peek() {
        Some(Token::LParen) => query(text, limits).map(ParsedStatement::Query),
        Some(Token::Word(word)) => match word.value.to_ascii_lowercase().as_str() {
            "select" | "with" | "values" | "table" | "setting" => {
                query(text, limits).map(ParsedStatement::Query)
            }
            "insert" | "patch" => dml::insert(text, limits).map(ParsedStatement::Insert),
            "update" => dml::update(text, limits).map(ParsedStatement::Update),
            "delete" => dml::delete(text, limits).map(ParsedStatement::Delete),
            "erase" => dml::erase(text, limits).map(ParsedStatement::Erase),
            "assert" => assert::assert(text, limits).map(ParsedStatement::Assert),
            other => Err(unknown_statement(other).at(cursor.position())),
        },
        _ => Err(cursor.expected("a statement")),
    }
}

fn unknown_statement(word: &str) -> Error {
    let known = [
        "set",
        "merge",
        "copy",
        "truncate",
        "grant",
        "revoke",
        "analyze",
        "prepare",
        "execute",
        "deallocate",
        "call",
        "describe",
        "use",
        "vacuum",
        "declare",
        "fetch",
        "close",
        "lock",
        "comment",
        "refresh",
        "savepoint",
        "release",
        "reset",
        "subscribe",
    ];
    if known.contains(&word) {
        return Error::unsupported(format!("{} is not supported", word.to_uppercase()));
    }
    Error::syntax(format!("expected a statement, found \"{word}\""))
}

fn explain(cursor: &mut Cursor<'_, '_>, limits: &ParseLimits) -> Result<ParsedStatement> {
    let (mut analyze, mut verbose) = (false, false);
    loop {
        if cursor.accept(&["analyze"]) {
            analyze = true;
        } else if cursor.accept(&["verbose"]) {
            verbose = true;
        } else {
            break;
        }
    }
    if !["select", "with", "values", "table", "setting"].iter().any(|word| cursor.sees(&[word])) {
        return Err(Error::unsupported("EXPLAIN explains queries and projections alone")
            .at(cursor.position()));
    }
    let query = parse_query_text(cursor.text, cursor.at, limits)?;
    Ok(ParsedStatement::Explain { analyze, verbose, query })
}

fn show(cursor: &mut Cursor<'_, '_>) -> Result<ParsedStatement> {
    let (name, position) = cursor.name("what to show")?;
    let show = match name.as_str() {
        "snapshot_token" => Show::SnapshotToken,
        "clock_time" => Show::ClockTime,
        "tables" => Show::Tables,
        "streams" => Show::Streams,
        "mappings" => Show::Mappings,
        "projections" => Show::Projections,
        "views" => Show::Views,
        "indexes" => Show::Indexes,
        _ => {
            let message = format!("\"{name}\" cannot be shown");
            return Err(Error::new(SqlState::UndefinedObject, message).at(position).with_hint(
                "SHOW knows snapshot_token, clock_time, tables, views, indexes, streams, mappings and projections",
            ));
        }
    };
    cursor.finish()?;
    Ok(ParsedStatement::Show(show))
}

/// Parses the query that starts at a token of a statement and runs to its end.
fn parse_query_text(
    text: &StatementText<'_>,
    from: usize,
    limits: &ParseLimits,
) -> Result<ParsedQuery> {
    let tokens = text.tokens.get(from..).unwrap_or_default().to_vec();
    query(StatementText { tokens, ..*text }, limits)
}

fn query(mut text: StatementText<'_>, limits: &ParseLimits) -> Result<ParsedQuery> {
    let settings = settings::take(&mut text)?;
    let clauses = Clauses { settings, ..clauses::extract(&mut text)? };
    let query = with_parser(&text, limits, |parser| parser.parse_query())?;
    Ok(ParsedQuery { query, clauses })
}

/// Runs the parser over a statement's tokens, all of which it must read.
fn with_parser<T>(
    text: &StatementText<'_>,
    limits: &ParseLimits,
    read: impl FnOnce(&mut Parser<'_>) -> Result<T, ParserError>,
) -> Result<T> {
    let dialect = TemporalDialect::of_tokens(text.tokens.len());
    let end = text.position(text.tokens.len());
    let mut parser = Parser::new(&dialect)
        .with_recursion_limit(limits.nesting_max.saturating_mul(2))
        .with_tokens_with_locations(text.tokens.clone());
    let value = read(&mut parser).map_err(|error| parser_error(&error, text.positions).at(end))?;
    let rest = parser.peek_token();
    if rest.token != Token::EOF {
        return Err(Error::syntax(format!("expected the end of the statement, found \"{rest}\""))
            .at(text.positions.start(rest.span)));
    }
    Ok(value)
}

/// Returns the parser's error as ours, with the place that its text ends in.
fn parser_error(error: &ParserError, positions: &Positions) -> Error {
    let text = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
        ParserError::RecursionLimitExceeded => {
            let message = "statement is nested too deeply";
            return Error::new(SqlState::StatementTooComplex, message);
        }
    };
    let (message, location) = split_location(text);
    let message = message.replace("Expected: ", "expected ").replace(", found: ", ", found ");
    let message = message.replace("found EOF", "found the end");
    let at = location.and_then(|location| positions.character(location));
    Error::syntax(tokens::lower_first(&message)).at(at)
}

/// Splits ` at Line: 1, Column: 2` off a message of the parser, which has no field for it.
fn split_location(text: &str) -> (&str, Option<Location>) {
    let Some((message, place)) = text.rsplit_once(" at Line: ") else { return (text, None) };
    let numbers = place.split_once(", Column: ");
    let location = numbers.and_then(|(line, column)| {
        Some(Location { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? })
    });
    (message, location)
}
