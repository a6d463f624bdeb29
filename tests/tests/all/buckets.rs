//! Snapshots in buckets of object stores, over the wire: uploads that break off leave nothing, only
//! what is new is sent, what was changed is refused by name, and what is restored answers as then
//! (O11, O13).

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use everwhen_tests::buckets::{Buckets, Kind};
use everwhen_tests::one_at_a_time;
use everwhen_tests::process::{Said, Server, run_with_env};
use serde_json::{Value, json};

const CLOCK: &str = "2026-03-01T00:00:00Z";

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A server that may write to a bucket.
struct Place {
    dir: tempfile::TempDir,
    store: Buckets,
    server: Server,
    target: String,
}

impl Place {
    async fn start(kind: Kind) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let store = Buckets::start(kind).await?;
        let target = store.target("back/up");
        let config = dir.path().join("everwhen.toml");
        std::fs::write(&config, format!("snapshot_targets = [{target:?}]\n"))?;
        let server = Self::serve(dir.path(), &store, None).await?;
        server.client.sql("CREATE TABLE desks (_id TEXT, room TEXT, n BIGINT)").await?;
        Ok(Self { dir, store, server, target })
    }

    async fn serve(dir: &Path, store: &Buckets, failpoint: Option<&str>) -> Result<Server> {
        let config = text(&dir.join("everwhen.toml"));
        let mut env = store.environment();
        env.extend(failpoint.map(|point| ("EVERWHEN_FAILPOINTS", point)));
        let more = ["--config", config.as_str()];
        Server::start_with_env(&dir.join("data"), Some(CLOCK), &more, &env).await
    }

    async fn restart(&mut self, failpoint: Option<&str>) -> Result<()> {
        self.server.kill();
        self.server = Self::serve(self.dir.path(), &self.store, failpoint).await?;
        Ok(())
    }

    async fn write(&self, n: usize) -> Result<()> {
        let padding = "room ".repeat(200);
        let row = |k: usize| format!("('d{}', '{padding}{n}.{k}', {n})", k % 50);
        let rows: Vec<String> = (0..200).map(row).collect();
        let sql = format!("INSERT INTO desks (_id, room, n) VALUES {}", rows.join(", "));
        self.server.client.sql(&sql).await?;
        Ok(())
    }

    fn run(&self, args: &[&str]) -> Result<Said> {
        run_with_env(args, &self.store.environment())
    }

    fn create(&self) -> Result<Said> {
        self.run(&["snapshot", "create", "--to", &self.target, "--url", &self.server.http])
    }

    fn listed(&self) -> Result<Vec<Value>> {
        let listed = self.run(&["snapshot", "list", "--json", "--from", &self.target])?;
        if listed.err.contains("no snapshots") {
            return Ok(Vec::new());
        }
        ensure!(listed.success, "{listed:?}");
        let listed: Value = serde_json::from_str(&listed.out)?;
        Ok(listed["snapshots"].as_array().context("no list")?.clone())
    }

    fn restore(&self, name: &str) -> Result<Said> {
        let data = text(&self.dir.path().join(name));
        self.run(&["restore", "--from", &self.target, "--data", &data])
    }
}

async fn answers(server: &Server) -> Result<String> {
    let sql = "SELECT _id, room, n, _valid_from, _system_from, _system_to FROM desks \
               FOR ALL VALID_TIME FOR ALL SYSTEM_TIME ORDER BY _id, _valid_from, _system_from";
    Ok(server.client.sql(sql).await?["rows"].to_string())
}

async fn round(kind: Kind) -> Result<()> {
    let mut place = Place::start(kind).await?;
    place.write(1).await?;
    broken_off(&mut place).await?;

    place.restart(None).await?;
    let created = place.create()?;
    ensure!(created.success, "{created:?}");
    let first = place.store.uploaded().await?;
    place.write(2).await?;
    let right = answers(&place.server).await?;
    let created = place.create()?;
    ensure!(created.success, "{created:?}");
    ensure!(place.listed()?.len() == 2, "{:?}", place.listed()?);
    let verified = place.run(&["snapshot", "verify", "--from", &place.target])?;
    ensure!(verified.success, "{verified:?}");
    // What was there is not sent again: a third one, of nothing new, sends less than the first two.
    let before = place.store.uploaded().await?;
    ensure!(place.create()?.success);
    let third = place.store.uploaded().await? - before;
    ensure!(third < first, "{first} bytes, then {third}");

    changed(&place).await?;
    let restored = place.restore("restored")?;
    ensure!(restored.success && restored.out.contains("transaction"), "{restored:?}");
    let mut again = Server::start(&place.dir.path().join("restored"), Some(CLOCK)).await?;
    ensure!(answers(&again).await? == right, "it answers otherwise");
    again.stop()?;

    // Those who were killed hold their locks for two minutes, which are not waited for here.
    let locks = place.store.names("back/up/locks/").await?;
    ensure!(locks.len() >= 2, "{locks:?}");
    let prune = ["snapshot", "prune", "--from", &place.target, "--keep-last", "1"];
    let early = place.run(&prune)?;
    ensure!(!early.success && early.err.contains("try again"), "{early:?}");
    for lock in locks {
        place.store.remove(&lock).await?;
    }
    let pruned = place.run(&prune)?;
    ensure!(pruned.success && pruned.out.contains("removed 1, 2; kept 3"), "{pruned:?}");
    ensure!(place.store.names("back/up/locks/").await?.is_empty(), "locks were left");
    let verified = place.run(&["snapshot", "verify", "--from", &place.target])?;
    ensure!(verified.success, "{verified:?}");
    place.server.stop()
}

/// Kills the server in the middle of an upload, and lets the store refuse: nothing is ever listed.
async fn broken_off(place: &mut Place) -> Result<()> {
    for point in ["snapshot.part_put=abort@3", "snapshot.before_manifest=abort"] {
        place.restart(Some(point)).await?;
        let created = place.create()?;
        ensure!(!created.success, "{point} did not end the server");
        ensure!(place.listed()?.is_empty(), "{point}: {:?}", place.listed()?);
    }
    ensure!(!place.store.names("back/up/blobs/").await?.is_empty(), "nothing was uploaded");
    place.restart(None).await?;
    place.store.fail_after(Some(4)).await?;
    let created = place.create()?;
    place.store.fail_after(None).await?;
    ensure!(!created.success && created.err.contains(&place.target), "{created:?}");
    ensure!(place.listed()?.is_empty(), "{:?}", place.listed()?);
    Ok(())
}

/// Changes a blob, then takes it away.
async fn changed(place: &Place) -> Result<()> {
    let names = place.store.names("back/up/snapshots/").await?;
    let last = names.last().context("no manifest")?;
    let manifest = String::from_utf8(place.store.get(last).await?)?;
    let (_, document) = manifest.split_once('\n').context("one line")?;
    let document: Value = serde_json::from_str(document)?;
    let files = document["files"].as_array().context("no files")?;
    let is_table = |file: &&Value| file["name"].as_str().is_some_and(|n| n.ends_with(".sst"));
    let part = files.iter().find(is_table).or(files.first()).context("no part")?;
    let (name, hash) = (part["name"].as_str().unwrap(), part["sha256"].as_str().unwrap());
    let blob = format!("back/up/blobs/{}/{hash}", &hash[..2]);
    let good = place.store.get(&blob).await?;
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    place.store.put(&blob, bad).await?;
    let refused = place.restore("bad")?;
    ensure!(!refused.success && refused.err.contains(name), "{refused:?}");
    ensure!(refused.err.contains("tampered with"), "{refused:?}");
    let verified = place.run(&["snapshot", "verify", "--from", &place.target])?;
    ensure!(!verified.success && verified.out.contains(hash), "{verified:?}");
    place.store.remove(&blob).await?;
    let refused = place.restore("bad")?;
    ensure!(!refused.success && refused.err.contains(hash), "{refused:?}");
    ensure!(refused.err.contains("is missing"), "{refused:?}");
    place.store.put(&blob, good).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_in_s3_are_whole_or_not_there() {
    let _turn = one_at_a_time();
    round(Kind::S3).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_in_google_cloud_storage_are_whole_or_not_there() {
    let _turn = one_at_a_time();
    round(Kind::Gcs).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_is_not_configured_or_not_there_is_refused() {
    let _turn = one_at_a_time();
    refusals().await.unwrap();
}

async fn refusals() -> Result<()> {
    let mut place = Place::start(Kind::S3).await?;
    let elsewhere = place.store.target("elsewhere");
    let answer = place.server.client.post("/v1/snapshots", &json!({ "to": elsewhere })).await?;
    ensure!(answer.status == 403, "{answer:?}");
    ensure!(place.store.names("").await?.is_empty(), "something was written");
    let none = place.run(&["snapshot", "list", "--from", "s3://no-such-bucket/x"])?;
    ensure!(!none.success && none.err.contains("s3://no-such-bucket/x"), "{none:?}");
    // Plain HTTP only where the environment says so.
    let mut env = place.store.environment();
    env.retain(|(name, _)| *name != "AWS_ALLOW_HTTP");
    let plain = run_with_env(&["snapshot", "list", "--from", &place.target], &env)?;
    ensure!(!plain.success && plain.err.contains(&place.target), "{plain:?}");
    place.server.stop()
}
