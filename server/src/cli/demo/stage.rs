//! What the story is played on: a broker, a server under a manual clock, delivery, a warehouse file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use everwhen_ingest::mock::Broker;
use everwhen_storage::{Clock as _, ManualClock, ValidTime};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use super::report::Table;
use super::story;
use crate::app::{App, RunningApp};
use crate::config::Config;

/// How often to look whether the warehouse is up to date, before giving up.
const SETTLE_LOOKS: u32 = 1500;
/// How long to wait between looks.
const SETTLE_POLL: Duration = Duration::from_millis(20);

/// Everything that runs.
pub struct Stage {
    broker: Broker,
    app: RunningApp,
    clock: Arc<ManualClock>,
    http: reqwest::Client,
    /// Records sent so far, by topic.
    sent: Vec<(&'static str, i64)>,
    /// The folder that holds everything.
    pub folder: PathBuf,
}

impl Stage {
    /// Starts everything in `folder` and defines the models.
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        let broker = Broker::start().context("cannot start the broker inside the process")?;
        for topic in story::TOPICS {
            broker.create_topic(topic, 1)?;
        }
        let delivery = folder.join("delivery.toml");
        let warehouse = toml::Value::String(folder.join("warehouse.db").display().to_string());
        let text = format!("[sinks.warehouse]\ntype = \"sqlite\"\npath = {warehouse}\n");
        std::fs::write(&delivery, text)
            .with_context(|| format!("cannot write {}", delivery.display()))?;
        let begins = instant(story::WEEK_BEGINS)?;
        let clock = Arc::new(ManualClock::at(begins.micros()));
        let mut config = Config::in_process(folder.join("data"));
        config.projector = Some(delivery);
        config.test_clock = Some(begins);
        let app = App::start(config, clock.clone()).await?;
        let stage = Self {
            broker,
            app,
            clock,
            http: reqwest::Client::new(),
            sent: story::TOPICS.map(|topic| (topic, 0)).to_vec(),
            folder: folder.to_owned(),
        };
        for model in story::MODELS {
            stage.define(model).await?;
        }
        Ok(stage)
    }

    /// The broker's address.
    pub fn broker(&self) -> String {
        self.broker.address()
    }

    /// Ends everything in order; the folder stays.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.app.shutdown().await?;
        Ok(())
    }

    async fn define(&self, model: &str) -> anyhow::Result<()> {
        let model = model.replace("${brokers}", &self.broker.address()).replace("${prefix}", "");
        for statement in statements(&model) {
            self.ask(&statement).await.with_context(|| format!("defining: {statement}"))?;
        }
        Ok(())
    }

    /// Moves the clock to an instant in RFC 3339.
    pub fn set_clock(&self, at: &str) -> anyhow::Result<()> {
        Ok(self.clock.set(instant(at)?.micros())?)
    }

    /// Sends an event to its topic.
    pub async fn send(&mut self, topic: &str, event: &Value) -> anyhow::Result<()> {
        let key = event["id"].as_str().unwrap_or_default();
        let timestamp_ms = self.clock.now_micros() / 1000;
        self.broker.produce(topic, key, &event.to_string(), timestamp_ms).await?;
        for (known, sent) in &mut self.sent {
            if *known == topic {
                *sent += 1;
            }
        }
        Ok(())
    }

    /// Waits until all records are in and all projections are delivered up to now.
    pub async fn settle(&self) -> anyhow::Result<()> {
        let mut looks = SETTLE_LOOKS;
        while let Some(missing) = self.unsettled().await? {
            looks -= 1;
            if looks == 0 {
                bail!("the warehouse does not get up to date: {missing}");
            }
            tokio::time::sleep(SETTLE_POLL).await;
        }
        Ok(())
    }

    /// Says what is still missing.
    async fn unsettled(&self) -> anyhow::Result<Option<String>> {
        let streams = self.ask("SELECT topic, next_offset FROM everwhen.streams").await?;
        for (topic, sent) in &self.sent {
            let read: i64 = streams
                .rows
                .iter()
                .filter(|row| row.first().is_some_and(|name| name == topic))
                .filter_map(|row| row.get(1)?.parse::<i64>().ok())
                .sum();
            if read < *sent {
                return Ok(Some(format!("{read} of {sent} records of topic {topic} are in")));
            }
        }
        let now = self.clock.now_micros();
        let sql = "SELECT projection, delivered_tx, latest_tx, delivered_now, error \
                   FROM everwhen.projections";
        let projections = self.ask(sql).await?;
        if projections.rows.len() < story::REPORTS.len() {
            return Ok(Some("projections are missing".into()));
        }
        for row in &projections.rows {
            let cell = |place: usize| row.get(place).map_or("", String::as_str);
            let number = |place: usize| cell(place).parse::<u64>().unwrap_or(0);
            let shown = ValidTime::parse(cell(3)).map_or(i64::MIN, ValidTime::micros);
            if number(1) < number(2) || shown < now {
                return Ok(Some(format!("projection {}: {}", cell(0), row.join(", "))));
            }
        }
        Ok(None)
    }

    /// Runs a statement over HTTP, as anybody would, and returns its rows as text.
    pub async fn ask(&self, sql: &str) -> anyhow::Result<Table> {
        let base = self.app.endpoints.http.as_deref().context("there is no HTTP listener")?;
        let url = format!("{base}/v1/sql");
        let answer = self.http.post(url).json(&json!({ "sql": sql })).send().await?;
        let accepted = answer.status().is_success();
        let body: Value = answer.json().await?;
        if !accepted {
            bail!("{}", body["detail"].as_str().unwrap_or("the server refused"));
        }
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let columns = list(&body["columns"]);
        let rows = list(&body["rows"]);
        Ok(Table {
            columns: columns.iter().map(|column| text_of(&column["name"])).collect(),
            rows: rows.iter().map(|row| list(row).iter().map(text_of).collect()).collect(),
        })
    }

    /// Reads a warehouse table from its file, as a reporting tool would.
    pub fn report(&self, table: &str, columns: &str) -> anyhow::Result<Table> {
        self.warehouse(&format!("SELECT {columns} FROM {table} ORDER BY 1"))
    }

    /// Reads the warehouse file.
    pub fn warehouse(&self, sql: &str) -> anyhow::Result<Table> {
        let path = self.folder.join("warehouse.db");
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        let mut statement = connection.prepare(sql)?;
        let columns: Vec<String> =
            statement.column_names().into_iter().map(str::to_owned).collect();
        let mut found = statement.query([])?;
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            let mut cells = Vec::with_capacity(columns.len());
            for place in 0..columns.len() {
                cells.push(match row.get_ref(place)? {
                    ValueRef::Null => String::new(),
                    ValueRef::Integer(value) => value.to_string(),
                    ValueRef::Real(value) => value.to_string(),
                    ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                    ValueRef::Blob(bytes) => format!("{} bytes", bytes.len()),
                });
            }
            rows.push(cells);
        }
        Ok(Table { columns, rows })
    }
}

/// Reads an instant in RFC 3339.
pub fn instant(text: &str) -> anyhow::Result<ValidTime> {
    ValidTime::parse(text).with_context(|| format!("\"{text}\" is no instant"))
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Cuts a model into its statements. Models have no semicolons inside text.
fn statements(model: &str) -> Vec<String> {
    let code: Vec<&str> =
        model.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
    let code = code.join("\n");
    let parts = code.split(';').map(str::trim).filter(|part| !part.is_empty());
    parts.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_cut_into_statements() {
        for model in story::MODELS {
            let statements = statements(model);
            assert_eq!(statements.len(), 5, "{statements:#?}");
            assert!(statements.iter().all(|statement| statement.starts_with("CREATE ")));
        }
    }
}
