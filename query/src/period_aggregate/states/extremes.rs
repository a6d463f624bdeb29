//! The least and the greatest value.

use std::cmp::Ordering;

use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{ArrowPrimitiveType, DataType};
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};
use datafusion::common::internal_err;
use datafusion::error::Result;

use super::tournament::Tournament;
use super::{Following, Found, Values, column, value, values};

/// Which end of the order is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    Least,
    Greatest,
}

impl Want {
    /// Returns which of two wins that compare so.
    const fn pick<V: Copy>(self, one: V, other: V, order: Ordering) -> V {
        match (self, order) {
            (Self::Least, Ordering::Greater) | (Self::Greatest, Ordering::Less) => other,
            _ => one,
        }
    }
}

/// `min(x)` and `max(x)` of numbers and instants. A float that is no number is the greatest.
#[derive(Debug)]
pub struct Extreme<T: ArrowPrimitiveType> {
    want: Want,
    kind: DataType,
    tree: Tournament<T::Native>,
    found: Found<T::Native>,
}

impl<T: ArrowPrimitiveType> Extreme<T> {
    /// Builds the state of one of them over a type.
    pub fn new(want: Want, kind: DataType) -> Self {
        Self { want, kind, tree: Tournament::default(), found: Found::default() }
    }
}

impl<T: ArrowPrimitiveType> Following for Extreme<T> {
    type Column = Values<T>;

    fn column(&self, argument: &ArrayRef) -> Result<Self::Column> {
        values(argument)
    }

    fn open(&mut self, column: &Self::Column, row: usize, slot: usize) {
        let want = self.want;
        if let Some(value) = value(column, row) {
            self.tree.put(slot, value, |one, other| want.pick(one, other, one.compare(other)));
        }
    }

    fn close(&mut self, slot: usize) {
        let want = self.want;
        self.tree.remove(slot, |one, other| want.pick(one, other, one.compare(other)));
    }

    fn clear(&mut self) {
        self.tree.clear();
    }

    fn emit(&mut self) -> Result<()> {
        self.found.push(self.tree.winner());
        Ok(())
    }

    fn take(&mut self) -> Result<ArrayRef> {
        Ok(column::<T>(std::mem::take(&mut self.found), self.kind.clone()))
    }

    fn size(&self) -> usize {
        self.tree.bytes() + self.found.bytes()
    }
}

/// `min(x)` and `max(x)` of any other type with an order: rows in the order-preserving form.
pub struct ExtremeRow {
    want: Want,
    kind: DataType,
    converter: RowConverter,
    null: OwnedRow,
    /// The values of slots; the tree holds their places.
    slots: Vec<Option<OwnedRow>>,
    slots_bytes: usize,
    tree: Tournament<u32>,
    found: Rows,
}

/// What a row takes beside its bytes.
const ROW_BYTES: usize = 64;

impl ExtremeRow {
    /// Builds the state of one of them over a type; nothing where that has no order.
    pub fn new(want: Want, kind: &DataType) -> Option<Self> {
        let fields = vec![SortField::new(kind.clone())];
        if matches!(kind, DataType::Null) || !RowConverter::supports_fields(&fields) {
            return None;
        }
        let converter = RowConverter::new(fields).ok()?;
        let null = converter.convert_columns(&[new_null_array(kind, 1)]).ok()?.row(0).owned();
        Some(Self {
            want,
            kind: kind.clone(),
            found: converter.empty_rows(0, 0),
            converter,
            null,
            slots: Vec::new(),
            slots_bytes: 0,
            tree: Tournament::default(),
        })
    }

    fn forget(&mut self, slot: usize) {
        if let Some(row) = self.slots.get_mut(slot).and_then(Option::take) {
            self.slots_bytes -= row.as_ref().len() + ROW_BYTES;
        }
    }
}

/// Picks among slots by the rows in them.
fn pick(want: Want, slots: &[Option<OwnedRow>]) -> impl Fn(u32, u32) -> u32 + Copy {
    move |one, other| want.pick(one, other, slots[one as usize].cmp(&slots[other as usize]))
}

impl Following for ExtremeRow {
    type Column = (Rows, ArrayRef);

    fn column(&self, argument: &ArrayRef) -> Result<Self::Column> {
        let rows = self.converter.convert_columns(std::slice::from_ref(argument))?;
        Ok((rows, ArrayRef::clone(argument)))
    }

    fn open(&mut self, (rows, array): &Self::Column, row: usize, slot: usize) {
        if array.is_null(row) {
            return;
        }
        if slot >= self.slots.len() {
            self.slots.resize(slot + 1, None);
        }
        self.forget(slot);
        let row = rows.row(row).owned();
        self.slots_bytes += row.as_ref().len() + ROW_BYTES;
        self.slots[slot] = Some(row);
        let number = u32::try_from(slot).unwrap_or(u32::MAX);
        self.tree.put(slot, number, pick(self.want, &self.slots));
    }

    fn close(&mut self, slot: usize) {
        self.tree.remove(slot, pick(self.want, &self.slots));
        self.forget(slot);
    }

    fn clear(&mut self) {
        self.tree.clear();
        self.slots.clear();
        self.slots_bytes = 0;
    }

    fn emit(&mut self) -> Result<()> {
        let winner = self.tree.winner().and_then(|slot| self.slots[slot as usize].as_ref());
        self.found.push(winner.unwrap_or(&self.null).row());
        Ok(())
    }

    fn take(&mut self) -> Result<ArrayRef> {
        let columns = self.converter.convert_rows(&self.found)?;
        self.found = self.converter.empty_rows(0, 0);
        match columns.first() {
            Some(column) if *column.data_type() == self.kind => Ok(ArrayRef::clone(column)),
            Some(column) => Ok(cast(column, &self.kind)?),
            None => internal_err!("a column is missing"),
        }
    }

    fn size(&self) -> usize {
        self.slots_bytes
            + self.slots.capacity() * size_of::<Option<OwnedRow>>()
            + self.tree.bytes()
            + self.found.size()
    }
}
