//! Rows brought together by some of their columns, however many they are.
//!
//! What fits in memory stays there; more goes to sorted runs in files ([`everwhen_storage::sort`]). Each
//! row has two weights: how often it stands in the relation after a step, and how often in that before.
//! So one pass over a group's rows computes both of its results:
//!
//! ```text
//! rows read at the new basis     after +w   before +w
//! the change that led to it                 before -w
//! ```

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use everwhen_storage::sort::{Merge, Sorter};

use super::fault::Faults;
use super::memory::{Held, Memory};
use super::zset::{ZSet, key_bytes, row_bytes};
use crate::error::{Error, Result};

/// How the rows of a sorter are ordered.
#[derive(Debug, Clone)]
pub struct Order {
    /// The columns that make a group; groups come in the order of their bytes.
    pub group: Vec<usize>,
    /// Rows of a group come in the order of all their bytes, equal ones as one.
    pub canonical: bool,
}

/// Gathers rows, then hands them over group by group.
pub struct RowSorter<'m> {
    memory: &'m Memory,
    schema: SchemaRef,
    order: Order,
    parts: Vec<Part>,
    held: Held<'m>,
    bytes: usize,
    spilled: Option<Sorter>,
}

/// Rows with the bytes that they are ordered by.
struct Part {
    rows: ZSet,
    before: Vec<i64>,
    /// Nothing where all rows are one group.
    keys: Option<Rows>,
    whole: Option<Rows>,
}

impl Part {
    fn key(&self, row: usize) -> &[u8] {
        self.keys.as_ref().map_or(&[], |keys| keys.row(row).data())
    }
}

/// Rows in order, a part of all.
#[derive(Debug)]
pub struct Sorted {
    /// The rows, their weights those after the step.
    pub rows: ZSet,
    /// Their weights before it.
    pub before: Vec<i64>,
    /// The groups' places.
    pub groups: Vec<Range<usize>>,
    /// The first group goes on from the part before.
    pub continues: bool,
}

impl<'m> RowSorter<'m> {
    /// Starts a sorter of rows of a schema.
    pub fn new(memory: &'m Memory, schema: SchemaRef, order: Order) -> Self {
        let (parts, held) = (Vec::new(), memory.entry());
        Self { memory, schema, order, parts, held, bytes: 0, spilled: None }
    }

    /// Adds rows that stand in the relation both before and after.
    pub fn add_unchanged(&mut self, rows: ZSet) -> Result<()> {
        let before = rows.weights().to_vec();
        self.add(rows, before)
    }

    /// Adds rows that stand in the relation after the step.
    pub fn add_after(&mut self, rows: ZSet) -> Result<()> {
        let before = vec![0; rows.len()];
        self.add(rows, before)
    }

    /// Adds rows that stand in the relation before the step.
    pub fn add_before(&mut self, rows: ZSet) -> Result<()> {
        let before = rows.weights().to_vec();
        let none = ZSet::weighted(rows.batch().clone(), vec![0; rows.len()])?;
        self.add(none.with_faults(rows.faults().clone()), before)
    }

    fn add(&mut self, rows: ZSet, before: Vec<i64>) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let columns = |of: &[usize]| -> Vec<ArrayRef> {
            of.iter().map(|at| Arc::clone(rows.batch().column(*at))).collect()
        };
        let group = &self.order.group;
        let keys = (!group.is_empty()).then(|| key_bytes(&columns(group))).transpose()?;
        let whole = self.order.canonical.then(|| row_bytes(rows.batch().columns())).transpose()?;
        let of_rows = |rows: &Rows| rows.size();
        let bytes =
            rows.bytes() + [&keys, &whole].into_iter().flatten().map(of_rows).sum::<usize>();
        let part = Part { rows, before, keys, whole };
        if self.spilled.is_none() {
            let fits = self.bytes + bytes <= self.memory.sort_bytes_max();
            if (fits || self.has_union()) && self.held.try_grow(bytes) {
                self.bytes += bytes;
                self.parts.push(part);
                return Ok(());
            }
            if self.has_union() {
                let bytes_max = self.memory.sort_bytes_max();
                return Err(Error::TooLarge { what: "a sort of JSON values".into(), bytes_max });
            }
            self.spill()?;
        }
        self.write(&part)
    }

    /// JSON values have no bytes that they could be read back from.
    fn has_union(&self) -> bool {
        let is_union = |kind: &DataType| matches!(kind, DataType::Union(..));
        self.schema.fields().iter().any(|field| is_union(field.data_type()))
    }

    /// Goes over to files.
    fn spill(&mut self) -> Result<()> {
        let half = self.memory.sort_bytes_max() / 2;
        self.spilled = Some(Sorter::new(self.memory.directory(), half));
        for part in std::mem::take(&mut self.parts) {
            self.write(&part)?;
        }
        self.held.free();
        if !self.held.try_grow(half) {
            tracing::debug!("a sort takes memory beyond what projections may use");
        }
        Ok(())
    }

    fn write(&mut self, part: &Part) -> Result<()> {
        let Some(sorter) = &mut self.spilled else {
            return Err(Error::internal("rows are written to a sorter of files"));
        };
        let plain;
        let whole = match &part.whole {
            Some(whole) => whole,
            None => {
                plain = row_bytes(part.rows.batch().columns())?;
                &plain
            }
        };
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for row in 0..part.rows.len() {
            let group = part.key(row);
            let fault = part.rows.faults().at(row).map_or("", AsRef::as_ref);
            key.clear();
            key.extend_from_slice(group);
            value.clear();
            for weight in [part.rows.weights()[row], part.before[row]] {
                value.extend_from_slice(&weight.to_le_bytes());
            }
            for length in [group.len(), fault.len()] {
                let length = u32::try_from(length).map_err(|_| Error::internal("short keys"))?;
                value.extend_from_slice(&length.to_le_bytes());
            }
            value.extend_from_slice(fault.as_bytes());
            if self.order.canonical {
                key.extend_from_slice(whole.row(row).data());
            } else {
                value.extend_from_slice(whole.row(row).data());
            }
            sorter.add(&key, &value)?;
        }
        Ok(())
    }

    /// Hands over all rows in order, a part at a time; a group may run over several parts.
    pub fn parts(self, each: &mut dyn FnMut(Sorted) -> Result<()>) -> Result<()> {
        let Self { memory, schema, order, parts, held, spilled, .. } = self;
        let part_rows = memory.part_rows();
        match spilled {
            Some(sorter) => Merging::new(schema, &order, sorter.finish()?)?.parts(part_rows, each),
            None => {
                let done = in_memory(&schema, &parts, part_rows, each);
                drop(held);
                done
            }
        }
    }

    /// Hands over all rows in order, whole groups at a time, of about a part's rows or one group.
    ///
    /// # Errors
    /// [`Error::TooLarge`] where a group does not fit in memory, and whatever `each` reports.
    pub fn groups(self, what: &str, each: &mut dyn FnMut(Sorted) -> Result<()>) -> Result<()> {
        let memory = self.memory;
        let rows_max = memory.part_rows();
        let schema = Arc::clone(&self.schema);
        let mut whole = Whole { schema, waiting: Vec::new(), rows: 0, held: memory.entry() };
        self.parts(&mut |mut part| {
            // What goes on from the part before belongs to what waits; the last may go on after this.
            let last_start = part.groups.last().map_or(0, |group| group.start);
            if part.continues && part.groups.len() == 1 {
                return whole.wait(part, what);
            }
            let rest = part.split_off(last_start)?;
            if !part.rows.is_empty() {
                whole.wait(part, what)?;
            }
            if whole.rows >= rows_max {
                whole.hand_over(each)?;
            }
            whole.wait(rest, what)
        })?;
        whole.hand_over(each)
    }
}

/// Parts that wait for the end of their last group.
struct Whole<'m> {
    schema: SchemaRef,
    waiting: Vec<Sorted>,
    rows: usize,
    held: Held<'m>,
}

impl Whole<'_> {
    fn wait(&mut self, part: Sorted, what: &str) -> Result<()> {
        self.held.grow(part.rows.bytes(), what)?;
        self.rows += part.rows.len();
        self.waiting.push(part);
        Ok(())
    }

    fn hand_over(&mut self, each: &mut dyn FnMut(Sorted) -> Result<()>) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.is_empty() {
            return Ok(());
        }
        let mut groups: Vec<Range<usize>> = Vec::new();
        let (mut before, mut parts, mut start) = (Vec::new(), Vec::new(), 0);
        for part in waiting {
            let mut moved = part.groups.iter().map(|of| of.start + start..of.end + start);
            if part.continues
                && let Some(last) = groups.last_mut()
                && let Some(first) = moved.next()
            {
                last.end = first.end;
            }
            groups.extend(moved);
            start += part.rows.len();
            before.extend(part.before);
            parts.push(part.rows);
        }
        let rows = ZSet::concatenated(&self.schema, parts)?;
        self.rows = 0;
        each(Sorted { rows, before, groups, continues: false })?;
        self.held.free();
        Ok(())
    }
}

impl Sorted {
    /// Takes away the rows from a place on, where a group begins.
    fn split_off(&mut self, at: usize) -> Result<Self> {
        let kept = self.groups.iter().filter(|group| group.start < at).cloned().collect();
        let rest = self.groups.iter().filter(|group| group.start >= at);
        let groups = rest.map(|group| group.start - at..group.end - at).collect();
        let rows = self.rows.slice(at, self.rows.len() - at);
        let before = self.before.split_off(at);
        self.rows = self.rows.slice(0, at);
        self.groups = kept;
        let continues = self.continues && at == 0;
        Ok(Self { rows, before, groups, continues })
    }
}

/// Puts the rows of parts in order and hands them over.
fn in_memory(
    schema: &SchemaRef,
    parts: &[Part],
    part_rows: usize,
    each: &mut dyn FnMut(Sorted) -> Result<()>,
) -> Result<()> {
    let mut places: Vec<(usize, usize)> = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        places.extend((0..part.rows.len()).map(|row| (at, row)));
    }
    let key = |(part, row): (usize, usize)| parts[part].key(row);
    let whole =
        |(part, row): (usize, usize)| parts[part].whole.as_ref().map(|whole: &Rows| whole.row(row));
    places.sort_by(|a, b| key(*a).cmp(key(*b)).then_with(|| whole(*a).cmp(&whole(*b))));
    let fault = |(part, row): (usize, usize)| parts[part].rows.faults().at(row);
    let mut open = Open::default();
    let mut taken: Vec<(usize, usize)> = Vec::new();
    let mut last: Option<(usize, usize)> = None;
    for place in places {
        let weights = (parts[place.0].rows.weights()[place.1], parts[place.0].before[place.1]);
        let same_group = last.is_some_and(|last| key(last) == key(place));
        let is_again = same_group
            && last.is_some_and(|last| {
                whole(last).is_some() && whole(last) == whole(place) && fault(last) == fault(place)
            });
        if is_again {
            open.again(weights);
            continue;
        }
        if taken.len() >= part_rows {
            let rows = interleaved(schema, parts, &taken)?;
            taken.clear();
            each(open.close(rows, same_group)?)?;
        }
        open.row(weights, same_group);
        taken.push(place);
        last = Some(place);
    }
    if !taken.is_empty() {
        let rows = interleaved(schema, parts, &taken)?;
        each(open.close(rows, false)?)?;
    }
    Ok(())
}

/// Weights and groups of a part under way.
#[derive(Default)]
struct Open {
    after: Vec<i64>,
    before: Vec<i64>,
    starts: Vec<usize>,
    continues: bool,
}

impl Open {
    fn row(&mut self, (after, before): (i64, i64), same_group: bool) {
        if !same_group || self.starts.is_empty() {
            self.starts.push(self.after.len());
        }
        self.after.push(after);
        self.before.push(before);
    }

    /// The row is the last one again.
    fn again(&mut self, (after, before): (i64, i64)) {
        if let (Some(last_after), Some(last_before)) =
            (self.after.last_mut(), self.before.last_mut())
        {
            *last_after += after;
            *last_before += before;
        }
    }

    /// Ends the part; `goes_on`: the next begins within its last group.
    fn close(&mut self, rows: ZSet, goes_on: bool) -> Result<Sorted> {
        let count = self.after.len();
        let ends = self.starts.iter().skip(1).copied().chain([count]);
        let groups = self.starts.iter().copied().zip(ends).map(|(from, to)| from..to).collect();
        let faults = rows.faults().clone();
        let after = std::mem::take(&mut self.after);
        let rows = ZSet::weighted(rows.batch().clone(), after)?.with_faults(faults);
        let before = std::mem::take(&mut self.before);
        let continues = std::mem::replace(&mut self.continues, goes_on);
        self.starts.clear();
        Ok(Sorted { rows, before, groups, continues })
    }
}

/// Returns the rows at some places of parts.
fn interleaved(schema: &SchemaRef, parts: &[Part], places: &[(usize, usize)]) -> Result<ZSet> {
    let mut columns = Vec::with_capacity(schema.fields().len());
    for at in 0..schema.fields().len() {
        let of: Vec<&dyn arrow::array::Array> =
            parts.iter().map(|part| part.rows.batch().column(at).as_ref()).collect();
        columns.push(interleave(&of, places)?);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(places.len()));
    let batch = RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?;
    let faults = if parts.iter().all(|part| part.rows.faults().is_empty()) {
        Faults::default()
    } else {
        let fault = |(part, row): &(usize, usize)| parts[*part].rows.faults().at(*row).cloned();
        Faults::new(places.iter().map(fault).collect())
    };
    Ok(ZSet::once(batch).with_faults(faults))
}

/// Reads rows back from files.
struct Merging {
    schema: SchemaRef,
    canonical: bool,
    converter: RowConverter,
    merge: Merge,
}

/// One row as it was written.
struct Written {
    weights: (i64, i64),
    group: Vec<u8>,
    fault: String,
    row: Vec<u8>,
}

impl Merging {
    fn new(schema: SchemaRef, order: &Order, merge: Merge) -> Result<Self> {
        let fields = schema.fields().iter().map(|f| SortField::new(f.data_type().clone()));
        let converter = RowConverter::new(fields.collect())?;
        Ok(Self { schema, canonical: order.canonical, converter, merge })
    }

    fn next(&mut self) -> Result<Option<Written>> {
        let Some((key, value)) = self.merge.next_entry()? else { return Ok(None) };
        let short = || Error::internal("a written row is whole");
        let number = |at: usize| -> Result<i64> {
            let bytes = value.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            bytes.map(i64::from_le_bytes).ok_or_else(short)
        };
        let length = |at: usize| -> Result<usize> {
            let bytes = value.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            let length = bytes.map(u32::from_le_bytes).ok_or_else(short)?;
            usize::try_from(length).map_err(|_| short())
        };
        let weights = (number(0)?, number(8)?);
        let (group, fault) = (length(16)?, length(20)?);
        let text = value.get(24..24 + fault).ok_or_else(short)?;
        let row = if self.canonical { key.get(group..) } else { value.get(24 + fault..) };
        Ok(Some(Written {
            weights,
            group: key.get(..group).ok_or_else(short)?.to_vec(),
            fault: String::from_utf8_lossy(text).into_owned(),
            row: row.ok_or_else(short)?.to_vec(),
        }))
    }

    fn parts(mut self, part_rows: usize, each: &mut dyn FnMut(Sorted) -> Result<()>) -> Result<()> {
        let mut open = Open::default();
        let mut taken: Vec<Written> = Vec::new();
        while let Some(written) = self.next()? {
            let last = taken.last();
            let same_group = last.is_some_and(|last| last.group == written.group);
            let is_again = self.canonical
                && same_group
                && last.is_some_and(|last| last.row == written.row && last.fault == written.fault);
            if is_again {
                open.again(written.weights);
                continue;
            }
            if taken.len() >= part_rows {
                let rows = self.decoded(&taken)?;
                taken.clear();
                each(open.close(rows, same_group)?)?;
            }
            open.row(written.weights, same_group);
            taken.push(written);
        }
        if !taken.is_empty() {
            let rows = self.decoded(&taken)?;
            each(open.close(rows, false)?)?;
        }
        Ok(())
    }

    fn decoded(&self, taken: &[Written]) -> Result<ZSet> {
        let parser = self.converter.parser();
        let rows = taken.iter().map(|written| parser.parse(&written.row));
        let columns = self.converter.convert_rows(rows)?;
        let batch = super::zset::batch_of(&self.schema, columns, taken.len())?;
        let fault = |written: &Written| {
            (!written.fault.is_empty()).then(|| Arc::from(written.fault.as_str()))
        };
        Ok(ZSet::once(batch).with_faults(Faults::new(taken.iter().map(fault).collect())))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{AsArray, Int64Array, StringArray};
    use arrow::datatypes::{Field, Int64Type, Schema};
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("g", DataType::Utf8, true),
            Field::new("v", DataType::Int64, true),
        ]))
    }

    fn rows(of: &[(Option<String>, i64, i64)]) -> ZSet {
        let groups: StringArray = of.iter().map(|(group, ..)| group.clone()).collect();
        let values: Int64Array = of.iter().map(|(_, value, _)| Some(*value)).collect();
        let columns: Vec<ArrayRef> = vec![Arc::new(groups), Arc::new(values)];
        let batch = RecordBatch::try_new(schema(), columns).unwrap();
        ZSet::weighted(batch, of.iter().map(|(.., weight)| *weight).collect()).unwrap()
    }

    type Bag = BTreeMap<(Option<String>, i64), (i64, i64)>;

    fn random(random: &mut StdRng, count: usize, groups: i64) -> Vec<(Option<String>, i64, i64)> {
        let one = |random: &mut StdRng| {
            let group = random.random_range(0..groups);
            let group = (group > 0).then(|| format!("group {group}"));
            (group, random.random_range(0..50), random.random_range(1..3))
        };
        (0..count).map(|_| one(random)).collect()
    }

    /// Sorts with a limit of memory, checks the order, and returns what came out.
    fn sorted(
        parts: &[Vec<(Option<String>, i64, i64)>],
        bytes_max: usize,
        whole: bool,
        random_part: usize,
    ) -> Bag {
        let memory = Memory::new(bytes_max, std::env::temp_dir()).with_part_rows(random_part);
        let order = Order { group: vec![0], canonical: true };
        let mut sorter = RowSorter::new(&memory, schema(), order);
        for (at, part) in parts.iter().enumerate() {
            let rows = rows(part);
            match at % 3 {
                0 => sorter.add_unchanged(rows),
                1 => sorter.add_after(rows),
                _ => sorter.add_before(rows.negated()),
            }
            .unwrap();
        }
        let mut bag = Bag::new();
        let mut last: Option<(Option<String>, i64)> = None;
        let mut groups_seen: Vec<Option<String>> = Vec::new();
        let mut each = |part: Sorted| {
            let groups = part.rows.batch().column(0).as_string::<i32>().clone();
            let values = part.rows.batch().column(1).as_primitive::<Int64Type>().clone();
            assert!(!(whole && part.continues));
            for (number, range) in part.groups.iter().enumerate() {
                for row in range.clone() {
                    let of = groups.iter().nth(row).unwrap().map(ToOwned::to_owned);
                    let this = (of.clone(), values.value(row));
                    assert!(last.as_ref().is_none_or(|last| *last < this), "{last:?} {this:?}");
                    if row == range.start && !(number == 0 && part.continues) {
                        assert!(!groups_seen.contains(&of), "a group comes once: {of:?}");
                        groups_seen.push(of.clone());
                    }
                    assert_eq!(groups_seen.last(), Some(&of));
                    bag.insert(this.clone(), (part.rows.weights()[row], part.before[row]));
                    last = Some(this);
                }
            }
            Ok(())
        };
        match whole {
            true => sorter.groups("the test", &mut each).unwrap(),
            false => sorter.parts(&mut each).unwrap(),
        }
        assert_eq!(memory.used_bytes(), 0);
        bag
    }

    #[test]
    fn without_columns_all_rows_are_one_group() {
        for bytes_max in [1 << 30, 200] {
            let memory = Memory::new(bytes_max, std::env::temp_dir()).with_part_rows(2);
            let order = Order { group: Vec::new(), canonical: true };
            let mut sorter = RowSorter::new(&memory, schema(), order);
            let row = |value| (None, value, 1);
            sorter.add_after(rows(&[row(3), row(1), row(2), row(1)])).unwrap();
            let mut seen = Vec::new();
            let mut each = |part: Sorted| {
                assert_eq!(part.groups.len(), 1);
                let values = part.rows.batch().column(1).as_primitive::<Int64Type>().clone();
                seen.extend(values.values().iter().copied().zip(part.rows.weights().to_vec()));
                seen.push((i64::from(part.continues), 0));
                Ok(())
            };
            sorter.parts(&mut each).unwrap();
            assert_eq!(seen, [(1, 2), (2, 1), (0, 0), (3, 1), (1, 0)]);
        }
    }

    #[test]
    fn weights_add_up_by_row_in_memory_and_in_files() {
        let mut source = StdRng::seed_from_u64(3);
        for round in 0..12 {
            let count = if round < 10 { 200 } else { 9_000 };
            let parts: Vec<_> =
                (0..7).map(|_| random(&mut source, count, [2, 40, 3_000][round % 3])).collect();
            let part = [1, 7, 8_192][round / 3 % 3];
            let mut naive = Bag::new();
            for (at, part) in parts.iter().enumerate() {
                for (group, value, weight) in part {
                    let sums = naive.entry((group.clone(), *value)).or_default();
                    match at % 3 {
                        0 => *sums = (sums.0 + weight, sums.1 + weight),
                        1 => sums.0 += weight,
                        _ => sums.1 -= weight,
                    }
                }
            }
            for (bytes_max, whole) in [(1 << 30, false), (1 << 30, true), (400_000, false)] {
                assert_eq!(sorted(&parts, bytes_max, whole, part), naive, "round {round}");
            }
            if round % 3 > 0 && count == 200 {
                assert_eq!(sorted(&parts, 400_000, true, part), naive, "round {round}");
            }
        }
    }
}
