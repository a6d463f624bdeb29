//! The first load of a generation: all rows at one basis, in bits that a restart can go on from.

use everwhen_storage::RowKey;

use super::evaluate::evaluate;
use super::node::Node;
use super::row_sorter::{Order, RowSorter, Sorted};
use super::source::Reader;
use super::walk::Walk;
use super::zset::ZSet;
use crate::error::Result;

/// Loads some rows of a node whose key is unique by the query itself: from after a key of the table that
/// they come from, until `each` says that it has enough. Returns the key to go on after; nothing at the
/// end. Without such a table all rows come at once.
pub fn load_some(
    root: &Node,
    reader: &Reader<'_, '_>,
    after: Option<RowKey>,
    each: &mut dyn FnMut(ZSet) -> Result<bool>,
) -> Result<Option<RowKey>> {
    let walk = Walk::scan_of(root).map(|scan| Walk::new(scan, after));
    let reader = Reader { walk: walk.as_ref(), ..*reader };
    evaluate(root, &reader, None, &mut |rows| {
        if !each(rows)?
            && let Some(walk) = &walk
        {
            walk.stop();
        }
        Ok(())
    })?;
    Ok(walk.and_then(|walk| walk.resting_place()))
}

/// Loads all rows of a node, whole keys at a time in key order: only all rows of a key can tell whether it
/// has one.
pub fn load_by_key(
    root: &Node,
    reader: &Reader<'_, '_>,
    key: &[usize],
    each: &mut dyn FnMut(Sorted) -> Result<()>,
) -> Result<()> {
    let order = Order { group: key.to_vec(), canonical: true };
    let mut sorter = RowSorter::new(reader.memory, std::sync::Arc::clone(&root.schema), order);
    evaluate(root, reader, None, &mut |rows| sorter.add_after(rows))?;
    sorter.groups("the rows of one key", each)
}
