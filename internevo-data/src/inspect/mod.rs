//! A look at documents: what a file or folder holds, and what a stage did to its documents, up to those that were kept or rejected by
//! a hair. Nothing here changes anything; the pages and prompts around it belong to the command line.
//!
//! | file | holds |
//! |---|---|
//! | `survey.rs` | counts, languages, sources, lengths and fields of any input: [`Survey`] |
//! | `stages.rs` | the stages of a folder and their funnel by source: [`StageView`] |
//! | `borderline.rs` | each rule's values on both sides of its threshold: [`RuleView`] |
//! | `histogram.rs` | numbers in bins: [`Histogram`] |

mod borderline;
mod histogram;
mod stages;
mod survey;
#[cfg(test)]
mod tests;

pub use self::{
    borderline::{Borderline, BorderlineOptions, RuleView, Sample, borderline},
    histogram::Histogram,
    stages::{SourceFlow, StageView, stage_folders, view_stage},
    survey::{Count, FieldSurvey, Survey, SurveySample, survey},
};
use crate::{
    DataError,
    document::{Document, LineFault},
    stage::{Chunk, ChunkReader, InputFile, Item, find_inputs},
};

/// Bytes of input that are handed to the threads at once.
const CHUNK_BYTES: usize = 4 << 20;

/// The first characters of a text.
fn excerpt(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}

/// The inputs of a folder that may be empty.
fn inputs_or_none(folder: &std::path::Path) -> Result<Vec<InputFile>, DataError> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    match find_inputs(folder, "".as_ref()) {
        Err(DataError::EmptyInput { .. }) => Ok(Vec::new()),
        found => found,
    }
}

/// Reads all documents of `inputs`: `map` on all threads, `fold` in their order.
fn for_documents<T: Send>(
    inputs: &[InputFile],
    map: impl Fn(Result<Document, LineFault>) -> T + Sync,
    mut fold: impl FnMut(T),
) -> Result<(), DataError> {
    use rayon::prelude::*;
    let mut reader = ChunkReader::new(inputs, Default::default(), CHUNK_BYTES);
    let document = |chunk: &Chunk, item: &Item| chunk.document(item, inputs).map(|(document, _)| document);
    while let Some(chunk) = reader.next_chunk()? {
        let mapped: Vec<T> = chunk.items.par_iter().map(|item| map(document(&chunk, item))).collect();
        mapped.into_iter().for_each(&mut fold);
    }
    Ok(())
}
