//! The binary forms of rows: an Arrow stream, and Parquet a row group at a time.

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::writer::StreamWriter;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use super::internal;
use crate::failure::Answered;

/// Bytes of a row group at most, and so what an answer under way holds.
const GROUP_BYTES: usize = 8 << 20;
/// Rows of a row group at most.
const GROUP_ROWS: usize = 128 << 10;

/// Turns batches into bytes of a binary form.
pub enum Columnar {
    Arrow(Box<StreamWriter<Vec<u8>>>),
    Parquet(Box<ArrowWriter<Vec<u8>>>),
}

impl Columnar {
    /// Begins an Arrow stream.
    ///
    /// # Errors
    /// `internal_error` where the schema cannot be written.
    pub fn arrow(schema: &Schema) -> Answered<Self> {
        let writer = StreamWriter::try_new(Vec::new(), schema);
        writer.map(|writer| Self::Arrow(Box::new(writer))).map_err(internal)
    }

    /// Begins a Parquet file.
    ///
    /// # Errors
    /// `internal_error` where Parquet has no form for a column.
    pub fn parquet(schema: SchemaRef) -> Answered<Self> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_max_row_group_bytes(Some(GROUP_BYTES))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .set_created_by(concat!("everwhen ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties));
        writer.map(|writer| Self::Parquet(Box::new(writer))).map_err(internal)
    }

    /// Adds a batch; some of its bytes may come with a later one.
    ///
    /// # Errors
    /// `internal_error` where that fails.
    pub fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Answered<()> {
        match self {
            Self::Arrow(writer) => writer.write(batch).map_err(internal)?,
            Self::Parquet(writer) => {
                writer.write(batch).map_err(internal)?;
                if writer.memory_size() >= GROUP_BYTES {
                    writer.flush().map_err(internal)?;
                }
            }
        }
        self.drain(out)
    }

    /// Writes what stands after the rows.
    ///
    /// # Errors
    /// `internal_error` where that fails.
    pub fn end(&mut self, out: &mut Vec<u8>) -> Answered<()> {
        match self {
            Self::Arrow(writer) => writer.finish().map_err(internal)?,
            Self::Parquet(writer) => {
                writer.finish().map_err(internal)?;
            }
        }
        self.drain(out)
    }

    /// Moves the bytes that are ready.
    ///
    /// # Errors
    /// `internal_error` where that fails.
    pub fn drain(&mut self, out: &mut Vec<u8>) -> Answered<()> {
        match self {
            Self::Arrow(writer) => {
                writer.flush().map_err(internal)?;
                out.append(writer.get_mut());
            }
            // The file's places are counted apart from the buffer, so that it may be emptied.
            Self::Parquet(writer) => {
                writer.sync().map_err(internal)?;
                out.append(writer.inner_mut());
            }
        }
        Ok(())
    }
}
