//! A stage of the pipeline: documents in, documents out, and for every document that does not come out the reason.
//!
//! | file | holds |
//! |---|---|
//! | `request.rs` | what is asked for: [`StageRequest`], the stages by name |
//! | `strategy.rs` | which filters judge which documents: [`Strategies`] |
//! | `run.rs` | the run itself: [`run_stage`] |
//! | `measure.rs` | what the filters of a stage measure, without judging: [`measure`] |
//! | `input.rs`, `reader.rs` | the files of an input, and the run over their lines in chunks |
//! | `output.rs` | one chunk's lines and counts on their way out: [`ChunkOutput`], [`Rejection`] |
//! | `writer.rs` | the output folder: [`StageWriter`], and what makes it resumable |
//! | `report.rs` | [`StageReport`], the content of `report.json` |
//! | `usage.rs` | CPU seconds and memory of this process, and free memory |

mod input;
mod measure;
mod output;
mod progress;
mod reader;
mod report;
mod request;
mod run;
mod strategy;
#[cfg(test)]
mod tests;
mod usage;
mod writer;

pub use self::{
    input::{InputFile, find_inputs, inputs_fingerprint},
    measure::{MeasureReport, measure},
    output::{ChunkOutput, Rejection},
    progress::Progress,
    report::{EditTotal, Example, FilterTotal, RuleTotal, StageReport},
    request::{STAGES, StageRequest},
    run::run_stage,
    strategy::Strategies,
    writer::{REPORT, StageWriter, finished},
};
pub(crate) use self::{
    reader::{Chunk, ChunkReader, Item, in_chunks},
    usage::free_memory,
    writer::Position,
};
