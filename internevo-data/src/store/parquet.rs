//! Tokens as Parquet (feature `parquet`): a row a document, with its `id` and `tokens`, a list of int32.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use internevo_core::{
    plugin::Plugin,
    storage::{AtomicFile, StorageError},
};
use parquet::{
    basic::{Compression, ZstdLevel},
    data_type::{ByteArray, ByteArrayType, Int32Type},
    errors::ParquetError,
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{StoreError, TokenSink, TokenSinkContext, TokenSinkPlugin, with_suffix};
use crate::register_token_sink;

/// The columns, as other Parquet writers lay out a list.
const SCHEMA: &str = "message tokens {
    required binary id (UTF8);
    required group tokens (LIST) { repeated group list { required int32 element; } }
}";

/// Settings of `parquet`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ParquetConfig {
    /// Tokens of a row group, which is held in memory while it is written.
    pub row_group_tokens: usize,
}

impl Default for ParquetConfig {
    fn default() -> Self {
        Self { row_group_tokens: 16 << 20 }
    }
}

/// Writes `<prefix>.parquet`; it appears when it is finished.
pub struct ParquetWriter {
    path: PathBuf,
    writer: SerializedFileWriter<AtomicFile>,
    row_group_tokens: usize,
    rows: Rows,
}

/// The row group that comes next, by columns.
#[derive(Default)]
struct Rows {
    ids: Vec<ByteArray>,
    tokens: Vec<i32>,
    /// For each token, and for each document without tokens: 1 for a token, 0 for none.
    definitions: Vec<i16>,
    /// Likewise: 0 where a document begins.
    repetitions: Vec<i16>,
}

impl ParquetWriter {
    /// Begins the file; missing folders are made.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(prefix: &Path, config: &ParquetConfig) -> Result<Self, StoreError> {
        let path = with_suffix(prefix, ".parquet");
        let file = AtomicFile::create(&path)?;
        let schema = Arc::new(parse_message_type(SCHEMA).expect("a constant schema"));
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
        let writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).map_err(at(&path))?;
        Ok(Self { path, writer, row_group_tokens: config.row_group_tokens, rows: Rows::default() })
    }

    fn write_rows(&mut self) -> Result<(), StoreError> {
        let rows = std::mem::take(&mut self.rows);
        let mut write = || {
            let mut group = self.writer.next_row_group()?;
            let mut column = group.next_column()?.expect("ids are the first of two columns");
            column.typed::<ByteArrayType>().write_batch(&rows.ids, None, None)?;
            column.close()?;
            let mut column = group.next_column()?.expect("tokens are the second of two columns");
            let levels = (Some(&*rows.definitions), Some(&*rows.repetitions));
            column.typed::<Int32Type>().write_batch(&rows.tokens, levels.0, levels.1)?;
            column.close()?;
            group.close().map(drop)
        };
        Ok(write().map_err(at(&self.path))?)
    }
}

/// A fault of writing: the library passes on what the file system says.
fn at(path: &Path) -> impl FnOnce(ParquetError) -> StorageError {
    let path = path.to_owned();
    move |error| StorageError::at("write", path)(std::io::Error::other(error))
}

impl TokenSink for ParquetWriter {
    fn push(&mut self, id: &str, tokens: &[i32]) -> Result<(), StoreError> {
        let rows = &mut self.rows;
        rows.ids.push(id.into());
        rows.tokens.extend_from_slice(tokens);
        let entries = tokens.len().max(1);
        rows.definitions.extend(std::iter::repeat_n(i16::from(!tokens.is_empty()), entries));
        rows.repetitions.extend((0..entries).map(|entry| i16::from(entry > 0)));
        if rows.tokens.len() >= self.row_group_tokens { self.write_rows() } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>) -> Result<(), StoreError> {
        if !self.rows.ids.is_empty() {
            self.write_rows()?;
        }
        let Self { path, writer, .. } = *self;
        Ok(writer.into_inner().map_err(at(&path))?.commit()?)
    }
}

/// Parquet.
pub struct Parquet;

impl Plugin for Parquet {
    const NAME: &'static str = "parquet";
    const ABOUT: &'static str = "Parquet with a row a document: id and tokens, a list of int32.";
    type Config = ParquetConfig;
}

impl TokenSinkPlugin for Parquet {
    fn build(config: ParquetConfig, cx: &TokenSinkContext<'_>) -> Result<Box<dyn TokenSink>, StoreError> {
        Ok(Box::new(ParquetWriter::create(cx.prefix, &config)?))
    }
}

register_token_sink!(Parquet);
