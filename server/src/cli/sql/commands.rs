//! The commands of the prompt that begin with `\\`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use everwhen_storage::ValidTime;

use super::session::Session;
use super::{Form, copy};

const HELP: &str = "\
Statements end with a semicolon and may take several lines. Tab completes.
  \\d  \\dt         lists tables
  \\d NAME         lists a table's columns
  \\dv  \\ds  \\dp   lists views, streams, projections
  \\asof           shows what queries read at; \\asof off: now, on both axes
  \\asof valid T   reads valid time as of T where a query does not say
  \\asof system T  reads system time as of T where a query does not say
  \\c TENANT       works for another tenant
  \\x              shows each row of a table as lines of names and values, or no more
  \\format F       prints rows as table, csv, json, ndjson or markdown
  \\timing         turns the time that each statement takes on or off
  \\i FILE         runs the statements of a file
  \\o [FILE]       sends answers to a file, or to the screen again
  \\e              edits the last statement in $EDITOR
  \\watch [N]      runs the last statement every N seconds (2), until Ctrl-C
  \\copy T to FILE [F], \\copy (QUERY) to FILE [F]   writes rows to a file
  \\copy T from FILE [csv|ndjson]   inserts the rows of a file
  \\q              ends (so does Ctrl-D)";

/// The commands, for completion.
pub(super) const NAMES: [&str; 17] = [
    "\\asof", "\\c", "\\copy", "\\d", "\\dp", "\\ds", "\\dt", "\\dv", "\\e", "\\format", "\\i",
    "\\o", "\\q", "\\timing", "\\watch", "\\x", "\\?",
];

/// Rounds of \\watch are this far apart unless they say.
const WATCH_SECONDS: f64 = 2.0;

/// Runs a command; a break ends the prompt.
///
/// # Errors
/// What is wrong with it, or what its statement was refused for.
pub(super) async fn run(session: &mut Session, line: &str) -> anyhow::Result<ControlFlow<()>> {
    let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let argument = argument.trim().trim_end_matches(';').trim();
    let file = (!argument.is_empty()).then(|| PathBuf::from(argument.trim_matches('\'')));
    match name {
        "\\q" | "\\quit" => return Ok(ControlFlow::Break(())),
        "\\d" | "\\dt" if argument.is_empty() => {
            session.run("SELECT * FROM everwhen.tables").await?;
        }
        "\\d" => {
            let table = argument.replace('\'', "''");
            let sql = format!("SELECT * FROM everwhen.columns WHERE \"table\" = '{table}'");
            session.run(&sql).await?;
        }
        "\\dv" => session.run("SELECT * FROM everwhen.views").await?,
        "\\ds" => session.run("SELECT * FROM everwhen.streams").await?,
        "\\dp" => session.run("SELECT * FROM everwhen.projections").await?,
        "\\asof" => as_of(session, argument)?,
        "\\c" => {
            session.client.tenant = (!argument.is_empty()).then(|| argument.to_owned());
        }
        "\\x" => {
            session.expanded = !session.expanded;
            println!(
                "rows stand {}",
                if session.expanded { "under each other" } else { "in a table" }
            );
        }
        "\\timing" => {
            session.timing = !session.timing;
            println!("timing is {}", if session.timing { "on" } else { "off" });
        }
        "\\format" => match <Form as clap::ValueEnum>::from_str(argument, true) {
            Ok(form) => session.form = form,
            Err(_) => bail!("formats are: table, csv, json, ndjson, markdown"),
        },
        "\\i" => {
            let file = file.context("\\i takes a file")?;
            let text = read(&file)?;
            session.run_all(&text).await?;
        }
        "\\o" => session.send_to(file.as_deref())?,
        "\\watch" => watch(session, argument).await?,
        "\\copy" => copy::run(session, argument).await?,
        "\\?" | "\\h" | "\\help" => println!("{HELP}"),
        other => bail!("no command {other}; \\? lists them"),
    }
    Ok(ControlFlow::Continue(()))
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

fn as_of(session: &mut Session, argument: &str) -> anyhow::Result<()> {
    let client = &mut session.client;
    let (axis, at) = argument.split_once(char::is_whitespace).unwrap_or((argument, ""));
    let at = at.trim().trim_matches('\'');
    let given = match at {
        "" | "now" | "off" => None,
        at => {
            ValidTime::parse(at).with_context(|| format!("\"{at}\" is no instant"))?;
            Some(at.to_owned())
        }
    };
    match axis {
        "" => {}
        "off" | "now" => (client.valid_time, client.system_time) = (None, None),
        "valid" => client.valid_time = given,
        "system" => client.system_time = given,
        _ => bail!("\\asof takes valid T, system T or off"),
    }
    let shown = |at: &Option<String>| at.clone().unwrap_or_else(|| "now".to_owned());
    println!(
        "valid time as of {}, system time as of {}",
        shown(&client.valid_time),
        shown(&client.system_time)
    );
    Ok(())
}

/// Runs the last statement again and again.
async fn watch(session: &mut Session, argument: &str) -> anyhow::Result<()> {
    let seconds = match argument {
        "" => WATCH_SECONDS,
        text => text
            .parse()
            .ok()
            .filter(|s| (0.1..=86_400.0).contains(s))
            .context("\\watch takes a number of seconds, from 0.1 to 86400")?,
    };
    ensure!(!session.last.is_empty(), "there is no statement to watch yet");
    let sql = session.last.clone();
    loop {
        session.run(&sql).await?;
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs_f64(seconds)) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

/// Opens the user's editor on a text and returns what it was made into.
///
/// # Errors
/// Where the editor cannot be run or fails.
pub(super) fn edited(text: &str) -> anyhow::Result<String> {
    let file = tempfile::Builder::new().prefix("everwhen-").suffix(".sql").tempfile()?;
    std::fs::write(file.path(), text)?;
    let editor = ["VISUAL", "EDITOR"].iter().find_map(std::env::var_os);
    let editor = editor.unwrap_or_else(|| "vi".into());
    let ended = std::process::Command::new("sh")
        .arg("-c")
        .arg("exec $0 \"$1\"")
        .arg(&editor)
        .arg(file.path())
        .status()
        .with_context(|| format!("cannot run {}", editor.display()))?;
    ensure!(ended.success(), "the editor failed: {ended}");
    read(file.path())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::sql::client::Client;

    #[tokio::test]
    async fn as_of_is_kept_and_checked() {
        let client = Client::new("http://127.0.0.1:1", None).unwrap();
        let mut session = Session::new(client, Form::Table);
        for line in ["\\asof valid 2026-01-05", "\\asof system '2026-01-06T00:00:00Z'", "\\x"] {
            assert!(run(&mut session, line).await.unwrap().is_continue());
        }
        assert_eq!(session.client.valid_time.as_deref(), Some("2026-01-05"));
        assert_eq!(session.client.system_time.as_deref(), Some("2026-01-06T00:00:00Z"));
        assert!(session.expanded);
        assert!(run(&mut session, "\\asof valid yesterday").await.is_err());
        assert!(run(&mut session, "\\nope").await.is_err());
        assert!(run(&mut session, "\\watch").await.is_err());
        assert!(run(&mut session, "\\asof off").await.unwrap().is_continue());
        assert_eq!(
            (session.client.valid_time.clone(), session.client.system_time.clone()),
            (None, None)
        );
        assert!(run(&mut session, "\\q").await.unwrap().is_break());
    }
}
