//! A Kafka broker inside the process, for the demo: librdkafka's own, over real TCP.
//!
//! It keeps a few megabytes per partition in memory and forgets them at its end. Claims about Kafka
//! are tested against a real broker.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, FutureProducer, FutureRecord};

/// How long a record may take to arrive.
const PRODUCE_TIMEOUT: Duration = Duration::from_secs(10);

/// A broker and a producer connected to it; both end when it is dropped.
pub struct Broker {
    // Dropped before the cluster it talks to.
    producer: FutureProducer,
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl Broker {
    /// Starts a broker on a free loopback port.
    ///
    /// # Errors
    /// If librdkafka cannot start it.
    pub fn start() -> Result<Self, KafkaError> {
        let cluster = MockCluster::new(1)?;
        let producer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("linger.ms", "0")
            .create()?;
        Ok(Self { producer, cluster })
    }

    /// Returns the address to give to clients: `host:port`.
    pub fn address(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// If there is one of that name.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<(), KafkaError> {
        self.cluster.create_topic(topic, partitions, 1)
    }

    /// Sends a record with the given timestamp and waits until the broker has it.
    ///
    /// # Errors
    /// If it does not arrive within ten seconds.
    pub async fn produce(
        &self,
        topic: &str,
        key: &str,
        value: &str,
        timestamp_ms: i64,
    ) -> Result<(), KafkaError> {
        let record = FutureRecord::to(topic).key(key).payload(value).timestamp(timestamp_ms);
        self.producer.send(record, PRODUCE_TIMEOUT).await.map(|_| ()).map_err(|(error, _)| error)
    }
}
