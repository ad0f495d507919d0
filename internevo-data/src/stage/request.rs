//! What a stage is asked to do.

use std::path::PathBuf;

use internevo_core::config::PipelineConfig;
use serde_json::json;

use super::input::{InputFile, inputs_fingerprint};
use crate::{
    DataError,
    filter::{FilterChain, FilterContext},
};

/// One run of one stage.
#[derive(Clone, Debug)]
pub struct StageRequest<'a> {
    /// Its name: one of [`STAGES`].
    pub stage: &'a str,
    /// A file, a folder, or the output folder of an earlier stage.
    pub input: PathBuf,
    /// Where `kept/`, `rejected/` and `report.json` go.
    pub output: PathBuf,
    /// Language of all documents; `None`: each document's own `lang`.
    pub lang: Option<&'a str>,
    /// Threads; 0 = all cores. The output does not depend on it.
    pub threads: usize,
    /// Folder of trained models; see [`FilterContext::artifacts`].
    pub artifacts: PathBuf,
    /// Filters of each stage and their settings.
    pub pipeline: &'a PipelineConfig,
}

/// The stages, in the order of the pipeline, then those that stand beside it.
pub const STAGES: [&str; 6] = ["format", "clean", "dedup", "safe", "quality", "code"];

/// Filters of the stage `code`.
const CODE_FILTERS: [&str; 1] = ["code_quality"];

/// What a stage does with documents.
pub(super) enum Plan {
    /// Brings them into the common form.
    Format,
    /// Judges them.
    Filter(FilterChain),
    /// Removes near-duplicates.
    Dedup,
}

impl StageRequest<'_> {
    /// Builds the stage's filters.
    pub(super) fn plan(&self) -> Result<Plan, DataError> {
        let names = match self.stage {
            "format" => return Ok(Plan::Format),
            "dedup" => return Ok(Plan::Dedup),
            "clean" => self.pipeline.clean.clone(),
            "safe" => self.pipeline.safe.clone(),
            "quality" => self.pipeline.quality.clone(),
            "code" => CODE_FILTERS.map(str::to_owned).to_vec(),
            _ => {
                return Err(DataError::UnknownStage { stage: self.stage.to_owned(), known: STAGES.join(", ") });
            }
        };
        let context = FilterContext { lang: self.lang, artifacts: &self.artifacts };
        Ok(Plan::Filter(FilterChain::build(&names, &self.pipeline.filter, &context)?))
    }

    /// A hash of all that the output depends on.
    pub(super) fn hash(&self, plan: &Plan, inputs: &[InputFile]) -> String {
        let what = match plan {
            Plan::Format => json!(null),
            Plan::Dedup => json!(crate::dedup::result_settings(&self.pipeline.dedup)),
            Plan::Filter(chain) => {
                let names: Vec<&str> = chain.names().collect();
                let settings: Vec<_> = names.iter().map(|name| self.pipeline.filter.get(*name)).collect();
                json!([names, settings, chain.fingerprints()])
            }
        };
        let all = json!([env!("CARGO_PKG_VERSION"), self.stage, self.lang, what, inputs_fingerprint(inputs)]);
        blake3::hash(all.to_string().as_bytes()).to_hex().to_string()
    }
}
