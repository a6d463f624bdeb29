//! Rows as text for people: a table as psql draws it, or Markdown. A cell of several lines has a `+`
//! at the end of each but the last.

/// Draws a table with a line of names, a rule and a line a row; columns named in `right` stand
/// to the right.
pub fn draw(names: &[String], rows: &[Vec<String>], right: &[bool]) -> String {
    let widths = widths(names, rows);
    let mut out = String::new();
    let centred = names.iter().zip(&widths).map(|(name, width)| {
        let space = width - length(name);
        let left = space / 2;
        format!(" {}{name}{} ", " ".repeat(left), " ".repeat(space - left))
    });
    push_line(&mut out, &centred.collect::<Vec<_>>().join("|"));
    let rule: Vec<_> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
    push_line(&mut out, &rule.join("+"));
    for row in rows {
        let lines = row.iter().map(|cell| cell.split('\n').count()).max().unwrap_or(1);
        for line in 0..lines {
            let cells = row.iter().zip(&widths).enumerate().map(|(place, (cell, width))| {
                let mut rest = cell.split('\n').skip(line);
                let (part, goes_on) = (rest.next().unwrap_or_default(), rest.next().is_some());
                let space = " ".repeat(width - length(part));
                let end = if goes_on { "+" } else { " " };
                if right.get(place).copied().unwrap_or(false) {
                    format!(" {space}{part}{end}")
                } else {
                    format!(" {part}{space}{end}")
                }
            });
            push_line(&mut out, &cells.collect::<Vec<_>>().join("|"));
        }
    }
    out
}

/// Draws each row as lines of a name and a value.
pub fn expanded(names: &[String], rows: &[Vec<String>]) -> String {
    let width = names.iter().map(|name| length(name)).max().unwrap_or(0);
    let mut out = String::new();
    for (number, row) in (1..).zip(rows) {
        out.push_str(&format!("-[ row {number} ]-\n"));
        for (name, cell) in names.iter().zip(row) {
            let space = " ".repeat(width - length(name));
            let beside = format!("\n {} | ", " ".repeat(width));
            push_line(&mut out, &format!(" {name}{space} | {}", cell.replace('\n', &beside)));
        }
    }
    out
}

/// Draws a Markdown table.
pub fn markdown(names: &[String], rows: &[Vec<String>], right: &[bool]) -> String {
    let escaped = |cells: &[String]| {
        let cells: Vec<_> =
            cells.iter().map(|cell| cell.replace('|', "\\|").replace('\n', "<br>")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule: Vec<_> = (0..names.len())
        .map(|place| if right.get(place).copied().unwrap_or(false) { "---:" } else { "---" })
        .collect();
    let mut out = escaped(names);
    out.push_str(&format!("| {} |\n", rule.join(" | ")));
    for row in rows {
        out.push_str(&escaped(row));
    }
    out
}

fn widths(names: &[String], rows: &[Vec<String>]) -> Vec<usize> {
    let mut widths: Vec<usize> = names.iter().map(|name| length(name)).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            let longest = cell.split('\n').map(length).max().unwrap_or(0);
            *width = (*width).max(longest);
        }
    }
    widths
}

fn length(text: &str) -> usize {
    text.chars().count()
}

fn push_line(out: &mut String, line: &str) {
    out.push_str(line.trim_end());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn numbers_stand_right_and_names_in_the_middle() {
        let rows = [texts(&["1", "Finance"]), texts(&["20", "é"])];
        let drawn = draw(&texts(&["n", "name"]), &rows, &[true, false]);
        assert_eq!(drawn, " n  |  name\n----+---------\n  1 | Finance\n 20 | é\n");
    }

    #[test]
    fn cells_may_have_several_lines() {
        let rows = [texts(&["plan", "a\n  bc"]), texts(&["x", "y"])];
        let names = texts(&["part", "text"]);
        let drawn = draw(&names, &rows, &[]);
        assert_eq!(drawn, " part | text\n------+------\n plan | a   +\n      |   bc\n x    | y\n");
        let under = expanded(&names, &rows[..1]);
        assert_eq!(under, "-[ row 1 ]-\n part | plan\n text | a\n      |   bc\n");
    }

    #[test]
    fn markdown_escapes_bars() {
        let drawn = markdown(&texts(&["a"]), &[texts(&["x|y"])], &[true]);
        assert_eq!(drawn, "| a |\n| ---: |\n| x\\|y |\n");
    }
}
