//! `everwhen status`.

use std::io::Write as _;

use anyhow::Context as _;
use serde_json::Value;

use super::DEFAULT_URL;
use super::sql::table;

/// Which server to ask.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// URL of the server's HTTP listener.
    #[arg(long, env = "EVERWHEN_URL", default_value = DEFAULT_URL)]
    url: String,
    /// Prints the JSON document as it came.
    #[arg(long)]
    json: bool,
}

/// Prints how a server stands.
///
/// # Errors
/// Where it cannot be reached.
pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let url = format!("{}/v1/status", arguments.url.trim_end_matches('/'));
    let answer = reqwest::get(&url)
        .await
        .with_context(|| format!("no server answers at {}", arguments.url))?;
    let status: Value = answer.error_for_status()?.json().await?;
    let mut out = std::io::stdout();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&status)?)?;
        return Ok(());
    }
    for name in ["version", "state", "incarnation", "clock", "now", "latest_tx"] {
        writeln!(out, "{name:<12} {}", plain(&status[name]))?;
    }
    for name in ["streams", "projections"] {
        let rows = status[name].as_array().map(Vec::as_slice).unwrap_or_default();
        writeln!(out, "\n{name}")?;
        out.write_all(objects(rows).as_bytes())?;
    }
    Ok(())
}

/// Draws JSON objects of one shape as a table.
fn objects(rows: &[Value]) -> String {
    let Some(first) = rows.first().and_then(Value::as_object) else {
        return "  none\n".to_owned();
    };
    let names: Vec<String> = first.keys().cloned().collect();
    let cells = |row: &Value| names.iter().map(|name| plain(&row[name])).collect::<Vec<_>>();
    table::draw(&names, &rows.iter().map(cells).collect::<Vec<_>>(), &[])
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
