//! Every key byte: order-preserving, self-delimiting, made and taken apart here alone.
//!
//! ```text
//! row prefix    tenant 00 | table u32 | row key               (the whole key of `current`)
//! timeline      row prefix | valid_from 8
//! archive       row prefix | level 1 | fork 8 | tx_to 8
//! assertions    row prefix | class 1 | valid_from 8 | order 8 | tx 8 | ordinal 4
//! event_ids     tenant 00 | table u32 | event id
//! changes       table u32 | tx 8 | tenant 00 | row key
//! boundaries    table u32 | instant 8 | tenant 00 | row key
//! transactions  first tx 8
//! indexes       index u32 | values | tenant 00 | row key
//! dead_letters  id 8
//! ```
//!
//! Integers are big-endian, signed ones with the sign bit flipped. `docs/format.md` draws them.

use uuid::Uuid;

use crate::assertion::Position;
use crate::error::{Error, Result};
use crate::schema::{ColumnType, IndexId, RowKey, TableId, Tenant};
use crate::time::{Period, ValidTime};
use crate::tx::TxId;
use crate::value::Value;

/// Bytes after the row prefix of a `timeline` key.
pub(crate) const TIMELINE_SUFFIX: usize = 8;
/// Bytes after the row prefix of an `archive` key.
pub(crate) const ARCHIVE_SUFFIX: usize = 17;
/// Bytes after the row prefix of an `assertions` key.
pub(crate) const ASSERTION_SUFFIX: usize = 29;
/// The duration class of an assertion without an end.
pub(crate) const CLASS_OPEN: u8 = 255;
/// The level of the fork at the very start of the axis.
pub(crate) const LEVEL_MAX: u8 = 64;

const SIGN: u64 = 1 << 63;

/// Maps the signed axis onto the unsigned one, keeping the order.
pub(crate) const fn flip(signed: i64) -> u64 {
    signed.cast_unsigned() ^ SIGN
}

/// Undoes [`flip`].
pub(crate) const fn unflip(unsigned: u64) -> i64 {
    (unsigned ^ SIGN).cast_signed()
}

fn damaged(why: &str) -> Error {
    Error::Corrupt { what: "key", why: why.to_owned() }
}

/// Takes `N` bytes off the front.
fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Result<[u8; N]> {
    let (head, rest): (&'a [u8; N], &'a [u8]) =
        bytes.split_first_chunk().ok_or_else(|| damaged("too short"))?;
    *bytes = rest;
    Ok(*head)
}

fn take_u64(bytes: &mut &[u8]) -> Result<u64> {
    take(bytes).map(u64::from_be_bytes)
}

fn take_valid(bytes: &mut &[u8]) -> Result<ValidTime> {
    take_u64(bytes).map(|at| ValidTime::from_micros(unflip(at)))
}

fn put_valid(out: &mut Vec<u8>, at: ValidTime) {
    out.extend_from_slice(&flip(at.micros()).to_be_bytes());
}

/// Appends a tenant and its terminator.
pub(crate) fn put_tenant(out: &mut Vec<u8>, tenant: &Tenant) {
    out.extend_from_slice(tenant.as_str().as_bytes());
    out.push(0);
}

fn take_tenant(bytes: &mut &[u8]) -> Result<Tenant> {
    let end = bytes.iter().position(|b| *b == 0).ok_or_else(|| damaged("no tenant"))?;
    let name = std::str::from_utf8(&bytes[..end]).map_err(|_| damaged("tenant is no text"))?;
    let tenant = Tenant::new(name).map_err(|_| damaged("no tenant name"))?;
    *bytes = &bytes[end + 1..];
    Ok(tenant)
}

/// Returns what all row keys of a tenant's table start with.
pub(crate) fn table_prefix(tenant: &Tenant, table: TableId) -> Vec<u8> {
    let mut out = Vec::with_capacity(tenant.as_str().len() + 5);
    put_tenant(&mut out, tenant);
    out.extend_from_slice(&table.0.to_be_bytes());
    out
}

/// Returns the key of a row in `current`, which its keys in the other row families start with.
pub(crate) fn row_prefix(tenant: &Tenant, table: TableId, key: &RowKey) -> Vec<u8> {
    let mut out = Vec::with_capacity(tenant.as_str().len() + 5 + key.0.len() + ASSERTION_SUFFIX);
    put_tenant(&mut out, tenant);
    out.extend_from_slice(&table.0.to_be_bytes());
    out.extend_from_slice(&key.0);
    out
}

/// Takes a row prefix apart.
pub(crate) fn split_row_prefix(mut prefix: &[u8]) -> Result<(Tenant, TableId, RowKey)> {
    let tenant = take_tenant(&mut prefix)?;
    let table = TableId(u32::from_be_bytes(take(&mut prefix)?));
    Ok((tenant, table, RowKey(prefix.to_vec())))
}

/// Returns the row prefix of a key of `timeline`, `archive` or `assertions`.
pub(crate) fn without_suffix(key: &[u8], suffix: usize) -> Result<&[u8]> {
    key.len()
        .checked_sub(suffix)
        .map(|at| &key[..at])
        .ok_or_else(|| damaged("shorter than its suffix"))
}

/// Returns the smallest key greater than every key that starts with `prefix`; nothing where there
/// is none (`prefix` is all `FF`).
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|b| *b != 0xFF)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// Returns the `timeline` key of the segment that starts at `from`.
pub(crate) fn timeline(row_prefix: &[u8], from: ValidTime) -> Vec<u8> {
    let mut out = Vec::with_capacity(row_prefix.len() + TIMELINE_SUFFIX);
    timeline_into(&mut out, row_prefix, from);
    out
}

/// Writes what [`timeline`] returns into a buffer, in place of what it held.
pub(crate) fn timeline_into(out: &mut Vec<u8>, row_prefix: &[u8], from: ValidTime) {
    out.clear();
    out.extend_from_slice(row_prefix);
    put_valid(out, from);
}

/// Returns `valid_from` of a `timeline` key.
pub(crate) fn timeline_from(key: &[u8]) -> Result<ValidTime> {
    let at = without_suffix(key, TIMELINE_SUFFIX)?.len();
    take_valid(&mut &key[at..])
}

/// A node of the interval tree that `archive` pieces are filed under: the instant in a period that
/// is divisible by the highest power of two, on the unsigned axis.
///
/// All pieces of one fork contain it, so their system periods are disjoint.
/// Source: Kriegel, Pötke, Seidl, "Managing Intervals Efficiently in Object-Relational Databases".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Fork {
    /// The power of two; [`LEVEL_MAX`] for the start of the axis.
    pub(crate) level: u8,
    /// The instant, on the unsigned axis.
    pub(crate) at: u64,
}

impl Fork {
    /// Returns the node a period is filed under.
    pub(crate) fn of(period: &Period<ValidTime>) -> Self {
        let (first, last) = (flip(period.from().micros()), flip(period.to().micros()) - 1);
        let Some(before) = first.checked_sub(1) else {
            return Self { level: LEVEL_MAX, at: 0 };
        };
        let level = (before ^ last).ilog2();
        Self { level: u8::try_from(level).unwrap_or(LEVEL_MAX), at: last >> level << level }
    }

    /// Returns the only node of a level whose periods can contain `instant`.
    pub(crate) fn containing(instant: ValidTime, level: u8) -> Self {
        let at = match level {
            0..=62 => flip(instant.micros()) >> (level + 1) << (level + 1) | 1 << level,
            63 => SIGN,
            _ => 0,
        };
        Self { level, at }
    }
}

/// Returns the part of an `archive` key after the row prefix, of a piece superseded at `tx_to`.
pub(crate) fn archive_suffix(fork: Fork, tx_to: TxId) -> [u8; ARCHIVE_SUFFIX] {
    let mut out = [0; ARCHIVE_SUFFIX];
    out[0] = fork.level;
    out[1..9].copy_from_slice(&fork.at.to_be_bytes());
    out[9..17].copy_from_slice(&tx_to.get().to_be_bytes());
    out
}

/// Makes `out` the `archive` key of a piece that was superseded at `tx_to`.
pub(crate) fn archive_into(out: &mut Vec<u8>, row_prefix: &[u8], fork: Fork, tx_to: TxId) {
    out.clear();
    out.extend_from_slice(row_prefix);
    out.extend_from_slice(&archive_suffix(fork, tx_to));
}

/// Returns the node and `tx_to` of an `archive` key.
pub(crate) fn split_archive(key: &[u8]) -> Result<(Fork, TxId)> {
    let at = without_suffix(key, ARCHIVE_SUFFIX)?.len();
    let mut suffix = &key[at..];
    let [level] = take(&mut suffix)?;
    let fork = Fork { level, at: take_u64(&mut suffix)? };
    Ok((fork, TxId::new(take_u64(&mut suffix)?)))
}

/// Returns the duration class of a period: the logarithm of its length, or [`CLASS_OPEN`].
pub(crate) fn duration_class(period: &Period<ValidTime>) -> u8 {
    if period.to() == ValidTime::END {
        return CLASS_OPEN;
    }
    let length = flip(period.to().micros()) - flip(period.from().micros());
    u8::try_from(length.ilog2()).unwrap_or(CLASS_OPEN)
}

/// Returns the part of an `assertions` key after the row prefix.
pub(crate) fn assertion_suffix(class: u8, at: &Position) -> [u8; ASSERTION_SUFFIX] {
    let mut out = [0; ASSERTION_SUFFIX];
    out[0] = class;
    out[1..9].copy_from_slice(&flip(at.valid_from.micros()).to_be_bytes());
    out[9..17].copy_from_slice(&flip(at.order).to_be_bytes());
    out[17..25].copy_from_slice(&at.tx.get().to_be_bytes());
    out[25..29].copy_from_slice(&at.ordinal.to_be_bytes());
    out
}

/// Returns the class and position in the suffix of an `assertions` key.
pub(crate) fn split_assertion_suffix(mut suffix: &[u8]) -> Result<(u8, Position)> {
    let [class] = take(&mut suffix)?;
    let position = Position {
        valid_from: take_valid(&mut suffix)?,
        order: unflip(take_u64(&mut suffix)?),
        tx: TxId::new(take_u64(&mut suffix)?),
        ordinal: u32::from_be_bytes(take(&mut suffix)?),
    };
    Ok((class, position))
}

/// Returns the `event_ids` key of an event.
pub(crate) fn event_id(tenant: &Tenant, table: TableId, id: &str) -> Vec<u8> {
    let mut out = table_prefix(tenant, table);
    out.extend_from_slice(id.as_bytes());
    out
}

/// Returns what the `changes` keys of a table and tx start with.
pub(crate) fn changes_prefix(table: TableId, tx: TxId) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(&table.0.to_be_bytes());
    out.extend_from_slice(&tx.get().to_be_bytes());
    out
}

/// Returns the `changes` key of a row, given its row prefix (tenant, table, key).
pub(crate) fn change(tx: TxId, tenant: &Tenant, table: TableId, key: &[u8]) -> Vec<u8> {
    let mut out = changes_prefix(table, tx);
    put_tenant(&mut out, tenant);
    out.extend_from_slice(key);
    out
}

/// Takes a `changes` key apart.
pub(crate) fn split_change(mut key: &[u8]) -> Result<(TableId, TxId, Tenant, RowKey)> {
    let table = TableId(u32::from_be_bytes(take(&mut key)?));
    let tx = TxId::new(take_u64(&mut key)?);
    let tenant = take_tenant(&mut key)?;
    Ok((table, tx, tenant, RowKey(key.to_vec())))
}

/// Returns what the `boundaries` keys of a table and instant start with.
pub(crate) fn boundaries_prefix(table: TableId, instant: ValidTime) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(&table.0.to_be_bytes());
    put_valid(&mut out, instant);
    out
}

/// Returns the `boundaries` key of a row.
pub(crate) fn boundary(at: ValidTime, tenant: &Tenant, table: TableId, key: &[u8]) -> Vec<u8> {
    let mut out = boundaries_prefix(table, at);
    put_tenant(&mut out, tenant);
    out.extend_from_slice(key);
    out
}

/// Takes a `boundaries` key apart.
pub(crate) fn split_boundary(mut key: &[u8]) -> Result<(TableId, ValidTime, Tenant, RowKey)> {
    let table = TableId(u32::from_be_bytes(take(&mut key)?));
    let at = take_valid(&mut key)?;
    let tenant = take_tenant(&mut key)?;
    Ok((table, at, tenant, RowKey(key.to_vec())))
}

/// Returns the `transactions` key of a batch, or the `dead_letters` key of a letter.
pub(crate) const fn number(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// Takes a key of [`number`] apart.
pub(crate) fn split_number(mut key: &[u8]) -> Result<u64> {
    take_u64(&mut key)
}

/// Returns what the `indexes` keys of these values start with; nothing where a value is NULL.
///
/// # Errors
/// [`Error::Refused`] for a list or struct.
pub(crate) fn index_prefix(index: IndexId, values: &[Value]) -> Result<Option<Vec<u8>>> {
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(&index.0.to_be_bytes());
    for value in values {
        if value.is_null() {
            return Ok(None);
        }
        put_value(&mut out, value)?;
    }
    Ok(Some(out))
}

/// Returns a prefix of `indexes` keys with one more value.
///
/// # Errors
/// [`Error::Refused`] for a NULL, list or struct.
pub(crate) fn index_suffixed(prefix: &[u8], value: &Value) -> Result<Vec<u8>> {
    let mut out = prefix.to_vec();
    put_value(&mut out, value)?;
    Ok(out)
}

/// Takes apart what follows the values in an `indexes` key.
pub(crate) fn split_index_suffix(mut suffix: &[u8]) -> Result<(Tenant, RowKey)> {
    let tenant = take_tenant(&mut suffix)?;
    Ok((tenant, RowKey(suffix.to_vec())))
}

/// Returns what follows the values in a whole `indexes` key, given their columns' types; nothing
/// where the bytes are no values of these types.
pub(crate) fn after_index_values<'a>(entry: &'a [u8], kinds: &[&ColumnType]) -> Option<&'a [u8]> {
    let mut rest = entry.get(4..)?;
    for kind in kinds {
        let length = match kind {
            ColumnType::Bool => 1,
            ColumnType::Decimal | ColumnType::Uuid => 16,
            ColumnType::Text | ColumnType::Json | ColumnType::Bytes => escaped_length(rest)?,
            ColumnType::List(_) | ColumnType::Struct(_) => return None,
            _ => 8,
        };
        rest = rest.get(length..)?;
    }
    Some(rest)
}

/// Appends a value so that the order of bytes is the order of values of one type.
fn put_value(out: &mut Vec<u8>, value: &Value) -> Result<()> {
    match value {
        Value::Bool(value) => out.push(u8::from(*value)),
        Value::Int(value) | Value::Timestamp(value) | Value::Time(value) => {
            out.extend_from_slice(&flip(*value).to_be_bytes());
        }
        Value::Date(days) => out.extend_from_slice(&flip(i64::from(*days)).to_be_bytes()),
        Value::Float(value) => out.extend_from_slice(&float_order(*value).to_be_bytes()),
        Value::Decimal(value) => {
            let unsigned = value.cast_unsigned() ^ (1 << 127);
            out.extend_from_slice(&unsigned.to_be_bytes());
        }
        Value::Uuid(value) => out.extend_from_slice(value.as_bytes()),
        Value::Text(text) | Value::Json(text) => put_escaped(out, text.as_bytes()),
        Value::Bytes(bytes) => put_escaped(out, bytes),
        Value::Null | Value::List(_) | Value::Struct(_) => {
            let reason = "a NULL, list or struct cannot stand in a key".to_owned();
            return Err(Error::Refused { reason });
        }
    }
    Ok(())
}

/// Maps floats to integers of the same order; both zeros to one, all NaNs to one, after infinity.
fn float_order(value: f64) -> u64 {
    let bits = match value {
        v if v.is_nan() => f64::NAN.to_bits() & !SIGN,
        0.0 => 0,
        v => v.to_bits(),
    };
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

/// Appends bytes so that no encoding is a prefix of another: `00` becomes `00 FF`, end is `00 01`.
fn put_escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    if !bytes.contains(&0) {
        out.extend_from_slice(bytes);
    } else {
        for byte in bytes {
            out.push(*byte);
            if *byte == 0 {
                out.push(0xFF);
            }
        }
    }
    out.extend_from_slice(&[0, 1]);
}

/// Writes what the key bytes of all texts that begin so have in common.
pub(crate) fn put_text_start(out: &mut Vec<u8>, start: &str) {
    put_escaped(out, start.as_bytes());
    out.truncate(out.len() - 2);
}

fn take_escaped(bytes: &mut &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    loop {
        let at = bytes.iter().position(|b| *b == 0).ok_or_else(|| damaged("unterminated text"))?;
        out.extend_from_slice(&bytes[..at]);
        let escape = bytes.get(at + 1).copied();
        *bytes = bytes.get(at + 2..).unwrap_or_default();
        match escape {
            Some(1) => return Ok(out),
            Some(0xFF) => out.push(0),
            _ => return Err(damaged("wrong escape in text")),
        }
    }
}

impl RowKey {
    /// Encodes key values in key order.
    ///
    /// # Errors
    /// [`Error::Refused`] for a NULL or a type that cannot stand in a key (keys are text, int64,
    /// uuid, timestamp, date, bool or bytes).
    pub fn encode(values: &[Value]) -> Result<Self> {
        let mut out = Vec::with_capacity(values.len() * 24);
        for value in values {
            match value {
                Value::Bool(_)
                | Value::Int(_)
                | Value::Uuid(_)
                | Value::Timestamp(_)
                | Value::Date(_)
                | Value::Text(_)
                | Value::Bytes(_) => put_value(&mut out, value)?,
                _ => {
                    let reason =
                        "a key value must be text, int64, uuid, timestamp, date, bool or bytes, \
                                  not NULL"
                            .to_owned();
                    return Err(Error::Refused { reason });
                }
            }
        }
        Ok(Self(out))
    }

    /// Decodes the key's values, given its columns' types.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the bytes are no key of these types.
    pub fn decode(&self, kinds: &[&ColumnType]) -> Result<Vec<Value>> {
        let mut values = Vec::with_capacity(kinds.len());
        Self::decode_into(&mut values, &self.0, kinds)?;
        Ok(values)
    }

    /// As [`RowKey::decode`], of the bytes of a key and in the place of other values.
    ///
    /// # Errors
    /// The same.
    pub fn decode_into(
        values: &mut Vec<Value>,
        mut bytes: &[u8],
        kinds: &[&ColumnType],
    ) -> Result<()> {
        values.clear();
        for kind in kinds {
            values.push(take_value(&mut bytes, kind)?);
        }
        if bytes.is_empty() { Ok(()) } else { Err(damaged("bytes after the last column")) }
    }
}

fn take_value(bytes: &mut &[u8], kind: &ColumnType) -> Result<Value> {
    let value = match kind {
        ColumnType::Bool => Value::Bool(take::<1>(bytes)? != [0]),
        ColumnType::Int64 => Value::Int(unflip(take_u64(bytes)?)),
        ColumnType::Uuid => Value::Uuid(Uuid::from_bytes(take(bytes)?)),
        ColumnType::Timestamp => Value::Timestamp(unflip(take_u64(bytes)?)),
        ColumnType::Date => Value::Date(
            i32::try_from(unflip(take_u64(bytes)?)).map_err(|_| damaged("date out of range"))?,
        ),
        ColumnType::Text => Value::Text(
            String::from_utf8(take_escaped(bytes)?).map_err(|_| damaged("text is no UTF-8"))?,
        ),
        ColumnType::Bytes => Value::Bytes(take_escaped(bytes)?),
        _ => return Err(damaged("a type that cannot stand in a key")),
    };
    Ok(value)
}

/// True where the bytes are a key of these types.
pub(crate) fn is_key_of(mut bytes: &[u8], kinds: &[ColumnType]) -> bool {
    for kind in kinds {
        let length = match kind {
            ColumnType::Bool => Some(1),
            ColumnType::Uuid => Some(16),
            ColumnType::Int64 | ColumnType::Timestamp | ColumnType::Date => Some(8),
            ColumnType::Text | ColumnType::Bytes => escaped_length(bytes),
            _ => None,
        };
        match length.and_then(|length| bytes.get(length..)) {
            Some(rest) => bytes = rest,
            None => return false,
        }
    }
    bytes.is_empty()
}

/// Returns the length of an escaped text with its end.
fn escaped_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += bytes.get(at..)?.iter().position(|b| *b == 0)? + 2;
        if bytes.get(at - 1) == Some(&1) {
            return Some(at);
        }
    }
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
