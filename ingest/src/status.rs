//! Where each stream stands, for people and for waits.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::kafka::Watermarks;
use crate::reading::Reading;

/// One row of `everwhen.streams`: a partition, or a stream whose partitions are not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamStatus {
    pub stream: String,
    pub topic: Option<String>,
    pub partition: Option<i32>,
    /// The next offset to read; everything before it is durable.
    pub next_offset: Option<i64>,
    /// The end of the partition's log, or of its last finished transaction.
    pub high_watermark: Option<i64>,
    /// `high_watermark` less `next_offset`.
    pub lag: Option<i64>,
    /// `events` (posted alone), `connecting`, `running`, `no mapping`, `waiting`, `paused`,
    /// `stopped`.
    pub state: String,
    /// Why it waits or has stopped.
    pub error: Option<String>,
}

impl StreamStatus {
    /// Returns the row of a stream without partitions.
    pub fn bare(stream: &str, state: String, error: Option<String>) -> Self {
        Self {
            stream: stream.to_owned(),
            topic: None,
            partition: None,
            next_offset: None,
            high_watermark: None,
            lag: None,
            state,
            error,
        }
    }
}

/// What a stream is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    #[default]
    Connecting,
    Running,
    /// Nothing reads the stream yet, so nothing is taken from it.
    NoMapping,
    /// Something outside is away; it goes on by itself once that is back.
    Waiting,
    /// It was told to read nothing for now.
    Paused,
    /// Something must be put right by a person; it goes on once that is done.
    Stopped,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Running => "running",
            Self::NoMapping => "no mapping",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// The current state of one Kafka stream, shared between its threads and those who ask.
#[derive(Debug, Default)]
pub struct Board {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    state: State,
    error: Option<String>,
    /// What the partitions below were read as.
    reading: Option<Reading>,
    partitions: BTreeMap<i32, Place>,
    watermarks: Option<Watermarks>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    next_offset: Option<i64>,
    high_watermark: Option<i64>,
}

impl Board {
    /// Sets the state; true where that is news.
    pub fn set(&self, state: State, error: Option<String>) -> bool {
        let mut inner = self.inner.lock();
        let news = inner.state != state || inner.error != error;
        inner.state = state;
        inner.error = error;
        news
    }

    /// Begins to read as a definition says; what is known of partitions read otherwise goes.
    pub fn begin(&self, reading: &Reading) {
        let mut inner = self.inner.lock();
        if inner.reading.as_ref() != Some(reading) {
            inner.reading = Some(reading.clone());
            inner.partitions.clear();
            inner.state = State::Connecting;
            inner.error = None;
        }
    }

    /// Returns the state.
    pub fn state(&self) -> State {
        self.inner.lock().state
    }

    /// Notes how far a partition has been read.
    pub fn reached(&self, partition: i32, next_offset: i64) {
        let mut inner = self.inner.lock();
        let place = inner.partitions.entry(partition).or_default();
        place.next_offset = Some(place.next_offset.unwrap_or(next_offset).max(next_offset));
    }

    /// Notes where a partition's log ends.
    pub fn ends(&self, partition: i32, high_watermark: i64) {
        let mut inner = self.inner.lock();
        inner.partitions.entry(partition).or_default().high_watermark = Some(high_watermark);
    }

    /// Gives the means to ask where logs end, until that client is gone.
    pub fn watch(&self, watermarks: Option<Watermarks>) {
        self.inner.lock().watermarks = watermarks;
    }

    /// Returns the rows of a stream. Asks the broker where its logs end, for a moment at most, so
    /// that a lag of zero means that all that was there before the call is durable. Nothing is
    /// said of offsets that were read otherwise than the definition says now.
    pub fn rows(&self, stream: &str, topic: &str, reading: &Reading) -> Vec<StreamStatus> {
        let (state, watermarks, is_current) = {
            let inner = self.inner.lock();
            let is_current = inner.reading.as_ref().is_none_or(|of| of == reading);
            (inner.state, inner.watermarks.clone(), is_current)
        };
        if !is_current {
            let state = State::Connecting.word().to_owned();
            let topic = Some(topic.to_owned());
            return vec![StreamStatus { topic, ..StreamStatus::bare(stream, state, None) }];
        }
        if let (State::Running | State::NoMapping, Some(watermarks)) = (state, watermarks) {
            let partitions: Vec<i32> = self.inner.lock().partitions.keys().copied().collect();
            for (partition, high_watermark) in watermarks.ask(&partitions) {
                self.ends(partition, high_watermark);
            }
        }
        let inner = self.inner.lock();
        let row = |partition: Option<i32>, place: Place| {
            // What was read cannot lie beyond the end: the end was asked for before.
            let high_watermark = place.high_watermark.max(place.next_offset);
            StreamStatus {
                stream: stream.to_owned(),
                topic: Some(topic.to_owned()),
                partition,
                next_offset: place.next_offset,
                high_watermark,
                lag: high_watermark.zip(place.next_offset).map(|(high, next)| high - next),
                state: inner.state.word().to_owned(),
                error: inner.error.clone(),
            }
        };
        if inner.partitions.is_empty() {
            return vec![row(None, Place::default())];
        }
        inner.partitions.iter().map(|(partition, place)| row(Some(*partition), *place)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Board, State, StreamStatus};
    use crate::reading::Reading;

    fn rows(board: &Board) -> Vec<StreamStatus> {
        board.rows("s", "t", &Reading::default())
    }

    #[test]
    fn rows_show_each_partition_and_its_lag() {
        let board = Board::default();
        assert_eq!(rows(&board)[0].state, "connecting");
        board.reached(0, 5);
        board.ends(0, 7);
        board.ends(1, 3);
        assert!(board.set(State::Waiting, Some("broker away".to_owned())));
        assert!(!board.set(State::Waiting, Some("broker away".to_owned())));
        let shown = rows(&board);
        assert_eq!((shown[0].next_offset, shown[0].lag), (Some(5), Some(2)));
        assert_eq!((shown[1].next_offset, shown[1].lag), (None, None));
        assert_eq!(shown[1].error.as_deref(), Some("broker away"));
        board.reached(0, 9);
        assert_eq!(rows(&board)[0].lag, Some(0));
    }

    #[test]
    fn offsets_of_another_beginning_are_not_shown() {
        let board = Board::default();
        let anew = Reading { resumed_at: 7, ..Reading::default() };
        board.begin(&Reading::default());
        board.reached(0, 5);
        assert_eq!(rows(&board)[0].next_offset, Some(5));
        let row = board.rows("s", "t", &anew).remove(0);
        assert_eq!((row.state.as_str(), row.next_offset), ("connecting", None));
        board.begin(&anew);
        board.reached(0, 2);
        assert_eq!(board.rows("s", "t", &anew)[0].next_offset, Some(2));
    }
}
