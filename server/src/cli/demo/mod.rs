//! `everwhen demo`: a week of late, corrected and future-dated events, from a broker to a warehouse,
//! in one process with nothing installed. It checks what it shows.

mod axes;
mod paint;
mod report;
mod stage;
mod story;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::Value;

use self::axes::{Belief, Drawing, Mark, Moment};
use self::paint::{Paint, Style, WIDTH, pad, wrap};
use self::report::{Table, answer, before_and_after};
use self::stage::{Stage, instant};
use self::story::{Arrival, Day, Question, REPORTS};

/// Columns left of an event's JSON.
const ARRIVAL_INDENT: usize = 8;

/// Where the demo keeps its files.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder for data, warehouse and configuration: a new one, kept [default: in the temporary folder].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Plays the demo; fails if anything is not as the scenarios require.
///
/// # Errors
/// What could not be started, or what differs.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let folder = new_folder(arguments.dir)?;
    let paint = Paint::for_stdout();
    introduce(paint);
    let stage = Stage::start(&folder).await?;
    let mut play = Play { paint, stage, checks: 0, differences: Vec::new() };
    println!(
        "  {} broker {} · warehouse {}\n",
        paint.of(Style::Good, "ready"),
        play.stage.broker(),
        play.stage.folder.join("warehouse.db").display()
    );
    play.week().await?;
    play.questions().await?;
    play.drawing().await?;
    let Play { stage, checks, differences, .. } = play;
    stage.stop().await?;
    conclude(paint, &folder, checks, &differences)
}

fn new_folder(asked: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let Some(folder) = asked else {
        return Ok(tempfile::Builder::new().prefix("everwhen-demo-").tempdir()?.keep());
    };
    if folder.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("folder {} is not empty", folder.display());
    }
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make folder {}", folder.display()))?;
    Ok(std::path::absolute(folder)?)
}

fn introduce(paint: Paint) {
    println!("\n{}\n", paint.rule("Everwhen: one week at the office"));
    let text = "Events arrive late, ahead of time and corrected. Each one changes what was, is or \
                will be true; the warehouse tables below must be right after each of them. \
                One process plays it all: a Kafka broker (librdkafka's), the server, delivery, and \
                SQLite as the warehouse. The clock is set by hand.";
    for line in wrap(text, WIDTH - 4) {
        println!("  {line}");
    }
    println!(
        "\n  Marks: {} changed cell   {} changed row   {} new row   {} row that is gone\n",
        paint.of(Style::Changed, "cell*"),
        paint.of(Style::Strong, "~"),
        paint.of(Style::New, "+"),
        paint.of(Style::Gone, "-"),
    );
}

/// The demo under way.
struct Play {
    paint: Paint,
    stage: Stage,
    checks: usize,
    differences: Vec<String>,
}

impl Play {
    fn check<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, found: &T, expected: &T) {
        self.checks += 1;
        if found != expected {
            self.differences.push(format!("{what}: {found:?} instead of {expected:?}"));
        }
    }

    async fn week(&mut self) -> anyhow::Result<()> {
        self.stage.settle().await?;
        let mut before = Vec::new();
        for (table, columns, _) in REPORTS {
            before.push(self.stage.report(table, columns)?);
        }
        for day in story::days() {
            before = self.day(&day, &before).await?;
        }
        Ok(())
    }

    async fn day(&mut self, day: &Day, before: &[Table]) -> anyhow::Result<Vec<Table>> {
        let paint = self.paint;
        println!("{}\n", paint.rule(day.name));
        self.stage.set_clock(day.clock)?;
        self.stage.settle().await?;
        let change = "SELECT _change FROM booking_report WHERE id = 'b1'";
        let written = self.stage.warehouse(change)?;
        for arrival in &day.arrivals {
            println!("{}", arrived(paint, day.clock, arrival));
            for event in &arrival.events {
                self.stage.send(arrival.topic, event).await?;
            }
        }
        self.stage.settle().await?;
        println!();
        let mut after = Vec::new();
        let mut spaced = false;
        for (((table, columns, about), expected), before) in
            REPORTS.into_iter().zip(&day.expected).zip(before)
        {
            let now = self.stage.report(table, columns)?;
            let name = paint.of(Style::Strong, &pad(table, 15));
            spaced = now != *before;
            if now == *before {
                let rows = paint.of(Style::Quiet, &format!("unchanged, {} rows", now.rows.len()));
                println!("  {name}  {rows}");
            } else {
                println!("  {name}  {}", paint.of(Style::Quiet, about));
                for line in before_and_after(paint, before, &now) {
                    println!("{line}");
                }
                println!();
            }
            let expected: Vec<Vec<String>> =
                expected.iter().map(|row| row.iter().map(|c| (*c).to_owned()).collect()).collect();
            self.check(&format!("{table} after {}", day.name), &now.rows, &expected);
            after.push(now);
        }
        if day.name.starts_with("Thursday") {
            let still = self.stage.warehouse(change)?;
            self.check("writes of booking b1 on Thursday", &still.rows, &written.rows);
        }
        let space = if spaced { "" } else { "\n" };
        let lesson = paint.of(Style::Strong, day.lesson);
        println!("{space}  {} {lesson}\n", paint.of(Style::Good, "→"));
        Ok(after)
    }

    async fn questions(&mut self) -> anyhow::Result<()> {
        let paint = self.paint;
        println!("{}\n", paint.rule("Friday evening: an analyst asks"));
        for Question { asks, sql, expected, means } in story::questions() {
            println!("  {}", paint.of(Style::Strong, asks));
            for line in sql.lines() {
                println!("    {}", paint.of(Style::Code, line));
            }
            let mut found = self.stage.ask(sql).await.with_context(|| format!("asking {sql}"))?;
            shorten_instants(&mut found);
            for line in answer(paint, &found) {
                println!("{line}");
            }
            println!("    {} {means}\n", paint.of(Style::Good, "→"));
            let expected: Vec<Vec<String>> =
                expected.iter().map(|row| row.iter().map(|c| (*c).to_owned()).collect()).collect();
            self.check(asks, &found.rows, &expected);
        }
        Ok(())
    }

    async fn drawing(&mut self) -> anyhow::Result<()> {
        let paint = self.paint;
        let desk = story::DRAWN_DESK;
        println!("{}\n", paint.rule(&format!("Desk {desk} on both axes of time")));
        let mut moments = Vec::new();
        let mut labels = Vec::new();
        for (day, expected) in story::days().iter().zip(story::beliefs()) {
            let date = day.clock.get(..10).unwrap_or_default();
            let evening = format!("{date}T18:00:00Z");
            let beliefs = self.beliefs(desk, &evening).await?;
            let rooms: Vec<&str> = beliefs.iter().map(|belief| belief.value.as_str()).collect();
            let what = format!("rooms of {desk} as believed on {}", day.name);
            let (found, expected) = (rooms.join(", "), expected.join(", "));
            self.check(&what, &found, &expected);
            let short = day.name.get(..3).unwrap_or_default();
            labels.push(format!(
                "{short} {}",
                date.get(8..).unwrap_or_default().trim_start_matches('0')
            ));
            let at = instant(&evening)?.micros();
            moments.push(Moment { label: format!("{short} evening"), at, beliefs });
        }
        let drawing = Drawing {
            from: instant(story::WEEK_BEGINS)?.micros(),
            days: labels,
            moments,
            mark: Mark {
                at: instant(story::BOOKING_STARTS)?.micros(),
                text: "Wed 09:00: Bob's booking, in Room B".into(),
            },
        };
        for line in drawing.lines(paint) {
            println!("  {line}");
        }
        println!();
        let coming = if paint.is_coloured() { "dark" } else { "dashed" };
        let legend = format!(
            "◆ marks the evening itself: right of it ({coming}) lies what was yet to come. ▔ underlines \
             what was news since the evening before: Friday's rewrote a part of Wednesday and \
             Thursday. What was believed earlier stays, line by line, and can be asked for."
        );
        for line in wrap(&legend, WIDTH - 4) {
            println!("  {}", paint.of(Style::Quiet, &line));
        }
        println!();
        Ok(())
    }

    /// The versions of a desk over the week as believed at an instant.
    async fn beliefs(&self, desk: &str, at: &str) -> anyhow::Result<Vec<Belief>> {
        let sql = format!(
            "SELECT room, _valid_from, _valid_to FROM desks FOR ALL VALID_TIME \
             FOR SYSTEM_TIME AS OF TIMESTAMP '{at}' WHERE _id = '{desk}' ORDER BY _valid_from"
        );
        let found = self.stage.ask(&sql).await.with_context(|| format!("asking {sql}"))?;
        let bound = |row: &[String], place: usize, open: i64| match row.get(place) {
            Some(text) if !text.is_empty() => instant(text).map(|at| at.micros()),
            _ => Ok(open),
        };
        let mut beliefs = Vec::with_capacity(found.rows.len());
        for row in &found.rows {
            beliefs.push(Belief {
                value: row.first().cloned().unwrap_or_default(),
                from: bound(row, 1, i64::MIN)?,
                to: bound(row, 2, i64::MAX)?,
            });
        }
        Ok(beliefs)
    }
}

/// What arrived, in words and as JSON.
fn arrived(paint: Paint, clock: &str, arrival: &Arrival) -> String {
    let time = clock.get(11..16).unwrap_or_default();
    let topic = paint.of(Style::Code, &format!("{:<9}", arrival.topic));
    let mut text = format!("  {} {topic} {}", paint.of(Style::Quiet, time), arrival.says);
    for event in arrival.events.iter().take(2) {
        let json = paint.of(Style::Quiet, &shown(event));
        text.push_str(&format!("\n{:ARRIVAL_INDENT$}{json}", ""));
    }
    if let Some(more @ 1..) = arrival.events.len().checked_sub(2) {
        let more = paint.of(Style::Quiet, &format!("… and {more} more"));
        text.push_str(&format!("\n{:ARRIVAL_INDENT$}{more}", ""));
    }
    text
}

fn shown(event: &Value) -> String {
    let text = event.to_string();
    let most = WIDTH - ARRIVAL_INDENT;
    if text.chars().count() <= most {
        return text;
    }
    let mut cut: String = text.chars().take(most - 1).collect();
    cut.push('…');
    cut
}

/// Shows instants of the story's week as day and minute.
fn shorten_instants(table: &mut Table) {
    for cell in table.rows.iter_mut().flatten() {
        let Some(date) = cell.get(..11).and_then(|start| start.strip_suffix('T')) else { continue };
        let day = ["Mon", "Tue", "Wed", "Thu", "Fri"]
            .into_iter()
            .zip(5..)
            .find(|(_, number)| date == format!("2026-01-{number:02}"));
        if let (Some((day, _)), Some(time)) = (day, cell.get(11..16)) {
            *cell = format!("{day} {time}");
        }
    }
}

fn conclude(
    paint: Paint,
    folder: &Path,
    checks: usize,
    differences: &[String],
) -> anyhow::Result<()> {
    println!("{}\n", paint.rule("How it went, and how to go on"));
    if differences.is_empty() {
        let text = format!("all {checks} checks hold: the warehouse was right after every day");
        println!("  {}\n", paint.of(Style::Good, &text));
    } else {
        for difference in differences {
            println!("  {} {difference}", paint.of(Style::Bad, "differs:"));
        }
        bail!("{} of {checks} checks do not hold", differences.len());
    }
    let program = std::env::current_exe()
        .map_or_else(|_| "everwhen".to_owned(), |path| path.display().to_string());
    let folder = folder.display();
    let question = "SELECT room, _valid_from, _valid_to, _system_from, _system_to\n      \
                    FROM desks FOR ALL VALID_TIME FOR ALL SYSTEM_TIME WHERE _id = 'd1'";
    for (what, command) in [
        (
            "Serve this data and keep the warehouse right:",
            format!(
                "{program} serve --data {folder}/data \\\n      \
                 --projector {folder}/delivery.toml"
            ),
        ),
        ("Ask it, in another terminal:", format!("{program} sql -c \"{question}\"")),
        (
            "Send late news, and see the warehouse follow:",
            "curl -s http://127.0.0.1:8080/v1/events -H 'content-type: application/json' \\\n      \
             -d '{\"stream\": \"desks\", \"events\": [{\"value\":\n        \
             {\"id\": \"d2\", \"room\": \"Cellar\", \"at\": \"2026-01-07T00:00:00Z\"}}]}'"
                .to_owned(),
        ),
        (
            "Look into the warehouse, an ordinary SQLite file:",
            format!("sqlite3 {folder}/warehouse.db 'SELECT * FROM booking_report'"),
        ),
    ] {
        println!("  {what}\n    {}", paint.of(Style::Code, &command));
    }
    println!();
    Ok(())
}
