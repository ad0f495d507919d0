//! Readers of other crates: how a crate offers one, and how a file finds it by its name.

use std::{fmt, path::Path};

use internevo_core::{
    plugin::{
        __inventory as inventory, Descriptor, Entry, NoSettings, Origin, Plugin, PluginError, PluginInfo, Registry,
    },
    storage::StorageError,
};

use super::RecordReader;

/// A reader of files that hold many documents. It has no settings: a file is opened by its name wherever it appears.
pub trait RecordReaderPlugin: Plugin<Config = NoSettings> {
    /// Ends of the names of its files, for example `.mbox`. Those of the built-in readers stay theirs.
    const EXTENSIONS: &'static [&'static str];

    /// Opens a file. The reader gives its records as JSON lines with `id` and `text`.
    ///
    /// # Errors
    /// When the system cannot open it.
    fn open(path: &Path) -> Result<Box<dyn RecordReader>, StorageError>;
}

/// A registered reader.
pub struct RecordReaderEntry {
    descriptor: Descriptor,
    extensions: &'static [&'static str],
    open: fn(&Path) -> Result<Box<dyn RecordReader>, StorageError>,
}

impl RecordReaderEntry {
    /// The entry of plugin `P`; used by [`register_record_reader!`](crate::register_record_reader).
    pub const fn of<P: RecordReaderPlugin>(origin: Origin) -> Self {
        Self { descriptor: Descriptor::of::<P>(Self::KIND, origin), extensions: P::EXTENSIONS, open: P::open }
    }

    /// Opens a file.
    ///
    /// # Errors
    /// When the system cannot open it.
    pub fn open(&self, path: &Path) -> Result<Box<dyn RecordReader>, StorageError> {
        (self.open)(path)
    }

    /// The entry for files of this name; of several, the first by its own name.
    pub(super) fn for_name(name: &str) -> Option<&'static Self> {
        let reads = |entry: &&Self| entry.extensions.iter().any(|extension| name.ends_with(extension));
        inventory::iter::<Self>().filter(reads).min_by_key(|entry| entry.descriptor.name)
    }
}

impl Entry for RecordReaderEntry {
    const KIND: &'static str = "record_reader";
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }
}

impl fmt::Debug for RecordReaderEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.descriptor.fmt(f)
    }
}

impl PartialEq for RecordReaderEntry {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for RecordReaderEntry {}

inventory::collect!(RecordReaderEntry);

/// Registers a [`RecordReaderPlugin`].
#[macro_export]
macro_rules! register_record_reader {
    ($plugin:ty) => {
        $crate::__submit!($crate::format::RecordReaderEntry, $plugin);
    };
}

/// All readers of other crates that are linked into this binary, by name.
///
/// # Errors
/// When two share a name.
pub fn record_readers() -> Result<Vec<PluginInfo>, PluginError> {
    Ok(Registry::<RecordReaderEntry>::collect()?.list())
}
