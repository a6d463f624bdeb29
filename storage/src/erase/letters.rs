//! Dead letters that came from an erased key, found by the key's text.
//!
//! A dead letter was not understood, so it has no key. One that holds, as words of their own, all
//! values of an erased key loses its bytes and its reason; its place in the source stays.

use rocksdb::WriteBatch;

use crate::batch::DeadLetter;
use crate::engine::Engine;
use crate::error::Result;
use crate::meta;
use crate::schema::Tenant;
use crate::value::Value;

/// Letters read at once.
const PAGE: usize = 256;
/// What an emptied letter gives as its reason.
const REASON: &str = "erased";

/// What to look for: the letters of a tenant that hold one spelling of each value.
pub(crate) struct Wanted {
    tenant: Tenant,
    /// By value of the key, its spellings.
    values: Vec<Vec<Vec<u8>>>,
}

impl Wanted {
    /// Returns what to look for; nothing for a key of dates, times and truth values alone, which
    /// do not tell whose letter it is.
    pub(crate) fn of(tenant: &Tenant, key: &[Value]) -> Option<Self> {
        let values: Vec<_> = key.iter().map(spellings).filter(|all| !all.is_empty()).collect();
        (!values.is_empty()).then(|| Self { tenant: tenant.clone(), values })
    }

    fn is_in(&self, letter: &DeadLetter, texts: &[String]) -> bool {
        let holds = |spelling: &Vec<u8>| {
            has_word(&letter.value, spelling)
                || has_word(letter.reason.as_bytes(), spelling)
                || texts.iter().any(|text| has_word(text.as_bytes(), spelling))
        };
        letter.tenant == self.tenant.as_str()
            && self.values.iter().all(|spellings| spellings.iter().any(holds))
    }
}

fn spellings(value: &Value) -> Vec<Vec<u8>> {
    match value {
        Value::Text(text) if !text.is_empty() => {
            let quoted = serde_json::to_string(text).unwrap_or_default();
            let escaped = quoted.trim_matches('"').as_bytes().to_vec();
            vec![text.as_bytes().to_vec(), escaped]
        }
        Value::Uuid(value) => {
            let spelled = [value.hyphenated().to_string(), value.simple().to_string()];
            let upper = spelled.each_ref().map(|text| text.to_ascii_uppercase());
            spelled.into_iter().chain(upper).map(String::into_bytes).collect()
        }
        Value::Int(number) => vec![number.to_string().into_bytes()],
        Value::Bytes(bytes) if !bytes.is_empty() => {
            vec![bytes.clone(), hex(bytes).into_bytes(), base64(bytes).into_bytes()]
        }
        _ => Vec::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns base64 without its padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len() * 4 / 3 + 3);
    for chunk in bytes.chunks(3) {
        let at = |place: usize| u32::from(chunk.get(place).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..=chunk.len() {
            let [.., low] = (bits >> (18 - 6 * digit)).to_be_bytes();
            out.push(char::from(DIGITS[usize::from(low & 63)]));
        }
    }
    out
}

/// True where `word` stands in `text` with no letter, digit or underscore before or after it.
fn has_word(text: &[u8], word: &[u8]) -> bool {
    let inner = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    if word.len() > text.len() {
        return false;
    }
    text.windows(word.len()).enumerate().any(|(at, window)| {
        window == word
            && !inner(at.checked_sub(1).and_then(|before| text.get(before)))
            && !inner(text.get(at + word.len()))
    })
}

/// Appends every text in a JSON document, names included.
fn texts_in(value: &serde_json::Value, out: &mut Vec<String>) {
    match value {
        serde_json::Value::String(text) => out.push(text.clone()),
        serde_json::Value::Array(items) => items.iter().for_each(|item| texts_in(item, out)),
        serde_json::Value::Object(fields) => {
            for (name, field) in fields {
                out.push(name.clone());
                texts_in(field, out);
            }
        }
        _ => {}
    }
}

/// Empties the dead letters that hold any of the keys; returns how many. Reads all letters.
pub(crate) fn empty(engine: &Engine, wanted: &[Wanted]) -> Result<usize> {
    let (mut after, mut emptied) = (0, 0);
    if wanted.is_empty() {
        return Ok(0);
    }
    loop {
        let page = meta::dead_letters(engine, after, PAGE)?;
        let Some(last) = page.last() else { return Ok(emptied) };
        after = last.id;
        let mut writes = WriteBatch::default();
        for letter in page {
            let mut texts = Vec::new();
            if let Ok(document) = serde_json::from_slice(&letter.value) {
                texts_in(&document, &mut texts);
            }
            if wanted.iter().any(|wanted| wanted.is_in(&letter, &texts)) {
                let value = Vec::new();
                let stub = DeadLetter { value, reason: REASON.to_owned(), ..letter };
                meta::put_dead_letter(engine, &mut writes, stub)?;
                emptied += 1;
            }
        }
        engine.write(writes, false)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(value: &[u8]) -> DeadLetter {
        DeadLetter {
            id: 1,
            tenant: "default".to_owned(),
            stream: "s".to_owned(),
            topic: None,
            partition: None,
            offset: None,
            reason: "no instant".to_owned(),
            value: value.to_vec(),
            size: 0,
            at: 0,
        }
    }

    fn holds(value: &[u8], key: &[Value]) -> bool {
        let letter = letter(value);
        let mut texts = Vec::new();
        if let Ok(document) = serde_json::from_slice(&letter.value) {
            texts_in(&document, &mut texts);
        }
        Wanted::of(&Tenant::default(), key).unwrap().is_in(&letter, &texts)
    }

    #[test]
    fn a_letter_is_found_by_whole_words_in_any_spelling() {
        let ann = [Value::Text("ann".to_owned())];
        assert!(holds(br#"{"id":"ann","at":"never"}"#, &ann));
        assert!(holds(b"broken { ann", &ann));
        assert!(holds(br#"{"id":"\u0061nn"}"#, &ann));
        assert!(!holds(br#"{"id":"annette"}"#, &ann));
        assert!(!holds(br#"{"id":"joann"}"#, &ann));
        let bytes = [Value::Bytes(vec![1, 2, 3, 250])];
        assert!(holds(br#"{"id":"AQID+g=="}"#, &bytes));
        assert!(holds(b"id 010203fa", &bytes));
    }

    #[test]
    fn every_value_of_a_key_must_be_there() {
        let key = [Value::Text("ann".to_owned()), Value::Int(7)];
        assert!(holds(br#"{"id":"ann","desk":7}"#, &key));
        assert!(!holds(br#"{"id":"ann","desk":17}"#, &key));
        assert!(Wanted::of(&Tenant::default(), &[Value::Date(3)]).is_none());
        let text = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        let uuid = [Value::Uuid(text.parse().unwrap())];
        for spelled in [text.to_owned(), text.to_uppercase(), text.replace('-', "")] {
            assert!(holds(format!(r#"{{"id":"{spelled}"}}"#).as_bytes(), &uuid), "{spelled}");
        }
    }

    #[test]
    fn other_tenants_keep_their_letters() {
        let wanted = Wanted::of(&Tenant::new("b").unwrap(), &[Value::Int(1)]).unwrap();
        assert!(!wanted.is_in(&letter(b"1"), &[]));
    }
}
