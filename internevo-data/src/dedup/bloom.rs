//! Equal texts in one pass: a Bloom filter says whether a text was seen. For streams too long for a sort; a few documents that are no
//! copies go too, and the kept copy cannot be named.

use std::path::Path;

use fastbloom::BloomFilter;
use rayon::prelude::*;

use super::{
    report::{DuplicateReport, write_duplicates},
    settings::Settings,
    stage::{STAGE, for_chunks, keep_document, place, reject_broken},
    tokens::text_identity,
};
use crate::{
    DataError,
    stage::{ChunkOutput, InputFile, Progress, Rejection, StageReport, StageWriter},
};

/// Seed of the filter's hashes: the same documents go in every run.
const SEED: u128 = 0x0064_6564_7570;
/// Stored bytes of a short document, for a guess how many there may be.
const SHORT_DOCUMENT: u64 = 256;
/// Reason of a rejected document.
const REASON: &str = "seen_before";

/// Drops texts that were seen before.
///
/// # Errors
/// A file that cannot be read or written, a stop request.
pub(super) fn run(
    inputs: &[InputFile],
    mut writer: StageWriter,
    output: &Path,
    settings: &Settings,
    progress: &dyn Progress,
) -> Result<StageReport, DataError> {
    let bytes: u64 = inputs.iter().map(|file| file.bytes).sum();
    let mut filter = filter((bytes / SHORT_DOCUMENT).max(1000), settings)?;
    for_chunks(inputs, progress, |chunk| {
        let read = |item| {
            let document = chunk.document(item, inputs)?;
            let identity = text_identity(&document.0.text);
            Ok((document, identity))
        };
        let documents: Vec<Result<_, _>> = chunk.items.par_iter().map(read).collect();
        let mut lines = ChunkOutput::default();
        for (item, document) in chunk.items.iter().zip(documents) {
            match document {
                Err(fault) => reject_broken(chunk, item, &place(inputs, item), &fault, &mut lines),
                Ok(((document, _), identity)) if filter.insert(&identity) => {
                    lines.reject(&Rejection::of(&document, &place(inputs, item), STAGE, REASON, 1.0));
                }
                Ok(((document, true), _)) => lines.keep(chunk.bytes(item), document.text.len()),
                Ok(((document, false), _)) => keep_document(&document, document.text.len(), &mut lines),
            }
        }
        writer.begin_part(chunk.part)?;
        writer.append(&lines)?;
        let (documents, kept) = lines.documents();
        progress.advance(chunk.stored, documents, kept);
        Ok(())
    })?;
    write_duplicates(output, &DuplicateReport::default())?;
    writer.finish()
}

/// A filter for `documents` documents.
fn filter(documents: u64, settings: &Settings) -> Result<BloomFilter, DataError> {
    let bits = -(documents as f64) * settings.false_positives.ln() / std::f64::consts::LN_2.powi(2);
    let (needed, allowed) = (bits as usize / 8, settings.memory / 2);
    if needed > allowed {
        // A smaller filter would give another result: memory must never do that.
        let reason = format!(
            "a filter for {documents} documents needs {} MiB, half of the memory is {} MiB: allow more memory or more false positives",
            needed >> 20,
            allowed >> 20
        );
        return Err(DataError::Setting { key: "pipeline.dedup.memory".into(), reason });
    }
    Ok(BloomFilter::with_num_bits(needed.max(1 << 13) * 8).seed(&SEED).expected_items(documents as usize))
}
