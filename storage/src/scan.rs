//! Reads over the stored families: one snapshot, small cursors, one key after the other.
//!
//! [`reader`] pins the snapshot, [`gather`] finds a key's stored pieces within a window, [`merge`]
//! joins them to versions, [`point`] is the short way for one instant, [`keys`] walks the keys of a
//! table, [`range`] bounds which. Rows stay bytes until a version is known to be wanted.

pub(crate) mod forward;
pub(crate) mod gather;
pub(crate) mod keys;
pub(crate) mod merge;
pub(crate) mod point;
pub(crate) mod range;
pub(crate) mod reader;

#[cfg(test)]
mod tests;
