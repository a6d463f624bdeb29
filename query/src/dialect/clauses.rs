//! The token pre-pass: temporal clauses are read and taken out before the parser runs.
//!
//! ```text
//! FROM visits FOR VALID_TIME AS OF $1 v JOIN sites FOR ALL VALID_TIME s ON ..
//! FROM visits v                         JOIN sites s ON ..
//!           ^anchor of the first             ^anchor of the second
//! ```
//!
//! A clause stands before or after the alias, so its anchor is the end of the table's name or of
//! its alias. What no table claims is an error.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Spanned, visit_expressions};
use datafusion::sql::sqlparser::dialect::{Dialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan};

use super::parser_error;
use super::positions::Positions;
use super::postgres::TemporalDialect;
use super::tokens::StatementText;
use crate::error::{Error, Result, SqlState};

/// One of the two time axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Axis {
    Valid,
    System,
}

impl Axis {
    /// Returns the word that names it in SQL.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Valid => "VALID_TIME",
            Self::System => "SYSTEM_TIME",
        }
    }
}

/// An expression of a bound.
#[derive(Debug, Clone, PartialEq)]
pub struct BoundExpr {
    pub expr: Expr,
    /// 1-based character of its start in the statement's text.
    pub position: usize,
}

/// What a clause asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum ClauseKind {
    AsOf(BoundExpr),
    /// The end may be left out in a write's portion alone.
    FromTo(BoundExpr, Option<BoundExpr>),
    Between(BoundExpr, BoundExpr),
    /// `ONLY FROM a TO b`: as FROM, with the valid bounds of rows cut to the window.
    Only(BoundExpr, BoundExpr),
    All,
}

impl ClauseKind {
    /// Returns the expressions of its bounds.
    pub fn bounds_mut(&mut self) -> impl Iterator<Item = &mut BoundExpr> {
        let (first, second) = match self {
            Self::AsOf(at) => (Some(at), None),
            Self::FromTo(from, to) => (Some(from), to.as_mut()),
            Self::Between(from, to) | Self::Only(from, to) => (Some(from), Some(to)),
            Self::All => (None, None),
        };
        first.into_iter().chain(second)
    }

    /// Returns the expressions of its bounds.
    pub fn bounds(&self) -> impl Iterator<Item = &BoundExpr> {
        let (first, second) = match self {
            Self::AsOf(at) => (Some(at), None),
            Self::FromTo(from, to) => (Some(from), to.as_ref()),
            Self::Between(from, to) | Self::Only(from, to) => (Some(from), Some(to)),
            Self::All => (None, None),
        };
        first.into_iter().chain(second)
    }
}

/// One temporal clause as it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Clause {
    pub axis: Axis,
    pub kind: ClauseKind,
    /// True for `FOR PORTION OF`.
    pub portion: bool,
    /// The end of the token before it.
    pub anchor: Location,
    /// 1-based character of FOR.
    pub position: usize,
}

impl Clause {
    /// Returns the clause's head for messages.
    pub fn head(&self) -> String {
        match (&self.kind, self.portion) {
            (_, true) => format!("FOR PORTION OF {}", self.axis.word()),
            (ClauseKind::All, _) => format!("FOR ALL {}", self.axis.word()),
            _ => format!("FOR {}", self.axis.word()),
        }
    }
}

/// The temporal clauses of one statement, beside its tree.
#[derive(Debug, Clone, Default)]
pub struct Clauses {
    pub(crate) list: Vec<Clause>,
    pub(crate) positions: Positions,
    /// What SETTING at the statement's head says.
    pub(crate) settings: Settings,
}

/// `SETTING ..` before a query: what its tables read without a clause of their own, and its basis.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `DEFAULT VALID_TIME` and `DEFAULT SYSTEM_TIME`, each at most once.
    pub defaults: Vec<Clause>,
    /// `SNAPSHOT_TOKEN`: the basis, in place of the request's.
    pub snapshot_token: Option<String>,
    /// `CLOCK_TIME`: now, in place of the basis'; a constant.
    pub clock_time: Option<BoundExpr>,
}

impl Clauses {
    /// Returns the 1-based character of a place in the tree, for messages about it.
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Returns all clauses, those of SETTING too.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Clause> {
        self.list.iter().chain(&self.settings.defaults)
    }

    /// Returns all clauses, those of SETTING too.
    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Clause> {
        self.list.iter_mut().chain(&mut self.settings.defaults)
    }

    /// Takes the clauses at any of these anchors out of the list.
    pub(crate) fn take(&mut self, anchors: &[Location]) -> Vec<Clause> {
        let (taken, kept) = std::mem::take(&mut self.list)
            .into_iter()
            .partition(|clause| anchors.contains(&clause.anchor));
        self.list = kept;
        taken
    }
}

/// Reads the clauses of a statement and removes their tokens.
///
/// # Errors
/// 42601 for a clause that is none, 0A000 for the forms that are not built.
pub fn extract(text: &mut StatementText<'_>) -> Result<Clauses> {
    let mut list = Vec::new();
    let mut kept: Vec<TokenWithSpan> = Vec::with_capacity(text.tokens.len());
    let mut at = 0;
    while at < text.tokens.len() {
        let start = Clauses::head_at(&text.tokens, at);
        if let Some(head) = start {
            let anchor = kept.last().map_or(Location { line: 0, column: 0 }, |t| t.span.end);
            let (clause, next) = ClauseReader { text, at }.read(&head, anchor)?;
            list.push(clause);
            at = next;
        } else {
            kept.push(text.tokens[at].clone());
            at += 1;
        }
    }
    text.tokens = kept;
    let settings = Settings::default();
    Ok(Clauses { list, positions: text.positions.clone(), settings })
}

/// The words that open a clause.
struct Head {
    axis: Axis,
    portion: bool,
    /// `FOR ALL VALID_TIME`: complete as it is.
    all: bool,
    len: usize,
}

impl Clauses {
    fn head_at(tokens: &[TokenWithSpan], at: usize) -> Option<Head> {
        let word = |index: usize| tokens.get(at + index).and_then(bare_word);
        if !word(0)?.eq_ignore_ascii_case("for") {
            return None;
        }
        if let Some(axis) = word(1).and_then(axis_of) {
            // `substring(x FOR valid_time)` is no clause.
            let closes = matches!(tokens.get(at + 2).map(|t| &t.token), Some(Token::RParen));
            let head = Head { axis, portion: false, all: false, len: 2 };
            return (!closes).then_some(head);
        }
        if word(1)?.eq_ignore_ascii_case("all") {
            let axis = word(2).and_then(axis_of)?;
            return Some(Head { axis, portion: false, all: true, len: 3 });
        }
        if word(1)?.eq_ignore_ascii_case("portion") && word(2)?.eq_ignore_ascii_case("of") {
            let axis = word(3).and_then(axis_of)?;
            return Some(Head { axis, portion: true, all: false, len: 4 });
        }
        None
    }
}

fn bare_word(token: &TokenWithSpan) -> Option<&str> {
    match &token.token {
        Token::Word(word) if word.quote_style.is_none() => Some(&word.value),
        _ => None,
    }
}

fn axis_of(word: &str) -> Option<Axis> {
    match word.to_ascii_lowercase().as_str() {
        "valid_time" => Some(Axis::Valid),
        "system_time" => Some(Axis::System),
        _ => None,
    }
}

/// Reads clauses, and what is written as they are.
pub(super) struct ClauseReader<'t, 's> {
    pub(super) text: &'t StatementText<'s>,
    /// The next token.
    pub(super) at: usize,
}

impl ClauseReader<'_, '_> {
    fn read(mut self, head: &Head, anchor: Location) -> Result<(Clause, usize)> {
        let position = self.position().unwrap_or(1);
        self.at += head.len;
        let kind = if head.all { ClauseKind::All } else { self.kind(head)? };
        let clause = Clause { axis: head.axis, kind, portion: head.portion, anchor, position };
        Ok((clause, self.at))
    }

    /// Reads what a table reads by default on an axis: as a clause behind its head.
    pub(super) fn default_of(&mut self, axis: Axis) -> Result<ClauseKind> {
        self.kind(&Head { axis, portion: false, all: false, len: 0 })
    }

    fn kind(&mut self, head: &Head) -> Result<ClauseKind> {
        if self.word("only") {
            return self.only(head);
        }
        if self.word("from") {
            let from = self.bound()?;
            let to = if self.word("to") { Some(self.bound()?) } else { None };
            return Ok(ClauseKind::FromTo(from, to));
        }
        if head.portion {
            return Err(self.expected(&["FROM"], head));
        }
        if self.word("all") {
            return Ok(ClauseKind::All);
        }
        if self.word("between") {
            let from = self.bound()?;
            if !self.word("and") {
                return Err(
                    Error::syntax("expected AND and the end of BETWEEN").at(self.position())
                );
            }
            return Ok(ClauseKind::Between(from, self.bound()?));
        }
        if self.word("as") && self.word("of") {
            return Ok(ClauseKind::AsOf(self.bound()?));
        }
        Err(self.expected(&["AS OF", "FROM", "BETWEEN", "ALL"], head))
    }

    /// Reads what follows ONLY.
    fn only(&mut self, head: &Head) -> Result<ClauseKind> {
        let word = head.axis.word();
        if head.portion || head.axis == Axis::System {
            let message =
                format!("{} takes no ONLY", if head.portion { "a portion" } else { word });
            return Err(Error::syntax(message).at(self.position()));
        }
        if !self.word("from") {
            return Err(self.expected(&["ONLY FROM"], head));
        }
        let from = self.bound()?;
        if !self.word("to") {
            return Err(Error::syntax("expected TO and an end")
                .at(self.position())
                .with_hint("TO NULL is the end of time"));
        }
        Ok(ClauseKind::Only(from, self.bound()?))
    }

    fn expected(&self, words: &[&str], head: &Head) -> Error {
        let message = format!("expected {} after {}", words.join(", "), head.axis.word());
        Error::syntax(message).at(self.position())
    }

    /// Reads one bound: an expression that binds tighter than AND.
    pub(super) fn bound(&mut self) -> Result<BoundExpr> {
        let position = self.position();
        let extent = self.extent();
        let tokens = self.text.tokens[self.at..extent].to_vec();
        if tokens.is_empty() {
            return Err(Error::syntax("expected an instant").at(position));
        }
        let dialect = TemporalDialect::of_tokens(tokens.len());
        let mut parser = Parser::new(&dialect).with_tokens_with_locations(tokens);
        let precedence = dialect.prec_value(Precedence::Between);
        let expr = parser
            .parse_subexpr(precedence)
            .map_err(|error| parser_error(&error, self.text.positions).at(position))?;
        self.at += parser.index();
        Ok(BoundExpr { expr, position: position.unwrap_or(1) })
    }

    /// Returns where a bound surely ends: the parser must not see more, as it would take the TO of
    /// `FROM now() - INTERVAL '1 day' TO ..` for a part of the interval.
    fn extent(&self) -> usize {
        let mut depth = 0_usize;
        for (index, token) in self.text.tokens.iter().enumerate().skip(self.at) {
            match &token.token {
                Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
                Token::RParen | Token::RBracket | Token::RBrace if depth == 0 => return index,
                Token::RParen | Token::RBracket | Token::RBrace => depth -= 1,
                Token::Comma | Token::SemiColon if depth == 0 => return index,
                Token::Word(word) if depth == 0 && ends_bound(word.keyword) => return index,
                _ => {}
            }
        }
        self.text.tokens.len()
    }

    pub(super) fn word(&mut self, expected: &str) -> bool {
        let found = self
            .text
            .tokens
            .get(self.at)
            .and_then(bare_word)
            .is_some_and(|word| word.eq_ignore_ascii_case(expected));
        if found {
            self.at += 1;
        }
        found
    }

    pub(super) fn position(&self) -> Option<usize> {
        self.text.position(self.at)
    }
}

const fn ends_bound(keyword: Keyword) -> bool {
    matches!(
        keyword,
        Keyword::TO
            | Keyword::FOR
            | Keyword::ON
            | Keyword::USING
            | Keyword::JOIN
            | Keyword::WHERE
            | Keyword::SET
            | Keyword::SELECT
            | Keyword::VALUES
            | Keyword::GROUP
            | Keyword::ORDER
            | Keyword::UNION
    )
}

/// Returns the error of a clause that nothing claimed.
pub(crate) fn unclaimed(clause: &Clause) -> Error {
    Error::new(SqlState::SyntaxError, format!("{} does not stand at a table", clause.head()))
        .at(clause.position)
        .with_hint("a temporal clause follows a table's name or alias in FROM")
}

/// Returns the equalities that a condition demands, both sides of each.
pub fn equalities(condition: &Expr) -> Vec<(&Expr, &Expr)> {
    match condition {
        Expr::Nested(inner) => equalities(inner),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            let mut found = equalities(left);
            found.extend(equalities(right));
            found
        }
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => vec![(left, right)],
        _ => Vec::new(),
    }
}

/// Returns the first column that an expression names, outside of its sub-queries, and its place.
pub fn first_column(expr: &Expr) -> Option<(String, Span)> {
    let found = visit_expressions(expr, |part| match part {
        Expr::Identifier(ident) => ControlFlow::Break((ident.to_string(), ident.span)),
        Expr::CompoundIdentifier(parts) => {
            let name = parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(".");
            ControlFlow::Break((name, part.span()))
        }
        _ => ControlFlow::Continue(()),
    });
    found.break_value()
}
