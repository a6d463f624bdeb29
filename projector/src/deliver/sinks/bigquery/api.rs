//! BigQuery's REST API: queries, answers as text, errors by what a caller can do.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gcp_bigquery_client::auth::Authenticator;
use gcp_bigquery_client::client_builder::ClientBuilder;
use gcp_bigquery_client::error::BQError;
use gcp_bigquery_client::model::dataset::Dataset;
use gcp_bigquery_client::model::error_proto::ErrorProto;
use gcp_bigquery_client::model::get_query_results_parameters::GetQueryResultsParameters;
use gcp_bigquery_client::model::query_request::QueryRequest;
use gcp_bigquery_client::model::query_response::QueryResponse;
use gcp_bigquery_client::model::table_row::TableRow;

use crate::deliver::config::BigQueryConfig;
use crate::deliver::error::{Error, Result};

/// How long one request waits for a query; a longer one is asked for again.
const QUERY_WAIT: Duration = Duration::from_secs(20);

/// How long one request may take in all.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Rows of an answer, each value as text.
pub type TextRows = Vec<Vec<Option<String>>>;

/// Reasons in an error that pass by themselves, whatever the status beside them.
const PASSING: [&str; 10] = [
    "backendError",
    "internalError",
    "jobBackendError",
    "jobInternalError",
    "jobRateLimitExceeded",
    "quotaExceeded",
    "rateLimitExceeded",
    "tableUnavailable",
    "timeout",
    "stopped",
];

/// A dataset of a project.
pub struct Api {
    client: gcp_bigquery_client::Client,
    sink: String,
    location: Option<String>,
    /// The project's id.
    pub project: String,
    /// The dataset's id.
    pub dataset: String,
}

impl Api {
    /// Makes a client; calls nothing yet.
    pub async fn new(sink: &str, config: &BigQueryConfig) -> Result<Self> {
        let wrong = |detail: String| Error::Config { what: format!("sink \"{sink}\""), detail };
        let mut http = reqwest::Client::builder().timeout(REQUEST_TIMEOUT);
        let mut builder = ClientBuilder::new();
        if let Some(endpoint) = &config.endpoint {
            builder.with_v2_base_url(format!("{}/bigquery/v2", endpoint.trim_end_matches('/')));
            // Emulators drop connections after an error.
            http = http.pool_max_idle_per_host(0);
        }
        builder.with_client(http.build().map_err(|error| wrong(error.to_string()))?);
        let client = match (&config.credentials, &config.endpoint) {
            (Some(path), _) => {
                let path = path.to_str().ok_or_else(|| wrong("path is no UTF-8".into()))?;
                builder.build_from_service_account_key_file(path).await
            }
            (None, Some(_)) => builder.build_from_authenticator(Arc::new(NoAuth)).await,
            (None, None) => return Err(wrong("credentials are missing".into())),
        };
        Ok(Self {
            client: client.map_err(|error| wrong(format!("credentials: {error}")))?,
            sink: sink.into(),
            location: config.location.clone(),
            project: config.project.clone(),
            dataset: config.dataset.clone(),
        })
    }

    /// Makes the dataset; it may be there already.
    pub async fn create_dataset(&self) -> Result<()> {
        let mut dataset = Dataset::new(&self.project, &self.dataset);
        if let Some(location) = &self.location {
            dataset = dataset.location(location);
        }
        match self.client.dataset().create(dataset).await {
            Ok(_) => Ok(()),
            Err(BQError::ResponseError { error }) if error.error.code == 409 => Ok(()),
            Err(error) => Err(self.error(error)),
        }
    }

    /// Runs a statement or script to its end.
    pub async fn query(&self, sql: String) -> Result<TextRows> {
        let mut request = QueryRequest::new(sql);
        request.location.clone_from(&self.location);
        request.timeout_ms = i32::try_from(QUERY_WAIT.as_millis()).ok();
        let answer = self.client.job().query(&self.project, request).await;
        let mut answer = answer.map_err(|error| self.error(error))?;
        let job = answer.job_reference.clone();
        let mut rows = TextRows::new();
        loop {
            self.check(&answer)?;
            let complete = answer.job_complete.unwrap_or(false);
            if complete {
                rows.extend(answer.rows.take().unwrap_or_default().into_iter().map(text_row));
            }
            let page_token = answer.page_token.take().filter(|token| !token.is_empty());
            if complete && page_token.is_none() {
                return Ok(rows);
            }
            let id = job.as_ref().and_then(|job| job.job_id.clone()).ok_or_else(|| {
                self.unavailable("no job", "an unfinished answer names no job".into())
            })?;
            let parameters = GetQueryResultsParameters {
                location: job.as_ref().and_then(|job| job.location.clone()),
                page_token,
                timeout_ms: i32::try_from(QUERY_WAIT.as_millis()).ok(),
                ..GetQueryResultsParameters::default()
            };
            let more = self.client.job().get_query_results(&self.project, &id, parameters).await;
            answer = more.map_err(|error| self.error(error))?.into();
        }
    }

    /// A query can fail in an answer of status 200.
    fn check(&self, answer: &QueryResponse) -> Result<()> {
        let Some(error) = answer.errors.as_ref().and_then(|errors| errors.first()) else {
            return Ok(());
        };
        let ErrorProto { message, reason, .. } = error.clone();
        let reason = reason.unwrap_or_else(|| "unknown".into());
        let message = message.unwrap_or_default();
        Err(if PASSING.contains(&reason.as_str()) {
            self.unavailable(&reason, message)
        } else {
            self.refused(&reason, message)
        })
    }

    fn error(&self, error: BQError) -> Error {
        match error {
            BQError::ResponseError { error } => {
                let error = error.error;
                let reason = error.errors.first().and_then(|one| one.get("reason"));
                let reason = reason.cloned().unwrap_or_else(|| error.status.clone());
                let code = format!("{} {reason}", error.code);
                let passing = matches!(error.code, 408 | 429 | 500..=599)
                    || PASSING.contains(&reason.as_str());
                if passing {
                    self.unavailable(code.trim_end(), error.message)
                } else if error.code == 404 {
                    self.refused("notFound", error.message)
                } else {
                    self.refused(code.trim_end(), error.message)
                }
            }
            // No answer, or one that is not BigQuery's: the network or something on the way.
            BQError::RequestError(error) => {
                let mut text = error.to_string();
                let mut cause = std::error::Error::source(&error);
                while let Some(inner) = cause {
                    text = format!("{text}: {inner}");
                    cause = inner.source();
                }
                self.unavailable("no answer", text)
            }
            other => self.refused("client", other.to_string()),
        }
    }

    fn refused(&self, code: &str, detail: String) -> Error {
        Error::Refused { sink: self.sink.clone(), code: code.into(), detail }
    }

    fn unavailable(&self, code: &str, detail: String) -> Error {
        Error::Unavailable { sink: self.sink.clone(), code: code.into(), detail }
    }
}

fn text_row(row: TableRow) -> Vec<Option<String>> {
    let cells = row.columns.unwrap_or_default().into_iter();
    cells
        .map(|cell| match cell.value {
            None | Some(serde_json::Value::Null) => None,
            Some(serde_json::Value::String(text)) => Some(text),
            Some(other) => Some(other.to_string()),
        })
        .collect()
}

/// Asks nobody: for emulators.
#[derive(Clone)]
struct NoAuth;

#[async_trait]
impl Authenticator for NoAuth {
    async fn access_token(&self) -> Result<String, BQError> {
        Ok("none".into())
    }
}
