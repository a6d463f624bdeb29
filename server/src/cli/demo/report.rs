//! A warehouse table before and after a day, side by side, with what changed marked.

use std::collections::BTreeMap;

use super::paint::{Paint, Style, pad};

/// Rows of a table as text, without the metadata columns.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// Column names.
    pub columns: Vec<String>,
    /// Rows, the first column being the key.
    pub rows: Vec<Vec<String>>,
}

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Same,
    New,
    Gone,
    Changed,
}

impl Table {
    fn by_key(&self) -> BTreeMap<&str, &Vec<String>> {
        self.rows.iter().filter_map(|row| Some((row.first()?.as_str(), row))).collect()
    }
}

/// Returns the lines that show both states of a table.
pub fn before_and_after(paint: Paint, before: &Table, after: &Table) -> Vec<String> {
    let columns = &after.columns;
    let widths = widths(before, after);
    let (old, new) = (before.by_key(), after.by_key());
    let mut keys: Vec<&str> = old.keys().chain(new.keys()).copied().collect();
    keys.sort_unstable();
    keys.dedup();
    let header: Vec<String> = columns.iter().zip(&widths).map(|(c, w)| pad(c, *w + 1)).collect();
    let header = header.join(" ");
    let side = header.chars().count();
    let bar = paint.of(Style::Quiet, "│");
    let mut lines = vec![
        format!("    {}  {bar}   {}", pad("before", side), "after"),
        format!(
            "    {}  {bar}   {}",
            paint.of(Style::Quiet, &header),
            paint.of(Style::Quiet, header.trim_end())
        ),
    ];
    if keys.is_empty() {
        let none = paint.of(Style::Quiet, &pad("(no rows)", side));
        lines.push(format!("    {none}  {bar}   {}", paint.of(Style::Quiet, "(no rows)")));
    }
    for key in keys {
        let (left, right) = (old.get(key).copied(), new.get(key).copied());
        let fate = match (left, right) {
            (None, _) => Fate::New,
            (_, None) => Fate::Gone,
            (Some(left), Some(right)) if left == right => Fate::Same,
            _ => Fate::Changed,
        };
        let (mark, style) = match fate {
            Fate::Same => (" ", Style::Plain),
            Fate::New => ("+", Style::New),
            Fate::Gone => ("-", Style::Gone),
            Fate::Changed => ("~", Style::Strong),
        };
        let gone = if fate == Fate::Gone { Style::Gone } else { Style::Quiet };
        let old_cells = side_of(paint, left, None, &widths, gone);
        let new_cells = match right {
            Some(_) => side_of(paint, right, left, &widths, style),
            None => String::new(),
        };
        let line = format!("    {old_cells}  {bar} {} {new_cells}", paint.of(style, mark));
        lines.push(line.trim_end().to_owned());
    }
    lines
}

/// One row's cells; those that differ from `other` are marked.
fn side_of(
    paint: Paint,
    row: Option<&Vec<String>>,
    other: Option<&Vec<String>>,
    widths: &[usize],
    style: Style,
) -> String {
    let mut cells = Vec::with_capacity(widths.len());
    for (place, width) in widths.iter().enumerate() {
        let cell = row.and_then(|row| row.get(place)).map_or("", String::as_str);
        let changed = row.is_some()
            && other.is_some_and(|other| other.get(place).map(String::as_str) != Some(cell));
        cells.push(if changed {
            let marked = format!("{cell}*");
            let rest = " ".repeat((width + 1).saturating_sub(marked.chars().count()));
            format!("{}{rest}", paint.of(Style::Changed, &marked))
        } else {
            paint.of(style, &pad(cell, width + 1))
        });
    }
    cells.join(" ")
}

fn widths(before: &Table, after: &Table) -> Vec<usize> {
    let rows = || before.rows.iter().chain(&after.rows).chain([&after.columns]);
    let width = |place: usize| {
        rows().filter_map(|row| row.get(place)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    (0..after.columns.len()).map(width).collect()
}

/// Returns the lines of a small answer.
pub fn answer(paint: Paint, table: &Table) -> Vec<String> {
    let widths = widths(table, table);
    let line = |row: &[String], style: Style| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| pad(cell, *width)).collect();
        format!("      {}", paint.of(style, cells.join("  ").trim_end()))
    };
    let mut lines = vec![line(&table.columns, Style::Quiet)];
    lines.extend(table.rows.iter().map(|row| line(row, Style::Strong)));
    if table.rows.is_empty() {
        lines.push(format!("      {}", paint.of(Style::Quiet, "(no rows)")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[&[&str]]) -> Table {
        let text = |row: &&[&str]| row.iter().map(|cell| (*cell).to_owned()).collect();
        Table { columns: vec!["id".into(), "room".into()], rows: rows.iter().map(text).collect() }
    }

    #[test]
    fn changed_cells_new_and_gone_rows_are_marked() {
        let before = table(&[&["a", "A"], &["b", "B"], &["c", "C"]]);
        let after = table(&[&["a", "A"], &["b", "X"], &["d", "D"]]);
        let lines = before_and_after(Paint::plain(), &before, &after);
        let has = |part: &str| lines.iter().any(|line| line.contains(part));
        assert!(has("~ b   X*"), "{lines:#?}");
        assert!(has("+ d   D"), "{lines:#?}");
        assert!(has("│ -"), "{lines:#?}");
        assert!(!has("A*"), "{lines:#?}");
    }
}
