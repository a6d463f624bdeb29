//! The changes of a step, cut into chunks and written as they come.

use std::sync::Arc;

use super::cursor::{ChunkHead, Entries, RowChange, State, chunk_key, encode_chunk};
use super::projection::{Projection, Tools};
use crate::error::Result;

/// Bytes of chunks written at once.
const WRITE_BYTES: usize = 4 << 20;

/// Cuts the changes of a step into chunks and writes them as they come.
///
/// Chunks without a state that names them mean nothing, so a crash in between leaves nothing.
pub struct ChunkWriter<'a> {
    of: &'a Projection,
    /// What they are written with.
    pub tools: &'a Tools<'a>,
    generation: u64,
    /// The number that the next change gets.
    pub next_change: u64,
    waiting: Vec<RowChange>,
    waiting_bytes: usize,
    /// What is still to be written, with the state.
    pub entries: Entries,
    entry_bytes: usize,
    /// The chunks, in order.
    pub open: Vec<ChunkHead>,
    /// The first of them.
    pub first: Option<(u64, Arc<Vec<RowChange>>)>,
}

impl<'a> ChunkWriter<'a> {
    /// Starts to cut what follows the changes of a state.
    pub const fn new(of: &'a Projection, tools: &'a Tools<'a>, state: &State) -> Self {
        Self {
            of,
            tools,
            generation: state.generation,
            next_change: state.next_change,
            waiting: Vec::new(),
            waiting_bytes: 0,
            entries: Vec::new(),
            entry_bytes: 0,
            open: Vec::new(),
            first: None,
        }
    }

    /// Takes changes in their order; full chunks are written.
    pub fn add(&mut self, rows: Vec<RowChange>) -> Result<()> {
        let (rows_max, bytes_max) = (self.tools.chunk_rows.max(1), self.tools.chunk_bytes);
        for row in rows {
            if self.waiting.len() >= rows_max || self.waiting_bytes >= bytes_max {
                self.cut()?;
            }
            self.waiting_bytes += row.row_json.len();
            self.waiting.push(row);
        }
        Ok(())
    }

    /// Takes the last change back, for the part of a load that follows: the last of all ends with a chunk
    /// that has a number of its own.
    pub fn take_last(&mut self) -> Option<RowChange> {
        self.waiting.pop()
    }

    /// Ends the last chunk. `ends_load`: there is at least one, also of no rows, since it ends the load.
    pub fn close(&mut self, ends_load: bool) -> Result<()> {
        if !self.waiting.is_empty() || (ends_load && self.open.is_empty()) {
            self.cut()?;
        }
        Ok(())
    }

    fn cut(&mut self) -> Result<()> {
        let changes = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let name = &self.of.name;
        let count = u64::try_from(changes.len()).unwrap_or(u64::MAX);
        let head = ChunkHead { first_change: self.next_change, count };
        self.next_change += count;
        let key = chunk_key(name, self.generation, head.first_change);
        let bytes = encode_chunk(&changes)?;
        self.entry_bytes += bytes.len();
        self.entries.push((key, Some(bytes)));
        self.open.push(head);
        if self.first.is_none() {
            self.first = Some((head.first_change, Arc::new(changes)));
        }
        if self.entry_bytes >= WRITE_BYTES {
            self.of.put(self.tools.store, &self.entries, false)?;
            self.entries.clear();
            self.entry_bytes = 0;
        }
        Ok(())
    }
}
