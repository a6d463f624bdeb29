//! Against the client library's mock broker: real connections, no Kafka. What rests on Kafka's own
//! behaviour (transactions, retention, restarts) is tested on a real broker in the `tests` crate.

use std::sync::Arc;
use std::time::Duration;

use everwhen_query::statements::{AlterStream, MappingVerb, ResetTo, StreamChange};
use everwhen_storage::{Batch, DefinitionChange, DefinitionKind, SourceAdvance, Tenant, TxId};
use rdkafka::config::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

use crate::ingest::{Ingest, IngestOptions};
use crate::reading::plan_alter;
use crate::status::StreamStatus;
use crate::testing::{TestStore, from_topic, mapping, orders, store};
use crate::{EmitEvent, Error};

type Broker = MockCluster<'static, DefaultProducerContext>;

const SELECT: &str = "SELECT id AS _id, n, at AS _valid_from";

fn broker() -> Broker {
    MockCluster::new(1).expect("a mock broker")
}

fn produce(broker: &Broker, topic: &str, partition: i32, values: &[String]) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap_servers())
        .create()
        .expect("a producer");
    for value in values {
        let record = BaseRecord::<str, str>::to(topic).partition(partition).payload(value);
        producer.send(record).expect("a record is queued");
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(10)).expect("all records are acknowledged");
}

fn values(range: std::ops::Range<usize>) -> Vec<String> {
    let value = |n| format!(r#"{{"id":"k{n}","n":{n},"at":"2026-01-01T00:00:00Z"}}"#);
    range.map(value).collect()
}

async fn define(store: &TestStore, brokers: &str, topic: &str) {
    store.stream(&from_topic(orders(), brokers, topic)).await;
    store.mapping(&mapping("ordered", "orders", MappingVerb::Put, "orders", SELECT)).await;
}

fn start(store: &TestStore) -> Arc<Ingest> {
    let ingest = Ingest::new(store.store.clone(), IngestOptions::default());
    ingest.start();
    ingest
}

/// Waits until the stream's status is as wanted, and returns it.
async fn until(
    ingest: &Arc<Ingest>,
    wanted: impl Fn(&[StreamStatus]) -> bool,
) -> Vec<StreamStatus> {
    let mut rows = Vec::new();
    for _ in 0..1_000 {
        let asked = Arc::clone(ingest);
        rows = tokio::task::spawn_blocking(move || asked.status()).await.expect("a status");
        if wanted(&rows) {
            return rows;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the status never came to be as wanted: {rows:?}");
}

fn read(rows: &[StreamStatus]) -> i64 {
    rows.iter().filter_map(|row| row.next_offset).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_records_of_all_partitions_become_transactions() {
    let (broker, store) = (broker(), store());
    broker.create_topic("orders", 4, 1).expect("a topic");
    for partition in 0..4 {
        produce(&broker, "orders", partition, &values(0..500));
    }
    define(&store, &broker.bootstrap_servers(), "orders").await;
    let before = store.store.latest().tx;
    let ingest = start(&store);
    let rows = until(&ingest, |rows| read(rows) == 2_000).await;
    assert!(rows.iter().all(|row| row.state == "running" && row.lag == Some(0)), "{rows:?}");
    assert_eq!(store.store.latest().tx, TxId::new(before.get() + 2_000));
    produce(&broker, "orders", 1, &values(500..600));
    until(&ingest, |rows| read(rows) == 2_100).await;
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_goes_on_where_it_stopped() {
    let (broker, store) = (broker(), store());
    broker.create_topic("orders", 2, 1).expect("a topic");
    define(&store, &broker.bootstrap_servers(), "orders").await;
    for round in 0..3 {
        produce(&broker, "orders", 0, &values(round * 100..(round + 1) * 100));
        let ingest = start(&store);
        let expected = i64::try_from((round + 1) * 100).expect("small");
        until(&ingest, |rows| read(rows) == expected).await;
        ingest.stop().await;
    }
    // The definitions took two transactions.
    assert_eq!(store.store.latest().tx, TxId::new(302));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_records_become_dead_letters_in_place() {
    let (broker, store) = (broker(), store());
    broker.create_topic("orders", 1, 1).expect("a topic");
    let mut sent = values(0..3);
    sent.insert(1, "{broken".to_owned());
    sent.insert(3, format!(r#"{{"id":"huge","pad":"{}"}}"#, "x".repeat(1_100_000)));
    produce(&broker, "orders", 0, &sent[..3]);
    define(&store, &broker.bootstrap_servers(), "orders").await;
    let ingest = start(&store);
    until(&ingest, |rows| read(rows) == 3).await;
    let letters = store.store.dead_letters(0, 10).expect("dead letters");
    assert_eq!(letters.len(), 1);
    let place = (letters[0].topic.as_deref(), letters[0].partition, letters[0].offset);
    assert_eq!(place, (Some("orders"), Some(0), Some(1)));
    assert_eq!(letters[0].value, b"{broken");
    assert_eq!(store.store.latest().tx, TxId::new(4));
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_match_nothing_are_passed_without_a_transaction() {
    let (broker, store) = (broker(), store());
    broker.create_topic("orders", 1, 1).expect("a topic");
    produce(&broker, "orders", 0, &values(0..10));
    store.stream(&from_topic(orders(), &broker.bootstrap_servers(), "orders")).await;
    let select = "SELECT id AS _id, n WHERE n > 100";
    store.mapping(&mapping("ordered", "orders", MappingVerb::Put, "orders", select)).await;
    let ingest = start(&store);
    until(&ingest, |rows| read(rows) == 10).await;
    assert_eq!(store.store.latest().tx, TxId::new(2));
    let stored = store.store.source_offsets("orders").expect("offsets");
    assert_eq!(stored, [("orders".to_owned(), 0, 10)]);
    let (_, metrics) = &ingest.metrics()[0];
    assert_eq!((metrics.records, metrics.unmatched), (10, 10));
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_topic_and_a_broker_that_is_down_are_waited_out() {
    let (broker, store) = (broker(), store());
    broker.create_topic("other", 1, 1).expect("a topic");
    broker.broker_down(1).expect("down");
    define(&store, &broker.bootstrap_servers(), "orders").await;
    let ingest = start(&store);
    let away = |rows: &[StreamStatus]| {
        rows.iter().any(|row| row.error.as_deref().is_some_and(|error| error.contains("away")))
    };
    let rows = until(&ingest, away).await;
    assert_eq!((rows[0].state.as_str(), rows[0].partition), ("waiting", None));
    broker.broker_up(1).expect("up");
    broker.create_topic("orders", 1, 1).expect("a topic");
    produce(&broker, "orders", 0, &values(0..10));
    until(&ingest, |rows| read(rows) == 10 && rows[0].error.is_none()).await;
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_goes_away_is_shown_and_comes_back() {
    let (broker, store) = (broker(), store());
    broker.create_topic("orders", 1, 1).expect("a topic");
    produce(&broker, "orders", 0, &values(0..10));
    define(&store, &broker.bootstrap_servers(), "orders").await;
    let ingest = start(&store);
    until(&ingest, |rows| read(rows) == 10).await;
    broker.broker_down(1).expect("down");
    until(&ingest, |rows| rows[0].state == "waiting").await;
    broker.broker_up(1).expect("up");
    until(&ingest, |rows| rows[0].state == "running" && rows[0].error.is_none()).await;
    produce(&broker, "orders", 0, &values(10..20));
    until(&ingest, |rows| read(rows) == 20).await;
    assert_eq!(store.store.latest().tx, TxId::new(22));
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_taken_before_a_mapping_reads_the_stream() {
    let (broker, store) = (broker(), store());
    broker.create_topic("orders", 1, 1).expect("a topic");
    produce(&broker, "orders", 0, &values(0..10));
    store.stream(&from_topic(orders(), &broker.bootstrap_servers(), "orders")).await;
    let ingest = start(&store);
    let rows = until(&ingest, |rows| rows[0].state == "no mapping").await;
    assert_eq!((rows[0].next_offset, rows[0].lag), (Some(0), Some(10)));
    store.mapping(&mapping("ordered", "orders", MappingVerb::Put, "orders", SELECT)).await;
    until(&ingest, |rows| read(rows) == 10).await;
    // A dropped table is a named stop; what comes meanwhile waits.
    let drop_table = Ok(vec![DefinitionChange::DropTable("orders".to_owned())]);
    store.define(drop_table).await;
    produce(&broker, "orders", 0, &values(10..20));
    let stopped = |rows: &[StreamStatus]| {
        rows[0].state == "stopped"
            && rows[0].error.as_deref().is_some_and(|error| error.contains("does not exist"))
    };
    until(&ingest, stopped).await;
    let mut again = mapping("ordered", "orders", MappingVerb::Put, "orders", SELECT);
    again.or_replace = true;
    store.mapping(&again).await;
    until(&ingest, |rows| read(rows) == 20).await;
    store
        .define(Ok(vec![
            DefinitionChange::Drop(DefinitionKind::Mapping, "ordered".to_owned()),
            DefinitionChange::Drop(DefinitionKind::Stream, "orders".to_owned()),
        ]))
        .await;
    until(&ingest, <[StreamStatus]>::is_empty).await;
    ingest.stop().await;
}

/// Moves a stream to another broker with a topic of the same name: another topic.
async fn moved(store: &TestStore, broker: &Broker) {
    let mut moved = from_topic(orders(), &broker.bootstrap_servers(), "orders");
    moved.or_replace = true;
    store.stream(&moved).await;
}

fn has_stopped(rows: &[StreamStatus], why: &str) -> bool {
    rows[0].state == "stopped" && rows[0].error.as_deref().is_some_and(|error| error.contains(why))
}

async fn alter(store: &TestStore, change: StreamChange) {
    let sources = store.store.sources("orders").expect("sources");
    let statement =
        AlterStream { name: "orders".to_owned(), if_exists: false, position: 1, change };
    store.define(plan_alter(&store.store.definitions(), &sources, &statement)).await;
}

fn reset(to: ResetTo) -> StreamChange {
    StreamChange::Reset { to, partition: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_topic_of_the_name_is_a_named_stop_until_a_reset() {
    for records in [5, 10, 15] {
        let (first, store) = (broker(), store());
        first.create_topic("orders", 1, 1).expect("a topic");
        produce(&first, "orders", 0, &values(0..10));
        define(&store, &first.bootstrap_servers(), "orders").await;
        let ingest = start(&store);
        until(&ingest, |rows| read(rows) == 10).await;
        let id = store.store.sources("orders").expect("sources")[0].log.topic_id;
        assert!(id.is_some(), "the broker told no id of the topic");
        let second = broker();
        second.create_topic("orders", 1, 1).expect("a topic");
        produce(&second, "orders", 0, &values(100..100 + records));
        moved(&store, &second).await;
        until(&ingest, |rows| has_stopped(rows, "made anew")).await;
        // Nor does it go on by itself, or where it is asked to try again.
        produce(&second, "orders", 0, &values(200..210));
        alter(&store, StreamChange::Resume).await;
        until(&ingest, |rows| has_stopped(rows, "made anew")).await;
        let before = store.store.latest().tx;
        alter(&store, reset(ResetTo::Beginning)).await;
        let all = i64::try_from(records + 10).expect("small");
        until(&ingest, |rows| read(rows) == all && rows[0].state == "running").await;
        // The statement, and each record of the new topic.
        let expected = before.get() + 1 + u64::try_from(all).expect("small");
        assert_eq!(store.store.latest().tx.get(), expected, "{records} records");
        let now = store.store.sources("orders").expect("sources")[0].log;
        assert!(now.topic_id.is_some() && now.topic_id != id && now.stop.is_none(), "{now:?}");
        ingest.stop().await;
    }
}

/// Makes what is kept of partition 0 look as if a broker without topic ids had been read.
async fn forget_id(store: &TestStore, change: impl Fn(&mut SourceAdvance)) {
    let mut source = store.store.sources("orders").expect("sources").remove(0);
    source.log.topic_id = None;
    change(&mut source);
    let batch = Batch { sources: vec![source], ..Batch::default() };
    store.store.write(batch).await.expect("kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_ids_another_record_at_the_last_offset_is_a_stop_that_lasts() {
    let (first, store) = (broker(), store());
    first.create_topic("orders", 1, 1).expect("a topic");
    produce(&first, "orders", 0, &values(0..10));
    define(&store, &first.bootstrap_servers(), "orders").await;
    let ingest = start(&store);
    until(&ingest, |rows| read(rows) == 10).await;
    ingest.stop().await;
    // The same records are gone on with.
    forget_id(&store, |_| {}).await;
    let ingest = start(&store);
    produce(&first, "orders", 0, &values(10..20));
    until(&ingest, |rows| read(rows) == 20).await;
    ingest.stop().await;
    // Others are not, however often it is tried.
    forget_id(&store, |source| {
        let last = source.log.last.as_mut().expect("a last record");
        assert_eq!(last.offset, 19);
        last.hash ^= 1;
    })
    .await;
    for _ in 0..2 {
        let ingest = start(&store);
        produce(&first, "orders", 0, &values(20..22));
        let rows = until(&ingest, |rows| has_stopped(rows, "another record at offset 19")).await;
        assert_eq!(rows[0].next_offset, Some(20));
        ingest.stop().await;
    }
    alter(&store, StreamChange::Resume).await;
    let ingest = start(&store);
    until(&ingest, |rows| has_stopped(rows, "another record at offset 19")).await;
    alter(&store, reset(ResetTo::Offset(20))).await;
    until(&ingest, |rows| read(rows) == 24).await;
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_ids_a_topic_that_lost_a_partition_is_another_one() {
    let (first, store) = (broker(), store());
    first.create_topic("orders", 2, 1).expect("a topic");
    produce(&first, "orders", 1, &values(0..10));
    define(&store, &first.bootstrap_servers(), "orders").await;
    let ingest = start(&store);
    until(&ingest, |rows| read(rows) == 10).await;
    ingest.stop().await;
    forget_id(&store, |_| {}).await;
    let second = broker();
    second.create_topic("orders", 1, 1).expect("a topic");
    moved(&store, &second).await;
    let ingest = start(&store);
    until(&ingest, |rows| has_stopped(rows, "no longer has partition 1")).await;
    alter(&store, reset(ResetTo::Beginning)).await;
    until(&ingest, |rows| rows.len() == 1 && rows[0].state == "running").await;
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_ends_before_the_stored_offset_is_a_named_stop() {
    let (broker, store) = (broker(), store());
    broker.create_topic("orders", 1, 1).expect("a topic");
    produce(&broker, "orders", 0, &values(0..10));
    define(&store, &broker.bootstrap_servers(), "orders").await;
    let ingest = start(&store);
    until(&ingest, |rows| read(rows) == 10).await;
    ingest.stop().await;
    forget_id(&store, |source| {
        source.next_offset = 12;
        source.log.last = None;
    })
    .await;
    let ingest = start(&store);
    until(&ingest, |rows| has_stopped(rows, "ends before the stored offset")).await;
    // It has not been looked into because the log has grown.
    produce(&broker, "orders", 0, &values(10..20));
    let rows = until(&ingest, |rows| has_stopped(rows, "RESUME goes on at offset 12")).await;
    assert_eq!(rows[0].next_offset, Some(12));
    alter(&store, StreamChange::Resume).await;
    until(&ingest, |rows| read(rows) == 20 && rows[0].state == "running").await;
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_stream_reads_nothing_until_it_is_resumed() {
    let (broker, store) = (broker(), store());
    broker.create_topic("orders", 1, 1).expect("a topic");
    produce(&broker, "orders", 0, &values(0..10));
    define(&store, &broker.bootstrap_servers(), "orders").await;
    let ingest = start(&store);
    until(&ingest, |rows| read(rows) == 10).await;
    alter(&store, StreamChange::Pause).await;
    produce(&broker, "orders", 0, &values(10..20));
    let rows = until(&ingest, |rows| rows[0].state == "paused").await;
    assert_eq!(rows[0].next_offset, Some(10));
    ingest.stop().await;
    let ingest = start(&store);
    let rows = until(&ingest, |rows| rows[0].state == "paused").await;
    assert_eq!(rows[0].next_offset, Some(10));
    alter(&store, StreamChange::Resume).await;
    until(&ingest, |rows| read(rows) == 20).await;
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_made_again_begins_at_its_beginning() {
    let (broker, store) = (broker(), store());
    broker.create_topic("orders", 2, 1).expect("a topic");
    produce(&broker, "orders", 0, &values(0..10));
    define(&store, &broker.bootstrap_servers(), "orders").await;
    let ingest = start(&store);
    until(&ingest, |rows| read(rows) == 10).await;
    let drop = |kind, name: &str| DefinitionChange::Drop(kind, name.to_owned());
    store
        .define(Ok(vec![
            drop(DefinitionKind::Mapping, "ordered"),
            drop(DefinitionKind::Stream, "orders"),
        ]))
        .await;
    define(&store, &broker.bootstrap_servers(), "orders").await;
    let before = store.store.latest().tx;
    until(&ingest, |rows| read(rows) == 10 && rows[0].state == "running").await;
    assert_eq!(store.store.latest().tx.get(), before.get() + 10);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posted_events_go_through_the_same_mappings() {
    let store = store();
    store.stream(&orders()).await;
    let ingest = Ingest::new(store.store.clone(), IngestOptions::default());
    let tenant = Tenant::default();
    let event =
        |value: &str| EmitEvent { value: value.as_bytes().to_vec(), ..EmitEvent::default() };
    let early = ingest.emit("orders", &tenant, vec![event("{}")]).await;
    assert!(matches!(early, Err(Error::NoMapping { .. })), "{early:?}");
    let unknown = ingest.emit("none", &tenant, vec![event("{}")]).await;
    assert_eq!(unknown.expect_err("no stream").sqlstate(), "42704");
    let select = "SELECT id AS _id, n, id AS _event_id";
    store.mapping(&mapping("ordered", "orders", MappingVerb::Put, "orders", select)).await;
    let events = vec![
        event(r#"{"id":"a","n":1}"#),
        event(r#"{"id":"b","n":"x"}"#),
        event(r#"{"n":3}"#),
        event(r#"{"id":"d","n":4}"#),
    ];
    let answer = ingest.emit("orders", &tenant, events).await.expect("written");
    assert_eq!((answer.tx, answer.accepted), (TxId::new(4), 2));
    let rejected: Vec<usize> = answer.rejected.iter().map(|(index, _)| *index).collect();
    assert_eq!(rejected, [1, 2]);
    // The same event again is a duplicate: accepted, no transaction spent.
    let again = vec![event(r#"{"n":1,"id":"a"}"#)];
    let answer = ingest.emit("orders", &tenant, again).await.expect("written");
    assert_eq!((answer.tx, answer.accepted), (TxId::new(4), 1));
    let (_, metrics) = &ingest.metrics()[0];
    assert_eq!((metrics.applied, metrics.duplicates, metrics.dead_letters), (2, 1, 2));
    assert_eq!(ingest.status()[0].state, "events");
    ingest.stop().await;
    let late = ingest.emit("orders", &tenant, vec![event("{}")]).await;
    assert!(matches!(late, Err(Error::Stopped)), "{late:?}");
}
