//! Sorting more than fits in memory: runs in files, then one merge.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};

use crate::error::Result;

use super::io;

/// Runs that are merged at one time; where there are more, so many become one first.
const RUNS_MAX: usize = 64;
/// Bytes read of a run at a time.
const READ_BYTES: usize = 256 << 10;

/// Entries to be sorted by key; those of equal keys keep their order.
pub(crate) struct Sorter {
    directory: PathBuf,
    name: &'static str,
    bytes_max: usize,
    bytes: Vec<u8>,
    /// Start, end of the key, end.
    entries: Vec<(usize, usize, usize)>,
    runs: Vec<PathBuf>,
    /// Runs written so far, for their names.
    written: usize,
}

impl Sorter {
    /// Sorts with about `bytes_max` of memory, and files in `directory` named after `name`.
    pub(crate) fn new(directory: &Path, name: &'static str, bytes_max: usize) -> Self {
        Self {
            directory: directory.to_owned(),
            name,
            bytes_max,
            bytes: Vec::new(),
            entries: Vec::new(),
            runs: Vec::new(),
            written: 0,
        }
    }

    /// Adds an entry.
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
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
        let path = self.next_path();
        let mut out = create(&path)?;
        for (start, key_end, end) in &self.entries {
            write(&mut out, &self.bytes[*start..*key_end], &self.bytes[*key_end..*end])
                .map_err(|source| io(&path, source))?;
        }
        out.flush().map_err(|source| io(&path, source))?;
        self.bytes.clear();
        self.entries.clear();
        self.runs.push(path);
        if self.runs.len() >= RUNS_MAX {
            self.join_runs()?;
        }
        Ok(())
    }

    /// Makes one run of all that there are.
    fn join_runs(&mut self) -> Result<()> {
        let path = self.next_path();
        let mut out = create(&path)?;
        let runs = std::mem::take(&mut self.runs);
        let sources = runs.iter().map(|run| Source::of_file(run)).collect::<Result<Vec<_>>>()?;
        let mut merge = Merge::new(sources)?;
        while let Some((key, value)) = merge.next()? {
            write(&mut out, key, value).map_err(|source| io(&path, source))?;
        }
        out.flush().map_err(|source| io(&path, source))?;
        drop(merge);
        for run in runs {
            fs::remove_file(&run).map_err(|source| io(&run, source))?;
        }
        self.runs.push(path);
        Ok(())
    }

    fn next_path(&mut self) -> PathBuf {
        self.written += 1;
        self.directory.join(format!("{}-{}.run", self.name, self.written))
    }

    /// Returns all entries in order.
    pub(crate) fn finish(mut self) -> Result<Merge> {
        self.sort();
        let mut sources: Vec<Source> =
            self.runs.iter().map(|run| Source::of_file(run)).collect::<Result<_>>()?;
        sources.push(Source::Memory { bytes: self.bytes, entries: self.entries.into_iter() });
        Merge::new(sources)
    }
}

fn create(path: &Path) -> Result<BufWriter<File>> {
    let file = File::create(path).map_err(|source| io(path, source))?;
    Ok(BufWriter::with_capacity(1 << 20, file))
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
    File { path: PathBuf, input: BufReader<File>, left: u64 },
    Memory { bytes: Vec<u8>, entries: std::vec::IntoIter<(usize, usize, usize)> },
}

impl Source {
    fn of_file(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|source| io(path, source))?;
        let left = file.metadata().map_err(|source| io(path, source))?.len();
        let input = BufReader::with_capacity(READ_BYTES, file);
        Ok(Self::File { path: path.to_owned(), input, left })
    }

    fn next(&mut self) -> Result<Option<Entry>> {
        match self {
            Self::File { left: 0, .. } => Ok(None),
            Self::File { path, input, left } => {
                let entry = read(input).map_err(|source| io(path, source))?;
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
pub(crate) struct Merge {
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
    pub(crate) fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
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
        let name = format!("everwhen-sort-{}", uuid::Uuid::new_v4().simple());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        // Small enough that runs are joined on the way.
        let mut sorter = Sorter::new(&directory, "x", 2_000);
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
        while let Some((key, value)) = merge.next().unwrap() {
            found.push((key.to_vec(), value.to_vec()));
        }
        assert_eq!(found, expected);
        fs::remove_dir_all(&directory).unwrap();
    }
}
