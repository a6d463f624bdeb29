//! A small client of the HTTP interface, and waiting on what a server says of itself.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};

/// Talks to one server.
#[derive(Clone)]
pub struct Client {
    base: String,
    http: reqwest::Client,
}

/// An answer: its HTTP status and JSON body.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Client {
    /// A client of the server at `base` (`http://host:port`).
    pub fn new(base: &str) -> Self {
        Self { base: base.to_owned(), http: reqwest::Client::new() }
    }

    /// Sends a JSON body and returns the answer, whatever its status.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        let sent = self.http.post(format!("{}{path}", self.base)).json(body).send().await?;
        let status = sent.status().as_u16();
        let text = sent.text().await?;
        Ok(Answer { status, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) })
    }

    /// Gets a path and returns the answer, whatever its status.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        let sent = self.http.get(format!("{}{path}", self.base)).send().await?;
        let status = sent.status().as_u16();
        let text = sent.text().await?;
        Ok(Answer { status, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) })
    }

    /// Runs SQL and returns the whole answer; an error status is an error here.
    pub async fn sql(&self, sql: &str) -> Result<Value> {
        let answer = self.post("/v1/sql", &json!({ "sql": sql })).await?;
        if answer.status != 200 {
            bail!("{sql}\n  answered {}: {}", answer.status, answer.body);
        }
        Ok(answer.body)
    }

    /// Runs SQL that must fail and returns the problem.
    pub async fn sql_error(&self, sql: &str) -> Result<Answer> {
        let answer = self.post("/v1/sql", &json!({ "sql": sql })).await?;
        if answer.status == 200 {
            bail!("{sql}\n  was to fail but answered {}", answer.body);
        }
        Ok(answer)
    }

    /// Runs statements of a file one by one: definitions stand alone in their requests.
    pub async fn script(&self, text: &str) -> Result<()> {
        for statement in statements(text) {
            self.sql(&statement).await?;
        }
        Ok(())
    }

    /// Returns the rows of a query.
    pub async fn rows(&self, sql: &str) -> Result<Vec<Vec<Value>>> {
        let answer = self.sql(sql).await?;
        Ok(serde_json::from_value(answer["rows"].clone())?)
    }

    /// Returns the one value of a query with one row and one column.
    pub async fn one(&self, sql: &str) -> Result<Value> {
        let rows = self.rows(sql).await?;
        match rows.as_slice() {
            [row] if row.len() == 1 => Ok(row[0].clone()),
            _ => bail!("{sql}\n  answered {} rows", rows.len()),
        }
    }

    /// Moves the test clock to an RFC 3339 instant.
    pub async fn set_clock(&self, at: &str) -> Result<()> {
        let answer = self.post("/v1/test/clock", &json!({ "set": at })).await?;
        if answer.status != 200 {
            bail!("setting the clock to {at} answered {}: {}", answer.status, answer.body);
        }
        Ok(())
    }

    /// Waits until a stream has read `records` offsets of its topic in all.
    pub async fn wait_ingested(&self, stream: &str, records: i64) -> Result<()> {
        let sql = format!(
            "SELECT coalesce(sum(next_offset), 0) FROM everwhen.streams WHERE stream = '{stream}'"
        );
        eventually(&format!("{stream} to have read {records} records"), || async {
            Ok(self.one(&sql).await?.as_i64().unwrap_or(0) >= records)
        })
        .await
    }

    /// Waits until every projection is delivered up to now: transactions and clock.
    pub async fn wait_delivered(&self) -> Result<()> {
        eventually("all projections to be delivered", || async {
            let status = self
                .rows(
                    "SELECT projection FROM everwhen.projections \
                     WHERE delivered_tx < latest_tx OR delivered_tx IS NULL OR delivered_now IS NULL \
                     OR delivered_now < now()",
                )
                .await?;
            Ok(status.is_empty())
        })
        .await
    }
}

/// Waits up to a minute for a condition; the error says what was waited for.
pub async fn eventually<F, T>(what: &str, condition: F) -> Result<()>
where
    F: Fn() -> T,
    T: Future<Output = Result<bool>>,
{
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut last = None;
    while Instant::now() < deadline {
        match condition().await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    match last {
        Some(error) => bail!("waited a minute for {what}; last error: {error}"),
        None => bail!("waited a minute for {what}"),
    }
}

/// Splits a script at semicolons that end a line; `--` lines are left out.
pub fn statements(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut statement = String::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with("--")) {
        statement.push_str(line);
        statement.push('\n');
        if line.trim_end().ends_with(';') {
            all.push(statement.trim().trim_end_matches(';').to_owned());
            statement.clear();
        }
    }
    if !statement.trim().is_empty() {
        all.push(statement.trim().to_owned());
    }
    all
}
