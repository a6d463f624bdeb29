//! Rows of the result table, and medians.

/// Rows as they are measured; printed as a Markdown table at the end.
#[derive(Default)]
pub struct Report {
    rows: Vec<[String; 4]>,
}

impl Report {
    /// Adds a row: what was measured, ours, the other side, and the ratio with its goal.
    pub fn row(&mut self, what: &str, ours: String, other: String, ratio: String) {
        println!("{what}: {ours} against {other}: {ratio}");
        self.rows.push([what.to_owned(), ours, other, ratio]);
    }

    /// Prints the table.
    pub fn print(&self) {
        println!("\n| workload | Everwhen | beside it | ratio and goal |");
        println!("|---|---|---|---|");
        for [what, ours, other, ratio] in &self.rows {
            println!("| {what} | {ours} | {other} | {ratio} |");
        }
    }
}

/// Returns the median.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Returns the value below which a share of all lies.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index into a short list"
    )]
    let index = ((sorted.len() as f64 - 1.0) * share).round() as usize;
    sorted[index]
}

/// Says "reached" or "not reached".
pub fn verdict(reached: bool) -> &'static str {
    if reached { "reached" } else { "**not reached**" }
}
