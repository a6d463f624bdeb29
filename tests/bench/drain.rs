//! Draining a filled topic until everything is durable and queryable, against a bare loop that consumes
//! the same topic and writes the same number of keys and bytes to RocksDB, synced as often.

use std::time::{Duration, Instant};

use everwhen_tests::kafka::{Broker, Record};
use everwhen_tests::process::Server;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::fixture::{Written, written};
use crate::report::{Report, median, verdict};

const EVENTS: u64 = 1_000_000;
const KEYS: u64 = 250_000;
const PARTITIONS: i32 = 8;
const ROUNDS: usize = 3;

fn event(n: u64) -> Record {
    let key = (n * 7_919) % KEYS;
    let at = jiff::Timestamp::from_second(1_767_225_600 + i64::try_from(n).unwrap()).unwrap();
    let json = format!(
        r#"{{"id":"k{key:07}","seq":"s{n:08}","site":"site {}","value":{n},"note":"a reading as sensors send them","at":"{at}"}}"#,
        key % 97
    );
    let partition = i32::try_from(key % 8).unwrap() % PARTITIONS;
    Record { partition, key: None, value: json.into_bytes(), timestamp_ms: None }
}

/// Runs the drain with and without event ids and the bare loop in turn.
pub async fn run(report: &mut Report) {
    let broker = Broker::start().unwrap();
    broker.create_topic("events", PARTITIONS, &[]).await.unwrap();
    for first in (0..EVENTS).step_by(100_000) {
        let records: Vec<Record> = (first..first + 100_000).map(event).collect();
        broker.produce("events", &records).unwrap();
    }
    for (what, event_id, goal_rate) in [
        ("draining 1,000,000 JSON events, no event ids", "", true),
        ("draining 1,000,000 JSON events, with event ids", ", seq AS _event_id", false),
    ] {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (seconds, written) = drain(&broker, event_id).await;
            ours.push(seconds);
            bare.push(bare_loop(&broker, &written));
        }
        #[expect(clippy::cast_precision_loss, reason = "a round number")]
        let rate = |seconds: &[f64]| EVENTS as f64 / median(seconds);
        let (ours, bare) = (rate(&ours), rate(&bare));
        let ratio = ours / bare;
        let mut judged = format!("{ratio:.2}, goal >= 0.6: {}", verdict(ratio >= 0.6));
        if goal_rate {
            judged.push_str(&format!("; >= 80,000 events/s: {}", verdict(ours >= 80_000.0)));
        }
        report.row(
            what,
            format!("{ours:.0} events/s"),
            format!("bare loop {bare:.0} events/s"),
            judged,
        );
    }
}

async fn drain(broker: &Broker, event_id: &str) -> (f64, Written) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Server::start(&data, None).await.unwrap();
    let stream = format!(
        "CREATE STREAM events FROM KAFKA (brokers = '{}', topic = 'events') \
         FORMAT JSON (id TEXT, seq TEXT, site TEXT, value BIGINT, note TEXT, at TIMESTAMPTZ)",
        broker.bootstrap()
    );
    let mapping = format!(
        "CREATE MAPPING seen ON events AS PUT INTO readings \
         SELECT id AS _id, site, value, note, at AS _valid_from{event_id}"
    );
    server.client.sql(&stream).await.unwrap();
    // Records are read once a mapping asks for them.
    let start = Instant::now();
    server.client.sql(&mapping).await.unwrap();
    loop {
        let read = server
            .client
            .one("SELECT coalesce(sum(next_offset), 0) FROM everwhen.streams")
            .await
            .unwrap();
        if read.as_u64() == Some(EVENTS) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let seconds = start.elapsed().as_secs_f64();
    let count =
        server.client.one("SELECT count(*) FROM readings FOR ALL VALID_TIME").await.unwrap();
    assert_eq!(count.as_u64(), Some(EVENTS), "every event is a version that can be queried");
    server.stop().unwrap();
    (seconds, written(&data))
}

/// Consumes the topic and puts, for each record, as many keys of the same mean sizes; a synced
/// batch for each 8,192 records.
fn bare_loop(broker: &Broker, written: &Written) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    options.set_write_buffer_size(128 << 20);
    options.set_max_background_jobs(2);
    let db = rocksdb::DB::open(&options, dir.path()).unwrap();
    let mut sync = rocksdb::WriteOptions::default();
    sync.set_sync(true);
    let key_size = usize::try_from(written.key_bytes / written.keys).unwrap().max(16);
    let value_size = usize::try_from(written.value_bytes / written.keys).unwrap();

    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .set("group.id", "bare")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions.add_partition_offset("events", partition, Offset::Beginning).unwrap();
    }
    let start = Instant::now();
    consumer.assign(&partitions).unwrap();
    let mut batch = rocksdb::WriteBatch::default();
    let (mut read, mut put) = (0_u64, 0_u64);
    while read < EVENTS {
        let Some(message) = consumer.poll(Duration::from_secs(10)) else { panic!("no records") };
        let message = message.unwrap();
        let payload = message.payload().unwrap();
        read += 1;
        // As many keys as ours wrote by now, so that the totals agree to the key.
        while put * EVENTS < read * written.keys {
            let mut key = vec![0_u8; key_size];
            let spread = put.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            key[..8].copy_from_slice(&spread.to_be_bytes());
            key[8..16].copy_from_slice(&put.to_be_bytes());
            let value: Vec<u8> = payload.iter().copied().cycle().take(value_size).collect();
            batch.put(key, value);
            put += 1;
        }
        if read % 8_192 == 0 || read == EVENTS {
            db.write_opt(std::mem::take(&mut batch), &sync).unwrap();
        }
    }
    start.elapsed().as_secs_f64()
}
