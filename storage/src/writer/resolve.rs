//! From writes to operations on keys: periods, positions, and what an event id makes of a record.

use crate::assertion::{AssertedFrom, Assertion, EventId, Op, Position};
use crate::assertions::{self, Suffix};
use crate::batch::{Event, Write, WriteKind};
use crate::error::{Error, Result};
use crate::event_ids::EventEntry;
use crate::families::Family;
use crate::key;
use crate::row::Document;
use crate::time::SystemTime;
use crate::timeline::Said;
use crate::tx::TxId;

use super::group::Group;

/// What a transaction does to one key.
pub(super) enum KeyOp<'t> {
    Say { said: Said, exact: bool, event_id: Option<&'t EventId> },
    TakeBack { suffix: Suffix, said: Said },
}

/// A transaction while its writes are resolved.
pub(super) struct Resolving<'t> {
    pub(super) tx: TxId,
    pub(super) system_time: SystemTime,
    pub(super) ordinal: u32,
    pub(super) ops: Vec<(usize, KeyOp<'t>)>,
    pub(super) duplicates: usize,
    pub(super) stale: usize,
    /// Assertions about erased keys that were dropped.
    pub(super) erased: usize,
    /// Keys to erase, in statement order.
    pub(super) erasing: Vec<usize>,
    /// The transaction is a record of a stream.
    pub(super) is_record: bool,
    /// What was decided of each event id of the transaction.
    pub(super) decided: Vec<(Vec<u8>, bool)>,
}

impl<'t> Resolving<'t> {
    /// Starts a transaction.
    pub(super) const fn new(tx: TxId, system_time: SystemTime, is_record: bool) -> Self {
        Self {
            tx,
            system_time,
            ordinal: 0,
            ops: Vec::new(),
            duplicates: 0,
            stale: 0,
            erased: 0,
            erasing: Vec::new(),
            is_record,
            decided: Vec::new(),
        }
    }

    /// Resolves an assertion's period and place, and encodes its fields.
    pub(super) fn said(&mut self, assertion: &Assertion) -> Option<Said> {
        let valid = assertion.period(self.system_time.micros())?;
        debug_assert!(
            matches!(assertion.from, AssertedFrom::SystemTime) || valid.to() == assertion.to
        );
        let ordinal = self.ordinal;
        self.ordinal += 1;
        let fields = match assertion.op {
            Op::Put => Document::of_put(&assertion.fields),
            Op::Patch { .. } => Document::of_assertion(&assertion.fields),
            Op::Delete => Document::default(),
        };
        let at =
            Position { valid_from: valid.from(), order: assertion.order, tx: self.tx, ordinal };
        Some(Said { at, op: assertion.op, valid, fields })
    }

    /// Finds an assertion of this transaction that is not registered yet.
    fn unregistered(&self, place: usize, suffix: &Suffix) -> Option<Said> {
        self.ops.iter().find_map(|(at, op)| match op {
            KeyOp::Say { said, .. } if *at == place && assertions::suffix_of(said) == *suffix => {
                Some(said.clone())
            }
            _ => None,
        })
    }
}

impl Group<'_> {
    /// Turns one write into operations on keys: finds periods and positions, and what an event id
    /// makes of it.
    pub(super) fn resolve<'t>(
        &mut self,
        write: &'t Write,
        resolving: &mut Resolving<'t>,
    ) -> Result<()> {
        let place = self.next_place();
        match &write.kind {
            WriteKind::Assert { key, assertion, event } => {
                let said = resolving.said(assertion);
                let Some(said) = said else { return Ok(()) };
                if resolving.is_record
                    && self.erased.hides(&self.states[place].prefix, said.valid.from())
                {
                    resolving.erased += 1;
                    return Ok(());
                }
                if let Some(event) = event
                    && !self.admit_event(write, event, &said, resolving)?
                {
                    return Ok(());
                }
                if let Some(event) = event {
                    let id = key::event_id(&write.tenant, write.table, &event.id.0);
                    if let Some(Some(entry)) = self.events.get_mut(&id) {
                        entry.order = entry.order.max(said.at.order);
                        entry.assertions.push((key.clone(), assertions::suffix_of(&said)));
                    }
                }
                let event_id = event.as_ref().map(|event| &event.id);
                resolving.ops.push((place, KeyOp::Say { said, exact: assertion.exact, event_id }));
            }
            WriteKind::Retract { event_id } => {
                let id = key::event_id(&write.tenant, write.table, &event_id.0);
                match self.event(&id)? {
                    Some(entry) => {
                        self.take_back(write, &entry, resolving)?;
                        self.set_event(id, None);
                    }
                    None => resolving.duplicates += 1,
                }
            }
            WriteKind::Erase { .. } => {
                if !resolving.erasing.contains(&place) {
                    resolving.erasing.push(place);
                }
            }
            // Refused beforehand.
            WriteKind::EraseHashed { .. } => {}
        }
        Ok(())
    }

    pub(super) fn event(&mut self, id: &[u8]) -> Result<Option<EventEntry>> {
        if let Some(known) = self.events.get(id) {
            return Ok(known.clone());
        }
        let stored = self.engine.get(Family::EventIds, id)?;
        stored.map(|value| EventEntry::read(&value)).transpose()
    }

    pub(super) fn set_event(&mut self, id: Vec<u8>, entry: Option<EventEntry>) {
        if !self.changed_events.contains(&id) {
            self.changed_events.insert(id.clone());
        }
        self.events.insert(id, entry);
    }

    /// Decides on the first assertion of an event id in a transaction whether the record stands;
    /// what the id said before is then taken back.
    fn admit_event<'t>(
        &mut self,
        write: &'t Write,
        event: &Event,
        said: &Said,
        resolving: &mut Resolving<'t>,
    ) -> Result<bool> {
        let id = key::event_id(&write.tenant, write.table, &event.id.0);
        if let Some((_, admitted)) = resolving.decided.iter().find(|(decided, _)| *decided == id) {
            return Ok(*admitted);
        }
        let admitted = match self.event(&id)? {
            Some(entry) if said.at.order < entry.order => {
                resolving.stale += 1;
                false
            }
            Some(entry) if entry.content_hash == event.content_hash => {
                resolving.duplicates += 1;
                false
            }
            Some(entry) => {
                self.take_back(write, &entry, resolving)?;
                true
            }
            None => true,
        };
        if admitted {
            let entry = EventEntry {
                content_hash: event.content_hash,
                order: said.at.order,
                assertions: Vec::with_capacity(1),
            };
            self.set_event(id.clone(), Some(entry));
        }
        resolving.decided.push((id, admitted));
        Ok(admitted)
    }

    fn take_back<'t>(
        &mut self,
        write: &'t Write,
        entry: &EventEntry,
        resolving: &mut Resolving<'t>,
    ) -> Result<()> {
        for (row_key, suffix) in &entry.assertions {
            let place = self.place(&write.tenant, write.table, row_key)?;
            let state = &self.states[place];
            let said = match state.overlay.get(suffix) {
                Some(made) => made.cloned(),
                None => {
                    let key = [state.prefix.as_slice(), suffix].concat();
                    let stored = self.engine.get(Family::Assertions, &key)?;
                    stored.map(|value| assertions::read(suffix, &value)).transpose()?
                }
            };
            // One of the same transaction is not registered yet: it is among the operations.
            let said = said.or_else(|| resolving.unregistered(place, suffix));
            let said = said.ok_or_else(|| Error::Corrupt {
                what: "event id",
                why: "it names an assertion that is not there".to_owned(),
            })?;
            resolving.ops.push((place, KeyOp::TakeBack { suffix: *suffix, said }));
        }
        Ok(())
    }
}
