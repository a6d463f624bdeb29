//! Text for people: colours on a terminal, the same layout in plain text elsewhere.

use std::io::IsTerminal as _;

/// How wide a line may be.
pub const WIDTH: usize = 96;

/// What a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Plain,
    Title,
    Strong,
    Quiet,
    Code,
    Good,
    Bad,
    /// A cell that has changed.
    Changed,
    /// A row that is new.
    New,
    /// A row that is gone.
    Gone,
    /// One of a few areas that touch; its number tells it from its neighbours.
    Area(usize),
    /// The same where it lies in the future.
    AreaAhead(usize),
}

/// Backgrounds of [`Style::Area`], with black text on them: 256-colour codes.
const AREAS: [u8; 6] = [117, 150, 222, 217, 183, 152];
/// Darker ones of [`Style::AreaAhead`], with white text.
const AREAS_AHEAD: [u8; 6] = [24, 22, 94, 95, 54, 23];

/// Colours text, or not.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    colour: bool,
}

impl Paint {
    /// Colours if standard output is a terminal that wants it (<https://no-color.org>).
    pub fn for_stdout() -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { colour: std::io::stdout().is_terminal() && !set("NO_COLOR") && !dumb }
    }

    /// Never colours.
    #[cfg(test)]
    pub const fn plain() -> Self {
        Self { colour: false }
    }

    /// Says whether colours are shown.
    pub const fn is_coloured(self) -> bool {
        self.colour
    }

    /// Returns `text` in a style.
    pub fn of(self, style: Style, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        let code = match style {
            Style::Plain => return text.to_owned(),
            Style::Title => "1;38;5;45".to_owned(),
            Style::Strong => "1".to_owned(),
            Style::Quiet => "38;5;245".to_owned(),
            Style::Code => "38;5;110".to_owned(),
            Style::Good => "1;38;5;114".to_owned(),
            Style::Bad => "1;38;5;203".to_owned(),
            Style::Changed => "1;38;5;16;48;5;221".to_owned(),
            Style::New => "38;5;114".to_owned(),
            Style::Gone => "38;5;203".to_owned(),
            Style::Area(n) => format!("38;5;16;48;5;{}", pick(&AREAS, n)),
            Style::AreaAhead(n) => format!("38;5;252;48;5;{}", pick(&AREAS_AHEAD, n)),
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// Returns a line across the page with a title in it.
    pub fn rule(self, title: &str) -> String {
        let rest = WIDTH.saturating_sub(title.chars().count() + 5);
        format!(
            "{} {} {}",
            self.of(Style::Quiet, "───"),
            self.of(Style::Title, title),
            self.of(Style::Quiet, &"─".repeat(rest))
        )
    }
}

fn pick(colours: &[u8], n: usize) -> u8 {
    colours.get(n % colours.len().max(1)).copied().unwrap_or(7)
}

/// Fills `text` with blanks up to `width` characters.
pub fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.chars().count())))
}

/// Breaks `text` between words into lines of at most `width` characters.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_has_no_escapes() {
        let paint = Paint::plain();
        assert_eq!(paint.of(Style::Changed, "x"), "x");
        assert_eq!(paint.rule("Monday").chars().count(), WIDTH);
    }

    #[test]
    fn long_text_breaks_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
    }
}
