//! Value bytes of the row families, each with its format number.
//!
//! ```text
//! current     format 1 | flags 1 | valid_from 8 | tx_from varint | levels | asserted | erased
//!             | document
//! timeline    format 1 | valid_to 8 | tx_from varint | document
//! archive     format 1 | valid_from 8 | valid_to 8 | tx_from varint | document
//! document    shape 1 | count varint | column ids | end offsets | values (tag 1, bytes)
//! ```
//!
//! Equal documents have equal bytes, so versions are compared without decoding them, and a column
//! is found through the offsets, so only those asked for are decoded. `docs/format.md` draws them.

use std::borrow::Cow;

use bytes::Bytes;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::key::CLASS_OPEN;
use crate::schema::ColumnId;
use crate::time::{Period, ValidTime};
use crate::tx::TxId;
use crate::value::{Row, Value, ValueRef};

/// The format number all values of the row families start with.
pub(crate) const FORMAT: u8 = 1;

const FLAG_TOMBSTONE: u8 = 1;
const FLAG_TIMELINE: u8 = 2;
const FLAG_ARCHIVE: u8 = 4;
const FLAG_ASSERTED: u8 = 8;
const FLAG_ERASED: u8 = 16;

const SHAPE_WIDE_IDS: u8 = 4;

const TAG_NULL: u8 = 0;
const TAG_FALSE: u8 = 1;
const TAG_TRUE: u8 = 2;
const TAG_INT: u8 = 3;
const TAG_FLOAT: u8 = 4;
const TAG_DECIMAL: u8 = 5;
const TAG_TEXT: u8 = 6;
const TAG_BYTES: u8 = 7;
const TAG_DATE: u8 = 8;
const TAG_TIME: u8 = 9;
const TAG_TIMESTAMP: u8 = 10;
const TAG_JSON: u8 = 11;
const TAG_LIST: u8 = 12;
const TAG_STRUCT: u8 = 13;
const TAG_UUID: u8 = 14;

pub(crate) fn damaged(why: &str) -> Error {
    Error::Corrupt { what: "row", why: why.to_owned() }
}

/// Appends an integer, seven bits a byte, low ones first.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = number.to_le_bytes()[0] & 0x7F;
        number >>= 7;
        if number == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Takes an integer of [`put_varint`] off the front.
pub(crate) fn take_varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take_byte(bytes)?;
        number |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(damaged("an integer that does not end"))
}

pub(crate) fn take_length(bytes: &mut &[u8]) -> Result<usize> {
    usize::try_from(take_varint(bytes)?).map_err(|_| damaged("a length out of range"))
}

/// Maps signed integers to unsigned ones so that small ones stay small.
pub(crate) const fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

pub(crate) const fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

pub(crate) fn take_byte(bytes: &mut &[u8]) -> Result<u8> {
    let (first, rest) = bytes.split_first().ok_or_else(|| damaged("too short"))?;
    *bytes = rest;
    Ok(*first)
}

pub(crate) fn take_slice<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(length).ok_or_else(|| damaged("too short"))?;
    *bytes = rest;
    Ok(head)
}

pub(crate) fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk().ok_or_else(|| damaged("too short"))?;
    *bytes = rest;
    Ok(*head)
}

pub(crate) fn put_instant(out: &mut Vec<u8>, at: ValidTime) {
    out.extend_from_slice(&at.micros().to_le_bytes());
}

pub(crate) fn take_instant(bytes: &mut &[u8]) -> Result<ValidTime> {
    take_array(bytes).map(|at| ValidTime::from_micros(i64::from_le_bytes(at)))
}

pub(crate) fn take_format(bytes: &mut &[u8]) -> Result<()> {
    match take_byte(bytes)? {
        FORMAT => Ok(()),
        found => Err(damaged(&format!("format {found} is not known"))),
    }
}

/// A small set of archive levels (0 to 64) or assertion classes (0 to 63 and [`CLASS_OPEN`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LevelSet(u128);

impl LevelSet {
    const OPEN_BIT: u8 = 127;

    /// Adds one.
    pub(crate) fn insert(&mut self, level: u8) {
        self.0 |= 1 << level.min(Self::OPEN_BIT);
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the members, lowest first.
    pub(crate) fn iter(self) -> impl Iterator<Item = u8> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let bit = u8::try_from(rest.trailing_zeros()).ok().filter(|bit| *bit < 128)?;
            rest &= rest - 1;
            Some(if bit == Self::OPEN_BIT { CLASS_OPEN } else { bit })
        })
    }

    /// Returns the archive levels, highest first.
    pub(crate) fn iter_down(self) -> impl Iterator<Item = u8> {
        let mut rest = self.0 & !(1 << Self::OPEN_BIT);
        std::iter::from_fn(move || {
            let level = u8::try_from(rest.checked_ilog2()?).ok()?;
            rest &= !(1 << level);
            Some(level)
        })
    }

    fn put(self, out: &mut Vec<u8>) {
        out.push(self.0.count_ones().to_le_bytes()[0]);
        out.extend(self.iter());
    }

    fn take(bytes: &mut &[u8]) -> Result<Self> {
        let count = take_byte(bytes)?;
        let mut set = Self::default();
        for level in take_slice(bytes, usize::from(count))? {
            set.insert(*level);
        }
        Ok(set)
    }
}

/// What is known of all assertions a key of an EFFECTIVE table ever had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asserted {
    /// The greatest (`valid_from`, order).
    pub(crate) last: (ValidTime, i64),
    /// Duration classes in use.
    pub(crate) classes: LevelSet,
}

/// The header of a `current` value: one for every key that ever had anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CurrentHeader {
    /// There is nothing from `valid_from` on; otherwise the document holds from there, without end.
    pub(crate) tombstone: bool,
    pub(crate) valid_from: ValidTime,
    /// The last transaction that changed anything from `valid_from` on.
    pub(crate) tx_from: TxId,
    /// The key has, or had, entries in `timeline`.
    pub(crate) timeline: bool,
    /// Levels of `archive` that the key has entries in.
    pub(crate) archive: LevelSet,
    /// EFFECTIVE tables only.
    pub(crate) asserted: Option<Asserted>,
    /// The transaction that erased the key: what was believed before it is hidden.
    pub(crate) erased: Option<TxId>,
}

impl CurrentHeader {
    /// What holds of a key that never had anything.
    pub(crate) const NOTHING: Self = Self {
        tombstone: true,
        valid_from: ValidTime::BEGIN,
        tx_from: TxId::ZERO,
        timeline: false,
        archive: LevelSet(0),
        asserted: None,
        erased: None,
    };

    /// Appends the whole value.
    pub(crate) fn put(&self, out: &mut Vec<u8>, document: &[u8]) {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        out.push(FORMAT);
        out.push(
            flag(self.tombstone, FLAG_TOMBSTONE)
                | flag(self.timeline, FLAG_TIMELINE)
                | flag(!self.archive.is_empty(), FLAG_ARCHIVE)
                | flag(self.asserted.is_some(), FLAG_ASSERTED)
                | flag(self.erased.is_some(), FLAG_ERASED),
        );
        put_instant(out, self.valid_from);
        put_varint(out, self.tx_from.get());
        if !self.archive.is_empty() {
            self.archive.put(out);
        }
        if let Some(asserted) = &self.asserted {
            put_instant(out, asserted.last.0);
            put_varint(out, zigzag(asserted.last.1));
            asserted.classes.put(out);
        }
        if let Some(erased) = self.erased {
            put_varint(out, erased.get());
        }
        out.extend_from_slice(document);
    }

    /// Reads a value; the second part is the document's bytes, empty for a tombstone.
    pub(crate) fn read(mut bytes: &[u8]) -> Result<(Self, &[u8])> {
        take_format(&mut bytes)?;
        let flags = take_byte(&mut bytes)?;
        let valid_from = take_instant(&mut bytes)?;
        let tx_from = TxId::new(take_varint(&mut bytes)?);
        let archive = if flags & FLAG_ARCHIVE == 0 {
            LevelSet::default()
        } else {
            LevelSet::take(&mut bytes)?
        };
        let asserted = if flags & FLAG_ASSERTED == 0 {
            None
        } else {
            let last = (take_instant(&mut bytes)?, unzigzag(take_varint(&mut bytes)?));
            Some(Asserted { last, classes: LevelSet::take(&mut bytes)? })
        };
        let erased = match flags & FLAG_ERASED {
            0 => None,
            _ => Some(TxId::new(take_varint(&mut bytes)?)),
        };
        let header = Self {
            tombstone: flags & FLAG_TOMBSTONE != 0,
            valid_from,
            tx_from,
            timeline: flags & FLAG_TIMELINE != 0,
            archive,
            asserted,
            erased,
        };
        Ok((header, bytes))
    }
}

/// The header of a `timeline` value; `valid_from` stands in the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimelineHeader {
    pub(crate) valid_to: ValidTime,
    pub(crate) tx_from: TxId,
}

impl TimelineHeader {
    /// Appends the whole value.
    pub(crate) fn put(&self, out: &mut Vec<u8>, document: &[u8]) {
        out.push(FORMAT);
        put_instant(out, self.valid_to);
        put_varint(out, self.tx_from.get());
        out.extend_from_slice(document);
    }

    /// Reads a value; the second part is the document's bytes.
    pub(crate) fn read(mut bytes: &[u8]) -> Result<(Self, &[u8])> {
        take_format(&mut bytes)?;
        let valid_to = take_instant(&mut bytes)?;
        let tx_from = TxId::new(take_varint(&mut bytes)?);
        Ok((Self { valid_to, tx_from }, bytes))
    }
}

/// The header of an `archive` value; `tx_to` stands in the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ArchiveHeader {
    pub(crate) valid: Period<ValidTime>,
    pub(crate) tx_from: TxId,
}

impl ArchiveHeader {
    /// Appends the whole value.
    pub(crate) fn put(&self, out: &mut Vec<u8>, document: &[u8]) {
        out.push(FORMAT);
        put_instant(out, self.valid.from());
        put_instant(out, self.valid.to());
        put_varint(out, self.tx_from.get());
        out.extend_from_slice(document);
    }

    /// Reads a value; the second part is the document's bytes.
    pub(crate) fn read(mut bytes: &[u8]) -> Result<(Self, &[u8])> {
        take_format(&mut bytes)?;
        let valid = take_period(&mut bytes)?;
        let tx_from = TxId::new(take_varint(&mut bytes)?);
        Ok((Self { valid, tx_from }, bytes))
    }
}

fn take_period(bytes: &mut &[u8]) -> Result<Period<ValidTime>> {
    let (from, to) = (take_instant(bytes)?, take_instant(bytes)?);
    Period::nonempty(from, to).ok_or_else(|| damaged("a period of no length"))
}

/// A `changes` value: what one transaction did to one key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ChangeValue {
    /// Disjoint periods in which the state changed, in order.
    pub(crate) changed: Vec<Period<ValidTime>>,
    /// Periods of the archive pieces that were superseded, in order, within `changed`: with the tx
    /// as `tx_to` they name the pieces' keys. What is in `changed` alone had no row before.
    pub(crate) replaced: Vec<Period<ValidTime>>,
}

impl ChangeValue {
    /// Appends the value: count of changed periods, each with a flag where it is also replaced as a
    /// whole, then the other replaced ones.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.push(FORMAT);
        put_varint(out, self.changed.len() as u64);
        for period in &self.changed {
            out.push(u8::from(self.replaced.binary_search(period).is_ok()));
            put_instant(out, period.from());
            put_instant(out, period.to());
        }
        for period in &self.replaced {
            if self.changed.binary_search(period).is_err() {
                put_instant(out, period.from());
                put_instant(out, period.to());
            }
        }
    }

    /// Reads a value.
    pub(crate) fn read(mut bytes: &[u8]) -> Result<Self> {
        take_format(&mut bytes)?;
        let count = take_length(&mut bytes)?;
        let mut value = Self::default();
        for _ in 0..count {
            let whole = take_byte(&mut bytes)? == 1;
            let period = take_period(&mut bytes)?;
            value.changed.push(period);
            if whole {
                value.replaced.push(period);
            }
        }
        let more = !bytes.is_empty();
        while !bytes.is_empty() {
            value.replaced.push(take_period(&mut bytes)?);
        }
        if more {
            value.replaced.sort_unstable();
        }
        Ok(value)
    }
}

/// A document in its stored form. Equal ones have equal values and types.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Document(Bytes);

impl Document {
    /// Wraps stored bytes.
    pub(crate) fn copy_from(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }

    /// Encodes the fields without their NULLs: what is stored of a put.
    pub(crate) fn of_put(fields: &Row) -> Self {
        let values = fields.fields().iter().filter(|(_, value)| !value.is_null());
        Self::encode(values.map(|(id, value)| (*id, Field::Value(value))))
    }

    /// Encodes the fields with NULLs that were sent: what an assertion keeps.
    pub(crate) fn of_assertion(fields: &Row) -> Self {
        Self::encode(fields.fields().iter().map(|(id, value)| (*id, Field::Value(value))))
    }

    /// Merges the fields of a patch (an [`Document::of_assertion`]) over `base`; nothing is `None`.
    pub(crate) fn patched(base: Option<&Self>, patch: &Self, set_nulls: bool) -> Result<Self> {
        let empty = Self::default();
        let mut base = base.unwrap_or(&empty).view()?.slots().peekable();
        let mut merged = Vec::new();
        for (id, slot) in patch.view()?.slots() {
            while let Some(kept) = base.next_if(|(at, _)| *at < id) {
                merged.push(kept);
            }
            let old = base.next_if(|(at, _)| *at == id);
            if slot != [TAG_NULL] {
                merged.push((id, slot));
            } else if !set_nulls {
                merged.extend(old);
            }
        }
        merged.extend(base);
        Ok(Self::encode(merged.into_iter().map(|(id, slot)| (id, Field::Slot(slot)))))
    }

    /// Returns the bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Opens the document for reading.
    pub(crate) fn view(&self) -> Result<DocumentView<'_>> {
        DocumentView::read(&self.0)
    }

    fn encode<'a>(fields: impl Iterator<Item = (ColumnId, Field<'a>)>) -> Self {
        let mut ids = Vec::with_capacity(16);
        let mut ends = Vec::with_capacity(16);
        let mut values = Vec::with_capacity(128);
        for (id, field) in fields {
            match field {
                Field::Value(value) => put_value(&mut values, value),
                Field::Slot(slot) => values.extend_from_slice(slot),
            }
            ids.push(id.0);
            ends.push(values.len());
        }
        if ids.is_empty() {
            return Self::default();
        }
        let wide = ids.iter().any(|id| *id > 0xFF);
        let width = match values.len() {
            0..=0xFF => 0,
            0x100..=0xFFFF => 1,
            _ => 2,
        };
        let mut out = Vec::with_capacity(values.len() + ids.len() * 5 + 4);
        out.push(width | if wide { SHAPE_WIDE_IDS } else { 0 });
        put_varint(&mut out, ids.len() as u64);
        for id in &ids {
            let bytes = id.to_le_bytes();
            out.extend_from_slice(if wide { &bytes } else { &bytes[..1] });
        }
        for end in &ends {
            out.extend_from_slice(&end.to_le_bytes()[..1 << width]);
        }
        out.extend_from_slice(&values);
        Self(out.into())
    }
}

enum Field<'a> {
    Value(&'a Value),
    Slot(&'a [u8]),
}

/// A document opened for reading: finds a column without decoding the others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DocumentView<'a> {
    ids: &'a [u8],
    ends: &'a [u8],
    values: &'a [u8],
    count: usize,
    id_width: usize,
    end_width: usize,
}

impl<'a> DocumentView<'a> {
    /// Returns how many bytes the values take.
    pub(crate) const fn bytes(&self) -> usize {
        self.values.len()
    }

    /// Checks the table of offsets. No bytes at all are the document without fields.
    pub(crate) fn read(mut bytes: &'a [u8]) -> Result<Self> {
        if bytes.is_empty() {
            let none = &[][..];
            return Ok(Self {
                ids: none,
                ends: none,
                values: none,
                count: 0,
                id_width: 1,
                end_width: 1,
            });
        }
        let shape = take_byte(&mut bytes)?;
        let id_width = if shape & SHAPE_WIDE_IDS == 0 { 1 } else { 4 };
        let end_width = 1 << (shape & 3);
        let count = take_length(&mut bytes)?;
        let size =
            |width: usize| count.checked_mul(width).ok_or_else(|| damaged("too many columns"));
        let ids = take_slice(&mut bytes, size(id_width)?)?;
        let ends = take_slice(&mut bytes, size(end_width)?)?;
        let view = Self { ids, ends, values: bytes, count, id_width, end_width };
        if count > 0 && view.end(count - 1) != bytes.len() {
            return Err(damaged("wrong length of values"));
        }
        Ok(view)
    }

    fn id(&self, at: usize) -> ColumnId {
        if self.id_width == 1 {
            return ColumnId(u32::from(self.ids[at]));
        }
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.ids[at * 4..][..4]);
        ColumnId(u32::from_le_bytes(bytes))
    }

    fn end(&self, at: usize) -> usize {
        if self.end_width == 1 {
            return usize::from(self.ends[at]);
        }
        let mut bytes = [0; size_of::<usize>()];
        bytes[..self.end_width]
            .copy_from_slice(&self.ends[at * self.end_width..][..self.end_width]);
        usize::from_le_bytes(bytes)
    }

    fn slot(&self, at: usize) -> &'a [u8] {
        let start = if at == 0 { 0 } else { self.end(at - 1) };
        self.values.get(start..self.end(at)).unwrap_or_default()
    }

    fn slots(self) -> impl Iterator<Item = (ColumnId, &'a [u8])> {
        (0..self.count).map(move |at| (self.id(at), self.slot(at)))
    }

    /// Decodes one column; `None` where absent.
    pub(crate) fn get(&self, column: ColumnId) -> Result<Option<Value>> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.id(middle).cmp(&column) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return read_value(self.slot(middle)).map(Some),
            }
        }
        Ok(None)
    }

    /// Decodes all columns, or those of `columns` that are there.
    pub(crate) fn row(&self, columns: Option<&[ColumnId]>) -> Result<Row> {
        let mut fields = Vec::with_capacity(columns.map_or(self.count, <[_]>::len));
        for at in 0..self.count {
            let id = self.id(at);
            if columns.is_none_or(|wanted| wanted.contains(&id)) {
                if fields.last().is_some_and(|(last, _)| *last >= id) {
                    return Err(damaged("columns out of order"));
                }
                fields.push((id, read_value(self.slot(at))?));
            }
        }
        Ok(Row::from_sorted(fields))
    }

    /// Calls `each` with the place and value of every column of `wanted`, which is in order; NULL
    /// where the row does not have it. One pass, whatever their number.
    pub(crate) fn each(
        &self,
        wanted: &[ColumnId],
        mut each: impl FnMut(usize, ValueRef<'a>),
    ) -> Result<()> {
        let mut at = 0;
        for (place, column) in wanted.iter().enumerate() {
            while at < self.count && self.id(at) < *column {
                at += 1;
                if at < self.count && self.id(at) <= self.id(at - 1) {
                    return Err(damaged("columns out of order"));
                }
            }
            if at < self.count && self.id(at) == *column {
                each(place, read_borrowed(self.slot(at))?);
            } else {
                each(place, ValueRef::Null);
            }
        }
        Ok(())
    }
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    let mut tagged = |tag: u8, bytes: &[u8]| {
        out.push(tag);
        out.extend_from_slice(bytes);
    };
    match value {
        Value::Null => out.push(TAG_NULL),
        Value::Bool(false) => out.push(TAG_FALSE),
        Value::Bool(true) => out.push(TAG_TRUE),
        Value::Int(number) => {
            out.push(TAG_INT);
            put_varint(out, zigzag(*number));
        }
        Value::Float(number) => tagged(TAG_FLOAT, &number.to_le_bytes()),
        Value::Decimal(number) => tagged(TAG_DECIMAL, &number.to_le_bytes()),
        Value::Text(text) => tagged(TAG_TEXT, text.as_bytes()),
        Value::Uuid(value) => tagged(TAG_UUID, value.as_bytes()),
        Value::Bytes(bytes) => tagged(TAG_BYTES, bytes),
        Value::Date(days) => {
            out.push(TAG_DATE);
            put_varint(out, zigzag(i64::from(*days)));
        }
        Value::Time(micros) => {
            out.push(TAG_TIME);
            put_varint(out, zigzag(*micros));
        }
        Value::Timestamp(micros) => tagged(TAG_TIMESTAMP, &micros.to_le_bytes()),
        Value::Json(text) => tagged(TAG_JSON, text.as_bytes()),
        Value::List(items) => put_items(out, TAG_LIST, items),
        Value::Struct(items) => put_items(out, TAG_STRUCT, items),
    }
}

fn put_items(out: &mut Vec<u8>, tag: u8, items: &[Value]) {
    out.push(tag);
    put_varint(out, items.len() as u64);
    let mut item_bytes = Vec::new();
    for item in items {
        item_bytes.clear();
        put_value(&mut item_bytes, item);
        put_varint(out, item_bytes.len() as u64);
        out.extend_from_slice(&item_bytes);
    }
}

fn read_value(bytes: &[u8]) -> Result<Value> {
    read_borrowed(bytes).map(ValueRef::into_value)
}

fn read_borrowed(bytes: &[u8]) -> Result<ValueRef<'_>> {
    read_nested(bytes, 0)
}

/// Lists and structs within each other at most; columns have far fewer, by what a type's text may
/// cost. Damaged bytes could say any number.
const NESTED_MAX: usize = 256;

fn read_nested(mut bytes: &[u8], depth: usize) -> Result<ValueRef<'_>> {
    if depth > NESTED_MAX {
        return Err(damaged("values nested too deep"));
    }
    let tag = take_byte(&mut bytes)?;
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| damaged("text is no UTF-8"));
    let nested = |value| ValueRef::Nested(Cow::Owned(value));
    let value = match tag {
        TAG_NULL => ValueRef::Null,
        TAG_FALSE => ValueRef::Bool(false),
        TAG_TRUE => ValueRef::Bool(true),
        TAG_INT => ValueRef::Int(unzigzag(take_varint(&mut bytes)?)),
        TAG_FLOAT => ValueRef::Float(f64::from_le_bytes(take_array(&mut bytes)?)),
        TAG_DECIMAL => ValueRef::Decimal(i128::from_le_bytes(take_array(&mut bytes)?)),
        TAG_TEXT => ValueRef::Text(text(bytes)?),
        TAG_UUID => ValueRef::Uuid(Uuid::from_bytes(take_array(&mut bytes)?)),
        TAG_BYTES => ValueRef::Bytes(bytes),
        TAG_DATE => ValueRef::Date(
            i32::try_from(unzigzag(take_varint(&mut bytes)?))
                .map_err(|_| damaged("date out of range"))?,
        ),
        TAG_TIME => ValueRef::Time(unzigzag(take_varint(&mut bytes)?)),
        TAG_TIMESTAMP => ValueRef::Timestamp(i64::from_le_bytes(take_array(&mut bytes)?)),
        TAG_JSON => ValueRef::Json(text(bytes)?),
        TAG_LIST => nested(Value::List(read_items(bytes, depth)?)),
        TAG_STRUCT => nested(Value::Struct(read_items(bytes, depth)?)),
        tag => return Err(damaged(&format!("value tag {tag} is not known"))),
    };
    Ok(value)
}

fn read_items(mut bytes: &[u8], depth: usize) -> Result<Vec<Value>> {
    let count = take_length(&mut bytes)?;
    let mut items = Vec::with_capacity(count.min(bytes.len()));
    for _ in 0..count {
        let length = take_length(&mut bytes)?;
        items.push(read_nested(take_slice(&mut bytes, length)?, depth + 1)?.into_value());
    }
    Ok(items)
}

#[cfg(test)]
#[path = "row_tests.rs"]
mod tests;
