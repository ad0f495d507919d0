//! A reader outside the workspace: files whose documents are separated by form feeds, as line printers wanted them.

use std::path::{Path, PathBuf};

use internevo_core::storage::{self, StorageError};
use internevo_data::{
    Document,
    format::{RawRecord, RecordReader, RecordReaderPlugin},
    plugin::{NoSettings, Plugin},
    register_record_reader,
};

/// The pages of a file.
struct Pages {
    path: PathBuf,
    pages: Vec<String>,
    read: usize,
}

impl Plugin for Pages {
    const NAME: &'static str = "pages";
    const ABOUT: &'static str = "Reads files of pages with form feeds between them.";
    type Config = NoSettings;
}

impl RecordReaderPlugin for Pages {
    const EXTENSIONS: &'static [&'static str] = &[".pages"];

    fn open(path: &Path) -> Result<Box<dyn RecordReader>, StorageError> {
        let text = storage::read_to_string(path)?;
        Ok(Box::new(Self { path: path.to_owned(), pages: text.split('\u{c}').map(str::to_owned).collect(), read: 0 }))
    }
}

register_record_reader!(Pages);

impl RecordReader for Pages {
    fn next_record(&mut self, buffer: &mut Vec<u8>) -> Result<RawRecord, StorageError> {
        buffer.clear();
        let Some(page) = self.pages.get(self.read) else { return Ok(RawRecord::End) };
        self.read += 1;
        let mut document = Document::new(format!("page-{}", self.read), page.as_str());
        if page.starts_with('<') {
            document.meta.insert("type".into(), "html".into());
        }
        document.write_line(buffer);
        buffer.pop();
        Ok(RawRecord::Record)
    }

    fn record(&self) -> u64 {
        self.read as u64
    }

    fn offset(&self) -> u64 {
        self.read as u64
    }

    fn stored_offset(&self) -> u64 {
        self.pages[..self.read].iter().map(|page| page.len() as u64 + 1).sum()
    }

    fn path(&self) -> &Path {
        &self.path
    }
}
