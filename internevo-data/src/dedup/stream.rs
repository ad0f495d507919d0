//! Deduplication in one pass over a stream: what such a method is, how a crate offers one by name, and the run over files. The built-in
//! one is `bloom.rs`.

use std::{borrow::Cow, fmt, path::Path};

use internevo_core::plugin::{Descriptor, Entry, Origin, Plugin, PluginError, PluginInfo, Registry, parse_config};
use rayon::prelude::*;

use super::{
    report::{DuplicateReport, write_duplicates},
    settings::Settings,
    stage::{STAGE, for_chunks, keep_document, place, reject_broken},
};
use crate::{
    DataError, Document,
    stage::{Chunk, ChunkOutput, InputFile, Progress, Rejection, StageReport, StageWriter},
};

/// Says of each document, in the order of the input, whether it repeats an earlier one. The first one stays.
pub trait StreamDeduplicator: Send + Sync {
    /// What is compared of a document, such as hashes of its parts. Computed on all threads, in any order.
    fn features(&self, document: &Document) -> Vec<u64>;

    /// Takes the next document; `Some` if it goes. The same sequence must always get the same answers.
    fn take(&mut self, features: &[u64]) -> Option<Repetition>;
}

/// Why a document goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Repetition {
    /// Which rule, in snake_case; reports count by it.
    pub reason: Cow<'static, str>,
    /// How similar it is to what came before, or whatever else was measured.
    pub value: f64,
}

/// What a method is told when it is built.
#[derive(Clone, Copy, Debug)]
pub struct DeduplicatorContext {
    /// Size of all inputs as stored, bytes.
    pub stored_bytes: u64,
    /// Memory that it may use, bytes. The result must not depend on it.
    pub memory: usize,
}

/// A method that can be named in `pipeline.dedup.method`.
pub trait DeduplicatorPlugin: Plugin {
    /// Builds the method from its table in `pipeline.dedup.settings`.
    ///
    /// # Errors
    /// [`PluginError::Build`] when a setting makes no sense or the memory is too small.
    fn build(config: Self::Config, cx: &DeduplicatorContext) -> Result<Box<dyn StreamDeduplicator>, PluginError>;
}

/// [`DeduplicatorPlugin::build`] with its settings still a table.
type BuildDeduplicator = fn(&toml::Table, &DeduplicatorContext) -> Result<Box<dyn StreamDeduplicator>, PluginError>;

/// A registered method.
pub struct DeduplicatorEntry {
    descriptor: Descriptor,
    build: BuildDeduplicator,
}

impl DeduplicatorEntry {
    /// The entry of plugin `P`; used by [`register_deduplicator!`](crate::register_deduplicator).
    pub const fn of<P: DeduplicatorPlugin>(origin: Origin) -> Self {
        Self { descriptor: Descriptor::of::<P>(Self::KIND, origin), build: build_erased::<P> }
    }

    /// Builds the method from its table in `settings`.
    ///
    /// # Errors
    /// A table that does not fit, or what [`DeduplicatorPlugin::build`] refuses.
    pub fn build(
        &self,
        settings: &toml::Table,
        cx: &DeduplicatorContext,
    ) -> Result<Box<dyn StreamDeduplicator>, PluginError> {
        let plugin = self.descriptor.name;
        match settings.get(plugin) {
            None => (self.build)(&toml::Table::new(), cx),
            Some(toml::Value::Table(table)) => (self.build)(table, cx),
            Some(other) => {
                let reason = format!("expected a table, found {}", other.type_str());
                Err(PluginError::Config { plugin, key: ".".into(), reason })
            }
        }
    }
}

fn build_erased<P: DeduplicatorPlugin>(
    table: &toml::Table,
    cx: &DeduplicatorContext,
) -> Result<Box<dyn StreamDeduplicator>, PluginError> {
    P::build(parse_config::<P>(table)?, cx)
}

impl Entry for DeduplicatorEntry {
    const KIND: &'static str = "deduplicator";
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }
}

impl fmt::Debug for DeduplicatorEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.descriptor.fmt(f)
    }
}

impl PartialEq for DeduplicatorEntry {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for DeduplicatorEntry {}

crate::filter::__inventory::collect!(DeduplicatorEntry);

/// Registers a [`DeduplicatorPlugin`].
#[macro_export]
macro_rules! register_deduplicator {
    ($plugin:ty) => {
        $crate::filter::__inventory::submit! {
            $crate::dedup::DeduplicatorEntry::of::<$plugin>($crate::filter::__origin!())
        }
    };
}

/// All methods of other crates that are linked into this binary, by name.
///
/// # Errors
/// When two share a name.
pub fn deduplicators() -> Result<Vec<PluginInfo>, PluginError> {
    Ok(Registry::<DeduplicatorEntry>::collect()?.list())
}

/// Drops what `method` has seen before.
///
/// # Errors
/// A file that cannot be read or written, a stop request.
pub(super) fn run(
    inputs: &[InputFile],
    mut writer: StageWriter,
    output: &Path,
    settings: &Settings,
    method: &mut dyn StreamDeduplicator,
    progress: &dyn Progress,
) -> Result<StageReport, DataError> {
    let decide = |chunk: &Chunk| {
        let read = |item| {
            let (document, named) = chunk.document(item, inputs)?;
            let features = method.features(&document);
            Ok((document, named, features))
        };
        let documents: Vec<Result<_, _>> = chunk.items.par_iter().map(read).collect();
        let mut lines = ChunkOutput::default();
        for (item, document) in chunk.items.iter().zip(documents) {
            match document {
                Err(fault) => reject_broken(chunk, item, &place(inputs, item), &fault, &mut lines),
                Ok((document, named, features)) => match method.take(&features) {
                    Some(Repetition { reason, value }) => {
                        lines.reject(&Rejection::of(&document, &place(inputs, item), STAGE, &reason, value));
                    }
                    None if named => lines.keep(chunk.bytes(item), document.text.len()),
                    None => keep_document(&document, document.text.len(), &mut lines),
                },
            }
        }
        Ok(lines)
    };
    for_chunks(inputs, settings.chunk_bytes(), progress, decide, |chunk, lines| {
        writer.begin_part(chunk.part)?;
        writer.append(&lines)?;
        writer.tell(progress, chunk.stored);
        Ok(())
    })?;
    write_duplicates(output, &DuplicateReport::default())?;
    writer.finish()
}
