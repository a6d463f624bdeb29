//! What ERASE promises, from outside: after its end no file of the data directory holds a value of
//! an erased key, and nothing brings it back; its neighbours keep every byte (R12, O7).

mod blocks;
mod files;

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use everwhen_tests::http::eventually;
use everwhen_tests::kafka::Record;
use everwhen_tests::process::{Process, Server, start_projector};
use everwhen_tests::warehouse::sqlite_rows;
use everwhen_tests::{one_at_a_time, seed, shared_broker, soak};
use files::{Wanted, base64};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

const CLOCK: &str = "2026-03-01T00:00:00Z";
/// What every row says, too, so that the blocks of rows are worth compressing.
const FILLER: &str = "what every row says, so that the engine finds its block worth compressing";
/// Keys to erase, and as many beside them, at one soak.
const KEYS: usize = 20;

const MODEL: &str = "
CREATE STREAM people FROM KAFKA (brokers = '${brokers}', topic = '${topic}')
FORMAT JSON (id TEXT, name TEXT, doc JSON, photo BYTES, event TEXT, at TIMESTAMPTZ);
CREATE MAPPING person ON people AS PUT INTO people
SELECT id AS _id, name, doc, photo, event AS _event_id, at AS _valid_from;
CREATE STREAM posted FORMAT JSON (id TEXT, name TEXT, at TIMESTAMPTZ);
CREATE MAPPING poster ON posted AS PATCH INTO people
SELECT id AS _id, name, at AS _valid_from;
CREATE TABLE notes (_id TEXT, body TEXT, doc JSON);
CREATE PROJECTION cards KEY (id) INTO warehouse.cards AS
SELECT p._id AS id, p.name, n.body FROM people AS p LEFT JOIN notes AS n ON n._id = p._id;
";

/// One person, every value of whom is a canary of its own.
#[derive(Clone)]
struct Person {
    values: Vec<[u8; 32]>,
}

impl Person {
    const VALUES: usize = 12;

    fn random(random: &mut StdRng) -> Self {
        Self { values: (0..Self::VALUES).map(|_| random.random()).collect() }
    }

    fn text(&self, place: usize) -> String {
        base64(&self.values[place])
    }

    fn id(&self) -> String {
        self.text(0)
    }

    /// What the topic says: a first name, its correction, and a later name.
    fn records(&self) -> Vec<Record> {
        let record = |name: usize, event: usize, at: &str| {
            let doc = json!({ "note": self.text(7), "about": FILLER });
            let photo = format!("{}=", self.text(8));
            let (id, name, event) = (self.id(), self.text(name), self.text(event));
            let whole = json!({"id": id, "name": name, "doc": doc, "photo": photo,
                "event": event, "at": at});
            Record::new(whole.to_string())
        };
        vec![
            record(1, 4, "2026-01-01T00:00:00Z"),
            record(2, 4, "2026-01-01T00:00:00Z"),
            record(3, 5, "2026-02-01T00:00:00Z"),
        ]
    }

    fn bad_record(&self) -> Record {
        Record::new(json!({"id": self.id(), "name": self.text(6), "at": "never"}).to_string())
    }

    /// Statements: a note, changed twice, so that two bodies are superseded.
    fn notes(&self) -> [String; 3] {
        let (id, one, two) = (self.id(), self.text(9), self.text(10));
        let doc = json!({ "deep": [self.text(11)], "about": FILLER });
        [
            format!("INSERT INTO notes (_id, body, doc) VALUES ('{id}', '{one}', '{doc}')"),
            format!("UPDATE notes SET body = '{two}' WHERE _id = '{id}'"),
            format!("UPDATE notes SET body = 'plain' WHERE _id = '{id}'"),
        ]
    }
}

/// Server, projector and sink over one directory.
struct Line {
    server: Server,
    projector: Option<Process>,
    dir: tempfile::TempDir,
    topic: String,
    produced: i64,
}

fn environment(failpoints: Option<&'static str>) -> [(&'static str, &'static str); 1] {
    [("EVERWHEN_FAILPOINTS", failpoints.unwrap_or_default())]
}

impl Line {
    async fn start(name: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let topic = format!("erase_{name}_{}", std::process::id());
        let broker = shared_broker();
        broker.create_topic(&topic, 1, &[]).await?;
        let data = dir.path().join("data");
        // Armed from the start: it is passed when the first erasure is due.
        let env = environment(Some("erase.ledger=abort"));
        let server = Server::start_with_env(&data, Some(CLOCK), &[], &env).await?;
        let model = MODEL.replace("${brokers}", &broker.bootstrap()).replace("${topic}", &topic);
        server.client.script(&model).await?;
        let mut line = Self { server, projector: None, dir, topic, produced: 0 };
        line.deliver()?;
        Ok(line)
    }

    fn deliver(&mut self) -> Result<()> {
        self.projector = None;
        let path = self.warehouse();
        let config =
            format!("[sinks.warehouse]\ntype = \"sqlite\"\npath = \"{}\"\n", path.display());
        let process = start_projector(&self.server.grpc, &config, self.dir.path(), "projector")?;
        self.projector = Some(process);
        Ok(())
    }

    fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    fn warehouse(&self) -> std::path::PathBuf {
        self.dir.path().join("warehouse.db")
    }

    async fn produce(&mut self, records: Vec<Record>) -> Result<()> {
        self.produced += i64::try_from(records.len())?;
        shared_broker().produce(&self.topic, &records)?;
        self.server.client.wait_ingested("people", self.produced).await
    }

    async fn restart(&mut self, failpoints: Option<&'static str>) -> Result<()> {
        let env = environment(failpoints);
        self.server = Server::start_with_env(&self.data(), Some(CLOCK), &[], &env).await?;
        Ok(())
    }

    async fn wait_erased(&self) -> Result<()> {
        let client = &self.server.client;
        eventually("all erasures to be done", || async {
            let left = "SELECT state FROM everwhen.erasures WHERE state <> 'erased'";
            let left = client.rows(left).await?;
            ensure!(left.is_empty(), "{left:?}\n{}", self.server.log_text());
            Ok(true)
        })
        .await
    }
}

const ALL: &str = "SELECT *, _valid_from, _valid_to, _system_from, _system_to \
     FROM people FOR ALL VALID_TIME FOR ALL SYSTEM_TIME ORDER BY _id, _system_from, _valid_from";
const NOTES: &str = "SELECT *, _valid_from, _valid_to, _system_from, _system_to \
     FROM notes FOR ALL VALID_TIME FOR ALL SYSTEM_TIME ORDER BY _id, _system_from, _valid_from";

/// Returns the rows of a query at a basis, of the people named alone.
async fn rows_of(
    line: &Line,
    sql: &str,
    basis: Option<&str>,
    who: &[Person],
) -> Result<Vec<Value>> {
    let request = json!({ "sql": sql, "basis": basis });
    let answer = line.server.client.post("/v1/sql", &request).await?;
    ensure!(answer.status == 200, "{sql}: {}", answer.body);
    let ids: Vec<String> = who.iter().map(Person::id).collect();
    let rows = answer.body["rows"].as_array().context("no rows")?.clone();
    Ok(rows.into_iter().filter(|row| ids.iter().any(|id| row[0] == id.as_str())).collect())
}

async fn count_of(line: &Line, sql: &str) -> Result<u64> {
    let rows = line.server.client.rows(&format!("SELECT count(*) FROM ({sql})")).await?;
    rows[0][0].as_u64().context("no count")
}

fn values(people: &[Person]) -> Wanted {
    let all: Vec<[u8; 32]> = people.iter().flat_map(|person| person.values.clone()).collect();
    Wanted::new(&all)
}

fn log_holds(log: &str, people: &[Person]) -> bool {
    people.iter().any(|person| (0..Person::VALUES).any(|place| log.contains(&person.text(place))))
}

async fn fill(line: &mut Line, people: &[Person]) -> Result<()> {
    let records: Vec<Record> = people.iter().flat_map(Person::records).collect();
    line.produce(records).await?;
    line.produce(people.iter().map(Person::bad_record).collect()).await?;
    for step in 0..3 {
        for some in people.chunks(50) {
            let all: Vec<String> = some.iter().map(|one| one.notes()[step].clone()).collect();
            line.server.client.sql(&all.join("; ")).await?;
        }
        line.server.client.post("/v1/test/clock", &json!({ "advance_ms": 1000 })).await?;
    }
    line.server.client.wait_delivered().await
}

/// Erases people: by key, and the first one's notes by a value that is superseded.
async fn erase(line: &Line, people: &[Person]) -> Result<()> {
    let (first, rest) = people.split_first().context("nobody to erase")?;
    let list = |people: &[Person]| {
        people.iter().map(|one| format!("'{}'", one.id())).collect::<Vec<_>>().join(", ")
    };
    let sql = format!(
        "ERASE FROM notes WHERE body = '{}'; ERASE FROM notes WHERE _id IN ({}); \
         ERASE FROM people WHERE _id IN ({})",
        first.text(9),
        list(rest),
        list(people)
    );
    match line.server.client.sql(&sql).await {
        // The server ends when the purge begins, which may be before it has answered.
        Err(error) if error.is::<reqwest::Error>() => Ok(()),
        answered => answered.map(|_| ()),
    }
}

/// Kills the server at every step of the purge, then lets it end.
async fn purge_with_kills(line: &mut Line) -> Result<()> {
    line.server.ended().context("erase.ledger is passed")?;
    for failpoint in ["erase.purged=abort", "erase.compacted=abort"] {
        line.restart(Some(failpoint)).await?;
        line.server.ended().context(failpoint)?;
    }
    line.restart(None).await?;
    line.deliver()?;
    line.wait_erased().await
}

/// Says everything of the erased people again, in both ways; nothing of it may stay.
async fn replay(line: &mut Line, people: &[Person]) -> Result<()> {
    let records: Vec<Record> = people.iter().flat_map(Person::records).collect();
    let replayed = records.len();
    line.produce(records).await?;
    let events: Vec<Value> = people
        .iter()
        .map(|one| json!({"value": {"id": one.id(), "name": one.text(1), "at": CLOCK}}))
        .collect();
    let answer = line
        .server
        .client
        .post("/v1/events", &json!({ "stream": "posted", "events": events }))
        .await?;
    ensure!(answer.status == 200, "{}", answer.body);
    ensure!(answer.body["accepted"] == people.len(), "{}", answer.body);
    let page = reqwest::get(format!("{}/metrics", line.server.admin)).await?.text().await?;
    let dropped = |stream: &str| {
        let head = format!("everwhen_stream_records_total{{stream=\"{stream}\",fate=\"erased\"}} ");
        let line = page.lines().find_map(|line| line.strip_prefix(&head).map(str::to_owned));
        line.and_then(|count| count.parse::<f64>().ok())
    };
    let expected = [replayed, people.len()].map(|count| Some(as_float(count)));
    ensure!([dropped("people"), dropped("posted")] == expected, "{page}");
    Ok(())
}

fn as_float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

fn found_all(what: &str, wanted: &Wanted, data: &Path) -> Result<()> {
    let found = wanted.in_files(data).all();
    let missing: Vec<_> = wanted.all().difference(&found).copied().collect();
    ensure!(missing.is_empty(), "{what}: {missing:?} are not found, so the search proves nothing");
    Ok(())
}

async fn run(name: &str, keys: usize, seed: u64) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut line = Line::start(name).await?;
    let gone: Vec<Person> = (0..keys).map(|_| Person::random(&mut random)).collect();
    let kept: Vec<Person> = (0..keys).map(|_| Person::random(&mut random)).collect();
    let mixed: Vec<Person> =
        gone.iter().zip(&kept).flat_map(|(a, b)| [a.clone(), b.clone()]).collect();
    fill(&mut line, &mixed).await?;
    let data = line.data();
    found_all("before", &values(&gone), &data)?;

    let basis = line.server.client.sql("SELECT 1").await?["basis"].clone();
    let basis = basis.as_str().context("no basis")?.to_owned();
    let before = (
        rows_of(&line, ALL, Some(&basis), &kept).await?,
        rows_of(&line, NOTES, Some(&basis), &kept).await?,
    );
    ensure!(!rows_of(&line, ALL, Some(&basis), &gone).await?.is_empty(), "nothing to erase");
    erase(&line, &gone).await?;
    purge_with_kills(&mut line).await?;

    replay(&mut line, &gone).await?;
    for sql in [ALL, NOTES] {
        ensure!(
            rows_of(&line, sql, Some(&basis), &gone).await?.is_empty(),
            "{sql} at the old basis"
        );
        ensure!(rows_of(&line, sql, None, &gone).await?.is_empty(), "{sql} now");
    }
    let after = (
        rows_of(&line, ALL, Some(&basis), &kept).await?,
        rows_of(&line, NOTES, Some(&basis), &kept).await?,
    );
    ensure!(before == after, "a neighbour changed");
    let letters = count_of(&line, "SELECT id FROM everwhen.dead_letters WHERE size > 0").await?;
    ensure!(letters == u64::try_from(2 * keys)?, "{letters} dead letters");
    let bodies = line.server.client.rows("SELECT value FROM everwhen.dead_letters").await?;
    let empty = bodies.iter().filter(|row| row[0] == "").count();
    ensure!(empty == keys, "{empty} dead letters are empty");

    line.server.client.wait_delivered().await?;
    let sink = sqlite_rows(&line.warehouse(), "SELECT id, name, body FROM cards ORDER BY id")?;
    let mut ids: Vec<String> = kept.iter().map(Person::id).collect();
    ids.sort();
    let in_sink: Vec<String> = sink.iter().filter_map(|row| row[0].clone()).collect();
    ensure!(in_sink == ids, "the sink has {} rows", sink.len());
    ensure!(sink.iter().all(|row| row[1].is_some() && row[2].as_deref() == Some("plain")));

    ensure!(!log_holds(&line.server.log_text(), &mixed), "the server's log names a key or value");
    line.server.stop()?;
    let (erased, controls) = (values(&gone), values(&kept));
    let found = erased.in_files(&data).all();
    ensure!(found.is_empty(), "{} values are left: {found:?}", found.len());
    let found = erased.in_entries(&data.join("rocks"));
    ensure!(found.is_empty(), "{} values are left in entries: {found:?}", found.len());
    // The search of files alone finds all there is: so it proves what is not there, too.
    let there = controls.in_files(&data);
    let missing: Vec<_> = controls.all().difference(&there.all()).copied().collect();
    ensure!(missing.is_empty(), "neighbours lost {missing:?}");
    let packed = there.compressed.len();
    ensure!(packed == controls.all().len(), "{packed} neighbours' values in compressed blocks");
    new_life(&mut line, &gone[0]).await
}

/// A record of what holds after the erasure begins a new life without a past.
async fn new_life(line: &mut Line, person: &Person) -> Result<()> {
    line.restart(None).await?;
    let (event, at) = ("new", "2026-04-01T00:00:00Z");
    let later = json!({"id": person.id(), "name": "later", "event": event, "at": at});
    line.produce(vec![Record::new(later.to_string())]).await?;
    let rows = rows_of(line, ALL, None, std::slice::from_ref(person)).await?;
    ensure!(rows.len() == 1 && rows[0][2] == "later", "{rows:?}");
    let id: String = person.id().bytes().map(|byte| format!("%{byte:02X}")).collect();
    let history = line.server.client.get(&format!("/v1/entities/people/{id}/history")).await?;
    ensure!(history.body["versions"].as_array().is_some_and(|all| all.len() == 1), "{history:?}");
    line.server.stop()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erased_bytes_are_gone_and_nothing_brings_them_back() {
    let _turn = one_at_a_time();
    let keys = KEYS * usize::try_from(soak()).unwrap();
    println!("seed {}", seed());
    run("keys", keys, seed()).await.unwrap();
}

/// An erasure waits for a projection whose sink is away, but not for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_the_deadline_a_projection_that_is_behind_loads_anew() {
    let _turn = one_at_a_time();
    deadline().await.unwrap();
}

async fn deadline() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let mut server = Server::start(&data, Some(CLOCK)).await?;
    let client = server.client.clone();
    client.sql("CREATE TABLE t (_id TEXT, v TEXT)").await?;
    client
        .sql("CREATE PROJECTION p KEY (id) INTO warehouse.p AS SELECT _id AS id, v FROM t")
        .await?;
    let mut random = StdRng::seed_from_u64(seed());
    let (gone, kept) = (Person::random(&mut random), Person::random(&mut random));
    let config = format!(
        "[sinks.warehouse]\ntype = \"sqlite\"\npath = \"{}\"\n",
        dir.path().join("warehouse.db").display()
    );
    let mut projector = start_projector(&server.grpc, &config, dir.path(), "projector")?;
    client.wait_delivered().await?;
    for person in [&gone, &kept] {
        let (id, v) = (person.id(), person.text(1));
        client.sql(&format!("INSERT INTO t (_id, v) VALUES ('{id}', '{v}')")).await?;
    }
    client.wait_delivered().await?;
    projector.kill();
    // What a projection has under way holds the value, too.
    let (id, v) = (gone.id(), gone.text(2));
    client.sql(&format!("UPDATE t SET v = '{v}' WHERE _id = '{id}'")).await?;
    eventually("a step to be computed", || async {
        let pending = client.one("SELECT pending_keys FROM everwhen.projections").await?;
        Ok(pending.as_u64().is_some_and(|keys| keys > 0))
    })
    .await?;
    client.sql(&format!("ERASE FROM t WHERE _id = '{id}'")).await?;
    let state = client.one("SELECT state FROM everwhen.erasures").await?;
    ensure!(state == "hidden", "{state}");
    ensure!(client.rows("SELECT _id FROM t FOR ALL SYSTEM_TIME").await?.len() == 1);
    client.post("/v1/test/clock", &json!({ "advance_ms": 8_u64 * 24 * 3_600_000 })).await?;
    eventually("the erasure to be done", || async {
        Ok(client.one("SELECT state FROM everwhen.erasures").await? == "erased")
    })
    .await?;
    let whole = Wanted::new(&[gone.values[0], gone.values[1], gone.values[2]]);
    ensure!(whole.in_files(&data).all().is_empty(), "values are left");
    let sink = || sqlite_rows(&dir.path().join("warehouse.db"), "SELECT id FROM p ORDER BY id");
    ensure!(sink()?.len() == 2, "the sink was away");
    let _projector = start_projector(&server.grpc, &config, dir.path(), "projector")?;
    client.wait_delivered().await?;
    ensure!(sink()? == [[Some(kept.id())]], "the sink is not reconciled");
    server.stop()
}
