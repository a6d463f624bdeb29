//! Sorting more than fits in memory: runs in files, then one merge.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::load::io;

/// Runs that are merged at one time; where there are more, so many become one first.
const RUNS_MAX: usize = 64;
/// Bytes read of a run at a time.
const READ_BYTES: usize = 256 << 10;

/// Entries to be sorted by key; those of equal keys keep their order.
///
/// The files have no names: they are gone with the sorter, and with the process, however it ends.
pub struct Sorter {
    directory: PathBuf,
    bytes_max: usize,
    bytes: Vec<u8>,
    /// Start, end of the key, end.
    entries: Vec<(usize, usize, usize)>,
    runs: Vec<File>,
    /// Runs written so far.
    written: usize,
}

impl Sorter {
    /// Sorts with about `bytes_max` of memory, and files in `directory` beyond.
    pub fn new(directory: &Path, bytes_max: usize) -> Self {
        Self {
            directory: directory.to_owned(),
            bytes_max,
            bytes: Vec::new(),
            entries: Vec::new(),
            runs: Vec::new(),
            written: 0,
        }
    }

    /// Adds an entry; its key and its value are shorter than 4 GiB.
    ///
    /// # Errors
    /// Those of writing to a file.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let held = self.bytes.len() + self.entries.len() * size_of::<(usize, usize, usize)>();
        if held + key.len() + value.len() > self.bytes_max && !self.entries.is_empty() {
            self.spill()?;
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.entries.push((start, key_end, self.bytes.len()));
        Ok(())
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        self.entries.sort_by(|a, b| bytes[a.0..a.1].cmp(&bytes[b.0..b.1]));
    }

    fn spill(&mut self) -> Result<()> {
        self.sort();
        let mut out = self.create()?;
        for (start, key_end, end) in &self.entries {
            write(&mut out, &self.bytes[*start..*key_end], &self.bytes[*key_end..*end])
                .map_err(|source| io(&self.directory, source))?;
        }
        self.bytes.clear();
        self.entries.clear();
        self.close(out)?;
        if self.runs.len() >= RUNS_MAX {
            self.join_runs()?;
        }
        Ok(())
    }

    /// Makes one run of all that there are.
    fn join_runs(&mut self) -> Result<()> {
        let runs = std::mem::take(&mut self.runs);
        let mut out = self.create()?;
        let mut merge = Merge::new(self.sources(runs)?)?;
        while let Some((key, value)) = merge.next_entry()? {
            write(&mut out, key, value).map_err(|source| io(&self.directory, source))?;
        }
        self.close(out)
    }

    fn create(&mut self) -> Result<BufWriter<File>> {
        self.written += 1;
        let file = tempfile::tempfile_in(&self.directory);
        let file = file.map_err(|source| io(&self.directory, source))?;
        Ok(BufWriter::with_capacity(1 << 20, file))
    }

    fn close(&mut self, out: BufWriter<File>) -> Result<()> {
        let file = out.into_inner().map_err(|error| io(&self.directory, error.into_error()))?;
        self.runs.push(file);
        Ok(())
    }

    fn sources(&self, runs: Vec<File>) -> Result<Vec<Source>> {
        runs.into_iter()
            .map(|run| Source::of_file(run).map_err(|source| io(&self.directory, source)))
            .collect()
    }

    /// Returns all entries in order.
    ///
    /// # Errors
    /// Those of reading a file.
    pub fn finish(mut self) -> Result<Merge> {
        self.sort();
        let runs = std::mem::take(&mut self.runs);
        let mut sources = self.sources(runs)?;
        sources.push(Source::Memory { bytes: self.bytes, entries: self.entries.into_iter() });
        Merge::new(sources)
    }
}

fn write(out: &mut impl Write, key: &[u8], value: &[u8]) -> std::io::Result<()> {
    for part in [key, value] {
        let length = u32::try_from(part.len()).map_err(std::io::Error::other)?;
        out.write_all(&length.to_le_bytes())?;
    }
    out.write_all(key)?;
    out.write_all(value)
}

/// A key and its value.
type Entry = (Vec<u8>, Vec<u8>);

/// Entries in order.
enum Source {
    File { input: BufReader<File>, left: u64 },
    Memory { bytes: Vec<u8>, entries: std::vec::IntoIter<(usize, usize, usize)> },
}

impl Source {
    fn of_file(mut file: File) -> std::io::Result<Self> {
        let left = file.metadata()?.len();
        file.seek(SeekFrom::Start(0))?;
        Ok(Self::File { input: BufReader::with_capacity(READ_BYTES, file), left })
    }

    fn next(&mut self) -> Result<Option<Entry>> {
        match self {
            Self::File { left: 0, .. } => Ok(None),
            Self::File { input, left } => {
                let entry = read(input).map_err(|source| io(Path::new("a sorted run"), source))?;
                *left = left.saturating_sub(8 + entry.0.len() as u64 + entry.1.len() as u64);
                Ok(Some(entry))
            }
            Self::Memory { bytes, entries } => Ok(entries.next().map(|(start, key_end, end)| {
                (bytes[start..key_end].to_vec(), bytes[key_end..end].to_vec())
            })),
        }
    }
}

fn read(input: &mut BufReader<File>) -> std::io::Result<Entry> {
    let mut lengths = [[0; 4]; 2];
    for length in &mut lengths {
        input.read_exact(length)?;
    }
    let [key, value] = lengths.map(|length| {
        let length = u32::from_le_bytes(length);
        vec![0; usize::try_from(length).unwrap_or(usize::MAX)]
    });
    let (mut key, mut value) = (key, value);
    input.read_exact(&mut key)?;
    input.read_exact(&mut value)?;
    Ok((key, value))
}

/// An entry and the source it came from: key, source, value.
type Head = (Vec<u8>, usize, Vec<u8>);

/// One merge of several sources, the earlier first where keys are equal.
pub struct Merge {
    sources: Vec<Source>,
    heads: BinaryHeap<Reverse<Head>>,
    last: Option<Head>,
}

impl Merge {
    fn new(sources: Vec<Source>) -> Result<Self> {
        let mut merge = Self { sources, heads: BinaryHeap::new(), last: None };
        for source in 0..merge.sources.len() {
            merge.advance(source)?;
        }
        Ok(merge)
    }

    fn advance(&mut self, source: usize) -> Result<()> {
        if let Some((key, value)) = self.sources[source].next()? {
            self.heads.push(Reverse((key, source, value)));
        }
        Ok(())
    }

    /// Returns the next entry.
    ///
    /// # Errors
    /// Those of reading a file.
    pub fn next_entry(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        let Some(Reverse(head)) = self.heads.pop() else {
            self.last = None;
            return Ok(None);
        };
        self.advance(head.1)?;
        let (key, _, value) = self.last.insert(head);
        Ok(Some((key, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_in_memory_is_sorted_all_the_same() {
        // Small enough that runs are joined on the way.
        let mut sorter = Sorter::new(&std::env::temp_dir(), 2_000);
        let mut expected = Vec::new();
        let mut state = 7_u32;
        for n in 0..10_000_u32 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let key = (state % 3_000).to_be_bytes().to_vec();
            sorter.add(&key, &n.to_be_bytes()).unwrap();
            expected.push((key, n.to_be_bytes().to_vec()));
        }
        assert!(sorter.written > RUNS_MAX);
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        let mut merge = sorter.finish().unwrap();
        let mut found = Vec::new();
        while let Some((key, value)) = merge.next_entry().unwrap() {
            found.push((key.to_vec(), value.to_vec()));
        }
        assert_eq!(found, expected);
    }
}
