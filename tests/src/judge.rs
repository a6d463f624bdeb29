//! DuckDB as a judge: it holds what a suite wrote and compares a sink with a query over that.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

/// A process of Python with DuckDB in it, as `scripts/setup` puts it into the cache.
pub struct Judge {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Judge {
    /// Starts the process over an empty database.
    pub fn start() -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("judge/judge.py");
        let mut child = Command::new(crate::cache_dir().join("emulator/bin/python"))
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("DuckDB is not set up: scripts/setup test")?;
        let to = child.stdin.take().context("the judge has no stdin")?;
        let from = BufReader::new(child.stdout.take().context("the judge has no stdout")?);
        Ok(Self { child, to, from })
    }

    /// Runs a statement and returns its rows.
    pub fn run(&mut self, sql: &str) -> Result<Vec<Vec<Value>>> {
        let answer = self.ask(&json!({ "run": sql })).with_context(|| sql.to_owned())?;
        Ok(serde_json::from_value(answer["rows"].clone())?)
    }

    /// Makes a table of a CSV file without a header, or adds the file to it. `columns` are `name TYPE, ..`.
    pub fn read_csv(&mut self, table: &str, columns: &str, path: &Path) -> Result<()> {
        self.run(&format!("CREATE TABLE IF NOT EXISTS {table} ({columns})"))?;
        let path = path.display();
        let form = "FORMAT csv, AUTO_DETECT false, DELIMITER ',', HEADER false, NULLSTR ''";
        self.run(&format!("COPY {table} FROM '{path}' ({form})"))?;
        Ok(())
    }

    /// Compares the rows of a SQLite query with those of a DuckDB query, as text; returns how many
    /// there are.
    ///
    /// # Errors
    /// The number of rows that only one of the two has, with the first few.
    pub fn compare(&mut self, sqlite: &Path, select: &str, expected: &str) -> Result<u64> {
        let request = json!({ "compare": expected, "sqlite": sqlite.display().to_string(), "select": select });
        let answer = self.ask(&request).with_context(|| expected.to_owned())?;
        ensure!(
            answer["differences"] == 0,
            "{select}: {} rows differ of {} expected, {} found; expected only: {}; found only: {}",
            answer["differences"],
            answer["expected"],
            answer["found"],
            answer["missing"],
            answer["surplus"],
        );
        answer["found"].as_u64().context("the judge counted no rows")
    }

    fn ask(&mut self, request: &Value) -> Result<Value> {
        writeln!(self.to, "{request}")?;
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line).context("the judge has ended")?;
        match answer["error"].as_str() {
            Some(error) => bail!("{error}"),
            None => Ok(answer),
        }
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
