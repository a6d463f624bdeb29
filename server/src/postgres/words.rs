//! The words of a statement, to tell those of the session from those of the database.

use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::failure::{Answered, Failure};

/// A statement's tokens, without white space and comments, read from the front.
#[derive(Debug, Clone)]
pub struct Words {
    tokens: Vec<Token>,
    at: usize,
}

/// Builds the failure of a statement that is none.
pub fn syntax(detail: impl Into<String>) -> Failure {
    Failure::of_sqlstate("42601", detail.into())
}

impl Words {
    /// Takes a text apart; what is no text of SQL has no words.
    pub fn of(sql: &str) -> Self {
        let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize().unwrap_or_default();
        let tokens = tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_)));
        Self { tokens: tokens.collect(), at: 0 }
    }

    /// Returns all words and signs.
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// True at the end.
    pub fn is_over(&self) -> bool {
        self.tokens[self.at..].iter().all(|token| *token == Token::SemiColon)
    }

    /// Returns the word at the front, in lower case.
    pub fn word(&self) -> Option<String> {
        match self.tokens.get(self.at)? {
            Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_lowercase()),
            _ => None,
        }
    }

    /// Takes words off the front, where they stand there.
    pub fn accept(&mut self, words: &[&str]) -> bool {
        let mut ahead = self.clone();
        for word in words {
            if ahead.word().as_deref() != Some(*word) {
                return false;
            }
            ahead.at += 1;
        }
        self.at = ahead.at;
        true
    }

    /// Takes a sign off the front, where it stands there.
    pub fn accept_sign(&mut self, sign: &Token) -> bool {
        let found = self.tokens.get(self.at) == Some(sign);
        self.at += usize::from(found);
        found
    }

    /// Takes any token off the front.
    pub fn take(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += usize::from(token.is_some());
        token
    }

    /// Takes a name: in lower case unless quoted.
    ///
    /// # Errors
    /// 42601 where none stands there.
    pub fn name(&mut self) -> Answered<String> {
        match self.take() {
            Some(Token::Word(word)) => Ok(match word.quote_style {
                Some(_) => word.value,
                None => word.value.to_lowercase(),
            }),
            Some(other) => Err(syntax(format!("expected a name, found \"{other}\""))),
            None => Err(syntax("expected a name, found the end")),
        }
    }

    /// Takes a value: a text, a number or a word.
    ///
    /// # Errors
    /// 42601 where none stands there.
    pub fn value(&mut self) -> Answered<String> {
        let negative = self.accept_sign(&Token::Minus);
        let value = match self.take() {
            Some(
                Token::SingleQuotedString(text)
                | Token::EscapedStringLiteral(text)
                | Token::Number(text, _),
            ) => text,
            Some(Token::Word(word)) => word.value,
            Some(other) => return Err(syntax(format!("expected a value, found \"{other}\""))),
            None => return Err(syntax("expected a value, found the end")),
        };
        Ok(if negative { format!("-{value}") } else { value })
    }

    /// Refuses what is left over.
    ///
    /// # Errors
    /// 42601.
    pub fn finish(&self) -> Answered<()> {
        match self.tokens.get(self.at) {
            Some(other) if !self.is_over() => {
                Err(syntax(format!("expected the end of the statement, found \"{other}\"")))
            }
            _ => Ok(()),
        }
    }
}
