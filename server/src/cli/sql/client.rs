//! Talks to a server's `/v1/sql`.

use anyhow::Context as _;
use futures::StreamExt as _;
use serde_json::{Map, Value, json};

use super::{Form, split};
use crate::cli::Told;

/// A server and what every statement is sent with.
pub struct Client {
    http: reqwest::Client,
    url: String,
    pub tenant: Option<String>,
    /// What queries read at where they do not say.
    pub valid_time: Option<String>,
    pub system_time: Option<String>,
}

impl Client {
    /// Builds a client; nothing is sent yet.
    ///
    /// # Errors
    /// Where no connection could ever be made.
    pub fn new(url: &str, tenant: Option<String>) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().build().context("cannot set up HTTP")?;
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { http, url, tenant, valid_time: None, system_time: None })
    }

    /// Sends one statement and answers with the JSON document.
    ///
    /// # Errors
    /// The server's refusal, drawn for people, or that none answers.
    pub async fn ask(&self, sql: &str) -> anyhow::Result<Value> {
        self.ask_with(sql, Vec::new()).await
    }

    /// As [`Client::ask`], with values for `$1`...
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn ask_with(&self, sql: &str, params: Vec<Value>) -> anyhow::Result<Value> {
        let answer = self.send(sql, params, "application/json").await?;
        answer.json().await.context("the answer broke off")
    }

    /// Sends one statement and copies the answer as it comes. A write's answer is not copied.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn copy(
        &self,
        sql: &str,
        form: Form,
        out: &mut dyn std::io::Write,
    ) -> anyhow::Result<()> {
        let kind = if form == Form::Csv { "text/csv" } else { "application/x-ndjson" };
        let answer = self.send(sql, Vec::new(), kind).await?;
        let told = answer.headers().get("content-type").and_then(|kind| kind.to_str().ok());
        if !told.is_some_and(|told| told.starts_with(kind)) {
            return Ok(());
        }
        let mut tail = Vec::new();
        let mut pieces = answer.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.context("the answer broke off")?;
            out.write_all(&piece).context("cannot print")?;
            tail.extend_from_slice(&piece);
            let keep = tail.len().saturating_sub(64 << 10);
            tail.drain(..keep);
        }
        out.flush().context("cannot print")?;
        match (form, failure_line(&tail)) {
            (Form::Ndjson, Some(problem)) => Err(Told(problem_text(sql, &problem)).into()),
            _ => Ok(()),
        }
    }

    async fn send(
        &self,
        sql: &str,
        params: Vec<Value>,
        accept: &str,
    ) -> anyhow::Result<reqwest::Response> {
        let mut body = Map::new();
        body.insert("sql".to_owned(), json!(sql));
        if !params.is_empty() {
            body.insert("params".to_owned(), Value::Array(params));
        }
        // A write is refused with them.
        let as_of = split::reads(sql).then_some([&self.valid_time, &self.system_time]);
        let [valid_time, system_time] = as_of.unwrap_or([&None, &None]);
        let given =
            [("tenant", &self.tenant), ("valid_time", valid_time), ("system_time", system_time)];
        for (name, value) in given {
            if let Some(value) = value {
                body.insert(name.to_owned(), json!(value));
            }
        }
        let answer = self
            .http
            .post(format!("{}/v1/sql", self.url))
            .header("accept", accept)
            .json(&body)
            .send()
            .await
            .with_context(|| format!("no server answers at {}", self.url))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        match serde_json::from_str::<Value>(&text) {
            Ok(problem) if problem["detail"].is_string() => {
                Err(Told(problem_text(sql, &problem)).into())
            }
            _ => anyhow::bail!("{} answers {status}, which is no answer of an Everwhen", self.url),
        }
    }
}

/// Returns the failure that ends an NDJSON answer, if one does.
fn failure_line(tail: &[u8]) -> Option<Value> {
    let last = tail.trim_ascii_end().rsplit(|byte| *byte == b'\n').next()?;
    let line: Map<String, Value> = serde_json::from_slice(last).ok()?;
    let problem = line.get("error").filter(|_| line.len() == 1)?;
    (problem["detail"].is_string() && problem["sqlstate"].is_string()).then(|| problem.clone())
}

/// Draws a problem for people: what, where with a caret, and advice.
pub fn problem_text(sql: &str, problem: &Value) -> String {
    let text = |name: &str| problem[name].as_str().unwrap_or_default();
    let mut out = format!("error: {} ({})", text("detail"), text("sqlstate"));
    let position = problem["position"].as_u64().and_then(|at| usize::try_from(at).ok());
    if let Some(drawn) = position.and_then(|position| caret(sql, position)) {
        out.push('\n');
        out.push_str(&drawn);
    }
    if !text("hint").is_empty() {
        out.push_str("\nhint: ");
        out.push_str(text("hint"));
    }
    out
}

/// Draws the line of a 1-based character with a caret below it.
fn caret(sql: &str, position: usize) -> Option<String> {
    let before: String = sql.chars().take(position.checked_sub(1)?).collect();
    if before.chars().count() + 1 < position {
        return None;
    }
    let number = before.matches('\n').count();
    let column = before.chars().rev().take_while(|c| *c != '\n').count();
    let line = sql.lines().nth(number).unwrap_or_default();
    let label = format!("line {}: ", number + 1);
    let pad: String =
        line.chars().take(column).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    Some(format!("{label}{line}\n{}{pad}^", " ".repeat(label.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caret_stands_below_the_character() {
        assert_eq!(caret("SELEC 1", 1).unwrap(), "line 1: SELEC 1\n        ^");
        assert_eq!(caret("SELECT\n  é, x", 13).unwrap(), "line 2:   é, x\n             ^");
        assert!(caret("x", 9).is_none());
    }

    #[test]
    fn problem_shows_state_place_and_hint() {
        let problem =
            json!({"detail": "no such thing", "sqlstate": "42703", "position": 8, "hint": "look"});
        let text = problem_text("SELECT y", &problem);
        assert_eq!(
            text,
            "error: no such thing (42703)\nline 1: SELECT y\n               ^\nhint: look"
        );
    }

    #[test]
    fn failure_line_is_told_from_a_row() {
        assert!(failure_line(b"{\"error\":1}\n").is_none());
        let line = b"{\"a\":1}\n{\"error\":{\"detail\":\"late\",\"sqlstate\":\"57014\"}}\n";
        assert_eq!(failure_line(line).unwrap()["detail"], "late");
    }
}
