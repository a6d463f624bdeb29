//! Files of one family in the engine's own form, written in key order.

use std::path::{Path, PathBuf};

use rocksdb::{Options, SstFileWriter};

use crate::error::Result;
use crate::families::Family;

/// Size at which the next file begins.
const FILE_BYTES: u64 = 64 << 20;
/// Entries between two looks at the size.
const SIZE_EVERY: u32 = 1_024;

/// Takes entries of a family in key order; of several for one key the last counts.
pub(crate) struct Files<'o> {
    family: Family,
    options: &'o Options,
    directory: PathBuf,
    writer: Option<SstFileWriter<'o>>,
    paths: Vec<PathBuf>,
    /// The last entry, until one of another key comes; without a value it goes.
    held: Option<(Vec<u8>, Option<Vec<u8>>)>,
    entries: u32,
}

impl<'o> Files<'o> {
    /// Starts without a file; `options` are the family's.
    pub(crate) fn new(family: Family, options: &'o Options, directory: &Path) -> Self {
        let directory = directory.to_owned();
        Self { family, options, directory, writer: None, paths: Vec::new(), held: None, entries: 0 }
    }

    /// Adds an entry, or takes the one just added for this key back.
    pub(crate) fn add(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        match &mut self.held {
            Some((held, of_key)) if held == key => {
                *of_key = value.map(<[u8]>::to_vec);
                return Ok(());
            }
            _ => {}
        }
        self.release()?;
        self.held = Some((key.to_vec(), value.map(<[u8]>::to_vec)));
        Ok(())
    }

    fn release(&mut self) -> Result<()> {
        let Some((key, Some(value))) = self.held.take() else { return Ok(()) };
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let name = format!("{}-{}.sst", self.family.name(), self.paths.len() + 1);
                let path = self.directory.join(name);
                let writer = SstFileWriter::create(self.options);
                writer.open(&path)?;
                self.paths.push(path);
                self.writer.insert(writer)
            }
        };
        writer.put(&key, &value)?;
        self.entries += 1;
        if self.entries.is_multiple_of(SIZE_EVERY) && writer.file_size() >= FILE_BYTES {
            self.close()?;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        if let Some(mut writer) = self.writer.take() {
            // Syncs the file.
            writer.finish()?;
        }
        Ok(())
    }

    /// Completes the last file; answers with the family and its files, which are durable.
    pub(crate) fn finish(mut self) -> Result<(Family, Vec<PathBuf>)> {
        self.release()?;
        self.close()?;
        Ok((self.family, self.paths))
    }
}
