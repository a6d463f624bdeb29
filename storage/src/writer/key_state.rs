//! What one key believes while a group of batches is folded: the stored state and what changes it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;

use crate::assertions::Overlay;
use crate::engine::DbIterator;
use crate::error::Result;
use crate::families::Family;
use crate::key;
use crate::row::{CurrentHeader, Document, TimelineHeader};
use crate::schema::{TableId, Tenant};
use crate::time::{Period, ValidTime};
use crate::timeline::{Change, Segment};
use crate::tx::TxId;

/// One key, from the first write of a group that names it to the group's commit.
pub(super) struct KeyState {
    pub(super) tenant: Tenant,
    pub(super) table: TableId,
    /// Its row prefix.
    pub(super) prefix: Vec<u8>,
    pub(super) header: CurrentHeader,
    /// Of the open-ended segment; empty for a tombstone.
    document: Document,
    /// The key has an entry in the stored `current`.
    pub(super) is_stored: bool,
    /// The key has entries in the stored timeline.
    stored_timeline: bool,
    /// The key has stored assertions.
    pub(super) stored_assertions: bool,
    /// Segments read or changed, by `valid_from`; no segment where one was removed.
    timeline: BTreeMap<ValidTime, Loaded>,
    /// Assertions made and retracted.
    pub(super) overlay: Overlay,
    pub(super) dirty: bool,
}

struct Loaded {
    segment: Option<Segment>,
    dirty: bool,
}

impl KeyState {
    /// Starts from the stored `current` value, if there is one.
    pub(super) fn new(
        tenant: Tenant,
        table: TableId,
        prefix: Vec<u8>,
        stored: Option<&[u8]>,
    ) -> Result<Self> {
        let (header, document) = match stored {
            Some(value) => {
                let (header, document) = CurrentHeader::read(value)?;
                (header, Document::copy_from(document))
            }
            None => (CurrentHeader::NOTHING, Document::default()),
        };
        Ok(Self {
            tenant,
            table,
            prefix,
            header,
            document,
            is_stored: stored.is_some(),
            stored_timeline: header.timeline,
            stored_assertions: header.asserted.is_some(),
            timeline: BTreeMap::new(),
            overlay: Overlay::default(),
            dirty: false,
        })
    }

    /// Returns the bytes of the row's key.
    pub(super) fn row_key(&self) -> &[u8] {
        &self.prefix[self.tenant.as_str().len() + 5..]
    }

    /// Returns the segments that overlap a window, whole, in order. `stored` gives an iterator over
    /// the stored timeline where it is needed.
    pub(super) fn segments<'i, 'db: 'i>(
        &mut self,
        window: &Period<ValidTime>,
        stored: impl FnOnce() -> &'i mut DbIterator<'db>,
    ) -> Result<Vec<Segment>> {
        let mut found = Vec::with_capacity(2);
        if window.from() < self.header.valid_from {
            if self.stored_timeline {
                self.load(window, stored())?;
            }
            let before = self.timeline.range(..=window.from());
            let covering = before.rev().find_map(|(_, loaded)| loaded.segment.as_ref());
            found.extend(covering.filter(|segment| segment.valid.to() > window.from()).cloned());
            let within = (Bound::Excluded(window.from()), Bound::Excluded(window.to()));
            let later = self.timeline.range(within);
            found.extend(later.filter_map(|(_, loaded)| loaded.segment.clone()));
        }
        found.extend(self.open_segment().filter(|open| open.valid.overlaps(window)));
        Ok(found)
    }

    fn open_segment(&self) -> Option<Segment> {
        if self.header.tombstone {
            return None;
        }
        let valid = Period::nonempty(self.header.valid_from, ValidTime::END)?;
        Some(Segment { valid, tx_from: self.header.tx_from, document: self.document.clone() })
    }

    /// Reads the stored segments that overlap a window, beside those changed since.
    fn load(&mut self, window: &Period<ValidTime>, stored: &mut DbIterator<'_>) -> Result<()> {
        let start = key::timeline(&self.prefix, window.from());
        stored.seek_for_prev(&start);
        if !stored.key().is_some_and(|key| key.starts_with(&self.prefix)) {
            stored.status()?;
            stored.seek(&start);
        }
        while let Some((key, value)) = stored.item() {
            if !key.starts_with(&self.prefix) {
                break;
            }
            let from = key::timeline_from(key)?;
            if from >= window.to() {
                break;
            }
            if let Entry::Vacant(place) = self.timeline.entry(from) {
                let (header, document) = TimelineHeader::read(value)?;
                let segment = Period::nonempty(from, header.valid_to).map(|valid| Segment {
                    valid,
                    tx_from: header.tx_from,
                    document: Document::copy_from(document),
                });
                place.insert(Loaded { segment, dirty: false });
            }
            stored.next();
        }
        Ok(stored.status()?)
    }

    /// Takes over the outcome of transaction `tx`, where `before` is what [`KeyState::segments`]
    /// answered for the window that was changed.
    pub(super) fn update(&mut self, before: &[Segment], change: &Change, tx: TxId) {
        self.dirty = true;
        let after = &change.segments;
        let is_open = |segment: &Segment| segment.valid.to() == ValidTime::END;
        let bounded = |segments: &[Segment]| {
            segments.len() - usize::from(segments.last().is_some_and(is_open))
        };
        let starts = |from: ValidTime, segments: &[Segment]| {
            segments.binary_search_by_key(&from, |segment| segment.valid.from()).is_ok()
        };
        let after_bounded = &after[..bounded(after)];
        for gone in &before[..bounded(before)] {
            if !starts(gone.valid.from(), after_bounded) {
                self.set(gone.valid.from(), None);
            }
        }
        for segment in after_bounded {
            let old = before.binary_search_by_key(&segment.valid.from(), |old| old.valid.from());
            if old.map(|at| &before[at]) != Ok(segment) {
                self.header.timeline = true;
                self.set(segment.valid.from(), Some(segment.clone()));
            }
        }
        let was_open = before.last().is_some_and(is_open);
        match after.last().filter(|last| is_open(last)) {
            Some(open) => {
                self.header.tombstone = false;
                self.header.valid_from = open.valid.from();
                self.header.tx_from = open.tx_from;
                self.document = open.document.clone();
            }
            None => {
                let last_end = after.last().map_or(ValidTime::BEGIN, |last| last.valid.to());
                if was_open {
                    let from = change.changed.last().map_or(last_end, |period| period.from());
                    self.header.tombstone = true;
                    self.header.valid_from = from.max(last_end);
                    self.header.tx_from = tx;
                    self.document = Document::default();
                } else if self.header.tombstone {
                    self.header.valid_from = self.header.valid_from.max(last_end);
                }
            }
        }
    }

    fn set(&mut self, from: ValidTime, segment: Option<Segment>) {
        self.timeline.insert(from, Loaded { segment, dirty: true });
    }

    /// Calls `each` with what became of `current` and `timeline`, without a value where an entry goes.
    pub(super) fn drain(
        &self,
        value: &mut Vec<u8>,
        mut each: impl FnMut(Family, &[u8], Option<&[u8]>),
    ) {
        value.clear();
        self.header.put(value, self.document.as_bytes());
        each(Family::Current, &self.prefix, Some(value));
        for (from, loaded) in self.timeline.iter().filter(|(_, loaded)| loaded.dirty) {
            let key = key::timeline(&self.prefix, *from);
            match &loaded.segment {
                Some(segment) => {
                    let header =
                        TimelineHeader { valid_to: segment.valid.to(), tx_from: segment.tx_from };
                    value.clear();
                    header.put(value, segment.document.as_bytes());
                    each(Family::Timeline, &key, Some(value));
                }
                None if self.stored_timeline => each(Family::Timeline, &key, None),
                None => {}
            }
        }
    }
}
