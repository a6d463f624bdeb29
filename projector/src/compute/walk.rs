//! A scan that is read bit by bit: where it began, and where it came to rest.
//!
//! A first load follows the keys of the table that every row of the result comes from. It rests between
//! two keys once enough rows have come out, and goes on from there, also after a restart.

use std::cell::RefCell;

use everwhen_storage::{KeyRange, RowKey, VersionRef};

use super::node::{Kind, Node, Scan};

/// One walk over the keys of a scan.
#[derive(Debug)]
pub struct Walk<'a> {
    /// The scan.
    pub scan: &'a Scan,
    after: Option<RowKey>,
    place: RefCell<Place>,
}

#[derive(Debug, Default)]
struct Place {
    /// The key whose versions are being read.
    key: Option<RowKey>,
    /// No more keys are wanted.
    rest: bool,
    /// It rests after the key.
    rested: bool,
    /// The scan came to its end.
    ended: bool,
}

impl<'a> Walk<'a> {
    /// Begins after a key, or with the first one.
    pub fn new(scan: &'a Scan, after: Option<RowKey>) -> Self {
        Self { scan, after, place: RefCell::default() }
    }

    /// Returns the scan whose keys a load of the node can follow: each row of the node comes from one
    /// of its rows, and they come in its order.
    pub fn scan_of(node: &Node) -> Option<&Scan> {
        match &node.kind {
            Kind::Scan(scan) => Some(scan),
            Kind::Filter(filter) => Self::scan_of(&filter.input),
            Kind::Project(project) => Self::scan_of(&project.input),
            Kind::Join(join) => Self::scan_of(&join.left),
            _ => None,
        }
    }

    /// Returns the keys that are left; nothing where that is all of them.
    pub fn rest(&self) -> Option<KeyRange> {
        self.after.as_ref().map(KeyRange::after)
    }

    /// Takes note of the next version; false where it is of a key that is not wanted any more.
    pub fn reaches(&self, version: &VersionRef<'_>) -> bool {
        let mut place = self.place.borrow_mut();
        let is_next = place.key.as_ref().is_none_or(|key| key.as_bytes() != version.key_bytes());
        if is_next && place.rest && place.key.is_some() {
            place.rested = true;
            return false;
        }
        if is_next {
            place.key = Some(version.key());
        }
        true
    }

    /// Asks to rest before the next key.
    pub fn stop(&self) {
        self.place.borrow_mut().rest = true;
    }

    /// Takes note that the scan has been read as far as was wanted.
    pub fn ends(&self) {
        self.place.borrow_mut().ended = true;
    }

    /// Returns the key after which the walk goes on; nothing where it is at its end.
    pub fn resting_place(&self) -> Option<RowKey> {
        let place = self.place.borrow();
        place.key.clone().filter(|_| place.rested && place.ended)
    }
}
