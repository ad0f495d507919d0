//! What a stage is asked to do.

use std::path::PathBuf;

use internevo_core::config::PipelineConfig;
use serde_json::json;

use super::{
    input::{InputFile, inputs_fingerprint},
    strategy::Strategies,
};
use crate::{
    DataError,
    filter::FilterContext,
    format::{self, Extractor, ExtractorContext},
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
    /// Brings them into the common form; pages give their text to this.
    Format(Box<dyn Extractor>),
    /// Judges them.
    Filter(Strategies),
    /// Removes near-duplicates.
    Dedup,
}

impl StageRequest<'_> {
    /// Builds the stage's filters.
    pub(super) fn plan(&self) -> Result<Plan, DataError> {
        match self.stage {
            "format" => {
                let context = ExtractorContext { artifacts: &self.artifacts };
                Ok(Plan::Format(format::extractor(&self.pipeline.format, &context)?))
            }
            "dedup" => Ok(Plan::Dedup),
            _ => Ok(Plan::Filter(self.strategies()?)),
        }
    }

    /// The filters of the stage, as it would ask them.
    ///
    /// # Errors
    /// A stage without filters, an unknown filter, settings that do not fit, a model that is missing.
    pub fn strategies(&self) -> Result<Strategies, DataError> {
        let context = FilterContext { lang: self.lang, artifacts: &self.artifacts };
        let code = CODE_FILTERS.map(str::to_owned);
        let names = match self.stage {
            "code" => Some(code.as_slice()),
            stage => self.pipeline.filters(stage),
        };
        let unknown = || DataError::UnknownStage { stage: self.stage.to_owned(), known: STAGES.join(", ") };
        Ok(Strategies::build(self.stage, names.ok_or_else(unknown)?, self.pipeline, &context)?)
    }

    /// A hash of all that the output depends on.
    pub(super) fn hash(&self, plan: &Plan, inputs: &[InputFile]) -> String {
        let what = match plan {
            Plan::Format(extractor) => json!([self.pipeline.format, extractor.fingerprint()]),
            Plan::Dedup => json!(crate::dedup::result_settings(&self.pipeline.dedup)),
            Plan::Filter(strategies) => strategies.identity(self.pipeline),
        };
        let all = json!([env!("CARGO_PKG_VERSION"), self.stage, self.lang, what, inputs_fingerprint(inputs)]);
        blake3::hash(all.to_string().as_bytes()).to_hex().to_string()
    }
}
