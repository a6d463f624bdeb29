//! A real Kafka broker on a free port, with its data in a temporary directory.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// A broker process; killed when dropped.
pub struct Broker {
    child: Option<Child>,
    port: u16,
    dir: tempfile::TempDir,
}

/// One record to produce.
#[derive(Debug, Clone)]
pub struct Record {
    pub partition: i32,
    pub key: Option<String>,
    pub value: Vec<u8>,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: Option<i64>,
}

impl Record {
    /// A record on partition 0 with the broker's time.
    pub fn new(value: impl Into<Vec<u8>>) -> Self {
        Self { partition: 0, key: None, value: value.into(), timestamp_ms: None }
    }
}

impl Broker {
    /// Starts a broker and waits until it answers.
    pub fn start() -> Result<Self> {
        let mut broker = Self::reserve()?;
        broker.boot()?;
        Ok(broker)
    }

    /// Chooses ports and formats the log directory without starting: a broker that is down.
    pub fn reserve() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let port = free_port_pair()?;
        fs::write(dir.path().join("server.properties"), properties(port, dir.path()))?;
        let broker = Self { child: None, port, dir };
        let format = broker
            .java()?
            .args(["kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c"])
            .arg(broker.dir.path().join("server.properties"))
            .output()?;
        if !format.status.success() {
            bail!("formatting the broker failed: {}", String::from_utf8_lossy(&format.stderr));
        }
        Ok(broker)
    }

    /// Starts the process (again), on the same port and data.
    pub fn boot(&mut self) -> Result<()> {
        let log = fs::File::create(self.dir.path().join("broker.log"))?;
        let java = self.java()?;
        // The shell kills the broker when its stdin closes, so that no broker outlives its test.
        let child = Command::new("sh")
            .args(["-c", "\"$@\" </dev/null & broker=$!; cat >/dev/null; kill -9 $broker", "sh"])
            .arg(java.get_program())
            .args(java.get_args())
            .arg("kafka.Kafka")
            .arg(self.dir.path().join("server.properties"))
            .stdin(Stdio::piped())
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            .spawn()?;
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = fs::read_to_string(self.dir.path().join("broker.log")).unwrap_or_default();
        bail!("the broker did not come up within 60 s:\n{log}")
    }

    /// Kills the process with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.stdin.take());
            child.wait().ok();
        }
    }

    /// Returns the address for clients.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Creates a topic and waits until it is there. `settings` are topic configurations.
    pub async fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
        for result in admin.create_topics(&[topic], &options).await? {
            result.map_err(|(name, code)| anyhow::anyhow!("creating topic {name}: {code}"))?;
        }
        Ok(())
    }

    /// Deletes a topic and waits until it is gone.
    pub async fn delete_topic(&self, name: &str) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        for result in admin.delete_topics(&[name], &AdminOptions::new()).await? {
            result.map_err(|(name, code)| anyhow::anyhow!("deleting topic {name}: {code}"))?;
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            let metadata = admin.inner().fetch_metadata(None, Duration::from_secs(5))?;
            if metadata.topics().iter().all(|topic| topic.name() != name) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("topic {name} is still there after 20 s")
    }

    /// Deletes a topic and makes another one of its name, as soon as the broker lets it.
    pub async fn remake_topic(&self, name: &str, partitions: i32) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        for result in admin.delete_topics(&[name], &AdminOptions::new()).await? {
            result.map_err(|(name, code)| anyhow::anyhow!("deleting topic {name}: {code}"))?;
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        while Instant::now() < deadline {
            let made = admin.create_topics([&topic], &AdminOptions::new()).await?;
            match made.into_iter().next() {
                Some(Ok(_)) => return Ok(()),
                Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {}
                other => bail!("creating topic {name}: {other:?}"),
            }
        }
        bail!("topic {name} is still there after 20 s")
    }

    /// Deletes the records of a partition below an offset.
    pub async fn delete_records(&self, topic: &str, partition: i32, below: i64) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let mut ends = TopicPartitionList::new();
        ends.add_partition_offset(topic, partition, Offset::Offset(below))?;
        let deleted = admin.delete_records(&ends, &AdminOptions::new()).await?;
        for one in deleted.elements() {
            one.error()?;
        }
        Ok(())
    }

    /// Produces records in order and waits until the broker has them all.
    pub fn produce(&self, topic: &str, records: &[Record]) -> Result<()> {
        produce(&self.bootstrap(), topic, records)
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap());
        config
    }

    fn java(&self) -> Result<Command> {
        let jars = crate::cache_dir().join("kafka/lib");
        if !jars.is_dir() {
            bail!("no Kafka jars in {}: run scripts/setup test", jars.display());
        }
        let logging = Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka/log4j2.properties");
        let mut java = Command::new("java");
        java.args(["-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .arg(format!("-Dlog4j2.configurationFile={}", logging.display()))
            .arg("-cp")
            .arg(format!("{}/*", jars.display()));
        Ok(java)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A producer that is kept, for records that are sent one by one.
pub struct Sender(BaseProducer);

impl Sender {
    /// Connects, so that the first record is sent as quickly as others.
    pub fn new(bootstrap: &str) -> Result<Self> {
        let producer = producer(bootstrap, "0")?;
        producer.client().fetch_metadata(None, Duration::from_secs(60))?;
        Ok(Self(producer))
    }

    /// Sends a record without waiting for the broker.
    pub fn send(&self, topic: &str, record: &Record) -> Result<()> {
        send(&self.0, topic, record)
    }
}

/// Produces records in order and waits until the broker has them all, over its restarts too.
pub fn produce(bootstrap: &str, topic: &str, records: &[Record]) -> Result<()> {
    let producer = producer(bootstrap, "5")?;
    for record in records {
        send(&producer, topic, record)?;
    }
    producer.flush(Duration::from_secs(120))?;
    Ok(())
}

fn producer(bootstrap: &str, linger_ms: &str) -> Result<BaseProducer> {
    let producer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("linger.ms", linger_ms)
        .set("message.timeout.ms", "120000")
        .set("reconnect.backoff.max.ms", "500")
        .set("message.max.bytes", "20000000")
        .set("log_level", "0")
        .create()?;
    Ok(producer)
}

fn send(producer: &BaseProducer, topic: &str, record: &Record) -> Result<()> {
    let mut wire =
        BaseRecord::<[u8], [u8]>::to(topic).partition(record.partition).payload(&record.value);
    if let Some(key) = &record.key {
        wire = wire.key(key.as_bytes());
    }
    if let Some(timestamp) = record.timestamp_ms {
        wire = wire.timestamp(timestamp);
    }
    while let Err((error, back)) = producer.send(wire) {
        if error.rdkafka_error_code() != Some(rdkafka::types::RDKafkaErrorCode::QueueFull) {
            return Err(error).context("producing");
        }
        producer.poll(Duration::from_millis(10));
        wire = back;
    }
    producer.poll(Duration::ZERO);
    Ok(())
}

/// Finds a free port whose successor is free too (the controller's).
fn free_port_pair() -> Result<u16> {
    for _ in 0..100 {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no two free ports in a row")
}

/// Retention is off and timestamps are free, as history is old and bookings are ahead; sessions are
/// short, so that a broker killed with SIGKILL is back within seconds.
fn properties(port: u16, dir: &Path) -> String {
    let logs: PathBuf = dir.join("logs");
    let controller = port + 1;
    let mut text = format!(
        "process.roles=broker,controller\nnode.id=1\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         inter.broker.listener.name=PLAINTEXT\ncontroller.listener.names=CONTROLLER\n\
         controller.quorum.voters=1@127.0.0.1:{controller}\nlog.dirs={}\n",
        logs.display()
    );
    for one in [
        "default.replication.factor",
        "min.insync.replicas",
        "offsets.topic.replication.factor",
        "offsets.topic.num.partitions",
        "transaction.state.log.replication.factor",
        "transaction.state.log.min.isr",
        "transaction.state.log.num.partitions",
        "share.coordinator.state.topic.replication.factor",
        "share.coordinator.state.topic.min.isr",
    ] {
        text.push_str(one);
        text.push_str("=1\n");
    }
    text.push_str(
        "group.initial.rebalance.delay.ms=0\nauto.create.topics.enable=false\n\
         num.network.threads=2\nnum.io.threads=4\nbroker.session.timeout.ms=1500\n\
         broker.heartbeat.interval.ms=300\nlog.cleaner.dedupe.buffer.size=16777216\n\
         log.retention.ms=-1\nlog.retention.bytes=-1\nmessage.max.bytes=20000000\n\
         log.message.timestamp.before.max.ms=9223372036854775807\n\
         log.message.timestamp.after.max.ms=9223372036854775807\n",
    );
    text
}
