//! What a restricted evaluation is held to: values of some columns, and instants or periods.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array};
use arrow::row::{RowConverter, SortField};
use hashbrown::{HashMap, HashSet};

use super::zset::{ZSet, key_bytes, one_zero, take_columns};
use crate::error::Result;

/// A set of value tuples for some columns of a node. NULL matches NULL.
#[derive(Debug, Clone)]
pub struct Only {
    columns: Vec<usize>,
    tuples: Vec<ArrayRef>,
    len: usize,
    /// A further bound that may be left aside: who asks checks it again.
    times: Option<Times>,
}

/// Microseconds, days or numbers: `(least, most)`, both inclusive.
pub type Range = (i64, i64);

/// Ranges of time for each tuple: wanted are rows that reach into one of them.
#[derive(Debug, Clone)]
pub struct Times {
    /// The column in which a row begins, and that in which it ends: of an instant the same.
    pub columns: (usize, usize),
    /// By tuple, in order and apart.
    pub ranges: Vec<Vec<Range>>,
}

impl Only {
    /// Builds the distinct tuples of `rows` as values of `columns`; tuples with a NULL are left
    /// out unless `nulls`.
    pub fn new(columns: Vec<usize>, tuples: Vec<ArrayRef>, nulls: bool) -> Result<Self> {
        let count = tuples.first().map_or(0, |tuple| tuple.len());
        let rows = key_bytes(&tuples)?;
        let mut seen: HashSet<&[u8]> = HashSet::with_capacity(count);
        let mut places = Vec::with_capacity(count);
        for (at, place) in (0..count).zip(0_u32..) {
            let null = !nulls && tuples.iter().any(|tuple| tuple.is_null(at));
            if !null && seen.insert(rows.row(at).data()) {
                places.push(place);
            }
        }
        drop(seen);
        let len = places.len();
        let tuples =
            if len == count { tuples } else { take_columns(&tuples, &UInt32Array::from(places))? };
        Ok(Self { columns, tuples, len, times: None })
    }

    /// Builds the distinct tuples with the ranges of time that `range` gives for each row; rows
    /// without a range are left out, as are those with a NULL unless `nulls`. Without columns there
    /// is one tuple of no values.
    pub fn timed(
        columns: Vec<usize>,
        tuples: Vec<ArrayRef>,
        nulls: bool,
        (time_columns, ranges): ((usize, usize), &[Option<Range>]),
    ) -> Result<Self> {
        let rows = if tuples.is_empty() { None } else { Some(key_bytes(&tuples)?) };
        let mut numbers: HashMap<&[u8], usize> = HashMap::new();
        let mut places: Vec<u32> = Vec::new();
        let mut by_tuple: Vec<Vec<(i64, i64)>> = Vec::new();
        for ((at, place), range) in (0..ranges.len()).zip(0_u32..).zip(ranges) {
            let Some(range) = range else { continue };
            if !nulls && tuples.iter().any(|tuple| tuple.is_null(at)) {
                continue;
            }
            let key = rows.as_ref().map_or(&[][..], |rows| rows.row(at).data());
            let number = *numbers.entry(key).or_insert_with(|| {
                places.push(place);
                by_tuple.push(Vec::new());
                by_tuple.len() - 1
            });
            by_tuple[number].push(*range);
        }
        drop(numbers);
        by_tuple.iter_mut().for_each(join_ranges);
        let len = places.len();
        let tuples = take_columns(&tuples, &UInt32Array::from(places))?;
        let times = Some(Times { columns: time_columns, ranges: by_tuple });
        Ok(Self { columns, tuples, len, times })
    }

    /// Returns the columns of the node that the tuples are values of.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Returns the values, one array a column.
    pub fn tuples(&self) -> &[ArrayRef] {
        &self.tuples
    }

    /// Returns the ranges of time, where there are any.
    pub const fn times(&self) -> Option<&Times> {
        self.times.as_ref()
    }

    /// Returns the number of tuples.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// True where nothing can match.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True where a tuple has a NULL.
    pub fn has_null(&self) -> bool {
        self.tuples.iter().any(|tuple| tuple.null_count() > 0)
    }

    /// Returns the tuples over those columns that `map` knows, under its numbers and types.
    pub fn mapped(&self, map: impl Fn(usize) -> Option<usize>) -> Result<Option<Self>> {
        let mut columns = Vec::new();
        let mut tuples = Vec::new();
        for (column, tuple) in self.columns.iter().zip(&self.tuples) {
            if let Some(to) = map(*column)
                && !columns.contains(&to)
            {
                columns.push(to);
                tuples.push(Arc::clone(tuple));
            }
        }
        let all = columns.len() == self.columns.len();
        let times = self.times.as_ref().filter(|_| all).and_then(|times| {
            let columns = (map(times.columns.0)?, map(times.columns.1)?);
            Some(Times { columns, ranges: times.ranges.clone() })
        });
        if columns.is_empty() && times.is_none() {
            return Ok(None);
        }
        if all {
            return Ok(Some(Self { columns, tuples, len: self.len, times }));
        }
        Self::new(columns, tuples, true).map(Some)
    }

    /// Returns the rows that match one of the tuples, whenever they are.
    pub fn keep(&self, rows: ZSet) -> Result<ZSet> {
        if rows.is_empty() || self.columns.is_empty() {
            return Ok(rows);
        }
        let fields: Vec<_> =
            self.tuples.iter().map(|c| SortField::new(c.data_type().clone())).collect();
        let converter = RowConverter::new(fields)?;
        let tuples: Vec<ArrayRef> = self.tuples.iter().map(one_zero).collect();
        let wanted = converter.convert_columns(&tuples)?;
        let set: HashSet<&[u8]> = (0..self.len).map(|at| wanted.row(at).data()).collect();
        let mut columns = Vec::with_capacity(self.columns.len());
        for (column, tuple) in self.columns.iter().zip(&self.tuples) {
            let array = one_zero(rows.batch().column(*column));
            if array.data_type() == tuple.data_type() {
                columns.push(array);
            } else {
                columns.push(arrow::compute::cast(&array, tuple.data_type())?);
            }
        }
        let found = converter.convert_columns(&columns)?;
        let keep: BooleanArray =
            (0..rows.len()).map(|at| Some(set.contains(found.row(at).data()))).collect();
        if keep.true_count() == rows.len() {
            return Ok(rows);
        }
        drop(set);
        rows.filtered(&keep)
    }
}

/// Sorts ranges and joins those that overlap or follow each other.
fn join_ranges(ranges: &mut Vec<(i64, i64)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| {
        let meet = next.0 <= last.1.saturating_add(1);
        if meet {
            last.1 = last.1.max(next.1);
        }
        meet
    });
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn ranges_are_joined_by_tuple() {
        let keys: ArrayRef =
            Arc::new(StringArray::from(vec![Some("a"), Some("b"), Some("a"), None]));
        let ranges = [Some((5, 6)), Some((1, 1)), Some((7, 9)), Some((0, 0))];
        let only = Only::timed(vec![3], vec![keys], false, ((4, 5), &ranges)).unwrap();
        assert_eq!(only.len(), 2);
        assert_eq!(only.times().unwrap().ranges, [vec![(5, 9)], vec![(1, 1)]]);
        let through = only.mapped(|at| at.checked_sub(3)).unwrap().unwrap();
        assert_eq!(through.times().unwrap().columns, (1, 2));
        // Where the times do not come through, the values still do.
        let values = only.mapped(|at| (at == 3).then_some(0)).unwrap().unwrap();
        assert!(values.times().is_none() && values.len() == 2);
    }

    #[test]
    fn without_columns_times_alone_remain() {
        let ranges = [Some((5, 6)), None, Some((1, 2))];
        let only = Only::timed(Vec::new(), Vec::new(), false, ((0, 0), &ranges)).unwrap();
        assert_eq!((only.len(), only.times().unwrap().ranges.len()), (1, 1));
        assert_eq!(only.times().unwrap().ranges[0], [(1, 2), (5, 6)]);
        let none = Only::timed(Vec::new(), Vec::new(), false, ((0, 0), &[None])).unwrap();
        assert!(none.is_empty());
    }

    #[test]
    fn a_part_of_the_columns_has_fewer_tuples() {
        let a: ArrayRef = Arc::new(Int64Array::from(vec![1, 1, 2]));
        let b: ArrayRef = Arc::new(Int64Array::from(vec![7, 8, 7]));
        let only = Only::new(vec![0, 1], vec![a, b], true).unwrap();
        let part = only.mapped(|at| (at == 0).then_some(9)).unwrap().unwrap();
        assert_eq!(part.columns(), [9]);
        let values = part.tuples()[0].as_primitive::<Int64Type>();
        assert_eq!(values.values(), &[1, 2]);
    }
}
