//! The operations of transactions that cannot be read again elsewhere, as the journal keeps them.
//!
//! ```text
//! operations | count of transactions varint | transaction ..
//! transaction| count of writes varint | write ..
//! write      | tenant text | table varint | kind 1 | ..
//!   kind 1   | key bytes | op 1 | from | to 8 | order varint | event | document bytes     an assertion
//!   kind 2   | event id text                                                             a retraction
//!   kind 3   | key bytes                                                                 an erasure
//!   kind 4   | secret 16 | hash 16                            an erasure whose key was forgotten
//!   op         as in `assertions`, plus 16 where it is exact
//!   from       0, or 1 and an instant 8
//!   event      0, or 1, its id (text) and content hash 16
//! ```
//!
//! Texts and bytes have their length, a varint, before them.

use crate::assertion::{AssertedFrom, Assertion, EventId};
use crate::assertions::{op_of, op_tag};
use crate::batch::{Event, Tx, Write, WriteKind};
use crate::error::Result;
use crate::row::{self, Document, DocumentView};
use crate::schema::{RowKey, TableId, Tenant};

use super::{damaged, put_text, take_text};

const ASSERT: u8 = 1;
const RETRACT: u8 = 2;
const ERASE: u8 = 3;
const ERASE_HASHED: u8 = 4;
const EXACT: u8 = 16;

/// Appends the writes of one transaction.
pub(crate) fn put<'w>(out: &mut Vec<u8>, writes: impl Iterator<Item = &'w Write> + Clone) {
    row::put_varint(out, writes.clone().count() as u64);
    for write in writes {
        put_write(out, write);
    }
}

fn put_write(out: &mut Vec<u8>, write: &Write) {
    put_text(out, write.tenant.as_str());
    row::put_varint(out, u64::from(write.table.0));
    match &write.kind {
        WriteKind::Assert { key, assertion, event } => {
            out.push(ASSERT);
            put_bytes(out, key.as_bytes());
            put_assertion(out, assertion, event.as_ref());
        }
        WriteKind::Retract { event_id } => {
            out.push(RETRACT);
            put_text(out, &event_id.0);
        }
        WriteKind::Erase { key } => {
            out.push(ERASE);
            put_bytes(out, key.as_bytes());
        }
        WriteKind::EraseHashed { secret, hash } => {
            out.push(ERASE_HASHED);
            out.extend_from_slice(secret);
            out.extend_from_slice(&hash.to_le_bytes());
        }
    }
}

fn put_assertion(out: &mut Vec<u8>, assertion: &Assertion, event: Option<&Event>) {
    out.push(op_tag(assertion.op) | if assertion.exact { EXACT } else { 0 });
    match assertion.from {
        AssertedFrom::SystemTime => out.push(0),
        AssertedFrom::At(from) => {
            out.push(1);
            row::put_instant(out, from);
        }
    }
    row::put_instant(out, assertion.to);
    row::put_varint(out, row::zigzag(assertion.order));
    match event {
        None => out.push(0),
        Some(event) => {
            out.push(1);
            put_text(out, &event.id.0);
            out.extend_from_slice(&event.content_hash.to_le_bytes());
        }
    }
    put_bytes(out, Document::of_assertion(&assertion.fields).as_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    row::put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads transactions up to the end of the bytes' first `count`.
pub(crate) fn take(bytes: &mut &[u8]) -> Result<Vec<Tx>> {
    let count = row::take_length(bytes)?;
    let mut txs = Vec::with_capacity(count.min(bytes.len()));
    for _ in 0..count {
        txs.push(take_tx(bytes)?);
    }
    Ok(txs)
}

/// Reads one transaction.
pub(crate) fn take_tx(bytes: &mut &[u8]) -> Result<Tx> {
    let count = row::take_length(bytes)?;
    let mut writes = Vec::with_capacity(count.min(bytes.len()));
    for _ in 0..count {
        writes.push(take_write(bytes)?);
    }
    Ok(Tx { writes, position: None })
}

fn take_write(bytes: &mut &[u8]) -> Result<Write> {
    let tenant = Tenant::new(&take_text(bytes)?)?;
    let table = u32::try_from(row::take_varint(bytes)?).map_err(|_| damaged("a table id"))?;
    let kind = match row::take_byte(bytes)? {
        ASSERT => {
            let key = RowKey(take_bytes(bytes)?.to_vec());
            let (assertion, event) = take_assertion(bytes)?;
            WriteKind::Assert { key, assertion, event }
        }
        RETRACT => WriteKind::Retract { event_id: EventId(take_text(bytes)?) },
        ERASE => WriteKind::Erase { key: RowKey(take_bytes(bytes)?.to_vec()) },
        ERASE_HASHED => WriteKind::EraseHashed {
            secret: row::take_array(bytes)?,
            hash: u128::from_le_bytes(row::take_array(bytes)?),
        },
        _ => return Err(damaged("a write of unknown kind")),
    };
    Ok(Write { tenant, table: TableId(table), kind })
}

fn take_assertion(bytes: &mut &[u8]) -> Result<(Assertion, Option<Event>)> {
    let tag = row::take_byte(bytes)?;
    let op = op_of(tag & !EXACT)?;
    let from = match row::take_byte(bytes)? {
        0 => AssertedFrom::SystemTime,
        1 => AssertedFrom::At(row::take_instant(bytes)?),
        _ => return Err(damaged("a start of unknown kind")),
    };
    let to = row::take_instant(bytes)?;
    let order = row::unzigzag(row::take_varint(bytes)?);
    let event = match row::take_byte(bytes)? {
        0 => None,
        1 => {
            let id = EventId(take_text(bytes)?);
            Some(Event { id, content_hash: u128::from_le_bytes(row::take_array(bytes)?) })
        }
        _ => return Err(damaged("an event of unknown kind")),
    };
    let fields = DocumentView::read(take_bytes(bytes)?)?.row(None)?;
    Ok((Assertion { op, from, to, order, fields, exact: tag & EXACT != 0 }, event))
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8]> {
    let length = row::take_length(bytes)?;
    row::take_slice(bytes, length)
}
