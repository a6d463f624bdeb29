//! The drawing of one entity's history over both time axes.
//!
//! Across: when something is true. Down: what was believed at the end of each day. A line under a belief
//! marks what that day's news changed in it.

use super::paint::{Paint, Style, pad};

/// Columns of text for a day.
const DAY_WIDTH: usize = 15;
/// Columns left of the drawing.
const LABEL_WIDTH: usize = 15;

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// One version as believed at some moment: a value over a valid period, in microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Belief {
    pub value: String,
    pub from: i64,
    pub to: i64,
}

/// What was believed at a moment.
#[derive(Debug, Clone)]
pub struct Moment {
    pub label: String,
    /// The moment itself, in microseconds.
    pub at: i64,
    pub beliefs: Vec<Belief>,
}

/// Something that happens at an instant, to be marked under the drawing.
pub struct Mark {
    pub at: i64,
    pub text: String,
}

/// What to draw.
pub struct Drawing {
    /// Where the valid axis begins: a midnight, in microseconds.
    pub from: i64,
    /// Labels of the days along it.
    pub days: Vec<String>,
    pub moments: Vec<Moment>,
    pub mark: Mark,
}

impl Drawing {
    fn columns(&self) -> usize {
        self.days.len() * DAY_WIDTH
    }

    /// The instant in the middle of a column.
    fn instant(&self, column: usize) -> i64 {
        let width = i64::try_from(DAY_WIDTH).unwrap_or(1);
        let twice = i64::try_from(column).unwrap_or(0) * 2 + 1;
        self.from + MICROS_PER_DAY / (2 * width) * twice
    }

    fn column(&self, at: i64) -> usize {
        let width = i64::try_from(DAY_WIDTH).unwrap_or(1);
        usize::try_from((at - self.from) / (MICROS_PER_DAY / width)).unwrap_or(0)
    }

    /// The values in order of first appearance: each has its own colour.
    fn values(&self) -> Vec<&str> {
        let mut values: Vec<&str> = Vec::new();
        for belief in self.moments.iter().flat_map(|moment| &moment.beliefs) {
            if !values.contains(&belief.value.as_str()) {
                values.push(&belief.value);
            }
        }
        values
    }

    /// Returns the lines of the drawing.
    pub fn lines(&self, paint: Paint) -> Vec<String> {
        let indent = " ".repeat(LABEL_WIDTH);
        let days: String = self.days.iter().map(|day| pad(&format!("│{day}"), DAY_WIDTH)).collect();
        let across = format!("{}true at ─▶", " ".repeat(LABEL_WIDTH - 4));
        let mut lines = vec![
            paint.of(Style::Quiet, &across),
            format!("{}{}", paint.of(Style::Quiet, &pad("  believed", LABEL_WIDTH)), days),
        ];
        let mut before: Option<&Moment> = None;
        for moment in &self.moments {
            lines.push(format!(
                "{}{}",
                pad(&format!("  {}", moment.label), LABEL_WIDTH),
                self.row(paint, moment)
            ));
            lines.push(
                format!("{indent}{}", self.news(paint, before, moment)).trim_end().to_owned(),
            );
            before = Some(moment);
        }
        let column = self.column(self.mark.at);
        lines.push(format!("{indent}{}▲ {}", " ".repeat(column), self.mark.text));
        lines
    }

    /// One belief along the axis: its values as areas, and where "now" was.
    fn row(&self, paint: Paint, moment: &Moment) -> String {
        let values = self.values();
        let now = self.column(moment.at);
        let mut line = String::new();
        let mut column = 0;
        while column < self.columns() {
            let belief = moment.at_column(self, column);
            let mut end = column + 1;
            while end < self.columns() && moment.at_column(self, end) == belief {
                end += 1;
            }
            let value = belief.map_or("", |belief| belief.value.as_str());
            let place = values.iter().position(|known| *known == value);
            line.push_str(&area(paint, value, place, column..end, now));
            column = end;
        }
        line
    }

    /// Underlines where a belief differs from the one before.
    fn news(&self, paint: Paint, before: Option<&Moment>, moment: &Moment) -> String {
        let Some(before) = before else { return String::new() };
        let value = |moment: &Moment, column| {
            moment.at_column(self, column).map(|belief| belief.value.clone())
        };
        let line: String = (0..self.columns())
            .map(|column| if value(before, column) == value(moment, column) { ' ' } else { '▔' })
            .collect();
        paint.of(Style::Good, line.trim_end())
    }
}

impl Moment {
    fn at_column(&self, drawing: &Drawing, column: usize) -> Option<&Belief> {
        let at = drawing.instant(column);
        self.beliefs.iter().find(|belief| belief.from <= at && at < belief.to)
    }
}

/// Draws a value over some columns: its name at the start, past and coming time told apart.
fn area(
    paint: Paint,
    value: &str,
    place: Option<usize>,
    columns: std::ops::Range<usize>,
    now: usize,
) -> String {
    let Some(place) = place else { return " ".repeat(columns.len()) };
    // The name stands at the start, or right of the mark where that would hide a part of it.
    let label: Vec<char> = format!("{value} ").chars().collect();
    let start = columns.start + 1;
    let hidden = (start..start + label.len()).contains(&now);
    let begin = if hidden { now + 1 } else { start };
    let mut past = String::new();
    let mut ahead = String::new();
    for column in columns.clone() {
        let is_past = column < now;
        let fill = match (paint.is_coloured(), is_past) {
            (true, _) => ' ',
            (false, true) => '━',
            (false, false) => '╌',
        };
        let c = if column == now {
            '◆'
        } else if column == columns.start {
            '▏'
        } else {
            column.checked_sub(begin).and_then(|at| label.get(at)).copied().unwrap_or(fill)
        };
        if is_past { past.push(c) } else { ahead.push(c) }
    }
    paint.of(Style::Area(place), &past) + &paint.of(Style::AreaAhead(place), &ahead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_is_underlined_where_the_belief_changed() {
        let belief = |value: &str, from: i64, to: i64| Belief {
            value: value.into(),
            from: from * MICROS_PER_DAY,
            to: to * MICROS_PER_DAY,
        };
        let drawing = Drawing {
            from: 0,
            days: vec!["Mon".into(), "Tue".into()],
            moments: vec![
                Moment {
                    label: "Mon".into(),
                    at: MICROS_PER_DAY / 2,
                    beliefs: vec![belief("A", -5, 99)],
                },
                Moment {
                    label: "Tue".into(),
                    at: MICROS_PER_DAY * 3 / 2,
                    beliefs: vec![belief("A", -5, 1), belief("B", 1, 99)],
                },
            ],
            mark: Mark { at: MICROS_PER_DAY, text: "here".into() },
        };
        let lines = drawing.lines(Paint::plain());
        let text = lines.join("\n");
        assert!(lines.iter().all(|line| line.chars().count() <= 100), "{text}");
        let underlined = lines.iter().find(|line| line.contains('▔')).unwrap();
        assert_eq!(underlined.matches('▔').count(), DAY_WIDTH, "{text}");
        assert_eq!(underlined.find('▔').unwrap(), LABEL_WIDTH + DAY_WIDTH, "{text}");
        assert!(text.contains("▏B"), "{text}");
    }
}
