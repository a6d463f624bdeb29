//! A projection's durable state: how far it is delivered, and what it has promised to deliver.
//!
//! Kept in the store's `cursors` family. A step is written whole, with the numbers of its changes,
//! before its first byte leaves; from then on only its acknowledgements move the state.
//!
//! ```text
//! p 00 name 00 s                           state
//! p 00 name 00 l                           the last lease given
//! p 00 name 00 c generation first_change   a chunk of the outstanding step (numbers big endian)
//! p 00 name 00 q tenant 00 key             a key in quarantine
//! p 00 name 00 r tenant 00 key             a key held because the sink refused its row
//! p 00 name 00 t tenant                    a tenant whose rows from nothing are delivered
//! p 00 name 00 a                           a step that takes its time, and how often a process ended in it
//! ```

use everwhen_storage::{Basis, Store, Tenant, TxId, ValidTime};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::{Error, Result};

/// One change of a sink's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowChange {
    /// A JSON object by column name; of a delete just the key's columns.
    pub row_json: String,
    /// The row goes.
    pub delete: bool,
}

/// How far a projection is, and what is under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Counts up with each new definition under the name.
    pub generation: u64,
    /// The transaction that made the definition.
    pub definition_tx: u64,
    /// The data directory it was delivered from: what a sink got since a snapshot is not known in
    /// a restored one.
    #[serde(default)]
    pub incarnation: String,
    /// The basis that is delivered; `None` before the first load is.
    pub delivered: Option<Delivered>,
    /// The number that the next change gets; never given twice within a generation.
    pub next_change: u64,
    /// The last change acknowledged.
    pub acked_change: u64,
    /// The step that is computed and not yet acknowledged.
    pub step: Option<Outstanding>,
    /// The load of all rows that is under way, and not computed to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Loading>,
    /// Why nothing more is computed until somebody says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
}

/// How far a load of all rows is computed. All of it is at one basis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Loading {
    /// The basis.
    pub to: Delivered,
    /// The tenant whose rows come next; before the first of all nothing.
    pub tenant: Option<String>,
    /// The bytes of the key that they come after.
    pub after: Option<Vec<u8>>,
    /// The last change that is computed: it goes with what follows.
    pub tail: Option<RowChange>,
}

/// Signs of a step under way, for the next process should this one end by it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// A step is being computed that takes its time.
    pub running: bool,
    /// How many processes ended during it.
    pub ended: u32,
}

/// A basis in stored form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    /// The transaction.
    pub tx: u64,
    /// The clock, in microseconds.
    pub now: i64,
}

/// A step on its way to the sink.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outstanding {
    /// The basis it leads to.
    pub to: Delivered,
    /// It loads all rows of a generation.
    pub reload: bool,
    /// How many chunks it had.
    pub chunks: usize,
    /// Those not yet acknowledged, in order.
    pub open: Vec<ChunkHead>,
}

/// Which changes a chunk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkHead {
    /// The number of its first change.
    pub first_change: u64,
    /// How many; 0 where only its begin or end counts.
    pub count: u64,
}

impl ChunkHead {
    /// Returns the number of the last change.
    pub const fn last_change(self) -> u64 {
        (self.first_change + self.count).saturating_sub(1)
    }
}

/// A key whose row in the sink is held, because the query gives no single good row for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Whose key.
    pub tenant: String,
    /// The key's values as a JSON array.
    pub key: String,
    /// Why.
    pub reason: String,
    /// The transaction of the step that found it.
    pub tx: u64,
}

impl From<Basis> for Delivered {
    fn from(basis: Basis) -> Self {
        Self { tx: basis.tx.get(), now: basis.now.micros() }
    }
}

impl From<Delivered> for Basis {
    fn from(delivered: Delivered) -> Self {
        Self { tx: TxId::new(delivered.tx), now: ValidTime::from_micros(delivered.now) }
    }
}

impl State {
    /// Returns the state of a definition that nothing is delivered of.
    pub const fn new(generation: u64, definition_tx: u64, incarnation: String) -> Self {
        Self {
            generation,
            definition_tx,
            incarnation,
            delivered: None,
            next_change: 1,
            acked_change: 0,
            step: None,
            load: None,
            paused: None,
        }
    }
}

/// Entries to write; `None` deletes.
pub type Entries = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Returns the prefix of all entries of a projection.
pub fn prefix(name: &str) -> Vec<u8> {
    [b"p\0", name.as_bytes(), b"\0"].concat()
}

fn entry(name: &str, kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = prefix(name);
    key.push(kind);
    key.extend_from_slice(rest);
    key
}

/// Returns the key of a projection's state.
pub fn state_key(name: &str) -> Vec<u8> {
    entry(name, b's', &[])
}

/// Returns the key of a projection's last lease.
pub fn lease_key(name: &str) -> Vec<u8> {
    entry(name, b'l', &[])
}

/// Returns the key of the signs of a step under way.
pub fn attempt_key(name: &str) -> Vec<u8> {
    entry(name, b'a', &[])
}

/// Returns the key of a chunk.
pub fn chunk_key(name: &str, generation: u64, first_change: u64) -> Vec<u8> {
    let rest = [generation.to_be_bytes(), first_change.to_be_bytes()].concat();
    entry(name, b'c', &rest)
}

/// Returns the prefix of a projection's chunks.
pub fn chunks_prefix(name: &str) -> Vec<u8> {
    entry(name, b'c', &[])
}

/// Returns the key of a quarantined key.
pub fn held_key(name: &str, tenant: &Tenant, key: &str) -> Vec<u8> {
    let rest = [tenant.as_str().as_bytes(), b"\0", key.as_bytes()].concat();
    entry(name, b'q', &rest)
}

/// Returns the key of a key whose row the sink refused.
pub fn refused_key(name: &str, tenant: &Tenant, key: &str) -> Vec<u8> {
    let rest = [tenant.as_str().as_bytes(), b"\0", key.as_bytes()].concat();
    entry(name, b'r', &rest)
}

/// Returns the prefix of the keys whose rows the sink refused.
pub fn refused_prefix(name: &str) -> Vec<u8> {
    entry(name, b'r', &[])
}

/// Returns the key of a tenant that has been met.
pub fn met_key(name: &str, tenant: &Tenant) -> Vec<u8> {
    entry(name, b't', tenant.as_str().as_bytes())
}

/// Returns the prefix of the tenants that have been met.
pub fn met_prefix(name: &str) -> Vec<u8> {
    entry(name, b't', &[])
}

/// Returns the prefix of a projection's quarantined keys.
pub fn held_prefix(name: &str) -> Vec<u8> {
    entry(name, b'q', &[])
}

/// Writes a value in stored form.
pub fn encode<T: Serialize>(name: &str, value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| corrupt(name, &error))
}

/// Reads a value in stored form.
pub fn decode<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| corrupt(name, &error))
}

fn corrupt(name: &str, error: &serde_json::Error) -> Error {
    Error::Corrupt { projection: name.to_owned(), why: error.to_string() }
}

/// Begins a chunk in the form of [`encode_chunk`]; before it, chunks were JSON arrays.
const CHUNK_FORM: u8 = 1;

/// Writes the changes of a chunk: for each whether the row goes, the length of its text (little endian),
/// and the text.
pub fn encode_chunk(changes: &[RowChange]) -> Result<Vec<u8>> {
    let size: usize = changes.iter().map(|change| change.row_json.len() + 5).sum();
    let mut bytes = Vec::with_capacity(size + 1);
    bytes.push(CHUNK_FORM);
    for change in changes {
        let length = u32::try_from(change.row_json.len())
            .map_err(|_| Error::internal("a row in a chunk is shorter than 4 GiB"))?;
        bytes.push(u8::from(change.delete));
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(change.row_json.as_bytes());
    }
    Ok(bytes)
}

/// Reads the changes of a chunk.
pub fn decode_chunk(name: &str, bytes: &[u8]) -> Result<Vec<RowChange>> {
    let Some((&CHUNK_FORM, mut rest)) = bytes.split_first() else { return decode(name, bytes) };
    let damaged = || Error::Corrupt {
        projection: name.to_owned(),
        why: "a chunk of changes is cut short".to_owned(),
    };
    let mut changes = Vec::new();
    while let Some((delete, after)) = rest.split_first() {
        let (length, after) = after.split_first_chunk().ok_or_else(damaged)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| damaged())?;
        let (text, after) = after.split_at_checked(length).ok_or_else(damaged)?;
        let row_json = String::from_utf8(text.to_vec()).map_err(|_| damaged())?;
        changes.push(RowChange { row_json, delete: *delete != 0 });
        rest = after;
    }
    Ok(changes)
}

/// Reads one entry.
pub fn read<T: DeserializeOwned>(store: &Store, name: &str, key: &[u8]) -> Result<Option<T>> {
    match store.cursor(key)? {
        Some(bytes) => decode(name, &bytes).map(Some),
        None => Ok(None),
    }
}

/// Drops what was on its way to sinks: for a restored directory, in which every projection starts a
/// new generation, so that nothing of it stays that was erased since.
///
/// # Errors
/// Those of the store.
pub fn drop_deliveries(store: &Store) -> Result<()> {
    let is_delivery = |key: &[u8]| {
        let rest = key.strip_prefix(b"p\0").unwrap_or_default();
        let name = rest.iter().position(|byte| *byte == 0);
        name.and_then(|at| rest.get(at + 1)).is_some_and(|kind| b"cqrt".contains(kind))
    };
    let kept = store.cursors(b"p\0", usize::MAX)?;
    let gone = kept.into_iter().map(|(key, _)| key).filter(|key| is_delivery(key));
    let entries: Entries = gone.map(|key| (key, None)).collect();
    if !entries.is_empty() {
        store.put_cursors(&entries, true)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stores that exist hold these forms: another one must still read them.
    #[test]
    fn stored_forms_stay_as_they_are() {
        let state = State {
            delivered: Some(Delivered { tx: 7, now: -1 }),
            next_change: 12,
            acked_change: 9,
            step: Some(Outstanding {
                to: Delivered { tx: 9, now: 5 },
                reload: true,
                chunks: 2,
                open: vec![ChunkHead { first_change: 10, count: 2 }],
            }),
            ..State::new(3, 4, "ab".to_owned())
        };
        let text = concat!(
            r#"{"generation":3,"definition_tx":4,"incarnation":"ab","delivered":{"tx":7,"now":-1},"next_change":12,"#,
            r#""acked_change":9,"step":{"to":{"tx":9,"now":5},"reload":true,"chunks":2,"#,
            r#""open":[{"first_change":10,"count":2}]}}"#
        );
        assert_eq!(encode("p", &state).unwrap(), text.as_bytes());
        assert_eq!(decode::<State>("p", text.as_bytes()).unwrap(), state);

        let change = RowChange { row_json: "{\"a\":1}".to_owned(), delete: false };
        let text = r#"{"row_json":"{\"a\":1}","delete":false}"#;
        assert_eq!(encode("p", &change).unwrap(), text.as_bytes());
        assert_eq!(decode::<RowChange>("p", text.as_bytes()).unwrap(), change);

        let held = Held {
            tenant: "t".to_owned(),
            key: "[1]".to_owned(),
            reason: "two rows".to_owned(),
            tx: 2,
        };
        let text = r#"{"tenant":"t","key":"[1]","reason":"two rows","tx":2}"#;
        assert_eq!(encode("p", &held).unwrap(), text.as_bytes());
        assert_eq!(decode::<Held>("p", text.as_bytes()).unwrap(), held);

        let tenant = Tenant::default();
        assert_eq!(state_key("p"), b"p\0p\0s");
        assert_eq!(lease_key("p"), b"p\0p\0l");
        assert_eq!(chunk_key("p", 1, 258), b"p\0p\0c\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\x01\x02");
        assert_eq!(held_key("p", &tenant, "[1]"), b"p\0p\0qdefault\0[1]");
        assert_eq!(refused_key("p", &tenant, "[1]"), b"p\0p\0rdefault\0[1]");
        assert_eq!(met_key("p", &tenant), b"p\0p\0tdefault");
        assert_eq!(attempt_key("p"), b"p\0p\0a");
    }

    #[test]
    fn chunks_are_read_in_both_forms() {
        let change = RowChange { row_json: "{\"a\":1}".to_owned(), delete: false };
        let changes = [change, RowChange { row_json: "é".to_owned(), delete: true }];
        let bytes = b"\x01\0\x07\0\0\0{\"a\":1}\x01\x02\0\0\0\xC3\xA9";
        assert_eq!(encode_chunk(&changes).unwrap(), bytes);
        assert_eq!(decode_chunk("p", bytes).unwrap(), changes);
        let older = r#"[{"row_json":"x","delete":true}]"#;
        let row = RowChange { row_json: "x".to_owned(), delete: true };
        assert_eq!(decode_chunk("p", older.as_bytes()).unwrap(), [row]);
        for cut in 2..bytes.len() - 1 {
            let whole = decode_chunk("p", &bytes[..cut]);
            assert!(whole.is_err() || whole.unwrap() == changes[..1], "{cut}");
        }
    }

    #[test]
    fn a_load_under_way_keeps_its_stored_form() {
        let loading = Loading {
            to: Delivered { tx: 9, now: 5 },
            tenant: Some("t".to_owned()),
            after: Some(vec![1, 2]),
            tail: None,
        };
        let state = State { load: Some(loading), ..State::new(1, 2, "ab".to_owned()) };
        let text = concat!(
            r#"{"generation":1,"definition_tx":2,"incarnation":"ab","delivered":null,"next_change":1,"#,
            r#""acked_change":0,"step":null,"load":{"to":{"tx":9,"now":5},"tenant":"t","after":[1,2],"tail":null}}"#
        );
        assert_eq!(encode("p", &state).unwrap(), text.as_bytes());
        assert_eq!(decode::<State>("p", text.as_bytes()).unwrap(), state);
        let attempt = Attempt { running: true, ended: 1 };
        assert_eq!(encode("p", &attempt).unwrap(), br#"{"running":true,"ended":1}"#);
    }
}
