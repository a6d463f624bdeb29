//! Small text files that say of themselves whether they are whole.
//!
//! ```text
//! everwhen KIND FORMAT sha256 HEX-OF-ALL-THAT-FOLLOWS
//! { JSON document }
//! ```

use serde::{Serialize, de::DeserializeOwned};

use super::files::sha256_of;

/// A kind of file: the word and the format number in its first line, and what it is to people.
pub(super) struct Kind {
    pub(super) word: &'static str,
    pub(super) format: u32,
    pub(super) what: &'static str,
}

/// Writes a whole text.
///
/// # Errors
/// Why it cannot be written as JSON.
pub(super) fn seal(kind: &Kind, document: &impl Serialize) -> Result<String, String> {
    let document = serde_json::to_string_pretty(document).map_err(|error| error.to_string())?;
    let document = document + "\n";
    let hash = sha256_of(document.as_bytes());
    Ok(format!("everwhen {} {} sha256 {hash}\n{document}", kind.word, kind.format))
}

/// Reads a whole text.
///
/// # Errors
/// Why it is none of the kind, in words for people.
pub(super) fn unseal<T: DeserializeOwned>(kind: &Kind, bytes: &[u8]) -> Result<T, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is no text".to_owned())?;
    let opening = format!("everwhen {} ", kind.word);
    let rest = text.strip_prefix(&opening).ok_or_else(|| format!("it is no {}", kind.what))?;
    let (head, document) = rest.split_once('\n').ok_or("it ends within its first line")?;
    let (format, hash) = head.split_once(" sha256 ").ok_or("its first line is damaged")?;
    if format != kind.format.to_string() {
        return Err(format!("it is of format {format}, this program reads {}", kind.format));
    }
    if sha256_of(document.as_bytes()) != hash {
        return Err("its content is not what its first line says: torn or tampered with".into());
    }
    serde_json::from_str(document).map_err(|error| format!("it cannot be read: {error}"))
}
