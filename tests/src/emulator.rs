//! The BigQuery emulator as a child process.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// An emulator; ends when dropped, or when this process dies.
pub struct Emulator {
    child: Child,
    /// The REST half: `http://127.0.0.1:port`.
    pub rest: String,
    http: reqwest::Client,
}

impl Emulator {
    /// Starts the emulator and waits for its addresses.
    pub fn start() -> Result<Self> {
        let python = crate::cache_dir().join("emulator/bin/python");
        if !python.is_file() {
            bail!("no BigQuery emulator at {}: run scripts/setup test", python.display());
        }
        let launcher = Path::new(env!("CARGO_MANIFEST_DIR")).join("emulator/launch.py");
        let mut child = Command::new(python)
            .arg(launcher)
            .arg("--with-parent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = child.stdout.take().context("the emulator has no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let addresses: Value = serde_json::from_str(&line)
            .with_context(|| format!("the emulator did not start: {line:?}"))?;
        let rest = addresses["rest"].as_str().unwrap_or_default().to_owned();
        // The emulator drops a connection after an error: keep none.
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).build()?;
        Ok(Self { child, rest, http })
    }

    /// Runs a query and returns its rows as text cells (`None` for NULL).
    pub async fn query(&self, project: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let url = format!("{}/bigquery/v2/projects/{project}/queries", self.rest);
        let body = json!({ "query": sql, "useLegacySql": false });
        let answer: Value = self.http.post(url).json(&body).send().await?.json().await?;
        if !answer["errors"].is_null() || !answer["error"].is_null() {
            bail!("{sql}\n  answered {answer}");
        }
        let rows = answer["rows"].as_array().cloned().unwrap_or_default();
        Ok(rows
            .iter()
            .map(|row| {
                let cells = row["f"].as_array().cloned().unwrap_or_default();
                cells.iter().map(|cell| text_of(&cell["v"])).collect()
            })
            .collect())
    }
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
