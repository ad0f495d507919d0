//! Deduplication in one pass over a stream: what such a method is, how a crate offers one by name, and the run over files. The built-in
//! one is `bloom.rs`.

use std::{borrow::Cow, path::Path};

use internevo_core::{
    plugin::{Plugin, PluginError},
    plugin_kind,
};
use rayon::prelude::*;

use super::{
    report::{DuplicateReport, write_duplicates},
    settings::Settings,
    stage::{STAGE, for_chunks, keep_document, place},
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

plugin_kind! {
    /// A registered method.
    pub struct DeduplicatorEntry("deduplicator"):
        DeduplicatorPlugin::build(&DeduplicatorContext) -> Result<Box<dyn StreamDeduplicator>, PluginError>;
    /// All methods of other crates that are linked into this binary, by name.
    pub fn deduplicators;
}

/// Registers a [`DeduplicatorPlugin`].
#[macro_export]
macro_rules! register_deduplicator {
    ($plugin:ty) => {
        $crate::__submit!($crate::dedup::DeduplicatorEntry, $plugin);
    };
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
                Err(fault) => lines.reject_broken(chunk.bytes(item), &place(inputs, item), &fault),
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
