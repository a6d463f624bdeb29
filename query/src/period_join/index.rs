//! The rows of one side of a join by key, and by period within a key.
//!
//! Rows of a key stand in order of their beginning, as a binary tree that is implied by their places:
//! the root of `[start, end)` is its middle. Each root knows the latest end within its range, so a
//! search steps over ranges that end too early: O(log n + matches) for n rows of a key (the
//! augmented tree of Cormen et al., "Introduction to Algorithms", 17.3).

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef};
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};
use datafusion::error::Result as DataFusionResult;

/// Which bounds count as inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strict {
    /// `from < until` rather than `from <= until`.
    pub from: bool,
    /// `since < to` rather than `since <= to`.
    pub to: bool,
}

/// A row of the indexed side: where it begins, where it ends, and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub from: i64,
    pub to: i64,
    pub row: u32,
}

/// The entries of one key.
#[derive(Debug, Default)]
pub struct Tree {
    entries: Vec<Entry>,
    /// For the root at each place, the latest end within its range.
    latest: Vec<i64>,
}

impl Tree {
    /// Builds the tree of some entries.
    pub fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_unstable();
        let mut tree = Self { latest: vec![i64::MIN; entries.len()], entries };
        tree.note_latest(0, tree.entries.len());
        tree
    }

    fn note_latest(&mut self, start: usize, end: usize) -> i64 {
        if start >= end {
            return i64::MIN;
        }
        let root = start + (end - start) / 2;
        let (left, right) = (self.note_latest(start, root), self.note_latest(root + 1, end));
        self.latest[root] = self.entries[root].to.max(left).max(right);
        self.latest[root]
    }

    /// Hands over the rows that begin by `until` and end from `since` on, in order of their beginning.
    pub fn matching(&self, since: i64, until: i64, strict: Strict, found: &mut Vec<u32>) {
        let begun = self.entries.partition_point(|entry| match strict.from {
            true => entry.from < until,
            false => entry.from <= until,
        });
        self.search(0, self.entries.len(), begun, since, strict.to, found);
    }

    fn search(
        &self,
        start: usize,
        end: usize,
        begun: usize,
        since: i64,
        strict: bool,
        found: &mut Vec<u32>,
    ) {
        if start >= end || start >= begun {
            return;
        }
        let lasts = |to: i64| if strict { since < to } else { since <= to };
        let root = start + (end - start) / 2;
        if !lasts(self.latest[root]) {
            return;
        }
        self.search(start, root, begun, since, strict, found);
        if root < begun && lasts(self.entries[root].to) {
            found.push(self.entries[root].row);
        }
        self.search(root + 1, end, begun, since, strict, found);
    }

    fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.latest.capacity() * size_of::<i64>()
    }
}

/// The trees of all keys; without key columns there is one.
#[derive(Debug)]
pub struct Index {
    trees: Vec<Tree>,
    by_key: HashMap<OwnedRow, usize>,
    converter: Option<RowConverter>,
}

impl Index {
    /// Builds the index of a side. `keys` are its key columns; a row with a NULL among them, and one
    /// without an entry, matches nothing.
    ///
    /// # Errors
    /// Where a key column has a type that cannot be compared.
    pub fn build(keys: &[ArrayRef], entries: Vec<Entry>) -> DataFusionResult<Self> {
        let mut index = Self { trees: Vec::new(), by_key: HashMap::new(), converter: None };
        if keys.is_empty() {
            index.trees.push(Tree::new(entries));
            return Ok(index);
        }
        let fields = keys.iter().map(|key| SortField::new(key.data_type().clone())).collect();
        let converter = RowConverter::new(fields)?;
        let rows = converter.convert_columns(keys)?;
        index.converter = Some(converter);
        let mut groups: Vec<Vec<Entry>> = Vec::new();
        for entry in entries {
            let row = entry.row as usize;
            if keys.iter().any(|key| key.is_null(row)) {
                continue;
            }
            let group = *index.by_key.entry(rows.row(row).owned()).or_insert_with(|| {
                groups.push(Vec::new());
                groups.len() - 1
            });
            groups[group].push(entry);
        }
        index.trees = groups.into_iter().map(Tree::new).collect();
        Ok(index)
    }

    /// Brings the key columns of the other side to the form that is looked up.
    ///
    /// # Errors
    /// Where a column has another type than on this side.
    pub fn probe(&self, keys: &[ArrayRef]) -> DataFusionResult<Option<Rows>> {
        match &self.converter {
            None => Ok(None),
            Some(converter) => Ok(Some(converter.convert_columns(keys)?)),
        }
    }

    /// Returns the tree of a row's key.
    pub fn tree(&self, keys: &[ArrayRef], rows: Option<&Rows>, row: usize) -> Option<&Tree> {
        let Some(rows) = rows else { return self.trees.first() };
        if keys.iter().any(|key| key.is_null(row)) {
            return None;
        }
        self.by_key.get(&rows.row(row).owned()).map(|group| &self.trees[*group])
    }

    /// Returns about how many bytes it takes.
    pub fn bytes(&self) -> usize {
        let trees: usize = self.trees.iter().map(Tree::bytes).sum();
        let keys: usize = self.by_key.keys().map(|key| key.as_ref().len() + 64).sum();
        trees + keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A generator that needs no more than this.
    fn random(state: &mut u64, below: u64) -> i64 {
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from((*state >> 33) % below).unwrap()
    }

    #[test]
    fn a_search_finds_what_looking_at_every_row_finds() {
        let mut state = 7;
        for round in 0..300 {
            let count = u32::try_from(random(&mut state, 40)).unwrap();
            let entries: Vec<Entry> = (0..count)
                .map(|row| {
                    let from = random(&mut state, 50);
                    let to = from + random(&mut state, if round % 2 == 0 { 5 } else { 60 });
                    Entry { from, to, row }
                })
                .collect();
            let tree = Tree::new(entries.clone());
            for strict in [(true, true), (true, false), (false, true), (false, false)] {
                let strict = Strict { from: strict.0, to: strict.1 };
                let (since, until) = (random(&mut state, 60), random(&mut state, 60));
                let mut found = Vec::new();
                tree.matching(since, until, strict, &mut found);
                found.sort_unstable();
                let begins = |at: i64| if strict.from { at < until } else { at <= until };
                let lasts = |at: i64| if strict.to { since < at } else { since <= at };
                let naive = entries.iter().filter(|one| begins(one.from) && lasts(one.to));
                let naive: Vec<u32> = naive.map(|entry| entry.row).collect();
                assert_eq!(found, naive, "{entries:?} {since} {until} {strict:?}");
            }
        }
    }
}
