//! An object store as a child process: moto's S3 server, also in the form of Google's.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// Which interface it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    S3,
    Gcs,
}

/// A store with one bucket, `bucket`; ends when dropped, or when this process dies.
pub struct Buckets {
    child: Child,
    kind: Kind,
    url: String,
    /// A service account that asks for no token.
    account: String,
    http: reqwest::Client,
}

impl Buckets {
    /// Starts the store and makes its bucket.
    pub async fn start(kind: Kind) -> Result<Self> {
        let python = crate::cache_dir().join("buckets/bin/python");
        ensure!(python.is_file(), "no S3 server at {}: run scripts/setup test", python.display());
        let launcher = Path::new(env!("CARGO_MANIFEST_DIR")).join("buckets/launch.py");
        let mut command = Command::new(python);
        command.arg(launcher).args((kind == Kind::Gcs).then_some("--gcs"));
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = child.stdout.take().context("the server has no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address: Value = serde_json::from_str(&line)
            .with_context(|| format!("the server did not start: {line:?}"))?;
        let url = address["url"].as_str().context("no address")?.to_owned();
        let account = json!({
            "gcs_base_url": url,
            "disable_oauth": true,
            "client_email": "",
            "private_key": "",
            "private_key_id": "",
        });
        let account = account.to_string();
        let store = Self { child, kind, url, account, http: reqwest::Client::new() };
        let made = store.http.put(format!("{}/bucket", store.url)).bearer_auth("x").send().await?;
        ensure!(made.status().is_success(), "no bucket: {}", made.status());
        Ok(store)
    }

    /// Returns the URL of a prefix, as Everwhen takes it.
    pub fn target(&self, prefix: &str) -> String {
        let scheme = if self.kind == Kind::S3 { "s3" } else { "gs" };
        format!("{scheme}://bucket/{prefix}")
    }

    /// Returns the environment by which Everwhen finds the store.
    pub fn environment(&self) -> Vec<(&str, &str)> {
        match self.kind {
            Kind::S3 => vec![
                ("AWS_ENDPOINT_URL", &self.url),
                ("AWS_ALLOW_HTTP", "true"),
                ("AWS_ACCESS_KEY_ID", "test"),
                ("AWS_SECRET_ACCESS_KEY", "test"),
                ("AWS_REGION", "us-east-1"),
            ],
            Kind::Gcs => vec![("GOOGLE_SERVICE_ACCOUNT_KEY", &self.account)],
        }
    }

    fn object(&self, name: &str) -> String {
        format!("{}/bucket/{name}", self.url)
    }

    /// Returns an object's bytes.
    pub async fn get(&self, name: &str) -> Result<Vec<u8>> {
        let got = self.http.get(self.object(name)).bearer_auth("x").send().await?;
        Ok(got.error_for_status()?.bytes().await?.to_vec())
    }

    /// Writes an object.
    pub async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        let put = self.http.put(self.object(name)).bearer_auth("x").body(bytes).send().await?;
        put.error_for_status()?;
        Ok(())
    }

    /// Removes an object.
    pub async fn remove(&self, name: &str) -> Result<()> {
        let removed = self.http.delete(self.object(name)).bearer_auth("x").send().await?;
        removed.error_for_status()?;
        Ok(())
    }

    /// Returns the names of objects that start so, at most a thousand.
    pub async fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let url = format!("{}/bucket?list-type=2&prefix={prefix}", self.url);
        let listed = self.http.get(url).bearer_auth("x").send().await?.text().await?;
        let keys = listed.split("<Key>").skip(1);
        Ok(keys.filter_map(|rest| Some(rest.split_once("</Key>")?.0.to_owned())).collect())
    }

    /// Lets so many more writes through and then refuses all; `None` lets them all through.
    pub async fn fail_after(&self, writes: Option<u64>) -> Result<()> {
        let count = writes.map_or("never".to_owned(), |writes| writes.to_string());
        self.http.post(format!("{}/test/fail-after/{count}", self.url)).send().await?;
        Ok(())
    }

    /// Returns how many bytes of blobs were ever uploaded.
    pub async fn uploaded(&self) -> Result<u64> {
        let told = self.http.get(format!("{}/test/uploaded", self.url)).send().await?;
        let told: Value = told.json().await?;
        told["uploaded"].as_u64().context("no number")
    }
}

impl Drop for Buckets {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
