//! The token stream: limits before any parsing, and the cut into statements.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use super::ParseLimits;
use super::positions::Positions;
use super::postgres::TEMPORAL;
use super::relations::may_relate;
use crate::error::{Error, Result, SqlState};

/// Tokens of one statement, without white space and comments, and the text they came from.
#[derive(Debug, Clone)]
pub struct StatementText<'a> {
    pub sql: &'a str,
    pub positions: &'a Positions,
    pub tokens: Vec<TokenWithSpan>,
    /// Where the text ends: after the last token.
    pub end: Location,
}

impl StatementText<'_> {
    /// Returns the 1-based character of a token's start; past the last token, of the end.
    pub fn position(&self, index: usize) -> Option<usize> {
        let at = self.tokens.get(index).map_or(self.end, |token| token.span.start);
        self.positions.character(at)
    }

    /// Returns the text from a token to the statement's end.
    pub fn text_from(&self, index: usize) -> &str {
        self.text_between(index, self.tokens.len())
    }

    /// Returns the text of the tokens `from..to`.
    pub fn text_between(&self, from: usize, to: usize) -> &str {
        let start = self.tokens.get(from).map_or(self.end, |token| token.span.start);
        let last = to.checked_sub(1).and_then(|index| self.tokens.get(index));
        let end = last.map_or(self.end, |token| token.span.end);
        let start = self.positions.byte(self.sql, start).unwrap_or(self.sql.len());
        let end = self.positions.byte(self.sql, end).unwrap_or(self.sql.len());
        self.sql.get(start..end).unwrap_or_default()
    }
}

/// Cuts a text into its statements' tokens, within the limits. Empty statements are left out.
///
/// # Errors
/// 54000 for too many bytes or tokens, 54001 for nesting and chains, 42601 for what is no token.
pub fn tokenize<'a>(
    sql: &'a str,
    positions: &'a Positions,
    limits: &ParseLimits,
) -> Result<Vec<StatementText<'a>>> {
    if sql.len() > limits.bytes_max {
        let message = format!("statement text of {} bytes is over the limit", sql.len());
        return Err(Error::new(SqlState::LimitExceeded, message)
            .with_hint(format!("at most {} bytes are allowed", limits.bytes_max)));
    }
    let tokens = Tokenizer::new(&TEMPORAL, sql).tokenize_with_location().map_err(|error| {
        Error::syntax(lower_first(&error.message)).at(positions.character(error.location))
    })?;
    let tokens: Vec<_> = tokens
        .into_iter()
        .filter(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF))
        .collect();
    if tokens.len() > limits.tokens_max {
        let message = format!("statement text of {} tokens is over the limit", tokens.len());
        return Err(Error::new(SqlState::LimitExceeded, message)
            .with_hint(format!("at most {} tokens are allowed", limits.tokens_max)));
    }
    check_shape(&tokens, positions, limits)?;
    Ok(cut(sql, positions, tokens))
}

fn cut<'a>(
    sql: &'a str,
    positions: &'a Positions,
    tokens: Vec<TokenWithSpan>,
) -> Vec<StatementText<'a>> {
    let mut statements = Vec::new();
    let mut current: Vec<TokenWithSpan> = Vec::new();
    let mut finish = |current: &mut Vec<TokenWithSpan>| {
        if let Some(end) = current.last().map(|token| token.span.end) {
            let tokens = std::mem::take(current);
            statements.push(StatementText { sql, positions, tokens, end });
        }
    };
    for token in tokens {
        if token.token == Token::SemiColon {
            finish(&mut current);
        } else {
            current.push(token);
        }
    }
    finish(&mut current);
    statements
}

/// Open and chained things of one level of parentheses.
#[derive(Default)]
struct Level {
    /// Operators since the last comma or clause.
    operators: usize,
    /// UNION, EXCEPT, INTERSECT and JOIN: they chain past commas.
    links: usize,
}

/// Refuses what would make a tree too deep to walk: the parser's own guard sees nesting alone,
/// and a chain `a OR b OR c ..` becomes a tree as deep as it is long.
fn check_shape(
    tokens: &[TokenWithSpan],
    positions: &Positions,
    limits: &ParseLimits,
) -> Result<()> {
    let mut levels = vec![Level::default()];
    for token in tokens {
        let too_complex = |what: &str, most: usize| {
            Err(Error::new(SqlState::StatementTooComplex, format!("statement {what}"))
                .at(positions.character(token.span.start))
                .with_hint(format!("at most {most} are allowed")))
        };
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                if let (Token::LBracket, Some(level)) = (&token.token, levels.last_mut()) {
                    level.operators += 1;
                }
                levels.push(Level::default());
            }
            Token::RParen | Token::RBracket | Token::RBrace if levels.len() > 1 => {
                levels.pop();
            }
            Token::SemiColon => levels = vec![Level::default()],
            other => {
                if let Some(level) = levels.last_mut() {
                    count(other, level);
                }
            }
        }
        if levels.len() > limits.nesting_max {
            return too_complex("has too many levels of parentheses", limits.nesting_max);
        }
        let longest = levels.last().map_or(0, |level| level.operators.max(level.links));
        if longest > limits.chain_max {
            return too_complex("chains too many operators", limits.chain_max);
        }
    }
    Ok(())
}

fn count(token: &Token, level: &mut Level) {
    match token {
        Token::Comma => level.operators = 0,
        Token::Word(word) => match word.keyword {
            Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::JOIN => {
                level.links += 1;
            }
            Keyword::AND
            | Keyword::OR
            | Keyword::NOT
            | Keyword::IS
            | Keyword::IN
            | Keyword::LIKE
            | Keyword::ILIKE
            | Keyword::BETWEEN
            | Keyword::AT
            | Keyword::COLLATE
            | Keyword::CASE
            | Keyword::OVERLAPS => level.operators += 1,
            Keyword::SELECT
            | Keyword::FROM
            | Keyword::WHERE
            | Keyword::WHEN
            | Keyword::THEN
            | Keyword::ON
            | Keyword::HAVING => level.operators = 0,
            _ if may_relate(&word.value) => level.operators += 1,
            _ => {}
        },
        Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::EscapedStringLiteral(_)
        | Token::DollarQuotedString(_)
        | Token::Placeholder(_)
        | Token::Period => {}
        _ => level.operators += 1,
    }
}

/// Returns a text of the tokenizer or parser in our form: lower case at the start, no full stop.
pub fn lower_first(text: &str) -> String {
    let text = text.trim_end_matches('.');
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_lowercase().chain(characters).collect(),
        None => String::new(),
    }
}
