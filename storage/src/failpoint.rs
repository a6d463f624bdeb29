//! Named places in the write path, in snapshots and in restore where a test can end the process.
//!
//! Off unless the environment says `EVERWHEN_FAILPOINTS="name=abort;other=abort@3"` when the
//! process starts: abort at the first, or the third, time the place is passed.
//!
//! | place | passed when |
//! |---|---|
//! | `writer.taken` | a group of batches was taken from the queue |
//! | `writer.folded` | all that follows from it is known |
//! | `writer.before_commit` | the write is about to be handed to the engine |
//! | `writer.after_commit` | it is durable, no reader sees it yet |
//! | `writer.published` | readers see it, nobody was answered yet |
//! | `writer.answered` | all callers were answered |
//! | `erase.ledger` | erasures are due, nothing of them is deleted yet |
//! | `erase.purged` | their rows are deleted, the ledger says so |
//! | `erase.compacted` | files are rewritten, the ledger does not say so yet |
//! | `load.intended` | a load is about to put its files in, which is noted |
//! | `load.family` | the files of one more family are in |
//! | `load.before_publish` | all are in, nobody sees them yet |
//! | `load.published` | the load is durable |
//! | `cursors.before_write` | a projection's state is about to be written |
//! | `cursors.written` | it is written |
//! | `index.filled` | a new index holds all rows, it is not in use yet |
//! | `store.opened` | the directory is open, the writer has not begun |
//! | `store.closing` | the writer has ended, the directory is still open |
//! | `snapshot.checkpoint` | the checkpoint is there |
//! | `snapshot.part_put` | a file is about to be copied into the blobs |
//! | `snapshot.before_manifest` | all blobs are durable |
//! | `snapshot.after_manifest` | the snapshot is listed |
//! | `ship.written` | a segment of the journal is durable here, not in the target |
//! | `ship.put` | the target has it |
//! | `prune.manifests_removed` | old snapshots are gone, their blobs are not |
//! | `restore.file` | a file is about to be copied back |
//! | `restore.prepared` | the directory is whole, under another name |
//! | `restore.erased` | what was erased since the snapshot is erased again |
//! | `restore.before_rename`, `restore.after_rename` | it gets its name |

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The places that every write passes, in order.
pub const WRITE_PATH: [&str; 6] = [
    "writer.taken",
    "writer.folded",
    "writer.before_commit",
    "writer.after_commit",
    "writer.published",
    "writer.answered",
];

static ARMED: OnceLock<HashMap<String, AtomicU64>> = OnceLock::new();

/// Ends the process at once where the place is armed and its count is reached.
pub(crate) fn pass(name: &str) {
    let armed = ARMED.get_or_init(|| {
        std::env::var("EVERWHEN_FAILPOINTS").map(|text| parse(&text)).unwrap_or_default()
    });
    if armed.is_empty() {
        return;
    }
    if let Some(left) = armed.get(name)
        && left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        tracing::error!(failpoint = name, "process ends at a failpoint");
        std::process::abort();
    }
}

fn parse(text: &str) -> HashMap<String, AtomicU64> {
    text.split(';')
        .filter_map(|entry| {
            let (name, action) = entry.trim().split_once('=')?;
            let count = match action.split_once('@') {
                Some(("abort", count)) => count.parse().ok()?,
                None if action == "abort" => 1,
                _ => return None,
            };
            Some((name.to_owned(), AtomicU64::new(count)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_aborts_are_understood() {
        let armed = parse("writer.before_commit=abort; b=abort@3;c=panic;;d");
        let mut names: Vec<_> = armed.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["b", "writer.before_commit"]);
        assert_eq!(armed["b"].load(Ordering::SeqCst), 3);
    }
}
