//! A reader of tokens for our own statements, with errors that say where.

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::tokens::StatementText;
use crate::error::{Error, Result, SqlState};

/// Reads a statement's tokens from left to right.
pub struct Cursor<'t, 's> {
    pub text: &'t StatementText<'s>,
    pub at: usize,
}

impl<'t, 's> Cursor<'t, 's> {
    pub const fn new(text: &'t StatementText<'s>) -> Self {
        Self { text, at: 0 }
    }

    /// Returns the 1-based character of the next token.
    pub fn position(&self) -> usize {
        self.text.position(self.at).unwrap_or(1)
    }

    pub fn peek(&self) -> Option<&'t Token> {
        self.text.tokens.get(self.at).map(|token: &TokenWithSpan| &token.token)
    }

    pub const fn is_at_end(&self) -> bool {
        self.at >= self.text.tokens.len()
    }

    /// True where the next tokens are these bare words, in any case.
    pub fn sees(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(offset, expected)| {
            let token = self.text.tokens.get(self.at + offset).map(|token| &token.token);
            matches!(token, Some(Token::Word(word))
                if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(expected))
        })
    }

    /// Passes these words where they are next.
    pub fn accept(&mut self, words: &[&str]) -> bool {
        let seen = self.sees(words);
        if seen {
            self.at += words.len();
        }
        seen
    }

    /// Passes these words, or fails.
    pub fn expect(&mut self, words: &[&str]) -> Result<()> {
        if self.accept(words) { Ok(()) } else { Err(self.expected(&words.join(" "))) }
    }

    pub fn accept_token(&mut self, token: &Token) -> bool {
        let seen = self.peek() == Some(token);
        if seen {
            self.at += 1;
        }
        seen
    }

    pub fn expect_token(&mut self, token: &Token) -> Result<()> {
        if self.accept_token(token) { Ok(()) } else { Err(self.expected(&format!("\"{token}\""))) }
    }

    /// Returns the error of finding something else than what is named.
    pub fn expected(&self, what: &str) -> Error {
        let found =
            self.peek().map_or_else(|| "the end".to_owned(), |token| format!("\"{token}\""));
        Error::syntax(format!("expected {what}, found {found}")).at(self.position())
    }

    /// Fails unless all tokens are read.
    pub fn finish(&self) -> Result<()> {
        if self.is_at_end() { Ok(()) } else { Err(self.expected("the end of the statement")) }
    }

    /// Reads an identifier in its normal form: lower case unless quoted.
    pub fn name(&mut self, what: &str) -> Result<(String, usize)> {
        let position = self.position();
        let name = match self.peek() {
            Some(Token::Word(word)) if word.quote_style.is_none() => word.value.to_lowercase(),
            Some(Token::Word(word)) => word.value.clone(),
            _ => return Err(self.expected(what)),
        };
        if name.is_empty() {
            return Err(Error::syntax(format!("{what} is empty")).at(position));
        }
        self.at += 1;
        Ok((name, position))
    }

    /// Reads `(a, b, ..)`.
    pub fn names(&mut self, what: &str) -> Result<Vec<(String, usize)>> {
        self.expect_token(&Token::LParen)?;
        let mut names = Vec::new();
        loop {
            let (name, position) = self.name(what)?;
            if names.iter().any(|(earlier, _)| *earlier == name) {
                let message = format!("column \"{name}\" is named twice");
                return Err(Error::new(SqlState::DuplicateColumn, message).at(position));
            }
            names.push((name, position));
            if !self.accept_token(&Token::Comma) {
                break;
            }
        }
        self.expect_token(&Token::RParen)?;
        Ok(names)
    }

    /// Reads `(key = value, 'dotted.key' = value, ..)`, each key once; values as text.
    pub fn options(&mut self) -> Result<BTreeMap<String, (String, usize)>> {
        self.expect_token(&Token::LParen)?;
        let mut options = BTreeMap::new();
        if self.accept_token(&Token::RParen) {
            return Ok(options);
        }
        loop {
            let position = self.position();
            let key = self.option_key()?;
            self.expect_token(&Token::Eq)?;
            let value = self.option_value()?;
            if options.insert(key.clone(), (value, position)).is_some() {
                let message = format!("option \"{key}\" is given twice");
                return Err(Error::syntax(message).at(position));
            }
            if !self.accept_token(&Token::Comma) {
                break;
            }
        }
        self.expect_token(&Token::RParen)?;
        Ok(options)
    }

    fn option_key(&mut self) -> Result<String> {
        if let Some(Token::SingleQuotedString(key)) = self.peek() {
            self.at += 1;
            return Ok(key.clone());
        }
        let mut key = self.name("an option")?.0;
        while self.accept_token(&Token::Period) {
            key.push('.');
            key.push_str(&self.name("an option")?.0);
        }
        Ok(key)
    }

    fn option_value(&mut self) -> Result<String> {
        let negative = self.accept_token(&Token::Minus);
        let value = match self.peek() {
            Some(Token::Number(number, _)) if negative => format!("-{number}"),
            Some(Token::Number(number, _)) => number.clone(),
            Some(Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text))
                if !negative =>
            {
                text.clone()
            }
            Some(Token::Word(word)) if !negative => {
                match word.value.to_ascii_lowercase().as_str() {
                    plain @ ("true" | "false") => plain.to_owned(),
                    _ => return Err(self.expected("a value in quotes, a number, true or false")),
                }
            }
            _ => return Err(self.expected("a value in quotes, a number, true or false")),
        };
        self.at += 1;
        Ok(value)
    }
}
