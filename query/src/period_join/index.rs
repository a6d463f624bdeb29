//! The rows of one side of a join by key, and by period within a key.
//!
//! Rows of a key stand in order of their beginning. Where they end in that order too, as the versions of
//! one key do, what meets a period is a run between two binary searches, and the next search is most often
//! where the last one ended. Where they do not, they are a binary tree that is implied by their places:
//! the root of `[start, end)` is its middle, and knows the latest end within its range, so a
//! search steps over ranges that end too early: O(log n + matches) for n rows of a key (the
//! augmented tree of Cormen et al., "Introduction to Algorithms", 17.3).

use std::hash::BuildHasher;

use arrow::array::{Array, ArrayRef};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::error::Result as DataFusionResult;
use hashbrown::{DefaultHashBuilder, HashTable};

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

/// The entries of one key: a range of all entries.
#[derive(Debug, Clone, Copy)]
struct Tree {
    start: usize,
    end: usize,
    /// The entries end in the order in which they begin.
    in_order: bool,
}

/// Where the last search of a row's key was, and what it found: rows come in runs of one key.
#[derive(Debug, Default)]
pub struct Last {
    row: Option<usize>,
    tree: Option<usize>,
    /// How many entries of the tree had begun.
    begun: usize,
}

/// The entries of all keys; without key columns there is one tree.
#[derive(Debug)]
pub struct Index {
    entries: Vec<Entry>,
    /// For the root at each place of a tree, the latest end within its range; empty where all trees
    /// are in order.
    latest: Vec<i64>,
    trees: Vec<Tree>,
    keys: Keys,
    converter: Option<RowConverter>,
}

impl Index {
    /// Builds the index of a side. `keys` are its key columns; a row with a NULL among them, and one
    /// without an entry, matches nothing.
    ///
    /// # Errors
    /// Where a key column has a type that cannot be compared.
    pub fn build(keys: &[ArrayRef], mut entries: Vec<Entry>) -> DataFusionResult<Self> {
        let (mut known, mut converter) = (Keys::default(), None);
        let counts = if keys.is_empty() {
            vec![entries.len()]
        } else {
            let fields = keys.iter().map(|key| SortField::new(key.data_type().clone())).collect();
            let made = converter.insert(RowConverter::new(fields)?);
            known.part(keys, &made.convert_columns(keys)?, &mut entries)
        };
        let mut index =
            Self { entries, latest: Vec::new(), trees: Vec::new(), keys: known, converter };
        index.plant(&counts);
        Ok(index)
    }

    /// Makes the trees of entries that stand by key.
    fn plant(&mut self, counts: &[usize]) {
        let mut start = 0;
        for count in counts {
            let end = start + count;
            let entries = &mut self.entries[start..end];
            if !entries.is_sorted() {
                entries.sort_unstable();
            }
            let in_order = entries.is_sorted_by_key(|entry| entry.to);
            self.trees.push(Tree { start, end, in_order });
            start = end;
        }
        if self.trees.iter().any(|tree| !tree.in_order) {
            self.latest = vec![i64::MIN; self.entries.len()];
            for Tree { start, end, in_order } in self.trees.clone() {
                if !in_order {
                    self.note_latest(start, end);
                }
            }
        }
    }

    fn note_latest(&mut self, start: usize, end: usize) -> i64 {
        if start >= end {
            return i64::MIN;
        }
        let root = usize::midpoint(start, end);
        let (left, right) = (self.note_latest(start, root), self.note_latest(root + 1, end));
        self.latest[root] = self.entries[root].to.max(left).max(right);
        self.latest[root]
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

    /// Hands over the rows of a row's key that begin by `until` and end from `since` on, in order of
    /// their beginning. `row` is of the batch that `last` is about.
    pub fn matching(
        &self,
        (keys, rows): (&[ArrayRef], Option<&Rows>),
        row: usize,
        (since, until): (i64, i64),
        strict: Strict,
        last: &mut Last,
        found: &mut Vec<u32>,
    ) {
        self.find_tree(keys, rows, row, last);
        let Some(tree) = last.tree.map(|at| self.trees[at]) else { return };
        let entries = &self.entries[tree.start..tree.end];
        let has_begun = |entry: &Entry| match strict.from {
            true => entry.from < until,
            false => entry.from <= until,
        };
        let lasts = |to: i64| if strict.to { since < to } else { since <= to };
        last.begun = from_near(entries, last.begun, has_begun);
        if !tree.in_order {
            let begun = tree.start + last.begun;
            return self.search((tree.start, tree.end), begun, &lasts, found);
        }
        // Versions of a key do not overlap, so there are few to go back over.
        let begun = &entries[..last.begun];
        let near = begun.iter().rev().take(NEAR).take_while(|entry| lasts(entry.to)).count();
        let first = match near {
            NEAR => begun.partition_point(|entry| !lasts(entry.to)),
            near => begun.len() - near,
        };
        found.extend(begun[first..].iter().map(|entry| entry.row));
    }

    /// Finds the tree of a row's key: that of the row before where the key is the same.
    fn find_tree(&self, keys: &[ArrayRef], rows: Option<&Rows>, row: usize, last: &mut Last) {
        let Some(rows) = rows else {
            last.tree = Some(0);
            return;
        };
        if keys.iter().any(|key| key.is_null(row)) {
            *last = Last::default();
            return;
        }
        let key = rows.row(row);
        if last.row.is_none_or(|before| rows.row(before) != key) {
            *last = Last { tree: self.keys.find(key.as_ref()), begun: 0, row: None };
        }
        last.row = Some(row);
    }

    fn search(
        &self,
        (start, end): (usize, usize),
        begun: usize,
        lasts: &impl Fn(i64) -> bool,
        found: &mut Vec<u32>,
    ) {
        if start >= end || start >= begun {
            return;
        }
        let root = usize::midpoint(start, end);
        if !lasts(self.latest[root]) {
            return;
        }
        self.search((start, root), begun, lasts, found);
        if root < begun && lasts(self.entries[root].to) {
            found.push(self.entries[root].row);
        }
        self.search((root + 1, end), begun, lasts, found);
    }

    /// Returns about how many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
            + self.latest.capacity() * size_of::<i64>()
            + self.trees.capacity() * size_of::<Tree>()
            + self.keys.bytes()
    }
}

/// So far around the last place a search looks before it halves.
const NEAR: usize = 4;

/// Returns how many entries, which stand in order, have begun; it is most often near the last answer.
fn from_near(entries: &[Entry], last: usize, has_begun: impl Fn(&Entry) -> bool) -> usize {
    let last = last.min(entries.len());
    if entries[..last].last().is_none_or(&has_begun) {
        let more = entries[last..].iter().take(NEAR).take_while(|entry| has_begun(entry)).count();
        if more < NEAR {
            return last + more;
        }
    }
    entries.partition_point(has_begun)
}

/// The keys, each with its number in order of appearance.
#[derive(Debug, Default)]
struct Keys {
    numbers: HashTable<usize>,
    hasher: DefaultHashBuilder,
    bytes: Vec<u8>,
    /// Where the bytes of each end.
    ends: Vec<usize>,
}

impl Keys {
    fn at<'a>(bytes: &'a [u8], ends: &[usize], number: usize) -> &'a [u8] {
        let start = number.checked_sub(1).map_or(0, |before| ends[before]);
        &bytes[start..ends[number]]
    }

    fn find(&self, key: &[u8]) -> Option<usize> {
        let hash = self.hasher.hash_one(key);
        let is_it = |number: &usize| Self::at(&self.bytes, &self.ends, *number) == key;
        self.numbers.find(hash, is_it).copied()
    }

    /// Returns the number of a key, a new one where it has none.
    fn number(&mut self, key: &[u8]) -> usize {
        if let Some(number) = self.find(key) {
            return number;
        }
        let number = self.ends.len();
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
        let Self { numbers, hasher, bytes, ends } = self;
        let hash_of = |number: &usize| hasher.hash_one(Self::at(bytes, ends, *number));
        numbers.insert_unique(hasher.hash_one(key), number, hash_of);
        number
    }

    /// Leaves out the entries without a key and puts the others by key; returns how many each has.
    fn part(&mut self, keys: &[ArrayRef], rows: &Rows, entries: &mut Vec<Entry>) -> Vec<usize> {
        let is_null = |row: usize| keys.iter().any(|key| key.is_null(row));
        entries.retain(|entry| !is_null(entry.row as usize));
        let mut numbers: Vec<usize> = Vec::with_capacity(entries.len());
        let mut counts: Vec<usize> = Vec::new();
        for (at, entry) in entries.iter().enumerate() {
            let key = rows.row(entry.row as usize);
            let before = at.checked_sub(1).map(|before| rows.row(entries[before].row as usize));
            let number = match (before, numbers.last()) {
                (Some(before), Some(number)) if before == key => *number,
                _ => self.number(key.as_ref()),
            };
            if number == counts.len() {
                counts.push(0);
            }
            counts[number] += 1;
            numbers.push(number);
        }
        if !numbers.is_sorted() {
            let mut places: Vec<usize> = counts
                .iter()
                .scan(0, |start, count| {
                    let place = *start;
                    *start += count;
                    Some(place)
                })
                .collect();
            let mut parted = entries.clone();
            for (entry, number) in entries.iter().zip(numbers) {
                parted[places[number]] = *entry;
                places[number] += 1;
            }
            *entries = parted;
        }
        counts
    }

    fn bytes(&self) -> usize {
        self.bytes.capacity()
            + self.ends.capacity() * size_of::<usize>()
            + self.numbers.capacity() * (size_of::<usize>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;

    use super::*;
    use crate::tests::random::Random;

    /// What a search of an index without keys finds.
    fn found(index: &Index, last: &mut Last, bounds: (i64, i64), strict: Strict) -> Vec<u32> {
        let mut found = Vec::new();
        index.matching((&[], None), 0, bounds, strict, last, &mut found);
        found
    }

    fn entries(random: &mut Random, longest: u64) -> Vec<Entry> {
        let count = u32::try_from(random.value(40)).unwrap();
        let entry = |row| {
            let from = random.value(50);
            Entry { from, to: from + random.value(longest), row }
        };
        (0..count).map(entry).collect()
    }

    const STRICT: [Strict; 4] = [
        Strict { from: true, to: true },
        Strict { from: true, to: false },
        Strict { from: false, to: true },
        Strict { from: false, to: false },
    ];

    fn naive(entries: &[Entry], (since, until): (i64, i64), strict: Strict) -> Vec<u32> {
        let begins = |at: i64| if strict.from { at < until } else { at <= until };
        let lasts = |at: i64| if strict.to { since < at } else { since <= at };
        let mut entries = entries.to_vec();
        entries.sort_unstable();
        let naive = entries.iter().filter(|one| begins(one.from) && lasts(one.to));
        naive.map(|entry| entry.row).collect()
    }

    #[test]
    fn a_search_finds_what_looking_at_every_row_finds() {
        let mut random = Random(7);
        let mut in_order = 0;
        for round in 0..400 {
            // Of one length they end in order.
            let longest = [5, 60, 1, 1][round % 4];
            let entries = entries(&mut random, longest);
            let index = Index::build(&[], entries.clone()).unwrap();
            in_order += usize::from(index.trees[0].in_order);
            let mut last = Last::default();
            for strict in STRICT {
                for _ in 0..5 {
                    let bounds = (random.value(60), random.value(60));
                    let found = found(&index, &mut last, bounds, strict);
                    assert_eq!(found, naive(&entries, bounds, strict), "{entries:?} {bounds:?}");
                }
            }
        }
        assert!((200..400).contains(&in_order), "{in_order}");
    }

    #[test]
    fn a_key_has_its_own_rows_in_any_order_of_keys() {
        let mut random = Random(8);
        for round in 0..200 {
            let entries = entries(&mut random, 20);
            let keys: Vec<Option<i64>> = (0..entries.len())
                .map(|_| Some(random.value(6)).filter(|key| *key != 5))
                .map(|key| if round % 2 == 0 { key.map(|_| 1) } else { key })
                .collect();
            let column: ArrayRef = Arc::new(Int64Array::from(keys.clone()));
            let index = Index::build(&[column], entries.clone()).unwrap();
            let asked: Vec<Option<i64>> =
                (0..30).map(|_| Some(random.value(8)).filter(|key| *key != 7)).collect();
            let probing: [ArrayRef; 1] = [Arc::new(Int64Array::from(asked.clone()))];
            let rows = index.probe(&probing).unwrap();
            let mut last = Last::default();
            for (row, key) in asked.iter().enumerate() {
                let bounds = (random.value(60), random.value(60));
                let mut found = Vec::new();
                let columns = (&probing[..], rows.as_ref());
                index.matching(columns, row, bounds, STRICT[2], &mut last, &mut found);
                let own: Vec<Entry> = entries
                    .iter()
                    .filter(|entry| key.is_some() && keys[entry.row as usize] == *key)
                    .copied()
                    .collect();
                assert_eq!(found, naive(&own, bounds, STRICT[2]), "{key:?} {bounds:?} {own:?}");
            }
        }
    }
}
