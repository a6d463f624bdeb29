//! What a snapshot is made of: one small text file, that says of itself whether it is whole.
//!
//! ```text
//! everwhen snapshot 1 sha256 HEX-OF-ALL-THAT-FOLLOWS
//! { JSON document }
//! ```

use serde::{Deserialize, Serialize};

use super::sealed::{Kind, seal, unseal};
use crate::time::SystemTime;
use crate::tx::TxId;

const KIND: Kind = Kind { word: "snapshot", format: 1, what: "manifest of a snapshot" };

/// Describes one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Given in order of publication, from 1; the file's name.
    pub snapshot: u64,
    /// The data directory it was taken of.
    pub incarnation: String,
    /// The directories that one was restored from, the first one first.
    pub ancestors: Vec<Ancestor>,
    /// The server's clock when it was taken: microseconds since the Unix epoch.
    pub taken_at: i64,
    /// The last transaction in it; 0 where there was none.
    pub tx: u64,
    /// The system time of that transaction, in microseconds since the Unix epoch.
    pub system_time: i64,
    /// RocksDB's last sequence number.
    pub sequence: u64,
    /// Up to where it holds the records of each source.
    pub sources: Vec<Source>,
    pub families: Vec<FamilyCount>,
    /// The files of the database, by name.
    pub files: Vec<Part>,
    /// The version of the program that took it.
    pub program: String,
}

/// A data directory that another one was restored from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestor {
    pub incarnation: String,
    /// The last transaction that both have.
    pub tx: u64,
}

/// How far a partition of a source had been read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Source {
    pub stream: String,
    pub topic: String,
    pub partition: i32,
    pub next_offset: i64,
}

/// What a column family's table files hold; entries count what is overwritten or deleted too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilyCount {
    pub family: String,
    pub files: u64,
    pub entries: u64,
    pub bytes: u64,
}

/// One file of the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub name: String,
    pub bytes: u64,
    /// Of its content, 64 hex digits; the name of its blob.
    pub sha256: String,
}

impl Manifest {
    /// Returns the last transaction in it.
    pub fn tx(&self) -> TxId {
        TxId::new(self.tx)
    }

    /// Returns the system time of that transaction; the start of time where there is none.
    pub fn system_time(&self) -> SystemTime {
        SystemTime::from_micros(self.system_time)
    }

    /// Returns the size of all its files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|part| part.bytes).sum()
    }

    /// Writes the whole text.
    ///
    /// # Errors
    /// Why it cannot be written as JSON.
    pub(super) fn to_text(&self) -> Result<String, String> {
        seal(&KIND, self)
    }

    /// Reads a whole text.
    ///
    /// # Errors
    /// Why it is no manifest, in words for people.
    pub(super) fn of_text(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = unseal(&KIND, bytes)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Refuses names that could lead out of the folder that they are restored to.
    fn check(&self) -> Result<(), String> {
        for part in &self.files {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
            let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
            if part.name.starts_with('.') || part.name.is_empty() || !part.name.chars().all(plain) {
                return Err(format!("it names a file {:?}", part.name));
            }
            if part.sha256.len() != 64 || !part.sha256.chars().all(hex) {
                return Err(format!("the hash of {} is none", part.name));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            snapshot: 3,
            incarnation: "0123456789abcdef0123456789abcdef".into(),
            ancestors: vec![Ancestor { incarnation: "f".repeat(32), tx: 12 }],
            taken_at: 1_767_225_600_000_000,
            tx: 41,
            system_time: 1_767_225_599_000_000,
            sequence: 96,
            sources: vec![Source {
                stream: "s".into(),
                topic: "t".into(),
                partition: 2,
                next_offset: 17,
            }],
            families: vec![FamilyCount {
                family: "current".into(),
                files: 1,
                entries: 5,
                bytes: 9,
            }],
            files: vec![Part { name: "CURRENT".into(), bytes: 16, sha256: "a".repeat(64) }],
            program: "0.1.0".into(),
        }
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_refused() {
        let text = manifest().to_text().unwrap();
        assert_eq!(Manifest::of_text(text.as_bytes()).unwrap(), manifest());
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            assert!(Manifest::of_text(&changed).is_err(), "byte {at}");
            assert!(Manifest::of_text(&text.as_bytes()[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn names_do_not_lead_out_of_the_folder() {
        for name in ["../x", "/etc/x", "", ".hidden", "a/b", "a\\b"] {
            let mut bad = manifest();
            bad.files[0].name = name.to_owned();
            let text = bad.to_text().unwrap();
            assert!(Manifest::of_text(text.as_bytes()).unwrap_err().contains("names a file"));
        }
    }

    /// The bytes of format 1, as released: they must be readable for ever.
    #[test]
    fn format_1_is_pinned() {
        let pinned = include_str!("format_1.manifest");
        assert_eq!(manifest().to_text().unwrap(), pinned);
        assert_eq!(Manifest::of_text(pinned.as_bytes()).unwrap(), manifest());
    }

    #[test]
    fn fuzzed_manifests_are_read_or_refused() {
        let text = manifest().to_text().unwrap();
        let (_, document) = text.split_once('\n').unwrap();
        everwhen_fuzz::Fuzz::text("manifests", [document]).run_text(|document| {
            let hash = super::super::files::sha256_of(document.as_bytes());
            let head = format!("everwhen {} {} sha256 {hash}", KIND.word, KIND.format);
            let whole = Manifest::of_text(format!("{head}\n{document}").as_bytes());
            let _ = Manifest::of_text(document.as_bytes());
            whole.is_ok_and(|manifest| manifest.to_text().is_ok() && manifest.bytes() > 0)
        });
    }
}
