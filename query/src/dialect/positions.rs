//! Places in a statement's text: the parser's lines and columns to characters and back to text.

use std::sync::Arc;

use datafusion::sql::sqlparser::tokenizer::{Location, Span};

/// Where each line of a text starts, so that a line and column become a place in the text.
#[derive(Debug, Clone, Default)]
pub struct Positions {
    /// The first character of each line.
    lines: Arc<[usize]>,
    /// The byte of every so many characters, so that a place in a long line is near one.
    marks: Arc<[usize]>,
}

/// Characters from one mark to the next.
const MARKED: usize = 256;

impl Positions {
    /// Reads the lines of a text.
    pub fn new(text: &str) -> Self {
        let mut lines = vec![0];
        let mut marks = Vec::with_capacity(text.len() / MARKED + 1);
        for (index, (byte, character)) in text.char_indices().enumerate() {
            if index % MARKED == 0 {
                marks.push(byte);
            }
            if character == '\n' {
                lines.push(index + 1);
            }
        }
        Self { lines: lines.into(), marks: marks.into() }
    }

    /// Returns the 1-based character of a location; nothing for the empty location.
    pub fn character(&self, at: Location) -> Option<usize> {
        let line = self.line(at)?;
        Some(line + usize::try_from(at.column).ok()?)
    }

    /// Returns the 1-based character where a span starts.
    pub fn start(&self, span: Span) -> Option<usize> {
        self.character(span.start)
    }

    /// Returns the byte of a location in the text that this was built from.
    pub fn byte(&self, text: &str, at: Location) -> Option<usize> {
        let line = self.line(at)?;
        let place = line + usize::try_from(at.column).ok()?.checked_sub(1)?;
        let Some(mark) = self.marks.get(place / MARKED) else { return Some(text.len()) };
        let rest = text.get(*mark..)?;
        let within = rest.char_indices().nth(place % MARKED).map_or(rest.len(), |(byte, _)| byte);
        Some(mark + within)
    }

    fn line(&self, at: Location) -> Option<usize> {
        let index = usize::try_from(at.line).ok()?.checked_sub(1)?;
        self.lines.get(index).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_after_a_line_break_counts_characters_not_bytes() {
        let text = "sélect\n  ü x";
        let positions = Positions::new(text);
        let at = Location { line: 2, column: 5 };
        assert_eq!(positions.character(at), Some(12));
        let byte = positions.byte(text, at).unwrap();
        assert_eq!(&text[byte..], "x");
        assert_eq!(positions.character(Location { line: 0, column: 0 }), None);
    }

    #[test]
    fn every_character_of_long_lines_is_found() {
        let text = format!("{}\n{}\n", "aü€".repeat(300), "é".repeat(MARKED * 2));
        let positions = Positions::new(&text);
        let (mut line, mut column) = (1, 1);
        for (byte, character) in text.char_indices() {
            assert_eq!(positions.byte(&text, Location { line, column }), Some(byte));
            (line, column) = if character == '\n' { (line + 1, 1) } else { (line, column + 1) };
        }
        assert_eq!(positions.byte(&text, Location { line, column }), Some(text.len()));
        assert_eq!(Positions::new("").byte("", Location { line: 1, column: 1 }), Some(0));
    }
}
