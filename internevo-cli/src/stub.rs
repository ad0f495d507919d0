
use std::path::PathBuf;
pub struct StageRequest<'a> { pub stage: String, pub input: PathBuf, pub output: PathBuf, pub lang: Option<String>, pub threads: usize, pub pipeline: &'a internevo_core::config::PipelineConfig }
pub fn run_stage(_r: &StageRequest<'_>, _p: &dyn internevo_data::stage::Progress) -> Result<internevo_data::stage::StageReport, internevo_data::DataError> { panic!() }
