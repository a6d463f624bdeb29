use everwhen_storage::{SourceFault, SourceLog, SourcePlace, SourceStop, TxId};

use super::{Decision, Known, Log, explain};
use crate::reading::{Reading, Start, StartAt};

const TOPIC: Option<[u8; 16]> = Some([1; 16]);
const OTHER: Option<[u8; 16]> = Some([2; 16]);

fn reading(at: StartAt) -> Reading {
    Reading { start: Start { generation: 5, at }, resumed_at: 5, ..Reading::default() }
}

fn stored(generation: u64, next_offset: i64) -> SourcePlace {
    let log = SourceLog { generation, topic_id: TOPIC, ..SourceLog::default() };
    SourcePlace { next_offset, log }
}

fn log(topic_id: Option<[u8; 16]>, low: i64, high: i64) -> Log {
    Log { topic_id, low, high }
}

fn decide(reading: &Reading, stored: Option<SourcePlace>, log: Log) -> Decision {
    let stored = stored.as_ref();
    Known { reading, partition: 0, stored, is_begun: false, log }.decide(None)
}

#[test]
fn what_was_read_goes_on_where_it_stopped() {
    let reading = reading(StartAt::End);
    for (log, next) in [(log(TOPIC, 0, 10), 10), (log(TOPIC, 7, 9), 7), (log(None, 0, 9), 3)] {
        assert_eq!(decide(&reading, Some(stored(5, next)), log), Decision::Read(next));
    }
}

#[test]
fn another_topic_is_a_stop_however_many_records_it_has() {
    let reading = reading(StartAt::Beginning);
    for high in [3, 10, 100] {
        let found = decide(&reading, Some(stored(5, 10)), log(OTHER, 0, high));
        assert_eq!(found, Decision::Stop(SourceFault::Remade), "{high} records");
    }
}

#[test]
fn an_offset_outside_the_log_is_a_stop() {
    let reading = reading(StartAt::Beginning);
    let found = |log| decide(&reading, Some(stored(5, 10)), log);
    assert_eq!(found(log(TOPIC, 11, 20)), Decision::Stop(SourceFault::Truncated));
    assert_eq!(found(log(None, 0, 9)), Decision::Stop(SourceFault::Shorter));
}

#[test]
fn a_stop_lasts_until_a_later_statement_even_where_nothing_shows_it_any_more() {
    let mut place = stored(5, 10);
    place.log.stop = Some(SourceStop { fault: SourceFault::Shorter, found_at: TxId::new(7) });
    let mut reading = reading(StartAt::Beginning);
    let now = log(TOPIC, 0, 20);
    assert_eq!(decide(&reading, Some(place), now), Decision::StopAsBefore(SourceFault::Shorter));
    reading.resumed_at = 8;
    assert_eq!(decide(&reading, Some(place), now), Decision::Read(10));
}

#[test]
fn a_generation_begins_where_its_definition_says() {
    for (at, expected) in [
        (StartAt::Beginning, Decision::Read(4)),
        (StartAt::End, Decision::Read(9)),
        (StartAt::Offset(4), Decision::Read(4)),
        (StartAt::Offset(9), Decision::Read(9)),
        (StartAt::Offset(10), Decision::Outside(10)),
        (StartAt::Offset(3), Decision::Outside(3)),
        (StartAt::Timestamp(1), Decision::Read(9)),
    ] {
        // Offsets and ids of an earlier generation say nothing.
        for before in [None, Some(stored(4, 1_000))] {
            assert_eq!(decide(&reading(at), before, log(OTHER, 4, 9)), expected, "{at:?}");
        }
    }
    let reading = reading(StartAt::Timestamp(1));
    let known = Known {
        reading: &reading,
        partition: 0,
        stored: None,
        is_begun: false,
        log: log(TOPIC, 4, 9),
    };
    assert_eq!(known.time(), Some(1));
    assert_eq!(known.decide(Some(6)), Decision::Read(6));
}

#[test]
fn a_partition_that_is_added_later_is_read_whole() {
    let mut reading = reading(StartAt::End);
    let log = log(TOPIC, 0, 9);
    let known = Known { reading: &reading, partition: 1, stored: None, is_begun: true, log };
    assert_eq!((known.decide(None), known.time()), (Decision::Read(0), None));
    // One that was reset alone begins where that says.
    reading.partitions.insert(1, Start { generation: 6, at: StartAt::Offset(3) });
    let known = Known { reading: &reading, partition: 1, stored: None, is_begun: true, log };
    assert_eq!(known.decide(None), Decision::Read(3));
}

#[test]
fn a_stop_says_which_statement_goes_on() {
    let reading = reading(StartAt::Beginning);
    let place = stored(5, 10);
    let said = |log| {
        let stored = Some(&place);
        let known = Known { reading: &reading, partition: 0, stored, is_begun: true, log };
        explain("My s", "t", &known, known.decide(None))
    };
    let remade = said(log(OTHER, 0, 10));
    assert!(remade.contains("made anew") && remade.contains("\"My s\" RESET TO BEGINNING"));
    let truncated = said(log(TOPIC, 12, 20));
    assert!(truncated.contains("begins at 12") && truncated.contains("SKIP goes on at 12"));
    assert!(said(log(TOPIC, 0, 9)).contains("RESET TO BEGINNING"));
}
