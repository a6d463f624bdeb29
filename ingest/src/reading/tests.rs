use everwhen_query::statements::{AlterStream, NamedPartition, ResetTo, StreamChange};
use everwhen_storage::{
    DefinitionKind, SourceAdvance, SourceFault, SourceLog, SourceStop, TxId, ValidTime,
};

use super::{Reading, Start, StartAt, plan_alter};
use crate::Result;
use crate::stream::{StreamDef, plan_drop};
use crate::testing::{Defined, from_topic, orders};

fn alter(name: &str, change: StreamChange) -> AlterStream {
    AlterStream { name: name.to_owned(), if_exists: false, position: 14, change }
}

fn reset(to: ResetTo, partition: Option<i32>) -> StreamChange {
    let partition = partition.map(|partition| NamedPartition { partition, position: 40 });
    StreamChange::Reset { to, partition }
}

/// A stream of a topic, and the number of definitions so far.
struct Stream {
    defined: Defined,
    tx: u64,
}

impl Stream {
    fn new() -> Self {
        let mut stream = Self { defined: Defined::default(), tx: 0 };
        stream.create();
        stream
    }

    fn apply(&mut self, changes: Result<Vec<everwhen_storage::DefinitionChange>>) {
        self.tx += 3;
        let changes = changes.expect("planned");
        self.defined.0 = self.defined.0.with(&changes, TxId::new(self.tx));
    }

    fn create(&mut self) {
        let create = from_topic(orders(), "b:9092", "t");
        self.apply(crate::stream::plan_stream(&self.defined.0, &create));
    }

    fn alter(&mut self, sources: &[SourceAdvance], change: StreamChange) {
        self.apply(plan_alter(&self.defined.0, sources, &alter("orders", change)));
    }

    fn refused(&self, sources: &[SourceAdvance], change: StreamChange) -> crate::Error {
        plan_alter(&self.defined.0, sources, &alter("orders", change)).expect_err("refused")
    }

    fn reading(&self) -> Reading {
        let definition = self.defined.0.get(DefinitionKind::Stream, "orders").expect("a stream");
        StreamDef::read(definition).expect("a definition").reading
    }
}

fn source(partition: i32, generation: u64, stop: Option<(SourceFault, u64)>) -> SourceAdvance {
    let stop = stop.map(|(fault, tx)| SourceStop { fault, found_at: TxId::new(tx) });
    let log = SourceLog { generation, stop, ..SourceLog::default() };
    let (stream, topic) = ("orders".to_owned(), "t".to_owned());
    SourceAdvance { stream, topic, partition, next_offset: 5, log }
}

#[test]
fn each_beginning_has_a_generation_of_its_own() {
    let mut stream = Stream::new();
    let mut seen = vec![stream.reading().start.generation];
    for change in [
        reset(ResetTo::Beginning, None),
        reset(ResetTo::Beginning, None),
        reset(ResetTo::Timestamp(ValidTime::from_micros(7)), None),
    ] {
        stream.alter(&[], change);
        seen.push(stream.reading().start.generation);
    }
    let drop = everwhen_query::statements::DropDefinition {
        kind: DefinitionKind::Stream,
        name: "orders".to_owned(),
        if_exists: false,
        position: 1,
    };
    stream.apply(plan_drop(&stream.defined.0, &drop));
    stream.create();
    seen.push(stream.reading().start.generation);
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
    assert_eq!(stream.reading().start.at, StartAt::Beginning);
}

#[test]
fn one_partition_is_reset_alone_and_all_of_them_after_it() {
    let mut stream = Stream::new();
    let first = stream.reading().start;
    stream.alter(&[source(0, 1, None), source(2, 1, None)], reset(ResetTo::Offset(9), Some(2)));
    let reading = stream.reading();
    assert_eq!(reading.start_of(0), first);
    assert_eq!(reading.start_of(2).at, StartAt::Offset(9));
    assert!(reading.start_of(2).generation > first.generation);
    stream.alter(&[], reset(ResetTo::End, None));
    let after = stream.reading();
    assert_eq!(after.start_of(2), after.start_of(0));
    assert!(after.start.generation > reading.start_of(2).generation);
}

#[test]
fn skip_moves_the_partitions_that_were_truncated_and_no_others() {
    let mut stream = Stream::new();
    let generation = stream.reading().start.generation;
    let sources = [
        source(0, generation, Some((SourceFault::Truncated, 3))),
        source(1, generation, None),
        source(2, generation, Some((SourceFault::Remade, 3))),
        // A stop that a statement has ended already, and one of another beginning.
        source(3, generation, Some((SourceFault::Truncated, 0))),
        source(4, generation + 9, Some((SourceFault::Truncated, 3))),
    ];
    let none = stream.refused(&sources[1..], StreamChange::Skip);
    assert_eq!((none.sqlstate(), none.hint().is_some()), ("55000", true));
    stream.alter(&sources, StreamChange::Skip);
    let reading = stream.reading();
    assert_eq!(reading.partitions.keys().copied().collect::<Vec<_>>(), [0]);
    assert_eq!(reading.start_of(0).at, StartAt::Beginning);
    assert!(reading.start_of(0).generation > generation);
}

#[test]
fn pause_and_resume_keep_the_beginning() {
    let mut stream = Stream::new();
    let start = stream.reading().start;
    stream.alter(&[], StreamChange::Pause);
    assert!(stream.reading().paused);
    let again = plan_alter(&stream.defined.0, &[], &alter("orders", StreamChange::Pause));
    assert!(again.expect("nothing to do").is_empty());
    let stop = SourceStop { fault: SourceFault::Shorter, found_at: TxId::new(stream.tx) };
    assert!(stream.reading().counts(stop));
    stream.alter(&[], StreamChange::Resume);
    let reading = stream.reading();
    assert_eq!((reading.paused, reading.start), (false, start));
    assert!(!reading.counts(stop));
    assert_eq!(reading.altered.map(|altered| altered.text).as_deref(), Some("RESUME"));
}

#[test]
fn a_replaced_stream_goes_on_and_another_topic_begins_at_its_beginning() {
    let mut stream = Stream::new();
    stream.alter(&[], reset(ResetTo::End, None));
    let before = stream.reading();
    let mut replace = from_topic(orders(), "other:9092", "t");
    replace.or_replace = true;
    stream.apply(crate::stream::plan_stream(&stream.defined.0, &replace));
    assert_eq!(stream.reading().start, before.start);
    assert!(stream.reading().resumed_at > before.resumed_at);
    let mut replace = from_topic(orders(), "other:9092", "u");
    replace.or_replace = true;
    stream.apply(crate::stream::plan_stream(&stream.defined.0, &replace));
    let start = Start { at: StartAt::Beginning, ..before.start };
    assert_eq!(stream.reading().start, start);
}

#[test]
fn wrong_statements_are_refused_with_advice() {
    let stream = Stream::new();
    let unknown = plan_alter(&stream.defined.0, &[], &alter("nothing", StreamChange::Skip));
    let unknown = unknown.expect_err("refused");
    assert_eq!((unknown.sqlstate(), unknown.position()), ("42704", Some(14)));
    assert!(unknown.hint().is_some());
    let lenient = AlterStream { if_exists: true, ..alter("nothing", StreamChange::Skip) };
    assert!(plan_alter(&stream.defined.0, &[], &lenient).expect("nothing to do").is_empty());

    let sources = [source(0, 1, None), source(1, 1, None)];
    let partition = stream.refused(&sources, reset(ResetTo::Beginning, Some(2)));
    assert_eq!((partition.sqlstate(), partition.position()), ("22023", Some(40)));
    assert_eq!(partition.hint(), Some("its partitions are 0 to 1"));

    let mut posted = Defined::default();
    posted.stream(&orders()).expect("a stream");
    let refused = plan_alter(&posted.0, &[], &alter("orders", StreamChange::Pause));
    let refused = refused.expect_err("refused");
    assert_eq!((refused.sqlstate(), refused.hint().is_some()), ("55000", true));
}
